"""Relays over TCP as cores see them: finding them, holding a place there, and a connection that ends."""

from __future__ import annotations

import random

import pytest

from meshcall.core import Endpoint, endpoint, port_of
from meshcall.dht.events import PeersFinished, Report
from meshcall.relay import discovery
from meshcall.relay.candidate import RelayCandidate
from meshcall.relay.discovery import RelaySearch
from meshcall.relay.holder import CHECK_AGAIN_SECONDS, Dial, RelayHolder, Show
from meshcall.relay.places import Place, endpoint_of_place, is_tcp_place, tcp_place
from meshcall.wire import relay as wire
from tests.relay.relay_world import World, key, place

LEASE = b"lease id"
UDP = endpoint("192.0.2.9", 6881)
TCP = tcp_place(endpoint("192.0.2.9", 443), 0)


def searched(
    peers: list[Endpoint], answering: dict[Place, wire.RelayInfo], homes: frozenset[Endpoint] = frozenset()
) -> tuple[discovery.SearchFinished, list[Place]]:
    """A search over TCP: its result, and where hellos went."""
    search = RelaySearch(rng=random.Random(3))
    search.is_tcp = True
    now, hellos = 0.0, []
    search.search(now, homes=homes)
    for request in search.requests:
        search.answered(now, request.tag, PeersFinished(1, tuple(peers), (), Report(0.0, 0, 0, 0)))
    while not search.events:
        due = search.next_wake()
        assert due is not None
        now = max(now, due)
        search.wake(now)
        said, search.outbox[:] = list(search.outbox), []
        for to, data in said:
            hellos.append(to)
            if to in answering:
                search.receive(now + 0.05, to, wire.hello_answer(wire.decode_frame(data).frame_id, answering[to]))
    return search.events[0], hellos


def info(number: int, tcp_port: int | None = None) -> wire.RelayInfo:
    return wire.RelayInfo(key(number), True, True, 0, tcp_port)


def test_relays_are_asked_at_443_and_at_their_own_port_and_taken_where_they_answer() -> None:
    at_443, at_own = endpoint("192.0.2.1", 7001), endpoint("198.51.100.1", 7002)
    own = tcp_place(at_own, 0)
    https = tcp_place(endpoint("192.0.2.1", 443), 0)
    found, hellos = searched([at_443, at_own], {https: info(1, 8443), own: info(2)})
    assert set(hellos) == {tcp_place(at_443, 0), https, own, tcp_place(endpoint("198.51.100.1", 443), 0)}
    tcp_ports = {each.static: (each.endpoint, each.tcp_port) for each in found.candidates}
    assert tcp_ports == {key(1): (at_443, 443), key(2): (at_own, 7002)}, "where it answered, whatever it says"


def test_few_are_asked_and_no_other_services() -> None:
    peers = [endpoint(f"203.0.{n}.1", 25 if n % 2 else 5000) for n in range(100)]
    _, hellos = searched(peers, {})
    assert len({endpoint_of_place(each)[:-2] for each in hellos}) == discovery.PROBED_TCP_MAX
    assert all(is_tcp_place(each) for each in hellos)
    assert {port_of(endpoint_of_place(each)) for each in hellos} <= {443, 5000}


def held() -> tuple[RelayHolder, float]:
    """A holder with a place at one relay, over TCP."""
    holder = RelayHolder(0.0, rng=random.Random(1), wanted=1, tcp=True)
    holder.offer(0.0, [RelayCandidate(key(1), UDP, 443), RelayCandidate(key(2), endpoint("198.51.100.1", 6881))])
    (dial,) = holder.requests
    assert dial == Dial(RelayCandidate(key(1), UDP, 443), True), "one that takes no TCP is none here"
    holder.requests.clear()
    holder.linked(0.1, key(1), 5)
    ((_, asked),) = holder.messages
    number = wire.decode_lease_message(asked).number  # type: ignore[union-attr]
    holder.messages.clear()
    grant = wire.LeaseGrant(number, LEASE, bytes(8), 1800, 80_000, 800, 32, 443)
    holder.message(0.2, 5, wire.encode_lease_message(grant))
    answer(holder, 0.2)
    (lease,) = holder.leases()
    assert (lease.v4, lease.tcp_port) == (UDP, 443)
    return holder, 0.3


