"""What is kept for one open link."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshcall.handshake.budget import Budget
from meshcall.peers.events import PeerStatus

if TYPE_CHECKING:
    from meshcall.handshake.events import Established
    from meshcall.path.candidates import Trust
    from meshcall.path.paths import Path
    from meshcall.path.prober import Prober

ECHOES_MAX = 256
"""Of one link, unanswered."""
ECHOES_PER_SECOND = 100.0
"""Answered on one link."""

LOOK_SECONDS = 0.04
"""So often at most: with each frame that moment only moves away, and what it waits for is never nearer than 80 ms."""


class Peer:
    """An open link."""

    __slots__ = (
        "asked", "budget", "identity", "incoming", "is_lease", "looked_at", "prober", "serial", "since", "static",
        "trust",
    )  # fmt: skip

    def __init__(self, now: float, event: Established, trust: Trust, *, is_lease: bool) -> None:
        self.identity = event.identity
        self.static = event.certificate.static
        self.serial = event.certificate.serial
        self.incoming = event.incoming
        self.trust = trust
        self.since = now
        self.is_lease = is_lease
        self.looked_at = 0.0
        """When its prober was last asked, after a frame of a stream, when it wants to be woken."""
        self.prober: Prober | None = None
        self.asked: dict[int, float] = {}
        self.budget = Budget(now, ECHOES_PER_SECOND, ECHOES_PER_SECOND)

    def ask(self, now: float, number: int) -> None:
        """An echo of this number leaves; the oldest unanswered ones are forgotten."""
        while len(self.asked) >= ECHOES_MAX:
            del self.asked[next(iter(self.asked))]
        self.asked[number] = now

    def looks(self, now: float) -> bool:
        """Whether it is time, after a frame of a stream, to ask the prober when it wants to be woken."""
        if now - self.looked_at < LOOK_SECONDS:
            return False
        self.looked_at = now
        return True

    def status(self, now: float, link: int, path: Path) -> PeerStatus:
        """A snapshot; `path`: the one in use."""
        return PeerStatus(
            link, self.identity, self.serial, self.incoming, self.trust.tells, now - self.since, path,
            None if self.prober is None else self.prober.status(now),
        )  # fmt: skip
