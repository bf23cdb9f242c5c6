"""What can be wrong with input before it is in the log, and with a command once it is. Does not know who is told."""

from __future__ import annotations


class Refused(ValueError):
    """Input that breaks a rule: `code` is stable and for programs, `detail` for people."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class UnknownKind(Exception):
    """A committed entry that this version cannot interpret. To skip it would be to differ from newer nodes for ever."""

    def __init__(self, kind: int, index: int, reason: str | None = None) -> None:
        super().__init__(
            reason
            or f"entry {index} is of kind {kind}, which this version does not know: it was written by a newer one. "
            f"Install that version on this node."
        )
        self.kind = kind
        self.index = index


class BadCommand(UnknownKind):
    """A committed command of a known kind whose key or value this version cannot read. Every node halts at it alike."""

    def __init__(self, kind: int, index: int, reason: str) -> None:
        super().__init__(
            kind,
            index,
            f"entry {index} of kind {kind} cannot be interpreted ({reason}): it was written by a newer version. "
            f"Install that version on this node.",
        )


class NewerState(Exception):
    """An encoded state that a newer version wrote."""

    def __init__(self, version: int) -> None:
        super().__init__(f"the chat state is of format {version}, written by a newer version of raft-chat")
        self.version = version
