"""The echo canceller in a synthetic room: how much echo is left, and what double talk does to the near voice.

    .venv/bin/python tests/benchmarks/echo_room.py [--quick] [--json]

45 s: the far voice speaks from the start, through a room (exponential decay, 250 ms) and a delay, at -6 dB,
into a microphone with noise at -55 dBFS; from 28 s on the near voice speaks as well.  ERLE (echo return loss
enhancement) is power of the microphone over power of the result, over 5 to 22 s.  Double talk: the near voice
in the result against the near voice that went in, by projection onto it (its gain), after alignment, over
30 to 45 s; and how well they correlate.  No delay is told to the canceller.  Voices by espeak-ng where it is
installed, else made of harmonics; rooms are drawn with a seed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from meshcall.drivers.sound.processing import Processing, Settings
from meshcall.drivers.sound.wav import WavSource

RATE = 48_000
BLOCK = 480
SECONDS = 45.0
NEAR_FROM = 28.0
DELAYS_MS = (5, 60, 150, 300)
ERLE_DB_MIN = 25.0
NEAR_GAIN_DB_MIN = -6.0
TEXTS = (
    "When the sunlight strikes raindrops in the air, they act as a prism and form a rainbow. The rainbow is a "
    "division of white light into many beautiful colors. These take the shape of a long round arch, with its path "
    "high above, and its two ends apparently beyond the horizon. There is, according to legend, a boiling pot of "
    "gold at one end. People look, but no one ever finds it. ",
    "Please call Stella. Ask her to bring these things with her from the store: six spoons of fresh snow peas, five "
    "thick slabs of blue cheese, and maybe a snack for her brother Bob. We also need a small plastic snake and a big "
    "toy frog for the kids. She can scoop these things into three red bags. ",
)


@cache
def voice(seconds: float, number: int) -> np.ndarray:
    """Speech of about -23 dBFS as floats."""
    spoken = _espeak(number) if shutil.which("espeak-ng") else _harmonics(seconds, number)
    repeated = np.tile(spoken, int(np.ceil(seconds * RATE / len(spoken))))[: round(seconds * RATE)]
    return repeated * (0.07 / np.sqrt(np.mean(repeated**2)))


def _espeak(number: int) -> np.ndarray:
    voices = ("en-us+m3", "en-gb+f2")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "voice.wav"
        text = TEXTS[number % 2]
        subprocess.run(["espeak-ng", "-v", voices[number % 2], "-s", "150", "-w", str(path), text], check=True)
        source = WavSource(path)
        blocks = []
        while not source.ended.is_set():
            if len(blocks) % 50 == 0:
                import time

                time.sleep(0.005)  # as a device would leave the reader time
            blocks.append(source.read())
        source.close()
    return np.concatenate(blocks) / 32768


def _harmonics(seconds: float, number: int) -> np.ndarray:
    rng = np.random.default_rng(number)
    at = np.arange(round(seconds * RATE)) / RATE
    pitch = (110 + 80 * (number % 2)) * (1 + 0.15 * np.sin(2 * np.pi * 0.7 * at + number))
    phase = np.cumsum(2 * np.pi * pitch / RATE)
    sound = sum(np.sin(k * phase + rng.uniform(0, 6)) / k for k in range(1, 25))
    syllables = np.clip(np.sin(2 * np.pi * 3.1 * at + rng.uniform(0, 6)), 0, 1)
    breath = rng.standard_normal(len(at)) * 0.1 * (np.sin(2 * np.pi * 1.3 * at) > 0.6)
    return np.asarray(sound * syllables + breath)


def room(delay_ms: float, rt60: float, seed: int) -> np.ndarray:
    """An impulse response of 250 ms after a delay, with an energy of -6 dB."""
    rng = np.random.default_rng(seed)
    length = RATE // 4
    tail = rng.standard_normal(length) * np.exp(-6.91 * np.arange(length) / RATE / rt60)
    tail[0] = 3.0 * np.abs(tail).max()
    return np.concatenate([np.zeros(round(delay_ms * RATE / 1000)), tail * (0.5 / np.sqrt((tail**2).sum()))])


def convolved(sound: np.ndarray, response: np.ndarray) -> np.ndarray:
    size = 1 << (len(sound) + len(response)).bit_length()
    return np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(response, size), size)[: len(sound)]


def drifted(sound: np.ndarray, ppm: float) -> np.ndarray:
    at = np.arange(len(sound)) * (1 + ppm * 1e-6)
    return np.interp(at, np.arange(len(sound)), sound, right=0.0)


def decibels(power: float) -> float:
    return float(10 * np.log10(power + 1e-12))


def part(sound: np.ndarray, begin: float, end: float) -> np.ndarray:
    return sound[round(begin * RATE) : round(end * RATE)]


def measure(
    delay_ms: float = 60,
    *,
    rt60: float = 0.25,
    seed: int = 1,
    gain_db: float = 0.0,
    ppm: float = 0.0,
    clipping: bool = False,
    settings: Settings | None = None,
) -> dict[str, float]:
    """One room."""
    far = voice(SECONDS, 0)
    near = voice(SECONDS, 1).copy()
    near[: round(NEAR_FROM * RATE)] = 0
    loud = np.clip(far * 1.5, -0.25, 0.25) / 1.5 if clipping else far
    echo = drifted(convolved(loud, room(delay_ms, rt60, seed)), ppm) * 10 ** (gain_db / 20)
    noise = np.random.default_rng(seed + 100).standard_normal(len(far)) * 10 ** (-55 / 20)
    captured = (np.clip(echo + near + noise, -1, 1) * 32767).astype(np.int16)
    played = (far * 32767).astype(np.int16)
    processing = Processing(settings or Settings(True, "off", False))
    got = []
    for at in range(0, len(far) - BLOCK + 1, BLOCK):
        got.append(processing.capture(captured[at : at + BLOCK]))
        processing.played(played[at : at + BLOCK])
    clean = np.concatenate(got) / 32767
    micro = captured[: len(clean)] / 32767
    erle = decibels(np.mean(part(micro, 5, 22) ** 2)) - decibels(np.mean(part(clean, 5, 22) ** 2))
    first = decibels(np.mean(part(micro, 1, 3) ** 2)) - decibels(np.mean(part(clean, 1, 3) ** 2))
    spoken, heard = part(near, 30, 44.5), part(clean, 30, 44.5)
    correlation = np.fft.irfft(np.fft.rfft(heard, 1 << 20) * np.conj(np.fft.rfft(spoken, 1 << 20)))
    shift = int(np.argmax(correlation[: RATE // 10]))
    moved = np.roll(spoken, shift)
    near_gain = float(heard @ moved / (moved @ moved))
    return {
        "erle_db": round(erle, 1),
        "erle_1_to_3_s_db": round(first, 1),
        "near_gain_db": round(20 * float(np.log10(max(near_gain, 1e-6))), 1),
        "near_correlation": round(float(heard @ moved / np.sqrt((heard @ heard) * (moved @ moved))), 3),
        "delay_ms": round(shift / RATE * 1000, 1),
    }


def main() -> None:
    """All rooms; exit code 1 if one of the required delays misses ERLE_DB_MIN or cuts the near voice."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two delays only")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if missing := Processing(Settings()).missing:
        raise SystemExit(missing)
    rows = {f"delay {ms} ms": measure(ms) for ms in (DELAYS_MS[1::2] if options.quick else DELAYS_MS)}
    required = list(rows)
    if not options.quick:
        rows["delay 450 ms"] = measure(450)
        rows["loudspeaker that clips"] = measure(clipping=True)
        rows["clocks 100 ppm apart"] = measure(ppm=100)
        rows["echo 3 dB louder than said"] = measure(gain_db=9)
        rows["another room"] = measure(seed=7)
        rows["reverberation of 0.5 s"] = measure(rt60=0.5)
        rows["with noise suppression"] = measure(settings=Settings(True, "moderate", False))
        rows["with everything"] = measure(settings=Settings(True, "moderate", True))
    if options.json:
        print(json.dumps(rows, indent=2))
    else:
        print(f"{'':<28}{'ERLE':>8}{'1-3 s':>8}{'near gain':>11}{'correlation':>13}{'delay':>8}")
        for name, row in rows.items():
            print(
                f"{name:<28}{row['erle_db']:>6} dB{row['erle_1_to_3_s_db']:>5} dB{row['near_gain_db']:>8} dB"
                f"{row['near_correlation']:>13}{row['delay_ms']:>5} ms"
            )
    bad = [
        name
        for name in required
        if rows[name]["erle_db"] < ERLE_DB_MIN or rows[name]["near_gain_db"] < NEAR_GAIN_DB_MIN
    ]
    if bad:
        print(
            f"missed (ERLE >= {ERLE_DB_MIN} dB, near voice >= {NEAR_GAIN_DB_MIN} dB): {', '.join(bad)}", file=sys.stderr
        )
        raise SystemExit(1)


if __name__ == "__main__":
    main()
