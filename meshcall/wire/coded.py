"""Opus frames without the table of contents (TOC) that begins an Opus packet (RFC 6716, 3.1).

The TOC is the same for frame after frame: a voice packet (`wire.voice`) says it once, for its own frame and for all
that its repair symbols combine.  What is left has exactly the length asked for.  Bytes only; no codec is needed.
"""

from __future__ import annotations

from typing import Final, NamedTuple

CONFIGS: Final = 32
WHOLE: Final = (0, 4, 8)
"""Configurations that Opus gives to frames of 10 ms, which are never sent.  Here: a whole Opus packet of any form, TOC
inside, which lasts 1, 2 or 3 slots.  Opus makes 40 and 60 ms of anything but SILK out of several frames."""
_SILK_BELOW: Final = 12
"""Configurations from here on are hybrid or CELT: the length of a frame is part of its meaning."""
_TOC_CONFIG_SHIFT: Final = 3
_SILK_BYTES_LEAST: Final = 2
"""libopus takes a frame of less as lost, and so writes none."""
_SLOTS: Final = {
    **{whole: n + 1 for n, whole in enumerate(WHOLE)},
    **{first + n: n + 1 for first in (1, 5, 9) for n in range(3)},  # SILK: 20, 40, 60 ms
    **dict.fromkeys((13, 15, 19, 23, 27, 31), 1),  # hybrid and CELT: 20 ms
}


def slots_of(config: int) -> int | None:
    """How many slots of 20 ms a frame of this configuration lasts; None where there is no such."""
    return _SLOTS.get(config)


class Coded(NamedTuple):
    """A frame as a voice packet carries it."""

    config: int
    """One that `slots_of` knows."""
    frame: bytes

    @property
    def packet(self) -> bytes:
        """The Opus packet: one frame, mono (code 0); or what the frame holds, if that is a whole packet.

        SILK does not mind zeros that are missing at the end, which are what makes all frames equally long; but libopus
        reads more than two bytes of them as a second frame that covers a change of mode.
        """
        config, frame = self
        if config in WHOLE:
            return frame
        if config < _SILK_BELOW:
            frame = frame[:_SILK_BYTES_LEAST] + frame[_SILK_BYTES_LEAST:].rstrip(b"\0")
        return bytes([config << _TOC_CONFIG_SHIFT]) + frame


def coded(packet: bytes, length: int) -> Coded | None:
    """An Opus packet without its padding as a frame of `length` bytes; None where it cannot be made one.

    What comes back gives the same packet again.
    """
    if not packet:
        return None
    made = Coded(packet[0] >> _TOC_CONFIG_SHIFT, packet[1:].ljust(length, b"\0"))
    fits = len(made.frame) == length and made.config in _SLOTS and made.config not in WHOLE
    return made if fits and made.packet == packet else None
