"""The responder's side of a handshake: from pieces that have passed the gate to a caller who has proved an identity.

The answer is kept for a while, so that a first message which comes again, or along another path, gets the
same answer and makes no second session.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from meshcall.core import earliest
from meshcall.errors import BadPacket
from meshcall.handshake.cookie import mac_key, with_macs
from meshcall.handshake.dial import start_handshake
from meshcall.handshake.gate import Gate
from meshcall.handshake.lan_gate import LanGate
from meshcall.handshake.pieces import cut
from meshcall.handshake.replay import Times, decode_time
from meshcall.handshake.session import Peer
from meshcall.identity import Certificate
from meshcall.wire.link import (
    FORM_HYBRID,
    FORM_SECOND,
    Answer,
    Offer,
    Piece,
    decode_offer,
    encode_answer,
    encode_piece,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshcall.crypto.kem import Kem
    from meshcall.crypto.suite import Suite
    from meshcall.handshake.noise import Handshake, KeyPair
    from meshcall.path.paths import Path

ANSWERS_MAX: Final = 2048
"""Answers kept for repeating: 3 MB, for two seconds of the fastest storm that the gate lets in."""
REPEATS_MAX: Final = 64
"""How often one answer is sent: once for every path and repetition of the dial."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A first message that is authentic and new."""

    peer: Peer
    handshake: Handshake
    offer: Offer
    index: bytes
    """The caller's index."""
    name: tuple[bytes, bytes]
    """Of the message."""
    lan_path: Path | None = None
    """From where it came by the local network."""


class _Kept:
    __slots__ = ("datagrams", "identity", "lan_path", "sent")

    def __init__(self, datagrams: list[bytes], identity: bytes, lan_path: Path | None) -> None:
        self.datagrams = datagrams
        self.identity = identity
        """The caller's."""
        self.lan_path = lan_path
        """From where the message came by the local network, first; None: not yet."""
        self.sent = 1


class Responder:
    """All first messages to this device."""

    def __init__(self, now: float, suite: Suite, kem: Kem | None, static: KeyPair) -> None:
        self._suite = suite
        self._kem = kem
        self._static = static
        self._form = 0 if kem is None else FORM_HYBRID
        self.gate = Gate(now, static.public, suite, hybrid=kem is not None)
        self.lan_gate = LanGate(now, hybrid=kem is not None)
        self._times = Times()
        self._kept: OrderedDict[tuple[bytes, bytes], _Kept] = OrderedDict()

    def take(
        self, now: float, unix_time: float, path: Path, datagram: bytes, piece: Piece
    ) -> Caller | list[bytes] | None:
        """With a message's last piece: its caller if it is new, the answer's datagrams if it was answered before.

        Raises BadPacket; then `gate.reply` may hold a cookie reply.
        """
        message = self.gate.take(now, path, datagram, piece)
        if message is None:
            return None
        name = piece.message_id, piece.index
        kept = self._kept.get(name)
        if kept is not None:
            if kept.sent >= REPEATS_MAX:
                raise BadPacket("first message again")
            kept.sent += 1
            return kept.datagrams
        return self._open(message, piece, unix_time)

    def take_lan(
        self, now: float, unix_time: float, path: Path, piece: Piece, trusts: Callable[[bytes], bool]
    ) -> Caller | list[bytes] | None:
        """The same of a piece that came by the local network's group.

        What is not answered leaves no trace: the same message may still come, and be answered, by a relay.
        Raises BadPacket.
        """
        message = self.lan_gate.take(now, path, piece)
        if message is None:
            return None
        kept = self._kept.get((piece.message_id, piece.index))
        if kept is None:
            return self._open(message, piece, unix_time, path, trusts)
        if not trusts(kept.identity):
            raise BadPacket("lan: not trusted")
        kept.lan_path = kept.lan_path or path
        if kept.lan_path != path or kept.sent >= REPEATS_MAX:  # who repeats what others sent learns nothing by it
            raise BadPacket("lan: first message again")
        kept.sent += 1
        return kept.datagrams

    def _open(
        self,
        message: bytes,
        piece: Piece,
        unix_time: float,
        lan_path: Path | None = None,
        trusts: Callable[[bytes], bool] | None = None,
    ) -> Caller:
        """Who calls with a new message.  Raises BadPacket."""
        handshake = start_handshake(
            self._suite, self._kem, self._static, piece.index, hybrid=self._kem is not None, remote_static=None
        )
        payload = handshake.read(message)
        if payload is None or handshake.remote_static is None:
            raise BadPacket("first message forged")
        offer = decode_offer(payload)
        if trusts is not None and not trusts(offer.identity):
            raise BadPacket("lan: not trusted")
        certificate = Certificate.decode(handshake.remote_static + offer.certificate)
        if not check_identity(self._suite, offer.identity, certificate, unix_time):
            raise BadPacket("first message certificate")
        if not self._times.accept(handshake.remote_static, decode_time(offer.time), unix_time):
            raise BadPacket("first message replayed")
        name = piece.message_id, piece.index
        return Caller(Peer(offer.identity, certificate), handshake, offer, piece.index, name, lan_path)

    def answer(self, caller: Caller, answer: Answer) -> list[bytes]:
        """The datagrams of the second message.  Raises BadPacket where the caller's keys are none."""
        message = caller.handshake.write(encode_answer(answer))
        key = mac_key(caller.peer.certificate.static)
        pieces = cut(message, self._form | FORM_SECOND, caller.index)
        datagrams = [with_macs(encode_piece(piece), key, None) for piece in pieces]
        self._kept[caller.name] = _Kept(datagrams, caller.peer.identity, caller.lan_path)
        if len(self._kept) > ANSWERS_MAX:
            self._kept.popitem(last=False)
        return datagrams

    def expire(self, now: float) -> None:
        """Give up messages whose pieces do not come."""
        self.gate.expire(now)
        self.lan_gate.expire(now)

    def next_expiry(self) -> float | None:
        """When `expire` has something to do."""
        return earliest(self.gate.next_expiry(), self.lan_gate.next_expiry())


def check_identity(suite: Suite, identity: bytes, certificate: Certificate, unix_time: float) -> bool:
    """Whether an identity is one, and vouches for the device."""
    return suite.is_identity_key(identity) and certificate.is_valid(suite, identity, unix_time)
