"""docs/api.md tells the truth: its curl lines are run in order against one fresh node, and answer as the page shows.

A code block without a language that begins with a status is what the commands of the `sh` block above it are answered
with, and so is a `json` block that follows one in the same section: by one of them, if they are several. IDs and times
are another run's. Every other command has to succeed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.faults.cluster import free_port, wait_for

pytestmark = pytest.mark.process
PAGE = Path(__file__).resolve().parents[2] / "docs" / "api.md"
STATUS = re.compile(r"(\d{3}) [A-Z]")
ANOTHER_RUNS = [
    (re.compile(r'"(ID|FirstID|LastID)":\d+'), r'"\1":N'),
    (re.compile(r'"(PostedAt|LastPostedAt)":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"'), r'"\1":"T"'),
    (re.compile(r"(around=|X-Raft-Index: )\d+", re.IGNORECASE), r"\1N"),
]


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: set[str]
    body: str


@dataclass(slots=True)
class Example:
    """The commands of one block, and what the page shows of their answers."""

    commands: list[str]
    shown: list[str] = field(default_factory=list)
    """Text of the blocks that follow: a status with headers and body, or a body."""


def normal(text: str) -> str:
    for pattern, replacement in ANOTHER_RUNS:
        text = pattern.sub(replacement, text)
    return text.strip()


def examples(page: str) -> list[Example]:
    found: list[Example] = []
    for section in re.split(r"^#+ .*$", page, flags=re.MULTILINE):
        example: Example | None = None
        for language, text in re.findall(r"^```(\w*)\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL):
            if language in ("sh", "console"):
                lines = [line.removeprefix("$ ") for line in text.splitlines()]
                example = Example([line for line in lines if line.startswith("curl ")])
                found.append(example)
            elif example is not None and (language == "json" or (not language and STATUS.match(text))):
                example.shown.append(text)
    return [example for example in found if example.commands]


def lies(example: Example, answers: list[Answer]) -> list[str]:
    """What the page says of these commands that is not so."""
    wrong = []
    for shown in example.shown:
        if not any(agrees(shown, answer) for answer in answers):
            wrong.append(f"{shown}\nis shown, but was answered by none of:\n" + "\n".join(example.commands))
    if not any(STATUS.match(shown) for shown in example.shown):
        for command, answer in zip(example.commands, answers, strict=True):
            if answer.status >= 300:
                wrong.append(f"{command}\nis answered with {answer.status}")
    return wrong


def agrees(shown: str, answer: Answer) -> bool:
    status = STATUS.match(shown)
    if status is None:
        return normal(shown) == normal(answer.body)
    head, _, body = shown.partition("\n\n")
    headers = {normal(line).lower() for line in head.splitlines()[1:]}
    return int(status[1]) == answer.status and headers <= answer.headers and normal(body) == normal(answer.body)


class Machine:
    """A node as the page starts it, and a shell; ports that are free take the place of those that the page names."""

    def __init__(self, directory: Path, page: str) -> None:
        self._directory = directory
        self._ports = {port: str(free_port()) for port in ("12379", "12380")}
        (start,) = {line for line in page.splitlines() if line.startswith("raft-chat ")}
        self._environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        self._output = directory / "output"
        with self._output.open("wb") as output:
            self.node = subprocess.Popen(
                ["bash", "-c", f"exec {self._here(start)}"],
                cwd=directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def wait_ready(self) -> None:
        def ready() -> bool:
            text = self._output.read_text()
            assert self.node.poll() is None, text
            return " is ready on http://" in text

        wait_for("the ready line", ready, 30)

    def _here(self, command: str) -> str:
        for port, free in self._ports.items():
            command = command.replace(port, free)
        return command

    def answer(self, command: str) -> Answer:
        done = subprocess.run(
            ["bash", "-c", f"{self._here(command)} -sS -D head"],
            cwd=self._directory,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        # After a redirect there are two: the last counts.
        status, *headers = (self._directory / "head").read_text().strip().rpartition("HTTP/1.1 ")[2].splitlines()
        return Answer(int(status.split()[0]), {normal(header).lower() for header in headers}, done.stdout)

    def stop(self) -> None:
        self.node.terminate()
        try:
            self.node.wait(20)
        finally:
            self.node.kill()


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[list[Answer]]]:
    """Of each example's commands, run in the order of the page."""
    page = PAGE.read_text()
    machine = Machine(tmp_path_factory.mktemp("api"), page)
    try:
        machine.wait_ready()
        yield [[machine.answer(command) for command in example.commands] for example in examples(page)]
    finally:
        machine.stop()


def told(page: str, answers: list[list[Answer]]) -> str:
    found = [lie for example, of_it in zip(examples(page), answers, strict=True) for lie in lies(example, of_it)]
    return "\n\n".join(found)


def test_every_command_of_the_page_is_answered_as_it_shows(answers: list[list[Answer]]) -> None:
    assert not told(PAGE.read_text(), answers)


def test_the_page_has_commands_and_shows_answers() -> None:
    found = examples(PAGE.read_text())
    assert sum(len(example.commands) for example in found) >= 15
    assert sum(len(example.shown) for example in found) >= 4
    # A fence that does not close would hide what follows.
    assert PAGE.read_text().count("```") == 2 * len(re.findall(r"^```\w*\n.*?^```$", PAGE.read_text(), re.M | re.S))


@pytest.mark.parametrize(
    ("truth", "lie"),
    [
        ("201 Created", "200 OK"),
        ("Location: /rooms/general?", "Location: /rooms/other?"),
        ('"Message":"hello"}]', '"Message":"hallo"}]'),
        ('"Messages":1', '"Messages":2'),
        ('"code":"message_empty"', '"code":"message_missing"'),
        ('"Bytes":', '"Size":'),
    ],
)
def test_a_lie_on_the_page_is_found(answers: list[list[Answer]], truth: str, lie: str) -> None:
    page = PAGE.read_text()
    assert truth in page
    assert told(page.replace(truth, lie), answers)
