"""A peer with a valid key that keeps to no rule: wrong states, floods, absurd numbers, voice unasked for."""

from __future__ import annotations

from random import Random

import pytest

from meshcall.calls.events import (
    CallAnswered,
    CallEnded,
    CallIncoming,
    CallRequested,
    CallRinging,
    Ending,
    VoiceArrived,
    VoiceUnheard,
)
from meshcall.calls.offers import RINGS_BURST, RINGS_PER_SECOND
from meshcall.calls.speaker import LANES_MAX, LINGERING_MAX, MESSAGES_BURST
from meshcall.calls.state import LEGS_MAX, UNHEARD_BURST, UNHEARD_PER_SECOND, State
from meshcall.calls.strangers import STRANGERS_MAX, TELL_BURST
from meshcall.identity import Identity
from meshcall.wire.talk import Kind, Status, Talk, Terms, decode_talk, encode_talk
from tests.calls.line_world import SUITE, Forger, LineWorld, Party


def forger(*, contact: bool = True) -> tuple[LineWorld, Forger, Party]:
    """A forger with a link to somebody, whose contact it is."""
    world = LineWorld()
    eve, bob = world.two()
    if not contact:
        bob.calls.policy = type(bob.policy)()
    found = Forger(eve)
    found.dial(bob)
    return world, found, bob


def said(found: Forger) -> list[Talk]:
    """What it was told, read."""
    return [decode_talk(data) for data in found.said]


def statuses(found: Forger) -> list[int]:
    """Of the acknowledgements it got."""
    return [message.detail for message in said(found) if message.kind is Kind.ACK]


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind not in (Kind.OFFER, Kind.ACK)])
def test_every_message_about_no_call_is_answered_and_changes_nothing(kind: Kind) -> None:
    world, eve, bob = forger()
    terms = kind in (Kind.RINGING, Kind.ACCEPT, Kind.RESUME)
    for number in (0, 1, 2**32 - 1):
        eve.talk(kind, number, serial=number & 0xFF, terms=terms)
    world.run(1.0)
    assert statuses(eve) == [Status.NO_SUCH_CALL] * 3
    assert not bob.events
    assert bob.state is None


@pytest.mark.parametrize("state", [State.INCOMING, State.UP])
def test_every_message_in_a_state_where_it_makes_no_sense(state: State) -> None:
    world, eve, bob = forger()
    eve.talk(Kind.OFFER, 77, terms=True)
    world.run(0.5)
    if state is State.UP:
        bob.do("accept")
        world.run(0.5)
    eve.said.clear()
    events = len(bob.events)
    for kind in (Kind.RINGING, Kind.ACCEPT, Kind.DECLINE, Kind.BUSY):
        eve.talk(kind, 77, terms=kind in (Kind.RINGING, Kind.ACCEPT))
    world.run(0.5)
    assert statuses(eve) == [Status.OUT_OF_PLACE] * 4
    assert bob.state is state
    assert len(bob.events) == events


def test_what_is_not_known_is_answered_and_what_is_broken_is_counted() -> None:
    world, eve, bob = forger()
    eve.say(bytes.fromhex("54017e05a1b2c3d4"))
    eve.say(bytes.fromhex("54ff0106a1b2c3d4") + bytes(500))
    eve.say(bytes.fromhex("54ff7f07a1b2c3d4"))
    for junk in ("54", "5401", "54010100a1b2c3d4", "54010100a1b2c3d4" + "00" * 11, "54010900a1b2c3d402"):
        eve.say(bytes.fromhex(junk))
    eve.say(b"\x54" * 5000)
    world.run(1.0)
    assert statuses(eve) == [Status.UNKNOWN_KIND, Status.UNKNOWN_VERSION]
    assert bob.state is None
    assert bob.calls.counters["length of call message"] >= 3
    assert bob.calls.counters["rate in terms"] == 1
    assert bob.calls.counters["flag in call message"] == 1


