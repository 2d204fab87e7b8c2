"""What an idle node sends and gets: real daemons behind NATs, each with a relay's place, LAN group and port mapper.

    sudo .venv/bin/python tests/benchmarks/idle_traffic.py [--minutes 10] [--kinds public linux symmetric] [--out FILE]

Nobody calls.  Counted at each home's network interface, Ethernet headers taken off: keep-alives, lease renewals,
publications, table refreshes, LAN and gateway questions, and the answers that others asked for.  Printed beside the
target: less than 5 kbit/s on average.  The first minute after the start is printed apart.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.natlab.lab import KINDS, Lab, missing
from tests.natlab.people import People
from tests.natlab.topologies import homes, services

ETHERNET_BYTES = 14
TARGET_KBITS = 5.0
SETTLE_SECONDS = 60.0


def counted(lab: Lab, host: str) -> dict[str, int]:
    """Packets and bytes (IP upwards) so far, both ways, over all interfaces but the loopback."""
    said = lab.run(host, ["ip", "-s", "-j", "link", "show"], capture_output=True, text=True, check=True)
    total = dict.fromkeys(("sent packets", "sent bytes", "received packets", "received bytes"), 0)
    for link in json.loads(said.stdout):
        if "LOOPBACK" in link["flags"]:
            continue
        for way, field in (("sent", "tx"), ("received", "rx")):
            stats = link["stats64"][field]
            total[way + " packets"] += stats["packets"]
            total[way + " bytes"] += stats["bytes"] - ETHERNET_BYTES * stats["packets"]
    return total


def rates(before: dict[str, int], after: dict[str, int], seconds: float) -> dict[str, float]:
    """Kilobits a second and packets a minute, both ways."""
    return {
        **{f"{way} kbit/s": 8 * (after[f"{way} bytes"] - before[f"{way} bytes"]) / seconds / 1000 for way in WAYS},
        **{f"{way} packets/min": 60 * (after[f"{way} packets"] - before[f"{way} packets"]) / seconds for way in WAYS},
    }


WAYS = ("sent", "received")


def main() -> None:
    """Build the lab, start the daemons, leave them alone, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--out", type=Path, help="write the results there, as JSON")
    options = parser.parse_args()
    if lacks := missing():
        sys.exit(f"the NAT lab {lacks}")
    with tempfile.TemporaryDirectory() as folder, Lab(0.02, prefix=f"i{os.getpid()}-") as lab:
        services(lab)
        homes(lab, options.kinds, sides="a")
        names = ["a-" + kind for kind in options.kinds]
        people = People(lab, Path(folder))
        people.infrastructure()
        start = time.monotonic()
        fresh = {name: counted(lab, name) for name in names}
        people.people(names)
        time.sleep(max(0.0, SETTLE_SECONDS - (time.monotonic() - start)))
        settled, settled_at = {name: counted(lab, name) for name in names}, time.monotonic()
        time.sleep(60 * options.minutes)
        after, seconds = {name: counted(lab, name) for name in names}, time.monotonic() - settled_at
        results = {
            name: {
                "start": rates(fresh[name], settled[name], settled_at - start),
                "idle": rates(settled[name], after[name], seconds),
            }
            for name in names
        }
    print(
        f"{options.minutes:g} minutes after the first {SETTLE_SECONDS:.0f} s; target: sends < {TARGET_KBITS:g} kbit/s"
    )
    print("| home | first minute, sent kbit/s | idle: sent kbit/s | received kbit/s | sent packets/min |")
    print("|---|--:|--:|--:|--:|")
    for name, one in results.items():
        idle = one["idle"]
        print(
            f"| {name} | {one['start']['sent kbit/s']:.2f} | {idle['sent kbit/s']:.2f} "
            f"| {idle['received kbit/s']:.2f} | {idle['sent packets/min']:.0f} |"
        )
    if options.out:
        options.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
