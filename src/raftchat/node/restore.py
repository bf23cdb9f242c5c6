"""Makes the directory of a member of a new cluster out of any copy of an old one's (ARCHITECTURE.md, "Copies").

What lives is copied, each record checked, into compacted segments; the state after the last entry becomes a snapshot,
with the new membership. An entry of nothing in a segment of its own, and a snapshot after it, follow, so that there
are two snapshots as everywhere; the log goes on behind them, empty. So nothing of the old life is left but messages,
rooms and policies: no old membership, no vote, and no entry that a member of the old cluster could ask for.

Knows files and the chat's state; not how anything is shown.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from raftchat import _log
from raftchat.chat.apply import advance
from raftchat.chat.errors import NewerState, UnknownKind
from raftchat.chat.policy import Policies
from raftchat.chat.state import ChatState
from raftchat.node.compaction import SPAN_MAX_ENTRIES
from raftchat.raft import Membership
from raftchat.storage import hard_state, identity, lock, segment_files, snapshot
from raftchat.storage.backup import require_empty
from raftchat.storage.copies import Copy, Loss, Story
from raftchat.storage.errors import CorruptFile, StorageError
from raftchat.storage.files import make_directory_durably, sync_directory, write_durably

OnProgress = Callable[[int, int], None]

_ADVICE = "acknowledged messages are lost there: restore another copy, or what comes before it with --up-to-fault"
_SMALL_SEGMENT_BYTES = 4096
"""For one entry."""


class _Unfit(Exception):
    """This way of reading the copy leads nowhere; another one may."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What was made."""

    identity: identity.Identity
    last_index: int
    messages: int
    rooms: int
    ends_because: str
    """Why nothing after the last entry was taken."""
    faults: list[str]
    """Files of the copy that could not be used."""
    lost: list[str]
    """What shows that the directory held more than could be read."""


@dataclass(frozen=True, slots=True)
class NewCluster:
    """What the restored directory shall be a part of."""

    member_id: int
    urls: Sequence[str]
    """Peer URLs in order of id."""
    choose_epoch: Callable[[int], int]
    """Old epoch → a greater one."""
    new_segment_id: Callable[[], int]
    segment_size_bytes: int
    retention: bool = True
    """Whether the policies of the copy are in force."""


def restore(
    source: str,
    data_dir: str,
    cluster: NewCluster,
    on_progress: OnProgress = lambda done, total: None,
    *,
    up_to_fault: bool = False,
) -> Restored:
    """Durable on return. Raises StorageError, CorruptFile, LogError, OSError; then `data_dir` is no node's, and the
    same call may be made again.

    `on_progress(bytes done, bytes in all)`. `up_to_fault`: less than what the copy proves to have been there will do.
    """
    copy = Copy(source)
    inside, outside = sorted((os.path.realpath(source) + os.sep, os.path.realpath(data_dir) + os.sep), key=len)
    if outside.startswith(inside):
        raise StorageError(f"{data_dir} and {source} lie within each other; choose another place")
    epoch = cluster.choose_epoch(copy.identity.epoch)
    if epoch <= copy.identity.epoch:
        raise StorageError(f"the epoch must be greater than that of the copy, {copy.identity.epoch}")
    _require_free(data_dir)
    make_directory_durably(data_dir)
    held = lock.DirectoryLock(data_dir)
    try:
        return _restore(copy, data_dir, cluster, epoch, on_progress, up_to_fault)
    finally:
        held.close()


def _require_free(data_dir: str) -> None:
    """Empty, or what a restore that was broken off has left."""
    if os.path.isdir(data_dir):
        names = set(os.listdir(data_dir))
        if names <= {lock.FILE_NAME, identity.RESTORING + ".tmp"} or (
            identity.RESTORING in names and identity.FILE_NAME not in names
        ):
            return
    require_empty(data_dir)


def _restore(
    copy: Copy, data_dir: str, cluster: NewCluster, epoch: int, on_progress: OnProgress, up_to_fault: bool
) -> Restored:
    marker = os.path.join(data_dir, identity.RESTORING)
    write_durably(marker, b"A restore is under way here, or was broken off: give the command again.\n")
    unfit: list[str] = list(copy.faults)
    refused: list[Loss] = []
    for story in _whole_ones_first(copy):
        if story.lost and not up_to_fault:
            refused = refused or story.lost
            continue
        new = identity.restored(
            copy.identity,
            cluster.member_id,
            cluster.urls,
            epoch,
            story.last_index,
            story.last_term,
            retention=cluster.retention,
        )
        try:
            state = _Directory(data_dir, copy, story, cluster, new, on_progress).make()
        except (_Unfit, _log.CorruptLog) as error:
            unfit.append(str(error))
            continue
        identity.store(data_dir, new)
        os.unlink(marker)
        lost = [str(loss) for loss in story.lost]
        return Restored(new, story.last_index, state.messages, len(state), story.ends_because, copy.faults, lost)
    if refused:
        raise CorruptFile(refused[0].path, f"{refused[0].reason}; {_ADVICE}")
    reasons = (
        "; ".join(unfit) or "no snapshot is there whose segments are all there, nor the log from its first entry on"
    )
    raise CorruptFile(copy.directory, f"this copy cannot be restored: {reasons}")


def _whole_ones_first(copy: Copy) -> Iterator[Story]:
    """The rest: the one that reaches furthest first."""
    others: list[Story] = []
    for story in copy.stories():
        if story.lost:
            others.append(story)
        else:
            yield story
    yield from sorted(others, key=lambda story: -story.last_index)