def test_acknowledgements_out_of_the_air_are_counted() -> None:
    world, eve, bob = forger()
    eve.talk(Kind.OFFER, 5, terms=True)
    world.run(0.5)
    bob.do("accept")
    world.run(0.5)
    for serial in range(40):
        eve.talk(Kind.ACK, 5, serial=serial + 100, detail=Status.NO_SUCH_CALL)
    world.run(1.0)
    assert bob.state is State.UP
    assert bob.calls.counters["acknowledged what was not said"] == 40


def test_offers_without_end_ring_a_few_times_and_leave_nothing() -> None:
    world, eve, bob = forger()
    for number in range(400):
        eve.talk(Kind.OFFER, number, terms=True)
        eve.talk(Kind.CANCEL, number)
        world.run(0.02)
    world.run(2.0)
    assert len(bob.all(CallIncoming)) <= 8
    assert bob.calls.counters["call message: too many"] > 400
    assert len(bob.calls.speaker) <= 2
    world.run(100.0)  # the last CANCEL may be among those dropped: then it rings to its end
    assert bob.state is None
    assert bob.is_clean


def test_offers_on_many_links_are_bounded() -> None:
    world, eve, bob = forger()
    for number in range(LINGERING_MAX + 40):
        eve.dial(bob)
        eve.talk(Kind.OFFER, number, terms=True)
        world.run(0.05)
        assert len(bob.calls.speaker) <= 2 * LINGERING_MAX + 10
    assert len(bob.all(CallIncoming)) <= LINGERING_MAX
    world.run(1.0)
    bob.do("decline")
    world.run(120.0)
    assert bob.state is None
    assert len(bob.calls.speaker) == len(bob.peers.voice_links) == 0
    assert len(bob.peers.links) == 1, "the first one, on which nothing was ever said"
    assert LANES_MAX > LINGERING_MAX


def test_an_offer_on_the_link_of_the_call_that_is_up_does_not_close_it() -> None:
    world, eve, bob = forger()
    eve.talk(Kind.OFFER, 9, terms=True)
    world.run(0.5)
    bob.do("accept")
    world.run(0.5)
    eve.talk(Kind.OFFER, 10, terms=True)
    world.run(0.5)
    assert any(message.kind is Kind.BUSY for message in said(eve))
    for _ in range(15):
        eve.talk(Kind.CHECK, 9)
        world.run(1.0)
    assert bob.state is State.UP
    assert bob.peers.is_open(bob.link)
    assert statuses(eve)[-1] == Status.TAKEN
    eve.talk(Kind.END, 9)
    world.run(30.0)
    assert bob.is_clean


def test_a_call_taken_to_many_links_keeps_a_few() -> None:
    world, eve, bob = forger()
    eve.talk(Kind.OFFER, 9, terms=True)
    world.run(0.5)
    bob.do("accept")
    for _ in range(3 * LEGS_MAX):
        eve.dial(bob)
        eve.talk(Kind.RESUME, 9, terms=True)
        world.run(0.2)
        assert len(bob.peers.voice_links) <= LEGS_MAX
    assert bob.state is State.UP
    assert bob.calls.status(world.now).devices <= LEGS_MAX  # type: ignore[union-attr]
    bob.do("hang_up")
    world.run(120.0)
    assert bob.is_clean


def test_somebody_else_cannot_touch_a_call_even_with_its_number() -> None:
    world = LineWorld()
    ann, bob = world.up()
    eve = Forger(world.party())
    bob.calls.policy = type(bob.policy)(frozenset({ann.identity.public, eve.party.identity.public}))
    number = next(iter(bob.calls._desk.call.legs)) and bob.calls._desk.call.on_wire  # type: ignore[union-attr]
    eve.dial(bob)
    for kind in Kind:
        if kind not in (Kind.OFFER, Kind.ACK):
            eve.talk(kind, number, terms=kind in (Kind.RINGING, Kind.ACCEPT, Kind.RESUME))
    world.run(1.0)
    assert statuses(eve) == [Status.NO_SUCH_CALL] * 11
    eve.party.peers.send_voice(world.now, eve.link, b"voice of eve")
    eve.party.carry(world.now)
    world.run(1.0)
    assert not bob.all(VoiceArrived)
    assert ann.state is bob.state is State.UP
    eve.talk(Kind.OFFER, number, terms=True)
    world.run(0.5)
    assert said(eve)[-2].kind is Kind.BUSY


