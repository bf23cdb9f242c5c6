"""However the committed range is sliced, and wherever it was encoded and decoded on the way, the state is the same."""

from random import Random

import pytest

from raftchat.chat.apply import advance
from raftchat.chat.commands import RoomTrim, remove_room, set_retention, trim_json, trim_rooms
from raftchat.chat.policy import Policy
from raftchat.chat.state import ChatState

from .memory_log import MemoryLog

KEYS = [b"a", b"b", "ü".encode(), b"zz"]


def random_history(random: Random, length: int) -> MemoryLog:
    """Posts and commands, of which many are made from a state that is not that any more when they are applied."""
    log, state = MemoryLog(), ChatState()
    while log.last_index < length:
        if random.random() < 0.4:
            advance(state, log, state.applied_index + 1, log.last_index)
        key = random.choice(KEYS)
        room = state.room(key)
        match random.choices(["post", "trim", "remove", "policy", "noop"], [12, 5, 2, 1, 1])[0]:
            case "post":
                log.post(key, "x" * random.randrange(30))
            case "trim":
                trims = []
                for trimmed in random.sample(KEYS, 2):
                    room = state.room(trimmed)
                    if room is not None and room.count:
                        found = log.trim(
                            trimmed,
                            room.floor,
                            state.applied_index,
                            messages=random.choice([1, 2, room.count]),
                            bytes=0,
                            before_ms=0,
                            below=0,
                        )
                        trims.append(trim_json(RoomTrim(trimmed, room.floor, *found)))
                log.command(trim_rooms(trims))
            case "remove":
                log.command(remove_room(key, random.choice([None, room.last_id]) if room is not None else None))
            case "policy":
                limit = random.choice([None, 3])
                key = random.choice([b"", key])
                log.command(set_retention(key, None if limit is None else Policy(max_messages=limit)))
            case "noop":
                log.noop()
    return log


@pytest.mark.parametrize("seed", range(150))
def test_slices_do_not_matter(seed):
    random = Random(seed)
    log = random_history(random, 120)
    whole = ChatState()
    advance(whole, log, 1, log.last_index)
    sliced, decoded = ChatState(), ChatState()
    for index in range(1, log.last_index + 1):
        if random.random() < 0.3 or index == log.last_index:
            advance(sliced, log, sliced.applied_index + 1, index)
            advance(decoded, log, decoded.applied_index + 1, index)
            decoded = ChatState.decode(decoded.encode())
            assert sliced.encode() == decoded.encode()
            assert (sliced.messages, sliced.bytes, sliced.empty_rooms) == (
                decoded.messages,
                decoded.bytes,
                decoded.empty_rooms,
            )
    assert whole.encode() == sliced.encode()


@pytest.mark.parametrize("seed", range(150))
def test_the_state_knows_of_each_room_what_the_log_finds(seed):
    log = random_history(Random(seed), 120)
    state = ChatState()
    messages = size_bytes = 0
    advance(state, log, 1, log.last_index)
    for key, room in state.rooms.items():
        posts = log.posts(key, room.floor)
        assert (room.count, room.bytes) == (len(posts), sum(post.size for post in posts))
        assert room.first_id == (posts[0].index if posts else 0)
        assert room.last_id == log.posts(key)[-1].index
        messages, size_bytes = messages + room.count, size_bytes + room.bytes
    assert (state.messages, state.bytes) == (messages, size_bytes)


def test_the_histories_reach_what_they_are_for():
    """Rooms emptied, removed, posted to again; trims that hold and that do not."""
    emptied = removed = void = 0
    for seed in range(50):
        log, state = random_history(Random(seed), 120), ChatState()
        for index in range(1, log.last_index + 1):
            before, empty = state.encode(), len(state.empty_rooms)
            rooms = len(state)
            advance(state, log, index, index)
            emptied += len(state.empty_rooms) > empty
            removed += len(state) < rooms
            if log.all[index - 1].kind == 17:
                changed = ChatState.decode(before)
                changed.applied_index, changed.applied_time_ms = state.applied_index, state.applied_time_ms
                void += changed.encode() == state.encode()
    assert min(emptied, removed, void) > 50
