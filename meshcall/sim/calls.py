"""People with whole nodes who call each other: look up, reach, send echoes, hang up; and what came of each call.

They call in rounds, in which everybody is in one call at most.  Callers and callees know each other, so
they may learn each other's addresses; no record names any, so that every call begins at a relay.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any

from meshcall.address import Link
from meshcall.core import Endpoint
from meshcall.dht.config import DhtConfig
from meshcall.identity import Device as Keys
from meshcall.identity import Identity
from meshcall.node import LookupEvent, Node
from meshcall.path.paths import endpoint_of, is_relayed
from meshcall.peers.events import EchoAnswered, LinkDown, PathChanged, Reached, Unreached
from meshcall.peers.policy import PeerPolicy
from meshcall.peers.station import RelayPlan
from meshcall.record.events import RecordFound, RecordUpdated
from meshcall.relay.policy import RelayPolicy
from meshcall.sim.access import ACCESS_KINDS, BARS_UDP, new_place
from meshcall.sim.device import Device
from meshcall.sim.nat import Expiry
from meshcall.sim.paper_kem import PaperKem
from meshcall.sim.streams import TCP_PORT, Streams

if TYPE_CHECKING:
    from meshcall.path.paths import Path
    from meshcall.sim.scenario import Calls
    from meshcall.sim.world import World

UNIX_SECONDS = 1_700_000_000.0
"""The calendar when virtual time was 0."""
PORT = 6881
HAIR_SECONDS = 0.001
SILENT_SECONDS = 2.0
"""A call in which nothing came back for so long before its end is broken."""
RELAYS_KNOWN = 3
"""Who has no UDP knows so many relays beforehand."""
FIRST_NUMBER = 1_000_000
"""Devices are numbered from here, so that they are not taken for hosts of the DHT alone."""


@dataclass(slots=True)
class Member:
    """Somebody with a device: a person, or a volunteer with a relay."""

    kind: str
    """Of access; "relay" for a volunteer."""
    device: Device
    identity: Identity
    keys: Keys


@dataclass(slots=True)
class Call:
    """One call.  Moments are in virtual time; None: it never came."""

    caller: Member
    callee: Member
    began: float
    phase: str
    """In which it began, or of the newest event that struck it."""
    reach: int = 0
    lookup: int = 0
    link: int | None = None
    found: float | None = None
    reached: float | None = None
    first: float | None = None
    """The first echo came back."""
    direct: float | None = None
    """The caller's frames went by a direct path."""
    best: Path | None = None
    sent: int = 0
    answered: int = 0
    gap: float = 0.0
    """The longest time between two echoes that came back, or after the last."""
    last: float | None = None
    struck: float | None = None
    """When a fault hit this call; `gap` is the longest since."""
    ended: bool = False
    reason: str = ""
    relays: set[Endpoint] = field(default_factory=set)

    @property
    def outcome(self) -> str:
        """How it went at its end."""
        if self.first is None or self.last is None:
            return "failed"
        if self.reason:
            return "broken"
        return "relayed" if self.best is None or is_relayed(self.best) else "direct"


