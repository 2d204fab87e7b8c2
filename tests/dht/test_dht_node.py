"""The DHT node among others, in virtual time: look-ups, writes, both families, NATs, death, loss, partitions."""

from __future__ import annotations

from typing import Any

import pytest

from meshcall.core import Endpoint, endpoint
from meshcall.dht.client import OPERATIONS_MAX
from meshcall.dht.config import DhtConfig
from meshcall.dht.events import (
    GetFinished,
    ItemFound,
    Joined,
    OutsideChanged,
    PeersFinished,
    PeersFound,
    PutFinished,
    ReachableChanged,
)
from meshcall.dht.items import ImmutableItem, MutableItem
from meshcall.dht.node import Dht
from meshcall.dht.node_id import fits_bep42
from meshcall.dht.reach import ASK_SECONDS, PROOF_LIFE_SECONDS
from meshcall.errors import UsageError
from meshcall.wire.bencode import decode, encode
from tests.dht.small_world import Nat, SmallWorld, grown


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


@pytest.fixture(scope="module")
def settled() -> tuple[SmallWorld, list[Endpoint]]:
    """A network for tests that leave it as it is, but for items under names of their own."""
    return grown(60, seed=4)


# Items and peers


def test_everybody_joins(settled: tuple[SmallWorld, list[Endpoint]]) -> None:
    world, places = settled
    assert world.joined() == len(places)
    assert all(len(events_of(world, where, Joined)) == 1 for where in places)


def test_a_mutable_item_is_found_with_and_without_salt(settled: tuple[SmallWorld, list[Endpoint]]) -> None:
    world, places = settled
    plain, salted = world.item(b"salty", 1, b"5:plain"), world.item(b"salty", 7, b"6:salted", b"salt")
    for item in (plain, salted):
        done = put(world, places[5], item)
        assert 8 <= done.stored <= 16
        assert done.errors == {}
    for item in (plain, salted):
        event = got(world, places[40], item.public, item.salt)
        assert event.item == item
        assert len(event.holders) == 8
        holders = [holder.endpoint for holder in event.holders]
        assert holders == [where for where in near(world, places, item.target) if where != places[40]][:8]


def test_an_immutable_value_is_found(settled: tuple[SmallWorld, list[Endpoint]]) -> None:
    world, places = settled
    item = ImmutableItem(encode([b"anything", {b"at": 1}]))
    assert put(world, places[1], item).stored >= 8
    event = world.finish(places[30], world.nodes[places[30]].get_immutable(world.now, item.target))
    assert isinstance(event, GetFinished)
    assert event.item == item


def test_what_nobody_has_is_not_found(settled: tuple[SmallWorld, list[Endpoint]]) -> None:
    world, places = settled
    event = got(world, places[2], b"nobody".ljust(32))
    assert event.item is None
    assert len(event.holders) == 8
    assert world.first(places[2], event.operation) is None


def test_the_report_says_what_it_cost(settled: tuple[SmallWorld, list[Endpoint]]) -> None:
    world, places = settled
    put(world, places[5], world.item(b"traced", 1, b"1:x"))
    report = got(world, places[9], b"traced".ljust(32, b"."), trace=True).report
    assert report.requests == len(report.steps)
    assert report.answers == sum(step.outcome in ("answered", "value", "late") for step in report.steps)
    assert 8 <= report.answers <= report.requests <= 20
    assert 1 <= report.hops <= 4
    for step in report.steps:
        assert step.took is None or 0.08 <= step.took <= 0.16
        assert step.node_id == world.nodes[step.endpoint].node_id()
    assert any(step.outcome == "value" and step.shared_bits >= 1 for step in report.steps)
    assert 0 < report.seconds < 1


