"""Time scaling by overlap and add at the pitch period (WSOLA; Verhelst and Roelands 1993).

A piece of sound becomes shorter or longer by one lag at which it resembles itself, without a change of pitch: sound
of lag samples is left out or said twice, and the seam is a cross-fade between two places that sound alike.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from meshcall.audio.codec import RATE, Sound

LAG_LEAST: Final = RATE * 25 // 10_000
"""2.5 ms: the period of a voice of 400 Hz."""
LAG_MOST: Final = RATE * 15 // 1000
"""15 ms: of one of 67 Hz."""
CONTEXT: Final = RATE // 100
"""Samples before the piece that are looked at in the search: 10 ms."""
LIKENESS: Final = 0.9
"""Normalised correlation at the lag, below which a voiced piece is left as it is."""
LIKENESS_HURRY: Final = 0.6
"""The same when there is a hurry."""
LIKENESS_LEAD: Final = 0.5
"""The same for the sound before a frame that is made out of it."""
_LEAD_WIDTH: Final = RATE * 5 // 1000
"""So much at the beginning of that frame is looked for in the 15 ms after it."""
_NEARLY: Final = 0.02
"""A longer lag is taken where it is hardly less alike."""
_COARSE: Final = 6
"""The first search is at 8 kHz."""
_PERIOD_WIDTH: Final = RATE // 50
"""So much of the end of a sound is looked for before it, ..."""
_PERIOD_MOST: Final = RATE // 50
"""... so far at most: one period of a low voice, two of most."""
PERIOD_CONTEXT: Final = _PERIOD_WIDTH + _PERIOD_MOST
_SEAM_LEAST: Final = RATE * 5 // 1000
_QUIET_POWER: Final = 1.0

Signal = NDArray[np.float32]


def shorten(before: Sound, piece: Sound, most: int, *, quiet: bool, likeness: float = LIKENESS) -> Sound:
    """`piece` without 2.5 to 15 ms of it, at most `most` samples; itself where that would be heard.

    `before`: the sound that comes before it.  `quiet`: nobody speaks, any cut is as good; then exactly `most`, up to
    15 ms, is cut.
    """
    found = _lag(before, piece, most, quiet, likeness)
    if found is None:
        return piece
    lag, alike = found
    seam = min(lag if not quiet else LAG_MOST, len(piece) - lag)
    x = piece.astype(np.float32)
    return np.concatenate([_fade(x[:seam], x[lag : lag + seam], alike), piece[lag + seam :]])


def lengthen(before: Sound, piece: Sound, most: int, *, quiet: bool, likeness: float = LIKENESS) -> Sound:
    """`piece` with 2.5 to 15 ms said twice, at most `most` samples; itself where that would be heard."""
    found = _lag(before, piece, most, quiet, likeness)
    if found is None:
        return piece
    lag, alike = found
    seam = min(lag if not quiet else LAG_MOST, len(piece) - lag)
    x = piece.astype(np.float32)
    return np.concatenate([piece[:lag], _fade(x[lag : lag + seam], x[:seam], alike), piece[seam:]])


def lead_in(made_up: Sound, following: Sound) -> Sound:
    """`made_up` that turns into what may have been before `following`, where that is voiced: its first pitch period,
    said again and again up to its beginning.  `following`: 20 ms or more.
    """
    x = following[: _LEAD_WIDTH + LAG_MOST].astype(np.float32)
    if len(x) < _LEAD_WIDTH + LAG_MOST:
        return made_up
    lag, likeness = _period(x, _LEAD_WIDTH, LAG_MOST)
    if likeness < LIKENESS_LEAD:
        return made_up
    before = x[np.arange(-len(made_up), 0) % lag]
    out = made_up.astype(np.float32)
    alike = float(out @ before) / (float(np.sqrt((out @ out) * (before @ before))) + 1.0)
    return _fade(out, before, alike)


def last_period(heard: Sound, likeness: float) -> Sound | None:
    """The last pitch period, or two, of `heard`, which is PERIOD_CONTEXT samples; None where none is so clear."""
    lag, found = _period(heard[::-1].astype(np.float32), _PERIOD_WIDTH, _PERIOD_MOST)
    return heard[-lag:] if found >= likeness else None


def cross_fade(out: Sound, into: Sound) -> Sound:
    """From one sound into another, which are not alike; as long as the shorter one."""
    seam = min(len(out), len(into))
    return _fade(out[:seam].astype(np.float32), into[:seam].astype(np.float32), 0.0)


def _period(x: Signal, width: int, most: int) -> tuple[int, float]:
    """The lag, `most` at most, at which the first `width` samples are found again best, and how alike they are."""
    coarse = _alike(x.reshape(-1, _COARSE).mean(axis=1), width // _COARSE, LAG_LEAST // _COARSE, most // _COARSE)
    middle = int(np.argmax(coarse)) * _COARSE + LAG_LEAST
    low = max(LAG_LEAST, middle - _COARSE)
    fine = _alike(x, width, low, min(most, middle + _COARSE))
    best = int(np.argmax(fine))
    return low + best, float(fine[best])


def _lag(before: Sound, piece: Sound, most: int, quiet: bool, likeness: float) -> tuple[int, float] | None:
    """By how much to shift, and how alike the two places are; None where no lag is good enough."""
    most = min(most, LAG_MOST, len(piece) - _SEAM_LEAST)
    if quiet:
        return (most, 0.0) if most > 0 else None
    if most < LAG_LEAST or len(before) < CONTEXT:
        return None
    x = np.concatenate([before[-CONTEXT:], piece[: most + _SEAM_LEAST]]).astype(np.float32)
    coarse = x[: len(x) // _COARSE * _COARSE].reshape(-1, _COARSE).mean(axis=1)
    alike = _alike(coarse, (CONTEXT + _SEAM_LEAST) // _COARSE, LAG_LEAST // _COARSE, most // _COARSE)
    near = np.flatnonzero(alike >= alike.max() - _NEARLY)
    middle = (int(near[-1]) + LAG_LEAST // _COARSE) * _COARSE
    low, high = max(LAG_LEAST, middle - _COARSE), min(most, middle + _COARSE)
    if high < low:
        return None
    fine = _alike(x, CONTEXT + _SEAM_LEAST, low, high)
    best = int(np.argmax(fine))
    return (low + best, float(fine[best])) if fine[best] >= likeness else None


def _alike(x: Signal, width: int, low: int, high: int) -> Signal:
    """Normalised correlation of the first `width` samples with those `low` to `high` samples later."""
    windows = sliding_window_view(x, width)[low : high + 1]
    first = x[:width]
    power = np.einsum("ij,ij->i", windows, windows)
    floor = _QUIET_POWER * width
    return np.asarray((windows @ first) / np.sqrt((power + floor) * (float(first @ first) + floor)), np.float32)


def _fade(out: Signal, into: Signal, alike: float) -> Sound:
    """A cross-fade that keeps the power, however alike the two are (1: linear, 0: sine and cosine)."""
    up = (np.arange(len(out), dtype=np.float32) + 0.5) / len(out)
    power = up * up + (1 - up) ** 2 + 2 * max(0.0, min(1.0, alike)) * up * (1 - up)
    return to_sound((out * (1 - up) + into * up) / np.sqrt(power))


def to_sound(x: NDArray[np.floating[Any]]) -> Sound:
    """Rounded to 16 bits, clipped."""
    sound: Sound = np.clip(np.rint(x), -32768, 32767).astype(np.int16)
    return sound
