"""A cluster of cores without threads, sockets or clocks: messages, disks and time move when a test says so.

Each node has its own clock. Disks are fast (a write is done as soon as it is asked for) unless held; the network is a
list. After every step the safety properties of figure 3.2 are checked over all nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random

from raftchat.config import Config
from raftchat.raft import HardState, Membership, Persist, Persisted, Raft, Read, Ready, Role
from raftchat.raft.messages import InstallSnapshot, Message, PeerMessage
from tests.raft.memory_log import NOOP, MemoryLog, pack_membership, post

CONFIG = Config()
T = CONFIG.election_timeout_ms
Packet = tuple[int, int, PeerMessage]


class FixedRandom(Random):
    """Election timeouts that a story can count on: T plus a twentieth of T per node id."""

    def __init__(self, node_id: int) -> None:
        super().__init__(node_id)
        self._fraction = node_id / 20

    def random(self) -> float:
        return self._fraction


def members(voters: Iterable[int], learners: Iterable[int] = ()) -> Membership:
    return Membership({v: f"http://node{v}" for v in voters}, {v: f"http://node{v}" for v in learners})


class Node:
    """A core, its disk and its clock."""

    def __init__(
        self,
        node_id: int,
        membership: Membership,
        log: MemoryLog | None = None,
        hard_state: HardState | None = None,
        config: Config = CONFIG,
        random: Random | None = None,
    ) -> None:
        self.id = node_id
        self.config = config
        self.base = (0, membership)
        self.random = random or FixedRandom(node_id)
        self.log = log if log is not None else MemoryLog()
        self.disk = hard_state if hard_state is not None else HardState(self.log.last_term)
        self.now_ms = 0.0
        self.down = False
        self.start()

    def start(self) -> None:
        history = [self.base, *((i, Membership.decode(m)) for i, m in self.log.memberships())]
        self.raft = Raft(
            self.config,
            self.id,
            self.log,
            self.disk,
            history,
            self.random,
            noop=NOOP,
            pack_membership=pack_membership,
            now_ms=self.now_ms,
        )
        self.written: HardState | None = None
        self.persist: Persist | None = None
        self.reads: list[Read] = []
        self.snapshot: InstallSnapshot | None = None

    def ready(self) -> Ready:
        ready = self.raft.ready()
        self.persist = ready.persist
        self.snapshot = ready.snapshot
        self.reads += ready.reads
        return ready

    def elapse(self, ms: float) -> None:
        self.now_ms += ms
        self.raft.tick(self.now_ms)

    def time_out(self) -> None:
        """Let time pass until it has heard nothing for its election timeout."""
        self.now_ms = self.election_deadline_ms
        self.raft.tick(self.now_ms)

    @property
    def election_deadline_ms(self) -> float:
        return self.raft._s.election_deadline_ms  # `deadline_ms` may be that of something else.

    def write(self, persist: Persist) -> Persisted:
        """The disk does what was asked for."""
        if persist.hard_state is not None:
            old, new = self.disk, persist.hard_state
            assert (new.term, new.commit) >= (old.term, 0)
            assert new.commit >= old.commit, "the commit hint never goes back"
            assert new.term > old.term or old.vote in (0, new.vote), "a vote is never taken back"
            self.disk = self.written = new
        self.log.sync(persist.last_index, persist.generation)
        assert self.disk.commit <= self.log.synced_index
        return Persisted(self.written, persist.last_index, persist.generation)

    def crash(self) -> None:
        """All that is not durable is gone."""
        self.log = self.log.after_crash()
        self.down = True


class Cluster:
    def __init__(self, *nodes: Node, on_event: Callable[[str, Node, object], None] | None = None) -> None:
        self.nodes = {node.id: node for node in nodes}
        self.network: list[Packet] = []
        self.held: set[int] = set()
        """Nodes whose disk writes nothing until told."""
        self.cut: set[tuple[int, int]] = set()
        """(from, to): what is sent there is lost."""
        self.leaders: dict[int, int] = {}
        self.committed: dict[int, tuple[int, bytes]] = {}
        self.on_event = on_event or (lambda *_: None)

    @classmethod
    def of(cls, size: int, **kwargs: object) -> Cluster:
        """A cluster of so many voters that have never run."""
        membership = members(range(1, size + 1))
        return cls(*(Node(i, membership, **kwargs) for i in membership.voters))  # type: ignore[arg-type]

    def __getitem__(self, node: int) -> Node:
        return self.nodes[node]

    def turn(self, node: Node) -> bool:
        """One `ready()`: messages to the network, writes to the disk unless it is held. False if nothing was due."""
        if node.down or not node.raft.has_ready:
            return False
        ready = node.ready()
        self.network += [(node.id, to, m) for to, m in ready.messages if (node.id, to) not in self.cut]
        self.on_event("ready", node, ready)
        self.check(node)
        if node.id not in self.held:
            self.persist(node)
        return True

    def persist(self, node: Node) -> None:
        if node.persist is not None:
            persist, node.persist = node.persist, None
            node.raft.step(node.write(persist))

    def turns(self) -> None:
        while sum(self.turn(node) for node in self.nodes.values()):
            pass

    def settle(self, limit: int = 10_000) -> None:
        """Deliver and write until nothing happens any more (time stands still)."""
        for _ in range(limit):
            self.turns()
            if not self.network:
                return
            self.deliver(self.network.pop(0))
        raise AssertionError("no end of messages")

    def deliver(self, packet: Packet) -> None:
        sender, to, message = packet
        node = self.nodes.get(to)
        if node is None or node.down or (sender, to) in self.cut:
            return
        self.on_event("deliver", node, packet)
        node.raft.step(message)

    def step(self, node: int, message: Message) -> list[tuple[int, PeerMessage]]:
        """Put one message into one node: what it sends before anybody answers."""
        self.nodes[node].raft.step(message)
        return self.sent_by(node)

    def sent_by(self, node: int) -> list[tuple[int, PeerMessage]]:
        """What a node has sent and the network not yet delivered, taken from the network."""
        while self.turn(self.nodes[node]):
            pass
        sent = [(to, m) for sender, to, m in self.network if sender == node]
        self.network = [packet for packet in self.network if packet[0] != node]
        return sent

    def elect(self, node: int) -> Raft:
        """By time-out, everybody else having heard nothing for as long."""
        for other in self.nodes.values():
            if other.id != node and not other.down:
                other.now_ms += T
                other.raft.tick(min(other.now_ms, other.election_deadline_ms - 1))
        self.nodes[node].time_out()
        self.settle()
        raft = self.nodes[node].raft
        assert raft.role is Role.LEADER
        return raft

    def post(self, node: int, *texts: str) -> tuple[int, int]:
        return self.nodes[node].raft.propose(b"".join(map(post, texts)), 0)

    def isolate(self, *nodes: int) -> None:
        """Cut these off from the others, both ways."""
        for a in nodes:
            for b in self.nodes.keys() - set(nodes):
                self.cut |= {(a, b), (b, a)}

    def heal(self) -> None:
        self.cut.clear()

    def crash(self, node: int) -> None:
        self.nodes[node].crash()

    def restart(self, node: int) -> None:
        self.nodes[node].down = False
        self.nodes[node].start()

    def beat(self, node: int) -> None:
        """A round of the leader's heartbeats, answered."""
        for other in self.nodes.values():
            if not other.down:
                other.elapse(CONFIG.heartbeat_interval_ms)
        self.settle()
        assert self.nodes[node].raft.role is Role.LEADER

    def check(self, node: Node) -> None:
        """Figure 3.2: election safety, state machine safety (and with it log matching of what is committed)."""
        raft = node.raft
        if raft.role is Role.LEADER:
            assert self.leaders.setdefault(raft.term, node.id) == node.id, f"two leaders in term {raft.term}"
        for index in range(max(self._checked.get(node.id, 0) + 1, node.log.first_index), raft.commit_index + 1):
            entry = node.log.term_at(index), node.log.record(index)
            assert self.committed.setdefault(index, entry) == entry, f"entry {index} committed twice"
        self._checked[node.id] = raft.commit_index

    @property
    def _checked(self) -> dict[int, int]:
        return self.__dict__.setdefault("_checked_upto", {})
