"""Both ends of relayed ways, with a real relay core between them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshcall.core import endpoint
from meshcall.relay import ends as relay_ends
from meshcall.relay.ends import Arrived, RelayEnds, WayRefused
from meshcall.relay.places import Place, udp_place
from meshcall.wire import relay as wire
from tests.relay.holder_world import HolderWorld
from tests.relay.relay_world import place

CALLER = place(4000)


class Ends:
    """A holder with two leases, and a caller, in one virtual time."""

    def __init__(self) -> None:
        self.world = HolderWorld(2)
        self.world.offer(1, 2)
        self.world.run(1)
        self.holder = RelayEnds(self.world.holder)
        self.caller = RelayEnds()
        lease = self.world.leases[0]
        assert lease.v4 is not None
        self.lease_id = lease.lease_id
        self.relay: Place = udp_place(lease.v4)

    def carry(self) -> None:
        """Without delay, until nothing is on its way."""
        relay = self.world.relays[self.relay]
        moved = True
        while moved:
            moved = False
            for source, ends in ((self.world.where, self.holder), (CALLER, self.caller)):
                for to, data in ends.outbox:
                    assert to == self.relay
                    relay.receive(self.world.now, source, data)
                    moved = True
                ends.outbox.clear()
            for to, data in relay.outbox:
                (self.holder if to == self.world.where else self.caller).receive(self.world.now, self.relay, data)
                moved = True
            relay.outbox.clear()


def test_a_first_message_goes_through_and_back_and_the_flow_is_established() -> None:
    ends = Ends()
    ends.caller.send(ends.world.now, ends.relay, ends.lease_id, bytes(1200))
    ends.carry()
    first = ends.holder.events.pop()
    assert isinstance(first, Arrived)
    assert first.is_flow
    ends.holder.send(ends.world.now, first.place, first.relay_id, bytes(1000))
    ends.carry()
    answer = ends.caller.events.pop()
    assert answer == Arrived(ends.relay, ends.lease_id, bytes(1000), False)
    assert ends.world.relays[ends.relay].status(0).established == 1, "the challenge was answered on the way"


def test_a_lease_that_is_gone_is_told_to_the_caller() -> None:
    ends = Ends()
    ends.world.start_relay(1 if ends.relay == place(1) else 2)
    ends.caller.send(ends.world.now, ends.relay, ends.lease_id, b"12345678 and more")
    ends.carry()
    assert ends.caller.events == [WayRefused(ends.relay, ends.lease_id, wire.UNKNOWN_LEASE)]


def test_a_strangers_word_about_a_way_is_not_believed() -> None:
    ends = Ends()
    ends.caller.send(ends.world.now, ends.relay, ends.lease_id, b"12345678 and more")
    ends.caller.outbox.clear()
    ends.caller.receive(ends.world.now, ends.relay, wire.frame(wire.STATE, ends.lease_id, b"87654321", 2))
    ends.caller.receive(ends.world.now, ends.relay, wire.frame(wire.TO_CALLER, b"another!", b"x"))
    ends.caller.receive(ends.world.now, ends.relay, wire.frame(wire.TO_HOLDER, b"some flo", b"x"))
    ends.caller.receive(ends.world.now, ends.relay, wire.frame(wire.CHALLENGE, b"another!", b"12345678"))
    ends.caller.receive(ends.world.now, place(7), wire.frame(wire.CHALLENGE, ends.lease_id, b"12345678"))
    assert not ends.caller.events
    assert not ends.caller.outbox


def test_ways_are_bounded_and_the_used_ones_stay() -> None:
    ends = RelayEnds()
    used = place(1)
    for number in range(3 * relay_ends.WAYS_MAX):
        ends.send(0.0, udp_place(endpoint("192.0.2.1", 1 + number % 60000)), number.to_bytes(8, "big"), b"x")
        ends.send(0.0, used, b"used way", b"x")
        ends.outbox.clear()
    assert len(ends) == relay_ends.WAYS_MAX
    ends.receive(0.0, used, wire.frame(wire.TO_CALLER, b"used way", b"still there"))
    assert len(ends.events) == 1


@given(st.binary(max_size=60), st.integers(0, 9))
def test_no_bytes_make_an_end_fail(junk: bytes, kind: int) -> None:
    for ends in (RelayEnds(), RelayEnds(HolderWorld(0).holder)):
        for data in (junk, bytes([wire.MAGIC, kind, 0, 0]) + junk):
            ends.receive(0.0, place(1), data)
        assert not ends.events
