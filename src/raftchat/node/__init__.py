"""The only place that owns clock, disk and network.

    supervisor   binds sockets once, starts the rest, ends it in order
    raft_process entry of the process that owns the log: wires what follows
    driver       one turn: everything that arrived in, one `ready()` out; no I/O of its own
    disk         one write in flight, in a thread
    peers        connections to the other members      (handshake, connection, codec)
    workers      connections to this node's workers    (ipc/frames.py)
    forward      proposals on their way to the leader
    waiting      what is asked while there is no leader
    status       what `GET /raft` tells
    watch        what is logged about leadership and members

Knows nothing of HTTP beyond the peers' handshake, nor what an entry means, membership excepted.
"""
