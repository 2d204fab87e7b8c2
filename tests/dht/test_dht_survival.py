"""The DHT node keeps and finds its network: restarts, dead contacts, broken lines, loss, partitions."""

from __future__ import annotations

import pytest

from meshcall.core import Endpoint, endpoint
from meshcall.dht.events import (
    GetFinished,
    Joined,
)
from meshcall.wire.bencode import encode
from tests.dht.small_world import SmallWorld, events_of, got, grown, near, put

# Keeping and finding the network


def test_contacts_are_restored_after_a_restart() -> None:
    world, places = grown(40, seed=14)
    saved = world.nodes[places[9]].good_contacts()
    assert len(saved) >= 20
    assert {where for _, where in saved} <= set(places)
    assert len(world.nodes[places[9]].good_contacts(5)) == 5
    fresh = world.add()
    world.nodes[fresh].restore(world.now, saved)
    world.drain(fresh)
    world.run(world.now + 5)
    assert events_of(world, fresh, Joined)
    item = world.item(b"restored", 1, b"1:r")
    assert put(world, fresh, item).stored >= 8


def test_damaged_saved_contacts_are_passed_over() -> None:
    world = SmallWorld(15)
    where = world.add()
    broken = [(b"short", endpoint("10.9.9.9", 1)), (bytes(20), Endpoint(b"12345")), (b"x" * 20, Endpoint(bytes(6)))]
    world.nodes[where].restore(world.now, [*broken, (b"y" * 20, endpoint("2001:db8::1", 1))])
    assert world.nodes[where].tables[4].empty


@pytest.mark.parametrize("order", ["restore first", "bootstrap first", "together"])
def test_a_node_whose_saved_contacts_are_all_dead_joins_by_its_bootstrap_address(order: str) -> None:
    world, places = grown(12, seed=16)
    fresh = world.add()
    node = world.nodes[fresh]
    dead = [(bytes([number]) * 20, endpoint(f"10.7.0.{number + 1}", 6881)) for number in range(30)]
    if order == "restore first":
        node.restore(world.now, dead)
        world.drain(fresh)
        world.run(world.now + 20)
    node.bootstrap(world.now, [places[0]])
    if order != "restore first":
        if order == "bootstrap first":
            world.drain(fresh)
        node.restore(world.now, dead)
    world.drain(fresh)
    world.run(world.now + 4)
    assert events_of(world, fresh, Joined)
    world.run(world.now + 30)
    assert node.status(world.now).families[0].contacts >= 8


def test_the_dead_leave_a_table_although_nobody_looks_anything_up() -> None:
    world, places = grown(40, seed=27)
    world.run(world.now + 60)
    world.dead = set(places[20:])
    world.run(world.now + 3600)
    for where in places[:20]:
        known = {contact.endpoint for contact in world.nodes[where].tables[4].contacts()}
        assert not known & world.dead
        assert len(known) >= 15


def test_a_node_that_lost_everybody_finds_the_network_again() -> None:
    world, places = grown(20, seed=17)
    lone = places[4]
    node = world.nodes[lone]
    world.dead |= set(places) - {lone}
    for each in range(5):
        world.finish(lone, node.get_mutable(world.now, bytes([each]) * 32))
    world.run(world.now + 600)
    sent = world.sent[lone]
    world.run(world.now + 600)
    assert world.sent[lone] - sent < 600  # with growing pauses
    other = SmallWorld(18)
    del other
    world.dead.discard(places[0])
    began = world.now
    world.run(world.now + 120)
    assert node.tables[4].at(places[0]) is not None
    assert node.tables[4].at(places[0]).seen > began  # type: ignore[union-attr]


def test_a_node_whose_contacts_all_died_turns_to_its_bootstrap_address() -> None:
    """Even though they still stand in its table, as nobody is left who could show that the line is up."""
    world, places = grown(40, seed=19)
    lone = places[7]
    node = world.nodes[lone]
    fresh_boot = world.add()
    newcomers = [world.add(boot=fresh_boot) for _ in range(10)]
    world.dead |= set(places) - {lone}
    world.run(world.now + 1)
    node.bootstrap(world.now, [fresh_boot])
    world.drain(lone)
    world.run(world.now + 1)
    # from now on nobody tells it; it is asked to look something up
    item = world.item(b"new world", 1, b"1:n")
    assert put(world, newcomers[3], item).stored >= 8
    world.run(world.now + 60)
    assert got(world, lone, item.public).item == item


