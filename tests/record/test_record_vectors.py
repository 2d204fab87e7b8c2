"""The golden vectors of tests/vectors/record.json, which a second implementation has made."""

from __future__ import annotations

import json
import runpy
from hashlib import blake2b
from pathlib import Path

import pytest

from meshcall.core import parse_endpoint
from meshcall.crypto.sodium import Sodium
from meshcall.dht.items import MutableItem
from meshcall.record.blinding import blinded_key, blinded_public, blinding_factor, record_target, seal_key
from meshcall.record.period import period_at, shift_of
from meshcall.record.seal import is_certified, open_item, seal_record
from meshcall.wire.record import (
    PLAINTEXT_BYTES,
    DeviceEntry,
    Record,
    RelayLease,
    Revocation,
    decode_record,
    encode_record,
    encoded_size,
)

FOLDER = Path(__file__).parents[1] / "vectors"
VECTORS = json.loads((FOLDER / "record.json").read_text())


class GivenNonce(Sodium):
    """libsodium, but with a nonce that is known."""

    __slots__ = ("nonce",)

    def __init__(self, nonce: bytes) -> None:
        self.nonce = nonce

    def random(self, size: int) -> bytes:
        assert size == len(self.nonce)
        return self.nonce


def endpoints(texts):
    return tuple(parse_endpoint(text) for text in texts)


def unknown(fields):
    return tuple((kind, bytes.fromhex(value)) for kind, value in fields)


def lease(data):
    v4, v6 = (parse_endpoint(data[family]) if family in data else None for family in ("v4", "v6"))
    relay, lease_id = bytes.fromhex(data["relay"]), bytes.fromhex(data["lease_id"])
    return RelayLease(relay, lease_id, v4, v6, data["udp"], data.get("tcp_port"))


def record_of(data):
    devices = tuple(
        DeviceEntry(
            serial=each["serial"],
            static=bytes.fromhex(each["static"]),
            expiry=each["expiry"],
            signature=bytes.fromhex(each["signature"]),
            time=each["time"],
            lifetime=each["lifetime"],
            capabilities=each["capabilities"],
            leases=tuple(map(lease, each["leases"])),
            direct_v4=endpoints(each["direct_v4"]),
            direct_v6=endpoints(each["direct_v6"]),
            unknown=unknown(each["unknown"]),
        )
        for each in data["devices"]
    )
    revoked = tuple(Revocation(each["serial"], each["until"]) for each in data["revoked"])
    return Record(devices, revoked, unknown(data["unknown"]))


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_vector(vector):
    suite = GivenNonce(bytes.fromhex(vector["nonce"]))
    key = suite.expand(bytes.fromhex(vector["seed"]))
    period, seq = vector["period"], vector["seq"]
    assert key.public.hex() == vector["public"]
    assert shift_of(key.public) == vector["shift"]
    assert period_at(key.public, vector["unix_time"]) == period
    assert blinding_factor(key.public, period).hex() == vector["blinding_factor"]
    blinded = blinded_key(suite, key, period)
    assert blinded.scalar.hex() == vector["blinded_scalar"]
    assert blinded.prefix.hex() == vector["blinded_prefix"]
    assert blinded.public.hex() == blinded_public(suite, key.public, period).hex() == vector["blinded_public"]
    assert record_target(suite, key.public, period).hex() == vector["target"]
    assert seal_key(key.public, period).hex() == vector["seal_key"]

    record = record_of(vector["record"])
    plaintext = encode_record(record)
    assert len(plaintext) == PLAINTEXT_BYTES
    assert plaintext.rstrip(b"\0").hex() == vector["plaintext_without_padding"]
    assert blake2b(plaintext, digest_size=32).hexdigest() == vector["plaintext_blake2b_256"]
    assert decode_record(plaintext) == record
    assert all(is_certified(suite, key.public, device, vector["unix_time"]) for device in record.devices)

    item = MutableItem(blinded.public, b"", seq, bytes.fromhex(vector["value"]), bytes.fromhex(vector["signature"]))
    assert seal_record(suite, key, period, record, seq) == item
    assert open_item(suite, key.public, period, item, vector["unix_time"]) == record


def test_full_vector_is_full():
    assert encoded_size(record_of(VECTORS[-1]["record"])) == PLAINTEXT_BYTES


def test_vectors_are_those_of_the_generator():
    made = runpy.run_path(str(FOLDER / "make_record_vectors.py"))["text"]()
    assert made == (FOLDER / "record.json").read_text()


def test_vector_in_the_documentation():
    """The hex in docs/records.md is the vector "one device"."""
    text = (Path(__file__).parents[2] / "docs" / "records.md").read_text()
    joined = "".join(text.split())
    vector = next(vector for vector in VECTORS if vector["name"] == "one device")
    for name, value in vector.items():
        if isinstance(value, str) and name != "name":
            assert value in joined, name
