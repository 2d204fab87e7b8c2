"""Arrivals of any kind between pulls of any number: what must always hold."""

from __future__ import annotations

import itertools

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from meshcall.audio import jitter, receiver
from tests.audio.paper_codec import paper_packet
from tests.audio.paper_net import new_receiver

SLOT_TICKS = 2


class Calls(RuleBasedStateMachine):
    """A sender that never stops, a network that does what it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.receiver, self.decoder = new_receiver()
        self.tick = 0
        self.sent = 0
        self.flying: list[tuple[int, int]] = []
        self.pushed: set[int] = set()
        self.wild = False

    def _pull(self) -> None:
        now = self.tick * 0.01
        for at, slot in [one for one in self.flying if one[0] <= self.tick]:
            self.flying.remove((at, slot))
            self.receiver.push(now, paper_packet(slot))
            self.pushed.add(slot)
        block = self.receiver.pull(now)
        assert block.shape == (480,) and block.dtype.name == "int16"
        self.tick += 1
        if self.tick % SLOT_TICKS == 0:
            self.sent += 1
            self.flying.append((self.tick + 2, self.sent))

    @rule(pulls=st.integers(1, 60))
    def go_on(self, pulls: int) -> None:
        for _ in range(pulls):
            self._pull()

    @rule(share=st.integers(1, 5))
    def lose(self, share: int) -> None:
        self.flying = [one for n, one in enumerate(self.flying) if n % (share + 1)]

    @rule(ticks=st.integers(1, 80))
    def stall(self, ticks: int) -> None:
        """Nothing for a while, then everything at once."""
        until = self.tick + ticks
        for _ in range(ticks):
            self.flying = [(max(at, until), slot) for at, slot in self.flying]
            self._pull()

    @rule(extra=st.lists(st.integers(0, 40), min_size=1, max_size=20))
    def reorder(self, extra: list[int]) -> None:
        for late in extra:
            self._pull()
            if self.flying:
                at, slot = self.flying[-1]
                self.flying[-1] = (at + late, slot)

    @rule(back=st.integers(0, 300), count=st.integers(1, 5))
    def repeat(self, back: int, count: int) -> None:
        for _ in range(count):
            if self.sent - back in self.pushed:
                self.receiver.push(self.tick * 0.01, paper_packet(self.sent - back))

    @rule(slot=st.integers(0, 65_535))
    def wild_slot(self, slot: int) -> None:
        self.wild = True
        self.receiver.push(self.tick * 0.01, paper_packet(slot))

    @rule(payload=st.binary(max_size=1300))
    def rubbish(self, payload: bytes) -> None:
        self.receiver.push(self.tick * 0.01, payload)

    @rule()
    def change_path(self) -> None:
        self.receiver.path_changed(self.tick * 0.01)

    @invariant()
    def memory_is_bounded(self) -> None:
        one = self.receiver
        assert len(one._inbox) <= receiver.INBOX_MAX
        assert len(one._buffer) <= jitter.FRAMES_MAX and one._buffer.bytes <= jitter.BYTES_MAX
        assert one._line.ready < 3 * 960 + 480
        assert len(one._copies) <= 64 and len(one._targets) <= receiver.CALM_TARGETS

    @invariant()
    def frames_play_in_order_and_once(self) -> None:
        if not self.receiver.stats().restarts and not self.wild:
            played = self.decoder.decoded
            assert all(a < b for a, b in itertools.pairwise(played))

    @invariant()
    def what_came_is_played_or_accounted_for(self) -> None:
        """Each frame that came is played, waits, came too late, or was dropped and counted."""
        stats = self.receiver.stats()
        if self.wild or stats.restarts:
            return
        waiting = len(self.receiver._buffer) + len(self.receiver._inbox)
        dropped = sum(stats.refused.values())
        lost = self.pushed - set(self.decoder.decoded)
        assert len(lost) <= waiting + stats.late + dropped + self.receiver._buffer.overflowed

    def teardown(self) -> None:
        """However bad it was: two seconds of a good network, and all is heard again."""
        self.flying = []
        for _ in range(300):
            self._pull()
        assert self.sent - self.decoder.decoded[-1] % 65_536 < 60


Calls.TestCase.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)
TestCalls = Calls.TestCase


def test_who_is_as_far_behind_as_the_buffer_is_long_catches_up() -> None:
    """The frame that is next was dropped for a newer one, again and again: nothing was heard any more."""
    calls = Calls()
    for ticks in (33, 57, 73, 73):
        calls.stall(ticks)
    calls.lose(1)
    calls.stall(72)
    calls.reorder([0])
    calls.teardown()
