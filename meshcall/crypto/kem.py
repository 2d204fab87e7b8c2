"""ML-KEM-768 (FIPS 203) behind a small interface; the only file that imports `cryptography`, and late.

The import costs some 50 ms, so it happens with the first key, not with the first command.  A key for
decapsulation stays inside OpenSSL's memory, which wipes it; what comes out here is used once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from meshcall.errors import StateError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey

KEM_PUBLIC_BYTES = 1184
"""An encapsulation key of ML-KEM-768."""
KEM_CIPHERTEXT_BYTES = 1088
KEM_SECRET_BYTES = 32
KEM_SEED_BYTES = 64


class KemKey(Protocol):
    """A key pair for one exchange."""

    @property
    def public(self) -> bytes:
        """The encapsulation key: KEM_PUBLIC_BYTES."""
        ...

    def decapsulate(self, ciphertext: bytes) -> bytes | None:
        """The 32-byte secret of KEM_CIPHERTEXT_BYTES; None where the length is wrong.

        A damaged ciphertext gives another secret, not None (FIPS 203, implicit rejection).
        """
        ...


class Kem(Protocol):
    """A key encapsulation mechanism with the sizes above."""

    def generate(self) -> KemKey:
        """A fresh key pair."""
        ...

    def encapsulate(self, public: bytes) -> tuple[bytes, bytes] | None:
        """A fresh secret for the holder of `public` and the ciphertext that carries it; None for bytes that are no key.

        32 and KEM_CIPHERTEXT_BYTES bytes.
        """
        ...


class MlKemKey:
    """A key pair of ML-KEM-768."""

    __slots__ = ("_key", "public")

    def __init__(self, key: MLKEM768PrivateKey) -> None:
        self._key = key
        self.public = key.public_key().public_bytes_raw()

    def decapsulate(self, ciphertext: bytes) -> bytes | None:
        """The 32-byte secret; None where the length is wrong."""
        if len(ciphertext) != KEM_CIPHERTEXT_BYTES:
            return None
        return self._key.decapsulate(ciphertext)


class MlKem768:
    """`Kem` with the product's own means.  It holds no state; entropy is the operating system's."""

    __slots__ = ()

    def generate(self) -> MlKemKey:
        """A fresh key pair.  Raises StateError where the installed `cryptography` cannot do ML-KEM."""
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey

        try:
            return MlKemKey(MLKEM768PrivateKey.generate())
        except UnsupportedAlgorithm:
            raise StateError("the installed package cryptography has no ML-KEM; install version 48 or later") from None

    def from_seed(self, seed: bytes) -> MlKemKey:
        """The key pair of the 64 bytes d and z (FIPS 203, algorithm 16); for published vectors."""
        from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey

        return MlKemKey(MLKEM768PrivateKey.from_seed_bytes(seed))

    def encapsulate(self, public: bytes) -> tuple[bytes, bytes] | None:
        """A fresh secret and its ciphertext; None for bytes that are no encapsulation key (FIPS 203 section 7.2)."""
        from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PublicKey

        if len(public) != KEM_PUBLIC_BYTES:
            return None
        try:
            return MLKEM768PublicKey.from_public_bytes(public).encapsulate()
        except ValueError:
            return None
