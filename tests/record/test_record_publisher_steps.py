"""The publisher's single steps, with answers given by hand: what it asks, with which `cas`, and of whom."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from meshcall.dht.events import GetFinished, Holder, PutFinished
from meshcall.dht.items import MutableItem
from meshcall.record.publisher import HOLDERS_MAX, Publisher
from meshcall.record.requests import Get, Put
from meshcall.record.seal import open_item, seal_record
from meshcall.wire.record import Record
from tests.record.record_world import NO_REPORT, NOON, OWNER, PERIOD, SUITE, device, where

SEQ = int(NOON) - 100


def holders(*nodes: int) -> tuple[Holder, ...]:
    return tuple(Holder(bytes([node]) * 20, where(node), b"token") for node in nodes)


def theirs(*serials: int, seq: int = SEQ) -> MutableItem:
    """What other devices have published."""
    return seal_record(SUITE, OWNER.key, PERIOD, Record(tuple(device(serial) for serial in serials)), seq)


class Hand:
    def __init__(self) -> None:
        self.now = 0.0
        self.publisher = Publisher(0.0, NOON, key=OWNER.key, suite=SUITE, rng=Random(1))
        self.publisher.set_entry(0.0, NOON, device(1))

    def request(self) -> Get | Put:
        """What it asks next; time passes until it does."""
        while not self.publisher.requests:
            self.now = max(self.now, self.publisher.next_wake())
            self.publisher.wake(self.now, NOON + self.now)
        (request,) = self.publisher.requests
        self.publisher.requests.clear()
        return request

    def answer(self, event: GetFinished | PutFinished, tag: int) -> None:
        self.publisher.answered(self.now, NOON + self.now, tag, event)

    def get(self, item: MutableItem | None = None, *nodes: int) -> None:
        request = self.request()
        assert isinstance(request, Get)
        self.answer(GetFinished(0, item, holders(*(nodes or range(8))), NO_REPORT), request.tag)

    def put(self, stored: int = 8, **errors: int) -> Put:
        """The put it asks for, after it was answered so."""
        request = self.request()
        assert isinstance(request, Put)
        codes = {int(code.removeprefix("e")): count for code, count in errors.items()}
        self.answer(PutFinished(0, stored, codes, NO_REPORT), request.tag)
        return request


def serials(put: Put) -> list[int]:
    return [entry.serial for entry in open_item(SUITE, OWNER.public, PERIOD, put.item, NOON).devices]


def test_nothing_there():
    hand = Hand()
    hand.get()
    put = hand.put()
    assert put.cas is None
    assert put.holders == holders(*range(8))
    assert serials(put) == [1]


def test_something_there_is_replaced_by_cas():
    hand = Hand()
    hand.get(theirs(2, 3))
    put = hand.put()
    assert put.cas == SEQ
    assert put.item.seq > SEQ
    assert serials(put) == [1, 2, 3]


def test_refused_by_cas_takes_the_new_item_in():
    hand = Hand()
    hand.get(theirs(2))
    hand.put(1, e301=7)
    hand.get(theirs(2, 3, seq=SEQ + 50))
    put = hand.put()
    assert put.cas == SEQ + 50
    assert serials(put) == [1, 2, 3]


def test_refused_with_a_lower_seq_found_afterwards():
    """The other's clock is behind ours: its item has a lower seq than the one that we failed to store."""
    hand = Hand()
    hand.get(theirs(2))
    failed = hand.put(0, e301=8)
    later = theirs(2, 3, seq=SEQ + 1)
    assert later.seq < failed.item.seq
    hand.get(later)
    put = hand.put()
    assert put.cas == SEQ + 1
    assert serials(put) == [1, 2, 3]


def test_nodes_with_older_items_are_written_without_cas():
    hand = Hand()
    hand.get(theirs(2))
    first = hand.put(3, e301=5)
    hand.get(first.item)
    put = hand.put()
    assert put.cas is None
    assert put.item.seq == first.item.seq + 1
    assert serials(put) == [1, 2]


def test_few_refusals_do_not_matter():
    hand = Hand()
    hand.get(theirs(2))
    hand.put(5, e301=3)
    assert hand.publisher.up_to_date


def test_overwritten_by_another_device():
    hand = Hand()
    hand.get()
    put = hand.put()
    lost = theirs(2, seq=put.item.seq + 7)
    hand.get(lost)
    hand.get(lost)
    again = hand.put()
    assert again.cas == lost.seq
    assert serials(again) == [1, 2]


def test_not_read_back_is_written_to_more_nodes():
    hand = Hand()
    hand.get(None, 0, 1, 2)
    first = hand.put(3)
    hand.get(None, 2, 3, 4)
    wider = hand.put()
    assert wider.item == first.item
    assert wider.cas is None
    assert wider.holders == holders(2, 3, 4, 0, 1)


def test_others_are_remembered_when_the_network_forgets():
    hand = Hand()
    hand.get(theirs(2))
    put = hand.put()
    hand.get(put.item)
    hand.get(None)
    again = hand.put()
    assert again.cas is None
    assert again.item.seq > put.item.seq
    assert serials(again) == [1, 2]


def test_an_older_item_does_not_bring_back_the_old_days():
    hand = Hand()
    hand.get(theirs(2))
    put = hand.put()
    hand.get(put.item)
    hand.get(theirs(4, seq=SEQ - 10))
    again = hand.put()
    assert again.cas is None
    assert serials(again) == [1, 2]


def test_an_entry_cut_short_by_another_device_is_not_fought_over():
    hand = Hand()
    hand.get()
    put = hand.put()
    (mine,) = open_item(SUITE, OWNER.public, PERIOD, put.item, NOON).devices
    cut = seal_record(SUITE, OWNER.key, PERIOD, Record((replace(mine, capabilities=9), device(2))), put.item.seq + 1)
    hand.get(cut)
    assert hand.publisher.status(hand.now, NOON + hand.now).periods[0].confirmed


def test_one_put_goes_to_a_bounded_number_of_nodes():
    hand = Hand()
    hand.get(None, *range(200))
    assert len(hand.put().holders) == HOLDERS_MAX
