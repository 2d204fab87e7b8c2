"""Links between two devices: from the dial to the close, without an enemy."""

from __future__ import annotations

import pytest

from meshcall.core import endpoint
from meshcall.errors import UsageError
from meshcall.handshake.dial import Callee, DialError
from meshcall.handshake.events import (
    CLOSED_BY_PEER,
    LOST_BY_PEER,
    NO_ANSWER,
    SILENT,
    WRONG_IDENTITY,
    Closed,
    Established,
    Frame,
    Message,
    Roamed,
)
from meshcall.handshake.link import Link
from meshcall.handshake.safety import safety_words
from meshcall.path.paths import direct
from meshcall.wire.link import SEALED_OVERHEAD_BYTES
from tests.handshake.two_links import Wire, pieces


@pytest.mark.parametrize("kem", [True, False], ids=["hybrid", "classical"])
def test_a_link_is_made_in_one_round_trip(kem: bool) -> None:
    wire = Wire(delay=0.04)
    alice, bob = wire.party("alice", kem=kem), wire.party("bob", kem=kem)
    number = wire.dial(alice, bob)
    alice.links.send_message(wire.now, number, b"offer")
    wire.run(0.0401)
    assert not bob.events
    wire.run(0.04)
    (out,) = alice.take(Established)
    assert (out.link, out.path, out.identity, out.incoming) == (number, bob.path, bob.identity.public, False)
    assert out.certificate == bob.certificate
    assert out.hybrid is kem
    assert out.round_trip == pytest.approx(0.08)
    assert not bob.take(Established), "not before the caller's first sealed packet"
    wire.run(0.04)
    (into,) = bob.take(Established)
    assert (into.path, into.identity, into.incoming, into.hybrid) == (alice.path, alice.identity.public, True, kem)
    assert into.certificate == alice.certificate
    assert into.round_trip == pytest.approx(0.08)
    assert bob.take(Message) == [Message(into.link, b"offer")]
    assert alice.links.transcript(number) == bob.links.transcript(into.link)
    assert len(alice.links.transcript(number)) == 64
    assert safety_words(alice.links.transcript(number)) == safety_words(bob.links.transcript(into.link))
    wire.run(0.5)
    assert alice.links.round_trip(number) == pytest.approx(0.08)
    assert alice.links.waiting_bytes(number) == 0


def test_pieces_fit_and_no_answer_is_longer_than_the_question() -> None:
    wire = Wire()
    alice, bob = wire.party("alice"), wire.party("bob")
    wire.connect(alice, bob)
    asked = [len(datagram) for source, _, datagram in wire.sent if datagram[0] == 0x10 and source == alice.path]
    answered = [len(datagram) for source, _, datagram in wire.sent if datagram[0] == 0x10 and source == bob.path]
    assert len(asked) == len(answered) == 2
    assert max(asked) <= 1200
    assert sum(answered) <= sum(asked)


def test_messages_and_frames_go_both_ways() -> None:
    wire = Wire()
    alice, bob = wire.party("alice"), wire.party("bob")
    out, into = wire.connect(alice, bob)
    big = bytes(range(256)) * 64
    alice.links.send_message(wire.now, out, big)
    bob.links.send_message(wire.now, into, b"")
    bob.links.send_frame(wire.now, into, 32, b"voice")
    alice.links.send_frame(wire.now, out, 16, b"probe", bob.path)
    wire.run(1.0)
    assert bob.take(Message) == [Message(into, big)]
    assert alice.take(Message) == [Message(out, b"")]
    assert alice.take(Frame) == [Frame(out, bob.path, 32, b"voice")]
    assert bob.take(Frame) == [Frame(into, alice.path, 16, b"probe")]


def test_overhead_is_26_bytes() -> None:
    wire = Wire()
    alice, bob = wire.party("alice"), wire.party("bob")
    out, _ = wire.connect(alice, bob)
    alice.links.outbox.clear()
    alice.links.send_frame(wire.now, out, 32, b"v" * 100)
    ((_, datagram),) = alice.links.outbox
    assert len(datagram) - 100 == SEALED_OVERHEAD_BYTES == 26


def test_a_dial_goes_along_all_paths_and_makes_one_link() -> None:
    wire = Wire()
    alice, bob = wire.party("alice"), wire.party("bob")
    nowhere = direct(endpoint("198.51.100.1", 1))
    number = alice.links.dial(wire.now, [nowhere, bob.path, nowhere], bob.callee())
    wire.run(1.0)
    assert [event.path for event in alice.take(Established)] == [bob.path]
    assert len(bob.take(Established)) == 1
    assert len(bob.links) == 1
    assert alice.links.path(number) == bob.path


def test_a_path_can_be_added_to_a_dial() -> None:
    wire = Wire()
    alice, bob = wire.party("alice"), wire.party("bob")
    number = alice.links.dial(wire.now, [], bob.callee())
    wire.run(1.0)
    assert not alice.events
    alice.links.add_paths(wire.now, number, [bob.path])
    wire.run(0.06)
    assert len(alice.take(Established)) == 1


