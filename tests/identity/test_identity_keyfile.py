"""The sealed key file: vectors re-derived with plain libsodium, bounds, damage told from a wrong passphrase."""

from __future__ import annotations

import hashlib
import json
import struct
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl import bindings

from meshcall import keyfile
from meshcall.crypto.sodium import Sodium
from meshcall.errors import StateError, UsageError
from meshcall.keyfile import Cost, DamagedKeyFileError, Secrets, WrongPassphraseError, read_header, seal, unseal

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "identity.json").read_text(encoding="utf-8"))
SUITE = Sodium()
CHEAP = Cost(operations=1, memory_kib=8)
SECRETS = Secrets(seed=bytes(range(32)), device_secret=bytes(range(32, 64)), device_serial=7)
SEALED = seal(SUITE, SECRETS, "Ada", "secret", CHEAP)


def renewed(data: bytes) -> bytes:
    """The file with its checksum put right, as somebody would who changes it on purpose."""
    body = data[:-16]
    return body + hashlib.blake2b(body, digest_size=16, person=b"meshcall damaged").digest()


@pytest.mark.parametrize("vector", VECTORS["key_files"], ids=["passphrase", "NFKC", "none"])
def test_vectors_by_plain_libsodium(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["file"])
    assert len(data) == 257
    name = vector["name"].encode()
    header = struct.pack(
        ">8sBBHII16s24s32sB64s",
        b"\x8fMCKEY\r\n",
        1,
        1 if vector["passphrase"] else 0,
        0,
        vector["operations"],
        vector["memory_kib"],
        bytes.fromhex(vector["salt"]),
        bytes.fromhex(vector["nonce"]),
        bindings.crypto_sign_seed_keypair(bytes.fromhex(vector["seed"]))[0],
        len(name),
        name,
    )
    assert data[:157] == header
    stretched = bindings.crypto_pwhash_alg(
        32,
        unicodedata.normalize("NFKC", vector["passphrase"]).encode(),
        bytes.fromhex(vector["salt"]),
        vector["operations"],
        vector["memory_kib"] * 1024,
        bindings.crypto_pwhash_ALG_ARGON2ID13,
    )
    key = hashlib.blake2b(header, key=stretched, digest_size=32, person=b"meshcall keyfile").digest()
    opened = bindings.crypto_secretbox_open_easy(data[157:241], bytes.fromhex(vector["nonce"]), key)
    assert opened.hex() == vector["seed"] + vector["device_secret"] + f"{vector['device_serial']:08x}"
    assert data == renewed(data)
    secrets = unseal(SUITE, data, vector["passphrase"])
    assert secrets.device_serial == vector["device_serial"]


@given(
    st.binary(min_size=32, max_size=32),
    st.binary(min_size=32, max_size=32),
    st.integers(1, 2**32 - 1),
    st.text(max_size=10),
)
@settings(max_examples=50)
def test_round_trip(seed: bytes, device_secret: bytes, serial: int, passphrase: str) -> None:
    secrets = Secrets(seed=seed, device_secret=device_secret, device_serial=serial)
    data = seal(SUITE, secrets, "Ada", passphrase, CHEAP)
    assert len(data) == keyfile.FILE_BYTES
    header = read_header(data)
    assert header.public == SUITE.expand(seed).public
    assert header.name == "Ada"
    assert header.has_passphrase == bool(passphrase)
    assert unseal(SUITE, data, passphrase) == secrets


def test_two_seals_of_the_same_have_nothing_secret_in_common() -> None:
    other = seal(SUITE, SECRETS, "Ada", "secret", CHEAP)
    assert other[20:60] != SEALED[20:60]
    assert other[157:] != SEALED[157:]


def test_wrong_passphrase() -> None:
    for wrong in ("", "Secret", "secret "):
        with pytest.raises(WrongPassphraseError, match="not the passphrase"):
            unseal(SUITE, SEALED, wrong)


