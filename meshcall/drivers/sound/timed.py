"""A device clocked by the computer: files and silence as microphone and loudspeaker, in real time.

The clock is absolute, so it never drifts.  With t0 the instant of the start, source block n is what was
said in [t0 + 10 n ms, t0 + 10 (n+1) ms); it is exchanged at the end of that time, and what comes back
is played, and written, in the 10 ms after it.  So the first block of a recording is silence, and sample
n of the recording is the same instant as sample n of the input.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

from meshcall.drivers.sound.base import BLOCK_SECONDS, DeviceError, Guard, Latency

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshcall.drivers.sound.base import Exchange, Sink, Source

CATCH_UP_SECONDS: Final = 0.2
"""A thread that wakes up late by less makes up for it at once; what is later than that is left out: silence
is recorded for it and the microphone goes on where it would be."""
STALLED_SECONDS: Final = 5.0
"""A clock that did not move for so long has a thread that died."""
JOIN_SECONDS: Final = 1.0


class TimedDevice:
    """`source` and `sink` belong to whoever made them; `stop` closes neither."""

    def __init__(
        self, source: Source, sink: Sink, *, clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:  # fmt: skip
        """`clock`: seconds, monotonic, the same for all processes of a machine where files are compared.

        `sleep` lets them pass: of the means to wait the one that costs least, as this happens 100 times a second.
        """
        self.name = f"{source.name} -> {sink.name}"
        self.counters: Counter[str] = Counter()
        self.latency = Latency(BLOCK_SECONDS, 0.0)
        self._source = source
        self._sink = sink
        self._clock = clock
        self._sleep = sleep
        self._is_stopped = False
        self._begin_at: float | None = None
        self._thread: threading.Thread | None = None
        self._alive_at = 0.0

    def start(self, exchange: Exchange) -> None:
        """Start the thread.  Raises DeviceError on a second start."""
        if self._thread is not None:
            raise DeviceError(f"{self.name} was started before")
        self._alive_at = self._clock()
        self._thread = threading.Thread(
            target=self._run, args=(Guard(exchange, self.counters),), name="meshcall sound clock", daemon=True
        )
        self._thread.start()

    def begin(self, at: float | None = None) -> None:
        """The start signal of held files: their sample 0 is the instant `at` of the clock; None: now."""
        self._begin_at = self._clock() if at is None else at

    def taken(self) -> None:
        """Nothing changes."""

    def trouble(self) -> str | None:
        """A dead clock; troubles of files are told by the files, and do not stop the clock."""
        thread = self._thread
        if thread is None or self._is_stopped:
            return None
        if not thread.is_alive() or self._clock() - self._alive_at > STALLED_SECONDS:
            return f"the clock of {self.name} stands still"
        return None

    def stop(self) -> None:
        """End the thread, after the exchange that runs and a block's time at most."""
        self._is_stopped = True
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(JOIN_SECONDS)

    def _run(self, exchange: Guard) -> None:
        start = self._clock()
        done = 0
        self._sink.silence(1)
        while not self._is_stopped:
            now = self._clock()
            if self._begin_at is not None and self._begin_at <= now + BLOCK_SECONDS:
                # From here on the clock keeps the phase of the signal.
                start, done, self._begin_at = self._begin_at, 0, None
                self._source.held = self._sink.held = False
                self._sink.silence(1)
            due = start + (done + 1) * BLOCK_SECONDS
            late = now - due
            if late < 0:
                self._sleep(-late)
                continue
            if late > CATCH_UP_SECONDS:
                blocks = int(late / BLOCK_SECONDS)
                self.counters["skipped"] += blocks
                self._source.skip(blocks)
                self._sink.silence(blocks)
                done += blocks
            self._alive_at = now
            self._sink.write(exchange(self._source.read()))
            done += 1
