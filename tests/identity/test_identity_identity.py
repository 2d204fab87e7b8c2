"""Identities, devices and their certificates; the vectors; addresses that nobody can own."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl import bindings

from meshcall import address
from meshcall.crypto.sodium import Sodium
from meshcall.errors import AddressError, BadPacket
from meshcall.identity import (
    CERTIFICATE_BYTES,
    CERTIFICATE_LIFE_SECONDS,
    Certificate,
    Device,
    Identity,
    read_address,
    signed_terms,
)

FOLDER = Path(__file__).parents[1] / "vectors"
VECTORS = json.loads((FOLDER / "identity.json").read_text(encoding="utf-8"))
SUITE = Sodium()
NOW = 1_800_000_000.5


def test_the_vectors_are_what_the_generator_writes() -> None:
    built = runpy.run_path(str(FOLDER / "make_identity_vectors.py"))["build"]()
    for name, text in built.items():
        assert (FOLDER / name).read_text(encoding="utf-8") == text, f"{name}: run make_identity_vectors.py"


@pytest.mark.parametrize("vector", VECTORS["identities"], ids=lambda vector: vector["what"])
def test_identity_vectors(vector: dict[str, str]) -> None:
    identity = Identity.from_seed(SUITE, bytes.fromhex(vector["seed"]))
    assert identity.public.hex() == vector["public"]
    assert identity.address == vector["address"]


@pytest.mark.parametrize("vector", VECTORS["certificates"])
def test_certificate_vectors_by_plain_libsodium(vector: dict[str, object]) -> None:
    data = bytes.fromhex(str(vector["certificate"]))
    signed = bytes.fromhex(str(vector["signed"]))
    assert signed == b"meshcall device 1" + data[:44]
    assert bindings.crypto_sign_open(data[44:] + signed, bytes.fromhex(str(vector["identity_public"]))) == signed
    assert bindings.crypto_scalarmult_base(bytes.fromhex(str(vector["device_secret"]))).hex() == vector["device_public"]
    certificate = Certificate.decode(data)
    assert certificate.static.hex() == vector["device_public"]
    assert (certificate.serial, certificate.expiry) == (vector["serial"], vector["expiry"])
    assert certificate.encode() == data


def test_a_certificate_holds_until_it_expires() -> None:
    identity, device = Identity.new(SUITE), Device.new(SUITE)
    certificate = device.certify(SUITE, identity, NOW)
    assert len(certificate.encode()) == CERTIFICATE_BYTES == 108
    assert certificate.static == device.public
    assert certificate.is_valid(SUITE, identity.public, NOW)
    assert certificate.is_valid(SUITE, identity.public, NOW + CERTIFICATE_LIFE_SECONDS - 1)
    assert not certificate.is_valid(SUITE, identity.public, NOW + CERTIFICATE_LIFE_SECONDS)
    assert not certificate.is_worn(NOW)
    assert certificate.is_worn(NOW + CERTIFICATE_LIFE_SECONDS / 2)


def test_a_certificate_can_be_revoked_by_its_serial() -> None:
    identity, device = Identity.new(SUITE), Device.new(SUITE)
    certificate = device.certify(SUITE, identity, NOW)
    assert not certificate.is_valid(SUITE, identity.public, NOW, revoked={device.serial})
    assert certificate.is_valid(SUITE, identity.public, NOW, revoked={device.serial ^ 1})


@given(st.integers(0, CERTIFICATE_BYTES * 8 - 1))
def test_no_bit_of_a_certificate_can_be_changed(bit: int) -> None:
    identity = Identity.from_seed(SUITE, bytes(32))
    data = bytearray(Device.from_secret(SUITE, bytes(32), 2**31).certify(SUITE, identity, NOW).encode())
    data[bit // 8] ^= 1 << bit % 8
    try:
        certificate = Certificate.decode(bytes(data))
    except BadPacket:
        return
    assert not certificate.is_valid(SUITE, identity.public, 0)


def test_no_one_else_can_certify() -> None:
    device, stranger = Device.new(SUITE), Identity.new(SUITE)
    assert not device.certify(SUITE, stranger, NOW).is_valid(SUITE, Identity.new(SUITE).public, NOW)


@given(st.binary(max_size=200) | st.binary(min_size=CERTIFICATE_BYTES, max_size=CERTIFICATE_BYTES))
def test_decoding_takes_anything(data: bytes) -> None:
    try:
        certificate = Certificate.decode(data)
    except BadPacket:
        return
    assert certificate.encode() == data
    assert not certificate.is_valid(SUITE, Identity.from_seed(SUITE, bytes(32)).public, 0)


def test_serial_zero_is_no_serial() -> None:
    with pytest.raises(BadPacket, match="serial"):
        Certificate.decode(bytes(CERTIFICATE_BYTES))


def test_devices_differ() -> None:
    one, other = Device.new(SUITE), Device.new(SUITE)
    assert one.serial != other.serial
    assert one.public != other.public
    assert 0 < one.serial < 2**32
    assert Device.from_secret(SUITE, one.secret, one.serial) == one


def test_terms_keep_to_their_length() -> None:
    assert len(signed_terms(bytes(32), 2**32 - 1, 2**64 - 1)) == 61


def test_secrets_are_not_shown() -> None:
    identity, device = Identity.new(SUITE), Device.new(SUITE)
    assert repr(identity) == f"<Identity {identity.address}>"
    assert repr(device) == f"<Device {device.serial}>"
    assert "scalar" not in repr(identity.key)


def test_an_address_that_nobody_can_own_is_refused() -> None:
    good = Identity.new(SUITE)
    assert read_address(SUITE, f"meshcall:{good.address}?name=Ada") == address.Link(good.public, "Ada")
    torsion = bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05")
    for public in (bytes(32), torsion, bindings.crypto_core_ed25519_add(good.public, torsion), b"\xff" * 32):
        with pytest.raises(AddressError, match="nobody can own"):
            read_address(SUITE, address.encode(public))
