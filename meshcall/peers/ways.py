"""Ways out that are more than an endpoint: with a low time to live, from an extra socket, to the local networks.

They stand in a node's outbox in the place of an endpoint and are told apart by their length, so that
the common case costs nothing.  `meshcall.relay.places` has the third kind, TCP connections.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple

from meshcall.core import ENDPOINT_V4_BYTES, ENDPOINT_V6_BYTES, Endpoint

_ENDPOINTS = (ENDPOINT_V4_BYTES, ENDPOINT_V6_BYTES)
_LOW_TTL = b"\x01"
_KEY = struct.Struct("!IH")
_LINK_MAX = 2**32 - 1
_SOCKET_SIZES = tuple(size + _KEY.size for size in _ENDPOINTS)
_LOW_SIZES = (*_ENDPOINTS, *_SOCKET_SIZES)


TO_LAN = Endpoint(b"\x04")
"""The way to all devices of the local networks."""


class SocketKey(NamedTuple):
    """An extra socket: whose it is, and its number there (1 to 65535)."""

    link: int
    number: int


@dataclass(frozen=True, slots=True)
class SocketsOver:
    """The extra sockets of a link are no longer needed, but those in `kept`."""

    link: int
    kept: tuple[int, ...]


def with_low_ttl(endpoint: Endpoint) -> Endpoint:
    """The way to an endpoint with a time to live that ends before the other side."""
    return Endpoint(endpoint + _LOW_TTL)


def by_socket(endpoint: Endpoint, key: SocketKey, *, low_ttl: bool = False) -> Endpoint:
    """The way to an endpoint from an extra socket, if so with a low time to live."""
    way = Endpoint(endpoint + _KEY.pack(key.link & _LINK_MAX, key.number))
    return with_low_ttl(way) if low_ttl else way


def take_apart(way: Endpoint) -> tuple[Endpoint, SocketKey | None, bool] | None:
    """Endpoint, extra socket (None: the main one), low time to live; None for what is no way of this file."""
    low_ttl = len(way) - len(_LOW_TTL) in _LOW_SIZES
    if low_ttl:
        way = Endpoint(way[: -len(_LOW_TTL)])
    if len(way) in _SOCKET_SIZES:
        return Endpoint(way[: -_KEY.size]), SocketKey(*_KEY.unpack(way[-_KEY.size :])), low_ttl
    return (way, None, True) if low_ttl else None
