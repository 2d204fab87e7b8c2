"""A call with loss, jitter and clocks that drift apart, long enough to see that nothing runs away.

The hour itself is tests/benchmarks/voice/soak.py; this is a minute and a half of it, with real Opus.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).resolve().parents[1] / "benchmarks" / "voice" / "soak.py"


@pytest.mark.timeout(600)
def test_a_call_with_drifting_clocks_stays_as_it_is() -> None:
    """One clock is 300 ppm faster: one receiver gets too much, the other one too little."""
    command = [sys.executable, str(SOAK), "--minutes", "1.5", "--ppm", "300", "--noise"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=590)
    assert run.returncode == 0, run.stderr
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    result, marks = lines[-1], lines[:-1]
    assert len(marks) >= 4
    for name in "ab":
        end = result[name]
        assert end["restarts"] == 0
        assert end["loss_pct"] == pytest.approx(3.0, abs=1.5)
        assert end["loss_after_pct"] < 0.5 * end["loss_pct"]
        assert end["concealed_pct"] < 2.0
        assert end["delay_most_ms"] < 220
        assert abs(end["delay_last_ms"] - end["delay_first_ms"]) < 60
        assert 0.00001 < end["accelerated"] + end["expanded"] < 0.02
