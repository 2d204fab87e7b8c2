"""A lease holder and several relays in virtual time, with delay, and links that are only numbers."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable

from meshcall.relay.candidate import RelayCandidate
from meshcall.relay.core import RelayCore
from meshcall.relay.holder import Dial, HangUp, LeasesChanged, RelayHolder, Show
from meshcall.relay.places import Place
from meshcall.wire import relay as wire
from meshcall.wire.record import RelayLease
from tests.relay.relay_world import OPEN, Chance, key, place

ONE_WAY = 0.03


class HolderWorld:
    """Relay number n has static key `key(n)` and answers at `place(n)`; it may be down."""

    def __init__(self, relays: int = 3, *, policy=OPEN) -> None:  # type: ignore[no-untyped-def]
        self.now = 0.0
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self.policy = policy
        self.relays: dict[Place, RelayCore] = {}
        self.down: set[Place] = set()
        self.where = place(9999)
        self.holder = RelayHolder(self.now, rng=random.Random(1))
        self.links: dict[int, Place] = {}
        self.last_link = 0
        self.frames = 0
        self.messages = 0
        self.dials = 0
        self.leases: tuple[RelayLease, ...] = ()
        self.events: list[object] = []
        for number in range(1, relays + 1):
            self.start_relay(number)

    def start_relay(self, number: int) -> None:
        self.relays[place(number)] = RelayCore(
            self.now, suite=Chance(number), policy=self.policy, static=key(number), secret=key(number)
        )
        self.down.discard(place(number))
        for link, where in list(self.links.items()):
            if where == place(number):
                del self.links[link]  # what the relay knew of it is gone

    def candidate(self, number: int, round_trip: float = 0.06) -> RelayCandidate:
        return RelayCandidate(key(number), place(number), round_trip=round_trip)  # type: ignore[arg-type]

    def offer(self, *numbers: int) -> None:
        self.holder.offer(self.now, [self.candidate(number) for number in numbers])
        self.drain()

    def later(self, act: Callable[[], None], seconds: float = ONE_WAY) -> None:
        self._order += 1
        heapq.heappush(self._queue, (self.now + seconds, self._order, act))

    def drain(self) -> None:
        holder = self.holder
        for to, data in holder.outbox:
            self.frames += 1
            self.later(lambda to=to, data=data, source=self.where: self.at_relay(to, source, data))
        holder.outbox.clear()
        for link, data in holder.messages:
            self.messages += 1
            self.later(lambda link=link, data=data, source=self.where: self.say_to_relay(link, source, data))
        holder.messages.clear()
        for request in holder.requests:
            match request:
                case Dial(candidate):
                    self.dials += 1
                    self.later(lambda candidate=candidate: self.dialled(candidate), 2 * ONE_WAY)
                case Show(link):
                    self.later(lambda link=link, source=self.where: self.shown(link, source))
                case HangUp(link):
                    self.links.pop(link, None)
        holder.requests.clear()
        for event in holder.events:
            self.events.append(event)
            if isinstance(event, LeasesChanged):
                self.leases = event.leases
        holder.events.clear()
        for where, relay in self.relays.items():
            for to, data in relay.outbox:
                if to == self.where:
                    self.later(lambda where=where, data=data: self.at_holder(where, data))
            relay.outbox.clear()
            for link, data in relay.messages:
                if link in self.links:
                    self.later(lambda link=link, data=data: self.say_to_holder(link, data))
            relay.messages.clear()

    def at_relay(self, to: Place, source: Place, data: bytes) -> None:
        if to not in self.down and to in self.relays:
            self.relays[to].receive(self.now, source, data)

    def at_holder(self, source: Place, data: bytes) -> None:
        if data[1] == wire.TO_HOLDER:
            self.events.append(data)
        else:
            self.holder.receive(self.now, source, data)

    def say_to_relay(self, link: int, source: Place, data: bytes) -> None:
        where = self.links.get(link)
        if where is not None and where not in self.down:
            self.relays[where].message(self.now, link, key(77), key(78), source, data)

    def say_to_holder(self, link: int, data: bytes) -> None:
        self.holder.message(self.now, link, data)

    def shown(self, link: int, source: Place) -> None:
        where = self.links.get(link)
        if where is not None and where not in self.down:
            self.relays[where].moved(self.now, link, source)

    def dialled(self, candidate: RelayCandidate) -> None:
        where = Place(candidate.endpoint)
        if where in self.down:
            return
        self.last_link += 1
        self.links[self.last_link] = where
        self.holder.linked(self.now, candidate.static, self.last_link)

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            self.drain()
            times = [end]
            if self._queue:
                times.append(self._queue[0][0])
            for core in (self.holder, *self.relays.values()):
                due = core.next_wake()
                if due is not None:
                    times.append(max(due, self.now))
            self.now = min(times)
            while self._queue and self._queue[0][0] <= self.now:
                heapq.heappop(self._queue)[2]()
            self.holder.wake(self.now)
            for relay in self.relays.values():
                relay.wake(self.now)
            if self.now >= end:
                self.drain()
                return
            if min(times) == self.now and all(due is None or due <= self.now for due in [self.holder.next_wake()]):
                self.now += 0.001  # a wake in the past makes progress all the same

    def reaches(self, lease: RelayLease) -> bool:
        """Whether a caller's packet to this lease arrives."""
        assert lease.v4 is not None
        relay = Place(lease.v4)
        if relay in self.down:
            return False
        mark = self.frames.to_bytes(8, "big") + self._order.to_bytes(8, "big")
        self.relays[relay].receive(self.now, place(4000), wire.frame(wire.TO_LEASE, lease.lease_id, mark))
        self.run(0.1)
        return any(isinstance(event, bytes) and event.endswith(mark) for event in self.events)