def test_the_first_value_comes_at_once_and_the_highest_seq_at_the_end() -> None:
    world, places = grown(60, seed=6)
    old, new = world.item(b"carol", 1, b"3:old"), world.item(b"carol", 9, b"3:new")
    order = near(world, places, old.target)
    for where in order[:7]:
        world.nodes[where].server.items.put(world.now, where, old)
    world.nodes[order[7]].server.items.put(world.now, order[7], new)
    asker = order[-1]
    event = got(world, asker, old.public)
    assert event.item == new
    found = [each.item for each in events_of(world, asker, ItemFound) if each.operation == event.operation]
    assert found in ([old, new], [new])
    assert [item.seq for item in found] == sorted(item.seq for item in found)
    first = world.first(asker, event.operation)
    assert first is not None


def test_the_error_codes_of_others_are_reported(settled: tuple[SmallWorld, list[Endpoint]]) -> None:
    world, places = settled
    asker = places[12]
    assert put(world, places[11], world.item(b"codes", 5, b"4:five")).stored >= 8
    older = put(world, asker, world.item(b"codes", 4, b"4:four"))
    assert older.stored == 0
    assert set(older.errors) == {302}
    assert older.errors[302] >= 8
    other = put(world, asker, world.item(b"codes", 5, b"5:other"))
    assert (other.stored, set(other.errors)) == (0, {302})
    mismatch = put(world, asker, world.item(b"codes", 6, b"3:six"), cas=4)
    assert (mismatch.stored, set(mismatch.errors)) == (0, {301})
    assert put(world, asker, world.item(b"codes", 5, b"4:five")).stored >= 8
    match = put(world, asker, world.item(b"codes", 6, b"3:six"), cas=5)
    assert match.stored >= 8
    assert set(match.errors) <= {301}  # size estimates differ: a node beyond the first write's reach


def test_a_bad_token_is_reported_as_203(settled: tuple[SmallWorld, list[Endpoint]]) -> None:
    world, places = settled
    holders = got(world, places[20], b"tokens".ljust(32, b".")).holders
    bad = [type(holder)(holder.node_id, holder.endpoint, b"12345678") for holder in holders[:3]]
    done = put(world, places[20], world.item(b"tokens", 1, b"1:x"), holders=[*bad, *holders[3:]])
    assert (done.stored, done.errors) == (5, {203: 3})
    stranger = put(world, places[21], world.item(b"tokens", 2, b"1:y"), holders=holders)
    assert (stranger.stored, stranger.errors) == (0, {203: 8})


def test_holders_that_are_gone_are_reported_as_0() -> None:
    world, places = grown(30, seed=7)
    item = world.item(b"gone", 1, b"1:x")
    holders = got(world, places[3], item.public).holders
    world.dead |= {holder.endpoint for holder in holders[:2]}
    done = put(world, places[3], item, holders=holders)
    assert (done.stored, done.errors) == (6, {0: 2})
    assert done.report.seconds < 4
    assert (put(world, places[3], item, holders=[]).stored) == 0


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"value": encode(b"x" * 997)}, "1001"),
        ({"value": b"no bencode"}, "bencode"),
        ({"value": b"1:x" * 2}, "bencode"),
        ({"salt": b"s" * 65}, "salt"),
        ({"public": b"k"}, "Key"),
        ({"seq": -1}, "seq"),
        ({"seq": 2**63}, "seq"),
        ({"signature": bytes(64)}, "signature"),
    ],
)
def test_an_item_that_everybody_would_refuse_is_not_even_sent(
    settled: tuple[SmallWorld, list[Endpoint]], change: dict[str, Any], word: str
) -> None:
    world, places = settled
    good = {"public": b"k" * 32, "salt": b"", "seq": 1, "value": b"1:x"} | change
    signed = world.suite.sign(
        good["public"],
        (b"4:salt%d:%s" % (len(good["salt"]), good["salt"]) if good["salt"] else b"")
        + b"3:seqi%de1:v%s" % (good["seq"], good["value"]),
    )
    item = MutableItem(**({"signature": signed} | good))
    node = world.nodes[places[0]]
    with pytest.raises(UsageError, match=word):
        node.put(world.now, item)
    assert node.outbox == []


