"""All benchmarks in one run, behind `make bench`: measured, anchor and target side by side.

Every figure of meshcall that has a counterpart is measured for libtorrent in the same run.  The
result goes to simulations/results/ as Markdown and JSON; `--quick` runs small swarms and says so
(its figures are for a first look, the targets are meant for the full run).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from process_figures import daemon_megabytes, help_milliseconds, simulator_figures
from targets import Figures, table
from voice_costs import voice_figures
from voice_figures import voice_section

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
RESULTS = ROOT / "simulations" / "results"
DELAY = "40,80"
SYSTEMS = {
    "meshcall": [sys.executable, str(HERE / "dht_adapter.py")],
    "libtorrent": [sys.executable, str(HERE / "dht" / "adapters" / "libtorrent_node.py")],
}


@dataclass(frozen=True, slots=True)
class Swarm:
    """One run of dht/run.py; `label` is how targets.py calls it."""

    label: str
    title: str
    nodes: int
    options: tuple[str, ...]


BRIEF = ("--warm", "1", "--gets", "60", "--cold", "16")
FULL = (
    Swarm("200", "200 nodes, then 30 % of them dead", 200, ("--kill", "0.3")),
    Swarm("cold", "200 nodes, fresh ones join and look up", 200, ("--kill", "0", "--puts", "50", "--gets", "50")),
    # The puts count here; look-ups of libtorrent take 15 s each as soon as one packet is lost.
    Swarm("loss", "200 nodes, 5 % of all packets lost", 200, ("--kill", "0", "--loss", "0.05", *BRIEF)),
    Swarm("1000", "1000 nodes, then 50 % of them dead", 1000, ("--kill", "0.5")),
)
SHORT = ("--puts", "40", "--gets", "80", "--cold", "8", "--settle", "4", "--width", "16", "--warm", "1")
QUICK = (
    Swarm("200", "60 nodes, then 30 % of them dead", 60, ("--kill", "0.3", *SHORT)),
    Swarm("cold", "60 nodes, fresh ones join and look up", 60, ("--kill", "0", *SHORT)),
    Swarm("loss", "60 nodes, 5 % of all packets lost", 60, ("--kill", "0", "--loss", "0.05", *SHORT)),
    Swarm("1000", "120 nodes, then 50 % of them dead", 120, ("--kill", "0.5", *SHORT)),
)


def say(text: str) -> None:
    """Progress, apart from the result."""
    print(text, file=sys.stderr, flush=True)


def run_swarm(system: str, swarm: Swarm) -> Iterator[dict[str, Any]]:
    """The phases of one swarm, as dht/run.py reports them."""
    command = [sys.executable, str(HERE / "dht" / "run.py"), "--name", system, "--n", str(swarm.nodes)]
    command += ["--adapter", " ".join(SYSTEMS[system]), "--delay", DELAY, *swarm.options]
    say(f"{system}: {swarm.title} ...")
    started = time.monotonic()
    with tempfile.TemporaryFile("w+") as errors:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                phase = json.loads(line)
                yield phase
                if "ok" in phase and "total" in phase:
                    say(f"  {phase['phase']}: {phase['ok']} of {phase['total']}")
        if process.returncode:
            errors.seek(0)
            say(f"  ended with {process.returncode}: {errors.read()[-500:]}")
    say(f"  took {time.monotonic() - started:.0f} s")


def machine() -> dict[str, str]:
    """Where and what was measured."""
    model = platform.processor() or platform.machine()
    try:
        names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    except OSError:
        pass
    git = subprocess.run(["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True)
    return {
        "processor": f"{model}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "commit": git.stdout.strip() or "unknown",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def measure(options: argparse.Namespace) -> tuple[dict[str, Figures], list[dict[str, Any]]]:
    """All figures by system, and the raw phases."""
    systems = ["meshcall"]
    if options.alone:
        say("without libtorrent, as asked")
    elif importlib.util.find_spec("libtorrent") is None:
        say("libtorrent has no wheel for this machine: meshcall is measured alone")
    else:
        systems.append("libtorrent")
    figures: dict[str, Figures] = {system: {} for system in systems}
    raw = []
    for swarm in QUICK if options.quick else FULL:
        if options.only and swarm.label not in options.only.split(","):
            continue
        for system in systems:
            for phase in run_swarm(system, swarm):
                raw.append({"swarm": swarm.label, **phase})
                figures[system][f"{swarm.label}/{phase['phase']}"] = phase
    ours = figures["meshcall"]
    wanted = options.only.split(",") if options.only else ["sim", "process", "voice"]
    if "sim" in wanted:
        say("simulator ...")
        ours.update(simulator_figures(options.quick))
    if "process" in wanted:
        say("start of the command, idle daemon ...")
        ours["help milliseconds"] = help_milliseconds(ROOT)
        ours["daemon MB"] = daemon_megabytes()
    if "voice" in wanted:
        say("voice: echo, processing, calls through PulseAudio ...")
        voice, remarks = voice_figures(quick=options.quick)
        ours.update(voice)
        for remark in remarks:
            say(f"  {remark}")
    return figures, raw


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small swarms, some ten minutes in all")
    parser.add_argument("--alone", action="store_true", help="without libtorrent")
    parser.add_argument("--only", default="", help="a comma list of: 200, cold, loss, 1000, sim, process, voice")
    parser.add_argument("--no-write", action="store_true", help="print only")
    options = parser.parse_args()
    os.environ["MESHCALL_OFFLINE"] = "1"
    figures, raw = measure(options)
    voice: list[str] = []
    if not options.only or "voice" in options.only.split(","):
        with tempfile.TemporaryDirectory() as folder:
            voice = voice_section(Path(folder) if options.no_write else RESULTS, quick=options.quick, say=say)
    where = machine()
    title = "Quick benchmark: small swarms, not those of the targets" if options.quick else "Benchmark"
    text = "\n".join(
        [
            f"# {title}",
            "",
            f"`make bench{' QUICK=1' if options.quick else ''}`: {where['processor']}; {where['system']}; "
            f"Python {where['python']}; commit {where['commit']}; {where['date']}.",
            "40 to 80 ms one-way delay, k = 8; what each phase is, says `tests/benchmarks/dht/README.md`.",
            "",
            *table(figures["meshcall"], figures.get("libtorrent", {})),
            "",
            *voice,
            "",
        ]
    )
    print(text)
    if not options.no_write:
        RESULTS.mkdir(parents=True, exist_ok=True)
        name = "bench-quick" if options.quick else "bench"
        (RESULTS / f"{name}.md").write_text(text)
        singles = {
            key: value for key, value in figures["meshcall"].items() if "/" not in key or key.startswith("pulse/")
        }
        result = {"machine": where, "quick": options.quick, "figures": singles, "phases": raw}
        (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
        say(f"written to simulations/results/{name}.md and .json")


if __name__ == "__main__":
    main()
