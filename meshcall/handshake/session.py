"""One session between two devices: bytes in, bytes out, "to the peer"; where that is, it does not know.

A session outlives its keys: every two minutes, or after 2**30 packets, both sides make fresh ones by a
whole handshake inside the session.  An epoch is the time of one pair of keys.  During a change two epochs
are open, each addressed by an index of its own, so that nothing is lost.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from meshcall.errors import BadPacket
from meshcall.handshake.events import KEYS_TOO_OLD
from meshcall.handshake.rekey import Incoming, Outgoing, answer
from meshcall.handshake.replay import Window
from meshcall.wire.link import (
    INNER_KEEP_ALIVE,
    INNER_REKEY,
    SEALED_HEAD_BYTES,
    RekeyPiece,
    decode_rekey,
    decode_sealed_head,
    encode_sealed_head,
)

if TYPE_CHECKING:
    from meshcall.crypto.kem import Kem
    from meshcall.crypto.suite import Suite
    from meshcall.handshake.indexes import Indexes
    from meshcall.handshake.noise import Handshake, KeyPair
    from meshcall.identity import Certificate

REKEY_SECONDS: Final = 120.0
REKEY_SECONDS_RESPONDER: Final = 150.0
"""The side that was called begins only where the other one does not, so that both seldom do at once."""
REKEY_PACKETS: Final = 2**30
PACKETS_MAX: Final = 2**31
"""After so many, or so many seconds, keys are used no longer: the session ends."""
KEYS_SECONDS_MAX: Final = 600.0
OLD_KEYS_SECONDS: Final = 10.0
"""How long late packets of the previous epoch are still opened."""
CONFIRM_SECONDS: Final = 0.25
"""Fresh keys are shown to the other side at once, and again after this time, doubled each time."""
CONFIRM_SECONDS_MAX: Final = 8.0


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end."""

    identity: bytes
    certificate: Certificate


class Epoch:
    """One pair of keys: indexes, counters, replay window.  The only place where keys of packets are."""

    __slots__ = (
        "_receive_key", "_send_key", "_suite", "chain", "receive_index", "reset_token", "send_index", "sent", "since",
        "window",
    )  # fmt: skip

    def __init__(
        self, now: float, suite: Suite, handshake: Handshake, receive_index: bytes, send_index: bytes, token: bytes
    ) -> None:
        self._suite = suite
        self._send_key, self._receive_key = handshake.split()
        self.chain = handshake.hash
        """The transcript of the handshake behind these keys; the next one is bound to it."""
        self.receive_index = receive_index
        self.send_index = send_index
        self.reset_token = token
        self.sent = 0
        self.since = now
        self.window = Window()

    def __repr__(self) -> str:
        return f"<Epoch {self.receive_index.hex()}>"

    def seal(self, kind: int, payload: bytes) -> bytes:
        """A whole sealed packet."""
        head = encode_sealed_head(self.send_index, self.sent)
        sealed = self._suite.seal_packet(self._send_key, self.sent, bytes((kind,)) + payload, head)
        self.sent += 1
        return head + sealed

    def open(self, counter: int, datagram: bytes) -> bytes | None:
        """The plaintext, or None where it is not authentic."""
        return self._suite.open_packet(
            self._receive_key, counter, datagram[SEALED_HEAD_BYTES:], datagram[:SEALED_HEAD_BYTES]
        )


