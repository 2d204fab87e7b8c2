"""A call is offered to us: who rings, who waits, who is busy, and two people who call each other at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from meshcall.calls.desk import fits
from meshcall.calls.events import CallIncoming, CallRequested, Ending
from meshcall.calls.policy import Standing
from meshcall.calls.state import CHECK_SECONDS, LEGS_MAX, OFFER_SECONDS, RING_HERE_SECONDS, Call, Leg, State
from meshcall.calls.strangers import Strangers
from meshcall.handshake.budget import SourceBudgets
from meshcall.wire.talk import Decline, Elsewhere, Kind, Status, Talk

if TYPE_CHECKING:
    from meshcall.calls.desk import Desk
    from meshcall.path.paths import Path

RINGS_PER_SECOND: Final = 0.2
RINGS_BURST: Final = 5.0
"""Calls of one identity that ring; beyond it this device is busy to them.

Strangers, where they ring at all, count as one: fresh keys cost nothing.
"""
_STRANGERS: Final = b""


class Offers:
    """Takes the OFFERs of others."""

    def __init__(self, now: float, desk: Desk) -> None:
        self.strangers = Strangers(now)
        self._desk = desk
        self._rings = SourceBudgets(RINGS_PER_SECOND, RINGS_BURST)

    def take(self, now: float, link: int, end: tuple[bytes, bytes, Path], message: Talk) -> Status:
        """An OFFER; what to acknowledge it with."""
        desk, (identity, static, path) = self._desk, end
        call = desk.call
        if call is not None and call.identity == identity:
            if not call.is_caller and call.on_wire == message.call and call.state is State.INCOMING:
                return self._again(now, call, link, static)
            if call.state in (State.SEEKING, State.RINGING):
                return self._glare(now, call, link, static, message)
        if not desk.policy.rings(desk.own, identity):
            if self.strangers.asked(now, identity):
                desk.events.append(CallRequested(identity, now))
            return self._refuse(now, link, message, Kind.DECLINE, Decline.NOT_ADMITTED)
        if message.terms is None or not fits(message.terms):
            return self._refuse(now, link, message, Kind.DECLINE, Decline.INCOMPATIBLE)
        anew = call is not None and call.static == static and call.on_wire != message.call
        if call is not None and not (anew and not self._is_alive(now, call)):
            return self._refuse(now, link, message, Kind.BUSY, 0)
        standing = desk.policy.standing(desk.own, identity)
        if not self._rings.take(now, identity if standing is Standing.CONTACT else _STRANGERS):
            return self._refuse(now, link, message, Kind.BUSY, 0)
        if call is not None:  # the same device calls anew, so it has lost this call
            desk.end(now, call, Ending.GONE_THERE if call.state is State.UP else Ending.CALLER_GONE)
        call = desk.new(now, identity, State.INCOMING, RING_HERE_SECONDS, message.call)
        call.theirs, call.static = message.terms, static
        desk.add_leg(now, call, link, static, dialled=False)
        desk.lines.trust(now, link, desk.policy.trust(desk.own, identity, accepted=False))
        desk.say(now, call, link, Kind.RINGING)
        desk.events.append(CallIncoming(call.number, now, identity, standing, link, path, message.terms))
        if desk.policy.answers(desk.own, identity):
            self.accept(now, call, automatic=True)
        return Status.TAKEN

    def _is_alive(self, now: float, call: Call) -> bool:
        """Whether the other side was heard in this call just now: then an offer is a late one of two who called
        each other."""
        if call.state is not State.UP or call.link is None:
            return False
        heard = max(call.heard_at, self._desk.lines.heard_at(call.link) or 0.0)
        return now - heard < CHECK_SECONDS

    def accept(self, now: float, call: Call, *, automatic: bool = False) -> None:
        """Answer the call that rings here."""
        leg = next(iter(call.live_legs()), None)
        assert leg is not None and call.theirs is not None
        self._desk.say(now, call, leg.link, Kind.ACCEPT)
        self._desk.go_up(now, call, leg, call.theirs, automatic=automatic)

    def _refuse(self, now: float, link: int, message: Talk, kind: Kind, detail: int) -> Status:
        speaker, call = self._desk.speaker, self._desk.call
        speaker.say(now, link, kind, message.call, detail=detail)
        if call is None or link not in call.legs:  # else it is needed, whatever else is offered on it
            speaker.linger(now, link, dialled=speaker.keep(link))
        return Status.TAKEN

    def _again(self, now: float, call: Call, link: int, static: bytes) -> Status:
        """The offer of the call that rings here came once more: by a new link, if the old one broke."""
        if link in call.legs or static != call.static or len(call.legs) >= LEGS_MAX:
            return Status.OUT_OF_PLACE
        for leg in call.live_legs():
            self._desk.drop_leg(now, call, leg)
        self._desk.add_leg(now, call, link, static, dialled=False)
        self._desk.say(now, call, link, Kind.RINGING)
        return Status.TAKEN

    def _glare(self, now: float, call: Call, link: int, static: bytes, message: Talk) -> Status:
        """We call somebody who calls us: one call, up at once, since both want it.

        The call of the smaller identity key stands, unless it was not offered to anybody yet.
        """
        desk, theirs = self._desk, message.terms
        if theirs is None or not fits(theirs):
            return self._refuse(now, link, message, Kind.DECLINE, Decline.INCOMPATIBLE)
        if call.was_offered and desk.own < call.identity:
            leg = next((leg for leg in call.live_legs() if leg.static == static), None)
            if leg is None and link not in call.legs and len(call.legs) < LEGS_MAX:
                self.offer(now, call, desk.add_leg(now, call, link, static, dialled=False))
            return Status.TAKEN
        leg = call.legs.get(link)
        for other in [other for other in call.legs.values() if other is not leg]:
            desk.drop_leg(now, call, other, (Kind.ELSEWHERE, Elsewhere.ANSWERED))
        call.on_wire, call.is_caller = message.call, False
        if leg is None:
            leg = desk.add_leg(now, call, link, static, dialled=False)
        desk.say(now, call, link, Kind.ACCEPT)
        desk.go_up(now, call, leg, theirs, automatic=True)
        return Status.TAKEN

    def offer(self, now: float, call: Call, leg: Leg) -> None:
        """Offer our call to a device."""
        leg.give_up_at = now + OFFER_SECONDS
        call.was_offered = True
        self._desk.say(now, call, leg.link, Kind.OFFER)
