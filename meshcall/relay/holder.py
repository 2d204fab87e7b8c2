"""The lease holder's side: keeps a device's places at a few good relays, with as little traffic as will do.

An idle place costs one 20-byte check every `check_seconds`, which also keeps the NAT's mapping open.  A
relay that does not answer, or says that it does not know the lease, is gone back to at once with the
old lease's ticket; one that stays away is replaced.  Links are the owner's: it carries out `requests`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from meshcall.core import ENDPOINT_V4_BYTES
from meshcall.errors import BadPacket
from meshcall.relay.candidate import RelayCandidate, best
from meshcall.relay.places import Place
from meshcall.relay.seat import Held, Seat, Stage
from meshcall.wire import relay as wire
from meshcall.wire.record import RelayLease

if TYPE_CHECKING:
    from random import Random

LEASES_WANTED = 2
"""Relays at which a place is kept."""
CHECK_SECONDS = 20.0
"""Between two checks of an idle place, unless told the life of the NAT's mappings."""
CHECK_AGAIN_SECONDS = (0.3, 0.4, 0.6, 0.9)
"""After so long without an answer the check is sent again, and after the last the relay counts as gone."""
HINT_SECONDS = 0.1
"""What anybody may have sent in the relay's name leads to a check no more often than this."""
ANSWER_SECONDS = 1.0
"""A lease message is answered in this time, or the link is dialled anew."""
RETURN_SECONDS = 6.0
"""So long a relay that was lost is tried again before its leases are given up."""
RETURN_EVERY_SECONDS = 0.5
PAUSED_SECONDS = 1.0
"""While paused, a relay that is to be dialled is thought of so often."""
DIAL_SECONDS = 5.0
RENEW_SHARE = 0.5
"""Share of a lease's life after which it is renewed."""
OVERLAP_SECONDS = 3 * 3600.0
"""After a rotation the old lease is kept so long: as long as a record that names it may be read."""
BACKOFF_SECONDS = 10.0
BACKOFF_SECONDS_MAX = 900.0
CANDIDATES_MAX = 64
WANTED_EVERY_SECONDS = 30.0
"""CandidatesWanted is not said more often."""
LIFE_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Dial:
    """Open a link to this relay, over TCP if so said; answer with `linked` or `failed`."""

    candidate: RelayCandidate
    tcp: bool


@dataclass(frozen=True, slots=True)
class HangUp:
    """This link serves no lease any more."""

    link: int


@dataclass(frozen=True, slots=True)
class Show:
    """Send something authenticated on this link: the relay has us at another address."""

    link: int


HolderRequest = Dial | HangUp | Show


@dataclass(frozen=True, slots=True)
class LeasesChanged:
    """What a record should name from here on, the best first."""

    leases: tuple[RelayLease, ...]


@dataclass(frozen=True, slots=True)
class RelayLost:
    """A relay did not come back, or refuses; `reason` is a sentence."""

    candidate: RelayCandidate
    reason: str


@dataclass(frozen=True, slots=True)
class CandidatesWanted:
    """There are not enough relays to choose from: find some and tell `offer`."""


HolderEvent = LeasesChanged | RelayLost | CandidatesWanted


