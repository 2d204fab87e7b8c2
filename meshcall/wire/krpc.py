"""KRPC, the messages of the Mainline DHT (BEP 5, 32, 42, 43, 44): bytes and dictionaries, no state.

Messages stay dictionaries with bytes as keys, as they were decoded: they are read once, in one
place, and a class for each would cost more than the rest of the work on them.
"""

from __future__ import annotations

from typing import Any, cast

from meshcall.core import Endpoint
from meshcall.errors import BadPacket
from meshcall.wire.bencode import decode_untrusted, encode

ID_BYTES = 20
TRANSACTION_BYTES_MAX = 32
"""Longest transaction ID that is echoed."""
TOKEN_BYTES_MAX = 64
"""Longest write token that is kept of another node."""
NODE_V4_BYTES = 26
NODE_V6_BYTES = 38
PEERS_MAX = 64
"""Peers read from one answer."""

VERSION = b"MC\x00\x01"

GENERIC_ERROR = 201
SERVER_ERROR = 202
PROTOCOL_ERROR = 203
METHOD_UNKNOWN = 204
VALUE_TOO_BIG = 205
BAD_SIGNATURE = 206
SALT_TOO_BIG = 207
CAS_MISMATCH = 301
SEQ_TOO_OLD = 302

ERROR_TEXTS = {
    GENERIC_ERROR: b"error",
    SERVER_ERROR: b"the store is full",
    PROTOCOL_ERROR: b"malformed arguments or bad token",
    METHOD_UNKNOWN: b"unknown method",
    VALUE_TOO_BIG: b"v is over 1000 bytes",
    BAD_SIGNATURE: b"invalid signature",
    SALT_TOO_BIG: b"salt is over 64 bytes",
    CAS_MISMATCH: b"cas does not match, read again",
    SEQ_TOO_OLD: b"seq is not newer than what is stored",
}


def query(transaction: bytes, method: bytes, arguments: dict[bytes, Any], read_only: bool) -> bytes:
    """A query; `arguments` hold our ID already.  `read_only`: we answer nobody (BEP 43)."""
    message: dict[bytes, Any] = {b"t": transaction, b"y": b"q", b"q": method, b"a": arguments, b"v": VERSION}
    if read_only:
        message[b"ro"] = 1
    return encode(message)


def reply(transaction: bytes, values: dict[bytes, Any], seen: bytes) -> bytes:
    """An answer; `seen` is the endpoint we see the asker at (BEP 42)."""
    return encode({b"t": transaction, b"y": b"r", b"r": values, b"ip": seen, b"v": VERSION})


def error(transaction: bytes, code: int, seen: bytes) -> bytes:
    """A refusal with one of the codes above."""
    text = ERROR_TEXTS.get(code, b"error")
    return encode({b"t": transaction, b"y": b"e", b"e": [code, text], b"ip": seen, b"v": VERSION})


def parse_untrusted(data: bytes) -> tuple[bytes, bytes, dict[bytes, Any]]:
    """Kind (b"q", b"r" or b"e"), transaction ID and message.  Raises BadPacket and nothing else."""
    message = decode_untrusted(data)
    if type(message) is not dict:
        raise BadPacket("not a dictionary")
    kind, transaction = message.get(b"y"), message.get(b"t")
    if type(transaction) is not bytes or not 0 < len(transaction) <= TRANSACTION_BYTES_MAX:
        raise BadPacket("transaction")
    if kind == b"r" or kind == b"q":
        body = message.get(b"r" if kind == b"r" else b"a")
        if type(body) is not dict:
            raise BadPacket("body")
        sender = body.get(b"id")
        if type(sender) is not bytes or len(sender) != ID_BYTES:
            raise BadPacket("id")
        if kind == b"q" and type(message.get(b"q")) is not bytes:
            raise BadPacket("method")
    elif kind == b"e":
        detail = message.get(b"e")
        if type(detail) is not list or not detail or type(detail[0]) is not int:
            raise BadPacket("error")
    else:
        raise BadPacket("kind")
    return kind, transaction, message


def nodes_untrusted(values: dict[bytes, Any], family: int) -> list[tuple[bytes, Endpoint]]:
    """(ID, endpoint) of the contacts in an answer, family 4 or 6; a list of broken length is empty."""
    packed, size = (values.get(b"nodes"), NODE_V4_BYTES) if family == 4 else (values.get(b"nodes6"), NODE_V6_BYTES)
    if type(packed) is not bytes or len(packed) % size:
        return []
    found = [(packed[at : at + ID_BYTES], packed[at + ID_BYTES : at + size]) for at in range(0, len(packed), size)]
    return cast("list[tuple[bytes, Endpoint]]", found)


def peers_untrusted(values: dict[bytes, Any]) -> list[bytes]:
    """Endpoints (6 or 18 bytes) in the `values` of a get_peers answer."""
    listed = values.get(b"values")
    if type(listed) is not list:
        return []
    return [peer for peer in listed[:PEERS_MAX] if type(peer) is bytes and len(peer) in (6, 18)]


def token_untrusted(values: dict[bytes, Any]) -> bytes:
    """The write token of an answer; empty where there is none that can be used."""
    token = values.get(b"token")
    return token if type(token) is bytes and len(token) <= TOKEN_BYTES_MAX else b""
