"""How much a path carries, in coarse steps, out of the delay and the loss that the receiver reports.

Down within about a second when a queue builds up, by as much as its growth says; up step by step while nothing
queues, and not for long to a step that failed.  Loss without a queue lowers the rate only where a trial shows, twice,
that there is less of it at a lower rate: random loss is for the repair, not for the rate.  Delay that does not fall
when the rate does is not ours: it becomes the new floor.  Reasons and constants: docs/voice.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from meshcall.audio.queue import SLOPE_SECONDS, QueueHistory
from meshcall.wire.voice import Report


@dataclass(frozen=True, slots=True)
class Step:
    """A rate and the frames that fit it."""

    bits_per_second: int
    """On the wire, with all headers."""
    slots: int
    """Per frame."""


STEPS: Final = (
    Step(18_000, 3), Step(22_500, 3), Step(30_000, 3), Step(37_000, 2), Step(45_000, 2), Step(58_000, 1),
    Step(70_000, 1), Step(96_000, 1), Step(128_000, 1),
)  # fmt: skip
"""The lowest one drains the queue of a 24 kbit/s line, the one above fits it."""

QUEUE_HIGH_SECONDS: Final = 0.10
"""Above the floor: the path is overfull ..."""
QUEUE_PROBE_SECONDS: Final = 0.05
"""... and already here, above what it was, in the first seconds after a step up."""
QUEUE_LOW_SECONDS: Final = 0.03
"""Below, nothing queues."""
LEARN_QUEUE_SECONDS: Final = 0.2
"""From a shorter one nothing is learnt when it falls: the least delays of half a second blur it."""
SUDDEN_QUEUE_SECONDS: Final = 0.19
"""A queue of so much that is gone from one report to the next was never ours."""
LEAST_GROWTH: Final = 0.1
"""Of a path that is overfull, whatever was measured."""
DRAINING: Final = -0.1
"""Seconds of queue per second: one that falls as fast is left to do so; a slower one wants the next step down, but no
step has failed for that."""
MARGIN: Final = 0.85
"""Of the capacity that was estimated."""
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
BLOCK_SECONDS: Final = 30.0
"""For so long a step that had more loss is not tried again, ..."""
BLOCK_SECONDS_MAX: Final = 480.0
"""... doubled each time, up to this.  A step above what a queue told of the line ..."""
BLOCK_QUEUE_SECONDS: Final = 30.0
BLOCK_QUEUE_SECONDS_MAX: Final = 120.0
"""... is tried sooner, for the line may have got wider, but in a pulse only:"""
PULSE_SECONDS: Final = 0.12
"""for so long at the higher rate, and back; ..."""
PULSE_LOOK_SECONDS: Final = 1.5
"""... for so long the queue is looked at, ..."""
PULSE_QUEUE_SECONDS: Final = 0.008
PULSE_JITTER_SECONDS: Final = 0.01
"""... and where it is so much longer than before, or the jitter greater, the step is blocked anew."""
PATH_BLOCK_SECONDS: Final = 10.0
"""After a change of path a blocked step is tried so soon: mostly it is our own line that is narrow, which stays."""
CLIMB_SECONDS: Final = 1.0
"""While it rings: from one step to the next.  The queue of half a second ago and the way of the report."""
CLIMB_QUEUE_SECONDS: Final = 0.012
CLIMB_LOSS: Final = 0.6
"""With no more queue than this, and less loss: a line that something else fills may show no queue, ..."""
CLIMB_STEPS: Final = 2
"""... and so many at a time."""
HOLD_OF_JITTER: Final = 0.25
QUEUE_OF_JITTER: Final = 0.5
"""Few packets come at low steps: where delays differ by much, the least one of half a second says little.  Below the
first share of the jitter it does not hold the climb up, below the second it is no queue."""
WIDE_SECONDS: Final = 1.2
"""Without a queue, one step below the limit or at it: the line has shown that it has room for more."""
DOUBLE_LOSS: Final = 0.03
DOUBLE_LOSS_MOST: Final = 0.35
"""So much at the lowest rate, while it rang and nothing queued, is not ours: packets may be sent twice at once."""
DOUBLED_SECONDS: Final = 2.0
"""A queue so soon after packets were sent twice comes from that ..."""
IN_VAIN_SECONDS: Final = 3.0
IN_VAIN_LOSS: Final = 0.25
IN_VAIN_SHARE: Final = 0.8
"""So it is if after so long still so much is left of a loss so great.  ..."""
SINGLE_SECONDS: Final = 60.0
"""... Then they are sent once, for so long."""
TRIAL_LOSS: Final = 0.10
"""Loss without a queue that a trial is made for, once it has lasted ..."""
TRIAL_AFTER_SECONDS: Final = 5.0
TRIAL_SECONDS: Final = 4.5
"""How long each half lasts: the reports' two seconds twice, and the way there and back."""
TRIAL_AGAIN_SECONDS: Final = 120.0
"""After one that showed nothing, of its own or by a step up; doubled each time, up to BLOCK_SECONDS_MAX."""
HEAVY_LOSS: Final = 0.35
"""In the mean, without a queue seen: a line that was full before its least delay was known loses so ..."""
HEAVY_MORE: Final = 0.15
"""More than there was at the low rates of the ringing, ..."""
HEAVY_SECONDS: Final = 1.0
"""... so long, and the rate goes down to what came through."""
HEAVY_FALL: Final = 0.5
"""By so much of itself the loss has fallen after TRIAL_SECONDS; else it is not ours, and the rate goes back."""
LOSS_TIME_SECONDS: Final = 2.0
"""Of the running mean of losses that trials compare."""


