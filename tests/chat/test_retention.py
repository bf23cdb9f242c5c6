"""What a plan is made of: commands of bounded size, in a sound order, no more often than they have to be."""

import pytest

from raftchat.chat.apply import advance
from raftchat.chat.commands import KIND_REMOVE_ROOM, KIND_TRIM, parse_trims
from raftchat.chat.policy import Policy
from raftchat.chat.retention import plan
from raftchat.chat.state import ChatState

from .memory_log import MemoryLog

RECORD_MAX_BYTES = 4096


class CountingLog(MemoryLog):
    def __init__(self):
        super().__init__()
        self.looked_up = 0

    def entries(self, first_index, last_index):
        self.looked_up += 1
        return super().entries(first_index, last_index)

    def trim(self, *arguments, **keywords):
        self.looked_up += 1
        return super().trim(*arguments, **keywords)


def applied(log):
    state = ChatState()
    advance(state, log, 1, log.last_index)
    return state


def planned(log, state, now_ms, cluster=None, rooms=None, **limits):
    limits.setdefault("record_size_max_bytes", RECORD_MAX_BYTES)
    return plan(state, log, now_ms, cluster=cluster, rooms=rooms or {}, **limits)


def carry_out(log, state, made, now_ms):
    for command in made.commands:
        log.command(command, time_ms=now_ms)
    advance(state, log, state.applied_index + 1, log.last_index)


def rooms_with(*counts, gap_ms=10):
    """Rooms a, b, …, one after the other, with so many messages each."""
    log = CountingLog()
    for name, count in zip("abcdefgh", counts, strict=False):
        for _ in range(count):
            log.post(name.encode(), time_ms=(log.last_index + 1) * gap_ms)
    return log, applied(log)


def losses(made):
    return {room.key.decode(): room.messages for room in made.rooms}


def test_without_policies_nothing_goes_and_nothing_is_looked_up():
    log, state = rooms_with(3, 2)
    made = planned(log, state, 10**15)
    assert (made.commands, made.rooms, made.more, log.looked_up) == ([], [], False, 0)


def test_nothing_beyond_a_limit_costs_a_look_at_the_oldest_message_alone():
    log, state = rooms_with(*[9] * 8)
    made = planned(log, state, 1000, Policy(max_age_ms=995, max_messages=72, max_bytes=10**6, max_rooms=8))
    assert not made.commands
    assert log.looked_up <= 4


def test_what_is_exactly_as_old_as_allowed_stays():
    log, state = rooms_with(3)
    assert losses(planned(log, state, 1020, Policy(max_age_ms=1000))) == {"a": 1}
    assert losses(planned(log, state, 1021, Policy(max_age_ms=1000))) == {"a": 2}


def test_a_rooms_own_age_counts_instead_of_the_clusters():
    log, state = rooms_with(3, 3)
    long, short = Policy(max_age_ms=10_000), Policy(max_age_ms=25)
    assert losses(planned(log, state, 80, short)) == {"a": 3, "b": 2}
    assert losses(planned(log, state, 80, short, {b"a": long})) == {"b": 2}
    assert losses(planned(log, state, 80, long, {b"b": short})) == {"b": 2}
    assert losses(planned(log, state, 80, short, {b"a": Policy(max_messages=9)})) == {"a": 3, "b": 2}


def test_the_clusters_limits_count_all_rooms_together_the_oldest_first():
    log, state = rooms_with(3, 3)
    assert losses(planned(log, state, 70, Policy(max_messages=2))) == {"a": 3, "b": 1}
    assert losses(planned(log, state, 70, Policy(max_bytes=state.bytes - 1))) == {"a": 1}
    own = {b"b": Policy(max_messages=1)}
    assert losses(planned(log, state, 70, Policy(max_messages=3), own)) == {"b": 2, "a": 1}


def test_the_least_recently_active_rooms_go_whole():
    log, state = rooms_with(2, 2, 2)
    log.post(b"a")
    state = applied(log)
    made = planned(log, state, 70, Policy(max_rooms=2))
    assert [(c.kind, c.key, c.value) for c in made.commands] == [(KIND_REMOVE_ROOM, b"b", b'{"IfLastID":4}')]
    assert [(room.key, room.messages, room.removed) for room in made.rooms] == [(b"b", 2, True)]


def test_empty_rooms_go_when_they_have_been_empty_for_long_enough():
    log, state = rooms_with(2, 2)
    carry_out(log, state, planned(log, state, 10**6, None, {b"a": Policy(max_age_ms=1)}), 10**6)
    assert state.empty_rooms == {b"a"}
    hour_ms = 3_600_000
    assert not planned(log, state, 10**6 + hour_ms - 1).commands
    assert [c.key for c in planned(log, state, 10**6 + hour_ms).commands] == [b"a"]
    assert not planned(log, state, 10**12, Policy(empty_room_age_ms=None)).commands
    made = planned(log, state, 10**6, Policy(empty_room_age_ms=0))
    carry_out(log, state, made, 10**6)
    assert list(state.rooms) == [b"b"]


def test_a_dry_run_tells_what_goes():
    log, state = rooms_with(2, 3)
    made = planned(log, state, 60, Policy(max_rooms=1), {b"b": Policy(max_messages=2)})
    size_bytes = log.all[0].size
    assert made.to_json() == {
        "Messages": 3,
        "Bytes": 3 * size_bytes,
        "Rooms": [
            {"Name": "a", "Messages": 2, "Bytes": 2 * size_bytes, "Removed": True},
            {"Name": "b", "Messages": 1, "Bytes": size_bytes, "Removed": False},
        ],
    }


