"""Making a log durable: one fdatasync after the other, in whatever thread, until one fails.

Knows descriptors and who waits for whom. Does not know what is flushed, nor what follows from it.
"""

from types import TracebackType
from typing import final

@final
class SyncLock:
    """Held while something is made durable: who waits for it learns of a failure first. Its owner may take it again."""

    def __enter__(self) -> SyncLock: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

@final
class SyncPoint:
    """An fdatasync to be made: begun by `Log.begin_sync`, waited for in any thread, ended by `Log.end_sync`."""

    last_index: int
    generation: int
    def wait(self) -> None:
        """Flush, without the GIL. Raises OSError; then the process must end (assumption 5): the log refuses more."""

@final
class SyncThread:
    """Flushes one point at a time in a thread of its own, which does without the GIL: neither does it wait for another
    thread to let go of it, nor another for this one.

    `start(point)` and `end()` are called by the log's owner, in turn; `fileno` is readable when `end` may be called.
    """

    def __init__(self) -> None: ...
    def run(self) -> None:
        """What the thread does, until `stop`. A point that was started is flushed first."""

    def start(self, point: SyncPoint) -> None:
        """Have it flushed."""

    def end(self) -> SyncPoint:
        """The point that was started; waits until it is flushed. Raises OSError as `SyncPoint.wait` does."""

    def stop(self) -> None: ...
    def fileno(self) -> int: ...
