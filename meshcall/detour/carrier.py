"""Carries questions of publisher, resolvers and station to the DHT, or past a barred UDP to gateways.

Who asks does not notice which of the two it was.  When the way changes, what is under way is asked again
by the other.  Here too: what our own gateway asks of the DHT for others.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from meshcall.core import Endpoint
from meshcall.detour.asker import Detour
from meshcall.detour.gateway import DhtWanted, Gateway
from meshcall.detour.watch import UdpWatch
from meshcall.dht.events import (
    Event,
    GetFinished,
    ItemFound,
    PeersFinished,
    PeersFound,
    PutFinished,
    Report,
)
from meshcall.dht.items import MutableItem
from meshcall.errors import UsageError
from meshcall.record.requests import Get, Put
from meshcall.relay.discovery import Announce, FindPeers, tcp_places
from meshcall.relay.places import Place, connection_of_place
from meshcall.wire import detour as wire

if TYPE_CHECKING:
    from collections.abc import Iterable

    from meshcall.crypto.suite import Verifier
    from meshcall.dht.node import Dht

Question = Get | Put | FindPeers | Announce
Answer = ItemFound | GetFinished | PutFinished | PeersFound | PeersFinished
_NOTHING = Report(0.0, 0, 0, 0)


class Carrier:
    """`answers` are read and emptied by the owner: (who asked, the question, an event)."""

    def __init__(self, dht: Dht, verifier: Verifier) -> None:
        self.answers: list[tuple[object, Question, Answer]] = []
        self.counters: Counter[str] = Counter()
        self.detour = Detour(verifier)
        self.gateway = Gateway()
        self.watch = UdpWatch()
        self._dht = dht
        self._asked: dict[int, tuple[object, Question]] = {}  # by DHT operation
        self._detoured: dict[int, tuple[object, Question]] = {}  # by token of the detour
        self._for_others: dict[int, int] = {}  # DHT operation: tag of the gateway
        self._is_barred = False

    @property
    def all_counters(self) -> dict[str, int]:
        """Of all parts."""
        found = dict(self.counters)
        for name, counters in (("detour", self.detour.counters), ("gateway", self.gateway.counters)):
            found |= {f"{name}: {what}": count for what, count in counters.items()}
        return found

    @property
    def is_barred(self) -> bool:
        """Whether gateways are asked instead of the DHT."""
        return self._is_barred

    # Questions

    def ask(self, now: float, owner: object, question: Question, *, for_writing: bool = False) -> None:
        """Ask; events come as `answers`.  `for_writing`: the nodes found are those to write to."""
        if self._is_barred and not isinstance(question, Announce):
            token = self.detour.ask(now, question)
            self._detoured[token] = owner, question
            return
        try:
            self._asked[self._ask_dht(now, question, for_writing=for_writing)] = owner, question
        except UsageError:  # too many operations: to the asker the same as a network that does not answer
            self.counters["request refused by the DHT"] += 1
            self.answers.append((owner, question, _nothing(question)))

    def cancel(self, owner: object) -> None:
        """Forget what this owner asked; no answer of it follows."""
        for operation in [number for number, (asker, _) in self._asked.items() if asker is owner]:
            del self._asked[operation]
            self._dht.cancel(operation)
        for token in [token for token, (asker, _) in self._detoured.items() if asker is owner]:
            del self._detoured[token]
            self.detour.cancel(token)

    def take(self, event: Event) -> bool:
        """An event of the DHT; whether it was the answer to a question that came through here."""
        if not isinstance(event, Answer):
            return False
        operation = event.operation
        is_last = not isinstance(event, ItemFound | PeersFound)
        tag = self._for_others.get(operation)
        if tag is not None:
            self.gateway.answered(tag, event)
            if is_last:
                del self._for_others[operation]
            return True
        found = self._asked.get(operation)
        if found is None:
            return False
        if is_last:
            del self._asked[operation]
        self.answers.append((*found, event))
        return True

    def _ask_dht(self, now: float, question: Question, *, for_writing: bool) -> int:
        match question:
            case Get(public, _, trace):
                return self._dht.get_mutable(now, public, trace=trace, for_writing=for_writing)
            case Put(item, cas, holders):
                known = [holder for holder in holders if holder.token]  # a gateway's have none
                return self._dht.put(now, item, cas=cas, holders=known or None)
            case Announce(info_hash):
                return self._dht.announce(now, info_hash)
            case FindPeers(info_hash):
                return self._dht.get_peers(now, info_hash)

    # TCP

    def offer(self, now: float, endpoints: Iterable[Endpoint]) -> None:
        """Where relays may be, by their UDP endpoint: over TCP they are tried at two ports."""
        self.detour.offer(now, tuple(place for where in endpoints for place in tcp_places(where)))

    def receive(self, now: float, place: Place, data: bytes, *, serves: bool, joined: bool) -> None:
        """Take a message that came over TCP.  `serves`: whether our gateway serves the far end."""
        if connection_of_place(place):
            self.gateway.receive(now, place, data, serves=serves, joined=joined and not self._is_barred)
        else:
            self.detour.receive(now, place, data)

    def gone(self, now: float, place: Place) -> None:
        """A TCP connection ended, or could not be opened."""
        if connection_of_place(place):
            self.gateway.gone(place)
        else:
            self.detour.gone(now, place)

    def flush(self) -> list[tuple[Endpoint, bytes]]:
        """What is to be sent over TCP, given out once."""
        said = [(Endpoint(place), data) for place, data in (*self.detour.outbox, *self.gateway.outbox)]
        self.detour.outbox.clear()
        self.gateway.outbox.clear()
        return said

    # Time

    def doubt(self, now: float) -> None:
        """The node started, or its network changed: find out anew whether UDP goes anywhere."""
        self.watch.doubt(now)

    def wake(self, now: float) -> None:
        """Do what time has made due."""
        self.detour.wake(now)

    def next_wake(self, now: float) -> float | None:
        """When `wake` wants to be called."""
        times = [self.detour.next_wake(), self.watch.next_wake(now)]
        return min((time for time in times if time is not None), default=None)

    def settle(self, now: float) -> bool:
        """Carry between the parts; whether there was something to carry."""
        client = self._dht.client
        self.watch.look(now, client.heard_at, client.deaf, bool(self.detour.gateways))
        changed = self._is_barred != self.watch.is_barred
        if changed:
            self._is_barred = self.watch.is_barred
            if self._is_barred:
                self._over(now)
            else:
                self._back(now)
        if self.watch.tries_tcp(now):
            self.detour.start(now)
        else:
            self.detour.stop(now)
        answered, self.detour.events[:] = list(self.detour.events), []
        for said in answered:
            is_last = not isinstance(said.event, ItemFound)
            found = self._detoured.pop(said.token, None) if is_last else self._detoured.get(said.token)
            if found is not None:
                self.answers.append((*found, said.event))
        wanted, self.gateway.requests[:] = list(self.gateway.requests), []
        for request in wanted:
            self._ask_for_others(now, request)
        for tag in self.gateway.cancelled:
            for operation in [number for number, mine in self._for_others.items() if mine == tag]:
                del self._for_others[operation]
                self._dht.cancel(operation)
        self.gateway.cancelled.clear()
        return bool(changed or answered or wanted)

    def _over(self, now: float) -> None:
        """UDP is barred: what the DHT was asked goes to the gateways."""
        asked, self._asked = self._asked, {}
        for operation, (owner, question) in asked.items():
            self._dht.cancel(operation)
            if isinstance(question, Announce):
                self.answers.append((owner, question, _nothing(question)))
            else:
                self.ask(now, owner, question)

    def _back(self, now: float) -> None:
        """What gateways were asked goes to the DHT."""
        detoured, self._detoured = self._detoured, {}
        for token, (owner, question) in detoured.items():
            self.detour.cancel(token)
            self.ask(now, owner, question, for_writing=True)

    def _ask_for_others(self, now: float, request: DhtWanted) -> None:
        try:
            match request.ask:
                case wire.AskItem(public):
                    operation = self._dht.get_mutable(now, public)
                case wire.AskStore(public, seq, value, signature, cas):
                    operation = self._dht.put(now, MutableItem(public, b"", seq, value, signature), cas=cas)
                case wire.AskPeers(info_hash):
                    operation = self._dht.get_peers(now, info_hash)
        except UsageError:
            self.gateway.refused(request.tag)
        else:
            self._for_others[operation] = request.tag


def _nothing(question: Question) -> Answer:
    match question:
        case Get():
            return GetFinished(0, None, (), _NOTHING)
        case FindPeers():
            return PeersFinished(0, (), (), _NOTHING)
        case _:
            return PutFinished(0, 0, {}, _NOTHING)
