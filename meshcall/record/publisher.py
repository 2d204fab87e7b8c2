"""The publisher: keeps one device's entry in its person's record, in every period that callers may ask for.

A core without a network of its own: `requests` go to the DHT, its events come back through `answered`
(see `requests`).  One publication is: get the newest item, open, merge, put where the get was answered,
and some seconds later read back.  Somebody else's write in between shows as a failed compare-and-swap,
or as a record without us in the read-back, and begins it anew.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING

from meshcall.dht.events import GetFinished, PutFinished
from meshcall.dht.items import MutableItem
from meshcall.errors import BadPacket, UsageError
from meshcall.record.blinding import blinded_public
from meshcall.record.events import PeriodStatus, PublisherStatus, PublishFailed, RecordConfirmed, RecordPublished
from meshcall.record.merge import merge, merge_revoked
from meshcall.record.period import next_change, period_end, period_start, periods_to_publish
from meshcall.record.requests import Get, Put
from meshcall.record.seal import next_seq, open_item, seal_record
from meshcall.wire.record import TIME_MAX, DeviceEntry, Record, Revocation, encode_record

if TYPE_CHECKING:
    from collections.abc import Iterable
    from random import Random

    from meshcall.crypto.suite import SigningKey, Suite
    from meshcall.dht.events import Holder
    from meshcall.dht.items import Item
    from meshcall.record.events import PublisherEvent
    from meshcall.record.requests import Answer, Request

REPUBLISH_SECONDS = 3600
"""Half of what nodes keep an item for without hearing of it again (BEP 44: two hours)."""
REPUBLISH_JITTER = 0.15
"""Each interval is shorter by up to this share, so that devices and periods do not move in step."""
CHANGE_DEBOUNCE_SECONDS = 0.5
"""Changes seldom come alone: one lease, then the next."""
CHANGE_SPACING_SECONDS = 5.0
"""Least time between two publications of a period for changes."""
STAGGER_SECONDS = 20.0
"""The neighbouring period follows the present one by up to this, so that nodes see no two puts at one time."""
READ_BACK_SECONDS = (5.0, 10.0)
"""When to read back after a put: at random between these."""
READ_BACK_REPAIRS_MAX = 2
"""How often an item that was stored, and is not found or not where it should be, is put again, more widely."""
THIN_NODES = 8
"""Stored on fewer nodes than this (the k of the Mainline), an item is thin: the network is small, or has just begun."""
THIN_SECONDS = 300
"""A thin item is put again after this: nodes that came since may be nearer to it, and be asked instead.  While it
stays thin, the pause is doubled each time."""
CONFLICTS_MAX = 6
"""Conflicts with another writer in one publication before it counts as failed."""
CONFLICT_BACKOFF_SECONDS = 0.5
CONFLICT_BACKOFF_SECONDS_MAX = 8.0
RETRY_SECONDS = 5.0
"""Pause after the first failed publication; doubled with each further one."""
RETRY_SECONDS_MAX = 600.0
OPERATION_SECONDS_MAX = 60.0
"""A get or put of which nothing was heard for so long is given up."""
CLOCK_CHECK_SECONDS = 300.0
"""Longest sleep: a calendar clock that was set meanwhile is noticed after this."""
CLOCK_STEP_SECONDS = 30.0
"""A difference between calendar and monotonic clock that counts as a step, in which entry times became wrong."""
LIFETIME_SECONDS_MIN = 600
"""An entry is renewed at half of its life, so a shorter one would be mere noise."""
HOLDERS_MAX = 64
"""Nodes that one put goes to."""

_CAS_MISMATCH, _SEQ_TOO_LOW = 301, 302  # BEP 44, "Errors"


class _Phase(Enum):
    WAITING = "waiting"
    READING = "reading"
    WRITING = "writing"
    SETTLING = "settling"
    CHECKING = "checking"


@dataclass(slots=True)
class _Slot:
    """The publication of one period."""

    period: int
    public: bytes
    due: float | None
    """When the phase ends by itself: next publication, read-back, or the operation given up."""
    phase: _Phase = _Phase.WAITING
    tag: int = -1
    """Of the request in hand; -1: none."""
    started: float = float("-inf")
    """When the latest publication began."""
    version: int = -1
    """Which version of the wishes the newest item put carries."""
    base_seq: int | None = None
    base: Record = field(default_factory=Record)
    """The newest content known: found or stored."""
    item: MutableItem | None = None
    """The newest item put."""
    content: Record = field(default_factory=Record)
    """What is in it; becomes the base once nodes have stored it."""
    entry_time: int = 0
    holders: tuple[Holder, ...] = ()
    stored: int = 0
    put_at: float | None = None
    confirmed: bool = False
    conflicts: int = 0
    """In this publication."""
    repairs: int = 0
    """Of the read-back in this publication."""
    thin: int = 0
    """Publications in a row that ended on few nodes."""
    failures: int = 0
    """Publications failed in a row."""
    failure: str | None = None


class Publisher:
    """Publishes one device of one identity.  `wake` and `next_wake` are those of a core, with the calendar beside."""

    def __init__(self, now: float, unix_time: float, *, key: SigningKey, suite: Suite, rng: Random) -> None:
        """`key` is the identity's.  Nothing is published before `set_entry`."""
        self.requests: list[Request] = []
        self.events: list[PublisherEvent] = []
        self.counters: dict[str, int] = {}
        self._key = key
        self._suite = suite
        self._rng = rng
        self._entry: DeviceEntry | None = None
        self._formerly: tuple[int, bytes] | None = None
        self._revoked: tuple[Revocation, ...] = ()
        self._version = 0
        self._slots: dict[int, _Slot] = {}
        self._last_tag = 0
        self._clock = (now, unix_time)
        self._look_again: float | None = None
        self.unheard_at: float | None = None
        """When a publication failed because nobody answered, and none has gone well since."""

    # Commands

    def set_entry(self, now: float, unix_time: float, entry: DeviceEntry | None) -> None:
        """What is to be published of this device from now on; None: withdraw it.

        Its `time` is set at each publication.  Raises UsageError where the entry cannot be encoded.
        """
        entry = replace(entry, time=0) if entry else None
        if entry:
            if entry.lifetime < LIFETIME_SECONDS_MIN:
                raise UsageError(f"a device entry must live {LIFETIME_SECONDS_MIN} seconds or longer")
            try:
                encode_record(Record((entry,)))
            except ValueError as error:
                raise UsageError(f"this device entry cannot be published: {error}") from None
        if entry != self._entry:
            self._formerly = self._entry.identity if self._entry and not entry else None
            self._entry = entry
            self._changed(now)
        self._follow_clock(now, unix_time)

    def set_revoked(self, now: float, unix_time: float, revoked: Iterable[Revocation]) -> None:
        """Serials that are not to be talked to any more, in addition to those known already."""
        if self._learn_revoked(revoked, unix_time):
            self._changed(now)
        self._follow_clock(now, unix_time)

    def publish_now(self, now: float, unix_time: float) -> None:
        """Publish everything at once: the network is back or another one.  Operations in hand are given up."""
        self.unheard_at = None
        self._follow_clock(now, unix_time)
        for place, slot in enumerate(self._slots.values()):
            slot.failures = slot.thin = 0
            self._wait(slot, now if place == 0 else now + self._rng.uniform(0, STAGGER_SECONDS))

    @property
    def revoked(self) -> tuple[Revocation, ...]:
        """All revocations known, those found in records of other devices too; worth keeping over a restart."""
        return self._revoked

    @property
    def up_to_date(self) -> bool:
        """Whether the newest item of each period says what was last asked for."""
        return all(slot.version == self._version for slot in self._slots.values())

    def status(self, now: float, unix_time: float) -> PublisherStatus:
        """How things stand; `unix_time` is used for nothing but the order of the periods."""
        present = periods_to_publish(self._key.public, unix_time)[0]
        slots = sorted(self._slots.values(), key=lambda slot: (slot.period != present, slot.period))
        serial = self._entry.serial if self._entry else None
        return PublisherStatus(
            tuple(self._period_status(slot, now) for slot in slots),
            self.up_to_date,
            any(revocation.serial == serial for revocation in self._revoked),
        )

    # Time

    def next_wake(self) -> float | None:
        """When `wake` wants to be called, in the seconds of `now`; None: nothing is to be published."""
        times = [slot.due for slot in self._slots.values() if slot.due is not None]
        if self._look_again is not None:
            times.append(self._look_again)
        return min(times, default=None)

    def wake(self, now: float, unix_time: float) -> None:
        """Do what time has made due; early or late is harmless."""
        self._follow_clock(now, unix_time)
        for slot in self._slots.values():
            if slot.due is None or slot.due > now:
                continue
            if slot.phase is _Phase.WAITING:
                self._begin(slot, now)
            elif slot.phase is _Phase.SETTLING:
                self._get(slot, _Phase.CHECKING, now)
            else:
                self._count("operation given up")
                self._fail(slot, now, "the DHT gave no result in time")

    # Answers of the DHT

    def answered(self, now: float, unix_time: float, tag: int, event: Answer) -> None:
        """Take an event of the operation that was started for the request of this tag."""
        self._follow_clock(now, unix_time)
        slot = next((slot for slot in self._slots.values() if slot.tag == tag), None)
        if slot is None:
            self._count("answer too late")
        elif isinstance(event, GetFinished) and slot.phase is _Phase.READING:
            self._read(slot, now, unix_time, event)
        elif isinstance(event, GetFinished) and slot.phase is _Phase.CHECKING:
            self._checked(slot, now, unix_time, event)
        elif isinstance(event, PutFinished) and slot.phase is _Phase.WRITING:
            self._written(slot, now, event)

    def _read(self, slot: _Slot, now: float, unix_time: float, event: GetFinished) -> None:
        if not event.holders:
            self._fail(slot, now, "no node of the DHT answered", unheard=True)
            return
        slot.holders = event.holders
        found = self._take(slot, unix_time, event.item)
        if self._entry is None and self._lists_us(slot):  # withdrawn, and already gone
            slot.version = self._version
            self._rest(slot, now)
        else:
            self._write(slot, now, unix_time, found)

    def _checked(self, slot: _Slot, now: float, unix_time: float, event: GetFinished) -> None:
        assert slot.item is not None
        found = self._take(slot, unix_time, event.item)
        if found is None or found < slot.item.seq:
            self._count("not read back")
            slot.repairs += 1
            if slot.repairs > READ_BACK_REPAIRS_MAX:
                self._fail(slot, now, "nodes stored the record, but it is not found there")
                return
            slot.holders = _union(event.holders, slot.holders)
            self._put(slot, now, slot.item, cas=None)
        elif found == slot.item.seq and self._is_misplaced(slot, event) and slot.repairs < READ_BACK_REPAIRS_MAX:
            self._count("widened")
            slot.repairs += 1
            slot.holders = _union(event.holders, slot.holders)
            self._put(slot, now, slot.item, cas=None)
        elif self._lists_us(slot):
            slot.confirmed = True
            slot.failure = None
            slot.failures = 0
            self.events.append(RecordConfirmed(slot.period, found))
            self._rest(slot, now)
        elif event.holders:
            slot.holders = event.holders
            self._conflict(slot, now, "overwritten")
        else:
            self._fail(slot, now, "no node of the DHT answered", unheard=True)

    def _written(self, slot: _Slot, now: float, event: PutFinished) -> None:
        assert slot.item is not None
        refused = event.errors.get(_CAS_MISMATCH, 0) + event.errors.get(_SEQ_TOO_LOW, 0)
        # A few nodes that hold an older item, or lie, may always refuse: only where most do has somebody else written.
        if refused and refused >= event.stored:
            self._conflict(slot, now, "cas refused")
        elif not event.stored:
            self._fail(slot, now, "no node stored the record")
        else:
            slot.base_seq, slot.base = slot.item.seq, slot.content
            slot.stored = event.stored
            slot.put_at = now
            slot.confirmed = False
            self.unheard_at = None
            self.events.append(RecordPublished(slot.period, slot.item.seq, event.stored))
            if slot.version == self._version:
                slot.tag = -1
                slot.phase = _Phase.SETTLING
                slot.due = now + self._rng.uniform(*READ_BACK_SECONDS)
            else:  # another change came while we wrote
                self._wait(slot, self._change_due(slot, now))

    def _conflict(self, slot: _Slot, now: float, kind: str) -> None:
        """Somebody else wrote: get anew and merge, after a pause that differs between the two of us."""
        self._count(kind)
        slot.conflicts += 1
        slot.version = -1
        if slot.conflicts > CONFLICTS_MAX:
            self._fail(slot, now, "other devices of this identity write at the same time, again and again")
            return
        pause = min(CONFLICT_BACKOFF_SECONDS_MAX, CONFLICT_BACKOFF_SECONDS * 2 ** (slot.conflicts - 1))
        self._wait(slot, now + pause * self._rng.uniform(0.2, 1.0), anew=False)

    # The steps of a publication

    def _begin(self, slot: _Slot, now: float) -> None:
        slot.started = now
        self._get(slot, _Phase.READING, now)

    def _get(self, slot: _Slot, phase: _Phase, now: float) -> None:
        slot.phase = phase
        slot.tag = self._new_tag()
        slot.due = now + OPERATION_SECONDS_MAX
        self.requests.append(Get(slot.public, slot.tag))

    def _write(self, slot: _Slot, now: float, unix_time: float, found: int | None) -> None:
        """Merge into the newest content known and put it; `found`: the seq of the item that the get found."""
        slot.entry_time = min(max(0, int(unix_time)), TIME_MAX)
        own = replace(self._entry, time=slot.entry_time) if self._entry else None
        record = merge(slot.base, own, unix_time, formerly=self._formerly, revoked=self._revoked)
        item = seal_record(self._suite, self._key, slot.period, record, next_seq(slot.base_seq, unix_time))
        # Nodes with an item older than the newest refuse by cas too.  So when the nodes refused and yet nothing newer
        # than our own was found, we write without it: seq still keeps a newer one from being overwritten.
        ours = slot.item is not None and slot.item.seq == found
        cas = None if found != slot.base_seq or (slot.conflicts and ours) else found
        slot.content = record
        slot.version = self._version
        self._put(slot, now, item, cas)

    def _put(self, slot: _Slot, now: float, item: MutableItem, cas: int | None) -> None:
        slot.item = item
        slot.phase = _Phase.WRITING
        slot.tag = self._new_tag()
        slot.due = now + OPERATION_SECONDS_MAX
        self.requests.append(Put(item, cas, slot.holders[:HOLDERS_MAX], slot.tag))

    def _take(self, slot: _Slot, unix_time: float, item: Item | None) -> int | None:
        """The seq of a found item; its content becomes the base unless we know of a newer one."""
        if not isinstance(item, MutableItem) or item.public != slot.public:
            return None
        try:
            record = open_item(self._suite, self._key.public, slot.period, item, unix_time)
        except BadPacket as error:
            self._count(error.reason)
            if error.reason == "record signature":
                return None
            # Signed by us and yet not readable: another program of ours.  We keep what we know and write a higher seq.
            own = self._entry.identity if self._entry else self._formerly
            record = replace(slot.base, devices=tuple(d for d in slot.base.devices if d.identity != own))
        else:
            self._learn_revoked(record.revoked, unix_time)
        if slot.base_seq is None or item.seq >= slot.base_seq:
            slot.base_seq, slot.base = item.seq, record
        return item.seq

    def _is_misplaced(self, slot: _Slot, event: GetFinished) -> bool:
        """Whether most of those who are nearest now were not written to: the network has grown around us."""
        written = {holder.endpoint for holder in slot.holders[:HOLDERS_MAX]}
        strangers = sum(holder.endpoint not in written for holder in event.holders)
        return 2 * strangers > len(event.holders)

    def _lists_us(self, slot: _Slot) -> bool:
        """Whether the newest content says of us what we last wrote (perhaps cut shorter by another device)."""
        times = {device.identity: device.time for device in slot.base.devices}
        if self._entry is None:
            return self._formerly not in times
        if any(revocation.serial == self._entry.serial for revocation in self._revoked):
            return True
        return times.get(self._entry.identity, -1) >= slot.entry_time

    # Waiting

    def _rest(self, slot: _Slot, now: float) -> None:
        """A publication went well: wait for the next."""
        if slot.version != self._version:
            self._wait(slot, self._change_due(slot, now))
        elif self._entry is None:
            self._wait(slot, None)
            if all(each.due is None for each in self._slots.values()):  # withdrawn everywhere
                self._formerly = None
                self._slots = {}
        else:
            interval = min(REPUBLISH_SECONDS, self._entry.lifetime / 2)
            if slot.stored < THIN_NODES:
                interval = min(interval, THIN_SECONDS * 2.0 ** min(slot.thin, 16))
                slot.thin += 1
            else:
                slot.thin = 0
            put_at = now if slot.put_at is None else slot.put_at
            self._wait(slot, put_at + interval * self._rng.uniform(1 - REPUBLISH_JITTER, 1))

    def _fail(self, slot: _Slot, now: float, reason: str, *, unheard: bool = False) -> None:
        self._count("publication failed")
        pause = min(RETRY_SECONDS_MAX, RETRY_SECONDS * 2.0 ** min(slot.failures, 16)) * self._rng.uniform(0.5, 1.0)
        slot.failures += 1
        slot.failure = reason
        slot.version = -1
        self.unheard_at = now if unheard else self.unheard_at
        self.events.append(PublishFailed(slot.period, reason, pause, unheard))
        self._wait(slot, now + pause)

    def _wait(self, slot: _Slot, until: float | None, *, anew: bool = True) -> None:
        slot.phase = _Phase.WAITING
        slot.tag = -1
        slot.due = until
        if anew:
            slot.conflicts = slot.repairs = 0

    def _changed(self, now: float) -> None:
        """There is something new to publish."""
        self._version += 1
        for place, slot in enumerate(self._slots.values()):
            if slot.phase in (_Phase.WAITING, _Phase.SETTLING):
                due = self._change_due(slot, now) + (self._rng.uniform(0, STAGGER_SECONDS) if place else 0)
                self._wait(slot, due if slot.due is None or slot.phase is _Phase.SETTLING else min(due, slot.due))

    def _change_due(self, slot: _Slot, now: float) -> float:
        return max(now + CHANGE_DEBOUNCE_SECONDS, slot.started + CHANGE_SPACING_SECONDS)

    def _follow_clock(self, now: float, unix_time: float) -> None:
        """Begin and end periods by the calendar as it is now, whatever it was before."""
        step = (unix_time - self._clock[1]) - (now - self._clock[0])
        self._clock = (now, unix_time)
        if self._entry is None and self._formerly is None:
            self._look_again = None
            return
        public = self._key.public
        before, self._slots = self._slots, {}
        for period in periods_to_publish(public, unix_time):
            if period in before:
                self._slots[period] = before[period]
            elif self._entry:
                self._slots[period] = self._new_slot(period, now, at_once=not self._slots)
        if self._entry is None and not self._slots:
            self._formerly = None
        if abs(step) > CLOCK_STEP_SECONDS:
            self._count("clock step")
            self._changed(now)  # the times in our entries are wrong
        self._look_again = now + min(CLOCK_CHECK_SECONDS, next_change(public, unix_time) - unix_time)

    def _new_slot(self, period: int, now: float, at_once: bool) -> _Slot:
        public = blinded_public(self._suite, self._key.public, period)
        return _Slot(
            period, public, now + (CHANGE_DEBOUNCE_SECONDS if at_once else self._rng.uniform(0, STAGGER_SECONDS))
        )

    # Small things

    def _learn_revoked(self, revoked: Iterable[Revocation], unix_time: float) -> bool:
        before = self._revoked
        self._revoked = merge_revoked((*before, *revoked), unix_time)
        return self._revoked != before

    def _new_tag(self) -> int:
        self._last_tag += 1
        return self._last_tag

    def _count(self, what: str) -> None:
        self.counters[what] = self.counters.get(what, 0) + 1

    def _period_status(self, slot: _Slot, now: float) -> PeriodStatus:
        public = self._key.public
        return PeriodStatus(
            slot.period,
            period_start(public, slot.period),
            period_end(public, slot.period),
            slot.phase.value,
            slot.item.seq if slot.item and slot.put_at is not None else None,
            slot.stored,
            len(slot.base.devices),
            slot.confirmed,
            None if slot.put_at is None else now - slot.put_at,
            None if slot.due is None else max(0.0, slot.due - now),
            slot.failure,
        )


def _union(nearer: tuple[Holder, ...], others: tuple[Holder, ...]) -> tuple[Holder, ...]:
    """Each node once, with the token that came last."""
    seen = {holder.endpoint for holder in nearer}
    return nearer + tuple(holder for holder in others if holder.endpoint not in seen)
