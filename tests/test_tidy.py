"""The source itself is held to what ARCHITECTURE.md says of it: imports, sizes, dead files, links, names, versions."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "raftchat"
LINES_WARN, LINES_MAX = 400, 450

# ARCHITECTURE.md, "Rooms of the house": what each may import of ours, besides itself, `config` and `units`.
MAY_IMPORT = {
    "raft": set(),
    "chat": set(),
    "_log": set(),
    "log_reference": {"_log"},  # the exceptions and tuples that both implementations share
    "config": set(),
    "units": set(),
    "logs": set(),
    "storage": {"_log", "logs"},
    "ipc": {"logs"},
    "worker": {"ipc", "chat", "storage", "_log", "logs"},
    "node": {"raft", "chat", "storage", "ipc", "_log", "logs"},
    "cli": {"node", "storage", "ipc", "chat", "_log", "logs", "worker"},
    "__main__": {"cli"},
    "__init__": set(),
}
FOR_ALL = {"config", "units"}
NEVER_ASYNCIO = {"raft", "chat", "_log", "config", "units", "log_reference"}
ENTRY_POINTS = {"raftchat", "raftchat.__main__", "raftchat.cli"}


def listed(*patterns: str) -> list[Path]:
    """What belongs to the project: what git tracks, and what is new and not ignored."""
    try:
        listing = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no git checkout: which files belong to the project is not known")
    return [path for name in listing.stdout.splitlines() if os.path.lexists(path := ROOT / name)]


def tracked(*patterns: str) -> list[Path]:
    return [path for path in listed(*patterns) if path.is_file() and not path.is_symlink()]


def modules() -> dict[str, Path]:
    """Dotted name → file, of everything importable in src."""
    found = {}
    for path in sorted([*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.pyx")]):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path, module: str) -> set[str]:
    """Every module that a file names in an import, absolute. Of Cython, only what Python's grammar can read."""
    names: set[str] = set()
    if path.suffix == ".pyx":
        for line in path.read_text().splitlines():
            if match := re.match(r"\s*(?:from\s+([\w.]+)\s+)?(?:c?import)\s+([\w.]+)", line):
                names.add(match[1] or match[2])
        return names
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                base = ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [base])])
            names.add(base)
            names.update(f"{base}.{alias.name}" for alias in node.names)
    return names


def room(module: str) -> str:
    """The folder, or the single module, below `raftchat` that a dotted name is in."""
    name = [*module.split("."), "__init__"][1]
    for family in ("log_", "_log"):
        if name.startswith(family):
            return "log_reference" if family == "log_" else "_log"
    return name


def test_imports_point_the_way_the_architecture_says() -> None:
    known, wrong = modules(), []
    for module, path in known.items():
        here = room(module)
        assert here in MAY_IMPORT, f"{module}: say in ARCHITECTURE.md and here what it may import"
        for name in imported(path, module):
            if name == "raftchat" or not name.startswith("raftchat."):
                continue
            there = room(name)
            if there in MAY_IMPORT and there not in {here, *FOR_ALL} | MAY_IMPORT[here]:
                wrong.append(f"{module} imports {name}")
    assert not wrong, wrong


def test_the_pure_rooms_never_touch_asyncio_threads_clocks_or_sockets() -> None:
    """Of `random` they may name the type that is passed in. The log has a lock, as its syncs are waited for in another
    thread. Of nothing else here anything at all."""
    forbidden = {"asyncio", "threading", "socket", "selectors", "uvloop", "random", "time", "subprocess"}
    wrong = []
    for module, path in modules().items():
        if room(module) in NEVER_ASYNCIO:
            names = imported(path, module)
            if "random.Random" in names:
                names -= {"random", "random.Random"}
            if room(module) in ("log_reference", "_log"):
                names -= {"threading"}
            wrong += [f"{module} imports {name}" for name in names if name.split(".")[0] in forbidden]
    assert not wrong, wrong


def test_files_fit_in_a_head() -> None:
    sizes = {path: len(path.read_text().splitlines()) for path in [*modules().values(), *(ROOT / "web").rglob("*.js")]}
    assert not {str(path.relative_to(ROOT)): lines for path, lines in sizes.items() if lines > LINES_MAX}
    for path, lines in sizes.items():
        if lines > LINES_WARN:
            warnings.warn(f"{path.relative_to(ROOT)} has {lines} lines: a place to look", stacklevel=1)


def test_every_module_opens_with_what_it_is() -> None:
    silent = []
    for module, path in modules().items():
        if path.suffix == ".py":
            tree = ast.parse(path.read_text())
            if tree.body and not ast.get_docstring(tree):
                silent.append(module)
        elif not re.match(r'(#.*\n)*\s*"""', path.read_text()):
            silent.append(module)
    assert not silent, silent


