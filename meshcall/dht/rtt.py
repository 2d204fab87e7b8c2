"""How long to wait for an answer: from each peer's own round trips, or from everybody's.

The waiting time is that of RFC 6298 with one change: the deviation is kept for all peers together,
since most are asked only once or twice.  It is bounded to 3 round trips of a known peer.
"""

from __future__ import annotations

START_SECONDS = 0.8
"""Wait before anything at all has been measured."""
SLOW_MIN_SECONDS = 0.05
SLOW_MAX_SECONDS = 2.0
LOST_FACTOR = 3.0
"""After so many times the slow limit a request counts as failed..."""
LOST_MIN_SECONDS = 1.0
"""...but never sooner than this, so that one busy moment writes nobody off."""


class RoundTrips:
    """The round trips of all peers together.  Times in seconds."""

    __slots__ = ("deviation", "mean", "samples")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget: we are on another network now."""
        self.mean = 0.0
        self.deviation = 0.0
        self.samples = 0

    def add(self, sample: float, known: float) -> float:
        """Count one round trip of a peer whose smoothed one was `known` (0.0: none).  Returns the new smoothed one."""
        if not self.samples:
            self.mean, self.deviation = sample, sample / 2
        else:
            # The deviation is about the mean of all, so that it serves for strangers too.
            self.deviation += (abs(sample - self.mean) - self.deviation) / 16
            self.mean += (sample - self.mean) / 16
        self.samples += 1
        return sample if not known else known + (sample - known) / 4

    def slow_after(self, known: float) -> float:
        """Seconds until another peer is asked in the place of one with this smoothed round trip (0.0: unknown)."""
        if not self.samples:
            return START_SECONDS
        spread = 4 * self.deviation
        limit = min(known + max(spread, known / 2), 3 * known) if known else self.mean + max(spread, self.mean / 2)
        return min(max(limit, SLOW_MIN_SECONDS), SLOW_MAX_SECONDS)

    def lost_after(self, slow: float) -> float:
        """Seconds after which a request with this slow limit counts as failed."""
        return max(LOST_FACTOR * slow, LOST_MIN_SECONDS)
