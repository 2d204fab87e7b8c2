"""The resolver, fed by hand with good, forged, older, foreign and replayed items."""

from __future__ import annotations

from dataclasses import replace

import pytest

from meshcall.dht.events import GetFinished, Holder, ItemFound, PutFinished
from meshcall.dht.items import ImmutableItem, MutableItem, signing_buffer
from meshcall.errors import AddressError
from meshcall.record.blinding import blinded_key, blinded_public, record_target
from meshcall.record.events import RecordFound, RecordUpdated, ResolveFinished
from meshcall.record.resolver import RESOLVE_SECONDS_MAX, Resolver, callable_devices
from meshcall.record.seal import VALUE_BYTES, VALUE_HEAD, seal_record
from meshcall.wire.record import Record
from tests.record.record_world import NO_REPORT, NOON, OWNER, PERIOD, START, STRANGER, SUITE, device, where

HOLDERS = tuple(Holder(bytes([node]) * 20, where(node), b"token") for node in range(8))
SEQ = int(NOON)


def item(seq: int = SEQ, period: int = PERIOD, key=OWNER.key, record: Record | None = None) -> MutableItem:
    record = record or Record((replace(device(1), capabilities=seq % 65536),))
    return seal_record(SUITE, key, period, record, seq)


def junk(seq: int = SEQ) -> MutableItem:
    key = blinded_key(SUITE, OWNER.key, PERIOD)
    value = VALUE_HEAD + bytes(VALUE_BYTES - len(VALUE_HEAD))
    return MutableItem(key.public, b"", seq, value, SUITE.sign(key, signing_buffer(b"", seq, value)))


class Caller:
    def __init__(self, unix_time: float = NOON, **more) -> None:
        self.now = 50.0
        self.unix_time = unix_time
        self.resolver = Resolver(self.now, unix_time, public=OWNER.public, suite=SUITE, **more)
        self.requests = list(self.resolver.requests)
        self.resolver.requests.clear()

    def found(self, what: object, which: int = 0) -> list[object]:
        self.now += 0.1
        return self.give(ItemFound(7, what), which)

    def finished(self, what: object = None, which: int = 0, holders: tuple[Holder, ...] = HOLDERS) -> list[object]:
        self.now += 0.1
        return self.give(GetFinished(7, what, holders, NO_REPORT), which)

    def give(self, event: object, which: int = 0) -> list[object]:
        self.resolver.answered(self.now, self.unix_time, self.requests[which].tag, event)
        return self.drain()

    def drain(self) -> list[object]:
        events = list(self.resolver.events)
        self.resolver.events.clear()
        return events


def test_first_valid_record_at_once_then_newer_ones_then_the_end():
    caller = Caller()
    (request,) = caller.requests
    assert request.public == blinded_public(SUITE, OWNER.public, PERIOD)
    (event,) = caller.found(item())
    assert isinstance(event, RecordFound)
    assert (event.seq, event.period, event.seconds) == (SEQ, PERIOD, pytest.approx(0.1))
    assert event.record.devices[0].capabilities == SEQ % 65536
    (event,) = caller.found(item(SEQ + 1))
    assert isinstance(event, RecordUpdated) and event.seq == SEQ + 1
    assert not caller.resolver.finished
    (event,) = caller.finished(item(SEQ + 1))
    assert isinstance(event, ResolveFinished)
    assert (event.outcome, event.reason) == ("found", None)
    assert event.best.seq == SEQ + 1
    (lookup,) = event.lookups
    assert (lookup.period, lookup.answered, lookup.seq, lookup.invalid) == (PERIOD, 8, SEQ + 1, 0)
    assert lookup.target == record_target(SUITE, OWNER.public, PERIOD)
    assert caller.resolver.finished and caller.resolver.next_wake() is None


def test_only_the_end_has_it():
    caller = Caller()
    first, last = caller.finished(item())
    assert isinstance(first, RecordFound) and last.outcome == "found"


def test_older_and_repeated_items_change_nothing():
    caller = Caller()
    caller.found(item(SEQ + 5))
    assert caller.found(item(SEQ)) == []
    assert caller.found(item(SEQ + 5)) == []
    assert caller.resolver.counters == {"older record": 1}
    (end,) = caller.finished(item(SEQ))
    assert end.best.seq == SEQ + 5


