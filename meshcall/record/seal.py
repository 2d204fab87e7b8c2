"""Sealing: a record as the signed mutable item (BEP 44) of one period, and back.

Every item has the same size, and its bytes look random to whoever does not know the address.  What is
opened here came from strangers: everything is checked again, also what the DHT has checked before.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from meshcall.crypto.suite import SEAL_NONCE_BYTES, SEAL_TAG_BYTES
from meshcall.dht.items import SEQ_MAX, MutableItem, signing_buffer
from meshcall.errors import BadPacket
from meshcall.identity import Certificate
from meshcall.record.blinding import blinded_key, blinded_public, seal_key
from meshcall.wire.record import PLAINTEXT_BYTES, DeviceEntry, Record, decode_record, encode_record

if TYPE_CHECKING:
    from meshcall.crypto.suite import SigningKey, Suite

SEALED_BYTES = SEAL_NONCE_BYTES + PLAINTEXT_BYTES + SEAL_TAG_BYTES
"""Nonce, ciphertext and tag: 876 bytes."""
VALUE_HEAD = b"%d:" % SEALED_BYTES
VALUE_BYTES = len(VALUE_HEAD) + SEALED_BYTES
"""The bencoded value of every record: 880 bytes.

BEP 44 allows 1000.  880 is what an answer over IPv6 can carry beside 8 contacts and still pass, whole,
through the 1492 bytes of a DSL line; fragments get lost on the way through many NATs.
"""


def next_seq(previous: int | None, unix_time: float) -> int:
    """The `seq` of a new item: the Unix time, or one more than the previous one where that is later."""
    return min(max(0 if previous is None else previous + 1, int(unix_time)), SEQ_MAX)


def seal_record(suite: Suite, key: SigningKey, period: int, record: Record, seq: int) -> MutableItem:
    """The item of a record, sealed under a fresh nonce and signed with the blinded key of `key` (the identity's).

    Raises ValueError where the record does not fit (see `merge.fit`) or `seq` is out of range.
    """
    if not 0 <= seq <= SEQ_MAX:
        raise ValueError(f"seq {seq} is out of range")
    blinded = blinded_key(suite, key, period)
    nonce = suite.random(SEAL_NONCE_BYTES)
    plaintext = encode_record(record)
    sealed = suite.seal(seal_key(key.public, period), nonce, plaintext, _bound(blinded.public, seq))
    value = VALUE_HEAD + nonce + sealed
    return MutableItem(blinded.public, b"", seq, value, suite.sign(blinded, signing_buffer(b"", seq, value)))


def open_item(suite: Suite, public: bytes, period: int, item: MutableItem, unix_time: float) -> Record:
    """The record in an item found for the identity `public` (a valid identity key) in `period`.

    Devices are left out where the certificate is not the identity's or has ended, or the serial is
    revoked.  Whether an entry is still fresh is another question: `is_fresh`.  Raises BadPacket.
    """
    if item.public != blinded_public(suite, public, period):
        raise BadPacket("record key")
    if item.salt:
        raise BadPacket("record salt")
    if not 0 <= item.seq <= SEQ_MAX:
        raise BadPacket("record seq")
    if len(item.value) != VALUE_BYTES or not item.value.startswith(VALUE_HEAD):
        raise BadPacket("record size")
    if not suite.verify(item.public, signing_buffer(b"", item.seq, item.value), item.signature):
        raise BadPacket("record signature")
    nonce_end = len(VALUE_HEAD) + SEAL_NONCE_BYTES
    nonce, sealed = item.value[len(VALUE_HEAD) : nonce_end], item.value[nonce_end:]
    plaintext = suite.open(seal_key(public, period), nonce, sealed, _bound(item.public, item.seq))
    if plaintext is None:
        raise BadPacket("record seal")
    record = decode_record(plaintext)
    revoked = {revocation.serial for revocation in record.revoked}
    devices = tuple(
        device
        for device in record.devices
        if device.serial not in revoked and is_certified(suite, public, device, unix_time)
    )
    return replace(record, devices=devices)


def device_entry(certificate: Certificate) -> DeviceEntry:
    """The entry of a certified device, without any way to it yet; `dataclasses.replace` adds those."""
    return DeviceEntry(certificate.serial, certificate.static, certificate.expiry, certificate.signature)


def is_certified(suite: Suite, public: bytes, device: DeviceEntry, unix_time: float) -> bool:
    """Whether the identity has certified this device's key and serial, until a time that has not passed."""
    certificate = Certificate(device.static, device.serial, device.expiry, device.signature)
    return certificate.is_valid(suite, public, unix_time)


def is_fresh(device: DeviceEntry, unix_time: float) -> bool:
    """Whether the device has renewed its entry in time."""
    return unix_time < device.time + device.lifetime


def _bound(blinded: bytes, seq: int) -> bytes:
    """What is authenticated with the plaintext: where and as what it was published."""
    return blinded + seq.to_bytes(8, "big")
