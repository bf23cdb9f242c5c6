"""Fetches a snapshot and its segments from a member, in a thread, until all lies whole and checked in `incoming/`.

Goes on after a broken connection, or a restart of this node, with what is there. Knows files and one blocking socket;
whether the snapshot is still wanted, and what follows when it is there, is for whoever started it.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import orjson

from raftchat import _log
from raftchat.config import Config
from raftchat.node import handshake
from raftchat.node.transfer import (
    BadTransfer,
    Frames,
    Manifest,
    Refused,
    SegmentFile,
    WantFile,
    WantManifest,
    encode_want,
)
from raftchat.storage import snapshot as snapshots
from raftchat.storage.errors import StorageError
from raftchat.storage.incoming import Incoming

log = logging.getLogger(__name__)

PROGRESS_LOG_INTERVAL_S = 5.0
_EXPECTED = (OSError, handshake.HandshakeFailed, Refused, BadTransfer, _log.LogError, StorageError)


class Cancelled(Exception):
    pass


class SnapshotReceiver:
    """One fetch. `on_gathered(manifest)` is called in the thread, once, when everything is there."""

    def __init__(
        self,
        config: Config,
        cluster_id: str,
        node_id: int,
        data_dir: str,
        sender: int,
        url: str,
        index: int,
        on_gathered: Callable[[Manifest], object],
    ) -> None:
        """`index`: the snapshot must reach at least so far."""
        self.sender = sender
        self.index = index
        self.received_bytes = 0
        """Of the manifest's files, what is here; with what earlier attempts left."""
        self.total_bytes = 0
        self._config = config
        self._cluster_id = cluster_id
        self._node_id = node_id
        self._incoming = Incoming(data_dir)
        self._url = url
        self._on_gathered = on_gathered
        self._cancelled = threading.Event()
        self._told_s = 0.0
        self._thread = threading.Thread(target=self._run, name="snapshot", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def cancel(self) -> None:
        """What came so far stays. Returns at once; nothing is reported any more."""
        self._cancelled.set()

    @property
    def ended(self) -> bool:
        """Its thread touches nothing any more."""
        return not self._thread.is_alive()

    def join(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        told = ""
        while not self._cancelled.is_set():
            try:
                manifest = self._fetch()
            except Cancelled:
                return
            except Exception as error:
                # Whatever it was: a thread that ended in silence would leave the node without help for ever.
                if str(error) != told:
                    told = str(error)
                    log.warning(
                        "The snapshot did not come, will try again: %s",
                        error,
                        exc_info=None if isinstance(error, _EXPECTED) else error,
                        extra={"from": self.sender},
                    )
                self._cancelled.wait(self._config.transfer_retry_ms / 1000)
            else:
                if not self._cancelled.is_set():
                    self._on_gathered(manifest)
                return

    def _fetch(self) -> Manifest:
        parts = urlsplit(self._url)
        assert parts.hostname is not None, self._url
        timeout_s = self._config.transfer_timeout_ms / 1000
        with closing(socket.create_connection((parts.hostname, parts.port or 80), timeout_s)) as sock:
            frames = self._shake_hands(sock, parts.netloc)
            manifest = Manifest.decode(self._ask(sock, frames, WantManifest(self.index)))
            if manifest.index < self.index:
                raise BadTransfer(f"a snapshot of {manifest.index}, which is below {self.index}")
            self._gather(sock, frames, manifest)
        self._finish(manifest)
        return manifest

    def _shake_hands(self, sock: socket.socket, host: str) -> Frames:
        dialled = handshake.Dialled(self._cluster_id, self._node_id, self.sender, host, handshake.SNAPSHOT)
        sock.sendall(dialled.request)
        while True:
            welcome = dialled.feed(sock.recv(65536))
            if welcome is not None:
                frames = Frames()
                frames.feed(welcome.trailing)
                return frames

    def _ask(self, sock: socket.socket, frames: Frames, want: WantManifest | WantFile) -> dict[str, Any]:
        """The head of the answer. Raises Refused."""
        sock.sendall(encode_want(want))
        while (fields := frames.next()) is None:
            self._check_cancelled()
            data = sock.recv(65536)
            if not data:
                raise ConnectionError("the connection was closed in the middle of an answer")
            frames.feed(data)
        if "Error" in fields:
            raise Refused(str(fields["Error"]))
        return fields

    def _check_cancelled(self) -> None:
        if self._cancelled.is_set():
            raise Cancelled

    # Files

    def _gather(self, sock: socket.socket, frames: Frames, manifest: Manifest) -> None:
        incoming = self._incoming
        snapshot_name = f"snapshots/{manifest.snapshot_name}"
        files: dict[str, tuple[int, ...]] = {snapshot_name: (manifest.snapshot_size_bytes, manifest.index)}
        segments = {f"log/{segment.name}": segment for segment in manifest.segments}
        for name, segment in segments.items():
            files[name] = (segment.size_bytes, segment.segment_id, segment.revision, segment.last_index)
        incoming.begin(orjson.dumps(manifest.encode()), files)
        # What an earlier attempt left is whole, but it may have ended before that was looked at.
        for name in files:
            if incoming.has(name) and not (
                name in segments and _log.has_index(_segment(incoming.path_of(name), segments[name]))
            ):
                incoming.drop(name)
        self.total_bytes = manifest.size_bytes
        self.received_bytes = sum(
            size if incoming.has(name) else incoming.part_size_bytes(name) for name, (size, *_) in files.items()
        )
        log.info(
            "Receiving a snapshot",
            extra={
                "from": self.sender,
                "index": manifest.index,
                "total_bytes": self.total_bytes,
                "here_already_bytes": self.received_bytes,
            },
        )
        self._told_s = time.monotonic()
        for name, (size_bytes, *_) in files.items():
            if not incoming.has(name):
                self._receive(sock, frames, name, size_bytes)
                path = incoming.keep(name)
                try:
                    if name in segments:
                        # Every record is checked by making the index; that it is there says so later.
                        _log.write_index(_segment(path, segments[name]))
                    else:
                        self._check_snapshot(path, manifest)
                except (_log.LogError, StorageError, BadTransfer):
                    self.received_bytes -= size_bytes
                    incoming.drop(name)
                    raise

    def _receive(self, sock: socket.socket, frames: Frames, name: str, size_bytes: int) -> None:
        offset = self._incoming.part_size_bytes(name)
        if offset > size_bytes:
            self._incoming.drop(name)
            self.received_bytes -= offset
            offset = 0
        head = self._ask(sock, frames, WantFile(name.partition("/")[2], offset))
        if head.get("Size") != size_bytes - offset:
            self._incoming.drop(name)
            raise BadTransfer(f"{name} has another size than the manifest says")
        left = size_bytes - offset
        buffer = memoryview(bytearray(self._config.transfer_chunk_bytes))
        fd = self._incoming.open_part(name)
        try:
            early = frames.take(left)
            _write_all(fd, memoryview(early))
            left -= len(early)
            self.received_bytes += len(early)
            while left:
                self._check_cancelled()
                count = sock.recv_into(buffer, min(left, len(buffer)))
                if not count:
                    raise ConnectionError("the connection was closed in the middle of a file")
                _write_all(fd, buffer[:count])
                left -= count
                self.received_bytes += count
                self._tell_progress()
            os.fdatasync(fd)
        finally:
            os.close(fd)

    def _tell_progress(self) -> None:
        now_s = time.monotonic()
        if now_s - self._told_s >= PROGRESS_LOG_INTERVAL_S:
            self._told_s = now_s
            log.info(
                "Receiving a snapshot",
                extra={"from": self.sender, "received_bytes": self.received_bytes, "total_bytes": self.total_bytes},
            )

    def _check_snapshot(self, path: str, manifest: Manifest) -> None:
        found = snapshots.load(path)
        if (found.index, found.term, found.cluster_id) != (manifest.index, manifest.term, self._cluster_id):
            raise BadTransfer(f"{manifest.snapshot_name} is not what its name says")

    def _finish(self, manifest: Manifest) -> None:
        """Make it a log that ends with the snapshot: what its last segment holds beyond was never committed.

        It goes on in a file of its own: no two files, on any node, have one identity and different records.
        """
        self._incoming.sync()
        gathered = _log.Log(
            self._incoming.log_directory,
            new_segment_id=lambda: secrets.randbits(64) | 1,
            segment_size_bytes=self._config.segment_size_bytes,
        )
        try:
            if gathered.last_index > manifest.index:
                gathered.truncate_suffix(manifest.index)
            gathered.roll()
            if (gathered.last_index, gathered.last_term) != (manifest.index, manifest.term):
                raise BadTransfer(f"the segments end at {gathered.last_index}, not at {manifest.index}")
        finally:
            gathered.close()


def _segment(path: str, segment: SegmentFile) -> _log.Segment:
    return _log.Segment(
        segment.sequence,
        segment.base_index,
        segment.segment_id,
        path,
        segment.revision,
        segment.last_index,
        segment.size_bytes,
    )


def _write_all(fd: int, data: memoryview) -> None:
    while data:
        data = data[os.write(fd, data) :]
