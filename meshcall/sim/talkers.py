"""People who really call: offer, ring, answer, talk, hang up, by the node's own calls; some of the calls are studied.

A call under study has sender and receiver at both ends (`voice`); in all others nothing is said, they are counted.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from meshcall.calls.events import (
    CallAnswered,
    CallEnded,
    CallIncoming,
    CallLinked,
    CallPath,
    CallResolved,
    CallRinging,
    Ending,
    VoiceArrived,
    VoiceUnheard,
)
from meshcall.calls.policy import CallPolicy
from meshcall.errors import UsageError
from meshcall.path.paths import endpoint_of, is_relayed
from meshcall.sim.calls import Call, Callers, Member

if TYPE_CHECKING:
    from meshcall.path.paths import Path
    from meshcall.sim.device import Device
    from meshcall.sim.scenario import Calls
    from meshcall.sim.voice import VoiceEnd
    from meshcall.sim.world import World

PLANNED = (Ending.HUNG_UP, Ending.HUNG_UP_THERE)


@dataclass(slots=True)
class TalkCall(Call):
    """A call by the node's calls; `first` is when its caller heard that it was answered."""

    studied: bool = False
    number: int = 0
    """At the caller's node, and at the callee's."""
    number_there: int = 0
    linked: float | None = None
    ringing: float | None = None
    """The caller heard that it rings."""
    accepted: float | None = None
    """The callee answered."""
    voice: VoiceEnd | None = None
    """The caller's, and the callee's."""
    voice_there: VoiceEnd | None = None
    path_changes: int = 0

    @property
    def outcome(self) -> str:
        """How it went at its end."""
        if self.first is None:
            return "failed"
        if self.reason:
            return "broken"
        return "relayed" if self.best is None or is_relayed(self.best) else "direct"


