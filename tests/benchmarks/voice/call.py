"""A whole call in virtual time: two people speak at once, each through a real sender, a network and a real receiver.

No clock, no thread, no socket: the same seed gives the same call.  Sound devices are ideal: a block of 10 ms is
handed over at the instant when its last sample was spoken, and one that is pulled plays from that instant on.
What a sound card adds comes on top; the time that the code itself takes is not counted (live.py measures it).
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from impair import IP_UDP_BYTES, Link, Scenario
from numpy.typing import NDArray

from meshcall.audio.codec import PULL_SAMPLES, RATE, Sound
from meshcall.wire.voice import Report

LINK_BYTES = 26
"""That sealing adds to a payload on a direct path."""
BLOCK_SECONDS = PULL_SAMPLES / RATE
LEAD_SECONDS = 6.0
TAIL_SECONDS = 2.0
FLOOR_DB = -78.0
EPOCH = 1000.0
"""Where the virtual clock begins: cores may not rely on 0."""


class Sends(Protocol):
    """What is wanted of meshcall.audio.sender.Sender."""

    telling: Report

    def push(self, now: float, sound: Sound) -> bytes | None: ...
    def reported(self, now: float, report: Report, *, late: float | None = 0.0) -> None: ...


class Receives(Protocol):
    """What is wanted of meshcall.audio.receiver.Receiver."""

    heard_late: float | None

    def push(self, now: float, payload: bytes) -> None: ...
    def pull(self, now: float) -> Sound: ...
    def report(self) -> Report: ...
    def heard(self) -> Report | None: ...


@dataclass(slots=True)
class Person:
    """One end of the call."""

    sender: Sends
    receiver: Receives
    microphone: Sound
    link: Link
    """Towards the other person."""
    phase: float
    """When sample 0 of the microphone is spoken and sample 0 of the recording plays, in seconds after the epoch."""
    pace: float = 1.0
    """Seconds of real time per second of this device's clock."""
    loop: bool = False
    """Whether the microphone begins again at its end; else there is silence after it."""
    blocks: int = 0
    played: list[Sound] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    """Of each packet on the wire, with all headers."""
    sent_at: list[float] = field(default_factory=list)
    push_cpu: float = 0.0
    pull_cpu: float = 0.0
    pull_worst: float = 0.0

    def tick(self) -> float:
        """When the next block is due."""
        return EPOCH + self.phase + self.blocks * BLOCK_SECONDS * self.pace

    def recording(self) -> Sound:
        """Everything that was played."""
        return np.concatenate(self.played) if self.played else np.zeros(0, np.int16)


Watch = Callable[[float, int, Person], Any]
"""Called at each pull with the time, which person it is, and the person."""


def padded(speech: Sound, lead: float = LEAD_SECONDS, tail: float = TAIL_SECONDS, seed: int = 2) -> Sound:
    """Speech with a quiet room before and after it."""
    chance = np.random.default_rng(seed)

    def room(seconds: float) -> NDArray[np.int16]:
        return np.round(chance.normal(0, 32768 * 10 ** (FLOOR_DB / 20), int(seconds * RATE))).astype(np.int16)

    return np.concatenate([room(lead), speech, room(tail)])


def links(scenario: Scenario, seed: int) -> tuple[Link, Link]:
    """Both directions of a network."""
    return Link(scenario, seed, 0), Link(scenario, seed, 1)


def run(people: tuple[Person, Person], seconds: float, watch: Watch | None = None) -> None:
    """Let them talk; what each heard is in `played` afterwards."""
    flying: list[tuple[float, int, int, bytes]] = []
    order = itertools.count()
    end = EPOCH + seconds
    while True:
        who = 0 if people[0].tick() <= people[1].tick() else 1
        now = people[who].tick()
        while flying and flying[0][0] <= now:
            at, _, to, payload = heapq.heappop(flying)
            person = people[to]
            began = time.process_time()
            person.receiver.push(at, payload)
            person.pull_cpu += time.process_time() - began
        if now >= end:
            return
        _turn(now, people[who], lambda at, data, to=1 - who: heapq.heappush(flying, (at, next(order), to, data)))
        if watch is not None:
            watch(now, who, people[who])
        people[who].blocks += 1


def _turn(now: float, person: Person, throw: Callable[[float, bytes], None]) -> None:
    """One block to and from the devices of a person."""
    began = time.process_time()
    sound = person.receiver.pull(now)
    spent = time.process_time() - began
    person.pull_cpu += spent
    person.pull_worst = max(person.pull_worst, spent)
    assert sound.shape == (PULL_SAMPLES,), sound.shape
    person.played.append(sound)
    if not person.blocks:
        return
    began = time.process_time()
    report = person.receiver.heard()
    if report is not None:
        person.sender.reported(now, report, late=person.receiver.heard_late)
    person.sender.telling = person.receiver.report()
    payload = person.sender.push(now, _spoken(person))
    person.push_cpu += time.process_time() - began
    if payload is None:
        return
    person.sizes.append(len(payload) + LINK_BYTES + IP_UDP_BYTES)
    person.sent_at.append(now)
    arrival = person.link.fate(now - EPOCH, len(payload) + LINK_BYTES)
    if arrival is not None:
        throw(EPOCH + arrival, payload)


def _spoken(person: Person) -> Sound:
    """The block of the microphone that has just ended."""
    first = (person.blocks - 1) * PULL_SAMPLES
    if person.loop:
        first %= len(person.microphone) // PULL_SAMPLES * PULL_SAMPLES
    block = person.microphone[first : first + PULL_SAMPLES]
    return np.pad(block, (0, PULL_SAMPLES - len(block))) if len(block) < PULL_SAMPLES else block
