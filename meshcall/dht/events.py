"""What a DHT node tells the one above it, and what it reports of an operation."""

from __future__ import annotations

from dataclasses import dataclass

from meshcall.core import Endpoint
from meshcall.dht.items import Item


@dataclass(frozen=True, slots=True)
class Holder:
    """A node that answered a look-up near its target and gave a token for writing there."""

    node_id: bytes
    endpoint: Endpoint
    token: bytes


@dataclass(frozen=True, slots=True)
class TraceStep:
    """One request of a look-up.  `outcome`: "answered", "value", "slow" (no answer yet, another
    was asked in its place), "late" (answered after that), "failed", "refused"."""

    sent: float
    """Seconds since the operation began."""
    took: float | None
    """Round trip in seconds; None without an answer."""
    endpoint: Endpoint
    node_id: bytes | None
    """None for a bootstrap address whose ID is not known yet."""
    shared_bits: int
    """Length of the prefix shared with the target."""
    outcome: str


@dataclass(frozen=True, slots=True)
class Report:
    """What an operation cost."""

    seconds: float
    requests: int
    answers: int
    hops: int
    """Longest chain of referrals behind an answer; 1 for nodes known beforehand."""
    steps: tuple[TraceStep, ...] = ()
    """Filled where a trace was asked for."""


@dataclass(frozen=True, slots=True)
class Joined:
    """The node has found its place: so many contacts answered."""

    contacts: int


@dataclass(frozen=True, slots=True)
class ItemFound:
    """A valid item, newer than any this operation has told of; the first comes as soon as there is one."""

    operation: int
    item: Item


@dataclass(frozen=True, slots=True)
class GetFinished:
    """The k closest nodes that answer have answered.  `item` is the newest valid one."""

    operation: int
    item: Item | None
    holders: tuple[Holder, ...]
    report: Report


@dataclass(frozen=True, slots=True)
class PutFinished:
    """`stored` nodes accepted; `errors` counts refusals by KRPC error code (0: no answer)."""

    operation: int
    stored: int
    errors: dict[int, int]
    report: Report


@dataclass(frozen=True, slots=True)
class PeersFound:
    """Endpoints announced under an info-hash, as one node listed them."""

    operation: int
    peers: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class PeersFinished:
    """The look-up for peers is over; `peers` are all that were found, without repeats."""

    operation: int
    peers: tuple[Endpoint, ...]
    holders: tuple[Holder, ...]
    report: Report


@dataclass(frozen=True, slots=True)
class OutsideChanged:
    """What the others see as our address changed; None: they do not agree (any more)."""

    family: int
    """4 or 6."""
    outside: Endpoint | None


@dataclass(frozen=True, slots=True)
class ReachableChanged:
    """Whether strangers can reach us unasked; decides about the read-only flag (BEP 43)."""

    reachable: bool


Event = Joined | ItemFound | GetFinished | PutFinished | PeersFound | PeersFinished | OutsideChanged | ReachableChanged
