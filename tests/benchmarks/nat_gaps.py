"""Gaps in a stream of 50 sealed packets a second while the network changes under it: real daemons in the NAT lab.

    sudo .venv/bin/python tests/benchmarks/nat_gaps.py [--runs 5] [--delay 20] [--out FILE]

The stream is `meshcall ping` every 20 ms.  A gap is the longest time without an answer around the change, less the
20 ms between two packets.  Printed beside the anchors: iroh 2 to 7 s, HyperDHT dies; the targets are 300 ms for a NAT
that forgets its mappings, 1 s for a host that moves, 3 s for a relay that starts again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import trio

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from meshcall.drivers.control import connect
from tests.natlab.lab import Lab, missing
from tests.natlab.people import People
from tests.natlab.topologies import services

INTERVAL = 0.02
BEFORE = 3.0
"""Seconds of stream before the change: the path is direct by then, where there is a direct one."""
AFTER = 9.0
TARGETS = {"rebind": 0.3, "move": 1.0, "relay restart": 3.0}


async def stream(people: People, who: str, whom: str, change: Callable[[], None]) -> dict[str, Any]:
    """Ping `whom` from `who`, change something in between; when answers came, and by which paths."""
    heard: list[tuple[float, str]] = []
    changed: list[float] = []
    count = int((BEFORE + AFTER) / INTERVAL)

    def happened(event: str, data: Mapping[str, Any]) -> None:
        if event == "echo":
            heard.append((time.monotonic(), str(data["path"])))
            if len(heard) * INTERVAL >= BEFORE and not changed:
                changed.append(time.monotonic())
                threading.Thread(target=change).start()

    async with connect(people.folder / who) as client:
        args = {"address": people.addresses[whom], "count": count, "interval_seconds": INTERVAL}
        result = await client.request("ping", args, happened)
    after = [(when, path) for when, path in heard if changed and when >= changed[0]]
    times = [changed[0] if changed else 0.0, *(when for when, _ in after)]
    pauses = [later - sooner for sooner, later in itertools.pairwise(times)]
    return {
        "gap": max(0.0, max(pauses, default=float("inf")) - INTERVAL),
        "sent": result["sent"],
        "answered": result["answered"],
        "reason": result["reason"],
        "before": heard[len(heard) - len(after) - 1][1] if len(heard) > len(after) else None,
        "after": heard[-1][1] if heard else None,
    }


def main() -> None:
    """Build the lab, run each change several times, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--delay", type=float, default=20.0, help="milliseconds, one way, on each access link")
    parser.add_argument("--only", choices=list(TARGETS), nargs="+", default=list(TARGETS))
    parser.add_argument("--out", type=Path, help="write all results there, as JSON")
    options = parser.parse_args()
    if lacks := missing():
        sys.exit(f"the NAT lab {lacks}")
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in options.only}
    with tempfile.TemporaryDirectory() as folder, Lab(options.delay / 1000, prefix=f"g{os.getpid()}-") as lab:
        services(lab)
        lab.router("r1", "portrestricted", "203.0.113.20", inside="10.1.0.0/24")
        lab.router("r2", "portrestricted", "198.51.100.20", inside="10.2.0.0/24")
        lab.host("m", "r1")
        lab.home("b", "portrestricted", "198.51.100.30", inside="10.3.0.0/24")
        lab.home("s1", "symmetric", "203.0.113.31", inside="10.4.0.0/24")
        lab.home("s2", "symmetric", "198.51.100.31", inside="10.5.0.0/24")
        people = People(lab, Path(folder))
        people.infrastructure()
        people.people(("m", "b", "s1", "s2"))
        at = "r1"

        def move() -> None:
            nonlocal at
            at = "r2" if at == "r1" else "r1"
            lab.move("m", at)

        for name in options.only:
            who, whom, change = {
                "rebind": ("m", "b", lambda: lab.rebind(at)),
                "move": ("m", "b", move),
                "relay restart": ("s1", "s2", lambda: people.restart("relay")),
            }[name]
            for _ in range(options.runs):
                row = trio.run(stream, people, who, whom, change)
                rows[name].append(row)
                print(
                    f"{name:>14}: gap {row['gap'] * 1000:6.0f} ms; {row['answered']} of {row['sent']} answered; "
                    f"{row['before']} -> {row['after']}{'; ' + row['reason'] if row['reason'] else ''}", flush=True,
                )  # fmt: skip
                time.sleep(3)
    if options.out is not None:
        options.out.write_text(json.dumps(rows, indent=1) + "\n")
    for name, found in rows.items():
        gaps = sorted(row["gap"] * 1000 for row in found)
        kept = gaps[-1] <= TARGETS[name] * 1000
        print(
            f"{name}: median {statistics.median(gaps):.0f} ms, most {gaps[-1]:.0f} ms of {len(gaps)}; "
            f"target {TARGETS[name] * 1000:.0f} ms {'kept' if kept else 'MISSED'}"
        )


if __name__ == "__main__":
    main()
