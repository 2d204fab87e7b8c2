"""Figures of voice for the table: the echo canceller's, the processing's, and those of calls through PulseAudio."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SCRIPT_SECONDS_MAX = 900


def told(script: str, *options: str) -> tuple[Any, str]:
    """What a benchmark prints with --json, None where it measured nothing, and the last line it said besides."""
    done = subprocess.run(
        [sys.executable, str(HERE / script), "--json", *options],
        capture_output=True, text=True, timeout=SCRIPT_SECONDS_MAX, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    said = done.stderr.strip().splitlines()
    return json.loads(done.stdout) if done.stdout.strip() else None, said[-1] if said else ""


def voice_figures(*, quick: bool) -> tuple[dict[str, Any], list[str]]:
    """Figures by the keys of targets.py, and a sentence for each part that could not be measured."""
    figures: dict[str, Any] = {}
    remarks = []
    rooms, why = told("echo_room.py", *(("--quick",) if quick else ()))
    if rooms:
        delays = [row for name, row in rooms.items() if name.startswith("delay ")]
        figures["echo"] = {key: min(row[key] for row in delays) for key in ("erle_db", "near_gain_db")}
    else:
        remarks.append(f"echo canceller: {why}")
    processing, why = told("processing_cpu.py", *(("--seconds", "10") if quick else ()))
    if processing:
        alone = processing["everything, WebRTC alone"]["core_percent"]
        figures["processing"] = {**processing["everything"], "alone": alone}
    else:
        remarks.append(f"processing: {why}")
    calls, why = told("voice/pulse_call.py", *(("--backends", "sounddevice", "--seconds", "10") if quick else ()))
    if calls:
        figures.update(pulse_rows(calls["calls"]))
    else:
        remarks.append(f"calls through PulseAudio: {why}")
    return figures, remarks


def pulse_rows(calls: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of sounddevice, the backend that is tried first; the CPU is that of the busier end."""
    return {
        f"pulse/{call['processing']}": {
            "backend": call["backend"],
            "processing": call["processing"],
            "median_ms": None if call["ms"] is None else call["ms"][0],
            "core_percent": max(end["all"] for end in call["cpu"].values()),
        }
        for call in calls
        if call["backend"] == "sounddevice"
    }
