"""What the keeper's thread does by itself, and what it leaves to the loop."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from typing import Any

import pytest

from raftchat.node.store_keeper import LoopOwner
from raftchat.raft import Role


class Log:
    def __init__(self) -> None:
        self.unlinked: list[tuple[Any, threading.Thread]] = []

    def unlink(self, retired: Any) -> None:
        self.unlinked.append((retired, threading.current_thread()))


def test_files_are_unlinked_while_the_loop_is_at_something_else() -> None:
    """Each flushes the directory: done on the loop, posts stood still for a quarter of a second."""
    log: Any = Log()
    none: Any = None
    loop = asyncio.new_event_loop()  # it never runs
    owner = LoopOwner(loop, log, none, none, none, lambda: None, None)
    thread = threading.Thread(target=owner.unlink, args=(["old"],), daemon=True)
    thread.start()
    thread.join(10)
    loop.close()
    assert log.unlinked == [(["old"], thread)]


class Follower:
    def __init__(self, match_index: int, *, learner: bool = False, heard: bool = True) -> None:
        self.match_index = match_index
        self.learner = learner
        self.last_contact_ms = time.monotonic_ns() / 1e6 if heard else -math.inf


class LeadingRaft:
    commit_index = 9

    def __init__(self, role: Role, followers: dict[int, Follower]) -> None:
        self.role = role
        self.followers = followers
        self.transferred: list[int] = []

    def status(self) -> Any:
        return self

    def transfer_leadership(self, to: int) -> None:
        self.transferred.append(to)


@pytest.mark.parametrize(
    ("role", "followers", "to"),
    [
        (Role.LEADER, {2: Follower(9), 3: Follower(11)}, 3),
        (Role.LEADER, {2: Follower(8), 3: Follower(11, learner=True), 4: Follower(11, heard=False)}, 0),
        (Role.LEADER, {}, 0),
        (Role.FOLLOWER, {2: Follower(9)}, 0),
    ],
)
def test_leadership_goes_to_a_voter_that_answers_and_holds_what_is_committed(
    role: Role, followers: dict[int, Follower], to: int
) -> None:
    none: Any = None
    raft: Any = LeadingRaft(role, followers)
    woken: list[int] = []

    async def handed_over() -> int:
        loop = asyncio.get_running_loop()
        owner = LoopOwner(loop, none, raft, none, none, lambda: woken.append(1), None)
        return await loop.run_in_executor(None, owner.hand_over, 3_600_000)

    assert asyncio.run(handed_over()) == to
    assert raft.transferred == [to] * (to > 0)
    assert len(woken) == (to > 0)
