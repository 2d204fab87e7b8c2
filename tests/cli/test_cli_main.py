"""The command line's edges: lazy commands, errors as sentences, exit codes."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import click
import pytest

from meshcall import cli
from meshcall.cli import output
from meshcall.errors import DaemonError, StateError


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "meshcall", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        check=False,
    )


def test_help_names_every_command_and_imports_none() -> None:
    program = (
        "import sys\nfrom meshcall.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0, end\n"
        "print(*sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    *text, modules = done.stdout.splitlines()
    for name, (_, line) in cli.COMMANDS.items():
        assert any(name in shown and line in shown for shown in text)
    loaded = set(modules.split())
    heavy = {
        "trio",
        "nacl",
        "numpy",
        "rich",
        "segno",
        "mnemonic",
        "msgspec",
        "platformdirs",
        "asyncio",
        "json",
        "socket",
    }
    assert not loaded & heavy
    assert {module for module in loaded if module.startswith("meshcall.")} <= {"meshcall.cli", "meshcall.errors"}


@pytest.mark.parametrize("entry", cli.COMMANDS)
def test_every_command_exists_and_explains_itself(entry: str) -> None:
    module, _, attribute = cli.COMMANDS[entry][0].partition(":")
    assert importlib.util.find_spec(module)
    command = getattr(importlib.import_module(module), attribute)
    assert isinstance(command, click.Command)
    assert command.get_short_help_str()


def test_usage_errors_are_two() -> None:
    for arguments in (["nonsense"], ["id", "nonsense"], ["--nonsense"], ["id", "show", "--nonsense"]):
        done = run(*arguments)
        assert done.returncode == 2
        assert "Error: No such" in done.stderr
        assert "Traceback" not in done.stderr


def test_no_arguments_show_the_help() -> None:
    assert "Commands:" in run().stderr


def test_version() -> None:
    assert run("--version").stdout.startswith("meshcall 0.")


def test_a_reader_that_goes_away_is_no_accident() -> None:
    command = f"set -o pipefail; {sys.executable} -m meshcall --help | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode in (0, cli.EXIT_PIPE_CLOSED)  # 0: it was faster
    assert done.stderr == ""


def failing(error: BaseException) -> click.Command:
    @click.command()
    def command() -> NoReturn:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (StateError("the disk is full"), 1, "meshcall: the disk is full\n"),
        (DaemonError(), 1, "meshcall: The node daemon cannot be reached.\n"),
        (KeyboardInterrupt(), 130, "\n"),
        (click.Abort(), 130, "\n"),
        (click.UsageError("what?"), 2, "Error: what?\n"),
        (click.FileError("x", "gone"), 1, "meshcall: Could not open file 'x': gone\n"),
        (ExceptionGroup("nursery", [ExceptionGroup("inner", [StateError("one")])]), 1, "meshcall: one\n"),
        (ExceptionGroup("nursery", [StateError("one"), StateError("two")]), 1, "meshcall: one; two\n"),
        (BaseExceptionGroup("nursery", [KeyboardInterrupt()]), 130, "\n"),
        (BaseExceptionGroup("nursery", [KeyboardInterrupt(), StateError("one")]), 1, "meshcall: one\n"),
        (
            ModuleNotFoundError("No module named 'segno'", name="segno"),
            1,
            "meshcall: the Python package segno is missing",
        ),
    ],
)
def test_errors_become_sentences(
    error: BaseException,
    code: int,
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cli.LazyGroup, "get_command", lambda *_: failing(error))
    with pytest.raises(SystemExit) as end:
        cli.main(["up"])
    assert end.value.code == code
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith(sentence) or err.endswith(sentence)
    assert "Traceback" not in err


@pytest.mark.parametrize("error", [ZeroDivisionError(), ExceptionGroup("", [ZeroDivisionError(), StateError("x")])])
def test_our_own_faults_are_not_dressed_up(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli.LazyGroup, "get_command", lambda *_: failing(error))
    with pytest.raises((ZeroDivisionError, ExceptionGroup)):
        cli.main(["up"])


def test_a_command_may_choose_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def command() -> int:
        return 3

    monkeypatch.setattr(cli.LazyGroup, "get_command", lambda *_: command)
    with pytest.raises(SystemExit) as end:
        cli.main(["up"])
    assert end.value.code == 3


def test_output_helpers() -> None:
    assert output.aligned([("a", "1"), ("long", "2")]) == ["a     1", "long  2"]
    assert output.aligned([]) == []
    assert output.printable("Jürgen \x1b[2J\u202e") == "Jürgen \\x1b[2J\\u202e"


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a line in bash; `$M` is meshcall."""
    return subprocess.run(
        ["bash", "-c", line.replace("$M", f"{sys.executable} -m meshcall")],
        capture_output=True,
        env={**os.environ, **environment},
        check=False,
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("home"))
    assert run("--home", folder, "id", "new", "--no-passphrase", "--name", "李").returncode == 0
    return folder


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
@pytest.mark.parametrize("command", ["--help", "id show", "id show --json"])
def test_a_full_disk_behind_the_output_is_a_sentence(home: str, command: str) -> None:
    done = shell(f"$M {command} > /dev/full", MESHCALL_HOME=home)
    assert done.returncode == 1
    assert done.stderr == b"meshcall: the output cannot be written: no space left on device\n"


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&-"])
def test_closed_streams_are_no_accident(home: str, closed: str) -> None:
    done = shell(f"$M id show {closed}", MESHCALL_HOME=home)
    assert (done.returncode, done.stderr) == (0, b"")


def test_an_output_without_the_characters(home: str) -> None:
    done = shell("$M id show --qr", MESHCALL_HOME=home, PYTHONIOENCODING="latin-1")
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"\u674e" in done.stdout
    assert b"cannot show the QR code" in done.stdout


@pytest.mark.parametrize(("columns", "shown"), [(40, False), (41, True)])
def test_a_terminal_too_narrow_for_the_code(home: str, columns: int, shown: bool) -> None:
    import pty

    ours, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "meshcall", "id", "show"],
        stdin=theirs,
        stdout=theirs,
        env={**os.environ, "MESHCALL_HOME": home, "COLUMNS": str(columns)},
        check=True,
    )
    assert done.returncode == 0
    text = os.read(ours, 65536).decode()
    os.close(ours)
    os.close(theirs)
    assert ("needs a terminal of 41 columns" in text) is not shown


def test_a_folder_that_cannot_be_is_a_sentence(tmp_path: Path) -> None:
    done = run("id", "new", "--no-passphrase", MESHCALL_HOME=str(tmp_path / ("x" * 300)))
    assert done.returncode == 1
    assert done.stderr.startswith(f"meshcall: {tmp_path}")
    assert done.stderr.endswith(": file name too long\n")
