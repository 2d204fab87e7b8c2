"""The one call of a device and what all that act on it share: going up, ending, telling the other devices."""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, Any

from meshcall.calls.events import CallAnswered, CallEnded, Ending, VoiceArrived
from meshcall.calls.speaker import Speaker
from meshcall.calls.state import EARLY_SECONDS, OTHERS_SECONDS, Call, Leg, State
from meshcall.path.candidates import Trust
from meshcall.wire.talk import VOICE_VERSION, Elsewhere, Kind, Terms

if TYPE_CHECKING:
    from random import Random

    from meshcall.calls.lines import Lines
    from meshcall.calls.policy import CallPolicy

VOICE_BIT = 1
GIVEN_UP_MAX = 64


def fits(terms: Terms) -> bool:
    """Whether we can speak with somebody who offers this."""
    return terms.voice == VOICE_VERSION and bool(terms.kinds & VOICE_BIT)


class Desk:
    """`events` is the owner's and appended to."""

    def __init__(
        self, *, lines: Lines, rng: Random, own: bytes, policy: CallPolicy, events: list[Any]
    ) -> None:  # fmt: skip
        self.lines = lines
        self.rng = rng
        self.own = own
        self.policy = policy
        self.events = events
        self.counters: Counter[str] = Counter()
        self.speaker = Speaker(lines, self.counters)
        self.wanted: list[int] = []
        """Calls whose record is to be looked up."""
        self.given_up: deque[int] = deque(maxlen=GIVEN_UP_MAX)
        """Attempts to reach somebody that were ended while a device may just have answered."""
        self.call: Call | None = None
        """There is one at most."""
        self._last = 0

    def new(
        self, now: float, identity: bytes, state: State, seconds: float, on_wire: int | None = None
    ) -> Call:  # fmt: skip
        """A call, which is the one from now on.  `on_wire`: the number its caller gave it; None: we are the caller."""
        self._last += 1
        ours = Terms(self.rng.getrandbits(16), self.policy.kbit_per_second)
        number = self.rng.getrandbits(32) if on_wire is None else on_wire
        is_ours = on_wire is None
        self.call = Call(self._last, number, identity, is_ours, state, ours, now, now + seconds, is_ours)
        return self.call

    def trust(self, call: Call, *, accepted: bool) -> Trust:
        """What the other side of the call may learn."""
        if call.is_relayed:
            return Trust.RELAY_ONLY
        return self.policy.trust(self.own, call.identity, accepted=accepted)

    def say(self, now: float, call: Call, link: int, kind: Kind, detail: int = 0) -> None:
        """Say something about the call on one of its links."""
        terms = call.ours if kind in (Kind.OFFER, Kind.RINGING, Kind.ACCEPT, Kind.RESUME) else None
        self.speaker.say(now, link, kind, call.on_wire, terms=terms, detail=detail)

    def add_leg(self, now: float, call: Call, link: int, static: bytes, *, dialled: bool) -> Leg:
        """The call takes a link into use."""
        was_ours = self.speaker.keep(link)
        leg = call.legs[link] = Leg(link, static, dialled or was_ours, heard_at=now)
        self.lines.expect_voice(now, link)
        call.look_at = min(call.look_at, now)
        if call.link is None and call.state is not State.UP:
            call.link = link
        return leg

    def drop_leg(self, now: float, call: Call, leg: Leg, word: tuple[Kind, int] | None = None) -> None:
        """The call leaves a link, with a last word or, where the other side has said it, without."""
        if call.legs.pop(leg.link, None) is None:
            return
        self.lines.voice_links.discard(leg.link)
        if call.link == leg.link:
            call.link = call.usable_link()
        if word is not None:
            self.say(now, call, leg.link, word[0], word[1])
        self.lines.trust(now, leg.link, self.trust(call, accepted=False))
        self.speaker.linger(now, leg.link, dialled=leg.dialled)

    def go_up(self, now: float, call: Call, leg: Leg, theirs: Terms, *, automatic: bool = False) -> None:
        """Both sides want the call, on this leg.  Other devices are told, dials end."""
        self.stop_seeking(now, call)
        for other in [other for other in call.legs.values() if other is not leg]:
            self.drop_leg(now, call, other, (Kind.ELSEWHERE, Elsewhere.ANSWERED))
        call.state, call.link, call.theirs, call.static = State.UP, leg.link, theirs, leg.static
        call.answered_at = call.heard_at = leg.heard_at = call.look_at = now
        leg.give_up_at = None
        self.lines.trust(now, leg.link, self.trust(call, accepted=True))
        end = self.lines.end_of(leg.link)
        path = b"" if end is None else end[2]
        self.events.append(CallAnswered(call.number, now, leg.link, path, theirs, automatic))  # type: ignore[arg-type]
        for at, way, data in leg.early:
            if now - at <= EARLY_SECONDS:
                self.events.append(VoiceArrived(call.number, data, way, at))
        leg.early.clear()
        if call.is_held:
            self.say(now, call, leg.link, Kind.HOLD, 1)
        if call.is_muted:
            self.say(now, call, leg.link, Kind.MUTE, 1)

    def end(
        self, now: float, call: Call, ending: Ending, reason: str = "", *, word: tuple[Kind, int] | None = None
    ) -> None:
        """The call is over; `word`: what its links are told, unless the other side has said it already."""
        if self.call is not call:
            return
        self.stop_seeking(now, call)
        for leg in list(call.legs.values()):
            self.drop_leg(now, call, leg, None if leg.is_over else word)
        self.call = None
        seconds = None if call.answered_at is None else now - call.answered_at
        self.events.append(CallEnded(call.number, now, ending, reason or ending.value, seconds))

    def leg_failed(
        self, now: float, call: Call, leg: Leg, ending: Ending, word: tuple[Kind, int] | None = None
    ) -> None:
        """A device takes no part in an outgoing call that is not up; the others may."""
        call.fail(ending)
        self.drop_leg(now, call, leg, word)
        self.perhaps_over(now, call)

    def perhaps_over(self, now: float, call: Call) -> None:
        """End an outgoing call that no device can take any more; wait a little for those being dialled."""
        if self.call is not call or call.state not in (State.SEEKING, State.RINGING) or call.live_legs():
            return
        if call.reach is not None and self.lines.is_reaching(call.reach):
            if call.failure is not None and call.was_offered:
                call.state = State.SEEKING
                call.deadline = min(call.deadline, now + OTHERS_SECONDS)
            return
        self.end_unanswered(now, call)

    def end_unanswered(self, now: float, call: Call) -> None:
        """End an outgoing call with the best reason that is known."""
        ending, reason = call.failure or (Ending.NOT_REACHED, "")
        self.end(now, call, ending, reason, word=(Kind.CANCEL, 0))

    def stop_seeking(self, now: float, call: Call) -> None:
        """No record and no dial is waited for any more."""
        call.is_seeking_record = False
        if call.reach is not None:
            reach, call.reach = call.reach, None
            self.lines.give_up(now, reach)
            self.given_up.append(reach)