def answer(holder: RelayHolder, now: float, status: int = wire.KNOWN) -> None:
    """The relay answers the check under way."""
    to, data = holder.outbox[-1]
    holder.outbox.clear()
    assert to == TCP
    holder.receive(now + 0.05, TCP, wire.frame(wire.STATE, LEASE, wire.decode_frame(data).payload, status))


def test_a_connection_that_ends_is_replaced_and_the_place_checked() -> None:
    holder, now = held()
    holder.gone(now, TCP)
    assert holder.requests == [Show(5)]
    holder.requests.clear()
    for _ in range(50):  # refused again and again: not one more packet for it
        holder.gone(now + 0.01, TCP)
    assert not holder.requests
    assert not holder.outbox
    now += CHECK_AGAIN_SECONDS[0]
    holder.wake(now)
    answer(holder, now)
    assert holder.leases(), "all is well"
    assert not holder.requests


def test_one_that_cannot_be_opened_again_leads_to_a_new_dial_and_then_to_another_relay() -> None:
    holder, now = held()
    holder.offer(now, [RelayCandidate(key(3), endpoint("203.0.113.3", 6881), 443)])
    end = now + 30.0
    dialled: list[bytes] = []
    while now < end:
        holder.gone(now, TCP)
        due = holder.next_wake()
        now = end if due is None else max(now + 0.001, due)
        holder.wake(now)
        dialled += [each.candidate.static for each in holder.requests if isinstance(each, Dial)]
        holder.requests.clear()
        holder.outbox.clear()
        if dialled and dialled[-1] == key(1):
            holder.failed(now, key(1))
    assert key(1) in dialled
    assert key(3) in dialled
    assert len(dialled) < 40


def test_who_finds_udp_barred_dials_over_tcp_at_once_and_back() -> None:
    holder = RelayHolder(0.0, rng=random.Random(1), wanted=1)
    holder.offer(0.0, [RelayCandidate(key(1), UDP, 443)])
    assert [each.tcp for each in holder.requests if isinstance(each, Dial)] == [False]
    holder.requests.clear()
    holder.set_tcp(0.1, True)
    assert [each.tcp for each in holder.requests if isinstance(each, Dial)] == [True]
    holder.requests.clear()
    holder.set_tcp(0.2, True)
    assert not holder.requests
    holder.set_tcp(0.3, False)
    assert [each.tcp for each in holder.requests if isinstance(each, Dial)] == [False]


@pytest.mark.parametrize("caller_over_tcp", [False, True])
def test_a_flow_between_tcp_and_udp_goes_both_ways_and_ends_with_the_connection(caller_over_tcp: bool) -> None:
    world = World(tcp_port=443)
    holder = tcp_place(endpoint("203.0.113.5", 4000), 1)
    caller = tcp_place(endpoint("203.0.113.6", 4000), 2) if caller_over_tcp else place(6)
    lease_id = world.lease(1, holder, prove=False)
    assert world.core.info().tcp_port == 443
    world.up(caller, lease_id, b"to the holder, at once")
    flow = world.last(holder)
    assert flow.kind == wire.TO_HOLDER
    world.down(holder, flow.frame_id, b"and back")
    assert world.last(caller).payload == b"and back" or not caller_over_tcp
    if not caller_over_tcp:
        world.prove(caller)
        world.down(holder, flow.frame_id, b"and back")
        assert world.last(caller).payload == b"and back"
    # the same address by UDP is neither of them
    before = len(world.inbox[caller])
    world.down(Place(endpoint_of_place(holder)), flow.frame_id, b"a lie")
    assert len(world.inbox[caller]) == before
    world.core.gone(world.now, holder)
    world.drain()
    world.up(caller, lease_id, b"anybody?")
    assert world.last(caller).status == wire.UNKNOWN_LEASE
    world.core.moved(world.now, 1, tcp_place(endpoint("203.0.113.5", 4100), 3))
    world.drain()
    world.up(caller, lease_id, b"and now?")
    back = world.last(tcp_place(endpoint("203.0.113.5", 4100), 3))
    assert back.payload == b"and now?", "the lease is where its link is heard, without a challenge"
