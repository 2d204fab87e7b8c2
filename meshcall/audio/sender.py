"""From the microphone's blocks to voice packets of constant size and clock.

Nothing of what is said shows in the sizes and times of packets: no silence is left out, and muted, ringing and on hold
the same packets go out.  They change with the network's state only, in coarse steps (`capacity`, `policy`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Final

import numpy as np

from meshcall.audio.capacity import Capacity
from meshcall.audio.codec import PULL_SAMPLES, SLOT_SAMPLES, Encoder, Sound
from meshcall.audio.policy import BITS_PER_BYTE, Losses, Protection, Shape, shape_for
from meshcall.audio.repair import RepairEncoder
from meshcall.wire.voice import SLOT_SECONDS, SLOTS_PER_FRAME_MAX, Report, VoicePacket, encode_voice, is_implied

LIMIT_BITS_PER_SECOND: Final = 70_000
"""On the wire, with the headers of IP and UDP."""
OVERHEAD_BYTES: Final = 54
"""Below the payload on a direct path: IPv4 and UDP 28, sealed packet 26.  A relay adds 12, IPv6 20."""
HISS_PEAK: Final = 3
"""Of 32768: what is sent in place of the microphone, about 84 dB below full scale: a line, and not the end of one."""
HISS_BLOCKS: Final = 101
"""After about a second it comes again."""


@dataclass(frozen=True, slots=True)
class SenderStats:
    """Since the start of the call."""

    packets: int
    payload_bytes: int
    wire_bytes: int
    seconds: float
    """Of sound that was sent."""
    shape_changes: int
    shape: Shape

    @property
    def wire_bits_per_second(self) -> float:
        """At present."""
        return self.wire_bytes * BITS_PER_BYTE / self.seconds if self.seconds else 0.0


class Sender:
    """`push` a block each 10 ms; each 20, 40 or 60 ms it gives a payload.  Sans-IO; not for two threads at once."""

    def __init__(
        self, now: float, encoder: Encoder, *, call: int, slot: int, limit_bits_per_second: int = LIMIT_BITS_PER_SECOND
    ) -> None:
        self.mute = False
        """Set from outside: muted, on hold, or not answered yet.  On the wire it looks the same."""
        self.telling = Report()
        """What we receive; travels in each packet."""
        self.overhead = OVERHEAD_BYTES
        """Bytes per packet below the payload, on the path at present."""
        self.paths = 0
        """That packets have taken so far, one after the other."""
        self._encoder = encoder
        self._call = call
        self._slot = slot
        self._capacity = Capacity(now, limit_bits_per_second)
        self._repair = RepairEncoder()
        self._losses = Losses(now)
        self._fixed: Protection | None = None
        self._reasons: tuple[object, ...] = ()
        """What the shape followed from when it was last worked out."""
        self._shape = self._wanted()
        self._encoder.expect_loss(0.0, inband=False)
        self._buffer = np.zeros(SLOTS_PER_FRAME_MAX * SLOT_SAMPLES, np.int16)
        self._filled = 0
        self._open = 1.0
        self._hiss = _hiss()
        self._hiss_at = 0
        self._packets = self._payload_bytes = self._wire_bytes = self._slots_sent = self._changes = 0

    def push(self, now: float, sound: Sound) -> bytes | None:
        """A block of 480 samples; the payload of a packet when a frame is complete.  ValueError for other blocks."""
        if sound.dtype != np.int16 or sound.shape != (PULL_SAMPLES,):
            raise ValueError(f"not a block of sound: {sound.dtype}, {sound.shape}")
        if not self._filled:
            self._capacity.frame_begins(now)
            self._reshape()
        self._buffer[self._filled : self._filled + PULL_SAMPLES] = self._gated(sound)
        self._filled += PULL_SAMPLES
        if self._filled < self._shape.slots * SLOT_SAMPLES:
            return None
        return self._packet()

    def reported(
        self, now: float, report: Report, round_trip: float | None = None, *, hidden: float = 0.0,
        late: float | None = 0.0,
    ) -> None:  # fmt: skip
        """What the other side receives of us; it came in one of its packets.

        `round_trip`: the path's, if known; `hidden`: a queue that it tells of, and the other side cannot know; `late`:
        by so much longer than the least that packet took; None: of the queue it says nothing new.
        """
        self._capacity.reported(now, report, round_trip, hidden=hidden, late=late)
        self._losses.reported(now, report, self._capacity.fell)

    def path_changed(self, now: float) -> None:
        """Packets go another way from now on."""
        self.paths += 1
        self._capacity.path_changed(now)

    def ring(self, now: float) -> None:
        """Nobody listens yet: begin with little and find out how much the line carries, until `answered`."""
        self._capacity.ring(now)

    def answered(self, now: float) -> None:
        """Somebody listens from now on."""
        self._capacity.answered(now)

    def went(self, now: float, copies: int) -> None:
        """The last packet left as so many datagrams."""
        if copies > 1:
            self._capacity.doubled(now)

    @property
    def is_narrow(self) -> bool:
        """Whether the line is full, or may be: whatever else uses it should use little."""
        return self._capacity.is_narrow

    @property
    def is_wide(self) -> bool:
        """Whether the line has shown that it has room, so that a packet may be sent twice: other paths share it."""
        return self._capacity.is_wide

    def fix(self, protection: Protection | None) -> None:
        """Keep to one protection, whatever is reported; for comparisons.  None: the policy again.

        Raises ValueError for symbols and an in-band copy together: no packet has both.
        """
        if protection is not None and protection.inband and protection.covers:
            raise ValueError("symbols or an in-band copy, not both")
        self._fixed = protection

    @property
    def blocks_wanted(self) -> int:
        """How many more blocks complete the frame; before its first, when its length is not known, those of a slot."""
        whole = self._shape.slots * SLOT_SAMPLES if self._filled else SLOT_SAMPLES
        return (whole - self._filled) // PULL_SAMPLES

    @property
    def shape(self) -> Shape:
        """Of the packet that is being filled."""
        return self._shape

    @property
    def stats(self) -> SenderStats:
        """Counted at this side."""
        return SenderStats(
            self._packets, self._payload_bytes, self._wire_bytes, self._slots_sent * SLOT_SECONDS, self._changes,
            self._shape,
        )  # fmt: skip

    def _wanted(self) -> Shape:
        losses = self._losses
        shape = shape_for(
            losses.grade, losses.distance, self._capacity.step, self.overhead, shaky=losses.shaky, stormy=losses.stormy
        )
        return shape if self._fixed is None else replace(shape, protection=self._fixed)

    def _reshape(self) -> None:
        losses = self._losses
        reasons = (
            losses.grade, losses.distance, losses.shaky, losses.stormy, self._capacity.step, self.overhead, self._fixed,
        )  # fmt: skip
        if reasons == self._reasons:
            return
        self._reasons = reasons
        shape = self._wanted()
        if shape != self._shape:
            self._shape = shape
            self._changes += 1
            self._encoder.expect_loss(shape.protection.expected_loss, inband=shape.protection.inband)

    def _gated(self, sound: Sound) -> Sound:
        """The block, or hiss in its place; faded over one block where that changes."""
        target = 0.0 if self.mute else 1.0
        if self._open == target == 1.0:
            return sound
        ramp = np.linspace(self._open, target, PULL_SAMPLES)
        self._open = target
        hiss = self._hiss[self._hiss_at]
        self._hiss_at = (self._hiss_at + 1) % HISS_BLOCKS
        mixed: Sound = np.rint(sound * ramp + hiss * (1.0 - ramp)).astype(np.int16)
        return mixed

    def _packet(self) -> bytes:
        shape = self._shape
        config, frame = self._encoder.encode(self._buffer[: self._filled], shape.frame_bytes)
        self._filled = 0
        self._repair.add(self._slot, config, frame)
        covers = self._repair.possible(shape.protection.covers)
        packet = VoicePacket(
            self._call, self._slot, config, shape.protection.inband, self.telling, frame, covers,
            tuple(self._repair.symbols(covers)), is_implied(shape.protection.covers),
        )  # fmt: skip
        self._slot += shape.slots
        self._slots_sent += shape.slots
        self._packets += 1
        self._payload_bytes += shape.size
        self._wire_bytes += shape.size + self.overhead
        return encode_voice(packet, shape.size)


@cache
def _hiss() -> Sound:
    """HISS_BLOCKS rows of one block each, the same numbers in every call: a linear congruential generator from 1 on."""
    powers = np.full(HISS_BLOCKS * PULL_SAMPLES, 1_103_515_245, np.uint32).cumprod(dtype=np.uint32)
    sums = np.concatenate([np.ones(1, np.uint32), powers[:-1]]).cumsum(dtype=np.uint32)
    states = (powers + np.uint32(12_345) * sums) % (1 << 31)
    values = (states >> 16) % (2 * HISS_PEAK + 1)
    return (values.astype(np.int16) - HISS_PEAK).reshape(HISS_BLOCKS, PULL_SAMPLES)
