"""Read-only nodes, NATs and the proof of being reachable, node IDs bound to addresses."""

from __future__ import annotations

from meshcall.core import Endpoint, endpoint
from meshcall.dht.config import DhtConfig
from meshcall.dht.events import (
    OutsideChanged,
    ReachableChanged,
)
from meshcall.dht.node_id import fits_bep42
from meshcall.dht.reach import ASK_SECONDS, PROOF_LIFE_SECONDS
from meshcall.wire.bencode import decode
from tests.dht.small_world import Nat, SmallWorld, events_of, got, grown, near, public_world, put


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


def natted(forwarded: bool, seed: int = 12, nodes: int = 90) -> tuple[SmallWorld, list[Endpoint], Endpoint, Nat]:
    """A public network and one node behind an address-restricted NAT, perhaps with a forwarded port.

    The network is so large that the node leaves most of it alone: whom it has asked proves nothing."""
    world, places = public_world(nodes if forwarded else 40, seed)
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
