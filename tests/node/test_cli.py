"""The command line: what is wrong is said with the remedy before anything is touched, and where values come from."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from raftchat.cli import main
from raftchat.cli.units import Duration, Size
from raftchat.node.supervisor import NodeSettings
from tests.faults.cluster import free_port

serve_module = importlib.import_module("raftchat.cli.serve")  # the package shows the command of that name
THREE = "http://127.0.0.1:12379,http://127.0.0.1:22379,http://127.0.0.1:32379"


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[NodeSettings]:
    """Settings of nodes that would have been run, below an empty working directory."""
    settings: list[NodeSettings] = []

    def run_node(given: NodeSettings) -> int:
        settings.append(given)
        for sock in [*given.http, *given.peer]:
            sock.close()
        return 0

    monkeypatch.setattr(serve_module, "run_node", run_node)
    monkeypatch.chdir(tmp_path)
    return settings


def invoke(*arguments: str, **environment: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, list(arguments), env=environment)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--id", "4", "--cluster", THREE], "--id 4 is outside --cluster, which names 3 nodes: use an id from 1 to 3"),
        (["--id", "0"], "0 is not in the range x>=1"),
        (["--cluster", "127.0.0.1:12379"], "write them as http://127.0.0.1:12379,"),
        (["--cluster", "http://127.0.0.1"], "the port is missing"),
        (["--cluster", "http://127.0.0.1:99999"], "is not a URL"),
        (["--cluster", "http://[::1"], "is not a URL"),
        (["--cluster", "http://127.0.0.1:1,"], "is not a URL"),
        (["--cluster", "http://127.0.0.1:1/raft"], "only host and port"),
        (["--cluster", "http://me@127.0.0.1:1"], "only host and port"),
        (["--cluster", "http://127.0.0.1:1,http://127.0.0.1:1/"], "is there twice"),
        (["--cluster", "https://127.0.0.1:1"], "encrypted peer connections are not supported yet; use http://"),
        (["--cluster", "http://10.1.2.3:1"], "say --insecure-peers if a firewall keeps others away"),
        (["--cluster", "http://127.0.0.1:9121"], "--port 9121 is also the port of this node's peer URL"),
        (["--election-timeout", "soon"], "is not a duration; write 1000 (milliseconds), 500ms or 2s"),
        (["--election-timeout", "200ms"], "at least three heartbeat intervals"),
        (["--segment-size", "64 apples"], "is not a size; write 1048576, 64MiB or 1.5GB"),
        (["--segment-size", "1KiB"], "at least 4 KiB"),
        (["--workers", "0"], "--workers"),
        (["--port", "70000"], "--port"),
        (["--config", "nowhere.toml"], "nowhere.toml"),
        (["--nonsense"], "No such option"),
        (["nonsense"], "No such command"),
    ],
)
def test_wrong_usage_is_exit_2_and_names_the_remedy(
    started: list[NodeSettings], tmp_path: Path, arguments: list[str], words: str
) -> None:
    code, output = invoke(*arguments)
    assert code == 2
    assert words in " ".join(output.split())
    assert not started


def test_the_command_line_wins_over_the_environment_over_the_file_over_the_default(
    started: list[NodeSettings], tmp_path: Path
) -> None:
    port = free_port()
    file = tmp_path / "node.toml"
    lines = [
        f'cluster = ["http://127.0.0.1:{port}"]',
        'election-timeout = "5s"',
        "heartbeat_interval = 50",
        "workers = 3",
    ]
    file.write_text("\n".join([*lines, "port = 0"]))
    arguments = ["--config", str(file), "--election-timeout", "2s"]
    code, output = invoke(*arguments, RAFTCHAT_ELECTION_TIMEOUT="3s", RAFTCHAT_WORKERS="2", RAFTCHAT_LOG_FORMAT="json")
    assert code == 0, output
    (node,) = started
    assert node.config.election_timeout_ms == 2000
    assert node.workers == 2
    assert node.config.heartbeat_interval_ms == 50
    assert node.config.segment_size_bytes == 64 << 20
    assert node.log_format == "json"
    assert node.data_dir == str(tmp_path / "raft-chat-1")


@pytest.mark.parametrize(("text", "words"), [("election-timeuot = 5", "election-timeout"), ("a = = b", "not TOML")])
def test_a_wrong_configuration_file_is_exit_2(
    started: list[NodeSettings], tmp_path: Path, text: str, words: str
) -> None:
    file = tmp_path / "node.toml"
    file.write_text(text)
    code, output = invoke("--config", str(file))
    assert code == 2
    assert words in output
    assert not started


def test_any_option_may_be_in_the_file_under_the_name_it_has_on_the_command_line(
    started: list[NodeSettings], tmp_path: Path
) -> None:
    file = tmp_path / "node.toml"
    cluster = f'cluster = ["http://127.0.0.1:{free_port()}", "http://127.0.0.1:{free_port()}"]'
    file.write_text(f"id = 2\nport = 0\n{cluster}\n")
    assert invoke("--config", str(file))[0] == 0
    assert started[0].node_id == 2
    file.write_text(f"node-id = 2\nport = 0\n{cluster}\n")
    code, output = invoke("--config", str(file))
    assert code == 2
    assert (
        "there is no option 'node-id'; there are cluster, data-dir, delete-grace, election-timeout, empty-room-age"
        in (" ".join(output.split()))
    )


def test_a_misspelt_environment_variable_is_a_warning(
    started: list[NodeSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    warned: list[str] = []
    settings_module = importlib.import_module("raftchat.cli.settings")
    monkeypatch.setattr(settings_module.log, "warning", lambda text, *, extra: warned.append(extra["variable"]))
    arguments = ["--cluster", f"http://127.0.0.1:{free_port()}", "--port", "0"]
    assert invoke(*arguments, RAFTCHAT_ELECTION_TIMEUOT="2s", RAFTCHAT_WORKERS="2", RAFTCHAT_ID="1")[0] == 0
    assert warned == ["RAFTCHAT_ELECTION_TIMEUOT"]


def test_a_data_directory_is_made_for_its_owner_alone(started: list[NodeSettings], tmp_path: Path) -> None:
    arguments = ["--cluster", f"http://127.0.0.1:{free_port()}", "--port", "0", "--data-dir", "new/d"]
    assert invoke(*arguments)[0] == 0
    data = tmp_path / "new" / "d"
    assert {str(p.relative_to(data)): oct(p.stat().st_mode & 0o777) for p in [data, *data.rglob("*")]} == {
        ".": "0o700",
        "LOCK": "0o600",
        "hard-state": "0o600",
        "identity": "0o600",
        "log": "0o700",
    }


def test_serve_is_what_no_subcommand_means(started: list[NodeSettings]) -> None:
    arguments = ["--cluster", f"http://localhost:{free_port()}/", "--port", "0", "--insecure-peers"]
    assert invoke(*arguments)[0] == 0
    assert invoke("serve", *arguments)[0] == 0
    assert [node.node_id for node in started] == [1, 1]
    assert started[0].url.startswith("http://127.0.0.1:")


def test_a_directory_of_another_node_or_cluster_is_exit_3(started: list[NodeSettings], tmp_path: Path) -> None:
    mine, other = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    at = ["--data-dir", "d", "--port", "0"]
    assert invoke("--cluster", f"{mine},{other}", *at)[0] == 0
    assert invoke("--id", "2", "--cluster", f"{mine},{other}", *at)[0] == 3
    assert invoke("--cluster", f"http://127.0.0.1:{free_port()}", *at)[0] == 3
    assert len(started) == 1


@pytest.mark.parametrize("change", ["one more", "one less", "another order"])
def test_another_cluster_list_than_the_directory_began_with_is_exit_3_and_names_both(
    started: list[NodeSettings], monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """Nodes that follow the new list would be a second cluster beside the first."""
    mine, other = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    at = ["--data-dir", "d", "--port", "0"]
    assert invoke("--cluster", f"{mine},{other}", *at)[0] == 0
    changed = {"one more": f"{mine},{other},http://127.0.0.1:1", "one less": mine, "another order": f"{other},{mine}"}
    failures: list[str] = []
    monkeypatch.setattr(serve_module.log, "critical", lambda text, *values: failures.append(text % values))
    assert invoke("--cluster", changed[change], *at)[0] == 3
    assert f"use --cluster {mine},{other}, or another --data-dir" in failures[0]
    assert f"started with --cluster {changed[change]};" in failures[0]
    assert len(started) == 1
    assert invoke("--cluster", f"{mine},{other}", *at)[0] == 0
    assert len(started) == 2


@pytest.mark.parametrize(
    ("file", "damage"), [("identity", b"raft-chat identity 1 0000000000000000\n{}\n"), ("identity", None)]
)
def test_a_damaged_or_lost_identity_is_exit_4(
    started: list[NodeSettings], tmp_path: Path, file: str, damage: bytes | None
) -> None:
    arguments = ["--cluster", f"http://127.0.0.1:{free_port()}", "--port", "0", "--data-dir", "d"]
    assert invoke(*arguments)[0] == 0
    (tmp_path / "d" / "log" / "00000001-00000000000000000001.log").write_bytes(b"what was acknowledged")
    if damage is None:
        (tmp_path / "d" / file).unlink()
    else:
        (tmp_path / "d" / file).write_bytes(damage)
    assert invoke(*arguments)[0] == 4
    assert len(started) == 1


def test_help_and_version_have_what_a_user_looks_for() -> None:
    code, output = invoke("--help")
    assert code == 0
    for words in ("raft-chat --id 1 --cluster", "--election-timeout", "curl -L", "RAFTCHAT_", "Exit codes", "version"):
        assert words in output
    assert invoke("serve", "--help")[0] == 0
    assert invoke("version")[1].startswith("raft-chat ")
    assert invoke("--version")[0] == 0


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Size(), "64MiB", 64 << 20),
        (Size(), "1.5 GB", 1_500_000_000),
        (Size(), "4096", 4096),
        (Size(), "10b", 10),
        (Duration(), "1000", 1000),
        (Duration(), "1.5s", 1500),
        (Duration(), "2m", 120_000),
        (Duration(), "30d", 30 * 86_400_000),
    ],
)
def test_units(kind: Any, text: str, value: int) -> None:
    assert kind.convert(text, None, None) == value


@pytest.mark.parametrize("text", ["", "-1", "1 parsec", "1e9", "1..5s", "one"])
def test_no_units(text: str) -> None:
    for kind in (Size(), Duration()):
        with pytest.raises(click.BadParameter):
            kind.convert(text, None, None)
