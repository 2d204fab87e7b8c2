"""A DHT core among strangers who do as they like, and an owner who does too: it never raises, and stays in bounds."""

from __future__ import annotations

from random import Random
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from meshcall.core import Endpoint, endpoint
from meshcall.dht.client import LOOKUP_SECONDS_MAX, OPERATIONS_MAX, SILENT_MAX
from meshcall.dht.config import DhtConfig
from meshcall.dht.events import GetFinished, ItemFound, PeersFinished, PeersFound, PutFinished
from meshcall.dht.items import ImmutableItem, MutableItem, signing_buffer
from meshcall.dht.limits import PROVEN_MAX
from meshcall.dht.node import Dht
from meshcall.dht.node_id import is_usable
from meshcall.dht.operation import WRITE_TRIES_MAX
from meshcall.dht.pending import REQUESTS_MAX
from meshcall.dht.rtt import LOST_FACTOR, SLOW_MAX_SECONDS
from meshcall.errors import UsageError
from meshcall.wire import krpc
from meshcall.wire.bencode import decode, encode
from tests.dht.stranger import SUITE

HOSTS = ["45.1.1.1", "45.1.1.2", "45.1.1.3", "46.2.2.2", "10.0.0.5", "127.0.0.1", "2a00:1::1", "fd00::1", "0.1.2.3"]
PLACES = [endpoint(host, port) for host in HOSTS for port in (1, 6881)]
IDS = [bytes([number]) * 20 for number in (0, 1, 2, 127, 128, 255)]
TARGETS = [bytes([number]) * 20 for number in (1, 129)]
KEYS = [bytes([number]) * 32 for number in (1, 2)]
METHODS = [b"ping", b"find_node", b"get_peers", b"announce_peer", b"get", b"put", b"vote", b"sample_infohashes"]
OPERATION_SECONDS_MAX = LOOKUP_SECONDS_MAX + (WRITE_TRIES_MAX + 1) * LOST_FACTOR * SLOW_MAX_SECONDS
CONFIG = {"items_max": 6, "item_bytes_max": 3000, "items_per_subnet_max": 3, "peers_max": 8}

places = st.sampled_from(PLACES)
ids = st.sampled_from(IDS)
targets = st.sampled_from(TARGETS)
names = st.lists(st.tuples(ids, places), max_size=4)
values = st.sampled_from([b"x", 5, [b"a", {}], b"y" * 900, b"z" * 1100])
anything = st.recursive(
    st.integers(-(2**65), 2**65) | st.binary(max_size=24),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.binary(max_size=5), inner, max_size=3),
    max_leaves=4,
)
times = st.sampled_from([0.0, 0.05, 0.5, 3.0, 70.0, 1000.0, 100_000.0])


def signed(key: bytes, salt: bytes, seq: int, value: Any) -> MutableItem:
    data = encode(value)
    return MutableItem(key, salt, seq, data, SUITE.sign(key, signing_buffer(salt, seq, data)))


def packed(contacts: list[tuple[bytes, Endpoint]], family: int) -> bytes:
    return b"".join(node_id + where for node_id, where in contacts if len(where) == (6 if family == 4 else 18))


