"""PCP, the Port Control Protocol (RFC 6887): its MAP datagrams, and one client for one UDP mapping.

IPv4 and IPv6.  No options are sent, none are read.  What comes from elsewhere than the gateway never
gets here; what does not carry our nonce is counted and dropped.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from meshcall.core import Endpoint
from meshcall.errors import BadPacket
from meshcall.portmap.asking import SERVER_PORT, PortClient
from meshcall.portmap.grant import UDP, Deleted, Denial, Exits, Gateway, Grant, Tries

if TYPE_CHECKING:
    from random import Random

VERSION: Final = 2
NATPMP_VERSION: Final = 0
OPCODE_ANNOUNCE: Final = 0
OPCODE_MAP: Final = 1
RESPONSE: Final = 0x80
HEADER_BYTES: Final = 24
MAP_BYTES: Final = 60
NONCE_BYTES: Final = 12
DATAGRAM_BYTES_MAX: Final = 1100
"""RFC 6887 section 7."""
WAITS_SECONDS = (3.0, 6.0)
"""Section 8.1.1: first 3 s, then doubled; two tries, then other protocols have their turn."""
WAIT_SPREAD = 0.1
ERROR_WAIT_SECONDS_MAX = 1800.0
"""A gateway's "not before" is believed up to this (section 7.2)."""

SUCCESS: Final = 0
UNSUPP_VERSION: Final = 1
RESULTS: Final = {
    1: "unsupported version", 2: "not authorized", 3: "malformed request", 4: "unsupported opcode",
    5: "unsupported option", 6: "malformed option", 7: "network failure", 8: "no resources",
    9: "unsupported protocol", 10: "quota exceeded", 11: "cannot provide external", 12: "address mismatch",
    13: "excessive remote peers",
}  # fmt: skip
"""Section 7.4."""

_MAPPED_PREFIX = b"\x00" * 10 + b"\xff\xff"


@dataclass(frozen=True, slots=True)
class Response:
    """A PCP response.  The fields of MAP are empty where the datagram was a header only."""

    version: int
    opcode: int
    result: int
    lifetime: int
    """Seconds: of the mapping, or of the error."""
    epoch: int
    """Seconds since the gateway lost its state."""
    nonce: bytes = b""
    protocol: int = 0
    inner_port: int = 0
    outside: Endpoint | None = None


def pack_address(host: bytes) -> bytes:
    """An address as PCP writes it: 16 bytes, IPv4 as ::ffff:a.b.c.d (section 5)."""
    return host if len(host) == 16 else _MAPPED_PREFIX + host


def unpack_address(packed: bytes) -> bytes:
    """The 4 or 16 bytes of an address that PCP wrote."""
    return packed[12:] if packed.startswith(_MAPPED_PREFIX) else packed


def encode_map(local: bytes, nonce: bytes, inner_port: int, lifetime: int, suggested: Endpoint | None = None) -> bytes:
    """A MAP request for UDP (sections 7.1 and 11.1); `lifetime` 0 seconds deletes the mapping."""
    outside = bytes(suggested) if suggested is not None else bytes(len(local)) + b"\x00\x00"
    return (
        bytes((VERSION, OPCODE_MAP, 0, 0)) + lifetime.to_bytes(4, "big") + pack_address(local)
        + nonce + bytes((UDP, 0, 0, 0)) + inner_port.to_bytes(2, "big") + outside[-2:] + pack_address(outside[:-2])
    )  # fmt: skip


def decode_response(data: bytes) -> Response:
    """Read a response to MAP or an ANNOUNCE.  Raises BadPacket."""
    if not HEADER_BYTES <= len(data) <= DATAGRAM_BYTES_MAX or len(data) % 4:
        raise BadPacket("pcp length")
    if not data[1] & RESPONSE:
        raise BadPacket("pcp not a response")
    opcode, result = data[1] & 0x7F, data[3]
    lifetime, epoch = int.from_bytes(data[4:8], "big"), int.from_bytes(data[8:12], "big")
    if opcode == OPCODE_ANNOUNCE or (result != SUCCESS and len(data) < MAP_BYTES):
        return Response(data[0], opcode, result, lifetime, epoch)
    if opcode != OPCODE_MAP:
        raise BadPacket("pcp opcode")
    if len(data) < MAP_BYTES:
        raise BadPacket("pcp length")
    host = unpack_address(data[44:60])
    return Response(
        data[0], opcode, result, lifetime, epoch,
        nonce=data[24:36], protocol=data[36], inner_port=int.from_bytes(data[40:42], "big"),
        outside=Endpoint(host + data[42:44]),
    )  # fmt: skip