def test_the_same_message_on_two_paths_makes_one_session() -> None:
    wire = Wire()
    alice, bob = wire.party("alice"), wire.party("bob")
    other = direct(endpoint("203.0.113.9", 9))
    wire.change = lambda datagram: [datagram, datagram]
    number = wire.dial(alice, bob)
    wire.collect()
    for _, _, datagram in list(wire.sent):
        wire.throw(other, bob.path, datagram)
    wire.run(1.0)
    assert len(bob.take(Established)) == 1
    assert len(bob.links) == 1
    assert [event.link for event in alice.take(Established)] == [number]


def test_loss_of_any_one_datagram_costs_a_repetition_only() -> None:
    for lost in range(6):
        wire = Wire()
        alice, bob = wire.party("alice"), wire.party("bob")
        count = iter(range(10_000))
        wire.change = lambda datagram, lost=lost, count=count: [] if next(count) == lost else [datagram]
        number = wire.dial(alice, bob)
        alice.links.send_message(wire.now, number, b"ring")
        wire.run(1.0)
        assert len(alice.take(Established)) == len(bob.take(Established)) == 1, lost
        assert [event.data for event in bob.take(Message)] == [b"ring"], lost


def test_nobody_there() -> None:
    wire = Wire()
    alice, bob = wire.party("alice"), wire.party("bob")
    wire.change = lambda datagram: []
    number = wire.dial(alice, bob)
    wire.run(14.9)
    assert not alice.events
    wire.run(0.2)
    assert alice.take(Closed) == [Closed(number, NO_ANSWER)]
    assert len(wire.sent) < 40
    wire.run(60.0)
    assert not alice.events
    assert alice.links.next_wake() is None


def test_another_identity_than_the_called_one_is_refused() -> None:
    wire = Wire()
    alice, bob = wire.party("alice"), wire.party("bob")
    number = alice.links.dial(wire.now, [bob.path], Callee(bob.device.public, alice.identity.public, True))
    wire.run(1.0)
    assert alice.take(Closed) == [Closed(number, WRONG_IDENTITY)]
    wire.run(20.0)
    assert not bob.events
    assert len(bob.links) == 0


def test_a_device_known_by_its_key_only() -> None:
    wire = Wire()
    alice, relay = wire.party("alice"), wire.party("relay")
    alice.links.dial(wire.now, [relay.path], Callee(relay.device.public, None, True))
    wire.run(1.0)
    assert [event.identity for event in alice.take(Established)] == [relay.identity.public]


def test_an_expired_certificate_is_refused_on_both_sides() -> None:
    wire = Wire()
    alice, bob = wire.party("alice"), wire.party("bob")
    alice.links.set_certificate(alice.device.certify(wire.suite, alice.identity, 0.0))
    wire.dial(alice, bob)
    wire.run(20.0)
    assert bob.links.counters["first message certificate"] > 0
    assert [event.reason for event in alice.take(Closed)] == [NO_ANSWER]
    number = wire.dial(bob, alice)
    wire.run(1.0)
    assert bob.take(Closed) == [Closed(number, WRONG_IDENTITY)]


def test_a_key_that_nobody_can_have_is_refused_at_once() -> None:
    wire = Wire()
    alice = wire.party("alice")
    with pytest.raises(DialError, match="key"):
        alice.links.dial(wire.now, [], Callee(bytes(32), None, True))
    with pytest.raises(DialError, match="ML-KEM"):
        wire.party("old", kem=False).links.dial(wire.now, [], alice.callee())
    assert alice.links.next_wake() is None


def test_close_is_told() -> None:
    wire = Wire()
    alice, bob = wire.party("alice"), wire.party("bob")
    out, into = wire.connect(alice, bob)
    bob.links.close(wire.now, into)
    wire.run(0.1)
    assert alice.take(Closed) == [Closed(out, CLOSED_BY_PEER)]
    for party, number in ((alice, out), (bob, into)):
        assert len(party.links) == 0
        with pytest.raises(UsageError, match="no open link"):
            party.links.send_message(wire.now, number, b"")
    number = wire.dial(alice, bob)
    alice.links.close(wire.now, number)
    wire.run(1.0)
    assert not alice.events


def test_a_restarted_device_says_that_it_has_lost_the_session() -> None:
    wire = Wire()
    alice, relay = wire.party("alice"), wire.party("relay")
    out, _ = wire.connect(alice, relay)
    relay.restart(wire.now)
    alice.links.send_frame(wire.now, out, 16, b"anything")
    wire.run(0.1)
    assert alice.take(Closed) == [Closed(out, LOST_BY_PEER)]
    assert wire.connect(alice, relay)


