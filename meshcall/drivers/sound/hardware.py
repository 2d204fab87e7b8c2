"""What the two libraries for sound hardware have in common: blocks, health, and one exchange for two directions.

A library calls `duplex` (both directions at once), or `captured` and `wanted` from two streams, or one
of the two where there is no other direction; a missing microphone is silence.  The health of a stream
is judged by what it does, because what it says of itself is not to be relied on:

    no samples for STALL_SECONDS               it vanished or hangs
    another rate than promised, RATE_WINDOWS   it plays everything too fast or too slow
    the library says so                        finished, or an absurd block
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import numpy as np

from meshcall.audio.codec import PULL_SAMPLES, RATE, Sound
from meshcall.drivers.sound.base import Guard, Latency, silent

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshcall.drivers.sound.base import Exchange

STALL_SECONDS: Final = 0.5
FIRST_SECONDS: Final = 4.0
"""A stream that starts may need longer for its first samples: sound servers wake their hardware up."""
CALLBACK_SAMPLES_MAX: Final = RATE
"""More in one callback is nonsense."""
RATE_WINDOW_SECONDS: Final = 1.0
RATE_WINDOWS: Final = 3
"""In so many windows running, with no overflow or underflow told in them."""
RATE_OFF_MAX: Final = 0.06
"""Of the rate; 44.1 for 48 kHz is 0.081."""
RATE_STEADY: Final = 0.02
"""A wrong clock is steady: the windows differ by no more.  A busy machine that loses samples is not."""
RING_BLOCKS_MAX: Final = 6
RING_BLOCKS_KEPT: Final = 2
"""Captured blocks on their way between two streams with clocks of their own; when it is full, back to these."""
RING_WINDOW_BLOCKS: Final = 200
"""If in 2 s there were never fewer than RING_BLOCKS_KEPT of them, the ring only delays: all but one are dropped."""


class Beat:
    """The health of one stream, from what its callbacks brought."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.problem: str | None = None
        """Set by whoever knows better than the counting."""
        self.strict = False
        """From when on a pause is a stall; before, it may be the sound server filling its buffers."""
        self._clock = clock
        self._started = clock()
        self._last = 0.0
        self._window = 0.0
        self._samples = 0
        self._flagged = False
        self._off: list[float] = []

    def beat(self, samples: int, *, flagged: bool = False) -> None:
        """A callback with so many samples; `flagged`: it told of an overflow or underflow.  Cheap."""
        if samples <= 0:
            return
        now = self._clock()
        if not self._last:
            self._window = now
        else:
            self._samples += samples
            self._flagged |= flagged
            self._flagged |= now - self._last > STALL_SECONDS / 2
            if now - self._window >= RATE_WINDOW_SECONDS:
                self._judge(now)
        self._last = now

    def trouble(self) -> str | None:
        """A part of a sentence (after the name of the device), or None."""
        if self.problem is not None:
            return self.problem
        now = self._clock()
        if not self._last:
            return "gives no sound" if now - self._started > FIRST_SECONDS else None
        limit = STALL_SECONDS if self.strict else FIRST_SECONDS
        return "went away, or hangs" if now - self._last > limit else None

    def _judge(self, now: float) -> None:
        rate = self._samples / (now - self._window)
        off = abs(rate / RATE - 1) > RATE_OFF_MAX and not self._flagged
        self._off = [*self._off[-RATE_WINDOWS + 1 :], rate] if off else []
        if len(self._off) == RATE_WINDOWS and max(self._off) / min(self._off) - 1 < RATE_STEADY:
            self.problem = f"runs at {rate:.0f} samples a second instead of the {RATE} that it promised"
        self._window, self._samples, self._flagged = now, 0, False


