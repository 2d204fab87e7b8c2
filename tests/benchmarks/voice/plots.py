"""One utterance per scenario beside the original, to listen with the eyes: wave form and spectrogram, gaps and seams.

    virtual.py --keep DIR ...; plots.py DIR [--out DIR] [--utterance 1] [--set anchor] [--seed 1]

Writes SCENARIO.png for each recording of that set and seed.  Both sounds are aligned by correlation; a third line
shows, per 20 ms, how far the level is off the original's, which is where a gap or a repeated piece stands out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from reference import find
from scipy.signal import resample_poly
from score import FS, cut, envelope, judge, locate, spans_of
from sound import RATE, Samples, read_wav

MARGIN_SECONDS = 0.3
TOP_HZ = 8000
BLOCK_SECONDS = 0.02
LEVEL_FLOOR = 1e-3


def levels_apart(before: Samples, after: Samples) -> Samples:
    """dB per 20 ms, the recording's over the original's."""
    block = int(RATE * BLOCK_SECONDS)
    ours, theirs = (np.maximum(envelope(one, block), LEVEL_FLOOR) for one in (after, before))
    return 20 * np.log10(ours / theirs)


def draw(original: Samples, recording: Samples, span: tuple[float, float], title: str, target: Path) -> None:
    """A picture of one utterance, both at 48 kHz."""
    low, high = (resample_poly(one, 1, RATE // FS) for one in (original, recording))
    place = (int(span[0] * FS), int(span[1] * FS))
    ((lag, _),) = locate(low, high, [place])
    length = int((span[1] - span[0] + 2 * MARGIN_SECONDS) * RATE)
    first = int((span[0] - MARGIN_SECONDS) * RATE)
    before, after = cut(original, first, length), cut(recording, first + lag * (RATE // FS), length)
    quality, _ = judge(*(resample_poly(one, 1, RATE // FS) for one in (before, after)), clarity=False)
    figure, axes = plt.subplots(5, 1, figsize=(14, 11), sharex=True, height_ratios=(1, 2, 1, 2, 1))
    at = np.arange(length) / RATE
    for row, (name, sound) in enumerate((("original", before), ("heard", after))):
        axes[2 * row].plot(at, sound, linewidth=0.4)
        axes[2 * row].set_ylabel(name)
        axes[2 * row].set_ylim(-0.6, 0.6)
        axes[2 * row + 1].specgram(sound + 1e-7, NFFT=960, Fs=RATE, noverlap=720, vmin=-140, vmax=-40)
        axes[2 * row + 1].set_ylim(0, TOP_HZ)
        axes[2 * row + 1].set_ylabel("Hz")
    apart = levels_apart(before, after)
    axes[4].step(np.arange(len(apart)) * BLOCK_SECONDS, apart, where="post", linewidth=0.8)
    axes[4].set_ylim(-30, 30)
    axes[4].set_ylabel("level apart, dB")
    axes[4].set_xlabel("seconds")
    axes[0].set_title(f"{title}: PESQ-WB {quality:.2f}, {1000 * lag / FS:.0f} ms after the original")
    figure.tight_layout()
    figure.savefig(target, dpi=80)
    plt.close(figure)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recordings", type=Path, help="what virtual.py --keep wrote")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--utterance", type=int, default=1)
    parser.add_argument("--set", default="anchor")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    out = options.out or options.recordings
    out.mkdir(parents=True, exist_ok=True)
    folder = find(options.set)
    span = spans_of(folder)[options.utterance]
    _, original = read_wav(folder / "ref48.wav")
    for path in sorted(options.recordings.glob(f"*-{options.seed}-{options.set}.wav")):
        scenario = path.stem.partition("-")[0]
        _, recording = read_wav(path)
        draw(original[0], recording[0], span, f"{scenario}, utterance {options.utterance}", out / f"{scenario}.png")
        print(out / f"{scenario}.png")


if __name__ == "__main__":
    main()
