"""The formats of a link: what is written is read again, and anything else is refused in one way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcall.errors import BadPacket
from meshcall.wire import link as wire

DECODERS: list[Callable[[bytes], Any]] = [
    wire.decode_piece, wire.decode_cookie, wire.decode_sealed_head, wire.decode_reset, wire.decode_offer,
    wire.decode_answer, wire.decode_renewal, wire.decode_segment, wire.decode_ack, wire.decode_rekey,
]  # fmt: skip


def fixed(size: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=size, max_size=size)


@pytest.mark.parametrize("decode", DECODERS, ids=lambda decode: decode.__name__)
@given(data=st.binary(max_size=1300), kind=st.sampled_from([b"", b"\x10\x01", b"\x11", b"\x12", b"\x13"]))
def test_any_bytes_are_read_or_refused(decode: Callable[[bytes], Any], data: bytes, kind: bytes) -> None:
    try:
        decode(kind + data)
    except BadPacket as bad:
        assert bad.reason


pieces = st.integers(1, wire.PIECES_MAX).flatmap(
    lambda count: st.builds(
        wire.Piece, form=st.integers(0, 3), number=st.integers(0, count - 1), count=st.just(count), index=fixed(4),
        message_id=fixed(8), data=st.binary(min_size=1, max_size=wire.PIECE_DATA_BYTES_MAX),
    )
)  # fmt: skip


@given(pieces)
def test_pieces(piece: wire.Piece) -> None:
    datagram = wire.encode_piece(piece) + bytes(32)
    assert len(datagram) <= wire.PIECE_BYTES_MAX
    assert wire.decode_piece(datagram) == piece


@given(pieces, st.sampled_from([(0, 0x12), (1, 2), (1, 0), (2, 4), (2, 128), (3, 4), (4, 0), (4, 5)]))
def test_pieces_with_a_field_out_of_range(piece: wire.Piece, change: tuple[int, int]) -> None:
    datagram = bytearray(wire.encode_piece(piece) + bytes(32))
    datagram[change[0]] = change[1]
    with pytest.raises(BadPacket):
        wire.decode_piece(bytes(datagram))


@given(st.integers(0, 2**32 - 1), st.booleans(), st.binary(max_size=wire.SEGMENT_DATA_BYTES_MAX))
def test_segments(number: int, last: bool, data: bytes) -> None:
    assert wire.decode_segment(wire.encode_segment(number, last, data)) == (number, last, data)


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1))
def test_acks(expected: int, later: int) -> None:
    assert wire.decode_ack(wire.encode_ack(expected, later)) == (expected, later)


@given(
    st.builds(
        wire.RekeyPiece, exchange=st.integers(0, 2**32 - 1), second=st.booleans(), number=st.just(1),
        count=st.integers(2, 4), data=st.binary(min_size=1, max_size=wire.REKEY_DATA_BYTES_MAX),
    )
)  # fmt: skip
def test_rekey_pieces(piece: wire.RekeyPiece) -> None:
    assert wire.decode_rekey(wire.encode_rekey(piece)) == piece


@given(fixed(4), fixed(24), fixed(32), fixed(16), st.integers(0, 2**32 - 1))
def test_the_small_ones(index: bytes, nonce: bytes, sealed: bytes, token: bytes, counter: int) -> None:
    assert wire.decode_cookie(wire.encode_cookie(index, nonce, sealed)) == (index, nonce, sealed)
    assert wire.decode_reset(wire.encode_reset(token)) == token
    head = wire.encode_sealed_head(index, counter)
    assert wire.decode_sealed_head(head + bytes(17)) == (index, counter)
    assert wire.decode_renewal(wire.encode_renewal(index, token)) == (index, token)


@given(fixed(12), fixed(32), fixed(76), st.integers(1, 65535), fixed(16), st.binary(max_size=20))
def test_later_versions_may_append_to_payloads(
    time: bytes, identity: bytes, certificate: bytes, keep_alive: int, token: bytes, more: bytes
) -> None:
    offer = wire.Offer(time, identity, certificate, keep_alive, token)
    assert wire.decode_offer(wire.encode_offer(offer) + more) == offer
    answer = wire.Answer(time[:4], identity, certificate, token)
    assert wire.decode_answer(wire.encode_answer(answer) + more) == answer
    assert wire.decode_renewal(wire.encode_renewal(time[:4], token) + more) == (time[:4], token)


def test_what_costs_what() -> None:
    assert wire.SEALED_OVERHEAD_BYTES == 26
    assert wire.PIECE_OVERHEAD_BYTES == 49
    assert wire.RESET_BYTES == 17
