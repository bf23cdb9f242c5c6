"""Does a history look as if one sequence of messages existed, which every acknowledged post extended exactly once?

Knows `history.py` only: no processes, no HTTP. Near-linear in the number of operations: everything is compared with
one reference sequence (what the nodes tell at the end, once they are found to tell the same), because IDs are a total
order that all rooms share.

Each anomaly has a kind, so that tests of the checker can say which one they planted:

- differ       two nodes tell different stories at the end
- repeated     one observer saw an ID twice, or IDs not ascending
- lost         acknowledged, and not there at the end
- misnumbered  acknowledged under one ID, there under another
- duplicated   one post is there twice
- phantom      nobody posted it, or the post was said to have failed
- reordered    it was posted after another had been acknowledged, and stands before it
- stale        a linearizable read does not show what was acknowledged, or read, before it began
- future       a read shows what was not yet posted
- flipflop     somebody saw a message, under an ID, that is not there at the end
- skipped      an observer saw messages on both sides of one that it did not see, or a stream missed one while open
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tests.faults.history import History, Message, Outcome, Post, Read, Rooms


@dataclass(frozen=True, slots=True)
class Anomaly:
    kind: str
    detail: str


def check(history: History) -> list[Anomaly]:
    """All anomalies of a history whose nodes were read at the end. Raises ValueError when none was."""
    if not history.final:
        raise ValueError("no node was read at the end: nothing can be said")
    story = next(iter(history.final.values()))
    return [
        *_nodes(history.final),
        *_posts(history.posts, story),
        *_real_time(history.posts, story),
        *_reads(history.reads, history.posts, story),
        *_streams(history, story),
    ]


def _nodes(final: dict[int, Rooms]) -> Iterator[Anomaly]:
    first, reference = next(iter(final.items()))
    for node, rooms in final.items():
        for room in sorted({*rooms, *reference}):
            mine, theirs = rooms.get(room, []), reference.get(room, [])
            if mine != theirs:
                at = next((i for i, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), None)
                at = min(len(mine), len(theirs)) if at is None else at
                yield Anomaly(
                    "differ",
                    f"{room!r} at position {at}: node {node} has {mine[at : at + 1]} ({len(mine)} in all), "
                    f"node {first} {theirs[at : at + 1]} ({len(theirs)} in all)",
                )
            yield from _ascending(mine, f"node {node}, {room!r}, at the end")


def _ascending(messages: Sequence[Message], who: str) -> Iterator[Anomaly]:
    for before, after in pairwise(messages):
        if after.id <= before.id:
            yield Anomaly("repeated", f"{who}: {after} after {before}")


def _posts(posts: list[Post], story: Rooms) -> Iterator[Anomaly]:
    posted = {post.text: post for post in posts}
    assert len(posted) == len(posts), "texts must be unique, or posts cannot be told apart"
    seen: dict[str, tuple[str, int]] = {}
    for room, messages in story.items():
        for message in messages:
            post = posted.get(message.text)
            if message.text in seen:
                yield Anomaly("duplicated", f"{message} in {room!r} is also {seen[message.text]}")
            seen[message.text] = (room, message.id)
            if post is None or post.room != room:
                yield Anomaly("phantom", f"{message} in {room!r} was posted by nobody")
            elif post.outcome is Outcome.FAILED:
                yield Anomaly("phantom", f"{message} in {room!r}, whose post failed: {post.detail}")
            elif post.outcome is Outcome.OK and post.id != message.id:
                yield Anomaly("misnumbered", f"{message} in {room!r} was acknowledged as {post.id}")
    for post in posts:
        if post.outcome is Outcome.OK and post.text not in seen:
            yield Anomaly("lost", f"{post}")


def _real_time(posts: list[Post], story: Rooms) -> Iterator[Anomaly]:
    """If one post ended before another began, its ID is the lower. IDs span rooms, and so does the check."""
    ids = {message.text: message.id for messages in story.values() for message in messages}
    order = sorted((ids[post.text], post.began, post) for post in posts if post.text in ids)
    earliest: Post | None = None  # of those with a higher ID, the acknowledged one that ended first
    for _, _, post in reversed(order):
        if earliest is not None and earliest.ended < post.began:
            yield Anomaly("reordered", f"{post} began after {earliest} had ended")
        if post.outcome is Outcome.OK and (earliest is None or post.ended < earliest.ended):
            earliest = post


def _reads(reads: list[Read], posts: list[Post], story: Rooms) -> Iterator[Anomaly]:
    began = {post.text: post.began for post in posts}
    stories: dict[str, _Story] = defaultdict(lambda: _Story([]))
    stories.update((room, _Story(messages)) for room, messages in story.items())
    for read in reads:
        who = f"read of {read.room!r} from node {read.node} at {read.began:.3f}"
        yield from _ascending(read.messages, who)
        yield from _slice(read.messages, stories[read.room], who, from_start=read.whole)
        for message in read.messages:
            if began.get(message.text, read.ended) > read.ended:
                yield Anomaly("future", f"{who}: {message} was posted only after the read had ended")
    yield from _stale(reads, posts)


def _stale(reads: list[Read], posts: list[Post]) -> Iterator[Anomaly]:
    """A linearizable read shows at least what was acknowledged, or shown by another such read, before it began."""
    known: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for post in posts:
        if post.outcome is Outcome.OK:
            known[post.room].append((post.ended, post.id))
    for read in reads:
        if read.linearizable and read.messages:
            known[read.room].append((read.ended, read.messages[-1].id))
    times: dict[str, list[float]] = {}
    floors: dict[str, list[int]] = {}
    for room, events in known.items():
        events.sort()
        times[room] = [time for time, _ in events]
        highest = 0
        floors[room] = [highest := max(highest, id) for _, id in events]
    for read in reads:
        if not read.linearizable or read.room not in times:
            continue
        before = bisect_right(times[read.room], read.began)
        floor = floors[read.room][before - 1] if before else 0
        shown = read.messages[-1].id if read.messages else 0
        if shown < floor:
            yield Anomaly(
                "stale", f"read of {read.room!r} from node {read.node} at {read.began:.3f}: up to {shown}, not {floor}"
            )


class _Story:
    """A sequence of messages, and where each of them is in it."""

    def __init__(self, messages: list[Message]) -> None:
        self.messages = messages
        self.position = {message: position for position, message in enumerate(messages)}


def _slice(seen: Sequence[Message], story: _Story, who: str, *, from_start: bool = False) -> Iterator[Anomaly]:
    """What was seen must be a stretch of the story without holes."""
    if not seen:
        return
    missing = [message for message in seen if message not in story.position]
    if missing:
        yield Anomaly("flipflop", f"{who}: {missing[:3]} are not there at the end ({len(missing)} in all)")
        return
    distinct = set(seen)
    first = 0 if from_start else story.position[seen[0]]
    expected = story.messages[first : story.position[seen[-1]] + 1]
    holes = [message for message in expected if message not in distinct]
    if holes:
        yield Anomaly("skipped", f"{who}: {holes[:3]} ({len(holes)} in all)")


def _streams(history: History, story: Rooms) -> Iterator[Anomaly]:
    room_of = {message: room for room, messages in story.items() for message in messages}
    everything = _Story(sorted(room_of))
    began = {post.text: post.began for post in history.posts}
    for number, stream in enumerate(history.streams):
        who = f"stream {number} from node {stream.node}"
        seen = [message for _, message in stream.messages]
        yield from _ascending(seen, who)
        yield from _slice(seen, everything, who)
        for room, message in stream.messages:
            if room_of.get(message, room) != room:
                yield Anomaly("flipflop", f"{who}: {message} came as of {room!r}, is in {room_of[message]!r}")
        if stream.drained:
            got = set(seen)
            due = [m for m in everything.messages if began.get(m.text, 0.0) > stream.opened and m not in got]
            if due:
                yield Anomaly("skipped", f"{who}: {due[:3]} posted while it was open never came ({len(due)} in all)")
