"""What the calls of a device tell the one above them.  `call` is this device's own number of a call, never used twice.

`at` is the monotonic time at which it happened.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from meshcall.calls.policy import Standing

if TYPE_CHECKING:
    from meshcall.path.paths import Path
    from meshcall.wire.talk import Terms


class Ending(Enum):
    """Why a call is over; the value is the sentence for the user of this side."""

    HUNG_UP = "You hung up."
    HUNG_UP_THERE = "The other side hung up."
    WITHDRAWN = "You hung up before it was answered."
    WITHDRAWN_THERE = "The caller hung up before it was answered."
    DECLINED = "They declined the call."
    DECLINED_HERE = "You declined the call."
    BUSY = "They are in another call."
    NOT_ADMITTED = (
        "You are not among their contacts, so it does not ring there; your request waits for them to admit you."
    )
    INCOMPATIBLE = "Their version of meshcall and this one have no way to speak with each other."
    NOT_FOUND = "They could not be found."
    NOT_REACHED = "None of their devices could be reached."
    NO_RESPONSE = "Their device was reached, but said nothing to the call."
    NO_ANSWER = "It rang, and nobody answered."
    MISSED = "It rang here, and was not answered in time."
    ANSWERED_ELSEWHERE = "Another device answered the call."
    DECLINED_ELSEWHERE = "Another device declined the call."
    CALLER_GONE = "The line to the caller broke before the call was answered."
    LINE_LOST = "The line broke, and did not come back in time."
    LINE_LOST_THERE = "The other side heard nothing any more and gave the call up."
    GONE_THERE = "The other side no longer has the call; its meshcall was started anew."
    TROUBLE_THERE = "The other side's device could not go on with the call."
    TROUBLE = "This device could not go on with the call."


@dataclass(frozen=True, slots=True)
class CallResolved:
    """Outgoing: the record was found; so many devices in it can be called."""

    call: int
    at: float
    devices: int


@dataclass(frozen=True, slots=True)
class CallLinked:
    """Outgoing: the first device has proved itself, and the call was offered to it."""

    call: int
    at: float
    link: int
    path: Path


@dataclass(frozen=True, slots=True)
class CallRinging:
    """Outgoing: it rings at the first device.  Voice packets (silence) are to be sent from now on."""

    call: int
    at: float
    theirs: Terms


@dataclass(frozen=True, slots=True)
class CallIncoming:
    """Somebody's call rings here.  Voice packets (silence) are to be sent from now on."""

    call: int
    at: float
    identity: bytes
    standing: Standing
    link: int
    path: Path
    theirs: Terms


@dataclass(frozen=True, slots=True)
class CallAnswered:
    """The call is up, on `link`."""

    call: int
    at: float
    link: int
    path: Path
    theirs: Terms
    automatic: bool
    """Answered here without asking: by the policy, or because both called each other."""


@dataclass(frozen=True, slots=True)
class CallPath:
    """The call goes by another path from now on; None: by none that works."""

    call: int
    at: float
    best: Path | None
    second: Path | None
    reason: str


@dataclass(frozen=True, slots=True)
class CallHeld:
    """The other side has put the call on hold, or taken it back."""

    call: int
    at: float
    held: bool


@dataclass(frozen=True, slots=True)
class CallMuted:
    """The other side has switched its microphone off or on."""

    call: int
    at: float
    muted: bool


@dataclass(frozen=True, slots=True)
class CallLineLost:
    """Nothing has come for some seconds; the call waits for the line to come back."""

    call: int
    at: float


@dataclass(frozen=True, slots=True)
class CallLineBack:
    """The other side is heard again, on `link`, which is another one where it had to be dialled again."""

    call: int
    at: float
    link: int


@dataclass(frozen=True, slots=True)
class CallEnded:
    """Nothing more comes of this call."""

    call: int
    at: float
    ending: Ending
    reason: str
    """A sentence for the user: that of `ending`, or a more exact one."""
    seconds: float | None
    """How long it was up; None: it was never answered."""


@dataclass(frozen=True, slots=True)
class CallRequested:
    """Somebody who is no contact wants to call; it does not ring.  Told once for each, `Calls.strangers` has them."""

    identity: bytes
    at: float


@dataclass(frozen=True, slots=True)
class VoiceArrived:
    """The payload of a voice packet, never looked into; `at`: when it came, which may be a little before now."""

    call: int
    data: bytes
    path: Path
    at: float


@dataclass(frozen=True, slots=True)
class VoiceUnheard:
    """The payload of a voice packet of a call that rings: it is to be counted for the report, never decoded or kept.

    All are of one device, as long as that takes part; `at` as above.
    """

    call: int
    link: int
    data: bytes
    path: Path
    at: float


CallEvent = (
    CallResolved | CallLinked | CallRinging | CallIncoming | CallAnswered | CallPath | CallHeld | CallMuted
    | CallLineLost | CallLineBack | CallEnded | CallRequested | VoiceArrived | VoiceUnheard
)  # fmt: skip
