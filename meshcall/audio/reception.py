"""What the network did to the packets of the last two seconds, slot by slot: the report for the other side."""

from __future__ import annotations

from collections import deque
from typing import Final

import numpy as np

from meshcall.wire.voice import SLOT_SECONDS, SLOTS_PER_FRAME_MAX, Report

WINDOW_SLOTS: Final = 100
"""2 s."""
QUEUE_SECONDS: Final = 0.5
QUEUE_SPAN_SECONDS: Final = 0.1
"""Packets that came within less, after half a second in which none came, say nothing of a queue: what stood still and
then comes at once is late at first, and soon no more."""
BASE_RISE: Final = 0.0005
"""The least delay known is forgotten by so many seconds a second: more than two clocks drift apart (300 ppm)."""
JITTER_QUANTILE: Final = 0.95
GRACE_LEAST_SECONDS: Final = 0.06
GRACE_MOST_SECONDS: Final = 0.5
"""A slot counts as lost when its packet is later than any of the window by a frame; within these limits."""
SETTLED_SLOTS: Final = 50
"""For the statistics of a call a slot is lost when its packet is a second late."""
WAITING_PACKETS: Final = 32
"""Packets that are noted at once at most: nobody asks before the next report."""
_RING: Final = 512
_PACKETS_MAX: Final = 256
_NEVER: Final = -(1 << 40)


class Reception:
    """Which slots came, which came too late, and with what delay; bounded."""

    def __init__(self, now: float, slot: int) -> None:
        self._came = np.full(_RING, _NEVER)
        self._late = np.full(_RING, _NEVER)
        self._delays: deque[tuple[float, float]] = deque(maxlen=_PACKETS_MAX)
        self._waiting: list[tuple[float, int, int]] = []
        self._latest_late = _NEVER
        self._first = slot
        self._counted = slot
        self._base: float | None = None
        self._base_at = now
        self._queue = 0.0
        self.slots = 0
        """Slots whose packet should have come by now ..."""
        self.lost = 0
        """... and those whose packet did not, before any repair."""

    def path_changed(self) -> None:
        """The least delay of the path before says nothing about this one."""
        self._note_all()
        self._base = None
        self._queue = 0.0
        self._delays.clear()

    def packet(self, now: float, slot: int, slots: int) -> None:
        """A packet came; a second one for the same slot says nothing new."""
        self._waiting.append((now, slot, slots))
        if len(self._waiting) >= WAITING_PACKETS:
            self._note_all()

    def _note_all(self) -> None:
        for one in self._waiting:
            self._note(*one)
        self._waiting.clear()

    def _note(self, now: float, slot: int, slots: int) -> None:
        if self._came[slot % _RING] == slot:
            return
        for one in range(slot, slot + slots):
            self._came[one % _RING] = max(one, int(self._came[one % _RING]))
        self._first = min(self._first, slot)
        delay = now - (slot + slots) * SLOT_SECONDS
        self._delays.append((now, delay))
        risen = delay if self._base is None else self._base + (now - self._base_at) * BASE_RISE
        self._base, self._base_at = min(delay, risen), now

    def later(self, now: float, slot: int, slots: int) -> float:
        """Seconds by which a packet that comes now came later than the fastest one known."""
        return max(0.0, now - (slot + slots) * SLOT_SECONDS - self._base) if self._base is not None else 0.0

    def late(self, slot: int, slots: int) -> None:
        """A frame was known only after it should have been played."""
        for one in range(slot, slot + slots):
            self._late[one % _RING] = one
        self._latest_late = max(self._latest_late, slot + slots - 1)

    def report(self, now: float) -> Report:
        """Of the two seconds before `now`."""
        self._note_all()
        while self._delays and self._delays[0][0] < now - WINDOW_SLOTS * SLOT_SECONDS:
            self._delays.popleft()
        if self._base is None:
            return Report()
        delays = sorted(delay for _, delay in self._delays) or [self._base]
        least, worst = delays[0], delays[-1]
        grace = min(GRACE_MOST_SECONDS, max(GRACE_LEAST_SECONDS, worst - self._base + SLOT_SECONDS))
        end = int((now - self._base - grace) / SLOT_SECONDS) - SLOTS_PER_FRAME_MAX + 1
        begin = max(self._first, end - WINDOW_SLOTS)
        self._count(end - SETTLED_SLOTS)
        if end <= begin:
            return Report()
        line = np.arange(begin, end)
        places = line % _RING
        gaps = self._came[places] != line
        lost = int(np.count_nonzero(gaps))
        runs = int(gaps[0]) + int(np.count_nonzero(gaps[1:] & ~gaps[:-1])) if lost else 0
        late = int(np.count_nonzero(self._late[places] == line)) if self._latest_late >= begin else 0
        recent = [one for one in self._delays if one[0] >= now - QUEUE_SECONDS]
        if not recent or recent[-1][0] - recent[0][0] >= QUEUE_SPAN_SECONDS:
            self._queue = max(0.0, min(delay for _, delay in recent) - self._base) if recent else 0.0
        return Report(
            loss=lost / len(line),
            burst=lost / runs if runs else 0.0,
            late=late / len(line),
            jitter=delays[int(JITTER_QUANTILE * (len(delays) - 1))] - least,
            queue=self._queue,
        )

    def _count(self, end: int) -> None:
        """Slots that became due since the last count, for the statistics of the whole call."""
        begin = max(self._counted, end - _RING + 1)
        if end > begin:
            line = np.arange(begin, end)
            self.slots += end - self._counted
            self.lost += int(np.count_nonzero(self._came[line % _RING] != line)) + begin - self._counted
            self._counted = end
