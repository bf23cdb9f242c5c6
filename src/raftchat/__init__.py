"""raft-chat: a highly-available chat server that needs no database."""

__version__ = "0.1.0"
