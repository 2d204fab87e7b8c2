"""What the audio cores want of a codec; Opus (RFC 6716) fulfils it in drivers/opus.py, a paper one in the simulator."""

from __future__ import annotations

from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from meshcall.wire.coded import Coded

Sound = NDArray[np.int16]
"""Mono, 48 kHz, one dimension."""

RATE: Final = 48_000
"""Samples a second."""
SLOT_SAMPLES: Final = 960
"""Of a slot of 20 ms."""
PULL_SAMPLES: Final = 480
"""Of one block to or from a device: 10 ms."""


class Encoder(Protocol):
    """Constant bit rate: every frame has exactly the length asked for."""

    def encode(self, sound: Sound, size: int) -> Coded:
        """One frame of 960, 1920 or 2880 samples as exactly `size` bytes.  Raises ValueError for other lengths.

        Its configuration may differ from frame to frame; but frames are repaired by those of the same one only.
        """
        ...

    def expect_loss(self, share: float, *, inband: bool) -> None:
        """How much loss to prepare for; `inband`: each frame also carries a poorer copy of the one before (LBRR)."""
        ...


class Decoder(Protocol):
    """Frames in the order in which they are played.  Damaged frames raise BadPacket and change nothing."""

    def decode(self, frame: bytes, samples: int) -> Sound:
        """An Opus packet; `samples` is what its voice packet said that it lasts.  BadPacket if it lasts otherwise."""
        ...

    def decode_inband(self, following: bytes, samples: int) -> Sound | None:
        """The frame lost before `following`, out of its in-band copy; None where it has none."""
        ...

    def conceal(self, samples: int) -> Sound:
        """What a lost frame may have sounded like, fading out as losses go on."""
        ...

    def keep(self) -> None:
        """Remember what was decoded up to now; in the place of what was remembered before."""
        ...

    def go_back(self) -> None:
        """As if nothing had been decoded or concealed since the last `keep`."""
        ...
