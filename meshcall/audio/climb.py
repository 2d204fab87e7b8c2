"""From the lowest step up to what the line carries, begun while it rings and nobody listens.

A train of few packets, larger and closer than the line may carry, shows how far it spreads them: by that the sender
goes to a step that fits at once.  From there on each step that the train did not show is tried by a pulse first, so
that whoever listens meanwhile hears no queue.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from meshcall.audio.pulse import (
    PULSE_JITTER_MOST_SECONDS,
    RISING_BEFORE_SECONDS,
    RISING_JITTER_SECONDS,
    UNSEEN_PULSE_SECONDS,
    Pulse,
)
from meshcall.audio.steps import MARGIN, RING, Step
from meshcall.wire.voice import Report

TRAIN_AFTER_SECONDS: Final = 0.2
"""First some packets must tell the least delay."""
PATH_SECONDS: Final = 0.6
"""After a change of path the other side begins to measure anew, once the path before has been silent for 0.3 s."""
TRAIN_SECONDS: Final = 0.06
TRAIN_BITS_PER_SECOND: Final = 70_000
"""Of the train, at most: on a line of 24 kbit/s it leaves a queue of 90 ms."""
TRAIN_LOOK_SECONDS: Final = 0.5
"""After a round trip: jitter is told each 0.42 s in frames of 60 ms."""
TRAINS_MAX: Final = 2
TRAIN_LOSS: Final = 0.05
LOSSY_BITS_PER_SECOND: Final = 45_000
"""Where so much is lost, the train may have been: it is believed up to this step only."""
TRIP_SECONDS: Final = 0.2
"""Of a round trip that is not known."""
MORE_TRIP_SECONDS: Final = 0.2
LONG_TRIP_SECONDS: Final = 0.5
"""A round trip that is longer than the least by so much, or as long as this, waits in a queue, which the other side
does not see where it was there before its first packet: what else a call sends as it is set up ..."""
PATH_TRIP_SECONDS: Final = 0.2
"""By so much another path may be longer, and no queue is on it."""
PATIENT_SECONDS: Final = 8.0
"""... is over after so long, or it is a long way."""
CLIMB_SECONDS: Final = 1.0
"""From one step to the next.  The queue of half a second ago and the way of the report."""
CLIMB_LOOK_SECONDS: Final = 0.8
"""After a pulse."""
CLIMB_QUEUE_SECONDS: Final = 0.012
CLIMB_LOSS: Final = 0.6
"""With no more queue than this, and less loss: a line that something else fills may show no queue, ..."""
JITTER_SECONDS: Final = 2.0
"""Jitter is told over so long."""
JITTER_MOST_SECONDS: Final = 0.25
"""More than this is hardly a network's, so early in a call."""
CLIMB_STEPS: Final = 2
"""... and so many at a time."""
MORE_LOSS: Final = 0.15
"""Above the lowest step: by so much more than there, and twice as much, is lost where a line was full from the
start, ..."""
MORE_LOSS_SECONDS: Final = 0.5
"""... for as long; what stands still for a moment looks lost until it comes."""
HOLD_OF_JITTER: Final = 0.25
"""Few packets come at low steps: where delays differ by much, the least one of half a second says little.  Below this
share of the jitter a queue does not hold the climb up."""


