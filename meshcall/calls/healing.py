"""Watching the lines of a call: silence is asked about, a broken line dialled anew, and given up in the end.

The paths of a link heal below; here is what is left: both sides lose their network for a while, a link ends, or
the other side was started anew and knows nothing of the call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshcall.calls.desk import fits
from meshcall.calls.events import CallLineBack, CallLineLost, Ending
from meshcall.calls.state import (
    CHECK_SECONDS,
    FOLLOW_SECONDS,
    LEGS_MAX,
    LINE_LOST_SECONDS,
    LOST_SECONDS,
    OFFER_SECONDS,
    REDIAL_CALLEE_SECONDS,
    REDIAL_CLOSED_CALLEE_SECONDS,
    REDIAL_CLOSED_SECONDS,
    REDIAL_SECONDS,
    Call,
    Leg,
    State,
)
from meshcall.errors import UsageError
from meshcall.wire.talk import Decline, End, Kind, Status, Talk

if TYPE_CHECKING:
    from meshcall.calls.desk import Desk


class Healer:
    """Acts on the desk's call."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def heard(self, now: float, call: Call, leg: Leg) -> None:
        """Something of this call came by one of its links."""
        leg.heard_at = now
        if leg.give_up_at is not None and call.state is State.UP:
            return  # a new link, whose other end has not said yet that it has the call
        call.heard_at = now
        if leg.link != call.link and call.state is State.UP:
            mine = call.legs.get(call.link) if call.link is not None else None
            if mine is None or now - mine.heard_at > FOLLOW_SECONDS:
                call.link, call.closed_at = leg.link, None
        if call.is_line_lost and call.closed_at is None:
            self._back(now, call, call.link)

    def look(self, now: float, call: Call) -> None:
        """Do what silence asks for, and note when to look again."""
        for leg in list(call.legs.values()):
            self._look_at(now, call, leg)
            if self._desk.call is not call:
                return
        watched = [leg for leg in call.live_legs() if call.state is not State.UP or leg.give_up_at is None]
        call.look_at = min((self._next(leg) for leg in watched), default=now + LOST_SECONDS)
        if call.state is State.UP:
            self._look_up(now, call)
        call.look_at = max(call.look_at, now + 0.01)

    def _look_at(self, now: float, call: Call, leg: Leg) -> None:
        leg.heard_at = max(leg.heard_at, self._desk.lines.heard_at(leg.link) or 0.0)
        if call.state is State.UP and leg.give_up_at is not None:
            return
        if leg.heard_at > call.heard_at:
            call.heard_at = leg.heard_at
            if call.is_line_lost and call.closed_at is None and now - leg.heard_at < CHECK_SECONDS:
                self._back(now, call, call.link)
        silence = now - leg.heard_at
        if silence >= LOST_SECONDS and call.state is State.INCOMING:
            self._desk.end(now, call, Ending.CALLER_GONE, word=(Kind.DECLINE, Decline.NO_ANSWER))
        elif silence >= LOST_SECONDS and call.state is not State.UP:
            self._desk.leg_failed(now, call, leg, Ending.NOT_REACHED, (Kind.CANCEL, 0))
        elif silence >= LOST_SECONDS and call.heard_at > leg.heard_at:  # it goes on by another link
            self._desk.drop_leg(now, call, leg)
            call.closed_at = now if call.link is None else call.closed_at
        elif silence >= CHECK_SECONDS and leg.asked_at <= leg.heard_at:
            leg.asked_at = now
            self._desk.say(now, call, leg.link, Kind.CHECK)

    @staticmethod
    def _next(leg: Leg) -> float:
        return leg.heard_at + (CHECK_SECONDS if leg.asked_at <= leg.heard_at else LOST_SECONDS)

    def _look_up(self, now: float, call: Call) -> None:
        """The silences of a call that is up."""
        if now >= call.heard_at + LOST_SECONDS:
            self._desk.end(now, call, Ending.LINE_LOST, word=(Kind.END, End.LINE_LOST))
            return
        times = [call.heard_at + LOST_SECONDS]
        if not call.is_line_lost:
            if now >= call.heard_at + LINE_LOST_SECONDS or call.closed_at is not None:
                call.is_line_lost = True
                self._desk.events.append(CallLineLost(call.number, now))
            else:
                times.append(call.heard_at + LINE_LOST_SECONDS)
        if not call.was_redialled and call.reach is None:
            due = call.heard_at + (REDIAL_SECONDS if call.is_caller else REDIAL_CALLEE_SECONDS)
            if call.closed_at is not None:
                pause = REDIAL_CLOSED_SECONDS if call.is_caller else REDIAL_CLOSED_CALLEE_SECONDS
                due = min(due, call.closed_at + pause)
            if now >= due:
                self._redial(now, call)
            else:
                times.append(due)
        call.look_at = min([call.look_at, *times])

    def _back(self, now: float, call: Call, link: int | None) -> None:
        assert link is not None
        call.is_line_lost = call.was_redialled = False
        self._desk.stop_seeking(now, call)
        self._desk.events.append(CallLineBack(call.number, now, link))

    # A new link for the same call

    def _redial(self, now: float, call: Call) -> None:
        desk = self._desk
        call.was_redialled = True
        desk.counters["dialled anew"] += 1
        try:
            call.reach = desk.lines.reach(
                now, call.identity, trust=desk.trust(call, accepted=True),
                relayed_only=call.is_relayed or desk.policy.direct == "never", keep_all=True,
            )  # fmt: skip
        except UsageError:
            desk.counters["too many dials"] += 1
            return
        known = call.entries.get(call.static)
        if known is not None:
            desk.lines.found(now, call.reach, [known])
        call.is_seeking_record = True
        desk.wanted.append(call.number)

    def reached(self, now: float, call: Call, link: int, static: bytes) -> None:
        """The device of the call has answered on a new link."""
        desk = self._desk
        if static != call.static or len(call.legs) >= LEGS_MAX:
            desk.lines.close(now, link)
            return
        leg = desk.add_leg(now, call, link, static, dialled=True)
        leg.give_up_at = now + OFFER_SECONDS
        desk.say(now, call, link, Kind.RESUME)

    def resumed(self, now: float, call: Call, leg: Leg) -> None:
        """Our RESUME was taken.  Where both sides dial anew, the caller's link is the one that stays."""
        taken_from_caller = not call.is_caller and call.link not in (None, leg.link) and call.closed_at is None
        leg.give_up_at = None
        if taken_from_caller and call.legs[call.link].heard_at > now - CHECK_SECONDS:  # type: ignore[index]
            self._desk.drop_leg(now, call, leg)
            return
        self._switch(now, call, leg)

    def resume(self, now: float, call: Call, link: int, static: bytes, message: Talk) -> Status:
        """A RESUME of the other side."""
        desk = self._desk
        if message.terms is None or not fits(message.terms):
            return Status.OUT_OF_PLACE
        for old in list(call.legs.values()):
            if len(call.legs) >= LEGS_MAX and old.link != call.link:
                desk.drop_leg(now, call, old)
        leg = call.legs.get(link) or desk.add_leg(now, call, link, static, dialled=False)
        call.theirs = message.terms
        mine = call.legs.get(call.link) if call.link is not None else None
        fresh = mine is not None and mine is not leg and mine.dialled and mine.heard_at > now - CHECK_SECONDS
        if not (call.is_caller and fresh):
            self._switch(now, call, leg)
        return Status.TAKEN

    def _switch(self, now: float, call: Call, leg: Leg) -> None:
        desk = self._desk
        for other in [other for other in call.legs.values() if other is not leg and other.dialled]:
            desk.drop_leg(now, call, other)
        desk.lines.trust(now, leg.link, desk.trust(call, accepted=True))
        call.link, call.closed_at, call.was_redialled = leg.link, None, False
        call.is_line_lost = True  # so that its coming back is told, whatever was told before
        self.heard(now, call, leg)

    def link_down(self, now: float, call: Call, leg: Leg, *, closed: bool) -> None:
        """A link of a call that is up has ended; `closed`: by the other side's word, so it was there just now."""
        self._desk.lines.voice_links.discard(leg.link)
        call.legs.pop(leg.link, None)
        if closed:
            call.heard_at = now
        if call.link == leg.link:
            call.link = call.usable_link()
            call.closed_at = now if call.link is None else None
        call.look_at = now
