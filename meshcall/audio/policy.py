"""What a sender does against loss: pure functions of the receiver's report and of what the path can carry.

The tables and their reasons: docs/voice.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from meshcall.audio.capacity import Step
from meshcall.wire.voice import SLOT_SECONDS, Cover, Report, frame_bytes_for

BITS_PER_BYTE: Final = 8


@dataclass(frozen=True, slots=True)
class Protection:
    """One row of the table of protections."""

    covers: tuple[Cover, ...]
    inband: bool
    expected_loss: float
    """What Opus is told: loss that is left behind the repair; 0 to 1."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How packets look between two changes of the network's state."""

    slots: int
    size: int
    """Bytes of the payload."""
    protection: Protection

    @property
    def frame_bytes(self) -> int:
        """Bytes of an Opus frame."""
        return frame_bytes_for(self.size, len(self.protection.covers))

    @property
    def seconds(self) -> float:
        """From packet to packet."""
        return self.slots * SLOT_SECONDS


PROTECTIONS: Final = (
    Protection((), False, 0.0),
    Protection((Cover(1, 3),), False, 0.01),
    Protection((Cover(1, 4), Cover(1, 4)), False, 0.02),
)


def protection_for(report: Report) -> int:
    """The number of the protection that the report asks for."""
    if report.loss < 0.01:
        return 0
    return 1 if report.loss < 0.15 else 2


def shape_for(number: int, step: Step, overhead: int) -> Shape:
    """Packets of the protection, within the step's bits per second; `overhead`: bytes per packet below the payload."""
    protection = PROTECTIONS[number]
    size = int(step.bits_per_second * step.slots * SLOT_SECONDS / BITS_PER_BYTE) - overhead
    return Shape(step.slots, size, protection)
