"""Loss without a queue: it lowers the rate only where a trial shows that there is less of it at a lower rate.

Random loss is for the repair, not for the rate.  A line that drops what is too much, and keeps no queue or a full one
from the start on, loses in step with the rate; whoever sends less there sees it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from meshcall.audio.blocked import BLOCK_SECONDS_MAX
from meshcall.audio.steps import Step

TRIAL_LOSS: Final = 0.10
"""Loss without a queue that a trial is made for, once it has lasted ..."""
TRIAL_AFTER_SECONDS: Final = 5.0
TRIAL_SECONDS: Final = 4.5
"""How long each half lasts: the reports' two seconds twice, and the way there and back."""
TRIAL_AGAIN_SECONDS: Final = 120.0
"""After one that showed nothing, of its own or by a step up; doubled each time, up to BLOCK_SECONDS_MAX."""
HEAVY_LOSS: Final = 0.35
"""In the mean, without a queue seen: a line that was full before its least delay was known loses so, ..."""
HEAVY_TOLD: Final = 0.45
"""... and in each report, of 100 packets: of 30 % lost by chance it tells 35 now and again, and never so much."""
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
    AGAIN = auto()
    """Back on the step before, as less was lost below it: is there more of it again?"""
    HIGHER = auto()
    """After a step up for the first time: is there more of it?"""
    BACK = auto()
    """As there was, down again: is there less of it?  Else the line merely began to lose when the rate rose."""


_NEXT: Final = {
    _Trial.LOWER: _Trial.AGAIN, _Trial.AGAIN: _Trial.NONE, _Trial.HIGHER: _Trial.BACK, _Trial.BACK: _Trial.NONE,
}  # fmt: skip
"""Where losses followed the rate: twice, there and back, is no chance."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a trial leads to."""

    index: int
    """The step to go to."""
    is_ours: bool = False
    """The loss came from the rate: the step above that one has failed."""


class LossTrials:
    """One at a time."""

    def __init__(self, now: float, steps: Sequence[Step]) -> None:
        self._steps = steps
        self._loss = 0.0
        self._lossy_since = self._last = now
        self._trial = _Trial.NONE
        self._before = 0.0
        self._not_before = now
        self._pause = TRIAL_AGAIN_SECONDS
        self._heavy_since = self._heavy_from = now
        self._heavy: tuple[int, float] | None = None

    def reported(self, now: float, loss: float, *, light_loss: float, is_queueing: bool) -> None:
        """`light_loss`: at the lowest rate, while it rang."""
        passed = min(LOSS_TIME_SECONDS, max(0.0, now - self._last))
        self._last = now
        self._loss += (loss - self._loss) * passed / LOSS_TIME_SECONDS
        if self._loss < TRIAL_LOSS or is_queueing:
            self._lossy_since = now
        is_heavy = min(loss, self._loss) >= max(HEAVY_LOSS, light_loss + HEAVY_MORE) and loss >= HEAVY_TOLD
        if not is_heavy or self._heavy is not None or now < max(self._not_before, self._heavy_from):
            self._heavy_since = now

    def step_changed(self, now: float) -> None:
        """Packets go at another rate from now on."""
        self._lossy_since = now

    def step_up(self, loss: float, *, is_known: bool) -> None:
        """The rate rises; where that is not known to be carried, losses are compared.  `loss`: as told last."""
        self._trial, self._before = (_Trial.NONE if is_known else _Trial.HIGHER), max(loss, self._loss)

    def overfull(self) -> None:
        """A queue has told more than losses can."""
        self._trial = _Trial.NONE
        self._heavy = None

    # Much loss at once

    @property
    def is_heavy(self) -> bool:
        """The rate went down for it, and the loss is being watched."""
        return self._heavy is not None

    def begins_heavy(self, now: float, at: int) -> bool:
        """Whether so much was lost for so long that the rate is to fall to what came through."""
        if now - self._heavy_since < HEAVY_SECONDS or at == 0:
            return False
        self._trial, self._heavy = _Trial.NONE, (at, self._loss)
        return True

    def judge_heavy(self, now: float, since: float, at: int) -> Verdict | None:
        """Down by much because much was lost: was it the rate?  `since`: of this step.  None: not known yet."""
        assert self._heavy is not None
        if now - since < TRIAL_SECONDS:
            return None
        index, before = self._heavy
        self._heavy = None
        if self._loss <= before * (1 - HEAVY_FALL):
            return Verdict(at, is_ours=True)
        self._was_in_vain(now)
        self._heavy_from = now + BLOCK_SECONDS_MAX
        return Verdict(index)

    # One step down and back

    @property
    def is_under_way(self) -> bool:
        """Whether two steps are being compared."""
        return self._trial is not _Trial.NONE

    def begins(self, now: float, at: int) -> bool:
        """Whether it is time to see if a lower step loses less."""
        if now - self._lossy_since < TRIAL_AFTER_SECONDS or now < self._not_before or at == 0:
            return False
        self._trial, self._before = _Trial.LOWER, self._loss
        return True

    def judge(self, now: float, since: float, at: int) -> Verdict | None:
        """Half of a trial may be over.  `since`: of this step.  None: nothing changes, yet."""
        if now - since < TRIAL_SECONDS:
            return None
        trial = self._trial
        is_lower = trial in (_Trial.LOWER, _Trial.BACK)
        low = at if is_lower else at - 1
        share = 1 - self._steps[low].bits_per_second / self._steps[low + 1].bits_per_second
        change = self._before - self._loss if is_lower else self._loss - self._before
        telling = change >= share / 2 * (1 - self._before)  # half of what it would be if the line were full
        if not telling and (is_lower or self._loss >= TRIAL_LOSS):
            self._was_in_vain(now)
        self._trial, self._before = (_NEXT[trial] if telling else _Trial.NONE), self._loss
        if is_lower:
            return Verdict(at, is_ours=True) if telling and trial is _Trial.BACK else Verdict(at + 1)
        return Verdict(at - 1, is_ours=trial is _Trial.AGAIN) if telling else None

    def _was_in_vain(self, now: float) -> None:
        self._not_before = now + self._pause
        self._pause = min(BLOCK_SECONDS_MAX, 2 * self._pause)
