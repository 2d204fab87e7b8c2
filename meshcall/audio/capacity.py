"""How much a path carries, in coarse steps, out of the queue and the loss that the receiver reports.

Down within about a second when a queue builds up, by as much as its growth says; up step by step while nothing
queues, and not for long to a step that failed.  Delay that does not fall when the rate does is not ours: it becomes
the new floor.  How a call begins is in `climb`, what loss without a queue means in `loss_trials`, whether there is room
to send twice in `copies`.  Reasons and constants: docs/voice.md.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from meshcall.audio.blocked import Blocked
from meshcall.audio.climb import Climb
from meshcall.audio.copies import DOUBLE_LOSS, WIDE_SECONDS, Copies
from meshcall.audio.delivered import Delivered
from meshcall.audio.loss_trials import LossTrials
from meshcall.audio.pulse import (
    PULSE_JITTER_MOST_SECONDS,
    PULSE_QUEUE_SECONDS,
    PULSE_SECONDS,
    RISING_BEFORE_SECONDS,
    RISING_JITTER_SECONDS,
    UNSEEN_PULSE_SECONDS,
    Pulse,
)
from meshcall.audio.queue import SLOPE_SECONDS, QueueHistory
from meshcall.audio.steps import MARGIN, STEPS, Step
from meshcall.wire.voice import Report

QUEUE_HIGH_SECONDS: Final = 0.10
"""Above the floor: the path is overfull ..."""
QUEUE_PROBE_SECONDS: Final = 0.05
"""... and already here, above what it was, in the first seconds after a step up."""
FULL_SECONDS: Final = 0.2
"""In both cases for so long, unless ..."""
QUEUE_LONG_SECONDS: Final = 0.2
"""... the queue is as long as this: what stops for a moment, and then comes at once, looks the same until then."""
QUEUE_LOW_SECONDS: Final = 0.03
"""Below, beside the time that a packet itself takes on a line that got narrower, nothing queues."""
QUEUE_OF_JITTER: Final = 0.5
"""While the rate climbs, what is below this share of the jitter is no queue: few packets come at low steps."""
LEARN_QUEUE_SECONDS: Final = 0.2
"""From a shorter one nothing is learnt when it falls: the least delays of half a second blur it."""
SUDDEN_QUEUE_SECONDS: Final = 0.16
"""A queue of so much and more that is gone from one report to the next was never ours."""
LEAST_GROWTH: Final = 0.1
"""Of a path that is overfull, whatever was measured."""
DRAINING: Final = -0.1
"""Seconds of queue per second: one that falls as fast is left to do so; a slower one wants the next step down, but no
step has failed for that."""
ABOVE_ESTIMATE: Final = 1.05
"""Steps beyond so much of it have failed."""
LOSS_STALE_SECONDS: Final = 2.5
"""After a step down for a queue reports speak of the losses of before: they do not count again."""
DRAIN_STEPS: Final = 1
"""So many steps below the one that fits until the queue is gone."""
SETTLE_SECONDS: Final = 1.0
"""And the queue: from one step to the next down.  The reports' half second, and the way there and back."""
REFINE_SECONDS: Final = 0.6
"""After a step down reports speak of the rate of before for so long."""
FALL_SHARE: Final = 0.2
"""By so much of itself a queue of ours has fallen ..."""
FALL_SECONDS: Final = 3.0
"""... after so long at a lower rate; else the delay is not ours."""
UP_SECONDS: Final = 4.0
"""Without a queue, until the next step up; a step up is on probation for as long."""
UP_DRAINED_SECONDS: Final = 1.0
"""The same below what the path was seen to carry."""
PULSE_LOOK_SECONDS: Final = 1.5
"""After a pulse the queue is looked at for so long."""
LONG_AGO_SECONDS: Final = 30.0


