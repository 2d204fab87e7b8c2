"""CPU of the receiving half with Opus: per pull (10 ms of sound), typical and worst, on a clean and on a bad network.

    playout_cpu.py [--seconds 60] [--slots 1]

Process time, so other programs count little; the worst pull must stay below 3 ms, the median below 0.5 ms.
"""

from __future__ import annotations

import argparse
import json
import random
import time

import numpy as np

from meshcall.audio.receiver import Receiver
from meshcall.audio.repair import RepairEncoder
from meshcall.drivers.opus import OpusDecoder, OpusEncoder
from meshcall.wire.voice import Cover, Report, VoicePacket, encode_voice

CALL = 1
FRAME_BYTES = 50
COVERS = (Cover(1, 4), Cover(1, 6))
MEDIAN_GOAL_MS = 0.5
WORST_GOAL_MS = 3.0


def packets(seconds: int, slots: int) -> list[bytes]:
    """Noise with the envelope of speech, coded, with two repair symbols each."""
    chance = np.random.default_rng(1)
    encoder, repair = OpusEncoder(), RepairEncoder()
    out = []
    for slot in range(0, seconds * 50, slots):
        at = slot * 0.02 + np.arange(960 * slots) / 48_000
        sound = chance.normal(0, 1, len(at)) * (30 + 3000 * np.clip(np.sin(5 * at), 0, 1))
        config, frame = encoder.encode(sound.astype(np.int16), FRAME_BYTES)
        repair.add(slot, config, frame)
        covers = repair.possible(COVERS)
        out.append(
            encode_voice(VoicePacket(CALL, slot, config, False, Report(), frame, covers, tuple(repair.symbols(covers))))
        )
    return out


def measure(coded: list[bytes], slots: int, *, bad: bool) -> dict[str, float]:
    """Milliseconds of process time."""
    chance = random.Random(2)
    receiver = Receiver(0.0, OpusDecoder(), call=CALL)
    arrivals = []
    for n, payload in enumerate(coded):
        at = (n + 1) * slots * 0.02 + 0.02
        if bad:
            if chance.random() < 0.15:
                continue
            at += chance.gammavariate(1, 0.02) + max(0, 12 - n % 150) * 0.02
        arrivals.append((at, payload))
    arrivals.sort(key=lambda one: one[0])
    spent = []
    pushed = 0.0
    at = 0
    for tick in range(2 * slots * len(coded)):
        now = tick * 0.01
        began = time.process_time()
        while at < len(arrivals) and arrivals[at][0] <= now:
            receiver.push(*arrivals[at])
            at += 1
        middle = time.process_time()
        receiver.pull(now)
        spent.append(time.process_time() - middle)
        pushed += middle - began
    every = np.array(spent) * 1000
    return {
        "pull_median_ms": round(float(np.median(every)), 3),
        "pull_p999_ms": round(float(np.quantile(every, 0.999)), 3),
        "pull_worst_ms": round(float(every.max()), 3),
        "share_of_a_core_pct": round(float(every.sum() + pushed * 1000) / (len(spent) * 10) * 100, 2),
        "concealed_pct": round(100 * receiver.stats().concealed, 2),
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--slots", type=int, default=1, choices=(1, 2, 3), help="slots of 20 ms per frame")
    options = parser.parse_args()
    coded = packets(options.seconds, options.slots)
    result = {name: measure(coded, options.slots, bad=bad) for name, bad in (("clean", False), ("bad", True))}
    print(json.dumps(result, indent=1))
    for one in result.values():
        if one["pull_median_ms"] > MEDIAN_GOAL_MS or one["pull_worst_ms"] > WORST_GOAL_MS:
            raise SystemExit("above the goal")


if __name__ == "__main__":
    main()
