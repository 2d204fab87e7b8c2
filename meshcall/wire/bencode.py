"""Bencode (BEP 3) within bounds: size and depth are checked before anything is decoded.

The work is bencode2's, which refuses every non-canonical form (leading zeros, unsorted or repeated
keys, trailing bytes).  So whatever was decoded encodes to the very bytes it came from, and a
signature over a re-encoded value is one over the bytes that were sent.
"""

from __future__ import annotations

from typing import Any

import bencode2

from meshcall.errors import BadPacket

DATAGRAM_BYTES_MAX = 2048
"""A get answer with a full value and contacts of both families has about 1,800."""
DEPTH_MAX = 32
"""Lists and dictionaries within each other; a KRPC message itself needs 3, the rest is for values."""

encode = bencode2.bencode
decode = bencode2.bdecode
"""For bytes that were decoded before, such as a stored value."""


def decode_untrusted(data: bytes) -> Any:
    """The value of one bencoded datagram.  Raises BadPacket and nothing else."""
    if len(data) > DATAGRAM_BYTES_MAX:
        raise BadPacket("oversized")
    # Each level needs an opening letter, so few of them anywhere prove that the nesting is shallow.
    if data.count(b"l") + data.count(b"d") > DEPTH_MAX and not _shallow(data):
        raise BadPacket("too deep")
    try:
        return bencode2.bdecode(data)
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise BadPacket("bencode") from None


def _shallow(data: bytes) -> bool:
    """Whether the nesting stays within DEPTH_MAX; walks tokens and skips over strings."""
    depth, at, end = 0, 0, len(data)
    while at < end:
        byte = data[at]
        if byte in b"ld":
            depth += 1
            if depth > DEPTH_MAX:
                return False
            at += 1
        elif byte == 0x65:  # e
            depth -= 1
            at += 1
        elif byte == 0x69:  # i
            at = data.find(b"e", at)
            if at < 0:
                return True  # not bencode at all: the decoder says so
            at += 1
        else:
            colon = data.find(b":", at, at + 5)
            if colon < 0 or not data[at:colon].isdigit():
                return True
            at = colon + 1 + int(data[at:colon])
    return True
