"""Fan-out: who gets what, in which order, in how many writes; and that nothing is left of those who went."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from raftchat import _log
from raftchat.worker.hub import Hub, Rooms, text_frame
from tests.worker.support import TIME_MS, record


def unframed(data: bytes) -> list[bytes]:
    """The payloads of whole text frames, read by another implementation of RFC 6455."""
    reader = StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    payloads = []
    while reader.buffer:
        parser = Frame.parse(reader.read_exact, mask=False)
        try:
            while True:
                next(parser)
        except StopIteration as end:
            frame = end.value
        assert frame.opcode is Opcode.TEXT
        assert frame.fin
        payloads.append(bytes(frame.data))
    return payloads


class Sink:
    def __init__(self) -> None:
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def texts(self) -> list[tuple[str, str]]:
        frames = [json.loads(payload) for payload in unframed(b"".join(self.writes))]
        return [(frame["RoomName"], frame["Post"]["Message"]) for frame in frames]


class Published:
    """A log and the hub that is told what is committed."""

    def __init__(self, directory: Path) -> None:
        self.log = _log.Log(str(directory), new_segment_id=itertools.count(1).__next__, segment_size_bytes=1 << 22)
        self.reader = _log.LogReader(str(directory))
        for segment in self.log.segments():
            self.reader.add_segment(segment.sequence, segment.base_index)
        self.hub = Hub()

    def __call__(self, *messages: tuple[str, str]) -> None:
        first = self.log.last_index + 1
        self.log.append(b"".join(record(room, text) for room, text in messages), 1, TIME_MS)
        self.hub.publish(self.reader, first, self.log.last_index)


@pytest.fixture
def published(tmp_path: Path) -> Iterator[Published]:
    made = Published(tmp_path)
    yield made
    made.reader.close()
    made.log.close()


def wants(hub: Hub, *rooms: str) -> Sink:
    sink = Sink()
    hub.subscribe(sink, filter_of(rooms))
    return sink


def filter_of(rooms: tuple[str, ...]) -> Rooms:
    return frozenset(room.encode() for room in rooms) or None


def test_each_gets_what_it_wants_in_order(published: Published) -> None:
    hub = published.hub
    everything, a, b, both = wants(hub), wants(hub, "a"), wants(hub, "b"), wants(hub, "a", "b")
    published(("a", "1"), ("b", "2"), ("c", "3"), ("a", "4"))
    published(("b", "5"))
    assert everything.texts() == [("a", "1"), ("b", "2"), ("c", "3"), ("a", "4"), ("b", "5")]
    assert a.texts() == [("a", "1"), ("a", "4")]
    assert b.texts() == [("b", "2"), ("b", "5")]
    assert both.texts() == [("a", "1"), ("b", "2"), ("a", "4"), ("b", "5")]
    assert hub.delivered == 5 + 2 + 2 + 4


def test_without_one_that_wants_everything_others_rooms_are_not_even_rendered(published: Published) -> None:
    sink = wants(published.hub, "größe")
    published(("größe", "ja"), ("b", "no"))
    assert sink.texts() == [("größe", "ja")]


def test_what_one_slice_brings_is_one_write_and_the_same_bytes(published: Published) -> None:
    sinks = [wants(published.hub, "a") for _ in range(3)]
    published(*(("a", str(number)) for number in range(100)))
    assert [len(sink.writes) for sink in sinks] == [1, 1, 1]
    assert sinks[0].writes[0] is sinks[1].writes[0] is sinks[2].writes[0]
    assert [text for _, text in sinks[0].texts()] == [str(number) for number in range(100)]


def test_a_frame_is_the_message_with_its_room(published: Published) -> None:
    sink = wants(published.hub)
    published(('r"\n', "<b>\u2028\"'"))
    (payload,) = unframed(sink.writes[0])
    assert json.loads(payload) == {
        "RoomName": 'r"\n',
        "Post": {"ID": 1, "PostedAt": "2023-11-14T22:13:20.123Z", "User": "u", "Message": "<b>\u2028\"'"},
    }


def test_nobody_is_written_to_about_rooms_that_nobody_wants(published: Published) -> None:
    sink = wants(published.hub, "a")
    published(("b", "1"))
    assert sink.writes == []


def test_entries_that_are_no_posts_are_not_told(published: Published) -> None:
    sink = wants(published.hub)
    published.log.append(_log.pack(_log.KIND_NOOP, b"", b""), 1, TIME_MS)
    published.hub.publish(published.reader, 1, 1)
    assert sink.writes == []


def test_who_unsubscribed_gets_nothing_and_leaves_nothing(published: Published) -> None:
    hub = published.hub
    all_rooms, a = wants(hub), wants(hub, "a")
    hub.unsubscribe(all_rooms, None)
    hub.unsubscribe(all_rooms, None)
    published(("a", "1"))
    assert (all_rooms.writes, a.texts()) == ([], [("a", "1")])
    hub.unsubscribe(a, filter_of(("a",)))
    assert len(hub) == 0
    assert not hub.watched
    assert (hub._groups, hub._by_room, hub._names) == ({}, {}, {})


def test_a_sink_may_leave_while_it_is_written_to(published: Published) -> None:
    hub = published.hub

    class Leaving(Sink):
        def write(self, data: bytes) -> None:
            super().write(data)
            hub.unsubscribe(self, None)

    leaving = [Leaving() for _ in range(3)]
    for sink in leaving:
        hub.subscribe(sink, None)
    published(("a", "1"))
    published(("a", "2"))
    assert [sink.texts() for sink in leaving] == [[("a", "1")]] * 3


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([(), ("a",), ("a", "b"), ("c",)])), max_size=30))
def test_however_sockets_come_and_go_each_gets_its_rooms_from_then_on(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, tuple[str, ...]]]
) -> None:
    published = Published(tmp_path_factory.mktemp("log"))
    watching: list[tuple[Sink, tuple[str, ...], list[tuple[str, str]]]] = []
    for number, (room, rooms) in enumerate(steps):
        if len(watching) > 4:
            sink, of, expected = watching.pop(0)
            published.hub.unsubscribe(sink, filter_of(of))
            assert sink.texts() == expected
        watching.append((wants(published.hub, *rooms), rooms, []))
        published((room, str(number)))
        for _, of, expected in watching:
            if not of or room in of:
                expected.append((room, str(number)))
    for sink, _, expected in watching:
        assert sink.texts() == expected


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 100_000])
def test_frames_of_every_size_are_rfc_6455(size: int) -> None:
    assert unframed(text_frame(b"x" * size)) == [b"x" * size]
