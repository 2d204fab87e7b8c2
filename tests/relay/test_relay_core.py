"""The relay core: who gets a lease, what is forwarded and what never is."""

from __future__ import annotations

import dataclasses

import pytest

from meshcall.core import endpoint
from meshcall.relay import core as relay_core
from meshcall.relay.events import LeaseOver, LeaseTaken
from meshcall.relay.places import tcp_place
from meshcall.wire import relay as wire
from tests.relay.relay_world import OPEN, World, key, place

HOLDER, CALLER, STRANGER, VICTIM = place(1), place(2), place(3), place(4)


def test_a_call_goes_both_ways() -> None:
    world = World()
    lease = world.lease(1, HOLDER)
    flow = world.flow(CALLER, lease, HOLDER)
    for _ in range(100):
        world.now += 0.02
        world.up(CALLER, lease, b"u" * 120)
        world.down(HOLDER, flow, b"d" * 120)
    assert world.inbox[HOLDER] == [wire.frame(wire.TO_HOLDER, flow, b"u" * 120)] * 100
    assert world.inbox[CALLER] == [wire.frame(wire.TO_CALLER, lease, b"d" * 120)] * 100
    assert world.core.status(world.now).established == 1


def test_the_first_frames_reach_the_holder_and_the_answer_the_caller_before_any_proof() -> None:
    world = World()
    lease = world.lease(1, HOLDER)
    world.up(CALLER, lease, bytes(1200))
    flow = world.last(HOLDER)
    assert (flow.kind, len(flow.payload)) == (wire.TO_HOLDER, 1200)
    world.down(HOLDER, flow.frame_id, bytes(1100))
    assert world.last(CALLER).kind == wire.TO_CALLER
    assert world.sent_to[CALLER] <= world.received_from[CALLER]


def test_an_unproven_caller_gets_no_more_bytes_than_it_sent() -> None:
    """The attack: a lease holder's accomplice opens a flow in somebody else's name, the holder floods it."""
    world = World()
    lease = world.lease(1, HOLDER)
    world.up(VICTIM, lease, bytes(200))
    flow = world.last(HOLDER).frame_id
    for _ in range(1000):
        world.now += 0.01
        world.down(HOLDER, flow, bytes(150))
    assert world.sent_to[VICTIM] <= 212
    assert not world.core.tables.routes


def test_a_holder_cannot_move_its_lease_to_somebody_else() -> None:
    """An authenticated packet with a false sender address moves nothing: the new place has to send the proof."""
    world = World()
    lease = world.lease(1, HOLDER)
    world.flow(CALLER, lease, HOLDER)
    world.core.moved(world.now, 1, VICTIM)
    world.drain()
    for _ in range(20):
        world.up(CALLER, lease, bytes(500))
    assert [data[1] for data in world.inbox[VICTIM]] == [wire.CHALLENGE]
    assert len(world.inbox[HOLDER]) == 20


def test_a_first_place_has_to_be_proven_too() -> None:
    world = World()
    lease = world.lease(1, VICTIM, prove=False)
    world.up(CALLER, lease, bytes(500))
    assert [data[1] for data in world.inbox[VICTIM]] == [wire.CHALLENGE]
    assert world.last(CALLER).status == wire.UNKNOWN_LEASE


def test_a_holder_who_moves_keeps_its_flows() -> None:
    world = World()
    lease = world.lease(1, HOLDER)
    flow = world.flow(CALLER, lease, HOLDER)
    moved = place(1, 5555)
    world.down(moved, flow, b"too early")
    assert world.last(moved).status == wire.ELSEWHERE
    world.core.moved(world.now, 1, moved)
    world.drain()
    world.prove(moved)
    assert world.last(moved).status == wire.KNOWN
    world.up(CALLER, lease, b"hello again")
    world.down(moved, flow, b"here I am")
    assert world.last(moved) == wire.Frame(wire.TO_HOLDER, 0, flow, b"hello again")
    assert world.last(CALLER) == wire.Frame(wire.TO_CALLER, 0, lease, b"here I am")
    world.down(HOLDER, flow, b"from the old place")
    assert world.last(HOLDER).status == wire.ELSEWHERE


def test_a_lost_challenge_is_asked_for_by_a_check() -> None:
    world = World()
    lease = world.lease(1, HOLDER, prove=False)
    world.inbox[HOLDER].clear()
    world.send(HOLDER, wire.frame(wire.CHECK, lease, b"12345678"))
    world.prove(HOLDER)
    world.send(HOLDER, wire.frame(wire.CHECK, lease, b"12345678"))
    assert world.last(HOLDER) == wire.Frame(wire.STATE, wire.KNOWN, lease, b"12345678")


