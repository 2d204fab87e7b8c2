"""NAT-PMP, the NAT Port Mapping Protocol (RFC 6886): its datagrams, and one client for one UDP mapping.  IPv4 only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from meshcall.core import Endpoint
from meshcall.errors import BadPacket
from meshcall.portmap.asking import SERVER_PORT, PortClient
from meshcall.portmap.grant import Deleted, Denial, Exits, Gateway, Grant, Tries

if TYPE_CHECKING:
    from random import Random

VERSION: Final = 0
OPCODE_ADDRESS: Final = 0
OPCODE_MAP_UDP: Final = 1
RESPONSE: Final = 0x80
ADDRESS_REQUEST: Final = bytes((VERSION, OPCODE_ADDRESS))
WAITS_SECONDS = (0.25, 0.5, 1.0, 2.0)
"""Section 3.1: 250 ms, then doubled; four of its nine tries, then other protocols have their turn."""
RESULTS: Final = {
    1: "unsupported version", 2: "not authorized", 3: "network failure", 4: "no resources", 5: "unsupported opcode",
}  # fmt: skip
"""Section 3.5."""


@dataclass(frozen=True, slots=True)
class AddressAnswer:
    """The gateway's outside address (section 3.2); `host` is empty where `result` is not 0."""

    result: int
    epoch: int
    host: bytes


@dataclass(frozen=True, slots=True)
class MapAnswer:
    """What came of a request for a UDP mapping (section 3.3); ports and life are 0 where `result` is not."""

    result: int
    epoch: int
    inner_port: int
    outer_port: int
    lifetime: int
    """Seconds."""


def encode_map(inner_port: int, lifetime: int, suggested_port: int = 0) -> bytes:
    """A request for a UDP mapping; `lifetime` 0 seconds and port 0 delete it (section 3.4)."""
    return (
        bytes((VERSION, OPCODE_MAP_UDP, 0, 0)) + inner_port.to_bytes(2, "big")
        + suggested_port.to_bytes(2, "big") + lifetime.to_bytes(4, "big")
    )  # fmt: skip


def decode_answer(data: bytes) -> AddressAnswer | MapAnswer:
    """Read an answer.  Raises BadPacket."""
    if len(data) < 8 or len(data) > 64:
        raise BadPacket("nat-pmp length")
    if data[0] != VERSION:
        raise BadPacket("nat-pmp version")
    result, epoch = int.from_bytes(data[2:4], "big"), int.from_bytes(data[4:8], "big")
    if data[1] == OPCODE_ADDRESS | RESPONSE:
        if not result and len(data) < 12:
            raise BadPacket("nat-pmp length")
        return AddressAnswer(result, epoch, b"" if result else data[8:12])
    if data[1] != OPCODE_MAP_UDP | RESPONSE:
        raise BadPacket("nat-pmp opcode")
    if len(data) < 16:
        if not result:
            raise BadPacket("nat-pmp length")
        return MapAnswer(result, epoch, 0, 0, 0)
    inner, outer = int.from_bytes(data[8:10], "big"), int.from_bytes(data[10:12], "big")
    return MapAnswer(result, epoch, inner, outer, int.from_bytes(data[12:16], "big"))


class EpochWatch:
    """Whether a gateway has lost its state, from its seconds since start and our clock (section 3.6)."""

    __slots__ = ("_at", "_epoch")

    def __init__(self) -> None:
        self._at: float | None = None
        self._epoch = 0

    def is_restarted(self, now: float, epoch: int) -> bool:
        """Note the epoch of an answer, in seconds; True where it is behind what it should be by now."""
        at, before = self._at, self._epoch
        self._at, self._epoch = now, epoch
        return at is not None and epoch < before + (now - at) * 7 / 8 - 2


class NatPmpClient(PortClient):
    """Asks one gateway by NAT-PMP for one mapping."""

    name = "nat-pmp"

    def __init__(self, gateway: Gateway, port: int, secret: bytes, rng: Random, exits: Exits) -> None:
        super().__init__(gateway, port, exits)
        self._tries = Tries(WAITS_SECONDS)
        self._request = b""
        self._host = b""
        """The outside address of the last announcement or answer."""
        self._has_host = self._mapped = False
        self._outer_port = 0
        self._life = 0.0
        self._epoch = EpochWatch()

    def ask(self, now: float, lifetime: int, suggested: Endpoint | None) -> None:
        """Ask for the mapping, anew or again; 0 seconds: for its end."""
        self.outcome = None
        self._deleting = lifetime == 0
        wanted = self._port if suggested is None else int.from_bytes(suggested[-2:], "big")
        self._request = encode_map(self._port, lifetime, 0 if self._deleting else wanted)
        self._has_host, self._mapped = self._deleting, False
        self._tries.begin(now)
        self._send()

    def receive(self, now: float, source: Endpoint, data: bytes) -> None:
        """Take an answer.  Raises BadPacket for what is not one of this gateway's to our question."""
        self._check_source(source)
        answer = decode_answer(data)
        if self._tries.due is None:
            raise BadPacket("nat-pmp not asked")
        is_ours = isinstance(answer, AddressAnswer) or (answer.result != 0 and not answer.inner_port)
        if isinstance(answer, MapAnswer) and not is_ours and answer.inner_port != self._port:
            raise BadPacket("nat-pmp another mapping")
        if self._epoch.is_restarted(now, answer.epoch):
            self._exits.counters["gateway restarted"] += 1
        if answer.result:
            self._finish(Denial(f"nat-pmp {RESULTS.get(answer.result, 'unknown result')}"))
            return
        if isinstance(answer, AddressAnswer):
            self._host, self._has_host = answer.host, True
        elif self._deleting:
            if answer.lifetime:
                raise BadPacket("nat-pmp late grant")
            self._finish(Deleted())
            return
        elif not answer.lifetime:
            raise BadPacket("nat-pmp empty grant")
        else:
            self._outer_port, self._life, self._mapped = answer.outer_port, float(answer.lifetime), True
        if self._has_host and self._mapped:
            self._finish(Grant(Endpoint(self._host + self._outer_port.to_bytes(2, "big")), self._life))

    def announced(self, now: float, source: Endpoint, data: bytes) -> None:
        """Take what came to the group of announcements (section 3.2.1): a reason to ask, never an answer.

        Raises BadPacket.
        """
        self._check_source(source)
        answer = decode_answer(data)
        if not isinstance(answer, AddressAnswer):
            raise BadPacket("nat-pmp no announcement")
        self.restarted |= self._epoch.is_restarted(now, answer.epoch) or (
            not answer.result and answer.host != self._host
        )

    def _send(self) -> None:
        where = self._gateway.at(SERVER_PORT)
        if not self._mapped:
            self._exits.outbox.append((where, self._request))
        if not self._has_host:
            self._exits.outbox.append((where, ADDRESS_REQUEST))
