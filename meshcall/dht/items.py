"""Items as BEP 44 stores them: what is signed, where an item lives, what makes one valid."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

VALUE_BYTES_MAX = 1000
"""Bencoded length of a value (BEP 44)."""
SALT_BYTES_MAX = 64
SEQ_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class ImmutableItem:
    """A value found by its own hash.  `value` is the bencoded form, at most 1000 bytes."""

    value: bytes

    @property
    def target(self) -> bytes:
        """SHA-1 of the bencoded value: 20 bytes."""
        return hashlib.sha1(self.value, usedforsecurity=False).digest()


@dataclass(frozen=True, slots=True)
class MutableItem:
    """A value under a public key: `public` 32 bytes, `salt` up to 64, `seq` 0 to 2**63-1,
    `value` bencoded, `signature` 64 bytes over `signing_buffer`."""

    public: bytes
    salt: bytes
    seq: int
    value: bytes
    signature: bytes

    @property
    def target(self) -> bytes:
        """SHA-1 of public key and salt: 20 bytes."""
        return mutable_target(self.public, self.salt)


Item = ImmutableItem | MutableItem


def mutable_target(public: bytes, salt: bytes = b"") -> bytes:
    """Where the items of a public key and salt live: 20 bytes."""
    return hashlib.sha1(public + salt, usedforsecurity=False).digest()


def signing_buffer(salt: bytes, seq: int, value: bytes) -> bytes:
    """The bytes that a mutable item's signature covers (BEP 44, "Signature Verification")."""
    head = b"4:salt%d:%s" % (len(salt), salt) if salt else b""
    return b"%s3:seqi%de1:v%s" % (head, seq, value)
