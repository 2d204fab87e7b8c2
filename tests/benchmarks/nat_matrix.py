"""The matrix of NATs: real daemons behind every kind of access dial each other, and the times are printed.

    sudo .venv/bin/python tests/benchmarks/nat_matrix.py [--kinds public linux symmetric] [--delay 20] [--out FILE]

20 ms on each access link make a round trip of 80 ms between two homes.  Times are milliseconds from the
first packet (the record is looked up before) to the first echo, and to a direct path that carries frames.
Printed beside the anchors: ICE 520 ms, iroh 230 ms to the first byte; iroh about 400 ms to a direct path.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.natlab.lab import KINDS, Lab, missing
from tests.natlab.people import People
from tests.natlab.topologies import carriers, homes, neighbours, services

NEIGHBOURS = (("hair1", "hair2"), ("lan1", "lan2"), ("cg1", "cg2"), ("cn1", "cn2"))


def cell(said: dict[str, Any]) -> str:
    """`230 / 410 direct`: first echo and direct path in milliseconds, and the path at the end."""
    if "error" in said or not said["answered"]:
        return "failed"
    line = said["time_line"]
    first = (line["first_echo"] - line["first_packet"]) * 1000
    direct = "-" if line["direct"] is None else f"{max(0.0, line['direct'] - line['first_packet']) * 1000:.0f}"
    return f"{first:.0f} / {direct} {said['last_path'].split()[0]}"


def main() -> None:
    """Build the lab, start the daemons, dial every pair, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--delay", type=float, default=20.0, help="milliseconds, one way, on each access link")
    parser.add_argument("--count", type=int, default=80, help="echoes for each pair, 50 ms apart")
    parser.add_argument(
        "--pair", nargs=2, choices=list(KINDS), metavar="KIND", help="only from the first of these kinds to the second"
    )
    parser.add_argument("--each", type=int, default=1, help="with --pair: so many homes of each, all pairs of them")
    parser.add_argument("--neighbours", action="store_true", help="also pairs behind one NAT or carrier")
    parser.add_argument("--out", type=Path, help="write all results there, as JSON")
    options = parser.parse_args()
    if lacks := missing():
        sys.exit(f"the NAT lab {lacks}")
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder, Lab(options.delay / 1000, prefix=f"m{os.getpid()}-") as lab:
        services(lab)
        if options.pair:
            # A node sends one address a bounded number of probes a minute, so many dials need many homes.
            sides = []
            for side, kind, network in zip("ab", options.pair, ("203.0.113", "198.51.100"), strict=True):
                sides.append([f"{side}-{kind}-{n}" for n in range(options.each)])
                for n, name in enumerate(sides[-1]):
                    lab.home(name, kind, f"{network}.{120 + n}", inside=f"10.{5 + (side == 'b')}.{n}.0/24")
            hosts, pairs = [*sides[0], *sides[1]], list(itertools.product(*sides))
        else:
            homes(lab, options.kinds)
            hosts = [side + kind for kind in options.kinds for side in ("a-", "b-")]
            pairs = [("a-" + one, "b-" + two) for one in options.kinds for two in options.kinds]
        if options.neighbours:
            neighbours(lab)
            carriers(lab)
            hosts += [host for pair in NEIGHBOURS for host in pair]
            pairs += NEIGHBOURS
        people = People(lab, Path(folder))
        people.infrastructure()
        people.people(hosts)
        for one, two in pairs:
            said = results[f"{one} {two}"] = people.ping(one, two, options.count)
            print(f"{one:>15} -> {two:<15}  {cell(said)}", flush=True)
            if "error" in said:
                print(f"    {said['error']}", flush=True)
    if options.out is not None:
        options.out.write_text(json.dumps(results, indent=1) + "\n")
    firsts = [
        said["time_line"]["first_echo"] - said["time_line"]["first_packet"]
        for said in results.values()
        if said.get("answered")
    ]
    print(f"{len(firsts)} of {len(results)} pairs connected", end="")
    print(f"; first echo: median {statistics.median(firsts) * 1000:.0f} ms" if firsts else "")
    directs = sorted(
        said["time_line"]["direct"] - said["time_line"]["first_packet"]
        for said in results.values()
        if said.get("answered") and said["time_line"]["direct"] is not None
    )
    if directs:
        print(
            f"direct in {len(directs)}, median {statistics.median(directs) * 1000:.0f} ms, "
            f"{sum(each <= 4 for each in directs)} within 4 s, last after {directs[-1] * 1000:.0f} ms"
        )


if __name__ == "__main__":
    main()
