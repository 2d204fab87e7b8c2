"""How a device searches for relays again when its last place is lost."""

from __future__ import annotations

from meshcall.peers.station import RelayPlan
from meshcall.relay.policy import RelayPolicy
from tests.peers.test_peers_relay import RelayWorld

REPLACED_SECONDS_MAX = 120.0


def test_the_last_place_lost_is_replaced_soon() -> None:
    world = RelayWorld()
    first = world.relay()
    bob, _ = world.planned(RelayPlan())
    world.leased(bob)
    assert len(world.nodes[bob].people.leases) == 1
    second, _ = world.planned(RelayPlan(0, RelayPolicy(mode="open")))
    world.run(20.0)
    here = world.where[first]
    world.cut.update(frozenset({here, other}) for other in world.where if other != here)
    end = world.now + REPLACED_SECONDS_MAX
    while [lease.v4 for lease in world.nodes[bob].people.leases] != [world.where[second]]:
        assert world.now < end, "no other place"
        world.run(1.0)
