"""The voice section of `make bench`: all scenarios in virtual time beside the goals, and what a call costs."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent / "voice"
SECONDS_MAX = 3600.0
RECORDED = ("anchor", "other")
SPOKEN = ("synthetic",)
"""In the place of recorded speech where that cannot be fetched."""


def _is_made(name: str, why: list[str]) -> bool:
    """Whether this set of speech is there now; if not, `why` gets the reason."""
    command = [sys.executable, str(HERE / "reference.py"), "--set", name]
    made = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_MAX)
    if made.returncode:
        why.append((made.stderr.strip().splitlines() or [f"{name}: no reason given"])[-1])
    return made.returncode == 0


def voice_section(results: Path, *, quick: bool, say: Callable[[str], None]) -> list[str]:
    """Lines of Markdown; the raw figures go to `results`/voice.json.  Says why where nothing can be measured."""
    missing = [name for name in ("pesq", "scipy") if importlib.util.find_spec(name) is None]
    if missing:
        return ["## Voice", "", f"Not measured: {' and '.join(missing)} are not installed (they need a C compiler)."]
    why: list[str] = []
    sets = [name for name in RECORDED if _is_made(name, why)] or [name for name in SPOKEN if _is_made(name, why)]
    if not sets:
        return ["## Voice", "", f"Not measured: {'; '.join(why)}."]
    command = [sys.executable, str(HERE / "virtual.py"), "--out", str(results / "voice.json"), "--sets", ",".join(sets)]
    command += ["--kbps", "70"] if quick else ["--kbps", "70,58", "--seeds", "1,2"]
    say(f"voice: {'one seed' if quick else 'two seeds at 70 and 58 kbit/s'} ...")
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=SECONDS_MAX)
    if run.returncode:
        return ["## Voice", "", f"Not measured: voice/virtual.py ended with {run.returncode}."]
    return ["## Voice: PESQ-WB and mouth-to-ear delay, in virtual time", "", *run.stdout.splitlines()]
