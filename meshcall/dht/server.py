"""The answering side of a DHT node: from a query to the bytes of its answer, and what it stores for others.

Decides nothing about contacts and sends nothing by itself.  A stranger's query costs at most one
signature check, and only after everything cheaper (size, salt, token, seq, cas) has passed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meshcall.core import Endpoint
from meshcall.crypto.suite import PUBLIC_BYTES, SIGNATURE_BYTES, Verifier
from meshcall.dht.config import DhtConfig
from meshcall.dht.item_store import ItemStore
from meshcall.dht.items import (
    SALT_BYTES_MAX,
    SEQ_MAX,
    VALUE_BYTES_MAX,
    ImmutableItem,
    Item,
    MutableItem,
    signing_buffer,
)
from meshcall.dht.limits import AMPLIFICATION_FACTOR, AmplificationBudget, Proven, RateLimiter
from meshcall.dht.node_id import is_global, source_of, subnet_of
from meshcall.dht.peer_store import PeerStore
from meshcall.dht.table import Table
from meshcall.dht.tokens import Tokens
from meshcall.wire import krpc
from meshcall.wire.bencode import decode, encode

if TYPE_CHECKING:
    from random import Random

BURST_FACTOR = 4
"""Burst of a rate limit, in seconds of its rate."""
SOURCES_MAX = 4096
"""Sources whose rate is watched at once."""
PEERS_PER_ANSWER_MAX = 32
PRIVATE_RATE_FACTOR = 20
"""A private network (a laboratory, a demonstration, a company) may ask so many times as much per source."""


class Refused(Exception):  # noqa: N818 - a refusal is an answer, not a fault of ours
    """The query gets a KRPC error with this code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Server:
    """Answers queries out of tables and stores; `tables` is shared with its owner, by family (4, 6)."""

    def __init__(
        self, now: float, *, rng: Random, verifier: Verifier, config: DhtConfig, tables: dict[int, Table]
    ) -> None:
        own_id = next(iter(tables.values())).node.id
        self.counters: dict[str, int] = {}
        self.items = ItemStore(own_id, config.items_max, config.item_bytes_max, config.items_per_subnet_max)
        self.peers = PeerStore(config.peers_max)
        self.tokens = Tokens(now, rng)
        self.proven = Proven()
        self._rng = rng
        self._verifier = verifier
        self._k = config.k
        self._tables = tables
        self._budget = AmplificationBudget()
        rate, total = config.queries_per_second_source, config.queries_per_second_total
        self._limiters = {
            public: RateLimiter(each, each * BURST_FACTOR, SOURCES_MAX, total, total * BURST_FACTOR)
            for public, each in ((True, rate), (False, rate * PRIVATE_RATE_FACTOR))
        }
        self._methods = {
            b"ping": self._ping,
            b"find_node": self._find_node,
            b"get_peers": self._get_peers,
            b"announce_peer": self._announce_peer,
            b"get": self._get,
            b"put": self._put,
        }

    def admit(self, now: float, source: Endpoint) -> bool:
        """Whether this source and all together are within their rates; asked once per query."""
        limiter = self._limiters[is_global(source[:-2])]
        if limiter.allow(now, source_of(source), proven=self.proven.has(now, source)):
            return True
        self.count("rate limited")
        return False

    def answer(self, now: float, source: Endpoint, transaction: bytes, message: dict[bytes, Any], size: int) -> bytes:
        """The answer to a parsed query of `size` bytes; empty where there is none."""
        arguments = message[b"a"]
        family = 4 if len(source) == 6 else 6
        handler = self._methods.get(message[b"q"])
        try:
            if handler is not None:
                values = handler(now, source, arguments)
            elif type(arguments.get(b"target")) is bytes or type(arguments.get(b"info_hash")) is bytes:
                # As libtorrent does for methods to come: whoever names a target gets contacts near it.
                values = self._near(self._target(arguments, b"target", b"info_hash"), family, arguments)
            else:
                raise Refused(krpc.METHOD_UNKNOWN)
        except Refused as refusal:
            self.count(f"refused: {refusal.code}")
            return krpc.error(transaction, refusal.code, source)
        values[b"id"] = self._tables[family].node.id
        data = krpc.reply(transaction, values, source)
        if len(data) > AMPLIFICATION_FACTOR * size and not self.proven.has(now, source):
            data = self._affordable(now, source, transaction, values, data, AMPLIFICATION_FACTOR * size)
        return data

    def _affordable(
        self, now: float, source: Endpoint, transaction: bytes, values: dict[bytes, Any], data: bytes, limit: int
    ) -> bytes:
        """An answer for an address that may be forged: whole within the budget, else cut down to `limit` bytes."""
        if self._budget.allow(now, subnet_of(source), len(data)):
            return data
        self.count("cut: budget for unproven addresses")
        for key in (b"v", b"k", b"sig", b"values", b"nodes6"):
            values.pop(key, None)
        nodes = values.get(b"nodes", b"")
        data = krpc.reply(transaction, values, source)
        while len(data) > limit and nodes:
            nodes = nodes[: -krpc.NODE_V4_BYTES]
            values[b"nodes"] = nodes
            data = krpc.reply(transaction, values, source)
        return data if len(data) <= limit else b""

    def count(self, what: str) -> None:
        """Count something by a short fixed word."""
        self.counters[what] = self.counters.get(what, 0) + 1

    def _target(self, arguments: dict[bytes, Any], *names: bytes) -> bytes:
        for name in names:
            target = arguments.get(name)
            if type(target) is bytes and len(target) == krpc.ID_BYTES:
                return target
        raise Refused(krpc.PROTOCOL_ERROR)

    def _near(self, target: bytes, family: int, arguments: dict[bytes, Any]) -> dict[bytes, Any]:
        """The k nearest live contacts, in the families that were asked for (BEP 32 `want`)."""
        values: dict[bytes, Any] = {}
        families = [family]
        want = arguments.get(b"want")
        if type(want) is list:
            families = [f for f in (4, 6) if (b"n%d" % f) in want] or families
        number = int.from_bytes(target, "big")
        for wanted in families:
            table = self._tables.get(wanted)
            if table is not None:
                near = table.nearest(number, self._k, live=True)
                key = b"nodes" if wanted == 4 else b"nodes6"
                values[key] = b"".join([part for contact in near for part in (contact.id, contact.endpoint)])
        return values

    def _ping(self, now: float, source: Endpoint, arguments: dict[bytes, Any]) -> dict[bytes, Any]:
        return {}

    def _find_node(self, now: float, source: Endpoint, arguments: dict[bytes, Any]) -> dict[bytes, Any]:
        return self._near(self._target(arguments, b"target"), 4 if len(source) == 6 else 6, arguments)

    def _get_peers(self, now: float, source: Endpoint, arguments: dict[bytes, Any]) -> dict[bytes, Any]:
        info_hash = self._target(arguments, b"info_hash")
        values = self._near(info_hash, 4 if len(source) == 6 else 6, arguments)
        peers = self.peers.peers(now, info_hash, len(source), PEERS_PER_ANSWER_MAX, self._rng)
        if peers:
            values[b"values"] = peers
        values[b"token"] = self.tokens.make(now, source)
        return values

    def _announce_peer(self, now: float, source: Endpoint, arguments: dict[bytes, Any]) -> dict[bytes, Any]:
        info_hash = self._target(arguments, b"info_hash")
        self._check_token(now, source, arguments)
        port = int.from_bytes(source[-2:], "big")
        if not arguments.get(b"implied_port"):
            named = arguments.get(b"port")
            if type(named) is not int or not 0 < named < 65536:
                raise Refused(krpc.PROTOCOL_ERROR)
            port = named
        if not self.peers.announce(now, info_hash, Endpoint(source[:-2] + port.to_bytes(2, "big"))):
            raise Refused(krpc.SERVER_ERROR)
        return {}

    def _get(self, now: float, source: Endpoint, arguments: dict[bytes, Any]) -> dict[bytes, Any]:
        target = self._target(arguments, b"target")
        values = self._near(target, 4 if len(source) == 6 else 6, arguments)
        values[b"token"] = self.tokens.make(now, source)
        stored = self.items.get(now, target)
        if stored is not None:
            item = stored.item
            if type(item) is MutableItem:
                values[b"seq"] = item.seq
                known = arguments.get(b"seq")
                if type(known) is int and item.seq <= known:
                    return values
                values[b"k"] = item.public
                values[b"sig"] = item.signature
            values[b"v"] = decode(item.value)
        return values

    def _put(self, now: float, source: Endpoint, arguments: dict[bytes, Any]) -> dict[bytes, Any]:
        if b"v" not in arguments:
            raise Refused(krpc.PROTOCOL_ERROR)
        value = encode(arguments[b"v"])
        if len(value) > VALUE_BYTES_MAX:
            raise Refused(krpc.VALUE_TOO_BIG)
        item: Item = ImmutableItem(value)
        cas = None
        if b"k" in arguments or b"sig" in arguments or b"seq" in arguments:
            item, cas = self._mutable(arguments, value)
        self._check_token(now, source, arguments)
        code = self.items.would_accept(now, source, item, cas)
        if code:
            raise Refused(code)
        if type(item) is MutableItem and not self.items.holds(now, item):
            covered = signing_buffer(item.salt, item.seq, item.value)
            if not self._verifier.verify(item.public, covered, item.signature):
                raise Refused(krpc.BAD_SIGNATURE)
        code = self.items.put(now, source, item, cas)
        if code:
            raise Refused(code)
        return {}

    def _mutable(self, arguments: dict[bytes, Any], value: bytes) -> tuple[MutableItem, int | None]:
        public, signature = arguments.get(b"k"), arguments.get(b"sig")
        seq, salt, cas = arguments.get(b"seq"), arguments.get(b"salt", b""), arguments.get(b"cas")
        if type(salt) is bytes and len(salt) > SALT_BYTES_MAX:
            raise Refused(krpc.SALT_TOO_BIG)
        if (
            type(public) is not bytes
            or len(public) != PUBLIC_BYTES
            or type(signature) is not bytes
            or len(signature) != SIGNATURE_BYTES
            or type(salt) is not bytes
            or type(seq) is not int
            or not 0 <= seq <= SEQ_MAX
            or (cas is not None and (type(cas) is not int or not 0 <= cas <= SEQ_MAX))
        ):
            raise Refused(krpc.PROTOCOL_ERROR)
        return MutableItem(public, salt, seq, value, signature), cas

    def _check_token(self, now: float, source: Endpoint, arguments: dict[bytes, Any]) -> None:
        token = arguments.get(b"token")
        if type(token) is not bytes or not self.tokens.good(now, source, token):
            raise Refused(krpc.PROTOCOL_ERROR)
        self.proven.add(now, source)
