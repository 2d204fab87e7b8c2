"""The responder's gate for first messages that come by the local network's group.

Apart from the gate for all others (`gate`), so that a flood on the one takes nothing from the other.  There
are no cookies here, for whoever is not trusted gets no answer at all: beyond the budgets there is silence,
and the same message comes by a relay too.
"""

from __future__ import annotations

from typing import Final

from meshcall.errors import BadPacket
from meshcall.handshake.budget import Budget, SourceBudgets, source_of
from meshcall.handshake.pieces import Assembler
from meshcall.wire.link import FORM_HYBRID, Piece

PIECES_PER_SECOND: Final = 40.0
"""From all senders together; a message has two pieces, so 20 handshakes a second are begun at most."""
PIECES_BURST: Final = 80.0
SOURCE_PIECES_PER_SECOND: Final = 10.0
SOURCE_PIECES_BURST: Final = 24.0
"""The same of one address (a /64 of IPv6); a dial sends six in its first second."""
MESSAGES_MAX: Final = 32
MESSAGES_PER_SOURCE_MAX: Final = 4


class LanGate:
    """What comes here has the right `mac1`: its sender knows our public key."""

    __slots__ = ("_assembler", "_hybrid", "_sources", "_total")

    def __init__(self, now: float, *, hybrid: bool) -> None:
        """`hybrid`: whether this device offers ML-KEM; then it takes nothing else, and otherwise nothing with it."""
        self._hybrid = hybrid
        self._total = Budget(now, PIECES_PER_SECOND, PIECES_BURST)
        self._sources = SourceBudgets(SOURCE_PIECES_PER_SECOND, SOURCE_PIECES_BURST)
        self._assembler = Assembler(MESSAGES_MAX, MESSAGES_PER_SOURCE_MAX)

    @property
    def unfinished(self) -> int:
        """Messages whose pieces have not all come."""
        return len(self._assembler)

    def take(self, now: float, path: bytes, piece: Piece) -> bytes | None:
        """A whole first message with its last piece.  Raises BadPacket."""
        if bool(piece.form & FORM_HYBRID) != self._hybrid:
            raise BadPacket("lan: other form")
        if not self._sources.take(now, source_of(path)) or not self._total.take(now):
            raise BadPacket("lan: too many")
        return self._assembler.add(now, path, piece)

    def expire(self, now: float) -> None:
        """Give up messages whose pieces do not come."""
        self._assembler.expire(now)

    def next_expiry(self) -> float | None:
        """When `expire` has something to do."""
        return self._assembler.next_expiry()
