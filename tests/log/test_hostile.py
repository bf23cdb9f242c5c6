"""Directories full of garbage: opened alike by both implementations, refused or repaired, never a crash."""

from __future__ import annotations

import random
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest

from raftchat import _log, log_reference
from tests.log.kit import Kit, contents, describe, record_offsets


def garbled(random_: random.Random, data: bytes) -> bytes:
    """A segment as no writer made it: mostly good, here and there not."""
    changed = bytearray(data)
    offsets = record_offsets(data)
    for _ in range(random_.randrange(1, 5)):
        match random_.randrange(7):
            case 0:  # noise, anywhere
                at = random_.randrange(len(changed))
                changed[at : at + 16] = random_.randbytes(min(16, len(changed) - at))
            case 1:  # a record's size lies
                struct.pack_into(
                    "<I", changed, random_.choice(offsets[:-1]) + 16, random_.choice([0, 7, 2**31, 2**32 - 1])
                )
            case 2:  # a block of zeros
                at = random_.randrange(64, len(changed))
                changed[at : at + 512] = bytes(min(512, len(changed) - at))
            case 3:  # one bit
                changed[random_.randrange(64, len(changed))] ^= 1 << random_.randrange(8)
            case 4:  # two records change places
                a, b = sorted(random_.sample(range(len(offsets) - 1), 2))
                one, other = data[offsets[a] : offsets[a + 1]], data[offsets[b] : offsets[b + 1]]
                if len(one) == len(other):
                    changed[offsets[a] : offsets[a + 1]], changed[offsets[b] : offsets[b + 1]] = other, one
            case 5:  # one byte of a record's header
                changed[random_.choice(offsets[:-1]) + random_.randrange(48)] = random_.randrange(256)
            case 6:  # nothing after here
                at = random_.randrange(64, len(changed))
                changed[at:] = bytes(len(changed) - at)
    return bytes(changed[: random_.randrange(len(changed))] if random_.random() < 0.1 else changed)


def everything(kit: Kit, hint: int) -> Any:
    """Whatever a log can be made to say."""

    def attempt(call: Any) -> Any:
        try:
            return call()
        except (IndexError, kit.module.LogError) as error:
            return describe(error)

    try:
        log = kit.open(durable_hint=hint)
    except kit.module.LogError as error:
        return describe(error)
    said: list[Any] = [log.first_index, log.last_index, log.last_term, tuple(log.recovery)[2:]]
    good, faults = log.verify()
    said += [good, [describe(fault) for fault in faults]]
    for index in range(log.first_index, log.last_index + 1):
        said.append(attempt(lambda index=index: tuple(log.entries(index, index)[0])))
        said.append(attempt(lambda index=index: log.term_at(index)))
        said.append(attempt(lambda index=index: bytes(log.slice(index, 400).data)))
    said.append(attempt(lambda: [tuple(entry) for entry in log.find_kind(2)]))
    reader = kit.reader(log)
    for index in range(log.first_index, log.last_index, 7):
        said.append(attempt(lambda index=index: [tuple(run) for run in reader.scan(index, index + 3)]))
        said.append(attempt(lambda index=index: reader.frames(index, index + 3, None)))
    said.append(attempt(lambda: log.append(kit.post(), 1000, 1)))
    said.append(attempt(lambda: contents(log)[-1]))
    log.close()
    return said


@pytest.mark.parametrize("seed", range(8))
def test_garbled_segments_are_judged_alike(seed: int, fast_directory: Path) -> None:
    random_ = random.Random(seed)
    writer = Kit(log_reference, fast_directory)
    log = writer.filled(30)
    log.append(writer.module.pack(2, b"", b"members"), 9, 1)
    for number in range(60):
        log.append(writer.post(number, size=random_.randrange(80)), 9 + number // 20, 1)
        if random_.random() < 0.3:
            point = log.begin_sync()
            point.wait()
            log.end_sync(point)
    last_index = log.last_index
    log.close()
    good = {path.name: path.read_bytes() for path in writer.files()}
    for _ in range(30):
        name = random_.choice(sorted(good))
        files = good | {name: garbled(random_, good[name])}
        if random_.random() < 0.1:
            del files[random_.choice(sorted(files))]
        hint = random_.choice([0, 0, last_index // 2, last_index])
        said = []
        for module in (_log, log_reference):
            kit = Kit(module, fast_directory)
            shutil.rmtree(kit.path())
            Path(kit.path()).mkdir()
            for file, data in files.items():
                (Path(kit.path()) / file).write_bytes(data)
            said.append(everything(kit, hint))
        assert said[0] == said[1]


def test_noise_is_no_log(kit: Kit) -> None:
    random_ = random.Random(5)
    directory = Path(kit.path())
    directory.mkdir()
    path = directory / "00000001-00000000000000000001.log"
    for size in (0, 1, 7, 8, 63, 64, 65, 4096, 10_000):
        for magic in (b"", b"\x01rc-log\n"):
            path.write_bytes((magic + random_.randbytes(size))[:size])
            with pytest.raises(kit.module.LogError):
                kit.open()
