"""Merging: one record for all devices of a person, each of which only speaks for itself.

A device takes the newest record it finds, puts its own entry in place of its former one, clears away
what has ended, and keeps the rest as it is, also what a later version has added.  Pure functions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from meshcall.record.seal import is_fresh
from meshcall.wire.record import (
    DEVICES_MAX,
    DIRECT_MAX,
    LEASES_MAX,
    PLAINTEXT_BYTES,
    REVOKED_MAX,
    DeviceEntry,
    Record,
    Revocation,
    encoded_size,
)


def merge(
    found: Record | None,
    own: DeviceEntry | None,
    unix_time: float,
    *,
    formerly: tuple[int, bytes] | None = None,
    revoked: Iterable[Revocation] = (),
) -> Record:
    """The record to publish in place of `found` (None: nothing was there), with `own` in it.

    `own` None withdraws this device; `formerly` is its `DeviceEntry.identity` then.  Others' entries stay
    unless they have ended or their serial is revoked, by `found` or by `revoked`.  Own entries are
    never left out, not even when too much is published: `fit` says what is.
    """
    found = found or Record()
    mine = own.identity if own else formerly
    revocations = merge_revoked((*found.revoked, *revoked), unix_time)
    barred = {revocation.serial for revocation in revocations}
    devices = [
        device
        for device in found.devices
        if device.identity != mine and device.serial not in barred and is_fresh(device, unix_time)
    ]
    if own and own.serial not in barred:
        devices.append(own)
    devices.sort(key=lambda device: device.identity)
    return fit(Record(tuple(devices), revocations, found.unknown), keep=mine)


def fit(record: Record, *, keep: tuple[int, bytes] | None = None) -> Record:
    """The record, or what of it fits into one of PLAINTEXT_BYTES with at most DEVICES_MAX devices.

    First each device is cut to LEASES_MAX and DIRECT_MAX.  Then are left out, one after the other, until it fits:
    1. whole devices above DEVICES_MAX, those with the oldest entry first;
    2. the last lease of the device that has most of them, while any has more than one;
    3. the last direct address (IPv6 before IPv4) of the device that has most, while any has more than one, or one
       beside a lease;
    4. fields of unknown type: the record's, then the devices', oldest entry first;
    5. whole devices, oldest entry first.
    Among equals the oldest entry gives way, then the highest serial; the device
    `keep` gives way last and is never left out.
    """
    order = sorted(map(_within_limits, record.devices), key=lambda device: (device.time, -device.serial, device.static))
    order = [device for device in order if device.identity != keep] + [d for d in order if d.identity == keep]
    unknown = record.unknown
    del order[: max(0, len(order) - DEVICES_MAX)]
    while encoded_size(made := _made(record, order, unknown)) > PLAINTEXT_BYTES:
        if (at := _most([len(d.leases) for d in order], least=2)) is not None:
            order[at] = replace(order[at], leases=order[at].leases[:-1])
        elif (at := _most([_spare_direct(device) for device in order], least=1)) is not None:
            order[at] = _less_direct(order[at])
        elif unknown:
            unknown = ()
        elif any(device.unknown for device in order):
            at = next(at for at, device in enumerate(order) if device.unknown)
            order[at] = replace(order[at], unknown=())
        else:
            del order[0]
    return made


def _within_limits(device: DeviceEntry) -> DeviceEntry:
    return replace(
        device,
        leases=device.leases[:LEASES_MAX],
        direct_v4=device.direct_v4[:DIRECT_MAX],
        direct_v6=device.direct_v6[:DIRECT_MAX],
    )


def _made(record: Record, devices: list[DeviceEntry], unknown: tuple[tuple[int, bytes], ...]) -> Record:
    return Record(tuple(sorted(devices, key=lambda device: device.identity)), record.revoked, unknown)


def _most(counts: list[int], *, least: int) -> int | None:
    """The first place of the highest count, if that is `least` or more."""
    highest = max(counts, default=0)
    return counts.index(highest) if highest >= least else None


def _spare_direct(device: DeviceEntry) -> int:
    """How many direct addresses it has, unless the only one is all there is to reach it by."""
    count = len(device.direct_v4) + len(device.direct_v6)
    return count if count > 1 or device.leases else 0


def _less_direct(device: DeviceEntry) -> DeviceEntry:
    if device.direct_v6:
        return replace(device, direct_v6=device.direct_v6[:-1])
    return replace(device, direct_v4=device.direct_v4[:-1])


def merge_revoked(revoked: Iterable[Revocation], unix_time: float) -> tuple[Revocation, ...]:
    """Each serial once with its latest end, without the ended ones; above REVOKED_MAX the first to end are left out."""
    latest: dict[int, int] = {}
    for revocation in revoked:
        latest[revocation.serial] = max(revocation.until, latest.get(revocation.serial, 0))
    live = [Revocation(serial, until) for serial, until in latest.items() if until > unix_time]
    live.sort(key=lambda revocation: (revocation.until, revocation.serial))
    return tuple(sorted(live[-REVOKED_MAX:]))
