"""The plaintext of a record: the devices of one person and how each can be reached, in one fixed size.

Fields are (type, length, value), in ascending order of type, so that later versions can add some: a
field of an unknown type is kept as it is and written again.  Decoding is strict and canonical, what
was decoded encodes to the same bytes.  No cryptography here, and no opinion on what is still valid.
The format in words and with a vector: docs/records.md.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise

from meshcall.core import ENDPOINT_V4_BYTES, ENDPOINT_V6_BYTES, Endpoint
from meshcall.errors import BadPacket

VERSION = 1
PLAINTEXT_BYTES = 836
"""Every record has this size.  With nonce, tag and bencoding it makes 880 bytes (see record/seal.py)."""
DEVICES_MAX = 6
LEASES_MAX = 4
"""Relay leases of one device."""
DIRECT_MAX = 4
"""Direct addresses of one device and one IP family."""
REVOKED_MAX = 16
LIFETIME_SECONDS_MAX = 2**16 - 1
EXPIRY_MAX = 2**40 - 1
"""Unix seconds of a certificate's end; three bytes less than in what is signed, so that a fifth device fits."""
TIME_MAX = 2**32 - 1
"""Unix seconds of entry times and revocations, until the year 2106."""

CAPABILITY_ML_KEM = 1 << 0
"""The device takes part in the ML-KEM-768 half of the handshake; a caller never talks to it without."""

LEASE_ID_BYTES = 8
KEY_BYTES = 32
SIGNATURE_BYTES = 64

_FIELD_DEVICE = 1
_FIELD_REVOKED = 2
_DEVICE_LEASE = 1
_DEVICE_DIRECT_V4 = 2
_DEVICE_DIRECT_V6 = 3

_LEASE_UDP = 1 << 0
_LEASE_TCP = 1 << 1
_LEASE_V4 = 1 << 2
_LEASE_V6 = 1 << 3

_FIELD_HEAD = struct.Struct(">BH")  # type, length: fields of the record
_SUBFIELD_HEAD = struct.Struct(">BB")  # type, length: fields of a device
_DEVICE = struct.Struct(">I32sBI64sIHH")  # serial, static, expiry (40 bits), signature, time, lifetime, capabilities
_REVOCATION = struct.Struct(">II")  # serial, until
_LEASE = struct.Struct(">B8s32s")  # flags, lease ID, relay key
_PORT = struct.Struct(">H")

DEVICE_BYTES_MIN = _FIELD_HEAD.size + _DEVICE.size
"""A device without lease and address: 116 bytes."""

Unknown = tuple[tuple[int, bytes], ...]
"""Fields of types that this version does not know: (type, value) in the order found."""


@dataclass(frozen=True, slots=True)
class RelayLease:
    """A place at a relay: who writes there with `lease_id` reaches the device.

    The relay is named by its static key, not by its DHT node ID: the key proves the relay to those who
    write to it and stays when its address changes, the node ID proves nothing.
    """

    relay: bytes
    """The relay's X25519 static key: 32 bytes."""
    lease_id: bytes
    """8 random bytes, given by the relay."""
    v4: Endpoint | None
    v6: Endpoint | None
    """Where the relay is; at least one of `v4` and `v6`."""
    udp: bool = True
    """Whether it takes packets over UDP, at the endpoint's port."""
    tcp_port: int | None = None
    """Where it takes them over TCP, at the endpoint's address; at least one of `udp` and `tcp_port`."""


@dataclass(frozen=True, slots=True)
class DeviceEntry:
    """What one device says of itself."""

    serial: int
    """Of its certificate: 32 bits, not 0."""
    static: bytes
    """Its X25519 static key: 32 bytes."""
    expiry: int
    """When the certificate ends, Unix seconds; 64 bits in what is signed, EXPIRY_MAX here."""
    signature: bytes
    """The certificate: the identity's signature over static key, serial and expiry; 64 bytes."""
    time: int = 0
    """When the device wrote this entry, Unix seconds."""
    lifetime: int = 3 * 3600
    """For how many seconds after `time` the entry is good, unless renewed."""
    capabilities: int = 0
    """Bits CAPABILITY_...; unknown ones are kept."""
    leases: tuple[RelayLease, ...] = ()
    """In the order of preference."""
    direct_v4: tuple[Endpoint, ...] = ()
    direct_v6: tuple[Endpoint, ...] = ()
    """Addresses of the device itself, only where its owner allows; in the order of preference."""
    unknown: Unknown = ()

    @property
    def identity(self) -> tuple[int, bytes]:
        """What tells two devices apart, and their order in a record: serial, then static key."""
        return self.serial, self.static


@dataclass(frozen=True, slots=True, order=True)
class Revocation:
    """The serial of a device that must not be talked to any more, listed until its certificate ends."""

    serial: int
    until: int
    """Unix seconds; TIME_MAX where unknown."""


