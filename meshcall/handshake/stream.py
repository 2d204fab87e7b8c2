"""Messages that arrive, once and in order, beside frames that may be lost: the control stream of a link.

Messages are cut into numbered segments; the other side says which have come (all before one number, and a
bit for each of the next 64).  Lost ones are sent again after three later ones have come or after a time
fitted to the round trip (RFC 6298).  Meant for small messages now and then, not for files.
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
REORDERED_SEGMENTS: Final = 3
"""So many later ones have come: this one is lost."""


class LinkBusyError(MeshcallError):
    """The other side has not taken the messages sent so far; wait, or close the link."""


class _Segment:
    __slots__ = ("data", "last", "sent_at", "times")

    def __init__(self, last: bool, data: bytes) -> None:
        self.last = last
        self.data = data
        self.sent_at = 0.0
        self.times = 0


class RoundTrip:
    """The round trip, smoothed, and the timeout fitted to it (RFC 6298)."""

    __slots__ = ("_backoff", "_smoothed", "_variation")

    def __init__(self) -> None:
        self._smoothed: float | None = None
        self._variation = 0.0
        self._backoff = 1

    @property
    def seconds(self) -> float | None:
        """The smoothed round trip; None before the first."""
        return self._smoothed

    @property
    def timeout(self) -> float:
        """After so many seconds an answer is overdue."""
        base = FIRST_TIMEOUT_SECONDS if self._smoothed is None else self._smoothed + 4 * self._variation
        return min(max(base, TIMEOUT_SECONDS_MIN) * self._backoff, TIMEOUT_SECONDS_MAX)

    def add(self, seconds: float) -> None:
        """A round trip of something that was sent once."""
        if self._smoothed is None:
            self._smoothed, self._variation = seconds, seconds / 2
        else:
            self._variation += (abs(self._smoothed - seconds) - self._variation) / 4
            self._smoothed += (seconds - self._smoothed) / 8
        self._backoff = 1

    def timed_out(self) -> None:
        """The timeout has passed: wait twice as long."""
        self._backoff = min(self._backoff * 2, 64)


class Stream:
    """Both directions of one link's control stream."""

    __slots__ = (
        "_congestion", "_expected", "_flight", "_later", "_next", "_partial", "_queue", "_slowed_at", "_threshold",
        "_waiting", "messages", "outbox", "round_trip",
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
            return
        sample: float | None = None
        for number in arrived:
            segment = self._flight.pop(number)
            self._waiting -= len(segment.data)
            if segment.times == 1:
                sample = now - segment.sent_at
        if sample is not None:
            self.round_trip.add(sample)
        step = 1.0 if self._congestion < self._threshold else 1.0 / self._congestion
        self._congestion = min(self._congestion + len(arrived) * step, float(WINDOW_SEGMENTS))
        self._resend_overtaken(now, arrived[-1])
        self._fill(now)

    def wake(self, now: float) -> None:
        """Send again what is overdue: the oldest segment, as a probe for the others."""
        due = self.next_wake()
        if due is None or due > now:
            return
        self.round_trip.timed_out()
        self._slow_down(now)
        for number, segment in self._flight.items():
            self._emit(now, number, segment)
            break

    def next_wake(self) -> float | None:
        """When the oldest segment is overdue."""
        if not self._flight:
            return None
        latest = max(segment.sent_at for segment in self._flight.values())
        return latest + self.round_trip.timeout

    def _resend_overtaken(self, now: float, newest: int) -> None:
        pause = self.round_trip.seconds or FIRST_TIMEOUT_SECONDS
        lost = [
            (number, segment) for number, segment in self._flight.items()
            if number + REORDERED_SEGMENTS <= newest and now - segment.sent_at >= pause
        ]  # fmt: skip
        if lost:
            self._slow_down(now)
        for number, segment in lost:
            self._emit(now, number, segment)

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
        segment.times += 1
        self.outbox.append((INNER_SEGMENT, encode_segment(number, segment.last, segment.data)))
