"""All scenarios in virtual time: real sender, real Opus, modelled network, real receiver; scored beside the goals.

    virtual.py [--scenarios clean,loss10] [--seeds 1,2] [--sets anchor,other] [--kbps 70] [--keep DIR] [--write]

Each call is scored in both directions: the first person speaks the first set, the other the second one, and each
direction has losses of its own.  The table's rows are means over all of them; the spread is shown.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from statistics import mean, median
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from call import BLOCK_SECONDS, EPOCH, LEAD_SECONDS, TAIL_SECONDS, Person, links, padded, run
from goals import DEFAULT_KBPS, GOAL_OF, GOALS, verdict
from impair import SCENARIOS
from media import facts_of, receiver, sender
from reference import find
from score import score, spans_of
from sound import read_int16, write_wav

PROCESSES = 2
SETTLED_SECONDS = 5.0
"""Rates on the wire count from here."""


@dataclass(frozen=True, slots=True)
class Job:
    """One call."""

    scenario: str
    seed: int
    sets: tuple[str, str]
    kbps: float
    keep: Path | None
    variant: str


def call(job: Job) -> list[dict[str, Any]]:
    """Both directions of a call, scored."""
    folders = [find(name) for name in job.sets]
    speech = [read_int16(folder / "ref48.wav") for folder in folders]
    chance = Random(job.seed)
    phases = (0.0, chance.uniform(0, BLOCK_SECONDS))
    ways = links(SCENARIOS[job.scenario], job.seed)
    people = tuple(
        Person(
            sender(chance, job.kbps, job.variant, EPOCH),
            receiver(EPOCH),
            padded(speech[k], seed=k + 2),
            ways[k],
            phases[k],
        )
        for k in range(2)
    )
    seconds = LEAD_SECONDS + max(len(one) for one in speech) / 48_000 + TAIL_SECONDS
    began = time.process_time()
    run(people, seconds)
    cpu = time.process_time() - began
    return [_row(job, people, folders, direction, seconds, cpu) for direction in range(2)]


def _row(
    job: Job, people: Sequence[Person], folders: Sequence[Path], direction: int, seconds: float, cpu: float
) -> dict[str, Any]:
    """What one direction of a call came to."""
    talker, listener = people[direction], people[1 - direction]
    folder = folders[direction]
    heard = listener.recording()
    lead = int(LEAD_SECONDS * 48_000)
    reference = read_int16(folder / "ref48.wav") / 32768
    found = score(reference, heard[lead:] / 32768, spans_of(folder))
    shift = 1000 * (listener.phase - talker.phase)
    if job.keep is not None:
        job.keep.mkdir(parents=True, exist_ok=True)
        write_wav(job.keep / f"{job.scenario}-{job.seed}-{job.sets[direction]}.wav", heard[lead:])
    late = [
        size for size, at in zip(talker.sizes, talker.sent_at, strict=True) if at - talker.sent_at[0] >= SETTLED_SECONDS
    ]
    span = seconds - SETTLED_SECONDS
    return {
        "scenario": job.scenario,
        "seed": job.seed,
        "set": job.sets[direction],
        "kbps_limit": job.kbps,
        "variant": job.variant,
        "pesq": found.pesq,
        "pesq_least": found.pesq_least,
        "estoi": found.estoi,
        "silent_share": found.silent_share,
        "delay_ms": None if found.delay_ms is None else round(found.delay_ms + shift, 1),
        "delay_most_ms": None if found.delay_most_ms is None else round(found.delay_most_ms + shift, 1),
        "kbps_wire": round(sum(late) * 8 / span / 1000, 1),
        "loss_pct": round(100 * (talker.link.lost_count + talker.link.dropped) / max(1, talker.link.sent), 2),
        "cpu_send_pct": round(100 * talker.push_cpu / seconds, 2),
        "cpu_receive_pct": round(100 * listener.pull_cpu / seconds, 2),
        "pull_worst_ms": round(1000 * listener.pull_worst, 2),
        "call_cpu_seconds": round(cpu, 1),
        "own": facts_of(talker.sender, listener.receiver),
        "utterances": [asdict(one) for one in found.utterances],
    }


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One entry per scenario, in the order of the goals."""
    out = []
    for scenario in dict.fromkeys([goal.scenario for goal in GOALS] + [row["scenario"] for row in rows]):
        these = [row for row in rows if row["scenario"] == scenario]
        if not these:
            continue
        delays = [row["delay_ms"] for row in these]
        every = [row["pesq"] for row in these]
        afters = [row["own"]["loss_after_pct"] for row in these if row["own"].get("loss_after_pct") is not None]
        out.append(
            {
                "scenario": scenario,
                "pesq": round(mean(every), 3),
                "pesq_from": min(every),
                "pesq_to": max(every),
                "delay_ms": None if None in delays else round(median(delays), 1),
                "delay_most_ms": max((row["delay_most_ms"] or 0.0 for row in these), default=None),
                "estoi": round(mean(row["estoi"] for row in these), 3),
                "silent_pct": round(100 * mean(row["silent_share"] for row in these), 2),
                "kbps_wire": round(mean(row["kbps_wire"] for row in these), 1),
                "loss_pct": round(mean(row["loss_pct"] for row in these), 1),
                "loss_after_pct": round(mean(afters), 2) if afters else None,
                "cpu_pct": round(mean(row["cpu_send_pct"] + row["cpu_receive_pct"] for row in these), 2),
                "pull_worst_ms": max(row["pull_worst_ms"] for row in these),
                "rows": len(these),
            }
        )
    return out