class Hands:
    """Between callbacks of any size and `exchange`; also the ring between two streams."""

    def __init__(self, name: str, directions: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`directions`: how many streams call, 1 or 2 (`captured` and `wanted`)."""
        self.name = name
        self.counters: Counter[str] = Counter()
        self.latency = Latency()
        self.beats = [Beat(clock) for _ in range(directions)]
        self._guard: Guard | None = None
        self._in = np.zeros(0, dtype=np.int16)
        self._out = np.zeros(0, dtype=np.int16)
        self._ring: deque[Sound] = deque(maxlen=RING_BLOCKS_MAX)
        self._ring_least = RING_BLOCKS_MAX
        self._ring_looks = 0
        self._lock = threading.Lock()

    def ready(self, exchange: Exchange) -> None:
        """From now on callbacks lead to `exchange`."""
        self._guard = Guard(exchange, self.counters)

    def taken(self) -> None:
        """It is in use: from now on a pause is a stall; what was captured while nobody listened only delays."""
        for beat in self.beats:
            beat.strict = True
        with suppress(IndexError):  # the stream that plays takes from the ring meanwhile
            while len(self._ring) > 1:
                self._ring.popleft()
        self._ring_looks, self._ring_least = 0, RING_BLOCKS_MAX

    def done(self) -> None:
        """From now on they lead nowhere; waits for one that runs, but not for one that hangs."""
        self._guard = None
        if self._lock.acquire(timeout=0.1):
            self._lock.release()

    def trouble(self) -> str | None:
        """Of the first stream that has one."""
        for beat in self.beats:
            problem = beat.trouble()
            if problem is not None:
                return f"{self.name} {problem}"
        return None

    def flag(self, *, overflow: bool, underflow: bool) -> bool:
        """Count what the library told; whether there was anything."""
        self.counters["overflows"] += overflow
        self.counters["underflows"] += underflow
        return overflow or underflow

    def duplex(self, samples: Sound, *, flagged: bool = False) -> Sound:
        """One stream, both directions: as many samples back as came."""
        count = len(samples)
        if not self._sane(0, count, flagged):
            return np.zeros(min(count, CALLBACK_SAMPLES_MAX), dtype=np.int16)
        if count == PULL_SAMPLES and not len(self._in) and not len(self._out):
            return self._exchange(samples.copy())
        self._in = np.concatenate([self._in, samples])
        played = [self._out]
        while len(self._in) >= PULL_SAMPLES:
            played.append(self._exchange(self._in[:PULL_SAMPLES].copy()))
            self._in = self._in[PULL_SAMPLES:]
        self._out = np.concatenate(played)
        if len(self._out) < count:  # happens at the first callbacks only: from then on less than a block is kept
            self._out = np.concatenate([np.zeros(count - len(self._out), dtype=np.int16), self._out])
        answer, self._out = self._out[:count], self._out[count:]
        return answer

    def captured(self, samples: Sound, *, flagged: bool = False) -> None:
        """A stream that captures: to the ring, or to `exchange` if nothing plays."""
        if not self._sane(0, len(samples), flagged):
            return
        if len(samples) == PULL_SAMPLES and not len(self._in):
            self._take(samples.copy())
            return
        self._in = np.concatenate([self._in, samples])
        while len(self._in) >= PULL_SAMPLES:
            block, self._in = self._in[:PULL_SAMPLES].copy(), self._in[PULL_SAMPLES:]
            self._take(block)

    def _take(self, block: Sound) -> None:
        if len(self.beats) == 1:
            self._exchange(block)
            return
        if len(self._ring) >= RING_BLOCKS_MAX:
            while len(self._ring) > RING_BLOCKS_KEPT:
                self._ring.popleft()
                self.counters["captured blocks dropped"] += 1
        self._ring.append(block)

    def wanted(self, count: int, *, flagged: bool = False) -> Sound:
        """A stream that plays: so many samples for it."""
        if not self._sane(len(self.beats) - 1, count, flagged):
            return np.zeros(max(0, min(count, CALLBACK_SAMPLES_MAX)), dtype=np.int16)
        if count == PULL_SAMPLES and not len(self._out):
            return self._exchange(self._from_ring() if len(self.beats) == 2 else silent())
        played = [self._out]
        have = len(self._out)
        while have < count:
            played.append(self._exchange(self._from_ring() if len(self.beats) == 2 else silent()))
            have += PULL_SAMPLES
        sound = np.concatenate(played)
        self._out = sound[count:]
        return sound[:count]

    def _from_ring(self) -> Sound:
        self._ring_least = min(self._ring_least, len(self._ring))
        self._ring_looks += 1
        if self._ring_looks >= RING_WINDOW_BLOCKS:
            if self._ring_least >= RING_BLOCKS_KEPT:
                for _ in range(self._ring_least - 1):
                    self._ring.popleft()
                    self.counters["captured blocks dropped"] += 1
            self._ring_looks, self._ring_least = 0, RING_BLOCKS_MAX
        try:
            return self._ring.popleft()
        except IndexError:
            self.counters["captured blocks late"] += 1
            return silent()

    def _sane(self, stream: int, count: int, flagged: bool) -> bool:
        beat = self.beats[stream]
        if not 0 < count <= CALLBACK_SAMPLES_MAX:
            self.counters["empty callbacks" if count <= 0 else "absurd callbacks"] += 1
            if count > CALLBACK_SAMPLES_MAX:
                beat.problem = f"asks for {count} samples at once"
            return False
        beat.beat(count, flagged=flagged)
        return True

    def _exchange(self, block: Sound) -> Sound:
        with self._lock:
            guard = self._guard
            return guard(block) if guard is not None else silent()


def to_mono(data: np.ndarray[tuple[int, ...], np.dtype[np.int16]]) -> Sound:
    """int16 of shape (n, channels) as (n,)."""
    if data.ndim == 1:
        return data
    if data.shape[1] == 1:
        return data[:, 0]
    mean: Sound = (data.astype(np.int32).sum(axis=1) // data.shape[1]).astype(np.int16)
    return mean
