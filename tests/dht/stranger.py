"""Strangers made by hand for tests of one DHT core: they send it queries and answers and read what comes back."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Any

from meshcall.core import Endpoint, endpoint
from meshcall.dht.config import DhtConfig
from meshcall.dht.events import GetFinished, PeersFinished, PutFinished
from meshcall.dht.items import MutableItem, signing_buffer
from meshcall.dht.node import Dht
from meshcall.wire import krpc
from meshcall.wire.bencode import decode, encode
from tests.dht.small_world import PaperVerifier

SUITE = PaperVerifier()
OPEN = DhtConfig(reachable="yes")


def core(config: DhtConfig = OPEN, families: tuple[int, ...] = (4,), seed: int = 1) -> Dht:
    """A DHT core at time 1.0 that knows nobody."""
    return Dht(1.0, rng=Random(seed), verifier=SUITE, config=config, families=families)


def sent(node: Dht) -> list[tuple[Endpoint, bytes]]:
    """What the node wants to send; its outbox is empty then."""
    datagrams = list(node.outbox)
    node.outbox.clear()
    return datagrams


def item(name: bytes, seq: int, value: bytes, salt: bytes = b"") -> MutableItem:
    """A mutable item that `SUITE` accepts; `value` is bencoded."""
    public = name.ljust(32, b".")
    return MutableItem(public, salt, seq, value, SUITE.sign(public, signing_buffer(salt, seq, value)))


def contact(node_id: bytes, where: Endpoint) -> bytes:
    """A contact as it travels in `nodes`."""
    return node_id + where


ITEM = item(b"alice", 5, b"5:hello")
"""What most of these tests are about."""
GOOD = {"v": b"hello", "seq": 5, "sig": ITEM.signature, "k": ITEM.public, "token": b"tok"}
"""A good answer about it."""


class Stranger:
    """One address with an ID."""

    def __init__(self, host: str, node_id: bytes | None = None, port: int = 6881) -> None:
        self.where = endpoint(host, port)
        self.id = node_id or Random(host).randbytes(20)
        self._number = 0

    def query(self, node: Dht, now: float, method: bytes, _extra: dict[bytes, Any] | None = None, **more: Any) -> Any:
        """Send a query; the decoded answer, or None."""
        self._number += 1
        transaction = b"t%d" % self._number
        arguments = {name.encode(): value for name, value in more.items()} | {b"id": self.id}
        message = {b"t": transaction, b"y": b"q", b"q": method, b"a": arguments, **(_extra or {})}
        return self.raw(node, now, encode(message))

    def raw(self, node: Dht, now: float, data: bytes) -> Any:
        """Send bytes; the decoded answer to them, or None.  Other datagrams of the node stay in its outbox."""
        before = len(node.outbox)
        node.receive(now, self.where, data)
        answers = [answer for target, answer in node.outbox[before:] if target == self.where]
        answers = [answer for answer in answers if decode(answer)[b"y"] != b"q"]
        node.outbox[before:] = [each for each in node.outbox[before:] if each[1] not in answers]
        assert len(answers) <= 1
        return decode(answers[0]) if answers else None

    def token(self, node: Dht, now: float) -> bytes:
        """A token for writing."""
        token = self.query(node, now, b"get", target=bytes(20))[b"r"][b"token"]
        assert type(token) is bytes
        return token

    def put(self, node: Dht, now: float, what: MutableItem, **more: Any) -> int:
        """Put an item with a good token and these arguments changed; the error code, 0 if it was stored."""
        arguments: dict[str, Any] = {
            "k": what.public,
            "seq": what.seq,
            "sig": what.signature,
            "v": decode(what.value),
            "token": self.token(node, now),
        }
        if what.salt:
            arguments["salt"] = what.salt
        return code_of(self.query(node, now, b"put", None, **(arguments | more)))

    def answer(self, node: Dht, now: float, query: bytes, node_id: bytes | None = None, **values: Any) -> None:
        """Answer a query of the node."""
        body = {name.encode(): value for name, value in values.items()} | {b"id": node_id or self.id}
        node.receive(now, self.where, krpc.reply(decode(query)[b"t"], body, endpoint("203.0.113.7", 6881)))


def code_of(answer: Any) -> int:
    """The error code of an answer; 0: it is none."""
    assert answer is not None
    return int(answer[b"e"][0]) if answer[b"y"] == b"e" else 0


def acquaint(node: Dht, now: float, strangers: Iterable[Stranger]) -> None:
    """Make these strangers live contacts of the node: each is asked as a bootstrap address and answers."""
    for stranger in strangers:
        node.client.ask(now, stranger.where, stranger.id, b"ping", {}, None, None)
        for target, data in sent(node):
            if target == stranger.where:
                stranger.answer(node, now + 0.05, data)


def serves(node: Dht, now: float) -> None:
    """The node still answers and stores."""
    friend = Stranger("192.0.2.77")
    assert friend.query(node, now, b"ping")[b"r"][b"id"] == node.node_id()
    assert friend.put(node, now, item(b"friend", int(now), b"2:ok")) == 0
    assert friend.query(node, now, b"get", target=item(b"friend", 0, b"0:").target)[b"r"][b"v"] == b"ok"


def looking(strangers: int = 3) -> tuple[Dht, list[Stranger], int, dict[bytes, tuple[Stranger, bytes]]]:
    """A node in a look-up of ITEM, who was asked, and the query each has got."""
    node = core()
    known = [Stranger(f"198.51.{n}.1") for n in range(strangers)]
    acquaint(node, 2.0, known)
    node.events.clear()
    operation = node.get_mutable(3.0, ITEM.public)
    by_place = {stranger.where: stranger for stranger in known}
    return node, known, operation, {bytes(target): (by_place[target], data) for target, data in sent(node)}


def finish(node: Dht, now: float = 3.0) -> GetFinished | PutFinished | PeersFinished:
    """Let time pass until the only operation is over."""
    for _ in range(500):
        for event in node.events:
            if isinstance(event, GetFinished | PutFinished | PeersFinished):
                return event
        wake = node.next_wake()
        assert wake is not None
        now = max(now, wake)
        node.wake(now)
    raise AssertionError("the operation does not end")
