"""Figures that are taken of whole processes: the command's start, the daemon at rest, the simulator."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HELP_RUNS = 11
DAEMON_REST_SECONDS = 15.0
DAEMON_STOP_SECONDS_MAX = 30.0
COMMAND = [sys.executable, "-m", "meshcall"]
SIMULATOR_NODES = 10_000
SIMULATOR_NODES_QUICK = 1_000
SIMULATOR_HOURS = 0.1
SIMULATOR_SCENARIO = "lookups"


def help_milliseconds(root: Path) -> float:
    """Median wall time of `meshcall --help`, warm file cache."""
    command = [str(root / ".venv" / "bin" / "meshcall"), "--help"]
    if not os.access(command[0], os.X_OK):
        command = [*COMMAND, "--help"]
    times = []
    for _ in range(HELP_RUNS):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append((time.perf_counter() - started) * 1000)
    return round(statistics.median(times), 1)


def resident_megabytes(pid: int) -> float:
    """Resident memory of one process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def free_port() -> int:
    """A UDP port that nobody has now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def daemon_megabytes() -> float | None:
    """Resident memory of a daemon that has joined, has published, and rests; None where it did not start."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as running:
        port = free_port()
        local = ["--private", "--bind", "127.0.0.1"]
        owner = [*COMMAND, "--home", f"{folder}/owner"]
        subprocess.run([*owner, "id", "new", "--no-passphrase"], check=True, capture_output=True)
        commands = (
            [*COMMAND, "--home", f"{folder}/other", "up", *local, "--no-publish", "--port", str(port)],
            [*owner, "up", *local, "--bootstrap", f"127.0.0.1:{port}"],
        )
        processes = []
        for command in commands:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            running.callback(process.wait, DAEMON_STOP_SECONDS_MAX)
            running.callback(process.terminate)
            processes.append(process)
        time.sleep(DAEMON_REST_SECONDS)
        for process in processes:
            if process.poll() is not None:
                assert process.stderr is not None
                print(f"  the daemon ended: {process.stderr.read()[-300:]}", file=sys.stderr)
                return None
        return round(resident_megabytes(processes[-1].pid), 1)


def simulator_figures(quick: bool) -> dict[str, Any]:
    """Messages a second and KiB a node of the shipped scenario, everything on, in a process of its own."""
    nodes = SIMULATOR_NODES_QUICK if quick else SIMULATOR_NODES
    command = [sys.executable, str(Path(__file__).with_name("sim_bench.py")), "--json"]
    command += ["--scenario", SIMULATOR_SCENARIO, "--nodes", str(nodes), "--hours", str(SIMULATOR_HOURS)]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        print(f"  the simulator ended with {result.returncode}: {result.stderr[-500:]}", file=sys.stderr)
        return {}
    speed = json.loads(result.stdout.splitlines()[-1])
    return {
        "simulator": {"scenario": SIMULATOR_SCENARIO, "hours": SIMULATOR_HOURS, **speed},
    }
