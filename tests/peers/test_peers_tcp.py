"""Networks that bar UDP: found, published, called and calling through relays over TCP, in virtual time."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshcall.core import Endpoint, endpoint
from meshcall.dht.items import signing_buffer
from meshcall.identity import Device, Identity
from meshcall.node import UdpBarred
from meshcall.path.candidates import Trust
from meshcall.path.paths import direct as straight
from meshcall.path.paths import is_tcp, relayed, stream
from meshcall.peers import reach
from meshcall.peers.events import LeaseMessage, LinkDown, LinkUp, Moved, Reached
from meshcall.peers.policy import PeerPolicy
from meshcall.peers.reach import paths_of, tcp_paths_of
from meshcall.peers.station import RelayPlan
from meshcall.record.events import RecordConfirmed
from meshcall.relay.discovery import info_hash, tcp_places
from meshcall.relay.places import connection_of_place, is_tcp_place, tcp_place
from meshcall.wire import detour as detour_wire
from meshcall.wire import relay as relay_wire
from meshcall.wire.record import DeviceEntry, RelayLease
from tests.node.node_world import DELAY_SECONDS
from tests.peers.tcp_world import TCP_PORT, TcpWorld


def barred(world: TcpWorld, number: int) -> list[bool]:
    return [event.barred for _, event in world.said(number, UdpBarred) if isinstance(event, UdpBarred)]


def test_who_has_no_udp_is_published_and_found_all_the_same() -> None:
    world = TcpWorld()
    relay = world.tcp_relay()
    ann, _ = world.planned(RelayPlan())
    eve, eves = world.shut_in(relay)
    assert barred(world, eve) == [True]
    assert world.said(eve, RecordConfirmed), "stored, and found again, through the gateway"
    world.leased(eve)
    (device,) = world.record(ann, eves).devices
    (lease,) = device.leases
    assert (lease.v4, lease.tcp_port) == (world.where[relay], TCP_PORT)
    status = world.nodes[eve].status(world.now)
    assert status.udp_barred
    assert status.gateways == 1


@pytest.mark.parametrize("both", [False, True])
def test_echoes_go_both_ways_over_tcp(both: bool) -> None:
    world = TcpWorld()
    relay = world.tcp_relay()
    eve, eves = world.shut_in(relay)
    ann, anns = world.shut_in(relay) if both else world.planned(RelayPlan())
    world.leased(ann)
    world.leased(eve)
    for caller, callee, is_shut_in in ((eve, anns, True), (ann, eves, both)):
        link = world.linked(caller, callee)
        world.run(2.0)
        answered = world.echoes(caller, link)
        assert len(answered) == 3
        assert all(is_tcp(event.path) == is_shut_in for event in answered)
        assert all(abs(event.seconds - 4 * DELAY_SECONDS) < 0.01 for event in answered)


def test_a_dial_over_tcp_takes_a_round_trip_more_than_over_udp_at_most() -> None:
    world = TcpWorld()
    relay = world.tcp_relay()
    ann, anns = world.planned(RelayPlan())
    world.leased(ann)
    eve, _ = world.shut_in(relay)
    world.break_connections(eve)
    record = world.record(eve, anns)
    assert record.devices, "a look-up waits for the new connection"
    world.break_connections(eve)
    number = world.nodes[eve].people.reach(world.now, anns.public)
    began = world.now
    world.nodes[eve].people.found(world.now, number, record, world.unix_time)
    world.drain(eve)
    world.run(2.0)
    ((when, _),) = world.said(eve, Reached, began)
    assert when - began <= 4 * DELAY_SECONDS + 2 * DELAY_SECONDS + 0.01


def test_a_caller_who_does_not_know_yet_races_tcp_after_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "TCP_AFTER_SECONDS", (0.11, 1.0))  # here a relay's answer takes 0.1 s exactly
    world = TcpWorld()
    world.tcp_relay()
    ann, anns = world.planned(RelayPlan())
    bob, _ = world.planned(RelayPlan())
    world.leased(ann)
    world.leased(bob)
    number = world.nodes[bob].people.reach(world.now, anns.public)
    record = world.record(bob, anns)
    opened = world.opened
    world.nodes[bob].people.found(world.now, number, record, world.unix_time)
    world.drain(bob)
    world.run(2.0)
    assert world.said(bob, Reached)
    assert world.opened == opened, "where UDP answers no connection is opened"

    world.barred.add(bob)
    number = world.nodes[bob].people.reach(world.now, anns.public)
    began = world.now
    world.nodes[bob].people.found(world.now, number, record, world.unix_time)
    world.drain(bob)
    world.run(2.0)
    ((when, event),) = world.said(bob, Reached, began)
    assert isinstance(event, Reached)
    assert is_tcp(event.path)
    assert when - began <= 0.11 + 6 * DELAY_SECONDS + 0.01
    assert world.opened == opened + 1


def test_udp_that_comes_back_is_used_again_and_one_that_goes_is_left() -> None:
    world = TcpWorld()
    relay = world.tcp_relay()
    ann, anns = world.planned(RelayPlan())
    world.leased(ann)
    before = world.nodes[ann].people.leases
    world.barred.add(ann)
    world.nodes[ann].network_changed(world.now)
    world.drain(ann)
    world.run(10.0)
    assert barred(world, ann) == [True]
    assert world.nodes[ann].people.leases == before, "the same lease, by its ticket"
    bob, _ = world.planned(RelayPlan())
    link = world.linked(bob, anns)
    assert len(world.echoes(bob, link)) == 3

    world.barred.discard(ann)
    world.nodes[ann].network_changed(world.now)
    world.drain(ann)
    world.run(20.0)
    assert barred(world, ann) == [True, False]
    assert world.nodes[ann].people.leases == before
    assert len(world.echoes(bob, link)) == 3
    assert not world.said(bob, LinkDown)
    assert not world.nodes[ann].status(world.now).gateways
    status = world.nodes[relay].people.relay.status(world.now)  # type: ignore[union-attr]
    assert status.leases >= 1


@pytest.mark.parametrize("who", ["caller", "callee"])
def test_a_call_between_contacts_survives_a_move_into_a_network_that_bars_udp(who: str) -> None:
    world = TcpWorld()
    world.tcp_relay()
    ann, anns = world.planned(RelayPlan())
    bob, bobs = world.planned(RelayPlan(), PeerPolicy(frozenset({anns.public})))
    world.leased(ann)
    world.leased(bob)
    link = world.linked(ann, bobs, trust=Trust.FULL)
    assert len(world.echoes(ann, link)) == 3
    world.run(2.0)
    mover = ann if who == "caller" else bob
    world.barred.add(mover)
    world.nodes[mover].network_changed(world.now)
    world.drain(mover)
    world.echoes(ann, link, 15)  # 4.5 s
    answered = world.echoes(ann, link)
    assert len(answered) == 3
    assert is_tcp(answered[-1].path) == (who == "caller")
    assert not world.said(ann, LinkDown)


def test_a_connection_that_breaks_costs_a_call_a_moment() -> None:
    world = TcpWorld()
    relay = world.tcp_relay()
    eve, eves = world.shut_in(relay)
    world.leased(eve)
    ann, _ = world.planned(RelayPlan())
    link = world.linked(ann, eves)
    assert len(world.echoes(ann, link)) == 3
    assert world.break_connections(eve)
    world.run(2.0)
    assert len(world.echoes(ann, link)) == 3
    assert not world.said(ann, LinkDown)


def test_a_relay_for_a_list_is_a_gateway_for_its_people_only() -> None:
    world = TcpWorld()
    member = Identity.new(world.suite)
    relay = world.tcp_relay("list", members=frozenset({member.public}))
    ann, _ = world.planned(RelayPlan(homes=(world.where[relay],)))
    stranger, _ = world.shut_in(relay, homes=(relay,))
    bob, bobs = world.shut_in(relay, homes=(relay,), identity=member, seconds=60.0)
    assert not world.said(stranger, RecordConfirmed)
    assert not world.nodes[stranger].people.leases
    assert world.said(bob, RecordConfirmed)
    (device,) = world.record(ann, bobs).devices
    assert [lease.v4 for lease in device.leases] == [world.where[relay]]


def test_without_any_gateway_a_node_waits_and_tries_at_few_places() -> None:
    world = TcpWorld()
    relay = world.relay()  # takes no TCP
    eve, _ = world.shut_in(relay, seconds=120.0)
    assert not barred(world, eve), "nothing answers at all: that is no network, not one that bars UDP"
    assert not world.opened


def test_a_connection_is_not_an_endpoint_with_the_same_address() -> None:
    """Who holds a lease over TCP is not spoken for by datagrams from the same address and port, nor the reverse."""
    world = TcpWorld()
    relay = world.tcp_relay()
    eve, _ = world.shut_in(relay)
    world.leased(eve)
    core = world.nodes[relay].people.relay
    assert core is not None
    (lease,) = [each for each in core.tables.leases.values() if each.device == world.devices[eve].public]
    held = lease.place
    assert held is not None
    caller = endpoint("192.0.2.77", 4000)
    world.nodes[relay].receive(world.now, caller, relay_wire.frame(relay_wire.TO_LEASE, lease.lease_id, bytes(100)))
    (flow,) = lease.flows.values()
    false = relay_wire.frame(relay_wire.TO_FLOW, flow.flow_id, b"not the holder, though from its address")
    world.nodes[relay].outbox.clear()
    for place in (tcp_place(world.where[eve], 999), tcp_place(world.where[eve], 2**32 - 1)):
        world.inject(relay, place, false)
    world.nodes[relay].receive(world.now, world.where[eve], false)
    assert not flow.answered
    assert not [data for way, data in world.nodes[relay].outbox if way == caller]
    assert lease.place == held


def test_our_own_connection_makes_no_caller_of_the_relay_at_its_end() -> None:
    world = TcpWorld()
    relay = world.tcp_relay()
    place = tcp_place(endpoint("192.0.2.7", 443), 0)
    for kind in (relay_wire.TO_LEASE, relay_wire.TO_FLOW):
        world.inject(relay, place, relay_wire.frame(kind, bytes(8), bytes(100)))
    world.inject(relay, place, relay_wire.hello(bytes(8)))
    station = world.nodes[relay].people
    assert station.counters["no relay here"] == 3


def test_a_relay_gets_no_lease_of_ours_by_the_connection_that_we_opened_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    world = TcpWorld()
    relay = world.tcp_relay()
    station = world.nodes[relay].people
    assert station.relay is not None
    where, request = endpoint("192.0.2.7", 443), relay_wire.encode_lease_message(relay_wire.LeaseRequest(1, 600))
    for connection, granted in ((0, 0), (5, 1)):
        end = bytes([1] * 32), bytes([2] * 32), stream(where, connection)
        monkeypatch.setattr(station.peers, "end_of", lambda link, end=end: end)
        station._take(world.now, LeaseMessage(77, request))
        assert len(station.relay.tables.leases) == granted
    assert station.counters["lease asked for by a relay on our connection"] == 1


def test_whom_a_gateway_serves_by_a_list_is_known_without_a_look_at_all_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each message of a stranger asks for it, and strangers may have thousands of links."""
    world = TcpWorld()
    member, stranger = bytes([1] * 32), bytes([2] * 32)
    relay = world.tcp_relay(mode="list", members=frozenset({member}))
    station = world.nodes[relay].people
    ways = [stream(endpoint("192.0.2.7", 5000), number) for number in range(4)]
    places = [tcp_place(endpoint("192.0.2.7", 5000), number) for number in range(4)]
    ends: dict[int, bytes] = {}
    monkeypatch.setattr(station.peers, "end_of", lambda link: (ends[link], bytes(32), ways[0]))
    monkeypatch.setattr(station.peers, "is_open", lambda link: link in ends)
    for link, identity, way in ((10, member, ways[1]), (11, stranger, ways[2]), (12, member, ways[0])):
        ends[link] = identity
        station._take(world.now, LinkUp(link, way, identity, bytes(32), True))
    assert [station.serves(place) for place in places] == [False, True, False, False]
    station._take(world.now, Moved(10, ways[3]))
    assert [station.serves(place) for place in places] == [False, False, False, True]
    station._take(world.now, Moved(10, straight(endpoint("192.0.2.7", 5000))))
    assert not any(map(station.serves, places))
    for link in range(20, 60):
        ends = {link: member}  # what is closed by us is over without an event
        station._take(world.now, LinkUp(link, ways[1], member, bytes(32), True))
        assert len(station._served) == 1


