"""A world: hosts at their places, switched on and off, and the network between them.

All hosts have distinct addresses that look public, spread over many subnets, so that everything
which depends on addresses (node IDs bound to them, quotas per subnet) is in force as it would be
outside.  Three generators of chance from one seed: for the world, the network, and the cores.
"""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import TYPE_CHECKING, Any, Protocol

from meshcall.core import Endpoint
from meshcall.dht.config import DhtConfig
from meshcall.dht.events import Joined
from meshcall.sim.churn import Lifetimes
from meshcall.sim.geography import Flatland, Geography
from meshcall.sim.host import CoreFactory, Host, new_dht
from meshcall.sim.nat import NAT_KINDS, Expiry, Nat
from meshcall.sim.network import Network
from meshcall.sim.paper_suite import PaperSuite
from meshcall.sim.schedule import Schedule

if TYPE_CHECKING:
    from meshcall.dht.table import Identity
    from meshcall.sim.geography import Line
    from meshcall.sim.scenario import Scenario

BIRTH_SECONDS = 1000.0
"""Virtual time begins here: a core must not take zero for a time."""
PORT = 6881
CONTACTS_SAVED = 100
"""Contacts that a host keeps while it is switched off."""
_RESERVED = (
    (0x00000000, 8), (0x0A000000, 8), (0x64400000, 10), (0x7F000000, 8), (0xA9FE0000, 16), (0xAC100000, 12),
    (0xC0000000, 24), (0xC0000200, 24), (0xC0586300, 24), (0xC0A80000, 16), (0xC6120000, 15), (0xC6336400, 24),
    (0xCB007100, 24), (0xE0000000, 3),
)  # fmt: skip
"""Blocks that are not the open internet's (RFC 6890, and multicast)."""


class Listener(Protocol):
    """Somebody who is told what cores say."""

    def heard(self, now: float, host: Host, event: Any) -> None:
        """A core said an event."""
        ...

    def gone(self, now: float, host: Host) -> None:
        """A host was switched off."""
        ...


