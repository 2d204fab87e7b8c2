"""Notices that the machine slept: time went on, but the monotonic clock did not.

On Linux the boot clock counts sleep and the monotonic one does not, so their difference is the
sleep.  Elsewhere the wall clock serves; there somebody who sets it looks like a sleeper too, which
costs one refresh and no more.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import trio

LOOK_EVERY_SECONDS = 1.0
SLEPT_SECONDS_MIN = 2.0
"""A shorter gap changes nothing for the mappings of a NAT."""

Clock = Callable[[], float]


def sleeping_clock() -> Clock:
    """The clock that goes on while the machine sleeps."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return lambda: time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.time


class SleepDetector:
    """Compares a clock that counts sleep with one that does not."""

    def __init__(self, counting: Clock, standing: Clock) -> None:
        self._counting = counting
        self._standing = standing
        self._offset = counting() - standing()

    def slept(self) -> float:
        """Seconds slept since the last call; 0.0 if less than SLEPT_SECONDS_MIN."""
        offset = self._counting() - self._standing()
        gap = offset - self._offset
        self._offset = offset
        return gap if gap >= SLEPT_SECONDS_MIN else 0.0


async def watch_sleep(
    on_slept: Callable[[float], None], counting: Clock | None = None, standing: Clock = time.monotonic
) -> None:
    """Call `on_slept(seconds)` within about a second after the machine woke up; runs until cancelled."""
    detector = SleepDetector(counting or sleeping_clock(), standing)
    while True:
        await trio.sleep(LOOK_EVERY_SECONDS)
        seconds = detector.slept()
        if seconds:
            on_slept(seconds)
