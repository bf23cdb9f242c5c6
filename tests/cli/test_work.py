"""The commands of an operator: what they say, where, and with which exit code."""

from __future__ import annotations

import io
import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from click.testing import CliRunner, Result

from raftchat.cli import main, work
from raftchat.storage import identity
from tests.storage.data_dir import DataDir, flip

THREE = "http://127.0.0.1:12379,http://127.0.0.1:22379,http://127.0.0.1:32379"


def invoke(*arguments: str) -> Result:
    result = CliRunner().invoke(main, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture
def stopped(tmp_path: Path) -> DataDir:
    directory = DataDir(tmp_path / "node")
    directory.post("a", 90)
    directory.seal()
    directory.post("b", 10)
    directory.close()
    return directory


def test_verify(stopped: DataDir) -> None:
    result = invoke("verify", str(stopped.path))
    assert result.exit_code == 0
    assert result.stdout.endswith(f"100 records, up to entry {stopped.log_last_index}: all is well\n")
    assert [json.loads(line)["Message"] for line in result.stderr.splitlines()] == [f"Reading {stopped.path}"]


def test_verify_says_where_and_ends_with_4(stopped: DataDir) -> None:
    path = stopped.path / "identity"
    path.write_bytes(path.read_bytes().replace(b"Epoch", b"epoch"))
    result = invoke("verify", str(stopped.path))
    assert result.exit_code == 4
    assert f"corrupt: {path}: checksum does not match" in result.stdout
    assert result.stdout.endswith(": 1 fault\n")
    result = invoke("verify", "--json", str(stopped.path))
    assert result.exit_code == 4
    document = json.loads(result.stdout)
    assert document["OK"] is False
    assert document["Corrupt"][0]["Path"] == str(path)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["verify", "nowhere"], 3, "nowhere: No such file or directory"),
        (["verify", "."], 3, "is not a data directory of raft-chat"),
        (["verify"], 2, "Missing argument"),
        (["backup", "copy", "--data-dir", "nowhere"], 2, "say with --data-dir where the node keeps its data"),
        (["restore", "nowhere"], 2, "does not exist"),
        (["restore", "."], 3, "has no identity file"),
        (["restore", ".", "--id", "2"], 2, "--id 2 is outside --cluster, which names 1"),
        (["restore", ".", "--epoch", "1"], 2, "--epoch"),
        (["room", "list", "--url", "ftp://x"], 2, "is not a URL"),
        (["room", "list", "--url", "http://127.0.0.1:1"], 1, "no node answers at http://127.0.0.1:1"),
    ],
)
def test_what_is_wrong_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke(*arguments)
    assert result.exit_code == code, result.output
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_backup_and_restore(stopped: DataDir, tmp_path: Path) -> None:
    copy, new = str(tmp_path / "copy"), str(tmp_path / "new")
    result = invoke("backup", copy, "--data-dir", str(stopped.path))
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{copy}: up to entry {stopped.log_last_index}; ")
    assert invoke("backup", copy, "--data-dir", str(stopped.path)).exit_code == 3
    assert invoke("verify", copy).exit_code == 0
    result = invoke("restore", copy, "--data-dir", new, "--cluster", THREE, "--id", "2")
    assert result.exit_code == 0, result.output
    assert f"{new}: 100 messages in 2 rooms, up to entry {stopped.log_last_index}" in result.stdout
    assert f"start it: raft-chat --id 2 --cluster {THREE} --data-dir {new} --port PORT" in result.stdout
    # The lines for the other nodes make members of the same cluster.
    lines = [line for line in result.stdout.splitlines() if line.startswith("node ")]
    assert [line.partition(":")[0] for line in lines] == ["node 1", "node 3"]
    other = invoke(*lines[1].split()[3:], "--data-dir", str(tmp_path / "other"))
    assert other.exit_code == 0, other.output
    made, its = identity.load(new), identity.load(str(tmp_path / "other"))
    assert made is not None
    assert its is not None
    assert (made.cluster_id, made.epoch, its.member_id) == (its.cluster_id, its.epoch, 3)
    assert made.epoch > 1
    result = invoke("restore", copy, "--data-dir", new, "--cluster", THREE)
    assert result.exit_code == 3
    assert "is not empty; choose a new directory" in result.stderr


