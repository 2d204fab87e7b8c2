"""What publisher and resolver tell the one above them, and how the publisher says that things stand."""

from __future__ import annotations

from dataclasses import dataclass

from meshcall.dht.events import Report
from meshcall.wire.record import Record


@dataclass(frozen=True, slots=True)
class RecordPublished:
    """The record of a period is stored on so many nodes."""

    period: int
    seq: int
    stored: int


@dataclass(frozen=True, slots=True)
class RecordConfirmed:
    """A fresh look-up has found the record with this device in it."""

    period: int
    seq: int


@dataclass(frozen=True, slots=True)
class PublishFailed:
    """A publication failed, for this reason; the next attempt follows in so many seconds."""

    period: int
    reason: str
    retry_seconds: float
    unheard: bool = False
    """No node answered at all: a sign of life from the network is reason enough to try again at once."""


PublisherEvent = RecordPublished | RecordConfirmed | PublishFailed


@dataclass(frozen=True, slots=True)
class PeriodStatus:
    """How the record of one period stands."""

    period: int
    starts: int
    ends: int
    """Unix seconds."""
    state: str
    """"waiting", "reading", "writing", "settling" (until the read-back) or "checking"."""
    seq: int | None
    """Of the newest item put; None: none yet."""
    stored: int
    """Nodes that took it."""
    devices: int
    """Devices listed in it."""
    confirmed: bool
    """Whether it was found again since."""
    published_seconds: float | None
    """How long ago it was put."""
    next_seconds: float | None
    """In how long something is done for it again; None: nothing to do."""
    failure: str | None
    """Why the latest publication failed; None where it did not."""


@dataclass(frozen=True, slots=True)
class PublisherStatus:
    """The present period first."""

    periods: tuple[PeriodStatus, ...]
    up_to_date: bool
    """Whether each period's newest item says what was last asked for."""
    revoked: bool
    """Whether this device's own serial is revoked: its entry is not published then."""


@dataclass(frozen=True, slots=True)
class RecordFound:
    """The first valid record of a look-up, as soon as there is one."""

    record: Record
    period: int
    seq: int
    seconds: float
    """Since the look-up began."""


@dataclass(frozen=True, slots=True)
class RecordUpdated:
    """A newer record than the one told of before."""

    record: Record
    period: int
    seq: int
    seconds: float


@dataclass(frozen=True, slots=True)
class PeriodLookup:
    """What asking for one period brought."""

    period: int
    target: bytes
    """Where in the DHT it was asked for: 20 bytes."""
    answered: int
    """Nodes near the target that answered."""
    seq: int | None
    """Of the newest valid record; None: there was none."""
    invalid: int
    """Items found that were no valid record."""
    report: Report | None
    """What the DHT says of the operation; None: it came to no end in time."""


@dataclass(frozen=True, slots=True)
class ResolveFinished:
    """The look-up is over."""

    outcome: str
    """"found", "no device" (a record, but nobody to call in it), "not published", "invalid", "no answer", "timeout"."""
    best: RecordFound | RecordUpdated | None
    """The newest valid record."""
    reason: str | None
    """A sentence for the user; None where the outcome is "found"."""
    lookups: tuple[PeriodLookup, ...]
    """One for each period that was asked for, the present one first."""
    seconds: float


ResolverEvent = RecordFound | RecordUpdated | ResolveFinished
