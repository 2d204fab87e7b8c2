"""Calls between devices over real links, in virtual time: every way in which a call begins, goes on and ends."""

from __future__ import annotations

import pytest

from meshcall.calls.events import (
    CallAnswered,
    CallEnded,
    CallHeld,
    CallIncoming,
    CallMuted,
    CallRequested,
    CallResolved,
    CallRinging,
    Ending,
    VoiceArrived,
    VoiceUnheard,
)
from meshcall.calls.policy import Standing
from meshcall.calls.state import LOST_SECONDS, RING_SECONDS, State
from meshcall.errors import UsageError
from meshcall.identity import Identity
from meshcall.path.candidates import Trust
from tests.calls.line_world import DELAY_SECONDS, SUITE, LineWorld


def test_ring_accept_talk_end() -> None:
    world = LineWorld()
    ann, bob = world.up()
    assert len(ann.all(CallResolved)) == len(ann.all(CallRinging)) == len(bob.all(CallIncoming)) == 1
    assert ann.calls.words(ann.last(CallRinging).call) == bob.calls.words(bob.last(CallIncoming).call)
    ann.do("hang_up")
    world.run(DELAY_SECONDS * 1.5)
    assert bob.ending is Ending.HUNG_UP_THERE, "half a round trip"
    assert ann.ending is Ending.HUNG_UP
    world.run(15.0)
    assert ann.is_clean
    assert bob.is_clean


def test_decline_is_told_in_words() -> None:
    world = LineWorld()
    ann, bob = world.two()
    ann.call(bob)
    world.run(1.0)
    bob.do("decline")
    world.run(1.0)
    assert (ann.ending, bob.ending) == (Ending.DECLINED, Ending.DECLINED_HERE)
    assert ann.last(CallEnded).seconds is None
    world.run(15.0)
    assert ann.is_clean
    assert bob.is_clean


def test_who_hangs_up_while_it_rings_stops_the_ringing() -> None:
    world = LineWorld()
    ann, bob = world.two()
    ann.call(bob)
    world.run(1.0)
    assert bob.state is State.INCOMING
    ann.do("hang_up")
    world.run(0.2)
    assert (ann.ending, bob.ending) == (Ending.WITHDRAWN, Ending.WITHDRAWN_THERE)
    ann.call(bob)
    ann.do("hang_up")
    world.run(30.0)
    assert len(bob.all(CallIncoming)) == 1, "hung up before anything was offered"
    assert ann.is_clean
    assert bob.is_clean


def test_nobody_answers() -> None:
    world = LineWorld()
    ann, bob = world.two()
    ann.call(bob)
    world.run(RING_SECONDS - 5.0)
    assert (ann.state, bob.state) == (State.RINGING, State.INCOMING)
    world.run(10.0)
    assert (ann.ending, bob.ending) == (Ending.NO_ANSWER, Ending.MISSED)


def test_a_second_caller_is_told_that_it_is_busy_and_hears_no_more() -> None:
    world = LineWorld()
    carl_key = Identity.new(SUITE)
    ann, bob = world.two()
    bob.calls.policy = bob.policy = type(bob.policy)(frozenset({ann.identity.public, carl_key.public}))
    carl = world.party(carl_key, contacts=frozenset({bob.identity.public}))
    ann.call(bob)
    world.run(1.0)
    bob.do("accept")
    world.run(1.0)
    carl.call(bob)
    world.run(2.0)
    assert carl.ending is Ending.BUSY
    assert ann.state is bob.state is State.UP
    with pytest.raises(UsageError, match="hang it up first"):
        bob.call(carl)
    stranger = world.party()
    stranger.call(bob)
    world.run(2.0)
    assert stranger.ending is Ending.NOT_ADMITTED, "a stranger does not learn that there is a call"


def test_nobody_there() -> None:
    world = LineWorld()
    ann, bob = world.two()
    ghost = world.party(looks=False)
    ann.call(ghost)
    world.run(1.0)
    assert ann.ending is Ending.NOT_FOUND
    assert ann.last(CallEnded).reason == "Nothing is published under this address now."
    bob.down = True
    ann.call(bob)
    world.run(20.0)
    assert ann.ending is Ending.NOT_REACHED
    assert "did not answer" in ann.last(CallEnded).reason
    with pytest.raises(UsageError, match="your own address"):
        ann.call(ann)


