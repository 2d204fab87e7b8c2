"""Steps that failed, and when each may be tried again: ever later, up to a bound."""

from __future__ import annotations

from typing import Final

BLOCK_SECONDS: Final = 30.0
"""For so long a step that had more loss is not tried again, ..."""
BLOCK_SECONDS_MAX: Final = 480.0
"""... doubled each time, up to this.  A step above what a queue told of the line ..."""
BLOCK_QUEUE_SECONDS: Final = 30.0
BLOCK_QUEUE_SECONDS_MAX: Final = 120.0
"""... is tried sooner, for the line may have got wider, but in a pulse only."""
FIRST_BLOCK_SECONDS: Final = 12.0
"""One that failed as the call began is tried so soon: other packets of the call may have filled the line."""
PATH_BLOCK_SECONDS: Final = 10.0
"""After a change of path a blocked step is tried so soon: mostly it is our own line that is narrow, which stays."""


class Blocked:
    """By the number of the step."""

    def __init__(self) -> None:
        self._until: dict[int, tuple[float, float]] = {}  # when, and how long it was

    def __contains__(self, index: int) -> bool:
        """Whether it has failed, be it long ago, and not held since."""
        return index in self._until

    def holds(self, now: float, index: int) -> bool:
        """Whether it is not to be tried now."""
        return now < self._until.get(index, (now, 0.0))[0]

    def for_loss(self, now: float, index: int) -> None:
        """There was more loss at it."""
        self._block(now, index, BLOCK_SECONDS, BLOCK_SECONDS_MAX)

    def for_queue(self, now: float, index: int) -> None:
        """A queue told that it is too much."""
        self._block(now, index, BLOCK_QUEUE_SECONDS, BLOCK_QUEUE_SECONDS_MAX)

    def for_now(self, now: float, index: int) -> None:
        """A queue told that it is too much, or something else made that queue."""
        self._block(now, index, FIRST_BLOCK_SECONDS, FIRST_BLOCK_SECONDS)

    def held(self, index: int) -> None:
        """It was tried and is carried."""
        self._until.pop(index, None)

    def path_changed(self, now: float) -> None:
        """They may be tried soon."""
        for index, (until, seconds) in self._until.items():
            self._until[index] = (min(until, now + PATH_BLOCK_SECONDS), seconds)

    def clear(self) -> None:
        """None has failed because of us."""
        self._until.clear()

    def _block(self, now: float, index: int, first_seconds: float, most_seconds: float) -> None:
        _, seconds = self._until.get(index, (0.0, 0.0))
        seconds = min(most_seconds, max(first_seconds, 2 * seconds))
        self._until[index] = (now + seconds, seconds)
