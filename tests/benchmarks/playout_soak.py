"""Hours of a call in virtual time with clocks that drift apart: no gap, no growth, no click.

    playout_soak.py [--hours 1] [--ppm 300]

Both signs of the drift, frames of 20 ms out of an endless vowel with pauses, up to 3 ms of jitter, no loss.  A click
would be a step in the second difference of the sound that the vowel itself does not have.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import struct
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meshcall.audio.receiver import Receiver
from meshcall.wire.coded import WHOLE
from meshcall.wire.voice import Report, VoicePacket, encode_voice

CALL = 1
NETWORK_SECONDS = 0.02
JITTER_SECONDS = 0.003
PITCH = 120.0
DELAY_GOAL_SECONDS = 0.08
"""From the end of a frame at its sender to its end in the loudspeaker: 23 of network, 20 of the frame, 10 of a pull,
and up to two ticks and a margin, which are scaled away in the next pause."""
CLICK_GOAL = 1.5
"""Times the largest second difference of the vowel itself."""


def vowel() -> NDArray[np.int16]:
    """Ten seconds that join without a seam: seven of a gliding vowel, three of a quiet room."""
    at = np.arange(480_000) / 48_000
    phase = 2 * np.pi * (PITCH * at - 2 * np.cos(2 * np.pi * at / 5))
    sound = sum(np.sin(n * phase) / n for n in range(1, 20))
    fade = np.clip(np.minimum(at, 7 - at) * 10, 0, 1)
    room = np.random.default_rng(1).normal(0, 5, len(at))
    return np.round(3000 * sound * fade + room).astype(np.int16)


class VowelDecoder:
    """A frame is the number of its slot."""

    def __init__(self, sound: NDArray[np.int16]) -> None:
        self._sound = sound.reshape(-1, 960)
        self.next = 0
        self.skipped = 0
        self.concealed = 0

    def decode(self, frame: bytes, samples: int) -> NDArray[np.int16]:
        """As audio.codec.Decoder says."""
        (slot,) = struct.unpack(">I", frame)
        self.skipped += slot != self.next
        self.next = slot + 1
        return self._sound[slot % len(self._sound)]

    def decode_inband(self, following: bytes, samples: int) -> NDArray[np.int16] | None:
        """There is none."""
        return None

    def conceal(self, samples: int) -> NDArray[np.int16]:
        """Counted: there should be no need of it."""
        self.concealed += samples
        return np.zeros(samples, np.int16)


def soak(hours: float, ppm: float) -> dict[str, Any]:
    """One call."""
    chance = random.Random(1)
    sound = vowel()
    plain = int(np.abs(np.diff(sound.astype(int), 2)).max())
    decoder = VowelDecoder(sound)
    receiver = Receiver(0.0, decoder, call=CALL)
    tail = np.zeros(2, np.int16)
    slot, arrival = 0, 0.02 + NETWORK_SECONDS
    worst_step, deepest, longest = 0, 0, 0.0
    memory = 0
    began = time.process_time()
    ticks = int(hours * 360_000)
    for tick in range(ticks):
        now = tick * 0.01
        while arrival <= now:
            packet = VoicePacket(CALL, slot, WHOLE[0], False, Report(), struct.pack(">I", slot))
            receiver.push(arrival, encode_voice(packet))
            slot += 1
            arrival = (slot + 1) * 0.02 * (1 + ppm * 1e-6) + NETWORK_SECONDS + chance.random() * JITTER_SECONDS
        block = receiver.pull(now)
        if tick == 100:
            decoder.concealed = 0  # asked for once, to fade the first frame in
        both = np.concatenate([tail, block]).astype(int)
        tail = block[-2:]
        if tick < 100:
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            continue
        worst_step = max(worst_step, int(np.abs(np.diff(both, 2)).max()))
        deepest = max(deepest, slot - decoder.next)
        if tick > 3000:
            longest = max(longest, now + 0.01 - decoder.next * 0.02 * (1 + ppm * 1e-6))
    stats = receiver.stats()
    return {
        "ppm": ppm,
        "hours": hours,
        "concealed_samples": decoder.concealed,
        "skipped": decoder.skipped,
        "frames_waiting_most": deepest,
        "delay_most_ms": round(longest * 1000, 1),
        "largest_step_to_that_of_the_vowel": round(worst_step / plain, 2),
        "accelerated_ppm": round(stats.accelerated * 1e6),
        "expanded_ppm": round(stats.expanded * 1e6),
        "memory_growth_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory,
        "cpu_share_pct": round((time.process_time() - began) / (ticks * 0.01) * 100, 2),
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--ppm", type=float, default=300.0)
    options = parser.parse_args()
    for ppm in (options.ppm, -options.ppm):
        result = soak(options.hours, ppm)
        print(json.dumps(result), flush=True)
        if (
            result["concealed_samples"] or result["skipped"] or result["delay_most_ms"] > 1000 * DELAY_GOAL_SECONDS
            or result["largest_step_to_that_of_the_vowel"] > CLICK_GOAL
        ):  # fmt: skip
            raise SystemExit("a gap, a click or a delay")


if __name__ == "__main__":
    main()
