"""The asking side: carries what publisher, resolvers and relay search want of the DHT to gateways, over TCP.

Used while UDP goes nowhere.  Knows places where a gateway may be, knocks, keeps two open, and asks both:
every item is checked against its key here, so a gateway can withhold, and nothing else.  A store under
`cas` goes to one gateway after the other, as two at once would each find the other's item in their way.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from meshcall.core import Endpoint
from meshcall.crypto.suite import Verifier
from meshcall.dht.events import GetFinished, Holder, ItemFound, PeersFinished, PutFinished, Report
from meshcall.dht.items import MutableItem, signing_buffer
from meshcall.dht.node_id import is_global, is_usable
from meshcall.errors import BadPacket
from meshcall.record.requests import Get, Put
from meshcall.relay.discovery import FindPeers
from meshcall.relay.places import Place, endpoint_of_place
from meshcall.wire import detour as wire
from meshcall.wire import krpc
from meshcall.wire.bencode import decode_untrusted

GATEWAYS_WANTED = 2
PLACES_MAX = 32
"""Places remembered where a gateway may be; those named first go first."""
KNOCKING_MAX = 6
"""Connections being tried at once."""
KNOCK_SECONDS = 3.0
"""A knock that is not answered in this time has failed."""
AGAIN_SECONDS = 5.0
AGAIN_SECONDS_MAX = 300.0
"""Before a place that failed is tried again; doubled each time."""
KEEP_SECONDS = 50.0
"""An idle connection is knocked on so often, to be noticed when it is dead and not closed as idle."""
ASK_SECONDS = 12.0
"""A gateway that has not answered in this time has failed."""
SECOND_SECONDS = 2.0
"""After the first gateway's answer the second one's is waited for so long."""
HOLD_SECONDS = 4.0
"""A question waits so long for a gateway where there is none, or where its connection broke."""
ITEMS_MAX = 8
"""Items of one gateway in one look-up; one that sends more has failed.  Each costs the check of a signature."""
ASKS_MAX = 128
"""Not answered yet; one more is answered at once, as by a DHT that is not there."""

DetourRequest = Get | Put | FindPeers
DetourAnswer = ItemFound | GetFinished | PutFinished | PeersFinished
_NOTHING = Report(0.0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class DetourAnswered:
    """An event for the request of this token, as the DHT would have said it."""

    token: int
    event: DetourAnswer


@dataclass(slots=True)
class _Gateway:
    place: Place
    is_open: bool = False
    knocked: float | None = None
    """When a knock without an answer was sent."""
    opened: float = float("-inf")
    """When it last began to be one of ours."""
    due: float = 0.0
    """When to knock next."""
    pause: float = AGAIN_SECONDS


@dataclass(slots=True)
class _Ask:
    request: DetourRequest
    began: float
    hold_until: float
    left: list[Place]
    """Gateways still to be asked, one after the other (a store under `cas`)."""
    waiting: dict[Place, float] = field(default_factory=dict)
    """Asked: until when an answer is awaited."""
    holders: list[Holder] = field(default_factory=list)
    best: MutableItem | None = None
    told: Counter[Place] = field(default_factory=Counter)
    """Items, by gateway."""
    peers: dict[Endpoint, None] = field(default_factory=dict)
    stored: int = 0
    errors: Counter[int] = field(default_factory=Counter)
    answers: int = 0
    requests: int = 0


class Detour:
    """`start` when UDP goes nowhere, `stop` when it does again."""

    def __init__(self, verifier: Verifier) -> None:
        self.outbox: list[tuple[Place, bytes]] = []
        self.events: list[DetourAnswered] = []
        self.counters: Counter[str] = Counter()
        self._verifier = verifier
        self._gateways: dict[Place, _Gateway] = {}
        self._asks: dict[int, _Ask] = {}
        self._last = 0
        self._turn = 0
        self.is_running = False

    @property
    def gateways(self) -> tuple[Place, ...]:
        """Those that answered a knock and have not failed since."""
        return tuple(place for place, each in self._gateways.items() if each.is_open)

    # Commands

    def offer(self, now: float, places: tuple[Place, ...]) -> None:
        """Places where a gateway may be, the likeliest first; they come before those named earlier."""
        fresh = {place: self._gateways.get(place) or _Gateway(place, due=now) for place in places[:PLACES_MAX]}
        self._gateways = {**fresh, **{place: each for place, each in self._gateways.items() if place not in fresh}}
        for place in list(reversed(self._gateways)):
            if len(self._gateways) <= PLACES_MAX:
                break
            if not self._gateways[place].is_open:
                self._failed(now, self._gateways[place])
                del self._gateways[place]
        if self.is_running:
            self._knock(now)

    def start(self, now: float) -> None:
        """Find gateways."""
        if not self.is_running:
            self.is_running = True
            for each in self._gateways.values():
                each.due, each.pause = now, AGAIN_SECONDS
            self._knock(now)

    def stop(self, now: float) -> None:
        """The DHT itself can be asked again; what is under way is answered as by nobody."""
        self.is_running = False
        for each in self._gateways.values():
            each.is_open, each.knocked = False, None
        for token in list(self._asks):
            self._finish(now, token)

    def ask(self, now: float, request: DetourRequest) -> int:
        """Carry a request to the gateways; DetourAnswered of this token follow."""
        self._last = self._last % wire.NUMBER_MAX + 1
        gateways = list(self.gateways)
        hold_until = now + HOLD_SECONDS
        if len(self._asks) >= ASKS_MAX:
            gateways, hold_until = [], now
        self._turn += 1
        at = self._turn % max(len(gateways), 1)
        gateways = (gateways[at:] + gateways[:at])[:GATEWAYS_WANTED]  # each is the first in turn
        ask = self._asks[self._last] = _Ask(request, now, hold_until, gateways)
        self._send(now, self._last, ask)
        return self._last

    def cancel(self, token: int) -> None:
        """No answer is needed any more."""
        self._asks.pop(token, None)

    # What comes in

    def receive(self, now: float, place: Place, data: bytes) -> None:
        """Take a message from a connection that we opened."""
        gateway = self._gateways.get(place)
        if gateway is None or not self.is_running:
            self.counters["from no gateway of ours"] += 1
            return
        try:
            number, tell = wire.decode(data)
        except BadPacket as bad:
            self.counters[bad.reason] += 1
            return
        ask = self._asks.get(number)
        if number == 0:
            self._knock_answered(now, gateway, tell)
        elif ask is None or place not in ask.waiting:
            self.counters["answer not asked for"] += 1
        else:
            self._take(now, number, ask, place, tell)

    def gone(self, now: float, place: Place) -> None:
        """The connection ended, or could not be opened."""
        gateway = self._gateways.get(place)
        if gateway is not None and self.is_running:
            was_good = gateway.is_open and now - gateway.opened >= AGAIN_SECONDS
            self._failed(now, gateway)
            if was_good:
                gateway.due, gateway.pause = now, AGAIN_SECONDS  # once more at once
            self._knock(now)

    # Time

    def wake(self, now: float) -> None:
        """Do what time has made due."""
        for token, ask in list(self._asks.items()):
            late = [place for place, until in ask.waiting.items() if until <= now]
            for place in late:
                del ask.waiting[place]
                gateway = self._gateways.get(place)
                if gateway is not None and not ask.answers:
                    self.counters["gateway silent"] += 1
                    self._failed(now, gateway)
            if late or (not ask.waiting and ask.hold_until <= now):
                self._send(now, token, ask)
        if self.is_running:
            self._knock(now)

    def next_wake(self) -> float | None:
        """When `wake` wants to be called."""
        times = [until for ask in self._asks.values() for until in ask.waiting.values() or (ask.hold_until,)]
        if self.is_running:
            is_enough = len(self.gateways) >= GATEWAYS_WANTED
            knocking = sum(each.knocked is not None and not each.is_open for each in self._gateways.values())
            for each in self._gateways.values():
                if each.knocked is not None:
                    times.append(each.knocked + KNOCK_SECONDS)
                elif each.is_open or (not is_enough and knocking < KNOCKING_MAX):
                    times.append(each.due)
        return min(times, default=None)

    # Gateways

    def _knock(self, now: float) -> None:
        knocking = 0
        for each in self._gateways.values():
            if each.knocked is not None and each.knocked + KNOCK_SECONDS <= now:
                self._failed(now, each)
            knocking += each.knocked is not None and not each.is_open
        room = KNOCKING_MAX - knocking if len(self.gateways) < GATEWAYS_WANTED else 0
        for each in self._gateways.values():
            if each.knocked is not None or each.due > now or not (each.is_open or room > 0):
                continue
            room -= not each.is_open
            each.knocked = now
            self.counters["knocks"] += 1
            self.outbox.append((each.place, wire.encode(0, wire.Knock())))

    def _knock_answered(self, now: float, gateway: _Gateway, tell: wire.Message) -> None:
        if gateway.knocked is None:
            self.counters["answer not asked for"] += 1
            return
        if isinstance(tell, wire.Serves):
            gateway.knocked = None
            others = [place for place in self.gateways if place != gateway.place]
            was_open, host = gateway.is_open, endpoint_of_place(gateway.place)[:-2]
            is_another_host = all(endpoint_of_place(place)[:-2] != host for place in others)
            gateway.is_open = len(others) < GATEWAYS_WANTED and is_another_host
            if gateway.is_open and not was_open:
                gateway.opened = now
            # one beyond those wanted is spare, and asked as soon as another fails
            gateway.due = now + KEEP_SECONDS if gateway.is_open or not is_another_host else now
            for token, ask in list(self._asks.items()) if gateway.is_open else ():
                if not (ask.waiting or ask.answers):  # held until there is one
                    ask.left = [gateway.place]
                    self._send(now, token, ask)
        else:
            self.counters["gateway refuses"] += isinstance(tell, wire.Refused)
            self._failed(now, gateway)

    def _failed(self, now: float, gateway: _Gateway) -> None:
        gateway.is_open, gateway.knocked = False, None
        gateway.due = now + gateway.pause
        gateway.pause = min(2 * gateway.pause, AGAIN_SECONDS_MAX)
        for token, ask in list(self._asks.items()):
            if ask.waiting.pop(gateway.place, None) is not None:
                self._send(now, token, ask)

    # Asking

    def _send(self, now: float, token: int, ask: _Ask) -> None:
        """Ask whoever is to be asked now; finish where nobody is left."""
        request = ask.request
        message: wire.Ask
        match request:
            case Get(public):
                message = wire.AskItem(public)
            case Put(item, cas):
                message = wire.AskStore(item.public, item.seq, item.value, item.signature, cas)
            case FindPeers(info_hash):
                message = wire.AskPeers(info_hash)
        one_by_one = isinstance(request, Put) and request.cas is not None
        while ask.left and not (one_by_one and (ask.waiting or ask.answers)):
            place = ask.left.pop(0)
            gateway = self._gateways.get(place)
            if gateway is not None and gateway.is_open:
                ask.waiting[place] = now + ASK_SECONDS
                ask.requests += 1
                self.outbox.append((place, wire.encode(token, message)))
        if not ask.waiting and (ask.answers or ask.hold_until <= now) and token in self._asks:
            self._finish(now, token)

    def _take(self, now: float, token: int, ask: _Ask, place: Place, tell: wire.Message) -> None:
        request = ask.request
        match tell:
            case wire.TellItem(is_last, nodes, found) if isinstance(request, Get):
                if found is not None and not self._take_item(token, ask, place, request, found):
                    self._failed(now, self._gateways[place])  # it lies, or floods: nothing more from there
                    return
                if not is_last:
                    return
                if nodes:
                    ask.holders.append(Holder(bytes(krpc.ID_BYTES), endpoint_of_place(place), b""))
            case wire.TellStored(stored, cas_refused, seq_refused, other) if isinstance(request, Put):
                ask.stored += stored
                for code, count in ((krpc.CAS_MISMATCH, cas_refused), (krpc.SEQ_TOO_OLD, seq_refused), (0, other)):
                    if count:
                        ask.errors[code] += count
            case wire.TellPeers(peers) if isinstance(request, FindPeers):
                ask.peers.update(dict.fromkeys(each for each in peers if _may_be_relay(each, endpoint_of_place(place))))
            case wire.Refused(reason):
                self.counters[f"refused: {wire.SHOW_REASON[reason]}"] += 1
                if reason in (wire.NOT_SERVED, wire.NO_NETWORK):
                    self._failed(now, self._gateways[place])  # of no use for now; another one may be
                else:
                    ask.hold_until = now
                    del ask.waiting[place]
                    self._send(now, token, ask)
                return
            case _:
                self.counters["answer of another kind"] += 1
                return
        ask.answers += 1
        self._gateways[place].pause = AGAIN_SECONDS
        del ask.waiting[place]
        for other_place in ask.waiting:  # one answer is here: the other is not waited for as long
            ask.waiting[other_place] = min(ask.waiting[other_place], now + SECOND_SECONDS)
        self._send(now, token, ask)

    def _take_item(self, token: int, ask: _Ask, place: Place, request: Get, found: tuple[int, bytes, bytes]) -> bool:
        """Tell of an item if it is the key owner's, and newer than what was told; False: no honest gateway sends it."""
        seq, signature, value = found
        ask.told[place] += 1
        if ask.told[place] > ITEMS_MAX:
            self.counters["too many items"] += 1
            return False
        if ask.best is not None and seq <= ask.best.seq:
            self.counters["older item"] += seq < ask.best.seq
            return True
        item = MutableItem(request.public, b"", seq, value, signature)
        try:
            decode_untrusted(value)
        except BadPacket:
            self.counters["item is no value"] += 1
            return False
        if not self._verifier.verify(item.public, signing_buffer(b"", seq, value), signature):
            self.counters["item is forged"] += 1
            return False
        ask.best = item
        self.events.append(DetourAnswered(token, ItemFound(token, item)))
        return True

    def _finish(self, now: float, token: int) -> None:
        ask = self._asks.pop(token)
        report = Report(now - ask.began, ask.requests, ask.answers, 1)
        match ask.request:
            case Get():
                event: DetourAnswer = GetFinished(token, ask.best, tuple(ask.holders), report)
            case Put():
                event = PutFinished(token, ask.stored, dict(ask.errors), report)
            case FindPeers():
                event = PeersFinished(token, tuple(ask.peers), (), report)
        self.events.append(DetourAnswered(token, event))


def _may_be_relay(where: Endpoint, gateway: Endpoint) -> bool:
    """Whether a connection may be tried to an endpoint that a gateway named: none inside our own network for a
    gateway outside of it."""
    return is_usable(where) and (is_global(where[:-2]) or not is_global(gateway[:-2]))
