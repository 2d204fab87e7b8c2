"""Messages that arrive, once and in order, beside frames that may be lost: the control stream of a link.

Messages are cut into numbered segments; the other side says which have come (all before one number, and a
bit for each of the next 64).  Lost ones are sent again when later ones have come (RFC 9002, 6.1) or after a time
fitted to the round trip (RFC 6298), again and again where few are under way.  Meant for small messages now and then,
not for files.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Final

from meshcall.errors import BadPacket, MeshcallError
from meshcall.wire.link import (
    ACK_BITS,
    INNER_ACK,
    INNER_SEGMENT,
    SEGMENT_DATA_BYTES_MAX,
    decode_ack,
    decode_segment,
    encode_ack,
    encode_segment,
)

MESSAGE_BYTES_MAX: Final = 16 * 1024
WAITING_BYTES_MAX: Final = 256 * 1024
"""Of messages that the other side has not acknowledged."""
WINDOW_SEGMENTS: Final = ACK_BITS
"""How far the sender may be ahead of the first segment that is missing."""
CONGESTION_SEGMENTS: Final = 10
"""Segments under way at first (RFC 6928)."""
FIRST_TIMEOUT_SECONDS: Final = 0.5
TIMEOUT_SECONDS_MIN: Final = 0.05
TIMEOUT_SECONDS_MAX: Final = 4.0
GRAIN_SECONDS: Final = 0.01
"""A round trip that never varies is told no more exactly than this (RFC 6298: G)."""
REORDERED_SEGMENTS: Final = 3
"""So many later ones have come: this one is lost ..."""
REORDERED_TRIPS: Final = 1.125
"""... and so it is where one that was sent later has come, after so many round trips (RFC 9002, 6.1.2)."""
THIN_SEGMENTS: Final = 4
THIN_BYTES: Final = 1200
"""Where no more is under way, all of it is sent again when the timeout passes: for each of them somebody waits ..."""
LINEAR_TIMEOUTS: Final = 6
"""... and the timeout is not doubled before it has passed so often in a row.  (Linux calls this thin streams.)"""
DOUBLED_MAX: Final = 6
TIMES_KEPT: Final = 16
"""Of so many sendings of a segment the time is known."""


class LinkBusyError(MeshcallError):
    """The other side has not taken the messages sent so far; wait, or close the link."""


class _Segment:
    __slots__ = ("data", "last", "sent_at", "times")

    def __init__(self, last: bool, data: bytes) -> None:
        self.last = last
        self.data = data
        self.sent_at = 0.0
        self.times: list[float] = []
        """When it was sent, the first `TIMES_KEPT` times."""


class RoundTrip:
    """The round trip, smoothed, and the timeout fitted to it (RFC 6298)."""

    __slots__ = ("_is_of_old", "_smoothed", "_timeouts", "_variation", "patience")

    def __init__(self) -> None:
        self._smoothed: float | None = None
        self._variation = 0.0
        self._timeouts = 0
        self._is_of_old = False
        self.patience: float | None = None
        """Seconds that an answer by the path in use may take, where the owner has measured it."""

    @property
    def seconds(self) -> float | None:
        """The smoothed round trip; None before the first."""
        return self._smoothed

    @property
    def timeout(self) -> float:
        """After so many seconds an answer is overdue."""
        if self.patience is not None:
            known = 0.0 if self._is_of_old or self._smoothed is None else self._smoothed
            base = max(self.patience, known + GRAIN_SECONDS)
        elif self._smoothed is not None:
            base = self._smoothed + max(4 * self._variation, GRAIN_SECONDS)
        else:
            base = FIRST_TIMEOUT_SECONDS
        doubled = 1 << max(0, self._timeouts - LINEAR_TIMEOUTS)
        return min(max(base, TIMEOUT_SECONDS_MIN) * doubled, TIMEOUT_SECONDS_MAX)

    def add(self, seconds: float) -> None:
        """A round trip, of something of which it is clear when it was sent."""
        if self._smoothed is None or self._is_of_old:
            self._smoothed, self._variation, self._is_of_old = seconds, seconds / 2, False
        else:
            self._variation += (abs(self._smoothed - seconds) - self._variation) / 4
            self._smoothed += (seconds - self._smoothed) / 8

    def moved(self) -> None:
        """Packets go another way from now on."""
        self._is_of_old, self.patience = True, None

    def answered(self) -> None:
        """Something new has come through: the next timeout is the first again (RFC 9002, 6.2.1)."""
        self._timeouts = 0

    def timed_out(self, *, thin: bool) -> None:
        """The timeout has passed; `thin`: with little under way, so that it need not be longer the next time."""
        before = self._timeouts if thin else max(self._timeouts, LINEAR_TIMEOUTS)
        self._timeouts = min(before + 1, LINEAR_TIMEOUTS + DOUBLED_MAX)


class Stream:
    """Both directions of one link's control stream."""

    __slots__ = (
        "_again", "_congestion", "_expected", "_flight", "_later", "_next", "_partial", "_queue", "_reached",
        "_reached_at", "_slowed_at", "_threshold", "_waiting", "messages", "outbox", "round_trip",
    )  # fmt: skip

    def __init__(self) -> None:
        self.outbox: list[tuple[int, bytes]] = []
        """Inner kind and payload of packets to send."""
        self.messages: list[bytes] = []
        """Whole messages received; the one above reads and empties."""
        self.round_trip = RoundTrip()
        self._queue: deque[_Segment] = deque()
        self._flight: OrderedDict[int, _Segment] = OrderedDict()
        self._next = 0
        self._waiting = 0
        self._congestion = float(CONGESTION_SEGMENTS)
        self._threshold = float(WINDOW_SEGMENTS)
        self._slowed_at = -1.0
        self._reached = -1
        """The highest number that has come."""
        self._reached_at = float("-inf"), -1
        """When the latest segment that has come was sent, of those of which it is clear, and its number."""
        self._again: deque[float] = deque(maxlen=TIMES_KEPT)
        """When the segment that has come last, of those sent more than once, was sent after the first time."""
        self._expected = 0
        self._later: dict[int, tuple[bool, bytes]] = {}
        self._partial = bytearray()

    @property
    def waiting_bytes(self) -> int:
        """Of messages that the other side has not acknowledged yet."""
        return self._waiting

    def send(self, now: float, message: bytes) -> None:
        """Queue a message (up to MESSAGE_BYTES_MAX).  Raises LinkBusyError, and ValueError for a longer one."""
        if len(message) > MESSAGE_BYTES_MAX:
            raise ValueError(f"a message of {len(message)} bytes, more than {MESSAGE_BYTES_MAX}")
        if self._waiting + len(message) > WAITING_BYTES_MAX:
            raise LinkBusyError
        parts = [message[at : at + SEGMENT_DATA_BYTES_MAX] for at in range(0, len(message), SEGMENT_DATA_BYTES_MAX)]
        parts = parts or [b""]
        for place, part in enumerate(parts, 1):
            self._queue.append(_Segment(place == len(parts), part))
        self._waiting += len(message)
        self._fill(now)

    def segment(self, payload: bytes) -> None:
        """Take an INNER_SEGMENT.  Raises BadPacket; "message size" means that the other side breaks the rules."""
        number, last, data = decode_segment(payload)
        if number >= self._expected + WINDOW_SEGMENTS:
            raise BadPacket("segment window")
        if number >= self._expected:
            self._later[number] = last, data
        while (found := self._later.pop(self._expected, None)) is not None:
            self._expected += 1
            last, data = found
            self._partial += data
            if len(self._partial) > MESSAGE_BYTES_MAX:
                raise BadPacket("message size")
            if last:
                self.messages.append(bytes(self._partial))
                self._partial.clear()
        bits = 0
        for ahead in self._later:
            bits |= 1 << ahead - self._expected - 1
        self.outbox.append((INNER_ACK, encode_ack(self._expected, bits)))

    def ack(self, now: float, payload: bytes) -> None:
        """Take an INNER_ACK.  Raises BadPacket."""
        expected, bits = decode_ack(payload)
        if expected > self._next:
            raise BadPacket("ack of the unsent")
        arrived = [
            number for number in self._flight
            if number < expected or (number > expected and bits >> number - expected - 1 & 1)
        ]  # fmt: skip
        if not arrived:
            self._sent_too_soon(now)
            return
        newest = self._flight[arrived[-1]]
        for number in arrived:
            segment = self._flight.pop(number)
            self._waiting -= len(segment.data)
            self._reached = max(self._reached, number)
            if len(segment.times) == 1:
                self._reached_at = max(self._reached_at, (segment.sent_at, number))
            else:
                self._again = deque(segment.times[1:])
        if len(newest.times) == 1:  # else nobody knows which of them has come (Karn); and not of lower ones, whose own
            self.round_trip.add(now - newest.sent_at)  # acknowledgement may have been lost (RFC 9002, 5.1)
            self._again.clear()
        self.round_trip.answered()
        step = 1.0 if self._congestion < self._threshold else 1.0 / self._congestion
        self._congestion = min(self._congestion + len(arrived) * step, float(WINDOW_SEGMENTS))
        self._resend_overtaken(now)
        self._fill(now)

    def wake(self, now: float) -> None:
        """Send again what is overdue: what later ones have overtaken; else all, or the oldest as a probe for others."""
        due = self.next_wake()
        if due is None or due > now or self._resend_overtaken(now):
            return
        under_way = sum(len(segment.data) for segment in self._flight.values())
        thin = len(self._flight) <= THIN_SEGMENTS and under_way <= THIN_BYTES
        self.round_trip.timed_out(thin=thin)
        self._slow_down(now)
        for number, segment in list(self._flight.items())[: None if thin else 1]:
            self._emit(now, number, segment)

    def next_wake(self) -> float | None:
        """When something is overdue."""
        if not self._flight:
            return None
        latest = max(segment.sent_at for segment in self._flight.values())
        overtaken = (self._lost_at(number, segment) for number, segment in self._flight.items())
        return min(latest + self.round_trip.timeout, *overtaken)

    def _sent_too_soon(self, now: float) -> None:
        """An acknowledgement of what was acknowledged already: what was sent again arrives as well, in order.

        So the timeout is shorter than the round trip, which no segment would tell that is sent again each time.
        One that was merely overtaken by a newer one counts only right after a segment that was sent again.
        """
        if self._again and (seconds := now - self._again.popleft()) <= TIMEOUT_SECONDS_MAX:
            self.round_trip.add(seconds)

    def _lost_at(self, number: int, segment: _Segment) -> float:
        """From when on a segment is taken for lost, because of what has come."""
        trip = self.round_trip.seconds or FIRST_TIMEOUT_SECONDS
        if number + REORDERED_SEGMENTS <= self._reached:
            return segment.sent_at + trip
        is_overtaken = (segment.sent_at, number) < self._reached_at
        return segment.sent_at + REORDERED_TRIPS * trip if is_overtaken else float("inf")

    def _resend_overtaken(self, now: float) -> bool:
        lost = [(number, segment) for number, segment in self._flight.items() if self._lost_at(number, segment) <= now]
        if lost:
            self._slow_down(now)
        for number, segment in lost:
            self._emit(now, number, segment)
        return bool(lost)

    def _slow_down(self, now: float) -> None:
        """Half as many under way, at most once in a round trip (RFC 5681)."""
        if now - self._slowed_at >= (self.round_trip.seconds or FIRST_TIMEOUT_SECONDS):
            self._slowed_at = now
            self._congestion = self._threshold = max(self._congestion / 2, 2.0)

    def _fill(self, now: float) -> None:
        while self._queue and len(self._flight) < self._congestion:
            first = next(iter(self._flight), self._next)
            if self._next - first >= WINDOW_SEGMENTS:
                return
            segment = self._queue.popleft()
            self._flight[self._next] = segment
            self._next += 1
            self._emit(now, self._next - 1, segment)

    def _emit(self, now: float, number: int, segment: _Segment) -> None:
        segment.sent_at = now
        if len(segment.times) < TIMES_KEPT:
            segment.times.append(now)
        self.outbox.append((INNER_SEGMENT, encode_segment(number, segment.last, segment.data)))
