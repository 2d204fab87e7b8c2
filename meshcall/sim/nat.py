"""NAT boxes as RFC 4787 describes them: a mapping behaviour times a filtering behaviour.

Both are nothing but the choice of a key: which part of the destination a mapping is made for, and
which part of a source must have been written to before it is let in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from meshcall.core import Endpoint

if TYPE_CHECKING:
    from random import Random

    from meshcall.sim.geography import Line
MAPPING_LIFE_SECONDS = 120.0
"""The least that RFC 4787 (REQ-5) allows a UDP mapping to live."""
MAPPINGS_MAX = 8192
"""A box out of room forgets its oldest mapping."""
TIDY_LEAST = 32
"""Expired entries are cleared when a table has doubled since the last time, from this size on."""
PORT_LEAST = 1024

INDEPENDENT, ADDRESS, ADDRESS_AND_PORT = 0, 4, 6
"""The leading bytes of an endpoint that make the key (RFC 4787 sections 4.1 and 5)."""


class Inside(Protocol):
    """Whom a box stands before: a host, or another box's outside endpoint."""

    endpoint: Endpoint

    def arrive(self, now: float, source: Endpoint, dest: Endpoint, data: bytes) -> None:
        """Take a datagram that was let in."""
        ...


class NatKind(NamedTuple):
    """Mapping and filtering behaviour, and which outside port a new mapping gets (RFC 4787 section 4.2)."""

    mapping: int
    filtering: int
    ports: Literal["preserved", "random", "sequential"] = "preserved"
    """preserved: the inside one where it is free, else a random one."""


NAT_KINDS = {
    "full cone": NatKind(INDEPENDENT, INDEPENDENT),
    "restricted": NatKind(INDEPENDENT, ADDRESS),
    "port restricted": NatKind(INDEPENDENT, ADDRESS_AND_PORT),
    "symmetric": NatKind(ADDRESS_AND_PORT, ADDRESS_AND_PORT),
}


class Mapping:
    """An outside port that stands for an inside endpoint."""

    __slots__ = ("expires", "host", "key", "outside", "peers", "tidy_at")

    def __init__(self, key: tuple[bytes, bytes], outside: Endpoint, host: Inside) -> None:
        self.key = key
        self.outside = outside
        self.host = host
        self.expires = 0.0
        self.peers: dict[bytes, float] | None = None
        """Those who may answer, by the filter's key, and until when; None where the mapping itself tells."""
        self.tidy_at = TIDY_LEAST


class Expiry:
    """When mappings used now expire, in whole seconds: one object for all that are used in one second.

    Many boxes share one, because a world keeps some hundred of these moments for each host.
    """

    __slots__ = ("_life", "_moment", "_second")

    def __init__(self, life: float) -> None:
        self._life = life
        self._second = -1
        self._moment = 0.0

    def of(self, now: float) -> float:
        """At least the life of a mapping from now, at most a second more."""
        if int(now) != self._second:
            self._second = int(now)
            self._moment = self._second + 1 + self._life
        return self._moment


class Nat:
    """A box with one public address, for one host or several."""

    __slots__ = (
        "_by_key", "_by_port", "_expiry", "_last_port", "_rng", "_tidy_at", "address", "hairpin", "kind", "line",
        "refused",
    )  # fmt: skip

    def __init__(
        self,
        address: bytes,
        line: Line,
        kind: NatKind,
        rng: Random,
        expiry: Expiry | None = None,
        hairpin: bool = True,
    ) -> None:
        self.address = address
        self.line = line
        self.kind = kind
        self.hairpin = hairpin
        """Whether hosts inside reach each other by the outside address (RFC 4787, REQ-9)."""
        self.refused = 0
        """Datagrams that were not let in."""
        self._expiry = expiry or Expiry(MAPPING_LIFE_SECONDS)
        self._rng = rng
        self._by_key: dict[tuple[bytes, bytes], Mapping] = {}
        self._by_port: dict[bytes, Mapping] = {}
        self._tidy_at = TIDY_LEAST
        self._last_port = rng.randrange(PORT_LEAST, 65536) if kind.ports == "sequential" else 0

    def forget(self) -> None:
        """Lose all mappings, as at a restart."""
        self._by_key.clear()
        self._by_port.clear()

    def outbound(self, now: float, host: Inside, dest: Endpoint) -> Endpoint:
        """The source address that the world sees on a datagram from `host` to `dest`."""
        mapped, filtered, _ = self.kind
        key = (host.endpoint, dest[:mapped])
        mapping = self._by_key.get(key)
        if mapping is None or mapping.expires < now:
            if mapping is not None:
                self._forget(mapping)
            mapping = self._map(now, key, host)
        mapping.expires = expires = self._expiry.of(now)
        if filtered > mapped:
            peers = mapping.peers
            if peers is None:
                peers = mapping.peers = {}
            peers[dest[:filtered]] = expires
            if len(peers) > mapping.tidy_at:
                mapping.peers = {peer: until for peer, until in peers.items() if until >= now}
                mapping.tidy_at = max(TIDY_LEAST, 2 * len(mapping.peers))
        return mapping.outside

    def arrive(self, now: float, source: Endpoint, dest: Endpoint, data: bytes) -> None:
        """Let a datagram from outside in, or not."""
        mapping = self._by_port.get(dest[4:])
        if mapping is not None and mapping.expires >= now and (self.hairpin or source[:4] != self.address):
            filtered = self.kind.filtering
            if mapping.peers is not None:
                admitted = mapping.peers.get(source[:filtered], 0.0) >= now
            else:
                admitted = source[:filtered] == mapping.key[1][:filtered]
            if admitted:
                mapping.host.arrive(now, source, dest, data)
                return
        self.refused += 1

    def _map(self, now: float, key: tuple[bytes, bytes], host: Inside) -> Mapping:
        if len(self._by_key) >= min(self._tidy_at, MAPPINGS_MAX):
            for old in [mapping for mapping in self._by_key.values() if mapping.expires < now]:
                self._forget(old)
            if len(self._by_key) >= MAPPINGS_MAX:
                self._forget(next(iter(self._by_key.values())))
            self._tidy_at = max(TIDY_LEAST, 2 * len(self._by_key))
        port = key[0][4:] if self.kind.ports == "preserved" else self._draw()
        while port in self._by_port:
            port = self._draw()
        mapping = Mapping(key, Endpoint(self.address + port), host)
        self._by_key[key] = self._by_port[port] = mapping
        return mapping

    def _draw(self) -> bytes:
        if self.kind.ports == "sequential":
            self._last_port = self._last_port + 1 if self._last_port < 65535 else PORT_LEAST
            return self._last_port.to_bytes(2, "big")
        return self._rng.randrange(PORT_LEAST, 65536).to_bytes(2, "big")

    def _forget(self, mapping: Mapping) -> None:
        del self._by_key[mapping.key]
        del self._by_port[mapping.outside[4:]]