class Node(RuleBasedStateMachine):
    """One node of both families; `queries` are those of its requests that nobody has answered yet."""

    @initialize(
        reachable=st.sampled_from(["auto", "yes", "no"]),
        families=st.sampled_from([(4,), (6,), (4, 6)]),
        own=st.none() | ids,
        local=st.lists(places, max_size=2),
    )
    def begin(self, reachable: Any, families: tuple[int, ...], own: bytes | None, local: list[Endpoint]) -> None:
        self.now = 1.0
        config = DhtConfig(reachable=reachable, node_id=own, **CONFIG)  # type: ignore[arg-type]
        self.families = families
        self.node = Dht(self.now, rng=Random(1), verifier=SUITE, config=config, families=families)
        self.node.set_local_addresses(self.now, local)
        self.node.bootstrap(self.now, PLACES[:6])
        self.queries: list[tuple[Endpoint, dict[bytes, Any]]] = []
        self.heard: list[tuple[Endpoint, bytes]] = []
        self.tokens: dict[Endpoint, bytes] = {}
        self.running: dict[int, tuple[float, str]] = {}
        self.best: dict[int, int] = {}
        self.took = 0

    # The owner

    def command(self, kind: str, operation: int) -> None:
        assert operation not in self.running
        self.running[operation] = (self.now, kind)

    @rule(key=st.sampled_from(KEYS), salt=st.sampled_from([b"", b"salt"]), trace=st.booleans())
    def get(self, key: bytes, salt: bytes, trace: bool) -> None:
        self.command("get", self.node.get_mutable(self.now, key, salt, trace=trace))

    @rule(place=targets)
    def get_by_hash(self, place: bytes) -> None:
        self.command("get", self.node.get_immutable(self.now, place))

    @rule(key=st.sampled_from(KEYS), seq=st.integers(0, 4), value=values, cas=st.none() | st.integers(0, 4))
    def put(self, key: bytes, seq: int, value: Any, cas: int | None) -> None:
        item = signed(key, b"", seq, value)
        try:
            self.command("put", self.node.put(self.now, item, cas=cas))
        except UsageError:
            assert len(item.value) > 1000

    @rule(value=values)
    def put_value(self, value: Any) -> None:
        try:
            self.command("put", self.node.put(self.now, ImmutableItem(encode(value))))
        except UsageError:
            assert len(encode(value)) > 1000

    @rule(place=targets, writes=st.booleans(), port=st.sampled_from([None, 7]))
    def peers(self, place: bytes, writes: bool, port: int | None) -> None:
        if writes:
            self.command("put", self.node.announce(self.now, place, port))
        else:
            self.command("peers", self.node.get_peers(self.now, place))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        operation = data.draw(st.sampled_from(sorted(self.running)))
        self.node.cancel(operation)
        del self.running[operation]

    @rule(where=st.lists(places, max_size=3))
    def bootstrap(self, where: list[Endpoint]) -> None:
        self.node.bootstrap(self.now, where)

    @rule(contacts=names)
    def restore(self, contacts: list[tuple[bytes, Endpoint]]) -> None:
        self.node.restore(self.now, contacts)

    @rule()
    def network_changes(self) -> None:
        self.node.network_changed(self.now)

    @rule(local=st.lists(places, max_size=2))
    def addresses_change(self, local: list[Endpoint]) -> None:
        self.node.set_local_addresses(self.now, local)
        self.node.bootstrap(self.now, PLACES[:6])

    @rule()
    def looks(self) -> None:
        status = self.node.status(self.now)
        assert status.read_only == (status.reachable is False)
        for node_id, where in self.node.good_contacts():
            assert len(node_id) == 20
            assert is_usable(where)

    # Strangers

    def hear(self, source: Endpoint, data: bytes) -> None:
        self.heard = [*self.heard[-20:], (source, data)]
        before = len(self.node.outbox)
        self.node.receive(self.now, source, data)
        self.took += 1
        answers = [where for where, data in self.node.outbox[before:] if decode(data)[b"y"] != b"q"]
        assert answers in ([], [source])

    @rule(
        source=places,
        node_id=ids,
        method=st.sampled_from(METHODS),
        place=targets,
        key=st.sampled_from(KEYS),
        seq=st.integers(-1, 4),
        value=values,
        good=st.booleans(),
        more=st.dictionaries(
            st.sampled_from([b"cas", b"salt", b"want", b"seq", b"mcdial", b"mcback", b"implied_port", b"port", b"v"]),
            anything | st.sampled_from([*PLACES[:3], [b"n4", b"n6"], 1]),
            max_size=2,
        ),
        read_only=st.booleans(),
    )
    def asks(
        self,
        source: Endpoint,
        node_id: bytes,
        method: bytes,
        place: bytes,
        key: bytes,
        seq: int,
        value: Any,
        good: bool,
        more: dict[bytes, Any],
        read_only: bool,
    ) -> None:
        arguments: dict[bytes, Any] = {b"id": node_id, b"target": place, b"info_hash": place, b"port": 5}
        if method == b"put":
            item = signed(key, b"", seq, value)
            arguments |= {b"k": key, b"seq": seq, b"v": value, b"sig": item.signature if good else bytes(64)}
        arguments[b"token"] = self.tokens.get(source, b"")
        if b"mcback" in more and good:
            more = more | {b"mcback": arguments[b"token"]}
        self.hear(source, krpc.query(b"tt", method, arguments | more, read_only))

    @precondition(lambda self: self.queries)
    @rule(
        data=st.data(),
        node_id=st.none() | ids,
        contacts=names,
        seq=st.integers(0, 4),
        value=values,
        good=st.booleans(),
        more=st.dictionaries(
            st.sampled_from([b"token", b"nodes", b"nodes6", b"values", b"seq", b"v", b"k", b"sig", b"id"]),
            anything,
            max_size=1,
        ),
        seen=st.sampled_from(PLACES),
        stays=st.booleans(),
    )
    def answers(
        self,
        data: st.DataObject,
        node_id: bytes | None,
        contacts: list[tuple[bytes, Endpoint]],
        seq: int,
        value: Any,
        good: bool,
        more: dict[bytes, Any],
        seen: Endpoint,
        stays: bool,
    ) -> None:
        at = data.draw(st.integers(0, len(self.queries) - 1))
        where, query = self.queries[at] if stays else self.queries.pop(at)
        node_id = node_id or IDS[PLACES.index(where) % len(IDS)]
        body: dict[bytes, Any] = {b"id": node_id, b"token": b"t", b"nodes": packed(contacts, 4)}
        body |= {b"nodes6": packed(contacts, 6), b"values": [bytes(where) for _, where in contacts]}
        if query[b"q"] == b"get":
            key = KEYS[seq % 2]
            item = signed(key, b"", seq, value)
            body |= {b"k": key, b"seq": seq, b"v": value, b"sig": item.signature if good else bytes(64)}
        self.hear(where, krpc.reply(query[b"t"], body | more, seen))

    @precondition(lambda self: self.queries)
    @rule(
        contacts=names, seq=st.integers(0, 4), value=values, seen=st.sampled_from(PLACES[:2]), rounds=st.integers(1, 4)
    )
    def everybody_answers(
        self, contacts: list[tuple[bytes, Endpoint]], seq: int, value: Any, seen: Endpoint, rounds: int
    ) -> None:
        """As honest nodes would."""
        for _ in range(rounds):
            queries, self.queries = self.queries, []
            for number, (where, query) in enumerate(queries):
                self.now += 0.02
                at = PLACES.index(where)
                body: dict[bytes, Any] = {b"id": IDS[at % len(IDS)][:18] + bytes([at, 7]), b"token": b"t"}
                body |= {b"nodes": packed(contacts, 4), b"nodes6": packed(contacts, 6)}
                body[b"values"] = [bytes(where) for _, where in contacts]
                if query[b"q"] == b"get" and number % 2:
                    key = KEYS[number // 2 % 2]
                    item = signed(key, b"", seq, value)
                    body |= {b"k": key, b"seq": seq, b"v": value, b"sig": item.signature}
                self.hear(where, krpc.reply(query[b"t"], body, seen))
                self.drain()

    @rule(
        source=st.sampled_from(PLACES[:8]),
        key=st.sampled_from(KEYS),
        salt=st.sampled_from([b"", b"salt"]),
        seq=st.integers(0, 4),
        value=values,
        cas=st.none() | st.integers(0, 4),
        announces=st.booleans(),
    )
    def writes(
        self, source: Endpoint, key: bytes, salt: bytes, seq: int, value: Any, cas: int | None, announces: bool
    ) -> None:
        """A put or an announcement with a good token."""
        self.hear(source, krpc.query(b"t1", b"get", {b"id": IDS[1], b"target": key[:20]}, False))
        self.drain()
        arguments: dict[bytes, Any] = {b"id": IDS[1], b"token": self.tokens.get(source, b"")}
        if announces:
            arguments |= {b"info_hash": key[:20], b"port": 1 + seq}
        else:
            item = signed(key, salt, seq, value)
            arguments |= {b"k": key, b"seq": seq, b"v": value, b"sig": item.signature}
            arguments |= ({b"salt": salt} if salt else {}) | ({b"cas": cas} if cas is not None else {})
        self.hear(source, krpc.query(b"t2", b"announce_peer" if announces else b"put", arguments, False))

    @precondition(lambda self: self.queries)
    @rule(data=st.data(), code=st.integers(-1, 400) | st.just(2**70))
    def refuses(self, data: st.DataObject, code: int) -> None:
        where, query = self.queries.pop(data.draw(st.integers(0, len(self.queries) - 1)))
        self.hear(where, encode({b"y": b"e", b"t": query[b"t"], b"e": [code, b"no"]}))

    @precondition(lambda self: self.heard)
    @rule(data=st.data(), source=st.none() | places)
    def replays(self, data: st.DataObject, source: Endpoint | None) -> None:
        where, packet = data.draw(st.sampled_from(self.heard))
        self.hear(source or where, packet)

    @precondition(lambda self: self.heard)
    @rule(data=st.data(), changes=st.dictionaries(st.integers(0, 2000), st.integers(0, 255), min_size=1, max_size=4))
    def sends_a_changed_one(self, data: st.DataObject, changes: dict[int, int]) -> None:
        where, packet = data.draw(st.sampled_from(self.heard))
        broken = bytearray(packet or b"d")
        for at, byte in changes.items():
            broken[at % len(broken)] = byte
        self.hear(where, bytes(broken))

    @precondition(lambda self: self.heard)
    @rule(data=st.data(), field=st.sampled_from([b"a", b"r", b"e", b"y", b"t", b"q", b"ip", b"ro"]), value=anything)
    def sends_one_of_wrong_type(self, data: st.DataObject, field: bytes, value: Any) -> None:
        where, packet = data.draw(st.sampled_from(self.heard))
        try:
            message = decode(packet)
        except ValueError:
            return
        if type(message) is dict:
            self.hear(where, encode({**message, field: value}))

    @rule(source=places | st.binary(max_size=20).map(Endpoint), packet=st.binary(max_size=80))
    def sends_junk(self, source: Endpoint, packet: bytes) -> None:
        self.hear(source, packet)

    # Time

    @rule(seconds=times)
    def passes(self, seconds: float) -> None:
        end = self.now + seconds
        for _ in range(3000):
            wake = self.node.next_wake()
            if wake is None or wake > end:
                break
            self.now = max(self.now, wake)
            self.node.wake(self.now)
            self.drain()
            if self.now - self.took > 200_000:
                break
        self.now = end

    @rule(seconds=times)
    def sleeps(self, seconds: float) -> None:
        """Nobody wakes the core, as where the machine was asleep."""
        self.now += seconds
        self.node.wake(self.now)

    @rule()
    def wakes_early(self) -> None:
        self.node.wake(self.now)

    # What always holds

    @invariant()
    def drain(self) -> None:
        if not hasattr(self, "node"):
            return
        for where, data in self.node.outbox:
            assert is_usable(where)
            assert (4 if len(where) == 6 else 6) in self.families
            assert len(data) <= 2048
            message = decode(data)
            if message[b"y"] == b"q":
                assert len(data) <= 1400
                self.queries = [*self.queries[-40:], (where, message)] if where in PLACES else self.queries
            elif b"r" in message and b"token" in message[b"r"]:
                self.tokens[where] = message[b"r"][b"token"]
        self.node.outbox.clear()
        for event in self.node.events:
            if isinstance(event, GetFinished | PutFinished | PeersFinished):
                began, kind = self.running.pop(event.operation)
                assert kind == {GetFinished: "get", PutFinished: "put", PeersFinished: "peers"}[type(event)]
                assert event.report.seconds == self.now - began
                if isinstance(event, GetFinished) and isinstance(event.item, MutableItem):
                    assert self.best.get(event.operation) == event.item.seq
            elif isinstance(event, ItemFound | PeersFound):
                assert event.operation in self.running
            if isinstance(event, ItemFound) and isinstance(event.item, MutableItem):
                item = event.item
                assert event.item.seq > self.best.get(event.operation, -1)
                self.best[event.operation] = item.seq
                assert SUITE.verify(item.public, signing_buffer(item.salt, item.seq, item.value), item.signature)
        self.node.events.clear()

    @invariant()
    def is_bounded(self) -> None:
        if not hasattr(self, "node"):
            return
        node = self.node
        status = node.status(self.now)
        assert status.requests <= REQUESTS_MAX
        assert status.operations <= OPERATIONS_MAX
        assert status.items <= 6
        assert status.item_bytes <= 3000
        assert status.peers <= 8
        assert len(node.server.proven) <= PROVEN_MAX
        assert len(node.client._silent) <= SILENT_MAX
        assert len(node.client.bootstrap) <= 32
        assert len(node.counters) < 30
        assert all(family.contacts + family.heard < 1000 for family in status.families)
        wake = node.next_wake()
        assert wake is not None
        assert wake < self.now + 100 or wake <= self.now + 1000

    def teardown(self) -> None:
        """Whatever is under way ends by itself."""
        if not hasattr(self, "node"):
            return
        end = self.now + OPERATION_SECONDS_MAX
        for _ in range(5000):
            wake = self.node.next_wake()
            if wake is None or wake > end or not self.running:
                break
            self.now = max(self.now, wake)
            self.node.wake(self.now)
            self.drain()
        assert not self.running
        assert self.node.status(self.now).operations <= len(self.families)


Node.TestCase.settings = settings(
    max_examples=50, stateful_step_count=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestNode = Node.TestCase
