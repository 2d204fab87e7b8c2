"""Sound hardware through miniaudio, which brings its own code and speaks to PulseAudio, ALSA and all others itself.

It converts rates and channels by itself, and can look for new devices at any time.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from meshcall.audio.codec import RATE
from meshcall.drivers.sound.base import BLOCK_SECONDS, DeviceError, Latency
from meshcall.drivers.sound.hardware import Hands
from meshcall.drivers.sound.ports import PORTS_MAX, BackendName, Inventory, Plan, Port

if TYPE_CHECKING:
    from meshcall.drivers.sound.base import Exchange

PERIOD_MILLISECONDS: Final = 10
PERIODS: Final = 3
"""What miniaudio keeps in its buffers; it tells no latency, so this is what is said of it."""
MISSING: Final = "the Python package miniaudio is missing; `pip install miniaudio` (it may need a C compiler)"


def load() -> Any:
    """The module miniaudio.  Raises DeviceError with what to install."""
    try:
        import miniaudio
    except ImportError:
        raise DeviceError(MISSING) from None
    except Exception as problem:
        raise DeviceError(f"miniaudio does not start ({problem})") from None
    return miniaudio


def _real(module: Any) -> list[Any]:
    """All backends but its silent one: silence is ours to choose."""
    return [one for one in module.Backend if one.name not in ("NULL", "CUSTOM") and module.is_backend_enabled(one)]


class MiniAudio:
    """The backend."""

    name: BackendName = "miniaudio"

    def look(self, *, fresh: bool) -> Inventory:
        """What is plugged in now."""
        try:
            module = load()
            devices = module.Devices(_real(module))
            microphones = _ports(devices.get_captures())
            speakers = _ports(devices.get_playbacks())
        except DeviceError as problem:
            return Inventory(self.name, problem=str(problem))
        except Exception as problem:  # as in portaudio.py
            return Inventory(self.name, problem=f"miniaudio finds no sound system ({problem})")
        problem_text = None if microphones or speakers else "miniaudio sees no sound device"
        return Inventory(self.name, microphones, speakers, problem_text)

    def open(self, plan: Plan) -> MiniDevice:
        """Open the stream.  Raises DeviceError."""
        return MiniDevice(load(), plan)


def _ports(found: list[dict[str, Any]]) -> tuple[Port, ...]:
    ports = []
    for one in found[:PORTS_MAX]:
        rates = [form["samplerate"] for form in one.get("formats", ()) if form.get("samplerate")]
        # The list has no mark for the system's choice; a device without an id is that, and so it is opened.
        ports.append(Port(str(one["name"]), rates[0] if rates else 0, False, one["id"]))
    if not ports:
        return ()
    return (Port("system default", 0, True, None), *ports)


class MiniDevice(Hands):
    """One stream: both directions, or one."""

    def __init__(self, module: Any, plan: Plan) -> None:
        super().__init__(plan.name, 1)
        self._module = module
        microphone, speaker = plan.microphone, plan.speaker
        wants = _Callbacks(self)
        self._stream: Any
        self._callback: Generator[Any, Any, None]
        common: dict[str, Any] = {
            "sample_rate": RATE,
            "buffersize_msec": PERIOD_MILLISECONDS,
            "callback_periods": PERIODS,
            "backends": _real(module),
            "app_name": "meshcall",
        }
        signed = module.SampleFormat.SIGNED16
        try:
            if microphone is not None and speaker is not None:
                self._stream = module.DuplexStream(
                    playback_format=signed,
                    playback_channels=1,
                    capture_format=signed,
                    capture_channels=1,
                    playback_device_id=speaker.key,
                    capture_device_id=microphone.key,
                    **common,
                )
                self._callback = wants.both()
            elif microphone is not None:
                self._stream = module.CaptureDevice(
                    input_format=signed, nchannels=1, device_id=microphone.key, **common
                )
                self._callback = wants.capture()
            else:
                self._stream = module.PlaybackDevice(
                    output_format=signed, nchannels=1, device_id=None if speaker is None else speaker.key, **common
                )
                self._callback = wants.play()
        except Exception as problem:
            raise DeviceError(f"{self.name} cannot be opened ({problem})") from None
        buffered = PERIODS * BLOCK_SECONDS
        self.latency = Latency(BLOCK_SECONDS if microphone else 0.0, buffered if speaker else 0.0)

    def start(self, exchange: Exchange) -> None:
        """Start the stream.  Raises DeviceError."""
        self.ready(exchange)
        next(self._callback)  # to its first yield, as miniaudio wants it
        try:
            self._stream.start(self._callback)
        except Exception as problem:
            raise DeviceError(f"{self.name} does not start ({problem})") from None

    def stop(self) -> None:
        """Close the stream and its connection to the sound system."""
        self.done()
        stream, self._stream = self._stream, None
        if stream is None:
            return
        context = getattr(stream, "_context", None)
        try:
            stream.close()
            if context is not None:
                # miniaudio 1.71 never gives this back, and it holds a connection to the sound server.
                self._module.lib.ma_context_uninit(context)
        except Exception:
            self.counters["close failed"] += 1


class _Callbacks:
    """The generators that miniaudio calls; what they give back must have exactly the length asked for."""

    def __init__(self, hands: Hands) -> None:
        self._hands = hands

    def both(self) -> Generator[bytes, Any, None]:
        data = yield b""
        while True:
            data = yield self._hands.duplex(np.frombuffer(data, dtype=np.int16)).tobytes()

    def capture(self) -> Generator[None, Any, None]:
        while True:
            data = yield
            self._hands.captured(np.frombuffer(data, dtype=np.int16))

    def play(self) -> Generator[bytes, int, None]:
        count = yield b""
        while True:
            count = yield self._hands.wanted(count).tobytes()
