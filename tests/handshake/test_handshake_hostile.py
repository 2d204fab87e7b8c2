"""An enemy on the wire, at every other address, and with a clock of its own."""

from __future__ import annotations

import struct
import time
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshcall.core import endpoint
from meshcall.handshake import incoming, links
from meshcall.handshake.cookie import mac_key, with_macs
from meshcall.handshake.dial import Callee
from meshcall.handshake.events import NO_ANSWER, Closed, Established, Frame, Message
from meshcall.handshake.pieces import MESSAGES_MAX, cut
from meshcall.path.paths import Path, direct, relayed
from meshcall.wire.link import (
    FORM_HYBRID,
    PIECE_BYTES_MAX,
    RESET_BYTES,
    SEALED_OVERHEAD_BYTES,
    Piece,
    decode_piece,
    encode_piece,
    encode_reset,
)
from tests.handshake.two_links import Party, Wire, pieces

SIZE_OF_A_FIRST_MESSAGE = 1434


def forged(rng: Random, target: Party, form: int = FORM_HYBRID) -> list[bytes]:
    """A first message of the right form by somebody who knows the callee's public key and nothing else."""
    key = mac_key(target.device.public)
    return [
        with_macs(encode_piece(piece), key, None)
        for piece in cut(rng.randbytes(SIZE_OF_A_FIRST_MESSAGE), form, rng.randbytes(4))
    ]


def anywhere(rng: Random) -> Path:
    return direct(endpoint(f"198.{rng.randrange(18, 20)}.{rng.randrange(256)}.{rng.randrange(256)}", 4321))


# Handshake pieces


def test_strangers_who_do_not_know_the_key_hear_nothing() -> None:
    wire = Wire()
    alice, bob, eve = wire.party("alice"), wire.party("bob"), wire.party("eve")
    eve.links.dial(wire.now, [bob.path], alice.callee())  # the right place, the wrong key
    wire.run(20.0)
    assert not [datagram for source, _, datagram in wire.sent if source == bob.path]
    assert bob.links.counters["piece mac1"] > 0
    assert bob.links._responder.gate.unfinished == 0


def test_pieces_missing_repeated_and_out_of_order() -> None:
    wire = Wire()
    alice, bob = wire.party("alice"), wire.party("bob")
    rng = Random(3)

    def mess(datagram: bytes) -> list[bytes]:
        if rng.random() < 0.4:
            return []
        wire.throw(alice.path, bob.path, datagram, rng.uniform(0, 0.5))
        wire.throw(bob.path, alice.path, datagram, rng.uniform(0, 0.5))
        return [datagram] * rng.randrange(3)

    wire.change = mess
    wire.dial(alice, bob)
    wire.run(14.0)
    assert len(alice.take(Established)) == len(bob.take(Established)) == 1


def test_a_flood_of_single_pieces_is_bounded_and_a_caller_still_gets_through() -> None:
    wire = Wire()
    alice, bob = wire.party("alice"), wire.party("bob")
    rng = Random(4)
    for _ in range(3000):
        bob.links.receive(wire.now, anywhere(rng), forged(rng, bob)[0])
    assert bob.links._responder.gate.unfinished <= MESSAGES_MAX
    assert bob.links.counters["piece under load"] > 2500
    bob.links.outbox.clear()
    wire.dial(alice, bob)
    for _ in range(30):
        wire.run(0.01)
        for _ in range(30):
            bob.links.receive(wire.now, anywhere(rng), forged(rng, bob)[0])
        bob.links.outbox[:] = [sent for sent in bob.links.outbox if sent[0] == alice.path]
    assert len(alice.take(Established)) == 1
    assert [datagram for source, _, datagram in wire.sent if source == bob.path and datagram[0] == 0x11]
    wire.run(10.0)
    assert bob.links._responder.gate.unfinished == 0


