"""Sound hardware through sounddevice, the binding of PortAudio.

Blocks of 480 samples, never 0: with that, a PulseAudio behind ALSA gives single samples and stalls for
seconds.  PortAudio is not thread-safe, and sees a device that was plugged in only after it was started
anew, which it may be only while no stream of it is open.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from meshcall.audio.codec import PULL_SAMPLES, RATE
from meshcall.drivers.sound.base import DeviceError, Latency
from meshcall.drivers.sound.hardware import Hands, to_mono
from meshcall.drivers.sound.ports import PORTS_MAX, BackendName, Inventory, Plan, Port

if TYPE_CHECKING:
    from meshcall.drivers.sound.base import Exchange

ANSWER_SECONDS: Final = 1.0
"""How long one call waits for another that hangs inside PortAudio."""
TOGETHER = sys.platform != "linux"
"""Capture and play by one stream.  Not with ALSA: there PortAudio 19.6 polls both directions in one loop, which at
times takes half a core, and ends the stream when one of them is late ("ContinuePoll failed"); two streams do not."""
CHANNELS: Final = (1, 2)
"""Tried in this order: some hardware has no mono."""
INSTALL: Final = (
    "PortAudio is missing; `apt install libportaudio2 libasound2-plugins` (Debian, Ubuntu) or your system's package"
)
NO_DEVICES: Final = "PortAudio sees no sound device; is a sound server running, and are libasound2-plugins installed?"

_lock = threading.Lock()
_open_streams: Final[list[Any]] = []
"""Of all devices of this process: PortAudio is one for all.  Touched under the lock."""


@contextmanager
def _alone() -> Iterator[None]:
    """One at a time inside PortAudio.  Raises DeviceError where it hangs."""
    if not _lock.acquire(timeout=ANSWER_SECONDS):
        raise DeviceError("the sound system does not answer")
    try:
        yield
    finally:
        _lock.release()


def load() -> Any:
    """The module sounddevice.  Raises DeviceError with what to install."""
    try:
        import sounddevice
    except ImportError:
        raise DeviceError("the Python package sounddevice is missing; install meshcall-voice again") from None
    except OSError:  # it looks for the library at import
        raise DeviceError(INSTALL) from None
    except Exception as problem:
        raise DeviceError(f"PortAudio does not start ({problem})") from None
    _quiet_alsa()
    return sounddevice


_ALSA_HANDLER: Final = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_int)


_ignore_alsa: Final = _ALSA_HANDLER(lambda file, line, function, error: None)
"""For what ALSA says of its own accord; the counters of the streams say it too."""


def _quiet_alsa() -> None:
    """ALSA writes every underrun to standard error, in the middle of a live view."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # no ALSA, so nobody who writes
            ctypes.CDLL("libasound.so.2").snd_lib_error_set_handler(_ignore_alsa)


class PortAudio:
    """The backend."""

    name: BackendName = "sounddevice"

    def look(self, *, fresh: bool) -> Inventory:
        """What PortAudio sees."""
        try:
            module = load()
            with _alone():
                if fresh and not _open_streams:
                    module._terminate()
                    module._initialize()
                return _inventory(module)
        except DeviceError as problem:
            return Inventory(self.name, problem=str(problem))
        except Exception as problem:  # whatever the library raises: no sound is no reason to fall over
            return Inventory(self.name, problem=f"PortAudio fails ({_text(problem)})")

    def open(self, plan: Plan) -> PortAudioDevice:
        """Open the streams.  Raises DeviceError."""
        module = load()
        with _alone():
            return PortAudioDevice(module, plan)


def _inventory(module: Any) -> Inventory:
    apis = list(module.query_hostapis())
    microphones: list[Port] = []
    speakers: list[Port] = []
    try:
        default_in, default_out = (int(one) for one in module.default.device)
    except (TypeError, ValueError):
        default_in = default_out = -1
    if default_in < 0:
        default_in = next((one["default_input_device"] for one in apis if one["default_input_device"] >= 0), -1)
    if default_out < 0:
        default_out = next((one["default_output_device"] for one in apis if one["default_output_device"] >= 0), -1)
    for number, one in enumerate(module.query_devices()):
        several = len(apis) > 1
        name = f"{one['name']} [{apis[one['hostapi']]['name']}]" if several else str(one["name"])
        rate = int(one["default_samplerate"])
        if one["max_input_channels"] > 0 and len(microphones) < PORTS_MAX:
            microphones.append(Port(name, rate, number == default_in, number))
        if one["max_output_channels"] > 0 and len(speakers) < PORTS_MAX:
            speakers.append(Port(name, rate, number == default_out, number))
    problem = None if microphones or speakers else NO_DEVICES
    return Inventory("sounddevice", tuple(microphones), tuple(speakers), problem)


