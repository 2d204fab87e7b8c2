"""Call messages: offer, ringing, accept and the others, with their acknowledgements.

They travel on the control stream of a link, so they come from a device that has proved its key, in order and once.
Only bytes and fields here; what they mean in which state is docs/calls.md, and `calls.core` in code.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from meshcall.errors import BadPacket

MESSAGE_TALK: Final = 0x54
"""First byte of a call message on a link's control stream."""
VERSION: Final = 1
VOICE_VERSION: Final = 2
"""Of the voice packets (`wire.voice`).  1 was never released."""
TALK_BYTES_MAX: Final = 1024
"""Of any version, so that what we cannot read can still be answered."""
CALL_MAX: Final = 2**32 - 1
SERIAL_MODULUS: Final = 1 << 8
FRAME_KINDS_FROM: Final = 32
"""Bit n of `Terms.kinds` is the inner frame kind 32 + n."""

_HEAD: Final = struct.Struct(">BBBBI")
_TERMS: Final = struct.Struct(">BHHHI")
HEAD_BYTES: Final = _HEAD.size
TERMS_BYTES: Final = _TERMS.size


class Kind(IntEnum):
    """What a message says."""

    OFFER = 1
    """Caller: a call.  Terms."""
    RINGING = 2
    """Callee: it rings here.  Terms."""
    ACCEPT = 3
    """Callee: answered.  Terms."""
    DECLINE = 4
    """Callee: no.  A Decline."""
    BUSY = 5
    """Callee: in another call.  No body."""
    CANCEL = 6
    """Caller: no longer wanted, before it was answered.  A Cancel."""
    ELSEWHERE = 7
    """Caller: another device of yours has decided.  An Elsewhere."""
    END = 8
    """Either side: the call is over.  An End."""
    HOLD = 9
    """Either side: on hold from now on (1), or no longer (0)."""
    MUTE = 10
    """Either side: its microphone is off (1) or on (0); a notice only."""
    RESUME = 11
    """Either side, on a new link: the same call goes on here.  Terms."""
    CHECK = 12
    """Either side: do you still have this call?  No body."""
    ACK = 127
    """To every message but this one.  A Status."""


class Decline(IntEnum):
    """Why a device does not ring."""

    DECLINED = 0
    """Its user said no: that holds for all devices of the callee."""
    NOT_ADMITTED = 1
    """The caller is not among the contacts; its request is kept for the callee to see."""
    INCOMPATIBLE = 2
    """No common format of voice."""
    NO_ANSWER = 3
    """It rang here long enough, or the line to the caller seemed dead."""


class Cancel(IntEnum):
    """Why a caller withdraws."""

    WITHDRAWN = 0
    NO_ANSWER = 1
    """It rang long enough."""


class Elsewhere(IntEnum):
    """What another device of the callee has decided."""

    ANSWERED = 0
    DECLINED = 1


class End(IntEnum):
    """Why a side ends a call."""

    HUNG_UP = 0
    LINE_LOST = 1
    """Nothing was heard any more."""
    TROUBLE = 2
    """Its device cannot go on."""


class Status(IntEnum):
    """What the other side's call core did with a message."""

    TAKEN = 0
    NO_SUCH_CALL = 1
    OUT_OF_PLACE = 2
    """The call is known, and the message makes no sense in its state."""
    UNKNOWN_KIND = 3
    UNKNOWN_VERSION = 4


_WITH_TERMS: Final = frozenset({Kind.OFFER, Kind.RINGING, Kind.ACCEPT, Kind.RESUME})
_WITH_DETAIL: Final = frozenset({Kind.DECLINE, Kind.CANCEL, Kind.ELSEWHERE, Kind.END, Kind.HOLD, Kind.MUTE, Kind.ACK})
_WITH_FLAG: Final = frozenset({Kind.HOLD, Kind.MUTE})
_KINDS: Final = {int(kind): kind for kind in Kind}


