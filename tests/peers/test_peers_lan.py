"""Whole nodes on one local network: who is called there, who answers there, in virtual time."""

from __future__ import annotations

import heapq

from meshcall.core import Endpoint
from meshcall.node import Node
from meshcall.path.candidates import Trust
from meshcall.path.paths import direct
from meshcall.peers.events import LinkUp, Reached
from meshcall.peers.policy import PeerPolicy
from meshcall.peers.ways import TO_LAN
from tests.node.node_world import DELAY_SECONDS
from tests.peers.test_peers_nodes import PeerWorld

NEIGHBOUR_SECONDS = 0.001


class LanWorld(PeerWorld):
    """What goes to the group reaches all other nodes soon."""

    def __init__(self) -> None:
        super().__init__()
        self.group: list[tuple[float, Endpoint, bytes]] = []

    def drain(self, number: int) -> None:
        node, source = self.nodes[number], self.where[number]
        mine = [data for target, data in node.outbox if target == TO_LAN]
        node.outbox[:] = [(target, data) for target, data in node.outbox if target != TO_LAN]
        super().drain(number)
        for data in mine:
            self.group.append((self.now, source, data))
            for other, listener in enumerate(self.nodes):
                if other != number:
                    listener.receive_lan(self.now + NEIGHBOUR_SECONDS, source, data)
                    self._answer_soon(other, listener)

    def _answer_soon(self, number: int, node: Node) -> None:
        """What a node answers its neighbours is quicker than what goes through the internet."""
        for target, data in node.outbox:
            self._order += 1
            heapq.heappush(
                self._heap, (self.now + 2 * NEIGHBOUR_SECONDS, self._order, self.where[number], target, data)
            )
        node.outbox.clear()
        super().drain(number)

    def reached(self, asker: int, since: float) -> list[tuple[float, Reached]]:
        return [(when, event) for when, event in self.said(asker, Reached, since) if isinstance(event, Reached)]


def test_contacts_meet_on_the_local_network_though_their_records_name_no_way() -> None:
    world = LanWorld()
    ann, anns = world.someone(PeerPolicy(lan=True), with_addresses=False)
    bob, bobs = world.someone(PeerPolicy(frozenset({anns.public}), lan=True), with_addresses=False)
    world.record(ann, bobs)
    since = world.now
    world.reach(ann, bobs, trust=Trust.FULL)
    world.run(0.1)
    ((when, event),) = world.reached(ann, since)
    assert event.path == direct(world.where[bob])
    assert {source for _, source, _ in world.group} == {world.where[ann]}
    world.run(1.0)
    (up,) = [event for _, event in world.said(bob, LinkUp)]
    assert isinstance(up, LinkUp)
    assert up.path == direct(world.where[ann])
    assert when - world.group[0][0] < DELAY_SECONDS, "no round trip through the internet was waited for"
    assert len(world.echoes(ann, event.link)) == 3


def test_a_caller_who_is_not_trusted_is_not_answered_there() -> None:
    world = LanWorld()
    ann, _ = world.someone(PeerPolicy(lan=True), with_addresses=False)
    bob, bobs = world.someone(PeerPolicy(lan=True))
    since = world.now
    world.reach(ann, bobs, trust=Trust.FULL)
    world.run(2.0)
    ((_, event),) = world.reached(ann, since)  # by the address in the record
    assert event.path == direct(world.where[bob])
    assert world.group
    counters = world.nodes[bob].people.peers.links.counters
    assert counters["lan: not trusted"] >= 1


def test_only_who_is_trusted_with_addresses_is_called_there() -> None:
    world = LanWorld()
    ann, anns = world.someone(PeerPolicy(lan=True))
    off, _ = world.someone(PeerPolicy())
    _, bobs = world.someone(PeerPolicy(frozenset({anns.public}), lan=True))
    for asker, options in (
        (ann, {}),
        (ann, {"trust": Trust.RELAY_ONLY, "relayed_only": True}),
        (off, {"trust": Trust.FULL}),
    ):
        world.reach(asker, bobs, **options)
        world.run(2.0)
    assert not world.group


def test_what_else_comes_by_the_group_is_counted() -> None:
    world = LanWorld()
    bob, _ = world.someone(PeerPolicy(lan=True))
    for data in (b"", b"d1:ad2:id20:" + bytes(20), b"\x4d" * 40, b"\x12" + bytes(40)):
        world.nodes[bob].receive_lan(world.now, world.where[0], data)
    assert world.nodes[bob].people.counters["lan: no piece"] == 4
    world.nodes[0].receive_lan(world.now, world.where[bob], b"\x10")
    assert world.nodes[0].counters["lan: nobody's node"] == 1
