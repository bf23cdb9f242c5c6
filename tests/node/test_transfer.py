"""What is said on a connection that carries a snapshot: every name and number from outside is looked at."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest

from raftchat.node.transfer import (
    BadTransfer,
    Frames,
    Manifest,
    SegmentFile,
    WantFile,
    WantManifest,
    decode_want,
    encode_want,
    frame,
)

MANIFEST = Manifest(
    300,
    7,
    f"{300:020}-7.snapshot",
    1000,
    (
        SegmentFile(f"{4:08}-{1:020}-0002.log", 4, 1, 2, 200, 99, 4096),
        SegmentFile(f"{5:08}-{201:020}.log", 5, 201, 0, 300, 98, 65536),
    ),
)


def test_a_manifest_comes_back_as_it_was_and_knows_its_size() -> None:
    assert Manifest.decode(orjson.loads(orjson.dumps(MANIFEST.encode()))) == MANIFEST
    assert MANIFEST.size_bytes == 1000 + 4096 + 65536


@pytest.mark.parametrize(
    "want", [WantManifest(12), WantFile(MANIFEST.segments[0].name, 77), WantFile("0" * 20 + "-1.snapshot", 0)]
)
def test_questions_come_back_as_they_were_however_the_stream_is_cut(want: WantManifest | WantFile) -> None:
    data = encode_want(want)
    frames = Frames()
    for at in range(len(data) - 1):
        frames.feed(data[at : at + 1])
        assert frames.next() is None
    frames.feed(data[-1:] + b"raw")
    fields = frames.next()
    assert fields is not None
    assert decode_want(fields) == want
    assert frames.take(2) == b"ra"
    assert frames.take(2) == b"w"


@pytest.mark.parametrize(
    "name",
    [
        "../identity",
        "/etc/passwd",
        "hard-state",
        "",
        "00000001-00000000000000000001.idx",
        "a/00000001-00000000000000000001.log",
        "00000001-00000000000000000001.log\x00",
        "00000001-00000000000000000001.log\n",
        None,
        5,
    ],
)
def test_only_names_that_a_node_gives_its_files_can_be_asked_for(name: Any) -> None:
    with pytest.raises(BadTransfer):
        decode_want({"Want": "file", "Name": name, "Offset": 0})


@pytest.mark.parametrize(
    "change",
    [
        {"Index": 301},
        {"Index": -1},
        {"Index": True},
        {"Term": 1 << 64},
        {"Segments": []},
        {"Segments": None},
        {"Snapshot": {"Name": "x", "Size": 1}},
        {"Snapshot": {"Name": MANIFEST.snapshot_name}},
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadTransfer):
        Manifest.decode(MANIFEST.encode() | change)


@pytest.mark.parametrize("change", [{"Base": 202}, {"Base": 200}, {"Sequence": 4}, {"Last": 299}, {"Name": "../x"}])
def test_segments_that_do_not_follow_each_other_are_refused(change: dict[str, Any]) -> None:
    fields = MANIFEST.encode()
    fields["Segments"][1] |= change
    with pytest.raises(BadTransfer):
        Manifest.decode(fields)


def test_random_bytes_are_refused_or_waited_for_and_nothing_else() -> None:
    rng = random.Random(5)
    for _ in range(2000):
        frames = Frames()
        frames.feed(
            rng.randbytes(rng.randrange(1, 40))
            if rng.random() < 0.5
            else frame({"Want": rng.choice([1, "file", None])})
        )
        try:
            fields = frames.next()
            if fields is not None:
                decode_want(fields)
        except BadTransfer:
            continue