@dataclass(frozen=True, slots=True)
class Terms:
    """What the media of one side needs to be known to the other."""

    slot: int
    """With which its voice packets begin (`wire.voice`, which sends the low 12 bits of it): random, 16 bits."""
    kbit_per_second: int
    """At most so much it wants to receive, in thousands of bits a second, all headers included; 1 to 65535."""
    voice: int = VOICE_VERSION
    """Version of the voice format."""
    kinds: int = 1
    """Which inner frame kinds it understands: bit n is the kind 32 + n.  Bit 0 is voice."""
    capabilities: int = 0
    """32 bits for later; unknown ones are ignored."""


@dataclass(frozen=True, slots=True)
class Head:
    """What is the same in every version."""

    version: int
    kind: int
    serial: int
    call: int


@dataclass(frozen=True, slots=True)
class Talk:
    """A message."""

    kind: Kind
    call: int
    """32 bits, drawn by the caller.  Its low bits mark the voice packets (`wire.voice`)."""
    serial: int = 0
    """Counts what its sender says on this link, modulo 256; an ACK bears that of the message it answers."""
    terms: Terms | None = None
    """Of OFFER, RINGING, ACCEPT, RESUME."""
    detail: int = 0
    """The reason, flag or status, 0 to 255; a value that this version does not know is no error."""


def encode_talk(message: Talk) -> bytes:
    """8 to 19 bytes.  Raises ValueError for what cannot be said."""
    kind, terms = message.kind, message.terms
    if not (0 <= message.call <= CALL_MAX and 0 <= message.serial < SERIAL_MODULUS):
        raise ValueError("a call number has 32 bits and a serial 8")
    if (kind in _WITH_TERMS) != (terms is not None):
        raise ValueError(f"terms belong to an offer, ringing, accept and resume; this is {kind.name}")
    if not 0 <= message.detail <= (1 if kind in _WITH_FLAG else 255 if kind in _WITH_DETAIL else 0):
        raise ValueError(f"{message.detail} is no detail of {kind.name}")
    head = _HEAD.pack(MESSAGE_TALK, VERSION, kind, message.serial, message.call)
    if terms is not None:
        if not terms.kbit_per_second:
            raise ValueError("a rate of nothing")
        try:
            return head + _TERMS.pack(
                terms.voice, terms.kinds, terms.kbit_per_second, terms.slot, terms.capabilities
            )  # fmt: skip
        except struct.error:
            raise ValueError("terms out of range") from None
    return head + bytes([message.detail]) if kind in _WITH_DETAIL else head


def decode_head(data: bytes) -> Head:
    """What stands in front of a message of any version.  Raises BadPacket."""
    if not HEAD_BYTES <= len(data) <= TALK_BYTES_MAX:
        raise BadPacket("length of call message")
    first, version, kind, serial, call = _HEAD.unpack_from(data)
    if first != MESSAGE_TALK:
        raise BadPacket("not a call message")
    return Head(version, kind, serial, call)


def decode_talk(data: bytes) -> Talk:
    """A message of this version.  Raises BadPacket."""
    head = decode_head(data)
    if head.version != VERSION:
        raise BadPacket("version of call message")
    kind = _KINDS.get(head.kind)
    if kind is None:
        raise BadPacket("kind of call message")
    body = data[HEAD_BYTES:]
    if kind in _WITH_TERMS:
        if len(body) != TERMS_BYTES:
            raise BadPacket("length of terms")
        voice, kinds, kbit_per_second, slot, capabilities = _TERMS.unpack(body)
        if not kbit_per_second:
            raise BadPacket("rate in terms")
        return Talk(kind, head.call, head.serial, Terms(slot, kbit_per_second, voice, kinds, capabilities))
    if len(body) != (1 if kind in _WITH_DETAIL else 0):
        raise BadPacket("length of call message")
    if kind in _WITH_FLAG and body[0] > 1:
        raise BadPacket("flag in call message")
    return Talk(kind, head.call, head.serial, detail=body[0] if body else 0)


def is_known(head: Head) -> bool:
    """Whether this version has the kind; what it has not is answered, not dropped."""
    return head.version == VERSION and head.kind in _KINDS
