"""`meshcall call`, `answer`, `hangup`, `hold` and `mute`: speak with people through the running node."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from meshcall.cli.output import aligned, home_option, json_option, printable, remark, show

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from meshcall.drivers.control import EventSink
    from meshcall.drivers.files import Folders

Json = dict[str, Any]
EXIT_NOT_ANSWERED = 1


def _sound_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--mic`, `--speaker`, `--plain` and `--json`."""
    for option in (
        json_option,
        click.option("--plain", is_flag=True, help="Plain lines, on a terminal too."),
        click.option(
            "--speaker", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
            help="Record what is heard into this WAV file, in the place of the loudspeaker.",
        ),
        click.option(
            "--mic", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
            help="Speak with this WAV file, in the place of the microphone.",
        ),
    ):  # fmt: skip
        function = option(function)
    return function


@click.command()
@click.argument("address")
@home_option
@click.option("--relayed", is_flag=True, help="Use relays only: neither side learns the other's IP address.")
@click.option(
    "--seconds", type=click.FloatRange(0.1, 86_400), metavar="S", help="Hang up after so long a conversation."
)
@_sound_options
def command(
    address: str, folders: Folders, relayed: bool, seconds: float | None, mic: Path | None, speaker: Path | None,
    plain: bool, as_json: bool,
) -> int:  # fmt: skip
    """Call the person with this ADDRESS.  Ctrl-C hangs up.

    Needs a running node with an identity (`meshcall up`), whose sound devices are used.  With --json every event is
    one line: resolved, path, ringing, answered, first_voice, path_changed, stats, ended; "seconds" is the time since
    the command.

    Exit code 0: it was answered; 1: it was not, or an error.
    """
    from meshcall.address import parse

    parse(address)  # a typing error is told before anything is asked
    args = {"address": address, "relayed": relayed, "talk_seconds": seconds, **_files(mic, speaker)}
    return _converse(folders, "call", args, plain=plain, as_json=as_json)


@click.command()
@home_option
@click.option("--wait", is_flag=True, help="Wait for the next call, if none rings.")
@_sound_options
def answer(folders: Folders, wait: bool, mic: Path | None, speaker: Path | None, plain: bool, as_json: bool) -> int:
    """Answer the call that rings.  Ctrl-C hangs up.

    Exit code 0: there was a conversation; 1: none, or an error.
    """
    return _converse(folders, "answer", {"wait": wait, **_files(mic, speaker)}, plain=plain, as_json=as_json)


@click.command()
@home_option
@json_option
def hangup(folders: Folders, as_json: bool) -> int:
    """End the call, or decline the one that rings.

    Exit code 0: there was one; 1: there was none.
    """
    result = _ask(folders, "hangup", {})
    lines = [f"Ended: {printable(result['address'])}." if result["ended"] else "There is no call."]
    show(result, lines, as_json=as_json)
    return 0 if result["ended"] else 1


@click.command()
@home_option
@click.option("--off", is_flag=True, help="Take it back.")
@json_option
def hold(folders: Folders, off: bool, as_json: bool) -> int:
    """Put the call on hold: neither side hears the other."""
    return _switch(folders, {"hold": not off}, as_json=as_json)


@click.command()
@home_option
@click.option("--off", is_flag=True, help="Take it back.")
@json_option
def mute(folders: Folders, off: bool, as_json: bool) -> int:
    """Switch your microphone off in the call; what is sent keeps its size and pace."""
    return _switch(folders, {"mute": not off}, as_json=as_json)


@click.command()
@home_option
@json_option
def calls(folders: Folders, as_json: bool) -> int:
    """Show the call, the last calls, and people who wait to be admitted."""
    result = _ask(folders, "calls", {})
    call = result["call"]
    lines = ["No call at present."]
    if call is not None:
        lines = [
            f"{call['state']} for {call['seconds']:.0f} s: {call['address']}, {printable(call['path'] or 'no path')}"
        ]
    for one in result["history"]:
        way = "from" if one["incoming"] else "to"
        talked = f"{one['talk_seconds']:.0f} s, " if one["answered"] else ""
        lines.append(
            f"{one['ended_seconds_ago']:.0f} s ago, {way} {one['address']}: {talked}{printable(one['reason'])}"
        )
    for one in result["requests"]:
        lines.append(
            f"{one['address']} wants to call ({one['times']} times, last {one['seconds_ago']:.0f} s ago); "
            "put the address into [contacts] trusted to let it ring"
        )
    show(result, lines, as_json=as_json)
    return 0


