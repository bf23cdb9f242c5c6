"""Three to five cores under random delivery, loss, repetition, slow disks, crashes and time: safe, and it heals.

A small, fast cousin of the simulator, that explores turns of single cores rather than hours of a cluster.
"""

from __future__ import annotations

from random import Random

import pytest

from raftchat.config import Config
from raftchat.raft import ChangeRefused, NotLeader, Overloaded, Role
from tests.raft.support import CONFIG, Cluster, Node, members

SMALL = Config(
    record_size_max_bytes=CONFIG.record_size_max_bytes,
    append_size_max_bytes=CONFIG.record_size_max_bytes,
    inflight_max_bytes=CONFIG.record_size_max_bytes,
    inflight_max_messages=2,
)


class Chaos:
    """One seed's run."""

    def __init__(self, seed: int) -> None:
        self.random = random = Random(seed)
        size = random.choice([3, 3, 4, 5])
        membership = members(range(1, size + 1), range(size + 1, size + 1 + random.choice([0, 0, 1])))
        config = random.choice([CONFIG, SMALL])
        nodes = [Node(i, membership, config=config, random=Random(f"{seed} {i}")) for i in membership.members]
        self.cluster = Cluster(*nodes)
        self.cluster.held = set(self.cluster.nodes)
        self.loss = random.choice([0, 0.05, 0.3])
        self.reorder = random.random() < 0.7
        self.repeat = random.choice([0, 0.2])
        self.crashes = random.choice([0, 0.002, 0.02])
        self.proposed = 0
        self.asked: dict[tuple[int, int], int] = {}
        self.answered = 0

    def run(self, events: int) -> None:
        for _ in range(events):
            self.event()
        self.heal()

    def event(self) -> None:
        random, cluster = self.random, self.cluster
        node = cluster[random.choice(list(cluster.nodes))]
        draw = random.random()
        if draw < self.crashes:
            if node.down:
                cluster.restart(node.id)
            else:
                self.asked = {(n, c): i for (n, c), i in self.asked.items() if n != node.id}
                cluster.crash(node.id)
        elif draw < self.crashes + 0.01:
            cluster.heal() if cluster.cut else cluster.isolate(node.id)
        elif draw < self.crashes + 0.02 and not cluster.cut:
            other = random.choice(list(cluster.nodes))
            cluster.cut.add((node.id, other))
        if node.down:
            return
        if draw > 0.6 and cluster.network:
            self.deliver()
        elif draw > 0.45:
            cluster.turn(node)
        elif draw > 0.35:
            cluster.persist(node)
        elif draw > 0.25:
            node.elapse(random.choice([1, 10, 50, 100, 100, 200, 2000 if draw < 0.2505 else 300]))
        elif draw > 0.15:
            self.propose(node)
        elif draw > 0.12:
            self.read(node)
        elif draw > 0.10 and random.random() < 0.2:
            self.change(node)
        self.collect(node)

    def deliver(self) -> None:
        random, network = self.random, self.cluster.network
        packet = network.pop(random.randrange(len(network)) if self.reorder else 0)
        if random.random() < self.loss:
            return
        if random.random() < self.repeat:
            network.insert(random.randrange(len(network) + 1), packet)
        self.cluster.deliver(packet)

    def propose(self, node: Node) -> None:
        try:
            texts = [str(self.proposed + i) for i in range(self.random.randrange(1, 5))]
            self.cluster.post(node.id, *texts)
            self.proposed += len(texts)
        except (NotLeader, Overloaded):
            pass

    def read(self, node: Node) -> None:
        """Row 14: what any node knows to be committed when a read is asked for, the read must see."""
        context = len(self.asked) + self.answered + self.random.getrandbits(40)
        self.asked[node.id, context] = max((n.raft.commit_index for n in self.cluster.nodes.values()), default=0)
        node.raft.read_index(context)

    def change(self, node: Node) -> None:
        membership = node.raft.membership
        changed = self.random.choice(sorted(membership.members))
        try:
            if changed in membership.learners:
                to = membership.promote(changed)
            elif self.random.random() < 0.3:
                node.raft.transfer_leadership(changed)
                return
            else:
                to = membership.demote(changed)
            node.raft.propose_membership(to, 0)
        except (NotLeader, ChangeRefused, ValueError):
            pass

    def collect(self, node: Node) -> None:
        for read in node.reads:
            at_least = self.asked.pop((node.id, read.context))
            self.answered += 1
            assert read.index == 0 or read.index >= at_least, "a stale read"
        node.reads.clear()

    def heal(self) -> None:
        """Liveness: with all nodes up and the network whole there is a leader soon, and all it has is committed."""
        cluster = self.cluster
        cluster.heal()
        cluster.held.clear()
        for node in cluster.nodes.values():
            if node.down:
                cluster.restart(node.id)
            cluster.persist(node)
        cluster.settle()
        for _ in range(200):
            for node in cluster.nodes.values():
                node.elapse(100)
            cluster.settle()
            leaders = [n for n in cluster.nodes.values() if n.raft.role is Role.LEADER]
            if len(leaders) == 1 and leaders[0].raft.is_ready:
                ends = {n.raft.commit_index for n in cluster.nodes.values()}
                if ends == {leaders[0].log.last_index}:
                    break
        else:
            raise AssertionError([n.raft.status() for n in cluster.nodes.values()])
        for _ in range(11):  # Reads whose request was lost are given up after an election timeout.
            cluster.beat(leaders[0].id)
        for node in cluster.nodes.values():
            self.collect(node)
            assert node.raft.leader == leaders[0].id
            assert node.log.entries() == leaders[0].log.entries()
            assert node.raft.membership == leaders[0].raft.membership
        assert not self.asked, "reads left hanging"


@pytest.mark.parametrize("start", range(0, 200, 20))
def test_safety_and_healing(start: int) -> None:
    for seed in range(start, start + 20):
        try:
            Chaos(seed).run(3000)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
