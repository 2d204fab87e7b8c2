"""Token buckets: how much work strangers may cause, in all and each."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

SOURCES_MAX: Final = 4096
"""Sources whose budget is kept; the longest silent ones start again with a full one."""


class Budget:
    """So many units a second, and at most `burst` saved up."""

    __slots__ = ("_at", "_burst", "_left", "_rate")

    def __init__(self, now: float, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._left = burst
        self._at = now

    def take(self, now: float, units: float = 1.0) -> bool:
        """Take units; False where there are not enough, and then nothing is taken."""
        self._left = min(self._burst, self._left + max(0.0, now - self._at) * self._rate)
        self._at = now
        if self._left < units:
            return False
        self._left -= units
        return True


class SourceBudgets:
    """One budget for each source."""

    __slots__ = ("_burst", "_rate", "_sources")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._sources: OrderedDict[bytes, Budget] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sources)

    def take(self, now: float, source: bytes) -> bool:
        """Take one unit of this source's budget."""
        budget = self._sources.get(source)
        if budget is None:
            budget = self._sources[source] = Budget(now, self._rate, self._burst)
            if len(self._sources) > SOURCES_MAX:
                self._sources.popitem(last=False)
        else:
            self._sources.move_to_end(source)
        return budget.take(now)


def source_of(path: bytes) -> bytes:
    """What stands for one sender: a direct path or TCP connection without its port (of IPv6: the first 64 bits),
    a relayed path whole.

    The form of paths is that of `path.paths`.
    """
    if path[:1] == b"\3":
        path = path[:-4]
    elif path[:1] != b"\0":
        return path
    return path[:9] if len(path) > 9 else path[:-2]
