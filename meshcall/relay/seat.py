"""One relay where a holder has, or wants, a place: how far it has come, and the leases there.  Only data."""

from __future__ import annotations

from enum import Enum, auto

from meshcall.relay.candidate import RelayCandidate
from meshcall.relay.places import Place, is_tcp_place, tcp_place, udp_place
from meshcall.wire import relay as wire

LEASES_MAX = 3
"""At one relay: the newest, and older ones that records may still name."""
ASKED_MAX = 16
_NUMBERS = 2**16


class Stage(Enum):
    """How far it has come with a relay."""

    DIALING = auto()
    """A link is being opened."""
    ASKING = auto()
    """The link is open, or there is a pause before the next dial; leases are asked for."""
    PROVING = auto()
    """Granted; the relay is to see that we are where we say."""
    HELD = auto()
    """Whoever writes to the lease reaches us."""


class Held:
    """A lease that was granted."""

    __slots__ = ("expires", "is_known", "lease_id", "renew_at", "salt", "until")

    def __init__(self, lease_id: bytes, salt: bytes) -> None:
        self.lease_id = lease_id
        self.salt = salt
        self.is_known = False
        """Whether the relay has confirmed that we are where it sends to."""
        self.renew_at = float("inf")
        self.expires = float("inf")
        self.until = float("inf")
        """When it is given back, because a newer one took its place."""


class Seat:
    """A relay and our leases there, the newest last."""

    __slots__ = (
        "_number",
        "asked",
        "candidate",
        "checked_at",
        "due",
        "give_up_at",
        "leases",
        "link",
        "nonce",
        "place",
        "shown_at",
        "stage",
        "tcp_port",
        "tries",
    )  # fmt: skip

    def __init__(self, candidate: RelayCandidate) -> None:
        self.candidate = candidate
        self.place: Place = udp_place(candidate.endpoint)
        self.stage = Stage.DIALING
        self.link: int | None = None
        self.leases: list[Held] = []
        self.asked: dict[int, wire.LeaseRequest | wire.LeaseRenew] = {}
        """Lease messages without an answer yet, by number."""
        self.due = 0.0
        """When this stage's next step is due."""
        self.give_up_at: float | None = None
        """While the relay is lost: until when it is tried again."""
        self.nonce = b""
        """Of the check under way; empty without one."""
        self.tries = 0
        self.checked_at = float("-inf")
        """When a check was last sent."""
        self.shown_at = float("-inf")
        """When something authentic was last sent because a connection ended."""
        self.tcp_port: int | None = None
        self._number = 0

    @property
    def static(self) -> bytes:
        """The relay's key."""
        return self.candidate.static

    @property
    def is_tcp(self) -> bool:
        """Whether we reach it over TCP."""
        return is_tcp_place(self.place)

    def set_place(self, tcp: bool) -> None:
        """Reach the relay over TCP or UDP from here on."""
        where = self.candidate.tcp_endpoint
        self.place = tcp_place(where, 0) if tcp and where is not None else udp_place(self.candidate.endpoint)

    def number(self) -> int:
        """A fresh number for a lease message; the oldest unanswered ones are forgotten."""
        self._number = (self._number + 1) % _NUMBERS
        while len(self.asked) >= ASKED_MAX:
            del self.asked[next(iter(self.asked))]
        return self._number

    def find(self, lease_id: bytes) -> Held | None:
        """Our lease with this id."""
        return next((held for held in self.leases if held.lease_id == lease_id), None)

    def add(self, held: Held) -> None:
        """A new lease; the oldest goes where there are too many."""
        self.leases.append(held)
        del self.leases[:-LEASES_MAX]

    def forget(self, lease_id: bytes) -> bool:
        """Drop a lease; whether there was one."""
        held = self.find(lease_id)
        if held is not None:
            self.leases.remove(held)
        return held is not None

    def next_due(self) -> float:
        """When something is to be done here."""
        if self.stage is not Stage.HELD or self.link is None:
            return self.due
        return min([self.due, *(min(held.renew_at, held.until) for held in self.leases)])
