"""A line that gets narrow in the middle of a call, packet by packet: both ends find what it carries, and stay there."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from random import Random

import numpy as np
import pytest

from meshcall.audio.codec import PULL_SAMPLES, SLOT_SAMPLES, Sound
from meshcall.audio.delivered import LAG_SECONDS, Delivered
from meshcall.audio.queue import QueueHistory
from meshcall.audio.receiver import Receiver
from meshcall.audio.sender import OVERHEAD_BYTES, Sender
from meshcall.wire.coded import WHOLE, Coded

START = 100.0
TICK = 0.01
DELAY = 0.02
BUFFER_SECONDS = 0.3
SILENCE = np.zeros(PULL_SAMPLES, np.int16)


class PaperCodec:
    """Frames of nothing, both ways."""

    def encode(self, sound: Sound, size: int) -> Coded:
        return Coded(WHOLE[len(sound) // SLOT_SAMPLES - 1], bytes(size))

    def expect_loss(self, share: float, *, inband: bool) -> None:
        return None

    def decode(self, frame: bytes, samples: int) -> Sound:
        return np.zeros(samples, np.int16)

    decode_inband = decode

    def conceal(self, samples: int) -> Sound:
        return np.zeros(samples, np.int16)

    def keep(self) -> None:
        return None

    go_back = keep


@dataclass
class End:
    """Its way out: a line with a buffer of BUFFER_SECONDS, whose width is a function of the time."""

    width: Callable[[float], float]
    seed: int
    loss: float = 0.0
    free: float = START
    dropped: int = 0
    rates: list[float] = field(default_factory=list)
    queues: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sender = Sender(START, PaperCodec(), call=7, slot=0)
        self.receiver = Receiver(START, PaperCodec(), call=7)
        self.chance = Random(self.seed)

    def carry(self, now: float, size: int) -> float | None:
        """When a packet arrives at the other end."""
        queue = max(0.0, self.free - now)
        if queue > BUFFER_SECONDS:
            self.dropped += 1
            return None
        self.free = now + queue + size * 8 / self.width(now - START)
        return None if self.chance.random() < self.loss else self.free + DELAY


def talk(seconds: float, *ends: End) -> None:
    """Two ends for so long; `rates` and `queues` at each tick, in order."""
    flying: list[tuple[float, int, int, bytes]] = []
    order = count()
    for n in range(round(seconds / TICK)):
        now = START + n * TICK
        while flying and flying[0][0] <= now:
            at, _, to, payload = heapq.heappop(flying)
            ends[to].receiver.push(at, payload)
        for who, end in enumerate(ends):
            end.receiver.pull(now)
            heard = end.receiver.heard()
            if heard is not None:
                end.sender.reported(now, heard, late=end.receiver.heard_late)
            end.sender.telling = end.receiver.report()
            payload = end.sender.push(now, SILENCE)
            at = end.carry(now, len(payload) + OVERHEAD_BYTES) if payload is not None else None
            if payload is not None and at is not None:
                heapq.heappush(flying, (at, next(order), 1 - who, payload))
            shape = end.sender.shape
            end.rates.append((shape.size + OVERHEAD_BYTES) * 8 / shape.seconds)
            end.queues.append(max(0.0, end.free - now))


def between(values: list[float], begin: float, end: float) -> list[float]:
    return values[round(begin / TICK) : round(end / TICK)]


@pytest.mark.parametrize("narrows", [3.0, 5.0, 5.37, 14.0])
@pytest.mark.parametrize(("bits", "settles"), [(24_000, 22_500), (33_000, 30_000), (48_000, 45_000)])
def test_a_line_that_narrows_within_a_call_is_used_as_far_as_it_carries(
    narrows: float, bits: int, settles: int
) -> None:
    ends = [End(lambda at: 1e7 if at < narrows else bits, seed) for seed in (1, 2)]
    talk(narrows + 28, *ends)
    for end in ends:
        rates = between(end.rates, narrows + 12, narrows + 28)
        at_it = sum(settles - 1000 < rate < settles + 1000 for rate in rates) / len(rates)
        assert at_it > 0.9, f"{at_it:.2f} of the time"
        assert max(between(end.queues, narrows + 12, narrows + 28)) < 0.1
        full = sum(queue > 0.15 for queue in between(end.queues, narrows, narrows + 28)) * TICK
        assert full < 4.5, "seconds of a long queue"


def test_a_packet_that_takes_its_time_on_the_line_is_no_queue() -> None:
    # The least delay is of a time when packets took none: at 18 kbit/s one of 60 ms takes 45 ms on 24 kbit/s.
    ends = [End(lambda at: 1e7 if at < 3 else 24_000, seed) for seed in (1, 2)]
    talk(12, *ends)
    for end in ends:
        assert min(between(end.rates, 10, 12)) > 21_000


def test_what_is_told_of_a_queue_is_dated_when_it_was_sent() -> None:
    # The packet that saw a queue of 0.3 s arrives after as long, and only then is it told.
    queues = QueueHistory()
    for n in range(11):
        sent, queue = n * 0.1, 0.3 - n * 0.025
        queues.add(START + sent + queue, queue)
    assert queues.fall(0.0) == pytest.approx(0.25)
    growing = QueueHistory()
    for n in range(6):
        growing.add(START + n * 0.1 + n * 0.08, n * 0.08)
    assert growing.slope() == pytest.approx(0.8)


def test_what_came_through_is_what_was_sent_in_the_time_a_report_speaks_of() -> None:
    delivered = Delivered(START, 70_000)
    delivered.rate_is(START + 10, 30_000)
    assert delivered.bits_per_second(START + 10 + LAG_SECONDS, 0.5) == pytest.approx(35_000)
    assert delivered.bits_per_second(START + 11 + LAG_SECONDS, 0.0) == pytest.approx(50_000)
    assert delivered.bits_per_second(START + 12 + LAG_SECONDS, 0.2) == pytest.approx(24_000)
    assert Delivered(START, 70_000).bits_per_second(START, 1.0) == 0.0