@dataclass(frozen=True, slots=True)
class Record:
    """All devices of a person, and which serials are revoked."""

    devices: tuple[DeviceEntry, ...] = ()
    """In ascending order of `identity`."""
    revoked: tuple[Revocation, ...] = ()
    """In ascending order of serial, each once."""
    unknown: Unknown = ()


def encoded_size(record: Record) -> int:
    """How many of PLAINTEXT_BYTES a record takes before padding."""
    return len(_encode(record))


def encode_record(record: Record) -> bytes:
    """The PLAINTEXT_BYTES of a record.

    Raises ValueError where it is not canonical, a part is out of its limits or all is too much;
    `record.merge.fit` makes a record fit.
    """
    try:
        data = _encode(record)
        plaintext = data + bytes(PLAINTEXT_BYTES - len(data)) if len(data) < PLAINTEXT_BYTES else data
        same = decode_record(plaintext) == record  # what we could not read ourselves is never sent
    except (struct.error, BadPacket) as error:
        raise ValueError(f"not a record that can be sent: {error}") from None
    if not same:
        raise ValueError("not a record that can be sent: not canonical")
    return plaintext


def _encode(record: Record) -> bytes:
    fields = [(_FIELD_DEVICE, _encode_device(device)) for device in record.devices]
    if record.revoked:
        fields.append((_FIELD_REVOKED, b"".join(_REVOCATION.pack(r.serial, r.until) for r in record.revoked)))
    fields.extend(record.unknown)
    parts = [bytes([VERSION])]
    for kind, value in fields:
        parts += _FIELD_HEAD.pack(kind, len(value)), value
    return b"".join(parts)


def _encode_device(device: DeviceEntry) -> bytes:
    fields = [(_DEVICE_LEASE, _encode_lease(lease)) for lease in device.leases]
    if device.direct_v4:
        fields.append((_DEVICE_DIRECT_V4, b"".join(device.direct_v4)))
    if device.direct_v6:
        fields.append((_DEVICE_DIRECT_V6, b"".join(device.direct_v6)))
    fields.extend(device.unknown)
    parts = [
        _DEVICE.pack(
            device.serial, device.static, device.expiry >> 32, device.expiry & 0xFFFFFFFF, device.signature,
            device.time, device.lifetime, device.capabilities,
        )
    ]  # fmt: skip
    for kind, value in fields:
        parts += _SUBFIELD_HEAD.pack(kind, len(value)), value
    return b"".join(parts)


def _encode_lease(lease: RelayLease) -> bytes:
    flags = (
        _LEASE_UDP * lease.udp
        | _LEASE_TCP * (lease.tcp_port is not None)
        | _LEASE_V4 * (lease.v4 is not None)
        | _LEASE_V6 * (lease.v6 is not None)
    )
    port = b"" if lease.tcp_port is None else _PORT.pack(lease.tcp_port)
    return _LEASE.pack(flags, lease.lease_id, lease.relay) + (lease.v4 or b"") + (lease.v6 or b"") + port


def decode_record(data: bytes) -> Record:
    """The record in PLAINTEXT_BYTES of plaintext.  Raises BadPacket and nothing else."""
    if len(data) != PLAINTEXT_BYTES:
        raise BadPacket("record size")
    if data[0] != VERSION:
        raise BadPacket("record version")
    devices: list[DeviceEntry] = []
    revoked: tuple[Revocation, ...] = ()
    unknown: list[tuple[int, bytes]] = []
    for kind, value in _record_fields(data):
        if kind == _FIELD_DEVICE:
            if len(devices) == DEVICES_MAX:
                raise BadPacket("record devices")
            device = _decode_device(value)
            if devices and devices[-1].identity >= device.identity:
                raise BadPacket("record order")
            devices.append(device)
        elif kind == _FIELD_REVOKED:
            if revoked:
                raise BadPacket("record order")
            revoked = _decode_revoked(value)
        else:
            unknown.append((kind, value))
    return Record(tuple(devices), revoked, tuple(unknown))


def _record_fields(data: bytes) -> list[tuple[int, bytes]]:
    """The fields between version byte and padding, in ascending order of type."""
    fields: list[tuple[int, bytes]] = []
    at, last = 1, 1
    while at < len(data) and data[at]:
        if at + _FIELD_HEAD.size > len(data):
            raise BadPacket("record field")
        kind, size = _FIELD_HEAD.unpack_from(data, at)
        at += _FIELD_HEAD.size + size
        if at > len(data):
            raise BadPacket("record field")
        if kind < last:
            raise BadPacket("record order")
        last = kind
        fields.append((kind, data[at - size : at]))
    if data.count(0, at) != len(data) - at:
        raise BadPacket("record padding")
    return fields


