"""The plaintext of a record: round trips, canonical form, and refusal of everything else."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcall.core import Endpoint, endpoint
from meshcall.errors import BadPacket
from meshcall.wire.record import (
    CAPABILITY_ML_KEM,
    DEVICE_BYTES_MIN,
    DEVICES_MAX,
    DIRECT_MAX,
    EXPIRY_MAX,
    LEASES_MAX,
    PLAINTEXT_BYTES,
    REVOKED_MAX,
    DeviceEntry,
    Record,
    RelayLease,
    Revocation,
    decode_record,
    encode_record,
    encoded_size,
)

V4 = endpoint("192.0.2.1", 6881)
V6 = endpoint("2001:db8::1", 443)
DEVICE = DeviceEntry(5, b"s" * 32, 2_000_000_000, b"g" * 64, 1_800_000_000, 10800, CAPABILITY_ML_KEM)
LEASE = RelayLease(b"r" * 32, b"l" * 8, V4, None)


def padded(*fields: tuple[int, bytes], version: int = 1) -> bytes:
    body = b"".join(struct.pack(">BH", kind, len(value)) + value for kind, value in fields)
    return (bytes([version]) + body).ljust(PLAINTEXT_BYTES, b"\0")


def device_bytes(device: DeviceEntry = DEVICE, tail: bytes = b"") -> bytes:
    return encode_record(Record((device,)))[4 : encoded_size(Record((device,)))] + tail


ports = st.integers(1, 65535)
v4s = st.builds(lambda ip, port: Endpoint(ip + port.to_bytes(2, "big")), st.binary(min_size=4, max_size=4), ports)
v6s = st.builds(lambda ip, port: Endpoint(ip + port.to_bytes(2, "big")), st.binary(min_size=16, max_size=16), ports)
u32 = st.integers(0, 2**32 - 1)
leases = st.builds(
    RelayLease,
    st.binary(min_size=32, max_size=32),
    st.binary(min_size=8, max_size=8),
    st.none() | v4s,
    st.none() | v6s,
    st.booleans(),
    st.none() | ports,
).filter(lambda lease: (lease.v4 or lease.v6) and (lease.udp or lease.tcp_port))


def unknown(first: int, size: int):
    fields = st.lists(st.tuples(st.integers(first, 255), st.binary(max_size=size)), max_size=3)
    return fields.map(lambda found: tuple(sorted(found, key=lambda field: field[0])))


devices = st.builds(
    DeviceEntry,
    st.integers(1, 2**32 - 1),
    st.binary(min_size=32, max_size=32),
    st.integers(0, EXPIRY_MAX),
    st.binary(min_size=64, max_size=64),
    u32,
    st.integers(0, 65535),
    st.integers(0, 65535),
    st.lists(leases, max_size=LEASES_MAX, unique_by=lambda one: (one.relay, one.lease_id)).map(tuple),
    st.lists(v4s, max_size=DIRECT_MAX, unique=True).map(tuple),
    st.lists(v6s, max_size=DIRECT_MAX, unique=True).map(tuple),
    unknown(4, 40),
)
revocations = st.lists(
    st.builds(Revocation, st.integers(1, 2**32 - 1), u32), max_size=REVOKED_MAX, unique_by=lambda one: one.serial
)
records = st.builds(
    Record,
    st.lists(devices, max_size=4, unique_by=lambda one: one.identity).map(
        lambda found: tuple(sorted(found, key=lambda one: one.identity))
    ),
    revocations.map(lambda found: tuple(sorted(found))),
    unknown(3, 300),
)


@given(records)
def test_round_trip(record):
    if encoded_size(record) > PLAINTEXT_BYTES:
        with pytest.raises(ValueError, match="record size"):
            encode_record(record)
        return
    data = encode_record(record)
    assert len(data) == PLAINTEXT_BYTES
    assert decode_record(data) == record


@given(st.binary(max_size=PLAINTEXT_BYTES + 4))
def test_any_bytes(data):
    with pytest.raises(BadPacket):
        decode_record(data[: PLAINTEXT_BYTES - 1])
    canonical_or_refused(data.ljust(PLAINTEXT_BYTES, b"\0")[:PLAINTEXT_BYTES])


@given(records.filter(lambda record: encoded_size(record) <= PLAINTEXT_BYTES), st.data())
def test_damaged_records(record, data):
    damaged = bytearray(encode_record(record))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(len(damaged) - 1, encoded_size(record) + 2)))
        damaged[at] = data.draw(st.integers(0, 255))
    canonical_or_refused(bytes(damaged))


fields = st.lists(
    st.tuples(st.sampled_from([1, 1, 2, 3, 9]), st.binary(max_size=12) | st.just(device_bytes())), max_size=4
)


@given(fields, st.binary(max_size=60))
def test_well_framed_nonsense(found, tail):
    canonical_or_refused(padded(*sorted(found, key=lambda field: field[0]))[:PLAINTEXT_BYTES])
    canonical_or_refused(padded((1, device_bytes(tail=tail))))


def canonical_or_refused(data: bytes) -> None:
    """Whatever is accepted encodes to the very same bytes; nothing but BadPacket is ever raised."""
    try:
        record = decode_record(data)
    except BadPacket:
        return
    assert encode_record(record) == data


def test_smallest_and_largest():
    assert encode_record(Record()) == b"\x01" + bytes(PLAINTEXT_BYTES - 1)
    assert encoded_size(Record((DEVICE,))) == 1 + DEVICE_BYTES_MIN
    full = Record(unknown=((200, bytes(PLAINTEXT_BYTES - 4)),))
    assert decode_record(encode_record(full)) == full
    with pytest.raises(ValueError, match="record size"):
        encode_record(Record(unknown=((200, bytes(PLAINTEXT_BYTES - 3)),)))


def test_what_fits():
    """The table in docs/records.md: devices by leases (IPv4, UDP and TCP) of each."""

    def size(count: int, each: int) -> int:
        ways = tuple(replace(LEASE, lease_id=bytes([n]) * 8, tcp_port=443) for n in range(each))
        return encoded_size(Record(tuple(replace(DEVICE, serial=n, leases=ways) for n in range(count))))

    assert [max(n for n in range(20) if size(n, each) <= PLAINTEXT_BYTES) for each in range(5)] == [7, 5, 3, 3, 2]


def test_fields_of_later_versions_are_kept():
    device = replace(DEVICE, leases=(LEASE,), unknown=((7, b"new"), (7, b""), (8, b"newer")))
    record = Record((device,), (), ((3, b"later"), (250, b"")))
    assert decode_record(encode_record(record)) == record


@pytest.mark.parametrize(
    ("reason", "data"),
    [
        ("record size", b""),
        ("record size", bytes(PLAINTEXT_BYTES + 1)),
        ("record version", bytes(PLAINTEXT_BYTES)),
        ("record version", padded(version=2)),
        ("record padding", padded()[:-1] + b"\1"),
        ("record padding", b"\1\0\2".ljust(PLAINTEXT_BYTES, b"\0")),
        ("record field", b"\1\7\xff\xff".ljust(PLAINTEXT_BYTES, b"\0")),
        ("record field", padded((9, bytes(PLAINTEXT_BYTES - 6)))[:-2] + b"\x09\1"),
        ("record order", padded((9, b""), (8, b""))),
        ("record order", padded((1, device_bytes()), (1, device_bytes()))),
        ("record order", padded((1, device_bytes(replace(DEVICE, serial=6))), (1, device_bytes()))),
        ("record order", padded((2, bytes(7) + b"\1"), (1, device_bytes()))),
        ("record order", padded((2, b"\0\0\0\1" * 2), (2, b"\0\0\0\1" * 2))),
        ("record order", padded((2, b"\0\0\0\2" * 2 + b"\0\0\0\1" * 2))),
        ("record order", padded((2, bytes(8)))),
        ("record revoked", padded((2, b""))),
        ("record revoked", padded((2, bytes(9)))),
        ("record revoked", padded((2, bytes(8 * (REVOKED_MAX + 1))))),
        ("record device", padded((1, b"x" * (DEVICE_BYTES_MIN - 4)))),
        ("record serial", padded((1, bytes(4) + device_bytes()[4:]))),
        ("record devices", padded(*((1, device_bytes(replace(DEVICE, serial=n + 1))) for n in range(DEVICES_MAX + 1)))),
        ("record field", padded((1, device_bytes(tail=b"\x09")))),
        ("record field", padded((1, device_bytes(tail=b"\x09\x02x")))),
        ("record order", padded((1, device_bytes(tail=b"\x00\x00")))),
        ("record order", padded((1, device_bytes(tail=b"\x09\x00\x08\x00")))),
        ("record order", padded((1, device_bytes(tail=(b"\x02\x06" + V4) * 2)))),
        ("record order", padded((1, device_bytes(tail=(b"\x03\x12" + V6) * 2)))),
        ("record addresses", padded((1, device_bytes(tail=b"\x02\x00")))),
        ("record addresses", padded((1, device_bytes(tail=b"\x02\x05hello")))),
        ("record addresses", padded((1, device_bytes(tail=b"\x02\x1e" + b"123456" * 5)))),
        ("record repeat", padded((1, device_bytes(tail=b"\x02\x0c" + V4 * 2)))),
        ("record port", padded((1, device_bytes(tail=b"\x02\x06" + V4[:4] + b"\0\0")))),
        ("record lease", padded((1, device_bytes(tail=b"\x01\x01\x05")))),
        ("record lease", padded((1, device_bytes(tail=b"\x01\x2a\x05" + b"k" * 40 + b"!")))),
        ("record lease flags", padded((1, device_bytes(tail=b"\x01\x2f\x15" + b"k" * 40 + V4)))),
        ("record lease flags", padded((1, device_bytes(tail=b"\x01\x2f\x04" + b"k" * 40 + V4)))),
        ("record lease flags", padded((1, device_bytes(tail=b"\x01\x29\x01" + b"k" * 40)))),
        ("record port", padded((1, device_bytes(tail=b"\x01\x31\x07" + b"k" * 40 + V4 + b"\0\0")))),
        ("record repeat", padded((1, device_bytes(tail=(b"\x01\x2f\x05" + b"k" * 40 + V4) * 2)))),
        (
            "record leases",
            padded((1, device_bytes(tail=b"".join(b"\x01\x2f\x05" + bytes([n]) * 40 + V4 for n in range(5))))),
        ),
    ],
)
def test_refused(reason, data):
    with pytest.raises(BadPacket) as caught:
        decode_record(data)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "record",
    [
        Record((DEVICE, DEVICE)),
        Record((replace(DEVICE, static=b"short"),)),
        Record((replace(DEVICE, serial=2**32),)),
        Record((replace(DEVICE, serial=-1),)),
        Record((replace(DEVICE, expiry=EXPIRY_MAX + 1),)),
        Record((replace(DEVICE, lifetime=65536),)),
        Record((replace(DEVICE, direct_v4=(V6,)),)),
        Record((replace(DEVICE, leases=(replace(LEASE, v4=None),)),)),
        Record((replace(DEVICE, leases=(replace(LEASE, udp=False),)),)),
        Record((replace(DEVICE, leases=(replace(LEASE, tcp_port=0),)),)),
        Record((replace(DEVICE, unknown=((1, b""),)),)),
        Record((replace(DEVICE, unknown=((9, bytes(256)),)),)),
        Record((), (Revocation(2, 0), Revocation(1, 0))),
        Record((), tuple(Revocation(n, 0) for n in range(1, REVOKED_MAX + 2))),
        Record(unknown=((2, b""),)),
    ],
)
def test_what_could_not_be_read_is_not_written(record):
    with pytest.raises(ValueError, match="not a record that can be sent"):
        encode_record(record)
