"""A small network of DHT cores in virtual time, for tests: uniform delays, loss, sudden death, and a
filter through which all datagrams pass (NATs, partitions, lines that are down)."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from random import Random
from typing import Any

from meshcall.core import Endpoint, endpoint
from meshcall.dht.config import DhtConfig
from meshcall.dht.events import Event, GetFinished, Joined, PeersFinished, PutFinished
from meshcall.dht.items import ImmutableItem, MutableItem, signing_buffer
from meshcall.dht.node import Dht

FINAL = (GetFinished, PutFinished, PeersFinished)


class PaperVerifier:
    """Signatures of true length without strength; `sign` makes what `verify` accepts."""

    def sign(self, public: bytes, message: bytes) -> bytes:
        import hashlib

        return hashlib.blake2b(public + message).digest()

    def verify(self, public: bytes, message: bytes, signature: bytes) -> bool:
        return signature == self.sign(public, message)


NAT_SECONDS = 300.0
"""How long a NAT keeps a way open without traffic (RFC 4787, REQ-5)."""


class Nat:
    """A filter of `SmallWorld`: these hosts hear only addresses to which they have sent lately (RFC 4787,
    address-dependent filtering), except on the endpoints in `forwarded`."""

    def __init__(self, world: SmallWorld, inside: Iterable[Endpoint], forwarded: Iterable[Endpoint] = ()) -> None:
        self.world = world
        self.inside = {where[:-2] for where in inside}
        self.forwarded = set(forwarded)
        self.sent: dict[tuple[bytes, bytes], float] = {}

    def __call__(self, source: Endpoint, target: Endpoint) -> bool:
        if source[:-2] in self.inside:
            self.sent[source[:-2], target[:-2]] = self.world.now
        if target[:-2] in self.inside and target not in self.forwarded:
            return self.world.now - self.sent.get((target[:-2], source[:-2]), -NAT_SECONDS) < NAT_SECONDS
        return True


class SmallWorld:
    """Nodes at 10.0.a.b (or wherever `host` says); `now` in seconds."""

    def __init__(self, seed: int = 1, delay: tuple[float, float] = (0.04, 0.08), loss: float = 0.0) -> None:
        self.rng = Random(seed)
        self.delay = delay
        self.loss = loss
        self.now = 0.0
        self.suite = PaperVerifier()
        self.nodes: dict[Endpoint, Dht] = {}
        self.dead: set[Endpoint] = set()
        self.events: dict[Endpoint, list[tuple[float, Event]]] = {}
        self.delivered = 0
        self.pool: dict[bytes, tuple[bytes, Endpoint, int]] = {}
        self.sent: dict[Endpoint, int] = {}
        self.passes: Callable[[Endpoint, Endpoint], bool] | None = None
        """Whether a datagram from the first to the second arrives; asked when it is sent."""
        self.wire: list[tuple[Endpoint, Endpoint, bytes]] | None = None
        self._heap: list[tuple[float, int, Endpoint, Endpoint | None, bytes]] = []
        self._order = 0
        self._wakes: dict[Endpoint, float] = {}
        self._homes: dict[Endpoint, Endpoint] = {}
        self._faces: dict[tuple[Endpoint, int], Endpoint] = {}

    def add(
        self,
        config: DhtConfig | None = None,
        host: str | None = None,
        boot: Endpoint | None = None,
        also: str | None = None,
    ) -> Endpoint:
        """A new node; `also`: its address in the other family.  It is known by the endpoint of `host`."""
        number = len(self.nodes)
        where = endpoint(host or f"10.0.{number // 250}.{number % 250 + 1}", 6881)
        faces = [where] if also is None else [where, endpoint(also, 6881)]
        families = tuple(4 if len(face) == 6 else 6 for face in faces)
        node = Dht(self.now, rng=self.rng, verifier=self.suite, config=config, families=families, pool=self.pool)
        self.nodes[where] = node
        self.events[where] = []
        for face in faces:
            self._homes[face] = where
            self._faces[where, len(face)] = face
        if boot is not None:
            node.bootstrap(self.now, [boot])
        self.drain(where)
        return where

    def move(self, where: Endpoint, to: Endpoint) -> None:
        """Give the node of `where` another address; it is still known by the old one."""
        del self._homes[self._faces[where, len(to)]]
        self._homes[to] = where
        self._faces[where, len(to)] = to

    def item(self, name: bytes, seq: int, value: bytes, salt: bytes = b"") -> MutableItem:
        public = name.ljust(32, b".")
        return MutableItem(public, salt, seq, value, self.suite.sign(public, signing_buffer(salt, seq, value)))

    def send(self, source: Endpoint, target: Endpoint, data: bytes) -> None:
        self._order += 1
        self.sent[source] = self.sent.get(source, 0) + 1
        if self.wire is not None:
            self.wire.append((source, target, data))
        arrives = self.passes is None or self.passes(source, target)
        if self.rng.random() >= self.loss and arrives:
            at = self.now + self.rng.uniform(*self.delay)
            heapq.heappush(self._heap, (at, self._order, target, source, data))

    def drain(self, where: Endpoint) -> None:
        node = self.nodes[where]
        for target, data in node.outbox:
            self.send(self._faces[where, len(target)], target, data)
        node.outbox.clear()
        self.events[where] += [(self.now, event) for event in node.events]
        node.events.clear()
        wake = node.next_wake()
        if wake is not None and wake < self._wakes.get(where, float("inf")):
            self._wakes[where] = wake
            self._order += 1
            heapq.heappush(self._heap, (max(wake, self.now), self._order, where, None, b""))

    def run(self, until: float) -> None:
        while self._heap and self._heap[0][0] <= until:
            self.step()
        self.now = max(self.now, until)

    def step(self) -> None:
        at, _, face, source, data = heapq.heappop(self._heap)
        self.now = at
        where = self._homes.get(face, face)
        node = self.nodes.get(where)
        if node is None or where in self.dead:
            return
        if source is None:
            if at < self._wakes.get(where, at):
                return
            self._wakes.pop(where, None)
            wake = node.next_wake()
            if wake is not None and wake <= at:
                node.wake(at)
        else:
            self.delivered += 1
            node.receive(at, source, data)
        self.drain(where)

    def finish(self, where: Endpoint, operation: int, seconds: float = 60.0) -> Event:
        """Run until the operation of this node is over."""
        self.drain(where)
        end = self.now + seconds
        while self._heap and self._heap[0][0] <= end:
            for _, event in self.events[where]:
                if isinstance(event, FINAL) and event.operation == operation:
                    return event
            self.step()
        raise AssertionError(f"operation {operation} did not finish within {seconds} s")

    def first(self, where: Endpoint, operation: int) -> float | None:
        """When the first item of this operation was handed up."""
        for at, event in self.events[where]:
            if getattr(event, "operation", None) == operation and type(event).__name__ == "ItemFound":
                return at
        return None

    def joined(self) -> int:
        return sum(any(isinstance(event, Joined) for _, event in events) for events in self.events.values())


def grown(count: int, seed: int = 1, warm: int = 2, **more: object) -> tuple[SmallWorld, list[Endpoint]]:
    """A settled network of `count` nodes, each of which has looked up `warm` random keys."""
    world = SmallWorld(seed, **more)  # type: ignore[arg-type]
    boot = world.add()
    places = [boot]
    for _ in range(count - 1):
        world.run(world.now + 0.05)
        places.append(world.add(boot=boot))
    world.run(world.now + 5)
    for _ in range(warm):
        for where in places:
            world.nodes[where].get_mutable(world.now, world.rng.randbytes(32))
            world.drain(where)
            world.run(world.now + 0.05)
    world.run(world.now + 10)
    return world, places


def got(world: SmallWorld, where: Endpoint, public: bytes, salt: bytes = b"", **more: Any) -> GetFinished:
    event = world.finish(where, world.nodes[where].get_mutable(world.now, public, salt, **more))
    assert isinstance(event, GetFinished)
    return event


def put(world: SmallWorld, where: Endpoint, item: MutableItem | ImmutableItem, **more: Any) -> PutFinished:
    event = world.finish(where, world.nodes[where].put(world.now, item, **more))
    assert isinstance(event, PutFinished)
    return event


def events_of(world: SmallWorld, where: Endpoint, kind: type) -> list[Any]:
    return [event for _, event in world.events[where] if isinstance(event, kind)]


def near(world: SmallWorld, places: list[Endpoint], target: bytes) -> list[Endpoint]:
    """The places in order of distance to the target."""
    number = int.from_bytes(target, "big")
    return sorted(places, key=lambda where: int.from_bytes(world.nodes[where].node_id(), "big") ^ number)


def public_world(count: int, seed: int = 3) -> tuple[SmallWorld, list[Endpoint]]:
    """A network on public addresses, each in a subnet of its own."""
    world = SmallWorld(seed)
    places = [world.add(host="45.0.0.1")]
    for number in range(1, count):
        world.run(world.now + 0.05)
        places.append(world.add(host=f"45.{number}.0.1", boot=places[0]))
    world.run(world.now + 60)
    return world, places
