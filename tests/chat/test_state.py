"""The state is a function of the entries alone: slices do not matter, unknown kinds halt it."""

from array import array
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftchat.chat.commands import KIND_MEMBERSHIP, KIND_NOOP, KIND_POST
from raftchat.chat.state import ChatState, UnknownKind


@dataclass
class Run:
    kind: int
    key: bytes
    indexes: array = field(default_factory=lambda: array("Q"))
    bytes: int = 0
    last_time_ms: int = 0


def runs(entries, first):
    """Group (kind, key) by first appearance, as the log's `scan` does. Entry i takes 8 * i bytes, at i ms."""
    grouped = {}
    for index, entry in enumerate(entries, first):
        run = grouped.setdefault(entry, Run(*entry))
        run.indexes.append(index)
        run.bytes += 8 * index
        run.last_time_ms = index
    return list(grouped.values())


def applied(entries, slices=()):
    state = ChatState()
    start = 0
    for stop in [*sorted(s for s in slices if s < len(entries)), len(entries)]:
        state.apply(start + 1, stop, runs(entries[start:stop], start + 1))
        start = stop
    return state


def test_rooms_come_into_being_with_their_first_message():
    state = applied([(KIND_NOOP, b""), (KIND_POST, b"b"), (KIND_MEMBERSHIP, b""), (KIND_POST, b"a"), (KIND_POST, b"b")])
    assert (len(state), state.messages, state.applied_index) == (2, 3, 5)
    room = state.room(b"b")
    assert (room.name, room.count, room.first_id, room.last_id, room.last_time_ms) == ("b", 2, 2, 5, 5)
    assert room.bytes == 8 * (2 + 5)
    assert list(room.ids) == [2, 5]
    assert state.room(b"c") is None


@given(
    st.lists(
        st.sampled_from([(KIND_NOOP, b""), *((KIND_POST, name) for name in (b"a", b"b", "ü".encode(), b"z"))]),
        max_size=60,
    ),
    st.sets(st.integers(1, 59)),
)
def test_slices_do_not_matter(entries, slices):
    assert applied(entries).state_hash() == applied(entries, slices).state_hash()


def test_the_hash_tells_states_apart():
    one = [(KIND_POST, b"a"), (KIND_POST, b"b")]
    assert len({applied(entries).state_hash() for entries in (one, one[::-1], one[:1], [*one, (KIND_NOOP, b"")])}) == 4


def test_an_unknown_kind_halts_and_names_kind_and_index():
    """Row 33 of what must be survived: an old binary must not skip what it does not know."""
    state = applied([(KIND_POST, b"a")])
    before = state.state_hash()
    with pytest.raises(UnknownKind, match="entry 3 is of kind 77") as caught:
        state.apply(2, 3, runs([(KIND_POST, b"a"), (77, b"")], 2))
    assert (caught.value.kind, caught.value.index) == (77, 3)
    assert state.state_hash() == before


@pytest.mark.parametrize("kind", [3, 15, 17, 255])
def test_only_known_kinds_are_applied(kind):
    with pytest.raises(UnknownKind):
        applied([(kind, b"")])


def test_gaps_between_slices_are_refused():
    state = applied([(KIND_POST, b"a")])
    with pytest.raises(AssertionError):
        state.apply(3, 3, [])


NAMES = ["Zoo", "a", "ab", "abc", "b", "ba", "größe", "z", "😀"]


def listed(state, *arguments, **keywords):
    rooms, more = state.rooms_after(*arguments, **keywords)
    return [room.name for room in rooms], more


def test_rooms_are_listed_in_order_with_prefix_and_cursor():
    state = applied([(KIND_POST, name.encode()) for name in reversed(NAMES)])
    assert listed(state, 100) == (NAMES, False)
    assert listed(state, 2) == (["Zoo", "a"], True)
    assert listed(state, 2, after="a") == (["ab", "abc"], True)
    assert listed(state, 9, after="abb") == (["abc", "b", "ba", "größe", "z", "😀"], False)
    assert listed(state, 9, prefix="a") == (["a", "ab", "abc"], False)
    assert listed(state, 2, prefix="a") == (["a", "ab"], True)
    assert listed(state, 3, prefix="a") == (["a", "ab", "abc"], False)
    assert listed(state, 9, after="ab", prefix="a") == (["abc"], False)
    assert listed(state, 9, after="b", prefix="a") == ([], False)
    assert listed(state, 9, after="A", prefix="b") == (["b", "ba"], False)
    assert listed(state, 9, prefix="nothing") == ([], False)
    assert listed(state, 9, after="😀") == ([], False)


@given(st.sets(st.text("ab", min_size=1, max_size=4)), st.text("ab", max_size=2), st.integers(1, 3))
def test_a_walk_over_the_rooms_finds_each_once(names, prefix, limit):
    state = applied([(KIND_POST, name.encode()) for name in names])
    found, after, more = [], None, True
    while more:
        page, more = listed(state, limit, after=after, prefix=prefix)
        assert page or not more
        found += page
        after = found[-1] if found else None
    assert found == sorted(name for name in names if name.startswith(prefix))
