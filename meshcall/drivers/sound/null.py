"""The device of last resort: silence in, nothing out."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from meshcall.drivers.sound.base import silent

if TYPE_CHECKING:
    from meshcall.audio.codec import Sound


class Silence:
    """A Source that is silent for ever."""

    name = "silence"

    def __init__(self) -> None:
        self.held = False
        self.counters: Counter[str] = Counter()

    def read(self) -> Sound:
        """Silence."""
        return silent()

    def skip(self, blocks: int) -> None:
        """Nothing to leave out."""

    def trouble(self) -> str | None:
        """None."""
        return None

    def close(self) -> None:
        """Nothing to give back."""


class Discard:
    """A Sink that nobody hears."""

    name = "nowhere"

    def __init__(self) -> None:
        self.held = False
        self.counters: Counter[str] = Counter()

    def write(self, block: Sound) -> None:
        """Dropped."""

    def silence(self, blocks: int) -> None:
        """Dropped."""

    def trouble(self) -> str | None:
        """None."""
        return None

    def close(self) -> None:
        """Nothing to finish."""
