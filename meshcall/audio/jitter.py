"""What arrives, put in order: slots as integers, a bounded buffer of frames, and how long it is worth waiting.

Time is counted in pulls (ticks of 10 ms): a frame "comes at tick k" when pull number k is the first that can use it.
The delay of a frame is its tick less twice the last slot that it covers; only differences of delays mean anything.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from meshcall.wire.voice import SLOTS_MODULUS, SLOTS_PER_FRAME_MAX

TICK_SECONDS: Final = 0.01
TICKS_PER_SLOT: Final = 2

EARLY_TICKS_MAX: Final = 50
"""A packet that comes so much earlier than any other does not belong to this line of slots ..."""
LATE_TICKS_MAX: Final = 200
"""... nor does one that comes so much later."""
RESTART_PACKETS: Final = 4
"""So many packets in a row that agree with each other on another line of slots begin it."""
AGREE_TICKS: Final = 50
_REFERENCE_PACKETS: Final = 256
"""The least delay is taken over one to two times so many packets."""

FRAMES_MAX: Final = 150
SLOTS_MAX: Final = 150
"""From the oldest frame kept to the newest: 3 s."""
BYTES_MAX: Final = 32_768


def tick_delay(tick: int, slot: int, slots: int) -> int:
    """The delay in ticks of a frame that comes at `tick`."""
    return tick - TICKS_PER_SLOT * (slot + slots - 1)


class SlotLine:
    """Makes integers of the 12 bits of a slot, and tells packets that cannot be of this stream."""

    def __init__(self) -> None:
        self._least: int | None = None
        self._older = self._newer = 0
        self._seen = 0
        self._wild = 0
        self._wild_slot = self._wild_delay = 0

    def place(self, tick: int, slot: int) -> tuple[int, bool] | None:
        """The slot as an integer, and whether a new line began with it; None for a packet out of place."""
        if self._least is None:
            self._begin(tick - TICKS_PER_SLOT * slot)
            return slot, False
        expected = (tick - self._least) // TICKS_PER_SLOT
        half = SLOTS_MODULUS // 2
        placed = expected + (slot - expected + half) % SLOTS_MODULUS - half
        delay = tick - TICKS_PER_SLOT * placed
        if -EARLY_TICKS_MAX <= delay - self._least <= LATE_TICKS_MAX:
            self._wild = 0
            self._note(delay)
            return placed, False
        if placed == self._wild_slot and self._wild:
            return None
        agrees = self._wild > 0 and abs(delay - self._wild_delay) <= AGREE_TICKS
        self._wild = self._wild + 1 if agrees else 1
        self._wild_slot, self._wild_delay = placed, delay
        if self._wild < RESTART_PACKETS:
            return None
        self._begin(delay)
        return placed, True

    def _begin(self, delay: int) -> None:
        self._least = self._older = self._newer = delay
        self._seen = self._wild = 0

    def _note(self, delay: int) -> None:
        self._newer = min(self._newer, delay)
        self._seen += 1
        if self._seen == _REFERENCE_PACKETS:
            self._older, self._newer, self._seen = self._newer, delay, 0
        self._least = min(self._older, self._newer)


@dataclass(frozen=True, slots=True)
class Frame:
    """A coded frame that can be played."""

    slot: int
    slots: int
    data: bytes
    """A whole Opus packet."""
    tick: int
    """At which it was known."""
    inband: bool
    """Whether it may carry a copy of the frame before it."""
    repaired: bool


class FrameBuffer:
    """Frames by slot, with bounds in number, span and bytes; at a bound the oldest go."""

    def __init__(self) -> None:
        self._frames: dict[int, Frame] = {}
        self._order: list[int] = []
        self.bytes = 0
        self.overflowed = 0
        """Frames dropped because the buffer was full."""

    def __len__(self) -> int:
        return len(self._order)

    def put(self, frame: Frame) -> bool:
        """False where a frame of that slot is there already."""
        if frame.slot in self._frames:
            return False
        self._frames[frame.slot] = frame
        insort(self._order, frame.slot)
        self.bytes += len(frame.data)
        while len(self._order) > FRAMES_MAX or self.bytes > BYTES_MAX or self._span() > SLOTS_MAX:
            self.take(self._order[0])
            self.overflowed += 1
        return True

    def at(self, slot: int) -> Frame | None:
        return self._frames.get(slot)

    def oldest(self) -> Frame | None:
        return self._frames[self._order[0]] if self._order else None

    def take(self, slot: int) -> Frame:
        frame = self._frames.pop(slot)
        del self._order[bisect_left(self._order, slot)]
        self.bytes -= len(frame.data)
        return frame

    def drop_before(self, slot: int) -> int:
        """How many frames that begin before `slot` were dropped."""
        count = bisect_left(self._order, slot)
        for _ in range(count):
            self.take(self._order[0])
        return count

    def clear(self) -> None:
        self._frames.clear()
        self._order.clear()
        self.bytes = 0

    def _span(self) -> int:
        return self._order[-1] - self._order[0]


BINS: Final = 192
"""Ticks of delay that are told apart."""
_HEADROOM: Final = 24
"""Bins below the least delay when the histogram is moved."""
FORGET_SLOTS: Final = 500
"""A delay counts for a third after so many slots: 10 s."""
SURE_SLOTS: Final = FORGET_SLOTS / 4
"""From so many slots on, what is known does not change with every frame."""
PEAK_SLOTS: Final = 50
PEAKS: Final = 6
"""Peaks of the last 6 s; what was seen before, and lies beyond them ..."""
PEAK_TICKS: Final = 3
"""... by so much, was a queue or a storm that is over: it fades ..."""
OVER_TIMES: Final = 5
"""... so many times as fast."""
QUEUE_SLOTS: Final = 25
"""Where all frames of 500 ms were later by more than ..."""
QUEUE_TICKS: Final = 6
"""... this than all of the last 500 ms, and these are alike within `PEAK_TICKS`, a queue is gone and forgotten."""
PRIOR_FRAMES: Final = 4
PRIOR: Final = (0.85, 0.10, 0.05)
"""Of so many frames before the first: as late as the first, one tick later, two."""
MISSED_MS: Final = 2200.0
"""What it is worth, in milliseconds of delay, to play every frame instead of none: 22 ms for each per cent."""
FLAW_MS: Final = 40.0
"""What it is worth to miss none at all: the first few that miss are heard most ..."""
FLAW_HALF: Final = 0.002
"""... half of that is lost where one frame in 500 is missing."""
NEGLIGIBLE: Final = 0.0007
"""A share as small as this is none: one late frame is forgiven after 10 s."""
RUN_MS: Final = 1000.0
"""What more it is worth where frames would be missing three in a row although they come, as in a stall of the
network: 10 ms for each per cent of them."""
RUN_FRAMES: Final = 3
REACH_TICKS_MAX: Final = 20
"""Repair that comes later than this is waited for only if the histogram says so."""
_LEAST_SHARE: Final = 0.004
"""Delays less than the least share of frames are not called the least."""
_JUMP_FRAMES: Final = 4
_JUMP_TICKS: Final = 4
"""So many frames in a row, all so much faster than any before: the clock or the path has jumped."""
_RECENT_FRAMES: Final = 64
"""Frames whose delay is remembered one by one."""
WAITING_FRAMES: Final = 16
"""Frames that are noted at once at most, as together they cost less than one by one."""

_Bins = NDArray[np.float64]


class DelayHistogram:
    """How late frames come, forgetting; and the delay that costs the least.

    The cost of playing with delay D is D, plus `MISSED_MS` * m and `FLAW_MS` * m / (m + `FLAW_HALF`) for the share m of
    frames that come later than D or never, plus `RUN_MS` times the share of packets that come later than D with both
    of their neighbours.
    """

    def __init__(self, delay: int) -> None:
        self._low = delay - _HEADROOM
        self._bins: _Bins = np.zeros((2, BINS))
        self._all, self._runs = self._bins  # views: what is done to both is done at once
        self._never = 0.0
        self._all[_HEADROOM : _HEADROOM + len(PRIOR)] = PRIOR
        self._weight = float(PRIOR_FRAMES)
        self._waiting: list[tuple[int, int, int, bool]] = []
        self._recent: dict[int, tuple[int, int]] = {}
        self._peaks: deque[int] = deque(maxlen=PEAKS)
        self._peak, self._peak_slots = delay, 0
        self._latest: deque[tuple[int, int]] = deque()
        self._latest_slots = 0
        self._lifted = delay
        self._early: list[int] = []
        self._before = delay
        self._price: _Bins = np.arange(BINS, dtype=np.float64) * (TICK_SECONDS * 1000)
        self._cost = self._price
        self._target = delay + len(PRIOR) - 1
        self._least = delay
        self._reach = 0
        self._settled = True

    def repairs_within(self, ticks: int) -> None:
        """Packets carry repair of frames sent so many ticks before them: the target is no less than that.

        Where losses come in bursts the few of the last 10 s say too little of what is to come; the other side, which
        sees the mean of a longer time, would not spend bits on repair that is not waited for.
        """
        reach = min(ticks, REACH_TICKS_MAX)
        self._settled = self._settled and reach == self._reach
        self._reach = reach

    @property
    def target(self) -> int:
        """The delay that costs the least, in ticks; a frame that comes with it is just in time.

        At most `WAITING_FRAMES` old where frames since then came no later than it, and so would not raise it.
        """
        if not (self._settled and self._weight >= SURE_SLOTS and self._is_calm()):
            self._settle()
        return self._target

    def _is_calm(self) -> bool:
        return all(self._least <= delay <= self._target for _, _, delay, _ in self._waiting)

    @property
    def least(self) -> int:
        """The least delay, apart from a few frames."""
        self._settle()
        return self._least

    def add(self, slot: int, slots: int, delay: int, *, repaired: bool) -> None:
        """A frame of these slots became playable with this delay; only the first time counts."""
        self._waiting.append((slot, slots, delay, repaired))
        if len(self._waiting) >= WAITING_FRAMES:
            self._note_all()

    def _note_all(self) -> None:
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            self._note(*one)

    def _note(self, slot: int, slots: int, delay: int, repaired: bool) -> None:
        if slot in self._recent:
            return
        delay = self._followed(delay)
        share = slots / (self._weight + slots)
        self._weight = min(self._weight + slots, float(FORGET_SLOTS))
        self._bins *= 1 - share
        self._never *= 1 - share
        self._fade_what_is_over(slots, delay, share)
        self._forget_a_queue(slots, delay)
        self._all[self._bin(delay)] += share
        self._recent[slot] = (slots, delay)
        if not repaired:
            for run in self._runs_with(slot):
                self._runs[self._bin(min(run))] += share
        self._forget()
        self._settled = False
        if self._weight < SURE_SLOTS or self._low + BINS - delay < BINS // 2:
            self._settle()

    def _fade_what_is_over(self, slots: int, delay: int, share: float) -> None:
        self._peak = max(self._peak, delay)
        self._peak_slots += slots
        if self._peak_slots >= PEAK_SLOTS:
            self._peaks.append(self._peak)
            self._peak, self._peak_slots = delay, 0
        beyond = max([self._peak, *self._peaks]) + PEAK_TICKS - self._low
        if len(self._peaks) == PEAKS and beyond < BINS:
            self._bins[:, max(0, beyond) :] *= (1 - share) ** (OVER_TIMES - 1)

    def _forget_a_queue(self, slots: int, delay: int) -> None:
        """A queue lifts all delays and falls when the sender sends less: its delays say nothing about what comes."""
        self._latest.append((slots, delay))
        self._latest_slots += slots
        while self._latest_slots - self._latest[0][0] >= QUEUE_SLOTS:
            self._latest_slots -= self._latest.popleft()[0]
        if self._latest_slots < QUEUE_SLOTS:
            return
        delays = [one for _, one in self._latest]
        self._lifted = max(self._lifted, min(delays))
        if self._lifted > max(delays) + QUEUE_TICKS and max(delays) <= min(delays) + PEAK_TICKS:
            self._lifted = min(delays)
            beyond = max(delays) + 1 - self._low
            if beyond < BINS:
                self._bins[:, max(0, beyond) :] = 0.0
            self._peaks.clear()
            self._peak, self._peak_slots = max(delays), 0

    def _followed(self, delay: int) -> int:
        """The delay to note: frames that come far too early are not believed, until several in a row say the same."""
        if delay >= self._before - _JUMP_TICKS:
            self._before = self._least
            self._early.clear()
            return delay
        self._early.append(delay)
        if len(self._early) < _JUMP_FRAMES:
            return self._before - _JUMP_TICKS
        self._low -= self._before - min(self._early)
        self._peaks.clear()
        self._latest.clear()
        self._latest_slots = 0
        self._lifted = self._low + BINS  # what came before is in doubt
        self._peak = delay
        self._before = min(self._early)
        self._early.clear()
        return delay

    def _forget(self) -> None:
        """A frame missing between old ones will never be known."""
        while len(self._recent) > _RECENT_FRAMES:
            oldest = min(self._recent)
            slots, _ = self._recent.pop(oldest)
            gap = min(min(self._recent) - oldest - slots, _RECENT_FRAMES)
            self._never += max(0, gap) / self._weight

    def dearer(self, delay: int) -> float:
        """By how many milliseconds this delay costs more than the target."""
        self._settle()
        bins = [min(max(0, one - self._low), BINS - 1) for one in (delay, self._target)]
        return float(self._cost[bins[0]] - self._cost[bins[1]])

    def _runs_with(self, slot: int) -> list[list[int]]:
        """The delays of each three neighbours of which this frame is one, as far as all three are known."""
        slots, delay = self._recent[slot]
        line = [delay]
        for way in (-slots, slots):
            for step in range(1, RUN_FRAMES):
                near = self._recent.get(slot + step * way)
                if near is None or near[0] != slots:
                    break
                line.insert(0 if way < 0 else len(line), near[1])
        return [line[n : n + RUN_FRAMES] for n in range(len(line) - RUN_FRAMES + 1)]

    def _settle(self) -> None:
        self._note_all()
        if self._settled:
            return
        self._settled = True
        mass = np.cumsum(self._all)
        least = int(np.searchsorted(mass, _LEAST_SHARE))
        missed = np.maximum(0.0, mass[-1] - mass + self._never - NEGLIGIBLE)
        runs = np.cumsum(self._runs)
        cost = self._price + MISSED_MS * missed + FLAW_MS * missed / (missed + FLAW_HALF)
        cost += RUN_MS * (runs[-1] - runs)
        self._cost = cost
        first = min(least + self._reach, BINS - 1)
        best = int(np.argmin(cost[first:])) + first
        self._least = self._low + least
        self._target = self._low + best
        if least > 2 * _HEADROOM:
            self._move(least - _HEADROOM)

    def _bin(self, delay: int) -> int:
        if delay < self._low:
            self._move(delay - self._low - _HEADROOM)
        return min(delay - self._low, BINS - 1)

    def _move(self, by: int) -> None:
        """Make bin `by` the first one; what falls off an end stays in the last bin there."""
        self._low += by
        for bins in (self._all, self._runs):
            old = bins.copy()
            bins[:] = 0.0
            np.add.at(bins, np.clip(np.arange(BINS) - by, 0, BINS - 1), old)


assert SLOTS_PER_FRAME_MAX * RUN_FRAMES < _RECENT_FRAMES
