"""Call messages that come: which call and leg they are about, what they change, how they are acknowledged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshcall.calls.desk import fits
from meshcall.calls.events import CallHeld, CallMuted, CallRinging, Ending
from meshcall.calls.policy import Standing
from meshcall.calls.state import RING_SECONDS, Call, Leg, State
from meshcall.wire.talk import Cancel, Decline, Elsewhere, End, Kind, Status, Talk

if TYPE_CHECKING:
    from meshcall.calls.desk import Desk
    from meshcall.calls.healing import Healer
    from meshcall.calls.offers import Offers
    from meshcall.path.paths import Path

_OVER: dict[tuple[Kind, int], Ending] = {
    (Kind.CANCEL, Cancel.WITHDRAWN): Ending.WITHDRAWN_THERE,
    (Kind.CANCEL, Cancel.NO_ANSWER): Ending.MISSED,
    (Kind.ELSEWHERE, Elsewhere.ANSWERED): Ending.ANSWERED_ELSEWHERE,
    (Kind.ELSEWHERE, Elsewhere.DECLINED): Ending.DECLINED_ELSEWHERE,
    (Kind.END, End.HUNG_UP): Ending.HUNG_UP_THERE,
    (Kind.END, End.LINE_LOST): Ending.LINE_LOST_THERE,
    (Kind.END, End.TROUBLE): Ending.TROUBLE_THERE,
}
_OVER_IN_GENERAL = {
    Kind.CANCEL: Ending.WITHDRAWN_THERE,
    Kind.ELSEWHERE: Ending.ANSWERED_ELSEWHERE,
    Kind.END: Ending.HUNG_UP_THERE,
}
_DECLINES: dict[int, Ending] = {
    Decline.NOT_ADMITTED: Ending.NOT_ADMITTED,
    Decline.INCOMPATIBLE: Ending.INCOMPATIBLE,
    Decline.NO_ANSWER: Ending.NO_ANSWER,
}


class Messages:
    """Reads them for the desk."""

    def __init__(self, desk: Desk, offers: Offers, healer: Healer) -> None:
        self._desk = desk
        self._offers = offers
        self._healer = healer

    def take(self, now: float, link: int, data: bytes) -> None:
        """A call message that came by a link."""
        desk = self._desk
        end = desk.lines.end_of(link)
        if end is None:
            return
        if desk.policy.standing(desk.own, end[0]) is Standing.BLOCKED:
            desk.counters["call message of somebody blocked"] += 1
            return
        message = desk.speaker.read(now, link, data)
        if message is None:
            return
        if message.kind is Kind.ACK:
            self._acknowledged(now, link, message)
            return
        if message.kind is Kind.OFFER:
            status = self._offers.take(now, link, end, message)
        else:
            status = self._of_a_call(now, link, end, message)
        desk.speaker.acknowledge(now, link, message, status)

    def _of_a_call(self, now: float, link: int, end: tuple[bytes, bytes, Path], message: Talk) -> Status:
        call = self._desk.call
        if call is None or call.on_wire != message.call or call.identity != end[0]:
            return Status.NO_SUCH_CALL
        if message.kind is Kind.RESUME and call.state is State.UP and call.static == end[1]:
            return self._healer.resume(now, call, link, end[1], message)
        leg = call.legs.get(link)
        if leg is None:
            return Status.NO_SUCH_CALL
        self._healer.heard(now, call, leg)
        kind = message.kind
        if kind in _OVER_IN_GENERAL:
            self._over_there(now, call, leg, message)
        elif kind is Kind.CHECK:
            pass
        elif kind in (Kind.HOLD, Kind.MUTE) and call.state is State.UP:
            self._noticed(now, call, kind, bool(message.detail))
        elif call.state in (State.SEEKING, State.RINGING):
            return self._answer(now, call, leg, message)
        else:
            return Status.OUT_OF_PLACE
        return Status.TAKEN

    def _answer(self, now: float, call: Call, leg: Leg, message: Talk) -> Status:
        """What a device says to our offer."""
        kind, terms = message.kind, message.terms
        if terms is not None and not fits(terms):
            self._desk.leg_failed(now, call, leg, Ending.INCOMPATIBLE, (Kind.CANCEL, Cancel.WITHDRAWN))
        elif kind is Kind.RINGING and terms is not None:
            if leg.theirs is not None:
                return Status.OUT_OF_PLACE
            leg.theirs, leg.give_up_at = terms, None
            if call.state is State.SEEKING:
                call.state, call.link, call.deadline = State.RINGING, leg.link, now + RING_SECONDS
                if call.theirs is None:
                    self._desk.events.append(CallRinging(call.number, now, terms))
                call.theirs = terms
        elif kind is Kind.ACCEPT and terms is not None:
            self._desk.go_up(now, call, leg, terms)
        elif kind is Kind.BUSY:
            self._desk.leg_failed(now, call, leg, Ending.BUSY)
        elif kind is Kind.DECLINE:
            failed = _DECLINES.get(message.detail)
            if failed is not None:
                self._desk.leg_failed(now, call, leg, failed)
            else:
                self._desk.drop_leg(now, call, leg)
                self._desk.end(now, call, Ending.DECLINED, word=(Kind.ELSEWHERE, Elsewhere.DECLINED))
        else:
            return Status.OUT_OF_PLACE
        return Status.TAKEN

    def _over_there(self, now: float, call: Call, leg: Leg, message: Talk) -> None:
        ending = _OVER.get((message.kind, message.detail), _OVER_IN_GENERAL[message.kind])
        if call.state in (State.SEEKING, State.RINGING):
            self._desk.leg_failed(now, call, leg, Ending.HUNG_UP_THERE)
        else:
            up = call.state is State.UP
            self._desk.end(now, call, Ending.HUNG_UP_THERE if up and message.kind is Kind.CANCEL else ending)

    def _noticed(self, now: float, call: Call, kind: Kind, value: bool) -> None:
        if kind is Kind.HOLD and value is not call.held_there:
            call.held_there = value
            self._desk.events.append(CallHeld(call.number, now, value))
        elif kind is Kind.MUTE and value is not call.muted_there:
            call.muted_there = value
            self._desk.events.append(CallMuted(call.number, now, value))

    def _acknowledged(self, now: float, link: int, ack: Talk) -> None:
        desk = self._desk
        said = desk.speaker.acknowledged(now, link, ack)
        call = desk.call
        leg = None if call is None else call.legs.get(link)
        if said is None or call is None or leg is None or call.on_wire != ack.call:
            return
        self._healer.heard(now, call, leg)
        if said is Kind.RESUME and ack.detail == Status.TAKEN:
            self._healer.resumed(now, call, leg)
        elif ack.detail == Status.NO_SUCH_CALL and call.state is State.UP:
            if link == call.link or said is Kind.RESUME:
                desk.end(now, call, Ending.GONE_THERE)
        elif ack.detail == Status.NO_SUCH_CALL and call.state is State.INCOMING:
            desk.end(now, call, Ending.CALLER_GONE)
        elif ack.detail == Status.NO_SUCH_CALL and said is Kind.CHECK:
            desk.leg_failed(now, call, leg, Ending.NOT_REACHED)
        elif ack.detail in (Status.UNKNOWN_KIND, Status.UNKNOWN_VERSION) and said is Kind.OFFER:
            desk.leg_failed(now, call, leg, Ending.INCOMPATIBLE)
