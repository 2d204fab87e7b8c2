"""The DHT node among others, in virtual time: look-ups, writes, reports, both address families."""

from __future__ import annotations

from typing import Any

import pytest

from meshcall.core import Endpoint, endpoint
from meshcall.dht.client import OPERATIONS_MAX
from meshcall.dht.events import (
    GetFinished,
    ItemFound,
    Joined,
    PeersFinished,
    PeersFound,
    PutFinished,
)
from meshcall.dht.items import ImmutableItem, MutableItem
from meshcall.dht.node import Dht
from meshcall.dht.node_id import fits_bep42
from meshcall.errors import UsageError
from meshcall.wire.bencode import encode
from tests.dht.small_world import SmallWorld, events_of, got, grown, near, put


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


def test_while_paused_a_node_sends_nothing_of_itself_and_goes_on_afterwards() -> None:
    world, places = grown(20, seed=9)
    node = world.nodes[places[3]]
    node.is_paused = True
    asked = world.sent[places[3]]
    world.run(world.now + 120)
    assert node.counters["query while paused"] > 0, "others asked"
    assert world.sent[places[3]] == asked
    event = got(world, places[3], b"still asks".ljust(32))
    assert len(event.holders) == 8, "what is wanted is done"
    node.is_paused = False
    asked = world.sent[places[3]]
    world.run(world.now + 120)
    assert world.sent[places[3]] > asked


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
