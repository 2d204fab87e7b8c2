"""A network that spoils datagrams the same way each time: for virtual time, and as a UDP proxy for live calls.

Everything is drawn beforehand from (scenario, seed, direction) on a grid of 5 ms: a datagram that is sent t seconds
after the link began is lost or delayed as its cell says.  Two systems that send at the same instants meet the same
fate; a duplicate within the same 5 ms shares its twin's.  As a program: a proxy between the endpoints A and B,
each of which sends all it has to its own port; addresses are learnt from the first datagram.  It stops when its
standard input is closed, then prints its statistics as JSON.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import select
import socket
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

CELL_SECONDS = 0.005
SPAN_SECONDS = 900.0
"""Of a trace; it begins again after that."""
IP_UDP_BYTES = 28
GRACE_SECONDS = 3.0
"""At the start of a live call, for set-up: nothing is lost and no rate is capped."""
_DATAGRAM_MAX = 4096
_PROXY_TURN_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Scenario:
    """What happens to datagrams in one direction.  Seconds and shares."""

    delay: float = 0.020
    """Constant, one way."""
    loss: float = 0.0
    """Random."""
    burst: tuple[float, float] | None = None
    """Mean loss and mean length in seconds: Gilbert-Elliott in continuous time."""
    gamma: tuple[float, float] | None = None
    """Mean and standard deviation of a further delay, drawn anew for every cell, so datagrams overtake each other."""
    fifo: bool = False
    """They do not overtake each other after all."""
    stall: tuple[float, float] | None = None
    """Mean seconds between stalls, longest stall: all is held for 40 to 100 % of the longest, then comes at once."""
    rate: tuple[float, float] | None = None
    """bit/s with IP and UDP headers, longest queue in seconds."""


SCENARIOS = {
    "clean": Scenario(),
    "loss5": Scenario(loss=0.05),
    "loss10": Scenario(loss=0.10),
    "loss20": Scenario(loss=0.20),
    "loss30": Scenario(loss=0.30),
    "burst60": Scenario(burst=(0.10, 0.060)),
    "burst120": Scenario(burst=(0.10, 0.120)),
    "jitter20": Scenario(gamma=(0.040, 0.020)),
    "jitter60": Scenario(gamma=(0.100, 0.060)),
    "badwifi": Scenario(loss=0.03, burst=(0.03, 0.080), gamma=(0.030, 0.040), fifo=True, stall=(3.0, 0.200)),
    "cap24": Scenario(rate=(24_000, 0.300)),
    "cap48": Scenario(rate=(48_000, 0.300)),
}


class Link:
    """One direction of a scenario."""

    def __init__(self, scenario: Scenario, seed: int, direction: int = 0, grace: float = 0.0) -> None:
        self.scenario = scenario
        self.grace = grace
        cells = int(SPAN_SECONDS / CELL_SECONDS)
        chance = [np.random.default_rng([seed, direction, k]) for k in range(4)]
        self.lost = chance[0].random(cells) < scenario.loss
        if scenario.burst is not None:
            mean, burst = scenario.burst
            good = burst * (1 - mean) / mean
            at = chance[1].exponential(good)
            while at < SPAN_SECONDS:
                length = chance[1].exponential(burst)
                # A cell is bad when its centre lies inside the burst.
                self.lost[int(at / CELL_SECONDS + 0.5) : int((at + length) / CELL_SECONDS + 0.5)] = True
                at += length + chance[1].exponential(good)
        self.extra = np.zeros(cells)
        if scenario.gamma is not None:
            mean, deviation = scenario.gamma
            self.extra = chance[2].gamma((mean / deviation) ** 2, deviation**2 / mean, cells)
        self.hold = np.zeros(cells)
        """How long a datagram of this cell is held back."""
        if scenario.stall is not None:
            every, longest = scenario.stall
            at = chance[3].exponential(every)
            while at < SPAN_SECONDS:
                length = longest * chance[3].uniform(0.4, 1)
                first, last = int(at / CELL_SECONDS), int((at + length) / CELL_SECONDS)
                last = min(last, cells)
                self.hold[first:last] = at + length - np.arange(first, last) * CELL_SECONDS
                at += length + chance[3].exponential(every)
        self.last = 0.0
        self.free = 0.0
        self.sent = self.lost_count = self.dropped = self.bytes = 0

    def fate(self, t: float, size: int = 0) -> float | None:
        """When a datagram of `size` bytes (of UDP payload) sent at `t` arrives; None: never."""
        cell = int(t / CELL_SECONDS)
        into = t - cell * CELL_SECONDS
        cell %= len(self.lost)
        self.sent += 1
        self.bytes += size
        if t >= self.grace and self.lost[cell]:
            self.lost_count += 1
            return None
        out = t + max(0.0, float(self.hold[cell]) - into)
        if self.scenario.rate is not None and t >= self.grace:
            rate, queue = self.scenario.rate
            start = max(out, self.free)
            if start - out > queue:
                self.dropped += 1
                return None
            out = self.free = start + (size + IP_UDP_BYTES) * 8 / rate
        out += self.scenario.delay + float(self.extra[cell])
        if self.scenario.fifo:
            out = self.last = max(out, self.last)
        return out


class Proxy(threading.Thread):
    """A <-> port 0 | port 1 <-> B, on loopback.  The clock starts with the first datagram."""

    def __init__(self, scenario: Scenario, seed: int = 1, grace: float = GRACE_SECONDS) -> None:
        super().__init__(daemon=True)
        self.sockets = []
        for _ in range(2):
            one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            one.bind(("127.0.0.1", 0))
            one.setblocking(False)
            self.sockets.append(one)
        self.ports = [one.getsockname()[1] for one in self.sockets]
        self.peers: list[tuple[str, int] | None] = [None, None]
        self.links = [Link(scenario, seed, direction, grace) for direction in range(2)]
        self.log: list[list[tuple[float, int, float | None]]] = [[], []]
        """(seconds, size, arrival) of every datagram, per direction."""
        self.late: list[float] = [0.0]
        self._began: float | None = None
        self._ended = False

    def stop(self) -> None:
        """End the thread."""
        self._ended = True
        self.join(2)

    def run(self) -> None:
        flying: list[tuple[float, int, int, bytes]] = []
        while not self._ended:
            wait = (
                min(_PROXY_TURN_SECONDS, max(0.0, flying[0][0] - time.monotonic())) if flying else _PROXY_TURN_SECONDS
            )
            ready, _, _ = select.select(self.sockets, [], [], wait)
            for one in ready:
                self._take(self.sockets.index(one), flying)
            now = time.monotonic()
            while flying and flying[0][0] <= now:
                due, _, side, data = heapq.heappop(flying)
                self.late.append(now - due)
                target = self.peers[1 - side]
                if target is not None:
                    self.sockets[1 - side].sendto(data, target)
        for one in self.sockets:
            one.close()

    def _take(self, side: int, flying: list[tuple[float, int, int, bytes]]) -> None:
        """All that waits at one side."""
        while True:
            try:
                data, source = self.sockets[side].recvfrom(_DATAGRAM_MAX)
            except (BlockingIOError, ConnectionRefusedError):
                return
            now = time.monotonic()
            self.peers[side] = self.peers[side] or source
            if self._began is None:
                self._began = now
            t = now - self._began
            arrival = self.links[side].fate(t, len(data))
            self.log[side].append((round(t, 4), len(data), None if arrival is None else round(arrival, 4)))
            if arrival is not None:
                heapq.heappush(flying, (self._began + arrival, len(self.log[0]) + len(self.log[1]), side, data))

    def stats(self, since: float = 5.0) -> dict[str, Any]:
        """Rates and loss per direction after `since` seconds, and how late the proxy itself was."""
        late = np.array(self.late) * 1000
        out: dict[str, Any] = {"late_ms": round(late.max(), 1), "late_p99_ms": round(float(np.quantile(late, 0.99)), 1)}
        for name, log in zip(("a_to_b", "b_to_a"), self.log, strict=True):
            late_part = [entry for entry in log if entry[0] >= since]
            span = max(1e-3, late_part[-1][0] - since) if late_part else 1.0
            payload = sum(size for _, size, _ in late_part)
            out[name] = {
                "packets": len(log),
                "kbps_payload": round(payload * 8 / span / 1000, 1),
                "kbps_wire": round((payload + IP_UDP_BYTES * len(late_part)) * 8 / span / 1000, 1),
                "lost_pct": round(100 * sum(at is None for _, _, at in late_part) / max(1, len(late_part)), 2),
            }
        return out


def main() -> None:
    """The proxy as a program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", required=True, choices=SCENARIOS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--grace", type=float, default=GRACE_SECONDS)
    parser.add_argument("--log", type=Path, help="write every datagram here, as JSON")
    options = parser.parse_args()
    proxy = Proxy(SCENARIOS[options.scenario], options.seed, options.grace)
    proxy.start()
    print(json.dumps({"pid": os.getpid(), "a_port": proxy.ports[0], "b_port": proxy.ports[1]}), flush=True)
    sys.stdin.read()
    proxy.stop()
    if options.log is not None:
        options.log.write_text(json.dumps({"a_to_b": proxy.log[0], "b_to_a": proxy.log[1]}))
    print(json.dumps(proxy.stats()))


if __name__ == "__main__":
    main()