class Callers:
    """All members of a world, and their calls."""

    def __init__(self, world: World, settings: Calls) -> None:
        self.world = world
        self.settings = settings
        self.relays: list[Member] = []
        self.people: list[Member] = []
        self.calls: list[Call] = []
        self.phase = ""
        self.streams = Streams(world.network, world.schedule)
        self._expiry = Expiry(world.settings.nat_life_seconds)
        self._open: list[Call] = []
        self._by_reach: dict[tuple[int, int], Call] = {}
        self._by_lookup: dict[tuple[int, int], Call] = {}
        self._by_link: dict[tuple[int, int], Call] = {}
        self._round = 0
        self._last_begins = 0.0
        self._has_tcp = any(settings.access.get(kind) for kind in BARS_UDP)
        """Relays take TCP in worlds where somebody needs it."""
        self._add_all()
        self._known = frozenset(member.identity.public for member in self.people)

    def _add_all(self) -> None:
        settings, rng = self.settings, self.world.rng
        rate = settings.relay_uplink_kbit * 125
        for _ in range(settings.relays):
            self.relays.append(self._member("public", rate, "relay"))
        kinds = [kind for kind, weight in settings.access.items() if weight]
        if settings.pattern == "matrix":
            drawn = [kind for kind in kinds for _ in range(settings.people)] * 2
        else:
            drawn = rng.choices(kinds, [settings.access[kind] for kind in kinds], k=settings.people)
        for kind in drawn:
            self.people.append(self._member(kind, inf, kind))

    def _member(self, access: str, uplink: float, kind: str) -> Member:
        world = self.world
        number = FIRST_NUMBER + len(self.relays) + len(self.people)
        place = new_place(world, access, world.rng, self._expiry)
        device = Device(world, number, place, PORT, self._heard, self.streams, uplink)
        suite = world.suite
        return Member(kind, device, Identity.new(suite), Keys.new(suite))

    # Switching

    def switch_on(self, now: float, member: Member) -> None:
        """A fresh node with the member's keys."""
        world, is_relay = self.world, member.kind == "relay"
        plan = RelayPlan()
        if is_relay:
            budget = int(self.settings.relay_uplink_kbit * 125)
            plan = RelayPlan(
                0, RelayPolicy(mode="open", bytes_per_second=budget), tcp_port=TCP_PORT if self._has_tcp else None
            )
            if self._has_tcp:
                where = member.device.endpoint
                self.streams.listeners[Endpoint(where[:-2] + TCP_PORT.to_bytes(2, "big"))] = member.device
        node = Node(
            now, UNIX_SECONDS + now, rng=world.chance, suite=world.suite, kem=PaperKem(world.chance),
            config=DhtConfig(k=world.scenario.node.k, reachable="yes" if is_relay else "auto"),
            policy=PeerPolicy(self._known), plan=plan,
        )  # fmt: skip
        member.device.run(now, node)
        node.start(now, world.routers)
        if member.device.place.bars_udp:  # its owner was told of some relays; how else would it begin?
            known = world.rng.sample(self.relays, min(RELAYS_KNOWN, len(self.relays)))
            node.carrier.offer(now, [relay.device.endpoint for relay in known])
        node.publish(now, member.identity, member.keys)
        member.device.drain(now)

    def kill_relays(self, now: float, share: float) -> int:
        """Switch off this share of all relays, the busiest first, as a power cut does it; how many it were."""
        busiest = sorted(
            (relay for relay in self.relays if relay.device.node is not None),
            key=lambda relay: (-self._flows(relay), relay.device.number),
        )
        victims = busiest[: max(1, round(share * len(self.relays)))]
        places = {relay.device.endpoint for relay in victims}
        for relay in victims:
            relay.device.run(now, None)
        self._strike(now, [call for call in self._open if call.best is not None and endpoint_of(call.best) in places])
        return len(victims)

    def revive_relays(self, now: float) -> int:
        """Switch those that are off on again; how many it were."""
        dead = [relay for relay in self.relays if relay.device.node is None]
        for relay in dead:
            self.switch_on(now, relay)
        return len(dead)

    def move(self, now: float, share: float) -> int:
        """This share of the callers who are in a call join another network of the same kind; how many it were."""
        moved = self._some(now, share)
        for member in moved:
            member.device.move(now, new_place(self.world, member.kind, self.world.rng, self._expiry))
        return len(moved)

    def rebind(self, now: float, share: float) -> int:
        """The NATs of this share of the callers who are in a call lose their mappings; how many it were."""
        struck = self._some(now, share)
        for member in struck:
            member.device.place.forget()
        return len(struck)

    def _some(self, now: float, share: float) -> list[Member]:
        calls = self.world.rng.sample(self._open, round(share * len(self._open)))
        self._strike(now, calls)
        return [call.caller for call in calls]

    def _strike(self, now: float, calls: list[Call]) -> None:
        for call in calls:
            if call.last is not None:
                call.struck, call.gap, call.phase = now, 0.0, self.phase

    def _flows(self, relay: Member) -> int:
        node = relay.device.node
        status = (
            None if node is None or node.people.relay is None else node.people.relay.status(self.world.schedule.now)
        )
        return 0 if status is None else status.established

    # Rounds

    def begin(self, now: float, end: float) -> None:
        """From now on they call; the last round ends before `end`."""
        self._last_begins = end - self._round_seconds
        self._next_round(now)

    @property
    def seconds(self) -> float:
        """What all rounds of a matrix take; endless for calls by chance."""
        return self._round_seconds * (len(self.people) // 2) if self.settings.pattern == "matrix" else inf

    @property
    def _round_seconds(self) -> float:
        return self.settings.call_seconds + self.settings.pause_seconds

    def _next_round(self, now: float) -> None:
        if now > self._last_begins + HAIR_SECONDS:
            return
        people, settings = self.people, self.settings
        half = len(people) // 2
        if settings.pattern == "matrix":
            pairs = [(people[one], people[half + (one + self._round) % half]) for one in range(half)]
        else:
            mixed = self.world.rng.sample(people, len(people))
            pairs = list(zip(mixed[:half], mixed[half : 2 * half], strict=True))
        self._round += 1
        for number, (caller, callee) in enumerate(pairs):
            when = now + settings.pause_seconds * number / half / 2
            self.world.schedule.at(when, self._call, caller, callee)
        self.world.schedule.call(now + self._round_seconds, self._next_round)

    def _call(self, now: float, caller: Member, callee: Member, _third: None) -> None:
        device = caller.device
        node = device.node
        assert node is not None, "people are never switched off"
        call = Call(caller, callee, now, self.phase)
        self.calls.append(call)
        self._open.append(call)
        public = callee.identity.public
        call.reach = node.people.reach(now, public)
        call.lookup = node.lookup(now, Link(public))
        self._by_reach[device.number, call.reach] = call
        self._by_lookup[device.number, call.lookup] = call
        self.world.schedule.at(now + self.settings.call_seconds, self._end, call)
        device.drain(now)

    def _end(self, now: float, call: Call, _second: None, _third: None) -> None:
        device = call.caller.device
        node, number = device.node, device.number
        assert node is not None
        call.ended = True
        self._open.remove(call)
        if call.last is not None:
            self._note_gap(call, now)
            if now - call.last > SILENT_SECONDS and not call.reason:
                call.reason = "nothing came back any more"
        self._by_reach.pop((number, call.reach), None)
        self._by_lookup.pop((number, call.lookup), None)
        node.cancel_lookup(call.lookup)
        if call.link is None:
            node.people.give_up(now, call.reach)
        elif self._by_link.pop((number, call.link), None) is not None:
            node.people.hang_up(now, call.link)
        device.drain(now)

    # What nodes say

    def _heard(self, now: float, device: Device, event: Any) -> None:
        number = device.number
        if isinstance(event, LookupEvent):
            self._resolved(now, device, event)
        elif isinstance(event, Reached):
            call = self._by_reach.pop((number, event.reach), None)
            if call is not None:
                call.link, call.reached = event.link, now
                call.best = event.path
                self._by_link[number, event.link] = call
                self._echo(now, call, None, None)
        elif isinstance(event, Unreached):
            call = self._by_reach.pop((number, event.reach), None)
            if call is not None:
                call.reason = event.reason
        elif isinstance(event, EchoAnswered):
            call = self._by_link.get((number, event.link))
            if call is not None:
                self._answered(now, call, event)
        elif isinstance(event, PathChanged):
            call = self._by_link.get((number, event.link))
            if call is not None and event.best is not None:
                call.best = event.best
                if call.direct is None and not is_relayed(event.best):
                    call.direct = now
        elif isinstance(event, LinkDown):
            call = self._by_link.pop((number, event.link), None)
            if call is not None:
                call.reason = event.reason

    def _resolved(self, now: float, device: Device, event: LookupEvent) -> None:
        call = self._by_lookup.get((device.number, event.lookup))
        node = device.node
        if call is None or call.link is not None or node is None:
            return
        said = event.event
        if isinstance(said, RecordFound | RecordUpdated):
            if call.found is None:
                call.found = now
            node.people.found(now, call.reach, said.record, node.unix_time(now))
        else:
            if said.best is None:
                call.reason = said.reason or ""
            node.people.found(now, call.reach, None, node.unix_time(now))
        device.drain(now)

    def _answered(self, now: float, call: Call, event: EchoAnswered) -> None:
        call.answered += 1
        if call.first is None:
            call.first = call.last = now
        self._note_gap(call, now)
        call.last = now
        if is_relayed(event.path):
            call.relays.add(endpoint_of(event.path))

    def _note_gap(self, call: Call, now: float) -> None:
        assert call.last is not None
        if now - call.last > call.gap:
            call.gap = now - call.last

    def _echo(self, now: float, call: Call, _second: None, _third: None) -> None:
        device = call.caller.device
        node = device.node
        if call.ended or call.link is None or node is None or (device.number, call.link) not in self._by_link:
            return
        call.sent += 1
        node.people.echo(now, call.link, call.sent)
        self.world.schedule.at(now + 1 / self.settings.echoes_per_second, self._echo, call)
        device.drain(now)

    def where(self) -> dict[str, int]:
        """People by their kind of access."""
        counts = {kind: sum(1 for member in self.people if member.kind == kind) for kind in ACCESS_KINDS}
        return {kind: count for kind, count in counts.items() if count}

    def open_now(self) -> dict[str, int]:
        """The calls under way: all, and those whose caller sends directly."""
        direct = sum(call.best is not None and not is_relayed(call.best) for call in self._open)
        return {"open": len(self._open), "direct": direct}

    def totals(self) -> dict[str, int]:
        """What the devices of all members counted."""
        totals: Counter[str] = Counter()
        for member in (*self.relays, *self.people):
            totals.update(member.device.counters)
        return dict(sorted(totals.items()))
