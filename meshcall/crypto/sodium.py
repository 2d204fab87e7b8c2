"""The cryptography of the product: libsodium through PyNaCl's plain bindings.

The only file that imports nacl.  No PyNaCl class is used, because those draw nonces by themselves.
Importing this costs some 25 ms, so commands that need no key do not import it.
What strangers may have sent gives False or None; what only our own mistake can cause raises.
"""

from __future__ import annotations

from hashlib import sha512
from struct import Struct
from typing import Final

from nacl import bindings
from nacl.exceptions import BadSignatureError, CryptoError

from meshcall.crypto.suite import (
    AGREED_BYTES,
    PUBLIC_BYTES,
    SEAL_KEY_BYTES,
    SEAL_NONCE_BYTES,
    SEAL_TAG_BYTES,
    SIGNATURE_BYTES,
    SigningKey,
)

STRETCH_SALT_BYTES: Final = 16
STRETCH_KEY_BYTES: Final = 32
FACTOR_BYTES: Final = 64

_sign_open = bindings.crypto_sign_open
_reduce = bindings.crypto_core_ed25519_scalar_reduce
_multiply = bindings.crypto_core_ed25519_scalar_mul
_add = bindings.crypto_core_ed25519_scalar_add
_times_base = bindings.crypto_scalarmult_ed25519_base_noclamp
_packet_seal = bindings.crypto_aead_chacha20poly1305_ietf_encrypt
_packet_open = bindings.crypto_aead_chacha20poly1305_ietf_decrypt
_packet_nonce = Struct("<4xQ").pack
_times_point = bindings.crypto_scalarmult_ed25519_noclamp


def _check_key(key: bytes) -> None:
    """PyNaCl's own complaint is a CryptoError too, and must not pass for a wrong tag."""
    if len(key) != SEAL_KEY_BYTES:
        raise ValueError(f"a key of {len(key)} bytes, not {SEAL_KEY_BYTES}")


