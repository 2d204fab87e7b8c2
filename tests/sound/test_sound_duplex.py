"""The device of a call: what is chosen, what happens when it misbehaves, and that the call never notices."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from meshcall.audio.codec import Sound
from meshcall.drivers.sound import duplex as duplex_module
from meshcall.drivers.sound import mini, portaudio
from meshcall.drivers.sound.base import Latency
from meshcall.drivers.sound.duplex import Changed, Duplex
from meshcall.drivers.sound.mini import MiniAudio
from meshcall.drivers.sound.null import Silence
from meshcall.drivers.sound.portaudio import PortAudio
from meshcall.drivers.sound.ports import SoundChoice
from meshcall.drivers.sound.wav import WavSink, WavSource
from tests.sound.fakes import Behaviour, FakeMiniAudio, FakeSoundDevice
from tests.sound.test_sound_wav import blocks_of
from tests.sound.waves import tone, write_wav

GAP_SECONDS_MAX = 1.0
"""What issue and design allow a call to be without its clock; the machine may be busy with other things."""


class Call:
    """Plays the part of a call, and watches the clock of the device."""

    def __init__(self) -> None:
        self.blocks = 0
        self.heard = 0
        self.gap = 0.0
        self.said: list[Changed] = []
        self.overlaps = 0
        self._inside = False
        self._last = time.monotonic()

    def exchange(self, captured: Sound) -> Sound:
        self.overlaps += self._inside
        self._inside = True
        now = time.monotonic()
        self.gap = max(self.gap, now - self._last)
        self._last = now
        self.blocks += 1
        self.heard = int(captured[0])
        self._inside = False
        return np.full(480, 5, np.int16)

    def changed(self, change: Changed) -> None:
        self.said.append(change)


@pytest.fixture
def sd(monkeypatch: pytest.MonkeyPatch) -> Behaviour:
    how = Behaviour(tone=1000)
    module = FakeSoundDevice(how)
    monkeypatch.setattr(portaudio, "load", lambda: module)
    return how


@pytest.fixture
def ma(monkeypatch: pytest.MonkeyPatch) -> Behaviour:
    how = Behaviour(tone=2000)
    module = FakeMiniAudio(how)
    monkeypatch.setattr(mini, "load", lambda: module)
    return how


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks again and forgives sooner, so that tests need not wait."""
    monkeypatch.setattr(duplex_module, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(duplex_module, "LOOK_SECONDS_MAX", 0.2)
    monkeypatch.setattr(duplex_module, "BAN_SECONDS", 1.0)
    monkeypatch.setattr(duplex_module, "BAN_SECONDS_MAX", 1.0)


@pytest.fixture
def start() -> Iterator[Callable[..., tuple[Duplex, Call]]]:
    started: list[tuple[Duplex, Call]] = []

    def begin(choice: SoundChoice | None = None, **options: object) -> tuple[Duplex, Call]:
        device = Duplex(choice, backends=[PortAudio(), MiniAudio()], **options)  # type: ignore[arg-type]
        call = Call()
        device.start(call.exchange, call.changed)
        started.append((device, call))
        return device, call

    yield begin
    for device, call in started:
        before = time.monotonic()
        device.stop()
        assert time.monotonic() - before < 4
        blocks = call.blocks
        time.sleep(0.05)
        assert call.blocks == blocks, "nothing after stop"
        assert call.overlaps == 0
        assert call.gap < GAP_SECONDS_MAX


def wait_for(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)


def test_the_chosen_device_is_used_and_the_clock_runs_from_the_start(
    sd: Behaviour, ma: Behaviour, start: Callable
) -> None:
    device, call = start()
    wait_for(lambda: call.blocks > 0, 1.0)
    wait_for(lambda: device.chosen and call.heard == 1000)
    assert device.name == "Built-in (sounddevice)"
    assert device.latency == (Latency(0.02, 0.03) if portaudio.TOGETHER else Latency(0.02, 0.02))
    assert call.said[-1] == Changed("Built-in (sounddevice)", "sounddevice", True, None)
    assert ma.opened == 0


@pytest.mark.parametrize(
    "how",
    [
        {"open_raises": RuntimeError("no such thing")},
        {"start_raises": ValueError("not today")},
        {"blocksize": 0},
        {"silent_after": 0},
        {"reported_rate": 44_100.0},
        {"names": []},
    ],
    ids=str,
)
def test_a_device_that_does_not_work_from_the_start_is_passed_over(
    how: dict[str, object], sd: Behaviour, ma: Behaviour, start: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplex_module, "LIFE_SECONDS", 0.3)
    for name, value in how.items():
        setattr(sd, name, value)
    sd.names = list(sd.names)
    device, call = start()
    device._backends[0].look(fresh=True)
    wait_for(lambda: call.heard == 2000)
    assert device.name == "system default (miniaudio)"
    assert sd.open_now == 0, "all is given back"


@pytest.mark.parametrize(
    "how", [{"silent_after": 0}, {"blocksize": 0}, {"finish_after": 0}, {"blocksize": 100_000}], ids=str
)
def test_a_device_that_fails_in_the_call_is_replaced(
    how: dict[str, object], sd: Behaviour, ma: Behaviour, start: Callable
) -> None:
    device, call = start()
    wait_for(lambda: call.heard == 1000)
    for name, value in how.items():
        setattr(sd, name, value)
    sd.names = []
    began = time.monotonic()
    wait_for(lambda: device.name.startswith(("system default", "no sound")))
    assert time.monotonic() - began < 2.0
    wait_for(lambda: call.heard == 2000)
    assert any(change.why and change.why.startswith("Built-in (sounddevice) ") for change in call.said)
    assert device.stats()["devices failed"] == 1


def test_a_rate_other_than_promised_is_noticed(sd: Behaviour, ma: Behaviour, start: Callable) -> None:
    sd.rate = 96_000.0
    _, call = start()
    wait_for(lambda: call.heard == 1000)
    wait_for(lambda: call.heard == 2000)
    assert any("samples a second instead of the 48000" in str(change.why) for change in call.said)


def test_without_anything_there_is_silence_and_it_comes_back_when_plugged_in(
    sd: Behaviour, ma: Behaviour, start: Callable, quick: None
) -> None:
    device, call = start()
    wait_for(lambda: call.heard == 1000)
    sd.silent_after, ma.names, sd.names = 0, [], []
    wait_for(lambda: device.name == "no sound device")
    wait_for(lambda: call.heard == 0)
    time.sleep(1.0)
    assert not device.chosen
    sd.silent_after, sd.names = 10**9, ["Built-in"]
    wait_for(lambda: call.heard == 1000)
    assert device.chosen
    assert sd.refreshed_while_open == 0, "PortAudio is started anew only while nothing of it is open"


def test_a_headset_by_name_is_left_and_taken_up_again(
    sd: Behaviour, ma: Behaviour, start: Callable, quick: None
) -> None:
    sd.names = ["Built-in", "USB Headset 300"]
    sd_module = portaudio.load()
    sd_module._initialize()
    ma.names = ["Built-in"]
    device, call = start(SoundChoice("headset", "headset"))
    wait_for(lambda: device.name == "USB Headset 300 (sounddevice)")
    sd.finish_after, sd.names = 0, ["Built-in"]
    wait_for(lambda: not device.chosen and call.said[-1].why is not None)
    sd.finish_after = 10**9
    wait_for(lambda: device.name == "Built-in (sounddevice)")
    assert not device.chosen
    # While PortAudio is in use only miniaudio sees what is plugged in.
    ma.names = ["Built-in", "USB Headset 300"]
    wait_for(lambda: device.name == "USB Headset 300 (miniaudio)")
    assert device.chosen
    assert sd.refreshed_while_open == 0


def test_a_name_that_nothing_bears_is_told_with_what_there_is(sd: Behaviour, ma: Behaviour, start: Callable) -> None:
    device, call = start(SoundChoice("Gramophone", ""))
    wait_for(lambda: call.heard == 1000)
    wait_for(
        lambda: any(
            change.why == "no microphone here has 'Gramophone' in its name; there are: Built-in, system default"
            for change in call.said
        )
    )
    assert not device.chosen


def test_another_choice_is_taken_live(sd: Behaviour, ma: Behaviour, start: Callable) -> None:
    device, call = start()
    wait_for(lambda: call.heard == 1000)
    device.choose(SoundChoice(backend="miniaudio"))
    wait_for(lambda: call.heard == 2000)
    wait_for(lambda: sd.open_now == 0)
    device.choose(SoundChoice(backend="null"))
    wait_for(lambda: call.heard == 0 and ma.open_now == 0)
    assert device.chosen
    device.choose(SoundChoice("Gramophone", "", "sounddevice"))
    wait_for(lambda: call.heard == 1000)
    assert not device.chosen


def test_opening_and_closing_that_hang_hold_nothing_up(
    sd: Behaviour, ma: Behaviour, start: Callable, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplex_module, "JOB_SECONDS", 0.5)
    sd.open_blocks = ma.open_blocks = 5.0
    device, call = start()
    time.sleep(3.0)
    assert device.name == "no sound device"
    assert call.blocks > 200
    assert threading.active_count() < 20
    sd.open_blocks = ma.open_blocks = 0.0
    wait_for(lambda: device.chosen, 30)
    sd.close_blocks = ma.close_blocks = 3.0
    sd.silent_after = ma.silent_after = 0
    began = call.blocks
    time.sleep(2.0)
    assert call.blocks - began > 100, "the clock goes on"
    sd.close_blocks = ma.close_blocks = 0.0
    device.stop()
    # What hung is closed when it can be.
    wait_for(lambda: not portaudio._lock.locked() and not portaudio._open_streams and not ma.open_now, 30)


def test_files_take_the_place_of_a_direction_and_survive_a_change(
    sd: Behaviour, ma: Behaviour, start: Callable, tmp_path: Path
) -> None:
    source = WavSource(write_wav(tmp_path / "in.wav", np.arange(480 * 600) // 480 / 32768))
    sink = WavSink(tmp_path / "out.wav")
    device, call = start(source=source)
    other, other_call = start(sink=sink)
    wait_for(lambda: device.chosen and other.chosen)
    assert device.name.endswith("in.wav / Built-in")
    wait_for(lambda: call.heard > 50)
    sd.finish_after = 0
    wait_for(lambda: device.stats().get("devices failed", 0) == 1 and other.stats().get("devices failed", 0) == 1)
    wait_for(lambda: device.chosen and other.chosen)
    assert call.heard == pytest.approx(call.blocks, abs=5), "the file went on where it was"
    wait_for(lambda: other_call.heard == 2000)
    other.stop()
    assert len(blocks_of(tmp_path / "out.wav")) / 480 == pytest.approx(other_call.blocks, abs=5)


def test_two_files_need_no_hardware(sd: Behaviour, ma: Behaviour, tmp_path: Path) -> None:
    source = WavSource(write_wav(tmp_path / "in.wav", tone(0.5)), held=True)
    sink = WavSink(tmp_path / "out.wav", held=True)
    device = Duplex(source=source, sink=sink)
    said: list[Changed] = []
    device.start(lambda captured: captured, said.append)
    assert device.chosen
    device.begin(time.monotonic() + 0.05)
    wait_for(source.ended.is_set)
    time.sleep(0.1)
    device.stop()
    assert [change.backend for change in said] == ["null"]
    got = blocks_of(tmp_path / "out.wav") / 32768
    assert np.allclose(got[480 : 480 + 24_000], tone(0.5), atol=1e-4)
    assert (sd.opened, ma.opened) == (0, 0)


def test_a_file_that_fails_is_told_once_and_the_call_goes_on(start: Callable, sd: Behaviour, ma: Behaviour) -> None:
    class Broken(Silence):
        def trouble(self) -> str | None:
            return "the file is gone"

    device, call = start(source=Broken())
    time.sleep(0.5)
    assert [change.why for change in call.said].count("the file is gone") == 1
    assert call.blocks > 20
    assert device is not None


@pytest.mark.parametrize(("together", "refused", "streams"), [(True, False, 1), (True, True, 2), (False, False, 2)])
@pytest.mark.parametrize("mono_refused", [False, True])
def test_one_stream_or_two_and_two_channels(
    together: bool,
    refused: bool,
    streams: int,
    mono_refused: bool,
    sd: Behaviour,
    ma: Behaviour,
    start: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(portaudio, "TOGETHER", together)
    sd.mono_refused = mono_refused
    sd.duplex_refused = refused
    device, call = start()
    wait_for(lambda: call.heard == 1000)
    assert sd.open_now == streams
    module = portaudio.load()
    wait_for(lambda: bool(module.played) and module.played[-1][0] == 5)
    time.sleep(0.3)
    assert call.heard == 1000
    assert device.stats().get("devices failed", 0) == 0


def test_without_the_libraries_the_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins

    real = builtins.__import__

    def refuse(name: str, *arguments: object) -> object:
        if name == "sounddevice":
            raise OSError("PortAudio library not found")
        if name == "miniaudio":
            raise ImportError(name)
        return real(name, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert "apt install libportaudio2 libasound2-plugins" in str(PortAudio().look(fresh=True).problem)
    assert "pip install miniaudio" in str(MiniAudio().look(fresh=True).problem)