def test_a_line_that_is_down_does_not_empty_the_table() -> None:
    world, places = grown(40, seed=20)
    lone = places[6]
    node = world.nodes[lone]
    item = world.item(b"line", 1, b"1:l")
    put(world, places[2], item)
    before = node.tables[4].size
    world.passes = lambda source, target: lone not in (source, target)
    for each in range(20):
        event = world.finish(lone, node.get_mutable(world.now, bytes([each]) * 32))
        assert isinstance(event, GetFinished)
        assert event.item is None
        world.run(world.now + 60)
    assert node.tables[4].size >= before
    world.passes = None
    event = got(world, lone, item.public)
    assert event.item == item
    assert event.report.seconds < 3


@pytest.mark.parametrize("count", [3, 6, 30])
def test_after_a_short_break_of_the_line_look_ups_work_at_once(count: int) -> None:
    """Those who seemed silent during the break are asked again when there is nobody else."""
    world, places = grown(count, seed=21)
    lone = places[1]
    node = world.nodes[lone]
    item = world.item(b"break", 1, b"1:b")
    assert put(world, places[2], item).stored >= min(count - 1, 8)
    world.passes = lambda source, target: lone not in (source, target)
    node.get_mutable(world.now, b"q" * 32)
    world.drain(lone)
    world.run(world.now + 0.6)
    world.passes = None
    node.client.ask(world.now, places[0], None, b"ping", {}, None, None)
    world.drain(lone)
    world.run(world.now + 8)
    assert got(world, lone, item.public).item == item


def test_network_changed_forgets_what_was_measured() -> None:
    world, places = grown(20, seed=22)
    node = world.nodes[places[3]]
    assert node.client.round_trips.samples
    assert node.status(world.now).families[0].outside == places[3]
    node.network_changed(world.now)
    assert not node.client.round_trips.samples
    assert node.status(world.now).families[0].outside is None
    world.drain(places[3])
    world.run(world.now + 3)
    assert node.status(world.now).families[0].outside == places[3]


# Death, loss, partition


@pytest.mark.parametrize(("share", "found"), [(0.3, 40), (0.5, 39)])
def test_sudden_death_of_a_share(share: float, found: int) -> None:
    world, places = grown(150, seed=23)
    items = [world.item(b"death%d" % number, 1, b"1:d") for number in range(40)]
    for number, item in enumerate(items):
        assert put(world, places[number], item).stored >= 8
    world.dead = set(world.rng.sample(places, int(len(places) * share)))
    living = [where for where in places if where not in world.dead]
    results = [got(world, living[number % len(living)], item.public) for number, item in enumerate(items)]
    assert sum(event.item == item for event, item in zip(results, items, strict=True)) >= found
    firsts = []
    for number, event in enumerate(results):
        first = world.first(living[number % len(living)], event.operation)
        if first is not None:
            firsts.append(first)
    assert max(event.report.seconds for event in results) < 5
    assert all(len(event.holders) >= 8 for event in results)
    ends_on = near(world, living, items[0].target)
    asker = living[0]
    expected = [where for where in ends_on if where != asker][:6]
    # where half of those who know the neighbourhood have gone, one of the nearest may stay unknown
    assert len(set(expected) & {holder.endpoint for holder in results[0].holders}) >= 5


def test_five_per_cent_of_all_datagrams_lost() -> None:
    world, places = grown(80, seed=24)
    world.loss = 0.05
    for number in range(30):
        item = world.item(b"loss%d" % number, 1, b"1:l")
        done = put(world, places[number], item)
        assert done.stored >= 8
        assert done.report.seconds < 3
        event = got(world, places[79 - number], item.public)
        assert event.item == item
        assert event.report.seconds < 3


def test_a_partition_heals() -> None:
    world, places = grown(60, seed=25)
    item = world.item(b"split", 1, b"1:s")
    assert put(world, places[0], item).stored >= 8
    left, right = set(places[:30]), set(places[30:])
    world.passes = lambda source, target: (source in left) == (target in left)
    world.run(world.now + 600)
    for side, name in ((left, b"left"), (right, b"right")):
        some = sorted(side)
        inside = world.item(name, 1, encode(name))
        assert put(world, some[1], inside).stored >= 8
        assert got(world, some[-1], inside.public).item == inside
    newer = world.item(b"split", 2, b"1:t")
    assert put(world, sorted(left)[3], newer).stored >= 8
    world.passes = None
    world.run(world.now + 1200)
    for where in (places[5], places[35], places[55]):
        for name in (b"left", b"right"):
            assert got(world, where, name.ljust(32, b".")).item == world.item(name, 1, encode(name))
        assert got(world, where, item.public).item == newer


def test_one_seed_gives_one_course() -> None:
    def course() -> list[tuple[Endpoint, Endpoint, bytes]]:
        world = SmallWorld(26, loss=0.02)
        world.wire = []
        boot = world.add()
        for _ in range(12):
            world.add(boot=boot)
        world.run(20)
        put(world, boot, world.item(b"same", 1, b"1:s"))
        return world.wire

    assert course() == course()
