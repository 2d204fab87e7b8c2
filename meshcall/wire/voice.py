"""Voice packets: one Opus frame, repair symbols for frames before it, and a part of a report of what was received.

The payload of frames of the kind VOICE inside a link (`wire/link.py`).  Only bytes and fields here.  All packets
between two changes of the network's state have one size, and it says how long the frame is.  Time is counted
in slots of 20 ms, modulo 2^12.  In words, with vectors, for a second implementation: docs/voice.md.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from meshcall.errors import BadPacket
from meshcall.wire.coded import CONFIGS, slots_of

VOICE: Final = 32
"""The inner kind of a voice packet."""

SLOT_SECONDS: Final = 0.02
SLOTS_MODULUS: Final = 1 << 12
"""82 s; a packet that is 2 s late is refused anyway (`audio.jitter`)."""
TAGS: Final = 1 << 4
"""Calls are told apart by their number's remainder."""
SLOTS_PER_FRAME_MAX: Final = 3
FRAME_BYTES_MAX: Final = 255
REPAIRS_MAX: Final = 3
FIRST_MAX: Final = 16
"""The newest frame that a repair symbol covers is so many before the packet's own at most."""
WINDOW_MAX: Final = 15
"""Frames that one repair symbol covers at most."""
PACKET_BYTES_MAX: Final = 1100

_HEAD: Final = struct.Struct(">BHB")
HEAD_BYTES: Final = _HEAD.size
"""4; each repair symbol adds as many bytes as a frame has, and one of description unless the head implies it.  Where
two symbols are sent, each byte of a frame is worth about 0.04 of PESQ: the head is as short as it can be."""

_PLANS: Final = 8
_FORM_PLAN: Final = _PLANS - 1
_FORM_CONFIG_SHIFT: Final = 3
_PLAN_INBAND: Final = 1
_PLAN_EXPLICIT: Final = 2
"""Plans 2, 3 and 4: one, two and three symbols, each with a byte of description."""
_PLAN_IMPLIED: Final = 5
_TAG_SHIFT: Final = 12

JITTER_UNIT_SECONDS: Final = 0.002
QUEUE_UNIT_SECONDS: Final = 0.004
BURST_UNIT_SLOTS: Final = 1 / 8
_BYTE_MAX: Final = 255
_SHARE_UNIT: Final = 1 / _BYTE_MAX

_TOLD: Final = (
    ("queue", QUEUE_UNIT_SECONDS), ("loss", _SHARE_UNIT), ("burst", BURST_UNIT_SLOTS), ("queue", QUEUE_UNIT_SECONDS),
    ("jitter", JITTER_UNIT_SECONDS), ("loss", _SHARE_UNIT), ("late", _SHARE_UNIT),
)  # fmt: skip
"""Which field of the report a packet tells, and its unit: by the slot modulo 7, which 1, 2 and 3 slots a frame all
run through.  What must be answered fast is told twice."""


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
    """0 to 15.  0: of none, the symbol is zeros; so begins a row of frames of a new form."""


IMPLIED: Final[tuple[tuple[Cover, ...], ...]] = (
    (Cover(1, 1), Cover(2, 1)),
    (Cover(2, 1), Cover(3, 1)),
    (Cover(1, 2), Cover(4, 1)),
)
"""What is sent against loss, where bytes are dearest, is known by its number: plans 5, 6 and 7.  Where frames are
not there yet these symbols cover zeros in their place."""


@dataclass(frozen=True, slots=True)
class VoicePacket:
    """All fields of a packet, whatever its padding."""

    call: int
    """The low bits of the call's number (TAGS), so that packets of a call that is over are told apart."""
    slot: int
    """In which the frame begins, modulo 2^12."""
    config: int
    """Of the frame, and of all that the symbols combine (`wire.coded`)."""
    inband: bool
    """Whether the frame carries Opus's in-band copy of the frame before it; not with symbols."""
    report: Report
    """One field of it travels; what `decode_voice` was handed fills the others."""
    frame: bytes
    """1 to 255 bytes, without Opus's table of contents."""
    covers: tuple[Cover, ...] = ()
    repairs: tuple[bytes, ...] = ()
    """As many as `covers`, each as long as `frame`."""
    implied: bool = False
    """Whether the covers are one of IMPLIED and travel as its number."""

    @property
    def slots(self) -> int:
        """Slots that a frame of this packet lasts: 1 to 3 (20, 40, 60 ms); 0 for a configuration that is none."""
        return slots_of(self.config) or 0


def is_implied(covers: Sequence[Cover]) -> bool:
    """Whether these covers have a number, and need no bytes."""
    return tuple(covers) in IMPLIED


