"""A worker that serves nothing, says that it does, and does not end when it is asked to."""

import signal
import socket
import time

from raftchat.ipc import frames
from raftchat.ipc.child import read_child_config

if __name__ == "__main__":
    child = read_child_config()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ipc = socket.socket(fileno=child.fds["ipc"])
    ipc.sendall(frames.encode_serving())
    time.sleep(600)