def test_strangers_wait_in_a_list_and_never_ring() -> None:
    world = LineWorld()
    _ann, bob = world.two()
    eve = world.party()
    for _ in range(3):
        eve.call(bob)
        world.run(2.0)
        assert eve.ending is Ending.NOT_ADMITTED
    assert not bob.all(CallIncoming)
    assert [event.identity for event in bob.all(CallRequested)] == [eve.identity.public]
    (listed,) = bob.calls.strangers()
    assert (listed.identity, listed.times) == (eve.identity.public, 3)
    assert bob.calls.forget_stranger(eve.identity.public)
    assert not bob.calls.strangers()
    bob.calls.policy = type(bob.policy)(frozenset(), ring="all")
    eve.call(bob)
    world.run(1.0)
    assert bob.last(CallIncoming).standing is Standing.STRANGER
    world.run(0.5)
    assert eve.state is State.RINGING


def test_who_is_blocked_hears_nothing_at_all() -> None:
    world = LineWorld()
    eve_key = Identity.new(SUITE)
    _ann, bob = world.two()
    eve = world.party(eve_key)
    bob.peers.links.blocked = frozenset({eve_key.public})
    bob.calls.policy = type(bob.policy)(frozenset({eve_key.public}), blocked=frozenset({eve_key.public}))
    eve.call(bob)
    world.run(30.0)
    assert eve.ending is Ending.NOT_REACHED
    assert not bob.events
    assert bob.peers.links.counters["blocked"] > 0
    with pytest.raises(UsageError, match="blocked"):
        bob.call(eve)


def test_who_is_blocked_later_hears_nothing_on_an_open_link() -> None:
    world = LineWorld()
    ann, bob = world.two()
    bob.calls.policy = type(bob.policy)(blocked=frozenset({ann.identity.public}))
    ann.call(bob)
    world.run(15.0)
    assert ann.ending is Ending.NO_RESPONSE
    assert not bob.events


@pytest.mark.parametrize("auto", ["contacts", "listed", "nobody"])
def test_auto_answer_is_for_those_it_is_for(auto: str) -> None:
    world = LineWorld()
    ann, bob = world.two()
    listed = frozenset({ann.identity.public})
    policy = type(bob.policy)(listed, auto_answer=listed if auto == "listed" else auto)  # type: ignore[arg-type]
    bob.calls.policy = policy
    ann.call(bob)
    world.run(1.0)
    if auto == "nobody":
        assert bob.state is State.INCOMING
        return
    assert ann.state is bob.state is State.UP
    assert bob.last(CallAnswered).automatic
    assert not ann.last(CallAnswered).automatic
    assert bob.all(CallIncoming)


def test_hold_and_mute_are_told() -> None:
    world = LineWorld()
    ann, bob = world.two()
    ann.call(bob)
    world.run(1.0)
    ann.do("mute", True)
    bob.do("accept")
    world.run(0.5)
    assert bob.last(CallMuted).muted, "said as soon as it is up"
    bob.do("hold", True)
    bob.do("hold", True)
    world.run(0.5)
    assert [event.held for event in ann.all(CallHeld)] == [True]
    bob.do("hold", False)
    ann.do("mute", False)
    world.run(0.5)
    assert [event.held for event in ann.all(CallHeld)] == [True, False]
    assert [event.muted for event in bob.all(CallMuted)] == [True, False]


def test_all_devices_ring_and_one_answer_stops_the_others() -> None:
    world = LineWorld()
    ann, bob = world.two()
    more = [world.party(bob.identity, contacts=bob.policy.contacts) for _ in range(3)]
    ann.call(bob)
    world.run(1.0)
    assert [each.state for each in (bob, *more)] == [State.INCOMING] * 4
    assert len(ann.all(CallRinging)) == 1
    more[1].do("accept")
    world.run(0.5)
    assert ann.state is more[1].state is State.UP
    assert [each.ending for each in (bob, more[0], more[2])] == [Ending.ANSWERED_ELSEWHERE] * 3
    world.run(15.0)
    assert len(ann.peers.links) == 1
    assert bob.is_clean
    ann.do("hang_up")
    world.run(15.0)
    assert ann.is_clean
    assert more[1].is_clean


