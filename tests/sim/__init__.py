"""Deterministic simulation: the real Raft core on the real reference log, everything else made from one seed.

    plan       what a seed draws: size of the cluster, limits, and which faults at which strength
    scheduler  one heap of events and one virtual clock; a clock per node that runs at its own rate
    network    links that lose, double, delay, reorder and are cut one way
    storage    one node's log and hard state, and what of them is durable
    disk       files whose unsynced bytes a power loss may tear
    node       one node: the production driver and core, restarted through the real recovery
    desk       where a node's clients are answered
    view       the log as digests, so that one comparison tells of a whole history
    faults/    one nemesis per file; a new kind of fault is a new file there and a line in `run`
    clients    who posts and reads, and what they were told
    checkers/  one property per file, looked at after every event
    mutants/   bugs planted in the core, each of which the checkers must find

`python -m tests.sim --seeds 100 --jobs 2` runs seeds; `python -m tests.sim --seed N --trace` tells one as a story.
"""
