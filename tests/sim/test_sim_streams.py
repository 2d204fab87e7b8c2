"""TCP in the simulator: order, loss, ends; and people in networks that bar UDP who call and are called."""

from __future__ import annotations

from random import Random

import pytest

from meshcall.core import Endpoint
from meshcall.relay.places import Place, connection_of_place, tcp_place
from meshcall.sim.access import ACCESS_KINDS, BARS_UDP, new_place
from meshcall.sim.callrun import CallRun
from meshcall.sim.device import Device
from meshcall.sim.nat import Expiry
from meshcall.sim.scenario import Weather, load, parse
from meshcall.sim.streams import RETRANSMIT_SECONDS, TCP_PORT, Streams
from meshcall.sim.world import BIRTH_SECONDS, World
from tests.sim.test_sim_calls import by_pair, result, small


class Ear:
    """In the place of a node: hears and says nothing of its own."""

    def __init__(self) -> None:
        self.outbox: list[tuple[Endpoint, bytes]] = []
        self.events: list[object] = []
        self.counters: dict[str, int] = {}
        self.heard: list[tuple[float, Place, bytes]] = []
        self.lost: list[Place] = []

    def set_local_addresses(self, now: float, endpoints: list[Endpoint]) -> None:
        pass

    def network_changed(self, now: float) -> None:
        pass

    def receive(self, now: float, source: Endpoint, data: bytes) -> None:
        self.heard.append((now, Place(source), data))

    def receive_tcp(self, now: float, place: Place, data: bytes) -> None:
        self.heard.append((now, place, data))

    def tcp_gone(self, now: float, place: Place) -> None:
        self.lost.append(place)

    def next_wake(self) -> None:
        return None


class Pair:
    """A device that reaches nothing but TCP, and a public relay."""

    def __init__(self) -> None:
        scenario = parse('title = "x"\n[world]\nmodel = "flat"\ndelay_ms = [20, 20]', "test")
        self.world = World(scenario, 4, 1)
        self.streams = Streams(self.world.network, self.world.schedule)
        self.ears = [Ear(), Ear()]
        self.device, self.relay = (
            Device(
                self.world,
                number,
                new_place(self.world, kind, Random(number), Expiry(120)),
                6881,
                self.said,
                self.streams,
            )
            for number, kind in ((1001, "tcp only"), (1002, "public"))
        )
        for device, ear in zip((self.device, self.relay), self.ears, strict=True):
            device.run(BIRTH_SECONDS, ear)  # type: ignore[arg-type]
        where = Endpoint(self.relay.endpoint[:4] + TCP_PORT.to_bytes(2, "big"))
        self.streams.listeners[where] = self.relay
        self.place = tcp_place(where, 0)

    def said(self, now: float, device: Device, event: object) -> None:
        raise AssertionError("ears say nothing")

    def send(self, device: Device, way: Place, *datagrams: bytes) -> None:
        ear = self.ears[0] if device is self.device else self.ears[1]
        ear.outbox += [(Endpoint(way), data) for data in datagrams]
        device.drain(self.world.schedule.now)

    def run(self, seconds: float) -> None:
        self.world.schedule.run(self.world.schedule.now + seconds)

    def seen(self) -> Place:
        """The device's place, as the relay knows it."""
        return self.ears[1].heard[-1][1]


def test_a_connection_opens_in_a_round_trip_and_keeps_the_order_both_ways() -> None:
    pair = Pair()
    began = pair.world.schedule.now
    pair.send(pair.device, pair.place, b"1", b"2", b"3")
    pair.run(1.0)
    assert [data for _, _, data in pair.ears[1].heard] == [b"1", b"2", b"3"]
    assert pair.ears[1].heard[0][0] - began == pytest.approx(0.06, abs=0.002)
    place = pair.seen()
    assert connection_of_place(place)
    assert place[:4] == pair.device.place.outer, "the box's address, not the one inside"
    before = pair.world.schedule.now
    pair.send(pair.relay, place, *(b"%d" % number for number in range(100)))
    pair.run(1.0)
    assert [data for _, _, data in pair.ears[0].heard] == [b"%d" % number for number in range(100)]
    assert pair.ears[0].heard[0][0] - before == pytest.approx(0.02, abs=0.002)
    assert all(place == pair.place for _, place, _ in pair.ears[0].heard)
    assert pair.streams.opened == 1


def test_udp_goes_neither_out_nor_in() -> None:
    pair = Pair()
    pair.send(pair.device, Place(pair.relay.endpoint), b"a datagram")
    pair.send(pair.relay, Place(Endpoint(pair.device.place.outer + b"\x1a\xe1")), b"a datagram")
    pair.run(1.0)
    assert not pair.ears[0].heard
    assert not pair.ears[1].heard
    assert pair.device.counters["barred"] == 1


