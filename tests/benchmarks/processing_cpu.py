"""What the processing of the microphone costs: microseconds for each 10 ms, and what share of a core that is.

    .venv/bin/python tests/benchmarks/processing_cpu.py [--seconds 60] [--json]

CPU time of this thread, so other work on the machine disturbs little.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from meshcall.drivers.sound.processing import Processing, Settings, load
from tests.benchmarks.echo_room import voice

CASES = {
    "limiter and meters only": Settings(False, "off", False),
    "echo cancellation": Settings(True, "off", False),
    "noise suppression": Settings(False, "moderate", False),
    "automatic gain": Settings(False, "off", True),
    "everything": Settings(True, "moderate", True),
}
BLOCK = 480


Step = Callable[[np.ndarray, np.ndarray], object]


def ours(settings: Settings) -> Step:
    """`capture` and `played` together, as in each exchange of a call."""
    processing = Processing(settings)
    if processing.missing:
        raise SystemExit(processing.missing)

    def step(near: np.ndarray, far: np.ndarray) -> None:
        processing.capture(near)
        processing.played(far)

    return step


def bare() -> Step:
    """The same three parts of WebRTC without anything of ours around them."""
    module = load()
    assert module is not None
    echo = module.EchoCanceller(sample_rate=48_000)
    noise = module.NoiseSuppressor(sample_rate=48_000, level=1)
    gain = module.GainController(sample_rate=48_000, max_gain_db=30.0)
    return lambda near, far: gain.process(noise.process(echo.process(near, far)), float(noise.speech_probability))


def measured(steps: dict[str, Step], near: np.ndarray, far: np.ndarray) -> dict[str, dict[str, float]]:
    """All of them in turns, block by block, so that what else the machine does hits all alike."""
    spent: dict[str, list[float]] = {name: [] for name in steps}
    for at in range(0, len(near) - BLOCK + 1, BLOCK):
        captured, played = near[at : at + BLOCK], far[at : at + BLOCK]
        for name, step in steps.items():
            began = time.thread_time()
            step(captured, played)
            spent[name].append(time.thread_time() - began)
    return {name: figures_of(one) for name, one in spent.items()}


def figures_of(spent: list[float]) -> dict[str, float]:
    """Of seconds for each block."""
    one = np.array(spent) * 1e6
    return {
        "mean_us": round(float(one.mean()), 1),
        "p50_us": round(float(np.percentile(one, 50)), 1),
        "p99_us": round(float(np.percentile(one, 99)), 1),
        "core_percent": round(float(one.mean()) / 10_000 * 100, 2),
    }


def main() -> None:
    """All cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rng = np.random.default_rng(1)
    far = voice(options.seconds, 1)
    near = voice(options.seconds, 2) * 0.5 + np.roll(far, 4000) * 0.3 + rng.standard_normal(len(far)) * 0.002
    sounds = [(np.clip(one, -1, 1) * 32767).astype(np.int16) for one in (near, far)]
    steps = {name: ours(settings) for name, settings in CASES.items()}
    figures = measured({**steps, "everything, WebRTC alone": bare()}, *sounds)
    if options.json:
        print(json.dumps(figures, indent=2))
        return
    print(f"{'':<28}{'mean':>9}{'p50':>9}{'p99':>9}   us of CPU for 10 ms of sound")
    for name, row in figures.items():
        print(
            f"{name:<28}{row['mean_us']:>9}{row['p50_us']:>9}{row['p99_us']:>9}   {row['core_percent']:.2f} % of a core"
        )


if __name__ == "__main__":
    main()