class Talkers(Callers):
    """All members of a world with voice, and their calls."""

    def __init__(self, world: World, settings: Calls) -> None:
        voice = world.scenario.voice
        assert voice is not None, "a scenario with voice"
        self.voice = voice
        self.counters: Counter[str] = Counter()
        self._of: dict[int, TalkCall] = {}  # the call of each device
        self._studied: Counter[str] = Counter()
        super().__init__(world, settings)
        self._who = {member.identity.public: member for member in self.people}

    def _call_policy(self) -> CallPolicy:
        return CallPolicy(contacts=self._known, kbit_per_second=self.voice.kbit_per_second)

    def _choose(self, pairs: list[tuple[Member, Member]]) -> frozenset[int]:
        """By chance, but callers on the kind of line that was studied least so far come first."""
        left = self.world.rng.sample(range(len(pairs)), len(pairs))
        chosen = []
        for _ in range(round(self.voice.studied * len(pairs))):
            number = min(left, key=lambda number: self._studied[pairs[number][0].line])
            left.remove(number)
            chosen.append(number)
            self._studied[pairs[number][0].line] += 1
        return frozenset(chosen)

    @property
    def over(self) -> list[TalkCall]:
        """The calls that are over."""
        return [call for call in self.calls if isinstance(call, TalkCall) and call.ended]

    # What people do

    def _call(self, now: float, caller: Member, callee: Member, studied: bool) -> None:
        device = caller.device
        assert device.node is not None, "people are never switched off"
        call = TalkCall(caller, callee, now, self.phase, studied=studied)
        self.calls.append(call)
        self._open.append(call)
        self.world.schedule.at(now + self.settings.call_seconds, self._end, call)
        try:
            call.number = device.node.calls.call(now, callee.identity.public)
        except UsageError as problem:  # the call before is not over for this node
            call.reason = str(problem)
            return
        self._of[device.number] = call
        device.drain(now)

    def _answer(self, now: float, call: TalkCall, _second: None, _third: None) -> None:
        device = call.callee.device
        assert device.node is not None
        try:
            device.node.calls.accept(now, call.number_there)
        except UsageError:
            self.counters["over before it was answered"] += 1
            return
        call.accepted = now
        device.drain(now)

    def _end(self, now: float, call: Call, _second: None, _third: None) -> None:
        assert isinstance(call, TalkCall)
        device = call.caller.device
        assert device.node is not None
        call.ended = True
        self._open.remove(call)
        if call.last is not None and call.studied:
            self._note_gap(call, now)
        if call.first is None and not call.reason:
            call.reason = "not answered in time"
        for end in (call.voice, call.voice_there):
            if end is not None:
                end.close()
        if self._of.get(device.number) is call:
            device.node.calls.hang_up(now, call.number)
            device.drain(now)

    # What nodes say

    def _heard(self, now: float, device: Device, event: Any) -> None:
        if isinstance(event, CallIncoming):
            self._incoming(now, device, event)
            return
        call = self._of.get(device.number)
        if call is None:
            return
        is_caller = call.caller.device is device
        if getattr(event, "call", None) != (call.number if is_caller else call.number_there):
            return
        if isinstance(event, VoiceArrived):
            self._voice_arrived(now, call, is_caller, event)
        elif isinstance(event, CallAnswered):
            self._answered_here(now, call, is_caller, event)
        elif isinstance(event, VoiceUnheard):
            end = call.voice if is_caller else call.voice_there
            if end is not None:
                end.unheard(event.at, event.link, event.path, event.data)
        elif isinstance(event, CallEnded):
            del self._of[device.number]
            if not call.ended and event.ending not in PLANNED:
                call.reason = call.reason or event.reason
        elif isinstance(event, CallPath):
            self._path(now, call, is_caller, event.best)
        elif not is_caller:
            return
        elif isinstance(event, CallResolved):
            call.found = now
        elif isinstance(event, CallLinked):
            call.linked, call.link = now, event.link
            self._use(now, call, event.path)
        elif isinstance(event, CallRinging):
            call.ringing = now
            if call.studied:
                call.voice = self._begin(now, call.caller, call.number)

    def _incoming(self, now: float, device: Device, event: CallIncoming) -> None:
        caller = self._who[event.identity]
        call = self._of.get(caller.device.number)
        if call is None or call.ended or call.callee.device is not device:
            self.counters["rang after its end"] += 1
            return
        call.number_there = event.call
        self._of[device.number] = call
        if call.studied:
            call.voice_there = self._begin(now, call.callee, event.call)
        self.world.schedule.at(now + self.voice.answer_seconds, self._answer, call)

    def _answered_here(self, now: float, call: TalkCall, is_caller: bool, event: CallAnswered) -> None:
        if is_caller:
            call.first = call.last = now
            self._use(now, call, event.path)
        mine, other = (call.voice, call.voice_there) if is_caller else (call.voice_there, call.voice)
        if mine is not None and other is not None:
            mine.open(now, event.link, event.path, other)

    def _path(self, now: float, call: TalkCall, is_caller: bool, path: Path | None) -> None:
        if is_caller and path is not None:
            call.path_changes += path != call.best
            self._use(now, call, path)
        mine = call.voice if is_caller else call.voice_there
        if mine is not None:
            mine.path_changed(now, path)

    def _use(self, now: float, call: TalkCall, path: Path) -> None:
        call.best = path
        if is_relayed(path):
            call.relays.add(endpoint_of(path))
        elif call.direct is None:
            call.direct = now

    # Voice

    def _begin(self, now: float, member: Member, number: int) -> VoiceEnd | None:
        from meshcall.sim.voice import VoiceEnd  # numpy, which only worlds with calls under study need

        node = member.device.node
        assert node is not None
        status = node.calls.status(now)
        if status is None or status.call != number:
            return None
        return VoiceEnd(now, member.device, status, self.voice)

    def _voice_arrived(self, now: float, call: TalkCall, is_caller: bool, event: VoiceArrived) -> None:
        end = call.voice if is_caller else call.voice_there
        if end is not None:
            end.arrived(event.at, event.path, event.data)
        if is_caller and call.first is not None:
            self._note_gap(call, now)
            call.last = now
