"""Calls in real time through the impairment proxy, scored beside the goals: what virtual.py says, with clocks.

    live.py [--scenarios clean,loss10] [--seed 1] [--set anchor] [--kbps 70] [--realtime 2] [--out FILE.json]

On loopback only.  On a busy machine the recording is spoilt by late threads: `--realtime N` (needs root) gives the
ends and the proxy real-time priority, and each row says how late the proxy was and how busy the machine.  The CPU is
that of each end's own process, without sound processing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from call import LEAD_SECONDS, padded
from goals import DEFAULT_KBPS, GOAL_OF, GOALS, verdict
from impair import SCENARIOS
from reference import CACHE, find
from score import score, spans_of
from sound import RATE, read_int16, read_wav, write_wav

HERE = Path(__file__).resolve().parent
CALL = [sys.executable, str(HERE.parent / "voice_call.py")]
CALL_SECONDS_MAX = 200.0
STAT_IDLE, STAT_WAIT = 3, 4
"""Fields of /proc/stat."""


def machine_times() -> tuple[int, int]:
    """Ticks of all processors together, and those of them without work."""
    fields = [int(part) for part in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    return sum(fields), fields[STAT_IDLE] + fields[STAT_WAIT]


def children(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for one in found:
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{one}/task"):
                found += [int(part) for part in Path(f"/proc/{one}/task/{task}/children").read_text().split()]
    return found


def hurry(pids: Sequence[int], priority: int) -> None:
    """Round robin in real time for all threads of processes."""
    for pid in pids:
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{pid}/task"):
                if os.sched_getscheduler(int(task)) == os.SCHED_OTHER:
                    os.sched_setscheduler(int(task), os.SCHED_RR, os.sched_param(priority))


def one_call(scenario: str, seed: int, said: Path, heard: Path, kbps: float, realtime: int) -> dict[str, Any]:
    """A call; what the proxy and the ends say of it."""
    command = [sys.executable, str(HERE / "impair.py"), "--scenario", scenario, "--seed", str(seed)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as proxy:
        assert proxy.stdout is not None
        ports = json.loads(proxy.stdout.readline())
        arguments = ["--input", str(said), "--output", str(heard), "--kbps", f"{kbps:g}"]
        arguments += ["--proxy-a", f"127.0.0.1:{ports['a_port']}", "--proxy-b", f"127.0.0.1:{ports['b_port']}"]
        before = machine_times()
        with subprocess.Popen([*CALL, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as call:
            if realtime:
                time.sleep(3.0)  # once it is up
                hurry([proxy.pid], realtime + 1)
                hurry(children(call.pid), realtime)
            try:
                out, errors = call.communicate(timeout=CALL_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                call.terminate()
                out, errors = call.communicate()
        after = machine_times()
        net, _ = proxy.communicate()
    row: dict[str, Any] = {"scenario": scenario, "seed": seed, "net": json.loads(net.splitlines()[-1])}
    row["machine_busy_pct"] = round(100 * (1 - (after[1] - before[1]) / max(1, after[0] - before[0])), 1)
    try:
        row["own"] = json.loads(out.splitlines()[-1])
    except (ValueError, IndexError):
        row["error"] = errors[-1000:]
    return row


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    goal = GOAL_OF[row["scenario"]]
    if "error" in row:
        return f"| {goal.title} | failed: {row['error'].splitlines()[-1:]} | | | | | | | |"
    found, own, net = row["score"], row["own"], row["net"]
    delay = "-" if found["delay_ms"] is None else f"{found['delay_ms']:.0f}"
    cells = [
        goal.title, goal.chromium, goal.red, f">= {goal.pesq:g} / <= {goal.delay_ms:g}",
        f"{found['pesq']:.2f} / {delay}",
        verdict(goal, round(found["pesq"], 2), found["delay_ms"]), f"{net['a_to_b']['kbps_wire']:.0f}",
        f"{own['b']['loss_pct']:.1f} / {own['b']['loss_after_pct']:.2f}",
        f"{own['a']['cpu_pct']:.1f} / {own['b']['cpu_pct']:.1f}", f"{own['b']['mos']:.2f}", f"{net['late_p99_ms']:.1f}",
        f"{row['machine_busy_pct']:.0f}",
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


HEAD = (
    "| scenario | Chromium | with RED | to reach | live | | kbit/s | lost / after repair % | CPU % A / B | MOS (E) | "
    "proxy late p99 ms | machine busy % |",
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", default=",".join(goal.scenario for goal in GOALS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--set", default="anchor")
    parser.add_argument("--kbps", type=float, default=DEFAULT_KBPS)
    parser.add_argument("--realtime", type=int, default=0)
    parser.add_argument("--work", type=Path, default=CACHE / "live", help="folder for recordings")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    unknown = set(options.scenarios.split(",")) - set(SCENARIOS)
    if unknown:
        parser.error(f"no such scenario: {', '.join(unknown)}")
    folder = find(options.set)
    options.work.mkdir(parents=True, exist_ok=True)
    said = options.work / "said.wav"
    speech = read_int16(folder / "ref48.wav")
    write_wav(said, padded(speech))
    rows = []
    for scenario in options.scenarios.split(","):
        heard = options.work / f"{scenario}-{options.seed}.wav"
        row = one_call(scenario, options.seed, said, heard, options.kbps, options.realtime)
        if "error" not in row:
            _, sound = read_wav(heard)
            row["score"] = asdict(score(speech / 32768, sound[0][int(LEAD_SECONDS * RATE) :], spans_of(folder)))
        rows.append(row)
        print(line(row), file=sys.stderr, flush=True)
    text = "\n".join([*HEAD, *(line(row) for row in rows)])
    print(text)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(rows, indent=1) + "\n")
        options.out.with_suffix(".md").write_text(text + "\n")


if __name__ == "__main__":
    main()