def test_a_stranger_guessing_ids_gets_a_word_of_its_own_length_and_nothing_else() -> None:
    world = World()
    lease = world.lease(1, HOLDER)
    flow = world.flow(CALLER, lease, HOLDER)
    for number in range(5000):
        guess = number.to_bytes(8, "big")
        world.up(STRANGER, guess, bytes(8))
        world.down(STRANGER, guess, bytes(8))
    assert not world.inbox[HOLDER]
    assert not world.inbox[CALLER]
    assert all(len(data) <= 20 and data[1] == wire.STATE for data in world.inbox[STRANGER])
    assert world.sent_to[STRANGER] <= relay_core.ANSWERS_BURST * 20 + 200
    world.down(STRANGER, flow, bytes(100))
    assert not world.inbox[CALLER], "knowing the flow is not being its holder"


def test_a_caller_who_hangs_up_is_not_flooded_for_ever() -> None:
    world = World()
    lease = world.lease(1, HOLDER)
    flow = world.flow(CALLER, lease, HOLDER)
    for _ in range(70):
        world.advance(1.0)
        world.down(HOLDER, flow, bytes(50))
    assert world.last(HOLDER).status == wire.UNKNOWN_FLOW
    assert len(world.inbox[CALLER]) <= relay_core.FLOW_IDLE_SECONDS + relay_core.SWEEP_SECONDS


def test_a_flooding_holder_pays_and_the_call_of_another_goes_on() -> None:
    policy = dataclasses.replace(OPEN, bytes_per_second=300_000, lease_bytes_per_second=80_000)
    world = World(policy)
    calls = []
    for number in range(8):
        holder, caller = place(100 + number), place(200 + number)
        lease = world.lease(10 + number, holder)
        calls.append((holder, caller, lease, world.flow(caller, lease, holder)))
    floods = []
    for number in range(4):
        holder, caller = place(300 + number), place(400 + number)
        lease = world.lease(50 + number, holder)
        floods.append((holder, world.flow(caller, lease, holder)))
    sent = 0
    for _ in range(500):  # 10 seconds
        world.now += 0.02
        for holder, caller, lease, flow in calls:
            world.up(caller, lease, bytes(120))
            world.down(holder, flow, bytes(120))
            sent += 1
        for holder, flow in floods:
            for _ in range(10):
                world.down(holder, flow, bytes(1000))
    got = sum(len(world.inbox[caller]) for _, caller, _, _ in calls)
    assert got >= 0.99 * sent
    assert world.core.counters["over quota: lease"] > 15_000
    total = sum(world.sent_to.values())
    assert total <= 11 * policy.bytes_per_second


def test_a_full_relay_takes_nobody_new_and_says_so_while_calls_go_on() -> None:
    policy = dataclasses.replace(OPEN, bytes_per_second=64_000, members=frozenset([key(7)]))
    world = World(policy)
    calls = []
    for number in range(3):
        holder, caller = place(100 + number), place(200 + number)
        lease = world.lease(10 + number, holder)
        calls.append((holder, caller, lease, world.flow(caller, lease, holder)))
    idle = world.lease(30, place(30))
    members = world.lease(7, place(7))

    def talk(seconds: float) -> None:
        for _ in range(int(seconds * 50)):
            world.now += 0.02
            for holder, caller, lease, flow in calls:
                world.up(caller, lease, bytes(140))
                world.down(holder, flow, bytes(140))

    talk(5)
    assert 0.75 < world.core.quotas.load < 0.92
    world.up(CALLER, idle, bytes(100))
    assert world.last(CALLER).status == wire.BUSY
    world.say(40, place(40), wire.LeaseRequest(1, 3600))
    assert world.said[40] == [wire.LeaseRefusal(1, wire.NEAR_BUDGET, 60)]
    world.up(CALLER, members, bytes(100))
    assert world.last(place(7)).kind == wire.TO_HOLDER, "members first"
    for holder, caller, _, _ in calls:
        assert len(world.inbox[holder]) == len(world.inbox[caller]) == 250
    moved = place(210)
    world.up(moved, calls[0][2], bytes(100))
    assert world.last(calls[0][0]).frame_id != calls[0][3], "a caller who moved is let in to its call"
    assert not world.core.info().accepts


