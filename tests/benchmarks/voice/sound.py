"""WAV files and arrays of samples for the benchmarks: float64, -1 to 1, channels first."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

RATE = 48_000
Samples = NDArray[np.float64]


def read_wav(path: Path) -> tuple[int, Samples]:
    """Rate, and samples as (channels, length); 16 bit only."""
    with wave.open(str(path), "rb") as file:
        if file.getsampwidth() != 2:
            raise ValueError(f"{path}: 16 bit samples are wanted")
        raw = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float64) / 32768
        return file.getframerate(), raw.reshape(-1, file.getnchannels()).T


def read_int16(path: Path) -> NDArray[np.int16]:
    """A mono file at 48 kHz as the cores want it."""
    rate, sound = read_wav(path)
    if rate != RATE or len(sound) != 1:
        raise ValueError(f"{path}: mono at {RATE} Hz is wanted")
    return np.round(sound[0] * 32768).astype(np.int16)


def write_wav(path: Path, sound: Samples | NDArray[np.int16], rate: int = RATE) -> None:
    """Mono, 16 bit."""
    if sound.dtype != np.int16:
        sound = (np.clip(sound, -1, 1) * 32767).astype(np.int16)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(sound.astype("<i2").tobytes())
