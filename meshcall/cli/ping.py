"""`meshcall ping ADDRESS`: link to a person's device through the running node, and send it echoes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from meshcall.cli.output import home_option, json_option, printable, remark, show

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meshcall.drivers.files import Folders

Json = dict[str, Any]
EXIT_NO_ANSWER = 1

STEPS = {
    "resolved": "found",
    "first_packet": "first packet sent",
    "handshake": "linked",
    "first_echo": "first echo",
    "direct": "direct",
}
"""The steps of the time line in words."""


@click.command()
@click.argument("address")
@home_option
@json_option
@click.option("--count", default=4, show_default=True, type=click.IntRange(1, 100_000), help="Echoes to send.")
@click.option(
    "--interval", default=1.0, show_default=True, type=click.FloatRange(0.01, 3600), help="Seconds between them."
)
@click.option("--direct", is_flag=True, help="Let this person learn your IP address, for a direct path.")
@click.option("--relayed", is_flag=True, help="Use relays only, whatever the record and your contacts say.")
def command(
    address: str, folders: Folders, as_json: bool, count: int, interval: float, direct: bool, relayed: bool
) -> int:
    """Link to a device of the person with this ADDRESS and send it sealed echoes.

    Needs a running node with an identity (`meshcall up`).  A record that names an IP address is taken
    at its word, so its owner sees yours; --relayed prevents that.

    Exit code 0: answered; 1: not answered, or an error.
    """
    import trio

    from meshcall.address import parse

    parse(address)  # a typing error is told before anything is asked
    if direct and relayed:
        raise click.UsageError("--direct and --relayed exclude each other")

    async def run() -> Json:
        from meshcall.drivers.control import connect

        async with connect(folders.state) as client:
            args = {"address": address, "count": count, "interval_seconds": interval, "direct": direct}
            return await client.request("ping", {**args, "relayed": relayed}, None if as_json else _tell)

    result = trio.run(run)
    show(result, lines(result), as_json=as_json)
    return 0 if result["answered"] else EXIT_NO_ANSWER


def _tell(event: str, data: Mapping[str, Any]) -> None:
    """Say what happens while it happens."""
    if event == "step":
        where = f", {printable(data['path'])}" if "path" in data else ""
        remark(f"{data['seconds'] * 1000:7.1f} ms  {STEPS.get(data['step'], data['step'])}{where}")
    elif event == "echo":
        click.echo(f"echo {data['number'] + 1}: {data['seconds'] * 1000:.1f} ms, {printable(data['path'])}")


def lines(result: Mapping[str, Any]) -> list[str]:
    """The summary for people."""
    found = [f"{result['answered']} of {result['sent']} echoes answered"]
    trip = result["round_trip"]
    if result["answered"]:
        least, median, most = (trip[name] * 1000 for name in ("least", "median", "most"))
        found.append(f"round trip: {least:.1f} ms at least, {median:.1f} ms median, {most:.1f} ms at most")
    else:
        found.append(result["reason"])
    steps = [f"{STEPS[name]} {seconds * 1000:.0f} ms" for name, seconds in result["time_line"].items() if seconds]
    found.append("time line: " + ", ".join(steps))
    return found