class _Trial(Enum):
    NONE = auto()
    LOWER = auto()
    """One step down: is there less loss?"""
    HIGHER = auto()
    """After a step up, back or for the first time: is there more of it?"""


class Capacity:
    """The step to send at."""

    def __init__(self, now: float, limit_bits_per_second: int) -> None:
        self._allowed = [step for step in STEPS if step.bits_per_second <= limit_bits_per_second] or [STEPS[0]]
        self._begin = max(0, len(self._allowed) - 2)  # the first step up shows whether losses come from the rate
        self._at = self._begin
        self.fell = now - BLOCK_SECONDS
        """When the rate last went down because the path was overfull: losses of before say nothing about now."""
        self.is_wide = False
        """The line has room for packets sent twice."""
        self._is_narrow = self._is_climbing = self._is_queueing = False
        self._climbed_from = self._light_loss = self._told_loss = self._single_loss = 0.0
        self._doubled_from: float | None = None
        self._wide_from = self._begin
        self._blocked: dict[int, tuple[float, float]] = {}
        self._doubled_at = now - DOUBLED_SECONDS
        self._single_until = now
        self._forget(now)

    @property
    def step(self) -> Step:
        """At present."""
        return self._allowed[self._at]

    @property
    def is_narrow(self) -> bool:
        """Whether the line carries less than is allowed, or has not yet shown what it carries."""
        return self._is_narrow or self._is_climbing

    def ring(self, now: float) -> None:
        """Nobody listens: begin at the lowest step, and climb fast."""
        self._is_climbing = True
        self._go(now, 0)

    def answered(self, now: float) -> None:
        """Somebody listens.  Where no queue was seen the call goes on with frames as good as one that rang for long."""
        if not self._is_climbing or self._is_queueing:
            return
        if self._at < self._begin - 1:
            self._climb_to(now, self._begin - 1)
        if DOUBLE_LOSS <= self._light_loss < DOUBLE_LOSS_MOST:  # so much is not lost because of us
            self.is_wide = True
            self._wide_from = self._at

    def doubled(self, now: float) -> None:
        """A packet was sent twice."""
        if now - self._doubled_at > DOUBLED_SECONDS:
            self._doubled_from, self._single_loss = now, self._told_loss
        self._doubled_at = now

    def path_changed(self, now: float) -> None:
        """What was learnt may belong to another path; the step stays until this one has shown what it carries."""
        for index, (until, seconds) in self._blocked.items():
            self._blocked[index] = (min(until, now + PATH_BLOCK_SECONDS), seconds)
        self._forget(now)

    def _forget(self, now: float) -> None:
        self._since = now
        self._quiet_since = now
        self._floor = 0.0
        self._before = 0.0
        self._probing = self._is_draining = False
        self._fallen_from: tuple[int, float] | None = None
        self._estimate = float("inf")
        self._refine_from, self._refine_until = 0.0, now
        self._least = 0
        """The step before one on probation had held: not far below it."""
        self._pulse: tuple[float, Report, bool] | None = None
        self._queues = QueueHistory()
        self._loss = 0.0
        self._lossy_since = now
        self._last = now
        self._trial = _Trial.NONE
        self._trial_loss = 0.0
        self._trial_from = now
        self._trial_pause = TRIAL_AGAIN_SECONDS
        self._heavy_since = self._heavy_from = now
        self._heavy: tuple[int, float] | None = None

    def reported(self, now: float, report: Report) -> None:
        """What the receiver sees.  Whatever it says, a second passes between two steps."""
        passed = min(LOSS_TIME_SECONDS, max(0.0, now - self._last))
        self._queues.add(now, self._last, report.queue)
        self._last = now
        self._told_loss = report.loss
        self._loss += (report.loss - self._loss) * passed / LOSS_TIME_SECONDS
        self._floor = min(self._floor, report.queue)
        queue = report.queue - self._floor
        if queue > QUEUE_LOW_SECONDS:
            self._quiet_since = now
        if self._loss < TRIAL_LOSS or queue > QUEUE_LOW_SECONDS:
            self._lossy_since = now
        is_heavy = min(report.loss, self._loss) >= max(HEAVY_LOSS, self._light_loss + HEAVY_MORE)
        if not is_heavy or self._heavy is not None or now < max(self._trial_from, self._heavy_from):
            self._heavy_since = now
        settled = now - self._since
        if self._fallen_from is not None and now - self.fell < SETTLE_SECONDS + queue:  # what the old rate still did
            self._fallen_from = (self._fallen_from[0], max(self._fallen_from[1], report.queue))
        is_full = queue >= QUEUE_HIGH_SECONDS or (self._probing and queue - self._before >= QUEUE_PROBE_SECONDS)
        is_queueing = queue >= max(QUEUE_PROBE_SECONDS, QUEUE_OF_JITTER * report.jitter)
        is_new = self._probing and settled < WIDE_SECONDS and now - self._doubled_at > DOUBLED_SECONDS
        if is_queueing or is_new or self._at < self._wide_from:
            self.is_wide = False
        elif now - max(self._quiet_since, self._since) >= WIDE_SECONDS and now >= self._single_until:
            self.is_wide = True
        if now < self._refine_until:
            self._refine(now)
        elif self._is_climbing:
            self._climb(now, report, queue)
        elif (is_full and not self._probing and now - self._doubled_at <= DOUBLED_SECONDS) or self._is_in_vain(now):
            self._single(now)
        elif self._pulse is not None:
            self._judge_pulse(now, report, *self._pulse)
        elif self._fallen_from is not None and settled >= FALL_SECONDS:
            self._judge_fall(now, report.queue)
        elif settled < SETTLE_SECONDS + queue:
            return
        elif is_full:
            slope = self._queues.slope(now)
            # Shortly after a step down it may be the rate of before that shows.
            is_ours = self._probing or settled >= SETTLE_SECONDS + queue + SLOPE_SECONDS
            if self._at == 0 and self._is_narrow:
                return  # nothing more to be done
            if not self._is_draining or (slope > 0 and is_ours):
                self._overfull(now, report, slope)
            elif slope > DRAINING and self._at:
                self._go(now, self._at - 1, draining=True)
        elif self._heavy is not None:
            self._judge_heavy(now, report)
        elif now - self._heavy_since >= HEAVY_SECONDS and self._at > 0:
            self._trial, self._heavy = _Trial.NONE, (self._at, self._loss)
            self._is_narrow, self.is_wide = True, False
            self._estimate = self.step.bits_per_second * (1 - report.loss)
            self._go(now, min(self._fitting(), self._at - 1), draining=True)
        elif self._trial is not _Trial.NONE:
            self._judge_trial(now)
        elif now - self._lossy_since >= TRIAL_AFTER_SECONDS and now >= self._trial_from and self._at > 0:
            self._trial, self._trial_loss = _Trial.LOWER, self._loss
            self._go(now, self._at - 1)
        else:
            self._perhaps_up(now, report, queue)

    # -- while it rings, and what else is on the line

    def _climb(self, now: float, report: Report, queue: float) -> None:
        is_lossy = report.loss >= CLIMB_LOSS
        self._is_queueing = is_lossy or queue > max(CLIMB_QUEUE_SECONDS, HOLD_OF_JITTER * report.jitter)
        if self._at == 0:
            self._light_loss = report.loss
        if self._at and queue >= max(QUEUE_PROBE_SECONDS, QUEUE_OF_JITTER * report.jitter):
            self._is_climbing = False
            late = now - self._since < REFINE_SECONDS  # then the queue is that of the step before
            self._overfull(now, report, self._queues.slope(now), self._climbed_from if late else 0.0)
        elif now - self._since < CLIMB_SECONDS or self._is_queueing:
            return
        elif self._at >= self._begin:
            self._is_climbing = False
        else:
            self._climb_to(now, min(self._at + CLIMB_STEPS, self._begin))

    def _climb_to(self, now: float, index: int) -> None:
        self._climbed_from = float(self.step.bits_per_second)
        self._go(now, index, keeps=True)

    def _is_in_vain(self, now: float) -> bool:
        """Whether as much is lost as before packets were sent twice: where they share a full line, that fills it."""
        if self._doubled_from is None or now - self._doubled_from < IN_VAIN_SECONDS:
            return False
        self._doubled_from = None
        return self._single_loss >= IN_VAIN_LOSS and self._told_loss >= self._single_loss * IN_VAIN_SHARE

    def _single(self, now: float) -> None:
        """What is sent twice is too much."""
        self.is_wide = False
        self._single_until = now + SINGLE_SECONDS
        self._doubled_at = now - 2 * DOUBLED_SECONDS
        self._probing = False
        self._pulse = None
        self._go(now, self._at)

    # -- down

    def _overfull(self, now: float, report: Report, slope: float, rate: float = 0.0) -> None:
        """Down to what the growth of the queue, or what came through, says that the path carries.

        `rate`: that the queue comes from, where it is not the present one.
        """
        rate = rate or self.step.bits_per_second
        self._is_narrow, self.is_wide, self._wide_from = True, False, self._begin
        loss = report.loss if now - self.fell >= LOSS_STALE_SECONDS else 0.0
        self._estimate = min(rate / (1 + max(LEAST_GROWTH, slope)), rate * (1 - loss))
        self._block(now, self._at, BLOCK_QUEUE_SECONDS, BLOCK_QUEUE_SECONDS_MAX)
        self._block_beyond(now)
        self._least = self._at - 1 - DRAIN_STEPS if self._probing else 0
        first = self._at if self._fallen_from is None else self._fallen_from[0]
        self._fallen_from = (first, report.queue)
        self._probing = False
        self._trial = _Trial.NONE
        self.fell = now
        self._heavy = None
        self._refine_from, self._refine_until = rate, now + REFINE_SECONDS
        index = max(0, self._least, self._fitting() - DRAIN_STEPS)
        self._go(now, min(index, max(0, self._at - 1)), draining=True, keeps=True)

    def _refine(self, now: float) -> None:
        """Reports still speak of the rate of before: where the queue grew faster than it had seemed, further down."""
        estimate = self._refine_from / (1 + max(LEAST_GROWTH, self._queues.slope(now)))
        if estimate >= self._estimate:
            return
        self._estimate = estimate
        self._block_beyond(now)
        index = max(0, self._least, self._fitting() - DRAIN_STEPS)
        if self._fitting() < self._at and index < self._at:
            self._go(now, index, draining=True, keeps=True)

    def _block_beyond(self, now: float) -> None:
        """Steps beyond the estimate have failed."""
        for index, step in enumerate(self._allowed):
            is_free = self._blocked.get(index, (now, 0.0))[0] <= now
            if is_free and step.bits_per_second > self._estimate * ABOVE_ESTIMATE:
                self._block(now, index, BLOCK_QUEUE_SECONDS, BLOCK_QUEUE_SECONDS_MAX)

    def _learn_from_draining(self, now: float) -> None:
        """A queue falls by what the line carries beyond our rate: better than its growth, which a full buffer hides."""
        floor = self._floor
        if self._queues.was_gone_at_once(floor + SUDDEN_QUEUE_SECONDS, floor + QUEUE_LOW_SECONDS):
            self._not_ours()  # no line drains so at our lower rate
            return
        fall, longest = self._queues.fall(floor), self._queues.longest() - floor
        if LEAST_GROWTH <= fall < 1 and longest >= LEARN_QUEUE_SECONDS:
            self._estimate = min(self._estimate, self.step.bits_per_second / (1 - fall))
            self._block_beyond(now)

    def _fitting(self) -> int:
        """The highest step that the estimate has room for; the lowest where there is none."""
        fits = [n for n, step in enumerate(self._allowed) if step.bits_per_second <= self._estimate * MARGIN]
        return max(fits, default=0)

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

    def _block(
        self, now: float, index: int, first_seconds: float = BLOCK_SECONDS, most_seconds: float = BLOCK_SECONDS_MAX
    ) -> None:  # fmt: skip
        _, seconds = self._blocked.get(index, (0.0, 0.0))
        seconds = min(most_seconds, max(first_seconds, 2 * seconds))
        self._blocked[index] = (now + seconds, seconds)

    # -- up

    def _perhaps_up(self, now: float, report: Report, queue: float) -> None:
        if self._probing and now - self._since >= UP_SECONDS:
            self._probing = False
            self._blocked.pop(self._at, None)
            self._is_narrow = self._is_narrow and self._at + 1 < len(self._allowed)
        above = self._at + 1
        if above == len(self._allowed) or now < self._blocked.get(above, (now, 0.0))[0]:
            return
        if self._is_draining and queue <= QUEUE_LOW_SECONDS < self._queues.longest() - self._floor:
            self._learn_from_draining(now)
            self._queues.clear()
            if now < self._blocked.get(above, (now, 0.0))[0]:
                return
        bits = self._allowed[above].bits_per_second
        is_known = self._is_draining and bits <= self._estimate
        if now - max(self._quiet_since, self._since) < (UP_DRAINED_SECONDS if is_known else UP_SECONDS):
            return
        if self._is_narrow and above in self._blocked and not is_known:
            self._pulse = (now, report, False)
            self._go(now, above)
        else:
            self._step_up(now, queue, is_known=is_known)

    def _step_up(self, now: float, queue: float, *, is_known: bool = False) -> None:
        above = self._at + 1
        self._probing, self._before = True, queue
        self._estimate = max(self._estimate, float(self._allowed[above].bits_per_second))
        self._trial, self._trial_loss = (_Trial.NONE if is_known else _Trial.HIGHER), self._loss
        self._go(now, above, draining=is_known)

    def _judge_pulse(self, now: float, report: Report, at: float, before: Report, is_back: bool) -> None:
        """A moment at a higher rate: has a queue grown?  One that is gone within half a second shows as jitter."""
        grown = report.queue - before.queue >= PULSE_QUEUE_SECONDS
        grown = grown or report.jitter - before.jitter >= max(PULSE_JITTER_SECONDS, before.jitter / 2)
        if not is_back:
            if now - at >= PULSE_SECONDS or grown:
                self._pulse = (now, before, True)
                self._go(now, self._at - 1)
        elif grown:
            self._pulse = None
            self._block(now, self._at + 1, BLOCK_QUEUE_SECONDS, BLOCK_QUEUE_SECONDS_MAX)
        elif now - at >= PULSE_LOOK_SECONDS:
            self._pulse = None
            self._step_up(now, report.queue - self._floor)

    # -- loss without a queue

    def _judge_heavy(self, now: float, report: Report) -> None:
        """Down by much because much was lost: was it the rate?"""
        assert self._heavy is not None
        if now - self._since < TRIAL_SECONDS:
            return
        index, before = self._heavy
        self._heavy = None
        if self._loss > before * (1 - HEAVY_FALL):
            self._estimate = float("inf")
            self._trial_from = now + self._trial_pause
            self._trial_pause = min(BLOCK_SECONDS_MAX, 2 * self._trial_pause)
            self._heavy_from = now + BLOCK_SECONDS_MAX
            self._is_narrow = False
            self._go(now, index)
        else:
            self.fell = now
            for above, step in enumerate(self._allowed):
                if step.bits_per_second > self._estimate * ABOVE_ESTIMATE:
                    self._block(now, above)

    def _judge_trial(self, now: float) -> None:
        if now - self._since < TRIAL_SECONDS:
            return
        is_lower = self._trial is _Trial.LOWER
        low = self._at if is_lower else self._at - 1
        share = 1 - self._allowed[low].bits_per_second / self._allowed[low + 1].bits_per_second
        change = self._trial_loss - self._loss if is_lower else self._loss - self._trial_loss
        telling = change >= share / 2 * (1 - self._trial_loss)  # half of what it would be if the line were full
        if is_lower:
            self._trial, self._trial_loss = (_Trial.HIGHER if telling else _Trial.NONE), self._loss
            self._go(now, self._at + 1)
        else:
            self._trial = _Trial.NONE
        if not telling and (is_lower or self._loss >= TRIAL_LOSS):
            self._trial_from = now + self._trial_pause
            self._trial_pause = min(BLOCK_SECONDS_MAX, 2 * self._trial_pause)
        elif telling and not is_lower:
            self._block(now, self._at)
            self.fell = now
            self._go(now, self._at - 1)

    def _go(self, now: float, index: int, *, draining: bool = False, keeps: bool = False) -> None:
        """To another step; `keeps`: what was told of the queue before."""
        self._at = index
        self._since = self._lossy_since = now
        self._is_draining = draining
        if not keeps:
            self._queues.clear()
