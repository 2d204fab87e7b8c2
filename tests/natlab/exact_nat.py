"""A small exact NAT for IPv4 UDP and TCP packets (RFC 4787), for the kinds that the kernel cannot express.

Packets in, packets out; no input or output of its own, so it can be tested by itself.
"""

from __future__ import annotations

import random
import socket
import struct
from dataclasses import dataclass, field

UDP, TCP = 17, 6
TCP_LIFE_SECONDS = 7200.0

Address = tuple[bytes, int]


def checksum_fix(old_sum: int, old: bytes, new: bytes) -> int:
    """RFC 1624: the checksum after the 16-bit words `old` became `new`."""
    total = ~old_sum & 0xFFFF
    for (a,), (b,) in zip(struct.iter_unpack("!H", old), struct.iter_unpack("!H", new), strict=True):
        total += (~a & 0xFFFF) + b
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def rewrite(packet: bytearray, source: Address | None = None, target: Address | None = None) -> None:
    """Put an address and port in as the source or target of a UDP or TCP packet."""
    header = (packet[0] & 15) * 4
    sum_at = header + (6 if packet[9] == UDP else 16)
    for endpoint, at, port_at in ((source, 12, header), (target, 16, header + 2)):
        if endpoint is None:
            continue
        old, old_port = bytes(packet[at : at + 4]), bytes(packet[port_at : port_at + 2])
        new, new_port = endpoint[0], struct.pack("!H", endpoint[1])
        packet[at : at + 4], packet[port_at : port_at + 2] = new, new_port
        (ip_sum,) = struct.unpack_from("!H", packet, 10)
        struct.pack_into("!H", packet, 10, checksum_fix(ip_sum, old, new))
        (transport_sum,) = struct.unpack_from("!H", packet, sum_at)
        if packet[9] != UDP or transport_sum:  # UDP may carry no checksum
            fixed = checksum_fix(transport_sum, old + old_port, new + new_port)
            struct.pack_into("!H", packet, sum_at, fixed or 0xFFFF)


Key = tuple[object, ...]


@dataclass
class Mapping:
    """An outer port in use."""

    inner: Address
    port: int
    key: Key
    used: float = 0.0
    peers: dict[Key, float] = field(default_factory=dict)


class ExactNat:
    """`mapping` is eim, adm or apdm, `filtering` eif, adf or apdf, `ports` preserve, random or sequential."""

    def __init__(
        self, wan: str, mapping: str, filtering: str, ports: str, hairpin: bool = True, timeout: float = 120.0
    ) -> None:
        self.wan = socket.inet_aton(wan)
        self.mapping, self.filtering, self.ports = mapping, filtering, ports
        self.hairpin, self.timeout = hairpin, {UDP: timeout, TCP: TCP_LIFE_SECONDS}
        self.forget()

    def forget(self) -> None:
        """Forget all mappings, as at a reboot."""
        self.by_key: dict[Key, Mapping] = {}
        self.by_port: dict[tuple[int, int], Mapping] = {}
        self.next_port = random.randint(20000, 50000)

    def handle(self, packet: bytearray, now: float, from_inside: bool) -> bytearray | None:
        """The packet to send on, rewritten in place, or None.  No ICMP, no later fragments."""
        if len(packet) < 28 or packet[0] >> 4 != 4 or packet[9] not in (TCP, UDP):
            return None
        proto, header = packet[9], (packet[0] & 15) * 4
        ports = struct.unpack_from("!HH", packet, header)
        source, target = (bytes(packet[12:16]), ports[0]), (bytes(packet[16:20]), ports[1])
        if from_inside:
            source = self._outbound(proto, source, target, now)
            rewrite(packet, source=source)
            if target[0] != self.wan:
                return packet
            if not self.hairpin:
                return None
        mapping = self._alive(self.by_port.get((proto, target[1])), proto, now)
        if mapping is None or target[0] != self.wan:
            return None
        seen = mapping.peers.get(_scope(self.filtering, source), -1e9)
        if self.filtering != "eif" and now - seen > self.timeout[proto]:
            return None
        rewrite(packet, target=mapping.inner)
        return packet

    def _outbound(self, proto: int, source: Address, target: Address, now: float) -> Address:
        key = (proto, source, *_scope(self.mapping, target))
        mapping = self._alive(self.by_key.get(key), proto, now)
        if mapping is None:
            mapping = Mapping(source, self._new_port(proto, source[1], now), key)
            self.by_key[key] = self.by_port[proto, mapping.port] = mapping
        mapping.used = mapping.peers[_scope(self.filtering, target)] = now
        return self.wan, mapping.port

    def _alive(self, mapping: Mapping | None, proto: int, now: float) -> Mapping | None:
        if mapping and now - mapping.used > self.timeout[proto]:
            del self.by_key[mapping.key], self.by_port[proto, mapping.port]
            return None
        return mapping

    def _new_port(self, proto: int, wanted: int, now: float) -> int:
        def is_free(port: int) -> bool:
            return not self._alive(self.by_port.get((proto, port)), proto, now)

        if self.ports == "preserve" and is_free(wanted):
            return wanted
        while True:
            if self.ports == "sequential":
                self.next_port = self.next_port + 1 if self.next_port < 65535 else 1024
                port = self.next_port
            else:
                port = random.randint(1024, 65535)
            if is_free(port):
                return port


def _scope(dimension: str, endpoint: Address) -> Key:
    """The part of a remote endpoint that a rule looks at."""
    scopes: dict[str, Key] = {"ei": (), "ad": endpoint[:1], "ap": endpoint}
    return scopes[dimension[:2]]