def test_what_is_lost_comes_later_and_holds_up_what_follows() -> None:
    pair = Pair()
    pair.send(pair.device, pair.place, b"open")
    pair.run(1.0)
    pair.world.network.become(Weather(loss=0.2))
    began = pair.world.schedule.now
    pair.send(pair.device, pair.place, *(b"%d" % number for number in range(200)))
    pair.run(60.0)
    heard = pair.ears[1].heard[1:]
    assert [data for _, _, data in heard] == [b"%d" % number for number in range(200)], "all, in order"
    assert heard[-1][0] - began > RETRANSMIT_SECONDS


def test_a_network_that_lets_nothing_pass_ends_the_connection() -> None:
    pair = Pair()
    pair.send(pair.device, pair.place, b"open")
    pair.run(1.0)
    pair.world.network.become(Weather(loss=1.0))
    pair.send(pair.device, pair.place, b"anybody?")
    pair.run(120.0)
    assert pair.ears[0].lost == [pair.place]
    pair.world.network.become(Weather())
    pair.send(pair.device, pair.place, b"again")
    pair.run(1.0)
    assert pair.ears[1].heard[-1][2] == b"again"
    assert pair.streams.opened == 2


def test_a_relay_that_is_off_says_nothing_and_one_that_started_again_ends_old_connections() -> None:
    pair = Pair()
    pair.send(pair.device, pair.place, b"open")
    pair.run(1.0)
    pair.relay.run(pair.world.schedule.now, None)
    pair.send(pair.device, pair.place, b"hello?")
    pair.run(5.0)
    assert not pair.ears[0].lost
    fresh = pair.ears[1] = Ear()
    pair.relay.run(pair.world.schedule.now, fresh)  # type: ignore[arg-type]
    pair.send(pair.device, pair.place, b"hello?")
    pair.run(1.0)
    assert pair.ears[0].lost == [pair.place]
    assert not fresh.heard
    pair.send(pair.device, pair.place, b"a new one")
    pair.run(1.0)
    assert [data for _, _, data in fresh.heard] == [b"a new one"]


def test_who_moves_has_no_connection_any_more() -> None:
    pair = Pair()
    pair.send(pair.device, pair.place, b"open")
    pair.run(1.0)
    old = pair.seen()
    pair.device.move(pair.world.schedule.now, new_place(pair.world, "tcp only", Random(9), Expiry(120)))
    pair.run(1.0)
    assert pair.ears[0].lost == [pair.place]
    pair.send(pair.relay, old, b"to the old place")
    pair.send(pair.device, pair.place, b"from the new one")
    pair.run(1.0)
    assert not pair.ears[0].heard
    assert pair.seen()[:4] == pair.device.place.outer != old[:4]


def test_people_without_udp_call_and_are_called_through_relays() -> None:
    results = result(small(1, '"tcp only" = 1\n"full cone" = 1\nsymmetric = 1', 'pattern = "matrix"\ncall_seconds = 8'))
    pairs = by_pair(results)
    assert len(pairs) == 9
    assert results["checks"]["sentences"] == []
    for pair, said in pairs.items():
        assert said["relayed" if "tcp only" in pair or pair == ("symmetric",) * 2 else "direct"] == 1, pair
    assert results["devices"]["barred"] > 0


def test_people_without_udp_move_and_relays_die_and_their_calls_go_on() -> None:
    events = '[[event]]\nat = 0.2\nkind = "move"\nshare = 1.0\n'
    events += '[[event]]\nat = 0.5\nkind = "kill relays"\nshare = 0.34\n'
    results = result(small(4, '"tcp only" = 1', "call_seconds = 60\nmust_connect = false", events))
    (group,) = results["calls"].values()
    assert group["struck"] >= 2
    assert group["outcomes"]["relayed"] >= 1
    assert group["gap_ms"]["least"] < 10_000


def test_the_mixed_internet_holds_a_share_of_them_and_no_other_kind_bars_udp() -> None:
    name, scenario = load("mixed_internet")
    assert scenario.calls is not None
    assert sum(scenario.calls.access.values()) == 100
    assert 1 <= scenario.calls.access["tcp only"] <= 5
    assert frozenset(ACCESS_KINDS) > BARS_UDP
    run = CallRun(name, scenario, nodes=8)
    assert {member.kind for member in run.callers.people if member.device.place.bars_udp} <= BARS_UDP
