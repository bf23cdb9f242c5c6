"""What the fields of a peer's message can be: whatever gets through meets no assertion of the core by its ranges alone.

Indexes, terms and rounds are below 2^62, so that what follows from them fits into the 63 bits of the log. Terms are at
least 1, but in the refusal of a vote. Index and term of an entry are both 0 or neither is; an entry is of the message's
term at most, of a RequestVote of an earlier one. Times are before the year 10000, flags 0 or 1, and a membership has
a voter, numbers from 1, and URLs that can be dialled.

The functions make messages of (sender, fields with the type first, tail) and raise ValueError. Do not know bytes,
except those of a membership, nor what this node has.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from raftchat.raft.membership import Membership
from raftchat.raft.messages import (
    AppendReply,
    InstallSnapshot,
    PeerMessage,
    ReadIndexReply,
    ReadIndexRequest,
    RequestVote,
    TimeoutNow,
    VoteReply,
)

LIMIT = 1 << 62
"""Indexes, terms and rounds are below."""
TIME_LIMIT_MS = 253_402_300_800_000
"""The year 10000, in milliseconds since 1970."""

Fields = tuple[Any, ...]


def require(holds: bool, fields: Fields) -> None:
    if not holds:
        raise ValueError(f"out of range: {fields[1:]}")


def _is_entry(index: int, term: int) -> bool:
    """Whether there can be an entry of that index and term, or both say that there is none."""
    return index < LIMIT and term < LIMIT and (index == 0) == (term == 0)


def check_membership(data: bytes | memoryview) -> None:
    """Raises ValueError if it is none, or one that the core or the connections could not live with."""
    membership = Membership.decode(data)
    if not membership.voters or max(membership.members) >= LIMIT:
        raise ValueError("a membership without a voter, or of a number out of range")
    for url in membership.members.values():
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
            raise ValueError(f"a member at {url[:100]!r}")


def request_vote(sender: int, f: Fields, _: memoryview) -> PeerMessage:
    _, term, last_index, last_term, pre, transfer = f
    require(0 < term < LIMIT and _is_entry(last_index, last_term) and last_term < term and pre + transfer <= 1, f)
    return RequestVote(sender, term, last_index, last_term, pre == 1, transfer == 1)


def vote_reply(sender: int, f: Fields, _: memoryview) -> PeerMessage:
    _, term, granted, pre = f
    require(granted <= 1 and pre <= 1 and granted <= term < LIMIT, f)
    return VoteReply(sender, term, granted == 1, pre == 1)


def append_reply(sender: int, f: Fields, _: memoryview) -> PeerMessage:
    _, term, success, match_index, round, conflict_index, hint_index, hint_term = f
    require(
        0 < term < LIMIT
        and success <= 1
        and match_index < LIMIT
        and round < LIMIT
        and hint_index <= conflict_index < LIMIT
        and hint_term <= term
        and _is_entry(hint_index, hint_term)
        and not (success and conflict_index),
        f,
    )
    return AppendReply(sender, term, success == 1, match_index, round, conflict_index, hint_index, hint_term)


def install_snapshot(sender: int, f: Fields, tail: memoryview) -> PeerMessage:
    _, term, last_index, last_term, last_time_ms, round = f
    require(
        0 < last_term <= term < LIMIT and 0 < last_index < LIMIT and last_time_ms < TIME_LIMIT_MS and round < LIMIT, f
    )
    check_membership(tail)
    return InstallSnapshot(sender, term, last_index, last_term, last_time_ms, bytes(tail), round)


def timeout_now(sender: int, f: Fields, _: memoryview) -> PeerMessage:
    require(0 < f[1] < LIMIT, f)
    return TimeoutNow(sender, f[1])


def read_index_request(sender: int, f: Fields, _: memoryview) -> PeerMessage:
    require(0 < f[1] < LIMIT, f)
    return ReadIndexRequest(sender, f[1], f[2])


def read_index_reply(sender: int, f: Fields, _: memoryview) -> PeerMessage:
    require(0 < f[1] < LIMIT and f[3] < LIMIT, f)
    return ReadIndexReply(sender, f[1], f[2], f[3])
