"""Blocks of any size, the ring between two streams, and the health of a stream."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcall.audio.codec import Sound
from meshcall.drivers.sound.hardware import (
    CALLBACK_SAMPLES_MAX,
    RING_BLOCKS_KEPT,
    RING_BLOCKS_MAX,
    RING_WINDOW_BLOCKS,
    STALL_SECONDS,
    Beat,
    Hands,
    to_mono,
)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=60))
def test_duplex_gives_back_what_it_took_whatever_the_callbacks(sizes: list[int]) -> None:
    hands = Hands("x", 1)
    blocks: list[Sound] = []

    def exchange(captured: Sound) -> Sound:
        blocks.append(captured)
        return captured

    hands.ready(exchange)
    sent = (np.arange(sum(sizes)) % 30_000 + 1).astype(np.int16)
    place, got = 0, []
    for size in sizes:
        answer = hands.duplex(sent[place : place + size])
        assert len(answer) == size
        got.append(answer)
        place += size
    assert all(block.shape == (480,) for block in blocks)
    played = np.concatenate(got)
    silence = int((played == 0).sum())
    assert silence <= 480 * 2, "no more than a block or two of delay"
    assert np.array_equal(played[played != 0], sent[: len(played) - silence]), "nothing lost, nothing twice"
    assert len(hands._in) < 480
    assert len(hands._out) <= 960


def test_blocks_of_480_are_exchanged_at_once() -> None:
    hands = Hands("x", 1)
    hands.ready(lambda captured: captured + 1)
    assert (hands.duplex(np.full(480, 7, np.int16)) == 8).all()


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 2000)), max_size=80))
def test_two_streams_meet_in_a_bounded_ring(steps: list[tuple[bool, int]]) -> None:
    hands = Hands("x", 2)
    hands.ready(lambda captured: captured)
    sent = 0
    heard: list[Sound] = []
    for captures, size in steps:
        if captures:
            hands.captured(((np.arange(sent, sent + size) % 32_000) + 1).astype(np.int16))
            sent += size
        else:
            answer = hands.wanted(size)
            assert len(answer) == size
            heard.append(answer)
        assert len(hands._ring) <= RING_BLOCKS_MAX
    everything = np.concatenate(heard) if heard else np.zeros(0, np.int16)
    spoken = everything[everything != 0].astype(int)
    assert (np.diff(spoken) > 0).all() or sent > 32_000, "in order"


def test_a_full_ring_falls_back_to_short_delay() -> None:
    hands = Hands("x", 2)
    hands.ready(lambda captured: captured)
    for _ in range(RING_BLOCKS_MAX + 1):
        hands.captured(np.zeros(480, np.int16))
    assert len(hands._ring) == RING_BLOCKS_KEPT + 1
    assert hands.counters["captured blocks dropped"] == RING_BLOCKS_MAX - RING_BLOCKS_KEPT


def test_a_ring_that_only_delays_is_emptied() -> None:
    hands = Hands("x", 2)
    hands.ready(lambda captured: captured)
    for number in range(4):
        hands.captured(np.full(480, number, np.int16))
    for number in range(4, 4 + RING_WINDOW_BLOCKS + 1):
        hands.captured(np.full(480, number, np.int16))
        heard = hands.wanted(480)
    assert heard[0] == number, "what comes is played at once"
    assert hands.counters == {"blocks": RING_WINDOW_BLOCKS + 1, "captured blocks dropped": 4}
    for number in range(1000):
        if number % 100 != 50:  # the clock that captures is slower
            hands.captured(np.full(480, 7, np.int16))
        hands.wanted(480)
    assert hands.counters["captured blocks late"] <= 10
    assert len(hands._ring) <= 2


def test_nonsense_callbacks_are_silence_and_counted() -> None:
    clock = Clock()
    hands = Hands("x", 2, clock)
    hands.ready(lambda captured: captured)
    assert len(hands.duplex(np.zeros(0, np.int16))) == 0
    hands.captured(np.zeros(0, np.int16))
    assert len(hands.wanted(0)) == len(hands.wanted(-5)) == 0
    assert hands.counters["empty callbacks"] == 4
    assert hands.trouble() is None
    assert len(hands.wanted(10**9)) == CALLBACK_SAMPLES_MAX
    assert hands.trouble() == "x asks for 1000000000 samples at once"


def test_after_done_nothing_is_exchanged() -> None:
    hands = Hands("x", 1)
    calls: list[int] = []
    hands.ready(lambda captured: calls.append(1) or captured)  # type: ignore[func-returns-value]
    hands.duplex(np.ones(480, np.int16))
    hands.done()
    assert not hands.duplex(np.ones(480, np.int16)).any()
    assert len(calls) == 1


def run(beat: Beat, clock: Clock, seconds: float, rate: float, *, flagged: bool = False) -> None:
    for _ in range(round(seconds * rate / 480)):
        clock.now += 480 / rate
        beat.beat(480, flagged=flagged)


@pytest.mark.parametrize("rate", [44_100, 16_000, 96_000, 51_000])
def test_a_wrong_rate_is_told(rate: int) -> None:
    clock = Clock()
    beat = Beat(clock)
    run(beat, clock, 6, rate)
    assert "samples a second instead of the 48000" in str(beat.trouble())


def test_a_right_rate_with_jitter_and_drift_is_not() -> None:
    clock = Clock()
    beat = Beat(clock)
    rng = np.random.default_rng(3)
    start = clock.now
    for number in range(6000):
        clock.now = max(clock.now, start + number * 0.01 * 1.0003 + float(rng.exponential(0.01)))
        beat.beat(480)
        assert beat.trouble() is None


def test_samples_lost_by_a_busy_machine_are_no_wrong_rate() -> None:
    clock = Clock()
    beat = Beat(clock)
    for _ in range(5):
        run(beat, clock, 0.7, 48_000)
        clock.now += 0.3  # a stall, and its samples never come
    assert beat.trouble() is None
    for rate in (39_000, 43_000, 41_000, 44_500, 38_000):
        run(beat, clock, 1.02, rate)
    assert beat.trouble() is None
    beat = Beat(clock)
    run(beat, clock, 10, 44_000, flagged=True)
    assert beat.trouble() is None


def test_a_stream_that_stops_is_told_in_half_a_second() -> None:
    clock = Clock()
    beat = Beat(clock)
    run(beat, clock, 2, 48_000)
    clock.now += 1.9
    assert beat.trouble() is None, "a sound server fills its buffers, and is quiet for a while"
    beat.beat(480)
    beat.strict = True
    clock.now += STALL_SECONDS - 0.01
    assert beat.trouble() is None
    clock.now += 0.02
    beat.beat(0)
    assert beat.trouble() == "went away, or hangs"


def test_two_channels_become_one() -> None:
    both = np.array([[100, 300], [-32768, -32768], [32767, 32767]], np.int16)
    assert to_mono(both).tolist() == [200, -32768, 32767]
    assert to_mono(both[:, :1]).tolist() == [100, -32768, 32767]


def test_what_was_captured_before_the_device_is_taken_does_not_delay() -> None:
    hands = Hands("two", 2)
    heard: list[int] = []

    def exchange(captured: Sound) -> Sound:
        heard.append(int(captured[0]))
        return captured

    hands.ready(exchange)
    for number in range(1, 6):
        hands.captured(np.full(480, number, np.int16))
    hands.taken()
    hands.wanted(480)
    hands.captured(np.full(480, 6, np.int16))
    hands.wanted(480)
    assert heard == [5, 6]