def test_restore_up_to_a_fault_and_without_retention(stopped: DataDir, tmp_path: Path) -> None:
    """Exit code 4 with the file, until it is asked for; the lines for the other nodes carry the same flags."""
    path = stopped.log_path()
    flip(path, 64 + 48 + 20)
    new = str(tmp_path / "new")
    result = invoke("restore", str(stopped.path), "--data-dir", new)
    assert result.exit_code == 4
    assert f"{path}: byte 64: " in result.stderr
    assert "--up-to-fault" in result.stderr
    flags = ["--up-to-fault", "--no-retention"]
    result = invoke("restore", str(stopped.path), "--data-dir", new, "--cluster", THREE, *flags)
    assert result.exit_code == 0, result.output
    assert f"lost: {path}: byte 64: " in result.stdout
    lines = [line for line in result.stdout.splitlines() if line.startswith("node ")]
    assert all(" ".join(flags) in line for line in lines)
    other = invoke(*lines[1].split()[3:], "--data-dir", str(tmp_path / "other"))
    assert other.exit_code == 0, other.output
    made, its = identity.load(new), identity.load(str(tmp_path / "other"))
    assert made is not None
    assert its is not None
    assert made.cluster_id == its.cluster_id


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_with_bytes_and_time_left_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with work.progress("Reading") as on_progress:
        for done in range(0, 11 * 2**20, 2**20):
            on_progress(done, 10 * 2**20)
    assert "Reading" in terminal.getvalue()
    assert "10.0 MiB of 10.0 MiB" in terminal.getvalue()
    assert "100%" in terminal.getvalue()


def test_colours_only_where_they_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert work.red("x") == "x"
    monkeypatch.setattr("sys.stdout", Terminal())
    assert work.red("x") == "\x1b[31mx\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert work.red("x") == "x"


@pytest.mark.parametrize("command", ["verify", "backup", "restore", "room list"])
def test_help_has_examples(command: str) -> None:
    result = invoke(*command.split(), "--help")
    assert result.exit_code == 0
    assert f"  raft-chat {command}" in result.stdout
    assert "Exit codes:" in result.stdout


NAMES = [f"room {number:04}" for number in range(2500)]


class Rooms(BaseHTTPRequestHandler):
    """As a node answers `GET /rooms`."""

    def do_GET(self) -> None:
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        if query.get("prefix") == "bad":
            return self._answer(503, {"detail": "There is no leader."})
        rooms = [name for name in NAMES if name > query.get("after", "")]
        limit = int(query["limit"])
        assert query["details"] == "true"
        page = [
            {
                "Name": name,
                "Messages": 3,
                "Bytes": 2048,
                "FirstID": 1,
                "LastID": 9,
                "LastPostedAt": "2026-01-02T03:04:05.678Z",
            }
            for name in rooms[:limit]
        ]
        return self._answer(200, page, {"Link": '</rooms>; rel="next"'} if len(rooms) > limit else {})

    def _answer(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Rooms) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


def test_room_list_asks_for_page_after_page(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    result = invoke("room", "list", "--url", server + "/")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert len(lines) == 1 + len(NAMES)
    assert lines[1].split() == ["3", "2.0", "KiB", "2026-01-02T03:04:05.678Z", "room", "0000"]
    result = invoke("room", "list", "--url", server, "--json")
    assert [room["Name"] for room in json.loads(result.stdout)] == NAMES


def test_room_list_says_what_the_node_said(server: str) -> None:
    result = invoke("room", "list", "--url", server, "--prefix", "bad")
    assert result.exit_code == 1
    assert result.stderr == f"Error: {server} answers 503: There is no leader.\n"
    assert result.stdout == ""


def test_nothing_is_left_where_a_command_was_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    invoke("restore", ".")
    invoke("verify", "nowhere")
    assert os.listdir(tmp_path) == []
