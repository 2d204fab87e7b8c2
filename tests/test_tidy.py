"""Habits that no other tool checks: size and opening of files, banned calls in cores, leftovers.

The import contracts in pyproject.toml say which module may know which; this file says how a file
looks from the inside.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LINES_MAX = 500
COLUMNS_MAX = 120
DOCSTRING_LINES_MAX = 20

# Not cores: they may touch the clock, chance, files and sockets.  All else in meshcall/ is a core.
DRIVERS = (
    "cli/", "config.py", "crypto/sodium.py", "daemon/", "demo/", "drivers/", "logs.py", "__main__.py",
    "sim/report.py", "sim/run.py",
)  # fmt: skip
BANNED_IN_CORES = {
    r"\.time\(": "take `now` as an argument",
    r"\bcurrent_time\(": "take `now` as an argument",
    r"\burandom\b": "use the suite that was handed in",
    r"\bprint\(": "a core says events, it does not print",
}
LEFTOVERS = {
    "TO" + "DO": "finish it",
    "FIX" + "ME": "fix it",
    "Not" + "ImplementedError": "implement it",
    "/ro" + "ot/": "a path of one machine",
    "/wo" + "rk/": "a path of one machine",
    "/ho" + "me/": "a path of one machine",
}
TEXT_SUFFIXES = {".py", ".pyi", ".md", ".toml", ".lock", ".json", ".html", ".service", ".txt", ""}
SKIPPED_FOLDERS = {
    ".git", ".venv", "build", "dist", "out", "__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache",
    ".hypothesis", ".import_linter_cache", "results",
}  # fmt: skip
SKIPPED_FILES = {"LICENSE"}


def walk(folder: Path) -> Iterator[Path]:
    """All files of the project, without what tools made."""
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if path.name not in SKIPPED_FOLDERS and not path.name.endswith(".egg-info"):
                yield from walk(path)
        elif path.name not in SKIPPED_FILES:
            yield path


ALL = [path for path in walk(ROOT) if path.suffix in TEXT_SUFFIXES]
PYTHON = [path for path in ALL if path.suffix == ".py" and path.relative_to(ROOT).parts[0] != "stubs"]
PRODUCT = [path for path in PYTHON if path.is_relative_to(ROOT / "meshcall")]
CORES = [path for path in PRODUCT if not path.relative_to(ROOT / "meshcall").as_posix().startswith(DRIVERS)]


def name(path: Path) -> str:
    """How a test calls a file."""
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", PYTHON, ids=name)
def test_a_file_is_short_and_says_what_it_is_for(path: Path) -> None:
    text = path.read_text()
    lines = text.splitlines()
    assert len(lines) < LINES_MAX, f"{len(lines)} lines: more than one idea"
    wide = [number for number, line in enumerate(lines, 1) if len(line) > COLUMNS_MAX]
    assert not wide, f"lines wider than {COLUMNS_MAX} columns: {wide[:5]}"
    docstring = ast.get_docstring(ast.parse(text))
    assert docstring, "a module begins with a docstring that says what it is for"
    assert len(docstring.splitlines()) <= DOCSTRING_LINES_MAX, "a module docstring has 2 to 10 lines"


@pytest.mark.parametrize("path", CORES, ids=name)
def test_a_core_takes_time_and_chance_from_outside(path: Path) -> None:
    for number, line in enumerate(path.read_text().splitlines(), 1):
        code = line.partition("#")[0]
        for banned, cure in BANNED_IN_CORES.items():
            assert not re.search(banned, code), f"line {number}: {cure}"


@pytest.mark.parametrize("path", CORES, ids=name)
def test_a_core_never_waits(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        assert not isinstance(node, ast.AsyncFunctionDef | ast.Await), f"line {getattr(node, 'lineno', 0)}: async"


@pytest.mark.parametrize("path", ALL, ids=name)
def test_nothing_is_left_over(path: Path) -> None:
    text = path.read_text()
    for word, cure in LEFTOVERS.items():
        assert word not in text, f"{word!r}: {cure}"
    if path.name != "Makefile" and path.suffix != ".lock":
        assert "\t" not in text, "tabs"
    assert not text or text.endswith("\n"), "the last line does not end"
    assert not re.search(r"[ \t]+$", text, re.MULTILINE), "spaces at the end of a line"


def test_what_is_imported_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[<>=;\[ ]", entry)[0] for entry in project["dependencies"]}
    imported = {"pynacl": "nacl", "pywebrtc-audio": "pywebrtc_audio"}
    known = {imported.get(entry, entry) for entry in declared} | set(sys.stdlib_module_names) | {"meshcall"}
    for path in PRODUCT:
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for module in names:
                assert module.partition(".")[0] in known, f"{name(path)} imports {module}, which pyproject.toml lacks"


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_a_lock_names_hashes_and_no_place(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert "://" not in text
    assert "index" not in text
    assert "find-links" not in text
    pins = re.split(r"\n(?=[a-z])", text.partition("\n\n")[0] if text.startswith("\n") else text)
    for pin in pins:
        if "==" in pin.partition("\n")[0]:
            assert "--hash=sha256:" in pin, pin.partition("\n")[0]


def test_links_between_documents_lead_somewhere() -> None:
    for path in ALL:
        if path.suffix != ".md":
            continue
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
            assert (path.parent / target).exists(), f"{name(path)} links to {target}, which is not there"
