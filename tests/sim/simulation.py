"""One run: everything that a seed makes, put together; faults until `heal_us`, then what must come of it.

The only place that knows all parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raftchat.raft import Membership, Role

from . import plan as p
from .checkers import Observers, Violation
from .clients import Clients
from .network import Network
from .node import SimNode
from .scheduler import MS, NodeClock, Scheduler
from .trace import Trace

if TYPE_CHECKING:
    from .checkers import Checker
    from .faults import Fault


@dataclass(frozen=True, slots=True)
class Result:
    seed: int
    hash: int
    reached: dict[str, int]
    events: int
    committed: int
    violation: str = ""
    """What was violated and how; empty if nothing."""
    checker: str = ""


class Simulation:
    def __init__(self, seed: int, tell: Callable[[str], None] | None = None) -> None:
        self.plan = plan = p.draw(seed)
        self.trace = Trace(tell)
        self.scheduler = Scheduler()
        self.observers = Observers()
        self.committed = [0]
        """Digest of each committed entry: the one history, kept by the checker that makes sure it is one."""
        network_random = p.stream(seed, "network")
        self.network = Network(
            self.scheduler,
            network_random,
            self.trace,
            plan.voters,
            plan.latency_us,
            ordered=network_random.random() < 0.4,
        )
        self.membership = Membership({node: f"http://node-{node}" for node in range(1, plan.voters + 1)})
        self.faulty = True
        """Faults may happen; false once healed."""
        self._restarts = p.stream(seed, "restarts")
        clocks = p.stream(seed, "clocks")
        self.nodes: dict[int, SimNode] = {}
        for node_id in self.membership.voters:
            clock = NodeClock(self.scheduler, clocks.randrange(10**9), 1_700_000_000_000 + clocks.randrange(10**6))
            self.nodes[node_id] = SimNode(self, node_id, clock)
            self.network.attach(node_id, self.nodes[node_id].receive)
        self.network.on_broken(self._connection_broke)
        self.clients = Clients(self, p.stream(seed, "clients"))
        self.checkers: list[Checker] = []
        self.faults: list[Fault] = []

    # What faults and checkers use

    def up(self) -> list[SimNode]:
        return [node for node in self.nodes.values() if node.up]

    def leaders(self) -> list[SimNode]:
        """Those that believe to lead, the one of the highest term first."""
        leading = [node for node in self.nodes.values() if node.up and node.role is Role.LEADER]
        return sorted(leading, key=lambda node: -node.term)

    def restart_later(self, node: SimNode, after_us: int | None = None) -> None:
        if after_us is None:
            after_us = int(self.plan.restart_us * (0.2 + self._restarts.expovariate(1.0)))
        self.scheduler.after(after_us, self._restart, node, node.life)

    def _restart(self, node: SimNode, life: int) -> None:
        if not node.up and node.life == life and (self.faulty or node.id in self._survivors):
            node.boot()

    def say(self, text: str) -> None:
        if self.trace.readable:
            self.trace.say(self.scheduler.now_us, 0, text)

    def _connection_broke(self, source: int, target: int) -> None:
        self.nodes[source].connection_broke(target)
        self.nodes[target].connection_broke(source)

    # The run

    def run(self, checkers: Iterable[type[Checker]], faults: Iterable[type[Fault]]) -> Result:
        violation = checker = ""
        try:
            self._run(checkers, faults)
        except Violation as found:
            violation, checker = str(found), found.checker
        except AssertionError as error:
            violation, checker = f"the code's own assertion at {self._now()}: {_where(error)}", "assertion"
        except Exception as error:
            violation, checker = f"an exception at {self._now()}: {_where(error)}", "exception"
        if violation:
            self.say(f"✗ {violation}")
        trace = self.trace
        trace.reached["message lost"] += self.network.lost
        trace.reached["message doubled"] += self.network.duplicated
        trace.reached["file torn"] += sum(node.storage.disk.torn_files for node in self.nodes.values())
        return Result(
            self.plan.seed,
            trace.hash,
            dict(trace.reached),
            self.scheduler.events,
            len(self.committed) - 1,
            violation,
            checker,
        )

    def _now(self) -> str:
        return f"{self.scheduler.now_us / 1e6:.6f} s"

    def _run(self, checkers: Iterable[type[Checker]], faults: Iterable[type[Fault]]) -> None:
        plan, scheduler = self.plan, self.scheduler
        self.say(str(plan))
        for make in checkers:
            self.checkers.append(make(self))
            self.observers.add(self.checkers[-1])
        for kind in faults:
            random = p.stream(plan.seed, f"fault/{kind.name()}")
            if random.random() < kind.share:
                self.faults.append(kind(self, random))
        for node in self.nodes.values():
            scheduler.after(0, node.boot)
        for fault in self.faults:
            self.say(f"fault: {fault}")
            scheduler.after(0, fault.start)
        self.clients.start()
        scheduler.run_until(plan.heal_us)
        self._heal()
        for timeouts, require in (
            (p.LEADER_WITHIN, self._require_leader),
            (p.PROBED_AT, self._probe),
            (p.SETTLED_WITHIN, self._require_settled),
            (p.QUIET_UNTIL, self._require_quiet),
        ):
            scheduler.run_until(plan.heal_us + timeouts * plan.config.election_timeout_ms * MS)
            require()
        for see in self.observers.ended:
            see()

    def _heal(self) -> None:
        self.faulty = False
        self.say("the faults stop")
        nodes = sorted(self.nodes)
        self._survivors = set(nodes)
        if not self.plan.restart_all:
            self._survivors = set(self._restarts.sample(nodes, len(nodes) // 2 + 1))
        for fault in self.faults:
            fault.heal()
        self.network.heal()
        for node in self.nodes.values():
            node.storage.slowdown = 1.0
            node.storage.disk.operations_left = -1
            if node.clock.rate_ppm != 1_000_000:
                node.set_clock_rate(1_000_000)
            if node.paused:
                node.resume()
            if node.id not in self._survivors:
                node.crash(power_lost=False)
            elif not node.up:
                node.boot()

    # After the faults

    def _require_leader(self) -> None:
        leaders = self.leaders()
        live = self.up()
        if not leaders or any(node.leader != leaders[0].id or node.term != leaders[0].term for node in live):
            views = {node.id: (node.role.value, node.term, node.leader) for node in live}
            raise Violation("liveness", f"no leader {p.LEADER_WITHIN} election timeouts after the faults: {views}")
        self._quiet_term = leaders[0].term
        self.clients.open = False

    def _probe(self) -> None:
        """What is asked from now on may not fail any more."""
        self._probes = [self.clients.post_at(node.id, count=1) for node in self.up()]
        self._reads = [self.clients.read_at(node.id) for node in self.up()]

    def _require_settled(self) -> None:
        for request in self._probes:
            for post in request.posts:
                if post.outcome != "ok":
                    raise Violation(
                        "liveness", f"post {post.number} on node {request.node_id}: {post.outcome or 'pending'}"
                    )
        for reading in self._reads:
            if reading.outcome != "ok":
                raise Violation("liveness", f"read on node {reading.node_id}: {reading.outcome or 'pending'}")
        pending = [post.number for post in self.clients.posts if not post.outcome]
        if pending:
            raise Violation("liveness", f"posts {pending} are still undecided")
        live = self.up()
        ends = {node.id: (node.commit_index, node.view.last_index, node.view.digests[-1]) for node in live}
        if len(set(ends.values())) != 1 or live[0].commit_index != live[0].view.last_index:
            raise Violation("convergence", f"nodes differ: commit index, last index and digest are {ends}")

    def _require_quiet(self) -> None:
        terms = {node.id: node.term for node in self.up()}
        if set(terms.values()) != {self._quiet_term}:
            raise Violation("liveness", f"terms changed without a fault, from {self._quiet_term} to {terms}")


def _where(error: BaseException) -> str:
    """The innermost frames, in short."""
    import traceback

    frames = traceback.extract_tb(error.__traceback__)[-3:]
    places = ", from ".join(
        f"{frame.name} ({frame.filename.rpartition('/')[2]}:{frame.lineno})" for frame in frames[::-1]
    )
    return f"{type(error).__name__}: {error} in {places}"
