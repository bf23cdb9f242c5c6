"""What is done to the log's end: appended, sealed, cut, mended when it is opened. Each as a `crash_kit.Operation`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from raftchat.storage.hard_state import HardStateFile, OsFile
from tests.faults.crash_found import Found
from tests.faults.crash_kit import TIME_MS, Operation, Say, filled, post, sync


class Append(Operation):
    """Batches that fit, that need a new segment, that a prepared one is there for, and that fill several."""

    name = "append"
    says = 6

    def perform(self, root: Path, say: Say, ids: Iterator[int]) -> None:
        log = self.open_log(root, ids)
        for count in (4, 9, 1, 16, 60, 1):
            if count == 1:
                log.prepare()
            log.append(b"".join(post(log.last_index + n) for n in range(1, count + 1)), 4, TIME_MS)
            sync(log)
            say(f"durable {log.last_index}")
        log.close()

    def permitted(self, found: Found | None, before: Found | None, after: Found, said: Sequence[str]) -> bool:
        assert found is not None
        assert before is not None
        durable = max([before.last_index, *(int(text.split()[1]) for text in said)])
        return (
            durable <= found.last_index
            and found.entries == after.entries[: len(found.entries)]
            and found.messages == after.up_to(found.last_index)
            and found.hard_state == before.hard_state
        )

    def complete(self, final: Found, found: Found | None, after: Found) -> bool:
        assert found is not None
        return (
            final.entries[: len(found.entries)] == found.entries
            and final.last_index == found.last_index + 91
            and len(final.messages["new"]) == len(found.messages.get("new", ())) + 91
        )


class Roll(Append):
    name = "roll"
    says = 4

    def perform(self, root: Path, say: Say, ids: Iterator[int]) -> None:
        log = self.open_log(root, ids)
        for prepared in (False, True):
            if prepared:
                log.prepare()
            log.append(post(log.last_index + 1), 4, TIME_MS)
            log.roll()
            say(f"durable {log.last_index}")
            log.append(post(log.last_index + 1), 4, TIME_MS)
            sync(log)
            say(f"durable {log.last_index}")
        log.close()

    def complete(self, final: Found, found: Found | None, after: Found) -> bool:
        assert found is not None
        return final.entries[: len(found.entries)] == found.entries and final.last_index == found.last_index + 4


class Cut(Operation):
    """A tail that was never committed is cut, and another one takes its place."""

    name = "cut"
    says = 2

    def prepare(self, root: Path) -> None:
        data = filled(root / "data")
        commit = data.log.last_index
        data.post("never", 30)
        data.close(commit)

    def perform(self, root: Path, say: Say, ids: Iterator[int]) -> None:
        log = self.open_log(root, ids)
        commit = HardStateFile(OsFile(str(root / "data" / "hard-state"))).commit
        log.truncate_suffix(commit)
        say("cut")
        log.append(post(0), log.last_term + 1, TIME_MS)
        sync(log)
        say("durable")
        log.close()

    def permitted(self, found: Found | None, before: Found | None, after: Found, said: Sequence[str]) -> bool:
        assert found is not None
        assert before is not None
        if "durable" in said:
            return found.content == after.content
        outcomes = [after.entries, after.entries[:-1]] if "cut" in said else [before.entries, after.entries]
        return found.entries in [*outcomes, after.entries[:-1]] and found.hard_state == before.hard_state


class Mend(Operation):
    """Opening, when power was lost in the middle of the last append."""

    name = "mend"
    says = 1

    def prepare(self, root: Path) -> None:
        data = filled(root / "data")
        commit = data.log.last_index
        data.log.append(post(0), 4, TIME_MS)
        data.close(commit)
        path = data.log_path()
        at = path.read_bytes().index(b"mmmm", path.read_bytes().index(b"new"))
        with path.open("r+b") as file:
            file.seek(at)
            file.write(b"torn")

    def perform(self, root: Path, say: Say, ids: Iterator[int]) -> None:
        self.open_log(root, ids).close()
        say("opened")

    def permitted(self, found: Found | None, before: Found | None, after: Found, said: Sequence[str]) -> bool:
        return found is not None and found.content == after.content
