"""Formats of the path layer: probe, probe answer and candidates.  docs/path.md describes them byte for byte.

Probes and answers are the inside of sealed packets; the candidates message travels over the
control stream.  All come from a device that has proved its key, which may lie all the same: every
length is checked, nothing follows the end, and nothing here says that an address is really theirs.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from meshcall.core import ENDPOINT_V4_BYTES, ENDPOINT_V6_BYTES, Endpoint
from meshcall.errors import BadPacket

KIND_PROBE = 16
KIND_ANSWER = 17
"""Kinds of sealed packets; those from 16 to 31 are the path layer's."""
MESSAGE_CANDIDATES = 0x10
"""The first byte of a candidates message on the control stream."""

NONCE_BYTES = 8
LEASE_ID_BYTES = 8
CANDIDATES_MAX = 16
"""Candidates in one message."""
VERSION = 1

_FLAG_DEAF = 0x01
_FLAG_ASKS = 0x01
_KIND_V6 = 0x80
_HEAD = struct.Struct("!BBBB")  # message, version, flags, mapping
_SEQUENTIAL = struct.Struct("!4sHb")  # address, next port, step
_RANDOM = struct.Struct("!4sHH")  # address, least port, greatest port
_PORT_LEAST = 1


class Mapping(IntEnum):
    """How the device's NAT gives outer ports to its socket (RFC 4787 section 4.1)."""

    UNKNOWN = 0
    NONE = 1
    """No translation: others see an address of the device's own."""
    INDEPENDENT = 2
    """One outer port for all destinations."""
    SEQUENTIAL = 3
    """Another port for each destination, at a steady step."""
    RANDOM = 4
    """Another port for each destination, without order."""


class Kind(IntEnum):
    """Where a candidate comes from."""

    HOST = 1
    """The address of an interface."""
    OBSERVED = 2
    """What others see, through the NAT."""
    MAPPED = 3
    """What a router was asked to forward."""
    RELAY_UDP = 4
    RELAY_TCP = 5
    """A lease at a relay."""


@dataclass(frozen=True, slots=True)
class Probe:
    """Asks whether a path works, there and back."""

    nonce: bytes
    """8 random bytes, new in every probe, so that only who received it can answer."""
    deaf: bool = False
    """The sender heard a stream of frames, and hears none any more by any path."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a probe, sent back where the probe came from."""

    nonce: bytes
    observed: Endpoint | None = None
    """The source of the probe as the answering device saw it; None where it came through a relay."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One address at which the sender may be reached."""

    kind: Kind
    endpoint: Endpoint
    lease_id: bytes = b""
    """8 bytes for a relay, empty for the others."""


@dataclass(frozen=True, slots=True)
class Ports:
    """What others need to know of the NAT in front of the sender."""

    mapping: Mapping = Mapping.UNKNOWN
    address: bytes = b""
    """The NAT's outer IPv4 address, 4 bytes; with SEQUENTIAL and RANDOM only, as all that follows."""
    next_port: int = 0
    step: int = 0
    """SEQUENTIAL: the port of the next mapping, and from one to the next (-128 to 127, not 0)."""
    low: int = 0
    high: int = 0
    """RANDOM: the range that ports come from."""


NO_PORTS = Ports()
"""Nothing is known of the NAT."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """All that a device tells of its addresses; replaces what it told before."""

    asks: bool = False
    """The receiver shall send its own, too, unless it is on its way already; both then punch together."""
    ports: Ports = NO_PORTS
    candidates: tuple[Candidate, ...] = ()
    """In the order of the sender's preference; none: it tells no address (any more)."""


def encode_probe(probe: Probe) -> bytes:
    """9 bytes."""
    return bytes([_FLAG_DEAF * probe.deaf]) + probe.nonce


def decode_probe(data: bytes) -> Probe:
    """The probe in the inside of a sealed packet.  Raises BadPacket."""
    if len(data) != 1 + NONCE_BYTES:
        raise BadPacket("length of probe")
    if data[0] & ~_FLAG_DEAF:
        raise BadPacket("flags of probe")
    return Probe(data[1:], bool(data[0] & _FLAG_DEAF))


def encode_answer(answer: Answer) -> bytes:
    """8, 14 or 26 bytes."""
    return answer.nonce + (answer.observed or b"")