def test_the_dht_and_gateways_are_not_spoken_with_by_the_wrong_transport() -> None:
    world = TcpWorld()
    relay = world.tcp_relay()
    node = world.nodes[relay]
    world.drain(relay)
    knock = detour_wire.encode(0, detour_wire.Knock())
    node.receive(world.now, endpoint("192.0.2.7", 5000), knock)
    assert not node.outbox, "no answer to an address that nothing proves"
    node.receive_tcp(
        world.now, tcp_place(endpoint("192.0.2.7", 5000), 5), b"d1:ad2:id20:" + bytes(20) + b"e1:q4:ping1:t1:x1:y1:qe"
    )
    assert not node.outbox
    assert node.people.counters["unknown kind over TCP"] == 1
    node.receive_tcp(world.now, tcp_place(endpoint("192.0.2.7", 5000), 5), knock)
    assert [way for way, _ in node.outbox] == [Endpoint(tcp_place(endpoint("192.0.2.7", 5000), 5))]


@pytest.mark.parametrize(("port", "ways"), [(443, 1), (1024, 1), (25, 0), (22, 0), (80, 0)])
def test_a_record_that_names_other_peoples_services_leads_no_connection_there(port: int, ways: int) -> None:
    lease = RelayLease(bytes(32), bytes(8), endpoint("192.0.2.7", 6881), None, tcp_port=port)
    entry = DeviceEntry(1, bytes(32), 0, bytes(64), leases=(lease,))
    assert tcp_paths_of(entry, (4,)) == [relayed(endpoint("192.0.2.7", port), bytes(8), tcp=True)] * ways
    assert len(tcp_places(endpoint("192.0.2.7", port))) == (2 if port == 1024 else 1), "443 is always tried"


