"""Forwarded proposals: each is answered once, and LOST is said exactly when nobody can know."""

from __future__ import annotations

from raftchat.config import Config
from raftchat.ipc.frames import Accepted, Refusal
from raftchat.node.codec import Forward, ForwardAccepted, WireMessage
from raftchat.node.forward import Forwards

CONFIG = Config()


class Worker:
    def __init__(self) -> None:
        self.told: list[Accepted | tuple[int, Refusal]] = []

    def accepted(self, accepted: Accepted) -> None:
        self.told.append(accepted)

    def refused(self, batch: int, reason: Refusal) -> None:
        self.told.append((batch, reason))


class Road:
    def __init__(self) -> None:
        self.sent: list[tuple[int, Forward]] = []
        self.up = True
        self.room = True

    def send(self, to: int, message: WireMessage) -> bool:
        assert isinstance(message, Forward)
        if self.up and self.room:
            self.sent.append((to, message))
        return self.up and self.room

    def connected(self, peer: int) -> bool:
        return self.up


def forwarded(leader: int = 2) -> tuple[Forwards, Road, Worker]:
    road, worker = Road(), Worker()
    forwards = Forwards(CONFIG, road)
    forwards.leader_is(leader, 0)
    forwards.send(worker, 5, b"records", leader, 0)
    return forwards, road, worker


def test_the_leaders_answer_goes_to_whoever_asked_under_its_own_number() -> None:
    forwards, road, worker = forwarded()
    ((to, message),) = road.sent
    assert (to, message.records) == (2, b"records")
    forwards.accepted(ForwardAccepted(message.request, 100, 3, 1000))
    assert worker.told == [Accepted(5, 100, 3, 1000)]
    forwards.accepted(ForwardAccepted(message.request, 100, 3, 1000))
    forwards.refused(message.request, Refusal.NO_LEADER)
    forwards.broken(2)
    assert len(worker.told) == 1
    assert forwards.waiting == 0


def test_a_refusal_of_the_leader_is_passed_on() -> None:
    forwards, road, worker = forwarded()
    forwards.refused(road.sent[0][1].request, Refusal.OVERLOADED)
    assert worker.told == [(5, Refusal.OVERLOADED)]


def test_what_was_not_sent_is_refused_and_certainly_not_done() -> None:
    road, worker = Road(), Worker()
    forwards = Forwards(CONFIG, road)
    road.room = False
    forwards.send(worker, 1, b"", 2, 0)
    road.up = False
    forwards.send(worker, 2, b"", 2, 0)
    assert worker.told == [(1, Refusal.OVERLOADED), (2, Refusal.NO_LEADER)]


def test_a_broken_connection_makes_the_outcome_unknown() -> None:
    forwards, _, worker = forwarded()
    forwards.broken(3)
    assert worker.told == []
    forwards.broken(2)
    assert worker.told == [(5, Refusal.LOST)]


def test_a_former_leader_has_an_election_timeout_to_answer() -> None:
    forwards, road, worker = forwarded()
    forwards.leader_is(3, 100)
    assert forwards.deadline_ms == 100 + CONFIG.election_timeout_ms
    forwards.send(worker, 6, b"", 3, 100)
    forwards.leader_is(3, forwards.deadline_ms - 1)
    assert worker.told == []
    forwards.leader_is(3, forwards.deadline_ms)
    assert worker.told == [(5, Refusal.LOST)]
    assert forwards.deadline_ms == 100 + CONFIG.request_timeout_ms
    forwards.accepted(ForwardAccepted(road.sent[1][1].request, 7, 4, 0))
    assert worker.told[1:] == [Accepted(6, 7, 4, 0)]


def test_a_leader_that_comes_back_in_time_is_waited_for() -> None:
    forwards, road, worker = forwarded()
    forwards.leader_is(0, 100)
    forwards.leader_is(2, 200)
    forwards.leader_is(2, 200 + 2 * CONFIG.election_timeout_ms)
    assert worker.told == []
    forwards.accepted(ForwardAccepted(road.sent[0][1].request, 7, 4, 0))
    assert worker.told == [Accepted(5, 7, 4, 0)]


def test_who_gets_no_answer_for_as_long_as_a_client_waits_is_told_lost() -> None:
    forwards, road, worker = forwarded()
    forwards.send(worker, 6, b"", 2, 1_000)
    assert forwards.deadline_ms == CONFIG.request_timeout_ms
    forwards.leader_is(2, forwards.deadline_ms - 1)
    assert worker.told == []
    forwards.leader_is(2, forwards.deadline_ms)
    assert worker.told == [(5, Refusal.LOST)]
    assert (forwards.waiting, forwards.deadline_ms) == (1, 1_000 + CONFIG.request_timeout_ms)
    forwards.accepted(ForwardAccepted(road.sent[1][1].request, 7, 4, 0))
    assert (forwards.waiting, forwards.deadline_ms) == (0, float("inf"))


def test_an_answer_to_a_request_of_a_life_before_is_nobodys() -> None:
    lives = []
    for first in (1 << 40, 1 << 50):
        road, worker = Road(), Worker()
        forwards = Forwards(CONFIG, road, first)
        forwards.leader_is(2, 0)
        forwards.send(worker, 5, b"records", 2, 0)
        lives.append((forwards, road.sent[0][1].request, worker))
    (_, late, _), (forwards, _, worker) = lives
    forwards.accepted(ForwardAccepted(late, 100, 3, 1000))
    assert (worker.told, forwards.waiting) == ([], 1)
