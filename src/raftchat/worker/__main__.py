"""A worker process, started by the supervisor (`ipc/child.py`). Turns what ended it into an exit code, knows nothing
else.

0: was asked to stop. 1: the Raft process went away, or the snapshot was no good; worth another try. 3: the log holds
what this version does not know. 4: the log is corrupt.
"""

from __future__ import annotations

import gc
import logging
import socket
import sys

import uvloop

from raftchat import _log, logs
from raftchat.chat.state import ChatState, UnknownKind
from raftchat.ipc.child import ChildConfig, read_child_config
from raftchat.storage import snapshot
from raftchat.worker.server import WorkerServer
from raftchat.worker.static import web_directory


def load_state(path: str) -> ChatState:
    """The state in a snapshot. Raises OSError, StorageError, NewerState, and ValueError if it is no state."""
    return ChatState.decode(snapshot.load(path).state)


async def _run(child: ChildConfig) -> int:
    server = WorkerServer(
        child.config, open_reader=_log.LogReader, load_state=load_state, pack=_log.pack, web=web_directory()
    )
    http = [socket.socket(fileno=number) for number in child.fds["http"]]
    ipc = socket.socket(fileno=child.fds["ipc"])
    for sock in (*http, ipc):
        sock.setblocking(False)
    # What exists by now stays: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    await server.serve(http, ipc)
    error = server.error
    if error is None:
        return 0
    if isinstance(error, UnknownKind):
        return 3
    return 4 if isinstance(error, _log.CorruptLog) else 1


def main() -> None:
    child = read_child_config()
    logs.setup(f"worker {child.number}", log_format=child.log_format, level=child.log_level)
    # uvicorn tells of every WebSocket at level info.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    sys.exit(uvloop.run(_run(child)))


if __name__ == "__main__":
    main()
