"""`python -m raftchat` is `raft-chat`."""

from __future__ import annotations

from raftchat.cli import main

if __name__ == "__main__":
    main(prog_name="raft-chat")
