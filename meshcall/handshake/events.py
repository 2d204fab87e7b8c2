"""What the links of a device tell the one above them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshcall.identity import Certificate
    from meshcall.path.paths import Path


@dataclass(frozen=True, slots=True)
class Established:
    """Both sides have proved who they are.

    Of an incoming link this comes with the first sealed packet that was authentic: only that proves the other
    side's key and that it is there now; before it nothing of this link is told upward.
    """

    link: int
    path: Path
    identity: bytes
    """The other side's identity key."""
    certificate: Certificate
    """Of its device.  It is valid; whether its serial was revoked only the other side's record says."""
    incoming: bool
    hybrid: bool
    """Whether ML-KEM took part."""
    round_trip: float
    """Seconds that the handshake took on this path, at most: a lost datagram makes it longer."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message of the control stream: complete, in order, once."""

    link: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame of one of the kinds for those above: authentic, but maybe late, and others may have been lost."""

    link: int
    path: Path
    kind: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Roamed:
    """The other side's newest packet came on another path than the one in use, which is now in use."""

    link: int
    path: Path


@dataclass(frozen=True, slots=True)
class Closed:
    """The link is over, or could not be made.  One of the reasons below; nothing more comes of this link."""

    link: int
    reason: str


NO_ANSWER = "no answer"
WRONG_IDENTITY = "another identity answered"
CLOSED_BY_PEER = "closed by the other side"
LOST_BY_PEER = "the other side has lost the session"
SILENT = "silence"
KEYS_TOO_OLD = "keys too old"
BROKEN = "stream broken"
NOT_CONFIRMED = "not confirmed"

LinkEvent = Established | Message | Frame | Roamed | Closed
