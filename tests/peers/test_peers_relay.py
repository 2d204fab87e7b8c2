"""Whole nodes that hold leases at a volunteer's relay and reach each other through it, in virtual time."""

from __future__ import annotations

from random import Random

from meshcall.crypto.kem import MlKem768
from meshcall.dht.config import DhtConfig
from meshcall.identity import Identity
from meshcall.node import Node
from meshcall.path.candidates import Trust
from meshcall.path.paths import direct, endpoint_of, is_relayed
from meshcall.peers.events import LinkDown, PathChanged
from meshcall.peers.policy import PeerPolicy
from meshcall.peers.station import RelayPlan
from meshcall.relay.policy import RelayPolicy
from tests.node.node_world import DELAY_SECONDS
from tests.peers.test_peers_nodes import PeerWorld

LEASE_SECONDS_MAX = 45.0


class RelayWorld(PeerWorld):
    """Nodes 6 and so on are people; the first of them runs a relay."""

    def relay(self, mode: str = "open", **policy: object) -> int:
        """A volunteer on the network."""
        number, _ = self.planned(RelayPlan(0, policy=RelayPolicy(mode=mode, **policy)))  # type: ignore[arg-type]
        return number

    def planned(
        self, plan: RelayPlan, policy: PeerPolicy | None = None, identity: Identity | None = None
    ) -> tuple[int, Identity]:
        """Somebody with a plan for relays, who publishes no address."""
        number = len(self.nodes)
        node = Node(
            self.now, self.unix_time, rng=Random(number), suite=self.suite, config=DhtConfig(reachable="yes"),
            kem=MlKem768(), policy=policy, plan=plan,
        )  # fmt: skip
        self.nodes.append(node)
        self.events.append([])
        self.where.append(self._place(number))
        node.set_local_addresses(self.now, [self.where[number]])
        self.join(number)
        self.run(5.0)
        identity = self.person(number, identity=identity)
        self.run(5.0)
        return number, identity

    def restart(self, number: int, plan: RelayPlan) -> None:
        """The node ends without a word and starts again with the same keys at the same place."""
        node = self.nodes[number] = Node(
            self.now, self.unix_time, rng=Random(1000 + number), suite=self.suite, config=DhtConfig(reachable="yes"),
            kem=MlKem768(), plan=plan,
        )  # fmt: skip
        node.set_local_addresses(self.now, [self.where[number]])
        self.join(number)
        node.publish(self.now, self.identities[number], self.devices[number])
        self.drain(number)

    def leased(self, number: int) -> None:
        """Wait for a lease, and for the record that names it."""
        end = self.now + LEASE_SECONDS_MAX
        while not self.nodes[number].people.leases:
            assert self.now < end, "no lease"
            self.run(1.0)
        self.run(5.0)


def test_a_lease_is_found_taken_and_named_in_the_record() -> None:
    world = RelayWorld()
    relay = world.relay()
    ann, _ = world.planned(RelayPlan())
    bob, bobs = world.planned(RelayPlan())
    world.leased(bob)
    (device,) = world.record(ann, bobs).devices
    (lease,) = device.leases
    assert lease.v4 == world.where[relay]
    assert lease.relay == world.devices[relay].public
    assert not device.direct_v4
    status = world.nodes[relay].people.relay.status(world.now)  # type: ignore[union-attr]
    assert status.leases >= 1


def test_strangers_stay_on_the_relay_and_contacts_go_direct() -> None:
    world = RelayWorld()
    relay = world.relay()
    ann, anns = world.planned(RelayPlan())
    bob, bobs = world.planned(RelayPlan(), PeerPolicy(frozenset()))
    carl, carls = world.planned(RelayPlan(), PeerPolicy(frozenset({anns.public})))
    for number in (ann, bob, carl):
        world.leased(number)

    link = world.linked(ann, bobs)
    world.run(3.0)
    answered = world.echoes(ann, link)
    assert len(answered) == 3
    assert all(is_relayed(event.path) and endpoint_of(event.path) == world.where[relay] for event in answered)
    assert all(abs(event.seconds - 4 * DELAY_SECONDS) < 0.01 for event in answered)

    link = world.linked(ann, carls, trust=Trust.FULL)
    world.run(3.0)
    answered = world.echoes(ann, link)
    assert {event.path for event in answered} == {direct(world.where[carl])}
    changes = [event for _, event in world.said(ann, PathChanged) if isinstance(event, PathChanged)]
    first = next(event for event in changes if event.link == link)
    assert first.best is not None
    assert is_relayed(first.best), "relay first"


def test_a_direct_path_that_dies_is_left_for_the_relay() -> None:
    world = RelayWorld()
    relay = world.relay()
    ann, anns = world.planned(RelayPlan())
    carl, carls = world.planned(RelayPlan(), PeerPolicy(frozenset({anns.public})))
    world.leased(carl)
    link = world.linked(ann, carls, trust=Trust.FULL)
    world.run(3.0)
    assert {event.path for event in world.echoes(ann, link)} == {direct(world.where[carl])}
    world.cut.add(frozenset({world.where[ann], world.where[carl]}))
    world.echoes(ann, link, 6)
    answered = world.echoes(ann, link)
    assert len(answered) == 3
    assert {endpoint_of(event.path) for event in answered} == {world.where[relay]}


def test_a_relay_that_serves_a_list_serves_nobody_else() -> None:
    world = RelayWorld()
    relay = world.relay("list")
    bob, _ = world.planned(RelayPlan())
    world.run(LEASE_SECONDS_MAX)
    assert not world.nodes[bob].people.leases
    assert world.nodes[relay].people.relay.status(world.now).leases == 0  # type: ignore[union-attr]


def test_the_people_of_a_home_use_its_relay_and_strangers_do_not() -> None:
    world = RelayWorld()
    member = Identity.new(world.suite)
    relay = world.relay("list", members=frozenset({member.public}))
    bob, _ = world.planned(RelayPlan(homes=(world.where[relay],)), identity=member)
    eve, _ = world.planned(RelayPlan(homes=(world.where[relay],)))
    world.leased(bob)
    assert [lease.v4 for lease in world.nodes[bob].people.leases] == [world.where[relay]]
    assert not world.nodes[eve].people.leases
    assert world.nodes[relay].people.relay.status(world.now).member_leases == 1  # type: ignore[union-attr]


def test_a_relay_that_restarts_has_its_people_back() -> None:
    world = RelayWorld()
    relay = world.relay()
    ann, _ = world.planned(RelayPlan())
    bob, bobs = world.planned(RelayPlan())
    world.leased(bob)
    link = world.linked(ann, bobs)
    assert len(world.echoes(ann, link)) == 3
    before = world.nodes[bob].people.leases
    world.restart(relay, RelayPlan(0, policy=RelayPolicy(mode="open")))
    world.run(30.0)
    assert world.nodes[bob].people.leases == before
    assert len(world.echoes(ann, link)) == 3, "the session goes on where it was"
    assert not world.said(ann, LinkDown)