def test_a_record_leads_no_packet_to_other_peoples_services_and_no_connection_to_this_machine() -> None:
    leases = tuple(
        RelayLease(bytes(32), bytes([n] * 8), endpoint(host, port), None, tcp_port=6379)
        for n, (host, port) in enumerate([("127.0.0.1", 53), ("192.0.2.7", 53), ("255.255.255.255", 6881)])
    )
    direct = (endpoint("192.0.2.8", 53), endpoint("192.0.2.8", 5353), endpoint("224.0.0.1", 6881))
    entry = DeviceEntry(1, bytes(32), 0, bytes(64), leases=leases, direct_v4=direct)
    assert paths_of(entry, (4,), relayed_only=False) == [straight(direct[1])]
    there = relayed(endpoint("192.0.2.7", 6379), bytes([1] * 8), tcp=True)
    here = relayed(endpoint("127.0.0.1", 6379), bytes(8), tcp=True)
    loopback, other = endpoint("127.0.0.1", 7000), endpoint("10.0.0.2", 7000)
    assert tcp_paths_of(entry, (4,), (loopback, other)) == [there]
    assert tcp_paths_of(entry, (4,), (loopback,)) == [here, there], "where all is on one machine"


def test_newer_records_without_end_lead_to_few_dials() -> None:
    world = TcpWorld()
    ann, _ = world.planned(RelayPlan())
    people = world.nodes[ann].people
    number = people.reach(world.now, Identity.new(world.suite).public)
    began = len(people.peers.links)
    for serial in range(1, 40):
        where = (endpoint(f"203.0.113.{serial}", 7000),)
        entry = DeviceEntry(serial, Device.new(world.suite).public, 0, bytes(64), direct_v4=where)
        people.peers.found(world.now, number, [entry])
        again = DeviceEntry(serial, entry.static, 0, bytes(64), direct_v4=(endpoint("203.0.113.200", 7000 + serial),))
        people.peers.found(world.now, number, [again])
    dials = people.peers.links._dials
    assert len(dials) - began == reach.DEVICES_MAX
    world.nodes[ann].outbox.clear()
    people.carry(world.now)
    assert len(world.nodes[ann].outbox) <= 2 * 2 * reach.DEVICES_MAX, "two pieces, two addresses each"


