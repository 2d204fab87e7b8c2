"""How long an answer is waited for, and what becomes of requests without one."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshcall.core import Endpoint, endpoint
from meshcall.dht.pending import REQUESTS_MAX, Pending, Request
from meshcall.dht.rtt import (
    LOST_FACTOR,
    LOST_MIN_SECONDS,
    SLOW_MAX_SECONDS,
    SLOW_MIN_SECONDS,
    START_SECONDS,
    RoundTrips,
)

PEER = endpoint("10.0.0.1", 6881)
OTHER = endpoint("10.0.0.2", 6881)


def request(where: Endpoint = PEER, sent: float = 0.0) -> Request:
    return Request(where, None, b"ping", sent, None, None)


# Round trips


def test_before_anything_is_measured_the_start_value_counts() -> None:
    times = RoundTrips()
    assert times.slow_after(0.0) == START_SECONDS
    assert times.lost_after(START_SECONDS) == LOST_FACTOR * START_SECONDS
    times.add(0.1, 0.0)
    times.reset()
    assert times.slow_after(0.0) == START_SECONDS


@settings(max_examples=100)
@given(
    st.lists(st.floats(0.001, 3.0), min_size=1, max_size=60),
    st.floats(0.02, 0.6),
)
def test_a_known_peer_is_slow_after_one_and_a_half_to_three_of_its_round_trips(rtts: list[float], known: float) -> None:
    times = RoundTrips()
    for rtt in rtts:
        times.add(rtt, 0.0)
    slow = times.slow_after(known)
    assert max(1.5 * known, SLOW_MIN_SECONDS) - 1e-9 <= slow or slow == SLOW_MAX_SECONDS
    assert slow <= max(3 * known, SLOW_MIN_SECONDS) + 1e-9
    assert times.lost_after(slow) >= max(LOST_MIN_SECONDS, slow)


@settings(max_examples=100)
@given(st.lists(st.floats(0.0, 100.0), min_size=1, max_size=60))
def test_waiting_is_bounded_for_strangers_too(rtts: list[float]) -> None:
    times = RoundTrips()
    for rtt in rtts:
        times.add(rtt, 0.0)
    slow = times.slow_after(0.0)
    assert SLOW_MIN_SECONDS <= slow <= SLOW_MAX_SECONDS
    assert slow <= times.lost_after(slow) <= max(LOST_FACTOR * SLOW_MAX_SECONDS, LOST_MIN_SECONDS)


def test_strangers_get_two_to_three_round_trips_where_all_are_alike() -> None:
    times, rng = RoundTrips(), Random(1)
    for _ in range(200):
        times.add(rng.uniform(0.08, 0.16), 0.0)
    assert 0.16 < times.slow_after(0.0) < 3 * 0.12
    assert 0.16 < times.slow_after(0.12) < 3 * 0.12


def test_a_peer_s_own_round_trip_is_smoothed() -> None:
    times = RoundTrips()
    smoothed = times.add(0.1, 0.0)
    assert smoothed == 0.1
    assert times.add(0.5, smoothed) == pytest.approx(0.2)
    for _ in range(50):
        smoothed = times.add(0.3, smoothed)
    assert smoothed == pytest.approx(0.3, rel=0.01)


def test_waiting_follows_a_network_that_has_changed() -> None:
    times = RoundTrips()
    for _ in range(100):
        times.add(0.05, 0.0)
    fast = times.slow_after(0.0)
    for _ in range(100):
        times.add(0.6, 0.0)
    assert times.slow_after(0.0) > 0.6 > fast


# Requests


def test_a_request_is_slow_first_and_lost_later() -> None:
    pending = Pending(Random(1))
    one = request()
    assert pending.add(one, 0.3, 1.0)
    assert pending.next_moment() == 0.3
    assert pending.due(0.29) == []
    assert pending.due(0.3) == [(one, False)]
    assert pending.due(0.3) == []
    assert pending.next_moment() == 1.0
    assert len(pending) == 1
    assert pending.due(5.0) == [(one, True)]
    assert pending.next_moment() is None
    assert len(pending) == 0
    assert pending.match(one.transaction, PEER) is None


def test_an_answer_counts_until_the_request_is_lost() -> None:
    pending = Pending(Random(1))
    one = request()
    pending.add(one, 0.3, 1.0)
    pending.due(0.5)
    assert pending.match(one.transaction, PEER) is one
    assert pending.match(one.transaction, PEER) is None
    assert pending.next_moment() is None
    assert pending.due(5.0) == []


def test_an_answer_counts_only_from_where_the_request_went() -> None:
    pending = Pending(Random(1))
    one = request()
    pending.add(one, 0.3, 1.0)
    assert pending.match(one.transaction, OTHER) is None
    assert pending.match(one.transaction, Endpoint(PEER[:-2] + b"\0\1")) is None
    assert pending.match(b"", PEER) is None
    assert pending.match(one.transaction + b"x", PEER) is None
    assert pending.match(one.transaction, PEER) is one


def test_after_a_long_sleep_a_request_is_slow_and_then_lost_not_both_at_once() -> None:
    """Whoever was asked before the machine slept: its asker hears of both moments, in order."""
    pending = Pending(Random(1))
    one = request()
    pending.add(one, 0.3, 1.0)
    assert pending.due(1000.0) == [(one, False), (one, True)]
    assert len(pending) == 0


def test_no_more_than_the_bound_are_under_way() -> None:
    pending = Pending(Random(1))
    for number in range(REQUESTS_MAX):
        assert pending.add(request(sent=float(number)), 10.0, 20.0)
    assert not pending.add(request(), 10.0, 20.0)
    assert len(pending) == REQUESTS_MAX
    pending.due(10.0)
    pending.due(20.0)
    assert pending.add(request(), 30.0, 40.0)
    pending.clear()
    assert len(pending) == 0
    assert pending.next_moment() is None


def test_transaction_ids_are_unpredictable_and_unique() -> None:
    first, second = Pending(Random(1)), Pending(Random(2))
    ids = []
    for pending in (first, second):
        for _ in range(500):
            one = request()
            pending.add(one, 1.0, 2.0)
            ids.append(one.transaction)
            assert len(one.transaction) == 4
    assert len(set(ids[:500])) == 500
    assert not set(ids[:500]) & set(ids[500:])


def test_what_was_answered_leaves_the_queue_of_moments() -> None:
    """Ten thousand answered requests leave nothing behind once their moments have passed."""
    pending = Pending(Random(1))
    now = 0.0
    for _ in range(10_000):
        one = request(sent=now)
        pending.add(one, now + 0.3, now + 1.0)
        assert pending.match(one.transaction, PEER) is one
        now += 0.001
        pending.next_moment()
        pending.due(now)
    assert len(pending._heap) < 400
    pending.due(now + 5)
    assert len(pending._heap) == 0


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(["add", "answer", "wait"]), st.floats(0.0, 2.0)), max_size=60))
def test_every_request_ends_exactly_once(steps: list[tuple[str, float]]) -> None:
    pending, now = Pending(Random(1)), 0.0
    open_requests: list[Request] = []
    slow: set[int] = set()
    lost: set[int] = set()
    answered: set[int] = set()

    def wait() -> None:
        for one, is_lost in pending.due(now):
            if is_lost:
                assert id(one) in slow
                assert id(one) not in lost | answered
                lost.add(id(one))
            else:
                assert id(one) not in slow
                slow.add(id(one))

    for step, amount in steps:
        if step == "add":
            one = request(sent=now)
            pending.add(one, now + amount, now + 3 * amount)
            open_requests.append(one)
        elif step == "answer" and open_requests:
            one = open_requests[int(amount * 1000) % len(open_requests)]
            if pending.match(one.transaction, PEER) is one:
                assert id(one) not in lost
                answered.add(id(one))
        else:
            now += amount
            wait()
    now += 100
    wait()
    assert {id(one) for one in open_requests} == lost | answered
    assert not lost & answered
    assert len(pending) == 0