def is_natpmp_answer(data: bytes) -> bool:
    """Whether a gateway that knows NAT-PMP only says so (RFC 6887 appendix A, RFC 6886 section 3.5)."""
    return len(data) >= 8 and data[0] == NATPMP_VERSION and bool(data[1] & RESPONSE) and data[2:4] == b"\x00\x01"


class EpochWatch:
    """Whether a gateway has lost its state, from its epoch counter and our clock (section 8.5)."""

    __slots__ = ("_client", "_server")

    def __init__(self) -> None:
        self._client: float | None = None
        self._server = 0

    def is_restarted(self, now: float, epoch: int) -> bool:
        """Note the epoch of an answer, in seconds; True where it does not go on from the one before."""
        client, server = self._client, self._server
        self._client, self._server = now, epoch
        if client is None:
            return False
        if epoch < server - 1:
            return True
        passed_here, passed_there = now - client, epoch - server
        return (
            passed_here + 2 < passed_there - passed_there / 16 or passed_there + 2 < passed_here - passed_here / 16
        )  # fmt: skip


def make_nonce(secret: bytes, gateway: Gateway, port: int) -> bytes:
    """The nonce of a mapping: unguessable, and the same after a crash, or the gateway would refuse us our own."""
    digest = hashlib.blake2b(digest_size=NONCE_BYTES, key=secret[:64], person=b"meshcall pcp map")
    digest.update(gateway.host + gateway.local + port.to_bytes(2, "big"))
    return digest.digest()


class PcpClient(PortClient):
    """Asks one gateway by PCP for one mapping."""

    name = "pcp"

    def __init__(self, gateway: Gateway, port: int, secret: bytes, rng: Random, exits: Exits) -> None:
        super().__init__(gateway, port, exits)
        self._rng = rng
        self._nonce = make_nonce(secret, gateway, port)
        self._request = b""
        self._epoch = EpochWatch()

    def ask(self, now: float, lifetime: int, suggested: Endpoint | None) -> None:
        """Ask for the mapping, anew or again; 0 seconds: for its end."""
        self.outcome = None
        self._deleting = lifetime == 0
        if self._deleting:
            suggested = None  # section 11.1: the gateway knows which one
        self._request = encode_map(self._gateway.local, self._nonce, self._port, lifetime, suggested)
        self._tries = Tries([wait * self._rng.uniform(1 - WAIT_SPREAD, 1 + WAIT_SPREAD) for wait in WAITS_SECONDS])
        self._tries.begin(now)
        self._send()

    def receive(self, now: float, source: Endpoint, data: bytes) -> None:
        """Take an answer.  Raises BadPacket for what is not one of this gateway's to this question."""
        self._check_source(source)
        if self._tries.due is not None and is_natpmp_answer(data):
            self._finish(Denial("pcp unsupported version"))
            return
        response = decode_response(data)
        if self._tries.due is None:
            raise BadPacket("pcp not asked")
        if response.opcode != OPCODE_MAP:
            raise BadPacket("pcp opcode")
        if response.version != VERSION:
            if response.result != UNSUPP_VERSION:
                raise BadPacket("pcp version")
            self._finish(Denial("pcp unsupported version"))
            return
        if response.outside is not None:
            if response.nonce != self._nonce:
                raise BadPacket("pcp wrong nonce")
            if response.protocol != UDP or response.inner_port != self._port:
                raise BadPacket("pcp another mapping")
        if self._epoch.is_restarted(now, response.epoch):
            self._exits.counters["gateway restarted"] += 1  # this very answer made the mapping anew
        if response.result != SUCCESS:
            wait = min(float(response.lifetime), ERROR_WAIT_SECONDS_MAX)
            self._finish(Denial(f"pcp {RESULTS.get(response.result, 'unknown result')}", wait))
        elif self._deleting:
            if response.lifetime:
                raise BadPacket("pcp late grant")
            self._finish(Deleted())
        elif response.lifetime and response.outside is not None:
            self._finish(Grant(response.outside, float(response.lifetime)))
        else:
            raise BadPacket("pcp empty grant")

    def announced(self, now: float, source: Endpoint, data: bytes) -> None:
        """Take what came to the group of announcements (section 14.1): a reason to ask, never an answer.

        Raises BadPacket.
        """
        self._check_source(source)
        response = decode_response(data)
        if response.opcode != OPCODE_ANNOUNCE or response.version != VERSION:
            raise BadPacket("pcp no announcement")
        self.restarted |= self._epoch.is_restarted(now, response.epoch)

    def _send(self) -> None:
        self._exits.outbox.append((self._gateway.at(SERVER_PORT), self._request))
