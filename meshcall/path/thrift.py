"""While the line of a call is, or may be, narrow: few probes, so that voice has it."""

from __future__ import annotations

NARROW_PROBES_PER_SECOND = 3.0
"""Of all paths but the best one; 2 kbit/s with their headers, and our answers to the other side's as much again."""
NARROW_PROBES_BURST = 6.0
"""Saved up: what a direct path is mostly found with; ..."""
NARROW_PROBES_KEPT = 3.0
"""... so many of them are kept for that, when paths that are only measured want some."""
HELD_SECONDS = 0.3
"""Birthday probing waits so long after our line was found wide: until the other side sees it too."""
_WHOLE = 1.0 - 1e-6
"""Times are floats: one that has come may be a hair early."""


class Thrift:
    """A token bucket that counts only while `is_on`."""

    __slots__ = ("_at", "_left", "is_call", "is_on")

    def __init__(self, now: float) -> None:
        self.is_on = False
        self.is_call = False
        """Voice uses this link: birthday probing is slow there, for a line that carries voice may carry no more."""
        self._left = NARROW_PROBES_BURST
        self._at = now

    def take(self, now: float, kept: float = 0.0) -> bool:
        """Whether a probe may be sent now, so that `kept` are left; one that is sent counts."""
        if not self.is_on:
            return True
        self._left = min(NARROW_PROBES_BURST, self._left + max(0.0, now - self._at) * NARROW_PROBES_PER_SECOND)
        self._at = now
        if self._left < _WHOLE + kept:
            return False
        self._left -= 1.0
        return True

    def next_at(self, kept: float = 0.0) -> float:
        """When `take` may say yes at the earliest; it may be long ago."""
        if not self.is_on or self._left >= _WHOLE + kept:
            return self._at
        return self._at + (1.0 + kept - self._left) / NARROW_PROBES_PER_SECOND
