"""One attempt to reach a person: every device its record lists is dialled, along every path it names.

The first device that answers wins.  Which paths a caller may use is decided here, from values.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from meshcall.core import ENDPOINT_V4_BYTES, Endpoint
from meshcall.path.candidates import is_nonsense
from meshcall.path.paths import Path, direct, relayed

if TYPE_CHECKING:
    from meshcall.path.candidates import Trust
    from meshcall.wire.record import DeviceEntry


@dataclass(slots=True)
class Reach:
    """What is kept while one is tried."""

    number: int
    identity: bytes
    trust: Trust
    relayed_only: bool
    dials: dict[bytes, int] = field(default_factory=dict)
    """By static key: the link to be."""
    began: dict[int, float] = field(default_factory=dict)
    """By link to be: when it was first dialled."""
    is_final: bool = False
    """No newer record will come."""
    reason: str = "its record names no relay and no address by which it can be reached"


def paths_of(entry: DeviceEntry, families: tuple[int, ...], *, relayed_only: bool) -> list[Path]:
    """The ways to a device that its record names: relays first, then addresses, which show ours to the callee."""
    found: list[Path] = []
    for lease in entry.leases:
        for where in (lease.v4, lease.v6):
            if where is None or not _usable(where, families):
                continue
            if lease.udp:
                found.append(relayed(where, lease.lease_id))
    if not relayed_only:
        found += [direct(where) for where in (*entry.direct_v4, *entry.direct_v6) if _usable(where, families)]
    return found


def _usable(where: Endpoint, families: tuple[int, ...]) -> bool:
    return (4 if len(where) == ENDPOINT_V4_BYTES else 6) in families and not is_nonsense(where)
