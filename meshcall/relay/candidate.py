"""Relays one might use, and which of them are the best: by round trip, load and spread over subnets.  Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from meshcall.core import ENDPOINT_V4_BYTES, Endpoint
from meshcall.dht.node_id import subnet_of

LOAD_PENALTY = 1.0
"""A fully loaded relay counts as so many times slower, beside its round trip."""
HOME_BONUS_SECONDS = 10.0
"""A home relay comes before every stranger's."""


@dataclass(frozen=True, slots=True)
class RelayCandidate:
    """A relay that answered a hello, or that the configuration names."""

    static: bytes
    """Its X25519 static key: 32 bytes; proven only by the handshake with it."""
    endpoint: Endpoint
    tcp_port: int | None = None
    round_trip: float = 0.1
    """Seconds."""
    load_percent: int = 0
    is_home: bool = False
    """Whether it is one's own (family, company): taken first, and not replaced by a faster one."""

    @property
    def tcp_endpoint(self) -> Endpoint | None:
        """Where it takes frames over TCP."""
        return None if self.tcp_port is None else Endpoint(self.endpoint[:-2] + self.tcp_port.to_bytes(2, "big"))

    @property
    def family(self) -> int:
        """4 or 6."""
        return 4 if len(self.endpoint) == ENDPOINT_V4_BYTES else 6

    @property
    def cost(self) -> float:
        """What is compared; the smaller, the better."""
        slowness = self.round_trip * (1.0 + LOAD_PENALTY * self.load_percent / 100)
        return slowness - (HOME_BONUS_SECONDS if self.is_home else 0.0)


def best(candidates: Iterable[RelayCandidate], taken: Iterable[RelayCandidate]) -> RelayCandidate | None:
    """The candidate to use beside those taken: in a subnet of its own if there is one, then the cheapest.

    Home relays are spread by their owner: they need no subnet of their own.
    """
    subnets = {subnet_of(each.endpoint) for each in taken}
    keys = {each.static for each in taken}
    return min(
        (each for each in candidates if each.static not in keys),
        key=lambda each: (not each.is_home and subnet_of(each.endpoint) in subnets, each.cost, each.static),
        default=None,
    )
