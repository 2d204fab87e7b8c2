"""The calls of a device: one at a time, outgoing or incoming, from the first dial to the reason why it ended.

A core without a network of its own.  It is told what happens on the links (`take`), speaks through `Lines`, and
asks for records by `wanted`; the owner answers with `found` and `finish`.  Voice is carried, never looked into.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from meshcall.calls.desk import Desk
from meshcall.calls.events import (
    CallLinked,
    CallPath,
    CallResolved,
    Ending,
    VoiceArrived,
    VoiceUnheard,
)
from meshcall.calls.healing import Healer
from meshcall.calls.messages import Messages
from meshcall.calls.offers import Offers
from meshcall.calls.policy import CallPolicy, Standing
from meshcall.calls.state import SEEK_SECONDS, Call, State
from meshcall.core import earliest
from meshcall.errors import UsageError
from meshcall.handshake.events import CLOSED_BY_PEER, Frame
from meshcall.handshake.safety import safety_words
from meshcall.path.candidates import Trust
from meshcall.peers.events import LinkDown, PathChanged, Reached, TalkMessage, Unreached
from meshcall.record.resolver import callable_devices
from meshcall.wire.talk import Cancel, Decline, End, Kind, Terms

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from meshcall.calls.lines import Lines
    from meshcall.calls.speaker import Speaker
    from meshcall.calls.strangers import Stranger
    from meshcall.path.paths import Path
    from meshcall.peers.events import PeerEvent
    from meshcall.wire.record import Record


@dataclass(frozen=True, slots=True)
class CallStatus:
    """A snapshot of a call."""

    call: int
    identity: bytes
    standing: Standing
    outgoing: bool
    """Whether this side's user began it."""
    state: State
    seconds: float
    """Since it began, or since it was answered where it is up."""
    link: int | None
    path: Path | None
    tag: int
    """What marks its voice packets."""
    ours: Terms
    theirs: Terms | None
    held: bool
    muted: bool
    """By us."""
    held_there: bool
    muted_there: bool
    line_lost: bool
    devices: int
    """Links on which it is offered, or up."""


