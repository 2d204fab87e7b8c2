"""What relays, lease holders and callers say to each other: frames (datagrams) and lease messages.

A frame is 12 bytes and a payload: 4d, kind, a status byte, a zero byte, 8 bytes id.  Frames prove
nothing; what needs proof (leases) travels as lease messages on the control stream of a link between
device and relay.  Only formats here; what they mean and why they are safe: docs/relay.md.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from meshcall.errors import BadPacket

MAGIC: Final = 0x4D
"""First byte of every frame."""
HEAD_BYTES: Final = 12
ID_BYTES: Final = 8
COOKIE_BYTES: Final = 8
ECHO_BYTES: Final = 8
STATIC_BYTES: Final = 32
FRAME_BYTES_MAX: Final = 1500
"""A longer frame is not forwarded."""

TO_LEASE: Final = 0
"""Caller to relay: id is the lease's, the payload goes to its holder."""
TO_HOLDER: Final = 1
"""Relay to holder: id is the flow's."""
TO_FLOW: Final = 2
"""Holder to relay: id is the flow's, the payload goes to the caller who opened it."""
TO_CALLER: Final = 3
"""Relay to caller: id is the lease's."""
CHALLENGE: Final = 4
"""Relay to caller: id is the lease's, payload a cookie that shows the caller to be where it says."""
PROOF: Final = 5
"""Caller to relay: the challenge sent back."""
CHECK: Final = 6
"""Anybody to relay: what of this lease?  The payload is a number of the asker's choice."""
STATE: Final = 7
"""Relay to whoever sent a frame with this id: how it stands with it, as status; the payload is the first
8 bytes of the payload of that frame, which a stranger off the path does not know."""
HELLO: Final = 8
"""Anybody to relay: who are you?  id is of the asker's choice; padded to HELLO_BYTES with zeros."""
HELLO_ANSWER: Final = 9
"""Relay to asker, not longer than the question."""

KNOWN: Final = 0
"""The lease lives, and the asker is its holder."""
ELSEWHERE: Final = 1
"""The lease lives, and its holder is at another place than the asker."""
UNKNOWN_LEASE: Final = 2
UNKNOWN_FLOW: Final = 3
BUSY: Final = 4
"""No new flow now: the relay is near its budget.  Existing flows go on."""
CROWDED: Final = 5
"""No new flow now: this lease, or this sender, has as many as it may have."""
_STATUS_MAX: Final = CROWDED

SHOW_STATUS: Final = {
    KNOWN: "here", ELSEWHERE: "at another place", UNKNOWN_LEASE: "unknown lease", UNKNOWN_FLOW: "unknown flow",
    BUSY: "relay near its budget", CROWDED: "too many flows",
}  # fmt: skip

CHALLENGE_BYTES: Final = HEAD_BYTES + COOKIE_BYTES
HELLO_BYTES: Final = 64
HELLO_VERSION: Final = 1

_HEAD = struct.Struct(">BBBB8s")
_HELLO_ANSWER = struct.Struct(">BBBBH32s")  # version, flags, load percent, zero, TCP port, static key
_OPEN, _MEMBERS_ONLY, _ACCEPTS = 1, 2, 4


