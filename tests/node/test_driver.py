"""The driver's turn, with a real core and log; disk, network and workers are lists that the test looks at."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from random import Random
from typing import Any

import pytest

from raftchat import _log
from raftchat.config import Config
from raftchat.ipc.frames import Accepted, Leader, Refusal
from raftchat.node.codec import Forward, ForwardAccepted, ForwardRefused, WireMessage
from raftchat.node.driver import Driver
from raftchat.raft import HardState, Membership, Persisted, Raft, Role
from raftchat.raft.messages import (
    AppendEntries,
    AppendReply,
    InstallSnapshot,
    ReadIndexReply,
    ReadIndexRequest,
    VoteReply,
)

CONFIG = Config(segment_size_bytes=256 * 1024 + 4096)


class LogThatMayBeFull:
    """The real log, until the test fills the disk."""

    def __init__(self, log: _log.Log) -> None:
        self._log = log
        self.full = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def append(self, *arguments: Any) -> tuple[int, int]:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._log.append(*arguments)

    def append_batch(self, *arguments: Any) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        self._log.append_batch(*arguments)


class Node:
    """A driver and everything around it. `told` has what workers were told, in order, whoever they are."""

    def __init__(self, directory: Path, voters: int) -> None:
        self.log = LogThatMayBeFull(
            _log.Log(
                str(directory),
                new_segment_id=iter(range(1, 999)).__next__,
                segment_size_bytes=CONFIG.segment_size_bytes,
            )
        )
        self.raft = Raft(
            CONFIG,
            1,
            self.log,  # type: ignore[arg-type]
            HardState(),
            [(0, Membership({n: f"http://n{n}" for n in range(1, voters + 1)}))],
            Random(1),
            noop=_log.pack(_log.KIND_NOOP, b"", b""),
            pack_membership=lambda m: _log.pack(_log.KIND_MEMBERSHIP, b"", m),
        )
        self.told: list[Any] = []
        self.sent: list[tuple[int, WireMessage]] = []
        self.wanted: list[InstallSnapshot | None] = []
        self.reachable = True
        self.writing: list[tuple[HardState | None, Any]] = []
        self.written: HardState | None = None
        self.now_ms = 0.0
        self.driver = Driver(CONFIG, 1, self.raft, self.log, self, self, self, self, _log.check_unstamped)  # type: ignore[arg-type]

    # Disk

    @property
    def busy(self) -> bool:
        return bool(self.writing)

    def start(self, hard_state: HardState | None) -> None:
        assert not self.writing
        self.writing.append((hard_state, self.log.begin_sync()))

    def write(self) -> None:
        """The write in flight is done."""
        hard_state, point = self.writing.pop()
        point.wait()
        self.log.end_sync(point)
        self.written = hard_state or self.written
        self.driver.persisted(Persisted(self.written, point.last_index, point.generation))

    # Network

    def send(self, to: int, message: WireMessage) -> bool:
        if self.reachable:
            self.sent.append((to, message))
        return self.reachable

    def connected(self, peer: int) -> bool:
        return self.reachable

    def flush(self) -> None: ...
    def refresh(self) -> None: ...

    # Snapshots

    def want(self, snapshot: InstallSnapshot | None) -> None:
        self.wanted.append(snapshot)

    # Clients, and one of them

    def segments_changed(self) -> None:
        self.told.append("segments")

    def commit(self, index: int) -> None:
        self.told.append(("commit", index))

    def leader(self, leader: Leader) -> None:
        self.told.append(leader)

    def accepted(self, accepted: Accepted) -> None:
        self.told.append(accepted)

    def refused(self, batch: int, reason: Refusal) -> None:
        self.told.append((batch, reason))

    def read_at(self, context: int, index: int) -> None:
        self.told.append(("read", context, index))

    # Time

    def turn(self, ms: float = 0.0) -> None:
        self.now_ms += ms
        self.driver.turn(self.now_ms, 1_000_000 + int(self.now_ms))

    def settle(self) -> None:
        """Turn until nothing is written or due at once any more."""
        for _ in range(20):
            self.turn()
            if not self.writing:
                return
            self.write()
        raise AssertionError("never comes to rest")

    def lead(self) -> None:
        """Win an election against voters that say yes."""
        self.turn(2 * CONFIG.election_timeout_ms)
        for _ in range(2):
            self.settle()
            for to, message in self.sent:
                if hasattr(message, "pre"):
                    self.driver.receive(to, VoteReply(to, message.term, True, message.pre))
            self.sent.clear()
        self.settle()
        assert self.raft.role is Role.LEADER
        self.told.clear()

    def follow(self, term: int = 1) -> None:
        """Hear of node 2 as the leader. `sent` has that it is asked how far it is."""
        self.driver.receive(2, AppendEntries(2, term, 0, 0, 0))
        self.settle()
        self.told.clear()


def post(text: str = "hello") -> bytes:
    return _log.pack(16, b"general", text.encode())


@pytest.fixture
def alone(tmp_path: Path) -> Node:
    node = Node(tmp_path, 1)
    node.lead()
    return node


@pytest.fixture
def one_of_three(tmp_path: Path) -> Node:
    return Node(tmp_path, 3)


def test_a_proposal_is_accepted_at_once_and_committed_only_when_durable(alone: Node) -> None:
    alone.driver.propose(alone, 7, post() + post())
    alone.turn()
    assert alone.told == [Accepted(7, 2, 1, 1_000_000 + int(alone.now_ms))]
    assert alone.writing
    alone.turn()
    assert len(alone.told) == 1, "told of a commit before the disk had it"
    alone.write()
    alone.turn()
    assert alone.told[1:] == [("commit", 3)]


def test_everything_of_a_turn_is_one_write_and_one_more_is_begun_only_after_it(alone: Node) -> None:
    for batch in range(5):
        alone.driver.propose(alone, batch, post())
    alone.turn()
    before = alone.driver.syncs
    alone.driver.propose(alone, 9, post())
    alone.turn()
    assert alone.driver.syncs == before
    alone.write()
    alone.turn()
    assert alone.driver.syncs == before + 1
    assert [t for t in alone.told if isinstance(t, tuple) and t[0] == "commit"] == [("commit", 6)]


def test_log_time_never_goes_back_with_the_wall_clock(alone: Node) -> None:
    alone.driver.propose(alone, 1, post())
    alone.driver.turn(alone.now_ms, 5_000_000)
    alone.driver.propose(alone, 2, post())
    alone.driver.turn(alone.now_ms, 4_000_000)
    assert [t.time_ms for t in alone.told if isinstance(t, Accepted)] == [5_000_000, 5_000_000]


def test_reads_of_a_turn_share_a_round_and_each_is_answered(one_of_three: Node) -> None:
    node = one_of_three
    node.lead()
    for _ in range(2):
        for follower in (2, 3):
            node.driver.receive(follower, AppendReply(follower, 1, True, 1, node.raft._s.lead.round))  # type: ignore[union-attr]
        node.settle()
    assert node.driver.caught_up
    node.sent.clear()
    node.told.clear()
    for context in (11, 12, 13):
        node.driver.read(node, context)
    node.turn()
    rounds = {message.round for _, message in node.sent if isinstance(message, AppendEntries)}
    assert len(rounds) == 1
    assert node.told == []
    node.driver.receive(2, AppendReply(2, 1, True, 1, rounds.pop()))
    node.turn()
    assert node.told == [("read", context, 1) for context in (11, 12, 13)]


def test_workers_hear_of_a_new_segment_before_the_commit_that_needs_it(alone: Node) -> None:
    for batch in range(40):
        alone.driver.propose(alone, batch, post("x" * 10_000))
        alone.settle()
    kinds = [t if t == "segments" else t[0] for t in alone.told if not isinstance(t, Accepted)]
    assert "segments" in kinds
    commits = [t[1] for t in alone.told if isinstance(t, tuple) and t[0] == "commit"]
    rolled = alone.log.segments()[1].base_index
    at = alone.told.index("segments")
    assert ("commit", rolled) in alone.told[at:]
    assert max(t[1] for t in alone.told[:at] if isinstance(t, tuple) and t[0] == "commit") < rolled
    assert commits == sorted(commits)


@pytest.mark.parametrize("records", [b"", b"garbage", post()[:-8], post() + b"\0" * 8, bytes(64)])
def test_what_is_not_made_of_records_is_refused_as_bad(alone: Node, records: bytes) -> None:
    last = alone.log.last_index
    alone.driver.propose(alone, 1, records)
    alone.turn()
    assert alone.told == [(1, Refusal.BAD)]
    assert alone.log.last_index == last


def test_a_full_disk_refuses_posts_serves_reads_and_recovers_by_itself(
    alone: Node, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    alone.log.full = True
    alone.driver.propose(alone, 1, post())
    alone.driver.read(alone, 5)
    alone.settle()
    assert alone.told == [(1, Refusal.DISK_FULL), ("read", 5, 1)]
    alone.log.full = False
    alone.driver.propose(alone, 2, post())
    alone.settle()
    assert alone.told[2].first_index == 2
    assert alone.told[3] == ("commit", 2)
    assert [r.levelname for r in caplog.records] == ["ERROR", "INFO"]


def test_who_wins_with_a_full_disk_goes_on_and_leads_once_there_is_room(tmp_path: Path) -> None:
    """The vote that wins alone comes from the disk, not from a peer."""
    node = Node(tmp_path, 1)
    node.log.full = True
    node.turn(2 * CONFIG.election_timeout_ms)
    node.settle()
    assert node.raft.role is Role.CANDIDATE
    node.log.full = False
    node.turn(2 * CONFIG.election_timeout_ms)
    node.settle()
    assert node.raft.role is Role.LEADER


def test_other_errors_of_the_log_end_the_process(alone: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> tuple[int, int]:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(alone.log, "append", fails)
    alone.driver.propose(alone, 1, post())
    with pytest.raises(OSError, match="Input/output"):
        alone.turn()


def full_at_the_second_roll(monkeypatch: pytest.MonkeyPatch) -> None:
    rename, left = os.rename, 2

    def full(*arguments: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        rename(*arguments)

    monkeypatch.setattr(os, "rename", full)


def test_a_disk_that_is_full_in_the_middle_of_a_batch_ends_the_process(
    alone: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was appended stays, and may be committed: nobody can be told that nothing was."""
    full_at_the_second_roll(monkeypatch)
    alone.driver.propose(alone, 1, b"".join(post("x" * 200_000) for _ in range(4)))
    with pytest.raises(OSError, match="No space left"):
        alone.turn()
    assert alone.log.last_index > 1
    assert alone.told == []


