"""What lies between the hosts: delay, loss, duplication, reordering, clogged lines, partition.

It carries datagrams between doors: hosts with a public address, and NAT boxes.  All chance comes
from one seeded Random.  Every delivery to a living host goes into a checksum, so that two runs can
be compared bit for bit.
"""

from __future__ import annotations

import hashlib
from heapq import heappush
from math import exp
from struct import Struct
from typing import TYPE_CHECKING, Protocol

from meshcall.sim.geography import SPREAD_BITS
from meshcall.sim.scenario import Weather

if TYPE_CHECKING:
    from collections.abc import Container
    from random import Random

    from meshcall.core import Endpoint
    from meshcall.sim.geography import Geography, Line
    from meshcall.sim.host import Host
    from meshcall.sim.schedule import Schedule

DATAGRAM_BYTES_MAX = 1472
"""Longer ones do not fit into an Ethernet frame and are counted; the product never sends them."""
TRAIL_PARTS = 8192
"""Pieces of the delivery trail hashed at a time."""
_stamp = Struct("<dH6s6s").pack


class Door(Protocol):
    """Something with a public address."""

    line: Line

    def arrive(self, now: float, source: Endpoint, dest: Endpoint, data: bytes) -> None:
        """Take a datagram that was sent to `dest`."""
        ...


class Tap(Protocol):
    """Somebody who listens on the lines."""

    @property
    def mark(self) -> bytes:
        """Datagrams that contain these bytes are shown,"""
        ...

    @property
    def watched(self) -> Container[int]:
        """and all that come from hosts with these numbers."""
        ...

    def saw(self, now: float, host: Host, source: Endpoint, dest: Endpoint, door: Door | None, data: bytes) -> None:
        """A datagram is being sent by `host`, as `source`, to whatever stands behind `door`."""
        ...


class Spell:
    """A line that is well and ill in turns, both for exponential times; asked only when used.

    The state after a pause is drawn from the two-state Markov process's own law, so how often a
    line is asked does not change how it behaves.
    """

    __slots__ = ("_begins", "_ends", "_every", "_lasts")

    def __init__(self, now: float, every: float, lasts: float, rng: Random) -> None:
        self._every = every
        self._lasts = lasts
        self._begins = now + rng.expovariate(1 / every)
        self._ends = self._begins + rng.expovariate(1 / lasts)

    def until(self, now: float, rng: Random) -> float:
        """When the present spell ends; 0.0 while the line is well."""
        if now >= self._ends:
            rate_in, rate_out = 1 / self._every, 1 / self._lasts
            settled = 1 - exp(-(rate_in + rate_out) * (now - self._ends))
            if rng.random() < rate_in / (rate_in + rate_out) * settled:
                self._begins = now
            else:
                self._begins = now + rng.expovariate(rate_in)
            self._ends = round(self._begins + rng.expovariate(rate_out), 6)
        return self._ends if now >= self._begins else 0.0


