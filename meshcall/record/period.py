"""Periods: the days of an identity, each under a blinded key of its own.

A period is as long as a day and begins at a time of day that depends on the identity, so that not
everyone republishes at midnight.  Pure functions of an identity key and a calendar time in seconds.
"""

from __future__ import annotations

from hashlib import blake2b

PERIOD_SECONDS = 86_400
OVERLAP_SECONDS = 3 * 3600
"""How long before a boundary the next period is published too: for callers whose clock is fast, and to be
in place when it begins."""
LINGER_SECONDS = 2 * 3600
"""How long after a boundary the previous period is still published: for callers whose clock is slow."""
CLOCK_TOLERANCE_SECONDS = 3600
"""This near to a boundary a caller looks up the neighbouring period too: its own clock may be wrong.

Smaller than OVERLAP_SECONDS and LINGER_SECONDS, whose remainders bear the error of the publisher's clock.
"""
PERIOD_MAX = 2**63 // PERIOD_SECONDS
"""Larger than any calendar needs; keeps the number within the 8 bytes in which it is hashed."""

_SHIFT_DOMAIN = b"meshcall period 1"


def shift_of(public: bytes) -> int:
    """Seconds after a multiple of PERIOD_SECONDS at which the periods of an identity key (32 bytes) begin."""
    return int.from_bytes(blake2b(_SHIFT_DOMAIN + public).digest()[:8], "big") % PERIOD_SECONDS


def period_at(public: bytes, unix_time: float) -> int:
    """The number of the period in which a time lies; 0 for times before period 0 (a clock that was never set)."""
    return min(max(0, (int(unix_time) - shift_of(public)) // PERIOD_SECONDS), PERIOD_MAX)


def period_start(public: bytes, period: int) -> int:
    """When a period begins, in seconds of Unix time."""
    return period * PERIOD_SECONDS + shift_of(public)


def period_end(public: bytes, period: int) -> int:
    """When a period ends and the next begins, in seconds of Unix time."""
    return period_start(public, period + 1)


def periods_to_publish(public: bytes, unix_time: float) -> tuple[int, ...]:
    """The periods under which a record must be found now: the present one first, then the next or the previous."""
    return _with_neighbour(public, unix_time, OVERLAP_SECONDS, LINGER_SECONDS)


def periods_to_look_up(public: bytes, unix_time: float) -> tuple[int, ...]:
    """The periods a caller asks for: the present one first, then a neighbour that a better clock might call present."""
    return _with_neighbour(public, unix_time, CLOCK_TOLERANCE_SECONDS, CLOCK_TOLERANCE_SECONDS)


def next_change(public: bytes, unix_time: float) -> int:
    """When `periods_to_publish` gives another answer than now, in seconds of Unix time; always later than now."""
    period = period_at(public, unix_time)
    start, end = period_start(public, period), period_end(public, period)
    times = (start, start + LINGER_SECONDS, end - OVERLAP_SECONDS, end)
    return next(time for time in times if time > int(unix_time))


def _with_neighbour(public: bytes, unix_time: float, before_end: int, after_start: int) -> tuple[int, ...]:
    period = period_at(public, unix_time)
    if unix_time >= period_end(public, period) - before_end:
        return period, period + 1
    if period and period_start(public, period) <= unix_time < period_start(public, period) + after_start:
        return period, period - 1
    return (period,)