def _switch(folders: Folders, args: Json, *, as_json: bool) -> int:
    result = _ask(folders, "voice", args)
    words = [word for word, is_on in (("on hold", result["held"]), ("muted", result["muted"])) if is_on]
    show(result, [f"The call is {' and '.join(words) or 'open'}."], as_json=as_json)
    return 0


def _files(mic: Path | None, speaker: Path | None) -> Json:
    """Absolute, because the node has a working folder of its own."""
    return {name: str(path.absolute()) for name, path in (("microphone", mic), ("speaker", speaker)) if path}


def _ask(folders: Folders, op: str, args: Json) -> Json:
    import trio

    async def run() -> Json:
        from meshcall.drivers.control import connect

        async with connect(folders.state) as client:
            return await client.request(op, args)

    return trio.run(run)


def _converse(folders: Folders, op: str, args: Json, *, plain: bool, as_json: bool) -> int:
    """Run a call until it is over, telling what happens."""
    import trio

    async def run(tell: EventSink) -> Json:
        from meshcall.drivers.control import connect

        async with connect(folders.state) as client, trio.open_nursery() as nursery:
            nursery.start_soon(_hang_up_at_ctrl_c, folders)
            result = await client.request(op, args, tell)
            nursery.cancel_scope.cancel()
        return result

    if as_json:
        result = trio.run(run, _tell_program)
    elif plain or not sys.stdout.isatty():
        result = trio.run(run, _tell_plainly)
    else:
        from meshcall.cli.call_view import CallView

        with CallView() as view:
            result = trio.run(run, view.tell)
    if not as_json:
        for line in summary(result):
            click.echo(line)
    return 0 if result["answered"] else EXIT_NOT_ANSWERED


async def _hang_up_at_ctrl_c(folders: Folders) -> None:
    """The first Ctrl-C ends the call, whose summary is then told; the second ends this program."""
    import signal

    import trio

    from meshcall.drivers.control import connect

    with trio.open_signal_receiver(signal.SIGINT) as received:
        async for _ in received:
            break
    async with connect(folders.state) as client:
        await client.request("hangup")


def _tell_program(event: str, data: Mapping[str, Any]) -> None:
    click.echo(json.dumps({"event": event, **data}, ensure_ascii=False))
    sys.stdout.flush()


def _tell_plainly(event: str, data: Mapping[str, Any]) -> None:
    line = sentence(event, data)
    if line and event != "ended":  # the summary says that
        remark(f"{data['seconds']:8.3f} s  {line}")


def sentence(event: str, data: Mapping[str, Any]) -> str:
    """What an event means, for people; empty for those that come every second."""
    match event:
        case "waiting":
            return "Waiting for a call; Ctrl-C stops."
        case "incoming":
            return f"{printable(data['address'])} calls."
        case "resolved":
            return f"Found; {data['devices']} device{'s' * (data['devices'] != 1)}."
        case "path":
            return f"Linked and sealed, {printable(data['path'])}."
        case "ringing":
            return "It rings there."
        case "answered":
            return f"Answered.  Safety words: {' '.join(data['safety_words'])}"
        case "first_voice":
            return "The first voice is here."
        case "path_changed":
            where = "no path works at present" if data["path"] is None else f"now {printable(data['path'])}"
            return f"{where[0].upper()}{where[1:]} ({printable(data['reason'])})."
        case "held":
            return "The other side has put the call on hold." if data["held"] else "The call goes on."
        case "muted":
            return f"The other side has switched its microphone {'off' if data['muted'] else 'on'}."
        case "line":
            return "The other side is heard again." if data["back"] else "Nothing is heard; waiting for the line."
        case "device":
            return printable(data["message"])
        case "ended":
            return printable(data["reason"])
    return ""


def summary(result: Mapping[str, Any]) -> list[str]:
    """The end of a call, for people."""
    lines = [printable(result["reason"])]
    if not result["answered"]:
        return lines
    stats = result["stats"]
    rows = [("talked", f"{result['talk_seconds']:.1f} s, {printable(result['path'] or 'no path')}")]
    if stats is not None:
        delay = stats["delay"]
        rows += [
            ("quality", f"{stats['quality']} (estimated MOS {stats['mos']:.2f} of 4.5)"),
            ("loss", f"{stats['loss'] * 100:.1f} % before repair, {stats['loss_after_repair'] * 100:.2f} % after"),
            (
                "delay",
                f"about {delay['total'] * 1000:.0f} ms from mouth to ear: network {delay['network'] * 1000:.0f}, "
                f"waiting {delay['waiting'] * 1000:.0f}, coding and devices {delay['fixed'] * 1000:.0f}",
            ),
            ("bit rate", f"{stats['kbit_per_second']:.0f} kbit/s on the wire, each way"),
        ]
    return lines + aligned(rows)