def frame(kind: int, frame_id: bytes, payload: bytes = b"", status: int = 0) -> bytes:
    """A whole frame."""
    return _HEAD.pack(MAGIC, kind, status, 0, frame_id) + payload


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame taken apart; `status` is 0 but in STATE."""

    kind: int
    status: int
    frame_id: bytes
    payload: bytes


def decode_frame(data: bytes) -> Frame:
    """The frame in a datagram.  Raises BadPacket and nothing else."""
    if len(data) < HEAD_BYTES:
        raise BadPacket("frame length")
    magic, kind, status, zero, frame_id = _HEAD.unpack_from(data)
    size = len(data) - HEAD_BYTES
    if magic != MAGIC or kind > HELLO_ANSWER:
        raise BadPacket("frame kind")
    if zero or status > (_STATUS_MAX if kind == STATE else 0):
        raise BadPacket("frame flags")
    if kind <= TO_CALLER:
        fits = 0 < size <= FRAME_BYTES_MAX - HEAD_BYTES
    elif kind <= STATE:
        fits = size == COOKIE_BYTES
    elif kind == HELLO:
        fits = len(data) == HELLO_BYTES
    else:
        fits = size == _HELLO_ANSWER.size
    if not fits:
        raise BadPacket("frame length")
    return Frame(kind, status, frame_id, data[HEAD_BYTES:])


def hello(number: bytes) -> bytes:
    """The question who a relay is; `number` (8 bytes) comes back in the answer."""
    return frame(HELLO, number, bytes(HELLO_BYTES - HEAD_BYTES))


@dataclass(frozen=True, slots=True)
class RelayInfo:
    """What a relay says of itself, unproven: the handshake with `static` proves it."""

    static: bytes
    """Its X25519 static key: 32 bytes."""
    is_open: bool
    """Whether strangers may ask for a lease."""
    accepts: bool
    """Whether it takes new leases at this moment."""
    load_percent: int
    """Of its budget; 0 to 100."""
    tcp_port: int | None
    """Where it takes frames over TCP, at the same address."""


def hello_answer(number: bytes, info: RelayInfo) -> bytes:
    """The answer to a hello; shorter than the question."""
    flags = (_OPEN if info.is_open else _MEMBERS_ONLY) | (_ACCEPTS if info.accepts else 0)
    return frame(
        HELLO_ANSWER,
        number,
        _HELLO_ANSWER.pack(HELLO_VERSION, flags, info.load_percent, 0, info.tcp_port or 0, info.static),
    )


def decode_hello_answer(answer: Frame) -> RelayInfo:
    """What a HELLO_ANSWER frame says.  Raises BadPacket."""
    if answer.kind != HELLO_ANSWER:
        raise BadPacket("frame kind")
    version, flags, load, _, tcp_port, static = _HELLO_ANSWER.unpack(answer.payload)
    if version != HELLO_VERSION:
        raise BadPacket("hello version")
    if load > 100 or not flags & (_OPEN | _MEMBERS_ONLY):
        raise BadPacket("hello answer")
    return RelayInfo(static, bool(flags & _OPEN), bool(flags & _ACCEPTS), load, tcp_port or None)


# Lease messages

LEASE_CHANNEL: Final = 0x4D
"""First byte of every lease message on the control stream."""
LEASE_VERSION: Final = 1
LEASE_MESSAGE_BYTES_MAX: Final = 64
SALT_BYTES: Final = 8
DROPS_MAX: Final = 6
"""Flows that one Drop names."""

NOT_SERVED: Final = 1
NEAR_BUDGET: Final = 2
NO_ROOM: Final = 3
TOO_MANY: Final = 4
TOO_OFTEN: Final = 5
NO_SUCH_LEASE: Final = 6
CLOSING: Final = 7
MADE_ROOM: Final = 8
LIFE_OVER: Final = 9

SHOW_REASON: Final = {
    NOT_SERVED: "this relay does not serve you; use another one, or ask its owner to list you",
    NEAR_BUDGET: "this relay is near its budget and takes nobody new; try again later or use another one",
    NO_ROOM: "this relay has no lease left; use another one",
    TOO_MANY: "you have as many leases here as one may have",
    TOO_OFTEN: "you ask too often; wait a moment",
    NO_SUCH_LEASE: "this relay does not know the lease; take a new one",
    CLOSING: "this relay is being shut down; use another one",
    MADE_ROOM: "this relay needed the place for its own members; use another one",
    LIFE_OVER: "the lease was not renewed in time",
}


@dataclass(frozen=True, slots=True)
class LeaseRequest:
    """Holder asks for a lease.  `number` comes back in the answer."""

    number: int
    seconds: int
    """The life wanted; the relay may give less."""
    lease_id: bytes | None = None
    """A lease of this device at this relay to have again, with the salt that its grant named."""
    salt: bytes = bytes(SALT_BYTES)


@dataclass(frozen=True, slots=True)
class LeaseRenew:
    """Holder keeps a lease for another life; also what a device says after it came back by a new link."""

    number: int
    lease_id: bytes


@dataclass(frozen=True, slots=True)
class LeaseGrant:
    """Relay grants or renews."""

    number: int
    lease_id: bytes
    salt: bytes
    seconds: int
    bytes_per_second: int
    packets_per_second: int
    flows: int
    tcp_port: int | None


@dataclass(frozen=True, slots=True)
class LeaseRefusal:
    """Relay refuses a request or renewal."""

    number: int
    reason: int
    retry_seconds: int


@dataclass(frozen=True, slots=True)
class LeaseRelease:
    """Holder gives a lease back."""

    lease_id: bytes


@dataclass(frozen=True, slots=True)
class LeaseEnded:
    """Relay took a lease back."""

    lease_id: bytes
    reason: int


@dataclass(frozen=True, slots=True)
class FlowDrop:
    """Holder wants no more of these flows, nor of their senders for a while."""

    flow_ids: tuple[bytes, ...]


LeaseMessage = LeaseRequest | LeaseRenew | LeaseGrant | LeaseRefusal | LeaseRelease | LeaseEnded | FlowDrop

_PREFIX = struct.Struct(">BBB")  # channel, version, kind
_REQUEST = struct.Struct(">HIB8s8s")  # number, seconds, has a ticket, lease id, salt
_RENEW = struct.Struct(">H8s")
_GRANT = struct.Struct(">H8s8sIIIHH")  # number, id, salt, seconds, bytes/s, packets/s, flows, TCP port
_REFUSAL = struct.Struct(">HBH")
_RELEASE = struct.Struct(">8s")
_ENDED = struct.Struct(">8sB")


def encode_lease_message(message: LeaseMessage) -> bytes:
    """The bytes of a lease message."""
    match message:
        case LeaseRequest(number, seconds, lease_id, salt):
            kind, body = 1, _REQUEST.pack(number, seconds, lease_id is not None, lease_id or bytes(ID_BYTES), salt)
        case LeaseRenew(number, lease_id):
            kind, body = 2, _RENEW.pack(number, lease_id)
        case LeaseGrant(number, lease_id, salt, seconds, rate, packets, flows, tcp_port):
            kind, body = 3, _GRANT.pack(number, lease_id, salt, seconds, rate, packets, flows, tcp_port or 0)
        case LeaseRefusal(number, reason, retry):
            kind, body = 4, _REFUSAL.pack(number, reason, retry)
        case LeaseRelease(lease_id):
            kind, body = 5, _RELEASE.pack(lease_id)
        case LeaseEnded(lease_id, reason):
            kind, body = 6, _ENDED.pack(lease_id, reason)
        case FlowDrop(flow_ids):
            kind, body = 7, b"".join(flow_ids)
    return _PREFIX.pack(LEASE_CHANNEL, LEASE_VERSION, kind) + body


def decode_lease_message(data: bytes) -> LeaseMessage:
    """The lease message in these bytes.  Raises BadPacket and nothing else."""
    if not _PREFIX.size <= len(data) <= LEASE_MESSAGE_BYTES_MAX:
        raise BadPacket("lease message length")
    channel, version, kind = _PREFIX.unpack_from(data)
    if channel != LEASE_CHANNEL:
        raise BadPacket("lease message channel")
    if version != LEASE_VERSION:
        raise BadPacket("lease message version")
    try:
        return _decode_body(kind, data[_PREFIX.size :])
    except struct.error:
        raise BadPacket("lease message length") from None


def _decode_body(kind: int, body: bytes) -> LeaseMessage:
    match kind:
        case 1:
            number, seconds, has_ticket, lease_id, salt = _REQUEST.unpack(body)
            if has_ticket > 1 or (not has_ticket and any(lease_id + salt)):
                raise BadPacket("lease message ticket")
            return LeaseRequest(number, seconds, lease_id if has_ticket else None, salt)
        case 2:
            return LeaseRenew(*_RENEW.unpack(body))
        case 3:
            number, lease_id, salt, seconds, rate, packets, flows, tcp_port = _GRANT.unpack(body)
            if not seconds:
                raise BadPacket("lease message life")
            return LeaseGrant(number, lease_id, salt, seconds, rate, packets, flows, tcp_port or None)
        case 4:
            number, reason, retry = _REFUSAL.unpack(body)
            return LeaseRefusal(number, _reason(reason), retry)
        case 5:
            return LeaseRelease(*_RELEASE.unpack(body))
        case 6:
            lease_id, reason = _ENDED.unpack(body)
            return LeaseEnded(lease_id, _reason(reason))
        case 7:
            if not body or len(body) % ID_BYTES or len(body) > DROPS_MAX * ID_BYTES:
                raise BadPacket("lease message length")
            return FlowDrop(tuple(body[at : at + ID_BYTES] for at in range(0, len(body), ID_BYTES)))
        case _:
            raise BadPacket("lease message kind")


def _reason(number: int) -> int:
    if number not in SHOW_REASON:
        raise BadPacket("lease message reason")
    return number
