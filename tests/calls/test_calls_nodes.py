"""Calls between whole nodes, in virtual time: from an address to the reason why it ended."""

from __future__ import annotations

import pytest

from meshcall.calls.events import (
    CallAnswered,
    CallEnded,
    CallIncoming,
    CallLinked,
    CallResolved,
    CallRinging,
    Ending,
    VoiceArrived,
)
from meshcall.calls.policy import Standing
from meshcall.errors import UsageError
from tests.calls.call_world import CallWorld
from tests.node.node_world import DELAY_SECONDS


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
    assert world.nodes[bob].calls.report_loss(world.now, incoming, 0.5) is None
    world.do(bob, "hang_up")
    world.run(5.0)
    assert world.ending(bob) is Ending.HUNG_UP
    assert world.ending(ann) is Ending.HUNG_UP_THERE
    assert world.last(ann, CallEnded).seconds == pytest.approx(0.75, abs=0.3)
    assert world.is_clean(ann)
    assert world.is_clean(bob)
    with pytest.raises(UsageError, match="no call"):
        world.nodes[ann].calls.hang_up(world.now, call)
