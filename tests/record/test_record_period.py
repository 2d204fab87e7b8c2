"""Periods: where they begin, and which of them are published and looked up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshcall.record.period import (
    CLOCK_TOLERANCE_SECONDS,
    LINGER_SECONDS,
    OVERLAP_SECONDS,
    PERIOD_MAX,
    PERIOD_SECONDS,
    next_change,
    period_at,
    period_end,
    period_start,
    periods_to_look_up,
    periods_to_publish,
    shift_of,
)

keys = st.binary(min_size=32, max_size=32)
times = st.floats(1_000_000, 4_000_000_000) | st.integers(1_000_000, 4_000_000_000)


@given(keys, times)
def test_every_time_is_in_its_period(public, unix_time):
    period = period_at(public, unix_time)
    assert period_start(public, period) <= unix_time < period_end(public, period)
    assert period_end(public, period) - period_start(public, period) == PERIOD_SECONDS
    assert period_start(public, period) % PERIOD_SECONDS == shift_of(public)


def test_boundaries_are_spread_over_the_day():
    quarters = [shift_of(bytes([number]) * 32) * 4 // PERIOD_SECONDS for number in range(200)]
    assert all(25 < quarters.count(quarter) < 75 for quarter in range(4))


def test_publishing_and_looking_up_around_a_boundary():
    public = bytes(32)
    start = period_start(public, 100)
    end = period_end(public, 100)
    for unix_time, published, looked_up in [
        (start, (100, 99), (100, 99)),
        (start + CLOCK_TOLERANCE_SECONDS - 1, (100, 99), (100, 99)),
        (start + CLOCK_TOLERANCE_SECONDS, (100, 99), (100,)),
        (start + LINGER_SECONDS - 1, (100, 99), (100,)),
        (start + LINGER_SECONDS, (100,), (100,)),
        (end - OVERLAP_SECONDS - 1, (100,), (100,)),
        (end - OVERLAP_SECONDS, (100, 101), (100,)),
        (end - CLOCK_TOLERANCE_SECONDS - 1, (100, 101), (100,)),
        (end - CLOCK_TOLERANCE_SECONDS, (100, 101), (100, 101)),
        (end - 1, (100, 101), (100, 101)),
        (end, (101, 100), (101, 100)),
    ]:
        assert periods_to_publish(public, unix_time) == published
        assert periods_to_look_up(public, unix_time) == looked_up


@given(keys, times, st.floats(-5399, 5399), st.floats(-5399, 5399))
def test_wrong_clocks_meet(public, unix_time, callee_error, caller_error):
    """They meet while their clocks are less than three hours apart."""
    published = periods_to_publish(public, unix_time + callee_error)
    assert set(published) & set(periods_to_look_up(public, unix_time + caller_error))


@given(keys, times)
def test_next_change_is_the_next(public, unix_time):
    change = next_change(public, unix_time)
    assert change > unix_time
    now = periods_to_publish(public, unix_time)
    assert set(periods_to_publish(public, change)) != set(now) or periods_to_publish(public, change)[0] != now[0]
    assert periods_to_publish(public, (unix_time + change) / 2) == now
    assert periods_to_publish(public, change - 0.01) == now or change - 0.01 < unix_time


def test_clocks_that_were_never_set():
    public = bytes(32)
    for unix_time in (-1e9, 0, 1.5, shift_of(public) - 1):
        assert period_at(public, unix_time) == 0
        assert periods_to_publish(public, unix_time) == periods_to_look_up(public, unix_time) == (0,)
        assert next_change(public, unix_time) > unix_time
    assert periods_to_publish(public, shift_of(public)) == (0,)
    assert period_at(public, 1e300) == PERIOD_MAX
    assert (PERIOD_MAX + 1).to_bytes(8, "big")
