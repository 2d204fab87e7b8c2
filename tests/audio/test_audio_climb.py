"""How a call begins: from the lowest step up to what the line carries, without a queue that anybody hears."""

from __future__ import annotations

from random import Random

import pytest

from meshcall.audio.blocked import BLOCK_QUEUE_SECONDS, FIRST_BLOCK_SECONDS, Blocked
from meshcall.audio.capacity import Capacity
from meshcall.audio.steps import RING
from meshcall.wire.voice import Report
from tests.audio.paper_line import START, Line, PacketLine, drive


def test_while_it_rings_the_rate_climbs_from_the_lowest_step_and_no_queue_is_long() -> None:
    for bits, rests in ((24_000, 22_500), (34_000, 30_000), (48_000, 45_000), (1e7, 58_000)):
        capacity = Capacity(START, 70_000)
        capacity.ring(START)
        assert capacity.step == RING
        _, _, queues = drive(8, Line(bits, depth=0.6), capacity=capacity)
        assert max(queues) < 0.25
        assert capacity.is_narrow is (bits < 58_000)
        capacity.answered(START + 8)
        assert 0.6 * rests <= capacity.step.bits_per_second <= 70_000
        assert capacity.step.bits_per_second < bits


def test_a_call_that_is_answered_at_once_begins_with_little_and_is_where_it_should_be_a_second_later() -> None:
    capacity = Capacity(START, 70_000)
    capacity.ring(START)
    capacity.answered(START)
    assert capacity.step.bits_per_second == 18_000
    _, rates, _ = drive(10, Line(1e7), capacity=capacity)
    (at,) = [at - START for at, rate in rates if rate == 58_000]
    assert at < 1.3
    assert rates[-1][1] == 70_000 and rates[-1][0] - START < 7
    assert capacity.is_wide and not capacity.is_narrow


@pytest.mark.parametrize(("bits", "least"), [(24_000, 15_000), (34_000, 22_500), (48_000, 30_000), (100_000, 58_000)])
def test_a_train_of_packets_shows_at_once_what_the_line_carries_and_leaves_a_short_queue(bits: int, least: int) -> None:
    capacity = Capacity(START, 70_000)
    capacity.ring(START)
    line = PacketLine(bits)
    line.drive(capacity, START, 1.1)
    assert least <= capacity.step.bits_per_second < bits
    assert max(queue for _, queue in line.queues) < 0.12


@pytest.mark.parametrize("bits", [24_000, 34_000, 48_000, 64_000])
def test_after_an_answer_at_once_nothing_queues_for_long(bits: int) -> None:
    """Frames are heard from the first second on: the old way, 45,000 at once, left half a second of queue at 24,000."""
    capacity = Capacity(START, 70_000)
    capacity.ring(START)
    line = PacketLine(bits)
    line.drive(capacity, START, 0.5)
    capacity.answered(START + 0.5)
    line.drive(capacity, START + 0.5, 30)
    assert max(queue for _, queue in line.queues) < 0.16
    late = [queue for at, queue in line.queues if at > START + 3]
    assert sum(queue > 0.08 for queue in late) / len(late) < 0.03
    assert capacity.step.bits_per_second >= 0.6 * bits
    assert capacity.is_narrow


def test_a_line_that_was_full_before_it_rang_is_not_taken_for_a_wide_one() -> None:
    """Who listens learns the least delay on a full queue and reports none; the round trip shows it."""
    rates, queues = {}, {}
    for knows in (False, True):
        capacity = Capacity(START, 70_000)
        capacity.ring(START)
        capacity.answered(START)
        line = PacketLine(24_000, queue=0.45, depth=0.5)
        line.drive(capacity, START, 4, trip=0.08 if knows else None)
        rates[knows], queues[knows] = line.bits_sent / 4, line.queues[-1][1]
    assert rates[True] < 20_000
    assert queues[True] < 0.1 < queues[False]


def test_loss_that_a_full_line_makes_ends_the_climb() -> None:
    capacity = Capacity(START, 70_000)
    capacity.ring(START)
    drive(1.5, Line(1e7), capacity=capacity)
    assert capacity.step.bits_per_second == 58_000
    drive(0.4, None, lambda *_: Report(loss=0.4, burst=2.0), capacity=capacity, start=START + 1.5)
    assert capacity.step.bits_per_second == 58_000, "it may be what a stall holds back, and come yet"
    drive(0.3, None, lambda *_: Report(loss=0.4, burst=2.0), capacity=capacity, start=START + 1.9)
    assert capacity.step.bits_per_second < 40_000
    assert capacity.is_narrow and not capacity.is_wide


