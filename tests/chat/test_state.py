"""The state is a function of the entries alone: what commands do to rooms and policies, and what they leave alone."""

from time import process_time

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftchat.chat.apply import advance
from raftchat.chat.commands import (
    KIND_MEMBERSHIP,
    KIND_POST,
    KIND_REMOVE_ROOM,
    KIND_RETENTION,
    KIND_TRIM,
    RoomTrim,
    remove_room,
    set_retention,
    trim_json,
    trim_rooms,
)
from raftchat.chat.policy import Policy
from raftchat.chat.state import ChatState, NewerState, UnknownKind

from .memory_log import MemoryLog


def applied(log):
    state = ChatState()
    advance(state, log, 1, log.last_index)
    return state


def trim(log, state, key, messages):
    """The command that removes so many of a room's oldest messages."""
    room = state.room(key)
    found = log.trim(key, room.floor, state.applied_index, messages=messages, bytes=0, before_ms=0, below=0)
    return trim_rooms([trim_json(RoomTrim(key, room.floor, *found))])


def told(room):
    return room.floor, room.first_id, room.last_id, room.count


def three_posts():
    log = MemoryLog()
    for _ in range(3):
        log.post(b"a")
    return log, applied(log)


def test_rooms_come_into_being_with_their_first_message():
    log = MemoryLog()
    log.noop()
    log.post(b"b")
    log.append(KIND_MEMBERSHIP)
    log.post(b"a")
    log.post(b"b", "longer")
    state = applied(log)
    assert (len(state), state.messages, state.applied_index, state.applied_time_ms) == (2, 3, 5, 5)
    room = state.room(b"b")
    assert (room.name, room.last_time_ms, room.trimmed_time_ms) == ("b", 5, 0)
    assert told(room) == (2, 2, 5, 2)
    assert room.bytes == log.all[1].size + log.all[4].size
    assert state.bytes == room.bytes + log.all[3].size
    assert state.room(b"c") is None
    assert state.floors() == {b"a": 4, b"b": 2}


def test_a_trim_raises_the_floor_and_takes_its_numbers_off():
    log, state = three_posts()
    log.post(b"b")
    log.command(trim(log, state, b"a", 2), time_ms=70)
    state = applied(log)
    room = state.room(b"a")
    assert told(room) == (3, 3, 3, 1)
    assert (room.bytes, room.trimmed_time_ms) == (log.all[2].size, 70)
    assert (state.messages, state.bytes) == (2, room.bytes + log.all[3].size)


def test_a_room_trimmed_to_nothing_stays_and_may_be_posted_to_again():
    log, state = three_posts()
    log.command(trim(log, state, b"a", 3))
    state = applied(log)
    assert told(state.room(b"a")) == (4, 0, 3, 0)
    assert (state.room(b"a").bytes, state.messages, state.bytes, state.empty_rooms) == (0, 0, 0, {b"a"})
    assert [room.name for room in state.rooms_after(9)[0]] == ["a"]
    log.post(b"a")
    state = applied(log)
    assert told(state.room(b"a")) == (4, 5, 5, 1)
    assert not state.empty_rooms


def test_a_trim_holds_only_for_the_floor_it_was_made_from():
    log, state = three_posts()
    for _ in range(2):
        log.command(trim(log, state, b"a", 1))
    assert told(applied(log).room(b"a")) == (2, 2, 3, 2)


def test_a_trim_that_leaves_nothing_is_void_once_something_was_posted():
    """Which message is the first of those that came since is not in the trim, and not in the state."""
    log, state = three_posts()
    all_of_it = trim(log, state, b"a", 3)
    log.post(b"a")
    log.command(all_of_it)
    assert told(applied(log).room(b"a")) == (1, 1, 4, 4)


def test_a_trim_of_a_former_life_of_the_room_is_void():
    log, state = three_posts()
    old = trim(log, state, b"a", 1)
    log.command(remove_room(b"a"))
    log.command(old)
    log.post(b"a")
    log.command(old)
    state = applied(log)
    assert told(state.room(b"a")) == (6, 6, 6, 1)
    assert state.messages == 1


def test_removing_a_room_takes_its_messages_and_its_policy():
    log, state = three_posts()
    log.post(b"b")
    log.command(set_retention(b"a", Policy(max_messages=5)))
    log.command(remove_room(b"a"))
    state = applied(log)
    assert (state.room(b"a"), len(state), state.messages, state.bytes) == (None, 1, 1, log.all[3].size)
    assert [room.name for room in state.rooms_after(9)[0]] == ["b"]
    assert not state.policies.rooms
    log.post(b"a")
    assert told(applied(log).room(b"a")) == (7, 7, 7, 1)


