"""The datagrams of a link: handshake pieces, cookie replies, sealed packets, resets, and what is inside them.

Only bytes and fields here: nothing is checked but form, nothing is secret.  Numbers are in network byte
order.  In words, with vectors, for a second implementation: docs/link.md.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from meshcall.errors import BadPacket

VERSION: Final = 1

KIND_PIECE: Final = 0x10
KIND_COOKIE: Final = 0x11
KIND_SEALED: Final = 0x12
KIND_RESET: Final = 0x13
"""First bytes of the datagrams."""

FORM_SECOND: Final = 1 << 0
"""Set in the pieces of the responder's message."""
FORM_HYBRID: Final = 1 << 1
"""Set where ML-KEM takes part."""

INDEX_BYTES: Final = 4
MAC_BYTES: Final = 16
TAG_BYTES: Final = 16
MESSAGE_ID_BYTES: Final = 8
COOKIE_BYTES: Final = 16
RESET_TOKEN_BYTES: Final = 16
PIECE_BYTES_MAX: Final = 1200
"""A whole datagram with a piece in it: what every path of the Internet carries, behind any relay header."""
PIECES_MAX: Final = 4

_PIECE: Final = struct.Struct(f">BBBBB{INDEX_BYTES}s{MESSAGE_ID_BYTES}s")
PIECE_OVERHEAD_BYTES: Final = _PIECE.size + 2 * MAC_BYTES
PIECE_DATA_BYTES_MAX: Final = PIECE_BYTES_MAX - PIECE_OVERHEAD_BYTES
MESSAGE_BYTES_MAX: Final = PIECES_MAX * PIECE_DATA_BYTES_MAX

_COOKIE: Final = struct.Struct(f">B{INDEX_BYTES}s24s{COOKIE_BYTES + TAG_BYTES}s")
COOKIE_REPLY_BYTES: Final = _COOKIE.size
"""61; never sent for a shorter piece."""
_SEALED: Final = struct.Struct(f">B{INDEX_BYTES}sI")
SEALED_HEAD_BYTES: Final = _SEALED.size
SEALED_OVERHEAD_BYTES: Final = _SEALED.size + 1 + TAG_BYTES
"""26: header 9, inner kind 1, tag 16."""
COUNTER_MAX: Final = 2**32 - 1
_RESET: Final = struct.Struct(f">B{RESET_TOKEN_BYTES}s")
RESET_BYTES: Final = _RESET.size

# Inner kinds: the first byte of the plaintext of a sealed packet.
INNER_KEEP_ALIVE: Final = 0
INNER_SEGMENT: Final = 1
INNER_ACK: Final = 2
INNER_REKEY: Final = 3
INNER_CLOSE: Final = 4
INNER_FRAMES_FROM: Final = 16
"""Kinds from here on are frames for those above: 16 to 31 paths, 32 to 63 voice."""
INNER_FRAMES_TO: Final = 63

_SEGMENT: Final = struct.Struct(">IB")
SEGMENT_DATA_BYTES_MAX: Final = 1100
_SEGMENT_LAST: Final = 1
_ACK: Final = struct.Struct(">IQ")
ACK_BITS: Final = 64
_REKEY: Final = struct.Struct(">IBBB")
REKEY_DATA_BYTES_MAX: Final = 500

_OFFER: Final = struct.Struct(f">12s32s76sH{RESET_TOKEN_BYTES}s")
_ANSWER: Final = struct.Struct(f">{INDEX_BYTES}s32s76s{RESET_TOKEN_BYTES}s")
_RENEWAL: Final = struct.Struct(f">{INDEX_BYTES}s{RESET_TOKEN_BYTES}s")


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a handshake message."""

    form: int
    """FORM_ bits."""
    number: int
    count: int
    """This is piece `number`, from 0, of `count`."""
    index: bytes
    """The index by which the initiator wants to be addressed; 4 bytes."""
    message_id: bytes
    """The first 8 bytes of the message's BLAKE2b-512, so that pieces of two messages never mix."""
    data: bytes


def encode_piece(piece: Piece) -> bytes:
    """What `mac1` covers; the datagram is this, `mac1` and `mac2`."""
    return (
        _PIECE.pack(
            KIND_PIECE, VERSION, piece.form, piece.number, piece.count, piece.index, piece.message_id
        ) + piece.data
    )  # fmt: skip


def decode_piece(datagram: bytes) -> Piece:
    """The piece in a whole datagram, its MACs not looked at.  Raises BadPacket."""
    if not PIECE_OVERHEAD_BYTES < len(datagram) <= PIECE_BYTES_MAX:
        raise BadPacket("piece size")
    kind, version, form, number, count, index, message_id = _PIECE.unpack_from(datagram)
    if kind != KIND_PIECE or version != VERSION:
        raise BadPacket("piece version")
    if form & ~(FORM_SECOND | FORM_HYBRID) or not number < count <= PIECES_MAX:
        raise BadPacket("piece form")
    return Piece(form, number, count, index, message_id, datagram[_PIECE.size : -2 * MAC_BYTES])


def encode_cookie(index: bytes, nonce: bytes, sealed: bytes) -> bytes:
    """A cookie reply: to the initiator's index; nonce 24 bytes, sealed cookie 32 bytes."""
    return _COOKIE.pack(KIND_COOKIE, index, nonce, sealed)


def decode_cookie(datagram: bytes) -> tuple[bytes, bytes, bytes]:
    """Index, nonce and sealed cookie.  Raises BadPacket."""
    if len(datagram) != _COOKIE.size or datagram[0] != KIND_COOKIE:
        raise BadPacket("cookie size")
    _, index, nonce, sealed = _COOKIE.unpack(datagram)
    return index, nonce, sealed


