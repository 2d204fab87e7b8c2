"""A place: where frames come from and go to, over UDP or on a TCP connection, as one comparable value.

Over UDP it is the endpoint itself (6 or 18 bytes); a TCP connection has four bytes more, the number
that its driver gave it, so that two connections of one host are two places.
"""

from __future__ import annotations

from typing import NewType

from meshcall.core import ENDPOINT_V4_BYTES, ENDPOINT_V6_BYTES, Endpoint
from meshcall.endpoints import HTTPS_PORT

Place = NewType("Place", bytes)

CONNECTION_BYTES = 4
TCP_PORT = HTTPS_PORT
"""Where a relay listens for TCP if it may."""
_TCP_SIZES = (ENDPOINT_V4_BYTES + CONNECTION_BYTES, ENDPOINT_V6_BYTES + CONNECTION_BYTES)


def udp_place(endpoint: Endpoint) -> Place:
    """The place of an endpoint that sends datagrams."""
    return Place(endpoint)


def tcp_place(endpoint: Endpoint, connection: int) -> Place:
    """The place at the other end of a TCP connection; `connection` is below 2**32."""
    return Place(endpoint + connection.to_bytes(CONNECTION_BYTES, "big"))


def connection_of_place(place: Place) -> int:
    """The number of a TCP connection; 0 where we opened it."""
    return int.from_bytes(place[-CONNECTION_BYTES:], "big")


def is_tcp_place(place: bytes) -> bool:
    """Whether this is a TCP connection."""
    return len(place) in _TCP_SIZES


def endpoint_of_place(place: Place) -> Endpoint:
    """The other side's address and port."""
    return Endpoint(place[:-CONNECTION_BYTES] if len(place) in _TCP_SIZES else place)