class Network:
    """All lines and doors of a world."""

    def __init__(self, schedule: Schedule, geography: Geography, rng: Random) -> None:
        self.doors: dict[bytes, Door] = {}
        """Hosts with a public address, by endpoint."""
        self.boxes: dict[bytes, Door] = {}
        """NAT boxes by address (4 bytes)."""
        self.tap: Tap | None = None
        """Sees every datagram that contains its mark or comes from a host it watches, when it is sent."""
        self.sent = 0
        self.sent_bytes = 0
        self.delivered = 0
        self.counters = dict.fromkeys(
            ("lost", "lost in bursts", "split", "duplicated", "reordered", "clogged", "no such address", "too long"), 0
        )
        self._schedule = schedule
        self._heap = schedule.heap
        self._number = schedule.number
        self._spread = geography.spread
        self._rng = rng
        self._bits = rng.getrandbits
        self._weather = Weather()
        self.is_split = False
        self._rough = False
        self._trail: list[bytes] = []
        self._sum = hashlib.blake2b(digest_size=16)

    def become(self, weather: Weather) -> None:
        """Let the network be so from now on."""
        self._weather = weather
        self._look_out()

    def split(self, apart: bool) -> None:
        """Whether lines on different sides reach each other."""
        self.is_split = apart
        self._look_out()

    def _look_out(self) -> None:
        self._rough = self.is_split or self._weather != Weather()

    def send(self, now: float, host: Host, dest: Endpoint, data: bytes) -> None:
        """Carry a datagram from a host to whatever has the address `dest`, or lose it."""
        self.sent += 1
        self.sent_bytes += len(data)
        nat = host.nat
        source = host.endpoint if nat is None else nat.outbound(now, host, dest)
        door = self.doors.get(dest) or self.boxes.get(dest[:4])
        tap = self.tap
        if tap is not None and (tap.mark in data or host.number in tap.watched):
            tap.saw(now, host, source, dest, door, data)
        if door is None:
            self.counters["no such address"] += 1
            return
        near, far = host.line, door.line
        delay = (
            near.row[far.site] + near.lag + far.lag + (near.jitter + far.jitter) * self._spread[self._bits(SPREAD_BITS)]
        )
        if self._rough:
            held = self._misfortune(now, near, far)
            if held is None:
                return
            delay += held
            weather = self._weather
            if weather.duplicate and self._rng.random() < weather.duplicate:
                self.counters["duplicated"] += 1
                later = now + delay + self._rng.random() * weather.reorder_seconds
                heappush(self._heap, (later, next(self._number), door.arrive, source, dest, data))
        if len(data) > DATAGRAM_BYTES_MAX:
            self.counters["too long"] += 1
        heappush(self._heap, (now + delay, next(self._number), door.arrive, source, dest, data))

    def delay(self, near: Line, far: Line) -> float:
        """Seconds that a packet takes from line to line, this time."""
        spread = self._spread[self._bits(SPREAD_BITS)]
        return near.row[far.site] + near.lag + far.lag + (near.jitter + far.jitter) * spread

    def misfortune(self, now: float, near: Line, far: Line) -> float | None:
        """Seconds that a packet is held back beyond its delay; None where it is lost."""
        return self._misfortune(now, near, far) if self._rough else 0.0

    def _misfortune(self, now: float, near: Line, far: Line) -> float | None:
        """Seconds that a packet is held back beyond its delay; None where it is lost."""
        what, rng = self._weather, self._rng
        if self.is_split and near.side != far.side:
            self.counters["split"] += 1
            return None
        if what.loss and rng.random() < what.loss:
            self.counters["lost"] += 1
            return None
        held = 0.0
        for line in (near, far):
            if what.burst_every_seconds:
                if line.burst is None:
                    line.burst = Spell(now, what.burst_every_seconds, what.burst_seconds, rng)
                if line.burst.until(now, rng):
                    self.counters["lost in bursts"] += 1
                    return None
            if what.clog_every_seconds:
                if line.clog is None:
                    line.clog = Spell(now, what.clog_every_seconds, what.clog_seconds, rng)
                until = line.clog.until(now, rng)
                if until:
                    self.counters["clogged"] += 1
                    held = max(held, until - now)
        if what.reorder and rng.random() < what.reorder:
            self.counters["reordered"] += 1
            held += rng.random() * what.reorder_seconds
        return held

    def delivered_to_host(self, now: float, source: Endpoint, dest: Endpoint, data: bytes) -> None:
        """Count a datagram that reached a living host, and take it into the checksum."""
        self.delivered += 1
        trail = self._trail
        trail.append(_stamp(now, len(data), source, dest))
        trail.append(data)
        if len(trail) > TRAIL_PARTS:
            self._sum.update(b"".join(trail))
            trail.clear()

    def checksum(self) -> str:
        """Over all deliveries so far, in order: time, length, source, destination, bytes (BLAKE2b-128)."""
        self._sum.update(b"".join(self._trail))
        self._trail.clear()
        return self._sum.hexdigest()
