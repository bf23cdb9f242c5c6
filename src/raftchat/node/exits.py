"""How a node's processes end: exit codes, and the one exception that carries one. Knows nothing else."""

from __future__ import annotations

DONE = 0
RUNTIME = 1
USAGE = 2
CANNOT_START = 3
CORRUPT = 4


class NodeFailed(Exception):
    """The node cannot go on, or cannot start. The message is for the user, with the remedy if there is one."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
