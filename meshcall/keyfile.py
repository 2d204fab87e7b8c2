"""The sealed key file: bytes to secrets and back.  Reading and writing the file is the matter of `drivers.files`.

A fixed 257 bytes: a clear header (who it is, how the passphrase is stretched), the secrets in an
XSalsa20-Poly1305 box under an Argon2id key that also depends on every byte of the header, and a
checksum that tells a damaged file from a wrong passphrase.  Byte for byte in docs/identity.md.
"""

from __future__ import annotations

import hashlib
import struct
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from meshcall.address import NAME_BYTES_MAX, check_name
from meshcall.crypto.suite import PUBLIC_BYTES, SEAL_NONCE_BYTES, SEAL_TAG_BYTES, SEED_BYTES
from meshcall.errors import StateError, UsageError

if TYPE_CHECKING:
    from meshcall.crypto.suite import Suite

MAGIC: Final = b"\x8fMCKEY\r\n"
"""Not ASCII at the start and a line end at the end, so that a copy as text is noticed (the idea is PNG's)."""
VERSION: Final = 1
SALT_BYTES: Final = 16
STATIC_BYTES: Final = 32
CHECKSUM_BYTES: Final = 16
PASSPHRASE_BYTES_MAX: Final = 1024

OPERATIONS_MAX: Final = 64
MEMORY_KIB_MIN: Final = 8
MEMORY_KIB_MAX: Final = 1024 * 1024
WORK_KIB_MAX: Final = 4 * 1024 * 1024
"""Operations times memory: a hostile file costs at most some ten seconds and 1 GiB."""

_FLAG_PASSPHRASE: Final = 1
_HEADER: Final = struct.Struct(f">{len(MAGIC)}sBBHII{SALT_BYTES}s{SEAL_NONCE_BYTES}s{PUBLIC_BYTES}sB{NAME_BYTES_MAX}s")
_SECRETS: Final = struct.Struct(f">{SEED_BYTES}s{STATIC_BYTES}sI")
_BOX_BYTES: Final = SEAL_TAG_BYTES + _SECRETS.size
FILE_BYTES: Final = _HEADER.size + _BOX_BYTES + CHECKSUM_BYTES


class DamagedKeyFileError(StateError):
    """The key file is damaged; put back a copy of it, or move it away and use `meshcall id restore`."""


class WrongPassphraseError(StateError):
    """This is not the passphrase of the key file."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What Argon2id takes to stretch a passphrase: passes over the memory, and the memory in KiB."""

    operations: int
    memory_kib: int


COST: Final = Cost(operations=3, memory_kib=256 * 1024)
"""About a second on a small computer, and too much memory for a guessing machine (libsodium's "moderate")."""
COST_WITHOUT_PASSPHRASE: Final = Cost(operations=1, memory_kib=MEMORY_KIB_MIN)
"""There is nothing to guess."""


@dataclass(frozen=True, slots=True, repr=False)
class Secrets:
    """What the box holds: the identity's seed (32 bytes), the device's X25519 secret (32 bytes) and serial."""

    seed: bytes
    device_secret: bytes
    device_serial: int


@dataclass(frozen=True, slots=True)
class Header:
    """What is readable without the passphrase.  Not proven before `unseal`.

    `public`: the identity key; `name`: what its owner goes by, may be empty; `has_passphrase`: whether to ask for one.
    """

    public: bytes
    name: str
    has_passphrase: bool
    cost: Cost
    salt: bytes
    nonce: bytes


def seal(suite: Suite, secrets: Secrets, name: str, passphrase: str, cost: Cost | None = None) -> bytes:
    """The key file.  An empty passphrase is one that anybody knows: then only the file's mode protects it.

    Raises UsageError for a name or passphrase that is too long, MemoryError where Argon2id gets too little.
    """
    stretchable = _bytes(passphrase)
    cost = cost or (COST if stretchable else COST_WITHOUT_PASSPHRASE)
    name_bytes = check_name(name).encode()
    salt, nonce = suite.random(SALT_BYTES), suite.random(SEAL_NONCE_BYTES)
    header = _HEADER.pack(
        MAGIC,
        VERSION,
        _FLAG_PASSPHRASE if stretchable else 0,
        0,
        cost.operations,
        cost.memory_kib,
        salt,
        nonce,
        suite.expand(secrets.seed).public,
        len(name_bytes),
        name_bytes,
    )
    plaintext = _SECRETS.pack(secrets.seed, secrets.device_secret, secrets.device_serial)
    sealed = header + suite.box(_key(suite, stretchable, cost, salt, header), nonce, plaintext)
    return sealed + _checksum(sealed)


