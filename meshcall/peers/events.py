"""What the core of all links of a device tells the one above it."""

from __future__ import annotations

from dataclasses import dataclass

from meshcall.handshake.events import Frame
from meshcall.path.events import OutsideSeen, OutsideWanted, ProberStatus
from meshcall.path.paths import Path
from meshcall.peers.ways import SocketsOver
from meshcall.wire.record import RelayLease


@dataclass(frozen=True, slots=True)
class Reached:
    """A device of the identity that was to be reached has proved itself; frames can be sent on `link`."""

    reach: int
    link: int
    path: Path
    hybrid: bool


@dataclass(frozen=True, slots=True)
class Unreached:
    """No device could be reached; `reason` is a sentence.  Nothing more comes of this number."""

    reach: int
    reason: str


@dataclass(frozen=True, slots=True)
class LinkUp:
    """A link is open, of whichever side's making."""

    link: int
    path: Path
    identity: bytes
    static: bytes
    incoming: bool


@dataclass(frozen=True, slots=True)
class LinkDown:
    """A link, or a dial, is over."""

    link: int
    reason: str


@dataclass(frozen=True, slots=True)
class EchoAnswered:
    """An echo came back, by `path`, `seconds` after it was sent."""

    link: int
    number: int
    path: Path
    seconds: float


@dataclass(frozen=True, slots=True)
class PathChanged:
    """Frames of this link go by `best` from now on; None: no path works at present."""

    link: int
    best: Path | None
    second: Path | None
    reason: str


@dataclass(frozen=True, slots=True)
class Moved:
    """The other side's newest packet came by another path than before."""

    link: int
    path: Path


@dataclass(frozen=True, slots=True)
class LeaseMessage:
    """A lease message came by this link's control stream."""

    link: int
    data: bytes


@dataclass(frozen=True, slots=True)
class TalkMessage:
    """A call message came by this link's control stream."""

    link: int
    data: bytes


@dataclass(frozen=True, slots=True)
class RelayInDoubt:
    """The path that carries frames may have failed, and it goes through a relay: its leases should be looked at."""

    path: Path


@dataclass(frozen=True, slots=True)
class PlacesChanged:
    """This device has places at these relays now, the best first."""

    leases: tuple[RelayLease, ...]


PeerEvent = (
    Reached | Unreached | LinkUp | LinkDown | EchoAnswered | PathChanged | Moved | LeaseMessage | TalkMessage
    | RelayInDoubt | PlacesChanged | SocketsOver | OutsideSeen | OutsideWanted | Frame
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """One open link, for `meshcall paths`."""

    link: int
    identity: bytes
    serial: int
    incoming: bool
    trusted: bool
    seconds: float
    """Since it was opened."""
    path: Path
    """The one in use."""
    paths: ProberStatus | None
    """None for a link that carries nothing but lease messages."""
