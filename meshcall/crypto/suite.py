"""What the protocol needs of cryptography, as one small interface.

The product hands in `sodium.Sodium`, the simulator a paper suite with true lengths, true refusals
and no strength.  Plain hashing (hashlib's SHA-1, BLAKE2b) needs no secret and no chance, so cores
call hashlib themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

SEED_BYTES = 32
PUBLIC_BYTES = 32
SIGNATURE_BYTES = 64
SEAL_KEY_BYTES = 32
SEAL_NONCE_BYTES = 24
SEAL_TAG_BYTES = 16
AGREED_BYTES = 32
PACKET_NONCES = 2**64 - 1
"""Packet numbers that a key may be used with; Noise keeps the last one of 64 bits for itself."""


class Verifier(Protocol):
    """The one operation that a node needs for strangers' items."""

    def verify(self, public: bytes, message: bytes, signature: bytes) -> bool:
        """Whether `signature` (64 bytes) over `message` is by `public` (32 bytes), RFC 8032 section 5.1.7."""
        ...


@dataclass(frozen=True, slots=True, repr=False)
class SigningKey:
    """An Ed25519 key in expanded form (RFC 8032 section 5.1.5), plain or blinded.

    `scalar` is little-endian (clamped if plain, reduced modulo the group order if blinded),
    `prefix` feeds the deterministic nonce, `public` is the encoded point.  32 bytes each.
    """

    scalar: bytes
    prefix: bytes
    public: bytes


class Suite(Verifier, Protocol):
    """All of it; a node with an identity needs this."""

    def random(self, size: int) -> bytes:
        """`size` unpredictable bytes."""
        ...

    def expand(self, seed: bytes) -> SigningKey:
        """The signing key of a 32-byte seed."""
        ...

    def is_identity_key(self, public: bytes) -> bool:
        """Whether these 32 bytes are a canonical point of the prime-order subgroup, and not its neutral element."""
        ...

    def sign(self, key: SigningKey, message: bytes) -> bytes:
        """The 64-byte signature over `message`; an ordinary verifier accepts it, blinded or not."""
        ...

    def blind_public(self, public: bytes, factor: bytes) -> bytes:
        """`factor` times the point; factor: 64 bytes, reduced modulo the group order."""
        ...

    def blind_key(self, key: SigningKey, factor: bytes, prefix: bytes) -> SigningKey:
        """The signing key whose public key is `blind_public(key.public, factor)`, with the given 32-byte prefix."""
        ...

    def seal(self, key: bytes, nonce: bytes, plaintext: bytes, bound: bytes) -> bytes:
        """XChaCha20-Poly1305: ciphertext and 16-byte tag; `bound` is authenticated too."""
        ...

    def open(self, key: bytes, nonce: bytes, sealed: bytes, bound: bytes) -> bytes | None:
        """The plaintext, or None where the tag does not fit."""
        ...

    def agree_public(self, secret: bytes) -> bytes:
        """The X25519 public key of a 32-byte secret (RFC 7748)."""
        ...

    def agree(self, secret: bytes, public: bytes) -> bytes | None:
        """X25519 (RFC 7748 section 6.1): 32 bytes; None where the result would be all zeros, as small-order keys give.

        `public` may be any 32 bytes of a stranger.
        """
        ...

    def seal_packet(self, key: bytes, number: int, plaintext: bytes, bound: bytes) -> bytes:
        """ChaCha20-Poly1305 (RFC 8439): ciphertext and 16-byte tag.

        The nonce is 4 zero bytes and `number`, 64 bits little-endian, as Noise has it (revision 34, section 12.3).
        """
        ...

    def open_packet(self, key: bytes, number: int, sealed: bytes, bound: bytes) -> bytes | None:
        """The plaintext, or None where the tag does not fit."""
        ...

    def stretch(self, passphrase: bytes, salt: bytes, operations: int, memory_bytes: int) -> bytes:
        """Argon2id: a 32-byte key from a passphrase and a 16-byte salt."""
        ...

    def box(self, key: bytes, nonce: bytes, plaintext: bytes) -> bytes:
        """XSalsa20-Poly1305 secret box: tag and ciphertext (24-byte nonce, 32-byte key)."""
        ...

    def unbox(self, key: bytes, nonce: bytes, boxed: bytes) -> bytes | None:
        """The plaintext of a secret box, or None where the tag does not fit."""
        ...
