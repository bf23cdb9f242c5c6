"""What the keeper's thread does by itself, and what it leaves to the loop."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from raftchat.node.store_keeper import LoopOwner


class Log:
    def __init__(self) -> None:
        self.unlinked: list[tuple[Any, threading.Thread]] = []

    def unlink(self, retired: Any) -> None:
        self.unlinked.append((retired, threading.current_thread()))


def test_files_are_unlinked_while_the_loop_is_at_something_else() -> None:
    """Each flushes the directory: done on the loop, posts stood still for a quarter of a second."""
    log: Any = Log()
    none: Any = None
    loop = asyncio.new_event_loop()  # it never runs
    owner = LoopOwner(loop, log, none, none, none, lambda: None, None)
    thread = threading.Thread(target=owner.unlink, args=(["old"],), daemon=True)
    thread.start()
    thread.join(10)
    loop.close()
    assert log.unlinked == [(["old"], thread)]
