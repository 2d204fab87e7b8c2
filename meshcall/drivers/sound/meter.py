"""Levels for the eye: dBFS, peaks that stay a while, and whether somebody speaks."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from meshcall.audio.codec import Sound

FLOOR_DBFS: Final = -90.0
"""Silence."""
FALL_DB_PER_BLOCK: Final = 0.4
"""How fast the level falls: 40 dB a second; it rises at once."""
PEAK_HOLD_BLOCKS: Final = 100
PEAK_FALL_DB_PER_BLOCK: Final = 0.2
SPEECH_OVER_FLOOR_DB: Final = 12.0
"""Without a voice detector: so much louder than the quietest of the last seconds is speech."""
FLOOR_RISE_DB_PER_BLOCK: Final = 0.02
CLIPPED: Final = 32_700
FULL_SCALE: Final = 32768.0
WAITING_MAX: Final = 100
"""Blocks kept until somebody looks, or until there are so many: all at once cost little more than one."""


@dataclass(frozen=True, slots=True)
class Level:
    """One reading."""

    level_dbfs: float
    """Of the sum of squares (0 is a full-scale square wave), with a slow fall."""
    peak_dbfs: float
    """The highest sample of the last second."""
    speech: float
    """Probability that somebody speaks, 0 to 1."""
    clipped: int
    """Blocks so far with samples at full scale."""


class Meter:
    """`push` in the thread of the device, which keeps the block; `level` works out what came since it was last asked.

    So a level that nobody looks at costs next to nothing.  `level` may be asked from anywhere.
    """

    def __init__(self) -> None:
        self._reading = Level(FLOOR_DBFS, FLOOR_DBFS, 0.0, 0)
        self._floor = 0.0
        self._held = 0
        self._waiting: deque[tuple[Sound, float | None]] = deque(maxlen=2 * WAITING_MAX)
        self._lock = threading.Lock()

    def push(self, block: Sound, speech: float | None = None) -> None:
        """Take a block in, which must not be changed afterwards; `speech` from a detector, else judged by the level."""
        self._waiting.append((block, speech))
        # Whoever looks at this moment does the work; the device does not wait for it.
        if len(self._waiting) >= WAITING_MAX and self._lock.acquire(blocking=False):
            try:
                self._work()
            finally:
                self._lock.release()

    @property
    def level(self) -> Level:
        """The last reading."""
        with self._lock:
            self._work()
            return self._reading

    def _work(self) -> None:
        waiting = [self._waiting.popleft() for _ in range(len(self._waiting))]
        if not waiting:
            return
        blocks = np.stack([block for block, _ in waiting])
        as_float = blocks.astype(np.float32)
        powers = np.einsum("ij,ij->i", as_float, as_float) / (blocks.shape[1] * FULL_SCALE**2)
        highest = np.maximum(blocks.max(axis=1).astype(np.int32), -blocks.min(axis=1).astype(np.int32))
        levels, peaks = _decibels(powers, 10.0), _decibels(highest / FULL_SCALE, 20.0)
        before, ago = self._reading, np.arange(len(waiting) - 1, -1, -1)
        # Each block pulls the level up to its own, from where it falls; and the floor down, from where it rises.
        level = max(float((levels - FALL_DB_PER_BLOCK * ago).max()), before.level_dbfs - FALL_DB_PER_BLOCK * len(ago))
        self._floor = min(
            float((levels + FLOOR_RISE_DB_PER_BLOCK * ago).min()), self._floor + FLOOR_RISE_DB_PER_BLOCK * len(ago)
        )
        peak = before.peak_dbfs
        for one in peaks.tolist():
            self._held = 0 if one >= peak else self._held + 1
            peak = max(one, peak - (PEAK_FALL_DB_PER_BLOCK if self._held > PEAK_HOLD_BLOCKS else 0.0))
        speech = waiting[-1][1]
        if speech is None:
            over = float(levels[-1]) - max(self._floor, -70.0)
            speech = min(1.0, max(0.0, over / SPEECH_OVER_FLOOR_DB - 0.5))
        clipped = before.clipped + int(np.count_nonzero(highest >= CLIPPED))
        self._reading = Level(max(level, FLOOR_DBFS), max(peak, FLOOR_DBFS), speech, clipped)


def _decibels(values: NDArray[np.floating[Any]], factor: float) -> NDArray[np.floating[Any]]:
    least = 10 ** (FLOOR_DBFS / factor)
    decibels: NDArray[np.floating[Any]] = factor * np.log10(np.maximum(values, least))
    return decibels
