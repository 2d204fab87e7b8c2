"""What all protocol cores share: the five members, and the form of a network address.

A core is a state machine without input, output, clock or entropy of its own.  The drain rule: one
mutation (`receive`, `wake` or a command), then empty `outbox` and `events` and read `next_wake`,
and only then the next mutation.  The daemon and the simulator drive the same cores this way.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import NewType, Protocol

from meshcall.errors import UsageError

Endpoint = NewType("Endpoint", bytes)
"""Address and port in network byte order, as they travel: 6 bytes for IPv4, 18 for IPv6 (BEP 5, BEP 32)."""

ENDPOINT_V4_BYTES = 6
ENDPOINT_V6_BYTES = 18


class Core(Protocol):
    """The members that every core which speaks with the network has."""

    outbox: list[tuple[Endpoint, bytes]]
    """Datagrams to send; the core appends, its driver empties."""

    @property
    def events(self) -> Sequence[object]:
        """What happened; the one above reads and empties the list."""
        ...

    def receive(self, now: float, source: Endpoint, data: bytes) -> None:
        """Take one datagram.  Never raises for what a stranger may have sent."""
        ...

    def wake(self, now: float) -> None:
        """Do what time has made due; early or late is harmless."""
        ...

    def next_wake(self) -> float | None:
        """When `wake` wants to be called, in the seconds of `now`; None: not before a datagram."""
        ...


def earliest(*times: float | None) -> float | None:
    """The first of some times to wake; None where there is none.  It is asked for after every datagram."""
    first = None
    for time in times:
        if time is not None and (first is None or time < first):
            first = time
    return first


def endpoint(host: str, port: int) -> Endpoint:
    """The endpoint of a numeric IPv4 or IPv6 address.  Raises UsageError for names and bad ports."""
    if not 0 < port < 65536:
        raise UsageError(f"{port} is not a port number (1 to 65535)")
    try:
        return Endpoint(ipaddress.ip_address(host.partition("%")[0]).packed + port.to_bytes(2, "big"))
    except ValueError:
        raise UsageError(f"{host!r} is not a numeric IP address") from None


def parse_endpoint(text: str) -> Endpoint:
    """The endpoint written `192.0.2.1:6881` or `[2001:db8::1]:6881`.  Raises UsageError."""
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or (":" in host) != host.startswith("["):
        raise UsageError(f"{text!r} is not of the form ADDRESS:PORT or [IPV6]:PORT")
    return endpoint(host.strip("[]"), int(port))


def host_of(where: Endpoint) -> str:
    """The numeric IP address of an endpoint."""
    return str(ipaddress.ip_address(where[:-2]))


def port_of(where: Endpoint) -> int:
    """The port of an endpoint."""
    return where[-2] << 8 | where[-1]


def show_endpoint(where: Endpoint) -> str:
    """The endpoint as people write it; the inverse of `parse_endpoint`."""
    host = host_of(where)
    return f"[{host}]:{port_of(where)}" if ":" in host else f"{host}:{port_of(where)}"
