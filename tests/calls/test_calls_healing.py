"""Calls whose line breaks: silence survived, a link that ends, a side that starts anew, losses all the time."""

from __future__ import annotations

import pytest

from meshcall.calls.events import CallEnded, CallIncoming, CallLineBack, CallLineLost, Ending, VoiceArrived
from meshcall.calls.state import CHECK_SECONDS, LOST_SECONDS, State
from tests.calls.line_world import LineWorld, Party

TALK_SECONDS = 0.2


def talking(world: LineWorld) -> tuple[Party, Party]:
    """A call between two that send voice."""
    ann, bob = world.up()
    for party in (ann, bob):
        party.voice_seconds = TALK_SECONDS
    world.run(2.0)
    return ann, bob


def goes_on(world: LineWorld, *parties: Party) -> bool:
    """Whether voice comes through both ways."""
    since = world.now
    world.run(2.0)
    return all(party.state is State.UP and len(party.all(VoiceArrived, since)) > 5 for party in parties)


@pytest.mark.parametrize("seconds", [4.0, 8.0, 12.0, 17.0])
def test_silence_of_some_seconds_is_survived(seconds: float) -> None:
    world = LineWorld()
    ann, bob = talking(world)
    world.cut.add(frozenset({0, 1}))
    world.run(seconds)
    assert ann.state is bob.state is State.UP
    world.cut.clear()
    world.run(3.0)
    assert goes_on(world, ann, bob)
    for party in (ann, bob):
        assert len(party.all(CallLineLost)) == len(party.all(CallLineBack)) == (seconds > 5.0)
        assert party.calls.status(world.now).line_lost is False  # type: ignore[union-attr]
    world.run(90.0)
    assert len(ann.peers.links) == len(bob.peers.links) == 1
    assert goes_on(world, ann, bob)


def test_without_voice_a_call_asks_whether_it_is_still_there() -> None:
    world = LineWorld()
    ann, bob = world.up()
    world.run(120.0)
    assert ann.state is bob.state is State.UP
    assert not ann.all(CallLineLost)
    bob.down = True
    world.run(LOST_SECONDS + 2 * CHECK_SECONDS)
    assert ann.ending is Ending.LINE_LOST


@pytest.mark.parametrize("closer", [0, 1])
@pytest.mark.parametrize("loss", [0.0, 0.2])
def test_a_link_that_ends_is_dialled_anew_and_the_call_goes_on(closer: int, loss: float) -> None:
    world = LineWorld(seed=closer)
    pair = talking(world)
    world.loss = loss
    one = pair[closer]
    one.peers.close(world.now, one.link)
    one.carry(world.now)
    world.run(15.0)
    world.loss = 0.0
    assert goes_on(world, *pair)
    for party in pair:
        assert not party.all(CallEnded)
        assert party.all(CallLineBack)
        assert party.calls.words(party.calls.status(world.now).call)  # type: ignore[union-attr]
    words = [party.calls.words(party.calls.status(world.now).call) for party in pair]  # type: ignore[union-attr]
    assert words[0] == words[1]
    world.run(90.0)
    assert [len(party.peers.links) for party in pair] == [1, 1]
    pair[0].do("hang_up")
    world.run(1.0)
    assert pair[1].ending is Ending.HUNG_UP_THERE


@pytest.mark.parametrize("who", [0, 1])
def test_a_side_that_starts_anew_has_lost_the_call_and_the_other_is_told(who: int) -> None:
    world = LineWorld()
    pair = talking(world)
    gone, other = pair[who], pair[1 - who]
    gone.start()
    gone.voice_seconds = 0.0
    world.run(LOST_SECONDS)
    assert other.ending is Ending.GONE_THERE
    assert other.last(CallEnded).at - world.now < -5.0, "found out by asking, before the line is given up"
    assert not [event for event in gone.all(CallIncoming) if event.at > 104.0]
    world.run(90.0)
    assert other.is_clean
    assert gone.is_clean