def test_one_source_with_a_cookie_gets_no_more_than_its_share() -> None:
    wire = Wire()
    alice, bob = wire.party("alice"), wire.party("bob")
    rng = Random(5)
    for _ in range(300):
        bob.links.receive(wire.now, anywhere(rng), forged(rng, bob)[0])
    dials = [wire.dial(alice, bob) for _ in range(60)]
    wire.run(1.0)
    assert bob.links.counters["piece quota"] > 0
    wire.run(13.0)
    assert 30 <= len(alice.take(Established)) <= len(dials)


def test_ten_thousand_forged_first_messages_a_second_do_not_stop_a_link() -> None:
    """Half a second of them.  How dear each is is measured in tests/benchmarks/link_bench.py."""
    wire = Wire()
    alice, bob = wire.party("alice"), wire.party("bob")
    out, into = wire.connect(alice, bob)
    rng = Random(6)
    flood = [forged(rng, bob) for _ in range(500)]
    sources = [anywhere(rng) for _ in range(1000)]
    spent = time.process_time()
    for turn in range(50):
        for number in range(100):
            for piece in flood[(turn * 100 + number) % 500]:
                bob.links.receive(wire.now, sources[rng.randrange(1000)], piece)
        bob.links.outbox[:] = [sent for sent in bob.links.outbox if sent[1][0] != 0x11]
        alice.links.send_frame(wire.now, out, 32, b"voice")
        wire.run(0.01)
    spent = time.process_time() - spent
    wire.run(0.1)
    assert len(bob.take(Frame)) == 50
    assert len(bob.links) == 1
    assert bob.links._responder.gate.unfinished <= MESSAGES_MAX
    print(f"{spent * 1e6 / 10_000:.1f} us for each forged piece")
    bob.links.send_message(wire.now, into, b"still here")
    wire.run(0.2)
    assert [message.data for message in alice.take(Message)] == [b"still here"]


def test_callers_with_keys_of_their_own_cannot_fill_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "PENDING_MAX", 64)
    wire = Wire(paper=True)
    alice, bob = wire.party("alice"), wire.party("bob")
    out, _ = wire.connect(alice, bob)
    for _ in range(64 + 50):
        mallory = wire.party("mallory")
        wire.dial(mallory, bob)
        wire.collect()
        wire.flying = [one for one in wire.flying if one[3] == bob.path]
        wire.run(0.03)
        wire.flying.clear()
        del wire.parties[mallory.path]
        wire.now += 0.05
    assert len(bob.links) == 64 + 1
    assert bob.links.counters["pending dropped"] == 50
    assert not bob.events
    alice.links.send_frame(wire.now, out, 32, b"x")
    wire.run(0.1)
    assert len(bob.take(Frame)) == 1


def test_fresh_identities_at_one_address_cannot_take_all_links(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming, "INCOMING_PER_OWNER_MAX", 5)
    monkeypatch.setattr(incoming, "INCOMING_MAX", 8)
    wire = Wire(paper=True)
    bob = wire.party("bob")

    def connects(number: int, subnet: str) -> bool:
        caller = wire.party("caller")
        del wire.parties[caller.path]
        caller.path = direct(endpoint(f"{subnet}:{number:x}::1", 4000))
        wire.parties[caller.path] = caller
        wire.dial(caller, bob)
        wire.run(0.3)
        return bool(bob.take(Established))

    assert [connects(number, "2001:db8:1") for number in range(8)] == [True] * 5 + [False] * 3, "one /48"
    assert bob.links.counters["too many links of one caller"] >= 3
    assert connects(1, "2001:db8:2"), "another caller is not kept out by them"
    assert [connects(number, f"2001:db8:{3 + number}") for number in range(4)] == [True, True, False, False]
    assert bob.links.counters["too many links"] >= 2
    out, _ = wire.connect(bob, wire.party("carol"))
    assert out, "and whatever they do, bob can call"
    for number in list(bob.links._links):
        bob.links.close(wire.now, number)
    assert not bob.links._incoming._owned
    assert not bob.links._incoming._owners
    assert connects(1, "2001:db8:1"), "there is room again"


