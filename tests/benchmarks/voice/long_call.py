"""A long call in real time between two daemons: memory, processor time and statistics, minute by minute.

    .venv/bin/python tests/benchmarks/voice/long_call.py [--minutes 10]

Files are the devices: one side speaks the demonstration's clip, then both are silent, which costs the same.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from meshcall.demo.speech import CLIPS
from tests.benchmarks.voice.pulse_call import Person, Street, ticks
from tests.daemon.processes import environment, meshcall


class Silent:
    """In the place of a sound server: nobody needs one."""

    def environment(self, *_ports: str) -> dict[str, str]:
        """Nothing."""
        return {}


def megabytes(pid: int) -> float:
    """What a process has in memory now (RSS)."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    """Call, look each minute, hang up, say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    options = parser.parse_args()
    os.environ["MESHCALL_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        street = Street(stack, folder)
        ann, bob = street.people(stack, Silent(), 'backend = "null"\n', "long")  # type: ignore[arg-type]
        answer = _start(bob, "answer", "--wait", "--speaker", str(folder / "heard.wav"))
        stack.callback(answer.kill)
        time.sleep(2)
        seconds = str(options.minutes * 60)
        call = _start(ann, "call", bob.address, "--mic", str(CLIPS["Ann"]), "--seconds", seconds)
        stack.callback(call.kill)
        began, before = time.monotonic(), [sum(ticks(one.node.process.pid)) for one in (ann, bob)]
        while call.poll() is None:
            time.sleep(min(60.0, options.minutes * 60 / 4))
            said = json.loads(meshcall("calls", "--home", str(ann.home), "--json").stdout)["call"]
            stats = None if said is None else said["stats"]
            if stats is None:
                continue
            spent = [sum(ticks(one.node.process.pid)) for one in (ann, bob)]
            passed = time.monotonic() - began
            cpu = [round(100 * (now - then) / passed, 1) for now, then in zip(spent, before, strict=True)]
            memory = [round(megabytes(one.node.process.pid), 1) for one in (ann, bob)]
            print(
                f"{passed / 60:5.1f} min: memory {memory} MB, processor {cpu} %, loss {stats['loss'] * 100:.2f} %, "
                f"repaired to {stats['loss_after_repair'] * 100:.2f} %, delay {stats['delay']['total'] * 1000:.0f} ms, "
                f"MOS {stats['mos']}", flush=True,
            )  # fmt: skip
        print(call.communicate()[0].strip())


def _start(person: Person, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "meshcall", *arguments, "--home", str(person.home), "--plain"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment(),
    )  # fmt: skip


if __name__ == "__main__":
    main()
