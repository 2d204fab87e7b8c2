"""Does UDP go anywhere in this network?  Only data and a rule; what follows from it is others' matter."""

from __future__ import annotations

WAIT_SECONDS = 1.0
"""After so long without any answer from the DHT, TCP is tried too."""


class UdpWatch:
    """Doubt begins when a node starts, when its network changes, and when nobody answers any more."""

    def __init__(self) -> None:
        self.is_barred = False
        """Nothing answered over UDP, and a gateway did over TCP."""
        self._since: float | None = None

    def begin(self, now: float) -> None:
        """The node looks for the network; a doubt that there is goes on."""
        if self._since is None and not self.is_barred:
            self._since = now

    def doubt(self, now: float) -> None:
        """Begin anew: what was known of UDP holds no longer."""
        self.is_barred = False
        self._since = now

    def look(self, now: float, heard_at: float, is_deaf: bool, has_gateway: bool) -> None:
        """Take what is known now: when the DHT last answered, whether its requests are lost, who serves over TCP."""
        if self._since is None and is_deaf:
            self._since = now
        if self._since is not None and heard_at > self._since:
            self._since = None
            self.is_barred = False
        if self.tries_tcp(now) and has_gateway:
            self.is_barred = True

    def tries_tcp(self, now: float) -> bool:
        """Whether gateways should be looked for."""
        return self._since is not None and now >= self._since + WAIT_SECONDS

    def next_wake(self, now: float) -> float | None:
        """When `look` has something new to see without anything coming in."""
        return self._since + WAIT_SECONDS if self._since is not None and now < self._since + WAIT_SECONDS else None
