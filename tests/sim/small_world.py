"""A core that knows only ping and pong, and a world small enough to be looked through."""

from __future__ import annotations

from random import Random
from typing import Any

from meshcall.core import Endpoint
from meshcall.sim.geography import Flatland, Geography, Line
from meshcall.sim.host import Host
from meshcall.sim.nat import Nat
from meshcall.sim.network import Network
from meshcall.sim.schedule import Schedule

START = 1000.0


class PingPong:
    """Answers every ping with a pong, and pings somebody in fixed intervals."""

    def __init__(self, peer: Endpoint | None = None, every: float = 0.0, start: float = START) -> None:
        self.outbox: list[tuple[Endpoint, bytes]] = []
        self.events: list[Any] = []
        self.counters: dict[str, int] = {}
        self.heard: list[tuple[float, Endpoint, bytes]] = []
        self.woken: list[float] = []
        self._peer = peer
        self._every = every
        self._due = start + every if peer is not None else None

    def receive(self, now: float, source: Endpoint, data: bytes) -> None:
        self.heard.append((now, source, data))
        if data.startswith(b"ping"):
            self.outbox.append((source, b"pong" + data[4:]))

    def wake(self, now: float) -> None:
        self.woken.append(now)
        assert self._peer is not None
        self.outbox.append((self._peer, b"ping"))
        self._due = now + self._every

    def next_wake(self) -> float | None:
        return self._due

    def say(self, dest: Endpoint, data: bytes) -> None:
        self.outbox.append((dest, data))


class Lab:
    """A network whose hosts are put in by hand."""

    def __init__(self, seed: int = 1, geography: Geography | None = None) -> None:
        self.schedule = Schedule(START)
        self.geography = geography or Flatland(50.0, 50.0)
        self.rng = Random(seed)
        self.network = Network(self.schedule, self.geography, Random(seed + 1))
        self.events: list[tuple[float, int, Any]] = []
        self._count = 0

    def line(self) -> Line:
        return self.geography.line(self.rng)

    def host(self, core: Any, nat: Nat | None = None, endpoint: bytes | None = None) -> Host:
        self._count += 1
        own = Endpoint(endpoint or bytes([9, 9, 0, self._count]) + b"\x1a\xe1")
        host = Host(self._count, own, nat.line if nat else self.line(), nat, self.network, self.schedule, self._hear)
        if nat is None:
            self.network.doors[own] = host
        else:
            self.network.boxes[nat.address] = nat
        host.switch(core)
        host.drain(self.schedule.now)
        return host

    def _hear(self, now: float, host: Host, event: Any) -> None:
        self.events.append((now, host.number, event))