class _Directory:
    """One attempt at the content of the new directory."""

    def __init__(
        self,
        data_dir: str,
        copy: Copy,
        story: Story,
        cluster: NewCluster,
        new: identity.Identity,
        on_progress: OnProgress,
    ) -> None:
        self._data_dir = data_dir
        self._log_directory = os.path.join(data_dir, "log")
        self._snapshots_directory = os.path.join(data_dir, "snapshots")
        self._copy = copy
        self._story = story
        self._cluster = cluster
        self._identity = new
        self._on_progress = on_progress

    def make(self) -> ChatState:
        """Everything but the identity. Raises as `restore` does, and _Unfit."""
        story = self._story
        for directory in (self._log_directory, self._snapshots_directory):
            shutil.rmtree(directory, ignore_errors=True)
            make_directory_durably(directory)
        state = self._state()
        if story.last_index:
            self._write_log(state)
        hard = hard_state.initial(story.last_term, state.applied_index)
        write_durably(os.path.join(self._data_dir, hard_state.FILE_NAME), hard)
        return state

    def _state(self) -> ChatState:
        """The state after the last entry."""
        story = self._story
        state = ChatState()
        try:
            if story.snapshot is not None:
                state = ChatState.decode(story.snapshot.state)
                if state.applied_index != story.snapshot.index:
                    raise ValueError(f"it says entry {state.applied_index} and not {story.snapshot.index}")
            if story.tail:
                reader = _log.LogReader(self._copy.log_directory)
                for segment in story.tail:
                    reader.add_segment(segment.sequence, segment.base_index, segment.revision)
                advance(state, reader, state.applied_index + 1, story.last_index)
                reader.close()
        except (NewerState, UnknownKind) as error:
            raise StorageError(f"{self._copy.directory}: {error}; restore with that version of raft-chat") from error
        except ValueError as error:
            raise _Unfit(f"a snapshot cannot be read: {error}") from error
        if not self._cluster.retention:
            # As if it had been set to none: otherwise the flags of the first start would count.
            state.policies = Policies(None, True, {})
        return state

    def _write_log(self, state: ChatState) -> None:
        story = self._story
        groups = list(self._groups([*story.base, *story.tail]))
        total = sum(segment.size_bytes for group in groups for segment in group)
        done = records = 0
        floors = state.floors()
        made: list[_log.Segment] = []
        for group in groups:
            begun = done

            def on_progress(part: int, _: int, begun: int = begun) -> None:
                self._on_progress(begun + part, total)

            compacted = _log.compact(
                self._log_directory,
                group,
                floors,
                new_segment_id=self._cluster.new_segment_id,
                on_progress=on_progress,
            )
            done += sum(segment.size_bytes for segment in group)
            records += compacted.records
            made.append(self._named(compacted))
        if records != state.messages:
            raise _Unfit(f"of {state.messages} messages that the state counts the segments hold {records}")
        for segment in made:
            _log.write_index(segment)
        self._write_snapshot(made, state)
        made.append(self._append_nothing())
        state.apply(story.last_index + 1, story.last_index + 1, [])
        self._write_snapshot(made, state)
        self._on_progress(total, total)

    def _write_snapshot(self, segments: Sequence[_log.Segment], state: ChatState) -> None:
        snapshot.write(
            self._snapshots_directory,
            snapshot.Snapshot(
                index=state.applied_index,
                term=self._story.last_term,
                time_ms=self._story.last_time_ms,
                cluster_id=self._identity.cluster_id,
                epoch=self._identity.epoch,
                membership=Membership(self._identity.members).encode(),
                segments=tuple(
                    snapshot.SegmentName(s.sequence, s.base_index, s.revision, s.last_index, s.segment_id, s.size_bytes)
                    for s in segments
                ),
                state=state.encode(),
            ),
        )

    def _append_nothing(self) -> _log.Segment:
        """A sealed segment with one entry, and the active segment behind it, still empty: the former."""
        story = self._story
        with closing(self._open_log(_SMALL_SEGMENT_BYTES)) as log:
            log.append(_log.pack(_log.KIND_NOOP, b"", b""), story.last_term, story.last_time_ms)
            point = log.begin_sync()
            point.wait()
            log.end_sync(point)
        with closing(self._open_log(self._cluster.segment_size_bytes)) as log:
            log.roll()
            sealed = log.segments()[-2]
        _log.write_index(sealed)
        sync_directory(self._log_directory)
        return sealed

    def _open_log(self, segment_size_bytes: int) -> _log.Log:
        return _log.Log(
            self._log_directory, new_segment_id=self._cluster.new_segment_id, segment_size_bytes=segment_size_bytes
        )

    def _groups(self, segments: Sequence[_log.Segment]) -> list[list[_log.Segment]]:
        """Small neighbours become one file; its postings count entries in 32 bits."""
        groups: list[list[_log.Segment]] = []
        size = 0
        for segment in segments:
            size += segment.size_bytes
            if (
                not groups
                or size > self._cluster.segment_size_bytes
                or segment.last_index - groups[-1][0].base_index >= SPAN_MAX_ENTRIES
            ):
                groups.append([])
                size = segment.size_bytes
            groups[-1].append(segment)
        return groups

    def _named(self, compacted: _log.Compacted) -> _log.Segment:
        """Give a compacted segment its name."""
        path = segment_files.path_of(self._log_directory, compacted.sequence, compacted.base_index, compacted.revision)
        os.rename(compacted.path, path)
        return _log.Segment(
            compacted.sequence,
            compacted.base_index,
            compacted.segment_id,
            path,
            compacted.revision,
            compacted.last_index,
            compacted.size_bytes,
        )
