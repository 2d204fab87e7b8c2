"""`meshcall lookup ADDRESS`: find out how a person can be reached now.

Through the running node of this home, or, where none runs, with a short-lived one that only asks.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from meshcall.cli.output import aligned, home_option, json_option, printable, remark, show
from meshcall.cli.status import duration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meshcall.drivers.files import Folders

Json = dict[str, Any]
EXIT_NOT_FOUND = 1


@click.command()
@click.argument("address")
@home_option
@json_option
@click.option("--trace", is_flag=True, help="Show who was asked, when, and what came of it.")
@click.option("--bootstrap", multiple=True, metavar="HOST:PORT", help="Ask with a short-lived node that starts here.")
@click.option("--bind", metavar="ADDRESS", help="Local IP address of that short-lived node.")
@click.option("--private", is_flag=True, help="With it: never ask the public routers.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), metavar="FILE", help="Its configuration.")
def command(
    address: str,
    folders: Folders,
    as_json: bool,
    trace: bool,
    bootstrap: tuple[str, ...],
    bind: str | None,
    private: bool,
    config_file: Path | None,
) -> int:
    """Find out how the person with this ADDRESS can be reached now.

    Exit code 0: found; 1: not found, or an error.
    """
    import trio

    from meshcall.address import parse

    parse(address)  # a typing error is told before anything is asked
    own_node = bool(bootstrap or bind or private or config_file)

    async def run() -> Json:
        if not own_node:
            from meshcall.drivers.control import NoNodeError

            try:
                return await _through_daemon(folders, address, trace, as_json)
            except NoNodeError:
                pass  # a short-lived node of our own asks instead
        return await _alone(folders, address, trace, as_json, bootstrap, bind, private, config_file)

    result = trio.run(run)
    show(result, lines(result, trace=trace), as_json=as_json)
    return 0 if result["found"] else EXIT_NOT_FOUND


async def _through_daemon(folders: Folders, address: str, trace: bool, quiet: bool) -> Json:
    from meshcall.drivers.control import connect

    async with connect(folders.state) as client:
        return await client.request("lookup", {"address": address, "trace": trace}, None if quiet else _tell)


async def _alone(
    folders: Folders,
    address: str,
    trace: bool,
    quiet: bool,
    bootstrap: tuple[str, ...],
    bind: str | None,
    private: bool,
    config_file: Path | None,
) -> Json:
    """A node for one question: it reads the saved nodes of the home and writes nothing."""
    import trio

    from meshcall import config as configuration
    from meshcall import logs
    from meshcall.cli.up import CONFIG_FILE, with_options
    from meshcall.crypto.sodium import Sodium
    from meshcall.daemon import start_points
    from meshcall.daemon.live import LiveNode

    file = config_file or folders.config / CONFIG_FILE
    config = configuration.load(file) if config_file or file.exists() else configuration.Config()
    config = with_options(config, port=0, bind=bind, bootstrap=bootstrap, private=private)
    logs.set_up("warning")
    if not quiet:
        remark("No node is running here; asking with a short-lived one.")
    saved = start_points.peek(folders.state)
    async with trio.open_nursery() as nursery:
        live = LiveNode(config, Sodium(), saved, read_only=True)
        await nursery.start(live.run)
        result = await live.lookup(address, trace=trace, event=_ignore if quiet else _tell)
        nursery.cancel_scope.cancel()
    if result["outcome"] == "no answer" and not (saved.contacts or config.dht.bootstrap):
        result["reason"] = "This machine knows no node to ask; give it one with --bootstrap HOST:PORT."
    return result


def _ignore(name: str, data: Mapping[str, Any]) -> None:
    """For programs, which read the result alone."""


def _tell(name: str, data: Mapping[str, Any]) -> None:
    what = "a record" if name == "found" else "a newer record"
    remark(f"{what} after {duration(data['seconds'])}; asking on, in case there is a newer one")


def lines(result: Json, *, trace: bool) -> list[str]:
    """The result for people."""
    from meshcall.daemon.shapes import totals

    requests, answers, hops = totals(result)
    found = []
    record = result["record"]
    if record is not None:
        devices = record["devices"]
        rows = [
            ("Address", result["address"] + (f"  ({printable(result['name'])})" if result["name"] else "")),
            ("Found", f"after {duration(result['first_seconds'])}; confirmed after {duration(result['seconds'])}"),
            ("Asked", f"{requests} questions, {answers} answers, {hops} hop{'s' * (hops != 1)}"),
            ("Devices", str(len(devices))),
        ]
        found += aligned(rows)
        for number, device in enumerate(devices, 1):
            found += [f"  device {number}: {_device(device)}"]
    if result["reason"]:
        found.append(result["reason"])
    if trace:
        found += ["", *trace_lines(result)]
    return found


def _tcp(relay: Mapping[str, Any]) -> str:
    return "" if relay["tcp_port"] is None else f" (TCP: port {relay['tcp_port']})"


def _device(device: Json) -> str:
    ways = [f"direct at {where}" for where in device["direct"]]
    ways += [f"through a relay at {', '.join(relay['endpoints'])}{_tcp(relay)}" for relay in device["relays"]]
    state = "on the network" if device["callable"] else "not heard of lately"
    where = "; ".join(ways) or "its network address is not published"
    return f"{state}, announced {duration(max(0, device['announced_seconds_ago']))} ago; {where}"


def trace_lines(result: Json) -> list[str]:
    """A table of all requests in the order in which they were sent."""
    found = []
    for one in result["lookups"]:
        report = one["report"]
        if report is None:
            found.append(f"period {one['period']}: came to no end in time")
            continue
        found.append(
            f"period {one['period']}, target {one['target']}: {report['requests']} questions, "
            f"{report['answers']} answers, {report['hops']} hop{'s' * (report['hops'] != 1)}, "
            f"{duration(report['seconds'])}"
        )
        found.append(f"  {'sent':>9}  {'round trip':>10}  {'node':<28}  {'near':>8}  outcome")
        for step in report["steps"]:
            took = step["round_trip_seconds"]
            found.append(
                f"  {step['sent_seconds'] * 1000:>6.0f} ms  {'-' if took is None else f'{took * 1000:.1f} ms':>10}  "
                f"{step['endpoint']:<28}  {step['shared_bits']:>3} bits  {step['outcome']}"
            )
    return found
