"""How much a path carries, in coarse steps, out of the delay and the loss that the receiver reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from meshcall.wire.voice import Report


@dataclass(frozen=True, slots=True)
class Step:
    """So many bits per second on the wire, with all headers, and slots per frame at that."""

    bits_per_second: int
    slots: int


STEPS: Final = (
    Step(22_500, 3), Step(30_000, 3), Step(37_000, 2), Step(45_000, 2), Step(58_000, 1), Step(70_000, 1),
)  # fmt: skip


class Capacity:
    """The step to send at."""

    def __init__(self, now: float, limit_bits_per_second: int) -> None:
        self._allowed = [step for step in STEPS if step.bits_per_second <= limit_bits_per_second] or [STEPS[0]]
        self._at = len(self._allowed) - 1
        self._since = now

    @property
    def step(self) -> Step:
        """At present."""
        return self._allowed[self._at]

    def reported(self, now: float, report: Report) -> None:
        """What the receiver sees."""

    def path_changed(self, now: float) -> None:
        """All that was learnt belongs to another path."""
        self._since = now
