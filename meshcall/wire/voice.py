"""Voice packets: one Opus frame, repair symbols for frames before it, and a report of what was received.

The payload of frames of the kind VOICE inside a link (`wire/link.py`).  Only bytes and fields here.  All packets
between two changes of the network's state have one size, padded with zeros behind the last frame.  Time is counted
in slots of 20 ms, modulo 2^16.  In words, with vectors, for a second implementation: docs/voice.md.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from meshcall.errors import BadPacket

VOICE: Final = 32
"""The inner kind of a voice packet."""

SLOT_SECONDS: Final = 0.02
SLOTS_MODULUS: Final = 1 << 16
SLOTS_PER_FRAME_MAX: Final = 3
FRAME_BYTES_MAX: Final = 255
REPAIRS_MAX: Final = 3
WINDOW_MAX: Final = 16
"""Frames that one repair symbol covers at most; the newest of them is so many before the packet's own at most."""
PACKET_BYTES_MAX: Final = 1100

_HEAD: Final = struct.Struct(">BBHB5B")
HEAD_BYTES: Final = _HEAD.size
"""10; each repair symbol adds one byte of description and as many bytes as a frame has."""

_FORM_SLOTS: Final = 0b11
_FORM_REPAIRS_SHIFT: Final = 2
_FORM_INBAND: Final = 1 << 4
_FORM_ZERO: Final = 0b1110_0000

JITTER_UNIT_SECONDS: Final = 0.002
QUEUE_UNIT_SECONDS: Final = 0.004
BURST_UNITS_PER_SLOT: Final = 8
_BYTE_MAX: Final = 255


@dataclass(frozen=True, slots=True)
class Report:
    """What the receiver of the other direction sees, over about the last two seconds."""

    loss: float = 0.0
    """Share of slots whose packet did not come, before any repair; 0 to 1."""
    burst: float = 0.0
    """Mean length of a run of them, in slots, up to 31.8; 0 where nothing was lost."""
    late: float = 0.0
    """Share of slots that came, or were repaired, after they should have been played; 0 to 1."""
    jitter: float = 0.0
    """95th percentile of the delay above the least of this window, in seconds, up to 0.51."""
    queue: float = 0.0
    """Least delay of the last half second above the least delay known of this path, in seconds, up to 1.02."""


@dataclass(frozen=True, slots=True)
class Cover:
    """Which frames a repair symbol combines: `count` of them, the newest `first` frames before the packet's own."""

    first: int
    """1 to 16.  With a count of 1 the symbol is a copy of that frame."""
    count: int
    """1 to 16."""


@dataclass(frozen=True, slots=True)
class VoicePacket:
    """All fields of a packet, whatever its padding."""

    call: int
    """Low byte of the call's number, so that packets of a call that is over are told apart."""
    slot: int
    """In which the frame begins, modulo 2^16."""
    slots: int
    """Slots that a frame of this packet lasts: 1 to 3 (20, 40, 60 ms)."""
    inband: bool
    """Whether the frame carries Opus's in-band copy of the frame before it."""
    report: Report
    frame: bytes
    """1 to 255 bytes."""
    covers: tuple[Cover, ...] = ()
    repairs: tuple[bytes, ...] = ()
    """As many as `covers`, each as long as `frame`."""


def size_of(frame_bytes: int, repairs: int) -> int:
    """Bytes of a packet without padding."""
    return HEAD_BYTES + repairs + (1 + repairs) * frame_bytes


def frame_bytes_for(size: int, repairs: int) -> int:
    """The longest frame that fits into a packet of `size` bytes with so many repair symbols; less than 1: none does."""
    return min(FRAME_BYTES_MAX, (size - HEAD_BYTES - repairs) // (1 + repairs))


def encode_voice(packet: VoicePacket, size: int = 0) -> bytes:
    """The payload, padded to `size` bytes.  Raises ValueError for fields out of range."""
    count = len(packet.covers)
    length = len(packet.frame)
    if not (1 <= packet.slots <= SLOTS_PER_FRAME_MAX and 1 <= length <= FRAME_BYTES_MAX and count <= REPAIRS_MAX):
        raise ValueError("a voice packet out of form")
    if len(packet.repairs) != count or any(len(one) != length for one in packet.repairs):
        raise ValueError("repair symbols must be as many as covers and as long as the frame")
    if any(not (1 <= one.first <= WINDOW_MAX and 1 <= one.count <= WINDOW_MAX) for one in packet.covers):
        raise ValueError("a cover out of range")
    form = (packet.slots - 1) | count << _FORM_REPAIRS_SHIFT | (_FORM_INBAND if packet.inband else 0)
    report = packet.report
    body = _HEAD.pack(
        form, packet.call & _BYTE_MAX, packet.slot % SLOTS_MODULUS, length, _byte(report.loss * _BYTE_MAX),
        _byte(report.burst * BURST_UNITS_PER_SLOT), _byte(report.late * _BYTE_MAX),
        _byte(report.jitter / JITTER_UNIT_SECONDS), _byte(report.queue / QUEUE_UNIT_SECONDS),
    )  # fmt: skip
    body += bytes((one.first - 1) << 4 | (one.count - 1) for one in packet.covers)
    return (body + b"".join(packet.repairs) + packet.frame).ljust(size, b"\0")


def decode_voice(payload: bytes) -> VoicePacket:
    """The inverse; padding is not looked at.  Raises BadPacket."""
    if not HEAD_BYTES < len(payload) <= PACKET_BYTES_MAX:
        raise BadPacket("voice size")
    form, call, slot, length, loss, burst, late, jitter, queue = _HEAD.unpack_from(payload)
    slots = (form & _FORM_SLOTS) + 1
    count = form >> _FORM_REPAIRS_SHIFT & 0b11
    if form & _FORM_ZERO or slots > SLOTS_PER_FRAME_MAX or not length:
        raise BadPacket("voice form")
    at = HEAD_BYTES + count
    if at + (1 + count) * length > len(payload):
        raise BadPacket("voice length")
    covers = tuple(Cover((one >> 4) + 1, (one & 0b1111) + 1) for one in payload[HEAD_BYTES:at])
    parts = [payload[at + n * length : at + (n + 1) * length] for n in range(count + 1)]
    report = Report(
        loss / _BYTE_MAX, burst / BURST_UNITS_PER_SLOT, late / _BYTE_MAX, jitter * JITTER_UNIT_SECONDS,
        queue * QUEUE_UNIT_SECONDS,
    )  # fmt: skip
    return VoicePacket(call, slot, slots, bool(form & _FORM_INBAND), report, parts[-1], covers, tuple(parts[:-1]))


def _byte(value: float) -> int:
    """Rounded and kept within a byte; what is not a number counts as nothing."""
    return round(min(_BYTE_MAX, max(0.0, value))) if value == value else 0
