"""The queue before a path's narrowest line, over the last moments, as the receiver tells it.

Dated when the packet that saw it was sent: a report waits in the queue on the way back, and before it that packet did
in the one that is told.  While they grow or fall, what is told comes stretched or crowded.
"""

from __future__ import annotations

from collections import deque
from itertools import pairwise
from typing import Final

SLOPE_SECONDS: Final = 0.6
"""Over so long the growth of the queue is measured: the steepest rise up to the newest report; over ..."""
SLOPE_SECONDS_LEAST: Final = 0.25
"""... so long at least: what changes in less time is taken to have taken so long."""
BEGUN_SECONDS: Final = 0.03
"""From shorter queues it is measured only where there is nothing else: where a line gets narrow, each packet takes
longer from one moment to the next, and that is no growth."""
FALLING_SECONDS: Final = 0.4
"""Over so long at least the fall of a queue is measured."""
SUDDEN_SECONDS: Final = 0.25
"""From one report to the next, so much later at most, no line of ours drains."""
_HISTORY: Final = 128


class QueueHistory:
    """Times and lengths, both in seconds; the length is above some unknown least one."""

    def __init__(self) -> None:
        self._told: deque[tuple[float, float]] = deque(maxlen=_HISTORY)

    def add(self, at: float, queue: float) -> None:
        """What a report tells that left the other side at `at`, by our clock and but for a constant."""
        sent = at - queue
        if self._told:
            sent = max(sent, self._told[-1][0])
            if len(self._told) > 1 and queue == self._told[-1][1] == self._told[-2][1]:
                self._told.pop()  # the first and the last of those that are alike will do
        self._told.append((sent, queue))

    def clear(self) -> None:
        """Forget all."""
        self._told.clear()

    def longest(self) -> float:
        """The longest queue that is remembered; 0 where none is."""
        return max((queue for _, queue in self._told), default=0.0)

    def slope(self) -> float:
        """Seconds of queue per second, over the last moments; 0 where too little was told."""
        if not self._told:
            return 0.0
        last_at, last = self._told[-1]
        slopes = [
            (queue > BEGUN_SECONDS and last_at - at >= SLOPE_SECONDS_LEAST,
             (last - queue) / max(SLOPE_SECONDS_LEAST, last_at - at))
            for at, queue in self._told
            if last_at - at <= SLOPE_SECONDS
        ]  # fmt: skip
        return max(slopes, default=(False, 0.0))[1]

    def fall(self, floor: float, since: float = float("-inf")) -> float:
        """The fastest fall, in seconds of queue per second, of a queue while it was above `floor`; 0 where none fell.

        `since`: only packets sent later, at the rate of now.  What was told up to the longest is not counted either.
        """
        told = list(self._told)
        top = max(range(len(told)), key=lambda n: (told[n][1], n), default=0)
        falling = [one for one in told[top + 1 :] if one[0] >= since]
        falls = [
            (before - after) / (at - begin)
            for n, (begin, before) in enumerate(falling)
            for at, after in falling[n + 1 :]
            if at - begin >= FALLING_SECONDS and after > floor
        ]
        return max(falls, default=0.0)

    def was_gone_at_once(self, long: float, short: float) -> bool:
        """Whether a queue of at least `long` was one of at most `short` in the next report."""
        return any(
            before >= long and after <= short and at - since <= SUDDEN_SECONDS
            for (since, before), (at, after) in pairwise(self._told)
        )
