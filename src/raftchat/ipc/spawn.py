"""A child's first steps: `python -m raftchat.ipc.spawn MODULE PARENT_PID` makes sure of its end, then becomes MODULE.

Imports next to nothing: a supervisor that is killed while its children are still importing must not leave them behind.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent ends (Linux); now, if it already has."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        # The parent ended before the call above could take effect.
        os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    _, module, parent_pid = sys.argv
    die_with_parent(int(parent_pid))
    sys.argv = [module]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
