"""Devices with links and calls but no DHT, in virtual time: records are handed over, datagrams delayed and lost."""

from __future__ import annotations

import heapq
from dataclasses import replace
from random import Random
from typing import Any, TypeVar

from meshcall.calls.core import Calls
from meshcall.calls.events import CallEnded, Ending
from meshcall.calls.policy import CallPolicy
from meshcall.calls.state import State
from meshcall.core import Endpoint, endpoint
from meshcall.crypto.sodium import Sodium
from meshcall.identity import Device, Identity
from meshcall.path.paths import direct, endpoint_of
from meshcall.peers.core import Peers
from meshcall.peers.policy import PeerPolicy
from meshcall.record.entry import entry_of
from meshcall.wire.record import Record
from meshcall.wire.talk import Kind, Talk, Terms, encode_talk

Event = TypeVar("Event")
UNIX_START = 1_790_000_000.0
DELAY_SECONDS = 0.05
SUITE = Sodium()


class Party:
    """One device."""

    def __init__(self, world: LineWorld, number: int, identity: Identity, policy: CallPolicy, *, looks: bool) -> None:
        self.world = world
        self.number = number
        self.identity = identity
        self.device = Device.new(SUITE)
        self.policy = policy
        self.looks = looks
        """Whether its look-ups are answered."""
        self.voice_seconds = 0.0
        """Pause between voice packets; 0: it sends none."""
        self.where = endpoint(f"198.51.100.{number + 1}", 7000)
        self.down = False
        self.events: list[tuple[float, Any]] = []
        self.start()

    def start(self) -> None:
        """From nothing, with the same keys."""
        now = self.world.now
        unix_time = UNIX_START + now
        certificate = self.device.certify(SUITE, self.identity, unix_time)
        rng = Random(self.number + int(now * 1000))
        self.peers = Peers(
            now, unix_time, rng=rng, suite=SUITE, kem=None, device=self.device, identity=self.identity.public,
            certificate=certificate, policy=PeerPolicy(self.policy.contacts, hides=self.policy.direct == "never"),
        )  # fmt: skip
        self.peers.links.blocked = self.policy.blocked
        self.calls = Calls(
            now, lines=self.peers, rng=rng, own=self.identity.public, policy=self.policy, carry=self.carry
        )  # fmt: skip
        self.voice_at = now
        self.voiced = 0
        entry = entry_of(self.device, certificate, (), (self.where,), offers_ml_kem=False)
        self.entry = replace(entry, time=int(unix_time))

    def carry(self, now: float) -> None:
        """Between links, calls, world."""
        while self.peers.events:
            events, self.peers.events[:] = list(self.peers.events), []
            for event in events:
                self.calls.take(now, event)
        for path, data in self.peers.outbox:
            self.world.send(self, endpoint_of(path), data)
        self.peers.outbox.clear()
        self.peers.special.clear()
        self.events += [(now, event) for event in self.calls.events]
        self.calls.events.clear()
        wanted, self.calls.wanted[:] = list(self.calls.wanted), []
        for call in wanted if self.looks else []:
            self.world.later(0.1, self.answer, call)

    def answer(self, call: int) -> None:
        """The look-up of a call is answered."""
        now, identity = self.world.now, self.calls.identity_of(call)
        entries = [party.entry for party in self.world.parties if party.identity.public == identity and party.looks]
        entries.sort(key=lambda entry: entry.identity)
        if entries:
            self.calls.found(now, call, Record(tuple(entries)), UNIX_START + now)
        self.calls.finish(now, call, None if entries else "Nothing is published under this address now.")
        self.carry(now)

    # Commands

    def call(self, other: Party) -> int:
        """Call somebody; the number."""
        number = self.calls.call(self.world.now, other.identity.public)
        self.carry(self.world.now)
        return number

    def do(self, what: str, *arguments: Any, **options: Any) -> None:
        """A command of the call that there is."""
        status = self.calls.status(self.world.now)
        assert status is not None, "no call"
        getattr(self.calls, what)(self.world.now, status.call, *arguments, **options)
        self.carry(self.world.now)

    # What is seen

    @property
    def state(self) -> State | None:
        """Of the call; None: there is none."""
        status = self.calls.status(self.world.now)
        return None if status is None else status.state

    @property
    def tag(self) -> int:
        """Of the call's number on the wire, the low byte."""
        status = self.calls.status(self.world.now)
        assert status is not None
        return status.tag

    @property
    def link(self) -> int:
        """That the call goes by."""
        status = self.calls.status(self.world.now)
        assert status is not None
        assert status.link is not None
        return status.link

    def all(self, kind: type[Event], since: float = 0.0) -> list[Event]:
        """Events of a kind."""
        return [event for when, event in self.events if isinstance(event, kind) and when >= since]

    def last(self, kind: type[Event], since: float = 0.0) -> Event:
        """The latest of a kind."""
        found = self.all(kind, since)
        assert found, f"no {kind.__name__}"
        return found[-1]

    @property
    def ending(self) -> Ending:
        """Of the latest call."""
        assert self.state is None, self.state
        return self.last(CallEnded).ending

    @property
    def is_clean(self) -> bool:
        """Whether nothing of any call is left: no link, no lane, no dial."""
        peers = self.peers
        return not (len(peers.links) or peers.voice_links or peers.status(self.world.now) or len(self.calls.speaker))


