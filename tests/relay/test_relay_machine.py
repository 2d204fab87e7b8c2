"""A hostile wire and hostile people on a relay: whatever they do, these hold.

- It sends only to a holder at its proven place, to a caller who opened a flow, or back to who asked.
- To an address that has not proven itself, never more bytes than came from there.
- Nothing it remembers grows beyond its limits, and nothing is left when all leases are over.
- Forwarded bytes keep to the quotas of lease, sender and uplink.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict

from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from meshcall.core import endpoint
from meshcall.relay import flows as relay_flows
from meshcall.relay.places import Place, is_tcp_place, tcp_place
from meshcall.relay.quota import PACKET_OVERHEAD_BYTES
from meshcall.wire import relay as wire
from tests.relay.relay_world import OPEN, World, key, place

POLICY = dataclasses.replace(
    OPEN, leases_max=6, leases_per_device_max=2, flows_max=12, flows_per_lease_max=6, flows_per_source_max=3,
    bytes_per_second=40_000, lease_bytes_per_second=16_000, source_bytes_per_second=10_000, lease_seconds=120,
    members=frozenset([key(1)]),
)  # fmt: skip
PEOPLE = st.integers(0, 7)
LINKS = st.integers(1, 5)
PLACES = [place(number) for number in range(6)] + [
    tcp_place(endpoint("192.0.2.1", 1000), 1),
    tcp_place(endpoint("192.0.2.2", 1000), 2),
]
SIZES = st.sampled_from([0, 1, 8, 20, 160, 1200, 1488])


class HostileWire(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.world = World(POLICY, tcp_port=443)
        self.began = self.world.now
        self.proven: set[Place] = {where for where in PLACES if is_tcp_place(where)}
        self.received: dict[Place, int] = defaultdict(int)
        self.sent: dict[Place, int] = defaultdict(int)
        self.forwarded_by_lease: dict[bytes, int] = defaultdict(int)
        self.spent = 0
        self.lease_ids: list[bytes] = [bytes(8)]
        self.salts: dict[bytes, bytes] = {}

    # What happens

    def settle(self, asker: Place | None) -> None:
        core = self.world.core
        tables = core.tables
        holders = {lease.place for lease in tables.leases.values()}
        pending = {lease.pending for lease in tables.leases.values()}
        callers = {flow.caller for flow in tables.flows.values()}
        for to, data in core.outbox:
            kind = data[1]
            if kind == wire.TO_HOLDER:
                assert to in holders
                assert to in self.proven, "a holder's place is proven before anything is sent there"
            elif kind == wire.TO_CALLER:
                assert to in callers
            elif kind == wire.CHALLENGE:
                assert to == asker or to in pending
            else:
                assert kind in (wire.STATE, wire.HELLO_ANSWER)
                assert to == asker
            if kind in (wire.TO_HOLDER, wire.TO_CALLER):
                self.spent += max(len(data) + PACKET_OVERHEAD_BYTES, POLICY.packet_bytes_min)
            self.sent[to] += len(data)
        self.world.drain()
        for link in range(1, 6):
            for said in self.world.said[link]:
                if isinstance(said, wire.LeaseGrant) and said.lease_id not in self.lease_ids:
                    self.lease_ids.append(said.lease_id)
                    self.salts[said.lease_id] = said.salt
            self.world.said[link].clear()

    def send(self, who: int, data: bytes) -> None:
        where = PLACES[who]
        self.received[where] += len(data)
        self.world.core.receive(self.world.now, where, data)
        self.settle(where)

    def ids(self, pick: int) -> bytes:
        known = self.lease_ids + list(self.world.core.tables.flows)
        return known[pick % len(known)]

    @rule(link=LINKS, who=PEOPLE, pick=st.integers(0, 30), what=st.integers(0, 4))
    def say(self, link: int, who: int, pick: int, what: int) -> None:
        lease_id = self.ids(pick)
        message: wire.LeaseMessage = [
            wire.LeaseRequest(1, 90),
            wire.LeaseRequest(1, 90, lease_id, self.salts.get(lease_id, bytes(8))),
            wire.LeaseRenew(1, lease_id),
            wire.LeaseRelease(lease_id),
            wire.FlowDrop((lease_id,)),
        ][what]
        # a sealed packet came with it: at least as long as a challenge
        self.received[PLACES[who]] += wire.CHALLENGE_BYTES
        data = wire.encode_lease_message(message)
        self.world.core.message(self.world.now, link, key(link), key(100 + link), PLACES[who], data)
        self.settle(None)

    @rule(link=LINKS, who=PEOPLE)
    def moved(self, link: int, who: int) -> None:
        leases = sum(lease.link == link for lease in self.world.core.tables.leases.values())
        self.received[PLACES[who]] += wire.CHALLENGE_BYTES * leases
        self.world.core.moved(self.world.now, link, PLACES[who])
        self.settle(None)

    @rule(who=PEOPLE, pick=st.integers(0, 30), kind=st.sampled_from([0, 0, 0, 2, 2, 2, 1, 3, 6]), size=SIZES)
    def frame(self, who: int, pick: int, kind: int, size: int) -> None:
        self.send(who, wire.frame(kind, self.ids(pick), bytes(size)))

    @rule(who=PEOPLE, pick=st.integers(0, 30), size=SIZES, count=st.integers(1, 40), kind=st.sampled_from([0, 2]))
    def flood(self, who: int, pick: int, size: int, count: int, kind: int) -> None:
        frame_id = self.ids(pick)
        for _ in range(count):
            self.send(who, wire.frame(kind, frame_id, bytes(size)))

    @rule(who=PEOPLE, seed=st.integers(0, 1000))
    def open_in_a_false_name(self, who: int, seed: int) -> None:
        self.send(who, wire.frame(wire.TO_LEASE, self.lease_ids[seed % len(self.lease_ids)], bytes(1200)))

    @rule(who=PEOPLE)
    def prove(self, who: int) -> None:
        """Only who sits at an address sees what was sent there."""
        where = PLACES[who]
        challenges = [data for data in self.world.inbox[where] if data[1] == wire.CHALLENGE]
        if challenges:
            frame = wire.decode_frame(challenges[-1])
            self.proven.add(where)
            self.send(who, wire.frame(wire.PROOF, frame.frame_id, frame.payload))

    @rule(who=PEOPLE, pick=st.integers(0, 30), cookie=st.binary(min_size=8, max_size=8))
    def prove_wrongly(self, who: int, pick: int, cookie: bytes) -> None:
        self.send(who, wire.frame(wire.PROOF, self.ids(pick), cookie))

    @rule(who=PEOPLE, thief=PEOPLE)
    def prove_with_the_cookie_of_another(self, who: int, thief: int) -> None:
        challenges = [data for data in self.world.inbox[PLACES[who]] if data[1] == wire.CHALLENGE]
        if challenges and who != thief:
            frame = wire.decode_frame(challenges[-1])
            self.send(thief, wire.frame(wire.PROOF, frame.frame_id, frame.payload))

    @rule(who=PEOPLE, data=st.binary(max_size=64))
    def junk(self, who: int, data: bytes) -> None:
        self.send(who, data)
        self.send(who, b"\x4d" + data)

    @rule(who=PEOPLE)
    def hello(self, who: int) -> None:
        self.send(who, wire.hello(b"12345678"))

    @rule(link=LINKS, data=st.binary(max_size=40))
    def junk_message(self, link: int, data: bytes) -> None:
        self.world.core.message(self.world.now, link, key(link), key(100 + link), PLACES[0], data)
        self.settle(None)

    @rule(link=LINKS)
    def link_closes(self, link: int) -> None:
        self.world.core.closed(self.world.now, link)
        self.settle(None)

    @rule(who=st.sampled_from([6, 7]))
    def connection_closes(self, who: int) -> None:
        self.world.core.gone(self.world.now, PLACES[who])
        self.settle(None)

    @rule(seconds=st.sampled_from([0.01, 0.3, 3.0, 30.0, 130.0]))
    def time_passes(self, seconds: float) -> None:
        end = self.world.now + seconds
        core = self.world.core
        while (due := core.next_wake()) is not None and due <= end:
            self.world.now = max(due, self.world.now)
            core.wake(self.world.now)
            self.settle(None)
        self.world.now = end

    @rule(link=LINKS, holder=PEOPLE, caller=PEOPLE)
    def call(self, link: int, holder: int, caller: int) -> None:
        """All steps of an honest call, as far as the relay lets it."""
        self.say(link, holder, 0, 0)
        lease_id = self.lease_ids[-1]
        self.prove(holder)
        self.send(caller, wire.frame(wire.TO_LEASE, lease_id, bytes(200)))
        self.prove(caller)
        lease = self.world.core.tables.leases.get(lease_id)
        for flow_id in [flow.flow_id for flow in lease.flows.values()] if lease else []:
            self.send(holder, wire.frame(wire.TO_FLOW, flow_id, bytes(100)))
        event(f"established: {len(self.world.core.tables.routes) > 0}")

    # What holds

    @invariant()
    def nobody_unproven_gets_more_than_it_sent(self) -> None:
        for where, sent in self.sent.items():
            if where not in self.proven:
                assert sent <= self.received[where]

    @invariant()
    def tables_are_bounded_and_agree(self) -> None:
        core = self.world.core
        tables = core.tables
        assert len(tables.leases) <= POLICY.leases_max
        assert len(tables.flows) <= POLICY.flows_max
        assert len(tables.sources) <= len(tables.flows)
        assert sum(source.flows for source in tables.sources.values()) == len(tables.flows)
        assert len(core.quotas) == len(tables.leases) + len(tables.sources)
        established = 0
        for lease in tables.leases.values():
            assert len(lease.flows) <= POLICY.flows_per_lease_max
            assert len(lease.barred) <= relay_flows.BARRED_MAX
            assert lease.established == sum(flow.routes is not None for flow in lease.flows.values())
            established += lease.established
            for where, flow in lease.flows.items():
                assert flow.caller == where
                assert tables.flows[flow.flow_id] is flow
                if flow.routes is not None:
                    assert flow.proven
                    assert flow.answered
                    up, down = flow.routes
                    assert (up.source, up.destination) == (flow.caller, lease.place)
                    assert (down.source, down.destination) == (lease.place, flow.caller)
                    assert tables.routes[up.frame_id + up.source] is up
                    assert tables.routes[down.frame_id + down.source] is down
        assert len(tables.routes) == 2 * established
        assert not tables.changes
        assert not core.outbox

    @invariant()
    def the_uplink_keeps_to_its_budget(self) -> None:
        seconds = self.world.now - self.began
        assert self.spent <= POLICY.bytes_per_second * seconds + self.world.core.quotas.uplink.burst

    def teardown(self) -> None:
        self.time_passes(500.0)
        core = self.world.core
        assert not core.tables.leases
        assert not core.tables.flows
        assert not core.tables.routes
        assert not core.tables.sources
        assert not len(core.quotas)
        assert core.next_wake() is None


HostileWire.TestCase.settings = settings(max_examples=120, stateful_step_count=60, deadline=None)
TestHostileWire = HostileWire.TestCase
