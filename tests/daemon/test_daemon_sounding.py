"""What a call prepares before it sounds."""

from __future__ import annotations

import subprocess
import sys

_COUNTS = """
import gc
from meshcall.daemon.sounding import prepare
before = len(gc.get_objects())
prepare()
print(before, len(gc.get_objects()), gc.get_freeze_count())
"""


def test_the_collector_of_cycles_does_not_look_through_what_is_loaded() -> None:
    """A collection of everything would stop the thread that the loudspeaker waits for; in a process of its own."""
    told = subprocess.run([sys.executable, "-c", _COUNTS], capture_output=True, text=True, check=True, timeout=60)
    before, after, frozen = map(int, told.stdout.split())
    assert frozen >= before > 10_000
    assert after < before / 20
