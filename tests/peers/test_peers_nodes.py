"""Whole nodes that link: from an address over the record to echoes, in virtual time."""

from __future__ import annotations

from random import Random

import pytest

from meshcall.crypto.kem import MlKem768
from meshcall.dht.config import DhtConfig
from meshcall.errors import UsageError
from meshcall.identity import Identity
from meshcall.node import LookupEvent, Node
from meshcall.path.candidates import Trust
from meshcall.path.paths import direct
from meshcall.peers.events import EchoAnswered, LinkDown, LinkUp, Reached, Unreached
from meshcall.peers.policy import PeerPolicy
from meshcall.record.events import RecordFound
from meshcall.wire.record import Record
from tests.node.node_world import DELAY_SECONDS, NodeWorld


class PeerWorld(NodeWorld):
    """Nodes that offer ML-KEM and have a policy."""

    def __init__(self, swarm: int = 6) -> None:
        super().__init__()
        self.swarm(swarm, 10.0)

    def someone(self, policy: PeerPolicy | None = None, *, with_addresses: bool = True) -> tuple[int, Identity]:
        """A person on the network, whose record is out."""
        number = len(self.nodes)
        node = Node(
            self.now, self.unix_time, rng=Random(number), suite=self.suite, config=DhtConfig(reachable="yes"),
            kem=MlKem768(), policy=policy,
        )  # fmt: skip
        self.nodes.append(node)
        self.events.append([])
        self.where.append(self._place(number))
        node.set_local_addresses(self.now, [self.where[number]])
        self.join(number)
        self.run(5.0)
        identity = self.person(number, with_addresses=with_addresses)
        self.run(10.0)
        return number, identity

    def record(self, asker: int, identity: Identity) -> Record:
        """What a look-up finds."""
        from meshcall.address import parse

        since = self.now
        self.nodes[asker].lookup(self.now, parse(identity.address))
        self.drain(asker)
        self.run(5.0)
        said = [event for _, event in self.said(asker, LookupEvent, since)]
        return next(e.event.record for e in said if isinstance(e, LookupEvent) and isinstance(e.event, RecordFound))

    def reach(self, asker: int, identity: Identity, **options: object) -> int:
        """Begin to reach a person whose record is known."""
        record = self.record(asker, identity)
        node = self.nodes[asker]
        number = node.people.reach(self.now, identity.public, **options)  # type: ignore[arg-type]
        node.people.found(self.now, number, record, self.unix_time)
        node.people.found(self.now, number, None, self.unix_time)
        self.drain(asker)
        return number

    def linked(self, asker: int, identity: Identity, **options: object) -> int:
        """Reach a person; the link."""
        since = self.now
        self.reach(asker, identity, **options)
        self.run(1.0)
        ((_, event),) = [(when, e) for when, e in self.said(asker, Reached) if when >= since]
        assert isinstance(event, Reached)
        assert event.hybrid
        return event.link

    def echoes(self, asker: int, link: int, count: int = 3) -> list[EchoAnswered]:
        """Send echoes; those that were answered."""
        since = self.now
        for number in range(count):
            self.nodes[asker].people.echo(self.now, link, number)
            self.drain(asker)
            self.run(0.3)
        found = [event for _, event in self.said(asker, EchoAnswered, since)]
        return [event for event in found if isinstance(event, EchoAnswered)]


def test_an_address_is_all_it_takes_to_get_echoes() -> None:
    world = PeerWorld()
    ann, _ = world.someone()
    bob, bobs = world.someone()
    link = world.linked(ann, bobs)
    answered = world.echoes(ann, link)
    assert [event.number for event in answered] == [0, 1, 2]
    assert {event.path for event in answered} == {direct(world.where[bob])}
    assert all(abs(event.seconds - 2 * DELAY_SECONDS) < 0.01 for event in answered)
    (up,) = [event for _, event in world.said(bob, LinkUp)]
    assert isinstance(up, LinkUp)
    assert up.incoming
    world.nodes[ann].people.hang_up(world.now, link)
    world.drain(ann)
    world.run(1.0)
    assert world.said(bob, LinkDown)
    assert not world.nodes[ann].people.peers.status(world.now)
    assert not world.nodes[bob].people.peers.status(world.now)


def test_a_stranger_hears_no_address_and_a_trusted_contact_does() -> None:
    world = PeerWorld()
    ann, anns = world.someone(with_addresses=False)
    bob, bobs = world.someone(PeerPolicy(frozenset({anns.public})))
    world.linked(ann, bobs)
    world.run(2.0)
    (seen,) = world.nodes[bob].people.peers.status(world.now)
    assert seen.trusted
    (mine,) = world.nodes[ann].people.peers.status(world.now)
    assert not mine.trusted, "reaching somebody does not mean to trust them"
    link = world.linked(ann, bobs, trust=Trust.FULL)
    world.run(2.0)
    assert len(world.echoes(ann, link)) == 3


@pytest.mark.parametrize(("answers", "expected"), [("all", 3), ("trusted", 0), ("nobody", 0)])
def test_pings_are_answered_as_the_policy_says(answers: str, expected: int) -> None:
    world = PeerWorld()
    ann, anns = world.someone()
    _, bobs = world.someone(PeerPolicy(answer_pings=answers))  # type: ignore[arg-type]
    assert len(world.echoes(ann, world.linked(ann, bobs))) == expected
    _, carls = world.someone(PeerPolicy(frozenset({anns.public}), answer_pings=answers))  # type: ignore[arg-type]
    assert len(world.echoes(ann, world.linked(ann, carls))) == (0 if answers == "nobody" else 3)


def test_who_cannot_be_reached_is_told_why() -> None:
    world = PeerWorld()
    ann, _ = world.someone()
    _, hidden = world.someone(with_addresses=False)
    number = world.reach(ann, hidden)
    (event,) = [event for _, event in world.said(ann, Unreached)]
    assert event == Unreached(number, "its record names no relay and no address by which it can be reached")
    gone, gones = world.someone()
    world.down.add(gone)
    number = world.reach(ann, gones)
    world.run(20.0)
    event = world.said(ann, Unreached)[-1][1]
    assert isinstance(event, Unreached)
    assert event.reach == number
    assert "did not answer" in event.reason
    assert world.nodes[ann].people.reach(world.now, gones.public, relayed_only=True)


def test_a_node_without_identity_reaches_nobody() -> None:
    world = NodeWorld()
    number = world.add()
    with pytest.raises(UsageError, match="no identity"):
        world.nodes[number].people.reach(world.now, bytes(32))
