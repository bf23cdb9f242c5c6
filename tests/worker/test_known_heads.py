"""Recognising a head that came before answers exactly as parsing it again would: both are given the same streams."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from raftchat import _log
from raftchat.config import Config
from raftchat.worker.__main__ import load_state
from raftchat.worker.known_heads import KnownHeads
from raftchat.worker.pending import Failure, Outcome, Posted
from raftchat.worker.server import WorkerServer
from raftchat.worker.static import web_directory

PARSES_EACH = Config(known_heads_max=0)
BODIES = [
    b'{"Message":"hello","User":"u"}',
    b'{"Message":"Hello","User":"v"}',
    b'{"Message":"longer than the others","User":"u"}',
    b'{"Message":"","User":"u"}',
    b"{nonsense",
    b"",
    b"\r\n\r\n",
    b"abcd",
    b'{"Message":"a\\r\\n","User":"POST /rooms/b HTTP/1.1"}\r\n\r\n',
]
TARGETS = [b"/rooms/a", b"/rooms/b", b"/rooms/%C3%A9", b"/rooms/%zz", b"/rooms/a?x=1", b"/rooms/a/b", b"/livez", b"/"]
FIELDS = [
    b"Host: x",
    b"host:x",
    b"User-Agent: one",
    b"User-Agent: two",
    b"Connection: keep-alive",
    b"Content-Type: application/json",
    b"X-Long: " + b"x" * 3000,
]
UNUSUAL = [
    b"Connection: close",
    b"Connection: Upgrade\r\nUpgrade: h2c",
    b"Expect: 100-continue",
    b"Idempotency-Key: k",
    b"Transfer-Encoding: chunked",
    b"Content-Length: 4",
    b"Broken header",
]


class Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closing = False
        self.paused = False

    def write(self, data: Any) -> None:
        assert not self.closing
        self.written += data

    def close(self) -> None:
        self.closing = True

    abort = close

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


class Side:
    """One worker's protocols, without sockets or a Raft process. Proposals are decided when the test says."""

    def __init__(self, config: Config) -> None:
        server = WorkerServer(
            config, open_reader=_log.LogReader, load_state=load_state, pack=_log.pack, web=web_directory()
        )
        server._link.propose = self._propose  # type: ignore[method-assign]
        server._link.read = lambda resolve: resolve(0)  # type: ignore[method-assign]
        server._replica.replayed = True
        server._server.config.load()
        self._server = server._server
        self._undecided: list[Callable[[Outcome], None]] = []
        self.records: list[bytes] = []
        self.recognised = 0
        self.connect()

    def connect(self) -> None:
        self.transport = Transport()
        self.protocol: Any = self._server.config.http_protocol_class(  # type: ignore[operator]
            config=self._server.config, server_state=self._server.server_state, app_state={}
        )
        self.protocol.connection_made(self.transport)
        self._unread: list[bytes] = []
        parse = self.protocol._parse

        def counted(data: bytes) -> None:
            self.recognised -= 1
            parse(data)

        self.protocol._parse = counted

    def _propose(self, record: bytes, resolve: Callable[[Outcome], None]) -> None:
        self.records.append(record)
        self._undecided.append(resolve)

    def feed(self, data: bytes) -> None:
        self._unread.append(data)
        self._read()

    def _read(self) -> None:
        while self._unread and not self.transport.paused and not self.transport.closing:
            self.recognised += 1
            self.protocol.data_received(self._unread.pop(0))

    async def settle(self) -> None:
        for _ in range(15):
            await asyncio.sleep(0)
            undecided, self._undecided = self._undecided, []
            for resolve in undecided:
                number = len(self.records)
                resolve(Failure.NOT_COMMITTED if number % 11 == 0 else Posted(number, b"2024-01-01T00:00:00.000Z"))
            self._read()

    def hang_up(self) -> None:
        self.protocol.connection_lost(None)


