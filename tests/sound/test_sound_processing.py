"""Echo, noise, gain, limiter, meter; and the crossing to trio."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from meshcall.drivers.sound.base import Latency
from meshcall.drivers.sound.crossing import BLOCKS_MAX, Crossing
from meshcall.drivers.sound.limiter import CEILING, PIECE_SAMPLES, THRESHOLD, Limiter, peak_after
from meshcall.drivers.sound.meter import FLOOR_DBFS, Level, Meter
from meshcall.drivers.sound.processing import NOISE_LEVELS, REFERENCES_MAX, Processing, Settings
from tests.sound.waves import tone

OFF = Settings(False, "off", False)


def as_blocks(values: np.ndarray) -> list[np.ndarray]:
    whole = (np.clip(values, -1, 1) * 32767).astype(np.int16)
    return [whole[at : at + 480] for at in range(0, len(whole) - 479, 480)]


def power_db(values: np.ndarray) -> float:
    return 10 * float(np.log10(np.mean(np.square(values.astype(float))) + 1e-12))


def limited(limiter: Limiter, sound: np.ndarray) -> np.ndarray:
    return np.concatenate([limiter.process(sound[at : at + 480]) for at in range(0, len(sound) - 479, 480)])


def test_below_the_threshold_nothing_is_changed_but_2_ms_of_delay() -> None:
    sound = (tone(1.0, 300, level=1.0) * THRESHOLD).astype(np.int16)
    assert np.array_equal(limited(Limiter(), sound)[PIECE_SAMPLES:], sound[:-PIECE_SAMPLES])


@given(st.integers(0, 2**32 - 1), st.floats(10.0, 100_000.0))
def test_nothing_is_ever_clipped(seed: int, loudness: float) -> None:
    rng = np.random.default_rng(seed)
    limiter = Limiter()
    for _ in range(12):
        block = rng.standard_normal(480) * loudness * rng.choice([0, 0.01, 1.0])
        got = limiter.process(np.clip(block, -32768, 32767).astype(np.int16))
        assert got.shape == (480,)
        assert got.dtype == np.int16
        assert int(np.abs(got.astype(int)).max()) <= CEILING
        assert 0 < limiter.gain <= 1


def test_the_limiter_lets_go_again_and_makes_no_steps() -> None:
    sound = np.concatenate([tone(0.5, 200, level=0.3), tone(0.2, 200, level=0.999), tone(1.5, 200, level=0.3)])
    whole = (sound * 32767).astype(np.int16)
    got = limited(Limiter(), whole)
    assert np.array_equal(got[-4800:], whole[-4800 - PIECE_SAMPLES : -PIECE_SAMPLES])
    before = whole[: len(got) - PIECE_SAMPLES].astype(float)
    gains = got[PIECE_SAMPLES:] / np.where(np.abs(before) > 1000, before, np.nan)
    assert np.nanmin(gains) < 0.95
    gains = gains[~np.isnan(gains)]
    assert np.abs(np.diff(gains)).max() < 0.02, "the gain moves in slopes"


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_louder_stays_louder(one: float, other: float) -> None:
    assert (peak_after(one) <= peak_after(other)) == (one <= other) or peak_after(one) == peak_after(other)


def read(meter: Meter, *blocks: np.ndarray, speech: float | None = None) -> Level:
    for block in blocks:
        meter.push(block, speech)
    return meter.level


def test_the_meter_reads_dbfs() -> None:
    meter = Meter()
    level = read(meter, *as_blocks(tone(0.5, 500, level=0.1)))
    assert level.level_dbfs == pytest.approx(-23.0, abs=0.2)
    assert level.peak_dbfs == pytest.approx(-20.0, abs=0.2)
    level = read(meter, *[np.zeros(480, np.int16)] * 50)
    assert level.level_dbfs == pytest.approx(-43.0, abs=0.5), "40 dB a second"
    assert level.peak_dbfs == pytest.approx(-20.0, abs=0.2), "held for a second"
    level = read(meter, *[np.zeros(480, np.int16)] * 1000)
    assert level.level_dbfs == level.peak_dbfs == FLOOR_DBFS
    assert level.clipped == 0
    assert read(meter, np.full(480, -32768, np.int16)).clipped == 1
    assert meter.level is meter.level


def test_the_meter_reads_the_same_however_seldom_it_is_looked_at() -> None:
    rng = np.random.default_rng(6)
    blocks = [(rng.standard_normal(480) * 3000 * abs(np.sin(n / 30))).astype(np.int16) for n in range(333)]
    often, seldom = Meter(), Meter()
    for block in blocks:
        read(often, block)
    one, other = read(seldom, *blocks), often.level
    assert (one.level_dbfs, one.peak_dbfs) == pytest.approx((other.level_dbfs, other.peak_dbfs), abs=1e-3)
    assert (one.speech, one.clipped) == (pytest.approx(other.speech, abs=1e-3), other.clipped)


def test_the_meter_hears_speech_over_noise_without_a_detector() -> None:
    rng = np.random.default_rng(4)
    meter = Meter()
    quiet = read(meter, *[(rng.standard_normal(480) * 30).astype(np.int16) for _ in range(300)]).speech
    loud = read(meter, (tone(0.01, 400, level=0.2) * 32767).astype(np.int16)).speech
    assert quiet < 0.1
    assert loud > 0.9
    assert read(meter, np.zeros(480, np.int16), speech=0.4).speech == 0.4


def test_without_the_package_the_microphone_passes_and_it_is_said() -> None:
    processing = Processing(module=lambda: None)
    assert "pip install pywebrtc-audio" in str(processing.missing)
    blocks = as_blocks(tone(0.5, 440, level=0.3))
    got = np.concatenate([processing.capture(block) for block in blocks])
    assert np.array_equal(got[96:], np.concatenate(blocks)[:-96])
    processing.set(OFF)
    assert processing.missing is None


def test_with_everything_off_the_sound_is_the_same() -> None:
    processing = Processing(OFF)
    blocks = as_blocks(tone(0.5, 440, level=0.3))
    got = np.concatenate([processing.capture(block) for block in blocks])
    assert np.array_equal(got[96:], np.concatenate(blocks)[:-96])


def test_noise_is_suppressed_more_with_each_level() -> None:
    rng = np.random.default_rng(5)
    noise = as_blocks(rng.standard_normal(48_000 * 5) * 0.02)
    left = []
    for level in NOISE_LEVELS:
        processing = Processing(Settings(False, level, False))
        got = np.concatenate([processing.capture(block) for block in noise])
        left.append(power_db(got[-96_000:]))
    suppressed = [left[0] - one for one in left]
    assert suppressed == sorted(suppressed)
    assert 4 < suppressed[1] < 9
    assert suppressed[3] > 14


def speech_like(seconds: float, seed: int, level: float) -> np.ndarray:
    """Syllables of harmonics: what the parts take for a voice."""
    rng = np.random.default_rng(seed)
    at = np.arange(round(seconds * 48_000)) / 48_000
    pitch = 120 + 25 * np.sin(2 * np.pi * 0.7 * at + seed)
    phase = np.cumsum(2 * np.pi * pitch / 48_000)
    voice = sum(np.sin(k * phase) / k for k in range(1, 25))
    syllables = np.clip(np.sin(2 * np.pi * 3.1 * at + rng.uniform(0, 6)), 0, 1) ** 0.7
    return level * voice / 3 * syllables


def test_echo_is_taken_out() -> None:
    far = as_blocks(speech_like(8, 1, 0.4))
    rng = np.random.default_rng(6)
    room = np.zeros(9600)
    room[2880:] = rng.standard_normal(6720) * np.exp(-np.arange(6720) / 1200)
    room /= np.sqrt((room**2).sum()) * 2  # -6 dB, 60 ms
    echo = np.convolve(np.concatenate(far) / 32768, room)[: len(far) * 480] + rng.standard_normal(len(far) * 480) * 1e-3
    processing = Processing(Settings(True, "off", False))
    got = []
    for captured, played in zip(as_blocks(echo), far, strict=True):
        got.append(processing.capture(captured))
        processing.played(played)
    left = power_db(np.concatenate(got)[96_000:]) - power_db(np.round(echo[96_000:] * 32767))
    assert left < -20


def test_a_quiet_voice_is_lifted_and_a_loud_one_never_clipped() -> None:
    processing = Processing(Settings(False, "moderate", True))
    quiet = speech_like(12, 2, 0.01)
    got = np.concatenate([processing.capture(block) for block in as_blocks(quiet)])
    assert power_db(got[-96_000:]) - power_db(quiet[-96_000:] * 32767) > 6
    for block in as_blocks(speech_like(4, 3, 3.0)):
        assert np.abs(processing.capture(block).astype(int)).max() < 32_767


def test_parts_are_switched_live_and_keep_what_they_learnt() -> None:
    processing = Processing()
    echo = processing._stages.echo
    assert processing.switch(noise_suppression="very-high").noise_suppression == "very-high"
    assert processing._stages.echo is echo
    processing.switch(echo_cancellation=False, automatic_gain=False)
    assert (processing._stages.echo, processing._stages.gain) == (None, None)
    for block in as_blocks(speech_like(0.2, 4, 0.3)):
        processing.capture(block)
        processing.switch(echo_cancellation=not processing.settings.echo_cancellation)
    assert processing.counters == {}


def test_the_reference_waits_as_long_as_a_slow_device_needs() -> None:
    processing = Processing(Settings(True, "off", False))
    processing.device(Latency(0.2, 0.25))  # 150 ms over what the canceller finds by itself
    given: list[int] = []
    real = processing._reference

    def watch() -> np.ndarray:
        block = real()
        given.append(int(block[0]))
        return block

    processing._reference = watch  # type: ignore[method-assign]
    for number in range(1, 101):
        processing.capture(np.zeros(480, np.int16))
        processing.played(np.full(480, number, np.int16))
    assert given[20:] == list(range(20 - 15, 100 - 15))
    processing.device(Latency())
    for number in range(101, 111):
        processing.capture(np.zeros(480, np.int16))
        processing.played(np.full(480, number, np.int16))
    assert given[-1] == 109
    for _ in range(1000):
        processing.played(np.zeros(480, np.int16))
    assert len(processing._far) <= REFERENCES_MAX


def test_a_part_that_fails_is_left_out_and_counted() -> None:
    class Broken:
        speech_probability = 0.0

        def __init__(self, **_: object) -> None: ...

        def process(self, *_: object) -> np.ndarray:
            raise RuntimeError("no")

    class Module:
        EchoCanceller = NoiseSuppressor = GainController = Broken

    processing = Processing(module=lambda: Module)  # type: ignore[arg-type,return-value]
    blocks = as_blocks(tone(0.1, level=0.3))
    got = np.concatenate([processing.capture(block) for block in blocks])
    assert np.array_equal(got[96:], np.concatenate(blocks)[:-96])
    assert processing.counters["failed RuntimeError"] == len(blocks)


async def test_blocks_cross_to_trio_in_order_and_wake_it_once() -> None:
    token = trio.lowlevel.current_trio_token()
    woken = trio.Event()
    wakes: list[int] = []

    def wake() -> None:
        wakes.append(1)
        token.run_sync_soon(woken.set)

    crossing = Crossing(wake)
    blocks = [np.full(480, number, np.int16) for number in range(20)]
    thread = threading.Thread(target=lambda: [crossing.put(block) for block in blocks])
    thread.start()
    await trio.to_thread.run_sync(thread.join)
    with trio.fail_after(10):
        await woken.wait()
    assert len(wakes) == 1
    assert [int(block[0]) for block in crossing.take()] == list(range(20))
    assert crossing.take() == []
    for number in range(BLOCKS_MAX + 7):
        crossing.put(np.full(480, number, np.int16))
    assert len(wakes) == 2
    assert crossing.dropped == 7
    assert int(crossing.take()[0][0]) == 7
