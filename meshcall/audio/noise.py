"""The background of the other side: how loud and of what colour it is, and more of it where nothing comes."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from meshcall.audio.codec import PULL_SAMPLES, SLOT_SAMPLES, Sound
from meshcall.audio.stretch import to_sound

_BLOCK: Final = 240
"""Loudness is looked at in blocks of 5 ms."""
_FLOOR_RISE: Final = 1.02
"""The floor rises by so much per frame of 20 ms: 4 dB a second in power."""
_FLOOR_LEAST: Final = 16.0
"""Power, in squares of 16-bit steps: 4 steps of rms, -78 dBFS."""
_QUIET_TIMES: Final = 6.0
"""A frame is quiet while no block of it has more than so many times the power of the floor ..."""
_QUIET_MOST: Final = 40_000.0
"""... and less than this: 200 steps of rms, -44 dBFS."""
_LEARN: Final = 0.15
_SEED: Final = 20

_WINDOW: NDArray[np.float64] = np.sin(np.pi * (np.arange(SLOT_SAMPLES) + 0.5) / SLOT_SAMPLES)


class Background:
    """Learns from what is played; makes noise like it.  Not random in the sense of secrets: the ear is no judge."""

    def __init__(self) -> None:
        self._floor = _QUIET_MOST / _QUIET_TIMES
        self._power: NDArray[np.float64] | None = None
        self._chance = np.random.Generator(np.random.PCG64(_SEED))
        self._tail: NDArray[np.float64] = np.zeros(PULL_SAMPLES)

    def listen(self, sound: Sound) -> bool:
        """Take note of a frame of 20 ms or more; True where nobody speaks in it."""
        x = sound.astype(np.float64)
        blocks = x[: len(x) // _BLOCK * _BLOCK].reshape(-1, _BLOCK)
        power = np.einsum("ij,ij->i", blocks, blocks) / _BLOCK
        self._floor = max(_FLOOR_LEAST, min(self._floor * _FLOOR_RISE, float(power.mean())))
        quiet = bool(power.max() <= min(_QUIET_MOST, max(self._floor, _FLOOR_LEAST) * _QUIET_TIMES))
        if quiet and len(x) >= SLOT_SAMPLES:
            now = np.abs(np.fft.rfft(x[:SLOT_SAMPLES] * _WINDOW)) ** 2
            self._power = now if self._power is None else self._power + _LEARN * (now - self._power)
        return quiet

    def make(self) -> Sound:
        """10 ms of noise like the background; silence as long as none is known."""
        if self._power is None:
            return np.zeros(PULL_SAMPLES, np.int16)
        turn = np.exp(2j * np.pi * self._chance.random(len(self._power)))
        # A window of sines loses half the power, twice; overlapping halves give it back once.
        block = np.fft.irfft(np.sqrt(2 * self._power) * turn, SLOT_SAMPLES) * _WINDOW
        sound = self._tail + block[:PULL_SAMPLES]
        self._tail = block[PULL_SAMPLES:]
        return to_sound(sound.astype(np.float32))
