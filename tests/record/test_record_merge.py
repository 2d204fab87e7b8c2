"""Merging several devices into one record, and making it fit."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from meshcall.core import endpoint
from meshcall.record.merge import fit, merge, merge_revoked
from meshcall.wire.record import (
    DEVICES_MAX,
    DIRECT_MAX,
    LEASES_MAX,
    PLAINTEXT_BYTES,
    REVOKED_MAX,
    TIME_MAX,
    DeviceEntry,
    Record,
    Revocation,
    encode_record,
    encoded_size,
)
from tests.record.record_world import lease

NOW = 1_800_000_000


def entry(serial: int, leases: int = 0, direct: int = 0, direct_v6: int = 0, age: int = 0, **more) -> DeviceEntry:
    return DeviceEntry(
        serial, bytes([serial]) * 32, NOW + 10**7, b"s" * 64, NOW - age,
        leases=tuple(lease(number + 1) for number in range(leases)),
        direct_v4=tuple(endpoint("192.0.2.9", 1000 + number) for number in range(direct)),
        direct_v6=tuple(endpoint("2001:db8::9", 1000 + number) for number in range(direct_v6)),
        **more,
    )  # fmt: skip


def serials(record: Record) -> list[int]:
    return [device.serial for device in record.devices]


def test_first_device():
    assert merge(None, entry(3), NOW) == Record((entry(3),))


def test_own_is_replaced_and_others_are_kept():
    found = Record((entry(1, age=100), entry(2, 1, age=50), entry(4)), unknown=((9, b"later"),))
    merged = merge(found, entry(2, 2), NOW)
    assert merged == Record((entry(1, age=100), entry(2, 2), entry(4)), unknown=((9, b"later"),))


def test_order_follows_serial_and_key():
    twin = replace(entry(2), static=b"a" * 32)
    merged = merge(Record((entry(2), entry(7))), twin, NOW)
    assert merged.devices == (entry(2), twin, entry(7))


def test_ended_entries_go():
    found = Record((entry(1, age=10800), entry(2, age=10799), entry(3, age=700, lifetime=600)))
    assert serials(merge(found, entry(9), NOW)) == [2, 9]


def test_withdrawing():
    found = Record((entry(1), entry(2)))
    assert serials(merge(found, None, NOW, formerly=entry(2).identity)) == [1]
    assert merge(None, None, NOW, formerly=entry(2).identity) == Record()


def test_revoked_devices_go_and_stay_listed():
    until = NOW + 1000
    found = Record((entry(1), entry(2)), (Revocation(5, until),))
    merged = merge(found, entry(3), NOW, revoked=[Revocation(2, until)])
    assert serials(merged) == [1, 3]
    assert merged.revoked == (Revocation(2, until), Revocation(5, until))
    assert serials(merge(found, entry(5), NOW)) == [1, 2]
    assert serials(merge(merged, entry(5), until)) == [1, 3, 5]
    assert merge(merged, entry(5), until).revoked == ()


def test_revocations_are_bounded():
    many = [Revocation(n, NOW + 1000 - n) for n in range(1, 40)]
    kept = merge_revoked(many, NOW)
    assert [revocation.serial for revocation in kept] == list(range(1, REVOKED_MAX + 1))
    assert merge_revoked([Revocation(1, 5), Revocation(1, TIME_MAX), Revocation(1, 6)], 0) == (Revocation(1, TIME_MAX),)


def test_own_entry_within_limits():
    (device,) = merge(None, entry(1, 9, 9, 9), NOW).devices
    assert (len(device.leases), len(device.direct_v4), len(device.direct_v6)) == (LEASES_MAX, DIRECT_MAX, DIRECT_MAX)


def test_leases_go_first_and_evenly():
    merged = merge(Record(tuple(entry(n, 4, 1) for n in (1, 2, 3))), entry(4, 4, 1), NOW)
    assert [len(device.leases) for device in merged.devices] == [2, 1, 1, 2]
    merged = merge(Record((entry(1, 4, 1),)), entry(2, 4, 1), NOW)
    assert [len(device.leases) for device in merged.devices] == [4, 4]
    merged = merge(Record((entry(1, 4, age=9), entry(2, 4, age=5))), entry(3, 4), NOW)
    assert [len(device.leases) for device in merged.devices] == [3, 3, 3]
    merged = merge(Record((entry(1, 4, 4, age=9), entry(2, 4, 4, age=5))), entry(3, 4, 4), NOW)
    assert [len(device.leases) for device in merged.devices] == [2, 3, 3]


def test_then_addresses_where_there_is_a_lease():
    merged = merge(Record(tuple(entry(n, 1, 4, 4) for n in (1, 2, 3, 4))), entry(5, 1), NOW)
    assert serials(merged) == [1, 2, 3, 4, 5]
    assert all(len(device.leases) == 1 and not device.direct_v4 and not device.direct_v6 for device in merged.devices)
    merged = merge(Record(tuple(entry(n, 0, 4, 4) for n in (1, 2, 3, 4))), entry(5, 0, 4, 4), NOW)
    assert all(len(device.direct_v4) == 4 and len(device.direct_v6) < 4 for device in merged.devices)
    assert serials(merged) == [1, 2, 3, 4, 5]


def test_then_what_nobody_here_knows():
    found = Record((entry(1, 1, unknown=((9, bytes(90)),)), entry(2, 1)), unknown=((99, bytes(200)),))
    merged = merge(found, entry(3, 1), NOW)
    assert merged.unknown == found.unknown
    merged = merge(replace(found, devices=(*found.devices, entry(4, 1))), entry(3, 1), NOW)
    assert serials(merged) == [1, 2, 3, 4]
    assert not merged.unknown and merged.devices[0].unknown


def test_then_the_oldest_devices_but_never_the_own():
    others = tuple(entry(n, 1, age=100 - n) for n in range(1, 6))
    assert serials(merge(Record(others), entry(9, 1), NOW)) == [2, 3, 4, 5, 9]
    assert serials(merge(Record(others), entry(9, 1, age=5000), NOW)) == [2, 3, 4, 5, 9]
    many = tuple(entry(n, age=100 - n) for n in range(1, 10))
    assert serials(merge(Record(many), entry(20, age=3000), NOW)) == [5, 6, 7, 8, 9, 20]
    assert len(fit(Record(many)).devices) == DEVICES_MAX


entries = st.builds(
    entry,
    st.integers(1, 12),
    st.integers(0, 5),
    st.integers(0, 5),
    st.integers(0, 5),
    st.integers(0, 9000),
    unknown=st.just(()) | st.just(((9, bytes(60)),)),
)


@settings(deadline=None)
@given(st.lists(entries, unique_by=lambda one: one.serial), entries, st.integers(0, 700))
def test_always_fits_and_is_a_fixed_point(others, own, unknown_bytes):
    unknown = ((7, bytes(unknown_bytes)),) if unknown_bytes else ()
    found = Record(tuple(sorted(others, key=lambda one: one.identity)), unknown=unknown)
    merged = merge(found, own, NOW, revoked=[Revocation(n, NOW + n) for n in range(13, 40)])
    assert len(encode_record(merged)) == PLAINTEXT_BYTES
    assert own.serial in serials(merged)
    assert serials(merged) == sorted(serials(merged))
    mine = next(one for one in merged.devices if one.serial == own.serial)
    assert mine.leases or not own.leases
    assert fit(merged, keep=own.identity) == merged
    assert merge(Record(tuple(reversed(found.devices)), unknown=unknown), own, NOW, revoked=merged.revoked) == merged
    if encoded_size(found) + 200 < PLAINTEXT_BYTES // 2 and len(others) < DEVICES_MAX:
        kept = {one.serial for one in others} | {own.serial}
        assert set(serials(merged)) == kept
