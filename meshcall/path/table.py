"""The paths of one link that something came by or that were named as relays, and the probes under way on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import TYPE_CHECKING, NamedTuple

from meshcall.path.budget import ProbeBudget
from meshcall.path.events import Frame, PathStatus
from meshcall.path.health import CLOCK_GRAIN_SECONDS, Health, State
from meshcall.path.paths import Path, endpoint_of
from meshcall.path.rhythm import check_back
from meshcall.path.thrift import NARROW_PROBES_KEPT, Thrift
from meshcall.wire.path import KIND_PROBE, NONCE_BYTES, Probe, encode_probe

if TYPE_CHECKING:
    from random import Random

PATHS_MAX = 24
"""Paths measured at once; candidates that have never answered are not among them."""
NONCES_MAX = 2048
NONCE_LIFE_SECONDS = 3.0
"""An answer that comes later counts for nothing."""
FORGET_SECONDS = 120.0
"""A path neither heard nor used for so long is forgotten."""


class Asked(NamedTuple):
    """A probe under way."""

    path: Path
    socket: int
    at: float
    silence: float
    """Seconds for which nothing had been sent on the path before."""


class Table:
    """Paths and nonces, both bounded."""

    __slots__ = ("_budget", "_nonces", "_rng", "_thrift", "counters", "is_deaf", "outbox", "paths")

    def __init__(
        self, rng: Random, budget: ProbeBudget, outbox: list[Frame], counters: Counter[str], thrift: Thrift
    ) -> None:  # fmt: skip
        self.paths: dict[Path, Health] = {}
        self.outbox = outbox
        self.counters = counters
        self.is_deaf = False
        """A stream was heard and has stopped on all paths: probes say so."""
        self._rng = rng
        self._budget = budget
        self._thrift = thrift
        self._nonces: dict[bytes, Asked] = {}

    def meet(self, now: float, path: Path, socket: int, kept: Collection[Path | None]) -> Health | None:
        """The health of a path that something authentic came by; None where it cannot be kept.

        To make room one that was never proved or is silent goes, if it is not in `kept`.
        """
        health = self.paths.get(path)
        if health is None:
            if len(self.paths) >= PATHS_MAX and not self._make_room(now, kept):
                self.counters["too many paths"] += 1
                return None
            health = self.paths[path] = Health(now, path, socket)
        elif health.socket != socket:
            if health.verified and not health.is_lost:
                self.counters["another socket"] += 1
                return None
            health.socket = socket
        return health

    def probe(self, now: float, health: Health, *, is_best: bool = False) -> None:
        """Probe a path; where it is not proved, as the budget allows; where it is not the best, as the line does."""
        if not is_best and not self._thrift.take(now, NARROW_PROBES_KEPT):
            health.postponed(now)
            return
        if not health.verified and not self._budget.take(now, endpoint_of(health.path)):
            health.skipped(now)
            return
        silence = now - health.sent_at
        health.probed(now, self.send(now, health.path, health.socket, silence=silence))

    def check_back(self, now: float, health: Health) -> None:
        """Probe a path that the peer was just heard on, not too often."""
        if check_back(health) <= now + CLOCK_GRAIN_SECONDS:
            self.probe(now, health)

    def send(self, now: float, path: Path, socket: int = 0, *, low_ttl: bool = False, silence: float = 0.0) -> bytes:
        """Send a probe and remember its nonce, which is returned."""
        nonce = self._rng.randbytes(NONCE_BYTES)
        if len(self._nonces) >= NONCES_MAX:
            del self._nonces[next(iter(self._nonces))]
        self._nonces[nonce] = Asked(path, socket, now, silence)
        self.outbox.append(Frame(path, KIND_PROBE, encode_probe(Probe(nonce, self.is_deaf)), socket, low_ttl))
        self.counters["probes"] += 1
        return nonce

    def match(self, now: float, path: Path, socket: int, nonce: bytes) -> tuple[Asked | None, bool]:
        """The probe that an answer belongs to, and whether it came back by the way that the probe went."""
        asked = self._nonces.pop(nonce, None)
        if asked is None or now - asked.at > NONCE_LIFE_SECONDS:
            self.counters["answer to nothing"] += 1
            return None, False
        same = asked.path == path and asked.socket == socket
        if not same:
            self.counters["answer by another way"] += 1
        return asked, same

    def show(self, now: float, best: Path | None, second: Path | None) -> tuple[PathStatus, ...]:
        """All paths, the best first."""
        shown = [
            PathStatus(
                path, health.state(now), health.rtt, health.frame_loss(now),
                None if health.heard_at is None else now - health.heard_at,
                path == best, path == second, health.socket,
            )
            for path, health in self.paths.items()
        ]  # fmt: skip
        return tuple(sorted(shown, key=lambda each: (not each.is_best, not each.is_second, -each.state)))

    def tidy(self, now: float, kept: Collection[Path | None]) -> list[Path]:
        """Forget old nonces, and the paths neither heard of late nor in `kept`, which are returned."""
        while self._nonces:
            nonce, asked = next(iter(self._nonces.items()))
            if now - asked.at <= NONCE_LIFE_SECONDS:
                break
            del self._nonces[nonce]
        old = [
            path
            for path, health in self.paths.items()
            if path not in kept
            and now - (health.since if health.heard_at is None else health.heard_at) >= FORGET_SECONDS
        ]
        for path in old:
            del self.paths[path]
        return old

    def _make_room(self, now: float, kept: Collection[Path | None]) -> bool:
        for state in (State.NEW, State.SILENT):
            for path, health in self.paths.items():
                if path not in kept and health.state(now) is state:
                    del self.paths[path]
                    return True
        return False
