"""The planted bugs: what Raft implementations have really got wrong, one at a time. `MUTANTS` by name."""

from __future__ import annotations

from . import Edit, Mutant

_RAFT = "raftchat.raft."

_ALL = (
    Mutant(
        "vote-not-durable",  # 3.8
        (
            Edit(
                _RAFT + "state:State.hold",
                "(self.messages if self.hard_is_durable else self.held)",
                "self.messages",
            ),
        ),
    ),
    Mutant(
        "vote-forgotten-on-step-down",  # 3.4
        (
            Edit(
                _RAFT + "roles:become_follower",
                "        s.role = Role.FOLLOWER\n",
                "        s.role = Role.FOLLOWER\n        s.vote = 0\n",
            ),
            # A hard state of its own accord refuses a second vote: here it is found without that.
            Edit("raftchat.storage.hard_state:HardStateFile.write", "assert term > self.term or", "assert True or"),
        ),
    ),
    Mutant(
        "duplicate-votes-counted",  # 3.4
        (
            Edit(
                _RAFT + "election:receive_vote_reply",
                "s.votes.setdefault(m.sender, m.granted)",
                "s.votes[next((v for v in s.membership.voters if v not in s.votes), m.sender)] = m.granted",
            ),
        ),
    ),
    Mutant(
        "old-term-votes-counted",  # 3.4
        (
            Edit(_RAFT + "election:receive_vote_reply", "or m.term != s.term or", "or"),
            Edit(
                _RAFT + "core:Raft._meet_terms",
                "return isinstance(m, VoteReply) and m.pre",
                "return isinstance(m, VoteReply)",
            ),
        ),
    ),
    Mutant(
        "last-term-ignored",  # 3.6.1
        (
            Edit(
                _RAFT + "state:State.is_up_to_date",
                "(last_term, last_index) >= (self.log.last_term, self.log.last_index)",
                "last_index >= self.log.last_index",
            ),
        ),
    ),
    Mutant(
        "old-term-committed-by-count",  # 3.6.2, figure 8
        (
            Edit(
                _RAFT + "replication:advance_commit",
                "if index <= s.commit_index or index < lead.term_start_index:",
                "if index <= s.commit_index:",
            ),
        ),
    ),
    Mutant(
        "prev-term-unchecked",  # 3.5
        (
            Edit(
                _RAFT + "append:_joins",
                "return m.prev_index <= s.log.last_index and s.log.term_at(m.prev_index) == m.prev_term",
                "return m.prev_index <= s.log.last_index",
            ),
        ),
    ),
    Mutant(
        "unverified-tail-committed",  # 3.5: commit = min(leaderCommit, last index)
        (
            Edit(
                _RAFT + "append:receive_append_entries",
                "min(m.commit_index, f.verified_index)",
                "min(m.commit_index, s.log.last_index)",
            ),
        ),
    ),
    Mutant(
        "truncation-on-every-append",  # 3.5
        (
            Edit(
                _RAFT + "append:_store",
                "conflict = _first_of_other_term(log, from_index, overlap, batch.term)",
                "conflict = from_index if from_index <= log.last_index else None",
            ),
            Edit(
                _RAFT + "append:_store",
                'assert conflict > s.following.verified_index, "a leader never changes its own log (3.5)"',
                "s.following.verified_index = min(s.following.verified_index, conflict - 1)",
            ),
        ),
    ),
    Mutant(
        "ack-before-fsync",  # 10.2.1
        (
            Edit(
                _RAFT + "state:State.match_index",
                "min(self.following.verified_index, self.durable_index)",
                "self.following.verified_index",
            ),
        ),
    ),
    Mutant(
        "leader-counts-itself-before-fsync",  # 10.2.1
        (
            Edit(
                _RAFT + "replication:advance_commit",
                "s.durable_index if v == s.id",
                "s.log.last_index if v == s.id",
            ),
        ),
    ),
    Mutant(
        "sync-of-a-cut-tail-believed",  # asynchronous append, ABA
        (
            Edit(
                _RAFT + "durability:receive_persisted",
                "if m.generation == s.log.generation and m.last_index > s.durable_index:",
                "if min(m.last_index, s.log.last_index) > s.durable_index:",
            ),
            Edit(_RAFT + "durability:receive_persisted", "assert m.last_index <= s.log.last_index", "pass"),
            Edit(
                _RAFT + "durability:receive_persisted",
                "s.durable_index = m.last_index",
                "s.durable_index = min(m.last_index, s.log.last_index)",
            ),
        ),
    ),
    Mutant(
        "read-without-a-round",  # 6.4
        (
            Edit(
                _RAFT + "read_index:begin_round",
                "lead.rounds.append((lead.round, s.commit_index, lead.new_reads))",
                "_answer(s, lead.new_reads, s.commit_index)",
            ),
        ),
    ),
    Mutant(
        "read-before-own-term-commit",  # 6.4
        (
            Edit(
                _RAFT + "read_index:begin_round",
                "if lead.new_reads and s.commit_index >= lead.term_start_index:",
                "if lead.new_reads:",
            ),
        ),
    ),
    Mutant(
        "pre-vote-refusal-keeps-the-term",  # 9.6, liveness
        (
            Edit(
                _RAFT + "core:Raft._meet_terms",
                "(isinstance(m, VoteReply) and m.pre and m.granted)",
                "(isinstance(m, VoteReply) and m.pre)",
            ),
        ),
    ),
    Mutant(
        "forwards-numbered-alike-in-each-life",
        (Edit("raftchat.node.forward:Forwards.__init__", "self._request = request", "self._request = 0"),),
    ),
    Mutant(
        "sealed-segment-not-synced",  # docs/log-format.md, "The directory"
        (Edit("raftchat.log_directory:Directory.continue_after", "self.active.file.sync()", "pass"),),
    ),
    Mutant(
        "roll-without-directory-sync",  # docs/log-format.md, "The directory"
        (Edit("raftchat.log_directory:Directory.continue_after", "self._disk.sync_directory(self.path)", "pass"),),
    ),
    Mutant(
        "recovered-tail-not-synced",  # docs/log-format.md, "Opening"
        (Edit("raftchat.log_reference:Log._open", "active.file.sync()", "pass"),),
    ),
    Mutant(
        "acknowledged-message-dropped",  # The checker itself.
        (
            Edit(
                "tests.sim.checkers.history:Histories.history",
                "return node.storage.log.entries(1, node.desk.applied_index)",
                "entries = node.storage.log.entries(1, node.desk.applied_index)\n"
                "    return [entry for entry in entries if entry.kind < 16 or entry.index % 7]",
            ),
        ),
    ),
)

MUTANTS = {mutant.name: mutant for mutant in _ALL}
