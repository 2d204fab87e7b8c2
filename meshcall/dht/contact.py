"""A contact: the ID and endpoint of another node, and what we know of its liveliness."""

from __future__ import annotations

from kademlia.node import Node

from meshcall.core import Endpoint, host_of, port_of


class Contact(Node):
    """The `kademlia` package's Node in slots; it keeps ID and endpoint as the bytes in which they travel.

    A table of 300 contacts takes a third of the memory that plain Nodes would.
    """

    __slots__ = ("endpoint", "failures", "id", "long_id", "rtt", "seen")

    id: bytes
    long_id: int
    endpoint: Endpoint
    rtt: float
    """Smoothed round trip in seconds; 0.0 while unknown."""
    seen: float
    """When it answered us last; 0.0: never."""
    failures: int
    """Requests without an answer since then."""

    def __init__(self, node_id: bytes, endpoint: Endpoint) -> None:
        self.id = node_id
        self.long_id = int.from_bytes(node_id, "big")
        self.endpoint = endpoint
        self.rtt = 0.0
        self.seen = 0.0
        self.failures = 0

    @property
    def ip(self) -> str:
        """Numeric address, for the base class."""
        return host_of(self.endpoint)

    @property
    def port(self) -> int:
        """Port, for the base class."""
        return port_of(self.endpoint)