def test_commands_that_cannot_be_say_so(settled: tuple[SmallWorld, list[Endpoint]]) -> None:
    world, places = settled
    node = world.nodes[places[0]]
    with pytest.raises(UsageError):
        node.get_immutable(world.now, b"short")
    with pytest.raises(UsageError):
        node.get_mutable(world.now, b"")
    with pytest.raises(UsageError):
        node.get_mutable(world.now, bytes(32), b"s" * 65)
    with pytest.raises(UsageError):
        node.get_peers(world.now, bytes(21))
    for port in (0, 65536, -1):
        with pytest.raises(UsageError):
            node.announce(world.now, bytes(20), port)
    with pytest.raises(UsageError):
        node.put(world.now, world.item(b"cas", 1, b"1:x"), cas=-1)
    with pytest.raises(UsageError):
        Dht(0.0, rng=world.rng, verifier=world.suite, families=())
    assert node.outbox == []


def test_peers_announce_themselves_and_are_found(settled: tuple[SmallWorld, list[Endpoint]]) -> None:
    world, places = settled
    info_hash = b"a shared topic".ljust(20)
    for where, port in ((places[10], None), (places[11], 4242)):
        event = world.finish(where, world.nodes[where].announce(world.now, info_hash, port))
        assert isinstance(event, PutFinished)
        assert event.stored >= 8
    asker = places[50]
    event = world.finish(asker, world.nodes[asker].get_peers(world.now, info_hash))
    assert isinstance(event, PeersFinished)
    assert set(event.peers) == {places[10], Endpoint(places[11][:4] + (4242).to_bytes(2, "big"))}
    told = [peer for each in events_of(world, asker, PeersFound) for peer in each.peers]
    assert sorted(told) == sorted(event.peers)


def test_a_cancelled_operation_says_nothing_more(settled: tuple[SmallWorld, list[Endpoint]]) -> None:
    world, places = settled
    where = places[6]
    operation = world.nodes[where].get_mutable(world.now, b"cancel".ljust(32))
    world.drain(where)
    world.run(world.now + 0.1)
    world.nodes[where].cancel(operation)
    world.nodes[where].cancel(operation)
    before = len(world.events[where])
    world.run(world.now + 10)
    assert len(world.events[where]) == before


def test_as_many_operations_as_are_allowed_all_end(settled: tuple[SmallWorld, list[Endpoint]]) -> None:
    """Though they want more requests than may be under way at once."""
    world, places = settled
    where = places[15]
    node = world.nodes[where]
    wanted = [node.get_mutable(world.now, number.to_bytes(32, "big")) for number in range(OPERATIONS_MAX)]
    with pytest.raises(UsageError, match="operations"):
        node.get_mutable(world.now, bytes(32))
    world.drain(where)
    world.run(world.now + 120)
    ended = {event.operation: event for event in events_of(world, where, GetFinished)}
    assert set(wanted) <= set(ended)
    assert all(len(ended[operation].holders) == 8 for operation in wanted)
    assert node.status(world.now).operations == 0
    assert node.status(world.now).requests == 0


def test_the_status_tells_the_truth(settled: tuple[SmallWorld, list[Endpoint]]) -> None:
    world, places = settled
    status = world.nodes[places[33]].status(world.now)
    (family,) = status.families
    assert family.family == 4
    assert family.outside == places[33]
    assert 20 <= family.contacts <= 59
    assert family.size_estimate is not None
    assert 30 <= family.size_estimate <= 120
    assert status.operations == 0


# Both families


def test_a_network_of_ipv6_alone() -> None:
    world = SmallWorld(8)
    places = [world.add(host="2a00:0::1")]
    for number in range(1, 25):
        places.append(world.add(host=f"2a00:{number:x}::1", boot=places[0]))
    world.run(60)
    assert world.joined() == 25
    item = world.item(b"six", 1, b"1:6")
    assert put(world, places[3], item).stored >= 8
    assert got(world, places[20], item.public).item == item
    assert all(fits_bep42(world.nodes[where].node_id(6), where[:-2]) for where in places)


