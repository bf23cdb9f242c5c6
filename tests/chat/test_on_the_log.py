"""The same on the log itself as on the one in memory: states, plans, pages, with and without indexes, compacted too."""

import itertools
from random import Random

import pytest

from raftchat import _log, log_reference
from raftchat.chat import commands, pages
from raftchat.chat.apply import advance
from raftchat.chat.commands import remove_room
from raftchat.chat.policy import Policy
from raftchat.chat.retention import plan
from raftchat.chat.state import ChatState

from .memory_log import MemoryLog

KEYS = [b"a", b"b", b"c", "ü".encode()]
SEGMENT_SIZE_BYTES = 4096


class BothLogs:
    """One history in memory and on disk, a state applied from each; segments are indexed and compacted as it goes."""

    def __init__(self, module, directory, random):
        self.module = module
        self.random = random
        ids = itertools.count(1)
        self.new_segment_id = lambda: next(ids)
        self.directory = directory
        self.memory = MemoryLog()
        self.log = module.Log(directory, new_segment_id=self.new_segment_id, segment_size_bytes=SEGMENT_SIZE_BYTES)
        self.reader = module.LogReader(directory)
        self.known = set()
        self.indexed = set()
        self.in_memory, self.on_disk = ChatState(), ChatState()

    def append(self, command, time_ms):
        self.memory.command(command, time_ms)
        self.log.append(self.module.pack(*command), 1, time_ms)

    def add_segments(self):
        for segment in self.log.segments():
            name = segment.sequence, segment.base_index, segment.revision
            if name not in self.known:
                self.reader.add_segment(*name)
                self.known.add(name)

    def apply(self):
        first, last = self.in_memory.applied_index + 1, self.memory.last_index
        if first <= last:
            self.add_segments()
            advance(self.in_memory, self.memory, first, last)
            advance(self.on_disk, self.reader, first, last)
        assert self.on_disk.encode() == self.in_memory.encode()

    def index_some(self):
        for segment in self.log.segments()[:-1]:
            if (segment.sequence, segment.revision) not in self.indexed and self.random.random() < 0.5:
                self.module.write_index(segment)
                assert self.reader.use_index(segment.sequence)
                self.indexed.add((segment.sequence, segment.revision))

    def compact_some(self):
        point = self.log.begin_sync()
        point.wait()
        self.log.end_sync(point)
        sealed = self.log.segments()[:-1]
        chosen = sealed[: self.random.randrange(len(sealed) + 1)]
        if chosen:
            floors = self.on_disk.floors()
            self.log.install(self.module.compact(self.directory, chosen, floors, new_segment_id=self.new_segment_id))
            self.add_segments()

    def plan(self, now_ms, cluster, rooms):
        options = {"cluster": cluster, "rooms": rooms, "record_size_max_bytes": 200}
        made = plan(self.in_memory, self.memory, now_ms, **options)
        assert made == plan(self.on_disk, self.reader, now_ms, **options)
        return made

    def check_pages(self):
        for key, room in self.in_memory.rooms.items():
            for how in ("newest", "before", "after", "around"):
                cursor, limit = self.random.randrange(self.memory.last_index + 5), self.random.randrange(1, 9)
                expected, found = (
                    pages.select(source, room, key, self.memory.last_index, how, cursor, limit)
                    for source in (self.memory, self.reader)
                )
                assert list(found.ids) == list(expected.ids)
                assert (found.older, found.newer) == (expected.older, expected.newer)


@pytest.mark.parametrize("compacting", [False, True])
@pytest.mark.parametrize(
    ("module", "seed"), [*((_log, seed) for seed in range(12)), *((log_reference, seed) for seed in range(12, 14))]
)
def test_the_log_and_the_one_in_memory_agree(tmp_path, module, seed, compacting):
    random = Random(seed)
    both = BothLogs(module, str(tmp_path), random)
    time_ms = 1000
    for _ in range(12):
        for _ in range(random.randrange(60)):
            time_ms += random.choice([0, 1, 20])
            key = random.choice(KEYS)
            if random.random() < 0.02:
                both.append(remove_room(key), time_ms)
            else:
                value = b'"User":"u","Message":"%s"' % (b"x" * random.randrange(90))
                both.append(commands.Command(commands.KIND_POST, key, value), time_ms)
            if random.random() < 0.05:
                both.apply()
        both.apply()
        both.check_pages()
        cluster = random.choice(
            [None, Policy(max_age_ms=300), Policy(max_messages=80), Policy(max_bytes=9000), Policy(max_rooms=3)]
        )
        rooms = {random.choice(KEYS): random.choice([Policy(max_messages=9), Policy(max_bytes=900)])}
        for command in both.plan(time_ms, cluster, rooms).commands:
            both.append(command, time_ms)
        both.apply()
        both.check_pages()
        both.index_some()
        if compacting:
            both.compact_some()
        both.check_pages()
    assert both.in_memory.messages < both.memory.last_index
    assert len(both.log.segments()) > (1 if compacting else 5)


def test_kinds_are_those_of_the_log():
    for name in ("NOOP", "MEMBERSHIP", "POST", "TRIM", "REMOVE_ROOM", "RETENTION"):
        assert getattr(commands, f"KIND_{name}") == getattr(_log, f"KIND_{name}")
