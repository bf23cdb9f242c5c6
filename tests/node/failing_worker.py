"""A worker that never serves; FAILING_WORKER_CODE is how it ends."""

import os

from raftchat.ipc.child import read_child_config

if __name__ == "__main__":
    read_child_config()
    raise SystemExit(int(os.environ.get("FAILING_WORKER_CODE", "7")))
