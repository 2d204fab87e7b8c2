"""A record that was written before the network had grown: it moves to where callers will ask."""

from __future__ import annotations

from dataclasses import replace

from meshcall.record.blinding import blinded_public
from meshcall.record.events import RecordConfirmed, RecordPublished
from meshcall.record.publisher import THIN_SECONDS
from tests.record.record_world import OWNER, PERIOD, SUITE, World, device

OWNER_DAY = blinded_public(SUITE, OWNER.public, PERIOD)


def kinds(peer, kind):
    return [event for event in peer.events if isinstance(event, kind)]


def nearest_are_new(world, old):
    """A network that has grown: look-ups end on the nodes from number `old` on; the others still answer puts."""
    get = world.dht.get

    def grown(now, public):
        event = get(now, public)
        return replace(event, holders=tuple(holder for holder in event.holders if holder.node_id[0] >= old))

    world.dht.get = grown


def test_a_record_follows_a_network_that_grows_between_writing_and_reading_back():
    world = World()
    world.dht.stores = world.dht.stores[:1]
    peer = world.peer(1)
    peer.publish(device(1))
    world.run(2)
    assert [event.stored for event in kinds(peer, RecordPublished)] == [1]
    world.dht.stores += [{} for _ in range(8)]
    nearest_are_new(world, 1)
    world.run(15)
    assert kinds(peer, RecordPublished)[-1].stored == 9
    assert all(OWNER_DAY in store for store in world.dht.stores)
    assert peer.publisher.counters["widened"] == 1
    world.run(15)
    assert kinds(peer, RecordConfirmed) and peer.publisher.status(world.now, world.unix_time).periods[0].confirmed


def test_a_record_follows_a_network_that_grows_later():
    world = World()
    world.dht.stores = world.dht.stores[:2]
    peer = world.peer(1)
    peer.publish(device(1))
    world.run(30)
    assert [event.stored for event in kinds(peer, RecordPublished)] == [2]
    world.dht.stores += [{} for _ in range(8)]
    nearest_are_new(world, 2)
    world.run(THIN_SECONDS)
    assert all(OWNER_DAY in store for store in world.dht.stores[2:])
    puts = len(world.dht.puts)
    world.run(THIN_SECONDS * 4)
    assert len(world.dht.puts) == puts  # on enough nodes now


def test_a_network_that_stays_small_is_not_written_to_all_the_time():
    world = World()
    world.dht.stores = world.dht.stores[:3]
    peer = world.peer(1)
    peer.publish(device(1))
    world.run(3600 * 4)
    assert len(world.dht.puts) <= 10
