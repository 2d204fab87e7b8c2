"""Virtual time: a heap of calls that are due, and the clock that jumps from one to the next.

Entries are tuples with a running number, so that two entries of one instant keep their order and
are never compared further.  A simulated second costs what happens in it and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Any

Action = Callable[[float, Any, Any, Any], None]
"""What an entry calls: with the time and the three values that were left with it."""

Entry = tuple[float, int, Action, Any, Any, Any]
"""When, which in the order of making, what to call, and with what."""


class Schedule:
    """The clock of a world, and all that is still to happen in it."""

    __slots__ = ("heap", "now", "number")

    def __init__(self, start: float) -> None:
        self.now = start
        self.number = count()
        self.heap: list[Entry] = []

    def at(self, when: float, action: Action, first: Any = None, second: Any = None, third: Any = None) -> None:
        """Call `action(when, first, second, third)` at `when`; at once, in order, where that is past."""
        heappush(self.heap, (max(when, self.now), next(self.number), action, first, second, third))

    def call(self, when: float, task: Callable[[float], None]) -> None:
        """Call `task(when)` at `when`."""
        self.at(when, _call, task)

    def run(self, until: float) -> None:
        """Let everything happen that is due up to and including `until`."""
        heap = self.heap
        while heap and heap[0][0] <= until:
            when, _, action, first, second, third = heappop(heap)
            self.now = when
            action(when, first, second, third)
        self.now = until


def _call(now: float, task: Callable[[float], None], _second: Any, _third: Any) -> None:
    task(now)
