"""What is kept of a call, and every time that counts.  Only data."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final

from meshcall.calls.events import Ending
from meshcall.handshake.budget import Budget

if TYPE_CHECKING:
    from meshcall.path.paths import Path
    from meshcall.wire.record import DeviceEntry
    from meshcall.wire.talk import Terms

SEEK_SECONDS: Final = 60.0
"""From the command to the first ringing."""
OFFER_SECONDS: Final = 10.0
"""A device that was offered a call and said nothing for so long takes no part."""
OTHERS_SECONDS: Final = 3.0
"""When all devices reached so far are busy, or the like, the others have so long to be reached."""
RING_SECONDS: Final = 60.0
"""The caller lets it ring so long."""
RING_HERE_SECONDS: Final = 75.0
"""The callee, where the caller does not cancel."""
CHECK_SECONDS: Final = 3.0
"""Of silence: the other side is asked whether it still has the call."""
LINE_LOST_SECONDS: Final = 5.0
"""Of silence: the user is told."""
REDIAL_SECONDS: Final = 6.0
"""Of silence: the caller dials anew."""
REDIAL_CALLEE_SECONDS: Final = 10.0
"""The callee, if the caller has not come meanwhile."""
REDIAL_CLOSED_SECONDS: Final = 0.5
REDIAL_CLOSED_CALLEE_SECONDS: Final = 4.0
"""The same after the link has ended."""
FOLLOW_SECONDS: Final = 1.0
"""A link of the call that was silent for so long is left for another one on which the other side is heard."""
LOST_SECONDS: Final = 20.0
"""Of silence: the call is given up."""
EARLY_MAX: Final = 25
"""Voice packets kept of a device that rings, for the case that they overtake its ACCEPT: half a second."""
EARLY_SECONDS: Final = 0.1
"""Older ones are from while it rang; they would look to the jitter buffer like packets half a second late."""
UNHEARD_PER_SECOND: Final = 120.0
UNHEARD_BURST: Final = 60.0
"""Voice packets of a call that rings that are counted for the report: 50 a second by two paths, and a little more."""
LEGS_MAX: Final = 8
"""Links of one call.  A record has 6 devices."""

FAILURES: Final = (
    Ending.BUSY, Ending.NO_ANSWER, Ending.NOT_ADMITTED, Ending.INCOMPATIBLE, Ending.HUNG_UP_THERE, Ending.NO_RESPONSE,
    Ending.NOT_FOUND, Ending.NOT_REACHED,
)  # fmt: skip
"""Why no device rang, the one worth telling first."""


class State(Enum):
    """Of a call; one that is over is not kept."""

    SEEKING = "seeking"
    """Outgoing: looking the record up, dialling, offering."""
    RINGING = "ringing"
    """Outgoing: it rings at one device at least."""
    INCOMING = "incoming"
    """It rings here."""
    UP = "up"


@dataclass(slots=True)
class Leg:
    """A call on one link."""

    link: int
    static: bytes
    """Of the device at the other end."""
    dialled: bool
    """By us; who dialled a link closes it."""
    give_up_at: float | None = None
    """Offered, and no answer yet."""
    theirs: Terms | None = None
    """Once it rings there."""
    is_over: bool = False
    heard_at: float = 0.0
    asked_at: float = 0.0
    """When the other side was last asked whether it has the call."""
    early: deque[tuple[float, Path, bytes]] = field(default_factory=lambda: deque(maxlen=EARLY_MAX))


@dataclass(slots=True)
class Call:
    """One call."""

    number: int
    """Ours."""
    on_wire: int
    """Both sides'; the caller's choice."""
    identity: bytes
    is_caller: bool
    """Whether the call number is of our making."""
    state: State
    ours: Terms
    began: float
    deadline: float
    began_here: bool = False
    """Our user wanted it first; after two called each other, both say so."""
    theirs: Terms | None = None
    is_relayed: bool = False
    """This side's user wants it to stay on relays, whatever the policy."""
    legs: dict[int, Leg] = field(default_factory=dict)
    """By link.  Of a call that is up: the one it goes by, and any that it was taken to."""
    link: int | None = None
    """The one in use, or, before it is up, the first one; None: there is none at present."""
    reach: int | None = None
    """Dials under way."""
    entries: dict[bytes, DeviceEntry] = field(default_factory=dict)
    """Devices of the record, by static key."""
    is_seeking_record: bool = False
    was_offered: bool = False
    failure: tuple[Ending, str] | None = None
    answered_at: float | None = None
    static: bytes = b""
    """Of the device that the call is with, once it is up."""
    is_held: bool = False
    is_muted: bool = False
    """By us, as those of the other side below."""
    held_there: bool = False
    muted_there: bool = False
    heard_at: float = 0.0
    """The other side, by whatever link."""
    closed_at: float | None = None
    """When its link ended; None: it has one."""
    is_line_lost: bool = False
    was_redialled: bool = False
    """Since it was last heard."""
    look_at: float = 0.0
    """When the lines are to be looked at next."""
    unheard: Budget = field(default_factory=lambda: Budget(0.0, UNHEARD_PER_SECOND, UNHEARD_BURST))
    """Of packets counted while it rings."""

    @property
    def tag(self) -> int:
        """What marks its voice packets: the low byte of the call number."""
        return self.on_wire & 0xFF

    def live_legs(self) -> list[Leg]:
        """Those that may still come to something."""
        return [leg for leg in self.legs.values() if not leg.is_over]

    def first_ringing(self) -> Leg | None:
        """While it rings: the leg whose packets are counted, and no other's, as one report is of one stream."""
        return next((leg for leg in self.live_legs() if self.state is State.INCOMING or leg.theirs is not None), None)

    def usable_link(self) -> int | None:
        """Of its links the one heard last; of a call that is up, none on which a RESUME is still unanswered."""
        legs = [leg for leg in self.live_legs() if self.state is not State.UP or leg.give_up_at is None]
        return max(legs, key=lambda leg: leg.heard_at).link if legs else None

    def fail(self, ending: Ending, reason: str = "") -> None:
        """Note why a device does not take the call; the reason most worth telling is kept."""
        if self.failure is None or FAILURES.index(ending) < FAILURES.index(self.failure[0]):
            self.failure = (ending, reason or ending.value)
