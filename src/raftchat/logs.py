"""Logging on stderr: text on a terminal, JSON lines otherwise. What is logged, and why, is the callers' matter.

Details go into `extra`, not into the sentence: `log.warning("Peer refused us", extra={"peer": 2})` gives
`Peer refused us peer=2` or `{"Time":…,"Level":"WARNING","Node":1,"Process":"raft",…,"Message":"…","peer":2}`.
"""

from __future__ import annotations

import logging
import os
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

import orjson

FORMATS = ("text", "json")
LEVELS = ("debug", "info", "warning", "error")

_STANDARD = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {
    "message",
    "asctime",
    "taskName",
    "color_message",
}
_COLOURS = {"WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[31;1m", "DEBUG": "\x1b[2m"}


_node_id = 0
"""0: not said."""


def choose_format(wanted: str | None, stream: TextIO) -> str:
    """`wanted`, or what suits the stream."""
    return wanted or ("text" if stream.isatty() else "json")


def belong_to(node_id: int) -> None:
    """Say, before `setup`, which node this process is of: it is on each JSON line, as lines of several get mixed."""
    global _node_id
    _node_id = node_id


def setup(process: str, *, log_format: str, level: str, stream: TextIO | None = None) -> None:
    """Send all logging to stderr (or `stream`). `process` tells whose line it is: `raft`, `worker 1`."""
    target = stream or sys.stderr
    handler = logging.StreamHandler(target)
    if log_format == "json":
        handler.setFormatter(JsonFormatter(process, _node_id))
    else:
        coloured = target.isatty() and not os.environ.get("NO_COLOR")
        handler.setFormatter(TextFormatter(process, coloured=coloured))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("asyncio").setLevel(max(root.level, logging.WARNING))


def _details(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _plain(value: Any) -> str:
    """Quoted unless it is one printable word: what a peer sent must not look like a line of ours."""
    text = str(value)
    return text if text.isprintable() and " " not in text else repr(text)


class TextFormatter(logging.Formatter):
    def __init__(self, process: str, *, coloured: bool) -> None:
        super().__init__()
        self._process = process
        self._coloured = coloured

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).strftime("%H:%M:%S.%f")[:-3]
        details = "".join(f" {name}={_plain(value)}" for name, value in _details(record).items())
        line = f"{time} {record.levelname:<7} {self._process:<10} {record.getMessage()}{details}"
        if self._coloured and record.levelname in _COLOURS:
            line = f"{_COLOURS[record.levelname]}{line}\x1b[0m"
        if record.exc_info:
            line = f"{line}\n{self.formatException(record.exc_info)}"
        return line


class JsonFormatter(logging.Formatter):
    def __init__(self, process: str, node_id: int = 0) -> None:
        super().__init__()
        self._node = {"Node": node_id} if node_id else {}
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, Any] = {
            "Time": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "Level": record.levelname,
            **self._node,
            "Process": self._process,
            "Pid": record.process,
            "Logger": record.name,
            "Message": record.getMessage(),
            **_details(record),
        }
        if record.exc_info:
            line["Exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode("utf-8", "replace")
