"""Plans for opening a direct path through NATs: pure functions from values to timed packets.

Both sides begin at the same moment, which the relayed session lets them agree on without a clock in
common.  Guessing the ports of a sequential NAT and birthday probing of a random one are bounded in
packets, in rate and in time.  Against each other such NATs are hopeless and left to the relay.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from meshcall.core import ENDPOINT_V4_BYTES, Endpoint
from meshcall.endpoints import is_private
from meshcall.path.candidates import may_probe, seen_alike
from meshcall.wire.path import Candidate, Candidates, Kind, Mapping, Ports

if TYPE_CHECKING:
    from random import Random

LOW_TTL_HOPS = 5
"""Time to live of a packet that shall open our own NATs and not reach the other side's."""
EARLY_LEAST_SECONDS = 0.005
"""With less time than this before the common moment no low-TTL packet is sent."""
RETRY_SECONDS = (0.0, 0.04, 0.12, 0.28, 0.6, 1.2, 2.4)
"""After the common moment, for every candidate: the first of these opens, the later ones make up for loss."""

GUESS_PORTS = 48
"""Ports of a sequential NAT that are tried: from the next one on ..."""
GUESS_AHEAD_AGAIN = 8
"""... and at a second try with a new look so many from it on, the others before it."""
GUESS_SECONDS = 0.002
"""Between two guesses."""

BIRTHDAY_SOCKETS = 256
"""Opened by the side whose NAT gives random ports, each with one packet to the other side's one port."""
SOCKET_SECONDS = 0.001
"""Between two of those packets."""
BIRTHDAY_PROBES = 1280
"""Sent by the other side to ports drawn without repetition: 99.4 % to meet one of 256 among 64,512."""
PROBE_SECONDS = 0.0025
"""Between two of those probes: 400 packets a second, for 3.2 s at most."""
SOCKET_SECONDS_CALL = 0.016
PROBE_SECONDS_CALL = 0.04
BIRTHDAY_PROBES_CALL = 640
"""The same on a link that voice uses: 32 and 14 kbit/s with their headers, in place of ten times as much."""
BIRTHDAY_AFTER_SECONDS = 0.06
"""And one round trip: what ordinary punching gets before birthday probing begins."""
SPRAY_AFTER_SECONDS = 0.1
"""The side that sprays lets the sockets be opened first."""
SOCKETS_LIFE_SECONDS = 4.5
SOCKETS_LIFE_SECONDS_CALL = 27.0
"""Extra sockets that found nothing are closed so long after the first was opened."""


class Step(NamedTuple):
    """One packet of a plan."""

    at: float
    """When, in seconds of `now`."""
    endpoint: Endpoint
    socket: int = 0
    """0: the main socket; 1 to BIRTHDAY_SOCKETS: an extra one."""
    low_ttl: bool = False
    birthday: bool = False


class Tactic(Enum):
    """What is done beside probing the candidates."""

    NONE = "none"
    GUESS = "guess ports"
    OPEN = "open sockets"
    SPRAY = "spray"


_EASY = (Mapping.NONE, Mapping.INDEPENDENT)
_HARD = (Mapping.SEQUENTIAL, Mapping.RANDOM)


def tactic(mine: Mapping, theirs: Mapping) -> Tactic:
    """Who does what, by how the two NATs give ports; each side finds its part by the same table."""
    if theirs is Mapping.SEQUENTIAL and mine not in _HARD:
        return Tactic.GUESS
    if theirs is Mapping.RANDOM and mine in _EASY:
        return Tactic.SPRAY
    if mine is Mapping.RANDOM and theirs in _EASY:
        return Tactic.OPEN
    return Tactic.NONE


def is_hopeless(mine: Mapping, theirs: Mapping) -> bool:
    """Whether a probe to the peer's observed endpoint cannot be answered: both draw a new port for it."""
    return mine in _HARD and theirs in _HARD


def probeable(peer: Candidates, local: Sequence[Candidate], mine: Mapping) -> list[Endpoint]:
    """The peer's addresses that probes go to, given our own candidates and the mapping of our NAT."""
    own = [each.endpoint for each in local if each.kind is Kind.HOST]
    same = seen_alike(local, peer.candidates)
    found = [each.endpoint for each in peer.candidates if each.kind in (Kind.HOST, Kind.MAPPED)]
    if not is_hopeless(mine, peer.ports.mapping):
        found += _observed(peer)
    return [each for each in dict.fromkeys(found) if each not in own and may_probe(each, own, same)]


