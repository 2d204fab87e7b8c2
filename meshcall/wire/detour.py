"""What a device in a network that bars UDP and a gateway to the DHT say to each other, over TCP only.

A message is 8 bytes and a body: 47, version 1, kind, a zero byte, 4 bytes number, which the asker chooses
and the answer repeats.  Each is one record of a TCP connection with a relay (drivers/relay_tcp.py).  Only
formats here; who answers what, and why nothing here need be believed: docs/tcp.md.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from meshcall.core import ENDPOINT_V4_BYTES, ENDPOINT_V6_BYTES, Endpoint
from meshcall.errors import BadPacket

MAGIC: Final = 0x47
"""First byte of every message."""
VERSION: Final = 1
KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
HASH_BYTES: Final = 20
VALUE_BYTES_MAX: Final = 1000
SEQ_MAX: Final = 2**63 - 1
PEERS_V4_MAX: Final = 100
PEERS_V6_MAX: Final = 30
NUMBER_MAX: Final = 2**32 - 1

TOO_OFTEN: Final = 1
BUSY: Final = 2
NO_NETWORK: Final = 3
NOT_SERVED: Final = 4
NOT_VALID: Final = 5

SHOW_REASON: Final = {
    TOO_OFTEN: "asked too often", BUSY: "the gateway is busy", NO_NETWORK: "the gateway has not found the DHT itself",
    NOT_SERVED: "the gateway does not serve this device", NOT_VALID: "the gateway takes this for no valid item",
}  # fmt: skip

_HEAD = struct.Struct(">BBBBI")
_SEQ = struct.Struct(">Q")
_PUT = struct.Struct(">BQQ32s64s")  # has cas, cas, seq, key, signature; then the value
_ITEM = struct.Struct(">BBB")  # last, nodes that answered, has an item; then sequence number, signature, value
_STORED = struct.Struct(">BBBB")
_PEERS = struct.Struct(">BB")  # count of IPv4 and of IPv6 endpoints
_REFUSED = struct.Struct(">BH")
HEAD_BYTES: Final = _HEAD.size


@dataclass(frozen=True, slots=True)
class Knock:
    """Do you serve as a gateway?"""


@dataclass(frozen=True, slots=True)
class AskItem:
    """The newest item under a (blinded) public key, without salt."""

    public: bytes


@dataclass(frozen=True, slots=True)
class AskStore:
    """Store a signed item; with `cas` only in place of the item of that seq."""

    public: bytes
    seq: int
    value: bytes
    """Bencoded, 1 to VALUE_BYTES_MAX bytes."""
    signature: bytes
    cas: int | None


@dataclass(frozen=True, slots=True)
class AskPeers:
    """Who announced under an info-hash."""

    info_hash: bytes


@dataclass(frozen=True, slots=True)
class Serves:
    """I serve as a gateway, and have found the DHT."""


@dataclass(frozen=True, slots=True)
class TellItem:
    """An item that was found; `is_last`: the look-up is over, and `nodes` nodes of the DHT answered it."""

    is_last: bool
    nodes: int
    found: tuple[int, bytes, bytes] | None
    """seq, signature and bencoded value; None: nothing was found."""


@dataclass(frozen=True, slots=True)
class TellStored:
    """So many nodes stored the item; refused it because of its cas or seq; or did not take it otherwise."""

    stored: int
    cas_refused: int
    seq_refused: int
    other: int


@dataclass(frozen=True, slots=True)
class TellPeers:
    """Endpoints announced."""

    peers: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """Not done; `retry_seconds`: when it makes sense to ask again."""

    reason: int
    retry_seconds: int


Ask = Knock | AskItem | AskStore | AskPeers
Tell = Serves | TellItem | TellStored | TellPeers | Refused
Message = Ask | Tell


def encode(number: int, message: Message) -> bytes:
    """The bytes of a message."""
    match message:
        case Knock():
            kind, body = 0, b""
        case AskItem(public):
            kind, body = 1, public
        case AskStore(public, seq, value, signature, cas):
            kind, body = 2, _PUT.pack(cas is not None, cas or 0, seq, public, signature) + value
        case AskPeers(info_hash):
            kind, body = 3, info_hash
        case Serves():
            kind, body = 8, b""
        case TellItem(is_last, nodes, found):
            item = b"" if found is None else _SEQ.pack(found[0]) + found[1] + found[2]
            kind, body = 9, _ITEM.pack(is_last, min(nodes, 255), found is not None) + item
        case TellStored(stored, cas_refused, seq_refused, other):
            kind, body = 10, _STORED.pack(*(min(n, 255) for n in (stored, cas_refused, seq_refused, other)))
        case TellPeers(peers):
            v4 = [each for each in peers if len(each) == ENDPOINT_V4_BYTES][:PEERS_V4_MAX]
            v6 = [each for each in peers if len(each) == ENDPOINT_V6_BYTES][:PEERS_V6_MAX]
            kind, body = 11, _PEERS.pack(len(v4), len(v6)) + b"".join(v4 + v6)
        case Refused(reason, retry_seconds):
            kind, body = 12, _REFUSED.pack(reason, min(retry_seconds, 65535))
    return _HEAD.pack(MAGIC, VERSION, kind, 0, number) + body


def decode(data: bytes) -> tuple[int, Message]:
    """Number and message.  Raises BadPacket and nothing else."""
    if len(data) < HEAD_BYTES:
        raise BadPacket("detour length")
    magic, version, kind, zero, number = _HEAD.unpack_from(data)
    if magic != MAGIC or version != VERSION or zero:
        raise BadPacket("detour head")
    try:
        return number, _decode_body(kind, data[HEAD_BYTES:])
    except struct.error:
        raise BadPacket("detour length") from None


def _decode_body(kind: int, body: bytes) -> Message:
    match kind:
        case 0 | 8:
            _demand(not body)
            return Serves() if kind else Knock()
        case 1:
            _demand(len(body) == KEY_BYTES)
            return AskItem(body)
        case 2:
            has_cas, cas, seq, public, signature = _PUT.unpack_from(body)
            value = body[_PUT.size :]
            _demand(0 < len(value) <= VALUE_BYTES_MAX)
            if has_cas > 1 or (cas and not has_cas) or cas > SEQ_MAX or seq > SEQ_MAX:
                raise BadPacket("detour item")
            return AskStore(public, seq, value, signature, cas if has_cas else None)
        case 3:
            _demand(len(body) == HASH_BYTES)
            return AskPeers(body)
        case 9:
            return _decode_item(body)
        case 10:
            return TellStored(*_STORED.unpack(body))
        case 11:
            return TellPeers(_decode_peers(body))
        case 12:
            reason, retry_seconds = _REFUSED.unpack(body)
            if reason not in SHOW_REASON:
                raise BadPacket("detour reason")
            return Refused(reason, retry_seconds)
        case _:
            raise BadPacket("detour kind")


def _decode_item(body: bytes) -> TellItem:
    is_last, nodes, has_item = _ITEM.unpack_from(body)
    rest = body[_ITEM.size :]
    if is_last > 1 or has_item > 1 or not (is_last or has_item):
        raise BadPacket("detour item")
    if not has_item:
        _demand(not rest)
        return TellItem(True, nodes, None)
    (seq,) = _SEQ.unpack_from(rest)
    value_at = _SEQ.size + SIGNATURE_BYTES
    value = rest[value_at:]
    _demand(0 < len(value) <= VALUE_BYTES_MAX)
    if seq > SEQ_MAX:
        raise BadPacket("detour item")
    return TellItem(bool(is_last), nodes, (seq, rest[_SEQ.size : value_at], value))


def _decode_peers(body: bytes) -> tuple[Endpoint, ...]:
    v4, v6 = _PEERS.unpack_from(body)
    _demand(v4 <= PEERS_V4_MAX and v6 <= PEERS_V6_MAX)
    _demand(len(body) == _PEERS.size + v4 * ENDPOINT_V4_BYTES + v6 * ENDPOINT_V6_BYTES)
    v6_at = _PEERS.size + v4 * ENDPOINT_V4_BYTES
    found = [body[at : at + ENDPOINT_V4_BYTES] for at in range(_PEERS.size, v6_at, ENDPOINT_V4_BYTES)]
    found += [body[at : at + ENDPOINT_V6_BYTES] for at in range(v6_at, len(body), ENDPOINT_V6_BYTES)]
    if not all(each[-2] or each[-1] for each in found):
        raise BadPacket("detour port")
    return tuple(map(Endpoint, found))


def _demand(holds: bool) -> None:
    if not holds:
        raise BadPacket("detour length")
