"""Exact NATs in virtual time (RFC 4787): mapping x filtering, port allocation, hairpin, mapping life.

Written for the tests of paths.  Boxes nest, as home and carrier do.  Endpoints are the 6 bytes of
`core`; a scope is the number of leading bytes of a remote endpoint that a rule looks at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from meshcall.core import Endpoint

ANY, ADDRESS, EXACT = 0, 4, 6
"""Endpoint-independent; address-dependent; address- and port-dependent."""


@dataclass(frozen=True)
class NatKind:
    """One row of the laboratory's table."""

    mapping: int = ANY
    filtering: int = EXACT
    ports: str = "preserve"
    """preserve, random, sequential; same: no translation at all."""
    hairpin: bool = True
    blocked: bool = False
    """Lets no UDP through."""


KINDS = {
    "firewall": NatKind(ports="same", hairpin=False),
    "fullcone": NatKind(filtering=ANY, ports="random"),
    "restricted": NatKind(filtering=ADDRESS, ports="random"),
    "portrestricted": NatKind(ports="random"),
    "linux": NatKind(hairpin=False),
    "symmetric": NatKind(mapping=EXACT, ports="random", hairpin=False),
    "symseq": NatKind(mapping=EXACT, ports="sequential"),
    "udpblocked": NatKind(hairpin=False, blocked=True),
}


@dataclass
class Mapped:
    """An outer port in use."""

    inner: Endpoint
    port: int
    key: tuple[Endpoint, bytes]
    used: float = 0.0
    peers: dict[bytes, float] = field(default_factory=dict)


Carry = Callable[[Endpoint, Endpoint, object, bool], None]
"""Takes source, destination, data, and whether its time to live is low."""


class Box:
    """A NAT or firewall; what is inside and what is outside are calls."""

    def __init__(self, kind: NatKind, wan: bytes, rng: Random, life: float = 120.0) -> None:
        self.kind, self.wan, self.life = kind, wan, life
        self.inside: dict[bytes, Carry] = {}
        """By address: who takes what arrives there."""
        self.outside: Carry = lambda *_: None
        self._rng = rng
        self.forget()

    def forget(self) -> None:
        """As at a reboot."""
        self._by_key: dict[tuple[Endpoint, bytes], Mapped] = {}
        self._by_port: dict[int, Mapped] = {}
        self._next = self._rng.randint(20000, 50000)

    def outbound(self, now: float, source: Endpoint, dest: Endpoint, data: object, low_ttl: bool) -> None:
        """A packet from inside."""
        if dest[:4] in self.inside:
            self.inside[dest[:4]](source, dest, data, low_ttl)
            return
        if self.kind.blocked:
            return
        key = (source, bytes(dest[: self.kind.mapping]))
        mapped = self._alive(self._by_key.get(key), now)
        if mapped is None:
            mapped = self._by_key[key] = Mapped(source, self._port(source, now), key)
            self._by_port[mapped.port] = mapped
        mapped.used = mapped.peers[bytes(dest[: self.kind.filtering])] = now
        outer = source if self.kind.ports == "same" else Endpoint(self.wan + mapped.port.to_bytes(2, "big"))
        if dest[:4] != self.wan:
            self.outside(outer, dest, data, low_ttl)
        elif self.kind.hairpin:
            self.inbound(now, outer, dest, data)

    def inbound(self, now: float, source: Endpoint, dest: Endpoint, data: object) -> None:
        """A packet from outside."""
        mapped = self._alive(self._by_port.get(int.from_bytes(dest[4:], "big")), now)
        if mapped is None or self.kind.blocked:
            return
        seen = mapped.peers.get(bytes(source[: self.kind.filtering]), -1e9)
        if self.kind.filtering and now - seen > self.life:
            return
        carry = self.inside.get(bytes(mapped.inner[:4]))
        if carry is not None:  # else the device has left
            carry(source, mapped.inner, data, False)

    def size(self) -> int:
        """Mappings held."""
        return len(self._by_key)

    def _alive(self, mapped: Mapped | None, now: float) -> Mapped | None:
        if mapped is not None and now - mapped.used > self.life:
            del self._by_key[mapped.key], self._by_port[mapped.port]
            return None
        return mapped

    def _port(self, source: Endpoint, now: float) -> int:
        wanted = int.from_bytes(source[4:], "big")
        if self.kind.ports in ("preserve", "same") and self._alive(self._by_port.get(wanted), now) is None:
            return wanted
        while True:
            if self.kind.ports == "sequential":
                self._next = self._next + 1 if self._next < 65535 else 1024
                port = self._next
            else:
                port = self._rng.randint(1024, 65535)
            if self._alive(self._by_port.get(port), now) is None:
                return port
