"""What a sender does against loss: pure functions of what the receiver reports and of what the path carries.

Grades of loss with hysteresis; a table of repair symbols for each; bursts move a symbol further from its frame.  All
sizes and clocks follow from these and from nothing else.  The study behind the tables: docs/voice.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from meshcall.audio.reception import WINDOW_SLOTS
from meshcall.audio.steps import Step
from meshcall.wire.voice import SLOT_SECONDS, Cover, Report, frame_bytes_for, is_implied

BITS_PER_BYTE: Final = 8


@dataclass(frozen=True, slots=True)
class Protection:
    """What goes with a frame against loss."""

    covers: tuple[Cover, ...]
    inband: bool
    expected_loss: float
    """What Opus is told, 0 to 1.  More than nothing costs quality and is wanted for LBRR only."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How packets look between two changes of the network's state."""

    slots: int
    size: int
    """Bytes of the payload."""
    protection: Protection

    @property
    def frame_bytes(self) -> int:
        """Bytes of an Opus frame, without its table of contents."""
        covers = self.protection.covers
        return frame_bytes_for(self.size, len(covers), implied=is_implied(covers))

    @property
    def seconds(self) -> float:
        """From packet to packet."""
        return self.slots * SLOT_SECONDS


class Grade(IntEnum):
    """Of loss; each has its row in the table of protections."""

    NONE = 0
    TRACE = 1
    """LBRR: the whole budget for the frame, which carries a poorer copy of the one before."""
    SOME = 2
    """One symbol: a copy."""
    MORE = 3
    """Two copies; alone, one further back: what it leaves lost is lost singly, and sounds better than two in a row."""
    MUCH = 4
    """Two copies; alone, a symbol of two frames."""
    HEAVY = 5
    """Two copies further back; alone, a symbol of two frames."""
    SEVERE = 6
    """A symbol of two frames, and a copy: more is repaired, later."""
    EXTREME = 7
    """Three symbols."""


ENTER: Final = (0.0, 0.005, 0.03, 0.075, 0.13, 0.17, 0.25, 0.40)
"""From this share of loss on a grade holds ..."""
LEAVE: Final = (0.0, 0.002, 0.015, 0.055, 0.10, 0.13, 0.21, 0.33)
"""... and until it falls below this one."""
ENTER_BURSTY: Final = (0.0, 0.005, 0.02, 0.075, 0.13, 0.28, 0.40, 0.50)
LEAVE_BURSTY: Final = (0.0, 0.002, 0.01, 0.055, 0.10, 0.22, 0.35, 0.42)
"""The same where losses come in bursts: against those a second symbol does little, and costs as much."""

PAIR: Final = (Cover(1, 1), Cover(2, 1))
_COVERS: Final = (
    (), (), (Cover(1, 1),), PAIR, PAIR, (Cover(2, 1), Cover(3, 1)), (Cover(1, 2), Cover(4, 1)),
    (Cover(1, 4), Cover(1, 4), Cover(1, 4)),
)  # fmt: skip
ALONE: Final = {Grade.MORE: (Cover(2, 1),), Grade.MUCH: (Cover(1, 2),), Grade.HEAVY: (Cover(2, 2),)}
"""Instead of two symbols, which repair nearly all, ..."""
ALONE_BELOW_BITS: Final = {Grade.MORE: 15_000, Grade.MUCH: 15_000, Grade.HEAVY: 13_000}
"""... where they would leave the frame less than this in bits per second: what is lost then sounds better than what is
repaired."""
COPIES_BURSTY: Final = (0, 0, 1, 1, 1, 2, 2, 3)
"""In bursts, by grade: many of one burst are lost together with their copies, and each copy costs as much."""
SHAKY_WINDOW_SLOTS: Final = 6
"""A symbol of the frames of so long is the least where delays differ from packet to packet: a frame is late only if
what repairs it is late too, and while the receiver waits for late packets anyway a wide window repairs most ..."""
SHAKY_DISTANCE_MAX: Final = 4
"""... unless bursts are longer than this: of one longer than the window all is lost."""
SHAKY_ENTER_SECONDS: Final = 0.04
SHAKY_LEAVE_SECONDS: Final = 0.025
"""Of reported jitter: from the one on, until it falls below the other."""
STORMY_ENTER_SECONDS: Final = 0.11
STORMY_LEAVE_SECONDS: Final = 0.08
"""The same, where packets are lost as well: then frames have ..."""
STORMY_SLOTS: Final = 2
"""... so many slots at least.  The receiver waits for 200 ms anyway, and half of the headers' bits go to the codec."""
INBAND_EXPECTED_LOSS: Final = 0.05
"""From less libopus makes no LBRR at 40 kbit/s."""
INBAND_BITS_LEAST: Final = 24_000
"""Bits per second of a frame that has room for LBRR."""
FRAME_BITS_LEAST: Final = 9_500
"""Bits per second of a frame; where symbols would leave less, there are fewer of them."""