def test_what_a_reach_knows_of_this_machine_are_its_own_addresses() -> None:
    world = TcpWorld()
    ann, _ = world.planned(RelayPlan())
    peers = world.nodes[ann].people.peers
    assert peers.reaches.local == (world.where[ann],)


@pytest.fixture(scope="module")
def settled() -> TcpWorld:
    """A relay, and somebody with a place there over TCP."""
    world = TcpWorld()
    world.leased(world.shut_in(world.tcp_relay())[0])
    return world


STARTS = [
    b"",
    b"\x10",
    b"\x11",
    b"\x12",
    b"\x13",
    b"d",
    b"\x47\x01",
    *(bytes([0x4D, kind, 0, 0]) for kind in range(10)),
]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(STARTS), st.binary(max_size=1500), st.integers(0, 3), st.booleans())
def test_any_bytes_by_any_connection_are_taken_or_counted(
    settled: TcpWorld, start: bytes, junk: bytes, connection: int, to_relay: bool
) -> None:
    relay, holder = len(settled.nodes) - 2, len(settled.nodes) - 1
    number = relay if to_relay else holder
    where = settled.where[holder if to_relay else relay]
    place = tcp_place(where if connection else settled.tcp_endpoint(relay), connection)
    settled.inject(number, place, (start + junk)[:1500])
    settled.nodes[number].wake(settled.now)
    settled.drain(number)
    if connection > 1:
        settled.nodes[number].tcp_gone(settled.now, place)
        settled.drain(number)
    core = settled.nodes[relay].people.relay
    assert core is not None
    assert all(lease.place is None or connection_of_place(lease.place) for lease in core.tables.leases.values())
    assert len(settled.nodes[relay].carrier.gateway) <= 96


