"""What all three protocols share: the gateway that is asked, what comes of a question, and when to repeat it.

Also which outside addresses are believed.  A gateway's word is only a hint where peers may try to
reach us; what cannot be true is refused here, before anybody hears of it.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from meshcall.core import Endpoint
from meshcall.endpoints import may_send

UDP = 17
"""The protocol number in PCP (IANA)."""
NEIGHBOUR_BITS = 24
"""A device that answers the UPnP search may be the gateway or in its /24."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """The default gateway of one family, and our address on the network it serves; packed, 4 or 16 bytes."""

    host: bytes
    local: bytes

    @property
    def family(self) -> int:
        """4 or 6."""
        return 4 if len(self.host) == 4 else 6

    def at(self, port: int) -> Endpoint:
        """The gateway's own endpoint."""
        return Endpoint(self.host + port.to_bytes(2, "big"))

    def is_near(self, where: Endpoint) -> bool:
        """Whether an endpoint is the gateway's or in its /24; never for IPv6."""
        return len(where) == 6 and len(self.host) == 4 and where[: NEIGHBOUR_BITS // 8] == self.host[:3]


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request: open a TCP connection to `to`, send `data`, answer with the number."""

    number: int
    to: Endpoint
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Grant:
    """The gateway forwards `outside` to us for `life` seconds from now."""

    outside: Endpoint
    life: float


@dataclass(frozen=True, slots=True)
class Denial:
    """There is no mapping by this protocol.  `reason` is a short fixed word or two."""

    reason: str
    wait: float = 0.0
    """So many seconds the gateway will not change its mind."""


@dataclass(frozen=True, slots=True)
class Deleted:
    """The gateway has confirmed that it forwards no more."""


Outcome = Grant | Denial | Deleted


@dataclass(slots=True)
class Exits:
    """Where a protocol puts what is to be sent; its mapper's driver empties it."""

    outbox: list[tuple[Endpoint, bytes]] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    counters: Counter[str] = field(default_factory=Counter)
    last_number: int = 0

    def take_number(self) -> int:
        """A number that no other request of this mapper has."""
        self.last_number += 1
        return self.last_number


class Tries:
    """When to send once more: `waits` are the seconds after each sending; after the last it is over."""

    __slots__ = ("_at", "_waits", "due")

    def __init__(self, waits: Sequence[float]) -> None:
        self._waits = tuple(waits)
        self._at = 0
        self.due: float | None = None

    def begin(self, now: float) -> None:
        """Something was sent for the first time."""
        self._at = 0
        self.due = now + self._waits[0]

    def again(self, now: float) -> bool:
        """Call at `due`: True: send again; False: nobody will answer."""
        self._at += 1
        if self._at >= len(self._waits):
            self.due = None
            return False
        self.due = now + self._waits[self._at]
        return True

    def end(self) -> None:
        """It was answered."""
        self.due = None


def is_unreachable(outside: Endpoint, family: int) -> bool:
    """Whether nobody can ever be reached at this endpoint, or no peer would try."""
    if len(outside) != (6 if family == 4 else 18) or not may_send(outside):
        return True
    ip = ipaddress.ip_address(bytes(outside[:-2]))
    if ip.is_loopback or ip.is_link_local:
        return True
    return ip.version == 6 and ip.packed[0] & 0xE0 != 0x20 and ip.packed[0] & 0xFE != 0xFC
