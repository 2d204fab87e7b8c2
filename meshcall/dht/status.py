"""What a DHT node can say of itself: values for people and programs, no behaviour."""

from __future__ import annotations

from dataclasses import dataclass

from meshcall.core import Endpoint


@dataclass(frozen=True, slots=True)
class FamilyStatus:
    """One address family (4 or 6) of a DHT node."""

    family: int
    node_id: bytes
    contacts: int
    """Nodes in the table that have answered and not failed since."""
    heard: int
    """Nodes in the table that have not (yet, or any more) answered."""
    waiting: int
    """Contacts that wait for a place in a bucket."""
    size_estimate: float | None
    """Nodes in the network, as look-ups tell; None before there were enough."""
    outside: Endpoint | None
    """Where others see us, if enough of them agree."""
    mapping: str
    """"none" (not behind a NAT), "consistent", "per destination" or "unknown"."""


@dataclass(frozen=True, slots=True)
class DhtStatus:
    """A DHT node; counters by short fixed words."""

    families: tuple[FamilyStatus, ...]
    reachable: bool | None
    """Whether strangers reach us unasked; None: not known yet."""
    read_only: bool
    """Whether we answer nobody and ask to be left out of tables (BEP 43)."""
    operations: int
    requests: int
    """Requests that await an answer."""
    items: int
    item_bytes: int
    peers: int
    counters: dict[str, int]