def test_well_formed_questions_of_all_kinds_lead_a_gateway_to_nodes_of_the_dht_only(settled: TcpWorld) -> None:
    """Keys, values, sequence numbers and connections of a stranger's choice: none of them says where a packet goes."""
    rng = Random(7)
    relay = len(settled.nodes) - 2
    node, owner = settled.nodes[relay], Identity.new(settled.suite)
    long, deep = b"i" + b"9" * 900 + b"e", b"l" * 499 + b"e" * 499
    values = [b"i1e", long, deep, b"d1:a1:b1:a1:ce", b"le", b"x", b"995:" + bytes(995)]
    sent: set[Endpoint] = set()
    for number in range(150):
        place = tcp_place(endpoint(f"198.51.{rng.randrange(20)}.{rng.randrange(256)}", 5000), 1 + number % 5)
        seq, value = rng.choice((0, 1, 2**63 - 1)), rng.choice(values)
        signature = settled.suite.sign(owner.key, signing_buffer(b"", seq, value)) if number % 3 else rng.randbytes(64)
        ask: detour_wire.Ask = rng.choice(
            (
                detour_wire.AskItem(rng.choice((owner.public, bytes(32), rng.randbytes(32)))),
                detour_wire.AskStore(owner.public, seq, value, signature, rng.choice((None, 0, seq))),
                detour_wire.AskPeers(info_hash(number % 16)),
                detour_wire.AskPeers(rng.randbytes(20)),
                detour_wire.Knock(),
            )
        )
        node.receive_tcp(settled.now, place, detour_wire.encode(rng.choice((0, 1, number)), ask))
        if rng.random() < 0.3:
            node.tcp_gone(settled.now, place)
        sent |= {way for way, _ in node.outbox if not is_tcp_place(way)}
        settled.drain(relay)
        settled.run(0.05)
        assert len(node.carrier.gateway) <= 96
    assert sent, "it did ask the DHT"
    assert sent <= set(settled.where)
    assert any("refused" in word for word in node.carrier.gateway.counters)
    settled.run(40.0)
    assert len(node.carrier.gateway) == 0
    assert not node.carrier._for_others
