"""The resolver: from an address to the newest record of its owner.  One object is one look-up.

A core without a network of its own, like the publisher (see `requests`).  It tells of the first valid
record at once and goes on until the DHT is done: who stops at the first value can be kept on an old one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from meshcall.dht.events import GetFinished, ItemFound
from meshcall.dht.items import MutableItem, mutable_target
from meshcall.errors import AddressError, BadPacket
from meshcall.record.blinding import blinded_public
from meshcall.record.events import PeriodLookup, RecordFound, RecordUpdated, ResolveFinished
from meshcall.record.period import CLOCK_TOLERANCE_SECONDS, periods_to_look_up
from meshcall.record.requests import Get
from meshcall.record.seal import is_fresh, open_item

if TYPE_CHECKING:
    from meshcall.crypto.suite import Suite
    from meshcall.dht.events import Report
    from meshcall.dht.items import Item
    from meshcall.record.events import ResolverEvent
    from meshcall.record.requests import Answer, Request
    from meshcall.wire.record import DeviceEntry, Record

RESOLVE_SECONDS_MAX = 30.0
"""A look-up ends after this with what there is; the DHT alone needs less, even with half of its nodes dead."""


@dataclass(slots=True)
class _Lookup:
    period: int
    public: bytes
    tag: int
    over: bool = False
    answered: int = 0
    seq: int | None = None
    invalid: int = 0
    last_invalid: MutableItem | None = None
    report: Report | None = None


class Resolver:
    """Looks up one address.  Its requests are there from the beginning, its last event is ResolveFinished."""

    def __init__(
        self,
        now: float,
        unix_time: float,
        *,
        public: bytes,
        suite: Suite,
        trace: bool = False,
        seconds_max: float = RESOLVE_SECONDS_MAX,
    ) -> None:
        """`public` is the identity key in the address; AddressError where it is none."""
        if not suite.is_identity_key(public):
            raise AddressError("this address holds no valid key; ask its owner to send it again")
        self.events: list[ResolverEvent] = []
        self.counters: dict[str, int] = {}
        self.best: RecordFound | RecordUpdated | None = None
        self.finished = False
        self._public = public
        self._suite = suite
        self._began = now
        self._ends = now + seconds_max
        self._lookups = [
            _Lookup(period, blinded_public(suite, public, period), tag)
            for tag, period in enumerate(periods_to_look_up(public, unix_time))
        ]
        self.requests: list[Request] = [Get(lookup.public, lookup.tag, trace) for lookup in self._lookups]

    def next_wake(self) -> float | None:
        """When `wake` wants to be called; None once the look-up is over."""
        return None if self.finished else self._ends

    def wake(self, now: float, unix_time: float) -> None:
        """End the look-up if its time is over."""
        if not self.finished and now >= self._ends:
            self._finish(now, unix_time)

    def answered(self, now: float, unix_time: float, tag: int, event: Answer) -> None:
        """Take an event of the operation that was started for the request of this tag."""
        lookup = next((lookup for lookup in self._lookups if lookup.tag == tag), None)
        if lookup is None or lookup.over or self.finished:
            self._count("answer too late")
        elif isinstance(event, ItemFound):
            self._take(lookup, now, unix_time, event.item)
        elif isinstance(event, GetFinished):
            self._take(lookup, now, unix_time, event.item)
            lookup.over = True
            lookup.answered = len(event.holders)
            lookup.report = event.report
            if all(each.over for each in self._lookups):
                self._finish(now, unix_time)

    def _take(self, lookup: _Lookup, now: float, unix_time: float, item: Item | None) -> None:
        if item is None or item == lookup.last_invalid:
            return
        if not isinstance(item, MutableItem):
            self._count("not a mutable item")
            return
        if lookup.seq is not None and item.seq <= lookup.seq:
            if item.seq < lookup.seq:
                self._count("older record")
            return
        try:
            record = open_item(self._suite, self._public, lookup.period, item, unix_time)
        except BadPacket as error:
            self._count(error.reason)
            lookup.invalid += 1
            lookup.last_invalid = item
            return
        lookup.seq = item.seq
        # In both periods seq follows the clock, so the higher one is the newer record there too.
        if self.best is not None and item.seq <= self.best.seq:
            self._count("older record")
            return
        kind = RecordFound if self.best is None else RecordUpdated
        self.best = kind(record, lookup.period, item.seq, now - self._began)
        self.events.append(self.best)

    def _finish(self, now: float, unix_time: float) -> None:
        self.finished = True
        lookups = tuple(
            PeriodLookup(each.period, mutable_target(each.public), each.answered, each.seq, each.invalid, each.report)
            for each in self._lookups
        )
        outcome, reason = self._outcome(lookups, unix_time)
        self.events.append(ResolveFinished(outcome, self.best, reason, lookups, now - self._began))

    def _outcome(self, lookups: tuple[PeriodLookup, ...], unix_time: float) -> tuple[str, str | None]:
        if self.best is not None:
            if callable_devices(self.best.record, unix_time):
                return "found", None
            return "no device", "The record was found, but it lists no device that is on the network now."
        if any(lookup.invalid for lookup in lookups):
            return "invalid", (
                "What is stored under this address cannot be read; its owner may run a version of meshcall "
                "that is newer than this one."
            )
        answered = sum(lookup.answered for lookup in lookups)
        if not all(lookup.report for lookup in lookups):
            return "timeout", f"The look-up came to no end within {self._ends - self._began:.0f} seconds; try again."
        if not answered:
            return "no answer", "No node of the DHT answered; is this machine on the network?"
        return "not published", (
            f"Nothing is published under this address now ({answered} nodes near its place answered): its owner "
            "has not been on the network in the last hours, or the clock here or there is wrong by hours."
        )

    def _count(self, what: str) -> None:
        self.counters[what] = self.counters.get(what, 0) + 1


def callable_devices(record: Record, unix_time: float) -> tuple[DeviceEntry, ...]:
    """The devices whose entry is fresh, allowing for a clock that is wrong by CLOCK_TOLERANCE_SECONDS."""
    return tuple(device for device in record.devices if is_fresh(device, unix_time - CLOCK_TOLERANCE_SECONDS))