class Capacity:
    """The step to send at."""

    def __init__(self, now: float, limit_bits_per_second: int) -> None:
        self._allowed = [step for step in STEPS if step.bits_per_second <= limit_bits_per_second] or [STEPS[0]]
        self._begin = max(0, len(self._allowed) - 2)  # the first step up shows whether losses come from the rate
        self._at = self._begin
        self.fell = now - LONG_AGO_SECONDS
        """When the rate last went down because the path was overfull: losses of before say nothing about now."""
        self._is_narrow = False
        self._is_unproved = False
        """Since it rang it has not been at the limit yet."""
        self._climb: Climb | None = None
        self._climbed_from = 0.0
        self._light_loss = 0.0
        self._is_jittery = False
        self._carries = float("inf")
        """Bits per second that a train has shown; more is tried by a pulse."""
        self._copies = Copies(now, self._begin)
        self._blocked = Blocked()
        self._delivered = Delivered(now, self._allowed[self._at].bits_per_second)
        self._forget(now)

    @property
    def step(self) -> Step:
        """At present."""
        if self._climb is not None:
            return self._climb.step(self._at)
        return self._pulse.step if self._pulse is not None and self._pulse.is_on else self._allowed[self._at]

    @property
    def is_narrow(self) -> bool:
        """Whether the line carries less than is allowed, or has not yet shown what it carries."""
        has_room = self._climb is None and self._carries >= self._allowed[-1].bits_per_second
        return self._is_narrow or (self._is_unproved and not has_room)

    @property
    def is_wide(self) -> bool:
        """Whether the line has room for packets sent twice."""
        return self._copies.is_wide

    def ring(self, now: float) -> None:
        """Nobody listens: begin at the lowest step, and climb."""
        self._climb = Climb(now, self._allowed, self._begin)
        self._is_unproved = True
        self._go(now, 0)

    def answered(self, now: float) -> None:
        """Somebody listens from now on; the climb goes on, by pulses that are hardly heard."""
        if self._climb is not None:
            self._climb.is_answered = True
            self._perhaps_twice(self._climb)

    def frame_begins(self, now: float) -> None:
        """The sender asks for the `step` of its next frame: pulses are counted in frames."""
        pulse = self._pulse if self._climb is None else self._climb.pulse
        if pulse is not None:
            pulse.frame_begins(now)

    def doubled(self, now: float) -> None:
        """A packet was sent twice."""
        self._copies.doubled(now)

    def path_changed(self, now: float) -> None:
        """What was learnt may belong to another path; the step stays until this one has shown what it carries."""
        self._blocked.path_changed(now)
        if self._climb is not None:
            self._climb.path_changed(now)
        self._forget(now)

    def _forget(self, now: float) -> None:
        self._since = now
        self._quiet_since = self._full_since = now
        self._floor = 0.0
        self._before = 0.0
        self._jitter_before = 0.0
        self._jitter_once = 2 * RISING_BEFORE_SECONDS  # a change of path looks like jitter
        self._probing = self._is_draining = False
        self._fallen_from: tuple[int, float] | None = None
        self._estimate = float("inf")
        self._refine_from, self._refine_until = 0.0, now
        self._least = 0
        """The step before one on probation had held: not far below it."""
        self._pulse: Pulse | None = None
        self._queues = QueueHistory()
        self._trials = LossTrials(now, self._allowed)

    def reported(
        self, now: float, report: Report, round_trip: float | None = None, *, hidden: float = 0.0,
        late: float | None = 0.0,
    ) -> None:  # fmt: skip
        """What the receiver sees, and `hidden`, a queue that it does not; `late`: so long what tells of one has queued.

        None: of the queue it says nothing new.  Between two steps a second passes.
        """
        if late is not None:
            self._queues.add(now - late, report.queue)
        if hidden > report.queue:
            report = replace(report, queue=hidden)
        self._floor = min(self._floor, report.queue)
        queue = report.queue - self._floor
        is_queueing = queue > self._low()
        if is_queueing:
            self._quiet_since = now
        self._trials.reported(now, report.loss, light_loss=self._light_loss, is_queueing=is_queueing)
        settled = now - self._since
        if self._fallen_from is not None and now - self.fell < SETTLE_SECONDS + queue:  # what the old rate still did
            self._fallen_from = (self._fallen_from[0], max(self._fallen_from[1], report.queue))
        is_full = queue >= QUEUE_HIGH_SECONDS or (self._probing and queue - self._before >= QUEUE_PROBE_SECONDS)
        if not is_full:
            self._full_since = now
        is_full = is_full and (now - self._full_since >= FULL_SECONDS or queue >= QUEUE_LONG_SECONDS)
        self._look_for_room(now, report, queue)
        if now < self._refine_until:
            self._refine(now)
        elif self._climb is not None:
            self._climb_on(now, report, queue, round_trip, self._climb)
        elif self._is_too_much_twice(now, report, is_full=is_full):
            self._single(now)
        elif self._pulse is not None:
            self._judge_pulse(now, report, self._pulse)
        elif self._fallen_from is not None and settled >= FALL_SECONDS:
            self._judge_fall(now, report.queue)
        elif self._probing and self._is_rising(report) and not self._copies.makes_jitter(now):
            self._step_back(now)
        elif settled < SETTLE_SECONDS + queue:
            return
        elif is_full:
            self._drain(now, report, settled >= SETTLE_SECONDS + queue + SLOPE_SECONDS)
        elif not self._judge_loss(now, report):
            self._perhaps_up(now, report, queue)

    def _look_for_room(self, now: float, report: Report, queue: float) -> None:
        """May packets be sent twice?"""
        is_queueing = queue >= max(QUEUE_PROBE_SECONDS, QUEUE_OF_JITTER * report.jitter)
        is_new = self._probing and now - self._since < WIDE_SECONDS and not self._copies.was_doubled(now)
        is_unseen = self._is_unproved and self._light_loss < DOUBLE_LOSS
        quiet = now - max(self._quiet_since, self._since)
        if self._climb is None and self._at + 1 == len(self._allowed) and quiet >= WIDE_SECONDS:
            self._is_unproved = False
        self._copies.reported(now, report.loss, self._at, quiet, is_doubtful=is_queueing or is_new or is_unseen)

    # -- how a call begins

    def _climb_on(
        self, now: float, report: Report, queue: float, round_trip: float | None, climb: Climb
    ) -> None:  # fmt: skip
        least = 2 * QUEUE_HIGH_SECONDS if climb.is_own_queue(now) else QUEUE_PROBE_SECONDS
        is_queueing = queue >= max(least, QUEUE_OF_JITTER * report.jitter)
        is_losing = climb.is_losing_more(now, report)
        if self._at and (is_queueing or is_losing):
            self._climb = None
            late = now - self._since < REFINE_SECONDS  # then the queue is that of the step before
            self._overfull(now, report, self._queues.slope(), self._climbed_from if late else 0.0)
            return
        is_own = climb.is_own_queue(now) or self._copies.makes_jitter(now)
        if self._at and not is_own and queue >= PULSE_QUEUE_SECONDS and climb.is_rising(report):
            self._climb = None
            self._step_back(now)
            return
        index = climb.reported(now, report, queue, round_trip, self._at)
        self._light_loss, self._is_jittery = climb.light_loss, climb.is_jittery
        if index != self._at:
            self._climbed_from = float(self.step.bits_per_second)
            self._go(now, index, keeps=True)
        self._perhaps_twice(climb)
        if climb.carries:
            self._carries = max(climb.carries, self.step.bits_per_second)
        if climb.is_over:
            self._climb = None
            if climb.failed is not None:
                self._is_narrow = True
                for above in range(climb.failed, len(self._allowed)):
                    self._blocked.for_now(now, above)
                if self._at:  # what the pulse has left drains at once
                    self._estimate = float(self._allowed[self._at].bits_per_second)
                    self._go(now, self._at - 1, draining=True, keeps=True)

    def _perhaps_twice(self, climb: Climb) -> None:
        """As soon as somebody listens and a train has shown that there is room."""
        has_room = climb.carries >= self._allowed[-1].bits_per_second
        if climb.is_answered and has_room and not climb.is_queueing:
            self._copies.answered(self._light_loss, self._at)

    # -- down

    def _is_too_much_twice(self, now: float, report: Report, *, is_full: bool) -> bool:
        """Whether packets that are sent twice fill a queue, or the line as it was before."""
        if not self._copies.was_doubled(now):
            self._jitter_once = report.jitter
            return self._copies.is_in_vain(now)
        before = self._jitter_once
        is_rising = before <= RISING_BEFORE_SECONDS and report.jitter - before >= RISING_JITTER_SECONDS
        is_rising = is_rising and not self._copies.makes_jitter(now)
        return ((is_full or is_rising) and not self._probing) or self._copies.is_in_vain(now)

    def _single(self, now: float) -> None:
        """What is sent twice is too much."""
        self._copies.refuse(now)
        self._is_unproved, self._carries = True, 0.0  # what else waits for room waits on
        self._probing = False
        self._pulse = None
        self._go(now, self._at)

    def _drain(self, now: float, report: Report, is_old: bool) -> None:
        """A queue stands.  `is_old`: it is not the rate of before a step down that shows."""
        if self._at == 0 and self._is_narrow:
            return  # nothing more to be done
        slope = self._queues.slope()
        if not self._is_draining or (slope > 0 and (self._probing or is_old)):
            self._overfull(now, report, slope)
        elif slope > DRAINING and self._at:
            came = self._delivered.bits_per_second(now, report.loss)  # loss of another cause may make it too low
            self._go(now, min(self._fitting(came), self._at - 1), draining=True)

    def _overfull(self, now: float, report: Report, slope: float, rate: float = 0.0) -> None:
        """Down to what the growth of the queue, or what came through, says that the path carries.

        `rate`: that the queue comes from, where it is not the present one.
        """
        rate = rate or self.step.bits_per_second
        self._is_narrow = True
        self._copies.narrow()
        loss = report.loss if now - self.fell >= LOSS_STALE_SECONDS else 0.0
        self._estimate = min(rate / (1 + max(LEAST_GROWTH, slope)), rate * (1 - loss))
        self._blocked.for_queue(now, self._at)
        self._block_beyond(now)
        self._least = self._at - 1 - DRAIN_STEPS if self._probing else 0
        first = self._at if self._fallen_from is None else self._fallen_from[0]
        self._fallen_from = (first, report.queue)
        self._probing = False
        self._trials.overfull()
        self.fell = now
        self._refine_from, self._refine_until = rate, now + REFINE_SECONDS
        index = max(0, self._least, self._fitting() - DRAIN_STEPS)
        self._go(now, min(index, max(0, self._at - 1)), draining=True, keeps=True)

    def _refine(self, now: float) -> None:
        """Reports still speak of the rate of before: where the queue grew faster than it had seemed, further down."""
        estimate = self._refine_from / (1 + max(LEAST_GROWTH, self._queues.slope()))
        if estimate >= self._estimate:
            return
        self._estimate = estimate
        self._block_beyond(now)
        index = max(0, self._least, self._fitting() - DRAIN_STEPS)
        if self._fitting() < self._at and index < self._at:
            self._go(now, index, draining=True, keeps=True)

    def _block_beyond(self, now: float) -> None:
        """Steps beyond the estimate have failed."""
        for index in self._beyond():
            if not self._blocked.holds(now, index):
                self._blocked.for_queue(now, index)

    def _beyond(self) -> list[int]:
        return [
            index for index, step in enumerate(self._allowed) if step.bits_per_second > self._estimate * ABOVE_ESTIMATE
        ]

    def _learn_from_draining(self, now: float) -> None:
        """A queue falls by what the line carries beyond our rate: better than its growth, which a full buffer hides."""
        floor, low = self._floor, self._floor + self._low()
        if self._queues.was_gone_at_once(low + SUDDEN_QUEUE_SECONDS, low):
            self._not_ours()  # no line drains so at our lower rate
            return
        fall, longest = self._queues.fall(low - QUEUE_LOW_SECONDS, self._since), self._queues.longest() - floor
        if LEAST_GROWTH <= fall < 1 and longest >= LEARN_QUEUE_SECONDS:
            self._estimate = min(self._estimate, self.step.bits_per_second / (1 - fall))
            self._block_beyond(now)

    def _fitting(self, most: float = float("inf")) -> int:
        """The highest step that the estimate, and `most`, have room for; the lowest where there is none."""
        carries = min(self._estimate, most) * MARGIN
        fits = [n for n, step in enumerate(self._allowed) if step.bits_per_second <= carries]
        return max(fits, default=0)

    def _low(self) -> float:
        """Below, nothing queues.  The least delay may be of a time when packets took no time on the line."""
        carries = max(self._estimate, self._allowed[0].bits_per_second)
        return QUEUE_LOW_SECONDS + self._allowed[self._at].packet_bits / carries

    def _judge_fall(self, now: float, queue: float) -> None:
        """Some seconds at the lower rate: has the queue fallen?  If not, it is not ours, and the rate goes back."""
        assert self._fallen_from is not None
        index, before = self._fallen_from
        self._fallen_from = None
        if queue > before * (1 - FALL_SHARE):
            self._floor = queue
            self._not_ours()
            self._go(now, index)

    def _not_ours(self) -> None:
        """The delay had another cause than our rate."""
        self._estimate = float("inf")
        self._blocked.clear()
        self._is_narrow = False

    # -- up

    def _perhaps_up(self, now: float, report: Report, queue: float) -> None:
        if self._probing and now - self._since >= UP_SECONDS:
            self._probing = False
            self._blocked.held(self._at)
            self._is_narrow = self._is_narrow and self._at + 1 < len(self._allowed)
        above = self._at + 1
        if above == len(self._allowed) or self._blocked.holds(now, above):
            return
        if self._is_draining and queue <= self._low() < self._queues.longest() - self._floor:
            self._learn_from_draining(now)
            self._queues.clear()
            if self._blocked.holds(now, above):
                return
        step = self._allowed[above]
        is_known = self._is_draining and step.bits_per_second <= self._estimate
        if now - max(self._quiet_since, self._since) < (UP_DRAINED_SECONDS if is_known else UP_SECONDS):
            return
        has_failed = self._is_narrow and above in self._blocked and not is_known
        most = RISING_BEFORE_SECONDS if self._is_jittery else PULSE_JITTER_MOST_SECONDS
        is_unseen = step.bits_per_second > self._carries and report.jitter <= most
        if has_failed or is_unseen:
            self._pulse = Pulse(now, step, above, PULSE_SECONDS if has_failed else UNSEEN_PULSE_SECONDS, report)
        else:
            self._step_up(now, report, is_known=is_known)

    def _step_up(self, now: float, report: Report, *, is_known: bool = False) -> None:
        queue = report.queue - self._floor
        above = self._at + 1
        self._probing, self._before, self._jitter_before = True, queue, report.jitter
        self._estimate = max(self._estimate, float(self._allowed[above].bits_per_second))
        self._trials.step_up(report.loss, is_known=is_known)
        self._go(now, above, draining=is_known)

    def _is_rising(self, report: Report) -> bool:
        """On a line without much jitter a queue shows there first: the least delay of half a second lags behind."""
        before = self._jitter_before
        is_more = before <= RISING_BEFORE_SECONDS and report.jitter - before >= RISING_JITTER_SECONDS
        return is_more and report.queue - self._floor - self._before >= PULSE_QUEUE_SECONDS

    def _step_back(self, now: float) -> None:
        """The step up was too much, and nearly nothing queues yet."""
        self._is_narrow, self._probing = True, False
        self._copies.narrow()
        self._trials.overfull()
        self._blocked.for_queue(now, self._at)
        self._refine_from, self._refine_until = float(self.step.bits_per_second), now + REFINE_SECONDS
        self._estimate = float(self._allowed[self._at - 1].bits_per_second)
        self._go(now, max(0, self._at - 1 - DRAIN_STEPS), draining=True, keeps=True)

    def _judge_pulse(self, now: float, report: Report, pulse: Pulse) -> None:
        """A moment at a higher rate: has a queue grown?"""
        over = pulse.over_for(now)
        if pulse.has_grown(report):
            pulse.stop()
            if over is not None:
                self._pulse = None
                self._is_narrow = True
                self._blocked.for_queue(now, pulse.index)
        elif over is not None and over >= PULSE_LOOK_SECONDS:
            self._pulse = None
            self._step_up(now, report)

    # -- loss without a queue

    def _judge_loss(self, now: float, report: Report) -> bool:
        """Whether losses are what this is about."""
        trials = self._trials
        if trials.is_heavy:
            verdict = trials.judge_heavy(now, self._since, self._at)
            if verdict is None:
                return True
            if verdict.is_ours:
                self.fell = now
                for above in self._beyond():
                    self._blocked.for_loss(now, above)
            else:
                self._estimate = float("inf")
                self._is_narrow = False
                self._go(now, verdict.index)
        elif trials.begins_heavy(now, self._at):
            self._is_narrow = True
            self._copies.is_wide = False
            self._estimate = self.step.bits_per_second * (1 - report.loss)
            self._go(now, min(self._fitting(), self._at - 1), draining=True)
        elif trials.is_under_way:
            verdict = trials.judge(now, self._since, self._at)
            if verdict is not None:
                if verdict.is_ours:
                    self._blocked.for_loss(now, verdict.index + 1)
                    self.fell = now
                self._go(now, verdict.index)
        elif trials.begins(now, self._at):
            self._go(now, self._at - 1)
        else:
            return False
        return True

    def _go(self, now: float, index: int, *, draining: bool = False, keeps: bool = False) -> None:
        """To another step; `keeps`: what was told of the queue before."""
        self._at = index
        self._delivered.rate_is(now, self._allowed[index].bits_per_second)
        self._since = now
        self._trials.step_changed(now)
        self._is_draining = draining
        if not keeps:
            self._queues.clear()