BURSTY_ENTER: Final = 1.4
BURSTY_LEAVE: Final = 1.2
"""Where runs of losses are so many times as long as those of loss without memory, it comes in bursts, until they are
shorter than this."""
BURST_FIRST_MIN_SLOTS: Final = 3
BURST_FIRST_MAX_SLOTS: Final = 7
"""A copy is one mean burst away from its frame, within these limits: the frame waits so long for it."""
DISTANCE_STEP_SLOTS: Final = 2
"""A distance becomes less only by so many."""


def grade_of(loss: float, present: Grade, *, bursty: bool = False) -> Grade:
    """The grade of a running mean of loss, given the one in force."""
    enter, leave = (ENTER_BURSTY, LEAVE_BURSTY) if bursty else (ENTER, LEAVE)
    entered = max(grade for grade in Grade if loss >= enter[grade])
    if entered >= present:
        return entered
    return max(grade for grade in Grade if grade <= present and loss >= leave[grade])


def distance_of(loss: float, burst: float, present: int) -> int:
    """How many slots away from its frame a copy must be to survive the bursts; 0 where losses come singly."""
    if burst <= (BURSTY_LEAVE if present else BURSTY_ENTER) / (1 - min(loss, 0.9)):
        return 0
    wanted = min(BURST_FIRST_MAX_SLOTS, max(BURST_FIRST_MIN_SLOTS, round(burst)))
    return present if wanted < present < wanted + DISTANCE_STEP_SLOTS else wanted


