"""Bencode within bounds: what strangers send is decoded exactly or refused as a bad packet."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from meshcall.errors import BadPacket
from meshcall.wire.bencode import DATAGRAM_BYTES_MAX, DEPTH_MAX, decode_untrusted, encode

VALUES = st.recursive(
    st.integers(-(2**70), 2**70) | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.binary(max_size=8), inner, max_size=5),
    max_leaves=25,
)


def depth(value: Any) -> int:
    """Lists and dictionaries within each other."""
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    return 0


@settings(max_examples=300)
@given(st.binary(max_size=300) | st.text("ild0123456789:e-ab", max_size=80).map(str.encode))
@example(b"l" * 2048)
@example(b"d1:a" * 400)
def test_any_bytes_are_decoded_exactly_or_refused(data: bytes) -> None:
    try:
        value = decode_untrusted(data)
    except BadPacket as bad:
        assert bad.reason in {"oversized", "too deep", "bencode"}
    else:
        assert encode(value) == data
        assert depth(value) <= DEPTH_MAX


@settings(max_examples=200)
@given(VALUES)
def test_every_value_comes_back(value: Any) -> None:
    data = encode(value)
    if len(data) <= DATAGRAM_BYTES_MAX and depth(value) <= DEPTH_MAX:
        assert decode_untrusted(data) == value


@settings(max_examples=200)
@given(VALUES, st.data())
def test_a_changed_byte_never_gives_what_encodes_otherwise(value: Any, data: st.DataObject) -> None:
    packet = bytearray(encode(value))
    at = data.draw(st.integers(0, len(packet) - 1))
    packet[at] = data.draw(st.integers(0, 255))
    try:
        assert encode(decode_untrusted(bytes(packet))) == packet
    except BadPacket:
        pass


@pytest.mark.parametrize("opening", [b"l", b"d1:a"])
@pytest.mark.parametrize("padding", [b"", b"d" * 200, b"l" * 200])
def test_the_bound_of_depth_is_exact(opening: bytes, padding: bytes) -> None:
    """However many of the letters that open a level stand inside strings."""

    def nested(levels: int) -> bytes:
        inner = opening * (levels - 1) + b"i1e" + b"e" * (levels - 1)
        return b"l%d:%s%se" % (len(padding), padding, inner)

    assert depth(decode_untrusted(nested(DEPTH_MAX))) == DEPTH_MAX
    with pytest.raises(BadPacket, match="too deep"):
        decode_untrusted(nested(DEPTH_MAX + 1))


def test_letters_outside_of_strings_are_counted_even_where_few() -> None:
    """Forty levels with only a few letters between them and the end of the datagram."""
    with pytest.raises(BadPacket, match="too deep"):
        decode_untrusted(b"l" * (DEPTH_MAX + 1) + b"e" * (DEPTH_MAX + 1))
    wide = b"l" + b"le" * 500 + b"e"
    assert decode_untrusted(wide) == [[]] * 500


def test_the_bound_of_size_is_exact() -> None:
    fits = encode(b"x" * (DATAGRAM_BYTES_MAX - 5))
    assert len(fits) == DATAGRAM_BYTES_MAX
    assert decode_untrusted(fits) == b"x" * (DATAGRAM_BYTES_MAX - 5)
    with pytest.raises(BadPacket, match="oversized"):
        decode_untrusted(encode(b"x" * (DATAGRAM_BYTES_MAX - 4)))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"e",
        b" i1e",
        b"i1e ",
        b"i1ei1e",
        b"ie",
        b"i-e",
        b"i-0e",
        b"i03e",
        b"i+3e",
        b"i 3e",
        b"i1_0e",
        b"i1.5e",
        b"i\xd9\xa1e",
        b"i12",
        b"i" + b"9" * 5000 + b"e",
        b"1:",
        b"01:a",
        b"00:",
        b"-1:a",
        b"5:abcd",
        b"\xb2:ab",
        b"99999999999999999999999999:a",
        b"4294967297:a",
        b"18446744073709551617:a",
        b"l",
        b"li1e",
        b"d",
        b"d1:ae",
        b"d1:ai1e",
        b"di1ei2ee",
        b"dlelee",
        b"d1:bi1e1:ai2ee",
        b"d1:ai1e1:ai2ee",
        b"d2:aai1e1:ai2ee",
        b"dee",
        b"e" * 40 + b"l" * 40,
    ],
)
def test_what_is_not_canonical_is_refused(data: bytes) -> None:
    with pytest.raises(BadPacket):
        decode_untrusted(data)


def test_long_numbers_are_numbers_or_refused() -> None:
    """Whatever limit the interpreter has for the conversion of digits."""
    for digits in (19, 20, 400, 1000, 2040):
        data = b"i" + b"9" * digits + b"e"
        assert decode_untrusted(data) == 10**digits - 1


def test_the_decoder_is_the_compiled_one() -> None:
    import bencode2

    assert bencode2.COMPILED