def hard_target(peer: Candidates, local: Sequence[Candidate]) -> Endpoint | None:
    """Where the peer's NAT is seen; None: guessing ports there is not allowed or makes no sense."""
    if seen_alike(local, peer.candidates):
        return None  # whoever shares our NAT is reached inside it or not at all
    found = _observed(peer)
    if peer.ports.mapping is Mapping.NONE:
        found += [each.endpoint for each in peer.candidates if each.kind is Kind.HOST]
    address = peer.ports.address
    for each in found:
        if len(each) == ENDPOINT_V4_BYTES and address in (b"", each[:-2]) and may_probe(each, (), False):
            return each
    return None


def _observed(peer: Candidates) -> list[Endpoint]:
    """Where the peer's NAT is seen.  With a port for each destination a packet to any port opens our filter there."""
    found = [each.endpoint for each in peer.candidates if each.kind is Kind.OBSERVED]
    ports = peer.ports
    if ports.address and not any(each[:-2] == ports.address for each in found):
        found.append(Endpoint(ports.address + (ports.next_port or ports.high).to_bytes(2, "big")))
    return found


def common_moment(now: float, sent_at: float, rtt: float) -> float:
    """When to begin, on having the other side's candidates: not before it can have ours.

    `sent_at`: when ours were sent; `rtt` of the session, seconds.  The side that was second with its
    message waits half a round trip; the first begins on receipt, at the same moment.
    """
    return max(now, sent_at + rtt / 2)


def ordinary(now: float, go: float, endpoints: Sequence[Endpoint]) -> list[Step]:
    """Probes to the candidates: one early with a low TTL, the others from the common moment on.

    Private addresses have no NAT in between and do not wait.
    """
    steps = []
    for endpoint in endpoints:
        start = now if is_private(endpoint) else go
        if start - now >= EARLY_LEAST_SECONDS:
            steps.append(Step(now, endpoint, low_ttl=True))
        steps += [Step(start + pause, endpoint) for pause in RETRY_SECONDS]
    return sorted(steps)


def guesses(go: float, ports: Ports, is_again: bool = False) -> list[Step]:
    """Probes to the ports that a sequential NAT has for us, the likeliest first.

    At first that is the next one or one of those that follow.  `is_again`: the peer has looked anew since
    the first try, in which its NAT took a port for us; so that one lies just before the next one now.
    """
    ahead = GUESS_AHEAD_AGAIN if is_again else GUESS_PORTS
    order = [*range(-1, ahead - GUESS_PORTS - 1, -1), *range(ahead)]
    found = [ports.next_port + ports.step * number for number in order]
    return [
        Step(go + GUESS_SECONDS * number, Endpoint(ports.address + port.to_bytes(2, "big")))
        for number, port in enumerate(port for port in found if 1024 <= port <= 65535)
    ]


def opened(start: float, endpoint: Endpoint, count: int = BIRTHDAY_SOCKETS, *, is_call: bool = False) -> list[Step]:
    """One packet from each extra socket, so that as many ports of our NAT stand open for the peer's one.

    They need not arrive, so they go with a low TTL; where the platform has none they do no harm.
    """
    pause = SOCKET_SECONDS_CALL if is_call else SOCKET_SECONDS
    return [Step(start + pause * n, endpoint, n + 1, low_ttl=True, birthday=True) for n in range(count)]


def spray(
    start: float, ports: Ports, rng: Random, count: int = BIRTHDAY_PROBES, *, is_call: bool = False
) -> list[Step]:  # fmt: skip
    """Probes to random ports of the range that the peer's NAT draws from."""
    pause = PROBE_SECONDS_CALL if is_call else PROBE_SECONDS
    count = min(count, BIRTHDAY_PROBES_CALL) if is_call else count
    choices = range(max(ports.low, 1024), ports.high + 1)
    drawn = rng.sample(choices, min(count, len(choices)))
    return [
        Step(start + pause * n, Endpoint(ports.address + port.to_bytes(2, "big")), birthday=True)
        for n, port in enumerate(drawn)
    ]