@pytest.mark.parametrize(
    ("reason", "bad"),
    [
        ("record signature", replace(item(), signature=bytes(64))),
        ("record signature", replace(item(), seq=SEQ + 9)),
        ("record key", item(key=STRANGER.key)),
        ("record key", item(period=PERIOD - 1)),
        ("record seal", junk()),
        ("record salt", replace(item(), salt=b"s")),
        ("not a mutable item", ImmutableItem(b"1:x")),
    ],
)
def test_what_is_no_record_is_counted_and_passed_over(reason, bad):
    caller = Caller()
    assert caller.found(bad) == []
    assert caller.found(bad) == []
    assert caller.resolver.counters[reason] >= 1
    (event,) = caller.found(item())
    assert isinstance(event, RecordFound)
    (end,) = caller.finished(item())
    assert end.outcome == "found"


def test_only_junk():
    caller = Caller()
    caller.found(junk())
    (end,) = caller.finished(junk())
    assert (end.outcome, end.best) == ("invalid", None)
    assert end.lookups[0].invalid == 1
    assert "cannot be read" in end.reason


def test_a_forged_item_with_a_high_seq_does_not_hide_the_true_one():
    caller = Caller()
    caller.found(replace(item(), seq=SEQ + 1000))
    (event,) = caller.found(item())
    assert event.seq == SEQ


def test_yesterdays_record_replayed_today():
    caller = Caller(START + 1800)
    assert [request.public for request in caller.requests] == [
        blinded_public(SUITE, OWNER.public, period) for period in (PERIOD, PERIOD - 1)
    ]
    yesterday = item(SEQ - 40_000, PERIOD - 1)
    assert caller.found(yesterday, 0) == []
    assert caller.resolver.counters == {"record key": 1}
    (event,) = caller.found(yesterday, 1)
    assert isinstance(event, RecordFound) and event.period == PERIOD - 1


def test_both_periods_are_waited_for_and_the_newer_record_wins():
    caller = Caller(START + 1800)
    (event,) = caller.finished(item(SEQ, PERIOD), 0)
    assert isinstance(event, RecordFound)
    assert caller.found(item(SEQ - 10, PERIOD - 1), 1) == []
    event, end = caller.finished(item(SEQ + 10, PERIOD - 1), 1)
    assert isinstance(event, RecordUpdated) and event.period == PERIOD - 1
    assert [lookup.seq for lookup in end.lookups] == [SEQ, SEQ + 10]
    assert end.best.seq == SEQ + 10


def test_not_published():
    (end,) = Caller().finished()
    assert (end.outcome, end.best) == ("not published", None)
    assert "8 nodes" in end.reason


def test_nobody_answers():
    (end,) = Caller().finished(holders=())
    assert end.outcome == "no answer"


def test_time_runs_out():
    caller = Caller(START + 1800)
    caller.finished()
    assert caller.resolver.next_wake() == 50.0 + RESOLVE_SECONDS_MAX
    caller.resolver.wake(60.0, caller.unix_time)
    assert caller.drain() == []
    caller.resolver.wake(50.0 + RESOLVE_SECONDS_MAX, caller.unix_time)
    (end,) = caller.drain()
    assert end.outcome == "timeout"
    assert [lookup.report is None for lookup in end.lookups] == [False, True]
    assert caller.finished(item(), 1) == []
    assert caller.resolver.counters == {"answer too late": 1}


def test_time_runs_out_with_a_record_in_hand():
    caller = Caller(seconds_max=5.0)
    caller.found(item())
    caller.resolver.wake(55.0, caller.unix_time)
    (end,) = caller.drain()
    assert (end.outcome, end.reason) == ("found", None)


@pytest.mark.parametrize(
    "record", [Record(), Record((replace(device(1), time=int(NOON) - 20_000),)), Record((device(1, owner=STRANGER),))]
)
def test_nobody_to_call(record):
    caller = Caller()
    first, end = caller.finished(item(record=record))
    assert isinstance(first, RecordFound)
    assert end.outcome == "no device"
    assert end.best == first


def test_callable_devices_bear_a_wrong_clock():
    record = Record((replace(device(1), time=10_000, lifetime=1000),))
    assert callable_devices(record, 11_000 + 3599)
    assert not callable_devices(record, 11_000 + 3600)


def test_foreign_answers():
    caller = Caller()
    caller.give(PutFinished(1, 3, {}, NO_REPORT))
    caller.resolver.answered(caller.now, NOON, 55, ItemFound(1, item()))
    assert caller.resolver.counters == {"answer too late": 1}
    assert not caller.resolver.finished


def test_an_address_that_is_no_key():
    for bad in (bytes(32), b"\x01" + bytes(31), b"\xff" * 32, b"short"):
        with pytest.raises(AddressError, match="no valid key"):
            Resolver(0, NOON, public=bad, suite=SUITE)


def test_trace_is_asked_for():
    assert Caller(trace=True).requests[0].trace
    assert not Caller().requests[0].trace
