"""A microphone and a loudspeaker on trial: record some seconds as in a call, play them back, judge the levels."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from meshcall.audio.codec import PULL_SAMPLES, RATE, Sound
from meshcall.drivers.sound.base import DeviceError, silent
from meshcall.drivers.sound.meter import FLOOR_DBFS, Meter

if TYPE_CHECKING:
    from meshcall.drivers.sound.duplex import Changed, Duplex
    from meshcall.drivers.sound.meter import Level
    from meshcall.drivers.sound.processing import Processing

SETTLE_SECONDS: Final = 15.0
"""How long the devices together may take to give their first sound."""
WARM_UP_SECONDS: Final = 0.5
"""Left out: hardware that wakes up clicks, and the gain has to find its place."""
STALLED_SECONDS: Final = 10.0
"""How much longer than its sound a phase may take."""
LOOK_SECONDS: Final = 0.1
QUIET_DBFS: Final = -55.0
LOUD_BLOCKS: Final = 3

OnLevel = Callable[[str, "Level"], None]


class Trial:
    """`run` once.  Blocks go from the device to a list of known length and back."""

    def __init__(self, device: Duplex, processing: Processing, seconds: float) -> None:
        self._device = device
        self._processing = processing
        self._blocks = max(1, round(seconds * RATE / PULL_SAMPLES))
        self._skip = round(WARM_UP_SECONDS * RATE / PULL_SAMPLES)
        self._recorded: list[Sound] = []
        self._played = 0
        self._phase = "settle"
        self._done = threading.Event()
        self._speech = 0.0
        self._remarks: list[str] = []

    def run(self, told: OnLevel) -> dict[str, Any]:
        """Record and play back; `told("recording" | "playing", level)` ten times a second.  Raises DeviceError."""
        device, processing = self._device, self._processing
        if processing.missing is not None:
            self._remarks.append(processing.missing)
        try:
            device.start(self._exchange, self._changed)
            self._settle()
            processing.device(device.latency)
            if device.backend == "null":
                self._skip = 0  # files and silence need no warming up
            self._follow("recording", lambda: processing.meter.level, told)
            loudspeaker = Meter()
            self._follow("playing", lambda: self._level_played(loudspeaker), told)
            name, chosen, latency, counters = device.name, device.chosen, device.latency, device.stats()
        finally:
            device.stop()
        recorded = np.concatenate(self._recorded)
        result = {
            "device": name,
            "as_configured": chosen,
            "latency_ms": {"capture": round(latency.capture * 1000, 1), "play": round(latency.play * 1000, 1)},
            "recorded": {**levels(recorded), "speech": round(self._speech, 2)},
            "counters": {name: count for name, count in counters.items() if count},
        }
        return {**result, "remarks": [*dict.fromkeys(self._remarks), *judged(recorded)]}

    def _settle(self) -> None:
        end = time.monotonic() + SETTLE_SECONDS
        device = self._device
        while not (device.chosen or device.backend != "null"):
            if device.fruitless or time.monotonic() > end:
                problems = [one.problem for one in device.inventories if one.problem] + self._remarks
                raise DeviceError(
                    "no sound device works here: "
                    + ("; ".join(dict.fromkeys(problems)) or "none gave sound")
                    + "; files do: --mic FILE.wav --speaker FILE.wav"
                )
            time.sleep(LOOK_SECONDS / 2)

    def _follow(self, phase: str, level: Callable[[], Level], told: OnLevel) -> None:
        self._done.clear()
        self._phase = phase
        end = time.monotonic() + (self._skip + self._blocks) * PULL_SAMPLES / RATE + STALLED_SECONDS
        while not self._done.wait(LOOK_SECONDS):
            told(phase, level())
            if time.monotonic() > end:
                raise DeviceError(f"{self._device.name} stopped while {phase}")
        self._phase = "rest"

    def _level_played(self, meter: Meter) -> Level:
        at = max(0, self._played - 1)
        meter.push(self._recorded[at])
        return meter.level

    def _changed(self, change: Changed) -> None:
        if change.why is not None:
            self._remarks.append(change.why)

    def _exchange(self, captured: Sound) -> Sound:
        clean = self._processing.capture(captured)
        played = silent()
        if self._phase == "recording":
            if self._skip:
                self._skip -= 1
            elif len(self._recorded) < self._blocks:
                self._recorded.append(clean)
                level = self._processing.meter.level
                if level.level_dbfs > QUIET_DBFS:
                    self._speech = max(self._speech, level.speech)
            else:
                self._done.set()
        elif self._phase == "playing":
            if self._played < len(self._recorded):
                played = self._recorded[self._played]
                self._played += 1
            else:
                self._done.set()
        self._processing.played(played)
        return played


def levels(sound: Sound) -> dict[str, float]:
    """Length and levels of a recording."""
    as_float = sound.astype(np.float64) / 32768
    mean, peak = float(np.mean(as_float**2)), float(np.abs(as_float).max())
    return {
        "seconds": round(len(sound) / RATE, 2),
        "level_dbfs": FLOOR_DBFS if mean <= 0 else round(max(FLOOR_DBFS, 10 * float(np.log10(mean))), 1),
        "peak_dbfs": FLOOR_DBFS if peak <= 0 else round(max(FLOOR_DBFS, 20 * float(np.log10(peak))), 1),
    }


def judged(sound: Sound) -> list[str]:
    """What a person should know about a recording."""
    read = levels(sound)
    if read["peak_dbfs"] <= FLOOR_DBFS:
        return ["the microphone gives pure silence: it is muted, or another one must be chosen ([audio] microphone)"]
    if read["level_dbfs"] < QUIET_DBFS:
        return ["hardly anything was heard: come closer, raise the level of the microphone, or choose another one"]
    loud = int((np.abs(sound.astype(np.int32)).reshape(-1, PULL_SAMPLES).max(axis=1) >= 32_000).sum())
    return ["it was too loud: lower the level of the microphone"] if loud >= LOUD_BLOCKS else []
