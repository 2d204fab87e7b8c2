"""Calls between whole nodes, in virtual time: from an address to the reason why it ended."""

from __future__ import annotations

import itertools

import pytest

from meshcall.calls.events import (
    CallAnswered,
    CallEnded,
    CallIncoming,
    CallLinked,
    CallPath,
    CallRequested,
    CallResolved,
    CallRinging,
    Ending,
    VoiceArrived,
)
from meshcall.calls.policy import CallPolicy, Standing
from meshcall.calls.state import State
from meshcall.errors import UsageError
from meshcall.identity import Identity
from meshcall.path.paths import direct, endpoint_of, is_relayed
from meshcall.peers.station import RelayPlan
from meshcall.relay.policy import RelayPolicy
from tests.calls.call_world import CallWorld
from tests.node.node_world import DELAY_SECONDS, NodeWorld

LEASE_SECONDS_MAX = 45.0


def test_an_address_is_all_it_takes_to_ring_and_to_talk() -> None:
    world = CallWorld()
    ann, bob, anns, bobs = world.two()
    call, incoming = world.up(ann, bob, bobs)
    told = [world.last(ann, kind).at for kind in (CallResolved, CallLinked, CallRinging, CallAnswered)]
    assert told == sorted(told)
    assert told[2] - told[1] == pytest.approx(2 * DELAY_SECONDS, abs=0.01), "the offer follows the handshake at once"
    rings = world.last(bob, CallIncoming)
    assert (rings.identity, rings.standing, rings.call) == (anns.public, Standing.CONTACT, incoming)
    ours, theirs = (world.nodes[each].calls.status(world.now) for each in (ann, bob))
    assert ours is not None
    assert theirs is not None
    assert ours.tag == theirs.tag
    assert ours.theirs == theirs.ours
    assert theirs.theirs == ours.ours
    assert (ours.outgoing, theirs.outgoing) == (True, False)
    words = world.nodes[ann].calls.words(call)
    assert len(words) == 5
    assert words == world.nodes[bob].calls.words(incoming)
    world.do(ann, "send_voice", b"hello")
    world.run(0.1)
    heard = world.last(bob, VoiceArrived)
    assert (heard.call, heard.data) == (incoming, b"hello")
    world.do(bob, "hang_up")
    world.run(5.0)
    assert world.ending(bob) is Ending.HUNG_UP
    assert world.ending(ann) is Ending.HUNG_UP_THERE
    assert world.last(ann, CallEnded).seconds == pytest.approx(0.6, abs=0.3)
    world.run(10.0)
    assert world.is_clean(ann)
    assert world.is_clean(bob)
    with pytest.raises(UsageError, match="no call"):
        world.nodes[ann].calls.hang_up(world.now, call)


def test_who_is_not_published_or_nobody_cannot_be_called() -> None:
    world = CallWorld()
    ann, _ = world.person_at()
    world.call(ann, Identity.new(world.suite))
    world.run(40.0)
    assert world.ending(ann) is Ending.NOT_FOUND
    assert "Nothing is published" in world.last(ann, CallEnded).reason
    with pytest.raises(UsageError, match="no identity"):
        _ = world.nodes[0].calls
    ends = len(world.all(ann, CallEnded))
    world.nodes[ann].calls.call(world.now, b"\1" * 32)
    world.run(1.0)
    assert len(world.all(ann, CallEnded)) == ends + 1
    assert "no valid key" in world.last(ann, CallEnded).reason


def test_a_call_made_before_the_network_is_found_waits_for_it() -> None:
    world = CallWorld()
    ann, bob, _, bobs = world.two()
    world.restart(ann)
    world.call(ann, bobs)
    assert not world.all(ann, CallEnded)
    world.run(5.0)
    assert world.state(ann) is State.RINGING
    assert world.state(bob) is State.INCOMING


def test_strangers_and_blocked_people_over_whole_nodes() -> None:
    world = CallWorld()
    ann, anns = world.person_at()
    bob, bobs = world.person_at()
    world.call(ann, bobs)
    world.run(3.0)
    assert world.ending(ann) is Ending.NOT_ADMITTED
    assert not world.all(bob, CallIncoming)
    assert world.last(bob, CallRequested).identity == anns.public
    world.nodes[bob].set_call_policy(CallPolicy(frozenset({anns.public}), blocked=frozenset({anns.public})))
    before = len(world.events[bob])
    world.call(ann, bobs)
    world.run(25.0)
    assert world.ending(ann) is Ending.NOT_REACHED
    assert not [one for _, one in world.events[bob][before:] if type(one).__module__ == "meshcall.calls.events"]
    assert world.nodes[bob].people.peers.links.counters["blocked"] > 0
    world.nodes[bob].set_call_policy(CallPolicy(frozenset({anns.public}), auto_answer="contacts"))
    world.call(ann, bobs)
    world.run(3.0)
    assert world.state(ann) is world.state(bob) is State.UP


