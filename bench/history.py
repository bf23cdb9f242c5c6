"""Makes the data directory of a node that has a long history, as if it had been posted: for benchmarks.

    python -m bench.history DIR --messages 10000000 --rooms 1000 --size 130 --cluster http://127.0.0.1:12379

Writes the log itself, batch by batch, with the functions that a node has; indexes and snapshots are left to the node's
first start. Rooms are drawn at random, the time of posting goes on steadily and ends now.
"""

from __future__ import annotations

import random
import secrets
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click

from raftchat import _log
from raftchat.chat.commands import post_value
from raftchat.config import Config
from raftchat.node.directory import bootstrap, hard_state_path, log_directory
from raftchat.storage.hard_state import HardStateFile, OsFile

BATCH = 5_000
POOL = 20_000
POOL_BYTES = 4_000_000
"""So many different records, or as many as this; a batch is a random choice of them."""
TERM = 1
SPAN_MS = 365 * 24 * 3600 * 1000
"""The history's first message was posted this long ago."""


def room_name(number: int) -> str:
    return f"room-{number:05}"


def make(
    data_dir: Path,
    *,
    messages: int,
    rooms: int,
    size_bytes: int,
    urls: Sequence[str],
    node_id: int = 1,
    seed: int = 1,
    ends_ms: int | None = None,
    segment_size_bytes: int | None = None,
) -> int:
    """Fill an empty directory: the index of its last entry. `size_bytes`: of each message as JSON members.

    Members of one cluster are given the same `seed` and `ends_ms`, the time of the last message; it is now otherwise.
    """
    rng, config = random.Random(seed), Config()
    segment_bytes = segment_size_bytes or config.segment_size_bytes
    data_dir.mkdir(parents=True, exist_ok=True)
    bootstrap(str(data_dir), node_id, urls)
    log = _log.Log(
        log_directory(str(data_dir)),
        new_segment_id=lambda: secrets.randbits(64) | 1,
        segment_size_bytes=segment_bytes,
    )
    different = max(1, min(POOL, POOL_BYTES // size_bytes, messages))
    pool = [_record(rng, room_name(rng.randrange(rooms)), size_bytes, config) for _ in range(different)]
    # Every room has at least one.
    first = [_record(rng, room_name(number), size_bytes, config) for number in range(min(rooms, messages))]
    now_ms = int(time.time() * 1000) if ends_ms is None else ends_ms
    log.append(_log.pack(_log.KIND_NOOP, b"", b""), TERM, now_ms - SPAN_MS)
    # A batch has one time, as it would have if it had been posted, and what does not fit into a segment begins another.
    batch = max(1, min(BATCH, messages // 100, segment_bytes // 16 // size_bytes))
    done, synced = 0, time.monotonic()
    while done < messages:
        count = min(batch, messages - done)
        records, first = (first[:count], first[count:]) if first else (rng.choices(pool, k=count), [])
        log.append(b"".join(records), TERM, now_ms - SPAN_MS + SPAN_MS * done // messages)
        done += len(records)
        if time.monotonic() - synced > 1:
            _sync(log)
            synced = time.monotonic()
            if sys.stderr.isatty():
                sys.stderr.write(f"\r{done:,} of {messages:,} messages ")
    # The last of the batches is of its first message's time; a log whose time is long ago makes a node doubt its clock.
    log.append(_log.pack(_log.KIND_NOOP, b"", b""), TERM, now_ms)
    _sync(log)
    last_index = log.last_index
    log.close()
    state = HardStateFile(OsFile(hard_state_path(str(data_dir))))
    state.write(TERM, node_id, last_index)
    return last_index


def _record(rng: random.Random, room: str, size_bytes: int, config: Config) -> bytes:
    user = f"user-{rng.randrange(500):03}"
    empty = len(post_value({"User": user, "Message": "x"}, config)) - 1
    text = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz     ", k=max(1, size_bytes - empty)))
    return _log.pack(_log.KIND_POST, room.encode(), post_value({"User": user, "Message": f"{text[:-1]}."}, config))


def _sync(log: _log.Log) -> None:
    point = log.begin_sync()
    point.wait()
    log.end_sync(point)


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--messages", type=int, default=10_000_000, show_default=True)
@click.option("--rooms", type=int, default=1_000, show_default=True)
@click.option("--size", "size_bytes", type=int, default=130, show_default=True, help="Bytes of a message as JSON.")
@click.option("--cluster", default="http://127.0.0.1:9021", show_default=True, help="Peer URLs, as the node is given.")
@click.option("--id", "node_id", type=int, default=1, show_default=True)
def main(directory: Path, messages: int, rooms: int, size_bytes: int, cluster: str, node_id: int) -> None:
    """Fill DIRECTORY with a history."""
    began = time.monotonic()
    last = make(
        directory, messages=messages, rooms=rooms, size_bytes=size_bytes, urls=cluster.split(","), node_id=node_id
    )
    took = time.monotonic() - began
    print(f"{last:,} entries in {took:.1f} s ({messages / took:,.0f} messages/s)")


if __name__ == "__main__":
    main()
