"""Rates, the budget for long answers, and who has proven to be where they say."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from meshcall.core import Endpoint, endpoint
from meshcall.dht.limits import (
    AMPLIFIED_SUBNET_BURST_BYTES,
    AMPLIFIED_SUBNET_BYTES_PER_SECOND,
    AMPLIFIED_TOTAL_BURST_BYTES,
    AMPLIFIED_TOTAL_BYTES_PER_SECOND,
    PROVEN_SHARE,
    AmplificationBudget,
    Proven,
    RateLimiter,
)

CALLS = st.lists(
    st.tuples(st.floats(0, 3), st.integers(0, 5), st.floats(0.1, 4), st.booleans()), min_size=1, max_size=150
)


def source(number: int) -> bytes:
    return (number * 2654435761 % 2**32).to_bytes(4, "big")


@settings(deadline=None)
@given(CALLS, st.floats(0.5, 20), st.floats(1, 20), st.integers(1, 8))
def test_never_more_than_rate_times_t_plus_burst_in_any_window(
    calls: list[tuple[float, int, float, bool]], rate: float, burst: float, sources_max: int
) -> None:
    limiter = RateLimiter(rate, burst, sources_max, total_per_second=2 * rate, total_burst=3 * burst)
    now = 0.0
    allowed: list[tuple[float, int, float]] = []
    for wait, who, cost, proven in calls:
        now += wait
        if limiter.allow(now, source(who), cost, proven):
            allowed.append((now, who, cost))
        assert len(limiter) <= sources_max
    for start in range(len(allowed)):
        sums = dict.fromkeys(range(6), 0.0)
        total = 0.0
        for at, who, cost in allowed[start:]:
            sums[who] += cost
            total += cost
            passed = at - allowed[start][0]
            assert sums[who] <= rate * passed + burst + 1e-6
            assert total <= 2 * rate * passed + 3 * burst + 1e-6


@given(CALLS)
def test_a_source_within_its_rate_is_always_served(calls: list[tuple[float, int, float, bool]]) -> None:
    limiter = RateLimiter(2.0, 4.0, 100)
    now = 0.0
    spent: dict[int, float] = {}
    for wait, who, cost, _ in calls:
        now += wait
        spent = {each: max(0.0, left - 2.0 * wait) for each, left in spent.items()}
        fits = spent.get(who, 0.0) + cost <= 4.0
        if abs(spent.get(who, 0.0) + cost - 4.0) > 1e-6:
            assert limiter.allow(now, source(who), cost) is fits
            if fits:
                spent[who] = spent.get(who, 0.0) + cost


def test_many_sources_do_not_wash_a_limited_one_clean() -> None:
    limiter = RateLimiter(1.0, 10.0, 50)
    villain = b"\xcb\0\x71\x07"
    while limiter.allow(0.0, villain):
        pass
    for number in range(5000):
        limiter.allow(0.001, source(number))
        assert not limiter.allow(0.001, villain)
    assert len(limiter) <= 50


def test_known_sources_are_served_while_the_table_is_full() -> None:
    limiter = RateLimiter(1.0, 10.0, 50)
    friend = b"\xcb\0\x71\x07"
    assert limiter.allow(0.0, friend, 5.0)
    flooded = sum(limiter.allow(0.001, source(number)) for number in range(5000))
    assert flooded <= 49 + 17 * 10
    assert sum(limiter.allow(0.002, friend) for _ in range(10)) == 5


def test_the_table_is_free_again_when_debts_are_paid() -> None:
    limiter = RateLimiter(10.0, 10.0, 50)
    for number in range(5000):
        limiter.allow(0.0, source(number))
    served = sum(limiter.allow(2.0, source(number)) for number in range(10_000, 10_050))
    assert served == 50
    assert len(limiter) <= 50


def test_a_flood_from_made_up_sources_leaves_a_share_of_the_total_to_the_proven() -> None:
    limiter = RateLimiter(10.0, 20.0, 4096, total_per_second=100.0, total_burst=100.0)
    served = 0
    now = 0.0
    for number in range(20_000):
        now += 0.0005
        limiter.allow(now, source(number))
        if number % 400 == 399:  # five a second
            served += limiter.allow(now, b"\xcb\0\x71\x07", proven=True)
    assert served == 50
    assert 0 < PROVEN_SHARE < 1


def test_with_a_total_the_table_of_sources_hardly_fills() -> None:
    limiter = RateLimiter(50.0, 100.0, 4096, total_per_second=1000.0, total_burst=1000.0)
    most = 0
    for number in range(50_000):
        limiter.allow(number * 0.0001, source(number))
        most = max(most, len(limiter))
    # the bound of the docstring, twice for what a sweep has not yet taken away
    assert most <= 2 * (1000 + 1000 / 50)


def test_the_budget_bounds_what_a_spoofed_victim_receives() -> None:
    budget = AmplificationBudget()
    seconds = 60
    sent = 0
    for step in range(seconds * 200):
        if budget.allow(step / 200, b"\xcb\0\x71", 1400):
            sent += 1400
    assert sent <= AMPLIFIED_SUBNET_BURST_BYTES + seconds * AMPLIFIED_SUBNET_BYTES_PER_SECOND
    assert sent >= 0.9 * seconds * AMPLIFIED_SUBNET_BYTES_PER_SECOND


def test_the_budget_bounds_what_all_victims_receive() -> None:
    budget = AmplificationBudget()
    sent = 0
    for step in range(20_000):
        if budget.allow(step / 1000, source(step)[:3], 1400):
            sent += 1400
    assert sent <= AMPLIFIED_TOTAL_BURST_BYTES + 20 * AMPLIFIED_TOTAL_BYTES_PER_SECOND


def test_a_newcomer_can_get_several_full_items_at_once() -> None:
    budget = AmplificationBudget()
    assert sum(budget.allow(0.0, b"\xcb\0\x71", 1400) for _ in range(100)) >= 16


def test_proof_lives_between_half_and_all_of_its_life() -> None:
    proven = Proven(100, 600.0)
    here = endpoint("203.0.113.7", 6881)
    assert not proven.has(0.0, here)
    proven.add(1000.0, here)
    assert proven.has(1299.0, here)
    assert not proven.has(1601.0, here)
    assert not proven.has(1000.0, endpoint("203.0.113.7", 6882))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 400), st.integers(0, 30), st.booleans()), max_size=100))
def test_proof_is_bounded_and_never_too_old(steps: list[tuple[float, int, bool]]) -> None:
    proven = Proven(16, 600.0)
    now = 0.0
    added: dict[int, float] = {}
    for wait, port, adds in steps:
        now += wait
        where = Endpoint(bytes((203, 0, 113, 7, 0, port)))
        if adds:
            proven.add(now, where)
            added[port] = now
            assert proven.has(now, where)
        elif proven.has(now, where):
            assert now - added[port] <= 600.0
        assert len(proven) <= 16


def test_the_newest_proofs_survive_a_crowd() -> None:
    proven = Proven(100, 600.0)
    crowd = [endpoint(f"203.0.113.{n % 250 + 1}", 1000 + n) for n in range(1000)]
    for each in crowd:
        proven.add(0.0, each)
    assert all(proven.has(0.0, each) for each in crowd[-50:])
    assert [proven.has(0.0, each) for each in crowd[:900]] == [False] * 900
    assert all(len(a) == len(b) for a, b in pairwise(crowd))
