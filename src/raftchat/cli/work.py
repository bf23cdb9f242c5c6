"""What commands that do a piece of work and end have in common: progress, and how they say that they could not.

On a terminal a bar with bytes and the time left; elsewhere log lines. Knows nothing of the work.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import click

from raftchat import logs
from raftchat._log import CorruptLog, LogError
from raftchat.node.exits import CANNOT_START, CORRUPT, RUNTIME, NodeFailed
from raftchat.storage.errors import CorruptFile, StorageError

log = logging.getLogger(__name__)

OnProgress = Callable[[int, int], None]
LOG_INTERVAL_S = 10.0


def begin(command: str) -> None:
    """Set up logging on stderr."""
    logs.setup(command, log_format=logs.choose_format(None, sys.stderr), level="info")


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Errors as one line on stderr and an exit code."""
    try:
        yield
    except NodeFailed as failure:
        _end(failure.code, str(failure))
    except (CorruptFile, CorruptLog) as error:
        _end(CORRUPT, str(error))
    except (StorageError, LogError) as error:
        _end(CANNOT_START, str(error))
    except OSError as error:
        _end(CANNOT_START, f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except KeyboardInterrupt:
        _end(RUNTIME, "Interrupted")


def _end(code: int, message: str) -> None:
    log.error("%s", message)
    raise SystemExit(code)


@contextlib.contextmanager
def progress(what: str) -> Iterator[OnProgress]:
    """`on_progress(bytes done, bytes in all)` for the work in this block."""
    if sys.stderr.isatty():
        with _bar(what) as on_progress:
            yield on_progress
    else:
        log.info("%s", what)
        yield _lines(what)


def _lines(what: str) -> OnProgress:
    said = began = time.monotonic()

    def on_progress(done: int, total: int) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said >= LOG_INTERVAL_S:
            said = now
            left = round((now - began) * (total - done) / done) if done else None
            log.info("%s", what, extra={"bytes": done, "of_bytes": total, "seconds_left": left})

    return on_progress


@contextlib.contextmanager
def _bar(what: str) -> Iterator[OnProgress]:
    total_bytes = 0

    def shown(done: int | None) -> str:
        return f"{size(done or 0)} of {size(total_bytes)}"

    with click.progressbar(length=1, label=what, item_show_func=shown, file=sys.stderr) as bar:
        pending: Any = bar

        def on_progress(done: int, total: int) -> None:
            nonlocal total_bytes
            total_bytes = total
            pending.length = max(total, 1)
            if done > pending.pos:
                pending.update(done - pending.pos, done)

        yield on_progress


def size(count: float) -> str:
    """Bytes as people read them."""
    if count < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        count /= 1024
        if count < 1024:
            return f"{count:.1f} {unit}"
    return f"{count / 1024:.1f} TiB"


def red(text: str) -> str:
    """For what is wrong, where colours are seen and wanted (no-color.org)."""
    return click.style(text, fg="red") if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else text
