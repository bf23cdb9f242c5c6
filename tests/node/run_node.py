"""Runs a node as `raft-chat` does, but with another worker: `run_node.py MODULE ARGUMENTS…`."""

import dataclasses
import importlib
import sys

from raftchat.cli import main
from raftchat.node.supervisor import NodeSettings, run_node

if __name__ == "__main__":
    module = sys.argv.pop(1)

    def with_other_worker(settings: NodeSettings) -> int:
        config = dataclasses.replace(settings.config, worker_restart_max_ms=100, shutdown_timeout_ms=1_000)
        return run_node(dataclasses.replace(settings, worker_module=module, config=config))

    # Not `from raftchat.cli import serve`: the package shows the command of that name.
    importlib.import_module("raftchat.cli.serve").run_node = with_other_worker  # type: ignore[attr-defined]
    main(prog_name="raft-chat")
