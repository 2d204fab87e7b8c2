"""Virtual time, people with several devices, and a pretend DHT of a few nodes that keep BEP 44's rules."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import replace
from random import Random

from meshcall.core import Endpoint, endpoint
from meshcall.crypto.sodium import Sodium
from meshcall.dht.events import GetFinished, Holder, PutFinished, Report
from meshcall.dht.items import MutableItem
from meshcall.identity import Device, Identity
from meshcall.record.blinding import blinded_public
from meshcall.record.period import period_at, period_start
from meshcall.record.publisher import Publisher
from meshcall.record.requests import Get, Put
from meshcall.record.seal import device_entry, open_item
from meshcall.wire.record import DeviceEntry, Record, RelayLease

SUITE = Sodium()
OWNER = Identity.from_seed(SUITE, bytes(range(32)))
STRANGER = Identity.from_seed(SUITE, b"\x07" * 32)
PERIOD = 20_000
START = float(period_start(OWNER.public, PERIOD))
"""The Unix time at which period 20000 of OWNER begins."""
NOON = START + 12 * 3600
NO_REPORT = Report(0.1, 8, 8, 2)
ITEM_LIFE_SECONDS = 7200


def device(serial: int, owner: Identity = OWNER, unix_time: float = NOON) -> DeviceEntry:
    """A certified device whose keys follow from its serial."""
    made = Device.from_secret(SUITE, serial.to_bytes(4, "big") * 8, serial)
    return replace(device_entry(made.certify(SUITE, owner, unix_time)), time=int(unix_time))


def lease(number: int, *, v4: bool = True, v6: bool = False, tcp_port: int | None = 443) -> RelayLease:
    """A lease that follows from its number (1 to 255)."""
    return RelayLease(
        bytes([number]) * 32,
        bytes([number]) * 8,
        endpoint(f"192.0.2.{number}", 6881) if v4 else None,
        endpoint(f"2001:db8::{number:x}", 6881) if v6 else None,
        tcp_port=tcp_port,
    )


class FakeDht:
    """Nodes that each hold at most one item per key.  Every look-up asks all of them."""

    def __init__(self, rng: Random, nodes: int = 8) -> None:
        self.rng = rng
        self.loss = 0.0
        """Share of requests to single nodes that get lost."""
        self.down = False
        self.stores: list[dict[bytes, tuple[float, MutableItem]]] = [{} for _ in range(nodes)]
        self.puts: list[tuple[float, MutableItem]] = []

    def heard(self) -> list[int]:
        return [node for node in range(len(self.stores)) if not self.down and self.rng.random() >= self.loss]

    def get(self, now: float, public: bytes) -> GetFinished:
        nodes = self.heard()
        items = [held[1] for node in nodes if (held := self.stores[node].get(public)) and held[0] > now]
        best = max(items, key=lambda item: item.seq, default=None)
        holders = tuple(Holder(bytes([node]) * 20, where(node), b"token") for node in nodes)
        return GetFinished(0, best, holders, NO_REPORT)

    def put(self, now: float, request: Put) -> PutFinished:
        nodes = set(self.heard())
        stored, errors = 0, {}
        self.puts.append((now, request.item))
        for holder in request.holders:
            node = holder.node_id[0]
            error = 0 if node not in nodes else self.refusal(now, node, request)
            if error is None:
                self.stores[node][request.item.public] = (now + ITEM_LIFE_SECONDS, request.item)
                stored += 1
            else:
                errors[error] = errors.get(error, 0) + 1
        return PutFinished(0, stored, errors, NO_REPORT)

    def refusal(self, now: float, node: int, request: Put) -> int | None:
        held = self.stores[node].get(request.item.public)
        if held is None or held[0] <= now:
            return None
        if request.cas is not None and request.cas != held[1].seq:
            return 301
        older = request.item.seq < held[1].seq
        return 302 if older or (request.item.seq == held[1].seq and request.item.value != held[1].value) else None


def where(node: int) -> Endpoint:
    return endpoint(f"192.0.2.{node + 1}", 6881)


class Peer:
    """One device: its publisher and its clock, which may be wrong."""

    def __init__(self, world: World, serial: int, clock_error: float) -> None:
        self.world = world
        self.clock_error = clock_error
        self.entry: DeviceEntry | None = device(serial)
        self.publisher = Publisher(world.now, self.unix_time, key=OWNER.key, suite=SUITE, rng=Random(serial))
        self.events: list[object] = []
        self.armed: float | None = None

    @property
    def unix_time(self) -> float:
        return self.world.unix_time + self.clock_error

    def publish(self, entry: DeviceEntry | None) -> None:
        self.entry = entry
        self.publisher.set_entry(self.world.now, self.unix_time, entry)
        self.drain()

    def wake(self, due: float) -> None:
        if due != self.armed:
            return  # an earlier one has taken its place
        self.armed = None
        self.publisher.wake(self.world.now, self.unix_time)
        self.drain()

    def drain(self) -> None:
        world = self.world
        for request in self.publisher.requests:
            world.later(world.rng.uniform(0.05, 0.5), lambda request=request: self.carry(request))
        self.publisher.requests.clear()
        self.events += self.publisher.events
        self.publisher.events.clear()
        due = self.publisher.next_wake()
        if due is not None and (self.armed is None or due < self.armed):
            self.armed = due
            world.later(max(0.0, due - world.now), lambda: self.wake(due))

    def carry(self, request: Get | Put) -> None:
        world = self.world
        if world.swallow:
            return
        answer = (
            world.dht.get(world.now, request.public) if isinstance(request, Get) else world.dht.put(world.now, request)
        )
        world.later(world.rng.uniform(0.05, 0.5), lambda: self.hand(request.tag, answer))

    def hand(self, tag: int, answer: GetFinished | PutFinished) -> None:
        self.publisher.answered(self.world.now, self.unix_time, tag, answer)
        self.drain()


class World:
    """Everything, in virtual time that begins at a chosen Unix time."""

    def __init__(self, unix_time: float = NOON, seed: int = 1) -> None:
        self.now = 1000.0
        self.offset = unix_time - self.now
        self.rng = Random(seed)
        self.dht = FakeDht(self.rng)
        self.swallow = False
        """Requests vanish, no answer ever comes."""
        self.turns = 0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0

    @property
    def unix_time(self) -> float:
        return self.now + self.offset

    def later(self, seconds: float, what: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._heap, (self.now + seconds, self._order, what))

    def peer(self, serial: int, clock_error: float = 0.0) -> Peer:
        return Peer(self, serial, clock_error)

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while self._heap and self._heap[0][0] <= until:
            self.now, _, what = heapq.heappop(self._heap)
            self.turns += 1
            assert self.turns < 200_000, "this never comes to rest"
            what()
        self.now = until

    def newest(self, period: int | None = None) -> Record | None:
        """What a caller with a right clock reads now."""
        period = period_at(OWNER.public, self.unix_time) if period is None else period
        public = blinded_public(SUITE, OWNER.public, period)
        items = [held[1] for store in self.dht.stores if (held := store.get(public)) and held[0] > self.now]
        if not items:
            return None
        item = max(items, key=lambda item: item.seq)
        return open_item(SUITE, OWNER.public, period, item, self.unix_time)

    def listed(self, period: int | None = None) -> list[int]:
        """The serials of the devices in it."""
        record = self.newest(period)
        return [] if record is None else [entry.serial for entry in record.devices]
