"""What a person types.  This file knows the names of the commands, not the commands.

Each command is imported when it is used, so that `meshcall --help` answers at once.
`main` is the one place where an error becomes a sentence on stderr and an exit code:
0 done, 1 an error with its sentence, 2 used wrongly, 130 interrupted, 141 nobody reads the output.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TYPE_CHECKING, Final

import click

from meshcall import __version__
from meshcall.errors import MeshcallError

if TYPE_CHECKING:
    from collections.abc import Iterator

EXIT_ERROR: Final = 1
EXIT_INTERRUPTED: Final = 130
EXIT_PIPE_CLOSED: Final = 141
OUTPUT_ERRORS: Final = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG)
"""What writing to a redirected standard output may meet."""

COMMANDS: Final[dict[str, tuple[str, str]]] = {
    # name: (module:attribute, the line in `meshcall --help`), in the order in which a newcomer needs them
    "demo": ("meshcall.cli.demo:command", "Watch two people find and call each other on this machine."),
    "id": ("meshcall.cli.id:command", "Make, show, back up and restore your identity."),
    "up": ("meshcall.cli.up:command", "Run your node."),
    "status": ("meshcall.cli.status:command", "Say how your node is doing."),
    "lookup": ("meshcall.cli.lookup:command", "Find out how a person can be reached."),
    "call": ("meshcall.cli.call:command", "Call a person."),
    "answer": ("meshcall.cli.call:answer", "Answer the call that rings."),
    "hangup": ("meshcall.cli.call:hangup", "End the call, or decline it."),
    "hold": ("meshcall.cli.call:hold", "Put the call on hold."),
    "mute": ("meshcall.cli.call:mute", "Switch your microphone off."),
    "calls": ("meshcall.cli.call:calls", "Show the call, the last calls, and who wants to call."),
    "ping": ("meshcall.cli.ping:command", "Link to a person's device and see how fast it answers."),
    "paths": ("meshcall.cli.paths:command", "Show the open links and the ways they take."),
    "devices": ("meshcall.cli.devices:command", "List microphones and loudspeakers, and try them."),
    "relay": ("meshcall.cli.relay:command", "See your places at relays, and your own relay."),
    "simulate": ("meshcall.cli.simulate:command", "Run a scenario of many nodes in virtual time."),
}


class LazyGroup(click.Group):
    """A group whose commands are named by `COMMANDS` and imported on first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of a command; None for a name that is not in the table."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        from importlib import import_module

        module, _, attribute = entry[0].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Each command explains itself: meshcall COMMAND --help",
)
@click.version_option(__version__, prog_name="meshcall", message="%(prog)s %(version)s")
@click.option("--home", metavar="FOLDER", help="Keep everything in this folder (or set MESHCALL_HOME).")
def cli(home: str | None) -> None:
    """Encrypted voice calls from person to person, found by key, without a hub."""


def main(arguments: list[str] | None = None) -> None:
    """Run one command line and leave the process with its exit code.

    A command returns None (exit code 0) or an exit code of its own.
    """
    _prepare_output()
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has gone (`meshcall ... | head`).  The interpreter must not complain at its last flush either.
        _drop_output()
        code = EXIT_PIPE_CLOSED
    except OSError as error:
        if error.filename is None and error.errno not in OUTPUT_ERRORS:
            raise
        if error.filename is None:
            _drop_output()
        what = "the output cannot be written" if error.filename is None else os.fsdecode(error.filename)
        code = _fail(f"{what}: {(error.strerror or type(error).__name__).lower()}")
    sys.exit(code)


def _prepare_output() -> None:
    """Let no command fail for want of an output: closed, or with an encoding that lacks a character."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the end of the process
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(arguments: list[str] | None) -> int:
    stdout = sys.stdout
    try:
        result = cli.main(arguments, prog_name="meshcall", standalone_mode=False)
    except SystemExit as end:
        # click meets a closed pipe by itself: it wraps the stream and leaves with 1.
        if sys.stdout is not stdout:
            return EXIT_PIPE_CLOSED
        return end.code if isinstance(end.code, int) else EXIT_ERROR
    except click.UsageError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        return _fail(error.format_message())
    except (click.Abort, KeyboardInterrupt):
        return _interrupted()
    except MeshcallError as error:
        return _fail(str(error))
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "meshcall":
            raise
        return _fail(f"the Python package {error.name} is missing; install meshcall-voice again")
    except BaseExceptionGroup as group:
        # Nurseries wrap what happens inside them.
        leaves = list(_leaves(group))
        if all(isinstance(leaf, KeyboardInterrupt) for leaf in leaves):
            return _interrupted()
        for leaf in leaves:
            if not isinstance(leaf, MeshcallError | KeyboardInterrupt):
                raise
        return _fail("; ".join(dict.fromkeys(str(leaf) for leaf in leaves if isinstance(leaf, MeshcallError))))
    return result if isinstance(result, int) else 0


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _fail(sentence: str) -> int:
    click.echo(f"meshcall: {sentence}", err=True)
    return EXIT_ERROR


def _interrupted() -> int:
    click.echo("", err=True)
    return EXIT_INTERRUPTED
