"""Who somebody is: an identity, the devices it vouches for, and the certificate between them.

An identity is an Ed25519 key pair; its public key is the address.  Each installation is a device
with an X25519 key of its own, so that losing one is not losing oneself.  Pure; how keys are kept on
disk is the matter of `keyfile`, how devices are announced that of `record`.  Formats: docs/identity.md.
"""

from __future__ import annotations

import struct
from collections.abc import Container
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from meshcall import address
from meshcall.crypto.suite import PUBLIC_BYTES, SEED_BYTES, SIGNATURE_BYTES, SigningKey
from meshcall.errors import AddressError, BadPacket

if TYPE_CHECKING:
    from meshcall.crypto.suite import Suite, Verifier

STATIC_BYTES: Final = 32
"""An X25519 key, secret or public (RFC 7748)."""
SERIAL_MAX: Final = 2**32 - 1
EXPIRY_MAX: Final = 2**64 - 1
CERTIFICATE_LIFE_SECONDS: Final = 400 * 86400
"""A device that is switched off for a year is still known when it comes back."""
CERTIFICATE_RENEW_SECONDS: Final = CERTIFICATE_LIFE_SECONDS // 2
"""What may be left of a certificate's life when its device makes itself a new one."""
_PURPOSE: Final = b"meshcall device 1"
_TERMS: Final = struct.Struct(f">{STATIC_BYTES}sIQ")
CERTIFICATE_BYTES: Final = _TERMS.size + SIGNATURE_BYTES
"""108: static key 32, serial 4, expiry 8, signature 64."""


@dataclass(frozen=True, slots=True, repr=False)
class Identity:
    """A person's (or a company's) identity, with its secrets: the 32-byte seed and the signing key made of it."""

    seed: bytes
    key: SigningKey

    @classmethod
    def new(cls, suite: Suite) -> Identity:
        """A fresh identity."""
        return cls.from_seed(suite, suite.random(SEED_BYTES))

    @classmethod
    def from_seed(cls, suite: Suite, seed: bytes) -> Identity:
        """The identity of a 32-byte seed, as the key file and the 24 words keep it."""
        return cls(seed=seed, key=suite.expand(seed))

    @property
    def public(self) -> bytes:
        """The 32-byte identity key."""
        return self.key.public

    @property
    def address(self) -> str:
        """The address, `mc1...`."""
        return address.encode(self.public)

    def __repr__(self) -> str:
        return f"<Identity {self.address}>"


@dataclass(frozen=True, slots=True)
class Certificate:
    """An identity's word that a device is its own.

    `static`: the device's X25519 public key, 32 bytes; `serial`: 1 to 2**32-1, drawn by the device, named to revoke it;
    `expiry`: Unix time in seconds from which on it is void; `signature`: 64 bytes by the identity key.
    """

    static: bytes
    serial: int
    expiry: int
    signature: bytes

    def encode(self) -> bytes:
        """108 bytes: static key, serial and expiry in network byte order, signature."""
        return _TERMS.pack(self.static, self.serial, self.expiry) + self.signature

    @classmethod
    def decode(cls, data: bytes) -> Certificate:
        """The inverse of `encode`; proves nothing yet.  Raises BadPacket."""
        if len(data) != CERTIFICATE_BYTES:
            raise BadPacket("certificate length")
        static, serial, expiry = _TERMS.unpack_from(data)
        if not serial:
            raise BadPacket("certificate serial")
        return cls(static=static, serial=serial, expiry=expiry, signature=data[_TERMS.size :])

    def is_valid(
        self, verifier: Verifier, identity_public: bytes, unix_time: float, revoked: Container[int] = ()
    ) -> bool:
        """Whether this identity vouches for this device now; `revoked` holds serials it no longer vouches for."""
        return (
            unix_time < self.expiry
            and self.serial not in revoked
            and verifier.verify(identity_public, signed_terms(self.static, self.serial, self.expiry), self.signature)
        )

    def is_worn(self, unix_time: float) -> bool:
        """Whether its device should make itself a new one."""
        return self.expiry - unix_time <= CERTIFICATE_RENEW_SECONDS


@dataclass(frozen=True, slots=True, repr=False)
class Device:
    """One installation: its X25519 secret (32 bytes), the public key of it, and the serial it is revoked by."""

    secret: bytes
    public: bytes
    serial: int

    @classmethod
    def new(cls, suite: Suite) -> Device:
        """A fresh device.  Its serial is drawn, so that devices need not know of each other."""
        serial = int.from_bytes(suite.random(8), "big") % SERIAL_MAX + 1
        return cls.from_secret(suite, suite.random(STATIC_BYTES), serial)

    @classmethod
    def from_secret(cls, suite: Suite, secret: bytes, serial: int) -> Device:
        """The device of a 32-byte secret, as the key file keeps it."""
        return cls(secret=secret, public=suite.agree_public(secret), serial=serial)

    def certify(self, suite: Suite, identity: Identity, unix_time: float) -> Certificate:
        """A certificate by the identity for `CERTIFICATE_LIFE_SECONDS` from now."""
        expiry = int(unix_time) + CERTIFICATE_LIFE_SECONDS
        signature = suite.sign(identity.key, signed_terms(self.public, self.serial, expiry))
        return Certificate(static=self.public, serial=self.serial, expiry=expiry, signature=signature)

    def __repr__(self) -> str:
        return f"<Device {self.serial}>"


def signed_terms(static: bytes, serial: int, expiry: int) -> bytes:
    """The 61 bytes that a certificate's signature covers."""
    return _PURPOSE + _TERMS.pack(static, serial, expiry)


def read_address(suite: Suite, text: str) -> address.Link:
    """An address or link that a call can go to.  Raises AddressError, also where no one can own the key.

    A key outside the prime-order subgroup, or written in a second way, could be found under blinded
    keys that its owner did not choose; an honest address never has one.
    """
    link = address.parse(text)
    if len(link.public) != PUBLIC_BYTES or not suite.is_identity_key(link.public):
        raise AddressError("nobody can own this address, although it is written correctly; ask for it again")
    return link
