"""The gateway: what it does for whom, how much of it, and what it makes of hostile messages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcall.core import endpoint
from meshcall.detour import gateway as module
from meshcall.detour.gateway import Gateway
from meshcall.dht.events import GetFinished, Holder, ItemFound, PeersFinished, PutFinished, Report
from meshcall.dht.items import ImmutableItem, MutableItem
from meshcall.relay.discovery import info_hash
from meshcall.relay.places import Place, tcp_place, udp_place
from meshcall.wire import detour as wire

KEY = bytes(range(32))
REPORT = Report(1.0, 5, 5, 2)
HOLDERS = tuple(Holder(bytes(20), endpoint("192.0.2.9", 1000 + n), b"token") for n in range(8))


def place(number: int, connection: int = 1) -> Place:
    return tcp_place(endpoint(f"203.0.{number >> 8}.{number & 255}", 5000), connection)


def item(seq: int, public: bytes = KEY) -> MutableItem:
    return MutableItem(public, b"", seq, b"1:%d" % (seq % 10), b"s" * 64)


class World:
    def __init__(self) -> None:
        self.gateway = Gateway()
        self.now = 50.0

    def say(
        self, who: Place, message: wire.Message, number: int = 7, *, serves: bool = True, joined: bool = True
    ) -> None:
        self.gateway.receive(self.now, who, wire.encode(number, message), serves=serves, joined=joined)

    def told(self) -> list[tuple[Place, int, wire.Message]]:
        found = [(who, *wire.decode(data)) for who, data in self.gateway.outbox]
        self.gateway.outbox.clear()
        return found

    def refusals(self) -> list[int]:
        return [message.reason for _, _, message in self.told() if isinstance(message, wire.Refused)]


def test_a_knock_is_answered_and_costs_no_operation() -> None:
    world = World()
    world.say(place(1), wire.Knock(), 0)
    assert world.told() == [(place(1), 0, wire.Serves())]
    assert not world.gateway.requests


def test_an_item_is_told_at_once_and_again_when_the_look_up_is_over() -> None:
    world = World()
    world.say(place(1), wire.AskItem(KEY))
    (wanted,) = world.gateway.requests
    assert wanted.ask == wire.AskItem(KEY)
    world.gateway.answered(wanted.tag, ItemFound(3, item(5)))
    world.gateway.answered(wanted.tag, GetFinished(3, item(6), HOLDERS, REPORT))
    first, last = (message for _, _, message in world.told())
    assert first == wire.TellItem(False, 0, (5, b"s" * 64, b"1:5"))
    assert last == wire.TellItem(True, 8, (6, b"s" * 64, b"1:6"))
    assert not len(world.gateway)
    world.gateway.answered(wanted.tag, GetFinished(3, item(7), HOLDERS, REPORT))
    assert not world.told(), "over is over"


def test_items_of_another_key_or_kind_are_not_passed_on_and_few_are_told_before_the_end() -> None:
    world = World()
    world.say(place(1), wire.AskItem(KEY))
    tag = world.gateway.requests[0].tag
    world.gateway.answered(tag, ItemFound(3, ImmutableItem(b"1:x")))
    world.gateway.answered(tag, ItemFound(3, item(1, bytes(32))))
    for seq in range(20):
        world.gateway.answered(tag, ItemFound(3, item(seq)))
    assert len(world.told()) == module.ITEMS_TOLD_MAX


def test_stores_and_peers() -> None:
    world = World()
    ask = wire.AskStore(KEY, 9, b"1:a", b"s" * 64, 8)
    world.say(place(1), ask, 1)
    world.say(place(1), wire.AskPeers(info_hash(3)), 2)
    first, second = world.gateway.requests
    assert first.ask == ask
    world.gateway.answered(first.tag, PutFinished(1, 5, {301: 2, 302: 1, 203: 4}, REPORT))
    peers = (endpoint("192.0.2.1", 443),)
    world.gateway.answered(second.tag, PeersFinished(2, peers, HOLDERS, REPORT))
    assert world.told() == [(place(1), 1, wire.TellStored(5, 2, 1, 4)), (place(1), 2, wire.TellPeers(peers))]
    world.say(place(1), ask, 3)
    world.gateway.refused(world.gateway.requests[-1].tag)
    assert world.refusals() == [wire.NOT_VALID]
    assert not len(world.gateway)


def test_who_is_not_served_or_asks_for_other_peoples_swarms_is_refused() -> None:
    world = World()
    world.say(place(1), wire.AskPeers(bytes(20)))
    world.say(place(1), wire.AskItem(KEY), serves=False)
    world.say(place(1), wire.AskItem(KEY), joined=False)
    assert world.refusals() == [wire.NOT_SERVED, wire.NOT_SERVED, wire.NO_NETWORK]
    assert not world.gateway.requests


def test_an_address_that_no_connection_proves_gets_not_even_an_answer() -> None:
    world = World()
    for where in (endpoint("203.0.113.1", 5000), endpoint("2001:db8::1", 5000)):
        world.say(udp_place(where), wire.AskItem(KEY))
        world.say(udp_place(where), wire.Knock())
    assert not world.gateway.outbox
    assert not world.gateway.requests
    assert world.gateway.counters["asked by an unproven address"] == 4


def test_a_flood_from_one_address_is_held_to_its_share_whatever_its_connections() -> None:
    world = World()
    for n in range(500):
        world.say(place(1, 1 + n % 16), wire.AskItem(KEY))
    assert len(world.gateway) == module.OPEN_PER_SOURCE_MAX
    assert world.refusals().count(wire.BUSY) == 500 - module.OPEN_PER_SOURCE_MAX
    for wanted in world.gateway.requests:  # answered at once, the rate still holds
        world.gateway.answered(wanted.tag, GetFinished(1, None, (), REPORT))
    world.told()
    begun = len(world.gateway.requests)
    for _ in range(100):
        world.say(place(1), wire.AskItem(KEY))
        for wanted in world.gateway.requests[begun:]:
            world.gateway.answered(wanted.tag, GetFinished(1, None, (), REPORT))
        begun = len(world.gateway.requests)
    assert begun <= module.ASKS_BURST
    assert wire.TOO_OFTEN in world.refusals()
    world.say(place(2), wire.AskItem(KEY))
    assert len(world.gateway.requests) == begun + 1, "others are served all the same"


def test_a_flood_from_many_addresses_is_held_in_total() -> None:
    world = World()
    for n in range(3000):
        world.say(place(n), wire.AskItem(KEY))
        if len(world.gateway.outbox) > 100:
            world.gateway.outbox.clear()
    assert len(world.gateway) == module.OPEN_MAX
    begun = 0
    for second in range(60):
        world.now = 200.0 + second
        for n in range(100):
            world.say(place(second * 100 + n), wire.AskItem(KEY))
            for wanted in world.gateway.requests[begun:]:
                world.gateway.answered(wanted.tag, GetFinished(1, None, (), REPORT))
            begun = len(world.gateway.requests)
    most = module.OPEN_MAX + module.ASKS_TOTAL_BURST + 60 * module.ASKS_TOTAL_PER_SECOND
    assert 60 * module.ASKS_TOTAL_PER_SECOND * 0.9 < begun <= most


def test_what_a_closed_connection_asked_for_is_given_up() -> None:
    world = World()
    world.say(place(1), wire.AskItem(KEY), 1)
    world.say(place(1, 2), wire.AskItem(KEY), 2)
    gone, stays = (wanted.tag for wanted in world.gateway.requests)
    world.gateway.gone(place(1))
    assert world.gateway.cancelled == [gone]
    world.gateway.answered(gone, GetFinished(1, item(1), HOLDERS, REPORT))
    world.gateway.answered(stays, GetFinished(2, item(1), HOLDERS, REPORT))
    assert [who for who, _, _ in world.told()] == [place(1, 2)]


@given(st.lists(st.tuples(st.integers(1, 3), st.binary(max_size=60), st.integers(0, 13)), max_size=40))
def test_any_bytes_are_answered_or_counted(messages: list[tuple[int, bytes, int]]) -> None:
    gateway = Gateway()
    for who, junk, kind in messages:
        gateway.receive(1.0, place(who), junk, serves=True, joined=True)
        gateway.receive(1.0, place(who), bytes([wire.MAGIC, 1, kind, 0]) + junk, serves=True, joined=True)
    said = (
        len(gateway.outbox)
        + len(gateway.requests)
        + sum(count for what, count in gateway.counters.items() if what.startswith(("detour", "answer")))
    )
    assert said == 2 * len(messages)


@pytest.mark.parametrize("message", [wire.Serves(), wire.TellStored(1, 0, 0, 0), wire.TellPeers(())])
def test_answers_are_no_questions(message: wire.Message) -> None:
    world = World()
    world.say(place(1), message)
    assert not world.gateway.outbox
    assert world.gateway.counters["answer not asked for"] == 1
