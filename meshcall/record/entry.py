"""The entry of a device in the record of its owner."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshcall.core import ENDPOINT_V4_BYTES, Endpoint
from meshcall.wire.record import CAPABILITY_ML_KEM, DeviceEntry, RelayLease

if TYPE_CHECKING:
    from collections.abc import Iterable

    from meshcall.identity import Certificate, Device


def entry_of(
    device: Device,
    certificate: Certificate,
    leases: tuple[RelayLease, ...],
    outside: Iterable[Endpoint],
    *,
    offers_ml_kem: bool,
) -> DeviceEntry:
    """What the record says of a device; `outside`: its addresses, if its owner publishes them."""
    outside = tuple(outside)
    return DeviceEntry(
        serial=device.serial,
        static=device.public,
        expiry=certificate.expiry,
        signature=certificate.signature,
        leases=leases,
        capabilities=CAPABILITY_ML_KEM if offers_ml_kem else 0,
        direct_v4=tuple(where for where in outside if len(where) == ENDPOINT_V4_BYTES),
        direct_v6=tuple(where for where in outside if len(where) != ENDPOINT_V4_BYTES),
    )
