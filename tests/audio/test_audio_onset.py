"""What begins within a call: losses are met within seconds, and what stops for a moment is no full line."""

from __future__ import annotations

from collections import deque
from random import Random

import pytest

from meshcall.audio.capacity import QUEUE_LONG_SECONDS, Capacity
from meshcall.audio.policy import Grade, Losses
from meshcall.audio.reception import WINDOW_SLOTS
from meshcall.wire.voice import SLOT_SECONDS, Report, told_by
from tests.audio.paper_codec import paper_packet
from tests.audio.paper_net import new_receiver

START = 1000.0
REPORT_SLOTS = 5
CLEAN_SECONDS = 10


def grades(lost: list[bool]) -> list[Grade]:
    """Each 100 ms, as slots are lost or not, after CLEAN_SECONDS without losses: what the receiver would tell."""
    losses = Losses(START)
    window: deque[bool] = deque(maxlen=WINDOW_SLOTS)
    out = []
    for n, one in enumerate([False] * round(CLEAN_SECONDS / SLOT_SECONDS) + lost):
        window.append(one)
        if n % REPORT_SLOTS:
            continue
        count = sum(window)
        runs = sum(here and not before for before, here in zip([False, *window], window, strict=False))
        report = Report(loss=count / len(window), burst=count / runs if runs else 0.0)
        losses.reported(START + n * SLOT_SECONDS, report, START - 100)
        out.append(losses.grade)
    return out[round(CLEAN_SECONDS / SLOT_SECONDS / REPORT_SLOTS) :]


@pytest.mark.parametrize(
    ("share", "least", "most", "met"),
    [(0.1, Grade.MORE, Grade.HEAVY, 45), (0.2, Grade.MUCH, Grade.EXTREME, 60), (0.3, Grade.HEAVY, Grade.EXTREME, 50)],
)
def test_losses_that_begin_are_met_within_two_seconds(share: float, least: Grade, most: Grade, met: int) -> None:
    after_two, worst = [], []
    for seed in range(100):
        chance = Random(seed)
        found = grades([chance.random() < share for _ in range(round(3 / SLOT_SECONDS))])
        after_two.append(found[20])
        worst.append(max(found))
    assert sum(grade >= least for grade in after_two) >= met
    assert sum(grade <= most for grade in worst) >= 95


def test_a_single_burst_is_not_taken_for_the_beginning_of_many() -> None:
    assert max(grades([True] * 5 + [False] * 100)) <= Grade.SOME


def drive(queues: list[float]) -> Capacity:
    """One report each 50 ms, after 10 s without a queue."""
    capacity = Capacity(START, 70_000)
    for n, queue in enumerate([0.0] * 200 + queues):
        capacity.reported(START + n * 0.05, Report(queue=queue))
    return capacity


def test_what_stops_for_a_moment_is_no_full_line() -> None:
    assert drive([0.15] * 3 + [0.0] * 20).step.bits_per_second == 70_000
    assert drive([0.15] * 6).step.bits_per_second < 70_000
    assert drive([QUEUE_LONG_SECONDS + 0.01] * 2).step.bits_per_second < 70_000


@pytest.mark.parametrize(("loss", "is_wide"), [(0.2, True), (0.0, False)])
def test_jitter_of_copies_that_come_by_a_slower_path_is_no_queue(loss: float, is_wide: bool) -> None:
    capacity = Capacity(START, 70_000)
    for n in range(600):
        now = START + n * 0.05
        twice = n >= 400 and capacity.is_wide
        capacity.reported(now, Report(loss=loss / 4 if twice else loss, burst=1.2, jitter=0.1 if n >= 410 else 0.002))
        if twice:
            capacity.doubled(now)
    assert capacity.is_wide is is_wide
    assert capacity.step.bits_per_second == 70_000


def test_only_a_packet_that_tells_the_queue_dates_it_by_how_late_it_came() -> None:
    receiver, _ = new_receiver()
    for slot in range(1, 40):
        late = 0.1 if slot >= 20 else 0.0
        at = (slot + 1) * SLOT_SECONDS + 0.02 + late
        receiver.push(at, paper_packet(slot, report=Report(queue=0.04)))
        receiver.pull(at)
        assert receiver.heard() is not None
        if told_by(slot) == "queue":
            assert receiver.heard_late == pytest.approx(late, abs=0.001)
        else:
            assert receiver.heard_late is None
