"""The hole punching of one link: the plans of `punch` put together, in order of time, within the budget."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from meshcall.core import Endpoint
from meshcall.path.budget import ProbeBudget
from meshcall.path.punch import (
    BIRTHDAY_AFTER_SECONDS,
    SOCKETS_LIFE_SECONDS,
    SOCKETS_LIFE_SECONDS_CALL,
    SPRAY_AFTER_SECONDS,
    Step,
    Tactic,
    guesses,
    opened,
    ordinary,
    spray,
    tactic,
)
from meshcall.path.thrift import Thrift
from meshcall.wire.path import Ports

if TYPE_CHECKING:
    from random import Random

BIRTHDAY_PAUSE_SECONDS = 60.0
"""Between two birthday probings of one link ..."""
BIRTHDAYS_MAX = 3
"""... of which there are so many until the network changes."""
GRACE_SECONDS = 0.3
"""A direct path works: what is due within this may still find a better one, the rest is dropped."""
STEPS_MAX = 2048
"""Packets planned at once."""


class Punching:
    """A queue of planned packets."""

    __slots__ = (
        "_birthday_at",
        "_birthdays",
        "_budget",
        "_guessed",
        "_is_planned",
        "_rng",
        "_steps",
        "_thrift",
        "is_held",
        "sockets_until",
        "tactic",
    )

    def __init__(self, rng: Random, budget: ProbeBudget, thrift: Thrift) -> None:
        self.tactic = Tactic.NONE
        self.sockets_until: float | None = None
        """When extra sockets are to be closed; None: there are none."""
        self._rng = rng
        self._budget = budget
        self._thrift = thrift
        self._steps: list[Step] = []
        self._birthdays = 0
        self._birthday_at: float | None = None
        self._is_planned = False
        self.is_held = False
        """Birthday probing was due, and waits until the line is known to be wide."""
        self._guessed = b""
        """The address at which ports were guessed last."""

    def begin(
        self,
        now: float,
        go: float,
        rtt: float,
        endpoints: Sequence[Endpoint],
        mine: Ports,
        theirs: Ports,
        target: Endpoint | None,
    ) -> None:
        """Plan anew: `endpoints` are what is probed; `target` is where the peer's NAT is seen, None for nothing hard.

        `go` is the common moment, `rtt` the session's round trip in seconds.
        """
        steps = ordinary(now, go, endpoints)
        chosen = Tactic.NONE if target is None else tactic(mine.mapping, theirs.mapping)
        if chosen is Tactic.GUESS:
            steps += guesses(go, theirs, is_again=self._guessed == theirs.address)
            self._guessed = theirs.address
        elif chosen is not Tactic.NONE:
            if not self._may_birthday(now):
                chosen = Tactic.NONE
            else:
                self._is_planned = True
                start = go + rtt + BIRTHDAY_AFTER_SECONDS
                is_call = self._thrift.is_call
                if chosen is Tactic.OPEN:
                    assert target is not None
                    steps += opened(start, target, is_call=is_call)
                    self.sockets_until = start + (SOCKETS_LIFE_SECONDS_CALL if is_call else SOCKETS_LIFE_SECONDS)
                else:
                    steps += spray(start + SPRAY_AFTER_SECONDS, theirs, self._rng, is_call=is_call)
        # a birthday that is under way goes on when the peer says something new but stays where it is
        there = None if target is None else target[:-2]
        under_way = [
            step for step in self._steps if step.birthday and not self._is_planned and step.endpoint[:-2] == there
        ]
        self._steps = sorted(steps + under_way)[:STEPS_MAX]
        if chosen is not Tactic.NONE or not under_way:
            self.tactic = chosen

    def found(self, now: float) -> None:
        """A direct path works."""
        self._steps = [step for step in self._steps if not step.birthday and step.at < now + GRACE_SECONDS]

    def stop(self) -> None:
        """Send nothing more."""
        self._steps.clear()

    def network_changed(self) -> None:
        """All that was planned or counted was for another network."""
        self._steps.clear()
        self._birthdays, self._birthday_at = 0, None
        self._guessed = b""

    def due(self, now: float) -> Iterator[Step]:
        """The packets whose time has come and that budget and line allow.

        Birthday probing would fill a narrow line for seconds: it is dropped there, and `is_held` says so.
        """
        while self._steps and self._steps[0].at <= now:
            if self._steps[0].birthday and self._thrift.is_on:
                self._steps = sorted(step for step in self._steps if not step.birthday)
                self._is_planned, self.is_held = False, True
                continue
            if not (self._steps[0].birthday or self._steps[0].low_ttl or self._thrift.take(now)):
                return
            step = heapq.heappop(self._steps)  # a sorted list is a heap
            if self._budget.take(now, step.endpoint, birthday=step.birthday):
                if step.birthday and self._is_planned:  # what never begins is not counted
                    self._is_planned = False
                    self._birthdays += 1
                    self._birthday_at = now
                yield step

    def next_at(self) -> float | None:
        """When the next packet is due."""
        return max(self._steps[0].at, self._thrift.next_at()) if self._steps else None

    def _may_birthday(self, now: float) -> bool:
        if self._birthdays >= BIRTHDAYS_MAX:
            return False
        return self._birthday_at is None or now - self._birthday_at >= BIRTHDAY_PAUSE_SECONDS
