"""The asking side: gateways that serve, that are silent, that refuse, and that lie."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcall.core import endpoint
from meshcall.crypto.sodium import Sodium
from meshcall.crypto.suite import SigningKey
from meshcall.detour import asker as module
from meshcall.detour.asker import Detour
from meshcall.dht.events import GetFinished, ItemFound, PeersFinished, PutFinished
from meshcall.dht.items import MutableItem, signing_buffer
from meshcall.record.requests import Get, Put
from meshcall.relay.discovery import FindPeers, info_hash
from meshcall.relay.places import Place, tcp_place
from meshcall.wire import detour as wire

SUITE = Sodium()
KEY: SigningKey = SUITE.expand(bytes(32))
A, B, C = (tcp_place(endpoint(f"203.0.113.{n}", 443), 0) for n in (1, 2, 3))
Answer = Callable[[wire.Message], list[wire.Message]]


def signed(seq: int, value: bytes = b"2:ok") -> tuple[int, bytes, bytes]:
    return seq, SUITE.sign(KEY, signing_buffer(b"", seq, value)), value


def item(seq: int) -> MutableItem:
    _, signature, value = signed(seq)
    return MutableItem(KEY.public, b"", seq, value, signature)


def honest(seq: int) -> Answer:
    """Has the item of this seq, and stores everything."""

    def answer(message: wire.Message) -> list[wire.Message]:
        match message:
            case wire.Knock():
                return [wire.Serves()]
            case wire.AskItem():
                return [wire.TellItem(False, 0, signed(seq)), wire.TellItem(True, 8, signed(seq))]
            case wire.AskStore():
                return [wire.TellStored(8, 0, 0, 0)]
            case _:
                return [wire.TellPeers((endpoint("192.0.2.7", 6881),))]

    return answer


def only_knocks(message: wire.Message) -> list[wire.Message]:
    return [wire.Serves()] if isinstance(message, wire.Knock) else []


def refuses(message: wire.Message) -> list[wire.Message]:
    return [wire.Serves()] if isinstance(message, wire.Knock) else [wire.Refused(wire.BUSY, 5)]


class World:
    """Gateways answer after 40 ms."""

    def __init__(self, **gateways: Answer) -> None:
        self.detour = Detour(SUITE)
        self.now = 10.0
        self.gateways: dict[Place, Answer] = {{"a": A, "b": B, "c": C}[name]: each for name, each in gateways.items()}
        self.asked: list[tuple[Place, wire.Message]] = []
        self.said: list[tuple[float, int, object]] = []
        self._wire: list[tuple[float, Place, bytes]] = []

    def begin(self) -> None:
        self.detour.offer(self.now, tuple(self.gateways))
        self.detour.start(self.now)
        self.run(0.1)

    def ask(self, request: Get | Put | FindPeers) -> int:
        token = self.detour.ask(self.now, request)
        self.drain()
        return token

    def drain(self) -> None:
        for place, data in self.detour.outbox:
            number, message = wire.decode(data)
            self.asked.append((place, message))
            for answer in self.gateways[place](message) if place in self.gateways else ():
                self._wire.append((self.now + 0.04, place, wire.encode(number, answer)))
        self.detour.outbox.clear()
        self.said += [(self.now, said.token, said.event) for said in self.detour.events]
        self.detour.events.clear()

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        self.drain()
        while True:
            due = self.detour.next_wake()
            at = min([when for when, _, _ in self._wire] + ([due] if due is not None else []), default=end + 1)
            if at > end:
                break
            self.now = max(self.now, at)
            arrived = [entry for entry in self._wire if entry[0] <= self.now]
            self._wire = [entry for entry in self._wire if entry[0] > self.now]
            for _, place, data in arrived:
                self.detour.receive(self.now, place, data)
            self.detour.wake(self.now)
            self.drain()
        self.now = end

    def events(self, token: int) -> list[object]:
        return [event for _, number, event in self.said if number == token]


def test_two_gateways_are_kept_and_asked_and_the_newest_item_wins() -> None:
    world = World(a=honest(5), b=honest(9), c=honest(1))
    world.begin()
    assert len(world.detour.gateways) == 2
    token = world.ask(Get(KEY.public, 1))
    world.run(3.0)
    *found, last = world.events(token)
    assert all(isinstance(event, ItemFound) for event in found)
    assert isinstance(last, GetFinished)
    open_seqs = {A: 5, B: 9, C: 1}
    assert last.item == item(max(open_seqs[place] for place in world.detour.gateways))
    assert len(last.holders) == 2


def test_a_gateway_with_an_old_item_cannot_hide_a_newer_one() -> None:
    world = World(a=honest(3), b=honest(4))
    world.begin()
    for _ in range(4):  # whoever is asked first
        token = world.ask(Get(KEY.public, 1))
        world.run(1.0)
        last = world.events(token)[-1]
        assert isinstance(last, GetFinished)
        assert last.item == item(4)


def test_a_forged_item_is_never_told_and_ends_the_gateway() -> None:
    def forger(message: wire.Message) -> list[wire.Message]:
        seq, signature, value = signed(99)
        bad = bytes([signature[0] ^ 1]) + signature[1:]
        return only_knocks(message) or [wire.TellItem(True, 8, (seq, bad, value))]

    world = World(a=forger, b=honest(4))
    world.begin()
    token = world.ask(Get(KEY.public, 1))
    world.run(3.0)
    assert world.events(token) == [
        ItemFound(token, item(4)),
        next(event for event in world.events(token) if isinstance(event, GetFinished)),
    ]
    last = world.events(token)[-1]
    assert isinstance(last, GetFinished)
    assert last.item == item(4)
    assert [holder.endpoint for holder in last.holders] == [B[:-4]]
    assert world.detour.counters["item is forged"] == 1
    assert world.detour.gateways == (B,)


def test_a_flood_of_items_ends_the_gateway() -> None:
    def flooder(message: wire.Message) -> list[wire.Message]:
        return only_knocks(message) or [wire.TellItem(False, 0, signed(seq)) for seq in range(100)]

    world = World(a=flooder)
    world.begin()
    token = world.ask(Get(KEY.public, 1))
    world.run(1.0)
    assert len([event for event in world.events(token) if isinstance(event, ItemFound)]) <= module.ITEMS_MAX
    assert world.detour.counters["too many items"] == 1
    assert not world.detour.gateways


@pytest.mark.parametrize("other", [only_knocks, refuses])
def test_one_that_is_silent_or_refuses_holds_nobody_up_for_long(other: Answer) -> None:
    world = World(a=other, b=honest(4))
    world.begin()
    for _ in range(2):
        began = world.now
        token = world.ask(Get(KEY.public, 1))
        world.run(module.ASK_SECONDS + 1)
        found = next(when for when, number, event in world.said if number == token and isinstance(event, ItemFound))
        over = next(when for when, number, event in world.said if number == token and isinstance(event, GetFinished))
        assert found - began < 0.1
        assert over - began <= module.SECOND_SECONDS + 0.1


def test_all_silent_is_the_same_as_a_network_that_does_not_answer() -> None:
    world = World(a=only_knocks, b=refuses)
    world.begin()
    tokens = [
        world.ask(request) for request in (Get(KEY.public, 1), Put(item(1), None, (), 2), FindPeers(info_hash(1), 3))
    ]
    world.run(module.ASK_SECONDS + 0.5)
    got, put, peers = (world.events(token)[-1] for token in tokens)
    assert isinstance(got, GetFinished)
    assert (got.item, got.holders) == (None, ())
    assert isinstance(put, PutFinished)
    assert put.stored == 0
    assert isinstance(peers, PeersFinished)
    assert peers.peers == ()
    assert world.detour.gateways == (B,), "who only knocks back is none for now; a busy one may have time later"


@pytest.mark.parametrize("reason", [wire.NOT_SERVED, wire.NO_NETWORK])
def test_one_of_no_use_makes_room_for_another(reason: int) -> None:
    def useless(message: wire.Message) -> list[wire.Message]:
        return [wire.Serves()] if isinstance(message, wire.Knock) else [wire.Refused(reason, 5)]

    world = World(a=useless, b=useless, c=honest(1))
    world.begin()
    assert set(world.detour.gateways) == {A, B}
    world.ask(Get(KEY.public, 1))
    world.run(1.0)
    assert world.detour.gateways == (C,)
    token = world.ask(Get(KEY.public, 1))
    world.run(0.5)
    assert ItemFound(token, item(1)) in world.events(token)


def test_a_store_under_cas_goes_to_one_gateway_after_the_other() -> None:
    world = World(a=honest(1), b=honest(1))
    world.begin()
    for _ in range(4):
        world.asked.clear()
        world.ask(Put(item(2), 1, (), 5))
        world.run(0.5)
        assert len(world.asked) == 1, "the second would find the first one's item in its way"
    world.asked.clear()
    token = world.ask(Put(item(2), None, (), 6))
    world.run(0.5)
    assert {place for place, _ in world.asked} == {A, B}, "without cas both may"
    last = world.events(token)[-1]
    assert isinstance(last, PutFinished)
    assert last.stored == 16
    world.gateways[A] = world.gateways[B] = refuses
    world.asked.clear()
    world.ask(Put(item(2), 1, (), 7))
    world.run(0.5)
    assert {place for place, _ in world.asked} == {A, B}, "the first refused"


def test_refusals_by_cas_and_seq_are_told_with_their_codes() -> None:
    def holds_newer(message: wire.Message) -> list[wire.Message]:
        return only_knocks(message) or [wire.TellStored(1, 5, 2, 0)]

    world = World(a=holds_newer)
    world.begin()
    token = world.ask(Put(item(2), 1, (), 5))
    world.run(0.5)
    last = world.events(token)[-1]
    assert isinstance(last, PutFinished)
    assert last.errors == {301: 5, 302: 2}


def test_a_gateway_cannot_send_us_into_our_own_network() -> None:
    inside, outside = endpoint("192.168.1.1", 8080), endpoint("198.51.100.4", 6881)

    def pointer(message: wire.Message) -> list[wire.Message]:
        return only_knocks(message) or [wire.TellPeers((inside, outside))]

    world = World(a=pointer)
    world.begin()
    token = world.ask(FindPeers(info_hash(1), 3))
    world.run(0.5)
    last = world.events(token)[-1]
    assert isinstance(last, PeersFinished)
    assert last.peers == (outside,)


def test_answers_that_nobody_asked_for_change_nothing() -> None:
    world = World(a=honest(1), b=honest(1))
    world.begin()
    token = world.ask(Get(KEY.public, 1))
    world.run(0.5)
    before = list(world.said)
    for place in (A, B, C):
        for number in (0, token, token + 1):
            for message in (wire.Serves(), wire.TellItem(True, 8, signed(50)), wire.TellStored(1, 0, 0, 0)):
                world.detour.receive(world.now, place, wire.encode(number, message))
    world.drain()
    assert world.said == before


def test_gateways_that_went_away_are_found_again() -> None:
    world = World(a=honest(1))
    world.begin()
    world.run(module.AGAIN_SECONDS)
    token = world.ask(Get(KEY.public, 1))
    world.detour.gone(world.now, A)
    world.run(0.5)
    assert isinstance(world.events(token)[-1], GetFinished), "what was asked there is over"
    assert world.detour.gateways == (A,), "a new connection, at once"
    answers = world.gateways.pop(A)
    world.detour.gone(world.now, A)
    world.run(module.KNOCK_SECONDS + 0.1)
    assert not world.detour.gateways
    world.gateways[A] = answers
    world.run(module.AGAIN_SECONDS * 3)
    assert world.detour.gateways == (A,)


def test_one_that_ends_every_connection_is_not_connected_to_again_and_again() -> None:
    world = World(a=honest(1))
    world.begin()
    for _ in range(1000):
        if world.detour.gateways:
            world.detour.gone(world.now, A)
        world.run(0.1)
    assert sum(isinstance(message, wire.Knock) for _, message in world.asked) <= 100 / module.AGAIN_SECONDS


def test_nowhere_is_knocked_without_need_and_never_at_many_at_once() -> None:
    world = World()
    places = tuple(tcp_place(endpoint(f"198.51.100.{n}", 443), 0) for n in range(1, 60))
    world.detour.offer(world.now, places)
    world.run(5.0)
    assert not world.asked, "UDP works"
    world.detour.start(world.now)
    world.drain()
    assert len(world.asked) == module.KNOCKING_MAX
    world.run(600.0)
    assert len({place for place, _ in world.asked}) == module.PLACES_MAX
    assert len(world.asked) < 600 / module.KNOCK_SECONDS * module.KNOCKING_MAX
    world.detour.stop(world.now)
    world.asked.clear()
    world.run(600.0)
    assert not world.asked


def test_one_host_at_two_ports_is_one_gateway() -> None:
    world = World()
    twin = tcp_place(endpoint("203.0.113.1", 6881), 0)
    world.gateways = {A: honest(1), twin: honest(1)}
    world.begin()
    assert len(world.detour.gateways) == 1


@given(st.lists(st.tuples(st.sampled_from([A, B, C]), st.integers(0, 3), st.binary(max_size=120), st.integers(0, 13))))
def test_rubbish_is_counted_and_never_told(messages: list[tuple[Place, int, bytes, int]]) -> None:
    world = World(a=honest(1), b=honest(1))
    world.begin()
    token = world.detour.ask(world.now, Get(KEY.public, 1))
    for place, number, junk, kind in messages:
        head = bytes([wire.MAGIC, 1, kind, 0]) + number.to_bytes(4, "big")
        world.detour.receive(world.now, place, junk)
        world.detour.receive(world.now, place, head + junk)
    world.drain()
    assert not any(isinstance(event, ItemFound) for event in world.events(token))