def test_no_module_is_dead() -> None:
    """Each is imported by another, is an entry point, or is started as `python -m`."""
    known = modules()
    alive = set(ENTRY_POINTS)
    started = re.compile(r'"(raftchat(?:\.\w+)+)"')
    for module, path in known.items():
        names = imported(path, module) | set(started.findall(path.read_text()))
        alive |= names - {module}
    alive |= {f"{module}.__init__" for module in alive}
    # A package lives if anything below it does; a `__main__` lives if its package is started.
    alive |= {module.rpartition(".")[0] for module in alive}
    dead = [m for m in known if m not in alive and not (m.endswith(".__main__") and m[: -len(".__main__")] in alive)]
    # The reference log is the specification of the other one: it lives in the tests.
    assert not [module for module in dead if room(module) != "log_reference"], dead


def links(text: str) -> Iterator[str]:
    prose = re.sub(r"```.*?```", "", text, flags=re.S)
    yield from re.findall(r"\[[^\]]*\]\(([^)#\s]+)", prose)


def test_links_in_documents_lead_somewhere() -> None:
    broken = [
        f"{document.relative_to(ROOT)}: {link}"
        for document in tracked("*.md")
        for link in links(document.read_text())
        if not re.match(r"\w+:", link) and not (document.parent / link).exists()
    ]
    assert not broken, broken


def test_files_that_documents_name_exist() -> None:
    """`path/name.ext` in backquotes, from the root, from src/raftchat or from the document's own folder."""
    name = re.compile(r"`((?:[\w.-]+/)+[\w.-]*|[\w-]+\.(?:py|pyx|pyi|md|toml))`")
    broken = []
    for document in tracked("*.md"):
        for mentioned in name.findall(re.sub(r"```.*?```", "", document.read_text(), flags=re.S)):
            if mentioned.startswith(("./raft-chat-", "log/", "snapshots/", "incoming/")):  # in a data directory
                continue
            places = [ROOT, PACKAGE, document.parent]
            if not any((place / mentioned).exists() for place in places):
                broken.append(f"{document.relative_to(ROOT)}: {mentioned}")
    assert not broken, broken


def test_text_speaks_of_the_project_alone() -> None:
    """No path of one machine, and no word about how the text came to be."""
    forbidden = re.compile(
        r"(?<![\w.])(?:/work/|/root/|/tmp/|/home/(?!USER))|/usr/local/lib/python"
        r"|\bissue #?\d|\bTODO\b|\bFIXME\b|\bXXX\b"
    )
    wrong = []
    for path in tracked("*"):
        if path == Path(__file__).resolve() or path.suffix in {".png", ".ico", ".woff2"}:
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if match := forbidden.search(line):
                wrong.append(f"{path.relative_to(ROOT)}:{number}: {match[0]}")
    assert not wrong, wrong


def test_versions_agree() -> None:
    from raftchat import __version__

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "raftchat.__version__"}
    assert re.search(rf"^## \[{re.escape(__version__)}\]", (ROOT / "CHANGELOG.md").read_text(), re.M)
    oldest = project["project"]["requires-python"].removeprefix(">=")
    assert project["tool"]["ruff"]["target-version"] == "py" + oldest.replace(".", "")
    assert project["tool"]["mypy"]["python_version"] == oldest


def public(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return {name for name in names if not name.startswith("_")}


@pytest.mark.parametrize("stub", sorted(PACKAGE.rglob("*.pyi")), ids=lambda path: path.name)
def test_what_cython_makes_public_is_in_the_stub_and_the_other_way_round(stub: Path) -> None:
    source = stub.with_suffix(".pyx").read_text()
    defined = set(re.findall(r"^(?:cdef\s+class|class|def|cpdef\s+[\w ]+?)\s+(\w+)", source, re.M))
    promised = public(ast.parse(stub.read_text()))
    assert {name for name in defined if not name.startswith("_")} <= promised
    module = __import__(f"raftchat.{stub.stem}", fromlist=["*"])
    missing = {name for name in promised if not hasattr(module, name)} - {"Buffer"}
    assert not missing, missing
    for node in ast.parse(stub.read_text()).body:
        if isinstance(node, ast.ClassDef):
            methods = {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
            assert not [name for name in methods if not hasattr(getattr(module, node.name), name)], node.name


def test_a_wheel_holds_the_program_and_its_web_client(tmp_path: Path) -> None:
    """Built with what is installed, so that nothing is downloaded: the compiled log, the stub, `web/`, the command."""
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    source = tmp_path / "source"
    for path in listed("*"):
        copy = source / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy, follow_symlinks=False)
    done = subprocess.run([*build, str(source)], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("raft_chat-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        entry = next(name for name in names if name.endswith("entry_points.txt"))
        assert "raft-chat = raftchat.cli:main" in archive.read(entry).decode()
    served = {f"raftchat/web/{path.relative_to(source / 'web')}" for path in (source / "web").rglob("*.*")}
    assert "raftchat/web/index.html" in served
    assert served <= names, served - names
    sources = {str(p.relative_to(source / "src")) for p in (source / "src").rglob("*.py")}
    assert sources <= names, sources - names
    assert [name for name in names if re.match(r"raftchat/_log\..*\.so$", name)]
    assert {"raftchat/_log.pyi", "raftchat/py.typed"} <= names


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_the_installed_command_runs(flag: str) -> None:
    command = Path(sys.executable).with_name("raft-chat")
    done = subprocess.run([command, flag], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    from raftchat import __version__

    assert (__version__ if flag == "--version" else "--cluster") in done.stdout
