"""Cryptography on paper: true lengths, true refusals, no strength whatever, about a microsecond each.

A signature is a keyed BLAKE2b under the *public* key, so anybody could forge one; nobody in a
simulated world does so by accident, and every damaged or misattributed item is refused as the real
thing would be.  Never import this into a node.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from meshcall.crypto.suite import (
    PUBLIC_BYTES,
    SEAL_KEY_BYTES,
    SEAL_NONCE_BYTES,
    SEAL_TAG_BYTES,
    SEED_BYTES,
    SIGNATURE_BYTES,
    SigningKey,
)

if TYPE_CHECKING:
    from random import Random

_MASK = int.from_bytes(hashlib.blake2b(b"paper scalar", digest_size=32).digest(), "little")
_MARK = 0x20
"""Set in the last byte of every paper public key, so that some byte strings are none."""


def _hash(purpose: bytes, *parts: bytes, size: int = 32) -> bytes:
    state = hashlib.blake2b(digest_size=size, person=purpose)
    for part in parts:
        state.update(len(part).to_bytes(4, "little"))
        state.update(part)
    return state.digest()


def _point(digest: bytes) -> bytes:
    return digest[:-1] + bytes([digest[-1] | _MARK])


def _other_half(key: bytes) -> bytes:
    """Public key from scalar and back."""
    return (int.from_bytes(key, "little") ^ _MASK).to_bytes(32, "little")


class PaperVerifier:
    """The one operation that a node needs for strangers' items; enough for a simulated DHT node."""

    __slots__ = ()

    def verify(self, public: bytes, message: bytes, signature: bytes) -> bool:
        """Whether the signature is what `PaperSuite.sign` makes of this message under this key."""
        if len(public) != PUBLIC_BYTES:
            return False
        return hashlib.blake2b(message, key=public, digest_size=SIGNATURE_BYTES).digest() == signature


class PaperSuite(PaperVerifier):
    """All of `meshcall.crypto.suite.Suite`, on paper.  Chance is handed in: one seed, one world."""

    __slots__ = ("_rng",)

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    def random(self, size: int) -> bytes:
        """`size` bytes from the world's own source of chance."""
        return self._rng.randbytes(size)

    def expand(self, seed: bytes) -> SigningKey:
        """The signing key of a 32-byte seed."""
        _expect(seed, SEED_BYTES, "seed")
        public = _point(_hash(b"expand", seed))
        return SigningKey(_other_half(public), _hash(b"prefix", seed), public)

    def is_identity_key(self, public: bytes) -> bool:
        """Whether these bytes could have come from `expand` or `blind_public`."""
        return len(public) == PUBLIC_BYTES and bool(public[-1] & _MARK)

    def sign(self, key: SigningKey, message: bytes) -> bytes:
        """64 bytes; a key whose scalar is not that of its public key signs for nobody."""
        return hashlib.blake2b(message, key=_other_half(key.scalar), digest_size=SIGNATURE_BYTES).digest()

    def blind_public(self, public: bytes, factor: bytes) -> bytes:
        """Another public key, the same for the same factor."""
        _expect(factor, 64, "factor")
        if not self.is_identity_key(public):
            raise ValueError("not a public key")
        return _point(_hash(b"blind", public, factor))

    def blind_key(self, key: SigningKey, factor: bytes, prefix: bytes) -> SigningKey:
        """The signing key that belongs to `blind_public(key.public, factor)`."""
        _expect(prefix, 32, "prefix")
        public = self.blind_public(key.public, factor)
        return SigningKey(_other_half(public), prefix, public)

    def seal(self, key: bytes, nonce: bytes, plaintext: bytes, bound: bytes) -> bytes:
        """As long as XChaCha20-Poly1305 makes it, and unreadable at a glance."""
        _expect(key, SEAL_KEY_BYTES, "key")
        _expect(nonce, SEAL_NONCE_BYTES, "nonce")
        return _mix(key, nonce, plaintext) + _hash(b"seal", key, nonce, plaintext, bound, size=SEAL_TAG_BYTES)

    def open(self, key: bytes, nonce: bytes, sealed: bytes, bound: bytes) -> bytes | None:
        """The plaintext, or None where the tag does not fit."""
        _expect(key, SEAL_KEY_BYTES, "key")
        _expect(nonce, SEAL_NONCE_BYTES, "nonce")
        plaintext = _mix(key, nonce, sealed[:-SEAL_TAG_BYTES])
        tag = _hash(b"seal", key, nonce, plaintext, bound, size=SEAL_TAG_BYTES)
        return plaintext if sealed[-SEAL_TAG_BYTES:] == tag else None

    def agree_public(self, secret: bytes) -> bytes:
        """A 32-byte public key of a 32-byte secret."""
        _expect(secret, 32, "secret")
        return _hash(b"agree", secret)

    def agree(self, secret: bytes, public: bytes) -> bytes | None:
        """The same 32 bytes for both sides; None for the one public key that real curves refuse too: zeros."""
        _expect(public, 32, "public key")
        if not any(public):
            return None
        return _hash(b"agreed", *sorted((self.agree_public(secret), public)))

    def seal_packet(self, key: bytes, number: int, plaintext: bytes, bound: bytes) -> bytes:
        """As long as ChaCha20-Poly1305 makes it."""
        return self.seal(key, number.to_bytes(SEAL_NONCE_BYTES, "little"), plaintext, bound)

    def open_packet(self, key: bytes, number: int, sealed: bytes, bound: bytes) -> bytes | None:
        """The plaintext, or None where the tag does not fit."""
        return self.open(key, number.to_bytes(SEAL_NONCE_BYTES, "little"), sealed, bound)

    def stretch(self, passphrase: bytes, salt: bytes, operations: int, memory_bytes: int) -> bytes:
        """A 32-byte key at once; nothing on paper is worth guessing."""
        _expect(salt, 16, "salt")
        return _hash(b"stretch", passphrase, salt, b"%d %d" % (operations, memory_bytes))

    def box(self, key: bytes, nonce: bytes, plaintext: bytes) -> bytes:
        """Tag and ciphertext, as long as XSalsa20-Poly1305 makes them."""
        sealed = self.seal(key, nonce, plaintext, b"")
        return sealed[-SEAL_TAG_BYTES:] + sealed[:-SEAL_TAG_BYTES]

    def unbox(self, key: bytes, nonce: bytes, boxed: bytes) -> bytes | None:
        """The plaintext of a box, or None where the tag does not fit."""
        return self.open(key, nonce, boxed[SEAL_TAG_BYTES:] + boxed[:SEAL_TAG_BYTES], b"")


def _expect(value: bytes, size: int, what: str) -> None:
    if len(value) != size:
        raise ValueError(f"{what} must be {size} bytes, not {len(value)}")


def _mix(key: bytes, nonce: bytes, text: bytes) -> bytes:
    stream = hashlib.shake_128(key + nonce).digest(len(text))
    return (int.from_bytes(text, "little") ^ int.from_bytes(stream, "little")).to_bytes(len(text), "little")
