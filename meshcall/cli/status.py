"""`meshcall status`: how the running node is doing, from its local API."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from meshcall.cli.output import aligned, home_option, json_option, printable, show

if TYPE_CHECKING:
    from meshcall.drivers.files import Folders

Json = dict[str, Any]

_NAT_LINES = {
    "none": "not behind a NAT",
    "endpoint-independent mapping": "behind a NAT that keeps one outside port (good for direct calls)",
    "address-dependent mapping": "behind a NAT with another outside port for each destination (calls may need a relay)",
    "unknown": "not known yet",
}

_PROTOCOLS = {"pcp": "PCP", "nat-pmp": "NAT-PMP", "upnp": "UPnP"}


@click.command()
@home_option
@json_option
@click.option("--counters", is_flag=True, help="List all counters too.")
def command(folders: Folders, as_json: bool, counters: bool) -> None:
    """Say how your node is doing."""
    import trio

    status = trio.run(_ask, folders)
    show(status, lines(status, counters=counters), as_json=as_json)


async def _ask(folders: Folders) -> Json:
    from meshcall.drivers.control import connect

    async with connect(folders.state) as client:
        return await client.request("status")


def lines(status: Json, *, counters: bool) -> list[str]:
    """The status for people."""
    network, store = status["network"], status["store"]
    rows = [("Node", f"meshcall {status['version']}, process {status['pid']}, up {duration(status['uptime_seconds'])}")]
    if status["identity"]:
        name = printable(status["identity"]["name"])
        rows.append(("Address", status["identity"]["address"] + (f"  ({name})" if name else "")))
    kind = "private" if network["private"] else "open"
    rows += [
        ("Network", f"{'joined' if network['joined'] else 'not found yet'} ({kind}{', offline' * network['offline']})"),
        *([("UDP", "barred here: relays and the DHT are reached over TCP")] if network["udp_barred"] else []),
        ("Sockets", ", ".join(network["endpoints"])),
        ("Reachable", _reachable(network)),
        ("NAT", _NAT_LINES.get(network["nat"], network["nat"])),
    ]
    for family in network["families"]:
        size = family["size_estimate"]
        parts = [
            f"seen by others as {family['outside']}" if family["outside"] else "not seen from outside yet",
            f"{family['contacts']} live nodes known, {family['heard']} more heard of",
            f"about {size} nodes in the network" if size else "size of the network not known yet",
        ]
        rows.append((f"IPv{family['family']}", "; ".join(parts)))
    rows.append(("Port mapping", _mapping(network["port_mapping"])))
    lan = network["lan"]
    listens = f"contacts are met directly (listening on {lan['joined']} interface{'s' * (lan['joined'] != 1)})"
    rows.append(("Local network", listens if lan["on"] else f"off: {lan['off_because']}"))
    rows += _record_rows(status)
    rows.append(
        ("Stored", f"{store['items']} items ({store['item_bytes']} bytes) and {store['peers']} peers of others")
    )
    found = aligned(rows)
    if counters:
        for part, values in status["counters"].items():
            found += ["", f"Counters: {part}"]
            found += aligned((f"  {name}", str(values[name])) for name in sorted(values))
    return found


def _reachable(network: Json) -> str:
    if network["reachable"] is None:
        return "not known yet"
    if network["reachable"]:
        return "yes, strangers reach this node"
    return "not unasked; this node only asks, and serves nobody (read-only)"


def _mapping(mapping: Json) -> str:
    """Which protocol, which outer endpoint, until when; or why there is none."""
    if not mapping["on"]:
        return f"off: {mapping['off_because']}"
    parts = []
    for one in mapping["families"]:
        name = f"IPv{one['family']}: "
        if one["outside"]:
            life = duration(one["ends_in_seconds"])
            text = f"{one['outside']} by {_PROTOCOLS[one['protocol']]}, for {life} unless renewed"
            if one["double_nat"]:
                text += "; your router is itself behind a NAT (double NAT), so this helps only in its outer network"
        elif one["reason"]:
            text = f"none ({one['reason']})"
            if one["next_try_in_seconds"] is not None:
                text += f", next attempt in {duration(one['next_try_in_seconds'])}"
        else:
            text = "asking the router"
        parts.append(name + text)
    return "; ".join(parts)


def _record_rows(status: Json) -> list[tuple[str, str]]:
    record = status["record"]
    if record is None:
        return [("Record", "none: this node publishes nothing")]
    if record["revoked"]:
        return [("Record", "this device is revoked: it is not published")]
    rows = []
    for number, one in enumerate(record["periods"]):
        if one["published_seconds_ago"] is None:
            text = "not published yet"
        else:
            text = f"on {one['stored']} node{'s' * (one['stored'] != 1)}, {duration(one['published_seconds_ago'])} ago"
            text += ", found again since" if one["confirmed"] else ""
            text += f", {one['devices']} device{'s' * (one['devices'] != 1)}"
        if one["next_in_seconds"] is not None:
            text += f"; next in {duration(one['next_in_seconds'])}"
        if one["failure"]:
            text += f"; last failure: {one['failure']}"
        ends = time.strftime("%H:%M", time.localtime(one["ends"]))
        rows.append(("Record" if number == 0 else "", f"period until {ends}: {text}"))
    return rows or [("Record", "waits for the network")]


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    if seconds < 129_600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86_400:.1f} days"
