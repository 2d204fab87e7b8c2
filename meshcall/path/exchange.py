"""The candidates messages of one link: what we tell, as far as the peer is trusted, and what the peer has told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from meshcall.errors import BadPacket
from meshcall.path.candidates import Trust, tellable
from meshcall.wire.path import NO_PORTS, Candidate, Candidates, Ports, decode_candidates, encode_candidates

MESSAGES_MAX = 16
MESSAGES_WINDOW_SECONDS = 60.0
"""Messages of the peer's that are taken in so long a time."""
TELL_LEAST_SECONDS = 0.25
"""Between two of ours."""
CROSSING_ROUND_TRIPS = 1.2
"""A message of ours sent this long ago is on its way yet, and answers what the peer asks now."""


class Exchange:
    """What both sides know of each other's addresses."""

    __slots__ = (
        "_messages", "_taken", "_taken_since", "_told", "counters", "local", "peer", "peer_known", "ports", "tell_at",
        "told_at", "trust",
    )  # fmt: skip

    def __init__(
        self,
        now: float,
        messages: list[bytes],
        counters: Counter[str],
        trust: Trust,
        local: Iterable[Candidate],
        ports: Ports,
    ) -> None:
        self.trust = trust
        self.local = tuple(local)
        self.ports = ports
        self.peer = Candidates()
        self.peer_known = False
        self.told_at = -1e9
        self.tell_at: float | None = None
        """When the next message wants to be sent."""
        self.counters = counters
        self._messages = messages
        self._told: Candidates | None = None
        self._taken_since = now
        self._taken = 0

    def message(self, asks: bool = False) -> Candidates:
        """What the peer may hear now."""
        tells = self.trust.tells
        return Candidates(asks and tells, self.ports if tells else NO_PORTS, tellable(self.local, self.trust))

    def set_local(self, now: float, local: Iterable[Candidate], ports: Ports) -> None:
        """Take what is known of our own addresses, and tell it where it makes a difference to the peer."""
        before = self.message()
        self.local, self.ports = tuple(local), ports
        after = self.message()
        if before.candidates != after.candidates or before.ports.mapping is not after.ports.mapping:
            self.tell(now, asks=True)

    def tell(self, now: float, asks: bool) -> None:
        """Send our candidates, now or as soon as it is not too often."""
        message = self.message(asks)
        if not self.trust.tells and not message.candidates and self._told is None:
            return
        if now < self.told_at + TELL_LEAST_SECONDS:
            self.tell_at = self.told_at + TELL_LEAST_SECONDS
            return
        self.tell_at = None
        self._told, self.told_at = message, now
        self._messages.append(encode_candidates(message))

    def take(self, now: float, data: bytes, rtt: float) -> bool:
        """Take a message of the peer's and answer it if it asks; whether it is to be acted upon."""
        try:
            message = decode_candidates(data)
        except BadPacket as error:
            self.counters[error.reason] += 1
            return False
        if now - self._taken_since >= MESSAGES_WINDOW_SECONDS:
            self._taken_since, self._taken = now, 0
        self._taken += 1
        if self._taken > MESSAGES_MAX:
            self.counters["too many candidates messages"] += 1
            return False
        self.peer, self.peer_known = message, True
        if not self.trust.tells:
            return False
        if message.asks and now - self.told_at > CROSSING_ROUND_TRIPS * rtt:
            self.tell(now, asks=False)
        return True
