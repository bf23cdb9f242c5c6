"""Plan and apply, compared with a model that keeps every message, over thousands of random logs and policies."""

from dataclasses import replace
from random import Random

import pytest

from raftchat.chat.apply import advance
from raftchat.chat.commands import KIND_NOOP, KIND_TRIM
from raftchat.chat.policy import Policy
from raftchat.chat.retention import plan
from raftchat.chat.retention_clock import RetentionClock
from raftchat.chat.state import ChatState

from .memory_log import MemoryLog

KEYS = [b"a", b"b", b"c", 'ü"\\'.encode(), b"dd", b"e"]
RECORD_MAX_BYTES = 120
"""So small that nearly each trim is a command of its own."""


def random_limit(random, *choices):
    return random.choice([None, *choices]) if random.random() < 0.5 else None


def random_policy(random, *, cluster):
    limits = {
        "max_age_ms": random_limit(random, 1, 20, 60, 200),
        "max_messages": random_limit(random, 1, 2, 5, 12),
        "max_bytes": random_limit(random, 1, 90, 300, 900),
    }
    if cluster:
        limits["max_rooms"] = random_limit(random, 1, 2, 4)
        limits["empty_room_age_ms"] = random.choice([None, 0, 1, 30])
    return Policy(**limits)


def random_log(random):
    log = MemoryLog()
    time_ms = 1000
    for _ in range(random.randrange(40)):
        time_ms += random.choice([0, 0, 1, 5, 30])
        if random.random() < 0.1:
            log.noop()
        else:
            log.post(random.choice(KEYS), "x" * random.randrange(20), time_ms)
    return log, time_ms + random.choice([0, 1, 40])


class Model:
    """key → (messages that are left, ID of the last one ever, time of the last message or trim)."""

    def __init__(self, log, state):
        self.rooms = {}
        for key, room in state.rooms.items():
            self.rooms[key] = (
                log.posts(key, room.floor),
                log.posts(key)[-1].index,
                max(log.posts(key)[-1].time_ms, room.trimmed_time_ms),
            )

    def retain(self, now_ms, cluster, policies):
        for key, (posts, _, touched_ms) in list(self.rooms.items()):
            age_ms = cluster.empty_room_age_ms
            if not posts and age_ms is not None and now_ms - touched_ms >= age_ms:
                del self.rooms[key]
        while cluster.max_rooms is not None and len(self.rooms) > cluster.max_rooms:
            del self.rooms[min(self.rooms, key=lambda key: self.rooms[key][1])]
        for key, (posts, *_) in self.rooms.items():
            own = policies.get(key, Policy())
            age_ms = cluster.max_age_ms if own.max_age_ms is None else own.max_age_ms
            while posts and (
                (own.max_messages is not None and len(posts) > own.max_messages)
                or (own.max_bytes is not None and sum(post.size for post in posts) > own.max_bytes)
                or (age_ms is not None and posts[0].time_ms < now_ms - age_ms)
            ):
                del posts[0]
        while True:
            every = sorted(post for posts, *_ in self.rooms.values() for post in posts)
            too_many = cluster.max_messages is not None and len(every) > cluster.max_messages
            if not too_many and (cluster.max_bytes is None or sum(post.size for post in every) <= cluster.max_bytes):
                return
            self.rooms[every[0].key][0].remove(every[0])

    def live(self):
        return {key: [post.index for post in posts] for key, (posts, *_) in self.rooms.items()}


def live(log, state):
    return {key: [post.index for post in log.posts(key, room.floor)] for key, room in state.rooms.items()}


def run(log, state, now_ms, cluster, policies, **limits):
    made = plan(state, log, now_ms, cluster=cluster, rooms=policies, record_size_max_bytes=RECORD_MAX_BYTES, **limits)
    for command in made.commands:
        assert 48 + len(command.key) + len(command.value) <= RECORD_MAX_BYTES or command.value.count(b"],[") == 0
        log.command(command, time_ms=now_ms)
    if made.commands:
        advance(state, log, state.applied_index + 1, log.last_index)
    return made


@pytest.mark.parametrize("block", range(20))
def test_plan_and_apply_do_what_the_policies_say(block):
    for seed in range(block * 150, block * 150 + 150):
        random = Random(seed)
        log, now_ms = random_log(random)
        state = ChatState()
        if log.last_index:
            advance(state, log, 1, log.last_index)
        for _ in range(3):
            cluster = random_policy(random, cluster=True)
            policies = {key: random_policy(random, cluster=False) for key in random.sample(KEYS, random.randrange(4))}
            model = Model(log, state)
            before = {key: (room.count, room.bytes) for key, room in state.rooms.items()}
            totals = state.messages, state.bytes
            model.retain(now_ms, cluster, policies)

            made = run(log, state, now_ms, cluster, policies)

            assert live(log, state) == model.live(), seed
            assert not made.more
            assert (made.messages, made.bytes) == (totals[0] - state.messages, totals[1] - state.bytes), seed
            assert len({loss.key for loss in made.rooms}) == len(made.rooms)
            for loss in made.rooms:
                room = state.room(loss.key)
                assert loss.removed == (room is None)
                left = (room.count, room.bytes) if room is not None else (0, 0)
                assert (loss.messages, loss.bytes) == tuple(a - b for a, b in zip(before[loss.key], left, strict=True))
            # What follows is made from what is left: nothing goes twice.
            again = run(log, state, now_ms, cluster, policies)
            assert not any(command.kind == KIND_TRIM for command in again.commands)
            assert all(loss.messages == 0 for loss in again.rooms)

            now_ms += random.choice([1, 25, 80])
            for _ in range(random.randrange(10)):
                log.post(random.choice(KEYS), "y" * random.randrange(20), now_ms)
            if log.last_index > state.applied_index:
                advance(state, log, state.applied_index + 1, log.last_index)


