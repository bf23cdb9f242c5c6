"""Everything that a node writes durably, each as one operation, by name."""

from __future__ import annotations

from tests.faults.crash_directory import Backup, Bootstrap, Receive, Restore, Vote
from tests.faults.crash_kit import Operation
from tests.faults.crash_log import Append, Cut, Mend, Roll
from tests.faults.crash_store import Compact, CompactAgain, Drop, Index, Snapshot

ALL: dict[str, Operation] = {
    kind.name: kind()
    for kind in (
        Append,
        Roll,
        Cut,
        Mend,
        Index,
        Snapshot,
        Compact,
        CompactAgain,
        Drop,
        Vote,
        Bootstrap,
        Receive,
        Restore,
        Backup,
    )
}