def test_the_flows_of_a_relay_are_one_caller_each(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire(paper=True)
    alice, bob = wire.party("alice"), wire.party("bob")
    relay = endpoint("192.0.2.9", 3478)
    for flow, most in ((b"\1" * 8, incoming.INCOMING_PER_FLOW_MAX), (b"\2" * 8, 2 * incoming.INCOMING_PER_FLOW_MAX)):
        del wire.parties[alice.path]
        alice.path = relayed(relay, flow)
        wire.parties[alice.path] = alice
        for _ in range(incoming.INCOMING_PER_FLOW_MAX + 3):
            wire.dial(alice, bob)
            wire.run(0.2)
        assert len(bob.links._incoming._owned) == most


def test_a_first_message_replayed_later_makes_no_second_session() -> None:
    wire = Wire()
    alice, bob = wire.party("alice"), wire.party("bob")
    wire.connect(alice, bob)
    recorded = [datagram for source, _, datagram in wire.sent if datagram[0] == 0x10 and source == alice.path]
    bob.links._responder._kept.clear()  # as if the answer had been forgotten
    wire.run(30.0)
    before = len(wire.sent)
    for datagram in recorded:
        wire.throw(direct(endpoint("198.18.0.1", 1)), bob.path, datagram)
    wire.run(1.0)
    assert bob.links.counters["first message replayed"] == 1
    assert len(bob.links) == 1
    assert not [sent for sent in wire.sent[before:] if sent[2][0] == 0x10]


def test_a_replay_after_a_restart_reaches_nobody_above() -> None:
    wire = Wire()
    alice, bob = wire.party("alice"), wire.party("bob")
    wire.connect(alice, bob)
    recorded = [datagram for source, target, datagram in wire.sent if target == bob.path]
    bob.restart(wire.now)
    for _ in range(5):
        for datagram in recorded:
            wire.throw(direct(endpoint("198.18.0.1", 1)), bob.path, datagram)
        wire.run(1.0)
    assert not bob.events
    wire.run(20.0)
    assert len(bob.links) == 0


# Stripping and downgrading


@pytest.mark.parametrize("kem", [True, False], ids=["to a hybrid device", "to a classical one"])
def test_the_form_of_the_pieces_cannot_be_changed(kem: bool) -> None:
    """Somebody in between turns the hybrid bit of every piece, in both directions, with the right mac1."""
    wire = Wire()
    alice, bob = wire.party("alice", kem=kem), wire.party("bob", kem=kem)

    def strip(datagram: bytes) -> list[bytes]:
        if datagram[0] != 0x10:
            return [datagram]
        body = bytearray(datagram[:-32])
        body[2] ^= FORM_HYBRID
        target = alice if body[2] & 1 else bob
        return [with_macs(bytes(body), mac_key(target.device.public), None)]

    wire.change = strip
    number = wire.dial(alice, bob)
    wire.run(20.0)
    assert alice.take(Closed) == [Closed(number, NO_ANSWER)]
    assert not bob.events
    assert len(bob.links) == 0
    assert bob.links.counters["piece without ML-KEM" if kem else "piece with ML-KEM"] > 0


def test_a_caller_who_leaves_ml_kem_out_is_not_heard() -> None:
    """A stripped record, or a caller that would rather not: the callee refuses by itself."""
    wire = Wire()
    alice, bob = wire.party("alice", kem=False), wire.party("bob")
    number = alice.links.dial(wire.now, [bob.path], bob.callee(hybrid=False))
    wire.run(20.0)
    assert alice.take(Closed) == [Closed(number, NO_ANSWER)]
    assert not bob.events
    assert bob.links.counters["piece without ML-KEM"] > 0


def test_an_enemy_with_the_callees_key_and_no_ml_kem_cannot_answer_a_hybrid_call() -> None:
    """Even who has stolen the X25519 key cannot answer classically."""
    wire = Wire()
    alice, bob = wire.party("alice"), wire.party("bob")
    thief = wire.party("thief", kem=False)
    thief.device, thief.certificate = bob.device, bob.certificate
    thief.identity = bob.identity
    thief.restart(wire.now)
    number = alice.links.dial(wire.now, [thief.path], Callee(bob.device.public, bob.identity.public, True))
    wire.run(20.0)
    assert alice.take(Closed) == [Closed(number, NO_ANSWER)]


def test_indexes_in_the_pieces_are_bound() -> None:
    wire = Wire()
    alice, bob = wire.party("alice"), wire.party("bob")

    def turn(datagram: bytes) -> list[bytes]:
        if datagram[0] != 0x10 or datagram[2] & 1:
            return [datagram]
        body = bytearray(datagram[:-32])
        body[5] ^= 1
        return [with_macs(bytes(body), mac_key(bob.device.public), None)]

    wire.change = turn
    wire.dial(alice, bob)
    wire.run(5.0)
    assert bob.links.counters["first message forged"] > 0
    assert len(bob.links) == 0


def test_forged_answers_do_not_end_a_dial() -> None:
    wire = Wire()
    alice, bob = wire.party("alice"), wire.party("bob")
    rng = Random(8)
    number = wire.dial(alice, bob)
    index = decode_piece(next(datagram for _, datagram in alice.links.outbox)).index
    for _ in range(20):
        key = mac_key(alice.device.public)
        for piece in cut(rng.randbytes(1280), FORM_HYBRID | 1, index):
            alice.links.receive(wire.now, bob.path, with_macs(encode_piece(piece), key, None))
    assert alice.links.counters["answer forged"] == 20
    for size in (0, 1, 50, 61):
        alice.links.receive(wire.now, bob.path, bytes([0x11]) + rng.randbytes(size))
    wire.run(1.0)
    assert [event.link for event in alice.take(Established)] == [number]


# Sealed packets


def test_truncated_flipped_replayed_and_far_packets() -> None:
    wire = Wire()
    alice, bob = wire.party("alice"), wire.party("bob")
    out, _ = wire.connect(alice, bob)
    alice.links.send_frame(wire.now, out, 32, b"voice")
    ((_, datagram),) = alice.links.outbox
    alice.links.outbox.clear()
    elsewhere = direct(endpoint("198.18.0.1", 1))
    for size in range(len(datagram)):
        bob.links.receive(wire.now, elsewhere, datagram[:size])
    for place in range(1, len(datagram)):
        damaged = bytearray(datagram)
        damaged[place] ^= 0x40
        bob.links.receive(wire.now, elsewhere, bytes(damaged))
    for counter in (2**31, 2**32 - 1):
        far = datagram[:5] + struct.pack(">I", counter) + datagram[9:]
        bob.links.receive(wire.now, elsewhere, far)
    wire.collect()
    assert not bob.events
    for _ in range(3):
        bob.links.receive(wire.now, bob.path, datagram)
    wire.collect()
    assert [frame.data for frame in bob.take(Frame)] == [b"voice"]
    assert bob.links.counters["sealed replay"] == 2
    assert elsewhere not in bob.links.heard(1)


def test_a_packet_reflected_to_its_sender_is_nothing() -> None:
    wire = Wire()
    alice, bob = wire.party("alice"), wire.party("bob")
    out, _ = wire.connect(alice, bob)
    alice.links.send_frame(wire.now, out, 32, b"voice")
    ((_, datagram),) = alice.links.outbox
    alice.links.receive(wire.now, bob.path, datagram)
    session = alice.links._links[out].session
    turned = datagram[:1] + session._current.receive_index + datagram[5:]
    alice.links.receive(wire.now, bob.path, turned)
    wire.collect()
    assert not alice.events
    assert alice.links.counters["sealed forged"] == 1


def test_a_reset_cannot_be_guessed_or_played_against_a_living_session() -> None:
    wire = Wire()
    alice, bob = wire.party("alice"), wire.party("bob")
    out, _ = wire.connect(alice, bob)
    first = next(datagram for _, target, datagram in wire.sent if datagram[0] == 0x12 and target == bob.path)
    alice.links.receive(wire.now, bob.path, encode_reset(bytes(16)))
    wire.run(400.0)  # keys have changed, the old indexes are free
    before = len(wire.sent)
    wire.throw(direct(endpoint("198.18.0.1", 1)), bob.path, first)
    wire.run(1.0)
    resets = [datagram for _, _, datagram in wire.sent[before:] if datagram[0] == 0x13]
    assert len(resets) == 1
    alice.links.receive(wire.now, bob.path, resets[0])
    wire.run(1.0)
    assert not alice.events
    assert alice.links.path(out) == bob.path
    assert RESET_BYTES < SEALED_OVERHEAD_BYTES


def test_a_wanderer_sends_no_resets() -> None:
    wire = Wire()
    bob = wire.party("bob")
    bob.links = links.Links(
        wire.now, 1_800_000_000.0, suite=wire.suite, kem=bob.kem, device=bob.device, identity=bob.identity.public,
        certificate=bob.certificate,
    )  # fmt: skip
    bob.links.receive(wire.now, bob.path, b"\x12" + bytes(60))
    assert not bob.links.outbox


def test_no_cookie_reply_is_longer_than_the_piece() -> None:
    wire = Wire()
    bob = wire.party("bob")
    key = mac_key(bob.device.public)
    for number in range(300):
        tiny = encode_piece(Piece(FORM_HYBRID, 0, 2, b"indx", number.to_bytes(8, "big"), b"x"))
        bob.links.receive(wire.now, anywhere(Random(number)), with_macs(tiny, key, None))
    assert bob.links.counters["piece under load"] == 100
    assert not bob.links.outbox


def test_resets_are_few() -> None:
    wire = Wire()
    bob = wire.party("bob")
    rng = Random(9)
    for _ in range(1000):
        bob.links.receive(wire.now, anywhere(rng), b"\x12" + rng.randbytes(60))
    assert len(bob.links.outbox) == 20


# Anything at all


@settings(max_examples=300)
@given(
    kind=st.sampled_from([b"\x10", b"\x11", b"\x12", b"\x13", b"\x00", b"d", b""]),
    rest=st.binary(max_size=PIECE_BYTES_MAX + 50),
)
def test_any_datagram_is_borne(kind: bytes, rest: bytes) -> None:
    wire = Wire(paper=True)
    alice, bob = wire.party("alice"), wire.party("bob")
    wire.dial(alice, bob)
    for party in (alice, bob):
        party.links.receive(wire.now, alice.path, kind + rest)
        party.links.wake(wire.now)
    assert not alice.links.events
    assert not bob.links.events


@settings(max_examples=100)
@given(data=st.data())
def test_true_datagrams_with_wounds_are_borne(data: st.DataObject) -> None:
    wire = Wire(paper=True)
    alice, bob = wire.party("alice"), wire.party("bob")
    wire.connect(alice, bob)
    _, target, datagram = data.draw(st.sampled_from(wire.sent))
    wound = bytearray(datagram)
    for _ in range(data.draw(st.integers(1, 4))):
        wound[data.draw(st.integers(0, len(wound) - 1))] = data.draw(st.integers(0, 255))
    wound = wound[: data.draw(st.integers(0, len(wound)))]
    if bytes(wound) == datagram:
        return
    wire.parties[target].links.receive(wire.now, alice.path, bytes(wound))
    wire.collect()
    assert not alice.events
    assert not bob.events


@settings(max_examples=200)
@given(kind=st.integers(0, 255), payload=st.binary(max_size=700))
def test_anything_inside_a_sealed_packet_is_borne(kind: int, payload: bytes) -> None:
    """The other side has proved who it is, not that its program is right."""
    wire = Wire(paper=True)
    alice, bob = wire.party("alice"), wire.party("bob")
    out, _ = wire.connect(alice, bob)
    session = alice.links._links[out].session
    wire.throw(alice.path, bob.path, session.seal(wire.now, kind, payload))
    wire.run(1.0)
    alice.links.send_message(wire.now, out, b"next") if len(alice.links) and kind != 1 else None
    wire.run(1.0)


def test_pieces_are_never_longer_than_allowed() -> None:
    wire = Wire()
    wire.connect(wire.party("alice"), wire.party("bob"))
    assert all(len(datagram) <= PIECE_BYTES_MAX for datagram in pieces(wire))