def test_one_decline_declines_all_and_a_busy_device_stops_nobody() -> None:
    world = LineWorld()
    ann, bob = world.two()
    second, third = (world.party(bob.identity, contacts=bob.policy.contacts) for _ in range(2))
    carl = world.party(contacts=frozenset({bob.identity.public}))
    second.calls.policy = type(bob.policy)(frozenset({carl.identity.public, ann.identity.public}))
    second.call(carl)
    world.run(1.0)
    ann.call(bob)
    world.run(1.0)
    assert [each.state for each in (bob, second, third)] == [State.INCOMING, State.SEEKING, State.INCOMING] or (
        second.state is State.RINGING
    )
    assert ann.state is State.RINGING
    third.do("decline")
    world.run(0.5)
    assert ann.ending is Ending.DECLINED
    assert bob.ending is Ending.DECLINED_ELSEWHERE


def test_a_device_that_is_gone_does_not_delay_the_others_and_busy_is_told_soon() -> None:
    world = LineWorld()
    ann, bob = world.two()
    gone = world.party(bob.identity)
    gone.down = True
    ann.call(bob)
    world.run(1.0)
    assert bob.state is State.INCOMING
    ann.do("hang_up")
    world.run(5.0)
    carl = world.party(contacts=frozenset({bob.identity.public}))
    bob.calls.policy = type(bob.policy)(frozenset({carl.identity.public, ann.identity.public}))
    carl.call(bob)
    world.run(1.0)
    bob.do("accept")
    world.run(1.0)
    ann.call(bob)
    world.run(5.0)
    assert ann.ending is Ending.BUSY, "not after the 15 seconds of the dial that nobody answers"


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("apart", [0.0, 0.02, 0.1, 0.2, 0.25, 0.3])
@pytest.mark.parametrize("loss", [0.0, 0.2])
def test_two_who_call_each_other_get_one_call(first: int, apart: float, loss: float) -> None:
    world = LineWorld(seed=int(apart * 100) + first)
    pair = world.two()
    one, other = pair[first], pair[1 - first]
    world.loss = loss
    numbers = one.call(other), None
    world.run(apart)
    if other.state is None:
        numbers = numbers[0], other.call(one)
    else:
        other.do("accept") if other.state is State.INCOMING else None
    world.run(5.0)
    assert one.state is other.state is State.UP
    assert one.tag == other.tag
    words = other.calls.words(other.calls.status(world.now).call)  # type: ignore[union-attr]
    assert one.calls.words(numbers[0]) == words
    assert len(one.all(CallAnswered)) == len(other.all(CallAnswered)) == 1
    world.loss = 0.0
    world.run(90.0)  # a link whose farewell was lost dies of silence
    assert len(one.peers.links) == len(other.peers.links) == 1, "one link survives"
    other.do("hang_up")
    world.run(15.0)
    assert one.ending is Ending.HUNG_UP_THERE
    assert one.is_clean
    assert other.is_clean


def test_who_calls_somebody_that_rings_here_answers() -> None:
    world = LineWorld()
    ann, bob = world.two()
    ann.call(bob)
    world.run(1.0)
    assert bob.call(ann) == bob.last(CallIncoming).call
    world.run(0.5)
    assert ann.state is bob.state is State.UP