def test_all_devices_in_the_record_ring() -> None:
    world = CallWorld()
    ann, first, _, bobs = world.two()
    contacts = world.nodes[first].calls.policy.contacts
    second, _ = world.person_at(contacts, identity=bobs)
    world.run(20.0)
    world.call(ann, bobs)
    world.run(3.0)
    assert world.state(first) is world.state(second) is State.INCOMING
    world.do(second, "accept")
    world.run(1.0)
    assert world.state(ann) is world.state(second) is State.UP
    assert world.ending(first) is Ending.ANSWERED_ELSEWHERE


def test_a_node_that_starts_anew_in_a_call_has_lost_it_and_the_other_is_told() -> None:
    world = CallWorld()
    ann, bob, anns, bobs = world.two()
    world.up(ann, bob, bobs)
    world.talkers = {ann: 0}
    world.restart(bob)
    world.run(20.0)
    assert world.ending(ann) is Ending.GONE_THERE
    world.call(bob, anns)
    world.run(3.0)
    assert world.state(ann) is State.INCOMING


def test_relay_first_and_direct_once_it_was_accepted() -> None:
    world = CallWorld()
    relay, _ = world.person_at(plan=RelayPlan(0, policy=RelayPolicy(mode="open")), with_addresses=False)
    ann, _ = world.person_at(plan=RelayPlan(), with_addresses=False)
    bob, bobs = world.person_at(plan=RelayPlan(), with_addresses=False, ring="all")
    end = world.now + LEASE_SECONDS_MAX
    while not world.nodes[bob].people.leases:
        assert world.now < end, "no lease"
        world.run(1.0)
    world.run(5.0)
    call = world.call(ann, bobs)
    world.run(4.0)
    assert world.last(bob, CallIncoming).standing is Standing.STRANGER
    linked = world.last(ann, CallLinked)
    assert is_relayed(linked.path)
    assert endpoint_of(linked.path) == world.where[relay]
    shown = [one.path for _, one in world.said(ann, VoiceArrived)]
    assert not shown
    assert not [one for one in world.all(ann, CallPath) if one.best is not None and not is_relayed(one.best)]
    world.do(bob, "accept")
    world.talkers = {ann: 0, bob: 0}
    world.run(4.0)
    changes = world.all(ann, CallPath)
    assert changes[-1].call == call
    assert changes[-1].best == direct(world.where[bob]), "direct after acceptance"
    assert world.last(bob, VoiceArrived).path == direct(world.where[ann])
    since = world.now
    world.cut.add(frozenset({world.where[ann], world.where[bob]}))
    world.run(3.0)
    assert is_relayed(world.last(ann, CallPath).best or direct(world.where[bob])), "and back when that dies"
    heard = [one.at for one in world.all(bob, VoiceArrived, since)]
    gaps = [after - before for before, after in itertools.pairwise(heard)]
    assert max(gaps) < 1.0
    assert world.state(ann) is world.state(bob) is State.UP
    world.talkers = {}
    world.do(ann, "hang_up")
    world.run(2.0)
    assert world.ending(bob) is Ending.HUNG_UP_THERE


def test_never_direct_means_that_nobody_learns_an_address() -> None:
    world = CallWorld()
    world.person_at(plan=RelayPlan(0, policy=RelayPolicy(mode="open")), with_addresses=False)
    key = Identity.new(world.suite)
    ann, anns = world.person_at(frozenset({key.public}), plan=RelayPlan(), with_addresses=False)
    bob, bobs = world.person_at(
        frozenset({anns.public}), identity=key, plan=RelayPlan(), with_addresses=False, direct="never"
    )  # fmt: skip
    world.run(LEASE_SECONDS_MAX)
    assert world.nodes[bob].people.leases
    world.up(ann, bob, bobs)
    world.talkers = {ann: 0, bob: 0}
    world.run(5.0)
    assert all(is_relayed(one.path) for one in world.all(ann, VoiceArrived))
    assert world.all(ann, VoiceArrived)
    assert world.all(bob, VoiceArrived)


def test_a_node_of_nobody_drops_what_comes() -> None:
    world = NodeWorld()
    number = world.add()
    with pytest.raises(UsageError, match="no identity"):
        _ = world.nodes[number].calls