def test_a_follower_whose_disk_is_full_in_the_middle_of_a_batch_ends(
    one_of_three: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = one_of_three
    node.follow()
    source = _log.Log(str(tmp_path / "leader"), new_segment_id=lambda: 500, segment_size_bytes=1 << 20)
    source.append(b"".join(post("x" * 200_000) for _ in range(4)), 1, 1000)
    full_at_the_second_roll(monkeypatch)
    node.driver.receive(2, AppendEntries(2, 1, 0, 0, 0, 0, source.slice(1, 1 << 20)))
    with pytest.raises(OSError, match="No space left"):
        node.turn()


def test_a_follower_with_a_full_disk_takes_the_entries_later(one_of_three: Node, tmp_path: Path) -> None:
    node = one_of_three
    node.follow()
    source = _log.Log(
        str(tmp_path / "leader"), new_segment_id=lambda: 500, segment_size_bytes=CONFIG.segment_size_bytes
    )
    source.append(post(), 1, 1000)
    message = AppendEntries(2, 1, 0, 0, 0, 0, source.slice(1, 1 << 20))
    node.log.full = True
    node.driver.receive(2, message)
    node.settle()
    assert node.log.last_index == 0
    assert not [m for _, m in node.sent if isinstance(m, AppendReply) and m.match_index > 0]
    node.driver.propose(node, 1, post())
    node.turn()
    assert (1, Refusal.DISK_FULL) in node.told, "it could not see what becomes of a post"
    assert not [m for _, m in node.sent if isinstance(m, Forward)]
    node.log.full = False
    node.driver.receive(2, message)
    node.settle()
    assert node.log.last_index == 1
    assert [m for _, m in node.sent if isinstance(m, AppendReply) and m.success and m.match_index == 1]


def test_without_a_leader_proposals_and_reads_wait_their_time_and_are_then_refused(one_of_three: Node) -> None:
    node = one_of_three
    node.driver.propose(node, 1, post())
    node.driver.read(node, 2)
    node.turn()
    node.turn(CONFIG.leader_wait_max_ms - 1)
    assert node.told == []
    assert node.driver.deadline_ms <= node.now_ms + 1
    node.turn(1)
    assert node.told == [(1, Refusal.NO_LEADER), ("read", 2, 0)]


def test_proposals_that_waited_for_the_election_are_forwarded_in_order_and_reads_are_asked(one_of_three: Node) -> None:
    node = one_of_three
    batches = [post(str(n)) for n in range(4)]
    for batch, records in enumerate(batches[:3]):
        node.driver.propose(node, batch, records)
        node.turn()
    node.driver.read(node, 9)
    node.turn()
    node.driver.propose(node, 3, batches[3])
    node.follow()
    assert [m.records for _, m in node.sent if isinstance(m, Forward)] == batches
    request = next(m for _, m in node.sent if isinstance(m, ReadIndexRequest))
    node.driver.receive(2, ReadIndexReply(2, 1, request.context, 7))
    node.turn()
    assert ("read", 9, 7) in node.told


def test_who_becomes_leader_appends_what_waited_for_one(one_of_three: Node) -> None:
    node = one_of_three
    node.driver.propose(node, 1, post())
    node.turn(1)
    node.turn(2 * CONFIG.election_timeout_ms - 2)
    for _ in range(2):
        node.settle()
        for to, message in node.sent:
            if hasattr(message, "pre"):
                node.driver.receive(to, VoteReply(to, message.term, True, message.pre))
        node.sent.clear()
    node.settle()
    assert [t.batch for t in node.told if isinstance(t, Accepted)] == [1]


def test_a_proposal_waits_for_the_connection_to_a_new_leader(one_of_three: Node) -> None:
    node = one_of_three
    node.follow()
    node.reachable = False
    node.driver.propose(node, 1, post())
    node.turn()
    assert node.told == []
    node.reachable = True
    node.sent.clear()
    node.turn(10)
    assert len([m for _, m in node.sent if isinstance(m, Forward)]) == 1


def test_what_the_leader_refused_because_it_leads_no_more_is_asked_again_but_not_at_once(one_of_three: Node) -> None:
    node = one_of_three
    node.follow()
    for batch in (1, 2):
        node.driver.propose(node, batch, post(str(batch)))
    node.turn()
    first = [m for _, m in node.sent if isinstance(m, Forward)]
    node.sent.clear()
    for forward in reversed(first):
        node.driver.receive(2, ForwardRefused(forward.request, Refusal.NO_LEADER))
    node.turn(1)
    assert not [m for _, m in node.sent if isinstance(m, Forward)], "two nodes play ball"
    assert node.now_ms < node.driver.deadline_ms <= node.now_ms + CONFIG.heartbeat_interval_ms
    node.turn(CONFIG.heartbeat_interval_ms)
    again = [m for _, m in node.sent if isinstance(m, Forward)]
    assert [m.records for m in again] == [m.records for m in first], "in the order of their arrival"
    assert node.told == []
    node.driver.receive(2, ForwardRefused(again[1].request, Refusal.NO_LEADER))
    node.driver.receive(2, ForwardAccepted(again[0].request, 40, 1, 9))
    node.turn(CONFIG.leader_wait_max_ms)
    assert [t for t in node.told if not isinstance(t, Leader)] == [(2, Refusal.NO_LEADER), Accepted(1, 40, 1, 9)]


def test_what_was_sent_to_a_leader_and_lost_is_never_sent_again(one_of_three: Node) -> None:
    node = one_of_three
    node.follow()
    node.driver.propose(node, 1, post())
    node.turn()
    node.driver.broken(2)
    node.sent.clear()
    node.turn()
    node.driver.receive(3, AppendEntries(3, 2, 0, 0, 0))
    node.settle()
    assert (1, Refusal.LOST) in node.told
    assert not [m for _, m in node.sent if isinstance(m, Forward)]


def test_more_than_may_wait_is_refused_as_overload(tmp_path: Path) -> None:
    node = Node(tmp_path, 3)
    records = post("x" * 10_000)
    fits = CONFIG.leader_wait_max_bytes // len(records)
    for batch in range(fits + 1):
        node.driver.propose(node, batch, records)
    node.turn()
    assert node.told == [(fits, Refusal.OVERLOADED)]
    node.told.clear()
    node.turn(CONFIG.leader_wait_max_ms)
    assert len(node.told) == fits
    node.driver.propose(node, 1, records)
    node.told.clear()
    node.turn()
    assert node.told == [], "there is room again"


def test_a_follower_forwards_the_same_bytes_and_passes_the_answer_on(one_of_three: Node) -> None:
    node = one_of_three
    node.follow()
    records = post()
    node.driver.propose(node, 3, records)
    node.turn()
    (forward,) = [m for to, m in node.sent if to == 2 and isinstance(m, Forward)]
    assert forward.records is records
    node.driver.receive(2, ForwardAccepted(forward.request, 40, 1, 9))
    node.turn()
    assert Accepted(3, 40, 1, 9) in node.told


def test_a_broken_connection_to_the_leader_loses_what_was_forwarded_and_the_readiness(one_of_three: Node) -> None:
    node = one_of_three
    node.follow()
    node.driver.propose(node, 3, post())
    node.turn()
    node.driver.broken(2)
    node.turn()
    assert (3, Refusal.LOST) in node.told
    assert not node.driver.caught_up


def test_a_forward_whose_answer_never_comes_is_lost_in_bounded_time(one_of_three: Node, tmp_path: Path) -> None:
    """The leader had no connection to send its answer on, and came back before anybody missed it."""
    node = one_of_three
    node.follow()
    node.turn(5_000)
    node.driver.receive(2, AppendEntries(2, 1, 0, 0, 0))
    node.driver.propose(node, 3, post())
    node.turn()
    (forward,) = [m for to, m in node.sent if to == 2 and isinstance(m, Forward)]
    asked_ms = node.now_ms
    while (3, Refusal.LOST) not in node.told:
        assert node.now_ms < asked_ms + CONFIG.request_timeout_ms
        node.now_ms = max(node.now_ms + 1, min(node.driver.deadline_ms, node.now_ms + CONFIG.heartbeat_interval_ms))
        node.driver.receive(2, AppendEntries(2, 1, 0, 0, 0))
        node.turn()
    assert node.now_ms == asked_ms + CONFIG.request_timeout_ms
    assert node.driver._forwards.waiting == 0
    node.driver.receive(2, ForwardAccepted(forward.request, 40, 1, 9))
    node.turn()
    assert not [told for told in node.told if isinstance(told, Accepted)], "answered twice"


def test_a_leader_that_cannot_send_its_answer_goes_on(one_of_three: Node) -> None:
    node = one_of_three
    node.lead()
    last = node.log.last_index
    node.reachable = False
    node.driver.receive(3, Forward(77, post()))
    node.turn()
    node.reachable = True
    node.driver.receive(3, Forward(78, post()))
    node.turn()
    assert node.log.last_index == last + 2
    assert [m.request for _, m in node.sent if isinstance(m, ForwardAccepted)] == [78]


def test_the_leader_appends_for_a_follower_and_answers_before_it_commits(one_of_three: Node) -> None:
    node = one_of_three
    node.lead()
    for follower in (2, 3):
        node.driver.receive(follower, AppendReply(follower, 1, True, 1))
    node.settle()
    node.sent.clear()
    node.driver.receive(3, Forward(77, post()))
    node.turn()
    answers = [m for to, m in node.sent if to == 3]
    assert isinstance(answers[0], ForwardAccepted)
    assert (answers[0].request, answers[0].first_index) == (77, 2)


def test_a_forward_to_who_does_not_lead_is_refused_not_passed_on(one_of_three: Node) -> None:
    node = one_of_three
    node.follow()
    node.driver.receive(3, Forward(77, post()))
    node.turn()
    assert (3, ForwardRefused(77, Refusal.NO_LEADER)) in node.sent
    assert not [m for to, m in node.sent if isinstance(m, Forward)]


def test_a_node_that_is_stopping_takes_nothing_new(alone: Node) -> None:
    alone.driver.stopping = True
    alone.driver.propose(alone, 1, post())
    alone.turn()
    assert alone.told == [(1, Refusal.SHUTTING_DOWN)]


def test_ready_means_having_what_was_committed_when_the_leader_was_asked(one_of_three: Node, tmp_path: Path) -> None:
    node = one_of_three
    node.follow()
    node.turn()
    assert not node.driver.caught_up
    node.driver.receive(2, AppendEntries(2, 1, 0, 0, 0))
    node.turn(CONFIG.heartbeat_interval_ms)
    requests = [m for _, m in node.sent if isinstance(m, ReadIndexRequest)]
    node.driver.receive(2, ReadIndexReply(2, 1, requests[-1].context, 1))
    node.turn()
    assert not node.driver.caught_up, "one entry was committed, and it is not here"
    source = _log.Log(
        str(tmp_path / "leader"), new_segment_id=lambda: 500, segment_size_bytes=CONFIG.segment_size_bytes
    )
    source.append(post(), 1, 1000)
    node.driver.receive(2, AppendEntries(2, 1, 0, 0, 1, 0, source.slice(1, 1 << 20)))
    node.settle()
    assert node.driver.caught_up
    assert Leader(2, 1, True) in node.told


def test_an_idle_leader_is_due_no_more_often_than_its_heartbeat(one_of_three: Node) -> None:
    node = one_of_three
    node.lead()
    turns = 0
    end = node.now_ms + 2000
    while node.driver.deadline_ms < end:
        node.now_ms = max(node.now_ms + 0.01, node.driver.deadline_ms)  # a clock always moves
        for follower in (2, 3):
            node.driver.receive(follower, AppendReply(follower, 1, True, 1, node.raft._s.lead.round))  # type: ignore[union-attr]
        node.turn()
        if node.writing:
            node.write()
        turns += 1
    assert turns <= 2000 / CONFIG.heartbeat_interval_ms + 5
