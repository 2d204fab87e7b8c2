"""Devices with links, and a pretend wire between them in virtual time."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from random import Random
from typing import Any, TypeVar

from meshcall.core import endpoint
from meshcall.crypto.kem import MlKem768
from meshcall.crypto.sodium import Sodium
from meshcall.crypto.suite import Suite
from meshcall.handshake.dial import Callee
from meshcall.handshake.events import Closed, Established, Frame, LinkEvent, Message
from meshcall.handshake.links import Links
from meshcall.identity import Device, Identity
from meshcall.path.paths import Path, direct
from meshcall.sim.paper_kem import PaperKem
from meshcall.sim.paper_suite import PaperSuite

UNIX = 1_800_000_000.0
Event = TypeVar("Event", Established, Message, Frame, Closed)
Change = Callable[[bytes], list[bytes]]
"""What the wire makes of a datagram: nothing, it, or others."""


class Party:
    """A device of an identity, at an address."""

    def __init__(self, name: str, host: str, *, suite: Suite, kem: Any, now: float, clock: float) -> None:
        self.name = name
        self.suite = suite
        self.kem = kem
        self.identity = Identity.new(suite)
        self.device = Device.new(suite)
        self.certificate = self.device.certify(suite, self.identity, UNIX)
        self.path = direct(endpoint(host, 4000))
        self.clock = clock
        self.events: list[LinkEvent] = []
        self.links: Links
        self.restart(now)

    def restart(self, now: float) -> None:
        """All sessions are lost; the keys are not."""
        self.links = Links(
            now, UNIX + now + self.clock, suite=self.suite, kem=self.kem, device=self.device,
            identity=self.identity.public, certificate=self.certificate, resets=True,
        )  # fmt: skip

    def callee(self, *, hybrid: bool | None = None) -> Callee:
        return Callee(self.device.public, self.identity.public, self.kem is not None if hybrid is None else hybrid)

    def take(self, kind: type[Event]) -> list[Event]:
        """All events of a kind so far, removed."""
        found = [event for event in self.events if isinstance(event, kind)]
        self.events = [event for event in self.events if not isinstance(event, kind)]
        return found


class Wire:
    """Virtual time, delay, and whatever a test does to datagrams."""

    def __init__(self, *, paper: bool = False, delay: float = 0.02, seed: int = 1) -> None:
        self.rng = Random(seed)
        self.suite: Suite = PaperSuite(self.rng) if paper else Sodium()
        self.make_kem: Callable[[], Any] = (lambda: PaperKem(self.rng)) if paper else MlKem768
        self.now = 100.0
        self.delay = delay
        self.parties: dict[Path, Party] = {}
        self.change: Change | None = None
        self.sent: list[tuple[Path, Path, bytes]] = []
        """Everything that was ever sent: from, to, what."""
        self.flying: list[tuple[float, int, Path, Path, bytes]] = []
        self._order = 0

    def party(self, name: str, *, kem: bool = True, clock: float = 0.0) -> Party:
        host = f"192.0.2.{len(self.parties) + 1}"
        party = Party(
            name, host, suite=self.suite, kem=self.make_kem() if kem else None, now=self.now, clock=clock
        )  # fmt: skip
        self.parties[party.path] = party
        return party

    def move(self, party: Party, host: str) -> None:
        """The party has another address from now on."""
        del self.parties[party.path]
        party.path = direct(endpoint(host, 4000))
        self.parties[party.path] = party

    def collect(self) -> None:
        """What the parties want to send goes on the wire; their events are kept."""
        for party in list(self.parties.values()):
            for target, datagram in party.links.outbox:
                self.sent.append((party.path, target, datagram))
                for changed in [datagram] if self.change is None else self.change(datagram):
                    self.throw(party.path, target, changed)
            party.links.outbox.clear()
            party.events += party.links.events
            party.links.events.clear()

    def throw(self, source: Path, target: Path, datagram: bytes, delay: float | None = None) -> None:
        """A datagram on the wire."""
        self._order += 1
        when = self.now + (self.delay if delay is None else delay)
        heapq.heappush(self.flying, (when, self._order, source, target, datagram))

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        self.collect()
        for _ in range(200_000):
            when = self._next()
            if when is None or when > end:
                break
            self.now = max(self.now, when)
            self._turn()
            self.collect()
        else:
            raise AssertionError("the parties never rest")
        self.now = end

    def _next(self) -> float | None:
        times = [wake for party in self.parties.values() if (wake := party.links.next_wake()) is not None]
        if self.flying:
            times.append(self.flying[0][0])
        return min(times, default=None)

    def _turn(self) -> None:
        if self.flying and self.flying[0][0] <= self.now:
            _, _, source, target, datagram = heapq.heappop(self.flying)
            party = self.parties.get(target)
            if party is not None:
                party.links.receive(self.now, source, datagram)
            return
        for party in list(self.parties.values()):
            wake = party.links.next_wake()
            if wake is not None and wake <= self.now:
                party.links.wake(self.now)

    def dial(self, caller: Party, callee: Party, **options: Any) -> int:
        """Call along the direct path."""
        return caller.links.dial(self.now, [callee.path], callee.callee(), **options)

    def connect(self, caller: Party, callee: Party) -> tuple[int, int]:
        """A link between two; its numbers at both ends."""
        number = self.dial(caller, callee)
        self.run(1.0)
        out, into = caller.take(Established), callee.take(Established)
        assert [event.link for event in out] == [number]
        assert len(into) == 1
        return number, into[0].link


def pieces(wire: Wire) -> Iterator[bytes]:
    """All handshake pieces that were sent."""
    return (datagram for _, _, datagram in wire.sent if datagram[0] == 0x10)