def size_of(frame_bytes: int, repairs: int, *, implied: bool = False) -> int:
    """Bytes of the shortest packet with a frame of this length."""
    return HEAD_BYTES + (0 if implied else repairs) + (1 + repairs) * frame_bytes


def frame_bytes_for(size: int, repairs: int, *, implied: bool = False) -> int:
    """How long the frame of a packet of `size` bytes with so many repair symbols is; less than 1: there is none."""
    return min(FRAME_BYTES_MAX, (size - size_of(0, repairs, implied=implied)) // (1 + repairs))


def encode_voice(packet: VoicePacket, size: int = 0) -> bytes:
    """The payload, of `size` bytes if given.  Raises ValueError for fields out of range or not of that size."""
    count = len(packet.covers)
    length = len(packet.frame)
    if not (0 <= packet.config < CONFIGS and packet.slots and 1 <= length <= FRAME_BYTES_MAX and count <= REPAIRS_MAX):
        raise ValueError("a voice packet out of form")
    if len(packet.repairs) != count or any(len(one) != length for one in packet.repairs):
        raise ValueError("repair symbols must be as many as covers and as long as the frame")
    if any(not (1 <= one.first <= FIRST_MAX and 0 <= one.count <= WINDOW_MAX) for one in packet.covers):
        raise ValueError("a cover out of range")
    if size and frame_bytes_for(size, count, implied=packet.implied) != length:
        raise ValueError("the frame must be as long as the packet's size says")
    slot = packet.slot % SLOTS_MODULUS
    field, unit = _told(slot)
    body = _HEAD.pack(
        packet.config << _FORM_CONFIG_SHIFT | _plan(packet), packet.call % TAGS << _TAG_SHIFT | slot,
        _byte(getattr(packet.report, field) / unit),
    )  # fmt: skip
    if not packet.implied:
        body += bytes((one.first - 1) << 4 | one.count for one in packet.covers)
    return (body + b"".join(packet.repairs) + packet.frame).ljust(size, b"\0")


def decode_voice(payload: bytes, heard: Report = Report()) -> VoicePacket:
    """The inverse; `heard` is what the packets before told, and comes back with what this one tells.

    Bytes that do not make up a whole one for each part are not looked at.  Raises BadPacket.
    """
    if not HEAD_BYTES < len(payload) <= PACKET_BYTES_MAX:
        raise BadPacket("voice size")
    form, place, told = _HEAD.unpack_from(payload)
    config, plan = form >> _FORM_CONFIG_SHIFT, form & _FORM_PLAN
    if slots_of(config) is None:
        raise BadPacket("voice form")
    implied = plan >= _PLAN_IMPLIED
    count = len(IMPLIED[plan - _PLAN_IMPLIED]) if implied else max(0, plan - _PLAN_EXPLICIT + 1)
    length = frame_bytes_for(len(payload), count, implied=implied)
    if length < 1:
        raise BadPacket("voice length")
    at = size_of(0, count, implied=implied)
    if implied:
        covers = IMPLIED[plan - _PLAN_IMPLIED]
    else:
        covers = tuple(Cover((one >> 4) + 1, one & 0b1111) for one in payload[HEAD_BYTES:at])
    parts = [payload[at + n * length : at + (n + 1) * length] for n in range(count + 1)]
    slot = place % SLOTS_MODULUS
    field, unit = _told(slot)
    value = told * unit
    report = heard if getattr(heard, field) == value else replace(heard, **{field: value})  # mostly nothing is new
    return VoicePacket(
        place >> _TAG_SHIFT, slot, config, plan == _PLAN_INBAND, report, parts[-1], covers, tuple(parts[:-1]), implied
    )


def _plan(packet: VoicePacket) -> int:
    """What the low bits of the form say of symbols and in-band copies.  Raises ValueError where they cannot."""
    if packet.implied:
        if packet.covers not in IMPLIED:
            raise ValueError("covers that have no number")
        plan = _PLAN_IMPLIED + IMPLIED.index(packet.covers)
    else:
        plan = _PLAN_EXPLICIT + len(packet.covers) - 1 if packet.covers else 0
    if packet.inband and plan:
        raise ValueError("no voice packet has symbols and an in-band copy")
    return _PLAN_INBAND if packet.inband else plan


def told_by(slot: int) -> str:
    """Which field of the report the packet of a slot tells."""
    return _told(slot)[0]


def _told(slot: int) -> tuple[str, float]:
    return _TOLD[slot % len(_TOLD)]


def _byte(value: float) -> int:
    """Rounded and kept within a byte; what is not a number counts as nothing."""
    return round(min(_BYTE_MAX, max(0.0, value))) if value == value else 0
