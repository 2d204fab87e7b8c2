"""The mapper in virtual time: which protocol, renewal, restarts, changes of network, the clean end, and lies."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshcall.core import endpoint
from meshcall.portmap.grant import Gateway
from meshcall.portmap.mapper import RETRY_SECONDS, Mapped, Mapper, Unmapped
from tests.portmap.fake_gateway import FakeGateway
from tests.portmap.mapper_world import GATEWAY, PORT, World

OUTSIDE = endpoint("203.0.113.7", PORT)


@pytest.mark.parametrize("protocol", ["pcp", "nat-pmp", "upnp"])
def test_what_the_gateway_speaks_is_used(protocol: str) -> None:
    world = World(FakeGateway(speaks=(protocol,)))
    world.join()
    world.run(20)
    assert world.events == [Mapped(OUTSIDE, protocol, private=False)]
    assert world.fake.mappings == {PORT: (protocol, PORT)}


def test_pcp_comes_first_and_takes_one_datagram() -> None:
    world = World()
    world.join()
    assert world.events == [Mapped(OUTSIDE, "pcp", private=False)]
    assert len(world.sent) == 1


def test_a_nat_pmp_gateway_says_so_and_no_second_is_lost() -> None:
    world = World(FakeGateway(speaks=("nat-pmp",)))
    world.join()
    assert world.mapper.mapped is not None
    assert world.mapper.mapped.protocol == "nat-pmp"
    assert len(world.sent) == 3


@pytest.mark.parametrize(("protocol", "packets"), [("pcp", 24), ("nat-pmp", 48), ("upnp", 48)])
def test_a_day_of_renewals_is_a_few_packets(protocol: str, packets: int) -> None:
    world = World(FakeGateway(speaks=(protocol,)))
    world.join()
    world.run(20)
    before = len(world.sent) + len(world.asked)
    world.run(86_400)
    assert len(world.sent) + len(world.asked) - before <= packets
    assert len(world.events) == 1, "an unchanged mapping is told once"


def test_renewal_is_at_half_life_with_the_same_nonce_and_port() -> None:
    world = World(FakeGateway(speaks=("pcp",)))
    world.fake.life_max = 1000
    world.join()
    first = world.sent[0]
    world.run(499)
    assert len(world.sent) == 1
    world.run(70)
    assert len(world.sent) == 2
    assert world.sent[1][2][24:42] == first[2][24:42]
    assert world.sent[1][2][42:44] == PORT.to_bytes(2, "big"), "the port it has is suggested"


def test_a_silent_gateway_loses_the_mapping_at_its_end_and_is_asked_less_and_less() -> None:
    world = World(FakeGateway(speaks=("pcp",)))
    world.fake.life_max = 1000
    world.join()
    world.is_deaf = True
    world.run(999)
    assert world.mapper.mapped is not None
    world.run(60)
    assert world.events[1] == Unmapped(OUTSIDE, "expired")
    assert isinstance(world.events[2], Unmapped)
    assert world.events[2].outside is None
    sent = len(world.sent)
    world.run(86_400)
    assert len(world.sent) - sent < 150
    world.is_deaf = False
    world.run(4 * 3600 * 1.2)
    assert world.mapper.mapped is not None


def test_a_gateway_that_comes_back_in_time_keeps_the_mapping() -> None:
    world = World(FakeGateway(speaks=("pcp",)))
    world.fake.life_max = 1000
    world.join()
    world.is_deaf = True
    world.run(700)
    world.is_deaf = False
    world.run(2000)
    assert world.outsides() == [("Mapped", OUTSIDE)]


@pytest.mark.parametrize("protocol", ["pcp", "nat-pmp"])
def test_a_restart_that_is_announced_is_healed_within_seconds(protocol: str) -> None:
    world = World(FakeGateway(speaks=(protocol,)))
    world.join()
    world.run(600)
    world.fake.restart(world.now)
    if protocol == "pcp":
        announcement = struct.pack("!BBBBII12x", 2, 0x80, 0, 0, 0, 0)
    else:
        announcement = struct.pack("!BBHI", 0, 128, 0, 0) + bytes((203, 0, 113, 7))
    sent = len(world.sent)
    for _ in range(50):  # one is enough, fifty are not worth more
        world.mapper.announced(world.now, GATEWAY.at(5351), announcement)
    world.run(5.1)
    assert world.fake.mappings == {PORT: (protocol, PORT)}
    assert len(world.sent) - sent <= 2
    assert world.mapper.counters["gateway restarted"] >= 1


def test_an_announcement_of_a_gateway_that_did_not_restart_costs_nothing() -> None:
    world = World(FakeGateway(speaks=("pcp",)))
    world.join()
    world.run(600)
    announcement = struct.pack("!BBBBII12x", 2, 0x80, 0, 0, 0, world.fake.epoch(world.now))
    world.mapper.announced(world.now, GATEWAY.at(5351), announcement)
    world.run(10)
    assert len(world.sent) == 1


def test_a_restart_seen_at_renewal_tells_the_new_endpoint() -> None:
    world = World(FakeGateway(speaks=("pcp",)))
    world.join()
    world.fake.restart(world.now + 60)
    world.fake.taken.add(PORT)
    world.run(4500)
    assert world.outsides() == [("Mapped", OUTSIDE), ("Mapped", endpoint("203.0.113.7", PORT + 1))]
    assert world.mapper.counters["gateway restarted"] == 1


@pytest.mark.parametrize("protocol", ["pcp", "nat-pmp", "upnp"])
def test_a_clean_stop_deletes_the_mapping(protocol: str) -> None:
    world = World(FakeGateway(speaks=(protocol,)))
    world.join()
    world.run(20)
    world.mapper.stop(world.now)
    world.carry()
    assert world.mapper.is_idle
    assert not world.fake.mappings
    assert world.events[-1] == Unmapped(OUTSIDE, "stopped")
    assert world.mapper.next_wake() is None


def test_a_stop_does_not_wait_for_a_silent_gateway() -> None:
    world = World()
    world.join()
    world.is_deaf = True
    world.mapper.stop(world.now)
    world.carry()
    world.run(2.0)
    assert world.mapper.is_idle
    assert world.mapper.next_wake() is None


def test_a_stop_while_the_first_answer_is_under_way_leaves_nothing_behind() -> None:
    world = World(FakeGateway(speaks=("pcp",)))
    world.mapper.set_gateway(world.now, GATEWAY)
    world.mapper.stop(world.now)
    world.carry()
    assert world.mapper.is_idle
    assert not world.fake.mappings
    assert world.fake.log[-1][0] == "deleted"


def test_another_network_means_another_mapping() -> None:
    world = World(FakeGateway(speaks=("pcp",)))
    world.join()
    world.join(None)
    assert world.events[-1] == Unmapped(OUTSIDE, "network changed")
    assert world.mapper.next_wake() is None
    world.fake.outside = "198.51.100.4"
    world.join(Gateway(b"\x0a\x00\x00\x01", b"\x0a\x00\x00\x09"))
    assert world.outsides()[-1] == ("Mapped", endpoint("198.51.100.4", PORT))
    assert world.sent[0][2][24:36] != world.sent[-1][2][24:36], "no nonce for two networks"


def test_a_changed_address_on_the_same_network_is_checked_at_once_but_not_often() -> None:
    world = World(FakeGateway(speaks=("pcp",)))
    world.join()
    world.run(100)
    for _ in range(10):
        world.join()
    assert len(world.sent) == 2


def test_a_double_nat_is_marked() -> None:
    for address in ("10.3.2.1", "100.64.9.9", "192.168.7.7"):
        world = World(FakeGateway(address, speaks=("pcp",)))
        world.join()
        assert world.events == [Mapped(endpoint(address, PORT), "pcp", private=True)]


@pytest.mark.parametrize("address", ["0.0.0.0", "127.0.0.1", "224.0.0.5", "255.255.255.255", "169.254.3.3", "0.1.2.3"])
@pytest.mark.parametrize("protocol", ["pcp", "nat-pmp", "upnp"])
def test_an_impossible_outside_address_is_refused(address: str, protocol: str) -> None:
    world = World(FakeGateway(address, speaks=(protocol,)))
    world.join()
    world.run(30)
    assert world.mapper.mapped is None
    assert [type(event) for event in world.events] == [Unmapped]


def test_a_mapping_too_short_to_keep_is_refused() -> None:
    world = World(FakeGateway(speaks=("pcp", "nat-pmp")))
    world.fake.life_max = 10
    world.join()
    world.run(30)
    assert world.mapper.mapped is None
    assert world.mapper.counters["life too short"] == 2
    world.run(RETRY_SECONDS / 2)
    assert len(world.sent) < 15


def test_a_pcp_error_gives_the_others_their_turn() -> None:
    world = World(FakeGateway())
    world.fake.pcp_result = 2
    world.join()
    assert world.mapper.mapped is not None
    assert world.mapper.mapped.protocol == "nat-pmp"
    assert world.mapper.counters["pcp not authorized"] == 1


def test_a_closed_port_is_not_asked_twice() -> None:
    world = World(FakeGateway(speaks=("upnp",)))
    world.mapper.set_gateway(world.now, GATEWAY)
    world.mapper.refused(world.now)
    world.mapper.refused(world.now)
    world.carry()
    assert world.mapper.mapped is not None
    assert world.mapper.mapped.protocol == "upnp"


def test_ipv6_asks_pcp_only() -> None:
    world = World(FakeGateway("2001:db8::64", speaks=("pcp",)))
    world.join(
        Gateway(bytes.fromhex("fe80000000000000 0000000000000001"), bytes.fromhex("20010db8" + "00" * 11 + "64"))
    )
    assert world.events == [Mapped(endpoint("2001:db8::64", PORT), "pcp", private=False)]
    silent = World(FakeGateway(speaks=()))
    silent.join(Gateway(b"\xfe\x80" + b"\0" * 14, b"\x20\x01" + b"\0" * 14))
    silent.run(60)
    assert len(silent.sent) == 2


def answer_of(world: World) -> bytes:
    return world.fake.datagram(world.now, world.mapper.outbox[0][1])[0]


def test_only_the_gateway_is_believed() -> None:
    world = World()
    world.mapper.set_gateway(world.now, GATEWAY)
    good = answer_of(world)
    for source in ("192.168.1.2:5351", "192.168.1.1:5352", "203.0.113.7:5351"):
        host, _, port = source.partition(":")
        world.mapper.receive(world.now, endpoint(host, int(port)), good)
    assert world.mapper.mapped is None
    assert world.mapper.counters["wrong source"] == 3
    world.mapper.receive(world.now, GATEWAY.at(5351), good)
    assert world.mapper.mapped is not None


def test_a_wrong_nonce_protocol_or_port_is_dropped() -> None:
    world = World()
    world.mapper.set_gateway(world.now, GATEWAY)
    good = answer_of(world)
    for at in (24, 35, 36, 40, 41):
        bad = bytearray(good)
        bad[at] ^= 1
        world.mapper.receive(world.now, GATEWAY.at(5351), bytes(bad))
    assert world.mapper.mapped is None
    assert world.mapper.counters["pcp wrong nonce"] == 2
    assert world.mapper.counters["pcp another mapping"] == 3


def test_an_answer_nobody_asked_for_changes_nothing() -> None:
    world = World()
    world.mapper.set_gateway(world.now, GATEWAY)
    good = answer_of(world)
    world.mapper.receive(world.now, GATEWAY.at(5351), good)
    moved = good[:-4] + bytes((198, 51, 100, 66))
    world.mapper.receive(world.now, GATEWAY.at(5351), moved)
    assert world.mapper.mapped == Mapped(OUTSIDE, "pcp", private=False)


@pytest.mark.parametrize("protocol", ["pcp", "nat-pmp"])
def test_no_answer_comes_by_the_group_of_announcements_to_which_anybody_can_write(protocol: str) -> None:
    world = World(FakeGateway(speaks=(protocol,)))
    world.mapper.set_gateway(world.now, GATEWAY)
    if protocol == "nat-pmp":
        world.mapper.refused(world.now)
    for _, question in world.mapper.outbox:
        for answer in world.fake.datagram(world.now, question):
            world.mapper.announced(world.now, GATEWAY.at(5351), answer)
    world.mapper.announced(world.now, GATEWAY.at(5351), struct.pack("!BBBBII12x", 2, 0x81, 0, 2, 0, 0))  # "no"
    world.mapper.announced(world.now, GATEWAY.at(5351), struct.pack("!BBHI", 0, 128, 2, 0))
    assert world.mapper.mapped is None
    assert not world.events
    world.fake.datagram = lambda now, data: []  # type: ignore[method-assign]
    world.run(1)
    assert world.mapper.mapped is None
    assert not world.mapper.reason, "and it is still asking"


def test_the_nonce_is_the_same_after_a_crash_and_another_for_another_secret() -> None:
    first, second = World(), World()
    first.join()
    second.join()
    assert first.sent[0][2] == second.sent[0][2]
    third = World()
    third.mapper = Mapper(PORT, secret=b"another secret of 16", rng=first.mapper._rng)
    third.join()
    assert third.sent[0][2][24:36] != first.sent[0][2][24:36]
    with pytest.raises(ValueError, match="16 bytes"):
        Mapper(PORT, secret=b"short", rng=first.mapper._rng)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([("pcp",), ("nat-pmp",), ("upnp",), ()]),
    st.lists(
        st.tuples(
            st.sampled_from(["run", "noise", "deaf", "hear", "restart", "join", "leave", "stop", "flip"]),
            st.floats(0.01, 9000), st.binary(max_size=80), st.integers(0, 479),
        ),
        max_size=25,
    ),
)  # fmt: skip
def test_whatever_happens_the_mapper_neither_raises_nor_spins(
    speaks: tuple[str, ...], steps: list[tuple[str, float, bytes, int]]
) -> None:
    world = World(FakeGateway(speaks=speaks))
    world.join()
    last = b"\x00"
    for what, seconds, noise, bit in steps:
        if what == "run":
            world.run(seconds)
        elif what == "noise":
            world.mapper.receive(world.now, GATEWAY.at(5351 if bit % 2 else 1900), noise)
            world.mapper.announced(world.now, GATEWAY.at(5351), noise)
            world.mapper.answered(world.now, bit % 9, noise)
        elif what in ("deaf", "hear"):
            world.is_deaf = what == "deaf"
        elif what == "restart":
            world.fake.restart(world.now)
        elif what == "flip":
            if world.sent:
                last = (world.fake.datagram(world.now, world.sent[-1][2]) or [last])[0]
            bad = bytearray(last)
            bad[bit // 8 % len(bad)] ^= 1 << bit % 8
            world.mapper.receive(world.now, GATEWAY.at(5351), bytes(bad))
        elif what == "stop":
            world.mapper.stop(world.now)
        else:
            world.join(GATEWAY if what == "join" else None)
        world.carry()
    assert len(world.sent) < 60 * (len(steps) + 1)
    world.mapper.stop(world.now)
    world.carry()
    world.run(3)
    assert world.mapper.is_idle
    assert world.mapper.next_wake() is None
