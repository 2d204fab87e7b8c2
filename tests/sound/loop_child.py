"""Run by test_sound_pulse.py: a Duplex on real devices that clicks once a second and listens for it.

Commands on stdin, one a line, with an answer in JSON on stdout: `look`, `stop`.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np

from meshcall.drivers.sound.duplex import Changed, Duplex
from meshcall.drivers.sound.ports import SoundChoice

BLOCK = 480


def main() -> None:
    state = {"blocks": 0, "gap": 0.0, "last": time.monotonic(), "clicked": -1}
    trips: list[float] = []
    said: list[list[str | None]] = []

    def exchange(captured: np.ndarray) -> np.ndarray:
        now = time.monotonic()
        state["gap"] = max(state["gap"], now - state["last"])
        state["last"] = now
        at = int(np.abs(captured.astype(int)).argmax())
        if abs(int(captured[at])) > 8000 and state["clicked"] >= 0:
            trips.append(((state["blocks"] * BLOCK + at) - state["clicked"]) / 48)
            state["clicked"] = -1
        state["blocks"] += 1
        played = np.zeros(BLOCK, np.int16)
        if state["blocks"] % 100 == 0:
            # Of the block that is played from here on.
            state["clicked"] = state["blocks"] * BLOCK
            played[0] = 30_000
        return played

    def changed(change: Changed) -> None:
        said.append([change.device, change.why])

    device = Duplex(SoundChoice(backend=sys.argv[1]))  # type: ignore[arg-type]
    device.start(exchange, changed)
    for line in sys.stdin:
        if line.strip() == "stop":
            break
        answer = {
            "name": device.name,
            "chosen": device.chosen,
            "trips": trips[-5:],
            "said": said,
            "stats": device.stats(),
            **state,
        }
        print(json.dumps(answer), flush=True)
        state["gap"] = 0.0
    began = time.monotonic()
    device.stop()
    print(json.dumps({"stopped_in": time.monotonic() - began}), flush=True)


main()
