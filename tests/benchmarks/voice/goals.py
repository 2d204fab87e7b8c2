"""What the voice is held against: per scenario the figures of the anchors, and PESQ-WB and delay to reach.

The anchors' were measured with the same scenarios and the speech of the set `anchor`, in real time (Chromium 156's
WebRTC with in-band FEC, the same with RED, aiortc); mean PESQ-WB over utterances / median mouth-to-ear in ms, the
network's own delay in it.
"""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_KBPS = 70
"""On the wire, with IP and UDP headers; the goals are for this."""
LOW_KBPS = 58
"""What Chromium takes without RED; its figures are shown beside."""


@dataclass(frozen=True, slots=True)
class Goal:
    """A row of the table."""

    scenario: str
    title: str
    chromium: str
    red: str
    aiortc: str
    pesq: float
    """At least."""
    delay_ms: float
    """At most."""


GOALS = (
    Goal("clean", "clean", "4.3 / 71", "4.4 / 76", "4.39 / 161", 4.35, 75),
    Goal("loss5", "5 % loss", "3.8 / 80", "4.25 / 99", "1.18", 4.2, 95),
    Goal("loss10", "10 % loss", "3.3-3.6 / 75", "4.0 / 101", "1.05", 3.9, 110),
    Goal("loss20", "20 % loss", "2.3 / 80", "3.3 / 107", "1.04", 3.7, 125),
    Goal("loss30", "30 % loss", "1.7-1.9 / 66", "2.9 / 85", "1.05", 3.3, 140),
    Goal("burst60", "bursts of 60 ms, 10 %", "2.3-2.5 / 87", "2.6-3.1 / 94", "1.23", 3.0, 140),
    Goal("burst120", "bursts of 120 ms, 10 %", "2.4 / 77", "2.6-2.9 / 90", "1.49", 3.0, 200),
    Goal("jitter20", "jitter, mean 40 sd 20 ms", "4.35 / 162", "4.37 / 157", "4.38 / 300", 4.3, 160),
    Goal("jitter60", "jitter, mean 100 sd 60 ms", "4.27 / 359", "4.27 / 260", "1.59", 4.25, 300),
    Goal("badwifi", "bad wifi", "3.6 / 372", "4.0 / 391", "1.38", 4.0, 300),
    Goal("cap48", "line of 48 kbit/s", "3.1 / 488", "2.8", "1.0", 4.1, 180),
    Goal("cap24", "line of 24 kbit/s", "1.3 / 582", "1.3", "1.0", 3.5, 250),
)
GOAL_OF = {goal.scenario: goal for goal in GOALS}


def verdict(goal: Goal, pesq: float, delay_ms: float | None) -> str:
    """`reached`, or which of the two is a miss and by how much."""
    misses = []
    if pesq < goal.pesq:
        misses.append(f"PESQ {pesq - goal.pesq:+.2f}")
    if delay_ms is None or delay_ms > goal.delay_ms:
        misses.append("no delay" if delay_ms is None else f"{delay_ms - goal.delay_ms:+.0f} ms")
    return "MISS: " + ", ".join(misses) if misses else "reached"
