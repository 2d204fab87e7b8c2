"""The node as one core: sorting, look-ups, publication, other networks, outages."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshcall.address import Link
from meshcall.core import endpoint
from meshcall.crypto.sodium import Sodium
from meshcall.dht.events import GetFinished
from meshcall.errors import AddressError, UsageError
from meshcall.identity import CERTIFICATE_LIFE_SECONDS, Identity
from meshcall.node import LOOKUPS_MAX, LookupEvent, Node
from meshcall.node.core import HELD_SECONDS
from meshcall.peers.narrow import NARROW_SECONDS
from meshcall.record.events import PublishFailed, RecordFound, RecordPublished, ResolveFinished
from meshcall.wire.path import Kind
from tests.calls.call_world import CallWorld
from tests.node.node_world import DELAY_SECONDS, NodeWorld


def _world(size: int = 12) -> NodeWorld:
    world = NodeWorld()
    world.swarm(size)
    return world


def _look_up(world: NodeWorld, number: int, identity: Identity, seconds: float = 10.0) -> ResolveFinished:
    lookup = world.nodes[number].lookup(world.now, Link(identity.public), trace=True)
    world.drain(number)
    world.run(seconds)
    events = [said for _, said in world.said(number, LookupEvent)]
    finished = [said.event for said in events if isinstance(said, LookupEvent) and said.lookup == lookup]
    assert isinstance(finished[-1], ResolveFinished)
    return finished[-1]


def test_published_and_found_from_the_other_side() -> None:
    world = _world()
    identity = world.person(3)
    world.run(10)
    assert world.said(3, RecordPublished)
    result = _look_up(world, 9, identity)
    assert result.outcome == "found"
    assert result.best is not None
    assert [device.static for device in result.best.record.devices] == [world.devices[3].public]
    assert result.lookups[0].report is not None
    assert result.lookups[0].report.steps, "the trace was asked for"
    assert result.seconds < 10 * DELAY_SECONDS


def test_the_first_record_is_told_at_once_and_the_end_follows() -> None:
    world = _world()
    identity = world.person(3)
    world.run(10)
    _look_up(world, 5, identity)
    kinds = [type(said.event) for _, said in world.said(5, LookupEvent)]  # type: ignore[union-attr]
    assert kinds[0] is RecordFound
    assert kinds[-1] is ResolveFinished


def test_nobody_there_is_said_with_its_reason() -> None:
    world = _world()
    result = _look_up(world, 5, Identity.new(world.suite))
    assert result.outcome == "not published"
    assert result.reason


def test_direct_addresses_are_published_only_where_the_owner_allows() -> None:
    world = _world()
    silent, open_one = world.person(3), world.person(4, with_addresses=True)
    world.run(15)
    never, always = _look_up(world, 9, silent).best, _look_up(world, 9, open_one).best
    assert never is not None
    assert always is not None
    assert never.record.devices[0].direct_v4 == ()
    assert always.record.devices[0].direct_v4 == (world.where[4],)


def test_what_a_router_forwards_is_a_candidate_and_may_stand_in_the_record() -> None:
    world = _world()
    silent, open_one = world.person(3), world.person(4, with_addresses=True)
    forwarded, inner = endpoint("203.0.113.7", 40_123), endpoint("100.64.1.1", 40_123)
    for number in (3, 4):
        world.nodes[number].set_mapped(world.now, [forwarded, inner])
        station = world.nodes[number].people
        told = {one.endpoint for one in station.peers._candidates if one.kind is Kind.MAPPED}
        assert told == {forwarded, inner}, "a double NAT helps peers in its outer network"
    world.run(15)
    never, always = _look_up(world, 9, silent).best, _look_up(world, 9, open_one).best
    assert never is not None
    assert always is not None
    assert never.record.devices[0].direct_v4 == ()
    assert always.record.devices[0].direct_v4 == (forwarded, world.where[4]), "no private address of another network"
    world.nodes[4].set_mapped(world.now, [])
    world.run(15)
    after = _look_up(world, 9, open_one).best
    assert after is not None
    assert after.record.devices[0].direct_v4 == (world.where[4],)


@pytest.mark.parametrize("with_addresses", [False, True])
def test_after_a_change_of_address_callable_again_within_5_seconds(with_addresses: bool) -> None:
    world = _world()
    identity = world.person(3, with_addresses=with_addresses)
    world.run(60)
    before = _look_up(world, 9, identity).best
    moved = world.now
    world.move(3, "10.0.7.7")
    world.run(5 - 1)
    assert world.said(3, RecordPublished, since=moved)
    after = _look_up(world, 9, identity, seconds=1.0).best
    assert before is not None
    assert after is not None
    assert world.now - moved <= 5
    assert after.seq > before.seq
    assert after.record.devices[0].direct_v4 == ((world.where[3],) if with_addresses else ())


def test_an_outage_ends_with_a_publication_not_with_a_long_pause() -> None:
    world = _world()
    world.person(3)
    world.run(30)
    world.down.add(3)
    world.run(4000)  # over the time of the next publication
    assert world.said(3, PublishFailed)
    world.down.clear()
    back = world.now
    world.run(70)
    assert world.said(3, RecordPublished, since=back)


def test_while_a_call_is_on_a_narrow_line_records_and_tables_wait() -> None:
    world = _world()
    world.person(3)
    world.run(30)
    narrow = world.nodes[3].people.peers.narrow
    world.nodes[3].publish_now(world.now)
    start = world.now
    for _ in range(300):
        narrow.said(world.now, is_narrow=True)
        narrow.heard(world.now)
        world.run(0.1)
    assert not world.said(3, RecordPublished, since=start)
    assert world.nodes[3].dht.is_paused
    over = world.now
    world.run(HELD_SECONDS + NARROW_SECONDS + 3)
    assert world.said(3, RecordPublished, since=over)
    assert not world.nodes[3].dht.is_paused


def test_publication_waits_for_the_network() -> None:
    world = NodeWorld()
    number = world.add()
    world.person(number)
    world.run(60)
    assert not world.said(number, PublishFailed)
    assert world.nodes[number].status(world.now).joined is False


def test_withdrawn_is_not_found_any_more() -> None:
    world = _world()
    identity = world.person(3)
    world.run(10)
    world.nodes[3].withdraw(world.now)
    world.drain(3)
    world.run(20)
    assert _look_up(world, 9, identity).outcome == "no device"


def test_a_worn_certificate_is_renewed() -> None:
    world = _world()
    identity = world.person(3)
    world.run(10)
    first = _look_up(world, 9, identity).best
    assert first is not None
    half = CERTIFICATE_LIFE_SECONDS / 2 + 100
    for number, node in enumerate(world.nodes):
        node.set_clock(world.now, world.unix_time + half)
        world.drain(number)
    world.run(20)
    second = _look_up(world, 9, identity).best
    assert second is not None
    assert second.record.devices[0].expiry > first.record.devices[0].expiry
    assert second.record.devices[0].serial == first.record.devices[0].serial


def test_look_ups_are_bounded_and_cancelled_ones_are_silent() -> None:
    world = _world()
    node = world.nodes[2]
    lookups = [node.lookup(world.now, Link(Identity.new(world.suite).public)) for _ in range(LOOKUPS_MAX)]
    with pytest.raises(UsageError, match="under way"):
        node.lookup(world.now, Link(Identity.new(world.suite).public))
    for lookup in lookups:
        node.cancel_lookup(lookup)
    node.cancel_lookup(lookups[0])
    world.drain(2)
    world.run(40)
    assert not world.said(2, LookupEvent)
    assert node.status(world.now).lookups == 0
    assert node.status(world.now).dht.operations == 0


def test_an_address_that_nobody_can_own_is_refused() -> None:
    world = _world(3)
    with pytest.raises(AddressError):
        world.nodes[0].lookup(world.now, Link(bytes(32)))


def test_commands_of_the_dht_are_those_of_the_node() -> None:
    world = _world()
    operation = world.nodes[4].dht.get_immutable(world.now, bytes(20))
    world.run(10)
    finished = [event for _, event in world.said(4, GetFinished)]
    assert [event.operation for event in finished if isinstance(event, GetFinished)].count(operation) == 1


def test_unknown_kinds_are_counted_and_dropped() -> None:
    world = _world(3)
    node = world.nodes[0]
    for data in (b"", b"x", b"\x00" * 1400, b"e"):
        node.receive(world.now, endpoint("10.0.0.99", 1), data)
    assert node.counters["unknown kind"] == 4
    assert not node.outbox
    assert not node.events


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("receive"), st.binary(max_size=80) | st.binary(max_size=60).map(lambda b: b"d" + b)),
            st.tuples(st.just("wake"), st.floats(0, 4000)),
            st.tuples(st.just("changed"), st.none()),
            st.tuples(st.just("lookup"), st.none()),
            st.tuples(st.just("clock"), st.floats(0, 1e10)),
            st.tuples(st.just("publish"), st.booleans()),
            st.tuples(st.just("withdraw"), st.none()),
            st.tuples(st.just("status"), st.none()),
        ),
        max_size=25,
    )
)
def test_no_order_of_events_breaks_a_node(steps: list[tuple[str, object]]) -> None:
    from meshcall.identity import Device

    suite = Sodium()
    now = 5.0
    node = Node(now, 1.79e9, rng=Random(3), suite=suite, families=(4, 6))
    node.start(now, [endpoint("10.0.0.1", 5), endpoint("fd00::1", 5)])
    identity, device = Identity.new(suite), Device.new(suite)
    for kind, argument in steps:
        if kind == "receive":
            assert isinstance(argument, bytes)
            node.receive(now, endpoint("10.0.0.1", 5), argument)
        elif kind == "wake":
            assert isinstance(argument, float)
            now += argument
            node.wake(now)
        elif kind == "changed":
            node.network_changed(now)
        elif kind == "lookup":
            node.lookup(now, Link(identity.public))
        elif kind == "clock":
            assert isinstance(argument, float)
            node.set_clock(now, argument)
        elif kind == "publish":
            node.publish(now, identity, device, with_addresses=bool(argument))
        elif kind == "withdraw":
            node.withdraw(now)
        else:
            assert replace(node.status(now)).lookups <= LOOKUPS_MAX
        assert all(len(where) in (6, 18) for where, _ in node.outbox)
        node.outbox.clear()
        node.events.clear()
        wake = node.next_wake()
        assert wake is None or isinstance(wake, float)


def test_only_frames_of_a_stream_leave_a_node_unstirred() -> None:
    world = CallWorld()
    ann, bob, _, bobs = world.two()
    world.up(ann, bob, bobs)
    world.run(3.0)
    node = world.nodes[bob]
    packets: list[bytes] = []
    quiet = 0
    for _ in range(200):
        world.run(0.02)
        world.nodes[ann].calls.send_voice(world.now, world.nodes[ann].calls.status(world.now).call, bytes(120))
        packets = [data for where, data in world.nodes[ann].outbox if where == world.where[bob]]
        world.nodes[ann].outbox.clear()
        asked = node.next_wake()
        assert not node.stirred
        for data in packets:
            node.receive(world.now, world.where[ann], data)
        if not node.stirred:
            quiet += 1
            assert node.events, "it was heard all the same"
            assert node.next_wake() == asked, "and nothing is due sooner"
        world.drain(bob)
    assert quiet > 50
    node.next_wake()
    node.receive(world.now, world.where[ann], b"d1:q4:ping1:t2:aae")
    assert node.stirred
    node.next_wake()
    world.do(ann, "hang_up")
    world.run(1.0)
    assert node.calls.status(world.now) is None
