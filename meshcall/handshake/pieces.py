"""Handshake messages are longer than a datagram: cut into pieces, and put together again within bounds.

Bounded in number, per source, in bytes and in time.  Whether a piece deserves room here is decided
before (its `mac1`, and a budget or a cookie).
"""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict
from typing import Final

from meshcall.errors import BadPacket
from meshcall.handshake.budget import source_of
from meshcall.wire.link import MESSAGE_ID_BYTES, PIECE_DATA_BYTES_MAX, PIECES_MAX, Piece

MESSAGES_MAX: Final = 256
"""Unfinished messages in all: at most 256 * 4 * 1151 bytes, 1.2 MB."""
MESSAGES_PER_SOURCE_MAX: Final = 8
ASSEMBLY_SECONDS: Final = 3.0
"""How long the pieces of a message may be on their way."""


def message_id(message: bytes) -> bytes:
    """The name under which the pieces of a message find each other."""
    return hashlib.blake2b(message).digest()[:MESSAGE_ID_BYTES]


def cut(message: bytes, form: int, index: bytes) -> list[Piece]:
    """The fewest pieces, of about equal length."""
    count = -(-len(message) // PIECE_DATA_BYTES_MAX)
    if not 0 < count <= PIECES_MAX:
        raise ValueError(f"a handshake message of {len(message)} bytes")
    size = -(-len(message) // count)
    name = message_id(message)
    return [
        Piece(form, number, count, index, name, message[number * size : (number + 1) * size]) for number in range(count)
    ]


class Assembly:
    """The pieces of one message."""

    __slots__ = ("_missing", "_parts", "since")

    def __init__(self, now: float, count: int) -> None:
        self._parts: list[bytes | None] = [None] * count
        self._missing = count
        self.since = now

    def add(self, number: int, count: int, data: bytes) -> bytes | None:
        """The whole message with its last missing piece.  A repeated piece changes nothing.  Raises BadPacket."""
        if count != len(self._parts):
            raise BadPacket("piece count")
        if self._parts[number] is None:
            self._parts[number] = data
            self._missing -= 1
        elif self._parts[number] != data:
            raise BadPacket("piece differs")
        return None if self._missing else b"".join(part for part in self._parts if part is not None)


class Assembler:
    """All unfinished messages of strangers."""

    __slots__ = ("_assemblies", "_limit", "_per_source", "_per_source_limit")

    def __init__(self, limit: int = MESSAGES_MAX, per_source: int = MESSAGES_PER_SOURCE_MAX) -> None:
        self._limit = limit
        self._per_source_limit = per_source
        self._assemblies: OrderedDict[tuple[bytes, bytes, bytes], Assembly] = OrderedDict()  # (path, index, id)
        self._per_source: Counter[bytes] = Counter()

    def __len__(self) -> int:
        return len(self._assemblies)

    def add(self, now: float, path: bytes, piece: Piece) -> bytes | None:
        """The whole message with its last missing piece, if its name is right.  Raises BadPacket.

        A full table loses its oldest message; a source with too many has the new one refused.
        """
        self.expire(now)
        if piece.count == 1:
            return _checked(piece.data, piece)
        source = source_of(path)
        key = path, piece.index, piece.message_id
        assembly = self._assemblies.get(key)
        if assembly is None:
            if self._per_source[source] >= self._per_source_limit:
                raise BadPacket("pieces of one source")
            if len(self._assemblies) >= self._limit:
                self._drop_oldest()
            assembly = self._assemblies[key] = Assembly(now, piece.count)
            self._per_source[source] += 1
        message = assembly.add(piece.number, piece.count, piece.data)
        if message is None:
            return None
        self._forget(key)
        return _checked(message, piece)

    def expire(self, now: float) -> None:
        """Give up messages whose pieces do not come."""
        while self._assemblies:
            if now < next(iter(self._assemblies.values())).since + ASSEMBLY_SECONDS:
                return
            self._drop_oldest()

    def next_expiry(self) -> float | None:
        """When `expire` has something to do."""
        for assembly in self._assemblies.values():
            return assembly.since + ASSEMBLY_SECONDS
        return None

    def _drop_oldest(self) -> None:
        self._forget(next(iter(self._assemblies)))

    def _forget(self, key: tuple[bytes, bytes, bytes]) -> None:
        del self._assemblies[key]
        source = source_of(key[0])
        self._per_source[source] -= 1
        if self._per_source[source] <= 0:
            del self._per_source[source]


def _checked(message: bytes, piece: Piece) -> bytes:
    if message_id(message) != piece.message_id:
        raise BadPacket("message id")
    return message
