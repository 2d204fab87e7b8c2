"""What a bad line does to datagrams: it loses them, alone or in bursts, holds them back, and lets only so many through.

The order of datagrams on a line is kept.  Chance and time are handed in; so is the rest of a datagram's way.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from meshcall.sim.geography import SPREAD_BITS, exponential
from meshcall.sim.network import Spell

if TYPE_CHECKING:
    from random import Random

    from meshcall.sim.scenario import LineKind

HEADER_BYTES = 28
"""IPv4 and UDP; lines carry them too."""
LOST = "lost on lines"
DROPPED = "dropped by lines"
_spread = cache(exponential)


class _Way:
    """One direction."""

    __slots__ = ("free_at", "last", "rate")

    def __init__(self, kbit: float) -> None:
        self.rate = kbit * 125
        """Bytes per second; 0: any."""
        self.free_at = 0.0
        self.last = 0.0


class Shape:
    """The state of one line of a kind."""

    __slots__ = ("_burst", "_down", "_kind", "_stall", "_up")

    def __init__(self, kind: LineKind) -> None:
        self._kind = kind
        self._up, self._down = _Way(kind.up_kbit), _Way(kind.down_kbit)
        self._burst: Spell | None = None
        self._stall: Spell | None = None

    def up(self, now: float, size: int, rng: Random) -> float | str:
        """Seconds that a datagram of `size` bytes takes to leave; LOST, or DROPPED from a queue, where it does not."""
        return self._pass(now, self._up, size, rng)

    def down(self, now: float, size: int, rng: Random) -> float | str:
        """The same for one that comes in."""
        return self._pass(now, self._down, size, rng)

    def _pass(self, now: float, way: _Way, size: int, rng: Random) -> float | str:
        kind = self._kind
        if kind.loss and rng.random() < kind.loss:
            return LOST
        if kind.burst_every_seconds:
            if self._burst is None:
                self._burst = Spell(now, kind.burst_every_seconds, kind.burst_seconds, rng)
            if self._burst.until(now, rng) and rng.random() < kind.burst_loss:
                return LOST
        ready = now
        if kind.stall_every_seconds:
            if self._stall is None:
                self._stall = Spell(now, kind.stall_every_seconds, kind.stall_seconds, rng)
            ready = max(ready, self._stall.until(now, rng))
        if way.rate:
            begins = max(ready, way.free_at)
            if begins - ready > kind.queue_ms / 1000:
                return DROPPED
            ready = way.free_at = begins + (size + HEADER_BYTES) / way.rate
        if kind.jitter_ms:
            ready += kind.jitter_ms / 1000 * _spread()[rng.getrandbits(SPREAD_BITS)]
        way.last = ready = max(ready, way.last)
        return ready - now