def table(entries: list[dict[str, Any]], kbps: float) -> list[str]:
    """Markdown."""
    lines = [
        f"| scenario | Chromium | with RED | aiortc | to reach | at <= {kbps:g} kbit/s | | from-to | most ms | "
        "kbit/s | lost % | after repair % | silent % | CPU % |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in entries:
        goal = GOAL_OF.get(one["scenario"])
        delay = "-" if one["delay_ms"] is None else f"{one['delay_ms']:.0f}"
        after = "-" if one["loss_after_pct"] is None else f"{one['loss_after_pct']:.2f}"
        left = [one["scenario"], "", "", "", ""]
        if goal is not None:
            left = [goal.title, goal.chromium, goal.red, goal.aiortc, f">= {goal.pesq:g} / <= {goal.delay_ms:g}"]
        cells = [
            *left, f"{one['pesq']:.2f} / {delay}",
            "" if goal is None else verdict(goal, round(one["pesq"], 2), one["delay_ms"]),
            f"{one['pesq_from']:.2f}-{one['pesq_to']:.2f}", f"{one['delay_most_ms']:.0f}", f"{one['kbps_wire']:.0f}",
            f"{one['loss_pct']:.1f}", after, f"{one['silent_pct']:.1f}", f"{one['cpu_pct']:.1f}",
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def measure(jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """All calls, two at a time."""
    rows: list[dict[str, Any]] = []
    with ProcessPoolExecutor(min(PROCESSES, len(jobs))) as pool:
        for found in pool.map(call, jobs):
            rows += found
            for row in found:
                brief = {key: row[key] for key in ("pesq", "delay_ms", "kbps_wire", "loss_pct", "call_cpu_seconds")}
                print(row["scenario"], row["seed"], row["set"], brief, row["own"], file=sys.stderr, flush=True)
    return rows


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", default=",".join(goal.scenario for goal in GOALS))
    parser.add_argument("--seeds", default="1")
    parser.add_argument("--sets", default="anchor,other", help="what the two people speak")
    parser.add_argument("--kbps", default=f"{DEFAULT_KBPS}", help="limits on the wire, a comma list")
    parser.add_argument("--variant", default="policy", help="how losses are repaired; see media.py")
    parser.add_argument("--keep", type=Path, help="write recordings into this folder")
    parser.add_argument("--out", type=Path, help="write the result into this file as JSON, and as Markdown beside it")
    options = parser.parse_args()
    began = time.monotonic()
    first, _, second = options.sets.partition(",")
    sets = (first, second or first)
    for name in sets:
        find(name)
    result: dict[str, Any] = {}
    text = []
    for kbps in (float(part) for part in options.kbps.split(",")):
        jobs = [
            Job(scenario, int(seed), sets, kbps, options.keep and options.keep / f"{kbps:g}", options.variant)
            for scenario in options.scenarios.split(",")
            for seed in options.seeds.split(",")
        ]
        rows = measure(jobs)
        result[f"{kbps:g}"] = {"summary": summary(rows), "rows": rows}
        text += [*table(summary(rows), kbps), ""]
    text.append(
        f"PESQ-WB / median mouth-to-ear in ms; speech: {' and '.join(sets)}; seeds {options.seeds}, both directions; "
        f"{time.monotonic() - began:.0f} s."
    )
    print("\n".join(text))
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n")
        options.out.with_suffix(".md").write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