def covers_for(grade: Grade, distance: int, slots: int, *, shaky: bool = False) -> tuple[Cover, ...]:
    """The row of the table; `distance` in slots, `slots` per frame; `shaky`: packets come with much jitter."""
    count = COPIES_BURSTY[grade]
    if shaky and count < 2 and distance <= SHAKY_DISTANCE_MAX:
        return (Cover(1, SHAKY_WINDOW_SLOTS // slots),)
    if not distance:
        return _COVERS[grade]
    far = math.ceil(distance / slots)
    near = max(1, far // 2)
    return tuple(Cover(first, 1) for first in dict.fromkeys((far, near, far + near)))[:count]


def shape_for(
    grade: Grade, distance: int, step: Step, overhead: int, *, shaky: bool = False, stormy: bool = False
) -> Shape:
    """Packets within the step's bits per second; `overhead`: bytes per packet below the payload.

    `stormy`: the receiver waits so long for late packets that longer frames cost little.
    """
    slots = max(step.slots, STORMY_SLOTS) if stormy else step.slots
    seconds = slots * SLOT_SECONDS
    size = int(step.bits_per_second * seconds / BITS_PER_BYTE) - overhead

    def frame_bits(covers: tuple[Cover, ...]) -> float:
        return frame_bytes_for(size, len(covers), implied=is_implied(covers)) * BITS_PER_BYTE / seconds

    covers = covers_for(grade, distance, slots, shaky=shaky)
    if covers == _COVERS[grade] and not distance and frame_bits(covers) < ALONE_BELOW_BITS.get(grade, 0):
        covers = ALONE[grade]
    while covers and frame_bits(covers) < FRAME_BITS_LEAST:
        covers = covers[:-1]
    inband = grade is Grade.TRACE and not covers and frame_bits(()) >= INBAND_BITS_LEAST
    return Shape(slots, size, Protection(covers, inband, INBAND_EXPECTED_LOSS if inband else 0.0))


LOSS_SECONDS: Final = 4.0
"""Time of the running mean of loss."""
LEAP_LOSS: Final = 0.05
"""A report of more than twice the mean and so much more for each slot of a mean burst is believed at once, ..."""
REPORT_SECONDS: Final = WINDOW_SLOTS * SLOT_SECONDS
"""... and what it says is that of the time since losses began: a report is of so long, and was of less before."""
CALM_LOSS: Final = 0.01
"""While no more than this is lost beyond the mean, they have not begun."""
BEGUN_SECONDS: Final = 0.3
"""The shortest time that losses are taken to have lasted."""
BURST_SECONDS: Final = 15.0
"""Over about so long the mean length of bursts is taken: two seconds see few."""
FORGIVE_SECONDS: Final = 2.5
"""After the rate went down because the path was overfull, reports still speak of losses of before."""
RISE_SECONDS: Final = 1.0
"""Between two changes of the protection, where the second is to a higher grade ..."""
REST_SECONDS: Final = 4.0
"""... and otherwise."""


class Losses:
    """Running means of what the receiver reports, and the grade they give.  Slow and bounded, whatever is reported."""

    def __init__(self, now: float) -> None:
        self.grade = Grade.NONE
        self.distance = 0
        self.shaky = False
        """Whether delays differ much from packet to packet ..."""
        self.stormy = False
        """... and so much, with losses, that longer frames pay."""
        self._jitter = 0.0
        self._loss = 0.0
        self._lost = self._runs = 0.0
        """Lost slots and runs of them, both in the same unit and fading."""
        self._began = now
        self._calm, self._calm_loss = now - REPORT_SECONDS, 0.0
        """When losses were last as they had been, and how many that were."""
        self._is_young = False
        """They have grown since, within the time of a report."""
        self._last = now
        self._changed = now - REST_SECONDS

    def reported(self, now: float, report: Report, fell: float) -> None:
        """`fell`: when the rate last went down because the path was overfull."""
        passed = max(0.0, now - self._last)
        self._last = now
        if now - fell < FORGIVE_SECONDS:
            return
        kept = max(0.0, 1 - passed / BURST_SECONDS)
        self._lost = self._lost * kept + report.loss * passed
        self._runs = self._runs * kept + report.loss / max(1.0, report.burst) * passed
        burst = self._lost / self._runs if self._runs > 0 else 1.0
        self._loss = self._mean_loss(now, passed, report, burst)
        self._jitter += (report.jitter - self._jitter) * min(1.0, passed / LOSS_SECONDS)
        distance = distance_of(self._loss, burst, self.distance)
        grade = grade_of(self._loss, self.grade, bursty=distance > 0)
        shaky = self._jitter >= (SHAKY_LEAVE_SECONDS if self.shaky else SHAKY_ENTER_SECONDS)
        stormy = grade >= Grade.SOME and self._jitter >= (STORMY_LEAVE_SECONDS if self.stormy else STORMY_ENTER_SECONDS)
        wanted, present = (grade, distance, shaky, stormy), (self.grade, self.distance, self.shaky, self.stormy)
        pause = RISE_SECONDS if grade > self.grade or shaky > self.shaky or stormy > self.stormy else REST_SECONDS
        if wanted != present and now - self._changed >= pause:
            self.grade, self.distance, self.shaky, self.stormy = wanted
            self._changed = now

    def _mean_loss(self, now: float, passed: float, report: Report, burst: float) -> float:
        """What is lost, as far as is known: a running mean, that begins anew where losses do."""
        age = now - self._calm
        leaps = report.loss > 2 * self._loss + LEAP_LOSS * burst
        self._is_young = leaps or (self._is_young and age < LOSS_SECONDS)
        if self._is_young and age < REPORT_SECONDS and not self.distance:
            runs = report.loss * WINDOW_SLOTS / max(1.0, report.burst)
            more = (report.loss - self._calm_loss) * REPORT_SECONDS / max(BEGUN_SECONDS, age)
            sure = 1 - 1 / max(1.0, runs)  # the last one is why they were noticed now
            return min(1.0, max(report.loss, self._calm_loss + more * sure))
        if leaps:
            return report.loss
        seconds = min(LOSS_SECONDS, age) if self._is_young else LOSS_SECONDS
        mean = self._loss + (report.loss - self._loss) * min(1.0, passed / seconds)
        if not self._is_young and report.loss <= mean + CALM_LOSS and now - self._began >= REPORT_SECONDS:
            self._calm, self._calm_loss = now, mean
        return mean
