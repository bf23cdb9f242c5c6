"""A worker that never serves."""

from raftchat.ipc.child import read_child_config

if __name__ == "__main__":
    read_child_config()
    raise SystemExit(7)
