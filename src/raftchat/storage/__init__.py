"""What a node keeps beside its log: hard state, identity, and the lock that gives a directory one owner.

    <data dir>/LOCK         flock'ed by the supervisor for as long as the node runs
    <data dir>/identity     who this node is (identity.py)
    <data dir>/hard-state   term, vote and commit hint (hard_state.py)
    <data dir>/snapshots/   the chat's state at a seal (snapshot.py)
    <data dir>/incoming/    a snapshot on its way in (incoming.py)
    <data dir>/restoring    while a restore is under way; no node starts on it then (identity.py)
    <data dir>/log/         docs/log-format.md

`verify.py`, `backup.py` and `copies.py` read a directory as a whole, whoever owns it, by `segment_files.py`,
`segment_records.py` and `index_file.py`. Knows files. Does not know Raft's rules, processes or peers.
"""
