"""Frames between a worker and the Raft process, over a Unix stream socket made by the supervisor.

    u32 size of what follows | u8 type | body        (little-endian)

Everything that arrived in one turn of the sender's loop leaves in one write. Knows nothing of sockets, HTTP or Raft's
rules; `FrameReader` splits a byte stream, the functions below make and read bodies.

| type | from | body |
|---|---|---|
| PROPOSE   | worker | u64 batch, then unstamped records (docs/log-format.md) |
| READ      | worker | u64 context: one linearizable read, for all requests that wait |
| STATUS    | worker | u64 context |
| COUNTERS  | worker | JSON object of numbers since start, for /metrics |
| HELLO     | raft   | JSON: log directory, node id, epoch |
| SEGMENT   | raft   | u64 sequence, u64 base index |
| COMMIT    | raft   | u64 commit index |
| LEADER    | raft   | u64 node id (0: none), u64 term, u8 ready |
| ACCEPTED  | raft   | u64 batch, u64 first index, u64 term, u64 time_ms: appended by the leader, **not yet committed** |
| REFUSED   | raft   | u64 batch, u8 reason |
| READ_AT   | raft   | u64 context, u64 index (0: failed) |
| STATUS_IS | raft   | u64 context, JSON |
"""
