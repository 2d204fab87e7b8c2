"""Blinding and sealing, on the real cryptography."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.signing import VerifyKey

from meshcall.dht.items import SEQ_MAX, VALUE_BYTES_MAX, MutableItem, mutable_target, signing_buffer
from meshcall.errors import BadPacket
from meshcall.identity import Identity
from meshcall.record.blinding import blinded_key, blinded_public, blinding_factor, record_target, seal_key
from meshcall.record.seal import (
    VALUE_BYTES,
    VALUE_HEAD,
    device_entry,
    is_fresh,
    next_seq,
    open_item,
    seal_record,
)
from meshcall.wire.bencode import decode_untrusted, encode
from meshcall.wire.record import PLAINTEXT_BYTES, Record, Revocation
from tests.record.record_world import NOON, OWNER, PERIOD, STRANGER, SUITE, device, lease

RECORD = Record((replace(device(1), leases=(lease(1), lease(2, v6=True))), device(2)))
SEQ = int(NOON)


def sealed(record: Record = RECORD, period: int = PERIOD, seq: int = SEQ, key=OWNER.key) -> MutableItem:
    return seal_record(SUITE, key, period, record, seq)


def signed(period: int = PERIOD, seq: int = SEQ, value: bytes = b"1:x", salt: bytes = b"") -> MutableItem:
    """Anything at all, well signed."""
    key = blinded_key(SUITE, OWNER.key, period)
    return MutableItem(key.public, salt, seq, value, SUITE.sign(key, signing_buffer(salt, seq, value)))


def read(item: MutableItem, period: int = PERIOD, unix_time: float = NOON, public: bytes = OWNER.public) -> Record:
    return open_item(SUITE, public, period, item, unix_time)


def test_caller_and_callee_agree_on_the_blinded_key():
    for period in (0, 1, PERIOD, 2**40):
        key = blinded_key(SUITE, OWNER.key, period)
        assert key.public == blinded_public(SUITE, OWNER.public, period)
        assert SUITE.is_identity_key(key.public)
        VerifyKey(key.public).verify(b"message", SUITE.sign(key, b"message"))
        assert record_target(SUITE, OWNER.public, period) == mutable_target(key.public)


def test_periods_and_people_share_nothing():
    keys = [blinded_key(SUITE, who.key, period) for who in (OWNER, STRANGER) for period in range(20)]
    assert len({key.public for key in keys} | {OWNER.public, STRANGER.public}) == 42
    assert len({key.prefix for key in keys} | {OWNER.key.prefix, STRANGER.key.prefix}) == 42
    assert len({key.scalar for key in keys}) == 40
    seal_keys = {seal_key(who.public, period) for who in (OWNER, STRANGER) for period in range(20)}
    factors = {blinding_factor(who.public, period)[:32] for who in (OWNER, STRANGER) for period in range(20)}
    assert len(seal_keys | factors) == 80


def test_round_trip_and_size():
    item = sealed()
    assert read(item) == RECORD
    assert len(item.value) == VALUE_BYTES == len(sealed(Record()).value) <= VALUE_BYTES_MAX
    assert encode(decode_untrusted(item.value)) == item.value
    VerifyKey(item.public).verify(signing_buffer(b"", item.seq, item.value), item.signature)


def test_nothing_of_it_shows():
    one, two = sealed(), sealed()
    assert one.value != two.value
    for part in (OWNER.public, RECORD.devices[0].static, RECORD.devices[0].signature, lease(1).relay):
        assert part not in one.value
    assert b"\0\0\0" not in one.value


def test_answer_over_ipv6_is_not_fragmented():
    """8 contacts, value, key, signature, 20 bytes of token: within 1492 bytes of a DSL line."""
    reply = encode(
        {
            b"ip": bytes(18),
            b"r": {
                b"id": bytes(20), b"k": bytes(32), b"nodes6": bytes(8 * 38), b"seq": SEQ,
                b"sig": bytes(64), b"token": bytes(20), b"v": bytes(PLAINTEXT_BYTES + 40),
            },
            b"t": bytes(4), b"v": b"MC01", b"y": b"r",
        }
    )  # fmt: skip
    assert len(reply) + 40 + 8 <= 1492


def flip(data: bytes, at: int = -1) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


@pytest.mark.parametrize(
    ("reason", "item"),
    [
        ("record key", sealed(key=STRANGER.key)),
        ("record key", sealed(period=PERIOD + 1)),
        ("record key", replace(sealed(), public=OWNER.public)),
        ("record signature", replace(sealed(), signature=flip(sealed().signature))),
        ("record signature", replace(sealed(), signature=b"")),
        ("record signature", replace(sealed(), seq=SEQ + 1)),
        ("record signature", replace(sealed(), value=flip(sealed().value))),
        ("record salt", signed(salt=b"salt")),
        ("record seq", replace(sealed(), seq=-1)),
        ("record seq", replace(sealed(), seq=SEQ_MAX + 1)),
        ("record size", signed(value=b"1:x")),
        ("record size", signed(value=b"996:" + bytes(996))),
        ("record size", signed(value=b"l" + bytes(VALUE_BYTES - 2) + b"e")),
        ("record seal", signed(value=sealed().value, seq=SEQ + 1)),
        ("record seal", signed(value=flip(sealed().value))),
        ("record seal", signed(value=VALUE_HEAD + bytes(VALUE_BYTES - len(VALUE_HEAD)))),
        ("record seal", signed(period=PERIOD, value=sealed(period=PERIOD - 1).value)),
    ],
)
def test_refused(reason, item):
    with pytest.raises(BadPacket) as caught:
        read(item)
    assert caught.value.reason == reason


def test_well_sealed_nonsense_is_refused():
    key = blinded_key(SUITE, OWNER.key, PERIOD)
    nonce = SUITE.random(24)
    bound = key.public + SEQ.to_bytes(8, "big")
    inside = SUITE.seal(seal_key(OWNER.public, PERIOD), nonce, b"\x02" + bytes(PLAINTEXT_BYTES - 1), bound)
    with pytest.raises(BadPacket) as caught:
        read(signed(value=VALUE_HEAD + nonce + inside))
    assert caught.value.reason == "record version"


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=VALUE_BYTES, max_size=VALUE_BYTES), st.integers(-5, 2**63), st.binary(max_size=64))
def test_any_item(value, seq, signature):
    public = blinded_public(SUITE, OWNER.public, PERIOD)
    with pytest.raises(BadPacket):
        read(MutableItem(public, b"", seq, value, signature))


def test_devices_that_do_not_count():
    good = device(1)
    forged = replace(device(2), static=b"x" * 32)
    foreign = device(3, owner=STRANGER)
    ended = device(4, unix_time=NOON - 500 * 86400)
    revoked = device(5)
    record = Record((good, forged, foreign, ended, revoked), (Revocation(5, int(NOON) + 100),))
    assert read(sealed(record)).devices == (good,)
    assert read(sealed(record)).revoked == record.revoked
    assert read(sealed(record), unix_time=good.expiry) == replace(record, devices=())
    longer = replace(good, expiry=good.expiry + 1)
    assert read(sealed(Record((longer,)))).devices == ()


def test_capabilities_cannot_be_stripped():
    """Only the identity can sign another bit set; everybody else breaks the seal or the signature."""
    record = Record((replace(device(1), capabilities=1),))
    item = sealed(record)
    assert read(item).devices[0].capabilities == 1
    for at in range(len(VALUE_HEAD), VALUE_BYTES, 37):
        with pytest.raises(BadPacket):
            read(replace(item, value=flip(item.value, at)))


def test_fresh_while_renewed():
    entry = replace(device(1), time=1000, lifetime=500)
    assert is_fresh(entry, 1000) and is_fresh(entry, 1499.9) and is_fresh(entry, 0)
    assert not is_fresh(entry, 1500)


def test_seq_follows_the_clock_and_never_goes_back():
    assert next_seq(None, 1000.9) == 1000
    assert next_seq(500, 1000) == 1000
    assert next_seq(1000, 1000) == 1001
    assert next_seq(5000, 1000) == 5001
    assert next_seq(None, -5) == 0
    assert next_seq(SEQ_MAX, 5) == SEQ_MAX
    with pytest.raises(ValueError, match="seq"):
        sealed(seq=SEQ_MAX + 1)


def test_entry_of_a_certificate():
    from meshcall.identity import Device

    mine = Device.new(SUITE)
    certificate = mine.certify(SUITE, OWNER, NOON)
    entry = device_entry(certificate)
    assert (entry.serial, entry.static, entry.expiry) == (mine.serial, mine.public, certificate.expiry)
    assert read(sealed(Record((entry,)))).devices == (entry,)


def test_another_identity_cannot_even_look():
    other = Identity.new(SUITE)
    with pytest.raises(BadPacket, match="record key"):
        read(sealed(), public=other.public)