class Climb:
    """Until `top` is reached, or a step has failed; a queue that is long ends it from outside."""

    def __init__(self, now: float, steps: Sequence[Step], top: int) -> None:
        self.is_answered = False
        """Somebody listens."""
        self.is_over = False
        self.failed: int | None = None
        """The lowest step that the line was seen not to carry."""
        self.is_queueing = False
        self.light_loss = 0.0
        """At the lowest step: so much is not lost because of us."""
        self.carries = 0.0
        """Bits per second that the train has shown."""
        self.pulse: Pulse | None = None
        self._steps, self._top = steps, top
        self._next = now + TRAIN_AFTER_SECONDS
        self.is_jittery = False
        """Delays differed before anything was tried: the network's."""
        self._trains = 0
        self._is_shown = False
        self._jitter_before = 0.0
        """At the last step up."""
        self._less_lost_at = now
        self._own_until = now
        """So long jitter may be what a train or a pulse has made."""
        self._trip = TRIP_SECONDS
        self._least_trip = LONG_TRIP_SECONDS
        self._is_trip_known = False
        self._was_long = False
        """A queue stood on the line: jitter may be what is left of it."""
        self._patient_until = now + PATIENT_SECONDS

    def step(self, at: int) -> Step:
        """That packets have now; `at`: the step that the climb has reached."""
        if self.pulse is not None and self.pulse.is_on:
            return self.pulse.step
        return self._steps[at] if at or self.is_answered else RING

    def reported(self, now: float, report: Report, queue: float, round_trip: float | None, at: int) -> int:
        """The step to be at from now on; `queue` is above its floor, `at` the present step."""
        is_long = self._is_long(now, round_trip)
        step = self._steps[at]
        larger = (step.packet_bits - RING.packet_bits) / step.bits_per_second  # to send takes so much longer, at most
        hold = max(CLIMB_QUEUE_SECONDS + max(0.0, larger), HOLD_OF_JITTER * report.jitter)
        self.is_queueing = report.loss >= CLIMB_LOSS or queue > hold or is_long
        if at == 0:
            self.light_loss = report.loss
        if self.pulse is not None and not self._is_shown:
            return self._look_at_train(now, report, is_long, at, self.pulse)
        if self.pulse is not None:
            return self._look(now, report, at, self.pulse)
        if now < self._next or self.is_queueing:
            return at
        if not self._is_shown and self._trains < TRAINS_MAX and not (self.is_answered and self._was_long):
            train = _highest(self._steps, TRAIN_BITS_PER_SECOND)
            self.pulse = Pulse(now, self._steps[train], train, TRAIN_SECONDS, report)
            self._trains += 1
            return at
        self._is_shown = True
        if at >= self._top:
            self.is_over = True
            return at
        return self._try_higher(now, report, at)

    def is_own_queue(self, now: float) -> bool:
        """Whether a queue that is told now comes from a train or a pulse, and not from the step."""
        return self.pulse is not None or now < self._own_until

    def is_losing_more(self, now: float, report: Report) -> bool:
        """Whether more is lost than at the lowest step, by so much and for so long that it is the rate.

        To be asked at each report, as it counts for how long.

        Where the round trip is known and was never long, the line is not full, and loses by chance: at the lowest step
        there were too few packets to tell by how much.
        """
        is_by_chance = self._is_trip_known and not self._was_long
        if is_by_chance or report.loss < self.light_loss + max(MORE_LOSS, self.light_loss):
            self._less_lost_at = now
        return now - self._less_lost_at >= MORE_LOSS_SECONDS

    def is_rising(self, report: Report) -> bool:
        """Whether the last step up fills a queue: on a line without much jitter it shows there first."""
        before = self._jitter_before
        return before <= RISING_BEFORE_SECONDS and report.jitter - before >= RISING_JITTER_SECONDS

    def path_changed(self, now: float) -> None:
        """What was being tried went partly by another path, whose delay is not this one's: it is tried again."""
        if self.pulse is not None or not self._is_shown:
            self.pulse = None
            self._next = now + PATH_SECONDS
        self._own_until = now + PATH_SECONDS + JITTER_SECONDS  # a change of path looks like jitter
        self._least_trip = min(self._least_trip + PATH_TRIP_SECONDS, LONG_TRIP_SECONDS)
        self._jitter_before = 2 * RISING_BEFORE_SECONDS

    def _try_higher(self, now: float, report: Report, at: int) -> int:
        steps = 1 if self.failed is not None or self._was_long else CLIMB_STEPS
        target = min(at + steps, self._top)
        is_smooth = report.jitter <= (RISING_BEFORE_SECONDS if self.is_jittery else PULSE_JITTER_MOST_SECONDS)
        is_own = now < self._own_until and report.jitter > RISING_BEFORE_SECONDS
        is_left = now < self._patient_until and (self._was_long or report.jitter > JITTER_MOST_SECONDS)
        if is_own or (is_left and not is_smooth):
            return at  # a queue that was there, or that a train has made, looks like jitter
        if self._steps[target].bits_per_second <= self.carries or not is_smooth:
            self._next = now + CLIMB_SECONDS
            self._jitter_before = report.jitter
            return target
        self.pulse = Pulse(now, self._steps[target], target, UNSEEN_PULSE_SECONDS, report)
        return at

    def _is_long(self, now: float, round_trip: float | None) -> bool:
        """Whether packets are under way for so long that they wait somewhere."""
        if round_trip is None:
            return False
        self._trip, self._is_trip_known = round_trip, True
        self._least_trip = min(self._least_trip, round_trip)
        is_long = round_trip >= min(self._least_trip + MORE_TRIP_SECONDS, LONG_TRIP_SECONDS)
        self._was_long |= is_long
        return is_long and now < self._patient_until

    def _look(self, now: float, report: Report, at: int, pulse: Pulse) -> int:
        over = pulse.over_for(now)
        if pulse.has_grown(report):
            pulse.stop()
            if over is None:
                return at
            self.pulse, self.failed = None, pulse.index
            self._next, self._own_until = now + CLIMB_SECONDS, now + JITTER_SECONDS
            self.is_over = pulse.index == at + 1
            return at
        if over is None or over < CLIMB_LOOK_SECONDS:
            return at
        self.pulse = None
        if self.failed is not None and self.failed <= pulse.index:
            self.failed = None  # that was chance, or something else's queue
        self._next = now + CLIMB_SECONDS
        self._jitter_before = report.jitter
        return pulse.index

    def _look_at_train(self, now: float, report: Report, is_long: bool, at: int, train: Pulse) -> int:
        """What the train says.

        Its second packet waits for the first, and both are larger than those before: on a line of C bits per second its
        delay is greater by (2 * large - small) / C, less the time between the two.
        """
        over = train.over_for(now)
        if over is None:
            return at
        if is_long:  # what else waits on the line hides it
            self.pulse = None
            self._next = now + TRAIN_AFTER_SECONDS
            return at
        if over < self._trip + TRAIN_LOOK_SECONDS:
            return at
        self.pulse, self._is_shown = None, True
        self.is_jittery = train.before.jitter > RISING_BEFORE_SECONDS and not self._was_long
        small = self._steps[0] if self.is_answered else RING
        self.carries = (2 * train.step.packet_bits - small.packet_bits) / (report.jitter + train.step.frame_seconds)
        most = self.carries * MARGIN if report.loss < TRAIN_LOSS else min(self.carries * MARGIN, LOSSY_BITS_PER_SECOND)
        index = max(at, min(_highest(self._steps, most), self._top))
        self._next = now + (CLIMB_SECONDS if index > at else 0.0)
        self._jitter_before = report.jitter
        if train.before.jitter <= PULSE_JITTER_MOST_SECONDS:
            self._own_until = now + JITTER_SECONDS
        return index


def _highest(steps: Sequence[Step], bits_per_second: float) -> int:
    """The highest step within a rate; the lowest where there is none."""
    return max((n for n, step in enumerate(steps) if step.bits_per_second <= bits_per_second), default=0)
