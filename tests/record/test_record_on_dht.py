"""Publisher and resolver on real DHT cores, in virtual time: two devices, one caller, forty nodes."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from meshcall.dht.events import GetFinished, ItemFound, PutFinished
from meshcall.record.events import RecordConfirmed, RecordFound, RecordPublished, ResolveFinished
from meshcall.record.publisher import Publisher
from meshcall.record.requests import Get
from meshcall.record.resolver import Resolver
from tests.dht.small_world import SmallWorld
from tests.record.record_world import NOON, OWNER, SUITE, device, lease

NODES = 40
STEP_SECONDS = 0.05


class DhtWorld:
    """A settled network of real DHT nodes, and askers on some of them."""

    def __init__(self, seed: int, loss: float = 0.0) -> None:
        self.world = SmallWorld(seed, loss=loss)
        self.world.suite = SUITE
        boot = self.world.add()
        self.places = [boot]
        for _ in range(NODES - 1):
            self.world.run(self.world.now + STEP_SECONDS)
            self.places.append(self.world.add(boot=boot))
        self.world.run(self.world.now + 20)
        self.askers: list[tuple[int, Publisher | Resolver]] = []
        self.asked: dict[tuple[int, int], tuple[Publisher | Resolver, int]] = {}

    @property
    def unix_time(self) -> float:
        return NOON + self.world.now

    def publisher(self, place: int) -> Publisher:
        made = Publisher(self.world.now, self.unix_time, key=OWNER.key, suite=SUITE, rng=Random(place))
        self.askers.append((place, made))
        return made

    def resolver(self, place: int) -> Resolver:
        made = Resolver(self.world.now, self.unix_time, public=OWNER.public, suite=SUITE)
        self.askers.append((place, made))
        return made

    def carry(self) -> None:
        now = self.world.now
        for place, asker in self.askers:
            where = self.places[place]
            node = self.world.nodes[where]
            due = asker.next_wake()
            if due is not None and due <= now:
                asker.wake(now, self.unix_time)
            requests, asker.requests = asker.requests, []
            for request in requests:
                if isinstance(request, Get):
                    operation = node.get_mutable(now, request.public, for_writing=isinstance(asker, Publisher))
                else:
                    operation = node.put(now, request.item, cas=request.cas, holders=request.holders)
                self.asked[place, operation] = (asker, request.tag)
            self.world.drain(where)
            events, self.world.events[where] = self.world.events[where], []
            for _, event in events:
                if isinstance(event, ItemFound | GetFinished | PutFinished):
                    who, tag = self.asked.get((place, event.operation), (None, 0))
                    if who is not None:
                        who.answered(now, self.unix_time, tag, event)

    def run(self, seconds: float) -> None:
        until = self.world.now + seconds
        while self.world.now < until:
            self.carry()
            self.world.run(self.world.now + STEP_SECONDS)
        self.carry()

    def kill(self, places: range) -> None:
        self.world.dead |= {self.places[place] for place in places}

    def look_up(self, place: int) -> tuple[RecordFound, ResolveFinished]:
        resolver = self.resolver(place)
        self.run(20)
        assert resolver.finished
        return resolver.events[0], resolver.events[-1]


def test_published_and_found():
    net = DhtWorld(1)
    publisher = net.publisher(3)
    publisher.set_entry(net.world.now, net.unix_time, replace(device(1), leases=(lease(1),)))
    net.run(20)
    assert [type(event) for event in publisher.events] == [RecordPublished, RecordConfirmed]
    assert publisher.events[0].stored >= 8
    found, end = net.look_up(20)
    assert found.seconds < 1.0
    assert (end.outcome, end.best) == ("found", found)
    assert found.record.devices[0].leases == (lease(1),)
    assert end.lookups[0].answered >= 8


def test_not_published():
    net = DhtWorld(2)
    _, end = net.look_up(5)
    assert (end.outcome, end.best) == ("not published", None)


def test_two_devices_with_packet_loss():
    net = DhtWorld(3, loss=0.05)
    one, two = net.publisher(3), net.publisher(30)
    one.set_entry(net.world.now, net.unix_time, device(1))
    two.set_entry(net.world.now, net.unix_time, device(2))
    net.run(60)
    one.set_entry(net.world.now, net.unix_time, replace(device(1), leases=(lease(1),)))
    two.set_entry(net.world.now, net.unix_time, replace(device(2), leases=(lease(2),)))
    net.run(60)
    _, end = net.look_up(15)
    assert [entry.leases for entry in end.best.record.devices] == [(lease(1),), (lease(2),)]
    assert one.up_to_date and two.up_to_date


def test_found_after_a_third_of_the_network_died():
    net = DhtWorld(4)
    publisher = net.publisher(3)
    publisher.set_entry(net.world.now, net.unix_time, device(1))
    net.run(20)
    net.kill(range(25, 39))
    _, end = net.look_up(20)
    assert end.outcome == "found"
    publisher.set_entry(net.world.now, net.unix_time, replace(device(1), capabilities=1))
    net.run(40)
    _, end = net.look_up(21)
    assert end.best.record.devices[0].capabilities == 1
