"""`meshcall demo`: a private network of real nodes on this machine, and two people who find each other in it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from meshcall.cli import EXIT_INTERRUPTED
from meshcall.cli.output import json_option, remark, show
from meshcall.errors import UsageError

if TYPE_CHECKING:
    from meshcall.demo.view import View

NODES = 16


@click.command()
@click.option("--nodes", type=click.IntRange(12, 200), default=NODES, show_default=True, help="Nodes beside the two.")
@click.option("--plain", is_flag=True, help="Plain lines, on a terminal too.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Keep the recordings of the call there, and a page with its plots.",
)
@json_option
def command(nodes: int, plain: bool, out: Path | None, as_json: bool) -> int:
    """Watch two people find and call each other, in a private network of real nodes on this machine.

    Nothing leaves the machine, and nothing is left on it but what --out asks for.  Exit code 0: everything worked.
    """
    from meshcall.demo.view import PlainView, QuietView

    if as_json:
        return _play(nodes, QuietView(), out, as_json)
    if plain or not sys.stdout.isatty():
        return _play(nodes, PlainView(), out, as_json)
    from rich.console import Console

    from meshcall.demo.live_view import LiveView

    with LiveView(Console()) as view:
        measured = _measure(nodes, view, out)
    return _tell(measured, as_json)


def _play(nodes: int, view: View, out: Path | None, as_json: bool) -> int:
    return _tell(_measure(nodes, view, out), as_json)


def _measure(nodes: int, view: View, out: Path | None) -> dict[str, Any] | None:
    import trio

    if out is not None:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise UsageError(f"{out}: cannot be made: {problem.strerror}; name another folder with --out") from None
        out = out.absolute()

    from meshcall.demo.story import Interrupted, play

    try:
        return trio.run(play, nodes, view, out)
    except Interrupted:
        return None


def _tell(measured: dict[str, Any] | None, as_json: bool) -> int:
    if measured is None:
        remark("Stopped; all processes and files of the demonstration are gone.")
        return EXIT_INTERRUPTED
    first, after = measured["lookup"], measured["lookup_after_silence"]
    lines = [
        "",
        f"It worked: found in {first['first_ms']:.1f} ms, and in {after['first_ms']:.1f} ms with "
        f"{measured['silent']} of {measured['nodes']} nodes dead; called with an estimated MOS of "
        f"{measured['call']['mos']:.2f} of 4.5; all in {measured['seconds']:.1f} s. All processes are gone.",
        "Your own node:  meshcall id new, then meshcall up, then meshcall call",
    ]
    show(measured, lines, as_json=as_json)
    return 0
