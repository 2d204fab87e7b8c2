"""A few frames at a higher step, and back: what they do to queue and jitter tells whether the line carries it."""

from __future__ import annotations

from typing import Final

from meshcall.audio.steps import Step
from meshcall.wire.voice import Report

PULSE_SECONDS: Final = 0.08
UNSEEN_PULSE_SECONDS: Final = 0.24
"""For so long at the higher step; for the second, where it has not failed before and will be stayed at: ..."""
PULSE_QUEUE_SECONDS: Final = 0.008
PULSE_JITTER_SECONDS: Final = 0.01
"""... where the queue is so much longer than before, or the jitter greater, the line does not carry it."""
PULSE_JITTER_MOST_SECONDS: Final = 0.06
"""With more jitter than this beforehand a pulse says nothing."""
RISING_JITTER_SECONDS: Final = 0.04
RISING_BEFORE_SECONDS: Final = 0.03
"""After a step up: by so much more jitter than before, which was no more than this, it is taken back, before a queue is
told of."""
PULSE_LOST_SECONDS: Final = 1.0
"""A sender that begins no frame for so long does not send it any more."""


class Pulse:
    """Counted in frames, so that it is as long as it should be however seldom reports come."""

    def __init__(self, now: float, step: Step, index: int, seconds: float, before: Report) -> None:
        """`index`: the number of the `step`."""
        self.step, self.index, self.before = step, index, before
        self.is_on = False
        """The frame that is being filled belongs to it."""
        self._left = max(1, round(seconds / step.frame_seconds))
        self._asked = now
        self._ended: float | None = None

    def frame_begins(self, now: float) -> None:
        """The next frame begins."""
        if self._ended is None:
            self.is_on = self._left > 0
            self._left -= 1
            if not self.is_on:
                self._ended = now

    def over_for(self, now: float) -> float | None:
        """Seconds since its end; None while it goes on."""
        if self._ended is None and now - self._asked >= PULSE_LOST_SECONDS:
            self.is_on, self._ended = False, now
        return None if self._ended is None else now - self._ended

    def has_grown(self, report: Report) -> bool:
        """Whether a queue has.  One that is gone within half a second shows as jitter."""
        before = self.before
        return (
            report.queue - before.queue >= PULSE_QUEUE_SECONDS
            or report.jitter - before.jitter >= max(PULSE_JITTER_SECONDS, before.jitter / 2)
        )  # fmt: skip

    def stop(self) -> None:
        """It has told enough: no further frame."""
        self._left = 0
