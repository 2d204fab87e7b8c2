"""The paper suite: true lengths, true refusals, no chance of its own."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcall.crypto.suite import SEAL_TAG_BYTES, Suite
from meshcall.sim.paper_suite import PaperSuite

SEED = bytes(range(32))
KEY, NONCE = b"k" * 32, b"n" * 24


def _suite() -> PaperSuite:
    return PaperSuite(Random(1))


def test_it_is_a_suite() -> None:
    suite: Suite = _suite()
    assert len(suite.random(17)) == 17
    assert suite.random(8) != suite.random(8)
    assert _suite().random(8) == _suite().random(8)


@given(st.binary(max_size=200), st.binary(min_size=64, max_size=64))
def test_signatures_blinded_or_not(message: bytes, factor: bytes) -> None:
    suite = _suite()
    key = suite.expand(SEED)
    blinded = suite.blind_key(key, factor, b"p" * 32)
    assert blinded.public == suite.blind_public(key.public, factor) != key.public
    for signer in (key, blinded):
        assert [len(signer.scalar), len(signer.prefix), len(signer.public)] == [32, 32, 32]
        signature = suite.sign(signer, message)
        assert len(signature) == 64
        assert suite.verify(signer.public, message, signature)
        assert not suite.verify(signer.public, message + b"!", signature)
        assert not suite.verify(signer.public, message, signature[:-1] + bytes([signature[-1] ^ 1]))
    assert not suite.verify(key.public, message, suite.sign(blinded, message))
    assert suite.is_identity_key(key.public) and suite.is_identity_key(blinded.public)


@given(st.binary(max_size=300), st.binary(max_size=20))
def test_sealing_and_boxing(text: bytes, bound: bytes) -> None:
    suite = _suite()
    sealed = suite.seal(KEY, NONCE, text, bound)
    assert len(sealed) == len(text) + SEAL_TAG_BYTES
    assert suite.open(KEY, NONCE, sealed, bound) == text
    assert suite.open(KEY, NONCE, sealed, bound + b"!") is None
    assert suite.open(b"x" * 32, NONCE, sealed, bound) is None
    assert suite.open(KEY, NONCE, sealed[:-1], bound) is None
    boxed = suite.box(KEY, NONCE, text)
    assert len(boxed) == len(text) + SEAL_TAG_BYTES
    assert suite.unbox(KEY, NONCE, boxed) == text
    assert suite.unbox(KEY, NONCE, boxed[:-1] + bytes([boxed[-1] ^ 1])) is None
    if len(text) > 16:
        assert text not in sealed and text not in boxed


def test_it_refuses_what_the_real_one_refuses() -> None:
    suite = _suite()
    assert not suite.is_identity_key(bytes(32))
    assert not suite.is_identity_key(b"short")
    assert not suite.verify(b"short", b"", bytes(64))
    for call in (
        lambda: suite.expand(b"short"),
        lambda: suite.blind_public(bytes(32), bytes(64)),
        lambda: suite.blind_public(suite.expand(SEED).public, bytes(63)),
        lambda: suite.seal(b"short", NONCE, b"", b""),
        lambda: suite.seal(KEY, b"short", b"", b""),
        lambda: suite.stretch(b"", b"short", 1, 8192),
        lambda: suite.agree_public(b"short"),
    ):
        with pytest.raises(ValueError):
            call()
    assert len(suite.stretch(b"word", bytes(16), 1, 8192)) == 32
    assert suite.agree_public(bytes(32)) != suite.agree_public(SEED)