class LineWorld:
    """Parties by name."""

    def __init__(self, seed: int = 1) -> None:
        self.now = 100.0
        self.rng = Random(seed)
        self.parties: list[Party] = []
        self.loss = 0.0
        self.delays: dict[tuple[int, int], float] = {}
        """From and to a party, where it is not DELAY_SECONDS."""
        self.cut: set[frozenset[int]] = set()
        self._heap: list[tuple[float, int, Any, tuple[Any, ...]]] = []
        self._order = 0

    def party(self, identity: Identity | None = None, *, looks: bool = True, **policy: Any) -> Party:
        """A device; `policy` as for CallPolicy."""
        found = Party(self, len(self.parties), identity or Identity.new(SUITE), CallPolicy(**policy), looks=looks)
        self.parties.append(found)
        return found

    def two(self, **policy: Any) -> tuple[Party, Party]:
        """Contacts of each other; the policy is the second one's.  The first one has the smaller key."""
        first, second = sorted([Identity.new(SUITE), Identity.new(SUITE)], key=lambda each: each.public)
        ann = self.party(first, contacts=frozenset({second.public}))
        bob = self.party(second, contacts=frozenset({first.public}), **policy)
        return ann, bob

    def up(self, **policy: Any) -> tuple[Party, Party]:
        """A call between two that is up."""
        ann, bob = self.two(**policy)
        ann.call(bob)
        self.run(1.0)
        bob.do("accept")
        self.run(0.5)
        assert ann.state is bob.state is State.UP
        return ann, bob

    def later(self, seconds: float, what: Any, *arguments: Any) -> None:
        """Do something in some seconds."""
        self._order += 1
        heapq.heappush(self._heap, (self.now + seconds, self._order, what, arguments))

    def send(self, party: Party, to: Endpoint, data: bytes) -> None:
        """A datagram on its way."""
        other = next((each for each in self.parties if each.where == to), None)
        if other is None or party.down or self.rng.random() < self.loss:
            return
        if frozenset({party.number, other.number}) not in self.cut:
            delay = self.delays.get((party.number, other.number), DELAY_SECONDS)
            self.later(delay, self._arrive, other, party.where, data)

    def _arrive(self, party: Party, source: Endpoint, data: bytes) -> None:
        if not party.down:
            party.peers.receive(self.now, direct(source), data)
            party.carry(self.now)

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while True:
            due, wake = min(((self._due(party), party.number) for party in self.parties), default=(end, 0))
            if self._heap and self._heap[0][0] <= min(due, end):
                self.now, _, what, arguments = heapq.heappop(self._heap)
                what(*arguments)
            elif due <= end:
                self.now = max(self.now + 1e-6, due)
                self._wake(self.parties[wake])
            else:
                break
        self.now = end

    def _due(self, party: Party) -> float:
        times = [party.peers.next_wake(), party.calls.next_wake()]
        if party.voice_seconds and party.state is not None:
            times.append(party.voice_at)
        return min((time for time in times if time is not None), default=float("inf"))

    def _wake(self, party: Party) -> None:
        party.peers.wake(self.now)
        party.calls.wake(self.now)
        if party.voice_seconds and party.voice_at <= self.now:
            party.voice_at = self.now + party.voice_seconds
            status = party.calls.status(self.now)
            if status is not None:
                data = bytes([0, status.tag]) + bytes(60)
                party.voiced += party.calls.send_voice(self.now, status.call, data) > 0
        party.carry(self.now)


class Forger:
    """A party whose calls core was replaced by the test: it says what it likes on a link."""

    def __init__(self, party: Party) -> None:
        self.party = party
        self.link = 0
        self.said: list[bytes] = []
        party.calls.take = self._take  # type: ignore[method-assign]
        party.calls.next_wake = lambda: None  # type: ignore[method-assign]

    def _take(self, _now: float, event: Any) -> bool:
        if type(event).__name__ == "LinkUp":
            self.link = event.link
        elif type(event).__name__ == "TalkMessage":
            self.said.append(event.data)
        return True

    def dial(self, other: Party) -> int:
        """A link to somebody."""
        now = self.party.world.now
        reach = self.party.peers.reach(now, other.identity.public)
        self.party.peers.found(now, reach, [other.entry])
        self.party.carry(now)
        self.party.world.run(0.5)
        return self.link

    def say(self, data: bytes | Talk, link: int | None = None) -> None:
        """Anything at all."""
        now = self.party.world.now
        self.party.peers.say(
            now, self.link if link is None else link, data if isinstance(data, bytes) else encode_talk(data)
        )
        self.party.carry(now)

    def talk(self, kind: Kind, call: int, *, serial: int = 0, detail: int = 0, terms: bool = False) -> None:
        """A message in form."""
        self.say(Talk(kind, call, serial, Terms(7, 70) if terms else None, detail))