def test_retention_removes_a_room_only_if_nothing_was_posted_since_and_leaves_its_policy():
    log, _ = three_posts()
    log.command(set_retention(b"a", Policy(max_messages=5)))
    log.command(remove_room(b"a", 2))
    assert applied(log).room(b"a").count == 3
    log.command(remove_room(b"a", 3))
    state = applied(log)
    assert (len(state), state.messages) == (0, 0)
    assert list(state.policies.rooms) == [b"a"]


def test_removing_a_room_that_is_not_there_is_nothing():
    log = MemoryLog()
    log.command(remove_room(b"a"))
    log.command(remove_room(b"a", 7))
    assert len(applied(log)) == 0


def test_policies_are_set_and_removed():
    log = MemoryLog()
    log.command(set_retention(b"", Policy(max_rooms=3)))
    log.command(set_retention(b"a", Policy(max_age_ms=1500)))
    log.command(set_retention(b"b", Policy(max_bytes=7)))
    log.command(set_retention(b"b", None))
    policies = applied(log).policies
    assert (policies.cluster, policies.rooms) == (Policy(max_rooms=3), {b"a": Policy(max_age_ms=1500)})
    log.command(set_retention(b"", None))
    assert applied(log).policies.cluster is None


def test_flags_at_bootstrap_hold_only_until_a_policy_was_ever_set():
    log = MemoryLog()
    log.command(set_retention(b"a", Policy(max_bytes=7)))
    log.command(set_retention(b"", Policy(max_rooms=1), if_unset=True))
    log.command(set_retention(b"", Policy(max_rooms=2), if_unset=True))
    assert applied(log).policies.cluster == Policy(max_rooms=1)
    log.command(set_retention(b"", None))
    log.command(set_retention(b"", Policy(max_rooms=4), if_unset=True))
    policies = applied(log).policies
    assert (policies.cluster, policies.cluster_was_set) == (None, True)


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        (3, b"", b""),
        (15, b"", b""),
        (20, b"", b""),
        (255, b"", b""),
        (KIND_POST, b"\xff", b""),
        (KIND_TRIM, b"", b""),
        (KIND_TRIM, b"", b"{}"),
        (KIND_TRIM, b"", b"[1]"),
        (KIND_TRIM, b"a", b"[]"),
        (KIND_TRIM, b"", b'[["a",1,2,1,8]]'),
        (KIND_TRIM, b"", b'[["a",1,2,1,8,2,0]]'),
        (KIND_TRIM, b"", b'[["a",2,2,1,8,2]]'),
        (KIND_TRIM, b"", b'[["a",1,2,1,8,3]]'),
        (KIND_TRIM, b"", b'[["a",1,2,0,8,2]]'),
        (KIND_TRIM, b"", b'[["a",1,2,1,-8,2]]'),
        (KIND_TRIM, b"", b'[["a",1,2,true,8,2]]'),
        (KIND_TRIM, b"", b'[["a",1,2,1.0,8,2]]'),
        (KIND_TRIM, b"", b'[["a",1,99,1,8,0]]'),
        (KIND_TRIM, b"", b"[[7,1,2,1,8,2]]"),
        (KIND_TRIM, b"", b'[["a",1,2,1,8,2]]x'),
        (KIND_REMOVE_ROOM, b"a", b"null"),
        (KIND_REMOVE_ROOM, b"a", b"{}"),
        (KIND_REMOVE_ROOM, b"a", b'{"IfLastID":0}'),
        (KIND_REMOVE_ROOM, b"a", b'{"IfLastID":"1"}'),
        (KIND_REMOVE_ROOM, b"a", b'{"IfLastID":1,"And":2}'),
        (KIND_REMOVE_ROOM, b"\xff", b""),
        (KIND_RETENTION, b"", b""),
        (KIND_RETENTION, b"", b"[]"),
        (KIND_RETENTION, b"", b'{"MaxAges":1}'),
        (KIND_RETENTION, b"a", b'{"MaxRooms":1}'),
        (KIND_RETENTION, b"a", b'{"MaxAge":1,"IfUnset":true}'),
        (KIND_RETENTION, b"", b'{"MaxAge":1,"IfUnset":1}'),
        (KIND_RETENTION, b"", b'{"MaxAge":"long"}'),
        (KIND_RETENTION, b"\xff", b"null"),
    ],
)
def test_what_cannot_be_interpreted_halts_with_the_state_before_it(kind, key, value):
    """Row 33 of what must be survived: an old binary must not skip what it does not know."""
    log, before = three_posts()
    index = log.append(kind, key, value)
    log.post(b"a")
    for first, last in ((4, 4), (4, 5)):
        state = ChatState.decode(before.encode())
        with pytest.raises(UnknownKind, match=f"entry {index} .*kind {kind}.*newer") as caught:
            advance(state, log, first, last)
        assert (caught.value.kind, caught.value.index) == (kind, index)
        assert state.encode() == before.encode()
    whole = ChatState()
    with pytest.raises(UnknownKind):
        advance(whole, log, 1, 5)
    assert whole.applied_index in (0, 3)