@pytest.mark.parametrize("who", [0, 1])
def test_a_side_that_starts_anew_can_call_at_once(who: int) -> None:
    world = LineWorld()
    pair = talking(world)
    gone, other = pair[who], pair[1 - who]
    gone.start()
    world.run(4.0)
    gone.call(other)
    world.run(1.0)
    assert other.last(CallEnded).ending is Ending.GONE_THERE
    assert other.state is State.INCOMING
    other.do("accept")
    world.run(1.0)
    assert goes_on(world, *pair)


def test_both_start_anew_and_nothing_is_left() -> None:
    world = LineWorld()
    for party in talking(world):
        party.start()
    world.run(100.0)
    assert all(party.is_clean and party.state is None for party in world.parties)


def test_a_caller_that_vanishes_while_it_rings_stops_the_ringing() -> None:
    world = LineWorld()
    ann, bob = world.two()
    ann.call(bob)
    world.run(1.0)
    ann.down = True
    world.run(LOST_SECONDS + 5.0)
    assert bob.ending is Ending.CALLER_GONE
    assert ann.ending is Ending.NOT_REACHED
    world.run(90.0)
    assert bob.is_clean
    assert ann.is_clean


def test_a_caller_that_starts_anew_while_it_rings_can_call_again() -> None:
    world = LineWorld()
    ann, bob = world.two()
    ann.call(bob)
    world.run(1.0)
    ann.start()
    ann.call(bob)
    world.run(1.0)
    assert [event.ending for event in bob.all(CallEnded)] == [Ending.CALLER_GONE]
    assert bob.state is State.INCOMING
    bob.do("accept")
    world.run(1.0)
    assert ann.state is bob.state is State.UP


def test_a_line_that_breaks_again_and_again_is_dialled_each_time() -> None:
    world = LineWorld()
    ann, bob = talking(world)
    for turn in range(4):
        party = (ann, bob)[turn % 2]
        party.peers.close(world.now, party.link)
        party.carry(world.now)
        world.run(12.0)
        assert goes_on(world, ann, bob), turn
    assert ann.calls.counters["dialled anew"] + bob.calls.counters["dialled anew"] >= 4


def test_a_dead_link_beside_a_living_one_is_let_go_and_costs_nothing() -> None:
    world = LineWorld()
    ann, bob = talking(world)
    old = bob.link
    world.cut.add(frozenset({0, 1}))
    world.run(1.0)
    ann.peers.close(world.now, ann.link)  # its farewell is lost, so Bob's end stays open for a minute
    ann.carry(world.now)
    world.cut.clear()
    world.run(15.0)
    assert goes_on(world, ann, bob)
    assert bob.link != old
    wakes = 0
    for _ in range(40):
        due = bob.calls.next_wake()
        wakes += due is not None and due <= world.now + 0.02
        world.run(1.0)
    assert wakes <= 2, "a silent link is no reason to look without pause"
    assert bob.peers.voice_links == {bob.link}
    assert goes_on(world, ann, bob)


@pytest.mark.parametrize("loss", [0.1, 0.3])
def test_a_call_lives_through_losses(loss: float) -> None:
    world = LineWorld(seed=3)
    world.loss = loss
    ann, bob = world.two()
    ann.call(bob)
    world.run(20.0)
    assert ann.state is State.RINGING
    bob.do("accept")
    world.run(10.0)
    for party in (ann, bob):
        party.voice_seconds = TALK_SECONDS
    world.run(60.0)
    assert ann.state is bob.state is State.UP
    assert ann.tag == bob.tag
    ann.do("hang_up")
    world.run(30.0)
    assert bob.state is None
    endings = (Ending.HUNG_UP_THERE, Ending.LINE_LOST, Ending.GONE_THERE)
    assert bob.ending in endings, "the farewell may be lost with its link, or asked for when it is said"
