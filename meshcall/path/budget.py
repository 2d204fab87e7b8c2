"""How many packets may go to addresses that nobody has proved yet: one budget for all links of a node.

A peer that lies in its candidates names somebody else's address.  This bounds what that one gets,
whatever the number of links, messages and rounds.  docs/path.md states what it amounts to.
"""

from __future__ import annotations

from meshcall.core import Endpoint

WINDOW_SECONDS = 60.0
HOST_PACKETS_MAX = 320
"""To one address (all its ports) in a window, ordinary and guessed probes together."""
BIRTHDAY_PACKETS_MAX = 1280
"""To one address in a window, birthday probes, beside the above."""
TOTAL_PACKETS_MAX = 5120
"""To all addresses in a window."""
HOSTS_MAX = 512
"""Addresses counted one by one; while so many are counted, no other one gets a packet."""


class ProbeBudget:
    """Counts packets to unproved addresses."""

    __slots__ = ("_birthday", "_hosts", "_total", "_window", "refused")

    def __init__(self, now: float) -> None:
        self.refused = 0
        self._window = now
        self._total = 0
        self._hosts: dict[bytes, int] = {}
        self._birthday: dict[bytes, int] = {}

    def take(self, now: float, endpoint: Endpoint, *, birthday: bool = False) -> bool:
        """Whether one more packet may go there now; counts it if so."""
        if now - self._window >= WINDOW_SECONDS:
            self._window = now
            self._total = 0
            self._hosts.clear()
            self._birthday.clear()
        host = bytes(endpoint[:-2])
        counts, most = (self._birthday, BIRTHDAY_PACKETS_MAX) if birthday else (self._hosts, HOST_PACKETS_MAX)
        used = counts.get(host, 0)
        if used >= most or self._total >= TOTAL_PACKETS_MAX or (not used and len(counts) >= HOSTS_MAX):
            self.refused += 1
            return False
        counts[host] = used + 1
        self._total += 1
        return True
