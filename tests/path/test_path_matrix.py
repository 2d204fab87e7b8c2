"""Eleven kinds of access against each other, in virtual time: who goes direct, how fast, at what cost."""

from __future__ import annotations

import statistics

import pytest

from meshcall.path.punch import BIRTHDAY_PROBES, BIRTHDAY_SOCKETS
from tests.path.nat_box import ADDRESS, EXACT, KINDS, NatKind
from tests.path.nat_world import ALL_KINDS, Device, World, box, home, meet, pair
from tests.path.nat_world import Relay as RelayNode

HARD = {"symmetric", "symseq", "cgnat-sym"}
RANDOM = {"symmetric", "cgnat-sym"}
PORT_FILTERED = {"firewall", "portrestricted", "linux", "cgnat"}


def expect(a: str, b: str) -> str:
    """direct, birthday, guess or relay."""
    if "udpblocked" in (a, b) or (a in HARD and b in HARD):
        return "relay"
    pair_of = {a, b}
    if pair_of & RANDOM and pair_of & PORT_FILTERED:
        return "birthday"
    return "guess" if pair_of & HARD and pair_of & PORT_FILTERED else "direct"


def time_to_direct(world: World, a: Device, b: Device, within: float = 6.0) -> float | None:
    """Seconds from the dial until both send directly."""
    start = world.now
    world.run(start + within)
    times = a.direct_at(), b.direct_at()
    return None if times[0] is None or times[1] is None else max(times[0], times[1]) - start


@pytest.mark.parametrize("kind_b", ALL_KINDS)
@pytest.mark.parametrize("kind_a", ALL_KINDS)
def test_each_pair_takes_its_path_in_time(kind_a: str, kind_b: str) -> None:
    world, a, b = pair(kind_a, kind_b)
    taken = time_to_direct(world, a, b)
    assert a.prober is not None
    assert b.prober is not None
    what = expect(kind_a, kind_b)
    if what == "relay":
        assert taken is None
        assert not a.is_direct()
        assert a.prober.best is not None
        assert b.prober.best is not None
        return
    assert taken is not None
    assert a.is_direct() and b.is_direct()
    assert taken <= {"direct": 0.4, "guess": 1.0, "birthday": 4.0}[what]
    if what == "direct":
        assert a.prober.counters["probes"] < 100
        assert a.most_sockets == b.most_sockets == 0


@pytest.mark.parametrize(("kind_a", "kind_b"), [("symmetric", "portrestricted"), ("linux", "cgnat-sym")])
def test_random_ports_are_met_within_four_seconds(kind_a: str, kind_b: str) -> None:
    times = []
    for seed in range(60):
        world, a, b = pair(kind_a, kind_b, seed)
        times.append(time_to_direct(world, a, b, 4.0))
        assert a.most_sockets + b.most_sockets <= BIRTHDAY_SOCKETS
        assert a.packets + b.packets < BIRTHDAY_PROBES + BIRTHDAY_SOCKETS + 200
    assert sum(each is not None for each in times) >= 57
    assert statistics.median(each if each is not None else 9.0 for each in times) < 1.5


@pytest.mark.parametrize("loss", [0.0, 0.05])
def test_a_sequential_nat_is_guessed_within_a_second(loss: float) -> None:
    times = []
    for seed in range(40):
        world, a, b = pair("linux", "symseq", seed, loss)
        times.append(time_to_direct(world, a, b))
    assert statistics.median(each if each is not None else 9.0 for each in times) <= 1.0
    assert sum(each is not None for each in times) >= 39


def test_a_busy_sequential_nat_is_guessed_at_the_second_look() -> None:
    world = World(3)
    relay = RelayNode(world)
    a = home(world, relay, "a", "portrestricted", 1, 7)
    b = home(world, relay, "b", "symseq", 2, 8)
    for device in (a, b):
        device.renew()
        device.look(6)
    world.run(1.0)
    assert b.box is not None
    for n in range(60):  # neighbours have taken more ports since the look than are guessed
        b.box.outbound(
            world.now, b.box.wan and bytes(b.address) + b"\x40\x00", bytes([198, 18, 9, n]) + b"\x1a\xe1", ("x",), False
        )  # type: ignore[arg-type]
    a.dial(b)
    taken = time_to_direct(world, a, b)
    assert taken is not None
    assert 0.4 < taken < 2.0


def test_random_against_random_sends_no_birthday_probe() -> None:
    world, a, b = pair("symmetric", "cgnat-sym")
    world.run(world.now + 8)
    assert a.most_sockets == b.most_sockets == 0
    assert a.packets < 60
    assert b.packets < 60


def test_on_one_lan_the_inner_address_wins_at_once() -> None:
    world = World()
    relay = RelayNode(world)
    shared = box(world, KINDS["linux"], b"\xcb\x00\x71\x50")
    a = Device(world, "a", "10.3.0.10", shared, relay, 1)
    b = Device(world, "b", "10.3.0.11", shared, relay, 2)
    meet(world, a, b)
    start = world.now
    taken = time_to_direct(world, a, b)
    assert taken is not None
    assert a.established_at is not None
    assert taken - (a.established_at - start) <= 0.1  # all the rest is the relayed handshake
    assert a.prober is not None and a.prober.best is not None
    assert a.prober.best[1:5] == b.address


@pytest.mark.parametrize(("hairpin", "direct"), [(True, True), (False, False)])
def test_behind_one_carrier(hairpin: bool, direct: bool) -> None:
    world = World()
    relay = RelayNode(world)
    carrier = box(world, NatKind(ports="random", hairpin=hairpin), b"\xcb\x00\x71\x52")
    ends = []
    for n in (1, 2):
        inner = box(world, KINDS["linux"], bytes([100, 64, 8, n]), carrier)
        ends.append(Device(world, f"cg{n}", f"10.4.{n}.10", inner, relay, n))
    meet(world, *ends)
    assert (time_to_direct(world, *ends) is not None) == direct
    assert ends[0].prober is not None and ends[0].prober.best is not None


def test_without_low_ttl_it_works_too() -> None:
    for kind_a, kind_b in (("linux", "portrestricted"), ("restricted", "symmetric"), ("portrestricted", "symmetric")):
        world = World(5)
        relay = RelayNode(world)
        ends = [home(world, relay, kind, kind, side, side) for side, kind in ((1, kind_a), (2, kind_b))]
        for each in ends:
            each.low_ttl = False
        meet(world, *ends)
        assert time_to_direct(world, *ends) is not None


def test_address_dependent_mappings_and_filters() -> None:
    for mapping in (ADDRESS, EXACT):
        for filtering in (0, ADDRESS):
            world = World(2)
            relay = RelayNode(world)
            a = home(world, relay, "a", "restricted", 1, 1)
            odd = box(world, NatKind(mapping, filtering, "random"), b"\xc6\x33\x64\x14")
            b = Device(world, "b", "10.2.0.10", odd, relay, 2)
            meet(world, a, b)
            taken = time_to_direct(world, a, b)
            assert taken is not None
            assert taken <= 0.4
