"""Which repair is worth what: the same losses for every way to protect frames, no jitter buffer, a fixed wait.

    repairs.py [--scenarios loss10,loss20] [--kbps 70] [--seeds 1,2] [--waits 1,2,3,4] [--pesq N]

For each way (see media.py: `copies:1,3`, `rlc:4+4`, ...) and each wait (slots between the instant when a frame comes
without loss, and that when it must be known): the share of frames never known in time, their mean run, and for
the N best of a wait PESQ-WB with real Opus at the bytes that are left for a frame.  What the policy's table is from.
"""

from __future__ import annotations

import argparse
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from impair import SCENARIOS, Link
from media import protection
from numpy.typing import NDArray
from reference import find
from scipy.signal import resample_poly
from score import FS, cut, judge, spans_of
from sound import read_int16

from meshcall.audio.codec import SLOT_SAMPLES, Sound
from meshcall.audio.repair import RepairDecoder, RepairEncoder
from meshcall.drivers.opus import OpusDecoder, OpusEncoder
from meshcall.wire.coded import WHOLE
from meshcall.wire.voice import SLOT_SECONDS, Report, VoicePacket, frame_bytes_for, is_implied

OVERHEAD_BYTES = 54
LOOKAHEAD_SAMPLES = 312
"""Of Opus."""
MARGIN_SECONDS = 0.2
EPSILON = 1e-6
Lateness = NDArray[np.float64]
WAYS = (
    "none", "inband", "copies:1", "copies:2", "copies:3", "copies:1;inband", "copies:2;inband", "rlc:2", "rlc:3",
    "rlc:4", "rlc:3;inband", "rlc:4;inband", "copies:1,3", "copies:1,2", "copies:2,4", "rlc:2+2", "rlc:3+3", "rlc:4+4",
    "rlc:6+6",
    "rlc:8+8", "copies:1,2,3", "copies:1,3,5", "copies:2,4,6", "rlc:3+3+3", "rlc:4+4+4", "rlc:6+6+6", "rlc:8+8+8",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Case:
    """One way under one scenario."""

    scenario: str
    seed: int
    way: str
    size: int
    slots: int


def known_at(case: Case, frames: int) -> Lateness:
    """For each frame, how many slots later than a packet without jitter brings it it is known; infinity: never."""
    shield = protection(case.way)
    assert shield is not None
    scenario = SCENARIOS[case.scenario]
    link = Link(scenario, case.seed)
    encoder, decoder = RepairEncoder(), RepairDecoder()
    length = 4  # the losses are what counts, not the bytes
    seconds = case.slots * SLOT_SECONDS
    coming: list[tuple[float, int, VoicePacket]] = []
    for n in range(frames):
        frame = (n + 1).to_bytes(length, "big")  # zeros are none
        slot = n * case.slots
        encoder.add(slot, WHOLE[case.slots - 1], frame)
        covers = encoder.possible(shield.covers)
        symbols = tuple(encoder.symbols(covers))
        arrival = link.fate(n * seconds, case.size)
        if arrival is not None:
            coming.append(
                (
                    arrival,
                    n,
                    VoicePacket(1, slot, WHOLE[case.slots - 1], shield.inband, Report(), frame, covers, symbols),
                )
            )
    late = np.full(frames, np.inf)
    for arrival, _, packet in sorted(coming, key=lambda one: one[:2]):
        for found, _, _, _ in decoder.add(packet, packet.slot):
            k = found // case.slots
            late[k] = min(late[k], (arrival - scenario.delay - k * seconds) / SLOT_SECONDS)
    return late


def sounded(case: Case, late: Lateness, wait: float, speech: Sound) -> Sound:
    """The speech with the frames that are known within `wait`, the others out of the in-band copy or concealed."""
    shield = protection(case.way)
    assert shield is not None
    size = frame_bytes_for(case.size, len(shield.covers), implied=is_implied(shield.covers))
    samples = case.slots * SLOT_SAMPLES
    encoder, decoder = OpusEncoder(), OpusDecoder()
    encoder.expect_loss(shield.expected_loss, inband=shield.inband)
    frames = [encoder.encode(speech[k * samples : (k + 1) * samples], size).packet for k in range(len(late))]
    out = []
    for k, frame in enumerate(frames):
        if late[k] <= wait + EPSILON:
            out.append(decoder.decode(frame, samples))
            continue
        sound = None
        if shield.inband and wait >= case.slots and k + 1 < len(late) and late[k + 1] <= wait - case.slots + EPSILON:
            sound = decoder.decode_inband(frames[k + 1], samples)
        out.append(decoder.conceal(samples) if sound is None else sound)
    return np.concatenate(out)


def runs(missing: NDArray[np.bool_]) -> float:
    """Mean length of a run of missing frames."""
    edges = np.count_nonzero(np.diff(np.concatenate([[0], missing.astype(int)])) == 1)
    return float(missing.sum() / edges) if edges else 0.0


def residual(case: Case, waits: tuple[float, ...]) -> list[tuple[float, float]]:
    """Share missing and mean run for each wait, over ten minutes."""
    late = known_at(case, int(600 / SLOT_SECONDS / case.slots))
    return [(float((late > wait + EPSILON).mean()), runs(late > wait + EPSILON)) for wait in waits]


def quality(case: Case, wait: float, name: str) -> float:
    """PESQ-WB over a set of utterances."""
    folder = find(name)
    speech = read_int16(folder / "ref48.wav")
    count = len(speech) // (SLOT_SAMPLES * case.slots)
    late = known_at(case, count)
    heard = sounded(case, late, wait, speech)[LOOKAHEAD_SAMPLES:]
    before, after = (resample_poly(one / 32768, 1, 3) for one in (speech, heard))
    spans = spans_of(folder)
    parts = [(int((start - MARGIN_SECONDS) * FS), int((end + MARGIN_SECONDS) * FS)) for start, end in spans]
    scores = [judge(cut(before, a, b - a), cut(after, a, b - a), clarity=False)[0] for a, b in parts]
    return float(np.average(scores, weights=[end - start for start, end in spans]))


def _job(argument: tuple[Case, float, str]) -> float:
    return quality(*argument)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", default="loss5,loss10,loss20,loss30,burst60,burst120")
    parser.add_argument("--kbps", type=float, default=70)
    parser.add_argument("--slots", type=int, default=1, help="of a frame")
    parser.add_argument("--seeds", default="1,2")
    parser.add_argument("--waits", default="1,2,3,4,5,6")
    parser.add_argument("--ways", default="|".join(WAYS), help="separated by |")
    parser.add_argument("--pesq", type=int, default=0, help="how many of the best of each wait are scored")
    parser.add_argument("--sets", default="anchor,other")
    options = parser.parse_args()
    waits = tuple(float(part) for part in options.waits.split(","))
    seeds = [int(part) for part in options.seeds.split(",")]
    size = int(options.kbps * 1000 * SLOT_SECONDS * options.slots / 8) - OVERHEAD_BYTES
    with ProcessPoolExecutor(2) as pool:
        for scenario in options.scenarios.split(","):
            print(f"\n## {scenario}, {options.kbps:g} kbit/s: % missing (mean run) by wait in slots")
            left: dict[str, list[float]] = {}
            for way in options.ways.split("|"):
                shield = protection(way)
                assert shield is not None
                case = Case(scenario, seeds[0], way, size, options.slots)
                found = residual(case, waits)
                left[way] = [share for share, _ in found]
                length = frame_bytes_for(size, len(shield.covers), implied=is_implied(shield.covers))
                rate = length * 8 / SLOT_SECONDS / options.slots / 1000
                cells = "  ".join(f"{100 * share:5.2f} ({run:.1f})" for share, run in found)
                print(f"{way:18} {rate:5.1f}k  {cells}", flush=True)
            for index, wait in enumerate(waits):
                best = sorted(left, key=lambda way: left[way][index])[: options.pesq]
                jobs = [
                    (Case(scenario, seed, way, size, options.slots), wait, name)
                    for way in best for seed in seeds for name in options.sets.split(",")
                ]  # fmt: skip
                scores = list(pool.map(_job, jobs))
                per = len(seeds) * len(options.sets.split(","))
                for k, way in enumerate(best):
                    these = scores[k * per : (k + 1) * per]
                    print(
                        f"  wait {wait:g}: {way:18} PESQ {np.mean(these):.2f}  ({min(these):.2f}-{max(these):.2f})",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
