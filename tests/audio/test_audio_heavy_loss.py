"""A line that was full from the start shows loss and no queue: the rate goes down to what came through."""

from __future__ import annotations

from collections import deque
from random import Random

from meshcall.audio.capacity import Capacity
from meshcall.audio.loss_trials import HEAVY_SECONDS, HEAVY_TOLD, LossTrials
from meshcall.audio.steps import STEPS
from meshcall.wire.voice import Report

LIMIT = 70_000


def run(capacity: Capacity, begin: float, seconds: float, line: float | None, loss: float = 0.0) -> float:
    """Reports each 100 ms of a line of so many bits per second (None: any) that loses `loss` besides."""
    now = begin
    while now < begin + seconds:
        rate = capacity.step.bits_per_second
        over = 0.0 if line is None else max(0.0, 1 - line / rate)
        capacity.reported(now, Report(loss=over + (1 - over) * loss))
        now += 0.1
    return now


def test_down_to_what_came_through_within_seconds_and_it_stays_there() -> None:
    capacity = Capacity(0.0, LIMIT)
    assert not capacity.is_narrow, "the first step is not the highest, but nothing is known yet"
    now = run(capacity, 0.0, HEAVY_SECONDS + 2, 24_000)
    assert capacity.step.bits_per_second <= 24_000
    assert capacity.is_narrow
    highest = 0
    for _ in range(10):
        now = run(capacity, now, 1.0, 24_000)
        highest = max(highest, capacity.step.bits_per_second)
    assert highest <= 30_000


def test_random_loss_as_heavy_gives_the_rate_back_and_is_not_tried_soon_again() -> None:
    capacity = Capacity(0.0, LIMIT)
    before = capacity.step.bits_per_second
    now = run(capacity, 0.0, HEAVY_SECONDS + 5, None, 0.5)
    assert capacity.step.bits_per_second < before
    now = run(capacity, now, 5.0, None, 0.5)
    assert capacity.step.bits_per_second >= before
    assert not capacity.is_narrow
    for _ in range(30):
        now = run(capacity, now, 1.0, None, 0.5)
        assert capacity.step.bits_per_second >= before


def test_less_loss_does_not_do_it() -> None:
    capacity = Capacity(0.0, LIMIT)
    before = capacity.step.bits_per_second
    run(capacity, 0.0, HEAVY_SECONDS + 2, None, HEAVY_TOLD - 0.05)
    assert capacity.step.bits_per_second >= before


def test_what_chance_makes_of_30_percent_does_not_do_it_either() -> None:
    chance = Random(1)
    for _ in range(20):
        trials = LossTrials(0.0, STEPS)
        came = deque((chance.random() >= 0.3 for _ in range(100)), maxlen=100)  # two seconds
        highest = 0.0
        for n in range(1500):
            came += (chance.random() >= 0.3 for _ in range(2))
            loss = 1 - sum(came) / 100
            highest = max(highest, loss)
            trials.reported(n * 0.04, loss, light_loss=0.0, is_queueing=False)
            assert not trials.begins_heavy(n * 0.04, 4)
        assert highest > 0.36


def test_losses_that_begin_as_the_rate_rises_are_not_blamed_on_it() -> None:
    """A step up, 20 % lost a moment later: back down shows as much, and the rate returns within seconds."""
    for onset in (2.0, 3.0, 3.9, 4.2, 4.6):
        capacity = Capacity(0.0, LIMIT)
        told = deque([0.0] * 20, maxlen=20)  # two seconds
        at_limit = 0
        for n in range(600):
            now = n * 0.1
            told.append(0.2 if now >= onset else 0.0)
            capacity.reported(now, Report(loss=sum(told) / len(told), burst=1.0))
            at_limit += capacity.step.bits_per_second == LIMIT
        assert at_limit > 600 * 0.75, onset
