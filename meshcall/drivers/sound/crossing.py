"""Blocks from the thread of a device to trio, without waiting on either side."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from meshcall.audio.codec import Sound

BLOCKS_MAX: Final = 50
"""On their way: 500 ms.  What trio did not take by then is too old to be said."""


class Crossing:
    """`put` in the thread of the device, `take` in trio."""

    def __init__(self, wake: Callable[[], None]) -> None:
        """`wake` makes trio `take`; called once for all blocks that wait, for example

        lambda: token.run_sync_soon(event_or_function, idempotent=True)
        """
        self.dropped = 0
        """The oldest ones, because trio was late."""
        self._wake = wake
        self._blocks: deque[Sound] = deque(maxlen=BLOCKS_MAX)
        self._woken = False

    def put(self, block: Sound) -> None:
        """Hand over a block, which must not be changed afterwards.  Does not wait."""
        if len(self._blocks) == BLOCKS_MAX:
            self.dropped += 1
        self._blocks.append(block)
        if not self._woken:
            self._woken = True
            self._wake()

    def take(self) -> list[Sound]:
        """All that waits, oldest first."""
        self._woken = False  # before the blocks: one that comes meanwhile wakes again, for nothing at worst
        taken = []
        while True:
            try:
                taken.append(self._blocks.popleft())
            except IndexError:
                return taken