def test_both_families_at_once_through_a_bootstrap_address_of_one() -> None:
    """BEP 32: who speaks both asks for contacts of both."""
    world = SmallWorld(9)
    places = [world.add(host="45.0.0.1", also="2a00:0::1")]
    for number in range(1, 30):
        world.run(world.now + 0.1)
        places.append(world.add(host=f"45.{number}.0.1", also=f"2a00:{number:x}::1", boot=places[0]))
    world.nodes[places[1]].bootstrap(world.now, [endpoint("2a00:0::1", 6881)])
    world.drain(places[1])
    world.run(world.now + 120)
    for where in places:
        contacts = [family.contacts for family in world.nodes[where].status(world.now).families]
        assert min(contacts) >= 8, contacts
    item = world.item(b"both", 1, b"1:b")
    done = put(world, places[4], item)
    assert done.stored == 16
    event = got(world, places[25], item.public)
    assert event.item == item
    assert {len(holder.endpoint) for holder in event.holders} == {6, 18}


def test_an_item_put_over_ipv6_is_found_over_ipv4_where_nodes_have_both() -> None:
    world = SmallWorld(10)
    places = [world.add(host="45.0.0.1", also="2a00:0::1")]
    for number in range(1, 12):
        places.append(world.add(host=f"45.{number}.0.1", also=f"2a00:{number:x}::1", boot=places[0]))
    world.nodes[places[1]].bootstrap(world.now, [endpoint("2a00:0::1", 6881)])
    world.drain(places[1])
    world.run(60)
    only6 = world.add(host="2a00:ff::1", boot=endpoint("2a00:0::1", 6881))
    only4 = world.add(host="45.99.0.1", boot=places[0])
    world.run(90)
    item = world.item(b"cross", 1, b"1:c")
    assert put(world, only6, item).stored >= 8
    assert got(world, only4, item.public).item == item


# Read-only nodes, NATs, addresses


def test_a_read_only_node_says_so_answers_nobody_and_is_in_no_table() -> None:
    world, places = grown(20, seed=11)
    quiet = world.add(DhtConfig(reachable="no"), boot=places[0])
    world.wire = []
    world.run(world.now + 30)
    sent = [decode(data) for source, _, data in world.wire if source == quiet]
    assert sent
    assert all(message[b"y"] == b"q" and message[b"ro"] == 1 for message in sent)
    assert all(world.nodes[where].tables[4].at(quiet) is None for where in places)
    item = world.item(b"ro", 1, b"1:r")
    assert put(world, quiet, item).stored >= 8
    assert got(world, quiet, item.public).item == item
    world.nodes[places[3]].bootstrap(world.now, [quiet])
    world.drain(places[3])
    world.nodes[places[3]].client.ask(world.now, quiet, None, b"ping", {}, None, None)
    world.drain(places[3])
    world.run(world.now + 20)
    assert all(decode(data)[b"y"] == b"q" for source, _, data in world.wire if source == quiet)
    assert world.nodes[quiet].counters["query while read-only"] >= 1
    assert world.nodes[quiet].status(world.now).items == 0


def natted(forwarded: bool, seed: int = 12) -> tuple[SmallWorld, list[Endpoint], Endpoint, Nat]:
    """A public network and one node behind an address-restricted NAT, perhaps with a forwarded port."""
    world, places = public_world(40, seed)
    where = endpoint("203.0.113.50", 6881)
    nat = Nat(world, [where], [where] if forwarded else [])
    world.passes = nat
    assert world.add(host="203.0.113.50") == where
    world.nodes[where].set_local_addresses(world.now, [endpoint("192.168.1.2", 6881)])
    world.nodes[where].bootstrap(world.now, [places[0]])
    world.drain(where)
    return world, places, where, nat


def test_behind_a_nat_a_node_is_read_only() -> None:
    world, places, where, _ = natted(forwarded=False)
    world.run(world.now + 600)
    node = world.nodes[where]
    status = node.status(world.now)
    assert status.read_only
    assert status.families[0].outside == where
    assert status.families[0].mapping == "consistent"
    assert events_of(world, where, ReachableChanged) == [ReachableChanged(False)]
    assert all(world.nodes[each].tables[4].at(where) is None for each in places)
    item = world.item(b"nat", 1, b"1:n")
    assert put(world, where, item).stored >= 8
    assert got(world, places[7], item.public).item == item


