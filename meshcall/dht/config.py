"""What the owner of a DHT node decides.  All other numbers stand as named constants where they work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class DhtConfig:
    """Settings of a DHT node; the defaults are for a node in the open Mainline."""

    k: int = 8
    """Contacts in a bucket and in an answer, and copies of an item (BEP 5)."""
    reachable: Literal["auto", "yes", "no"] = "auto"
    """Whether strangers can reach this node unasked: "auto" is read-only until there is proof (BEP 43)."""
    node_id: bytes | None = None
    """Fixed 20-byte node ID; None: random, and after BEP 42 once a public address is known."""
    split_bits: int = 4
    """How finely the routing table divides all of the ID space (see `table.SPLIT_BITS`)."""
    items_max: int = 4000
    """BEP 44 items stored for others."""
    item_bytes_max: int = 4_000_000
    """Bytes of their values."""
    items_per_subnet_max: int = 100
    """Items stored for writers of one subnet (/24, /48)."""
    peers_max: int = 20_000
    """BEP 5 announcements stored."""
    queries_per_second_source: float = 30.0
    """Queries answered per source (/32, /64), sustained; the burst is four times that."""
    queries_per_second_total: float = 2000.0
    """Queries answered in all, sustained."""
