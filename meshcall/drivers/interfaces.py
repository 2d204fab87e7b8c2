"""Notices that the machine's addresses changed: another network, a cable, a phone's hotspot.

Polls, because that works everywhere and costs a millisecond every two seconds.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass

import trio

from meshcall.core import Endpoint, endpoint
from meshcall.errors import UsageError

LOOK_EVERY_SECONDS = 2.0
ADDRESSES_MAX = 64
INNER_INTERFACES = ("docker", "veth", "br-", "virbr", "vnet", "cni", "lo")
"""Names (beginnings) of interfaces that lead nowhere but into this machine; containers come and go on them."""

LOOPBACK = frozenset({"127.0.0.1", "::1"})

Addresses = frozenset[str]


def read_addresses() -> Addresses:
    """The numeric addresses of all interfaces, loopback and link-local ones left out."""
    import ifaddr  # pays only where a daemon runs

    found: set[str] = set()
    for adapter in ifaddr.get_adapters():
        if str(adapter.name).startswith(INNER_INTERFACES):
            continue
        for ip in adapter.ips:
            text = ip.ip[0] if isinstance(ip.ip, tuple) else ip.ip
            if not text.startswith(("127.", "169.254.", "fe80:")) and text != "::1" and len(found) < ADDRESSES_MAX:
                found.add(text)
    return frozenset(found)


@dataclass(frozen=True, slots=True)
class LocalNetwork:
    """A network with neighbours, and where we are in it."""

    interface: int
    """The system's number."""
    address: bytes
    """Ours, packed: 4 or 16 bytes."""
    prefix_bits: int

    @property
    def family(self) -> int:
        """4 or 6."""
        return 4 if len(self.address) == 4 else 6

    @property
    def network(self) -> int:
        """The bits that all its addresses share."""
        return int.from_bytes(self.address, "big") >> 8 * len(self.address) - self.prefix_bits

    def holds(self, host: bytes) -> bool:
        """Whether a packed address is of this network."""
        shift = 8 * len(host) - self.prefix_bits
        return len(host) == len(self.address) and int.from_bytes(host, "big") >> shift == self.network


def read_networks() -> tuple[LocalNetwork, ...]:
    """The networks with neighbours: all addresses but loopback, link-local ones, and those that stand alone (/32)."""
    import ifaddr

    found: list[LocalNetwork] = []
    for adapter in ifaddr.get_adapters():
        if str(adapter.name).startswith(INNER_INTERFACES) or adapter.index is None:
            continue
        for ip in adapter.ips:
            address = ipaddress.ip_address(ip.ip[0] if isinstance(ip.ip, tuple) else ip.ip)
            is_alone = ip.network_prefix >= address.max_prefixlen - 1
            if not (address.is_loopback or address.is_link_local or is_alone) and len(found) < ADDRESSES_MAX:
                found.append(LocalNetwork(adapter.index, address.packed, ip.network_prefix))
    return tuple(found)


def local_endpoints(bound: list[Endpoint], addresses: Addresses) -> list[Endpoint]:
    """Under which endpoints the sockets are known on this machine: a wildcard stands for all addresses."""
    found: list[Endpoint] = []
    addresses |= LOOPBACK  # whoever sees us there is on this machine, with no NAT between
    for where in bound:
        if any(where[:-2]):
            found.append(where)
            continue
        port = where[-2] << 8 | where[-1]
        for text in sorted(addresses):
            try:
                one = endpoint(text, port)
            except UsageError:  # an address form of an exotic interface
                continue
            if len(one) == len(where):
                found.append(one)
    return found


async def watch_addresses(
    on_change: Callable[[Addresses], None], read: Callable[[], Addresses] = read_addresses
) -> None:
    """Call `on_change(addresses)` when they are others than before; runs until cancelled."""
    before = read()
    while True:
        await trio.sleep(LOOK_EVERY_SECONDS)
        current = read()
        if current != before:
            before = current
            on_change(current)
