"""What to think of an endpoint that somebody else has named, before anything is sent there.  Pure.

The DHT has judgements of its own, after BEP 42, on the way of every datagram (dht/node_id.py).
"""

from __future__ import annotations

import ipaddress

from meshcall.core import Endpoint, host_of, port_of

HTTPS_PORT = 443
"""Where networks that bar much mostly let something pass."""
PORT_LEAST = 1024

_BENCHMARK = ipaddress.ip_network("198.18.0.0/15")
_SHARED = ipaddress.ip_network("100.64.0.0/10")
_FOR_DOCUMENTS = (b"\xc0\x00\x02", b"\xc6\x33\x64", b"\xcb\x00\x71")
"""TEST-NET-1 to 3 (RFC 5737): they stand for the public internet in laboratories, ours included."""


def may_use_port(port: int) -> bool:
    """Whether we send to a port that somebody named: those below 1024 are other people's services, but 443 is
    where relays have to be."""
    return port == HTTPS_PORT or port >= PORT_LEAST


def is_private(endpoint: Endpoint) -> bool:
    """Whether an address means different devices in different networks (RFC 1918, 4193, 6598, 3927)."""
    ip = ipaddress.ip_address(host_of(endpoint))
    if isinstance(ip, ipaddress.IPv4Address):
        return (ip.is_private and ip.packed[:3] not in _FOR_DOCUMENTS) or ip in _SHARED
    return ip.is_link_local or ip.packed[0] & 0xFE == 0xFC


def is_loopback(endpoint: Endpoint) -> bool:
    """Whether an address means this machine itself."""
    return ipaddress.ip_address(host_of(endpoint)).is_loopback


def is_nonsense(endpoint: Endpoint) -> bool:
    """Whether nothing can ever be reached there: unspecified, multicast, broadcast, reserved, no port."""
    ip = ipaddress.ip_address(host_of(endpoint))
    if not port_of(endpoint) or ip.is_unspecified or ip.is_multicast:
        return True
    if isinstance(ip, ipaddress.IPv6Address):
        return ip.ipv4_mapped is not None or ip.sixtofour is not None or ip.teredo is not None
    return ip.is_reserved or ip in _BENCHMARK or not ip.packed[0]


def may_send(endpoint: Endpoint) -> bool:
    """Whether anything at all may go to an endpoint that somebody named."""
    return not is_nonsense(endpoint) and may_use_port(port_of(endpoint))
