"""`meshcall relay status`: the places at relays of others, and how one's own relay is doing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from meshcall.cli.output import aligned, home_option, json_option, show

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meshcall.drivers.files import Folders

_WAYS = {
    "recvmmsg": "many with one call, in a thread of their own",
    "recvfrom": "one by one, in a thread of their own",
    "node": "in the node's own loop",
}


@click.group(name="relay")
def command() -> None:
    """See your places at relays, and your own relay (`meshcall up --relay`)."""


@command.command()
@home_option
@json_option
def status(folders: Folders, as_json: bool) -> None:
    """Say at which relays this device has a place, and how the relay of this node is doing."""
    import trio

    async def run() -> dict[str, Any]:
        from meshcall.drivers.control import connect

        async with connect(folders.state) as client:
            return await client.request("relay")

    result = trio.run(run)
    show(result, lines(result), as_json=as_json)


def _tcp(result: Mapping[str, Any]) -> str:
    count = result["tcp_connections"]["with_us"]
    connections = f"{count} connection{'s' * (count != 1)}"
    return "none" if result["tcp_port"] is None else f"port {result['tcp_port']}, {connections}"


def lines(result: Mapping[str, Any]) -> list[str]:
    """For people."""
    over = " over TCP, as this network bars UDP" if result["over_tcp"] else ""
    rows = [("Place at", ", ".join(lease["endpoints"]) + over) for lease in result["leases"]]
    rows = rows or [("Places", "none; no relay was found yet, or [relay] leases is 0")]
    relay = result["relay"]
    if relay is None:
        return aligned([*rows, ("Own relay", "off; `meshcall up --relay` makes this node one")])
    forwarding = relay["forwarding"]
    forwarded = relay["counters"].get("forwarded", 0) + forwarding["counters"].get("forwarded", 0)
    dropped = sum(one["dropped"] or 0 for one in forwarding["sockets"])
    reachable = {True: "yes", False: "no: nobody can use this relay", None: "not known yet"}[result["reachable"]]
    rows += [
        ("Own relay", {"open": "for everybody", "list": "for a list of people"}[relay["mode"]]),
        ("Reachable", reachable),
        ("TCP", _tcp(result)),
        ("Devices", f"{relay['leases']} have a place, {relay['member_leases']} of them of this home"),
        ("Flows", f"{relay['established']} carry packets, {relay['flows'] - relay['established']} wait for an answer"),
        ("Load", f"{relay['load']:.0%} of {relay['kbit_per_second_max']} kbit/s"),
        ("Forwarded", f"{forwarded} packets, {_WAYS[forwarding['path']]}"),
    ]
    if dropped:
        rows.append(("Lost", f"{dropped} packets came faster than this machine let the relay read them"))
    return aligned(rows)