@pytest.mark.parametrize("block", range(5))
def test_in_small_portions_the_same_comes_out(block):
    """But for rooms that are emptied on the way, which may go sooner, and the cluster's bytes: which message goes that
    is larger than what has to go depends on the portion."""
    for seed in range(block * 100, block * 100 + 100):
        random = Random(seed)
        log, now_ms = random_log(random)
        if not log.last_index:
            continue
        state = ChatState()
        advance(state, log, 1, log.last_index)
        cluster = replace(random_policy(random, cluster=True), max_bytes=None)
        policies = {key: random_policy(random, cluster=False) for key in random.sample(KEYS, 3)}
        model = Model(log, state)
        model.retain(now_ms, cluster, policies)
        rounds = 0
        while (made := run(log, state, now_ms, cluster, policies, rooms_max=1)).commands:
            assert len({loss.key for loss in made.rooms}) == 1
            rounds += 1
            assert rounds < 50
        expected = {key: ids for key, ids in model.live().items() if ids}
        assert {key: ids for key, ids in live(log, state).items() if ids} == expected, seed


@pytest.mark.parametrize("seed", range(150))
def test_what_is_posted_between_plan_and_apply_is_never_removed(seed):
    random = Random(seed)
    log, now_ms = random_log(random)
    if not log.last_index:
        return
    state = ChatState()
    advance(state, log, 1, log.last_index)
    cluster = random_policy(random, cluster=True)
    made = plan(state, log, now_ms, cluster=cluster, rooms={}, record_size_max_bytes=RECORD_MAX_BYTES)
    late = [log.post(random.choice(KEYS), "late", now_ms) for _ in range(random.randrange(1, 4))]
    for command in random.sample(made.commands, len(made.commands)):
        log.command(command)
    advance(state, log, state.applied_index + 1, log.last_index)
    found = [index for ids in live(log, state).values() for index in ids]
    assert set(late) <= set(found)
    assert state.messages == len(found)
    for key, room in state.rooms.items():
        posts = log.posts(key, room.floor)
        assert (room.count, room.first_id) == (len(posts), posts[0].index if posts else 0)


@pytest.mark.parametrize("block", range(4))
def test_lives_with_wrong_clocks_remove_nothing_too_young_while_there_is_time_to_set_them_right(block):
    """Restart after restart, one of them with a clock that is far ahead, and set right before the hold is over."""
    age_ms, leap_ms, settle_ms = 100_000, 60, 1000
    policy = Policy(max_age_ms=age_ms)
    for seed in range(block * 50, block * 50 + 50):
        random = Random(seed)
        log, state, true_ms, found = MemoryLog(), ChatState(), 10**9, 0
        posted = {}
        wrong = random.randrange(1, 6)
        for number in range(6):
            offset_ms = random.choice([10**6, 10**8, 10**10]) if number == wrong else 0
            last_ms = log.all[-1].time_ms if log.all else 0
            boot_ms = random.randrange(10**6)
            clock = RetentionClock(
                true_ms + offset_ms, boot_ms, clock_leap_max_ms=leap_ms, clock_settle_ms=settle_ms, log_time_ms=last_ms
            )
            for passed_ms in sorted(random.randrange(settle_ms) for _ in range(5)):
                wall_ms = true_ms + passed_ms + offset_ms
                # A leader begins its term with an entry of its own.
                log.append(KIND_NOOP, time_ms=wall_ms)
                posted[log.post(random.choice(KEYS), time_ms=wall_ms)] = true_ms + passed_ms
                advance(state, log, state.applied_index + 1, log.last_index)
                now_ms = clock.read(wall_ms, boot_ms + passed_ms, state.applied_time_ms).now_ms
                before = live(log, state)
                run(log, state, now_ms, policy, {})
                after = live(log, state)
                for key, ids in before.items():
                    gone = set(ids) - set(after.get(key, []))
                    found += len(gone)
                    assert all(posted[at] < true_ms + passed_ms - age_ms for at in gone), seed
            true_ms += settle_ms + random.choice([0, 50, 10 * age_ms])
        # Set right, all that is too old goes but what bears a time to come; and at once, since the log is not behind.
        now_ms = RetentionClock(true_ms, 0, clock_leap_max_ms=leap_ms).read(true_ms, 0, state.applied_time_ms).now_ms
        run(log, state, now_ms, policy, {})
        assert all(log.all[at - 1].time_ms >= true_ms - age_ms for ids in live(log, state).values() for at in ids)
