"""Policy and capacity: what is right in each network, and nothing but slow, bounded reactions to nonsense."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshcall.audio import policy
from meshcall.audio.blocked import BLOCK_QUEUE_SECONDS_MAX
from meshcall.audio.capacity import Capacity
from meshcall.audio.copies import SINGLE_SECONDS
from meshcall.audio.policy import FRAME_BITS_LEAST, Grade, Losses, covers_for, distance_of, grade_of, shape_for
from meshcall.audio.pulse import PULSE_SECONDS
from meshcall.audio.steps import RING, STEPS
from meshcall.wire.voice import (
    FRAME_BYTES_MAX,
    PACKET_BYTES_MAX,
    WINDOW_MAX,
    Cover,
    Report,
    frame_bytes_for,
    is_implied,
)
from tests.audio.paper_line import START, TICK, Line, drive

reports = st.builds(
    Report, st.floats(0, 1), st.floats(0, 31.8), st.floats(0, 1), st.floats(0, 0.51), st.floats(0, 1.02)
)
grades = st.sampled_from(list(Grade))


def share_at(rates: list[tuple[float, int]], bits: int, begin: float, end: float) -> float:
    """Of the time from `begin` to `end` seconds, at this very rate."""
    ends = [at for at, _ in rates[1:]] + [START + end]
    spans = [
        min(until, START + end) - max(at, START + begin)
        for (at, rate), until in zip(rates, ends, strict=True)
        if rate == bits
    ]
    return sum(max(0.0, span) for span in spans) / (end - begin)


def share_below(rates: list[tuple[float, int]], bits: int, seconds: float) -> float:
    """Of the time, at rates below."""
    ends = [at for at, _ in rates[1:]] + [START + seconds]
    return sum(end - at for (at, rate), end in zip(rates, ends, strict=True) if rate < bits) / seconds


def test_a_free_path_is_used_up_to_the_limit_and_no_further() -> None:
    for limit, best in ((70_000, 70_000), (58_000, 58_000), (100_000, 96_000), (20_000, 18_000), (1, 18_000)):
        capacity, rates, _ = drive(30, Line(1e7), limit=limit)
        assert capacity.step.bits_per_second == best
        assert max(rate for _, rate in rates) == best
        assert len(rates) <= 2


@pytest.mark.parametrize(("bits", "settles"), [(48_000, 45_000), (24_000, 22_500), (33_000, 30_000), (64_000, 58_000)])
def test_a_narrow_line_is_found_and_its_queue_drained(bits: int, settles: int) -> None:
    _, rates, queues = drive(28, Line(bits))
    first_down = next(at for at, rate in rates if rate < bits) - START
    assert first_down < (1.6 if bits < 50_000 else 7)
    after = queues[int(12 / TICK) :]
    assert max(after) < 0.15
    assert sum(after) / len(after) < 0.02
    assert max(rate for _, rate in rates[-2:]) >= settles
    assert share_at(rates, settles, 20, 28) > 0.75


@pytest.mark.parametrize("bits", [24_000, 48_000])
def test_a_step_that_failed_is_tried_ever_more_seldom_and_for_a_moment(bits: int) -> None:
    _, rates, queues = drive(600, Line(bits))
    tries = [at for at, rate in rates if rate > bits and at > START + 15]
    assert 5 <= len(tries) <= 9
    gaps = [b - a for a, b in pairwise(tries)]
    assert all(later > before - 1 for before, later in pairwise(gaps))
    assert gaps[-1] > BLOCK_QUEUE_SECONDS_MAX
    above = sum(end - at for (at, rate), (end, _) in pairwise(rates) if rate > bits and at > START + 15)
    assert above < len(tries) * (PULSE_SECONDS + 2 * TICK), "each trial is taken back before a queue is told of"
    assert max(queues[int(15 / TICK) :]) < 0.09


@pytest.mark.parametrize("wider", [60_000, 1e7])
def test_a_line_that_becomes_wide_again_is_used_within_a_minute_or_so(wider: float) -> None:
    line = Line(24_000)
    capacity, _, _ = drive(60, line)
    line.bits = wider
    best = 70_000 if wider > 70_000 else 58_000
    _, rates, _ = drive(100, line, capacity=capacity, start=START + 60)
    assert next(at for at, rate in rates if rate >= best) - START - 60 < 80


def test_packets_sent_twice_that_make_a_queue_are_sent_once_from_then_on_and_the_rate_stays() -> None:
    capacity, _, _ = drive(15, Line(1e7))
    assert capacity.is_wide
    line, now = Line(100_000), START + 15
    for _ in range(150):
        copies = 1 + capacity.is_wide
        line.carry(now, copies * capacity.step.bits_per_second)
        if copies == 2:
            capacity.doubled(now)
        capacity.reported(now, line.report(now))
        now += TICK
    assert not capacity.is_wide
    assert capacity.step.bits_per_second == 70_000
    drive(SINGLE_SECONDS - 5, line, capacity=capacity, start=now)
    assert not capacity.is_wide
    drive(10, line, capacity=capacity, start=now + SINGLE_SECONDS - 5)
    assert capacity.is_wide


def test_a_change_of_path_leaves_what_is_known_of_our_own_line() -> None:
    line = Line(24_000)
    capacity, _, _ = drive(12, line)
    capacity.path_changed(START + 12)
    assert capacity.is_narrow
    _, rates, _ = drive(8, line, capacity=capacity, start=START + 12)
    assert max(rate for _, rate in rates) <= 24_000


@pytest.mark.parametrize("loss", [0.05, 0.1, 0.2, 0.3, 0.5])
def test_random_loss_does_not_starve_the_rate(loss: float) -> None:
    chance = Random(7)
    history = [chance.random() < loss for _ in range(100)]

    def report(_: float, seen: Report) -> Report:
        history.append(chance.random() < loss)
        del history[0]
        return Report(loss=sum(history) / 100, burst=1.2, queue=seen.queue)

    _, rates, _ = drive(300, Line(1e7), report)
    assert share_below(rates, 58_000, 300) < 0.02
    assert share_below(rates, 70_000, 300) < 0.2


def test_loss_that_falls_with_the_rate_lowers_it_though_nothing_queues() -> None:
    _, rates, _ = drive(120, Line(60_000, depth=0.001))
    assert share_below(rates, 60_000, 120) > 0.6


def test_delay_that_does_not_fall_with_the_rate_is_not_ours() -> None:
    def longer(now: float, seen: Report) -> Report:
        return Report(queue=0.2 if now > START + 10 else 0.0)

    capacity, rates, _ = drive(60, Line(1e7), longer)
    assert capacity.step.bits_per_second == 70_000
    assert share_below(rates, 58_000, 60) < 0.15


def test_jitter_is_not_a_queue() -> None:
    chance = Random(3)
    _, rates, _ = drive(120, Line(1e7), lambda *_: Report(jitter=0.2, queue=chance.uniform(0, 0.045)))
    assert len(rates) <= 2


@given(
    st.lists(st.tuples(reports, st.floats(0, 2), st.none() | st.floats(0, 5)), max_size=200), st.integers(0, 200_000),
    st.booleans(),
)  # fmt: skip
@settings(max_examples=100)
def test_any_reports_give_slow_and_bounded_reactions(
    told: list[tuple[Report, float, float | None]], limit: int, rings: bool
) -> None:  # fmt: skip
    capacity, losses = Capacity(START, limit), Losses(START)
    if rings:
        capacity.ring(START)
    now = START
    steps, protections = [START], [START - policy.REST_SECONDS]
    for report, pause, trip in told:
        now += pause
        before = capacity.step, losses.grade, losses.distance
        if rings:
            capacity.frame_begins(now)  # trains and pulses, which are up for some frames only
        capacity.reported(now, report, trip)
        losses.reported(now, report, capacity.fell)
        if capacity.step != before[0]:
            is_up = capacity.step.bits_per_second > before[0].bits_per_second
            assert rings or not is_up or now - steps[-1] >= 0.99 or len(steps) == 1
            steps.append(now)
        if (losses.grade, losses.distance) != before[1:]:
            assert now - protections[-1] >= policy.RISE_SECONDS - 1e-6
            protections.append(now)
        assert capacity.step in (RING, *STEPS)
        assert capacity.step.bits_per_second <= max(limit, STEPS[0].bits_per_second)
        shape = shape_for(losses.grade, losses.distance, capacity.step, 54)
        assert 1 <= shape.frame_bytes <= FRAME_BYTES_MAX
        assert shape.size <= PACKET_BYTES_MAX


def test_reports_that_swing_from_nothing_to_all_change_little() -> None:
    capacity, losses = Capacity(START, 70_000), Losses(START)
    changes = 0
    for n in range(3000):
        now = START + n * TICK
        report = Report(1, 31.8, 1, 0.51, 1.02) if n % 2 else Report()
        before = capacity.step, losses.grade, losses.distance
        capacity.reported(now, report)
        losses.reported(now, report, capacity.fell)
        changes += before != (capacity.step, losses.grade, losses.distance)
    assert changes < 60


@given(grades, st.integers(0, 7), st.sampled_from([RING, *STEPS]), st.sampled_from([54, 66, 74, 86]))
def test_every_shape_fits_its_step(grade: Grade, distance: int, step: object, overhead: int) -> None:
    shape = shape_for(grade, distance, step, overhead)  # type: ignore[arg-type]
    bits = (shape.size + overhead) * 8 / shape.seconds
    assert step.bits_per_second - 8 / shape.seconds < bits <= step.bits_per_second  # type: ignore[attr-defined]
    covers = shape.protection.covers
    assert not covers or shape.frame_bytes * 8 / shape.seconds >= FRAME_BITS_LEAST
    assert all(1 <= one.first <= 16 and 1 <= one.count <= WINDOW_MAX for one in covers)
    assert shape.frame_bytes == frame_bytes_for(shape.size, len(covers), implied=is_implied(covers))


@pytest.mark.parametrize(
    ("loss", "burst", "covers"),
    [
        (0.0, 0.0, ()),
        (0.01, 1.0, ()),
        (0.05, 1.05, (Cover(1, 1),)),
        (0.10, 1.1, policy.PAIR),
        (0.15, 1.2, policy.PAIR),
        (0.20, 1.25, (Cover(2, 1), Cover(3, 1))),
        (0.30, 1.45, (Cover(1, 2), Cover(4, 1))),
        (0.50, 2.0, (Cover(1, 4),) * 3),
        (0.10, 3.6, (Cover(4, 1),)),
        (0.10, 6.5, (Cover(7, 1),)),
    ],
)
def test_the_table(loss: float, burst: float, covers: tuple[Cover, ...]) -> None:
    losses = Losses(START)
    for n in range(2000):
        losses.reported(START + n * TICK, Report(loss=loss, burst=burst), START - 100)
    shape = shape_for(losses.grade, losses.distance, STEPS[6], 54)
    assert shape.protection.covers == covers
    assert shape.protection.inband is (loss == 0.01)


def test_grades_keep_to_hysteresis() -> None:
    for grade in list(Grade)[1:]:
        enter, leave = policy.ENTER[grade], policy.LEAVE[grade]
        assert grade_of(enter, Grade.NONE) == grade
        assert grade_of((enter + leave) / 2, grade) == grade
        assert grade_of(leave - 1e-9, grade) < grade
    assert distance_of(0.1, 5.0, 4) == 5
    assert distance_of(0.1, 3.6, 5) == 5
    assert distance_of(0.1, 2.0, 5) == 3
    assert distance_of(0.1, 1.45, 0) == 0 < distance_of(0.1, 1.45, 4)
    assert distance_of(0.1, 1.0, 4) == 0


def test_a_pair_of_copies_is_sent_where_there_is_room_for_it_and_losses_come_singly() -> None:
    copies = (Cover(2, 1), Cover(3, 1))
    for grade, pair, alone in (
        (Grade.MORE, policy.PAIR, (Cover(2, 1),)),
        (Grade.MUCH, policy.PAIR, (Cover(1, 2),)),
        (Grade.HEAVY, copies, (Cover(2, 2),)),
    ):
        assert shape_for(grade, 0, STEPS[6], 54).protection.covers == pair
        assert shape_for(grade, 0, STEPS[5], 54).protection.covers == alone  # 58 kbit/s
        assert shape_for(grade, 0, STEPS[6], 86).protection.covers == alone  # a relay, and IPv6
    for grade in (Grade.MORE, Grade.MUCH):
        assert shape_for(grade, 4, STEPS[6], 54).protection.covers == (Cover(4, 1),)
        assert shape_for(grade, 0, STEPS[6], 54, shaky=True).protection.covers == WIDE
    assert shape_for(Grade.HEAVY, 4, STEPS[5], 54).protection.covers == (Cover(4, 1), Cover(2, 1))
    assert shape_for(Grade.SEVERE, 0, STEPS[5], 54).protection.covers == (Cover(1, 2), Cover(4, 1))


def test_frames_of_60_ms_have_copies_as_far_in_time() -> None:
    assert covers_for(Grade.SOME, 7, 3) == (Cover(3, 1),)
    assert covers_for(Grade.SOME, 7, 1) == (Cover(7, 1),)


def test_losses_of_an_overfull_path_are_forgiven() -> None:
    losses = Losses(START)
    for n in range(100):
        losses.reported(START + n * TICK, Report(loss=0.4, burst=1.5), START - 0.1)
    assert losses.grade is Grade.NONE


WIDE = (Cover(1, policy.SHAKY_WINDOW_SLOTS),)


def jittery(losses: Losses, jitter: float, seconds: float, start: float, loss: float = 0.0) -> float:
    """Reports of one jitter for so long; the time then."""
    for n in range(int(seconds / TICK)):
        losses.reported(start + n * TICK, Report(loss=loss, burst=1.0 if loss else 0.0, jitter=jitter), START - 100)
    return start + seconds


def test_jitter_buys_a_symbol_as_loss_does() -> None:
    losses = Losses(START)
    now = jittery(losses, 0.065, 8, START)
    assert losses.shaky
    assert covers_for(losses.grade, losses.distance, 1, shaky=losses.shaky) == WIDE
    now = jittery(losses, 0.03, 20, now)
    assert losses.shaky  # it was more, and has not gone
    now = jittery(losses, 0.01, 20, now)
    assert not losses.shaky
    now = jittery(losses, 0.03, 20, now)
    assert not losses.shaky


def test_jitter_leaves_more_symbols_and_distances_as_they_are() -> None:
    for grade in Grade:
        plain, few = covers_for(grade, 0, 1), policy.COPIES_BURSTY[grade] < 2
        assert covers_for(grade, 0, 1, shaky=True) == (WIDE if few else plain)
        assert covers_for(grade, 4, 1, shaky=True) == covers_for(grade, 0, 1, shaky=True) or not few
        assert covers_for(grade, 5, 1, shaky=True) == covers_for(grade, 5, 1)


def test_longer_frames_where_much_jitter_comes_with_losses() -> None:
    losses = Losses(START)
    now = jittery(losses, 0.15, 10, START)
    assert losses.shaky and not losses.stormy  # nothing is lost
    now = jittery(losses, 0.15, 20, now, loss=0.05)
    assert losses.stormy
    now = jittery(losses, 0.09, 20, now, loss=0.05)
    assert losses.stormy  # it was more, and has not gone
    now = jittery(losses, 0.07, 20, now, loss=0.05)
    assert losses.shaky and not losses.stormy
    now = jittery(losses, 0.09, 20, now, loss=0.05)
    assert not losses.stormy


def test_longer_frames_keep_the_rate_and_the_window_and_never_get_shorter() -> None:
    for step in STEPS[:-1]:  # at the last one frames are as long as they may be
        plain, stormy = (
            shape_for(Grade.SOME, 0, step, 54, shaky=True, stormy=one) for one in (False, True)
        )  # fmt: skip
        assert stormy.slots == max(plain.slots, policy.STORMY_SLOTS)
        for shape in (plain, stormy):
            assert (shape.size + 54) * 8 / shape.seconds <= step.bits_per_second
        assert stormy.frame_bytes / stormy.seconds >= plain.frame_bytes / plain.seconds
    limit = shape_for(Grade.SOME, 0, STEPS[6], 54, shaky=True, stormy=True)
    assert limit.protection.covers == (Cover(1, policy.SHAKY_WINDOW_SLOTS // policy.STORMY_SLOTS),)
    assert limit.frame_bytes * 8 / limit.seconds > 28_000  # of which 20 ms leave 22,800