def decode_answer(data: bytes) -> Answer:
    """The answer in the inside of a sealed packet.  Raises BadPacket."""
    nonce, observed = data[:NONCE_BYTES], data[NONCE_BYTES:]
    if len(nonce) != NONCE_BYTES or len(observed) not in (0, ENDPOINT_V4_BYTES, ENDPOINT_V6_BYTES):
        raise BadPacket("length of answer")
    return Answer(nonce, Endpoint(observed) if observed else None)


def encode_candidates(message: Candidates) -> bytes:
    """The message for the control stream, at most 445 bytes.  Raises ValueError where it cannot be sent."""
    ports = message.ports
    parts = [_HEAD.pack(MESSAGE_CANDIDATES, VERSION, _FLAG_ASKS * message.asks, ports.mapping)]
    if ports.mapping is Mapping.SEQUENTIAL:
        parts.append(_SEQUENTIAL.pack(ports.address, ports.next_port, ports.step))
    elif ports.mapping is Mapping.RANDOM:
        parts.append(_RANDOM.pack(ports.address, ports.low, ports.high))
    parts.append(bytes([len(message.candidates)]))
    for candidate in message.candidates:
        is_v6 = len(candidate.endpoint) == ENDPOINT_V6_BYTES
        parts += bytes([candidate.kind | _KIND_V6 * is_v6]), candidate.endpoint, candidate.lease_id
    data = b"".join(parts)
    try:
        same = decode_candidates(data) == message  # what we could not read ourselves is never sent
    except BadPacket as error:
        raise ValueError(f"not a candidates message that can be sent: {error}") from None
    if not same:
        raise ValueError("not a candidates message that can be sent: not canonical")
    return data


def decode_candidates(data: bytes) -> Candidates:
    """The message from the control stream.  Raises BadPacket."""
    reader = _Reader(data)
    kind, version, flags, mapping = _HEAD.unpack(reader.take(_HEAD.size))
    if kind != MESSAGE_CANDIDATES:
        raise BadPacket("not a candidates message")
    if version != VERSION:
        raise BadPacket("version of candidates")
    if flags & ~_FLAG_ASKS:
        raise BadPacket("flags of candidates")
    ports = _decode_ports(reader, mapping)
    count = reader.take(1)[0]
    if count > CANDIDATES_MAX:
        raise BadPacket("too many candidates")
    candidates = tuple(_decode_candidate(reader) for _ in range(count))
    if reader.rest():
        raise BadPacket("rest after candidates")
    if len(set(candidates)) != count:
        raise BadPacket("candidate twice")
    return Candidates(bool(flags & _FLAG_ASKS), ports, candidates)


def _decode_ports(reader: _Reader, mapping: int) -> Ports:
    if mapping > Mapping.RANDOM:
        raise BadPacket("kind of mapping")
    if mapping == Mapping.SEQUENTIAL:
        address, next_port, step = _SEQUENTIAL.unpack(reader.take(_SEQUENTIAL.size))
        if next_port < _PORT_LEAST or not step:
            raise BadPacket("sequence of ports")
        return Ports(Mapping.SEQUENTIAL, address, next_port=next_port, step=step)
    if mapping == Mapping.RANDOM:
        address, low, high = _RANDOM.unpack(reader.take(_RANDOM.size))
        if not _PORT_LEAST <= low <= high:
            raise BadPacket("range of ports")
        return Ports(Mapping.RANDOM, address, low=low, high=high)
    return Ports(Mapping(mapping))


def _decode_candidate(reader: _Reader) -> Candidate:
    first = reader.take(1)[0]
    try:
        kind = Kind(first & ~_KIND_V6)
    except ValueError:
        raise BadPacket("kind of candidate") from None
    endpoint = Endpoint(reader.take(ENDPOINT_V6_BYTES if first & _KIND_V6 else ENDPOINT_V4_BYTES))
    if endpoint[-2:] == b"\0\0":
        raise BadPacket("port of candidate")
    return Candidate(kind, endpoint, reader.take(LEASE_ID_BYTES) if kind >= Kind.RELAY_UDP else b"")


class _Reader:
    """Takes bytes from the front, never beyond the end."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        taken = self._data[self._at : self._at + count]
        if len(taken) != count:
            raise BadPacket("candidates end early")
        self._at += count
        return taken

    def rest(self) -> int:
        return len(self._data) - self._at
