"""The Noise Protocol Framework, revision 34, as far as needed: interactive patterns on 25519, ChaChaPoly and BLAKE2b.

Patterns are data.  The tokens e1 and ekem1 are those of the extension "Hybrid Forward Secrecy"
(noise_hfs, revision 1 draft), with ML-KEM-768 in the place of NewHope: the first message carries a fresh
encapsulation key, the second a ciphertext, and both travel encrypted under what was agreed before them.
Pure: keys, chance and algorithms are handed in.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from meshcall.crypto.kem import KEM_CIPHERTEXT_BYTES, KEM_PUBLIC_BYTES
from meshcall.errors import BadPacket

if TYPE_CHECKING:
    from meshcall.crypto.kem import Kem, KemKey
    from meshcall.crypto.suite import Suite

DH_BYTES: Final = 32
KEY_BYTES: Final = 32
TAG_BYTES: Final = 16
HASH_BYTES: Final = 64
"""BLAKE2b."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A handshake pattern: what each side knows beforehand, and the tokens of each message, the initiator's first."""

    name: str
    initiator_known: tuple[str, ...]
    responder_known: tuple[str, ...]
    messages: tuple[tuple[str, ...], ...]
    hybrid: bool = False

    @property
    def protocol(self) -> bytes:
        """The full protocol name, hashed into every handshake."""
        kem = "+MLKEM768" if self.hybrid else ""
        return f"Noise_{self.name}_25519{kem}_ChaChaPoly_BLAKE2b".encode()


NN: Final = Pattern("NN", (), (), (("e",), ("e", "ee")))
NK: Final = Pattern("NK", (), ("s",), (("e", "es"), ("e", "ee")))
XX: Final = Pattern("XX", (), (), (("e",), ("e", "ee", "s", "es"), ("s", "se")))
IK: Final = Pattern("IK", (), ("s",), (("e", "es", "s", "ss"), ("e", "ee", "se")))
IK_HFS: Final = Pattern(
    "IKhfs", (), ("s",), (("e", "es", "e1", "s", "ss"), ("e", "ee", "ekem1", "se")), hybrid=True
)  # fmt: skip


@dataclass(frozen=True, slots=True, repr=False)
class KeyPair:
    """An X25519 key pair, 32 bytes each."""

    secret: bytes
    public: bytes

    @classmethod
    def new(cls, suite: Suite) -> KeyPair:
        """A fresh one."""
        return cls.of(suite, suite.random(DH_BYTES))

    @classmethod
    def of(cls, suite: Suite, secret: bytes) -> KeyPair:
        """The key pair of a 32-byte secret."""
        return cls(secret, suite.agree_public(secret))


class _Refused(Exception):  # noqa: N818 - never leaves this file
    """The message does not belong to this handshake."""


