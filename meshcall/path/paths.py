"""A path: one way by which datagrams go to another device, as an opaque value that everybody can compare.

It is bytes, so that it can be a key and can stand in an outbox.  Only this file knows the layout:

    00 | endpoint                     straight to an endpoint, over UDP
    01 | endpoint of relay | 8 bytes  through a relay over UDP; the bytes are the id of the lease or flow
    02 | endpoint of relay | 8 bytes  through a relay over TCP
    03 | endpoint | 4 bytes           on a TCP connection with the device itself; the bytes number it
    04                                to all devices of the local networks; for the first message of a dial only

The third serves links between a device and its relay, and nothing else.
"""

from __future__ import annotations

from typing import NewType

from meshcall.core import ENDPOINT_V4_BYTES, ENDPOINT_V6_BYTES, Endpoint, show_endpoint

Path = NewType("Path", bytes)
"""One way to another device; made by `direct` and `relayed` only."""

RELAY_ID_BYTES = 8
"""Length of the id by which a relay knows a lease or a flow."""

_CONNECTION_BYTES = 4
LAN = Path(b"\x04")
"""To all devices of the local networks (docs/links.md); nothing comes by it: answers come by direct paths."""

_DIRECT, _RELAY_UDP, _RELAY_TCP, _STREAM = b"\x00", b"\x01", b"\x02", b"\x03"
_SIZES = (ENDPOINT_V4_BYTES, ENDPOINT_V6_BYTES)


def direct(where: Endpoint) -> Path:
    """The path straight to an endpoint (6 or 18 bytes)."""
    if len(where) not in _SIZES:
        raise ValueError("an endpoint has 6 or 18 bytes")
    return Path(_DIRECT + where)


def relayed(relay: Endpoint, relay_id: bytes, tcp: bool = False) -> Path:
    """The path through the relay at an endpoint; `relay_id` names the lease (caller) or the flow (holder), 8 bytes."""
    if len(relay) not in _SIZES or len(relay_id) != RELAY_ID_BYTES:
        raise ValueError("an endpoint has 6 or 18 bytes, the id of a lease or flow 8")
    return Path((_RELAY_TCP if tcp else _RELAY_UDP) + relay + relay_id)


def stream(where: Endpoint, connection: int) -> Path:
    """The path on a TCP connection to `where`; `connection` (below 2**32) is 0 for the one that we opened."""
    if len(where) not in _SIZES:
        raise ValueError("an endpoint has 6 or 18 bytes")
    return Path(_STREAM + where + connection.to_bytes(_CONNECTION_BYTES, "big"))


def endpoint_of(path: Path) -> Endpoint:
    """Where the datagrams go first: the device itself, or the relay."""
    if is_direct(path):
        return Endpoint(path[1:])
    if is_stream(path):
        return Endpoint(path[1:-_CONNECTION_BYTES])
    return Endpoint(path[1:-RELAY_ID_BYTES] if is_relayed(path) else path[1:])


def connection_of(path: Path) -> int:
    """The number of the TCP connection of a stream path."""
    return int.from_bytes(path[-_CONNECTION_BYTES:], "big")


def relay_id(path: Path) -> bytes | None:
    """The id of the lease or flow, 8 bytes; None for a direct path."""
    return path[-RELAY_ID_BYTES:] if is_relayed(path) else None


def is_relayed(path: Path) -> bool:
    """Whether a relay stands in between."""
    return path[:1] in (_RELAY_UDP, _RELAY_TCP)


def is_direct(path: Path) -> bool:
    """Whether datagrams go straight to the device, over UDP."""
    return path[:1] == _DIRECT


def is_stream(path: Path) -> bool:
    """Whether this is a TCP connection with the device itself."""
    return path[:1] == _STREAM


def is_tcp(path: Path) -> bool:
    """Whether datagrams leave by a TCP connection."""
    return path[:1] in (_RELAY_TCP, _STREAM)


def show_path(path: Path) -> str:
    """The path as people read it: `direct 192.0.2.1:6881`, `relay 192.0.2.1:443 over TCP`."""
    where = show_endpoint(endpoint_of(path))
    if is_stream(path):
        return f"TCP {where}"
    if not is_relayed(path):
        return f"direct {where}"
    return f"relay {where} over TCP" if is_tcp(path) else f"relay {where}"
