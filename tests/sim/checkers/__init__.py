"""What must hold, one property per file. Checkers look on: they see what a node sends, stores and publishes.

A new property is a new file and a line in `run.py`. Each event costs a checker O(1), whatever the history's length.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raftchat.raft.messages import HardState, PeerMessage

    from ..desk import Post, Reading
    from ..node import SimNode
    from ..simulation import Simulation


class Violation(Exception):
    """A property does not hold. The first argument is its name."""

    def __init__(self, checker: str, text: str) -> None:
        super().__init__(f"{checker}: {text}")
        self.checker = checker


class Checker:
    """Base of all: overrides what it wants to see. Everything else costs nothing."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation

    def booted(self, node: SimNode) -> None:
        """A node recovered its disk and runs."""

    def crashed(self, node: SimNode, power_lost: bool) -> None: ...

    def appended(self, node: SimNode, first_index: int, last_index: int) -> None:
        """To the node's log, not durable yet."""

    def truncated(self, node: SimNode, last_index: int) -> None: ...

    def sending(self, node: SimNode, target: int, message: PeerMessage) -> None: ...

    def hard_state_written(self, node: SimNode, hard_state: HardState) -> None:
        """It is durable now."""

    def turned(self, node: SimNode) -> None:
        """One turn of the node's loop is over, in which its role, term, commit index or log has changed."""

    def acknowledged(self, post: Post) -> None: ...

    def read_begins(self, reading: Reading) -> None: ...

    def read_ends(self, reading: Reading) -> None:
        """Answered to the client."""

    def ended(self) -> None:
        """The run is over and every node that runs has settled."""

    def require(self, holds: bool, text: str) -> None:
        if not holds:
            raise Violation(self.name(), text)

    @classmethod
    def name(cls) -> str:
        return cls.__module__.rpartition(".")[2]


EVENTS = tuple(name for name in vars(Checker) if name not in {"require", "name"} and not name.startswith("_"))


class Observers:
    """For each event the methods that want it: `for see in observers.turned: see(node)`."""

    booted: list[Callable[..., Any]]
    crashed: list[Callable[..., Any]]
    appended: list[Callable[..., Any]]
    truncated: list[Callable[..., Any]]
    sending: list[Callable[..., Any]]
    hard_state_written: list[Callable[..., Any]]
    turned: list[Callable[..., Any]]
    acknowledged: list[Callable[..., Any]]
    read_begins: list[Callable[..., Any]]
    read_ends: list[Callable[..., Any]]
    ended: list[Callable[..., Any]]

    def __init__(self) -> None:
        for event in EVENTS:
            setattr(self, event, [])

    def add(self, checker: Checker) -> None:
        for event in EVENTS:
            if getattr(type(checker), event) is not getattr(Checker, event):
                getattr(self, event).append(getattr(checker, event))