def request(random: Random) -> bytes:
    fields = random.sample(FIELDS, random.randrange(3))
    body = random.choice(BODIES)
    end = b"\r\n"
    if random.random() < 0.06:
        fields.append(random.choice(UNUSUAL))
    if random.random() < 0.02:
        end = random.choice([b"\n", b"\r"])
    method = random.choice([b"POST"] * 40 + [b"GET"] * 8 + [b"HEAD", b"PUT", b"BREW"])
    if method == b"POST":
        length = len(body) if random.random() < 0.98 else random.randrange(60)
        fields.append(b"%b: %d" % (random.choice([b"Content-Length", b"content-length"]), length))
    else:
        body = b""
    version = b"HTTP/1.0" if random.random() < 0.02 else b"HTTP/1.1"
    target = random.choice(TARGETS[:2]) if random.random() < 0.8 else random.choice(TARGETS)
    head = end.join([b"%b %b %b" % (method, target, version), *fields, b"", b""])
    around = [b"\r\n", b"\r\n\r\n", b"\r"] if random.random() < 0.03 else [b""]
    return random.choice(around) + head + body + random.choice(around)


def chunks(random: Random, requests: list[bytes]) -> list[bytes]:
    """As they may be read from a socket: mostly one request at once, some in pieces, some together."""
    pieces: list[bytes] = []
    for whole in requests:
        if pieces and random.random() < 0.1:
            pieces[-1] += whole
        elif len(whole) > 1 and random.random() < 0.15:
            cut = random.randrange(1, len(whole))
            pieces += [whole[:cut], whole[cut:]]
        else:
            pieces.append(whole)
    return pieces


@pytest.mark.parametrize("seed", range(10))
def test_known_heads_answer_as_parsed_ones(seed: int) -> None:
    random = Random(seed)

    async def run() -> None:
        sides = (Side(Config(known_heads_max=16)), Side(PARSES_EACH))
        pool = [request(random) for _ in range(12)]
        for _ in range(120):
            # Clients repeat themselves; now and then somebody new comes.
            if random.random() < 0.3:
                pool[random.randrange(len(pool))] = request(random)
            stream = chunks(random, [random.choice(pool) for _ in range(random.randrange(1, 25))])
            settles = [random.random() < 0.8 for _ in stream]
            for side in sides:
                side.connect()
                for piece, settle in zip(stream, settles, strict=True):
                    side.feed(piece)
                    if settle:
                        await side.settle()
                await side.settle()
            known, parsed = sides
            assert known.transport.written == parsed.transport.written, stream
            assert known.transport.closing == parsed.transport.closing, stream
            assert known.records == parsed.records, stream
            for side in sides:
                side.hang_up()
                await side.settle()
        assert known.recognised > 30
        assert parsed.recognised == 0

    asyncio.run(run())


def make(protocol: Any) -> Any:
    raise AssertionError("not called here")


HEAD = b"POST /rooms/a HTTP/1.1\r\nContent-Length: 4\r\n\r\n"


def test_a_head_is_remembered_up_to_its_empty_line() -> None:
    heads = KnownHeads(Config())
    heads.learn(HEAD + b"abcd", 4, make)
    assert heads.find(HEAD) == (make, 4)
    assert heads.find(HEAD + b"a") is None


@pytest.mark.parametrize(
    "request_",
    [
        HEAD + b"abcd\r\n",
        HEAD.replace(b"\r\n", b"\n") + b"\r\n\r\n" + b"\r\n\r\n",
        HEAD[:-4] + b"\r\nX: a\nb\r\n\r\nabcd",
        HEAD[:-4] + b"\r\nX: a\rb\r\n\r\nabcd",
        HEAD[:-4] + b"\r\nX: " + b"x" * Config().known_head_max_bytes + b"\r\n\r\nabcd",
    ],
    ids=["something behind", "bare line feeds", "a bare line feed", "a bare carriage return", "too long"],
)
def test_a_head_whose_end_is_not_certain_is_not_remembered(request_: bytes) -> None:
    heads = KnownHeads(Config())
    heads.learn(request_, 4, make)
    assert len(heads) == 0


def test_the_oldest_head_is_forgotten() -> None:
    config = dataclasses.replace(Config(), known_heads_max=2)
    heads = KnownHeads(config)
    requests = [b"GET /rooms/%d HTTP/1.1\r\n\r\n" % number for number in range(3)]
    for request_ in requests:
        heads.learn(request_, 0, make)
    assert [heads.find(request_) is not None for request_ in requests] == [False, True, True]
