"""Identity: stored whole or not at all, checked against the flags, and refused with the remedy."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from raftchat.storage import identity
from raftchat.storage.errors import CorruptFile, StorageError

URLS = ["http://127.0.0.1:12379", "http://127.0.0.1:22379", "http://127.0.0.1:32379"]


def test_all_members_compute_the_same_cluster_id() -> None:
    assert {identity.bootstrap(member, URLS).cluster_id for member in (1, 2, 3)} == {
        identity.bootstrap(1, URLS).cluster_id
    }
    assert identity.bootstrap(1, URLS).cluster_id != identity.bootstrap(1, URLS[::-1]).cluster_id
    assert identity.bootstrap(2, URLS).members == {1: URLS[0], 2: URLS[1], 3: URLS[2]}


def test_stored_and_loaded(tmp_path: Path) -> None:
    assert identity.load(str(tmp_path)) is None
    mine = identity.bootstrap(2, URLS)
    identity.store(str(tmp_path), mine)
    assert identity.load(str(tmp_path)) == mine
    assert os.listdir(tmp_path) == ["identity"]


def test_damage_anywhere_is_detected(tmp_path: Path) -> None:
    data = identity.encode(identity.bootstrap(2, URLS))
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptFile, match="some/identity"):
            identity.decode(bytes(flipped), "some/identity")
    for size in range(len(data)):
        with pytest.raises(CorruptFile):
            identity.decode(data[:size], "some/identity")


def test_a_newer_format_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "FORMAT", 2)
    data = identity.encode(identity.bootstrap(1, URLS))
    monkeypatch.undo()
    with pytest.raises(StorageError, match="newer version") as caught:
        identity.decode(data, "some/identity")
    assert not isinstance(caught.value, CorruptFile)


def test_wrong_id_is_refused_with_the_remedy() -> None:
    with pytest.raises(StorageError, match=r"belongs to node 2.*use --id 2, or another --data-dir"):
        identity.check(identity.bootstrap(2, URLS), "data", 1, URLS)


@pytest.mark.parametrize(
    "urls",
    [["http://10.0.0.1:1", "http://10.0.0.2:1"], [*URLS, "http://127.0.0.1:42379"], URLS[:2], URLS[::-1]],
    ids=["other", "more", "fewer", "order"],
)
def test_another_cluster_list_is_refused_with_both_lists_and_the_remedy(urls: list[str]) -> None:
    mine = identity.bootstrap(2, URLS)
    with pytest.raises(StorageError) as refused:
        identity.check(mine, "data", 2, urls)
    assert f"started with --cluster {','.join(urls)};" in str(refused.value)
    assert f"use --cluster {','.join(URLS)}, or another --data-dir" in str(refused.value)


def test_the_list_that_the_directory_began_with_is_taken() -> None:
    identity.check(identity.bootstrap(2, URLS), "data", 2, URLS)