def test_a_command_among_others_that_cannot_be_interpreted_leaves_those_before_it():
    log, state = three_posts()
    log.command(trim(log, state, b"a", 1))
    log.append(KIND_RETENTION, b"", b"nonsense")
    log.command(remove_room(b"a"))
    state = ChatState()
    with pytest.raises(UnknownKind, match="entry 5"):
        advance(state, log, 1, 6)
    assert (state.applied_index, told(state.room(b"a"))) == (4, (2, 2, 3, 2))


def test_gaps_between_slices_are_refused():
    log, state = three_posts()
    log.post(b"a")
    log.post(b"a")
    with pytest.raises(AssertionError):
        advance(state, log, 5, 5)


# Encoded


def test_the_hash_tells_states_apart():
    def hashed(*posts):
        log = MemoryLog()
        for key in posts:
            log.post(key) if key else log.noop()
        return applied(log).state_hash()

    assert len({hashed(b"a", b"b"), hashed(b"b", b"a"), hashed(b"a"), hashed(b"a", b"b", b"")}) == 4


def test_what_a_newer_version_wrote_is_told_from_nonsense():
    document = orjson.loads(three_posts()[1].encode())
    with pytest.raises(NewerState, match="format 2"):
        ChatState.decode(orjson.dumps({**document, "Version": 2}))
    for name in document:
        for wrong in (None, "x", [[1]], {"MaxAge": []}):
            if (name, wrong) != ("ClusterPolicy", None):
                with pytest.raises(ValueError, match=r"."):
                    ChatState.decode(orjson.dumps({**document, name: wrong}))
        with pytest.raises(ValueError, match="not a chat state"):
            ChatState.decode(orjson.dumps({key: value for key, value in document.items() if key != name}))
    for data in (b"", b"[]", b"{}", b"\xff"):
        with pytest.raises(ValueError, match=r"."):
            ChatState.decode(data)


def test_a_hundred_thousand_rooms_are_encoded_and_decoded_quickly():
    log = MemoryLog()
    for number in range(100_000):
        log.post(b"a room with a name of some length, number %d" % number)
    state = applied(log)
    began = process_time()
    data = state.encode()
    decoded = ChatState.decode(data)
    took_s = process_time() - began
    assert decoded.encode() == data
    assert took_s < 2, "seconds of CPU"


# Listed

NAMES = ["Zoo", "a", "ab", "abc", "b", "ba", "größe", "z", "\uffee", "😀"]


def with_rooms(names):
    log = MemoryLog()
    for name in names:
        log.post(name.encode())
    return applied(log)


def listed(state, *arguments, **keywords):
    rooms, more = state.rooms_after(*arguments, **keywords)
    return [room.name for room in rooms], more


def test_rooms_are_listed_in_order_with_prefix_and_cursor():
    state = with_rooms(reversed(NAMES))
    assert listed(state, 100) == (NAMES, False)
    assert listed(state, 2) == (["Zoo", "a"], True)
    assert listed(state, 2, after="a") == (["ab", "abc"], True)
    assert listed(state, 9, after="abb") == (["abc", "b", "ba", "größe", "z", "\uffee", "😀"], False)
    assert listed(state, 9, prefix="a") == (["a", "ab", "abc"], False)
    assert listed(state, 2, prefix="a") == (["a", "ab"], True)
    assert listed(state, 3, prefix="a") == (["a", "ab", "abc"], False)
    assert listed(state, 9, after="ab", prefix="a") == (["abc"], False)
    assert listed(state, 9, after="b", prefix="a") == ([], False)
    assert listed(state, 9, after="A", prefix="b") == (["b", "ba"], False)
    assert listed(state, 9, prefix="nothing") == ([], False)
    assert listed(state, 9, after="😀") == ([], False)
    assert listed(state, 9, after="\ud800") == (["\uffee", "😀"], False)


@given(st.sets(st.text("ab", min_size=1, max_size=4)), st.text("ab", max_size=2), st.integers(1, 3))
def test_a_walk_over_the_rooms_finds_each_once(names, prefix, limit):
    state = with_rooms(names)
    found, after, more = [], None, True
    while more:
        page, more = listed(state, limit, after=after, prefix=prefix)
        assert page or not more
        found += page
        after = found[-1] if found else None
    assert found == sorted(name for name in names if name.startswith(prefix))
