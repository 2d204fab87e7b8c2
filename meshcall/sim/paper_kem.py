"""A key encapsulation mechanism on paper: the lengths of ML-KEM-768, no strength.  Never import this into a node."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from meshcall.crypto.kem import KEM_CIPHERTEXT_BYTES, KEM_PUBLIC_BYTES, KEM_SECRET_BYTES

if TYPE_CHECKING:
    from random import Random


class PaperKemKey:
    """A key pair; its secret is its public key."""

    __slots__ = ("public",)

    def __init__(self, public: bytes) -> None:
        self.public = public

    def decapsulate(self, ciphertext: bytes) -> bytes | None:
        """What `PaperKem.encapsulate` made; another secret for a damaged ciphertext; None for a wrong length."""
        return _secret(self.public, ciphertext) if len(ciphertext) == KEM_CIPHERTEXT_BYTES else None


class PaperKem:
    """`meshcall.crypto.kem.Kem` on paper.  Chance is handed in: one seed, one world."""

    __slots__ = ("_rng",)

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    def generate(self) -> PaperKemKey:
        """A fresh key pair."""
        return PaperKemKey(self._rng.randbytes(KEM_PUBLIC_BYTES))

    def encapsulate(self, public: bytes) -> tuple[bytes, bytes] | None:
        """A secret and its ciphertext; None for bytes of another length."""
        if len(public) != KEM_PUBLIC_BYTES:
            return None
        ciphertext = self._rng.randbytes(KEM_CIPHERTEXT_BYTES)
        return _secret(public, ciphertext), ciphertext


def _secret(public: bytes, ciphertext: bytes) -> bytes:
    return hashlib.blake2b(public + ciphertext, digest_size=KEM_SECRET_BYTES, person=b"paper kem").digest()