class World:
    """Everything there is, and the switches to it."""

    def __init__(self, scenario: Scenario, nodes: int, seed: int, new_core: CoreFactory = new_dht) -> None:
        self.scenario = scenario
        self.settings = scenario.world
        self.rng = Random(f"{seed} world")
        self.chance = Random(f"{seed} cores")
        self.schedule = Schedule(BIRTH_SECONDS)
        if self.settings.model == "flat":
            self.geography: Geography = Flatland(*self.settings.delay_ms)
        else:
            self.geography = Geography(self.settings.access)
        self.network = Network(self.schedule, self.geography, Random(f"{seed} network"))
        self.suite = PaperSuite(self.rng)
        self.config = DhtConfig(k=scenario.node.k, reachable=scenario.node.reachable)
        self.listeners: list[Listener] = []
        self.hosts: list[Host] = []
        self.lines: list[Line] = []
        self.routers: list[Endpoint] = []
        self.counters: Counter[str] = Counter()
        """What the cores counted that are no more."""
        self.kinds: Counter[str] = Counter()
        """Hosts by what they are behind."""
        self.ready: list[Host] = []
        """Hosts that are on and have found their place, in no order that means anything."""
        self.online = 0
        self.churning = False
        self.spared: set[int] = set()
        """Hosts that churn leaves alone."""
        self._new_core = new_core
        self._pool: dict[bytes, Identity] = {}
        """What the tables of all cores know of each other, so that it is in memory once."""
        self._seats: dict[int, int] = {}
        self._saved: dict[int, list[tuple[bytes, Endpoint]]] = {}
        self._killed: list[Host] = []
        self._addresses: dict[int, None] = {}
        self._boxes: list[tuple[Nat, list[Host]]] = []
        self._expiry = Expiry(self.settings.nat_life_seconds)
        self._lifetimes = Lifetimes(scenario.churn)
        for number in range(nodes):
            self.add_host(router=number < self.settings.routers)

    # ---- building

    def add_host(self, *, router: bool = False) -> Host:
        """A new host somewhere, still switched off."""
        rng, settings = self.rng, self.settings
        number = len(self.hosts)
        if router or rng.random() < settings.public:
            line = self.new_line("datacentre" if router and settings.model != "flat" else None)
            endpoint = Endpoint(self.new_address() + PORT.to_bytes(2, "big"))
            host = self._host(number, endpoint, line, None)
            self.network.doors[endpoint] = host
            self.kinds["public"] += 1
        else:
            shares = self._boxes and rng.random() < settings.nat_shared
            nat, members = rng.choice(self._boxes) if shares else self._box()
            inside = 0xC0A80001 + len(members) + 1
            host = self._host(number, Endpoint(inside.to_bytes(4, "big") + PORT.to_bytes(2, "big")), nat.line, nat)
            members.append(host)
            self.kinds[next(name for name, kind in NAT_KINDS.items() if kind == nat.kind)] += 1
        if router:
            self.routers.append(host.endpoint)
            self.spared.add(number)
        self.hosts.append(host)
        return host

    def _host(self, number: int, endpoint: Endpoint, line: Line, nat: Nat | None) -> Host:
        return Host(number, endpoint, line, nat, self.network, self.schedule, self._heard)

    def new_line(self, kind: str | None = None) -> Line:
        """An access line somewhere, of this kind or of one drawn."""
        line = self.geography.line(self.rng, kind)
        self.lines.append(line)
        return line

    def _box(self) -> tuple[Nat, list[Host]]:
        kinds = self.settings.nat
        [name] = self.rng.choices(list(kinds), list(kinds.values()))
        nat = Nat(self.new_address(), self.new_line(), NAT_KINDS[name], self.rng, self._expiry)
        self.network.boxes[nat.address] = nat
        members: list[Host] = []
        self._boxes.append((nat, members))
        return nat, members

    def new_address(self) -> bytes:
        """A public IPv4 address that nobody has; some have neighbours in their /24."""
        rng, taken = self.rng, self._addresses
        while True:
            if self.hosts and rng.random() < self.settings.neighbours:
                other = self.hosts[rng.randrange(len(self.hosts))]
                block = other.endpoint[:4] if other.nat is None else other.nat.address
                address = int.from_bytes(block, "big") & 0xFFFFFF00 | rng.randrange(1, 255)
            else:
                address = rng.getrandbits(32) & 0xFFFFFF00 | rng.randrange(1, 255)
            reserved = any(address >> 32 - bits == block >> 32 - bits for block, bits in _RESERVED)
            if address not in taken and not reserved:
                taken[address] = None
                return address.to_bytes(4, "big")

    # ---- switching

    def switch_on(self, now: float, host: Host) -> None:
        """Give a host a fresh core that knows its saved contacts, or else the routers."""
        if host.core is not None:
            return
        core = self._new_core(now, rng=self.chance, verifier=self.suite, config=self.config, pool=self._pool)
        host.switch(core)
        self.online += 1
        core.set_local_addresses(now, [host.endpoint])
        saved = self._saved.pop(host.number, None)
        if saved:
            core.restore(now, saved)
        core.bootstrap(now, [router for router in self.routers if router != host.endpoint])
        host.drain(now)
        if self.churning and host.number not in self.spared:
            self._doom(now, host, self._lifetimes.session(self.rng))

    def switch_off(self, now: float, host: Host) -> None:
        """As a power cut does it: from one moment to the next nothing comes from the host any more."""
        core = host.core
        if core is None:
            return
        self._saved[host.number] = core.good_contacts(CONTACTS_SAVED)
        self.counters.update(core.counters)
        host.switch(None)
        self.online -= 1
        seat = self._seats.pop(host.number, None)
        if seat is not None:
            last = self.ready.pop()
            if last is not host:
                self.ready[seat] = last
                self._seats[last.number] = seat
        for listener in self.listeners:
            listener.gone(now, host)

    def remove(self, now: float, host: Host) -> None:
        """Switch a host off for ever and free its address."""
        self.switch_off(now, host)
        self._saved.pop(host.number, None)
        if host.nat is None:
            self.network.doors.pop(host.endpoint, None)

    def is_ready(self, host: Host) -> bool:
        """Whether the host is on and has found its place."""
        return host.number in self._seats

    def _heard(self, now: float, host: Host, event: Any) -> None:
        if type(event) is Joined and host.number not in self._seats and host.core is not None:
            self._seats[host.number] = len(self.ready)
            self.ready.append(host)
        for listener in self.listeners:
            listener.heard(now, host, event)

    # ---- what happens to many at once

    def begin_churn(self, now: float) -> None:
        """From now on hosts leave and come back, as if it had always been so."""
        if not self._lifetimes.active:
            return
        self.churning = True
        for host in self.hosts:
            if host.core is not None and host.number not in self.spared:
                self._doom(now, host, self._lifetimes.remainder(self.rng))

    def end_churn(self) -> None:
        """Nobody leaves any more; those who are away stay away."""
        self.churning = False

    def _doom(self, now: float, host: Host, life: float) -> None:
        core = host.core

        def end(now: float) -> None:
            if self.churning and host.core is core and host.number not in self.spared:
                self._leave(now, host)

        self.schedule.call(now + life, end)

    def _leave(self, now: float, host: Host) -> None:
        comes_back = self.rng.random() < self.scenario.churn.return_share
        if comes_back:
            self.switch_off(now, host)
        else:
            self.remove(now, host)

        def back(now: float) -> None:
            if self.churning:
                self.switch_on(now, host if comes_back else self.add_host())

        self.schedule.call(now + self._lifetimes.away(self.rng), back)

    def kill(self, now: float, share: float) -> int:
        """Switch off this share of the hosts that are on, the routers spared; how many it were."""
        alive = [host for host in self.hosts if host.core is not None]
        candidates = [host for host in alive if host.endpoint not in self.routers]
        victims = self.rng.sample(candidates, min(len(candidates), round(share * len(alive))))
        for host in victims:
            self.switch_off(now, host)
        self._killed += victims
        return len(victims)

    def revive(self, now: float, seconds: float) -> int:
        """Switch those that were killed on again, spread over a time; how many they are."""
        victims, self._killed = self._killed, []
        for number, host in enumerate(victims):
            self.schedule.at(now + seconds * number / len(victims), self._revive, host)
        return len(victims)

    def _revive(self, now: float, host: Host, _second: None, _third: None) -> None:
        self.switch_on(now, host)

    def partition(self, share: float, regions: tuple[str, ...]) -> None:
        """Cut the network in two, by regions or by chance."""
        for line in self.lines:
            line.side = int(self.geography.sites[line.site].region in regions)
        if not regions:
            for line in self.rng.sample(self.lines, round(share * len(self.lines))):
                line.side = 1
        self.network.split(True)

    def heal(self) -> None:
        """Everybody can reach everybody again."""
        self.network.split(False)

    def refused_by_nats(self) -> int:
        """Datagrams that NAT boxes did not let in."""
        return sum(nat.refused for nat, _ in self._boxes)

    def totals(self) -> Counter[str]:
        """What all cores counted, those of the living and of the dead."""
        totals = self.counters.copy()
        for host in self.hosts:
            if host.core is not None:
                totals.update(host.core.counters)
        return totals
