"""How much of the speech survived a call: PESQ-WB, ESTOI, silence where speech was, mouth-to-ear delay.

    score.py REFERENCE_FOLDER RECORDING.wav

Each utterance of the reference is looked up in the recording by itself (waveform correlation around where the
envelope says that it is), so a delay that wanders or a stretched pause does not spoil the score; within an utterance
PESQ aligns for itself.  Means over utterances are weighted by their length, the delay is their median: sample 0 of
the recording must be the instant of sample 0 of what was spoken.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.signal import butter, fftconvolve, resample_poly, sosfiltfilt
from sound import RATE, Samples, read_wav

FS = 16_000
"""PESQ-WB works at 16 kHz."""
MARGIN = int(0.2 * FS)
"""Around an utterance."""
REACH = int(0.8 * FS)
"""How far around the guess an utterance is looked for."""
FOUND = 0.12
"""Correlation above which an utterance counts as found: far above chance for seconds of speech."""
LAG_SECONDS_MAX = 30.0
_BAND = butter(4, [200, 3600], "band", fs=FS, output="sos")


@dataclass(frozen=True, slots=True)
class Utterance:
    """One utterance of the reference as it came out."""

    start: float
    seconds: float
    delay_ms: float
    correlation: float
    pesq: float
    estoi: float
    silent_share: float


@dataclass(frozen=True, slots=True)
class Score:
    """Of a recording."""

    pesq: float
    pesq_least: float
    estoi: float
    silent_share: float
    delay_ms: float | None
    delay_most_ms: float | None
    utterances: list[Utterance]


def envelope(sound: Samples, block: int = FS // 100) -> Samples:
    """RMS per block."""
    return np.sqrt((sound[: len(sound) // block * block].reshape(-1, block) ** 2).mean(1))


def cut(sound: Samples, start: int, length: int) -> Samples:
    """A part of a recording, zeros where it does not reach."""
    out = np.zeros(length)
    low, high = max(0, start), min(len(sound), start + length)
    if high > low:
        out[low - start : high - start] = sound[low:high]
    return out


def _best(needle: Samples, hay: Samples) -> tuple[int, float]:
    """Best place of a needle in a haystack, and the normalised correlation there."""
    dots = fftconvolve(hay, needle[::-1], "valid")
    power = np.maximum(fftconvolve(hay**2, np.ones(len(needle)), "valid"), 1e-9)
    dots = dots / (np.sqrt(power) * (np.linalg.norm(needle) + 1e-9))
    at = int(np.argmax(dots))
    return at, float(dots[at])


def locate(reference: Samples, recording: Samples, spans: list[tuple[int, int]]) -> list[tuple[int, float]]:
    """How many samples later than in the reference each utterance begins, and how surely."""
    low, high = (np.log10(envelope(one) + 1e-3) + 3 for one in (reference, recording))
    pad = np.zeros(int(LAG_SECONDS_MAX * 100))
    dots = fftconvolve(np.concatenate([pad, high, pad]), low[::-1], "full")
    coarse = (int(np.argmax(dots)) - (len(low) - 1) - len(pad)) * (FS // 100)
    ref_band, rec_band = sosfiltfilt(_BAND, reference), sosfiltfilt(_BAND, recording)
    found, guess = [], coarse
    for start, end in spans:
        best: tuple[int, float] = (coarse, 0.0)
        for lag in dict.fromkeys((guess, coarse)):
            hay = cut(rec_band, start + lag - REACH, end - start + 2 * REACH)
            if hay.any():
                at, sure = _best(ref_band[start:end], hay)
                if sure > best[1] + 0.05 or best[1] == 0.0:
                    best = (lag - REACH + at, sure)
        found.append(best)
        if best[1] > FOUND:
            guess = best[0]
    return found


def _silent(reference: Samples, recording: Samples) -> float:
    """Share of 20 ms blocks of speech whose place in the recording is nearly silent."""
    ref, rec = envelope(reference, FS // 50), envelope(recording, FS // 50)
    speech = ref > ref.max() * 0.05
    return float((rec[speech] < 0.1 * ref[speech]).mean()) if speech.any() else 0.0


def judge(reference: Samples, recording: Samples, *, clarity: bool = True) -> tuple[float, float]:
    """PESQ-WB and (0 if not wanted) ESTOI of one utterance at 16 kHz; 1 and 0 where nothing is left of it."""
    from pesq import NoUtterancesError, pesq
    from pystoi import stoi

    if np.sqrt((recording**2).mean()) < 1e-4:
        return 1.0, 0.0
    try:
        quality = float(pesq(FS, reference, recording, "wb"))
    except NoUtterancesError:
        quality = 1.0
    return quality, float(stoi(reference, recording, FS, extended=True)) if clarity else 0.0


def score(reference: Samples, recording: Samples, spans: list[tuple[float, float]]) -> Score:
    """Both at 48 kHz; spans of the utterances in seconds of the reference."""
    ref, rec = (resample_poly(one, 1, RATE // FS) for one in (reference, recording))
    places = [(int(start * FS), int(end * FS)) for start, end in spans]
    rows = []
    for (start, end), (lag, sure) in zip(places, locate(ref, rec, places), strict=True):
        length = end - start + 2 * MARGIN
        before, after = cut(ref, start - MARGIN, length), cut(rec, start - MARGIN + lag, length)
        quality, clear = judge(before, after)
        rows.append(
            Utterance(
                round(start / FS, 2), round((end - start) / FS, 2), round(lag / FS * 1000, 1), round(sure, 3),
                round(quality, 3), round(clear, 3), round(_silent(before, after), 4),
            )
        )  # fmt: skip
    weights = np.array([row.seconds for row in rows])

    def mean(values: list[float]) -> float:
        return round(float(np.average(values, weights=weights)), 3)

    delays = [row.delay_ms for row in rows if row.correlation > FOUND]
    return Score(
        mean([row.pesq for row in rows]), min(row.pesq for row in rows), mean([row.estoi for row in rows]),
        mean([row.silent_share for row in rows]), float(np.median(delays)) if delays else None,
        max(delays, default=None), rows,
    )  # fmt: skip


def spans_of(folder: Path) -> list[tuple[float, float]]:
    """Of a reference that reference.py built."""
    facts = json.loads((folder / "ref.json").read_text())
    return [(one["start"], one["end"]) for one in facts["utterances"]]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reference", type=Path)
    parser.add_argument("recording", type=Path)
    options = parser.parse_args()
    _, reference = read_wav(options.reference / "ref48.wav")
    rate, recording = read_wav(options.recording)
    if rate != RATE:
        parser.error(f"a recording at {RATE} Hz is wanted")
    json.dump(asdict(score(reference[0], recording[-1], spans_of(options.reference))), sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