def encode_sealed_head(index: bytes, counter: int) -> bytes:
    """The header of a sealed packet, which its tag covers too."""
    return _SEALED.pack(KIND_SEALED, index, counter)


def decode_sealed_head(datagram: bytes) -> tuple[bytes, int]:
    """Receiver's index and counter.  Raises BadPacket."""
    if len(datagram) < SEALED_OVERHEAD_BYTES or datagram[0] != KIND_SEALED:
        raise BadPacket("sealed size")
    _, index, counter = _SEALED.unpack_from(datagram)
    return index, counter


def encode_reset(token: bytes) -> bytes:
    """What a node answers that has lost the session of a sealed packet; smaller than any such packet."""
    return _RESET.pack(KIND_RESET, token)


def decode_reset(datagram: bytes) -> bytes:
    """The token.  Raises BadPacket."""
    if len(datagram) != _RESET.size or datagram[0] != KIND_RESET:
        raise BadPacket("reset size")
    return datagram[1:]


# Inside the handshake


@dataclass(frozen=True, slots=True)
class Offer:
    """The payload of the first message."""

    time: bytes
    """TAI64N: 12 bytes."""
    identity: bytes
    """32 bytes."""
    certificate: bytes
    """A certificate without the static key, which the handshake carries: serial, expiry, signature; 76 bytes."""
    keep_alive: int
    """After so many seconds of silence, at most, the initiator says something; 1 to 65535."""
    reset_token: bytes
    """By which it will say that it has lost this session; 16 bytes."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The payload of the second message: the responder's index, then as in an offer."""

    index: bytes
    identity: bytes
    certificate: bytes
    reset_token: bytes


def encode_offer(offer: Offer) -> bytes:
    """The bytes of the payload."""
    return _OFFER.pack(offer.time, offer.identity, offer.certificate, offer.keep_alive, offer.reset_token)


def decode_offer(payload: bytes) -> Offer:
    """The inverse; later versions may append fields.  Raises BadPacket."""
    if len(payload) < _OFFER.size:
        raise BadPacket("offer size")
    offer = Offer(*_OFFER.unpack_from(payload))
    if not offer.keep_alive:
        raise BadPacket("offer keep-alive")
    return offer


def encode_answer(answer: Answer) -> bytes:
    """The bytes of the payload."""
    return _ANSWER.pack(answer.index, answer.identity, answer.certificate, answer.reset_token)


def decode_answer(payload: bytes) -> Answer:
    """The inverse; later versions may append fields.  Raises BadPacket."""
    if len(payload) < _ANSWER.size:
        raise BadPacket("answer size")
    return Answer(*_ANSWER.unpack_from(payload))


def encode_renewal(index: bytes, reset_token: bytes) -> bytes:
    """The payload of both messages of a rekey: the new index of its sender, and the reset token of that index."""
    return _RENEWAL.pack(index, reset_token)


def decode_renewal(payload: bytes) -> tuple[bytes, bytes]:
    """The inverse; later versions may append fields.  Raises BadPacket."""
    if len(payload) < _RENEWAL.size:
        raise BadPacket("renewal size")
    index, token = _RENEWAL.unpack_from(payload)
    return index, token


# Inside sealed packets


def encode_segment(number: int, last: bool, data: bytes) -> bytes:
    """A part of a message; `last` ends it."""
    return _SEGMENT.pack(number, _SEGMENT_LAST if last else 0) + data


def decode_segment(payload: bytes) -> tuple[int, bool, bytes]:
    """Number, whether it ends a message, data.  Raises BadPacket."""
    if not _SEGMENT.size <= len(payload) <= _SEGMENT.size + SEGMENT_DATA_BYTES_MAX:
        raise BadPacket("segment size")
    number, flags = _SEGMENT.unpack_from(payload)
    if flags & ~_SEGMENT_LAST:
        raise BadPacket("segment flags")
    return number, bool(flags), payload[_SEGMENT.size :]


def encode_ack(expected: int, later: int) -> bytes:
    """All before `expected` has come; bit n of `later` says that `expected + 1 + n` has come too."""
    return _ACK.pack(expected, later)


def decode_ack(payload: bytes) -> tuple[int, int]:
    """The inverse.  Raises BadPacket."""
    if len(payload) != _ACK.size:
        raise BadPacket("ack size")
    expected, later = _ACK.unpack(payload)
    return expected, later


@dataclass(frozen=True, slots=True)
class RekeyPiece:
    """A part of one of the two messages of a rekey."""

    exchange: int
    """Drawn by the side that began; 32 bits."""
    second: bool
    number: int
    count: int
    data: bytes


def encode_rekey(piece: RekeyPiece) -> bytes:
    """The payload of an INNER_REKEY packet."""
    return _REKEY.pack(piece.exchange, piece.second, piece.number, piece.count) + piece.data


def decode_rekey(payload: bytes) -> RekeyPiece:
    """The inverse.  Raises BadPacket."""
    if not _REKEY.size < len(payload) <= _REKEY.size + REKEY_DATA_BYTES_MAX:
        raise BadPacket("rekey size")
    exchange, second, number, count = _REKEY.unpack_from(payload)
    if second > 1 or not number < count <= PIECES_MAX:
        raise BadPacket("rekey form")
    return RekeyPiece(exchange, bool(second), number, count, payload[_REKEY.size :])
