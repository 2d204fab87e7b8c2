"""How long a NAT in front of us keeps a quiet mapping: learned, so that keep-alives are as rare as can be.

A keep-alive after a silence shows by the observed address in its answer whether the mapping has
outlived the silence.  One value for a network, shared by all links; forgotten with the network.
"""

from __future__ import annotations

LIFE_LEAST_SECONDS = 12.0
"""NATs that forget sooner get a keep-alive this often all the same."""
LIFE_FIRST_SECONDS = 20.0
"""Before anything is known; RFC 8445 and the field's practice are 15 to 25 s."""
LIFE_MOST_SECONDS = 110.0
"""RFC 4787 REQ-5 asks for 120 s; longer silence saves nothing worth having."""
GROWTH = 1.5
CLOSE_ENOUGH_SECONDS = 6.0
"""Between what was survived and what was not; nearer than this no more trials are made."""
MARGIN = 0.85
"""After a mapping has died: this share of what it is known to survive."""


class MappingLife:
    """What is known of the life of quiet mappings."""

    __slots__ = ("_died", "_survived", "deaths")

    def __init__(self) -> None:
        self.deaths = 0
        """Mappings found dead, for `meshcall paths`."""
        self._survived = LIFE_FIRST_SECONDS
        self._died: float | None = None

    def safe(self) -> float:
        """Seconds of silence that a mapping is known (at first: expected) to outlive."""
        return self._survived if self._died is None else max(LIFE_LEAST_SECONDS, self._survived * MARGIN)

    def trial(self) -> float:
        """A silence worth trying on a mapping that can be done without, in seconds."""
        if self._died is None:
            return min(self._survived * GROWTH, LIFE_MOST_SECONDS)
        if self._died - self._survived <= CLOSE_ENOUGH_SECONDS:
            return self.safe()
        return max(LIFE_LEAST_SECONDS, (self._survived + self._died) / 2)

    def survived(self, silence: float) -> None:
        """A mapping outlived so many seconds of silence."""
        if silence > self._survived:
            self._survived = min(silence, LIFE_MOST_SECONDS)
            if self._died is not None and self._died <= self._survived:
                self._died = None  # what died earlier died of something else

    def died(self, silence: float) -> None:
        """A mapping did not outlive so many seconds of silence."""
        self.deaths += 1
        if silence < LIFE_LEAST_SECONDS:
            return  # a router that was restarted, not a timer
        if self._died is None or silence < self._died:
            self._died = silence
        self._survived = min(self._survived, max(LIFE_LEAST_SECONDS, self._died / GROWTH))

    def forget(self) -> None:
        """The network under us has changed."""
        self._survived, self._died = LIFE_FIRST_SECONDS, None