class PortAudioDevice(Hands):
    """One stream for both directions, or two; or one for one direction."""

    def __init__(self, module: Any, plan: Plan) -> None:
        microphone = None if plan.microphone is None else plan.microphone.key
        speaker = None if plan.speaker is None else plan.speaker.key
        self._streams: list[Any] = []
        self._ending = False
        try:
            if microphone is None or speaker is None:
                super().__init__(plan.name, 1)
                self._open(module, microphone, speaker)
            elif not TOGETHER or not self._opened_together(module, plan.name, microphone, speaker):
                super().__init__(plan.name, 2)
                self._open(module, microphone, None)
                self._open(module, None, speaker)
        except BaseException:
            self._close()
            raise
        self._read_latency()

    def _opened_together(self, module: Any, name: str, microphone: int, speaker: int) -> bool:
        super().__init__(name, 1)
        try:
            self._open(module, microphone, speaker)
        except DeviceError:  # two devices, or hardware that does not do both at once
            self._close()
            return False
        return True

    def start(self, exchange: Exchange) -> None:
        """Start the streams.  Raises DeviceError."""
        self.ready(exchange)
        with _alone():
            for stream in self._streams:
                try:
                    stream.start()
                except Exception as problem:
                    raise DeviceError(f"{self.name} does not start ({_text(problem)})") from None

    def stop(self) -> None:
        """Close the streams.  Raises DeviceError where PortAudio hangs."""
        self._ending = True
        self.done()
        with _alone():
            self._close()

    def _close(self) -> None:
        while self._streams:
            stream = self._streams.pop()
            _open_streams.remove(stream)
            for step in (stream.abort, stream.close):
                try:
                    step()
                except Exception:  # a device that is gone cannot be closed; it is gone
                    self.counters["close failed"] += 1

    def _open(self, module: Any, microphone: int | None, speaker: int | None) -> None:
        kind: Any
        device: Any
        callback: Any
        if microphone is not None and speaker is not None:
            kind, device, callback = module.Stream, (microphone, speaker), self._on_both
        elif microphone is not None:
            kind, device, callback = module.InputStream, microphone, self._on_captured
        else:
            kind, device, callback = module.OutputStream, speaker, self._on_wanted
        problem: Exception | None = None
        for channels in CHANNELS:
            try:
                stream = kind(
                    samplerate=RATE,
                    blocksize=PULL_SAMPLES,
                    device=device,
                    channels=channels,
                    dtype="int16",
                    latency="low",
                    callback=callback,
                    finished_callback=self._on_finished,
                )
            except Exception as failure:
                problem = failure
                continue
            rate = float(stream.samplerate)
            self._streams.append(stream)
            _open_streams.append(stream)
            if abs(rate / RATE - 1) > 0.01:
                raise DeviceError(f"{self.name} gives {rate:.0f} samples a second where {RATE} were asked for")
            return
        raise DeviceError(f"{self.name} cannot be opened ({_text(problem)})")

    def _read_latency(self) -> None:
        capture = play = 0.0
        for stream in self._streams:
            told = stream.latency
            if isinstance(told, tuple | list):
                capture, play = float(told[0]), float(told[1])
            elif stream is self._streams[0] and self._captures_first:
                capture = float(told)
            else:
                play = float(told)
        self.latency = Latency(capture, play)

    @property
    def _captures_first(self) -> bool:
        return len(self._streams) == 2 or type(self._streams[0]).__name__ == "InputStream"

    def _on_both(self, indata: Any, outdata: Any, frames: int, _time: Any, status: Any) -> None:
        flagged = self.flag(overflow=bool(status.input_overflow), underflow=bool(status.output_underflow))
        played = self.duplex(to_mono(indata), flagged=flagged)
        _fill(outdata, played)

    def _on_captured(self, indata: Any, frames: int, _time: Any, status: Any) -> None:
        self.captured(to_mono(indata), flagged=self.flag(overflow=bool(status.input_overflow), underflow=False))

    def _on_wanted(self, outdata: Any, frames: int, _time: Any, status: Any) -> None:
        flagged = self.flag(overflow=False, underflow=bool(status.output_underflow))
        _fill(outdata, self.wanted(len(outdata), flagged=flagged))

    def _on_finished(self) -> None:
        if not self._ending:
            for beat in self.beats:
                beat.problem = beat.problem or "was ended by the sound system"


def _fill(outdata: Any, played: np.ndarray[tuple[int, ...], np.dtype[np.int16]]) -> None:
    outdata[: len(played)] = played[:, None]
    outdata[len(played) :] = 0


def _text(problem: Exception | None) -> str:
    said = str(problem).splitlines()
    return said[0][:200] if said and said[0] else type(problem).__name__