def read_header(data: bytes) -> Header:
    """The clear part of a key file.  Raises DamagedKeyFileError, or StateError for one of a newer meshcall."""
    if data[: len(MAGIC)] != MAGIC:
        raise DamagedKeyFileError("this is not a meshcall key file, or its beginning is damaged")
    if len(data) > len(MAGIC) and data[len(MAGIC)] > VERSION:
        raise StateError("this key file was made by a newer meshcall; update this one")
    if len(data) != FILE_BYTES:
        raise DamagedKeyFileError(
            f"the key file is damaged: it has {len(data)} bytes instead of {FILE_BYTES}; "
            "put back a copy of it, or move it away and use `meshcall id restore`"
        )
    if _checksum(data[:-CHECKSUM_BYTES]) != data[-CHECKSUM_BYTES:]:
        raise DamagedKeyFileError
    _, version, flags, zero, operations, memory_kib, salt, nonce, public, name_length, name = _HEADER.unpack_from(data)
    if (
        version != VERSION
        or flags & ~_FLAG_PASSPHRASE
        or zero
        or not 1 <= operations <= OPERATIONS_MAX
        or not MEMORY_KIB_MIN <= memory_kib <= MEMORY_KIB_MAX
        or operations * memory_kib > WORK_KIB_MAX
        or name_length > NAME_BYTES_MAX
        or any(name[name_length:])
    ):
        raise DamagedKeyFileError("the key file says what no meshcall writes; put back a copy of it")
    try:
        name_text = check_name(name[:name_length].decode())
    except (UnicodeDecodeError, UsageError):
        raise DamagedKeyFileError("the name in the key file cannot be read; put back a copy of it") from None
    return Header(public, name_text, bool(flags), Cost(operations, memory_kib), salt, nonce)


def unseal(suite: Suite, data: bytes, passphrase: str) -> Secrets:
    """Open a key file.  Raises WrongPassphraseError, DamagedKeyFileError, StateError as `read_header`, or MemoryError.

    The checksum is no protection: whoever changes the file on purpose can renew it, and is then told
    of a wrong passphrase, because the key depends on the header and the box on the key.
    """
    header = read_header(data)
    key = _key(suite, _bytes(passphrase), header.cost, header.salt, data[: _HEADER.size])
    plaintext = suite.unbox(key, header.nonce, data[_HEADER.size : -CHECKSUM_BYTES])
    if plaintext is None:
        if header.has_passphrase:
            raise WrongPassphraseError
        raise DamagedKeyFileError("the key file needs no passphrase and yet does not open; put back a copy of it")
    seed, device_secret, serial = _SECRETS.unpack(plaintext)
    if suite.expand(seed).public != header.public or not serial:
        raise DamagedKeyFileError("the key file does not belong to the address it names; put back a copy of it")
    return Secrets(seed=seed, device_secret=device_secret, device_serial=serial)


def _key(suite: Suite, passphrase: bytes, cost: Cost, salt: bytes, header: bytes) -> bytes:
    """The box key: Argon2id of the passphrase, then BLAKE2b-256 keyed with that over the header."""
    stretched = suite.stretch(passphrase, salt, cost.operations, cost.memory_kib * 1024)
    return hashlib.blake2b(header, key=stretched, digest_size=32, person=b"meshcall keyfile").digest()


def _checksum(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=CHECKSUM_BYTES, person=b"meshcall damaged").digest()


def _bytes(passphrase: str) -> bytes:
    """UTF-8 of NFKC, so that two keyboards that compose a letter differently type the same passphrase."""
    encoded = unicodedata.normalize("NFKC", passphrase).encode("utf-8", "surrogateescape")
    if len(encoded) > PASSPHRASE_BYTES_MAX:
        raise UsageError(f"this passphrase is too long: at most {PASSPHRASE_BYTES_MAX} bytes")
    return encoded