def _decode_device(data: bytes) -> DeviceEntry:
    if len(data) < _DEVICE.size:
        raise BadPacket("record device")
    serial, static, expiry_high, expiry_low, signature, time, lifetime, capabilities = _DEVICE.unpack_from(data)
    if not serial:
        raise BadPacket("record serial")
    leases: list[RelayLease] = []
    direct_v4: tuple[Endpoint, ...] = ()
    direct_v6: tuple[Endpoint, ...] = ()
    unknown: list[tuple[int, bytes]] = []
    for kind, value in _device_fields(data):
        if kind == _DEVICE_LEASE:
            if len(leases) == LEASES_MAX:
                raise BadPacket("record leases")
            leases.append(_decode_lease(value))
        elif kind == _DEVICE_DIRECT_V4 and not direct_v4:
            direct_v4 = _decode_endpoints(value, ENDPOINT_V4_BYTES)
        elif kind == _DEVICE_DIRECT_V6 and not direct_v6:
            direct_v6 = _decode_endpoints(value, ENDPOINT_V6_BYTES)
        elif kind > _DEVICE_DIRECT_V6:
            unknown.append((kind, value))
        else:
            raise BadPacket("record order")
    if len({(lease.relay, lease.lease_id) for lease in leases}) != len(leases):
        raise BadPacket("record repeat")
    return DeviceEntry(
        serial, static, expiry_high << 32 | expiry_low, signature, time, lifetime, capabilities,
        tuple(leases), direct_v4, direct_v6, tuple(unknown),
    )  # fmt: skip


def _device_fields(data: bytes) -> list[tuple[int, bytes]]:
    """The fields after the fixed part of a device, in ascending order of type."""
    fields: list[tuple[int, bytes]] = []
    at, last = _DEVICE.size, 1
    while at < len(data):
        if at + _SUBFIELD_HEAD.size > len(data):
            raise BadPacket("record field")
        kind, size = _SUBFIELD_HEAD.unpack_from(data, at)
        at += _SUBFIELD_HEAD.size + size
        if at > len(data):
            raise BadPacket("record field")
        if kind < last:
            raise BadPacket("record order")
        last = kind
        fields.append((kind, data[at - size : at]))
    return fields


def _decode_lease(data: bytes) -> RelayLease:
    if len(data) < _LEASE.size:
        raise BadPacket("record lease")
    flags, lease_id, relay = _LEASE.unpack_from(data)
    if flags & ~(_LEASE_UDP | _LEASE_TCP | _LEASE_V4 | _LEASE_V6):
        raise BadPacket("record lease flags")  # another kind of lease takes another type
    if not flags & (_LEASE_UDP | _LEASE_TCP) or not flags & (_LEASE_V4 | _LEASE_V6):
        raise BadPacket("record lease flags")
    v4_bytes = ENDPOINT_V4_BYTES if flags & _LEASE_V4 else 0
    v6_bytes = ENDPOINT_V6_BYTES if flags & _LEASE_V6 else 0
    tcp_bytes = _PORT.size if flags & _LEASE_TCP else 0
    if len(data) != _LEASE.size + v4_bytes + v6_bytes + tcp_bytes:
        raise BadPacket("record lease")
    v6_at = _LEASE.size + v4_bytes
    v4 = _endpoint(data[_LEASE.size : v6_at]) if v4_bytes else None
    v6 = _endpoint(data[v6_at : v6_at + v6_bytes]) if v6_bytes else None
    tcp_port: int | None = None
    if tcp_bytes:
        (tcp_port,) = _PORT.unpack_from(data, v6_at + v6_bytes)
        if not tcp_port:
            raise BadPacket("record port")
    return RelayLease(relay, lease_id, v4, v6, bool(flags & _LEASE_UDP), tcp_port)


def _decode_endpoints(data: bytes, size: int) -> tuple[Endpoint, ...]:
    count, rest = divmod(len(data), size)
    if rest or not 0 < count <= DIRECT_MAX:
        raise BadPacket("record addresses")
    endpoints = tuple(_endpoint(data[at : at + size]) for at in range(0, len(data), size))
    if len(set(endpoints)) != count:
        raise BadPacket("record repeat")
    return endpoints


def _endpoint(data: bytes) -> Endpoint:
    if not data[-2] and not data[-1]:
        raise BadPacket("record port")
    return Endpoint(data)


def _decode_revoked(data: bytes) -> tuple[Revocation, ...]:
    count, rest = divmod(len(data), _REVOCATION.size)
    if rest or not 0 < count <= REVOKED_MAX:
        raise BadPacket("record revoked")
    revoked = tuple(Revocation(serial, until) for serial, until in _REVOCATION.iter_unpack(data))
    if not revoked[0].serial or any(one.serial >= two.serial for one, two in pairwise(revoked)):
        raise BadPacket("record order")
    return revoked
