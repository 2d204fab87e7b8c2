"""Fresh keys inside a session: the whole handshake again, its two messages cut into frames.

The handshake is IK (with ML-KEM, where the first one had it) between the same two static keys, and its
prologue is the transcript of the handshake before: who has stolen the keys of one epoch but no static
key gets no further, and each set of keys is bound to all before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from meshcall.errors import BadPacket
from meshcall.handshake.noise import IK, IK_HFS, Handshake
from meshcall.handshake.pieces import Assembly
from meshcall.wire.link import REKEY_DATA_BYTES_MAX, RekeyPiece, decode_renewal, encode_rekey, encode_renewal

if TYPE_CHECKING:
    from meshcall.crypto.kem import Kem
    from meshcall.crypto.suite import Suite
    from meshcall.handshake.noise import KeyPair

REPEAT_SECONDS: Final = 0.5
"""After so long without an answer all pieces are sent again; doubled each time."""
REPEAT_SECONDS_MAX: Final = 8.0
ANSWER_PAUSE_SECONDS: Final = 0.1
"""Between two sendings of the same answer."""
_PURPOSE: Final = b"meshcall rekey 1"


def _handshake(
    suite: Suite, kem: Kem | None, static: KeyPair, chain: bytes, *, remote_static: bytes | None
) -> Handshake:
    return Handshake(
        IK if kem is None else IK_HFS, suite=suite, kem=kem, initiator=remote_static is not None,
        prologue=_PURPOSE + chain, static=static, remote_static=remote_static,
    )  # fmt: skip


def _cut(message: bytes, exchange: int, *, second: bool) -> list[bytes]:
    count = -(-len(message) // REKEY_DATA_BYTES_MAX)
    size = -(-len(message) // count)
    return [
        encode_rekey(RekeyPiece(exchange, second, number, count, message[number * size : (number + 1) * size]))
        for number in range(count)
    ]


class Outgoing:
    """A renewal that we began and that is not answered yet."""

    __slots__ = ("_assembly", "_pause", "exchange", "handshake", "index", "pieces", "send_at")

    def __init__(
        self, now: float, suite: Suite, kem: Kem | None, static: KeyPair, remote_static: bytes, chain: bytes,
        index: bytes, token: bytes,
    ) -> None:  # fmt: skip
        self.exchange = int.from_bytes(suite.random(4), "big")
        self.handshake = _handshake(suite, kem, static, chain, remote_static=remote_static)
        self.index = index
        self.pieces = _cut(self.handshake.write(encode_renewal(index, token)), self.exchange, second=False)
        self._pause = REPEAT_SECONDS
        self.send_at = now + REPEAT_SECONDS
        self._assembly: Assembly | None = None

    def repeat(self, now: float) -> None:
        """All pieces are sent again now."""
        self._pause = min(2 * self._pause, REPEAT_SECONDS_MAX)
        self.send_at = now + self._pause

    def add(self, now: float, piece: RekeyPiece) -> tuple[bytes, bytes] | None:
        """The other side's new index and its reset token, with the last piece of its answer.  Raises BadPacket."""
        if self._assembly is None:
            self._assembly = Assembly(now, piece.count)
        message = self._assembly.add(piece.number, piece.count, piece.data)
        if message is None:
            return None
        self._assembly = None
        payload = self.handshake.read(message)
        if payload is None:
            raise BadPacket("rekey forged")
        return decode_renewal(payload)


class Incoming:
    """A renewal that the other side began."""

    __slots__ = ("_assembly", "_sent_at", "exchange", "pieces")

    def __init__(self, now: float, piece: RekeyPiece) -> None:
        self.exchange = piece.exchange
        self._assembly: Assembly | None = Assembly(now, piece.count)
        self.pieces: list[bytes] = []
        """Our answer, once there is one."""
        self._sent_at = now

    def add(self, piece: RekeyPiece) -> bytes | None:
        """The whole first message with its last piece.  Raises BadPacket."""
        return None if self._assembly is None else self._assembly.add(piece.number, piece.count, piece.data)

    def answered(self, now: float, pieces: list[bytes]) -> None:
        """This is our answer."""
        self._assembly = None
        self.pieces = pieces
        self._sent_at = now

    def may_repeat(self, now: float) -> bool:
        """Whether the answer may be sent again now; if so, it counts as sent."""
        if now - self._sent_at < ANSWER_PAUSE_SECONDS:
            return False
        self._sent_at = now
        return True


def answer(
    suite: Suite, kem: Kem | None, static: KeyPair, remote_static: bytes, chain: bytes, message: bytes, exchange: int,
    index: bytes, token: bytes,
) -> tuple[Handshake, bytes, bytes, list[bytes]]:  # fmt: skip
    """The finished handshake, the other side's new index and its reset token, and the pieces of our answer.

    Raises BadPacket.
    """
    handshake = _handshake(suite, kem, static, chain, remote_static=None)
    payload = handshake.read(message)
    if payload is None or handshake.remote_static != remote_static:
        raise BadPacket("rekey forged")
    send_index, send_token = decode_renewal(payload)
    pieces = _cut(handshake.write(encode_renewal(index, token)), exchange, second=True)
    return handshake, send_index, send_token, pieces