class Session:
    """Seals and opens, and renews its keys by itself.

    After every call take `outbox`; `dead` says why the session is over, if it is.
    """

    def __init__(
        self,
        now: float,
        *,
        suite: Suite,
        kem: Kem | None,
        static: KeyPair,
        peer: Peer,
        indexes: Indexes,
        owner: int,
        epoch: Epoch,
        starter: bool,
        counters: Counter[str],
    ) -> None:
        """`kem`: None for a classical session.  `starter`: whether this side began the first handshake."""
        self.peer = peer
        self.transcript = epoch.chain
        """64 bytes, the same on both sides; of the first handshake, whatever came later."""
        self.outbox: list[bytes] = []
        """Datagrams to the peer."""
        self.dead: str | None = None
        self.newest = False
        """Whether the packet opened last was the newest so far."""
        self.rekeys = 0
        self.counters = counters
        self._suite = suite
        self._kem = kem
        self._static = static
        self._indexes = indexes
        self._owner = owner
        self._starter = starter
        self._current = epoch
        self._previous: Epoch | None = None
        self._next: Epoch | None = None
        self._epochs = {epoch.receive_index: epoch}
        self._drop_at: float | None = None
        self._confirm_at: float | None = now + CONFIRM_SECONDS if starter else None
        self._confirm_pause = CONFIRM_SECONDS
        self._renew_at = now + (REKEY_SECONDS if starter else REKEY_SECONDS_RESPONDER)
        self._outgoing: Outgoing | None = None
        self._incoming: Incoming | None = None
        indexes.expect(epoch.reset_token, owner)

    def __repr__(self) -> str:
        return f"<Session {self._current.receive_index.hex()}, {self.rekeys} rekeys>"

    @property
    def hybrid(self) -> bool:
        """Whether ML-KEM takes part."""
        return self._kem is not None

    def seal(self, now: float, kind: int, payload: bytes) -> bytes:
        """A whole datagram for the peer.  `kind`: 0 to 255, see wire.link."""
        epoch = self._current
        if epoch.sent >= REKEY_PACKETS:
            self._renew_at = min(self._renew_at, now)
            if epoch.sent >= PACKETS_MAX:
                self.dead = KEYS_TOO_OLD
        return epoch.seal(kind, payload)

    def open(self, now: float, datagram: bytes) -> tuple[int, bytes] | None:
        """Kind and payload, or None (counted) where it is not authentic, was here before, or is too old."""
        try:
            index, counter = decode_sealed_head(datagram)
        except BadPacket as bad:
            self.counters[bad.reason] += 1
            return None
        epoch = self._epochs.get(index)
        if epoch is None:
            self.counters["sealed index"] += 1
            return None
        if not epoch.window.is_new(counter):
            self.counters["sealed replay"] += 1
            return None
        plaintext = epoch.open(counter, datagram)
        if plaintext is None:
            self.counters["sealed forged"] += 1
            return None
        epoch.window.add(counter)
        if epoch is not self._current:
            if epoch is self._next:
                self._turn_over(now, epoch)
        elif self._confirm_at is not None:
            self._confirm_at = None
            if self._previous is not None:
                self._drop_at = now + OLD_KEYS_SECONDS
        self.newest = epoch is self._current and counter == epoch.window.greatest
        kind, payload = plaintext[0], plaintext[1:]
        if kind == INNER_REKEY:
            self._rekey_piece(now, epoch, payload)
        return kind, payload

    def wake(self, now: float) -> None:
        """Renew, repeat, forget what is due."""
        if now >= self._current.since + KEYS_SECONDS_MAX:
            self.dead = KEYS_TOO_OLD
            return
        if self._drop_at is not None and now >= self._drop_at:
            self._drop_at = None
            self._drop(self._previous)
            self._previous = None
        if self._confirm_at is not None and now >= self._confirm_at:
            self._confirm_pause = min(2 * self._confirm_pause, CONFIRM_SECONDS_MAX)
            self._confirm_at = now + self._confirm_pause
            self.outbox.append(self.seal(now, INNER_KEEP_ALIVE, b""))
        if self._outgoing is not None:
            if now >= self._outgoing.send_at:
                self._outgoing.repeat(now)
                self._send_pieces(now, self._outgoing.pieces)
        elif now >= self._renew_at and self._next is None and self._confirm_at is None:
            self._begin(now)

    def next_wake(self) -> float:
        """When `wake` wants to be called."""
        times = [self._current.since + KEYS_SECONDS_MAX]
        if self._outgoing is not None:
            times.append(self._outgoing.send_at)
        elif self._next is None and self._confirm_at is None:
            times.append(self._renew_at)
        if self._drop_at is not None:
            times.append(self._drop_at)
        if self._confirm_at is not None:
            times.append(self._confirm_at)
        return min(times)

    def close(self) -> None:
        """Give back all indexes; nothing can be opened any more."""
        for epoch in (self._previous, self._current, self._next):
            self._drop(epoch)
        if self._outgoing is not None:
            self._indexes.free(self._outgoing.index)
        self._previous = self._next = self._outgoing = self._incoming = None

    # Rekeying

    def _begin(self, now: float) -> None:
        index = self._indexes.draw(self._owner)
        self._outgoing = Outgoing(
            now, self._suite, self._kem, self._static, self.peer.certificate.static, self._current.chain, index,
            self._indexes.token(index),
        )  # fmt: skip
        self._send_pieces(now, self._outgoing.pieces)

    def _rekey_piece(self, now: float, epoch: Epoch, payload: bytes) -> None:
        try:
            piece = decode_rekey(payload)
            if piece.second:
                self._finish(now, piece)
            else:
                self._answer(now, epoch, piece)
        except BadPacket as bad:
            self.counters[bad.reason] += 1

    def _answer(self, now: float, epoch: Epoch, piece: RekeyPiece) -> None:
        """The other side renews.  Where both began, the one that began the session goes on, the other gives way."""
        if self._incoming is not None and self._incoming.exchange == piece.exchange and self._incoming.pieces:
            if self._incoming.may_repeat(now):  # our answer was lost
                self._send_pieces(now, self._incoming.pieces)
            return
        if epoch is not self._current or self._next is not None or (self._outgoing is not None and self._starter):
            self.counters["rekey crossed"] += 1
            return
        if self._incoming is None or self._incoming.exchange != piece.exchange:
            self._incoming = Incoming(now, piece)
        message = self._incoming.add(piece)
        if message is None:
            return
        index = self._indexes.draw(self._owner)
        static = self.peer.certificate.static
        try:
            handshake, send_index, token, pieces = answer(
                self._suite, self._kem, self._static, static, epoch.chain, message, piece.exchange, index,
                self._indexes.token(index),
            )  # fmt: skip
        except BadPacket:
            self._indexes.free(index)
            self._incoming = None
            raise
        if self._outgoing is not None:
            self._indexes.free(self._outgoing.index)
            self._outgoing = None
        self._incoming.answered(now, pieces)
        self._next = Epoch(now, self._suite, handshake, index, send_index, token)
        self._epochs[index] = self._next
        self._send_pieces(now, pieces)

    def _finish(self, now: float, piece: RekeyPiece) -> None:
        outgoing = self._outgoing
        if outgoing is None or outgoing.exchange != piece.exchange:
            self.counters["rekey late"] += 1
            return
        done = outgoing.add(now, piece)
        if done is None:
            return
        self._outgoing = None
        send_index, token = done
        fresh = Epoch(now, self._suite, outgoing.handshake, outgoing.index, send_index, token)
        self._epochs[outgoing.index] = fresh
        self._turn_over(now, fresh)
        self._drop_at = None  # the other side may go on with the old keys until it has seen the new ones
        self._confirm_pause = CONFIRM_SECONDS
        self._confirm_at = now + CONFIRM_SECONDS
        self.outbox.append(self.seal(now, INNER_KEEP_ALIVE, b""))

    def _turn_over(self, now: float, fresh: Epoch) -> None:
        self._drop(self._previous)
        self._indexes.forget(self._current.reset_token)
        self._previous, self._current = self._current, fresh
        self._indexes.expect(fresh.reset_token, self._owner)
        if fresh is self._next:  # we answered, and this is the other side's first packet under the new keys
            self._next = None
            self._drop_at = now + OLD_KEYS_SECONDS
            self.outbox.append(self.seal(now, INNER_KEEP_ALIVE, b""))
        self._renew_at = now + (REKEY_SECONDS if self._starter else REKEY_SECONDS_RESPONDER)
        self.rekeys += 1

    def _send_pieces(self, now: float, pieces: list[bytes]) -> None:
        for piece in pieces:
            self.outbox.append(self.seal(now, INNER_REKEY, piece))

    def _drop(self, epoch: Epoch | None) -> None:
        if epoch is not None:
            self._epochs.pop(epoch.receive_index, None)
            self._indexes.free(epoch.receive_index)
            self._indexes.forget(epoch.reset_token)
