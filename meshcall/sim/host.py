"""One node in the world: the drain rule, with the world's heap in place of a socket.

One mutation of the core (`receive`, `wake` or a command), then its outbox and events are emptied
and `next_wake` is read.  A host has one live wake-up in the heap; it is armed anew only when the
core wants to be woken sooner, and checked when it goes off.
"""

from __future__ import annotations

from heapq import heappush
from math import inf
from typing import TYPE_CHECKING, Any, Protocol

from meshcall.core import Core, Endpoint
from meshcall.dht.node import Dht

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from random import Random

    from meshcall.crypto.suite import Verifier
    from meshcall.dht.config import DhtConfig
    from meshcall.dht.items import Item
    from meshcall.dht.table import Identity
    from meshcall.sim.geography import Line
    from meshcall.sim.nat import Nat
    from meshcall.sim.network import Network
    from meshcall.sim.schedule import Entry, Schedule


TICK_SECONDS = 0.0005
"""A core that wants to be woken again at once waits so long: virtual time always moves on."""


class NodeCore(Core, Protocol):
    """What the world asks of a node's core beyond the five members."""

    counters: dict[str, int]
    events: list[Any]

    def bootstrap(self, now: float, endpoints: Iterable[Endpoint]) -> None: ...
    def restore(self, now: float, contacts: Iterable[tuple[bytes, Endpoint]]) -> None: ...
    def good_contacts(self, limit: int = 200) -> list[tuple[bytes, Endpoint]]: ...
    def set_local_addresses(self, now: float, endpoints: Iterable[Endpoint]) -> None: ...
    def get_mutable(self, now: float, public: bytes, salt: bytes = b"") -> int: ...
    def put(self, now: float, item: Item) -> int: ...


class CoreFactory(Protocol):
    """Makes the core of a host that is switched on."""

    def __call__(
        self, now: float, rng: Random, verifier: Verifier, config: DhtConfig, pool: dict[bytes, Identity]
    ) -> NodeCore: ...


def new_dht(now: float, rng: Random, verifier: Verifier, config: DhtConfig, pool: dict[bytes, Identity]) -> NodeCore:
    """The very core that the daemon runs.  The only place where it is chosen."""
    return Dht(now, rng=rng, verifier=verifier, config=config, pool=pool)


class Host:
    """A node at its place.  `core` is None while it is switched off; nothing comes back from it then."""

    __slots__ = (
        "armed", "core", "endpoint", "line", "listener", "nat", "network", "number", "received", "schedule", "sent",
    )  # fmt: skip

    def __init__(
        self,
        number: int,
        endpoint: Endpoint,
        line: Line,
        nat: Nat | None,
        network: Network,
        schedule: Schedule,
        listener: Callable[[float, Host, Any], None],
    ) -> None:
        self.number = number
        self.endpoint = endpoint
        """What its socket is bound to: public, or private behind `nat`."""
        self.line = line
        self.nat = nat
        self.network = network
        self.schedule = schedule
        self.listener = listener
        """Hears the core's events."""
        self.core: NodeCore | None = None
        self.armed = inf
        self.sent = 0
        self.received = 0

    def switch(self, core: NodeCore | None) -> None:
        """Run this core from now on, or none; what was armed for the one before is void."""
        self.core = core
        self.armed = inf

    def arrive(self, now: float, source: Endpoint, dest: Endpoint, data: bytes) -> None:
        """Take a datagram from the network."""
        core = self.core
        if core is not None:
            self.received += 1
            self.network.delivered_to_host(now, source, dest, data)
            core.receive(now, source, data)
            self.drain(now)

    def wake(self, now: float, _first: None, _second: None, _third: None) -> None:
        """The wake-up went off; whether the core still wants it is asked now."""
        core = self.core
        if now != self.armed or core is None:
            return  # another one was armed since
        self.armed = inf
        due = core.next_wake()
        if due is None:
            return
        if due > now:
            self._arm(due)
        else:
            core.wake(now)
            self.drain(now, now + TICK_SECONDS)

    def drain(self, now: float, soonest: float = 0.0) -> None:
        """Send, hand on, re-arm; to be called after each mutation of the core."""
        core = self.core
        if core is None:
            return
        outbox = core.outbox
        if outbox:
            send = self.network.send
            for dest, data in outbox:
                send(now, self, dest, data)
            self.sent += len(outbox)
            outbox.clear()
        if core.events:
            events, core.events[:] = list(core.events), ()
            for event in events:
                self.listener(now, self, event)
        due = core.next_wake()
        if due is not None and due < self.armed:
            self._arm(max(due, now, soonest))

    def _arm(self, when: float) -> None:
        self.armed = when
        schedule = self.schedule
        entry: Entry = (when, next(schedule.number), self.wake, None, None, None)
        heappush(schedule.heap, entry)