class Calls:
    """Drive it as a `core.Core`: a command or `take` or `wake`, then the events, then `next_wake`."""

    def __init__(
        self,
        now: float,
        *,
        lines: Lines,
        rng: Random,
        own: bytes,
        policy: CallPolicy | None = None,
        events: list[Any] | None = None,
        carry: Callable[[float], None] | None = None,
    ) -> None:
        """`own`: the identity of this device.

        `events`: of the kind CallEvent, the owner's or a list of its own.  `carry`: called after a command, so that
        what it said leaves at once.
        """
        self.events: list[Any] = [] if events is None else events
        self._desk = Desk(
            lines=lines, rng=rng, own=own, policy=policy or CallPolicy(), events=self.events
        )  # fmt: skip
        self._lines = lines
        self._carry = carry or (lambda _now: None)
        self._offers = Offers(now, self._desk)
        self._healer = Healer(self._desk)
        self._messages = Messages(self._desk, self._offers, self._healer)

    # Commands

    def call(self, now: float, identity: bytes, *, relayed: bool = False) -> int:
        """Call somebody; the number of the call.  If they ring here at the moment, that is answered.

        `relayed`: by relays only, whatever the policy.

        Raises UsageError: while there is another call, for one's own address, for a blocked one.
        """
        desk, call = self._desk, self._desk.call
        if identity == desk.own:
            raise UsageError("this is your own address; call somebody else's")
        if desk.policy.standing(desk.own, identity) is Standing.BLOCKED:
            raise UsageError("you have blocked this address; take it out of [contacts] blocked first")
        if call is not None:
            if call.state is State.INCOMING and call.identity == identity:
                self.accept(now, call.number)
                return call.number
            raise UsageError("there is a call already; hang it up first")
        trust = Trust.RELAY_ONLY if relayed else desk.policy.trust(desk.own, identity, accepted=False)
        relayed_only = relayed or desk.policy.direct == "never"
        reach = self._lines.reach(now, identity, trust=trust, relayed_only=relayed_only, keep_all=True)
        call = desk.new(now, identity, State.SEEKING, SEEK_SECONDS)
        call.reach, call.is_seeking_record, call.is_relayed = reach, True, relayed
        desk.wanted.append(call.number)
        self._carry(now)
        return call.number

    def accept(self, now: float, call: int) -> None:
        """Answer a call that rings here.  Raises UsageError where it does not."""
        found = self._need(call, State.INCOMING)
        self._offers.accept(now, found)
        self._carry(now)

    def decline(self, now: float, call: int) -> None:
        """Say no, for all devices of this person.  Raises UsageError where it does not ring."""
        found = self._need(call, State.INCOMING)
        self._desk.end(now, found, Ending.DECLINED_HERE, word=(Kind.DECLINE, Decline.DECLINED))
        self._carry(now)

    def hang_up(self, now: float, call: int, *, trouble: bool = False) -> None:
        """End a call, withdraw or decline it.  `trouble`: because this device cannot go on.  Raises UsageError."""
        found = self._need(call)
        if found.state is State.UP:
            ending, word = Ending.HUNG_UP, (Kind.END, int(End.TROUBLE if trouble else End.HUNG_UP))
        elif found.state is State.INCOMING:
            ending, word = Ending.DECLINED_HERE, (Kind.DECLINE, int(Decline.DECLINED))
        else:
            ending, word = Ending.WITHDRAWN, (Kind.CANCEL, int(Cancel.WITHDRAWN))
        self._desk.end(now, found, Ending.TROUBLE if trouble else ending, word=word)
        self._carry(now)

    def hold(self, now: float, call: int, held: bool) -> None:
        """Put a call on hold or take it back; the other side is told.  Raises UsageError."""
        found = self._need(call)
        if held is not found.is_held:
            found.is_held = held
            self._notice(now, found, Kind.HOLD, held)

    def mute(self, now: float, call: int, muted: bool) -> None:
        """Say that the microphone is off or on; silence is the sender's matter.  Raises UsageError."""
        found = self._need(call)
        if muted is not found.is_muted:
            found.is_muted = muted
            self._notice(now, found, Kind.MUTE, muted)

    def send_voice(
        self, now: float, call: int, data: bytes, *, once: bool = False, is_narrow: bool = False
    ) -> int:  # fmt: skip
        """Send a voice packet; how many datagrams it became.  While it rings, to every device that rings.

        `once`: by one path only, as a second copy may be more than the line carries; `is_narrow`: the line is, or
        may be, full.

        None leaves, and that is no error, where the call is over, no device rings yet, or the line is broken.
        """
        found = self._desk.call
        if found is None or found.number != call:
            return 0
        sent = 0
        if found.state is State.UP:
            if found.link is not None:
                sent = len(self._lines.send_voice(now, found.link, data, once=once, is_narrow=is_narrow))
        else:
            for leg in found.live_legs():
                if leg.theirs is not None or found.state is State.INCOMING:
                    sent += len(self._lines.send_voice(now, leg.link, data, once=once, is_narrow=is_narrow))
        if sent:
            self._carry(now)
        return sent

    def round_trip(self, call: int) -> float | None:
        """Of the path that voice takes, in the last seconds, not smoothed; while it rings, to the first device."""
        found = self._desk.call
        if found is None or found.number != call:
            return None
        link = found.link if found.state is State.UP else next((leg.link for leg in found.live_legs()), None)
        return None if link is None else self._lines.round_trip(link)

    def report_loss(self, now: float, call: int, loss: float) -> None:
        """The share (0 to 1) of our voice packets that the other side says it did not get, before repair."""
        found = self._desk.call
        if found is not None and found.number == call and found.state is State.UP and found.link is not None:
            self._lines.report_loss(now, found.link, loss)
            self._carry(now)

    # Records

    @property
    def wanted(self) -> list[int]:
        """Calls whose `identity_of` is to be looked up now; the owner empties it."""
        return self._desk.wanted

    def identity_of(self, call: int) -> bytes | None:
        """Whom a call is with, while a record for it is waited for."""
        found = self._desk.call
        return found.identity if found is not None and found.number == call and found.is_seeking_record else None

    def found(self, now: float, call: int, record: Record, unix_time: float) -> int:
        """A record of the one who is called, or a newer one; how many devices are being dialled."""
        found = self._desk.call
        if found is None or found.number != call or not found.is_seeking_record or found.reach is None:
            return 0
        devices = callable_devices(record, unix_time)
        if found.state is State.UP:
            devices = tuple(entry for entry in devices if entry.static == found.static)
        elif not found.entries:
            self.events.append(CallResolved(call, now, len(devices)))
        found.entries |= {entry.static: entry for entry in devices}
        dialled = self._lines.found(now, found.reach, devices)
        self._carry(now)
        return dialled

    def finish(self, now: float, call: int, reason: str | None = None) -> None:
        """No (newer) record will come; `reason`: a sentence, where there was none."""
        found = self._desk.call
        if found is None or found.number != call or not found.is_seeking_record:
            return
        found.is_seeking_record = False
        if reason is not None and not found.entries:
            found.fail(Ending.NOT_FOUND, reason)
        if found.reach is not None:
            self._lines.finish(now, found.reach)
            self._carry(now)  # brings an Unreached, which knows the reason
        if found.state is not State.UP:
            self._desk.perhaps_over(now, found)
        self._carry(now)

    # What is known

    @property
    def policy(self) -> CallPolicy:
        """What the owner has decided; may be replaced at any time."""
        return self._desk.policy

    @policy.setter
    def policy(self, policy: CallPolicy) -> None:
        self._desk.policy = policy

    @property
    def speaker(self) -> Speaker:
        """Who says and reads the messages."""
        return self._desk.speaker

    @property
    def counters(self) -> Counter[str]:
        """What was dropped, and why."""
        return self._desk.counters

    def status(self, now: float) -> CallStatus | None:
        """The call, if there is one."""
        call = self._desk.call
        if call is None:
            return None
        end = None if call.link is None else self._lines.end_of(call.link)
        return CallStatus(
            call.number, call.identity, self._desk.policy.standing(self._desk.own, call.identity),
            call.began_here, call.state, now - (call.answered_at or call.began), call.link,
            None if end is None else end[2], call.tag, call.ours, call.theirs, call.is_held, call.is_muted,
            call.held_there, call.muted_there, call.is_line_lost, len(call.legs),
        )  # fmt: skip

    def words(self, call: int) -> tuple[str, ...]:
        """The safety words of the link that the call goes by; none while it has none.  Raises UsageError."""
        found = self._need(call)
        transcript = None if found.link is None else self._lines.transcript(found.link)
        return () if transcript is None else safety_words(transcript)

    def strangers(self) -> list[Stranger]:
        """People who are no contacts and have called, the latest first."""
        return self._offers.strangers.all()

    def forget_stranger(self, identity: bytes) -> bool:
        """The user has decided about one; whether it was in the list."""
        return self._offers.strangers.forget(identity)

    # What happens below

    def take(self, now: float, event: PeerEvent | Frame) -> bool:
        """An event of the links; whether it concerns nobody else."""
        if isinstance(event, Frame):
            self._voice(now, event)
            return True
        if isinstance(event, TalkMessage):
            self._messages.take(now, event.link, event.data)
            return True
        call = self._desk.call
        if isinstance(event, Reached) and event.reach in self._desk.given_up:
            self._lines.close(now, event.link)
        elif isinstance(event, LinkDown):
            self._desk.speaker.forget(event.link)
            if call is not None:
                self._link_down(now, call, event)
        elif call is None:
            pass
        elif isinstance(event, PathChanged):
            if event.link == call.link:
                self.events.append(CallPath(call.number, now, event.best, event.second, event.reason))
        elif isinstance(event, Reached):
            if event.reach == call.reach:
                self._reached(now, call, event)
        elif isinstance(event, Unreached) and event.reach == call.reach:
            call.reach = None
            if call.state is not State.UP:
                call.fail(Ending.NOT_REACHED, f"They cannot be reached: {event.reason}.")
                self._desk.perhaps_over(now, call)
        return False

    def wake(self, now: float) -> None:
        """Do what time has made due."""
        desk = self._desk
        desk.speaker.wake(now)
        call = desk.call
        if call is None:
            return
        for leg in list(call.legs.values()):
            if leg.give_up_at is not None and leg.give_up_at <= now:
                if call.state is State.UP:
                    desk.drop_leg(now, call, leg)
                else:
                    desk.leg_failed(now, call, leg, Ending.NO_RESPONSE, (Kind.CANCEL, Cancel.WITHDRAWN))
        if desk.call is call and (call.legs or call.state is State.UP) and call.look_at <= now:
            self._healer.look(now, call)
        if desk.call is call and call.state is not State.UP and call.deadline <= now:
            self._time_is_over(now, call)

    def next_wake(self) -> float | None:
        """When `wake` wants to be called."""
        call = self._desk.call
        times = [self._desk.speaker.next_wake()]
        if call is not None:
            times += [leg.give_up_at for leg in call.legs.values()]
            if call.legs or call.state is State.UP:
                times.append(call.look_at)
            if call.state is not State.UP:
                times.append(call.deadline)
        return earliest(*times)

    # Inside

    def _need(self, number: int, state: State | None = None) -> Call:
        call = self._desk.call
        if call is None or call.number != number:
            raise UsageError(f"there is no call {number}; it may have ended a moment ago")
        if state is not None and call.state is not state:
            raise UsageError("it does not ring here; there is nothing to answer or decline")
        return call

    def _notice(self, now: float, call: Call, kind: Kind, value: bool) -> None:
        if call.state is State.UP and call.link is not None:
            self._desk.say(now, call, call.link, kind, int(value))
            self._carry(now)

    def _voice(self, now: float, frame: Frame) -> None:
        call = self._desk.call
        leg = None if call is None else call.legs.get(frame.link)
        if call is None or leg is None:
            self._desk.counters["voice without a call"] += 1
        elif call.state is State.UP:
            self._healer.heard(now, call, leg)
            self.events.append(VoiceArrived(call.number, frame.data, frame.path, now))
        else:
            leg.heard_at = now
            if call.state is State.RINGING and leg.theirs is not None:
                leg.early.append((now, frame.path, frame.data))
            if call.state is not State.SEEKING and leg is call.first_ringing():
                if call.unheard.take(now):
                    self.events.append(VoiceUnheard(call.number, frame.link, frame.data, frame.path, now))
                else:
                    self._desk.counters["voice while ringing: too much"] += 1

    def _reached(self, now: float, call: Call, event: Reached) -> None:
        end = self._lines.end_of(event.link)
        if end is None:
            return
        if call.state is State.UP:
            self._healer.reached(now, call, event.link, end[1])
            return
        if any(leg.static == end[1] for leg in call.live_legs()):  # it has called us, and we use its link
            self._lines.close(now, event.link)
            return
        if not call.was_offered:
            self.events.append(CallLinked(call.number, now, event.link, event.path))
        self._offers.offer(now, call, self._desk.add_leg(now, call, event.link, end[1], dialled=True))

    def _link_down(self, now: float, call: Call, event: LinkDown) -> None:
        leg = call.legs.get(event.link)
        if leg is None:
            if call.was_offered:  # a dial came to nothing, maybe the last one; before any offer Unreached says so
                self._desk.perhaps_over(now, call)
            return
        if call.state is State.UP:
            self._healer.link_down(now, call, leg, closed=event.reason == CLOSED_BY_PEER)
        elif call.state is State.INCOMING:
            self._desk.drop_leg(now, call, leg)
            self._desk.end(now, call, Ending.CALLER_GONE)
        else:
            self._desk.leg_failed(now, call, leg, Ending.NOT_REACHED)

    def _time_is_over(self, now: float, call: Call) -> None:
        if call.state is State.RINGING:
            self._desk.end(now, call, Ending.NO_ANSWER, word=(Kind.CANCEL, Cancel.NO_ANSWER))
        elif call.state is State.INCOMING:
            self._desk.end(now, call, Ending.MISSED, word=(Kind.DECLINE, Decline.NO_ANSWER))
        else:
            self._desk.end_unanswered(now, call)
