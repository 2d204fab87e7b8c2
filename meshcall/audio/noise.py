"""The background of the other side: how loud and of what colour it is, and more of it where nothing comes."""

from __future__ import annotations

from collections import deque
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
_QUIET_FRAMES: Final = 40
"""So many quiet frames are kept: what was before them counts for less than 0.2 %."""
_SEED: Final = 20

_WINDOW: NDArray[np.float64] = np.sin(np.pi * (np.arange(SLOT_SAMPLES) + 0.5) / SLOT_SAMPLES)


class Background:
    """Learns from what is played; makes noise like it.  Not random in the sense of secrets: the ear is no judge."""

    def __init__(self) -> None:
        self._floor = _QUIET_MOST / _QUIET_TIMES
        self._power: NDArray[np.float64] | None = None
        self._quiet: deque[Sound] = deque(maxlen=_QUIET_FRAMES)
        self._chance = np.random.Generator(np.random.PCG64(_SEED))
        self._tail: NDArray[np.float64] = np.zeros(PULL_SAMPLES)

    def listen(self, sound: Sound) -> bool:
        """Take note of a frame of 20 ms or more; True where nobody speaks in it."""
        x = sound[: len(sound) // _BLOCK * _BLOCK].astype(np.float64).reshape(-1, _BLOCK)
        power = [one / _BLOCK for one in np.einsum("ij,ij->i", x, x).tolist()]
        self._floor = max(_FLOOR_LEAST, min(self._floor * _FLOOR_RISE, sum(power) / len(power)))
        quiet: bool = max(power) <= min(_QUIET_MOST, max(self._floor, _FLOOR_LEAST) * _QUIET_TIMES)
        if quiet and len(sound) >= SLOT_SAMPLES:
            self._quiet.append(sound[:SLOT_SAMPLES])
        return quiet

    def make(self) -> Sound:
        """10 ms of noise like the background; silence as long as none is known."""
        self._learn()
        if self._power is None:
            return np.zeros(PULL_SAMPLES, np.int16)
        turn = np.exp(2j * np.pi * self._chance.random(len(self._power)))
        # A window of sines loses half the power, twice; overlapping halves give it back once.
        block = np.fft.irfft(np.sqrt(2 * self._power) * turn, SLOT_SAMPLES) * _WINDOW
        sound = self._tail + block[:PULL_SAMPLES]
        self._tail = block[PULL_SAMPLES:]
        return to_sound(sound.astype(np.float32))

    def _learn(self) -> None:
        """The spectra of the quiet frames since the last time; only made noise needs them, and it is seldom made."""
        if not self._quiet:
            return
        spectra = np.abs(np.fft.rfft(np.stack(self._quiet) * _WINDOW)) ** 2
        self._quiet.clear()
        for now in spectra:
            self._power = now if self._power is None else self._power + _LEARN * (now - self._power)