@given(st.integers(0, keyfile.FILE_BYTES * 8 - 1))
def test_any_damaged_bit_is_called_damage(bit: int) -> None:
    data = bytearray(SEALED)
    data[bit // 8] ^= 1 << bit % 8
    if data[8] > 1 and bit // 8 == 8:
        with pytest.raises(StateError, match="newer"):
            unseal(SUITE, bytes(data), "secret")
    else:
        with pytest.raises(DamagedKeyFileError):
            unseal(SUITE, bytes(data), "secret")


@given(st.integers(8 * 8, (keyfile.FILE_BYTES - 16) * 8 - 1))
@settings(deadline=None, max_examples=200)
def test_no_bit_can_be_changed_on_purpose(bit: int) -> None:
    data = bytearray(SEALED)
    if bit // 8 in range(12, 20) or bit // 8 == 8:
        return  # cost and version: their bounds have tests of their own
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises((DamagedKeyFileError, WrongPassphraseError)):
        unseal(SUITE, renewed(bytes(data)), "secret")


@given(st.binary(max_size=300) | st.binary(max_size=400).map(lambda tail: SEALED[:8] + tail))
def test_reading_takes_anything(data: bytes) -> None:
    with pytest.raises(StateError):
        unseal(SUITE, data, "secret")


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_a_hostile_file_cannot_ask_for_much(operations: int, memory_kib: int) -> None:
    data = renewed(SEALED[:12] + struct.pack(">II", operations, memory_kib) + SEALED[20:])
    try:
        cost = read_header(data).cost
    except DamagedKeyFileError:
        return
    assert cost.memory_kib <= 1024 * 1024
    assert cost.operations * cost.memory_kib <= 4 * 1024 * 1024


@pytest.mark.parametrize(
    ("operations", "memory_kib", "allowed"),
    [
        (1, 8, True),
        (4, 2**20, True),
        (64, 65536, True),
        (3, 262144, True),
        (5, 2**20, False),
        (1, 2**20 + 1, False),
        (0, 8, False),
        (1, 7, False),
        (65, 8, False),
        (2**32 - 1, 2**32 - 1, False),
    ],
)
def test_bounds_of_the_cost(operations: int, memory_kib: int, allowed: bool) -> None:
    data = renewed(SEALED[:12] + struct.pack(">II", operations, memory_kib) + SEALED[20:])
    if allowed:
        assert read_header(data).cost == Cost(operations, memory_kib)
    else:
        with pytest.raises(DamagedKeyFileError):
            read_header(data)


@pytest.mark.parametrize(
    ("place", "value"),
    [(9, 2), (10, 1), (11, 1), (92, 65), (92, 2), (96, 65), (93, 0xFF), (93, 0x1B)],
    ids=["flag", "zero", "zero", "name length", "name cut", "after the name", "not UTF-8", "not printable"],
)
def test_header_says_only_what_meshcall_writes(place: int, value: int) -> None:
    data = bytearray(SEALED)
    data[place] = value
    with pytest.raises(DamagedKeyFileError):
        read_header(renewed(bytes(data)))


def test_name_and_passphrase_are_bounded() -> None:
    with pytest.raises(UsageError, match="name is too long"):
        seal(SUITE, SECRETS, "ä" * 33, "x", CHEAP)
    with pytest.raises(UsageError, match="passphrase is too long"):
        seal(SUITE, SECRETS, "", "x" * 1025, CHEAP)
    assert read_header(seal(SUITE, SECRETS, "ä" * 32, "x", CHEAP)).name == "ä" * 32


def test_a_truncated_or_foreign_file_is_named_as_such() -> None:
    with pytest.raises(DamagedKeyFileError, match="200 bytes instead of 257"):
        read_header(SEALED[:200])
    with pytest.raises(DamagedKeyFileError, match="not a meshcall key file"):
        read_header(b"-----BEGIN OPENSSH PRIVATE KEY-----")
    with pytest.raises(DamagedKeyFileError, match="not a meshcall key file"):
        read_header(SEALED.replace(b"\r\n", b"\n", 1))
    with pytest.raises(DamagedKeyFileError, match="not a meshcall key file"):
        read_header(b"")


def test_the_box_must_belong_to_the_address_in_the_header() -> None:
    class Liar(Sodium):
        def expand(self, seed: bytes) -> Any:
            return super().expand(bytes(32))

    with pytest.raises(DamagedKeyFileError, match="does not belong"):
        unseal(SUITE, seal(Liar(), SECRETS, "", "x", CHEAP), "x")


def test_secrets_are_not_shown() -> None:
    assert "seed" not in repr(SECRETS)
