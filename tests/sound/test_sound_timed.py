"""The device clocked by the computer."""

from __future__ import annotations

import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from meshcall.audio.codec import Sound
from meshcall.drivers.sound.base import DeviceError, Guard, silent
from meshcall.drivers.sound.null import Discard, Silence
from meshcall.drivers.sound.timed import CATCH_UP_SECONDS, STALLED_SECONDS, TimedDevice
from meshcall.drivers.sound.wav import WavSink, WavSource
from tests.sound.test_sound_wav import blocks_of
from tests.sound.waves import tone, write_wav


def test_null_gives_silence_in_real_time_and_stops() -> None:
    device = TimedDevice(Silence(), Discard())
    heard: list[Sound] = []

    def exchange(captured: Sound) -> Sound:
        heard.append(captured)
        return captured

    start = time.monotonic()
    device.start(exchange)
    time.sleep(0.6)
    device.stop()
    blocks, passed = len(heard), time.monotonic() - start
    assert passed * 100 - CATCH_UP_SECONDS * 100 - 3 <= blocks <= passed * 100 + 1
    assert not any(block.any() for block in heard)
    time.sleep(0.05)
    assert len(heard) == blocks, "nothing after stop"
    assert device.trouble() is None
    device.stop()
    with pytest.raises(DeviceError):
        device.start(exchange)


def test_what_exchange_raises_or_returns_wrongly_is_silence_and_counted() -> None:
    counters: Counter[str] = Counter()

    def raises(captured: Sound) -> Sound:
        raise RuntimeError("a bug")

    assert not Guard(raises, counters)(silent()).any()
    assert not Guard(lambda captured: captured[:100], counters)(silent()).any()
    assert not Guard(lambda captured: captured.astype(np.float32), counters)(silent()).any()
    assert counters == {"raised": 1, "raised RuntimeError": 1, "wrong block": 2}
    for number in range(100):
        problem = type(f"Error{number}", (Exception,), {})

        def another(captured: Sound, problem: type[Exception] = problem) -> Sound:
            raise problem

        Guard(another, counters)(silent())
    assert len(counters) <= 33


class Clock:
    """Seconds that a test moves on; a wait of the device takes them."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Script(TimedDevice):
    """A TimedDevice in virtual time: waiting moves the clock, and no thread is needed."""

    def play(self, seconds: float, exchange: object, stalls: dict[int, float]) -> None:
        clock = self._clock
        assert isinstance(clock, Clock)
        end = clock.now + seconds
        device = self

        def sleep(seconds: float) -> None:
            assert 0 < seconds <= 0.0201
            clock.now += seconds + stalls.pop(device.counters["blocks"], 0.0)
            self._is_stopped = clock.now >= end - 1e-9

        self._sleep = sleep
        self._run(Guard(exchange, self.counters))  # type: ignore[arg-type]


def test_the_clock_is_absolute_and_sample_0_stays_sample_0(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "in.wav", tone(8.0, 313))
    source, sink = WavSource(path), WavSink(tmp_path / "out.wav")
    device = Script(source, sink, clock=Clock())

    def echo(captured: Sound) -> Sound:
        time.sleep(0.0002)  # virtual time is much faster than the reader of the file
        return captured

    device.play(8.0, echo, {100: 0.15, 300: 0.0031, 500: 1.0})
    assert device.counters["skipped"] == 100
    sink.close()
    source.close()
    got = blocks_of(tmp_path / "out.wav") / 32768
    assert len(got) == pytest.approx(8 * 48_000, abs=480)
    assert not got[:480].any()
    # Everything that was captured is played 10 ms later: sample n of the one is sample n of the other.
    original = np.concatenate([np.zeros(480), tone(8.0, 313)])[: len(got)]
    there = got != 0
    assert there.mean() > 0.85
    assert np.allclose(got[there], original[there], atol=1e-4)


def test_held_files_begin_together_at_the_signal(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "in.wav", np.arange(1, 4801) / 32768)
    source, sink = WavSource(path, held=True), WavSink(tmp_path / "out.wav", held=True)
    clock = Clock()
    device = Script(source, sink, clock=clock)

    def exchange(captured: Sound) -> Sound:
        if device.counters["blocks"] == 20:
            device.begin(clock.now + 0.0337)
        return captured

    device.play(0.6, exchange, {})
    assert clock.now >= 1000.5
    sink.close()
    source.close()
    got = blocks_of(tmp_path / "out.wav")
    assert not got[:480].any()
    assert got[480:5280].tolist() == list(range(1, 4801))
    # 20 blocks and the fraction of the signal, then the recording, to the end.
    assert len(got) / 48_000 == pytest.approx(0.6 - 0.21 - 0.0337, abs=0.021)


def test_a_clock_that_stands_still_is_told() -> None:
    ahead = [0.0]
    device = TimedDevice(Silence(), Discard(), clock=lambda: time.monotonic() + ahead[0])
    entered, go_on = threading.Event(), threading.Event()

    def exchange(captured: Sound) -> Sound:
        entered.set()
        go_on.wait(20)
        return captured

    device.start(exchange)
    assert entered.wait(10)
    assert device.trouble() is None
    ahead[0] = STALLED_SECONDS + 0.1
    assert "stands still" in str(device.trouble())
    go_on.set()
    device.stop()
    assert device.trouble() is None