def test_another_device_of_the_caller_cannot_take_its_call_over() -> None:
    world = LineWorld()
    ann, bob = world.up()
    other = Forger(world.party(ann.identity))
    other.dial(bob)
    number = bob.calls._desk.call.on_wire  # type: ignore[union-attr]
    other.talk(Kind.RESUME, number, terms=True)
    other.talk(Kind.END, number)
    world.run(1.0)
    assert statuses(other) == [Status.NO_SUCH_CALL] * 2
    assert ann.state is bob.state is State.UP


def test_voice_before_acceptance_is_not_heard_and_its_memory_is_bounded() -> None:
    world = LineWorld()
    ann, bob = world.two()
    eve = Forger(bob)
    ann.call(bob)
    world.run(1.0)
    offer = said(eve)[0]
    assert offer.kind is Kind.OFFER
    for _ in range(50):
        bob.peers.send_voice(world.now, eve.link, bytes(1000))
    bob.carry(world.now)
    world.run(0.5)
    eve.talk(Kind.RINGING, offer.call, terms=True)
    for _ in range(500):
        bob.peers.send_voice(world.now, eve.link, bytes(1000))
    bob.carry(world.now)
    world.run(0.5)
    assert ann.state is State.RINGING
    assert not ann.all(VoiceArrived)
    counted = len(ann.all(VoiceUnheard))
    assert UNHEARD_BURST <= counted <= UNHEARD_BURST + 0.5 * UNHEARD_PER_SECOND, "a flood costs no more than this"
    assert ann.calls.counters["voice while ringing: too much"] == 500 - counted
    for _ in range(40):  # what comes right before ACCEPT may have overtaken it; what is older was said while it rang
        bob.peers.send_voice(world.now, eve.link, b"new")
    bob.carry(world.now)
    eve.talk(Kind.ACCEPT, offer.call, terms=True)
    world.run(0.5)
    heard = ann.all(VoiceArrived)
    assert 0 < len(heard) <= 40
    assert all(event.data == b"new" for event in heard)


def test_a_callee_that_says_everything_at_once() -> None:
    world = LineWorld()
    ann, bob = world.two()
    eve = Forger(bob)
    ann.call(bob)
    world.run(1.0)
    offer = said(eve)[0]
    for kind in (Kind.RINGING, Kind.RINGING, Kind.ACCEPT, Kind.ACCEPT, Kind.DECLINE, Kind.BUSY, Kind.RINGING):
        eve.talk(kind, offer.call, terms=kind in (Kind.RINGING, Kind.ACCEPT))
    world.run(1.0)
    assert ann.state is State.UP
    assert len(ann.all(CallRinging)) == len(ann.all(CallAnswered)) == 1


def test_terms_that_nobody_understands_are_declined_in_words() -> None:
    world, eve, bob = forger()
    eve.say(Talk(Kind.OFFER, 1, 0, Terms(0, 70, voice=9)))
    eve.say(Talk(Kind.OFFER, 2, 1, Terms(0, 70, kinds=2)))
    world.run(0.5)
    assert [message.kind for message in said(eve)].count(Kind.DECLINE) == 2
    assert not bob.events
    world = LineWorld()
    ann, bob = world.two()
    eve = Forger(bob)
    ann.call(bob)
    world.run(1.0)
    eve.say(Talk(Kind.ACCEPT, said(eve)[0].call, 0, Terms(0, 70, voice=9)))
    world.run(0.5)
    assert ann.ending is Ending.INCOMPATIBLE


def test_a_peer_of_another_version_is_said_to_be_one() -> None:
    world = LineWorld()
    ann, bob = world.two()
    eve = Forger(bob)
    ann.call(bob)
    world.run(1.0)
    offer = said(eve)[0]
    eve.talk(Kind.ACK, offer.call, serial=offer.serial, detail=Status.UNKNOWN_VERSION)
    world.run(0.5)
    assert ann.ending is Ending.INCOMPATIBLE


