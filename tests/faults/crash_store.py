"""What the keeper of the store writes and removes. Each as a `crash_kit.Operation`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from raftchat import _log
from raftchat.chat.state import ChatState
from raftchat.storage import segment_files, snapshot
from tests.faults.crash_found import Found
from tests.faults.crash_kit import Operation, Say, filled


class Index(Operation):
    name = "index"
    says = 3

    def prepare(self, root: Path) -> None:
        super().prepare(root)
        for path in (root / "data" / "log").glob("*.idx"):
            path.unlink()

    def perform(self, root: Path, say: Say, ids: Iterator[int]) -> None:
        log = root / "data" / "log"
        live, _ = segment_files.chain(
            [segment_files.read_header(str(log / name)) for name in os.listdir(log) if name.endswith(".log")]
        )
        for segment, after in pairwise(live):
            known = _log.Segment(
                segment.sequence,
                segment.base_index,
                segment.segment_id,
                str(log / segment.name),
                0,
                after.base_index - 1,
                segment.size_bytes,
            )
            _log.write_index(known)
            say(f"indexed {segment.sequence}")

    def permitted(self, found: Found | None, before: Found | None, after: Found, said: Sequence[str]) -> bool:
        assert before is not None
        return found is not None and found.content == before.content


class Snapshot(Operation):
    """The newest of three is written, and the oldest removed."""

    name = "snapshot"
    says = 2

    def prepare(self, root: Path) -> None:
        data = filled(root / "data")
        os.rename(data.seal(), root / "taken")
        data.post("a", 3)
        data.close()

    def perform(self, root: Path, say: Say, ids: Iterator[int]) -> None:
        content = (root / "taken").read_bytes()
        index, term = (int.from_bytes(content[at : at + 8], "little") for at in (32, 40))
        taken = snapshot.decode(content, snapshot.name(index, term))
        snapshots = str(root / "data" / "snapshots")
        snapshot.write(snapshots, taken)
        say("written")
        snapshot.prune(snapshots)
        say("pruned")

    def permitted(self, found: Found | None, before: Found | None, after: Found, said: Sequence[str]) -> bool:
        assert found is not None
        assert before is not None
        newest, known = max(found.snapshots), max(before.snapshots)
        return (
            (newest > known if "written" in said else newest >= known)
            and len(found.snapshots) >= 2
            and found.content == before.content
        )

    def complete(self, final: Found, found: Found | None, after: Found) -> bool:
        return (final.content, final.snapshots) == (after.content, after.snapshots)


class Compact(Operation):
    name = "compact"
    says = 4

    def perform(self, root: Path, say: Say, ids: Iterator[int]) -> None:
        log = self.open_log(root, ids)
        snapshots = snapshot.paths(str(root / "data" / "snapshots"))
        floors = ChatState.decode(snapshot.load(snapshots[0]).state).floors()
        if self.is_due(log.segments()):
            made = _log.compact(str(root / "data" / "log"), log.segments()[:2], floors, new_segment_id=ids.__next__)
            say("compacted")
            log.install(made)
            say("installed")
        _log.write_index(log.segments()[0])
        say("indexed")
        log.unlink(log.retired())
        say("unlinked")
        log.close()

    def is_due(self, segments: list[_log.Segment]) -> bool:
        return segments[0].revision == 0

    def permitted(self, found: Found | None, before: Found | None, after: Found, said: Sequence[str]) -> bool:
        assert found is not None
        assert before is not None
        return (
            found.segments in ([after.segments] if "installed" in said else [before.segments, after.segments])
            and (found.messages, found.state_hash) == (before.messages, before.state_hash)
            and found.hard_state == before.hard_state
            and ("unlinked" not in said or not found.retired)
        )

    def complete(self, final: Found, found: Found | None, after: Found) -> bool:
        return (final.content, final.segments, final.retired) == (after.content, after.segments, [])


class CompactAgain(Compact):
    """What was compacted before becomes one with what follows."""

    name = "compact again"

    def prepare(self, root: Path) -> None:
        data = filled(root / "data", gone=30)
        data.compact(0, 1)
        data.close()

    def is_due(self, segments: list[_log.Segment]) -> bool:
        return segments[0].revision == 1


class Drop(Operation):
    """The oldest segments hold nothing that lives."""

    name = "drop"
    says = 1

    def prepare(self, root: Path) -> None:
        filled(root / "data", gone=60).close()

    def perform(self, root: Path, say: Say, ids: Iterator[int]) -> None:
        log = self.open_log(root, ids)
        log.drop_prefix(60)
        log.unlink(log.retired())
        say("unlinked")
        log.close()

    def permitted(self, found: Found | None, before: Found | None, after: Found, said: Sequence[str]) -> bool:
        assert found is not None
        assert before is not None
        return (
            found.segments[-len(after.segments) :] == after.segments
            and ("unlinked" not in said or found.segments == after.segments)
            and (found.messages, found.state_hash) == (before.messages, before.state_hash)
            and found.hard_state == before.hard_state
        )

    def complete(self, final: Found, found: Found | None, after: Found) -> bool:
        return (final.content, final.segments) == (after.content, after.segments)
