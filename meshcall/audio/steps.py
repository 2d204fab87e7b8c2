"""The rates that a sender chooses from, and the frames that fit each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from meshcall.wire.voice import SLOT_SECONDS


@dataclass(frozen=True, slots=True)
class Step:
    """A rate and the frames that fit it."""

    bits_per_second: int
    """On the wire, with all headers."""
    slots: int
    """Per frame."""

    @property
    def frame_seconds(self) -> float:
        """From packet to packet."""
        return self.slots * SLOT_SECONDS

    @property
    def packet_bits(self) -> float:
        """Of one packet on the wire."""
        return self.bits_per_second * self.frame_seconds


STEPS: Final = (
    Step(18_000, 3), Step(22_500, 3), Step(30_000, 3), Step(37_000, 2), Step(45_000, 2), Step(58_000, 1),
    Step(70_000, 1), Step(96_000, 1), Step(128_000, 1),
)  # fmt: skip
"""The lowest one drains the queue of a 24 kbit/s line, the one above fits it."""
RING: Final = Step(15_000, 3)
"""Below all of them: while it rings and nothing is known of the line, which other packets of the call may have
filled."""
MARGIN: Final = 0.85
"""Of a capacity that was estimated, a step may take so much."""