def test_a_silent_callee_takes_no_part() -> None:
    world = LineWorld()
    ann, bob = world.two()
    Forger(bob)
    ann.call(bob)
    world.run(15.0)
    assert ann.ending is Ending.NO_RESPONSE


def test_strangers_without_end_fill_a_bounded_list_and_few_events() -> None:
    world, eve, bob = forger(contact=False)
    for number in range(STRANGERS_MAX + 20):
        eve.party.identity = Identity.new(SUITE)
        eve.party.start()
        eve = Forger(eve.party)
        eve.dial(bob)
        for turn in range(3):
            eve.talk(Kind.OFFER, 3 * number + turn, terms=True)
        world.run(0.05)
    assert len(bob.calls.strangers()) == STRANGERS_MAX
    assert len(bob.all(CallRequested)) <= TELL_BURST + 10
    assert not bob.all(CallIncoming)


def test_where_strangers_ring_fresh_keys_ring_no_more_often_than_one() -> None:
    world, eve, bob = forger(contact=False)
    ann = world.party()
    bob.calls.policy = type(bob.policy)(frozenset({ann.identity.public}), ring="all")
    for number in range(30):
        eve.party.identity = Identity.new(SUITE)
        eve.party.start()
        eve = Forger(eve.party)
        eve.dial(bob)
        eve.talk(Kind.OFFER, number, terms=True)
        eve.talk(Kind.CANCEL, number)
        world.run(0.05)
    assert RINGS_BURST <= len(bob.all(CallIncoming)) <= RINGS_BURST + RINGS_PER_SECOND * world.now
    world.run(0.5)
    assert any(message.kind is Kind.BUSY for message in said(eve))
    ann.call(bob)
    world.run(2.0)
    assert bob.last(CallIncoming).identity == ann.identity.public, "a contact rings all the same"


def test_toggles_without_end_are_bounded() -> None:
    world, eve, bob = forger()
    eve.talk(Kind.OFFER, 3, terms=True)
    world.run(0.5)
    bob.do("accept")
    world.run(0.5)
    events = len(bob.events)
    for turn in range(500):
        eve.talk(Kind.HOLD, 3, detail=turn % 2)
    world.run(1.0)
    assert len(bob.events) - events <= MESSAGES_BURST + 25
    assert bob.state is State.UP


@pytest.mark.parametrize("seed", range(6))
def test_any_messages_at_all_leave_at_most_one_call_and_nothing_behind(seed: int) -> None:
    rng = Random(seed)
    world, eve, bob = forger()
    if seed % 2:
        bob.calls.policy = type(bob.policy)(bob.policy.contacts, auto_answer="contacts")
    for _ in range(300):
        kind = rng.choice(list(Kind))
        terms = Terms(rng.getrandbits(16), 70) if kind in (Kind.OFFER, Kind.RINGING, Kind.ACCEPT, Kind.RESUME) else None
        detail = 0 if terms or kind in (Kind.BUSY, Kind.CHECK) else rng.randrange(2)
        data = encode_talk(Talk(kind, rng.choice([1, 1, 1, 2, rng.getrandbits(32)]), rng.randrange(8), terms, detail))
        if rng.random() < 0.1:
            data = bytes(byte ^ (rng.random() < 0.2) for byte in data)
        if rng.random() < 0.02:
            eve.dial(bob)
        if bob.state is State.INCOMING and rng.random() < 0.2:
            bob.do(rng.choice(["accept", "decline"]))
        elif bob.state is None and rng.random() < 0.05:
            bob.call(eve.party)
        elif bob.state is not None and rng.random() < 0.02:
            bob.do("hang_up")
        eve.say(data)
        eve.party.peers.send_voice(world.now, eve.link, rng.randbytes(rng.randrange(200)))
        eve.party.carry(world.now)
        world.run(rng.choice([0.0, 0.1, 0.5]))
        incoming, ended = len(bob.all(CallIncoming)), len(bob.all(CallEnded))
        assert incoming - ended <= 1
    eve.party.down = True
    world.run(120.0)
    assert bob.state is None
    assert bob.is_clean
