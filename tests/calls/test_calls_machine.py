"""A Hypothesis state machine: two people call, answer, hang up, lose their lines and start anew, in any order.

The calls cores are real, the lines between them are a model that loses, delays and ends links; a link keeps messages
in order and delivers each once or never again, as the control stream does.
"""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from meshcall.calls.core import Calls
from meshcall.calls.events import CallAnswered, CallEnded, CallIncoming, VoiceArrived
from meshcall.calls.policy import CallPolicy
from meshcall.calls.state import LOST_SECONDS, RING_HERE_SECONDS, SEEK_SECONDS, State
from meshcall.errors import UsageError
from meshcall.handshake.events import CLOSED_BY_PEER, SILENT, Frame
from meshcall.path.candidates import Trust
from meshcall.path.paths import Path
from meshcall.peers.events import LinkDown, LinkUp, Reached, TalkMessage, Unreached
from meshcall.wire.record import DeviceEntry, Record

STEP_SECONDS = 0.25
DIAL_SECONDS = 15.0
SILENCE_SECONDS = 65.0
PATH = Path(b"\0\x7f\0\0\1\0\1")
UNIX = 1_790_000_000.0


class Side:
    """One person with a device, and the model of its links: a `Lines`."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.number = number
        self.identity = bytes([number + 1]) * 32
        self.static = bytes([number + 101]) * 32
        self.entry = DeviceEntry(1, self.static, 2**39, bytes(64), time=int(UNIX))
        self.starts = 0
        self.start()

    @property
    def other(self) -> Side:
        return self.world.sides[1 - self.number]

    def start(self) -> None:
        self.starts += 1
        self.links: dict[int, float] = {}
        """Open ones: when something last came."""
        self.reaches: dict[int, list[float]] = {}
        """Under way: when its dials end; empty before a record came."""
        self.final: set[int] = set()
        self.reached: set[int] = set()
        self.voice_links: set[int] = set()
        self.pending: list[Any] = []
        self.events: list[Any] = []
        contacts = frozenset({bytes([2 - self.number]) * 32})
        self.calls = Calls(
            self.world.now, lines=self, rng=Random(self.starts * 2 + self.number), own=self.identity,
            policy=CallPolicy(contacts),
        )  # fmt: skip

    # Lines

    def reach(
        self, now: float, identity: bytes, *, trust: Trust | None, relayed_only: bool, keep_all: bool
    ) -> int:  # fmt: skip
        self.world.last += 1
        self.reaches[self.world.last] = []
        return self.world.last

    def found(self, now: float, reach: int, devices: Iterable[DeviceEntry]) -> int:
        if reach in self.reaches and not self.reaches[reach] and reach not in self.reached:
            self.reaches[reach] = [now + DIAL_SECONDS]
        return 1

    def finish(self, now: float, reach: int) -> None:
        self.final.add(reach)
        self._perhaps_over(reach)

    def give_up(self, now: float, reach: int) -> None:
        self.reaches.pop(reach, None)

    def is_reaching(self, reach: int) -> bool:
        return reach in self.reaches

    def say(self, now: float, link: int, data: bytes) -> None:
        if link in self.links:
            self.world.send(self, link, TalkMessage(link, data))

    def send_voice(
        self, now: float, link: int, data: bytes, *, once: bool = False, is_narrow: bool = False
    ) -> tuple[Path, ...]:
        if link not in self.links:
            return ()
        self.world.send(self, link, Frame(link, PATH, 32, data))
        return (PATH,)

    def expect_voice(self, now: float, link: int) -> None:
        self.voice_links.add(link)

    def report_loss(self, now: float, link: int, loss: float) -> None:
        return None

    def trust(self, now: float, link: int, trust: Trust) -> None:
        return None

    def close(self, now: float, link: int) -> None:
        if self.links.pop(link, None) is not None:
            self.voice_links.discard(link)
            self.world.send(self, link, LinkDown(link, CLOSED_BY_PEER))

    def end_of(self, link: int) -> tuple[bytes, bytes, Path] | None:
        return (self.other.identity, self.other.static, PATH) if link in self.links else None

    def heard_at(self, link: int) -> float | None:
        return self.links.get(link)

    def transcript(self, link: int) -> bytes | None:
        return link.to_bytes(64, "big") if link in self.links else None

    # The model

    def _perhaps_over(self, reach: int) -> None:
        if reach in self.final and reach in self.reaches and not self.reaches[reach]:
            del self.reaches[reach]
            if reach not in self.reached:
                self.pending.append(Unreached(reach, "it did not answer"))

    def dials(self, now: float) -> None:
        """Dials that the other side answers, and those that nobody does."""
        for reach, ends in list(self.reaches.items()):
            if not ends:
                continue
            if not self.world.is_cut:
                self.world.last += 1
                link = self.world.last
                self.links[link] = self.other.links[link] = now
                self.reaches[reach] = []
                self.reached.add(reach)
                self.pending += (
                    LinkUp(link, PATH, self.other.identity, self.other.static, False),
                    Reached(reach, link, PATH, True),
                )
                self.other.pending.append(LinkUp(link, PATH, self.identity, self.static, True))
                self._perhaps_over(reach)
            elif ends[0] <= now:
                self.reaches[reach] = []
                self._perhaps_over(reach)

    def step(self, now: float) -> None:
        """What has happened, and the time."""
        for link, heard in list(self.links.items()):
            if now - heard > SILENCE_SECONDS:
                del self.links[link]
                self.voice_links.discard(link)
                self.pending.append(LinkDown(link, SILENT))
        self.dials(now)
        for _ in range(20):
            events, self.pending = self.pending, []
            for event in events:
                self.calls.take(now, event)
            for call in list(self.calls.wanted):
                self.world.records.append((now + 0.3, self, self.starts, call))
            self.calls.wanted.clear()
            if not self.pending:
                break
        due = self.calls.next_wake()
        if due is not None and due <= now:
            self.calls.wake(now)
        self.events += self.calls.events
        self.calls.events.clear()

    @property
    def state(self) -> State | None:
        status = self.calls.status(self.world.now)
        return None if status is None else status.state


class World:
    """Both sides and what is under way between them."""

    def __init__(self) -> None:
        self.now = 10.0
        self.last = 0
        self.is_cut = False
        self.queues: dict[tuple[int, int], list[tuple[float, Any]]] = {}
        """By sender and link, in order."""
        self.records: list[tuple[float, Side, int, int]] = []
        self.rng = Random(5)
        self.loss = 0.0
        self.sides: list[Side] = []
        self.sides += [Side(self, 0), Side(self, 1)]

    def send(self, side: Side, link: int, event: Any) -> None:
        """Messages come in order, late where a datagram was lost; voice is lost."""
        queue = self.queues.setdefault((side.number, link), [])
        lost = self.rng.random() < self.loss
        if isinstance(event, TalkMessage):
            queue.append((self.now + (1.5 if lost else 0.1), event))
        elif not lost and not self.is_cut:
            queue.append((self.now + 0.1, event))

    def carry(self) -> None:
        """What has arrived."""
        if self.is_cut:
            for key, queue in self.queues.items():  # farewells and voice are sent once only
                self.queues[key] = [one for one in queue if isinstance(one[1], TalkMessage)]
            return
        for (sender, link), queue in list(self.queues.items()):
            side = self.sides[1 - sender]
            while queue and queue[0][0] <= self.now:
                _, event = queue.pop(0)
                if link not in side.links:
                    continue
                side.links[link] = self.now
                if isinstance(event, LinkDown):
                    del side.links[link]
                    side.voice_links.discard(link)
                elif isinstance(event, Frame) and link not in side.voice_links:
                    continue
                side.pending.append(event)
            if not queue:
                del self.queues[sender, link]

    def run(self, seconds: float, *, voice: bool = True) -> None:
        """Let time pass."""
        end = self.now + seconds
        while self.now < end:
            self.now += STEP_SECONDS
            for due, side, starts, call in list(self.records):
                if due <= self.now:
                    self.records.remove((due, side, starts, call))
                    if side.starts == starts:
                        side.calls.found(self.now, call, Record((side.other.entry,)), UNIX)
                        side.calls.finish(self.now, call)
            self.carry()
            for side in self.sides:
                status = side.calls.status(self.now)
                if voice and status is not None:
                    side.calls.send_voice(self.now, status.call, b"voice")
                side.step(self.now)


class CallMachine(RuleBasedStateMachine):
    """Rules are what people and networks do."""

    @initialize(loss=st.sampled_from([0.0, 0.2, 0.5]))
    def begin(self, loss: float) -> None:
        self.world = World()
        self.world.loss = loss

    @rule(who=st.integers(0, 1))
    def call(self, who: int) -> None:
        side = self.world.sides[who]
        try:
            side.calls.call(self.world.now, side.other.identity)
        except UsageError:
            assert side.state is not None

    @rule()
    def both_call(self) -> None:
        for who in (0, 1):
            self.call(who)

    @rule(who=st.integers(0, 1), what=st.sampled_from(["accept", "decline", "hang_up"]))
    def do(self, who: int, what: str) -> None:
        side = self.world.sides[who]
        status = side.calls.status(self.world.now)
        if status is None or (what != "hang_up" and status.state is not State.INCOMING):
            with pytest.raises(UsageError):
                getattr(side.calls, what)(self.world.now, 0 if status is None else status.call)
        else:
            getattr(side.calls, what)(self.world.now, status.call)

    @rule(who=st.integers(0, 1), what=st.sampled_from(["hold", "mute"]), value=st.booleans())
    def toggle(self, who: int, what: str, value: bool) -> None:
        side = self.world.sides[who]
        status = side.calls.status(self.world.now)
        if status is not None:
            getattr(side.calls, what)(self.world.now, status.call, value)

    @rule(who=st.integers(0, 1))
    def start_anew(self, who: int) -> None:
        self.world.sides[who].start()

    @rule(who=st.integers(0, 1))
    def a_link_ends(self, who: int) -> None:
        side = self.world.sides[who]
        for link in list(side.links)[:1]:
            side.close(self.world.now, link)
            side.pending.append(LinkDown(link, SILENT))

    @rule()
    def cut(self) -> None:
        self.world.is_cut = True

    @precondition(lambda self: self.world.is_cut)
    @rule()
    def mend(self) -> None:
        self.world.is_cut = False

    @rule(seconds=st.sampled_from([0.25, 0.5, 1.0, 3.0, 8.0, 25.0]), voice=st.booleans())
    def wait(self, seconds: float, voice: bool) -> None:
        self.world.run(seconds, voice=voice)

    @invariant()
    def every_call_has_one_beginning_and_one_end(self) -> None:
        for side in self.world.sides if hasattr(self, "world") else []:
            ended = [event.call for event in side.events if isinstance(event, CallEnded)]
            answered = [event.call for event in side.events if isinstance(event, CallAnswered)]
            assert len(set(ended)) == len(ended)
            assert len(set(answered)) == len(answered)
            assert len(side.calls.speaker) < 300
            incoming = {event.call for event in side.events if isinstance(event, CallIncoming)}
            assert len(incoming - set(ended)) <= 1

    @invariant()
    def no_voice_outside_of_a_call_that_is_up(self) -> None:
        for side in self.world.sides if hasattr(self, "world") else []:
            up: set[int] = set()
            for event in side.events:
                if isinstance(event, CallAnswered):
                    up.add(event.call)
                elif isinstance(event, CallEnded):
                    up.discard(event.call)
                elif isinstance(event, VoiceArrived):
                    assert event.call in up

    def teardown(self) -> None:
        """In the end both agree, and what is over has left nothing."""
        if not hasattr(self, "world"):
            return
        world = self.world
        world.is_cut = False
        world.loss = 0.0
        world.run(LOST_SECONDS + DIAL_SECONDS + 5.0)
        one, other = world.sides
        assert (one.state is State.UP) == (other.state is State.UP), "both agree"
        if one.state is State.UP:
            statuses = [side.calls.status(world.now) for side in world.sides]
            assert statuses[0].tag == statuses[1].tag  # type: ignore[union-attr]
            since = [len(side.events) for side in world.sides]
            world.run(2.0)
            for side, before in zip(world.sides, since, strict=True):
                assert any(isinstance(event, VoiceArrived) for event in side.events[before:])
            one.calls.hang_up(world.now, statuses[0].call)  # type: ignore[union-attr]
        world.run(SEEK_SECONDS + RING_HERE_SECONDS + SILENCE_SECONDS)
        for side in world.sides:
            assert side.state is None
            assert not side.voice_links
            assert not side.reaches
            assert not side.links
            assert not len(side.calls.speaker)


TestCallMachine = CallMachine.TestCase
TestCallMachine.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