class Handshake:
    """One side of one handshake.

    `write` and `read` take turns.  After the last message `hash` names the handshake on both sides and `split`
    gives the two keys, once.  Nothing here raises for what a stranger sent: `read` gives None, and the state is then
    what it was before, so that a forged message does not end a handshake.
    """

    __slots__ = (
        "_chaining", "_ephemeral", "_initiator", "_kem", "_kem_key", "_key", "_number", "_pattern", "_remote_ephemeral",
        "_remote_kem", "_static", "_suite", "_turn", "hash", "remote_static",
    )  # fmt: skip

    def __init__(
        self,
        pattern: Pattern,
        *,
        suite: Suite,
        initiator: bool,
        prologue: bytes,
        kem: Kem | None = None,
        static: KeyPair | None = None,
        remote_static: bytes | None = None,
        ephemeral: KeyPair | None = None,
        kem_key: KemKey | None = None,
    ) -> None:
        """`ephemeral` and `kem_key` are for published vectors only; without them fresh ones are made."""
        name = pattern.protocol
        self._pattern = pattern
        self._suite = suite
        self._kem = kem
        self._initiator = initiator
        self._static = static
        self._ephemeral = ephemeral
        self._kem_key = kem_key
        self.remote_static = remote_static
        self._remote_ephemeral: bytes | None = None
        self._remote_kem: bytes | None = None
        self._turn = 0
        self.hash = name.ljust(HASH_BYTES, b"\0") if len(name) <= HASH_BYTES else _hash(name)
        """The transcript so far: 64 bytes."""
        self._chaining = self.hash
        self._key: bytes | None = None
        self._number = 0
        self._mix_hash(prologue)
        for known, ours in ((pattern.initiator_known, initiator), (pattern.responder_known, not initiator)):
            for _ in known:
                self._mix_hash(_need(static).public if ours else _need(remote_static))

    def __repr__(self) -> str:
        return f"<Handshake {self._pattern.name}, message {self._turn}>"

    @property
    def finished(self) -> bool:
        """Whether the last message was written or read."""
        return self._turn == len(self._pattern.messages)

    def write(self, payload: bytes) -> bytes:
        """The next message with a payload.  Raises BadPacket where a key of the other side's is none."""
        self._check_turn(writing=True)
        try:
            parts = [self._write_token(token) for token in self._pattern.messages[self._turn]]
        except _Refused:
            raise BadPacket("handshake key") from None
        parts.append(self._encrypt(payload))
        self._turn += 1
        return b"".join(parts)

    def read(self, message: bytes) -> bytes | None:
        """The payload of the other side's next message, or None where it is not authentic."""
        self._check_turn(writing=False)
        before = (self.hash, self._chaining, self._key, self._number)
        known = (self.remote_static, self._remote_ephemeral, self._remote_kem)
        try:
            for token in self._pattern.messages[self._turn]:
                message = self._read_token(token, message)
            payload = self._decrypt(message)
        except _Refused:
            self.hash, self._chaining, self._key, self._number = before
            self.remote_static, self._remote_ephemeral, self._remote_kem = known
            return None
        self._turn += 1
        return payload

    def split(self) -> tuple[bytes, bytes]:
        """The keys to send and to receive with, 32 bytes each.  All secrets of the handshake are given up with it."""
        if not self.finished:
            raise ValueError("the handshake is not finished")
        first, second = _derive(self._chaining, b"")
        self._chaining = b""
        self._key = self._static = self._ephemeral = self._kem_key = None
        keys = first[:KEY_BYTES], second[:KEY_BYTES]
        return keys if self._initiator else (keys[1], keys[0])

    # Tokens

    def _write_token(self, name: str) -> bytes:
        if name == "e":
            if self._ephemeral is None:
                self._ephemeral = KeyPair.new(self._suite)
            self._mix_hash(self._ephemeral.public)
            return self._ephemeral.public
        if name == "s":
            return self._encrypt(_need(self._static).public)
        if name == "e1":
            if self._kem_key is None:
                self._kem_key = _need(self._kem).generate()
            return self._encrypt(self._kem_key.public)
        if name == "ekem1":
            made = _need(self._kem).encapsulate(_need(self._remote_kem))
            if made is None:
                raise _Refused
            secret, ciphertext = made
            sealed = self._encrypt(ciphertext)
            self._mix_key(secret)
            return sealed
        self._agree(name)
        return b""

    def _read_token(self, name: str, message: bytes) -> bytes:
        """What is left of the message behind this token."""
        if name == "e":
            self._remote_ephemeral, message = _cut(message, DH_BYTES)
            self._mix_hash(self._remote_ephemeral)
        elif name == "s":
            sealed, message = _cut(message, DH_BYTES + self._tag_bytes)
            self.remote_static = self._decrypt(sealed)
        elif name == "e1":
            sealed, message = _cut(message, KEM_PUBLIC_BYTES + self._tag_bytes)
            self._remote_kem = self._decrypt(sealed)
        elif name == "ekem1":
            sealed, message = _cut(message, KEM_CIPHERTEXT_BYTES + self._tag_bytes)
            secret = _need(self._kem_key).decapsulate(self._decrypt(sealed))
            assert secret is not None, "the length is right"
            self._mix_key(secret)
        else:
            self._agree(name)
        return message

    def _agree(self, name: str) -> None:
        """ee, es, se, ss: the initiator's key first."""
        mine, theirs = (name[0], name[1]) if self._initiator else (name[1], name[0])
        secret = _need(self._ephemeral if mine == "e" else self._static).secret
        public = _need(self._remote_ephemeral if theirs == "e" else self.remote_static)
        agreed = self._suite.agree(secret, public)
        if agreed is None:  # a small-order key: the other side wants a secret that everybody knows
            raise _Refused
        self._mix_key(agreed)

    # CipherState and SymmetricState (sections 5.1 and 5.2)

    @property
    def _tag_bytes(self) -> int:
        return 0 if self._key is None else TAG_BYTES

    def _mix_hash(self, data: bytes) -> None:
        self.hash = _hash(self.hash + data)

    def _mix_key(self, secret: bytes) -> None:
        self._chaining, key = _derive(self._chaining, secret)
        self._key = key[:KEY_BYTES]
        self._number = 0

    def _encrypt(self, plaintext: bytes) -> bytes:
        sealed = plaintext
        if self._key is not None:
            sealed = self._suite.seal_packet(self._key, self._number, plaintext, self.hash)
            self._number += 1
        self._mix_hash(sealed)
        return sealed

    def _decrypt(self, sealed: bytes) -> bytes:
        plaintext: bytes | None = sealed
        if self._key is not None:
            plaintext = self._suite.open_packet(self._key, self._number, sealed, self.hash)
            self._number += 1
        if plaintext is None:
            raise _Refused
        self._mix_hash(sealed)
        return plaintext

    def _check_turn(self, *, writing: bool) -> None:
        if self.finished or (self._turn % 2 == 0) != (self._initiator == writing):
            raise ValueError("it is not this side's turn to " + ("write" if writing else "read"))


def _hash(data: bytes) -> bytes:
    return hashlib.blake2b(data).digest()


def _derive(chaining: bytes, material: bytes) -> tuple[bytes, bytes]:
    """HKDF of section 4.3 with two outputs of 64 bytes."""
    secret = hmac.digest(chaining, material, hashlib.blake2b)
    first = hmac.digest(secret, b"\x01", hashlib.blake2b)
    return first, hmac.digest(secret, first + b"\x02", hashlib.blake2b)


def _cut(message: bytes, size: int) -> tuple[bytes, bytes]:
    if len(message) < size:
        raise _Refused
    return message[:size], message[size:]


_T = TypeVar("_T")


def _need(value: _T | None) -> _T:
    """What the pattern says this side has; a handshake set up without it is a mistake of ours."""
    if value is None:
        raise ValueError("a key that the pattern needs was not given")
    return value
