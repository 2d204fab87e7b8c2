"""One operation of our own: a look-up (one query in each family) and, where something is to be written, the writing.

Pure bookkeeping: it says what was found and what is left to do; `node.Dht` sends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from meshcall.core import Endpoint
from meshcall.crypto.suite import PUBLIC_BYTES, SIGNATURE_BYTES, Verifier
from meshcall.dht.events import Event, Holder, ItemFound, PeersFound, Report, TraceStep
from meshcall.dht.items import (
    SALT_BYTES_MAX,
    SEQ_MAX,
    VALUE_BYTES_MAX,
    ImmutableItem,
    Item,
    MutableItem,
    signing_buffer,
)
from meshcall.dht.node_id import is_global, is_usable, shared_prefix_bits
from meshcall.dht.query import ANSWERED, Candidate, Query
from meshcall.errors import BadPacket
from meshcall.wire import krpc
from meshcall.wire.bencode import decode_untrusted, encode

WRITE_TRIES_MAX = 4
"""Times that one write is sent to one node."""
PEERS_FOUND_MAX = 2000
"""Peers that one look-up collects."""
STEPS_MAX = 1000
"""Requests that a trace remembers."""


class Write:
    """One node that an item or announcement is written to."""

    __slots__ = ("done", "holder", "tries")

    def __init__(self, holder: Holder) -> None:
        self.holder = holder
        self.tries = 0
        self.done = False


class Writing:
    """What is to be written once the look-up is over: method and arguments without ID and token."""

    __slots__ = ("arguments", "errors", "method", "stored", "writes")

    def __init__(self, method: bytes, arguments: dict[bytes, Any]) -> None:
        self.method = method
        self.arguments = arguments
        self.writes: list[Write] = []
        self.stored = 0
        self.errors: dict[int, int] = {}

    def refused(self, write: Write, code: int) -> None:
        """The node refused, or never answered (code 0)."""
        write.done = True
        if write.tries > 1 and code == krpc.CAS_MISMATCH:
            # The answer to the first try was lost: most likely what is there now is what that try stored.
            self.stored += 1
        else:
            self.errors[code] = self.errors.get(code, 0) + 1

    @property
    def finished(self) -> bool:
        """Whether nothing is awaited any more."""
        return all(write.done for write in self.writes)


class Operation:
    """A look-up with its result.  `method` and `key` are those of its queries: find_node, get and
    get_peers with target or info_hash."""

    __slots__ = (
        "_peers",
        "_steps",
        "answers",
        "finished",
        "hops",
        "item",
        "key",
        "kind",
        "method",
        "number",
        "public",
        "queries",
        "requests",
        "salt",
        "silent",
        "started",
        "target",
        "writing",
    )

    def __init__(
        self,
        number: int,
        now: float,
        kind: str,
        target: bytes,
        *,
        public: bytes = b"",
        salt: bytes = b"",
        trace: bool = False,
    ) -> None:
        self.number = number
        self.started = now
        self.kind = kind
        self.target = target
        self.public = public
        self.salt = salt
        self.method = {"get": b"get", "peers": b"get_peers"}.get(kind, b"find_node")
        self.key = b"info_hash" if kind == "peers" else b"target"
        self.queries: dict[int, Query] = {}
        self.writing: Writing | None = None
        self.item: Item | None = None
        self.silent = False
        self.finished = False
        self.requests = 0
        self.answers = 0
        self.hops = 0
        self._peers: dict[Endpoint, None] = {}
        self._steps: dict[bytes, tuple[float, Endpoint, bytes | None, float | None, str]] | None = {} if trace else None

    def answered(
        self, candidate: Candidate, node_id: bytes, values: dict[bytes, Any], verifier: Verifier, events: list[Event]
    ) -> str:
        """Take the answer of a candidate.  Returns its outcome for trace and counters."""
        query = self.queries[4 if len(candidate.endpoint) == 6 else 6]
        if candidate.state == ANSWERED:
            return "repeated"
        objection = query.answered(candidate, node_id, krpc.token_untrusted(values))
        if objection:
            return objection
        self.answers += 1
        self.hops = max(self.hops, candidate.hops)
        if self.kind == "get":
            return self._take_value(values, verifier, events)
        if self.kind == "peers":
            return self._take_peers(values, not is_global(candidate.endpoint[:-2]), events)
        return "answered"

    def _take_value(self, values: dict[bytes, Any], verifier: Verifier, events: list[Event]) -> str:
        if b"v" not in values:
            return "answered"
        value = encode(values[b"v"])
        if len(value) > VALUE_BYTES_MAX:
            return "invalid: size"
        if not self.public:
            item: Item = ImmutableItem(value)
            if item.target != self.target:
                return "invalid: hash"
            if self.item is None:
                self._found(item, events)
            return "value"
        seq, signature = values.get(b"seq"), values.get(b"sig")
        if type(seq) is not int or not 0 <= seq <= SEQ_MAX:
            return "invalid: seq"
        if type(signature) is not bytes or len(signature) != SIGNATURE_BYTES or values.get(b"k") != self.public:
            return "invalid: key"
        best = self.item
        if type(best) is MutableItem:
            if seq < best.seq:
                return "older"
            if seq == best.seq:
                return "value" if value == best.value else "invalid: other value of one seq"
        if not verifier.verify(self.public, signing_buffer(self.salt, seq, value), signature):
            return "invalid: signature"
        self._found(MutableItem(self.public, self.salt, seq, value, signature), events)
        return "value"

    def _found(self, item: Item, events: list[Event]) -> None:
        self.item = item
        if not self.silent:
            events.append(ItemFound(self.number, item))

    def _take_peers(self, values: dict[bytes, Any], private: bool, events: list[Event]) -> str:
        peers = [Endpoint(peer) for peer in krpc.peers_untrusted(values)]
        peers = [peer for peer in peers if is_usable(peer) and (private or is_global(peer[:-2]))]
        room = PEERS_FOUND_MAX - len(self._peers)
        fresh = [peer for peer in dict.fromkeys(peers) if peer not in self._peers][:room]
        self._peers.update(dict.fromkeys(fresh))
        if fresh and not self.silent:
            events.append(PeersFound(self.number, tuple(fresh)))
        return "value" if peers else "answered"

    @property
    def peers(self) -> tuple[Endpoint, ...]:
        """The peers found, in the order in which they came."""
        return tuple(self._peers)

    def holders(self) -> tuple[Holder, ...]:
        """The nodes that the look-up ended on and that gave a token, nearest first in each family."""
        return tuple(
            Holder(candidate.node_id, candidate.endpoint, candidate.token)
            for query in self.queries.values()
            for candidate in query.result()
            if candidate.token and candidate.node_id is not None
        )

    def begin_writing(self, holders: Iterable[Holder]) -> list[Write]:
        """The writes to send, once it is known where to."""
        assert self.writing is not None
        self.writing.writes = [Write(holder) for holder in holders]
        return self.writing.writes

    def sent(self, transaction: bytes, now: float, endpoint: Endpoint, node_id: bytes | None) -> None:
        """A request went out."""
        self.requests += 1
        if self._steps is not None and len(self._steps) < STEPS_MAX:
            self._steps[transaction] = (now - self.started, endpoint, node_id, None, "waiting")

    def note(self, transaction: bytes, now: float | None, node_id: bytes | None, outcome: str) -> None:
        """What became of it; `now` where an answer came."""
        step = self._steps.get(transaction) if self._steps is not None else None
        if self._steps is not None and step is not None:
            sent, endpoint, known, _, before = step
            took = None if now is None else now - self.started - sent
            if before == "slow" and outcome == "answered":
                outcome = "late"
            self._steps[transaction] = (sent, endpoint, node_id or known, took, outcome)

    def report(self, now: float) -> Report:
        """What it has cost up to now."""
        steps = tuple(
            TraceStep(sent, took, where, node_id, shared_prefix_bits(node_id, self.target) if node_id else 0, outcome)
            for sent, where, node_id, took, outcome in (self._steps or {}).values()
        )
        return Report(now - self.started, self.requests, self.answers, self.hops, steps)


def item_arguments(item: Item, cas: int | None, value: Callable[[bytes], Any]) -> dict[bytes, Any]:
    """The arguments of a put query without ID and token; `value` decodes bencode."""
    arguments: dict[bytes, Any] = {b"v": value(item.value)}
    if isinstance(item, MutableItem):
        arguments |= {b"k": item.public, b"seq": item.seq, b"sig": item.signature}
        if item.salt:
            arguments[b"salt"] = item.salt
        if cas is not None:
            arguments[b"cas"] = cas
    return arguments


def check_item(item: Item, verifier: Verifier) -> str:
    """Why an item of our own cannot be put; empty if it can."""
    if len(item.value) > VALUE_BYTES_MAX:
        return f"The value has {len(item.value)} bytes; BEP 44 allows {VALUE_BYTES_MAX}."
    try:
        decode_untrusted(item.value)
    except BadPacket:
        return "The value of the item is not bencoded, or nested too deeply."
    if isinstance(item, MutableItem):
        if len(item.public) != PUBLIC_BYTES or len(item.salt) > SALT_BYTES_MAX or not 0 <= item.seq <= SEQ_MAX:
            return "Key, salt or seq of the item is out of bounds."
        if not verifier.verify(item.public, signing_buffer(item.salt, item.seq, item.value), item.signature):
            return "The signature does not fit the item."
    return ""
