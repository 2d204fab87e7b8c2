"""Whether a packet may be sent twice: the line has shown that it has room, and copies have not filled it."""

from __future__ import annotations

from typing import Final

WIDE_SECONDS: Final = 1.2
"""Without a queue, one step below the limit or at it: the line has shown that it has room for more."""
DOUBLE_LOSS: Final = 0.03
DOUBLE_LOSS_MOST: Final = 0.35
"""So much at the lowest rate, while it rang and nothing queued, is not ours: packets may be sent twice at once."""
DOUBLED_SECONDS: Final = 2.0
"""A queue so soon after packets were sent twice comes from that ..."""
IN_VAIN_SECONDS: Final = 3.0
IN_VAIN_LOSS: Final = 0.10
IN_VAIN_SHARE: Final = 0.8
"""So it is if after so long still so much is left of a loss so great.  ..."""
SINGLE_SECONDS: Final = 60.0
"""... Then they are sent once, for so long."""


class Copies:
    """`is_wide` is the answer."""

    def __init__(self, now: float, begin: int) -> None:
        """`begin`: the step below the limit."""
        self.is_wide = False
        self._begin = self._wide_from = begin
        self._doubled_from: float | None = None
        self._doubled_at = now - DOUBLED_SECONDS
        self._single_until = now
        self._loss_before = 0.0
        self._told_loss = 0.0

    def doubled(self, now: float) -> None:
        """A packet was sent twice."""
        if now - self._doubled_at > DOUBLED_SECONDS:
            self._doubled_from, self._loss_before = now, self._told_loss
        self._doubled_at = now

    def was_doubled(self, now: float) -> bool:
        """Of late."""
        return now - self._doubled_at <= DOUBLED_SECONDS

    def makes_jitter(self, now: float) -> bool:
        """Whether jitter tells of no queue: what the faster path loses comes later, by the other one."""
        return self.was_doubled(now) and self._loss_before >= DOUBLE_LOSS

    def reported(self, now: float, loss: float, at: int, quiet: float, *, is_doubtful: bool) -> None:
        """`at`: the step; `quiet`: seconds without a queue, at it; `is_doubtful`: there is one, or the step is new."""
        self._told_loss = loss
        if is_doubtful or at < self._wide_from:
            self.is_wide = False
        elif quiet >= WIDE_SECONDS and now >= self._single_until:
            self.is_wide = True

    def answered(self, light_loss: float, at: int) -> None:
        """Somebody listens: losses that are not ours are worth a copy from the first word on."""
        if DOUBLE_LOSS <= light_loss < DOUBLE_LOSS_MOST:
            self.is_wide, self._wide_from = True, at

    def narrow(self) -> None:
        """The line is full."""
        self.is_wide, self._wide_from = False, self._begin

    def is_in_vain(self, now: float) -> bool:
        """Whether as much is lost as before packets were sent twice: where they share a full line, that fills it."""
        if self._doubled_from is None or now - self._doubled_from < IN_VAIN_SECONDS:
            return False
        self._doubled_from = None
        return self._loss_before >= IN_VAIN_LOSS and self._told_loss >= self._loss_before * IN_VAIN_SHARE

    def refuse(self, now: float) -> None:
        """What is sent twice is too much."""
        self.is_wide = False
        self._single_until = now + SINGLE_SECONDS
        self._doubled_at = now - 2 * DOUBLED_SECONDS
