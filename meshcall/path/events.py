"""What the prober gives out: frames to send, and what has happened."""

from __future__ import annotations

from dataclasses import dataclass

from meshcall.core import Endpoint
from meshcall.path.health import State
from meshcall.path.paths import Path


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame for the link to seal and the driver to send at once."""

    path: Path
    kind: int
    """KIND_PROBE or KIND_ANSWER of `wire.path`."""
    payload: bytes
    socket: int = 0
    """0: the main one.  Others: an extra socket of this link, to be opened on first use on a port of the
    system's choice."""
    low_ttl: bool = False
    """Send it with a time to live of `punch.LOW_TTL_HOPS`; where that cannot be done, and socket is 0, not at all."""


@dataclass(frozen=True, slots=True)
class PathChosen:
    """From now on `best` carries what is sent."""

    best: Path | None
    """None: no path works at present."""
    second: Path | None
    reason: str


@dataclass(frozen=True, slots=True)
class PathLost:
    """A path that worked has fallen silent."""

    path: Path


@dataclass(frozen=True, slots=True)
class InDoubt:
    """The path that carries the frames may have failed: whoever holds leases at relays renews them now."""

    path: Path


@dataclass(frozen=True, slots=True)
class SocketKept:
    """All that goes by this path leaves from this extra socket from now on."""

    path: Path
    socket: int


@dataclass(frozen=True, slots=True)
class SocketsClosed:
    """The extra sockets of this link are no longer needed, but those in `kept`."""

    kept: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class OutsideSeen:
    """The peer sees our main socket at this endpoint: a candidate for other links too."""

    path: Path
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class OutsideWanted:
    """A new look at how others see us would help; answer with `Prober.set_local`."""


PathEvent = PathChosen | PathLost | InDoubt | SocketKept | SocketsClosed | OutsideSeen | OutsideWanted


@dataclass(frozen=True, slots=True)
class PathStatus:
    """One path, for `meshcall paths`."""

    path: Path
    state: State
    rtt: float | None
    """Smoothed round trip in seconds."""
    loss: float
    heard: float | None
    """Seconds since something authentic came by it."""
    is_best: bool
    is_second: bool
    socket: int


@dataclass(frozen=True, slots=True)
class ProberStatus:
    """All paths of a link, the best first, and why the best one is the best."""

    paths: tuple[PathStatus, ...]
    reason: str
    tactic: str
    """What hole punching did last beside probing the candidates: the value of a `punch.Tactic`."""
    keep_alive: float
    """Seconds of silence after which the next keep-alive goes out."""
    counters: dict[str, int]
