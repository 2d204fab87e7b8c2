"""A soft limiter: nothing is clipped, and below the threshold nothing is changed.

Works on pieces of 2 ms and looks one piece ahead, which is its delay.  Each piece has the gain that its
loudest sample needs; the gain goes down within the piece before, linearly, and up again slowly.  Between the
threshold and full scale a knee: peaks are pressed into the last 3 dB.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from meshcall.audio.codec import Sound

PIECE_SAMPLES: Final = 96
"""2 ms: also the delay."""
THRESHOLD: Final = 23_197
"""Of a sample: -3 dBFS."""
CEILING: Final = 32_735
RELEASE_PER_PIECE: Final = 0.03
"""Share of the missing gain that comes back in a piece: about 65 ms."""
_RAMP: Final = (np.arange(PIECE_SAMPLES, dtype=np.float32) + 1) / PIECE_SAMPLES


def peak_after(peak: float) -> float:
    """How high a peak comes out: itself up to THRESHOLD, then always less than CEILING."""
    if peak <= THRESHOLD:
        return peak
    room = CEILING - THRESHOLD
    over = (peak - THRESHOLD) / room
    return THRESHOLD + room * over / (1 + over)


class Limiter:
    """Blocks of a whole number of pieces; delayed by PIECE_SAMPLES."""

    def __init__(self) -> None:
        self.gain = 1.0
        """Of the last piece given out."""
        self._held: Sound = np.zeros(PIECE_SAMPLES, dtype=np.int16)
        self._need = 1.0
        """The gain that the held piece must not exceed."""

    def process(self, block: Sound) -> Sound:
        """As many samples as given, 2 ms late."""
        joined = np.concatenate([self._held, block])
        self._held = joined[-PIECE_SAMPLES:]
        highest, lowest = int(block[block.argmax()]), int(block[block.argmin()])  # faster than max and min
        if self.gain == self._need == 1.0 and highest <= THRESHOLD and lowest >= -THRESHOLD:
            return joined[:-PIECE_SAMPLES]
        peaks = np.abs(joined[PIECE_SAMPLES:].astype(np.int32)).reshape(-1, PIECE_SAMPLES).max(axis=1)
        out = joined[:-PIECE_SAMPLES].astype(np.float32)
        for number, peak in enumerate(peaks.tolist()):
            need = peak_after(peak) / peak if peak > THRESHOLD else 1.0
            released = self._need + (1.0 - self._need) * RELEASE_PER_PIECE
            if released > 0.9999:
                released = 1.0
            following = min(need, released)
            target = min(self._need, following)
            out[number * PIECE_SAMPLES : (number + 1) * PIECE_SAMPLES] *= self.gain + (target - self.gain) * _RAMP
            self.gain, self._need = target, following
        limited: Sound = np.rint(out).astype(np.int16)
        return limited