def test_trims_are_spread_over_commands_that_fit_into_a_record():
    log = CountingLog()
    for number in range(60):
        for _ in range(2):
            log.post(b"%03d" % number + b'"' * 250)
    state = applied(log)
    made = planned(log, state, 10**9, Policy(max_messages=60), record_size_max_bytes=2048)
    assert len(made.commands) > 7
    assert all(48 + len(command.value) <= 2048 for command in made.commands)
    assert sum(len(parse_trims(command.key, command.value)) for command in made.commands) == 30
    assert all(command.kind == KIND_TRIM for command in made.commands)
    carry_out(log, state, made, 10**9)
    assert state.messages == 60


def test_no_more_rooms_are_changed_at_once_than_asked_for_and_it_is_said():
    log, state = rooms_with(2, 2, 2, 2)
    policy = Policy(max_age_ms=1)
    for left in (3, 2, 1, 0):
        made = planned(log, state, 10**6, policy, rooms_max=1)
        assert (len(made.rooms), made.more) == (1, left > 0)
        carry_out(log, state, made, 10**6)
    assert state.messages == 0


def test_in_a_busy_room_all_but_the_newest_go_in_any_case():
    """That nothing stays is void once something was posted: then the next plan must not be as void, for ever."""
    log, state = rooms_with(4)
    made = planned(log, state, 200, Policy(max_age_ms=1))
    log.post(b"a")
    carry_out(log, state, made, 200)
    assert [post.index for post in log.posts(b"a", state.room(b"a").floor)] == [4, 5]
    quiet = planned(log, state, 10**9, Policy(max_age_ms=1))
    assert [len(parse_trims(c.key, c.value)) for c in quiet.commands] == [1]


def test_the_same_plan_twice_removes_once():
    log, state = rooms_with(5, 5)
    made = planned(log, state, 110, Policy(max_messages=6), {b"b": Policy(max_messages=2)})
    for _ in range(2):
        carry_out(log, state, made, 110)
        assert {key: room.count for key, room in state.rooms.items()} == {b"a": 4, b"b": 2}


class Rotten(Exception):
    pass


class RottenLog(CountingLog):
    """Some of its records cannot be read; to find the oldest of all means to read them all."""

    def __init__(self, *rotten):
        super().__init__()
        self.rotten = set(rotten)

    def entries(self, first_index, last_index):
        self.check(range(first_index, last_index + 1))
        return super().entries(first_index, last_index)

    def trim(self, key, floor, last_index, **limits):
        self.check(post.index for post in self.posts(key, floor, last_index))
        return super().trim(key, floor, last_index, **limits)

    def nth_oldest(self, floors, last_index, **limits):
        self.check(range(1, last_index + 1))
        return super().nth_oldest(floors, last_index, **limits)

    def check(self, indexes):
        bad = self.rotten.intersection(indexes)
        if bad:
            raise Rotten(min(bad))


def rotten_rooms(*rotten):
    """Rooms a to d of four messages each, in turn: a has 1, 5, 9 and 13."""
    log = RottenLog()
    for _ in range(4):
        for key in (b"a", b"b", b"c", b"d"):
            log.post(key, time_ms=(log.last_index + 1) * 10)
    state = applied(log)
    log.rotten.update(rotten)
    return log, state


@pytest.mark.parametrize(
    ("cluster", "rooms", "rotten"),
    [
        (Policy(max_age_ms=10), {}, 2),  # looked at for its age
        (Policy(max_age_ms=10), {}, 10),  # met on the way to where the floor comes to lie
        (Policy(), {key: Policy(max_age_ms=10) for key in (b"a", b"b", b"c", b"d")}, 2),
        (Policy(), {key: Policy(max_messages=1) for key in (b"a", b"b", b"c", b"d")}, 6),
    ],
)
def test_a_room_that_cannot_be_read_is_left_out_and_the_others_are_not(cluster, rooms, rotten):
    log, state = rotten_rooms(rotten)
    made = planned(log, state, 10**6, cluster, rooms, faults=(Rotten,))
    assert set(made.unreadable) == {b"b"}
    assert isinstance(made.unreadable[b"b"], Rotten)
    assert set(losses(made)) == {"a", "c", "d"}
    assert made.commands
    with pytest.raises(Rotten):
        planned(log, state, 10**6, cluster, rooms)


def test_every_room_may_be_unreadable():
    log, state = rotten_rooms(*range(1, 17))
    made = planned(log, state, 10**6, Policy(max_age_ms=10), faults=(Rotten,))
    assert (made.commands, sorted(made.unreadable)) == ([], [b"a", b"b", b"c", b"d"])


def test_a_busy_room_whose_newest_cannot_be_told_from_the_rest_is_left_out():
    class LateRot(RottenLog):
        def trim(self, key, floor, last_index, **limits):
            if limits["messages"] == 3:
                raise Rotten
            return super().trim(key, floor, last_index, **limits)

    log, state = rotten_rooms()
    log.__class__ = LateRot
    made = planned(log, state, 1000, Policy(max_age_ms=1), {b"a": Policy()}, faults=(Rotten,))
    assert (made.commands, losses(made), len(made.unreadable)) == ([], {}, 4)


def test_the_clusters_limits_wait_while_the_oldest_cannot_be_read_but_the_rooms_own_do_not():
    log, state = rotten_rooms(2)
    made = planned(log, state, 10**6, Policy(max_messages=3), {b"c": Policy(max_messages=1)}, faults=(Rotten,))
    assert set(made.unreadable) == {b""}
    assert losses(made) == {"c": 3}
