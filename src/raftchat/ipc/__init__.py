"""Between the processes of one node: how they are started, and the frames on the sockets between them.

Knows nothing of HTTP, Raft's rules or what the processes do.
"""
