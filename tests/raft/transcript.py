"""Stories of a cluster: commands in, what the nodes do out. `transcripts/*.txt` hold both.

    # A comment.
    > a command
    what came of it

Commands (N is a node); what stands on one line, between semicolons, happens in one turn:

    cluster N N … [learners N …]     new nodes; `join N …` are members of nothing yet
    log N TERM TERM … [seen TERM]    start a node anew with one durable entry of each term, in this or the last term
    time-out N                       it hears nothing for its election timeout
    elapse MS [N …]                  so much time passes for these (else all) nodes
    deliver [N→N …]                  until nothing is under way; or one turn's messages of these links
    lose [N→N …]                     drop what is under way (on these links)
    cut N→N … / isolate N … / heal   links that lose everything from now on
    disk N slow|fast|writes          a slow disk writes only when told
    disk N begins|done               ... and may take its time: what it reports is what there was when it began
    post N TEXT …                    propose entries, in one batch
    read N CONTEXT                   ask for a linearizable index
    change N N … [learners N …]      propose a membership to the first node
    transfer N to N
    crash N / restart N
    show                             roles, terms, logs

Knows how the core's messages and states are written down, and nothing of what they should be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from raftchat.raft import HardState, Membership, Persist, Ready, Refused
from raftchat.raft.messages import (
    AppendEntries,
    AppendReply,
    InstallSnapshot,
    PeerMessage,
    ReadIndexReply,
    ReadIndexRequest,
    RequestVote,
    VoteReply,
)
from tests.raft.memory_log import log_of, post
from tests.raft.support import Cluster, Node, Packet, members


def rewrite(text: str) -> str:
    """The same story with what its commands do now."""
    teller = Teller()
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("> "):
            lines += [line, *teller.tell(line[2:])]
        elif line.startswith("#"):
            if lines and not lines[-1].startswith("#") and lines[-1]:
                lines.append("")
            lines.append(line)
        elif not line and lines and lines[-1].startswith("#"):
            lines.append("")
    return "\n".join(lines) + "\n"


class Teller:
    def __init__(self) -> None:
        self.cluster = Cluster()
        self.out: list[str] = []
        self.said: dict[int, str] = {}
        self.begun: Persist | None = None

    def tell(self, command: str) -> list[str]:
        """Do it; what happened, line by line."""
        self.out = []
        for part in command.split(" ; "):
            name, *words = part.split()
            do: Callable[..., None] = getattr(self, "do_" + name.replace("-", "_"))
            try:
                do(*words)
            except (Refused, ValueError) as error:
                self.out.append(f"{type(error).__name__}: {error}")
        self.cluster.turns()
        return self.out

    # Commands

    def do_cluster(self, *words: str) -> None:
        membership = _membership(words)
        self.cluster = Cluster(*(Node(i, membership) for i in membership.members), on_event=self.hear)
        for node in self.cluster.nodes.values():
            self.said[node.id] = _state(node)

    def do_join(self, *nodes: str) -> None:
        for node in map(int, nodes):
            self.cluster.nodes[node] = Node(node, Membership())
            self.said[node] = _state(self.cluster[node])

    def do_log(self, node: str, *terms: str) -> None:
        old = self.cluster[int(node)]
        seen = 0
        if "seen" in terms:
            terms, seen = terms[:-2], int(terms[-1])
        log = log_of(*map(int, terms))
        self.cluster.nodes[old.id] = Node(old.id, old.base[1], log, HardState(max(seen, log.last_term)))
        self.said[old.id] = _state(self.cluster[old.id])

    def do_time_out(self, node: str) -> None:
        self.cluster[int(node)].time_out()

    def do_elapse(self, ms: str, *nodes: str) -> None:
        for node in map(int, nodes or map(str, self.cluster.nodes)):
            if not self.cluster[node].down:
                self.cluster[node].elapse(float(ms))

    def do_deliver(self, *links: str) -> None:
        self.cluster.turns()
        if not links:
            self.cluster.settle()
        for packet in [p for p in self.cluster.network if p[:2] in set(_links(links))]:
            self.cluster.network.remove(packet)
            self.cluster.deliver(packet)

    def do_lose(self, *links: str) -> None:
        self.cluster.turns()
        for packet in [p for p in self.cluster.network if not links or p[:2] in set(_links(links))]:
            self.cluster.network.remove(packet)
            self.out.append(f"{_packet(packet)}  lost")

    def do_cut(self, *links: str) -> None:
        self.cluster.cut |= set(_links(links))

    def do_isolate(self, *nodes: str) -> None:
        self.cluster.isolate(*map(int, nodes))

    def do_heal(self) -> None:
        self.cluster.heal()

    def do_disk(self, node: str, what: str) -> None:
        if what == "slow":
            self.cluster.held.add(int(node))
        elif what == "fast":
            self.cluster.held.discard(int(node))
        self.cluster.turns()
        it = self.cluster[int(node)]
        if what == "begins":
            self.begun = it.persist
        elif what == "done":
            assert self.begun is not None
            it.raft.step(it.write(self.begun))
        elif what != "slow":
            self.cluster.persist(it)

    def do_post(self, node: str, *texts: str) -> None:
        first, last = self.cluster[int(node)].raft.propose(b"".join(map(post, texts)), 0)
        self.out.append(f"{node}  appended {_range(first, last)}")

    def do_read(self, node: str, context: str) -> None:
        self.cluster[int(node)].raft.read_index(int(context))

    def do_change(self, node: str, *words: str) -> None:
        index = self.cluster[int(node)].raft.propose_membership(_membership(words), 0)
        self.out.append(f"{node}  appended {index}, a membership")

    def do_transfer(self, node: str, _to: str, target: str) -> None:
        self.cluster[int(node)].raft.transfer_leadership(int(target))

    def do_crash(self, node: str) -> None:
        self.cluster.network = [p for p in self.cluster.network if p[0] != int(node)]
        self.cluster.crash(int(node))

    def do_restart(self, node: str) -> None:
        self.cluster.restart(int(node))

    def do_show(self) -> None:
        for node in self.cluster.nodes.values():
            log = " ".join(str(term) for term, _ in node.log.entries())
            durable_index = node.raft.status().durable_index
            durable = f", durable to {durable_index}" if durable_index < node.log.last_index else ""
            state = "down" if node.down else _state(node)
            self.out.append(f"{node.id}  {state}, log [{log}]{durable}")

    # What happens

    def hear(self, event: str, node: Node, what: object) -> None:
        if event == "deliver":
            self.out.append(_packet(what))  # type: ignore[arg-type]
            return
        assert isinstance(what, Ready)
        state = _state(node)
        if state != self.said.get(node.id):
            self.said[node.id] = state
            self.out.append(f"{node.id}  {state}")
        for read in what.reads:
            self.out.append(f"{node.id}  read {read.context} " + (f"at {read.index}" if read.index else "failed"))
        if node.id in self.cluster.held and what.persist is not None:
            hard_state = what.persist.hard_state
            hard = f"term {hard_state.term} vote {hard_state.vote}, " if hard_state else ""
            self.out.append(f"{node.id}  waits for its disk: {hard}log to {what.persist.last_index}")


def _membership(words: tuple[str, ...]) -> Membership:
    voters, learners = words, ()
    if "learners" in words:
        at = words.index("learners")
        voters, learners = words[:at], words[at + 1 :]
    return members(map(int, voters), map(int, learners))


def _links(links: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    for link in links:
        sender, to = link.split("→")
        yield int(sender), int(to)


def _state(node: Node) -> str:
    raft = node.raft
    leader = f" of {raft.leader}" if raft.leader not in (0, node.id) else ""
    voters = " ".join(map(str, sorted(raft.membership.voters))) or "none"
    learners = " + " + " ".join(map(str, sorted(raft.membership.learners))) if raft.membership.learners else ""
    return f"{raft.role}{leader}, term {raft.term}, committed {raft.commit_index}, members {voters}{learners}"


def _packet(packet: Packet) -> str:
    sender, to, message = packet
    return f"{sender}→{to}  {_message(message)}"


def _message(m: PeerMessage) -> str:
    match m:
        case RequestVote():
            name = "PreVote" if m.pre else "RequestVote"
            return f"{name} term {m.term}, log {m.last_index}/{m.last_term}" + (", transfer" if m.transfer else "")
        case VoteReply():
            name = "PreVoteReply" if m.pre else "VoteReply"
            return f"{name} term {m.term}, {'granted' if m.granted else 'refused'}"
        case AppendEntries():
            batch = m.batch
            entries = f", entries {_range(batch.first_index, batch.last_index)}/{batch.term}" if batch else ""
            kind = " membership" if batch and batch.membership is not None else ""
            return (
                f"AppendEntries term {m.term}, prev {m.prev_index}/{m.prev_term}{entries}{kind}, "
                f"commit {m.commit_index}, round {m.round}"
            )
        case AppendReply(success=True):
            return f"AppendReply term {m.term}, match {m.match_index}, round {m.round}"
        case AppendReply():
            hint = f", prev {m.conflict_index}, hint {m.hint_index}/{m.hint_term}" if m.conflict_index else ""
            return f"AppendReply term {m.term}, refused{hint}, round {m.round}"
        case InstallSnapshot():
            return f"InstallSnapshot term {m.term}, to {m.last_index}/{m.last_term}, round {m.round}"
        case ReadIndexRequest():
            return f"ReadIndex term {m.term}"
        case ReadIndexReply():
            return f"ReadIndexReply term {m.term}, " + (f"at {m.index}" if m.index else "refused")
        case _:
            return f"{type(m).__name__} term {m.term}"


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"