def test_many_senders_in_false_names_do_not_shut_out_a_real_one() -> None:
    world = World()
    lease = world.lease(1, HOLDER)
    for number in range(2000):
        world.now += 0.001
        world.up(place(1000 + number), lease, bytes(200))
    assert world.core.tables.tentative <= relay_core.TENTATIVE_PER_LEASE_MAX
    assert len(world.core.tables.sources) <= relay_core.TENTATIVE_PER_LEASE_MAX
    world.up(CALLER, lease, bytes(200))
    world.prove(CALLER)
    world.up(CALLER, lease, b"a real caller")
    assert world.last(HOLDER).payload == b"a real caller"


def test_an_established_flow_does_not_notice_a_flood_of_openers() -> None:
    world = World()
    lease = world.lease(1, HOLDER)
    flow = world.flow(CALLER, lease, HOLDER)
    for number in range(1000):
        world.now += 0.02
        world.up(place(1000 + number), lease, bytes(20))
        world.up(CALLER, lease, b"voice")
        world.down(HOLDER, flow, b"voice")
    assert sum(wire.decode_frame(data).frame_id == flow for data in world.inbox[HOLDER]) == 1000
    assert len(world.inbox[CALLER]) == 1000


def test_a_silent_holder_is_not_written_to_for_long() -> None:
    world = World()
    lease = world.lease(1, HOLDER)
    world.inbox[HOLDER].clear()
    for _ in range(100):
        world.now += 0.02
        world.up(CALLER, lease, bytes(100))
    assert len(world.inbox[HOLDER]) == relay_core.TENTATIVE_FRAMES_MAX
    world.advance(20)
    assert not world.core.tables.flows


def test_a_lease_ends_when_it_is_not_renewed() -> None:
    world = World()
    lease = world.lease(1, HOLDER)
    assert world.core.events == [LeaseTaken(lease, key(1), False)]
    world.advance(1700)
    world.say(1, HOLDER, wire.LeaseRenew(2, lease))
    grant = world.said[1][-1]
    assert isinstance(grant, wire.LeaseGrant)
    assert grant.lease_id == lease
    world.advance(1700)
    assert lease in world.core.tables.leases
    world.advance(200)
    assert world.said[1][-1] == wire.LeaseEnded(lease, wire.LIFE_OVER)
    world.up(CALLER, lease, bytes(100))
    assert world.last(CALLER).status == wire.UNKNOWN_LEASE
    assert world.core.events[-1] == LeaseOver(lease, wire.LIFE_OVER)
    assert world.core.next_wake() is None
    assert not len(world.core.quotas)


def test_a_relay_that_starts_again_gives_the_same_lease_back_to_its_device_only() -> None:
    world = World()
    lease = world.lease(1, HOLDER)
    grant = world.said[1][-1]
    assert isinstance(grant, wire.LeaseGrant)
    world.start()
    world.up(CALLER, lease, bytes(100))
    assert world.last(CALLER).status == wire.UNKNOWN_LEASE
    ticket = wire.LeaseRequest(2, 3600, lease, grant.salt)
    world.say(9, STRANGER, ticket)
    stolen = world.said[9][-1]
    assert isinstance(stolen, wire.LeaseGrant)
    assert stolen.lease_id != lease
    world.say(2, HOLDER, ticket, identity=1, device=1001)
    again = world.said[2][-1]
    assert isinstance(again, wire.LeaseGrant)
    assert again.lease_id == lease
    world.prove(HOLDER)
    world.up(CALLER, lease, b"where were you")
    assert world.last(HOLDER).payload == b"where were you"


def test_a_device_that_comes_back_by_another_link_goes_on() -> None:
    world = World()
    lease = world.lease(1, HOLDER)
    world.core.closed(world.now, 1)
    world.say(5, HOLDER, wire.LeaseRenew(1, lease), identity=1, device=1001)
    assert isinstance(world.said[5][-1], wire.LeaseGrant)
    world.say(6, STRANGER, wire.LeaseRenew(1, lease))
    assert world.said[6] == [wire.LeaseRefusal(1, wire.NO_SUCH_LEASE, 0)]
    world.say(6, STRANGER, wire.LeaseRelease(lease))
    assert lease in world.core.tables.leases
    world.say(5, HOLDER, wire.LeaseRelease(lease), device=1001)
    assert not world.core.tables.leases


def test_the_owner_says_whom_the_relay_serves() -> None:
    listed = dataclasses.replace(OPEN, mode="list", members=frozenset([key(1)]), listed=frozenset([key(2)]))
    world = World(listed)
    world.lease(1, HOLDER)
    world.lease(2, CALLER)
    world.say(3, STRANGER, wire.LeaseRequest(1, 60))
    assert world.said[3] == [wire.LeaseRefusal(1, wire.NOT_SERVED, 60)]
    world.core.set_policy(world.now, dataclasses.replace(listed, mode="off"))
    world.drain()
    assert not world.core.tables.leases
    assert isinstance(world.said[1][-1], wire.LeaseEnded)
    world.send(STRANGER, wire.hello(b"12345678"))
    assert not world.inbox[STRANGER], "a relay that is off is silent"


