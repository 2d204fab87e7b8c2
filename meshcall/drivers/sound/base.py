"""What a sound device is.

A device runs a thread (its own, or the sound system's callback).  Every 10 ms of its clock it calls

    exchange(captured) -> what to play

with one block of 480 samples and takes one block back.  `exchange` never waits, so neither does the
device; calls never overlap.  What it raises is counted, and silence is played.  A device that works in
one direction is completed by a `Source` or a `Sink` (a file, silence) that has no clock of its own.

Nothing is called when a device fails: whoever holds it (duplex.py) asks for `trouble()` ten times a
second, so that no unknown thread runs anybody's code.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from meshcall.audio.codec import PULL_SAMPLES, RATE, Sound
from meshcall.errors import MeshcallError

BLOCK_SECONDS: Final = PULL_SAMPLES / RATE
"""One exchange: 0.01."""

Exchange = Callable[[Sound], Sound]
"""480 captured samples in, 480 samples to play out; called in the thread of the device; must not wait."""


class DeviceError(MeshcallError):
    """This sound device cannot be used."""


@dataclass(frozen=True, slots=True)
class Latency:
    """What the device says about itself, in seconds: from the air into `exchange`, and from there to the air."""

    capture: float = 0.0
    play: float = 0.0


class Source(Protocol):
    """A microphone that gives a block whenever it is asked."""

    name: str
    held: bool
    """While true, `read` and `skip` give silence and use nothing up."""
    counters: Counter[str]

    def read(self) -> Sound:
        """The next 480 samples; silence after the end.  Never waits."""
        ...

    def skip(self, blocks: int) -> None:
        """Leave out so many blocks: their time has passed."""
        ...

    def trouble(self) -> str | None:
        """A sentence if there will be nothing but silence from now on, though there should be more."""
        ...

    def close(self) -> None:
        """Give everything back.  May be called twice."""
        ...


class Sink(Protocol):
    """A loudspeaker that takes a block whenever it is given one."""

    name: str
    held: bool
    """While true, what is given is dropped."""
    counters: Counter[str]

    def write(self, block: Sound) -> None:
        """480 samples.  Never waits."""
        ...

    def silence(self, blocks: int) -> None:
        """So many blocks of silence."""
        ...

    def trouble(self) -> str | None:
        """A sentence if what is given is dropped from now on."""
        ...

    def close(self) -> None:
        """Finish; a file is complete after it.  May be called twice."""
        ...


class Device(Protocol):
    """One opened device, both directions; used once: start, stop."""

    name: str
    """For people: the microphone and the loudspeaker."""
    counters: Counter[str]
    """`blocks` exchanged, `overflows` and `underflows` reported, `raised`, ..."""

    @property
    def latency(self) -> Latency:
        """As reported; zero where nothing is known."""
        ...

    def start(self, exchange: Exchange) -> None:
        """Begin to call `exchange`.  Raises DeviceError."""
        ...

    def taken(self) -> None:
        """It has run steadily and is in use now: from here on no callback for 0.5 s is a trouble."""
        ...

    def trouble(self) -> str | None:
        """Why this device is of no use any more, as a sentence; None while it works.  Cheap; any thread."""
        ...

    def stop(self) -> None:
        """No call of `exchange` begins after this returned.  May wait for the sound system; may be called twice."""
        ...


def silent() -> Sound:
    """A block of silence."""
    return np.zeros(PULL_SAMPLES, dtype=np.int16)


class Guard:
    """Calls `exchange` so that nothing it does, or a device does with it, breaks the thread of the device."""

    def __init__(self, exchange: Exchange, counters: Counter[str]) -> None:
        self._exchange = exchange
        self._counters = counters

    def __call__(self, captured: Sound) -> Sound:
        """One exchange; silence instead of an error or of a block of another shape."""
        try:
            played = self._exchange(captured)
        except Exception as problem:
            # The first ones are kept by name: a thread of the sound system has nobody to tell.
            self._counters["raised"] += 1
            if len(self._counters) < COUNTERS_MAX:
                self._counters[f"raised {type(problem).__name__}"] += 1
            return silent()
        if played.shape != (PULL_SAMPLES,) or played.dtype != np.int16:
            self._counters["wrong block"] += 1
            return silent()
        self._counters["blocks"] += 1
        return played


COUNTERS_MAX: Final = 32
"""Names in the counters of one device."""
