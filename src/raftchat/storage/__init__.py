"""What a node keeps beside its log: hard state, identity, and the lock that gives a directory one owner.

    <data dir>/LOCK         flock'ed by the supervisor for as long as the node runs
    <data dir>/identity     who this node is (identity.py)
    <data dir>/hard-state   term, vote and commit hint (hard_state.py)
    <data dir>/snapshots/   the chat's state at a seal (snapshot.py)
    <data dir>/log/         docs/log-format.md

Knows files. Does not know Raft's rules, processes or peers.
"""
