"""What a relay tells the one above it, and how it describes itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LeaseTaken:
    """A device has a place here now."""

    lease_id: bytes
    identity: bytes
    is_member: bool


@dataclass(frozen=True, slots=True)
class LeaseOver:
    """A lease is gone; `reason` is one of `wire.relay`, 0 where its holder gave it back."""

    lease_id: bytes
    reason: int


@dataclass(frozen=True, slots=True)
class Shedding:
    """The relay takes nobody new any more, or does again; `load` is the share of its budget in use."""

    begins: bool
    load: float


RelayEvent = LeaseTaken | LeaseOver | Shedding


@dataclass(frozen=True, slots=True)
class RelayStatus:
    """A snapshot."""

    mode: str
    leases: int
    member_leases: int
    flows: int
    established: int
    load: float
    """Share of the budget in use."""
    bytes_per_second_max: int
    is_squeezing: bool
    """Whether leases are held to a fair share, because together they want more than the budget."""
    counters: dict[str, int]
