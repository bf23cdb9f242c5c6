"""Walking all messages of a room and all rooms, both ways, while others post and retention, indexing and compaction go
on: what was there before and is there after is met once, in order; what came or went meanwhile at most once."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from raftchat.chat.policy import Policy
from tests.worker.keeper import Keeper
from tests.worker.support import TIME_MS, FakeRaft, Worker, record, running
from tests.worker.test_reads import links

T = TypeVar("T", int, str)
MESSAGES = 20_000
ROOMS = 1_000
SEGMENT_SIZE_BYTES = 256 * 1024


def before(raft: FakeRaft) -> None:
    """`long` between the messages of a thousand rooms, in many segments."""
    batch: list[bytes] = []
    for n in range(MESSAGES):
        batch.append(record("long", str(n)))
        if n % (MESSAGES // ROOMS) == 0:
            batch.append(record(f"room-{n // (MESSAGES // ROOMS):04}", str(n)))
        if len(batch) >= 100:
            raft.append(b"".join(batch), TIME_MS + n)
            batch.clear()
    raft.append(b"".join([*batch, record("zzz", "last")]), TIME_MS + MESSAGES)
    raft.commit()


class Others:
    """One thing that somebody else does, at random, between two requests."""

    def __init__(self, raft: FakeRaft, seed: int) -> None:
        self.keeper = Keeper(raft)
        self.done: set[str] = set()
        self._raft = raft
        self._random = random.Random(seed)
        self._now_ms = TIME_MS + MESSAGES
        self._keeps = MESSAGES
        self._rooms = ROOMS + 2
        self._posted = 0

    def act(self) -> None:
        self._now_ms += 1000
        what = self._random.choices(
            (self._post, self._trim, self._remove_rooms, self._seal, self._compact), (20, 10, 10, 4, 1)
        )[0]
        what()
        self.done.add(what.__name__)

    def _post(self) -> None:
        rooms = ["long", *(f"room-{self._random.randrange(ROOMS):04}" for _ in range(3)), f"new-{self._posted:04}"]
        self._posted += 1
        self._rooms += 1
        self._raft.append(b"".join(record(room, "new") for room in rooms), self._now_ms)
        self._raft.commit()

    def _trim(self) -> None:
        self._keeps -= self._random.randrange(100)
        self.keeper.retain(self._now_ms, rooms={b"long": Policy(max_messages=self._keeps)})

    def _remove_rooms(self) -> None:
        self._rooms -= self._random.randrange(3)
        self.keeper.retain(self._now_ms, Policy(max_rooms=self._rooms))

    def _seal(self) -> None:
        self.keeper.seal()

    def _compact(self) -> None:
        if len(self._raft.log.segments()) > 2:
            self.keeper.compact()


@pytest.fixture(params=range(3))
def others(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Worker, Others]]:
    with running(tmp_path, prepare=before, segment_size_bytes=SEGMENT_SIZE_BYTES) as worker:
        found = worker.call(lambda: Others(worker.raft, request.param))
        yield worker, found
        worker.call(found.keeper.close)


def walk(worker: Worker, others: Others, path: str, rel: str, name: Callable[[Any], T], **params: Any) -> list[list[T]]:
    """The pages, as they came."""
    pages = []
    response = worker.client.get(path, params=params)
    while True:
        assert response.status_code == 200, response.text
        pages.append([name(item) for item in response.json()])
        if (url := links(response).get(rel)) is None:
            return pages
        worker.call(others.act)
        response = worker.client.get(url)


def everything(worker: Worker, path: str, name: Callable[[Any], T]) -> list[T]:
    """At one moment."""
    found: list[T] = []
    url: str | None = path
    while url:
        response = worker.client.get(url)
        found += [name(item) for item in response.json()]
        url = links(response).get("next")
    return found


def check(met: Sequence[T], was: Sequence[T], now: Sequence[T]) -> None:
    assert list(met) == sorted(set(met)), "not in order, or not once"
    stayed = set(was) & set(now)
    assert stayed <= set(met), f"missed: {sorted(stayed - set(met))[:10]}"


def identity(message: dict[str, Any]) -> int:
    return int(message["ID"])


@pytest.mark.parametrize("limit", [1000, 130])
def test_a_room_backwards_and_forwards(others: tuple[Worker, Others], limit: int) -> None:
    worker, busy = others
    for rel, params in (("prev", {}), ("next", {"after": 0})):
        was = everything(worker, "/rooms/long?after=0&limit=1000", identity)
        pages = walk(worker, busy, "/rooms/long", rel, identity, limit=limit, **params)
        now = everything(worker, "/rooms/long?after=0&limit=1000", identity)
        if rel == "prev":
            pages.reverse()
        check([met for page in pages for met in page], was, now)
        assert len(was) > MESSAGES // 4
    assert limit == 1000 or busy.done == {"_post", "_trim", "_remove_rooms", "_seal", "_compact"}


@pytest.mark.parametrize("limit", [7, 100])
def test_all_rooms(others: tuple[Worker, Others], limit: int) -> None:
    worker, busy = others
    was = everything(worker, "/rooms", str)
    pages = walk(worker, busy, "/rooms", "next", str, limit=limit)
    now = everything(worker, "/rooms", str)
    check([met for page in pages for met in page], was, now)
    assert len(set(was) & set(now)) > ROOMS // 2
    state = worker.call(lambda: worker.server._replica.state.state_hash())
    assert state == worker.call(lambda: (busy.keeper.apply(), busy.keeper.state.state_hash())[1])
