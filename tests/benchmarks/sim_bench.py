"""Speed and size of the simulator: messages a second on one core, KiB for each node.

    python tests/benchmarks/sim_bench.py [--nodes N] [--hours H] [--profile LINES] [--heap LINES] [--json]

Everything is on: real byte encoding, addresses in many subnets, NAT, quotas, stores, checks.  A message is
one that was delivered: encoded, carried, decoded, acted upon, its host's wake-up re-armed.  The prototype
that the goal was taken from had neither storage nor NAT nor signatures.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import tracemalloc

from meshcall.sim.run import Run
from meshcall.sim.scenario import load

PROTOTYPE = 64_000
GOAL_MESSAGES = 30_000
GOAL_KIB = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", default="lookups")
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--hours", type=float, default=0.1)
    parser.add_argument("--profile", type=int, default=0, metavar="LINES", help="print where the time goes")
    parser.add_argument("--heap", type=int, default=0, metavar="LINES", help="print where the memory goes (slow)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    name, scenario = load(options.scenario)
    if options.heap:
        tracemalloc.start(1)
    run = Run(name, scenario, nodes=options.nodes, hours=options.hours)
    profiler = cProfile.Profile() if options.profile else None
    if profiler is not None:
        profiler.enable()
    result = run.go()
    if profiler is not None:
        profiler.disable()
        pstats.Stats(profiler).sort_stats("tottime").print_stats(options.profile)
    if options.heap:
        for line in tracemalloc.take_snapshot().statistics("lineno")[: options.heap]:
            print(f"{line.size / 1024 / options.nodes:7.2f} KiB/node  {line.count:>8} x  {line.traceback}")
    speed = result["speed"]
    if options.json:
        print(json.dumps({"nodes": options.nodes, **speed}))
        return
    print(f"{options.nodes} nodes, {options.hours:g} h, scenario {name}, checksum {result['checksum']}")
    rate = f"{speed['messages_per_cpu_second']:>8,}"
    print(f"messages a second and core  {rate}  goal {GOAL_MESSAGES:,}; prototype {PROTOTYPE:,}")
    print(f"  while joining             {speed['messages_per_cpu_second_joining']:>8,}")
    print(f"  after that                {speed['messages_per_cpu_second_after']:>8,}")
    print(f"KiB for each node           {speed['kib_per_node'] or 0:>8}  goal {GOAL_KIB}")


if __name__ == "__main__":
    main()
