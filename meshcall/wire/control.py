"""What tells apart the messages of a link's control stream and its frames, and the form of an echo.

The first byte of a control message says whose it is; the kind of a frame does the same.  The formats
behind them are those of `wire.path` (candidates), `wire.relay` (lease messages), `wire.talk` and `wire.voice`.
"""

from __future__ import annotations

import struct
from typing import Final

from meshcall.errors import BadPacket

MESSAGE_CANDIDATES: Final = 0x10
MESSAGE_LEASE: Final = 0x4D
MESSAGE_TALK: Final = 0x54

FRAMES_PATH_FROM: Final = 16
FRAMES_PATH_TO: Final = 31
FRAME_VOICE: Final = 32
"""32 to 47 are for voice; this is the only one in use."""
FRAME_ECHO_ASK: Final = 62
FRAME_ECHO_ANSWER: Final = 63
"""The asker's bytes, unchanged."""

ECHO_BYTES_MIN: Final = 4
ECHO_BYTES_MAX: Final = 1000
_NUMBER = struct.Struct("!I")
NUMBER_MAX: Final = 2**32 - 1


def encode_echo(number: int, size: int = ECHO_BYTES_MIN) -> bytes:
    """A question of `size` bytes: its number, 32 bits, and zeros."""
    if not ECHO_BYTES_MIN <= size <= ECHO_BYTES_MAX or not 0 <= number <= NUMBER_MAX:
        raise ValueError("an echo has a number of 32 bits and 4 to 1000 bytes")
    return _NUMBER.pack(number) + bytes(size - ECHO_BYTES_MIN)


def decode_echo(data: bytes) -> int:
    """The number of a question or an answer.  Raises BadPacket."""
    if not ECHO_BYTES_MIN <= len(data) <= ECHO_BYTES_MAX:
        raise BadPacket("length of echo")
    number: int = _NUMBER.unpack_from(data)[0]
    return number
