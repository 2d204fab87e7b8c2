"""How much of what was sent came through: while a queue stands, that is what its line carries."""

from __future__ import annotations

from collections import deque
from itertools import pairwise
from typing import Final

WINDOW_SECONDS: Final = 2.0
"""Of a report's loss."""
LAG_SECONDS: Final = 0.4
"""A report that comes now speaks of packets sent so long ago and before: a queue, the wait for late ones, the ways."""
_HISTORY: Final = 32


class Delivered:
    """The rates of the last moments."""

    def __init__(self, now: float, bits_per_second: float) -> None:
        self._rates: deque[tuple[float, float]] = deque([(now, bits_per_second)], maxlen=_HISTORY)

    def rate_is(self, now: float, bits_per_second: float) -> None:
        """Packets go at this rate from now on."""
        self._rates.append((now, bits_per_second))

    def bits_per_second(self, now: float, loss: float) -> float:
        """On the wire, of what a report of `loss` that comes now speaks of."""
        end = now - LAG_SECONDS
        begin = end - WINDOW_SECONDS
        spans = pairwise([*self._rates, (end, 0.0)])
        sent = [(max(0.0, min(until, end) - max(since, begin)), rate) for (since, rate), (until, _) in spans]
        seconds = sum(span for span, _ in sent)
        mean = sum(span * rate for span, rate in sent) / seconds if seconds else self._rates[0][1]
        return mean * (1 - loss)
