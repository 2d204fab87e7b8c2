"""Slots as integers, the buffer's bounds, and the histogram that says how long to wait."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcall.audio import jitter
from meshcall.audio.jitter import DelayHistogram, Frame, FrameBuffer, SlotLine, tick_delay
from meshcall.wire.voice import SLOTS_MODULUS


def frame(slot: int, size: int = 10) -> Frame:
    return Frame(slot, 1, bytes(size), 0, False, False)


def test_slots_go_on_beyond_what_is_sent_of_them() -> None:
    line = SlotLine()
    start = SLOTS_MODULUS - 500
    placed = [line.place(2 * n, (start + n) % SLOTS_MODULUS) for n in range(70_000)]
    assert placed == [(start + n, False) for n in range(70_000)]


def test_reordered_and_late_packets_keep_their_places() -> None:
    line = SlotLine()
    chance = random.Random(2)
    line.place(0, SLOTS_MODULUS - 6)
    arrivals = sorted((2 * n + chance.randrange(100), n) for n in range(1, 2000))
    for tick, n in arrivals:
        at = SLOTS_MODULUS - 6 + n
        assert line.place(tick, at % SLOTS_MODULUS) == (at, False)


@pytest.mark.parametrize("jump", [-1_500, -300, 300, 1_500, SLOTS_MODULUS // 2])
def test_a_jump_of_the_slots_begins_a_new_line_within_a_few_packets(jump: int) -> None:
    line = SlotLine()
    for n in range(500):
        line.place(2 * n, n)
    found = [line.place(2 * n, (n + jump) % SLOTS_MODULUS) for n in range(500, 520)]
    assert found[: jitter.RESTART_PACKETS - 1] == [None] * (jitter.RESTART_PACKETS - 1)
    assert found[jitter.RESTART_PACKETS - 1] is not None
    restarts = [one[1] for one in found if one is not None]
    assert restarts == [True] + [False] * (len(restarts) - 1)
    slots = [one[0] for one in found if one is not None]
    assert slots == list(range(slots[0], slots[0] + len(slots)))


def test_single_wild_packets_change_nothing() -> None:
    line = SlotLine()
    chance = random.Random(5)
    for n in range(3000):
        assert line.place(2 * n, n % SLOTS_MODULUS) == (n, False)
        if chance.random() < 0.5:
            line.place(2 * n, (n + chance.randrange(400, SLOTS_MODULUS - 400)) % SLOTS_MODULUS)


@given(st.lists(st.tuples(st.integers(0, 100_000), st.integers(0, SLOTS_MODULUS - 1)), max_size=200))
def test_any_slots_are_placed_or_refused(arrivals: list[tuple[int, int]]) -> None:
    line = SlotLine()
    for tick, slot in sorted(arrivals):
        placed = line.place(tick, slot)
        assert placed is None or placed[0] % SLOTS_MODULUS == slot


@given(st.lists(st.tuples(st.integers(-5000, 5000), st.integers(1, 255)), max_size=600))
def test_the_buffer_keeps_its_bounds_and_its_order(puts: list[tuple[int, int]]) -> None:
    buffer = FrameBuffer()
    for slot, size in puts:
        buffer.put(frame(slot, size))
        assert len(buffer) <= jitter.FRAMES_MAX and buffer.bytes <= jitter.BYTES_MAX
    slots = []
    while (oldest := buffer.oldest()) is not None:
        slots.append(buffer.take(oldest.slot).slot)
    assert slots == sorted(set(slots))
    assert not slots or slots[-1] - slots[0] <= jitter.SLOTS_MAX
    assert buffer.bytes == 0


def test_a_frame_is_kept_once() -> None:
    buffer = FrameBuffer()
    assert buffer.put(frame(4)) and not buffer.put(frame(4))
    assert len(buffer) == 1
    assert buffer.drop_before(4) == 0 and buffer.drop_before(5) == 1 and len(buffer) == 0


def fed(delays: list[int], histogram: DelayHistogram | None = None, first: int = 0) -> DelayHistogram:
    """The histogram after frames of 20 ms with these delays in ticks."""
    histogram = histogram or DelayHistogram(delays[0])
    for n, delay in enumerate(delays):
        histogram.add(first + n, 1, delay, repaired=False)
    return histogram


def test_where_all_frames_take_the_same_time_none_waits() -> None:
    assert fed([7] * 1000).target == 7


def test_waiting_goes_as_far_as_it_is_worth() -> None:
    chance = random.Random(3)
    delays = [round(chance.gammavariate(4, 1)) for _ in range(4000)]
    target = fed(delays).target
    late = sum(delay > target for delay in delays) / len(delays)
    assert 0.0005 < late < 0.01
    rare = [3] * 4000
    for n in range(0, 4000, 2000):
        rare[n] = 60
    assert fed(rare).target <= 4  # two frames in 80 s are not worth 600 ms


def test_a_storm_is_remembered_for_seconds_and_then_forgotten() -> None:
    chance = random.Random(6)
    calm = [2] * 500
    storm = [2 + round(chance.expovariate(1 / 6)) for _ in range(500)]
    histogram = fed(calm)
    assert histogram.target <= 3
    fed(storm, histogram, 500)
    high = histogram.target
    assert high >= 12
    fed([2] * 100, histogram, 1000)
    assert histogram.target >= high - 4
    fed([2] * 2000, histogram, 1100)
    assert histogram.target <= 4


def test_stalls_are_worth_waiting_for_when_they_come_again_and_again() -> None:
    delays: list[int] = []
    for _ in range(10):
        delays += [2] * 90 + [2 + late for late in range(20, 0, -2)]
    assert fed(delays).target >= 12


def test_a_jump_to_less_delay_is_followed_at_once() -> None:
    chance = random.Random(7)
    before = [50 + chance.randrange(6) for _ in range(1000)]
    histogram = fed(before)
    target = histogram.target
    fed([delay - 40 for delay in before[:12]], histogram, 1000)
    assert histogram.target <= target - 35


@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 3), st.integers(-(10**6), 10**6), st.booleans())))
def test_any_delays_leave_a_target_within_the_bins(frames: list[tuple[int, int, int, bool]]) -> None:
    histogram = DelayHistogram(0)
    for slot, slots, delay, repaired in frames:
        histogram.add(slot, slots, delay, repaired=repaired)
        assert histogram.least <= histogram.target <= histogram.least + jitter.BINS
        assert len(histogram._recent) <= jitter._RECENT_FRAMES
        assert 0.0 < histogram._all.sum() < 1.000001


def test_the_delay_of_a_frame_counts_from_its_last_slot() -> None:
    assert tick_delay(10, 2, 1) == 6
    assert tick_delay(10, 0, 3) == 6


def test_a_queue_that_has_drained_is_forgotten_at_once() -> None:
    histogram = fed([2] * 200 + [2 + n // 2 for n in range(60)] + [32] * 50 + [32 - n for n in range(30)])
    assert histogram.target >= 20
    fed([2] * 40, histogram, 340)
    assert histogram.target <= 2 + jitter.PEAK_TICKS


def test_repair_is_waited_for_however_seldom_it_comes() -> None:
    histogram = fed([2] * 1000)
    histogram.repairs_within(14)
    assert histogram.target == 16
    histogram.repairs_within(10**6)
    assert histogram.target == 2 + jitter.REACH_TICKS_MAX
    histogram.repairs_within(0)
    assert histogram.target == 2
