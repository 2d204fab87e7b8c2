"""Levels for the eye: dBFS, peaks that stay a while, and whether somebody speaks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

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
    """`push` in the thread of the device; `level` from anywhere."""

    def __init__(self) -> None:
        self.level = Level(FLOOR_DBFS, FLOOR_DBFS, 0.0, 0)
        self._floor = 0.0
        self._held = 0

    def push(self, block: Sound, speech: float | None = None) -> Level:
        """Take a block in; `speech` from a detector, else judged by the level."""
        before = self.level
        as_float = block.astype(np.float32)
        power = float(np.dot(as_float, as_float)) / len(block)
        highest = max(int(np.maximum.reduce(block)), -int(np.minimum.reduce(block)))  # faster than max and min
        now = _decibels(power / 32768.0**2, 10.0)
        peak = _decibels(highest / 32768.0, 20.0)
        self._floor = min(now, self._floor + FLOOR_RISE_DB_PER_BLOCK)
        if speech is None:
            speech = min(1.0, max(0.0, (now - max(self._floor, -70.0)) / SPEECH_OVER_FLOOR_DB - 0.5))
        if peak >= before.peak_dbfs:
            self._held = 0
        else:
            self._held += 1
            falling = before.peak_dbfs - (PEAK_FALL_DB_PER_BLOCK if self._held > PEAK_HOLD_BLOCKS else 0.0)
            peak = max(peak, falling)
        self.level = Level(
            max(now, before.level_dbfs - FALL_DB_PER_BLOCK, FLOOR_DBFS),
            max(peak, FLOOR_DBFS),
            speech,
            before.clipped + (highest >= CLIPPED),
        )
        return self.level


def _decibels(value: float, factor: float) -> float:
    return FLOOR_DBFS if value <= 0 else max(FLOOR_DBFS, factor * math.log10(value))