def test_a_forwarded_port_is_proven_by_a_dial_back() -> None:
    world, places, where, _ = natted(forwarded=True)
    began = world.now
    world.wire = []
    world.run(world.now + 8 * ASK_SECONDS + 5)
    assert not world.nodes[where].status(world.now).read_only
    at = next(at for at, event in world.events[where] if event == ReachableChanged(True))
    assert at - began < 8 * ASK_SECONDS + 5
    dialled = [decode(data)[b"a"] for _, _, data in world.wire if b"mcdial" in data]
    assert dialled
    assert all(arguments[b"mcdial"] == where for arguments in dialled)
    world.run(world.now + 120)
    assert any(world.nodes[each].tables[4].at(where) is not None for each in places)


def test_the_proof_is_renewed_and_the_end_of_it_is_told() -> None:
    world, _, where, nat = natted(forwarded=True)
    world.run(world.now + 60)
    assert not world.nodes[where].status(world.now).read_only
    world.run(world.now + 3 * PROOF_LIFE_SECONDS)
    assert not world.nodes[where].status(world.now).read_only
    nat.forwarded.clear()
    world.run(world.now + 2 * PROOF_LIFE_SECONDS)
    assert world.nodes[where].status(world.now).read_only
    assert events_of(world, where, ReachableChanged)[-1] == ReachableChanged(False)


def test_without_a_nat_a_node_is_reachable_at_once() -> None:
    world, places = public_world(12)
    where = world.add(host="203.0.113.60")
    world.nodes[where].set_local_addresses(world.now, [where])
    world.nodes[where].bootstrap(world.now, [places[0]])
    world.drain(where)
    world.run(world.now + 10)
    status = world.nodes[where].status(world.now)
    assert status.reachable is True
    assert status.families[0].mapping == "none"


def test_ids_fit_public_addresses_and_change_with_them() -> None:
    world, places = public_world(30)
    for where in places:
        assert fits_bep42(world.nodes[where].node_id(), where[:-2])
    mover = places[7]
    node = world.nodes[mover]
    before = node.node_id()
    moved = endpoint("46.1.2.3", 6881)
    world.move(mover, moved)
    world.now += 1
    node.network_changed(world.now)
    world.drain(mover)
    assert events_of(world, mover, OutsideChanged)[-1] == OutsideChanged(4, None)
    world.run(world.now + 5)
    assert node.node_id() != before
    assert fits_bep42(node.node_id(), moved[:-2])
    assert events_of(world, mover, OutsideChanged)[-1] == OutsideChanged(4, moved)
    assert node.status(world.now).families[0].contacts >= 15
    item = world.item(b"moved", 1, b"1:m")
    assert put(world, mover, item).stored >= 8
    assert got(world, places[3], item.public).item == item


def test_after_a_change_of_id_the_new_neighbourhood_is_explored_at_once() -> None:
    """A node's own neighbours know it under its new ID within seconds: items near it are found there."""
    world, places = public_world(60, seed=13)
    newcomer = world.add(host="203.0.113.9", boot=places[0])
    world.run(world.now + 6)
    node = world.nodes[newcomer]
    assert fits_bep42(node.node_id(), newcomer[:-2])
    closest = near(world, places, node.node_id())[:8]
    known = {contact.endpoint for contact in node.tables[4].nearest(int.from_bytes(node.node_id(), "big"), 8)}
    assert len(known & set(closest)) >= 7


def test_a_configured_id_stays() -> None:
    world, places = public_world(12)
    where = world.add(DhtConfig(node_id=b"\x42" * 20), host="203.0.113.9", boot=places[0])
    world.run(world.now + 20)
    assert world.nodes[where].node_id() == b"\x42" * 20


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
    assert set(expected) <= {holder.endpoint for holder in results[0].holders}


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
