"""A codec on paper: every sample of a frame tells the slot of the frame, so that tests see which slot sounds where."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np

from meshcall.audio.codec import SLOT_SAMPLES, Sound
from meshcall.errors import BadPacket
from meshcall.wire.coded import WHOLE
from meshcall.wire.voice import SLOTS_MODULUS, Cover, Report, VoicePacket, encode_voice

LOUD = 1000
"""Samples of slot n are LOUD + n % SPAN: never quiet, never what concealment gives."""
SPAN = 20_000
MADE_UP = -500

_FORM = struct.Struct(">IB")


def paper_frame(slot: int, slots: int = 1) -> bytes:
    return _FORM.pack(slot % (1 << 32), slots)


def paper_packet(
    slot: int, slots: int = 1, *, call: int = 7, inband: bool = False, copies: tuple[int, ...] = (),
    report: Report | None = None, size: int = 0,
) -> bytes:  # fmt: skip
    """A packet with copies of the frames so many frames before."""
    packet = VoicePacket(
        call, slot % SLOTS_MODULUS, WHOLE[slots - 1], inband, report or Report(), paper_frame(slot, slots),
        tuple(Cover(back, 1) for back in copies), tuple(paper_frame(slot - back * slots, slots) for back in copies),
    )  # fmt: skip
    return encode_voice(packet, size)


def slot_of(sample: int) -> int | None:
    """Which slot (below SPAN) a sample is of; None for made-up sound and silence."""
    return sample - LOUD if sample >= LOUD else None


@dataclass
class PaperDecoder:
    """Notes what it was asked for, in order."""

    decoded: list[int] = field(default_factory=list)
    inband: list[int] = field(default_factory=list)
    concealed: int = 0
    kept: int = 0
    """How many frames had been decoded when the state was kept."""
    tried: list[int] = field(default_factory=list)
    """Frames that were decoded, and forgotten again; `went_back`: how often."""
    went_back: int = 0

    def decode(self, frame: bytes, samples: int) -> Sound:
        slot, slots = self._open(frame)
        if slots * SLOT_SAMPLES != samples:
            raise BadPacket("frame length")
        self.decoded.append(slot)
        return np.full(samples, LOUD + slot % SPAN, np.int16)

    def decode_inband(self, following: bytes, samples: int) -> Sound | None:
        slot, slots = self._open(following)
        self.inband.append(slot - slots)
        return np.full(samples, LOUD + (slot - slots) % SPAN, np.int16)

    def conceal(self, samples: int) -> Sound:
        self.concealed += samples
        return np.full(samples, MADE_UP, np.int16)

    def keep(self) -> None:
        self.kept = len(self.decoded)

    def go_back(self) -> None:
        self.tried += self.decoded[self.kept :]
        del self.decoded[self.kept :]
        self.went_back += 1

    def _open(self, frame: bytes) -> tuple[int, int]:
        if len(frame) != _FORM.size or not 1 <= frame[-1] <= 3:
            raise BadPacket("frame")
        return _FORM.unpack(frame)
