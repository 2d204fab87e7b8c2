"""What was said beside what was heard: where it fits, how alike it is, and its outline for plots."""

from __future__ import annotations

import wave
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import soxr
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pathlib import Path

RATE = 16_000
"""Wideband: what a voice needs."""
FRAME = 512
HOP = 256
FLOOR_DB = 50.0
"""Parts of the spectrum so far below the loudest are not heard, and not compared."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Heard:
    """A recording against what was said."""

    seconds: float
    """Of what was said."""
    offset: float
    """Where in the recording it begins, in seconds."""
    distance: float
    """Log-spectral distance over the frames with speech, in dB: 0 is the same, 1 to 3 what a good codec leaves,
    above 8 little is understood."""
    spoken: Floats
    """Both at 16 kHz, aligned, of one length."""
    heard: Floats


def read(path: Path) -> Floats:
    """A 16-bit WAV file of one channel, at 16 kHz, -1 to 1."""
    with wave.open(str(path)) as file:
        sound = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float64) / 32768
        resampled: Floats = soxr.resample(sound, file.getframerate(), RATE)
        return resampled


def compare(said: Path, recorded: Path) -> Heard:
    """Find what was said in the recording, and compare."""
    spoken, whole = read(said), read(recorded)
    size = 1 << int(np.ceil(np.log2(len(spoken) + len(whole))))
    fit = np.fft.irfft(np.fft.rfft(whole, size) * np.conj(np.fft.rfft(spoken, size)))
    offset = int(np.argmax(fit[: max(1, len(whole))]))
    part = whole[offset : offset + len(spoken)]
    heard = np.pad(part, (0, len(spoken) - len(part)))
    return Heard(len(spoken) / RATE, offset / RATE, distance(spoken, heard), spoken, heard)


def distance(spoken: Floats, heard: Floats) -> float:
    """Log-spectral distance in dB, after levels were made equal."""
    one, two = _decibels(spoken), _decibels(heard)
    loudest = one.max()
    talks = one.max(axis=1) > loudest - FLOOR_DB / 2
    one, two = np.maximum(one[talks], loudest - FLOOR_DB), np.maximum(two[talks], loudest - FLOOR_DB)
    two = np.maximum(two + np.median(one - two), loudest - FLOOR_DB)
    return float(np.sqrt(((one - two) ** 2).mean(axis=1)).mean()) if talks.any() else float("inf")


def _decibels(sound: Floats) -> Floats:
    """Rows of frames, columns of bands of about 500 Hz."""
    count = max(1, 1 + (len(sound) - FRAME) // HOP)
    padded = np.pad(sound, (0, max(0, FRAME - len(sound))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, FRAME)[::HOP][:count] * np.hanning(FRAME)
    power = np.abs(np.fft.rfft(frames)[:, :256]) ** 2
    bands: Floats = 10 * np.log10(power.reshape(len(power), 16, 16).sum(axis=2) + 1e-9)
    return bands


def outline(sound: Floats, columns: int) -> list[float]:
    """The highest sample in each of `columns` equal parts."""
    return [float(np.abs(part).max(initial=0.0)) for part in np.array_split(sound, columns)]


def bars(sound: Floats, columns: int) -> str:
    """The outline as a line of characters."""
    heights = outline(sound, columns)
    most = max(*heights, 1e-06)
    return "".join(" ▁▂▃▄▅▆▇█"[round(8 * height / most)] for height in heights)
