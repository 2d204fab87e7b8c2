"""The look-ups of addresses that are under way, by number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshcall.errors import UsageError
from meshcall.record.resolver import Resolver

if TYPE_CHECKING:
    from meshcall.crypto.suite import Suite
    from meshcall.record.events import ResolverEvent

LOOKUPS_MAX = 64
"""Look-ups of addresses under way at once."""


class Lookups:
    """Numbers are never used twice."""

    def __init__(self, suite: Suite) -> None:
        self._suite = suite
        self._resolvers: dict[int, Resolver] = {}
        self._last = 0

    def __len__(self) -> int:
        """How many are under way."""
        return len(self._resolvers)

    @property
    def resolvers(self) -> list[Resolver]:
        """All that are under way."""
        return list(self._resolvers.values())

    def begin(self, now: float, unix_time: float, public: bytes, *, trace: bool) -> int:
        """Look up whose address has this key.  Raises UsageError while too many are under way."""
        if len(self._resolvers) >= LOOKUPS_MAX:
            raise UsageError(f"{LOOKUPS_MAX} look-ups are under way already; wait for one of them")
        self._last += 1
        self._resolvers[self._last] = Resolver(now, unix_time, public=public, suite=self._suite, trace=trace)
        return self._last

    def end(self, number: int) -> Resolver | None:
        """Take one out; None where there is none."""
        return self._resolvers.pop(number, None)

    def said(self) -> list[tuple[int, list[ResolverEvent], bool]]:
        """What each has said since, and whether it is over."""
        found = []
        for number, resolver in self._resolvers.items():
            events, resolver.events = resolver.events, []
            found.append((number, events, resolver.finished))
        return found
