"""Sender and receiver of one call (WebRTC: transceiver), and what each has to know of the other; sans-IO.

While it rings, the receiver only counts: the sender at the other end so learns from the reports what the line carries
before anybody listens.  The owner pushes sound into the sender; `pull` of the receiver may be another thread's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from meshcall.audio.climb import PATH_TRIP_SECONDS
from meshcall.audio.codec import Decoder, Encoder
from meshcall.audio.receiver import Receiver
from meshcall.audio.sender import Sender
from meshcall.wire.voice import Report

WAY_SILENT_SECONDS: Final = 0.3
"""Packets come by another path, once the one before was silent for so long: during a change they come by both."""
HEARD_SECONDS: Final = 0.1
"""What the other side tells is looked at so often; at once where it is new."""
HIDDEN_SECONDS: Final = 0.2
"""By so much longer than the least of the path, a round trip tells of a queue ..."""
HIDDEN_REPORTS: Final = 10
"""... if it did so at as many looks in a row, a second or more: while the line stands still nothing is told, and only
the next probes show that it goes on."""
WAYS_MAX: Final = 8
"""Paths remembered: one that packets have come by before brings nothing new about the least delay."""


class Transceiver:
    """Begins while it rings; `open` when the call is up."""

    def __init__(
        self, now: float, encoder: Encoder, decoder: Callable[[], Decoder], *, call: int, slot: int,
        limit_bits_per_second: int,
    ) -> None:  # fmt: skip
        """`decoder` makes a new one, with nothing heard yet."""
        self._decoder, self._call = decoder, call
        self.sender = Sender(now, encoder, call=call, slot=slot, limit_bits_per_second=limit_bits_per_second)
        self.sender.ring(now)
        self.receiver = Receiver(now, decoder(), call=call)
        self.receiver.is_deaf = True
        self.loss_there: float | None = None
        """What the other side reports of our packets, before repair."""
        self.round_trip: float | None = None
        """Of the last seconds, not smoothed; the owner keeps it up to date."""
        self._least_trip = float("inf")
        """Of the present path, as far as is known."""
        self._trips: deque[float] = deque(maxlen=HIDDEN_REPORTS)
        """Round trips at the last looks."""
        self._looked_at = now
        self._paths = 0
        self._heard: Report | None = None
        self._heard_at = now
        self._link: int | None = None
        self._ways: deque[bytes] = deque(maxlen=WAYS_MAX)
        self._way: bytes | None = None
        self._way_at = now

    def unheard(self, at: float, link: int, path: bytes, payload: bytes) -> None:
        """A packet came while it rings; those of one link count."""
        self._link = link
        self.arrived(at, path, payload)

    def open(self, now: float, link: int | None) -> None:
        """The call is up, on this link; None: that has ended already."""
        if self._link not in (None, link):  # another device rang first: its packets say nothing about this one's
            self.receiver = Receiver(now, self._decoder(), call=self._call)
            self._way = None
        self.receiver.open(now)
        self.sender.answered(now)

    def arrived(self, at: float, path: bytes, payload: bytes) -> None:
        """A packet came, by this path."""
        if path == self._way:
            self._way_at = at
        elif self._way is None or at - self._way_at > WAY_SILENT_SECONDS:
            if self._way is not None and path not in self._ways:
                self.receiver.path_changed(at)
            self._ways.append(path)
            self._way, self._way_at = path, at
        self.receiver.push(at, payload)

    def report(self, now: float) -> bool:
        """Take what the other side told, and put ours into the next packets; whether the loss there is a new one."""
        sender, receiver = self.sender, self.receiver
        sender.telling = receiver.report()
        heard = receiver.heard()
        if heard is None or (heard is self._heard and now - self._heard_at < HEARD_SECONDS):
            return False
        self._heard, self._heard_at = heard, now
        sender.reported(now, heard, self.round_trip, hidden=self._hidden_queue(now), late=receiver.heard_late)
        if heard.loss == self.loss_there:
            return False
        self.loss_there = heard.loss
        return True

    def _hidden_queue(self, now: float) -> float:
        """A queue that stood when the other side began to listen to this path is in no report, but in the round trip.

        It is in our direction where none is in the other: theirs is on a wide line, and its packets come in time.
        """
        if self.round_trip is None:
            return 0.0
        if self.sender.paths != self._paths:
            self._paths, self._least_trip = self.sender.paths, self._least_trip + PATH_TRIP_SECONDS
        self._least_trip = min(self._least_trip, self.round_trip)
        if now - self._looked_at >= HEARD_SECONDS:
            self._trips.append(self.round_trip)
            self._looked_at = now
        if len(self._trips) < HIDDEN_REPORTS:
            return 0.0
        hidden = min(self.round_trip, *self._trips) - self._least_trip - self.sender.telling.queue
        return hidden if hidden >= HIDDEN_SECONDS and not self.receiver.is_little else 0.0

    @property
    def once(self) -> bool:
        """Whether a packet is to leave by one path only."""
        return not self.sender.is_wide

    @property
    def is_narrow(self) -> bool:
        """Whether either direction is on a line that may be full: probes and their answers go both ways."""
        return self.sender.is_narrow or self.receiver.is_little
