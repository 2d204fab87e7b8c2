"""Blinding: the key under which an identity appears in one period, and what goes with it.

Everything here but the signing key follows from the address alone, so whoever knows the address can
find, check and read; whoever does not sees unrelated keys.  The idea is that of Tor's onion services
(rend-spec-v3, appendix A); the derivations are our own and are given in docs/records.md.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

from meshcall.crypto.suite import PUBLIC_BYTES, SEAL_KEY_BYTES
from meshcall.dht.items import mutable_target

if TYPE_CHECKING:
    from meshcall.crypto.suite import SigningKey, Suite

_FACTOR_DOMAIN = b"meshcall blind 1"
_PREFIX_DOMAIN = b"meshcall blind nonce 1"
_SEAL_DOMAIN = b"meshcall seal 1"
_NONCE_PREFIX_BYTES = 32


def blinding_factor(public: bytes, period: int) -> bytes:
    """The 64-byte factor of an identity key (32 bytes) in a period; the suite reduces it modulo the group order."""
    return blake2b(_FACTOR_DOMAIN + public + period.to_bytes(8, "big")).digest()


def blinded_public(suite: Suite, public: bytes, period: int) -> bytes:
    """The key under which the record of a period is stored: 32 bytes.

    `public` must be an identity key (`suite.is_identity_key`), else ValueError.
    """
    return suite.blind_public(public, blinding_factor(public, period))


def blinded_key(suite: Suite, key: SigningKey, period: int) -> SigningKey:
    """The signing key that belongs to `blinded_public(suite, key.public, period)`.

    Its nonce prefix differs from period to period: one nonce under two blinded keys would give the secret away.
    """
    prefix = blake2b(
        _PREFIX_DOMAIN + key.prefix + key.public + period.to_bytes(8, "big"), digest_size=_NONCE_PREFIX_BYTES
    ).digest()
    return suite.blind_key(key, blinding_factor(key.public, period), prefix)


def seal_key(public: bytes, period: int) -> bytes:
    """The key that seals the record of a period, from the *unblinded* identity key: 32 bytes."""
    assert len(public) == PUBLIC_BYTES
    return blake2b(_SEAL_DOMAIN + public + period.to_bytes(8, "big"), digest_size=SEAL_KEY_BYTES).digest()


def record_target(suite: Suite, public: bytes, period: int) -> bytes:
    """Where in the DHT the record of a period lives: 20 bytes (SHA-1 of the blinded key, no salt)."""
    return mutable_target(blinded_public(suite, public, period))