class RelayHolder:
    """Places at relays.  `rng` only spreads times and numbers; nothing here is secret."""

    def __init__(self, now: float, *, rng: Random, wanted: int = LEASES_WANTED, tcp: bool = False) -> None:
        self.outbox: list[tuple[Place, bytes]] = []
        """Frames; a TCP place with connection 0 is the connection to that relay, whichever it is."""
        self.messages: list[tuple[int, bytes]] = []
        """Lease messages: (link, bytes for its control stream)."""
        self.requests: list[HolderRequest] = []
        self.events: list[HolderEvent] = []
        self.counters: Counter[str] = Counter()
        self.check_seconds = CHECK_SECONDS
        self.is_paused = False
        """The line has no room for handshakes now: relays that are lost are dialled later, and their leases kept."""
        self._rng = rng
        self._wanted = wanted
        self._tcp = tcp
        self._candidates: dict[bytes, RelayCandidate] = {}
        self._away: dict[bytes, tuple[float, float]] = {}  # static key: not before, backoff
        self._seats: dict[bytes, Seat] = {}  # by static key
        self._said: tuple[RelayLease, ...] = ()
        self._may_want_at = now
        self._woken = now

    # Commands

    def offer(self, now: float, candidates: Iterable[RelayCandidate]) -> None:
        """Relays to choose from, newest knowledge; those known before stay known."""
        for candidate in candidates:
            self._candidates.pop(candidate.static, None)
            self._candidates[candidate.static] = candidate
        for static in list(self._candidates):
            if len(self._candidates) <= CANDIDATES_MAX:
                break
            if static not in self._seats and not self._candidates[static].is_home:
                del self._candidates[static]
        self._fill(now)

    def set_tcp(self, now: float, tcp: bool) -> None:
        """UDP is barred here (True), or not (any more): all relays are dialled anew."""
        if tcp != self._tcp:
            self._tcp = tcp
            for seat in self._seats.values():
                if seat.stage is Stage.DIALING:
                    self._dial(now, seat)
            self.network_changed(now)

    def network_changed(self, now: float) -> None:
        """Another address, or the machine slept: show every relay where we are now."""
        for seat in self._seats.values():
            if seat.link is not None and seat.is_tcp == self._tcp:
                self.requests.append(Show(seat.link))
                self._check(now, seat)
            else:
                self._go_back(now, seat)

    def gone(self, now: float, place: Place) -> None:
        """Our TCP connection to a relay ended, or could not be opened: show ourselves on a new one, then check."""
        for seat in self._seats.values():
            if seat.place != place or seat.link is None or seat.stage not in (Stage.PROVING, Stage.HELD) or seat.nonce:
                continue  # a dial or check is under way and will tell
            if now - seat.shown_at >= CHECK_AGAIN_SECONDS[0]:
                seat.shown_at = now
                seat.due = now + CHECK_AGAIN_SECONDS[0]
                self.requests.append(Show(seat.link))

    def rotate(self, now: float) -> None:
        """New lease ids (the record begins a new period); old ones live on for `OVERLAP_SECONDS`."""
        for seat in self._seats.values():
            if seat.stage is Stage.HELD and seat.link is not None:
                self._ask(now, seat, wire.LeaseRequest(seat.number(), LIFE_SECONDS))

    def leases(self) -> tuple[RelayLease, ...]:
        """What a record should name now."""
        return self._said

    def close(self, now: float) -> None:
        """Give everything back."""
        for seat in list(self._seats.values()):
            if seat.link is not None:
                for held in seat.leases:
                    self._say(seat.link, wire.LeaseRelease(held.lease_id))
                self.requests.append(HangUp(seat.link))
        self._seats.clear()
        self._wanted = 0
        self._tell()

    def relay_at(self, place: Place) -> bool:
        """Whether frames from here are of a relay of ours."""
        return any(seat.place == place for seat in self._seats.values())

    def heard(self, now: float, place: Place) -> None:
        """Something came from this relay over the lease: no check is due for a while."""
        for seat in self._seats.values():
            if seat.place == place and seat.stage is Stage.HELD and not seat.nonce:
                seat.due = now + self.check_seconds

    # What links say

    def linked(self, now: float, static: bytes, link: int) -> None:
        """The link that a Dial asked for is open."""
        seat = self._seats.get(static)
        if seat is None:
            self.requests.append(HangUp(link))
            return
        if seat.link is not None and seat.link != link:
            self.requests.append(HangUp(seat.link))
        seat.link = link
        seat.stage = Stage.ASKING
        seat.nonce = b""
        if seat.leases:
            for held in seat.leases:
                self._ask(now, seat, wire.LeaseRequest(seat.number(), LIFE_SECONDS, held.lease_id, held.salt))
        else:
            self._ask(now, seat, wire.LeaseRequest(seat.number(), LIFE_SECONDS))
        seat.due = now + ANSWER_SECONDS

    def failed(self, now: float, static: bytes) -> None:
        """The link that a Dial asked for cannot be opened."""
        seat = self._seats.get(static)
        if seat is not None and seat.stage is Stage.DIALING:
            self._try_again(now, seat, "it does not answer")

    def closed(self, now: float, link: int) -> None:
        """A link is over."""
        for seat in self._seats.values():
            if seat.link == link:
                seat.link = None
                self._go_back(now, seat)

    def message(self, now: float, link: int, data: bytes) -> None:
        """Take a lease message that came on a link to a relay."""
        try:
            message = wire.decode_lease_message(data)
        except BadPacket as bad:
            self.counters[bad.reason] += 1
            return
        seat = next((seat for seat in self._seats.values() if seat.link == link), None)
        match message:
            case wire.LeaseGrant() if seat is not None:
                self._granted(now, seat, message)
            case wire.LeaseRefusal(number, reason, retry) if seat is not None:
                self._refused(now, seat, number, reason, retry)
            case wire.LeaseEnded(lease_id, reason) if seat is not None:
                if reason == wire.CLOSING:  # perhaps it only starts again: its ticket gives the lease back
                    self._go_back(now, seat)
                elif seat.forget(lease_id) and not seat.leases:
                    self._give_up(now, seat, wire.SHOW_REASON[reason])
            case _:
                self.counters["lease message not expected"] += 1

    def _granted(self, now: float, seat: Seat, grant: wire.LeaseGrant) -> None:
        asked = seat.asked.pop(grant.number, None)
        if asked is None:
            self.counters["grant not asked for"] += 1
            return
        wanted = asked.lease_id
        held = seat.find(grant.lease_id)
        if held is None:
            held = Held(grant.lease_id, grant.salt)
            replaced = seat.find(wanted) if wanted is not None else None
            if replaced is not None:
                seat.forget(replaced.lease_id)
            seat.add(held)
            for old in seat.leases[:-1]:
                old.until = min(old.until, now + OVERLAP_SECONDS)
        held.renew_at = now + grant.seconds * RENEW_SHARE
        held.expires = now + grant.seconds
        seat.tcp_port = grant.tcp_port
        if isinstance(asked, wire.LeaseRenew) and seat.stage is Stage.HELD:
            return
        if seat.stage is Stage.ASKING:
            seat.stage = Stage.PROVING
        self._check(now, seat)

    def _refused(self, now: float, seat: Seat, number: int, reason: int, retry: int) -> None:
        asked = seat.asked.pop(number, None)
        if asked is None:
            return
        self.counters["lease refused"] += 1
        if reason == wire.NO_SUCH_LEASE and asked.lease_id is not None:
            held = seat.find(asked.lease_id)
            if held is not None and seat.link is not None:
                self._ask(now, seat, wire.LeaseRequest(seat.number(), LIFE_SECONDS, held.lease_id, held.salt))
            return
        if asked.lease_id is not None:
            seat.forget(asked.lease_id)
        if not seat.leases:
            self._give_up(now, seat, wire.SHOW_REASON[reason], float(retry))
        else:
            self._tell()

    # What comes as frames

    def receive(self, now: float, place: Place, data: bytes) -> None:
        """Take a frame from a relay, other than one with a payload for links."""
        try:
            frame = wire.decode_frame(data)
        except BadPacket as bad:
            self.counters[bad.reason] += 1
            return
        seat = next((seat for seat in self._seats.values() if seat.place == place), None)
        if seat is None:
            self.counters["frame from no relay of ours"] += 1
        elif frame.kind == wire.CHALLENGE and seat.find(frame.frame_id) is not None:
            self.outbox.append((place, wire.frame(wire.PROOF, frame.frame_id, frame.payload)))
        elif frame.kind == wire.STATE:
            self._take_state(now, seat, frame)
        else:
            self.counters["frame not for a holder"] += 1

    def _take_state(self, now: float, seat: Seat, frame: wire.Frame) -> None:
        held = seat.find(frame.frame_id)
        if held is None or frame.payload != seat.nonce or not seat.nonce:
            # an answer to data on a flow, a proof's answer, or a stranger's word: reason enough to ask, no more
            is_news = seat.stage is Stage.PROVING or (frame.status != wire.KNOWN and seat.stage is Stage.HELD)
            if is_news and now - seat.checked_at >= HINT_SECONDS:
                self._check(now, seat, again=bool(seat.nonce), counts=False)
            return
        if frame.status == wire.KNOWN:
            seat.nonce = b""
            seat.tries = 0
            seat.stage = Stage.HELD
            seat.give_up_at = None
            held.is_known = True
            seat.due = now + self.check_seconds * self._rng.uniform(0.9, 1.0)
            self._away.pop(seat.candidate.static, None)
            self._tell()
            unknown = next((each for each in seat.leases if not each.is_known), None)
            if unknown is not None:
                self._check(now, seat)
        elif frame.status == wire.ELSEWHERE and seat.link is not None:
            self.counters["relay had us elsewhere"] += 1
            self.requests.append(Show(seat.link))
            seat.due = now + CHECK_AGAIN_SECONDS[0]
        else:
            self.counters["relay does not know the lease"] += 1
            self._go_back(now, seat)

    # Time

    def wake(self, now: float) -> None:
        """Do what time has made due."""
        self._woken = now
        for seat in list(self._seats.values()):
            if seat.static in self._seats and seat.due <= now:
                self._wake_seat(now, seat)
            if seat.static in self._seats:
                self._tend_leases(now, seat)
        self._fill(now)

    def next_wake(self) -> float | None:
        """When `wake` wants to be called."""
        times = [seat.next_due() for seat in self._seats.values()]
        if len(self._seats) < self._wanted:
            # whoever is back already was thought of at the last wake
            back = (not_before for not_before, _ in self._away.values() if not_before > self._woken)
            times.append(max(min([self._may_want_at, *back]), self._woken + PAUSED_SECONDS * self.is_paused))
        return min(times, default=None)

    def _wake_seat(self, now: float, seat: Seat) -> None:
        match seat.stage:
            case Stage.DIALING:
                self._try_again(now, seat, "it does not answer")
            case Stage.ASKING:
                self._go_back(now, seat)
            case Stage.PROVING | Stage.HELD:
                if seat.tries >= len(CHECK_AGAIN_SECONDS):
                    self.counters["relay silent"] += 1
                    self._go_back(now, seat)
                else:
                    self._check(now, seat, again=bool(seat.nonce))

    def _tend_leases(self, now: float, seat: Seat) -> None:
        if seat.stage is not Stage.HELD or seat.link is None:
            return
        for held in list(seat.leases):
            if held.until <= now:
                self._say(seat.link, wire.LeaseRelease(held.lease_id))
                seat.forget(held.lease_id)
            elif held.renew_at <= now:
                held.renew_at = now + max((held.expires - now) * RENEW_SHARE, ANSWER_SECONDS)
                self._ask(now, seat, wire.LeaseRenew(seat.number(), held.lease_id))

    # Steps

    def _fill(self, now: float) -> None:
        """Take seats at more relays while there are too few."""
        while len(self._seats) < self._wanted and not self.is_paused:
            free = [
                each for static, each in self._candidates.items()
                if static not in self._seats and self._away.get(static, (now, 0.0))[0] <= now
                and (not self._tcp or each.tcp_port is not None)
            ]  # fmt: skip
            found = best(free, [seat.candidate for seat in self._seats.values()])
            if found is None:
                if now >= self._may_want_at:
                    self._may_want_at = now + WANTED_EVERY_SECONDS
                    self.events.append(CandidatesWanted())
                return
            seat = self._seats[found.static] = Seat(found)
            self._dial(now, seat)

    def _dial(self, now: float, seat: Seat) -> None:
        seat.stage = Stage.DIALING
        seat.nonce = b""
        seat.tries = 0
        seat.asked.clear()
        seat.due = now + DIAL_SECONDS
        tcp = self._tcp and seat.candidate.tcp_port is not None
        seat.set_place(tcp)
        self.requests.append(Dial(seat.candidate, tcp))

    def _go_back(self, now: float, seat: Seat) -> None:
        """The relay lost us, or we it: dial again, with the tickets of our leases."""
        if seat.stage is Stage.DIALING:
            return
        if self.is_paused:
            seat.stage, seat.nonce, seat.due = Stage.ASKING, b"", now + PAUSED_SECONDS
            return
        if seat.give_up_at is None:
            seat.give_up_at = now + RETURN_SECONDS
        if now >= seat.give_up_at:
            self._give_up(now, seat, "it does not answer")
        else:
            self._dial(now, seat)

    def _try_again(self, now: float, seat: Seat, reason: str) -> None:
        """A dial came to nothing."""
        if seat.give_up_at is not None and now + RETURN_EVERY_SECONDS < seat.give_up_at and seat.leases:
            seat.stage = Stage.ASKING  # a pause, then again
            seat.due = now + RETURN_EVERY_SECONDS
        else:
            self._give_up(now, seat, reason)

    def _give_up(self, now: float, seat: Seat, reason: str, retry_seconds: float = 0.0) -> None:
        """Leave a relay, and take the next best."""
        static = seat.static
        del self._seats[static]
        if seat.link is not None:
            self.requests.append(HangUp(seat.link))
        backoff = min(self._away.get(static, (0.0, BACKOFF_SECONDS / 2))[1] * 2, BACKOFF_SECONDS_MAX)
        self._away[static] = now + max(backoff, retry_seconds) * self._rng.uniform(0.8, 1.2), backoff
        for other in [other for other in self._away if other not in self._candidates]:
            del self._away[other]
        self.counters["relays left"] += 1
        self.events.append(RelayLost(seat.candidate, reason))
        self._tell()
        self._fill(now)

    def _check(self, now: float, seat: Seat, *, again: bool = False, counts: bool = True) -> None:
        """Ask the relay about the newest lease that it has not confirmed, or else the newest.

        `again`: an answer is awaited already; `counts`: this is one of the tries after which it is given up.
        """
        if not seat.leases or seat.stage not in (Stage.PROVING, Stage.HELD):
            return
        if not again:
            seat.nonce = self._rng.randbytes(wire.ECHO_BYTES)
            seat.tries = 0
        held = next((each for each in reversed(seat.leases) if not each.is_known), seat.leases[-1])
        seat.due = now + CHECK_AGAIN_SECONDS[min(seat.tries, len(CHECK_AGAIN_SECONDS) - 1)]
        seat.tries += counts or not again
        seat.checked_at = now
        self.counters["checks"] += 1
        self.outbox.append((seat.place, wire.frame(wire.CHECK, held.lease_id, seat.nonce)))

    def _ask(self, now: float, seat: Seat, message: wire.LeaseRequest | wire.LeaseRenew) -> None:
        assert seat.link is not None
        seat.asked[message.number] = message
        self._say(seat.link, message)

    def _say(self, link: int, message: wire.LeaseMessage) -> None:
        self.messages.append((link, wire.encode_lease_message(message)))

    def _tell(self) -> None:
        """Say which leases the record should name, if that changed."""
        leases = []
        for seat in sorted(self._seats.values(), key=lambda seat: seat.candidate.cost):
            held = next((each for each in reversed(seat.leases) if each.is_known), None)
            if held is not None:
                where = seat.candidate.endpoint
                is_v4 = len(where) == ENDPOINT_V4_BYTES
                tcp_port = seat.tcp_port or seat.candidate.tcp_port
                leases.append(
                    RelayLease(
                        seat.static, held.lease_id, where if is_v4 else None, None if is_v4 else where, True, tcp_port
                    )
                )
        if tuple(leases) != self._said:
            self._said = tuple(leases)
            self.events.append(LeasesChanged(self._said))