class Sodium:
    """`suite.Suite` on libsodium.  It holds no state; one instance serves a process."""

    __slots__ = ()

    def random(self, size: int) -> bytes:
        """`size` bytes of the operating system's entropy."""
        return bytes(bindings.randombytes(size))

    def expand(self, seed: bytes) -> SigningKey:
        """The signing key of a 32-byte seed (RFC 8032 section 5.1.5)."""
        public, _ = bindings.crypto_sign_seed_keypair(seed)
        digest = sha512(seed).digest()
        scalar = bytes([digest[0] & 248]) + digest[1:31] + bytes([digest[31] & 63 | 64])
        return SigningKey(scalar=scalar, prefix=digest[32:], public=public)

    def is_identity_key(self, public: bytes) -> bool:
        """Whether these bytes are a canonical point of the prime-order subgroup, and not its neutral element.

        Anything else would let one person have many addresses, or have a blinded key that others can compute.
        """
        return len(public) == PUBLIC_BYTES and bindings.crypto_core_ed25519_is_valid_point(public)

    def verify(self, public: bytes, message: bytes, signature: bytes) -> bool:
        """RFC 8032 section 5.1.7 with libsodium's refusals: S not reduced, small-order or non-canonical key."""
        if len(public) != PUBLIC_BYTES or len(signature) != SIGNATURE_BYTES:
            return False
        try:
            _sign_open(signature + message, public)
        except BadSignatureError:
            return False
        return True

    def sign(self, key: SigningKey, message: bytes) -> bytes:
        """RFC 8032 section 5.1.6 steps 2 to 6, from the expanded key, so that blinded keys sign the same way."""
        nonce = _reduce(sha512(key.prefix + message).digest())
        commitment = _times_base(nonce)
        challenge = _reduce(sha512(commitment + key.public + message).digest())
        return commitment + _add(_multiply(challenge, key.scalar), nonce)

    def blind_public(self, public: bytes, factor: bytes) -> bytes:
        """`factor` (64 bytes, reduced modulo the group order) times the point.

        Raises ValueError where `is_identity_key(public)` is false: ask that first about a stranger's key.
        (And for a factor that is a multiple of the group order, which no hash function will ever give.)
        """
        try:
            return _times_point(_reduce(factor), public)
        except CryptoError:
            raise ValueError("not an identity key") from None

    def blind_key(self, key: SigningKey, factor: bytes, prefix: bytes) -> SigningKey:
        """The signing key of `blind_public(key.public, factor)`; `prefix` is 32 secret bytes for its nonces."""
        scalar = _multiply(_reduce(factor), key.scalar)
        return SigningKey(scalar=scalar, prefix=prefix, public=_times_base(scalar))

    def seal(self, key: bytes, nonce: bytes, plaintext: bytes, bound: bytes) -> bytes:
        """XChaCha20-Poly1305 (24-byte nonce): ciphertext and 16-byte tag; `bound` is authenticated too."""
        return bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(plaintext, bound, nonce, key)

    def open(self, key: bytes, nonce: bytes, sealed: bytes, bound: bytes) -> bytes | None:
        """The plaintext, or None where the tag does not fit or lengths make no sense."""
        _check_key(key)
        if len(nonce) != SEAL_NONCE_BYTES or len(sealed) < SEAL_TAG_BYTES:
            return None
        try:
            return bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, bound, nonce, key)
        except CryptoError:
            return None

    def agree_public(self, secret: bytes) -> bytes:
        """The X25519 public key of a 32-byte secret (RFC 7748 section 6.1)."""
        return bindings.crypto_scalarmult_base(secret)

    def agree(self, secret: bytes, public: bytes) -> bytes | None:
        """X25519 (RFC 7748 section 6.1): 32 bytes; None where the result would be all zeros (libsodium refuses it)."""
        if len(secret) != AGREED_BYTES or len(public) != AGREED_BYTES:
            raise ValueError("X25519 keys have 32 bytes")
        try:
            return bindings.crypto_scalarmult(secret, public)
        except CryptoError:
            return None

    def seal_packet(self, key: bytes, number: int, plaintext: bytes, bound: bytes) -> bytes:
        """ChaCha20-Poly1305 (RFC 8439) under the nonce of `number`: ciphertext and 16-byte tag."""
        return _packet_seal(plaintext, bound, _packet_nonce(number), key)

    def open_packet(self, key: bytes, number: int, sealed: bytes, bound: bytes) -> bytes | None:
        """The plaintext, or None where the tag does not fit."""
        _check_key(key)
        if len(sealed) < SEAL_TAG_BYTES:
            return None
        try:
            return _packet_open(sealed, bound, _packet_nonce(number), key)
        except CryptoError:
            return None

    def stretch(self, passphrase: bytes, salt: bytes, operations: int, memory_bytes: int) -> bytes:
        """Argon2id 1.3 with one lane (RFC 9106): a 32-byte key.  Raises MemoryError where the machine has too little.

        `salt`: 16 bytes.  `operations`: passes over the memory, at least 1.  `memory_bytes`: at least 8192.
        """
        try:
            return bindings.crypto_pwhash_alg(
                STRETCH_KEY_BYTES, passphrase, salt, operations, memory_bytes, bindings.crypto_pwhash_ALG_ARGON2ID13
            )
        except CryptoError as error:
            if operations < 1 or memory_bytes < bindings.crypto_pwhash_argon2id_MEMLIMIT_MIN:
                raise ValueError("Argon2id parameters out of range") from error
            raise MemoryError(f"no {memory_bytes >> 20} MiB for Argon2id") from error

    def box(self, key: bytes, nonce: bytes, plaintext: bytes) -> bytes:
        """XSalsa20-Poly1305 secret box (NaCl): 16-byte tag and ciphertext; nonce 24, key 32 bytes."""
        return bindings.crypto_secretbox_easy(plaintext, nonce, key)

    def unbox(self, key: bytes, nonce: bytes, boxed: bytes) -> bytes | None:
        """The plaintext of a secret box, or None where the tag does not fit or lengths make no sense."""
        _check_key(key)
        if len(nonce) != SEAL_NONCE_BYTES or len(boxed) < SEAL_TAG_BYTES:
            return None
        try:
            return bindings.crypto_secretbox_open_easy(boxed, nonce, key)
        except CryptoError:
            return None
