"""Whether a call is under way on a line that is, or may be, full: what can wait should not use it now."""

from __future__ import annotations

from typing import Final

NARROW_SECONDS: Final = 1.0
"""The line counts as narrow for so long after the last packet that said so, while packets come in as well: where none
do, the call itself may need a new way."""
HOLD_SECONDS_MAX: Final = 600.0
"""What waits for a call's end waits no longer than this ..."""
LET_GO_SECONDS: Final = 30.0
"""... and has so long then, before it waits again."""


class NarrowLine:
    """Told of the voice packets of all calls."""

    def __init__(self, now: float) -> None:
        self._said_at = self._heard_at = now - NARROW_SECONDS
        self._since: float | None = None

    def said(self, now: float, *, is_narrow: bool) -> None:
        """A packet left, and its sender says how the line is."""
        if is_narrow:
            if self._since is None or now - self._said_at >= NARROW_SECONDS:
                self._since = now
            self._said_at = now

    def heard(self, now: float) -> None:
        """A packet came in."""
        self._heard_at = now

    def holds(self, now: float) -> bool:
        """Whether what can wait is to wait."""
        if self._since is None or now - min(self._said_at, self._heard_at) >= NARROW_SECONDS:
            return False
        return (now - self._since) % (HOLD_SECONDS_MAX + LET_GO_SECONDS) < HOLD_SECONDS_MAX
