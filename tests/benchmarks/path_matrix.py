"""Times of the path layer in virtual time: every kind of access against every other, and what a call survives.

    .venv/bin/python tests/benchmarks/path_matrix.py [--seeds N] [--rtt MS]

Real probers, exact NATs, a relay, and no sockets: figures are those of the protocol, to which a real
machine adds its own.  Round trip between homes as given (80 ms), relay a little off the way.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from meshcall.core import endpoint
from meshcall.path.paths import endpoint_of
from tests.path import nat_world
from tests.path.nat_box import KINDS
from tests.path.nat_world import ALL_KINDS, Device, World, box, pair

WITHIN_SECONDS = 6.0
SHORT = {"portrestricted": "portrestr", "restricted": "restrict", "udpblocked": "udpblock"}
HARD_PAIRS = (
    ("symmetric", "portrestricted"),
    ("linux", "symmetric"),
    ("cgnat-sym", "cgnat"),
    ("symseq", "linux"),
    ("portrestricted", "symseq"),
)
CALL_PAIRS = (("portrestricted", "public"), ("portrestricted", "linux"), ("linux", "cgnat"), ("symseq", "restricted"))


def until_direct(kind_a: str, kind_b: str, seed: int) -> tuple[float | None, int]:
    """Milliseconds from the dial until both send directly, None: relayed; and what both sent."""
    world, a, b = pair(kind_a, kind_b, seed)
    start = world.now
    world.run(start + WITHIN_SECONDS)
    assert a.prober is not None and b.prober is not None, "not even connected"
    times = a.direct_at(), b.direct_at()
    direct = None if times[0] is None or times[1] is None else (max(times[0], times[1]) - start) * 1000
    return direct, a.prober.counters["probes"] + b.prober.counters["probes"]


def matrix(seeds: int) -> None:
    """Median time to direct of each pair, dialling side at the left."""
    print("\nDial to direct, ms, median; `relay`: stays relayed\n")
    print("| | " + " | ".join(SHORT.get(kind, kind) for kind in ALL_KINDS) + " |")
    print("|---|" + "--:|" * len(ALL_KINDS))
    for kind_a in ALL_KINDS:
        row = []
        for kind_b in ALL_KINDS:
            times = [until_direct(kind_a, kind_b, seed)[0] for seed in range(seeds)]
            found = [each for each in times if each is not None]
            row.append(f"{statistics.median(found):.0f}" if len(found) * 2 > len(times) else "relay")
        print(f"| {SHORT.get(kind_a, kind_a)} | " + " | ".join(row) + " |")


def hard(seeds: int) -> None:
    """Spread of the pairs that take luck or foresight."""
    print("\n| hard pairs | direct | median ms | p90 | p95 | probes sent, both, median |")
    print("|---|--:|--:|--:|--:|--:|")
    for kind_a, kind_b in HARD_PAIRS:
        results = [until_direct(kind_a, kind_b, seed) for seed in range(10 * seeds)]
        times = sorted(each if each is not None else float("inf") for each, _ in results)
        share = sum(each < 4000 for each in times) / len(times)
        at = [f"{times[min(int(len(times) * q), len(times) - 1)]:.0f}" for q in (0.5, 0.9, 0.95)]
        probes = statistics.median(count for _, count in results)
        print(f"| {kind_a} x {kind_b} | {share:.0%} in 4 s | {' | '.join(at)} | {probes:.0f} |")


def call(kind_a: str, kind_b: str, seed: int) -> tuple[World, Device, Device]:
    """A call that has run for three seconds."""
    world, a, b = pair(kind_a, kind_b, seed)
    world.run(world.now + 4)
    for device in (a, b):
        device.talk(world.now + 20)
    world.run(world.now + 3)
    return world, a, b


def gaps(seeds: int) -> None:
    """The longest gap, of both directions, in a stream of 50 frames a second."""
    print(
        "\n| gap in a call, ms, worst | dialler's NAT rebinds | callee's NAT rebinds | moves | path dies | sent twice |"
    )
    print("|---|--:|--:|--:|--:|--:|")
    for kind_a, kind_b in CALL_PAIRS:
        worst = [0.0, 0.0, 0.0, 0.0]
        twice = 0
        for seed in range(seeds):
            for n in range(4):
                world, a, b = call(kind_a, kind_b, seed)
                start = world.now
                mover = b if n == 1 else a
                if n < 2 and mover.box is not None:
                    mover.box.forget()
                elif n == 2:
                    a.move("10.9.0.10", box(world, KINDS["linux"], endpoint("192.0.2.77", 1)[:4]))
                elif n == 3:
                    assert a.prober is not None and a.prober.best is not None
                    assert b.prober is not None and b.prober.best is not None
                    outer = [bytes(endpoint_of(best)[:4]) for best in (b.prober.best, a.prober.best)]
                    world.dead |= {(outer[0], outer[1]), (outer[1], outer[0])}
                world.run(start + 5)
                worst[n] = max(worst[n], a.gap(start - 0.1), b.gap(start - 0.1))
                numbers = [number for when, number in b.voice if when >= start]
                twice = max(twice, len(numbers) - len(set(numbers)))
        print(f"| {kind_a} x {kind_b} | " + " | ".join(f"{each * 1000:.0f}" for each in worst) + f" | {twice} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rtt", type=float, default=80.0, help="between two homes, ms")
    arguments = parser.parse_args()
    nat_world.ACCESS_SECONDS = arguments.rtt / 4000
    begin = time.perf_counter()
    print(f"virtual time, {arguments.rtt:.0f} ms between homes, {arguments.seeds} seeds")
    matrix(arguments.seeds)
    hard(arguments.seeds)
    gaps(arguments.seeds)
    print(f"\ntook {time.perf_counter() - begin:.1f} s")


if __name__ == "__main__":
    main()
