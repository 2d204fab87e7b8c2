"""A soft limiter: nothing is clipped, and below the threshold nothing is changed.

Works on pieces of 2 ms and looks one piece ahead, which is its delay.  Each piece has the gain that its
loudest sample needs; the gain goes down within the piece before, linearly, and up again slowly.  Between the
threshold and full scale a knee: peaks are pressed into the last 3 dB.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

PIECE_SAMPLES: Final = 96
"""2 ms: also the delay."""
THRESHOLD: Final = 0.708
"""-3 dBFS."""
CEILING: Final = 0.999
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
    """Mono floats, full scale 1, in blocks of a whole number of pieces; delayed by PIECE_SAMPLES."""

    def __init__(self) -> None:
        self.gain = 1.0
        """Of the last piece given out."""
        self._held: Floats = np.zeros(PIECE_SAMPLES, dtype=np.float32)
        self._need = 1.0
        """The gain that the held piece must not exceed."""

    def process(self, block: Floats) -> Floats:
        """As many samples as given, 2 ms late.  Anything finite may come in; what is not finite is silence."""
        if not np.isfinite(block).all():
            block = np.nan_to_num(block, nan=0.0, posinf=0.0, neginf=0.0)
        joined = np.concatenate([self._held, block])
        pieces = joined.reshape(-1, PIECE_SAMPLES)
        peaks = np.abs(pieces[1:]).max(axis=1)
        self._held = joined[-PIECE_SAMPLES:]
        if self.gain == self._need == 1.0 and float(peaks.max()) <= THRESHOLD:
            return joined[:-PIECE_SAMPLES]
        out = joined[:-PIECE_SAMPLES].copy()
        for number, peak in enumerate(peaks.tolist()):
            need = peak_after(peak) / peak if peak > THRESHOLD else 1.0
            released = self._need + (1.0 - self._need) * RELEASE_PER_PIECE
            if released > 0.9999:
                released = 1.0
            following = min(need, released)
            target = min(self._need, following)
            out[number * PIECE_SAMPLES : (number + 1) * PIECE_SAMPLES] *= self.gain + (target - self.gain) * _RAMP
            self.gain, self._need = target, following
        return out
