"""When each of many links wants to be woken: a heap whose outdated entries are left in it until they come up."""

from __future__ import annotations

import heapq
from collections.abc import Iterator


class Due:
    """One time for each link, at most."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int]] = []
        self._times: dict[int, float] = {}

    def set(self, link: int, when: float) -> None:
        """Wake it then, and not at any other time."""
        if self._times.get(link) != when:
            self._times[link] = when
            heapq.heappush(self._heap, (when, link))

    def forget(self, link: int) -> None:
        """Wake it no more."""
        self._times.pop(link, None)

    def pop(self, now: float) -> Iterator[int]:
        """The links whose time has come."""
        while self._heap and self._heap[0][0] <= now:
            when, link = heapq.heappop(self._heap)
            if self._times.get(link) == when:
                del self._times[link]
                yield link

    def next(self) -> float | None:
        """The next time."""
        while self._heap and self._times.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None
