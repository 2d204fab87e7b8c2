"""A line of so many bits per second, and what who receives at its end reports: as a flow, and packet by packet."""

from __future__ import annotations

from collections.abc import Callable

from meshcall.audio.capacity import Capacity
from meshcall.wire.voice import Report

START = 1000.0
TICK = 0.02


class Line:
    """A line of so many bits per second with a queue, and the reports of who receives at its end."""

    def __init__(self, bits: float, depth: float = 0.3, delay: float = 0.02) -> None:
        self.bits, self.depth, self.delay = bits, depth, delay
        self.queue = 0.0
        self.seen: list[tuple[float, float, float]] = []
        self.base = delay

    def carry(self, now: float, rate: float) -> None:
        """A tick's worth."""
        grown = self.queue + (rate / self.bits - 1) * TICK
        lost = max(0.0, grown - self.depth) * self.bits / (rate * TICK)
        self.queue = min(self.depth, max(0.0, grown))
        self.seen.append((now, self.queue, min(1.0, lost)))
        self.seen = [one for one in self.seen if one[0] > now - 3]

    def report(self, now: float) -> Report:
        """As it is known to the sender now, of what had come when it was made; nothing queues on the way back."""
        at = now - self.delay
        came = [(then + self.delay + queue, queue, lost) for then, queue, lost in self.seen]
        recent = [queue for then, queue, _ in came if at - 0.5 <= then <= at]
        losses = [lost for then, _, lost in came if at - 2 <= then <= at]
        delays = sorted(queue for then, queue, _ in came if at - 2 <= then <= at)
        return Report(
            loss=sum(losses) / len(losses) if losses else 0.0, burst=1.5, queue=min(recent) if recent else 0.0,
            jitter=delays[int(0.95 * (len(delays) - 1))] - delays[0] if delays else 0.0,
        )  # fmt: skip


class PacketLine:
    """The same packet by packet, without loss: small queues and jitter are as they are on a line."""

    def __init__(self, bits: float, *, queue: float = 0.0, depth: float = 5.0, delay: float = 0.02) -> None:
        self.bits, self.depth, self.delay = bits, depth, delay
        self.queue = queue
        self.queues: list[tuple[float, float]] = []
        """When a packet was sent, and how long what was sent before it still takes."""
        self.bits_sent = 0.0
        self.seen: list[tuple[float, float]] = []
        self.least = float("inf")
        self.left = 0

    def forget(self) -> None:
        """Packets go another way from now on."""
        self.seen.clear()
        self.least = float("inf")

    def drive(self, capacity: Capacity, start: float, seconds: float, trip: float | None = None) -> None:
        """Blocks of 20 ms, and a report for each 100 ms.  `trip`: the round trip without a queue, where it is known."""
        for n in range(round(seconds / TICK)):
            now = start + n * TICK
            self.queue = max(0.0, self.queue - TICK)
            if not self.left:
                capacity.frame_begins(now)
                self.step = capacity.step
                self.left = self.step.slots
            self.left -= 1
            if not self.left and self.queue < self.depth:
                self.queues.append((now, self.queue))
                self.queue += self.step.packet_bits / self.bits
                self.bits_sent += self.step.packet_bits
                self.seen.append((now + self.queue + self.delay, self.queue + self.delay))
            if n % 5 == 0:
                round_trip = None if trip is None else trip + self.queue
                capacity.reported(now, self.report(now - self.delay), round_trip)

    def report(self, at: float) -> Report:
        """As the other side made it then."""
        known = [one for one in self.seen if one[0] <= at]
        self.least = min([self.least, *(delay for _, delay in known)])
        delays = sorted(delay for came, delay in known if came > at - 2)
        recent = [delay for came, delay in known if came > at - 0.5]
        if not delays:
            return Report()
        return Report(
            queue=min(recent) - self.least if recent else 0.0, jitter=delays[int(0.95 * (len(delays) - 1))] - delays[0]
        )  # fmt: skip


def drive(
    seconds: float, line: Line | None, report: Callable[[float, Report], Report] = lambda _, one: one,
    limit: int = 70_000, capacity: Capacity | None = None, start: float = START,
) -> tuple[Capacity, list[tuple[float, int]], list[float]]:  # fmt: skip
    """The capacity after so long, when it went to which rate, and the queue at each tick."""
    capacity = capacity or Capacity(start, limit)
    rates, queues = [(start, capacity.step.bits_per_second)], []
    left = 0
    for n in range(int(seconds / TICK)):
        now = start + n * TICK
        if not left:
            capacity.frame_begins(now)
            left = capacity.step.slots
        left -= 1
        if line is not None:
            line.carry(now, capacity.step.bits_per_second)
            queues.append(line.queue)
        capacity.reported(now, report(now, line.report(now) if line is not None else Report()))
        if capacity.step.bits_per_second != rates[-1][1]:
            rates.append((now, capacity.step.bits_per_second))
    return capacity, rates, queues