def test_glare_among_many_devices_is_one_call() -> None:
    for seed in range(4):
        world = LineWorld(seed)
        ann, bob = world.two()
        anns = [ann, world.party(ann.identity, contacts=ann.policy.contacts)]
        bobs = [bob, world.party(bob.identity, contacts=bob.policy.contacts)]
        anns[seed % 2].call(bob)
        bobs[seed // 2].call(ann)
        world.run(5.0)
        states = [each.state for each in (*anns, *bobs)]
        assert states.count(State.UP) == 2, states
        assert states.count(None) == 2, states
        assert anns[seed % 2].state is bobs[seed // 2].state is State.UP


def test_while_it_rings_voice_is_counted_on_both_sides_and_from_then_on_heard() -> None:
    world = LineWorld()
    ann, bob = world.two()
    ann.call(bob)
    world.run(1.0)
    for party in (ann, bob):
        party.voice_seconds = 0.02
    world.run(2.0)
    for party in (ann, bob):
        counted = party.all(VoiceUnheard)
        assert len(counted) > 80
        assert {event.link for event in counted} == {party.link}
        assert not party.all(VoiceArrived)
    bob.do("accept")
    world.run(0.5)
    since = world.now
    world.run(1.0)
    for party in (ann, bob):
        assert not party.all(VoiceUnheard, since)
        assert len(party.all(VoiceArrived, since)) > 40


def test_of_many_devices_that_ring_one_is_counted_and_the_next_when_it_is_gone() -> None:
    world = LineWorld()
    ann, bob = world.two()
    other = world.party(bob.identity, contacts=bob.policy.contacts)
    ann.call(bob)
    world.run(1.0)
    assert bob.state is other.state is State.INCOMING
    for party in (bob, other):
        party.voice_seconds = 0.02
    world.run(1.0)
    (link,) = {event.link for event in ann.all(VoiceUnheard)}
    end = ann.peers.end_of(link)
    assert end is not None
    first = next(party for party in (bob, other) if end[1] == party.device.public)
    first.down = True
    since = world.now
    world.run(LOST_SECONDS + 6)
    assert ann.state is State.RINGING, "it still rings at the other one"
    assert {event.link for event in ann.all(VoiceUnheard, since + LOST_SECONDS + 5)} - {link}


def test_of_a_call_that_does_not_ring_here_nothing_is_counted() -> None:
    world = LineWorld()
    bob = world.party()
    ann = world.party(contacts=frozenset({bob.identity.public}))
    ann.call(bob)
    world.run(0.3)
    ann.voice_seconds = 0.02
    world.run(2.0)
    assert not bob.all(CallIncoming)
    assert not bob.all(VoiceUnheard)


def test_voice_is_handed_up_only_in_a_call_that_is_up() -> None:
    world = LineWorld()
    ann, bob = world.two()
    ann.call(bob)
    world.run(1.0)
    for party in (ann, bob):
        party.voice_seconds = 0.1
    world.run(2.0)
    assert ann.voiced > 15
    assert bob.voiced > 15
    assert not ann.all(VoiceArrived)
    assert not bob.all(VoiceArrived)
    since = world.now
    bob.do("accept")
    world.run(1.0)
    for party in (ann, bob):
        assert len(party.all(VoiceArrived, since)) >= 9
    before = ann.all(VoiceArrived)
    assert before[0].at < ann.last(CallAnswered).at, "what overtook the answer is not lost"
    link = ann.link
    bob.do("hang_up")
    world.run(0.2)
    ann.peers.send_voice(world.now, link, b"late")
    ann.carry(world.now)
    since = world.now
    world.run(1.0)
    assert not bob.all(VoiceArrived, since)
    assert bob.peers.counters["voice not wanted"] >= 1


def test_addresses_are_told_only_after_acceptance() -> None:
    for direct, expected in (("accepted", Trust.FULL), ("contacts", Trust.NONE), ("never", Trust.RELAY_ONLY)):
        world = LineWorld()
        ann, bob = world.party(ring="all"), world.party(ring="all", direct=direct)
        ann.call(bob)
        world.run(1.0)
        before = {peer.trust for peer in bob.peers._peers.values()}
        assert before == {Trust.RELAY_ONLY if direct == "never" else Trust.NONE}
        assert {peer.trust for peer in ann.peers._peers.values()} == {Trust.NONE}
        bob.do("accept")
        world.run(0.5)
        assert {peer.trust for peer in bob.peers._peers.values()} == {expected}
        assert {peer.trust for peer in ann.peers._peers.values()} == {Trust.FULL}
        link = bob.link
        bob.do("hang_up")
        assert bob.peers._peers[link].trust is not Trust.FULL


def test_what_is_given_up_after_its_line_broke_says_so() -> None:
    world = LineWorld()
    ann, bob = world.up()
    for party in (ann, bob):
        party.voice_seconds = 0.2
    world.run(2.0)
    world.cut.add(frozenset({0, 1}))
    world.run(LOST_SECONDS + 2.0)
    assert (ann.ending, bob.ending) == (Ending.LINE_LOST, Ending.LINE_LOST)
    world.run(90.0)
    assert ann.is_clean
    assert bob.is_clean


def test_what_the_other_side_lost_reaches_the_path_layer() -> None:
    world = LineWorld()
    ann, _ = world.up()
    ann.voice_seconds = 0.1
    world.run(1.0)
    (before,) = ann.peers.status(world.now)
    ann.do("report_loss", 0.4)
    (after,) = ann.peers.status(world.now)
    assert before.paths is not None
    assert after.paths is not None
    assert before.paths.paths[0].loss < 0.1
    assert after.paths.paths[0].loss >= 0.3
    ann.calls.report_loss(world.now, 99, 1.0)
    ann.calls.send_voice(world.now, 99, b"of no call")
    assert ann.peers.status(world.now) == [after]
