"""The responder's gate: which first messages of strangers are worth any work.

In this order, each step dearer than the one before: form, `mac1`, a small budget for senders that have
proved no address, beyond it a cookie and a budget for each source, room for the pieces.  Only whole messages
that have passed come out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from meshcall.errors import BadPacket
from meshcall.handshake.budget import Budget, SourceBudgets, source_of
from meshcall.handshake.cookie import CookieJar, mac1_fits, mac1_of, mac_key
from meshcall.handshake.pieces import Assembler
from meshcall.wire.link import COOKIE_REPLY_BYTES, FORM_HYBRID, Piece

if TYPE_CHECKING:
    from meshcall.crypto.suite import Suite

UNPROVEN_PIECES_PER_SECOND: Final = 100.0
"""Pieces a second from all senders together that have shown no cookie; more than that is load."""
UNPROVEN_PIECES_BURST: Final = 200.0
PROVEN_PIECES_PER_SECOND: Final = 2000.0
"""The same with a valid cookie, all sources together."""
SOURCE_PIECES_PER_SECOND: Final = 20.0
SOURCE_PIECES_BURST: Final = 40.0
"""The same of each source."""
COOKIE_REPLIES_PER_SECOND: Final = 1000.0


class Gate:
    """Sits before the handshake of everybody who calls this device."""

    __slots__ = (
        "_assembler", "_hybrid", "_jar", "_mac_key", "_proven", "_replies", "_sources", "_unproven", "reply",
    )  # fmt: skip

    def __init__(self, now: float, static: bytes, suite: Suite, *, hybrid: bool) -> None:
        """`hybrid`: whether this device offers ML-KEM; then it takes nothing else, and otherwise nothing with it."""
        self._hybrid = hybrid
        self._mac_key = mac_key(static)
        self._jar = CookieJar(now, static, suite)
        self._assembler = Assembler()
        self._unproven = Budget(now, UNPROVEN_PIECES_PER_SECOND, UNPROVEN_PIECES_BURST)
        self._proven = Budget(now, PROVEN_PIECES_PER_SECOND, PROVEN_PIECES_PER_SECOND)
        self._replies = Budget(now, COOKIE_REPLIES_PER_SECOND, COOKIE_REPLIES_PER_SECOND)
        self._sources = SourceBudgets(SOURCE_PIECES_PER_SECOND, SOURCE_PIECES_BURST)
        self.reply: bytes | None = None
        """A cookie reply to the sender of the last piece, if it is to have one."""

    @property
    def unfinished(self) -> int:
        """Messages whose pieces have not all come."""
        return len(self._assembler)

    def knows_us(self, datagram: bytes) -> bool:
        """Whether the sender of a piece knows our public key."""
        return mac1_fits(datagram, self._mac_key)

    def take(self, now: float, path: bytes, datagram: bytes, piece: Piece) -> bytes | None:
        """A whole first message with its last piece.  Raises BadPacket; afterwards look at `reply`."""
        self.reply = None
        if bool(piece.form & FORM_HYBRID) != self._hybrid:
            raise BadPacket("piece without ML-KEM" if self._hybrid else "piece with ML-KEM")
        if self._jar.fits(now, path, datagram):
            if not self._sources.take(now, source_of(path)) or not self._proven.take(now):
                raise BadPacket("piece quota")
        elif not self._unproven.take(now):
            if piece.number == 0 and len(datagram) >= COOKIE_REPLY_BYTES and self._replies.take(now):
                self.reply = self._jar.reply(now, path, piece.index, mac1_of(datagram))
            raise BadPacket("piece under load")
        return self._assembler.add(now, path, piece)

    def expire(self, now: float) -> None:
        """Give up messages whose pieces do not come."""
        self._assembler.expire(now)

    def next_expiry(self) -> float | None:
        """When `expire` has something to do."""
        return self._assembler.next_expiry()
