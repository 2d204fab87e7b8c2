"""CPU of both ends of calls between two daemons, with files as devices and no processing.

    .venv/bin/python tests/benchmarks/voice/end_cpu.py [--seconds 15] [--calls 2]

Of /proc, in % of a core: the daemon's main thread (`loop`) and all others, and how often they were woken or interrupted
in a packet's time of 20 ms.  On a machine with other work compare two versions only by runs in turn.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from meshcall.demo.speech import CLIPS
from tests.benchmarks.voice.long_call import Silent
from tests.benchmarks.voice.pulse_call import OFF, Person, Street, Told, ticks
from tests.daemon.processes import meshcall

SETTLE_SECONDS = 3.0
PACKET_SECONDS = 0.02
PERCENT = 100


def switches(pid: int) -> int:
    """Of all threads that there are: how often they began to run again."""
    told = [(task / "status").read_text().splitlines() for task in Path(f"/proc/{pid}/task").iterdir()]
    return sum(int(line.split()[1]) for lines in told for line in lines if "ctxt_switches" in line)


def one_call(ann: Person, bob: Person, folder: Path, seconds: float) -> None:
    """Call, wait, say what it took."""
    people = (ann, bob)
    with ExitStack() as stack:
        answering = bob.start("answer", "--wait", "--speaker", str(folder / "heard.wav"))
        stack.callback(answering.wait, 20)
        answers = Told(answering.stdout)  # type: ignore[arg-type]
        answers.wait_for("waiting", 20)
        calling = ann.start("call", bob.address, "--mic", str(CLIPS["Ann"]))
        stack.callback(calling.wait, 20)
        Told(calling.stdout).wait_for("first_voice", 40)  # type: ignore[arg-type]
        time.sleep(SETTLE_SECONDS)
        pids = [one.node.process.pid for one in people]
        began, spent, woken = time.monotonic(), [ticks(pid) for pid in pids], [switches(pid) for pid in pids]
        time.sleep(seconds)
        passed = time.monotonic() - began
        for name, pid, before, then in zip(("Ann", "Bob"), pids, spent, woken, strict=True):
            loop, others = (PERCENT * (b - a) / passed for a, b in zip(before, ticks(pid), strict=True))
            times = (switches(pid) - then) / passed * PACKET_SECONDS
            print(
                f"{name}: {loop + others:.1f} % (loop {loop:.1f}, others {others:.1f}), {times:.1f} switches",
                flush=True,
            )
        meshcall("hangup", "--home", str(ann.home))
        stats = answers.wait_for("ended", 20)["stats"]
        print(f"    delay {stats['delay']['total'] * 1000:.0f} ms, loss {stats['loss']}, made up {stats['concealed']}")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each call that count")
    parser.add_argument("--calls", type=int, default=2)
    options = parser.parse_args()
    os.environ["MESHCALL_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        street = Street(stack, folder)
        ann, bob = street.people(stack, Silent(), f'backend = "null"\n{OFF}', "cpu")  # type: ignore[arg-type]
        for _ in range(options.calls):
            one_call(ann, bob, folder, options.seconds)


if __name__ == "__main__":
    main()