def test_losses_of_a_moment_do_not_end_the_climb() -> None:
    capacity = Capacity(START, 70_000)
    capacity.ring(START)
    drive(1.5, Line(1e7), capacity=capacity)
    drive(0.4, None, lambda *_: Report(loss=0.4, burst=2.0), capacity=capacity, start=START + 1.5)
    drive(0.4, Line(1e7), capacity=capacity, start=START + 1.9)
    drive(0.4, None, lambda *_: Report(loss=0.4, burst=2.0), capacity=capacity, start=START + 2.3)
    drive(5, Line(1e7), capacity=capacity, start=START + 2.7)
    assert capacity.step.bits_per_second == 70_000 and not capacity.is_narrow


def test_losses_of_a_moment_right_after_the_first_step_up_do_not_end_the_climb() -> None:
    """Nothing was lost at the lowest step, which counts as well."""
    capacity = Capacity(START, 70_000)
    capacity.ring(START)
    stepped = 0.0

    def report(now: float, one: Report) -> Report:
        nonlocal stepped
        if not stepped and capacity._at:
            stepped = now
        return Report(loss=0.4, burst=2.0) if stepped and now < stepped + 0.4 else one

    drive(3.0, Line(1e7), report, capacity=capacity)
    assert stepped
    assert capacity.step.bits_per_second >= 58_000


def test_a_pulse_that_failed_by_chance_and_is_passed_later_leaves_no_narrow_line() -> None:
    """Of 60 calls over a jittery mobile network a fifth went back from 58,000 to 45,000 or less for that."""
    capacity = Capacity(START, 70_000)
    capacity.ring(START)
    jitter = 0.028  # no train shows more than 40,000 then
    drive(2.0, None, lambda *_: Report(jitter=jitter), capacity=capacity)
    before, failed = capacity.step.bits_per_second, 0.0
    assert before < 40_000

    def report(now: float, _: Report) -> Report:
        nonlocal failed
        if not failed and capacity.step.bits_per_second > before:
            failed = now
        return Report(jitter=jitter + (0.03 if failed and now < failed + 0.6 else 0.0))

    drive(15.0, None, report, capacity=capacity, start=START + 2)
    assert failed
    assert capacity.step.bits_per_second == 70_000 and not capacity.is_narrow


def test_a_change_of_path_while_a_train_is_under_way_sends_another() -> None:
    """The other side forgets its delays for the new path, and a train that went by the old one shows nothing."""
    capacity = Capacity(START, 70_000)
    capacity.ring(START)
    line = PacketLine(24_000)
    line.drive(capacity, START, 0.5)
    capacity.path_changed(START + 0.5)
    line.forget()
    line.drive(capacity, START + 0.5, 2.5)
    assert capacity.step.bits_per_second < 24_000
    assert max(queue for _, queue in line.queues) < 0.25


def test_a_step_up_that_raises_the_jitter_is_taken_back_before_a_queue_is_told_of() -> None:
    capacity, _, _ = drive(6, Line(1e7))
    assert capacity.step.bits_per_second == 70_000
    drive(0.3, None, lambda *_: Report(jitter=0.05, queue=0.012), capacity=capacity, start=START + 6)
    assert capacity.step.bits_per_second <= 58_000
    assert capacity.is_narrow


@pytest.mark.parametrize("step_up", [1.3, 6.0])
def test_jitter_that_no_queue_follows_takes_no_step_back(step_up: float) -> None:
    """A line that stood still for a moment."""
    capacity = Capacity(START, 70_000)
    capacity.ring(START)
    capacity.answered(START)
    drive(step_up, Line(1e7), capacity=capacity)
    reached = capacity.step.bits_per_second
    assert reached >= 58_000
    drive(2.0, None, lambda *_: Report(jitter=0.3), capacity=capacity, start=START + step_up)
    assert capacity.step.bits_per_second >= reached and not capacity.is_narrow


def test_what_fails_as_the_call_begins_is_tried_again_soon_and_then_ever_later() -> None:
    blocked = Blocked()
    blocked.for_now(START, 4)
    assert blocked.holds(START + FIRST_BLOCK_SECONDS - 0.1, 4)
    assert not blocked.holds(START + FIRST_BLOCK_SECONDS, 4)
    assert 4 in blocked
    blocked.for_queue(START + 10, 4)
    assert blocked.holds(START + 10 + BLOCK_QUEUE_SECONDS - 0.1, 4)
    blocked.held(4)
    assert 4 not in blocked and not blocked.holds(START + 11, 4)


def test_jitter_while_it_rings_is_no_queue() -> None:
    chance = Random(3)
    capacity = Capacity(START, 70_000)
    capacity.ring(START)
    drive(5, None, lambda _, __: Report(queue=max(0.0, chance.gauss(0.04, 0.015)), jitter=0.2), capacity=capacity)
    assert capacity.step.bits_per_second >= 58_000
