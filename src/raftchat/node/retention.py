"""Has the policies carried out where this node leads: plans what goes, proposes it, and waits until it is applied.

At most one plan is under way, so that the next is made from what the last has left. What a plan is, and what time it
goes by, is the chat's to know (`chat/retention.py`, `chat/retention_clock.py`).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

from raftchat.chat import retention
from raftchat.chat.commands import Command, set_retention
from raftchat.chat.policy import EMPTY_ROOM_AGE_DEFAULT_MS, Policy
from raftchat.chat.retention_clock import Doubt, RetentionClock
from raftchat.chat.state import ChatState
from raftchat.config import Config
from raftchat.node.store_ports import Clock, Counters, Files, Owner, Reader, View

log = logging.getLogger(__name__)

RECORD_OVERHEAD_BYTES = 64
NEW_ENTRIES_MAX = 10_000
"""A cluster with more in its log is not new any more."""
NEW_MAX_MS = 86_400_000
"""Nor is one with a message that is older."""
FAULTY_PLANS_MAX = 2
"""After so many in a row that had to leave something out, another node is to lead: its log is another."""
HAND_OVER_INTERVAL_MS = 3_600_000
"""No more often: the others' logs may be no better."""


def initial_policy(config: Config) -> Policy | None:
    """What the flags say a new cluster begins with. None: nothing."""
    limits = (
        config.initial_max_age_ms,
        config.initial_max_messages,
        config.initial_max_bytes,
        config.initial_max_rooms,
        config.initial_empty_room_age_ms,
    )
    if all(limit is None for limit in limits):
        return None
    *others, empty_room_age_ms = limits
    if empty_room_age_ms is None:
        empty_room_age_ms = EMPTY_ROOM_AGE_DEFAULT_MS
    max_age_ms, max_messages, max_bytes, max_rooms = others
    return Policy(
        max_age_ms=max_age_ms,
        max_messages=max_messages,
        max_bytes=max_bytes,
        max_rooms=max_rooms,
        empty_room_age_ms=empty_room_age_ms,
    )


class Retention:
    def __init__(
        self,
        config: Config,
        log_time_ms: int,
        reader: Reader,
        files: Files,
        owner: Owner,
        clock: Clock,
        counters: Counters,
    ) -> None:
        """`log_time_ms`: of the last entry that was found at opening; 0: none was."""
        self._config = config
        self._reader = reader
        self._faults = files.faults
        self._faulty_plans = 0
        """In a row."""
        self._handed_over_ms = -math.inf
        self._owner = owner
        self._clock = clock
        self._counters = counters
        self._time = RetentionClock(
            clock.wall_ms(),
            round(clock.monotonic_ms()),
            clock_leap_max_ms=config.clock_leap_max_ms,
            clock_settle_ms=config.clock_settle_ms,
            log_time_ms=log_time_ms,
        )
        self._doubt: Doubt | None = None
        self._is_old = False
        self._under_way: tuple[int, int] | None = None
        """Last index of what was proposed, and the term it was proposed in."""
        self._leads = False
        self._next_ms = clock.monotonic_ms()

    @property
    def due_ms(self) -> float:
        """When to look again; inf if nothing has to be looked at."""
        return self._next_ms if self._leads and self._under_way is None else float("inf")

    def round(self, view: View, state: ChatState) -> None:
        self._leads = view.leads
        if self._under_way is not None:
            last_index, term = self._under_way
            if view.term != term or state.applied_index >= last_index:
                self._under_way = None
        if not view.leads or self._under_way is not None or self._clock.monotonic_ms() < self._next_ms:
            return
        self._next_ms = self._clock.monotonic_ms() + self._config.retention_interval_ms
        commands, more = self._commands(state)
        if commands and not self._propose(commands, view.term):
            return
        if commands and more:
            self._next_ms = self._clock.monotonic_ms()

    def _propose(self, commands: list[Command], term: int) -> bool:
        first_index = self._owner.propose(commands)
        if first_index is None:
            return False
        self._counters.retention_plans += 1
        self._under_way = first_index + len(commands) - 1, term
        return True

    def _unreadable(self, rooms: Mapping[bytes, Exception]) -> None:
        """What was left out of a plan. Messages that stay too long are no reason to end, but for another to lead."""
        if not rooms:
            self._faulty_plans = 0
            return
        self._faulty_plans += 1
        if self._faulty_plans == 1:
            log.error(
                "Retention leaves out what it cannot read: %s", next(iter(rooms.values())), extra={"rooms": len(rooms)}
            )
        now_ms = self._clock.monotonic_ms()
        if self._faulty_plans >= FAULTY_PLANS_MAX and now_ms - self._handed_over_ms >= HAND_OVER_INTERVAL_MS:
            heir = self._owner.hand_over(self._config.election_timeout_ms)
            if heir:
                self._handed_over_ms = now_ms
                self._faulty_plans = 0
                log.error(
                    "This node's log is never led with: retention cannot read all of it, so another node is to lead",
                    extra={"to": heir},
                )

    def _commands(self, state: ChatState) -> tuple[list[Command], bool]:
        policies = state.policies
        initial = initial_policy(self._config)
        if initial is not None and not policies.cluster_was_set and self._is_new(state):
            log.info("The cluster's first retention policy", extra={"policy": initial.to_json(cluster=True)})
            return [set_retention(b"", initial, if_unset=True)], True
        plan = retention.plan(
            state,
            self._reader,
            self._now_ms(state),
            cluster=policies.cluster,
            rooms=policies.rooms,
            record_size_max_bytes=self._config.record_size_max_bytes,
            rooms_max=self._config.retention_rooms_max,
            faults=self._faults,
        )
        self._unreadable(plan.unreadable)
        if plan.commands:
            removed = sum(room.removed for room in plan.rooms)
            log.info(
                "Retention removes messages",
                extra={"messages": plan.messages, "size_bytes": plan.bytes, "rooms_removed": removed},
            )
        return self._first_batch(plan.commands, plan.more)

    def _is_new(self, state: ChatState) -> bool:
        """Whether the cluster is so young that a first policy is one: else a node's option would take its history."""
        if self._is_old:
            return False
        oldest = min((room.first_id for room in state.rooms.values() if room.count), default=0)
        now_ms = max(self._clock.wall_ms(), state.applied_time_ms)
        try:
            posted_ms = self._reader.entries(oldest, oldest)[0].time_ms if oldest else now_ms
        except self._faults:
            posted_ms = 0
        self._is_old = state.applied_index > NEW_ENTRIES_MAX or now_ms - posted_ms > NEW_MAX_MS
        if self._is_old:
            log.warning(
                "This cluster is not new and has no policy: what the options say of a first one is left aside; "
                "PUT /retention sets one"
            )
        return not self._is_old

    def _first_batch(self, commands: list[Command], more: bool) -> tuple[list[Command], bool]:
        """What fits into one batch of proposals; the rest will be planned again."""
        size_bytes = 0
        for count, command in enumerate(commands):
            size_bytes += len(command.key) + len(command.value) + RECORD_OVERHEAD_BYTES
            if count and size_bytes > self._config.proposal_batch_max_bytes:
                return commands[:count], True
        return commands, more

    def _now_ms(self, state: ChatState) -> int:
        now_ms, doubt = self._time.read(self._clock.wall_ms(), round(self._clock.monotonic_ms()), state.applied_time_ms)
        if doubt is not self._doubt:
            self._doubt = doubt
            if doubt is None:
                log.info("Retention: the wall clock is believed again")
            else:
                log.warning("Retention: %s", doubt.value, extra={"wall_ms": self._clock.wall_ms()})
        return now_ms
