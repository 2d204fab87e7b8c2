"""The handshake patterns: public vectors of two other implementations, and what a forged message must not do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcall.crypto.kem import MlKem768
from meshcall.crypto.sodium import Sodium
from meshcall.errors import BadPacket
from meshcall.handshake.noise import IK, IK_HFS, NK, NN, XX, Handshake, KeyPair, Pattern

SUITE = Sodium()
KEM = MlKem768()
PUBLIC = json.loads((Path(__file__).parent.parent / "vectors" / "noise_public.json").read_text())["vectors"]
PATTERNS = {pattern.protocol.decode(): pattern for pattern in (NN, NK, XX, IK, IK_HFS)}


def pair(vector: dict[str, Any], name: str) -> KeyPair | None:
    return KeyPair.of(SUITE, bytes.fromhex(vector[name])) if name in vector else None


def both(pattern: Pattern, **changed: Any) -> tuple[Handshake, Handshake]:
    """Two sides of a fresh handshake."""
    mine, theirs = KeyPair.new(SUITE), KeyPair.new(SUITE)
    known = theirs.public if "s" in pattern.responder_known else None
    first = {"prologue": b"", "static": mine, "remote_static": known, "kem": KEM} | changed
    second = {"prologue": b"", "static": theirs, "kem": KEM}
    return (
        Handshake(pattern, suite=SUITE, initiator=True, **first),
        Handshake(pattern, suite=SUITE, initiator=False, **second),
    )


@pytest.mark.parametrize("vector", PUBLIC, ids=lambda v: f"{v['source']} {v['protocol_name']}")
def test_public_vectors(vector: dict[str, Any]) -> None:
    pattern = PATTERNS[vector["protocol_name"]]
    remote = bytes.fromhex(vector["init_remote_static"]) if "init_remote_static" in vector else None
    sides = [
        Handshake(
            pattern, suite=SUITE, initiator=True, prologue=bytes.fromhex(vector["init_prologue"]),
            static=pair(vector, "init_static"), ephemeral=pair(vector, "init_ephemeral"), remote_static=remote,
        ),
        Handshake(
            pattern, suite=SUITE, initiator=False, prologue=bytes.fromhex(vector["resp_prologue"]),
            static=pair(vector, "resp_static"), ephemeral=pair(vector, "resp_ephemeral"),
        ),
    ]  # fmt: skip
    messages = [(bytes.fromhex(m["payload"]), bytes.fromhex(m["ciphertext"])) for m in vector["messages"]]
    count = len(pattern.messages)
    for turn, (payload, ciphertext) in enumerate(messages[:count]):
        assert sides[turn % 2].write(payload) == ciphertext
        assert sides[1 - turn % 2].read(ciphertext) == payload
        assert sides[0].hash == sides[1].hash
        if "handshake_hash" in vector and not turn:  # cacophony's is the transcript after the first message
            assert sides[0].hash.hex() == vector["handshake_hash"]
    keys = [side.split() for side in sides]
    assert keys[0] == keys[1][::-1]
    numbers = [0, 0]
    for turn, (payload, ciphertext) in enumerate(messages[count:], count):
        writer = turn % 2
        assert SUITE.seal_packet(keys[writer][0], numbers[writer], payload, b"") == ciphertext
        assert SUITE.open_packet(keys[1 - writer][1], numbers[writer], ciphertext, b"") == payload
        numbers[writer] += 1


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=lambda p: p.name)
def test_both_sides_agree(pattern: Pattern) -> None:
    sides = both(pattern)
    for turn in range(len(pattern.messages)):
        message = sides[turn % 2].write(b"payload %d" % turn)
        assert sides[1 - turn % 2].read(message) == b"payload %d" % turn
    assert all(side.finished for side in sides)
    assert sides[0].hash == sides[1].hash
    sending, receiving = sides[0].split()
    assert (receiving, sending) == sides[1].split()
    assert sending != receiving


def test_sizes_of_the_hybrid_are_as_documented() -> None:
    initiator, responder = both(IK_HFS)
    first = initiator.write(b"")
    assert len(first) == 32 + (1184 + 16) + (32 + 16) + 16
    assert responder.read(first) == b""
    assert len(responder.write(b"")) == 32 + (1088 + 16) + 16


@given(at=st.integers(0, 1295), flip=st.integers(1, 255))
def test_a_damaged_first_message_is_refused_and_the_true_one_still_read(at: int, flip: int) -> None:
    initiator, responder = both(IK_HFS)
    message = initiator.write(b"x" * 16)
    damaged = bytearray(message)
    damaged[at % len(message)] ^= flip
    assert responder.read(bytes(damaged)) in (None, b"x" * 16)  # the unused top bit of an X25519 key does not count
    if not responder.finished and responder.remote_static is None:
        assert responder.read(message) == b"x" * 16


@given(at=st.integers(0, 1135), flip=st.integers(1, 127))
def test_a_damaged_second_message_does_not_end_the_handshake(at: int, flip: int) -> None:
    initiator, responder = both(IK_HFS)
    assert responder.read(initiator.write(b"")) == b""
    message = responder.write(b"y" * 16)
    damaged = bytearray(message)
    damaged[at % len(message)] ^= flip
    before = initiator.hash
    assert initiator.read(bytes(damaged)) is None
    assert initiator.hash == before
    assert initiator.read(message) == b"y" * 16
    assert initiator.split() == responder.split()[::-1]


@given(data=st.binary(max_size=1500))
def test_any_bytes_are_refused(data: bytes) -> None:
    _, responder = both(IK_HFS)
    assert responder.read(data) is None


@pytest.mark.parametrize("cut", [0, 31, 32, 1000, 1231, 1279])
def test_a_truncated_message_is_refused(cut: int) -> None:
    initiator, responder = both(IK_HFS)
    assert responder.read(initiator.write(b"payload")[:cut]) is None


def test_another_prologue_is_refused() -> None:
    initiator, responder = both(IK_HFS, prologue=b"other")
    assert responder.read(initiator.write(b"")) is None


def test_the_classical_pattern_does_not_pass_for_the_hybrid() -> None:
    """Both directions of the stripping attack, on the level of the pattern."""
    key = KeyPair.new(SUITE)
    for theirs, ours in ((IK, IK_HFS), (IK_HFS, IK)):
        initiator = Handshake(
            theirs, suite=SUITE, kem=KEM, initiator=True, prologue=b"", static=KeyPair.new(SUITE),
            remote_static=key.public,
        )  # fmt: skip
        responder = Handshake(ours, suite=SUITE, kem=KEM, initiator=False, prologue=b"", static=key)
        assert responder.read(initiator.write(b"")) is None


def test_an_all_zero_agreement_is_refused() -> None:
    initiator, responder = both(NN)
    initiator.write(b"")
    responder.read(bytes(32))
    with pytest.raises(BadPacket, match="handshake key"):
        responder.write(b"")
    assert initiator.read(bytes(32) + bytes(16)) is None
    _, responder = both(IK_HFS)
    assert responder.read(bytes(2000)) is None


def test_an_encapsulation_key_that_is_none_is_refused() -> None:
    class BadKey:
        public = b"\xff" * 1184  # coefficients that are not reduced

        def decapsulate(self, ciphertext: bytes) -> bytes | None:
            return None

    initiator, responder = both(IK_HFS, kem_key=BadKey())
    assert responder.read(initiator.write(b"")) == b""
    with pytest.raises(BadPacket, match="handshake key"):
        responder.write(b"")


def test_turns_are_kept() -> None:
    initiator, responder = both(IK)
    with pytest.raises(ValueError, match="turn"):
        responder.write(b"")
    with pytest.raises(ValueError, match="turn"):
        initiator.read(b"")
    with pytest.raises(ValueError, match="finished"):
        initiator.split()


def test_no_secret_is_shown() -> None:
    key = KeyPair.new(SUITE)
    initiator, _ = both(IK_HFS, static=key)
    initiator.write(b"")
    for text in (repr(key), repr(initiator)):
        assert key.secret.hex() not in text
        assert repr(key.secret) not in text
