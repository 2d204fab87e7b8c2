"""Modules in the place of sounddevice and miniaudio that misbehave as they are told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np


class Behaviour:
    """What the fakes do, changed by a test while they run."""

    def __init__(self, **now: Any) -> None:
        self.names = ["Built-in"]
        self.blocksize = 480
        self.rate = 48_000.0
        """Samples really given a second."""
        self.reported_rate = 48_000.0
        self.open_raises: Exception | None = None
        self.start_raises: Exception | None = None
        self.open_blocks = 0.0
        self.close_blocks = 0.0
        self.silent_after = 10**9
        """Callbacks, then none."""
        self.finish_after = 10**9
        self.duplex_refused = False
        self.mono_refused = False
        self.opened = 0
        self.open_now = 0
        self.refreshed_while_open = 0
        self.tone = 1000
        for name, value in now.items():
            assert hasattr(self, name), name
            setattr(self, name, value)


class FakeStream:
    """Calls back in a thread of its own."""

    def __init__(self, how: Behaviour, call: Callable[[int], None], finished: Callable[[], None] | None = None) -> None:
        self._how = how
        self._call = call
        self._finished = finished
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._open = False
        self.samplerate = how.reported_rate
        self.latency: Any = (0.02, 0.03)
        if how.open_blocks:
            time.sleep(how.open_blocks)
        if how.open_raises is not None:
            raise how.open_raises
        how.opened += 1
        how.open_now += 1
        self._open = True

    def start(self, *_: Any) -> None:
        if self._how.start_raises is not None:
            raise self._how.start_raises
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def abort(self) -> None:
        self._stop.set()

    def close(self) -> None:
        self._stop.set()
        if self._how.close_blocks:
            time.sleep(self._how.close_blocks)
        if self._open:
            self._open = False
            self._how.open_now -= 1

    def _run(self) -> None:
        how, done, start, given = self._how, 0, time.monotonic(), 0
        while True:
            given += how.blocksize or 480
            wait = start + given / how.rate - time.monotonic()
            if self._stop.wait(max(wait, 0.0)):
                return
            if done >= how.finish_after:
                if self._finished is not None:
                    self._finished()
                return
            if done < how.silent_after:
                self._call(how.blocksize)
            done += 1


class FakeSoundDevice:
    """As the module sounddevice."""

    PortAudioError = type("PortAudioError", (Exception,), {})

    def __init__(self, how: Behaviour) -> None:
        self._how = how
        self.default = SimpleNamespace(device=(0, 0))
        self.played: list[np.ndarray] = []
        self.initialized = 0
        self._seen = list(how.names)

    def query_hostapis(self) -> list[dict[str, Any]]:
        return [
            {
                "name": "Fake",
                "default_input_device": 0 if self._seen else -1,
                "default_output_device": 0 if self._seen else -1,
            }
        ]

    def query_devices(self) -> list[dict[str, Any]]:
        return [
            {
                "name": name,
                "hostapi": 0,
                "max_input_channels": 1,
                "max_output_channels": 2,
                "default_samplerate": 44_100.0,
            }
            for name in self._seen
        ]

    def _terminate(self) -> None:
        if self._how.open_now:
            self._how.refreshed_while_open += 1

    def _initialize(self) -> None:
        self.initialized += 1
        self._seen = list(self._how.names)

    def _stream(self, kind: str, channels: int, callback: Callable[..., None], finished: Any) -> FakeStream:
        how = self._how
        if how.mono_refused and channels == 1:
            raise self.PortAudioError("Invalid number of channels")
        if how.duplex_refused and kind == "Stream":
            raise self.PortAudioError("Illegal combination of I/O devices")
        status = SimpleNamespace(input_overflow=False, output_underflow=False)

        def call(frames: int) -> None:
            heard = np.full((frames, channels), how.tone, np.int16)
            out = np.full((frames, channels), 77, np.int16)
            if kind == "Stream":
                callback(heard, out, frames, None, status)
            elif kind == "InputStream":
                callback(heard, frames, None, status)
            else:
                callback(out, frames, None, status)
            if kind != "InputStream":
                self.played = [*self.played[-20:], out[:, 0].copy()]

        stream = FakeStream(how, call, finished)
        if kind != "Stream":
            stream.latency = 0.02
        return stream

    def Stream(self, *, channels: int, callback: Any, finished_callback: Any, **_: Any) -> FakeStream:
        return self._stream("Stream", channels, callback, finished_callback)

    def InputStream(self, *, channels: int, callback: Any, finished_callback: Any, **_: Any) -> FakeStream:
        return self._stream("InputStream", channels, callback, finished_callback)

    def OutputStream(self, *, channels: int, callback: Any, finished_callback: Any, **_: Any) -> FakeStream:
        return self._stream("OutputStream", channels, callback, finished_callback)


class FakeMiniAudio:
    """As the module miniaudio."""

    MiniaudioError = type("MiniaudioError", (Exception,), {})
    SampleFormat = SimpleNamespace(SIGNED16=2)

    def __init__(self, how: Behaviour) -> None:
        self._how = how
        self.Backend = [SimpleNamespace(name="PULSEAUDIO"), SimpleNamespace(name="NULL")]
        self.lib = SimpleNamespace(ma_context_uninit=lambda context: None)

    def is_backend_enabled(self, backend: Any) -> bool:
        return True

    def Devices(self, backends: Any) -> Any:
        names = list(self._how.names)
        listed = [{"name": name, "id": name, "formats": [{"samplerate": 48_000}]} for name in names]
        if not names:
            raise self.MiniaudioError("cannot init context", -1)
        return SimpleNamespace(get_captures=lambda: listed, get_playbacks=lambda: listed)

    def _device(self, convert: Callable[[Any, int], None]) -> Any:
        how = self._how
        holder: dict[str, Any] = {}
        stream = FakeStream(how, lambda frames: convert(holder["generator"], frames))
        begin = stream.start

        def start(generator: Any) -> None:
            holder["generator"] = generator
            begin()

        stream.start = start  # type: ignore[method-assign]
        return stream

    def DuplexStream(self, **_: Any) -> Any:
        def convert(generator: Any, frames: int) -> None:
            if frames > 0:
                answer = generator.send(bytearray(np.full(frames, self._how.tone, np.int16).tobytes()))
                assert len(answer) == 2 * frames

        return self._device(convert)

    def CaptureDevice(self, **_: Any) -> Any:
        def convert(generator: Any, frames: int) -> None:
            if frames > 0:
                generator.send(bytearray(np.full(frames, self._how.tone, np.int16).tobytes()))

        return self._device(convert)

    def PlaybackDevice(self, **_: Any) -> Any:
        def convert(generator: Any, frames: int) -> None:
            if frames > 0:
                assert len(generator.send(frames)) == 2 * frames

        return self._device(convert)