def test_a_member_gets_the_place_of_a_guest_who_is_not_in_a_call() -> None:
    policy = dataclasses.replace(OPEN, leases_max=4, members=frozenset([key(9)]))
    world = World(policy)
    leases = [world.lease(number, place(number)) for number in (1, 2, 3)]
    world.flow(CALLER, leases[0], place(1))
    world.say(4, place(4), wire.LeaseRequest(1, 60))
    assert world.said[4] == [wire.LeaseRefusal(1, wire.NO_ROOM, 60)], "the last quarter is the members'"
    world.lease(9, place(9), device=91)
    world.lease(9, place(9), device=92)
    assert world.said[2][-1] == wire.LeaseEnded(leases[1], wire.MADE_ROOM)
    assert leases[0] in world.core.tables.leases


@pytest.mark.parametrize("limit", ["leases_per_device_max", "leases_per_identity_max", "leases_per_source_max"])
def test_nobody_takes_all_leases(limit: str) -> None:
    world = World(dataclasses.replace(OPEN, **{limit: 2}))
    world.lease(1, HOLDER)
    world.lease(1, HOLDER)
    world.say(1, HOLDER, wire.LeaseRequest(3, 60))
    assert world.said[1][-1] == wire.LeaseRefusal(3, wire.TOO_MANY, 60)


def test_lease_messages_have_a_rate() -> None:
    world = World()
    for number in range(100):
        world.say(1, HOLDER, wire.LeaseRequest(number, 60))
    refusals = [said for said in world.said[1] if isinstance(said, wire.LeaseRefusal)]
    assert sum(said.reason == wire.TOO_OFTEN for said in refusals) >= 80


def test_a_holder_shuts_out_a_caller() -> None:
    world = World()
    lease = world.lease(1, HOLDER)
    flow = world.flow(CALLER, lease, HOLDER)
    world.say(8, STRANGER, wire.FlowDrop((flow,)))
    assert world.core.tables.flows
    world.say(1, HOLDER, wire.FlowDrop((flow,)))
    world.up(CALLER, lease, bytes(100))
    assert world.last(CALLER).status == wire.CROWDED
    assert not world.inbox[HOLDER]
    world.advance(61)
    world.up(CALLER, lease, bytes(100))
    assert world.last(HOLDER).kind == wire.TO_HOLDER


def test_a_tcp_connection_is_its_own_proof_and_its_end_ends_its_flows() -> None:
    world = World(tcp_port=443)
    holder = tcp_place(endpoint("192.0.2.1", 40000), 1)
    caller = tcp_place(endpoint("192.0.2.2", 40001), 2)
    lease = world.lease(1, holder, prove=False)
    world.up(caller, lease, bytes(100))
    flow = world.last(holder).frame_id
    world.down(holder, flow, bytes(1000))
    assert world.core.status(world.now).established == 1
    world.core.gone(world.now, holder)
    world.up(caller, lease, bytes(100))
    assert world.last(caller).status == wire.UNKNOWN_LEASE
    again = tcp_place(endpoint("192.0.2.1", 40002), 3)
    world.core.moved(world.now, 1, again)
    world.up(caller, lease, b"still there")
    assert world.last(again).payload == b"still there"
    world.core.gone(world.now, caller)
    assert not world.core.tables.flows
    assert not world.core.tables.routes


def test_hello_is_answered_with_less_than_was_asked() -> None:
    world = World(tcp_port=443)
    world.send(STRANGER, wire.hello(b"abcdefgh"))
    answer = world.inbox[STRANGER][0]
    assert len(answer) < wire.HELLO_BYTES
    info = wire.decode_hello_answer(wire.decode_frame(answer))
    assert info == wire.RelayInfo(key(500), is_open=True, accepts=True, load_percent=0, tcp_port=443)
    for _ in range(1000):
        world.send(STRANGER, wire.hello(b"abcdefgh"))
    assert len(world.inbox[STRANGER]) <= relay_core.ANSWERS_BURST


def test_shutting_down_tells_the_holders() -> None:
    world = World()
    lease = world.lease(1, HOLDER)
    world.core.shut_down(world.now)
    world.drain()
    assert world.said[1][-1] == wire.LeaseEnded(lease, wire.CLOSING)
