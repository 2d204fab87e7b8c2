"""`meshcall paths`: the open links of the running node, the ways they may take, and why one is the best."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from meshcall.cli.output import home_option, json_option, printable, show
from meshcall.cli.status import duration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meshcall.drivers.files import Folders


@click.command()
@home_option
@json_option
def command(folders: Folders, as_json: bool) -> None:
    """Show the open links and the ways they take."""
    import trio

    async def run() -> dict[str, Any]:
        from meshcall.drivers.control import connect

        async with connect(folders.state) as client:
            return await client.request("paths")

    result = trio.run(run)
    show(result, lines(result), as_json=as_json)


def lines(result: Mapping[str, Any]) -> list[str]:
    """One block for each link."""
    found = []
    for link in result["links"]:
        made = "they called" if link["incoming"] else "you called"
        trust = "may learn your IP address" if link["trusted"] else "learns no IP address of yours"
        found.append(f"{link['address']}  device {link['device']}")
        found.append(f"  open for {duration(link['seconds'])}, {made}; {trust}")
        if link["reason"]:
            found.append(f"  in use: {printable(link['path'])} ({link['reason']})")
        else:
            found.append(f"  in use: {printable(link['path'])}")
        found += [f"    {_path(path)}" for path in link["paths"]]
    return found or ["no link is open"]


def _path(path: Mapping[str, Any]) -> str:
    mark = "best" if path["is_best"] else "second" if path["is_second"] else ""
    trip = path["round_trip_seconds"]
    measured = "not measured" if trip is None else f"{trip * 1000:.1f} ms, {path['loss']:.0%} lost"
    return f"{mark:<6}  {path['state']:<7}  {printable(path['path']):<40}  {measured}"
