"""NAT boxes: RFC 4787's behaviours, one by one."""

from __future__ import annotations

from random import Random

import pytest

from meshcall.core import Endpoint
from meshcall.sim.host import Host
from meshcall.sim.nat import MAPPINGS_MAX, NAT_KINDS, Nat
from tests.sim.small_world import START, Lab, PingPong

BOX = bytes([88, 77, 66, 55])


class Yard:
    """A host behind a box, and strangers outside."""

    def __init__(self, kind: str, *, hairpin: bool = True) -> None:
        self.lab = Lab()
        self.nat = Nat(BOX, self.lab.line(), NAT_KINDS[kind], Random(1), hairpin=hairpin)
        self.inside = self.lab.host(PingPong(), self.nat, bytes([192, 168, 0, 2, 0x1A, 0xE1]))

    def stranger(self, address: int, port: int) -> Host:
        return self.lab.host(PingPong(), endpoint=bytes([9, 9, 9, address]) + port.to_bytes(2, "big"))

    def send(self, host: Host, dest: bytes, data: bytes) -> None:
        host.core.say(Endpoint(dest), data)
        host.drain(self.lab.schedule.now)
        self.lab.schedule.run(self.lab.schedule.now + 1)

    def seen_from(self, stranger: Host) -> bytes:
        """The outside endpoint that a stranger sees when the inside host writes to it."""
        self.send(self.inside, stranger.endpoint, b"hello")
        return stranger.core.heard[-1][1]

    def lets_in(self, stranger: Host, outside: bytes) -> bool:
        before = len(self.inside.core.heard)
        self.send(stranger, outside, b"hello?")
        return len(self.inside.core.heard) > before


@pytest.mark.parametrize(
    ("kind", "same_mapping", "stranger", "other_port"),
    [
        ("full cone", True, True, True),
        ("restricted", True, False, True),
        ("port restricted", True, False, False),
        ("symmetric", False, False, False),
    ],
)
def test_mapping_and_filtering(kind: str, same_mapping: bool, stranger: bool, other_port: bool) -> None:
    yard = Yard(kind)
    friend, friends_other_port = yard.stranger(1, 1000), yard.stranger(1, 2000)
    unknown = yard.stranger(2, 1000)
    outside = yard.seen_from(friend)
    assert outside[:4] == BOX
    assert yard.lets_in(friend, outside)
    assert yard.lets_in(friends_other_port, outside) is other_port
    assert yard.lets_in(unknown, outside) is stranger
    assert (yard.seen_from(yard.stranger(3, 3000)) == outside) is same_mapping


def test_the_port_is_kept_where_it_is_free() -> None:
    yard = Yard("port restricted")
    neighbour = yard.lab.host(PingPong(), yard.nat, bytes([192, 168, 0, 3, 0x1A, 0xE1]))
    friend = yard.stranger(1, 1000)
    outside = yard.seen_from(friend)
    assert outside[4:] == b"\x1a\xe1"
    yard.send(neighbour, friend.endpoint, b"hello")
    other = friend.core.heard[-1][1]
    assert other[:4] == BOX and other != outside
    yard.send(friend, outside, b"to the first")
    yard.send(friend, other, b"to the second")
    assert yard.inside.core.heard[-1][2] == b"to the first"
    assert neighbour.core.heard[-1][2] == b"to the second"


def test_a_mapping_ends_after_its_life_and_is_kept_by_use() -> None:
    yard = Yard("full cone")
    friend = yard.stranger(1, 1000)
    outside = yard.seen_from(friend)
    for _ in range(3):
        yard.lab.schedule.run(yard.lab.schedule.now + 100)
        assert yard.seen_from(friend) == outside
    yard.lab.schedule.run(yard.lab.schedule.now + 122)
    assert not yard.lets_in(friend, outside)
    assert yard.nat.refused == 1


@pytest.mark.parametrize("hairpin", [True, False])
def test_hosts_of_one_box_meet_only_with_hairpinning(hairpin: bool) -> None:
    yard = Yard("full cone", hairpin=hairpin)
    neighbour = yard.lab.host(PingPong(), yard.nat, bytes([192, 168, 0, 3, 0x1A, 0xE1]))
    outside = yard.seen_from(yard.stranger(1, 1000))
    assert yard.lets_in(neighbour, outside) is hairpin


@pytest.mark.parametrize("kind", ["port restricted", "symmetric"])
def test_a_box_stays_bounded(kind: str) -> None:
    yard = Yard(kind)
    for number in range(MAPPINGS_MAX + 500):
        dest = Endpoint((0x01000000 + number).to_bytes(4, "big") + b"\x1a\xe1")
        yard.nat.outbound(START, yard.inside, dest)
    assert len(yard.nat._by_key) <= MAPPINGS_MAX
    later = START + 200
    for number in range(200):
        yard.nat.outbound(later, yard.inside, Endpoint(number.to_bytes(4, "big") + b"\x00\x07"))
    if kind == "port restricted":
        [mapping] = yard.nat._by_key.values()
        assert mapping.peers is not None
        yard.nat.outbound(later, yard.inside, Endpoint(b"\x05\x05\x05\x05\x00\x07"))
        assert len(mapping.peers) <= MAPPINGS_MAX + 800
