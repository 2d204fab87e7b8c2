"""Whom a relay serves, in what order, and how much: its owner's settings, and who may come in at a given load.

Pure.  Two questions are answered here: may this device have a lease, may this lease have one more
flow.  What is already there is never asked: existing flows go on, whatever the load.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from meshcall.wire.relay import NEAR_BUDGET, NO_ROOM, NOT_SERVED, TOO_MANY

Mode = Literal["open", "list", "off"]

GUEST_LOAD_MAX = 0.75
"""Share of the budget up to which strangers get new leases and flows."""
MEMBER_LOAD_MAX = 0.92
"""The same for members, and for one more flow of a lease that already carries a call (its caller moved)."""
GUEST_LEASES_SHARE = 0.75
"""Share of the leases that strangers may hold where the relay has members."""


@dataclass(frozen=True, slots=True)
class RelayPolicy:
    """The settings.  Rates are of bytes on the wire, IP and UDP headers included, and of forwarded traffic only."""

    mode: Mode = "off"
    """"open": everybody; "list": `members` and `listed`; "off": nobody."""
    members: frozenset[bytes] = frozenset()
    """Identities (32-byte keys) that come first: the people of this home."""
    listed: frozenset[bytes] = frozenset()
    """Other identities served where the mode is "list"."""

    leases_max: int = 256
    leases_per_device_max: int = 4
    leases_per_identity_max: int = 12
    leases_per_source_max: int = 32
    """Leases of holders at one IP address (IPv6: one /64)."""
    lease_seconds: int = 1800

    flows_max: int = 2048
    flows_per_lease_max: int = 32
    flows_per_source_max: int = 48
    """Flows opened from one IP address (IPv6: one /64)."""

    bytes_per_second: int = 1_250_000
    """The uplink's budget: 10 Mbit/s, some 60 calls."""
    lease_bytes_per_second: int = 80_000
    """Both directions of all flows of a lease: four calls."""
    source_bytes_per_second: int = 80_000
    """What callers at one IP address send, over all leases."""
    packet_bytes_min: int = 100
    """A shorter packet costs as much; so bytes/s divided by this are the packets/s of the same limit."""

    def packets_per_second(self, bytes_per_second: int) -> int:
        """The limit in packets that a limit in bytes means."""
        return bytes_per_second // self.packet_bytes_min

    def serves(self, identity: bytes) -> bool:
        """Whether this identity may ask for a lease."""
        if self.mode == "open":
            return True
        return self.mode == "list" and (identity in self.members or identity in self.listed)

    def is_member(self, identity: bytes) -> bool:
        """Whether this identity comes first."""
        return identity in self.members


@dataclass(frozen=True, slots=True)
class LeaseCounts:
    """How many leases there are when one more is asked for."""

    total: int
    of_guests: int
    of_device: int
    of_identity: int
    of_source: int


def lease_refusal(policy: RelayPolicy, identity: bytes, counts: LeaseCounts, load: float) -> int | None:
    """Why this identity gets no lease now (a reason of `wire.relay`); None: it may have one.

    NO_ROOM for a member means that a guest has to make room.
    """
    if not policy.serves(identity):
        return NOT_SERVED
    if (
        counts.of_device >= policy.leases_per_device_max
        or counts.of_identity >= policy.leases_per_identity_max
        or counts.of_source >= policy.leases_per_source_max
    ):
        return TOO_MANY
    is_member = policy.is_member(identity)
    if load >= (MEMBER_LOAD_MAX if is_member else GUEST_LOAD_MAX):
        return NEAR_BUDGET
    guests_max = int(policy.leases_max * GUEST_LEASES_SHARE) if policy.members else policy.leases_max
    if counts.total >= policy.leases_max or (not is_member and counts.of_guests >= guests_max):
        return NO_ROOM
    return None


def takes_flow(policy: RelayPolicy, identity: bytes, has_call: bool, load: float) -> bool:
    """Whether a lease of this identity may have one more flow at this load."""
    return load < (MEMBER_LOAD_MAX if has_call or policy.is_member(identity) else GUEST_LOAD_MAX)
