"""An idle link: keep-alives as rare as the NAT in front allows, learned by observing."""

from __future__ import annotations

import pytest

from meshcall.path.life import LIFE_LEAST_SECONDS, LIFE_MOST_SECONDS, MappingLife
from meshcall.path.paths import is_relayed
from tests.path.nat_box import KINDS
from tests.path.nat_world import Device, Relay, World, box, home, meet

HOUR = 3600.0


def idle_pair(life: float, kind: str = "portrestricted") -> tuple[World, Device, Device]:
    """A behind a NAT whose mappings live so long, B public; linked and direct, nothing said since."""
    world = World(9)
    relay = Relay(world)
    a = Device(world, "a", "10.1.0.10", box(world, KINDS[kind], b"\xcb\x00\x71\x14", life=life), relay, 1)
    b = home(world, relay, "b", "public", 2, 2)
    meet(world, a, b)
    world.run(world.now + 5)
    assert a.is_direct() and b.is_direct()
    return world, a, b


@pytest.mark.parametrize("life", [20.0, 30.0, 60.0, 120.0, 300.0])
def test_the_direct_path_outlives_an_idle_hour(life: float) -> None:
    world, a, b = idle_pair(life)
    world.run(world.now + HOUR / 2)
    deaths = a.life.deaths
    settled = a.life.safe()
    assert min(life * 0.5, 100) <= settled <= life
    world.run(world.now + HOUR / 2)
    assert a.life.deaths - deaths <= 2
    assert a.is_direct() and b.is_direct()
    a.talk(world.now + 2)
    b.talk(world.now + 2)
    start = world.now
    world.run(start + 2)
    assert a.gap(start) <= 0.3
    assert b.gap(start) <= 0.3


def test_an_idle_link_costs_little() -> None:
    world, a, b = idle_pair(120.0)
    world.run(world.now + 600)
    sent = a.packets_while(HOUR)
    # probes and answers of at most 90 bytes with all headers
    assert sent * 90 * 8 / HOUR < 100, f"{sent} packets in an hour"
    assert b.prober is not None and b.prober.second is not None and is_relayed(b.prober.second)


def test_a_mapping_found_dead_while_idle_is_opened_again() -> None:
    world, a, b = idle_pair(120.0)
    assert a.box is not None
    a.box.forget()
    world.run(world.now + 300)
    assert a.is_direct() and b.is_direct()
    assert a.prober is not None
    assert a.prober.counters["rebound"] == 1


def test_learning_in_numbers() -> None:
    life = MappingLife()
    assert life.safe() == 20.0
    for _ in range(20):
        gap = life.trial()
        (life.survived if gap <= 65 else life.died)(gap)
    assert 55 <= life.safe() <= 65 or 65 * 0.8 <= life.safe() <= 65
    assert life.trial() == life.safe(), "no more trials"
    life.forget()
    for _ in range(20):
        life.survived(life.trial())
    assert life.safe() == LIFE_MOST_SECONDS
    life.forget()
    for _ in range(20):
        life.died(life.trial())
    assert life.safe() == LIFE_LEAST_SECONDS


def test_a_restart_of_the_router_does_not_shorten_keep_alives() -> None:
    life = MappingLife()
    life.survived(60.0)
    life.died(1.0)
    assert life.safe() == 60.0
