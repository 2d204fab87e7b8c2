"""What is done to the microphone before it is sent: echo out, noise out, level right, no clipping.

    captured -> EchoCanceller (AEC3) -> NoiseSuppressor -> GainController (AGC2) -> Limiter -> Meter

The first three are WebRTC's, from pywebrtc-audio, as separate objects: its combined AudioProcessor
suppresses only 5 to 7 dB of noise at 48 kHz.  The echo canceller compares with what was played, taken
where it is handed to the device; it finds the delay between the two itself, up to about half a second.
Without the package the microphone passes through the limiter only, and `missing` says so.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from meshcall.audio.codec import PULL_SAMPLES, RATE, Sound
from meshcall.drivers.sound.base import BLOCK_SECONDS, silent
from meshcall.drivers.sound.limiter import Limiter
from meshcall.drivers.sound.meter import Meter

if TYPE_CHECKING:
    from types import ModuleType

    from meshcall.drivers.sound.base import Latency

NoiseLevel = Literal["off", "low", "moderate", "high", "very-high"]
NOISE_LEVELS: Final[tuple[NoiseLevel, ...]] = ("off", "low", "moderate", "high", "very-high")
"""6, 12, 18, 21 dB."""
UNHELD_SECONDS: Final = 0.3
"""So long a way from loudspeaker to microphone the canceller finds by itself; of a longer one that the device
reports (wireless headsets), what is over is made up for by handing the reference over later."""
HELD_BLOCKS_MAX: Final = 50
REFERENCES_MAX: Final = HELD_BLOCKS_MAX + 20
"""Played blocks that wait for their captured ones."""
GAIN_DB_MAX: Final = 30.0
MISSING: Final = (
    "no echo cancellation, noise suppression and gain control: the Python package pywebrtc-audio is missing "
    "(`pip install pywebrtc-audio`); use a headset"
)


@dataclass(frozen=True, slots=True)
class Settings:
    """What is switched on."""

    echo_cancellation: bool = True
    noise_suppression: NoiseLevel = "moderate"
    automatic_gain: bool = True


@dataclass(frozen=True, slots=True)
class _Stages:
    settings: Settings
    echo: Any = None
    noise: Any = None
    gain: Any = None


def load() -> ModuleType | None:
    """The module pywebrtc_audio, where there is one."""
    try:
        import pywebrtc_audio
    except ImportError:
        return None
    return pywebrtc_audio


class Processing:
    """For one call.  `capture` and `played` in the thread of the device, in each exchange, in this order."""

    def __init__(self, settings: Settings | None = None, *, module: Callable[[], ModuleType | None] = load) -> None:
        """`module`: where the processing comes from; the second argument is for tests."""
        self.counters: Counter[str] = Counter()
        self.meter = Meter()
        """What is sent."""
        self.far_meter = Meter()
        """What is played."""
        self._module = module()
        self._limiter = Limiter()
        self._far: deque[Sound] = deque(maxlen=REFERENCES_MAX)
        self._hold = 0
        self._stages = _Stages(Settings(False, "off", False))
        self.set(settings or Settings())

    @property
    def settings(self) -> Settings:
        """What was asked for."""
        return self._stages.settings

    @property
    def missing(self) -> str | None:
        """A sentence if parts that are switched on are not there."""
        settings = self._stages.settings
        wanted = settings.echo_cancellation or settings.noise_suppression != "off" or settings.automatic_gain
        return MISSING if wanted and self._module is None else None

    def set(self, settings: Settings) -> None:
        """Switch parts on and off, live, from any thread; what stays on keeps what it learnt."""
        before = self._stages
        if self._module is None:
            self._stages = _Stages(settings)
            return
        echo, noise, gain = before.echo, before.noise, before.gain
        if (echo is not None) != settings.echo_cancellation:
            echo = self._module.EchoCanceller(sample_rate=RATE) if settings.echo_cancellation else None
        if noise is None or before.settings.noise_suppression != settings.noise_suppression:
            level = NOISE_LEVELS.index(settings.noise_suppression)
            noise = self._module.NoiseSuppressor(sample_rate=RATE, level=level - 1) if level else None
        if (gain is not None) != settings.automatic_gain:
            gain = (
                self._module.GainController(sample_rate=RATE, max_gain_db=GAIN_DB_MAX)
                if settings.automatic_gain
                else None
            )
        self._stages = _Stages(settings, echo, noise, gain)

    def switch(
        self,
        *,
        echo_cancellation: bool | None = None,
        noise_suppression: NoiseLevel | None = None,
        automatic_gain: bool | None = None,
    ) -> Settings:
        """`set` for some of them."""
        settings = self._stages.settings
        if echo_cancellation is not None:
            settings = replace(settings, echo_cancellation=echo_cancellation)
        if noise_suppression is not None:
            settings = replace(settings, noise_suppression=noise_suppression)
        if automatic_gain is not None:
            settings = replace(settings, automatic_gain=automatic_gain)
        self.set(settings)
        return settings

    def device(self, latency: Latency) -> None:
        """Another device is in use, with this latency."""
        over = latency.capture + latency.play - UNHELD_SECONDS
        self._hold = max(0, min(HELD_BLOCKS_MAX, int(over / BLOCK_SECONDS)))

    def played(self, block: Sound) -> None:
        """The block that this exchange gives back to the device: the far end, for the echo canceller."""
        if self._stages.echo is not None:
            self._far.append(block)
        self.far_meter.push(block)

    def capture(self, block: Sound) -> Sound:
        """A captured block as it is to be sent, 2 ms later, 16 ms with everything on.  Never raises."""
        stages = self._stages
        sound = block
        speech: float | None = None
        try:
            if stages.echo is not None:
                sound = stages.echo.process(sound, self._reference())
            if stages.noise is not None:
                sound = stages.noise.process(sound)
                speech = float(stages.noise.speech_probability)
            if stages.gain is not None:
                sound = stages.gain.process(sound, speech)
                speech = float(stages.gain.speech_probability) if speech is None else speech
        except Exception as problem:
            # A stage that fails for one block must not end a call: it is left out, and counted.
            self.counters[f"failed {type(problem).__name__}"] += 1
        if sound.shape != (PULL_SAMPLES,) or sound.dtype != np.int16:
            self.counters["wrong block"] += 1
            sound = silent()
        clean = self._limiter.process(sound)
        self.meter.push(clean, speech)
        return clean

    def _reference(self) -> Sound:
        """What was played `_hold` blocks before the last one; silence where nothing was."""
        while len(self._far) > self._hold + 1:
            self._far.popleft()  # at a change of the device
            self.counters["references dropped"] += 1
        return self._far.popleft() if len(self._far) == self._hold + 1 else silent()
