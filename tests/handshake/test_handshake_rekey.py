"""Fresh keys inside a session: in time, under loss, from both sides at once, and nothing lost meanwhile."""

from __future__ import annotations

from random import Random

import pytest

from meshcall.handshake import session as sessions
from meshcall.handshake.events import KEYS_TOO_OLD, Closed, Frame, Message
from meshcall.handshake.link import Link
from tests.handshake.two_links import Party, Wire


def link_of(party: Party, number: int) -> Link:
    return party.links._links[number]


def talk(wire: Wire, alice: Party, out: int, bob: Party, into: int, seconds: float) -> int:
    """Ten frames a second each way; how many were lost in all."""
    rounds = round(seconds * 10)
    for _ in range(rounds):
        alice.links.send_frame(wire.now, out, 32, b"a")
        bob.links.send_frame(wire.now, into, 32, b"b")
        wire.run(0.1)
    wire.run(0.3)
    return 2 * rounds - len(alice.take(Frame)) - len(bob.take(Frame))


@pytest.mark.parametrize("kem", [True, False], ids=["hybrid", "classical"])
def test_keys_are_fresh_every_two_minutes(kem: bool) -> None:
    wire = Wire()
    alice, bob = wire.party("alice", kem=kem), wire.party("bob", kem=kem)
    out, into = wire.connect(alice, bob)
    mine, theirs = link_of(alice, out).session, link_of(bob, into).session
    transcript = mine.transcript
    keys = set()
    for count in range(1, 4):
        keys.add(mine._current._send_key)
        assert talk(wire, alice, out, bob, into, 121.0) == 0
        assert mine.rekeys == theirs.rekeys == count
        assert mine._current._send_key == theirs._current._receive_key
        assert mine._current._receive_key == theirs._current._send_key
        assert mine._current.chain == theirs._current.chain
    keys.add(mine._current._send_key)
    assert len(keys) == 4
    assert mine.transcript == theirs.transcript == transcript, "the safety words stay"
    assert alice.links.counters["sealed forged"] == bob.links.counters["sealed forged"] == 0


def test_old_keys_and_indexes_are_given_up() -> None:
    wire = Wire()
    alice, bob = wire.party("alice"), wire.party("bob")
    out, into = wire.connect(alice, bob)
    wire.run(1000.0)
    for party, number in ((alice, out), (bob, into)):
        session = link_of(party, number).session
        assert session.rekeys >= 7
        assert session._previous is None or wire.now - session._current.since < 11
        assert len(party.links._indexes) <= 2
        assert len(party.links._indexes._tokens) == 1


def test_rekeying_bears_loss() -> None:
    wire = Wire(seed=7)
    alice, bob = wire.party("alice"), wire.party("bob")
    out, into = wire.connect(alice, bob)
    rng = Random(5)
    wire.change = lambda datagram: [] if rng.random() < 0.3 else [datagram]
    wire.run(1000.0)
    assert link_of(alice, out).session.rekeys >= 7
    wire.change = None
    assert talk(wire, alice, out, bob, into, 2.0) == 0


def test_both_sides_at_once() -> None:
    wire = Wire()
    alice, bob = wire.party("alice"), wire.party("bob")
    out, into = wire.connect(alice, bob)
    for _ in range(3):
        for party, number in ((alice, out), (bob, into)):
            link_of(party, number).session._renew_at = wire.now
            party.links._schedule(number, wire.now)
        before = link_of(alice, out).session.rekeys
        assert talk(wire, alice, out, bob, into, 3.0) == 0
        assert link_of(alice, out).session.rekeys == link_of(bob, into).session.rekeys == before + 1
    assert bob.links.counters["rekey crossed"] == 0
    assert alice.links.counters["rekey crossed"] > 0


def test_the_callee_renews_where_the_caller_does_not() -> None:
    wire = Wire()
    alice, bob = wire.party("alice"), wire.party("bob")
    out, into = wire.connect(alice, bob)
    session = link_of(alice, out).session
    session._renew_at = float("inf")
    assert talk(wire, alice, out, bob, into, 155.0) == 0
    assert session.rekeys == 1


def test_many_packets_bring_fresh_keys_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "REKEY_PACKETS", 100)
    wire = Wire()
    alice, bob = wire.party("alice"), wire.party("bob")
    out, into = wire.connect(alice, bob)
    assert talk(wire, alice, out, bob, into, 60.0) == 0
    assert link_of(alice, out).session.rekeys >= 2


def test_a_session_that_cannot_renew_ends() -> None:
    wire = Wire()
    alice, bob = wire.party("alice"), wire.party("bob")
    out, into = wire.connect(alice, bob)
    for party, number in ((alice, out), (bob, into)):
        link_of(party, number).session._renew_at = float("inf")
    wire.run(605.0)
    reasons = [event.reason for party in (alice, bob) for event in party.take(Closed)]
    assert KEYS_TOO_OLD in reasons
    assert len(reasons) == 2


def test_worn_keys_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "PACKETS_MAX", 50)
    monkeypatch.setattr(sessions, "REKEY_PACKETS", 10)
    wire = Wire()
    alice, bob = wire.party("alice"), wire.party("bob")
    out, _ = wire.connect(alice, bob)
    link_of(alice, out).session._renew_at = float("-inf")
    wire.change = lambda datagram: []
    for _ in range(60):
        if alice.take(Closed):
            return
        alice.links.send_frame(wire.now, out, 32, b"")
        wire.collect()
    raise AssertionError("still open")


def test_messages_pass_over_a_change_of_keys() -> None:
    wire = Wire(delay=0.05)
    alice, bob = wire.party("alice"), wire.party("bob")
    out, _ = wire.connect(alice, bob)
    wire.run(118.5)
    sent = []
    for number in range(30):
        message = b"%d" % number * 500
        sent.append(message)
        alice.links.send_message(wire.now, out, message)
        wire.run(0.05)
    wire.run(2.0)
    assert link_of(alice, out).session.rekeys == 1
    assert [event.data for event in bob.take(Message)] == sent