def test_silence_ends_a_link_on_both_sides() -> None:
    wire = Wire()
    alice, bob = wire.party("alice"), wire.party("bob")
    out, into = wire.connect(alice, bob)
    wire.run(300.0)
    assert not alice.events
    assert not bob.events
    wire.change = lambda datagram: []
    wire.run(70.0)
    assert alice.take(Closed) == [Closed(out, SILENT)]
    assert bob.take(Closed) == [Closed(into, SILENT)]


def test_an_idle_link_costs_little() -> None:
    wire = Wire()
    alice, bob = wire.party("alice"), wire.party("bob")
    wire.connect(alice, bob)
    before = len(wire.sent)
    wire.run(1000.0)
    octets = sum(len(datagram) + 28 for _, _, datagram in wire.sent[before:])
    assert octets * 8 / 1000.0 < 500  # bit/s, both directions, rekeys included


def test_a_caller_that_never_speaks_is_forgotten() -> None:
    wire = Wire()
    alice, bob = wire.party("alice"), wire.party("bob")
    wire.change = lambda datagram: [] if datagram[0] == 0x12 else [datagram]
    wire.dial(alice, bob)
    wire.run(5.0)
    assert len(bob.links) == 1
    wire.run(10.0)
    assert len(bob.links) == 0
    assert not bob.events


def test_roaming_by_authenticated_packet() -> None:
    wire = Wire()
    alice, bob = wire.party("alice"), wire.party("bob")
    out, into = wire.connect(alice, bob)
    wire.move(alice, "192.0.2.77")
    alice.links.send_frame(wire.now, out, 32, b"from elsewhere")
    wire.run(0.1)
    assert bob.take(Frame) == [Frame(into, alice.path, 32, b"from elsewhere")]
    assert bob.events == [Roamed(into, alice.path)]
    bob.links.send_frame(wire.now, into, 32, b"back")
    wire.run(0.1)
    assert alice.take(Frame) == [Frame(out, bob.path, 32, b"back")]


def test_a_chosen_path_is_kept_while_it_is_heard() -> None:
    wire = Wire()
    alice, bob = wire.party("alice"), wire.party("bob")
    out, into = wire.connect(alice, bob)
    first, second = alice.path, direct(endpoint("192.0.2.88", 1))
    bob.links.set_path(into, first)
    for _ in range(20):
        for source in (first, second):
            alice.links.send_frame(wire.now, out, 32, b"both")
            ((_, datagram),) = alice.links.outbox
            alice.links.outbox.clear()
            bob.links.receive(wire.now, source, datagram)
        wire.run(0.1)
    assert bob.links.path(into) == first
    assert set(bob.links.heard(into)) == {first, second}
    for _ in range(20):
        alice.links.send_frame(wire.now, out, 32, b"second only")
        ((_, datagram),) = alice.links.outbox
        alice.links.outbox.clear()
        bob.links.receive(wire.now, second, datagram)
        wire.run(0.1)
    assert bob.links.path(into) == second


def test_two_who_dial_each_other_at_once_get_two_links_that_work() -> None:
    wire = Wire()
    alice, bob = wire.party("alice"), wire.party("bob")
    wire.dial(alice, bob)
    wire.dial(bob, alice)
    wire.run(1.0)
    for here, there in ((alice, bob), (bob, alice)):
        opened = here.take(Established)
        assert sorted(event.incoming for event in opened) == [False, True]
        assert all(event.identity == there.identity.public for event in opened)
        for event in opened:
            here.links.send_message(wire.now, event.link, b"hello")
    wire.run(1.0)
    assert len(alice.take(Message)) == len(bob.take(Message)) == 2


@pytest.mark.parametrize("minutes", [10, -10])
def test_a_clock_that_is_wrong_by_ten_minutes_does_not_matter(minutes: int) -> None:
    wire = Wire()
    alice, bob = wire.party("alice", clock=60.0 * minutes), wire.party("bob")
    wire.connect(alice, bob)
    wire.connect(bob, alice)
    alice.links.set_clock(wire.now, 1_800_000_000.0 + wire.now)  # put right, forwards or backwards
    wire.connect(alice, bob)
    alice.restart(wire.now)
    alice.links.set_clock(wire.now, 1_800_000_000.0 + wire.now - 600)  # and set back behind what bob has seen
    wire.connect(alice, bob)


def test_nothing_secret_is_shown() -> None:
    wire = Wire()
    alice, bob = wire.party("alice"), wire.party("bob")
    out, _ = wire.connect(alice, bob)
    link = alice.links._links[out]
    assert isinstance(link, Link)
    epoch = link.session._current
    for thing in (alice.links, link, link.session, epoch):
        text = repr(thing)
        for secret in (epoch._send_key, epoch._receive_key, alice.device.secret):
            assert secret.hex() not in text
            assert repr(secret) not in text


def test_pieces_show_neither_identity() -> None:
    wire = Wire()
    alice, bob = wire.party("alice"), wire.party("bob")
    wire.connect(alice, bob)
    for datagram in pieces(wire):
        for name in (alice.identity.public, bob.identity.public, alice.device.public, bob.device.public):
            assert name not in datagram
