"""The holder keeps its places: through restarts, deaths and moves of either side, with little traffic."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from meshcall.core import endpoint
from meshcall.relay.candidate import RelayCandidate, best
from meshcall.relay.holder import CandidatesWanted, RelayHolder, RelayLost
from meshcall.wire import relay as wire
from tests.relay.holder_world import HolderWorld
from tests.relay.relay_world import OPEN, key, place


def held(relays: int = 3) -> HolderWorld:
    world = HolderWorld(relays)
    world.offer(*range(1, relays + 1))
    world.run(2)
    assert len(world.leases) == 2
    return world


def test_two_leases_within_four_round_trips() -> None:
    world = HolderWorld()
    world.offer(1, 2, 3)
    world.run(0.31)
    assert len(world.leases) == 2
    assert all(world.reaches(lease) for lease in world.leases)


def test_an_idle_hour_costs_little() -> None:
    world = held()
    frames, messages = world.frames, world.messages
    world.run(3600)
    sent = (world.frames - frames) * (20 + 28) + (world.messages - messages) * 100
    assert sent * 8 / 3600 < 50, "bits per second, headers included, for two relays"
    assert world.dials == 2
    assert all(world.reaches(lease) for lease in world.leases)


def test_a_relay_that_starts_again_is_gone_back_to_with_the_same_lease() -> None:
    world = held()
    leases = world.leases
    world.run(5)
    first = next(number for number in (1, 2, 3) if key(number) == leases[0].relay)
    world.down.add(place(first))
    world.run(1.0)
    world.start_relay(first)
    # in a call: data on a flow that the relay does not know any more is answered so
    world.at_relay(place(first), world.where, wire.frame(wire.TO_FLOW, b"formerly", bytes(50)))
    world.run(0.5)
    assert world.leases == leases
    assert all(world.reaches(lease) for lease in leases)


def test_an_idle_holder_finds_out_at_its_next_check() -> None:
    world = held()
    leases = world.leases
    for number in (1, 2, 3):
        world.start_relay(number)
    world.run(22)
    assert world.leases == leases
    assert all(world.reaches(lease) for lease in leases)


def test_a_dead_relay_is_replaced() -> None:
    world = held()
    dead = next(number for number in (1, 2, 3) if key(number) == world.leases[0].relay)
    world.down.add(place(dead))
    world.run(40)
    assert len(world.leases) == 2
    assert all(lease.relay != key(dead) for lease in world.leases)
    assert any(isinstance(event, RelayLost) for event in world.events)
    assert all(world.reaches(lease) for lease in world.leases)


def test_while_paused_nothing_is_dialled_and_leases_are_kept_named() -> None:
    """A handshake is half a second of a line of 24 kbit/s, and a call is on it."""
    world = held()
    leases, dials = world.leases, world.dials
    world.holder.is_paused = True
    for number in (1, 2, 3):
        world.start_relay(number)  # all have forgotten us
    world.run(60)
    assert world.dials == dials
    assert world.leases == leases
    assert not any(isinstance(event, RelayLost) for event in world.events)
    world.holder.is_paused = False
    world.run(3)
    assert world.dials == dials + 2
    assert world.leases == leases
    assert all(world.reaches(lease) for lease in leases)


def test_a_relay_that_shuts_down_says_so_and_is_left_within_seconds() -> None:
    world = held()
    dead = next(number for number in (1, 2, 3) if key(number) == world.leases[0].relay)
    world.relays[place(dead)].shut_down(world.now)
    world.drain()
    world.down.add(place(dead))
    world.run(12)
    assert {lease.relay for lease in world.leases} == {key(number) for number in (1, 2, 3)} - {key(dead)}


def test_a_new_address_is_shown_to_the_relays() -> None:
    world = held()
    leases = world.leases
    world.where = place(8888)
    world.holder.network_changed(world.now)
    world.run(0.5)
    assert world.leases == leases
    assert world.dials == 2, "no new handshake"
    assert all(world.reaches(lease) for lease in leases)


def test_a_nat_that_moved_us_is_noticed_by_data_on_a_flow() -> None:
    world = held()
    world.where = place(8888)
    for where in world.relays:
        # any frame from the new place: the relay does not know it as the holder's
        world.at_relay(where, world.where, wire.frame(wire.TO_FLOW, b"whatever", bytes(20)))
    world.run(0.6)
    assert all(world.reaches(lease) for lease in world.leases)
    assert world.dials == 2


def test_lease_ids_rotate_with_overlap() -> None:
    world = held()
    old = world.leases
    world.holder.rotate(world.now)
    world.run(1)
    new = world.leases
    assert {lease.relay for lease in new} == {lease.relay for lease in old}
    assert not {lease.lease_id for lease in new} & {lease.lease_id for lease in old}
    assert all(world.reaches(lease) for lease in (*old, *new))
    world.run(4 * 3600)
    assert world.leases == new
    assert all(world.reaches(lease) for lease in new)
    assert not any(world.reaches(lease) for lease in old)
    assert all(len(relay.tables.leases) <= 1 for relay in world.relays.values())


def test_a_link_that_breaks_is_opened_again_and_the_lease_stays() -> None:
    world = held()
    leases = world.leases
    for link in list(world.links):
        del world.links[link]
        world.holder.closed(world.now, link)
    world.run(1)
    assert world.leases == leases
    world.run(3600)
    assert world.leases == leases
    assert all(world.reaches(lease) for lease in leases)


def test_a_relay_that_refuses_is_left_for_another() -> None:
    world = HolderWorld(3, policy=dataclasses.replace(OPEN, mode="list"))
    world.relays[place(2)].set_policy(0.0, OPEN)
    world.offer(1, 2, 3)
    world.run(5)
    assert [lease.relay for lease in world.leases] == [key(2)]
    assert any(isinstance(event, CandidatesWanted) for event in world.events)
    assert world.dials < 12


def test_without_candidates_it_asks_for_some_now_and_then() -> None:
    world = HolderWorld(0)
    world.run(100)
    assert 3 <= sum(isinstance(event, CandidatesWanted) for event in world.events) <= 5


def test_leaving_gives_the_leases_back() -> None:
    world = held()
    world.holder.close(world.now)
    world.run(0.2)
    assert world.leases == ()
    assert world.holder.next_wake() is None


def test_words_in_a_relays_name_lead_to_nothing_but_a_check_now_and_then() -> None:
    world = held()
    frames = world.frames
    for _ in range(500):
        for lease in world.leases:
            assert lease.v4 is not None
            forged = wire.frame(wire.STATE, lease.lease_id, b"guessed!", wire.UNKNOWN_LEASE)
            world.holder.receive(world.now, lease.v4, forged)  # type: ignore[arg-type]
        world.run(0.01)
    assert world.dials == 2
    assert world.frames - frames <= 2 * 5 / 0.1 + 4


@given(st.lists(st.tuples(st.integers(0, 5), st.binary(max_size=80)), max_size=20))
def test_no_bytes_make_the_holder_fail(junk: list[tuple[int, bytes]]) -> None:
    world = held(2)
    for kind, data in junk:
        source = place(1 + kind % 2)
        world.holder.receive(world.now, source, bytes([wire.MAGIC, kind + 4, 0, 0]) + data)
        world.holder.receive(world.now, source, data)
        world.holder.message(world.now, kind, data)
        world.holder.message(world.now, 1, bytes([wire.LEASE_CHANNEL, wire.LEASE_VERSION, kind]) + data)
    world.run(30)
    assert world.holder.outbox == []


def candidate(host: str, round_trip: float, number: int, *, home: bool = False, load: int = 0) -> RelayCandidate:
    return RelayCandidate(key(number), endpoint(host, 1), None, round_trip, load, home)


def test_choice_by_subnet_then_round_trip_and_load() -> None:
    near, same_net, far = (
        candidate("198.51.100.1", 0.01, 1),
        candidate("198.51.100.2", 0.02, 2),
        candidate("192.0.2.1", 0.2, 3),
    )
    assert best([far, same_net, near], []) == near
    assert best([far, same_net, near], [near]) == far
    assert best([same_net, near], [near]) == same_net
    assert best([near], [near]) is None
    loaded = candidate("203.0.113.1", 0.02, 4, load=100)
    assert best([loaded, candidate("203.0.113.9", 0.03, 5)], []) != loaded
    home = candidate("198.51.100.7", 0.3, 6, home=True)
    assert best([near, far, home], [near]) == home


def test_an_unlinked_relay_is_hung_up() -> None:
    holder = RelayHolder(0.0, rng=HolderWorld(0).holder._rng)
    holder.linked(0.0, key(1), 5)
    assert len(holder.requests) == 1


def test_a_relay_that_is_back_from_its_pause_does_not_keep_the_holder_awake() -> None:
    world = held(2)
    lost = next(number for number in (1, 2) if key(number) == world.leases[0].relay)
    world.down.add(place(lost))
    world.run(120)  # it was left, and tried again after its pause, more than once
    assert [lease.relay for lease in world.leases] == [key(3 - lost)]
    wakes, end = 0, world.now + 600
    while world.now < end:
        world.drain()
        due = world.holder.next_wake()
        assert due is not None
        world.now = max(due, world.now)
        before = world.holder.next_wake()
        world.holder.wake(world.now)
        wakes += 1
        after = world.holder.next_wake()
        assert after is None or after > world.now or after != before, "the same moment is asked for again"
        assert wakes < 2000, "ten minutes of a lost relay wake the holder thousands of times"
