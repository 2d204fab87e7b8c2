"""The queue before a path's narrowest line, over the last moments, as the receiver tells it."""

from __future__ import annotations

from collections import deque
from itertools import pairwise
from typing import Final

SLOPE_SECONDS: Final = 0.6
"""Over so long the growth of the queue is measured: the steepest rise up to the newest report; over ..."""
SLOPE_SECONDS_LEAST: Final = 0.15
"""... so long at least."""
FALLING_SECONDS: Final = 0.4
"""Over so long at least the fall of a queue is measured."""
SAME_SECONDS: Final = 0.25
"""What is told of the queue and does not differ from what was told before is noted so often."""
SUDDEN_SECONDS: Final = 0.25
"""From one report to the next, so much later at most, no line of ours drains."""
_HISTORY: Final = 64


class QueueHistory:
    """Times and lengths, both in seconds; the length is above some unknown least one."""

    def __init__(self) -> None:
        self._told: deque[tuple[float, float]] = deque(maxlen=_HISTORY)

    def add(self, now: float, before: float, queue: float) -> None:
        """What is told now; `before` is when anything was told before that."""
        if self._told and queue != self._told[-1][1] and before > self._told[-1][0]:
            self._told.append((before, self._told[-1][1]))  # until then it was the same
        if not self._told or queue != self._told[-1][1] or now - self._told[-1][0] >= SAME_SECONDS:
            self._told.append((now, queue))

    def clear(self) -> None:
        """Forget all."""
        self._told.clear()

    def longest(self) -> float:
        """The longest queue that is remembered; raises ValueError where none is."""
        return max(queue for _, queue in self._told)

    def slope(self, now: float) -> float:
        """Seconds of queue per second, over the last moments; 0 where too little was told."""
        last_at, last = self._told[-1]
        slopes = [
            (last - queue) / (last_at - at)
            for at, queue in self._told
            if now - at <= SLOPE_SECONDS and last_at - at >= SLOPE_SECONDS_LEAST
        ]
        return max(slopes, default=0.0)

    def fall(self, floor: float) -> float:
        """The fastest fall, in seconds of queue per second, of a queue that stayed above `floor`; 0 where none fell."""
        falls = [
            (before - after) / (at - since)
            for n, (since, before) in enumerate(self._told)
            for at, after in list(self._told)[n + 1 :]
            if at - since >= FALLING_SECONDS and after > floor
        ]
        return max(falls, default=0.0)

    def was_gone_at_once(self, long: float, short: float) -> bool:
        """Whether a queue of at least `long` was one of at most `short` in the next report."""
        return any(
            before >= long and after <= short and at - since <= SUDDEN_SECONDS
            for (since, before), (at, after) in pairwise(self._told)
        )
