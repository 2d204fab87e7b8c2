"""The publisher in virtual time, alone and with other devices of the same person."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from meshcall.dht.events import GetFinished, Holder, PutFinished
from meshcall.dht.items import MutableItem
from meshcall.errors import UsageError
from meshcall.record.blinding import blinded_key, blinded_public
from meshcall.record.events import PublishFailed, RecordConfirmed, RecordPublished
from meshcall.record.period import PERIOD_SECONDS
from meshcall.record.publisher import (
    CLOCK_CHECK_SECONDS,
    CONFLICTS_MAX,
    OPERATION_SECONDS_MAX,
    REPUBLISH_SECONDS,
    RETRY_SECONDS_MAX,
    STAGGER_SECONDS,
)
from meshcall.record.seal import VALUE_BYTES, VALUE_HEAD, next_seq
from meshcall.wire.record import TIME_MAX, Revocation
from tests.record.record_world import NO_REPORT, NOON, OWNER, PERIOD, START, SUITE, World, device, lease, where


def kinds(peer, kind):
    return [event for event in peer.events if isinstance(event, kind)]


def test_publishes_and_reads_back():
    world = World()
    peer = world.peer(1)
    assert peer.publisher.next_wake() is None
    peer.publish(replace(device(1), leases=(lease(1),)))
    world.run(3)
    assert [event.period for event in kinds(peer, RecordPublished)] == [PERIOD]
    (entry,) = world.newest().devices
    assert entry.leases == (lease(1),)
    assert abs(entry.time - world.unix_time) < 5
    status = peer.publisher.status(world.now, world.unix_time)
    assert status.up_to_date and not status.periods[0].confirmed and status.periods[0].stored == 8
    world.run(12)
    assert len(kinds(peer, RecordConfirmed)) == 1
    status = peer.publisher.status(world.now, world.unix_time)
    assert status.periods[0].confirmed and status.periods[0].state == "waiting"
    assert status.periods[0].next_seconds > 1800
    assert status.periods[0].starts == START


def test_published_within_two_seconds():
    world = World()
    peer = world.peer(1)
    peer.publish(device(1))
    world.run(2.0)
    assert world.listed() == [1]


def test_every_value_has_one_size():
    world = World()
    one, two = world.peer(1), world.peer(2)
    one.publish(device(1))
    two.publish(replace(device(2), leases=tuple(lease(n, v6=True) for n in (1, 2, 3, 4))))
    world.run(30)
    one.publish(None)
    world.run(30)
    two.publish(None)
    world.run(30)
    assert {len(item.value) for _, item in world.dht.puts} == {VALUE_BYTES}
    assert world.listed() == []


def test_republishes_before_half_of_the_life():
    world = World()
    peer = world.peer(1)
    peer.publish(device(1))
    world.run(5 * 3600)
    times = [when for when, _ in world.dht.puts]
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert 5 <= len(times) <= 7
    assert all(0.8 * REPUBLISH_SECONDS < gap < REPUBLISH_SECONDS + 5 for gap in gaps)
    assert len(set(gaps)) == len(gaps)
    seqs = [item.seq for _, item in world.dht.puts]
    assert seqs == sorted(set(seqs))


def test_short_lived_entry_is_renewed_in_time():
    world = World()
    peer = world.peer(1)
    peer.publish(replace(device(1), lifetime=1200))
    for _ in range(30):
        world.run(300)
        (entry,) = world.newest().devices
        assert entry.time + entry.lifetime > world.unix_time


def test_changes_are_gathered():
    world = World()
    peer = world.peer(1)
    peer.publish(device(1))
    world.run(60)
    before = len(world.dht.puts)
    for number in (1, 2, 3):
        peer.publish(replace(device(1), leases=tuple(lease(n) for n in range(1, number + 1))))
        world.run(0.1)
    assert not peer.publisher.up_to_date
    world.run(4)
    assert len(world.dht.puts) == before + 1
    assert len(world.newest().devices[0].leases) == 3
    assert peer.publisher.up_to_date


def test_a_restless_entry_does_not_flood():
    world = World()
    peer = world.peer(1)
    for number in range(120):
        peer.publish(replace(device(1), capabilities=number))
        world.run(0.5)
    assert len(world.dht.puts) <= 60 / 5 + 2
    world.run(20)
    assert world.newest().devices[0].capabilities == 119


def test_change_while_writing_is_published_too():
    world = World()
    peer = world.peer(1)
    peer.publish(device(1))
    while not world.dht.puts:
        world.run(0.01)
    peer.publish(replace(device(1), capabilities=1))
    world.run(10)
    assert world.newest().devices[0].capabilities == 1


def test_same_entry_again_changes_nothing():
    world = World()
    peer = world.peer(1)
    peer.publish(device(1))
    world.run(60)
    peer.publish(replace(device(1), time=5))
    world.run(60)
    assert len(world.dht.puts) == 1


def test_refuses_what_cannot_be_encoded():
    world = World()
    peer = world.peer(1)
    with pytest.raises(UsageError, match="cannot be published"):
        peer.publish(replace(device(1), leases=tuple(lease(n) for n in range(1, 9))))
    with pytest.raises(UsageError, match="600 seconds"):
        peer.publish(replace(device(1), lifetime=5))
    assert peer.publisher.next_wake() is None


def test_next_period_is_there_before_it_begins():
    world = World(START + PERIOD_SECONDS - 4 * 3600)
    peer = world.peer(1)
    peer.publish(device(1))
    world.run(3600 - 10)
    assert world.listed(PERIOD + 1) == []
    world.run(300 + STAGGER_SECONDS + 10)
    assert world.listed(PERIOD + 1) == [1]
    statuses = peer.publisher.status(world.now, world.unix_time).periods
    assert [status.period for status in statuses] == [PERIOD, PERIOD + 1]
    world.run(3 * 3600 + 1800)
    assert world.listed(PERIOD) == world.listed(PERIOD + 1) == [1]
    statuses = peer.publisher.status(world.now, world.unix_time).periods
    assert [status.period for status in statuses] == [PERIOD + 1, PERIOD]
    world.run(2 * 3600)
    assert [status.period for status in peer.publisher.status(world.now, world.unix_time).periods] == [PERIOD + 1]


def test_found_at_any_time_over_three_days():
    world = World(START + 1000)
    peer = world.peer(1)
    peer.publish(device(1))
    world.run(5)
    for _ in range(3 * 48):
        assert world.listed() == [1]
        world.run(1800)


def test_present_and_next_are_not_put_at_one_moment():
    world = World(START + PERIOD_SECONDS - 3600)
    peer = world.peer(1)
    peer.publish(device(1))
    world.run(60)
    (one, _), (two, _) = world.dht.puts
    assert abs(one - two) > 0.5


def test_two_devices_that_begin_together():
    for seed in range(20):
        world = World(seed=seed)
        one, two = world.peer(1), world.peer(2)
        one.publish(device(1))
        two.publish(device(2))
        world.run(60)
        assert world.listed() == [1, 2], seed


def test_five_devices_that_change_at_once():
    world = World()
    peers = [world.peer(serial) for serial in range(1, 6)]
    for peer in peers:
        peer.publish(device(peer.entry.serial))
    world.run(120)
    for peer in peers:
        peer.publish(replace(device(peer.entry.serial), capabilities=1, leases=(lease(1),)))
    world.run(180)
    assert world.listed() == [1, 2, 3, 4, 5]
    assert all(entry.capabilities == 1 and len(entry.leases) == 1 for entry in world.newest().devices)


def test_devices_whose_clocks_differ():
    world = World()
    one, two = world.peer(1, clock_error=-1500), world.peer(2, clock_error=900)
    one.publish(device(1))
    two.publish(device(2))
    world.run(4 * 3600)
    assert world.listed() == [1, 2]


def test_a_device_that_stopped_is_dropped_after_its_lifetime():
    world = World()
    one, two = world.peer(1), world.peer(2)
    one.publish(device(1))
    two.publish(device(2))
    world.run(60)
    two.armed = -1.0  # switched off
    world.run(3600)
    assert world.listed() == [1, 2]
    world.run(3.5 * 3600)
    assert world.listed() == [1]


def test_withdrawing_leaves_the_others():
    world = World(START + PERIOD_SECONDS - 3600)
    one, two = world.peer(1), world.peer(2)
    one.publish(device(1))
    two.publish(device(2))
    world.run(120)
    two.publish(None)
    world.run(120)
    assert world.listed() == world.listed(PERIOD + 1) == [1]
    assert two.publisher.up_to_date
    world.run(2 * PERIOD_SECONDS)
    assert world.listed() == [1]
    assert two.publisher.next_wake() is None
    two.publish(device(2))
    world.run(60)
    assert world.listed() == [1, 2]


def test_withdrawing_at_once_puts_nothing():
    world = World()
    peer = world.peer(1)
    peer.publish(device(1))
    peer.publish(None)
    world.run(600)
    assert world.dht.puts == []


def test_lost_puts_are_repeated():
    world = World(seed=3)
    world.dht.loss = 0.6
    peer = world.peer(1)
    peer.publish(device(1))
    world.run(300)
    assert world.listed() == [1]


def test_stored_and_gone_is_put_again_more_widely():
    world = World()
    peer = world.peer(1)
    peer.publish(device(1))
    world.run(3)
    assert len(world.dht.puts) == 1
    for store in world.dht.stores:
        store.clear()
    world.run(20)
    assert peer.publisher.counters["not read back"] == 1
    assert len(world.dht.puts) == 2
    assert world.dht.puts[0][1] == world.dht.puts[1][1]
    assert world.listed() == [1]
    assert len(kinds(peer, RecordConfirmed)) == 1


def test_nodes_that_store_and_forget_are_reported():
    world = World()
    peer = world.peer(1)
    peer.publish(device(1))
    for _ in range(600):
        world.run(0.1)
        for store in world.dht.stores:
            store.clear()
    failed = kinds(peer, PublishFailed)
    assert failed and "not found" in failed[0].reason
    assert peer.publisher.status(world.now, world.unix_time).periods[0].failure


def test_no_network_backs_off_and_recovers_at_once():
    world = World()
    world.dht.down = True
    peer = world.peer(1)
    peer.publish(device(1))
    world.run(2 * 3600)
    failed = kinds(peer, PublishFailed)
    assert 8 < len(failed) < 40
    assert failed[-1].retry_seconds <= RETRY_SECONDS_MAX
    assert not peer.publisher.up_to_date
    world.dht.down = False
    peer.publisher.publish_now(world.now, peer.unix_time)
    peer.drain()
    world.run(2.5)
    assert world.listed() == [1]


def test_answers_that_never_come():
    world = World()
    world.swallow = True
    peer = world.peer(1)
    peer.publish(device(1))
    world.run(OPERATION_SECONDS_MAX + 2)
    assert len(kinds(peer, PublishFailed)) == 1
    world.swallow = False
    world.run(30)
    assert world.listed() == [1]


def test_answers_for_nobody_are_counted():
    world = World()
    peer = world.peer(1)
    peer.publish(device(1))
    peer.publisher.answered(world.now, world.unix_time, 99, GetFinished(0, None, (), NO_REPORT))
    assert peer.publisher.counters["answer too late"] == 1


def test_nodes_that_always_refuse_are_a_bounded_nuisance():
    world = World()
    refusal = world.dht.refusal
    world.dht.refusal = lambda now, node, request: 302 if node < 3 else refusal(now, node, request)
    peer = world.peer(1)
    peer.publish(device(1))
    world.run(3600 * 3)
    assert len(world.dht.puts) <= 9
    world.dht.refusal = lambda now, node, request: 301
    peer.publish(replace(device(1), capabilities=1))
    before = len(world.dht.puts)
    world.run(60)
    assert CONFLICTS_MAX < len(world.dht.puts) - before < 8 * CONFLICTS_MAX
    assert any("again and again" in event.reason for event in kinds(peer, PublishFailed))


@pytest.mark.parametrize("step", [-7200.0, 7200.0, -2 * PERIOD_SECONDS, 2 * PERIOD_SECONDS, -NOON + 10])
def test_wrong_clock_that_is_set_right(step):
    world = World()
    peer = world.peer(1, clock_error=step)
    peer.publish(device(1))
    world.run(600)
    peer.clock_error = 0.0
    world.run(CLOCK_CHECK_SECONDS + STAGGER_SECONDS + 5)
    assert world.listed() == [1]
    (entry,) = world.newest().devices
    assert abs(entry.time - world.unix_time) < CLOCK_CHECK_SECONDS + 30
    assert peer.publisher.counters["clock step"] == 1
    world.run(3600)
    assert world.listed() == [1]


def test_clock_beyond_what_the_format_holds():
    world = World()
    peer = world.peer(1, clock_error=float(TIME_MAX) * 3)
    peer.publish(replace(device(1), expiry=2**40 - 1))
    world.run(100)
    assert kinds(peer, RecordPublished)


def junk_item(seq, value):
    from meshcall.dht.items import signing_buffer

    key = blinded_key(SUITE, OWNER.key, PERIOD)
    return MutableItem(key.public, b"", seq, value, SUITE.sign(key, signing_buffer(b"", seq, value)))


def test_what_cannot_be_read_is_replaced():
    world = World()
    junk = junk_item(int(NOON) + 5000, VALUE_HEAD + bytes(VALUE_BYTES - len(VALUE_HEAD)))
    for store in world.dht.stores:
        store[junk.public] = (world.now + 7200, junk)
    peer = world.peer(1)
    peer.publish(device(1))
    world.run(60)
    assert world.listed() == [1]
    assert peer.publisher.counters["record seal"] >= 1
    assert next(event for event in peer.events if isinstance(event, RecordPublished)).seq == junk.seq + 1


def test_a_forged_item_is_no_base():
    world = World()
    peer = world.peer(1)
    peer.publish(device(1))
    world.run(60)
    forged = replace(world.dht.puts[0][1], seq=2**63 - 1)
    peer.publish(replace(device(1), capabilities=1))
    while not peer.publisher.requests:
        world.now += 0.1
        peer.publisher.wake(world.now, world.unix_time)
    (get,) = peer.publisher.requests
    peer.publisher.requests.clear()
    holders = (Holder(bytes(20), where(0), b"t"),)
    peer.publisher.answered(world.now, world.unix_time, get.tag, GetFinished(0, forged, holders, NO_REPORT))
    (put,) = peer.publisher.requests
    assert put.item.seq <= world.unix_time + 1
    assert put.cas is None
    peer.publisher.answered(world.now, world.unix_time, put.tag, PutFinished(0, 1, {}, NO_REPORT))


def test_highest_seq_does_not_break_it():
    world = World()
    junk = junk_item(2**63 - 1, VALUE_HEAD + bytes(VALUE_BYTES - len(VALUE_HEAD)))
    for store in world.dht.stores:
        store[junk.public] = (world.now + 7200, junk)
    peer = world.peer(1)
    peer.publish(device(1))
    world.run(120)
    assert kinds(peer, PublishFailed)
    assert next_seq(2**63 - 1, 0) == 2**63 - 1


def test_revocations_travel_between_devices():
    world = World()
    one, two, three = world.peer(1), world.peer(2), world.peer(3)
    for peer in (one, two, three):
        peer.publish(device(peer.entry.serial))
    world.run(120)
    one.publisher.set_revoked(world.now, world.unix_time, [Revocation(2, int(world.unix_time) + 10_000_000)])
    one.drain()
    world.run(120)
    assert world.listed() == [1, 3]
    world.run(2 * 3600)
    assert world.listed() == [1, 3]
    assert [revocation.serial for revocation in three.publisher.revoked] == [2]
    assert two.publisher.status(world.now, world.unix_time).revoked
    assert not one.publisher.status(world.now, world.unix_time).revoked
    world.run(PERIOD_SECONDS)
    assert [revocation.serial for revocation in world.newest().revoked] == [2]


def test_puts_are_under_the_blinded_key_only():
    world = World(START + PERIOD_SECONDS - 600)
    peer = world.peer(1)
    peer.publish(device(1))
    world.run(1200)
    allowed = {blinded_public(SUITE, OWNER.public, period) for period in (PERIOD, PERIOD + 1)}
    assert {item.public for _, item in world.dht.puts} == allowed
    assert all(OWNER.public not in item.value for _, item in world.dht.puts)
