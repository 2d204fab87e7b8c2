"""What the commands share: the options `--json` and `--home`, and printing for people or for programs.

People's output goes to stdout as lines; remarks that are not the answer go to stderr, so that
`meshcall ... | program` and `meshcall ... --json` stay clean.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from meshcall.drivers.files import Folders

F = TypeVar("F", bound=Callable[..., Any])


def json_option(function: F) -> F:
    """Add `--json`, handed to the command as `as_json: bool`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(function)


def home_option(function: F) -> F:
    """Add `--home FOLDER`, handed to the command as `folders: drivers.files.Folders`.

    The option after the command wins over `meshcall --home FOLDER command`, that over MESHCALL_HOME.
    """
    return click.option(
        "--home",
        "folders",
        metavar="FOLDER",
        callback=_folders,
        help="Keep everything in this folder (or set MESHCALL_HOME).",
    )(function)


def _folders(context: click.Context, parameter: click.Parameter, value: str | None) -> Folders:
    from meshcall.drivers.files import folders

    return folders(value or context.find_root().params.get("home"))


def show(data: Mapping[str, object], lines: Iterable[str], *, as_json: bool) -> None:
    """Print the answer of a command: `data` as one JSON object with `--json`, else the lines."""
    if as_json:
        click.echo(json.dumps(data, ensure_ascii=False, indent=2))
    else:
        for line in lines:
            click.echo(line)


def remark(line: str) -> None:
    """Say something that is not the answer, on stderr."""
    click.echo(line, err=True)


def aligned(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Lines of `label  value` with the values under each other."""
    rows = list(rows)
    width = max((len(label) for label, _ in rows), default=0)
    return [f"{label:<{width}}  {value}" for label, value in rows]


def printable(text: str) -> str:
    """A text from somebody else, safe for a terminal: what cannot be printed is shown as its escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
