"""A long call in virtual time, with loss, jitter and clocks that drift apart: does anything grow?

    soak.py [--minutes 60] [--ppm 300] [--loss 0.03] [--seed 1] [--memory] [--noise]

Prints a line every few minutes (delay as heard, by correlation; concealed; time scaled) and JSON in the last line.
The second person's clock is faster by `ppm`, so one receiver must leave sound out and the other one must stretch.
`--noise`: babble made here in place of reference speech, which needs packages.  `--memory` traces allocations (the
run takes about twice as long); growth counts from a tenth of the time on.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import time
import tracemalloc
from collections import deque
from dataclasses import dataclass, field
from random import Random
from statistics import mean
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from call import BLOCK_SECONDS, EPOCH, Person, run
from impair import Link, Scenario
from media import facts_of, receiver, sender
from reference import find
from scipy.signal import fftconvolve
from sound import read_int16

from meshcall.audio.codec import PULL_SAMPLES, RATE, Sound

JITTER = (0.015, 0.015)
"""Mean and deviation of the further delay, seconds."""
PROBE_SECONDS = 4.0
"""Of what was heard; looked for in what was said."""
DELAY_SECONDS_MAX = 1.0
KBPS = 70.0


@dataclass
class Ear:
    """What one person heard last, and what was found out from it."""

    person: Person
    talker: Person
    heard: deque[tuple[float, Sound]] = field(default_factory=lambda: deque(maxlen=int(PROBE_SECONDS / BLOCK_SECONDS)))
    delays: list[float] = field(default_factory=list)

    def delay(self) -> float | None:
        """Mouth to ear in seconds at present, by correlation; None where nobody spoke."""
        began, _ = self.heard[0]
        sound = np.concatenate([block for _, block in self.heard]).astype(np.float64)
        span = len(sound) + int(DELAY_SECONDS_MAX * RATE)
        clock = (began - EPOCH - self.talker.phase) / self.talker.pace
        last = int(clock * RATE) + len(sound)
        whole = len(self.talker.microphone) // PULL_SAMPLES * PULL_SAMPLES
        said = self.talker.microphone[np.arange(last - span, last) % whole].astype(np.float64)
        if not sound.any() or np.abs(said).max() < 300:
            return None
        dots = fftconvolve(said, sound[::-1], "valid")
        at = int(np.argmax(dots))
        sure = dots[at] / (np.linalg.norm(sound) * np.linalg.norm(said[at : at + len(sound)]) + 1e-9)
        return (span - len(sound) - at) / RATE if sure > 0.3 else None


def babble(seed: int, seconds: float = 20.0) -> Sound:
    """Syllables of a buzzing voice with changing pitch and colour, and pauses between sentences."""
    chance = np.random.default_rng(seed)
    at = np.arange(int(seconds * RATE)) / RATE
    walk = np.interp(at, np.arange(0, seconds + 1, 0.25), chance.normal(0, 1, int(seconds * 4) + 4))
    phase = 2 * np.pi * np.cumsum(130 + 25 * walk) / RATE
    colours = np.interp(at, np.arange(0, seconds + 1, 0.2), chance.uniform(0.5, 2.0, int(seconds * 5) + 5))
    voice = sum(np.sin(k * phase) / k**colours for k in range(1, 25))
    syllables = np.clip(np.sin(2 * np.pi * 3.3 * at + walk), 0, 1) * (np.sin(2 * np.pi * at / 5) > -0.6)
    return np.clip(3000 * voice * syllables + chance.normal(0, 4, len(at)), -30000, 30000).astype(np.int16)


def soak(
    minutes: float, ppm: float, loss: float, seed: int, *, memory: bool, noise: bool, say: Any = print
) -> dict[str, Any]:
    """The call; what came of it."""
    chance = Random(seed)
    speech = [babble(k) if noise else read_int16(find("auto") / "ref48.wav") for k in range(2)]
    scenario = Scenario(loss=loss, gamma=JITTER)
    people = tuple(
        Person(
            sender(chance, KBPS, "policy", EPOCH), receiver(EPOCH), speech[k], Link(scenario, seed, k), k * 0.004,
            pace=1 - k * ppm / 1e6, loop=True,
        )
        for k in range(2)
    )  # fmt: skip
    ears = (Ear(people[0], people[1]), Ear(people[1], people[0]))
    every = max(0.25, minutes / 20) * 60
    marks: list[dict[str, Any]] = []
    grown: list[int] = []

    def watch(now: float, who: int, person: Person) -> None:
        ears[who].heard.append((now, person.played.pop()))
        person.sizes.clear()
        person.sent_at.clear()
        if who or now - EPOCH < every * (len(marks) + 1):
            return
        mark: dict[str, Any] = {"minute": round((now - EPOCH) / 60, 1)}
        for name, ear in zip("ab", ears, strict=True):
            found = ear.delay()
            if found is not None:
                ear.delays.append(found)
            stats = ear.person.receiver.stats()
            mark[name] = {
                "delay_ms": None if found is None else round(found * 1000),
                "concealed_pct": round(100 * stats.concealed, 2),
                "scaled_pct": round(100 * (stats.accelerated + stats.expanded), 3),
            }
        if memory:
            gc.collect()
            grown.append(tracemalloc.get_traced_memory()[0])
            mark["traced_kB"] = round(grown[-1] / 1000)
        marks.append(mark)
        say(json.dumps(mark), flush=True)

    if memory:
        tracemalloc.start()
    began = time.process_time()
    run(people, minutes * 60, watch)
    spent = time.process_time() - began
    if memory:
        tracemalloc.stop()
    settled = grown[len(grown) // 10 :]
    return {
        "minutes": minutes,
        "ppm": ppm,
        "loss": loss,
        "cpu_seconds_per_minute": round(spent / minutes, 2),
        "growth_kB": round((settled[-1] - settled[0]) / 1000, 1) if settled else None,
        "pull_worst_ms": round(1000 * max(person.pull_worst for person in people), 2),
        **{
            name: {
                "delay_first_ms": round(1000 * mean(ear.delays[:3])) if ear.delays else None,
                "delay_last_ms": round(1000 * mean(ear.delays[-3:])) if ear.delays else None,
                "delay_most_ms": round(1000 * max(ear.delays)) if ear.delays else None,
                **{
                    key: value
                    for key, value in facts_of(ear.talker.sender, ear.person.receiver).items()
                    if key in ("loss_pct", "loss_after_pct", "concealed_pct", "accelerated", "expanded", "restarts")
                },
            }
            for name, ear in zip("ab", ears, strict=True)
        },
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--ppm", type=float, default=300.0)
    parser.add_argument("--loss", type=float, default=0.03)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--noise", action="store_true")
    options = parser.parse_args()
    result = soak(
        options.minutes, options.ppm, options.loss, options.seed, memory=options.memory, noise=options.noise
    )  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    main()
