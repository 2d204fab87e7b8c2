"""How the NAT in front of us gives outer ports, from what several observers see of one socket.

Fed with the `ip` field of DHT answers (BEP 42) and the observed endpoints of relays and peers.
The order of outer ports by their first sighting shows whether the next one can be foretold.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from meshcall.core import ENDPOINT_V4_BYTES, Endpoint, port_of
from meshcall.wire.path import Mapping, Ports

OBSERVERS_MAX = 24
"""Observers remembered, the newest."""
OBSERVATION_LIFE_SECONDS = 600.0
"""After this a sighting says nothing of the ports given now."""
OBSERVERS_LEAST = 2
"""So many must agree that there is one port for all ..."""
SEQUENCE_LEAST = 3
"""... and so many make a sequence or the lack of one."""
SEQUENCE_GAP_MAX = 64
"""Ports between neighbours of a sequence: others behind the same NAT take some too."""
BLOCK_PORTS_MAX = 4096
"""Ports all within so many of each other, seen by `BLOCK_LEAST`, are those of a customer's block (RFC 7422)."""
BLOCK_LEAST = 4
PORT_LEAST = 1024
PORT_GREATEST = 65535


class PortWatch:
    """What observers saw of one IPv4 socket, in the order of first sight."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: dict[Endpoint, tuple[Endpoint, float, float]] = {}
        """By observer: what it saw, since when, and when last."""

    def note(self, now: float, observer: Endpoint, seen: Endpoint) -> None:
        """Take what one observer sees; only from answers to our own requests.  IPv6 is passed over."""
        if len(seen) != ENDPOINT_V4_BYTES or len(observer) != ENDPOINT_V4_BYTES:
            return
        before = self._seen.get(observer)
        if before is not None and before[0] == seen:
            self._seen[observer] = (seen, before[1], now)
            return
        self._seen.pop(observer, None)
        if len(self._seen) >= OBSERVERS_MAX:
            del self._seen[next(iter(self._seen))]
        self._seen[observer] = (seen, now, now)

    def forget(self) -> None:
        """The network under us has changed."""
        self._seen.clear()

    def outside(self, now: float) -> Endpoint | None:
        """Where others see the socket.

        With a port for each destination only the address means something; then it is the sighting
        that changes least.
        """
        fresh = self._fresh(now)
        if not fresh:
            return None
        return fresh[0] if judge(fresh).mapping in (Mapping.SEQUENTIAL, Mapping.RANDOM) else fresh[-1]

    def ports(self, now: float, local: Iterable[Endpoint] = ()) -> Ports:
        """How outer ports are given; `local` are the endpoints of our own sockets."""
        return judge(self._fresh(now), local)

    def _fresh(self, now: float) -> list[Endpoint]:
        fresh = [seen for seen, _, last in self._seen.values() if now - last < OBSERVATION_LIFE_SECONDS]
        hosts = [seen[:-2] for seen in fresh]
        most = max(hosts, key=hosts.count, default=b"")
        return [seen for seen in fresh if seen[:-2] == most]


def judge(seen: list[Endpoint], local: Iterable[Endpoint] = ()) -> Ports:
    """What sightings of one address by different observers, in their order, say of the NAT (RFC 4787 section 4)."""
    if len(seen) < OBSERVERS_LEAST:
        return Ports()
    address = bytes(seen[0][:-2])
    if any(each[:-2] == address for each in local):
        return Ports(Mapping.NONE)
    found = [port_of(each) for each in seen]
    distinct = sorted(set(found))
    if len(distinct) == 1 or len(distinct) * 2 <= len(found):
        return Ports(Mapping.INDEPENDENT)  # a mapping renewed of late shows two ports, not many
    if len(distinct) < SEQUENCE_LEAST:
        return Ports()
    run = _last_run(found)
    if len(set(run)) >= SEQUENCE_LEAST:
        ordered = sorted(set(run))
        # answers overtake each other, so the direction is what most pairs say
        rising = sum((b > a) - (b < a) for i, a in enumerate(run) for b in run[i + 1 :])
        least = min(after - before for before, after in pairwise(ordered))
        step = least if rising >= 0 else -least
        following = (ordered[-1] if step > 0 else ordered[0]) + step
        if PORT_LEAST <= following <= PORT_GREATEST:
            return Ports(Mapping.SEQUENTIAL, address, next_port=following, step=step)
    low, high = PORT_LEAST, PORT_GREATEST
    span = distinct[-1] - distinct[0]
    if span <= BLOCK_PORTS_MAX and len(distinct) >= BLOCK_LEAST:
        low, high = max(low, distinct[0] - span), min(high, distinct[-1] + span)
    return Ports(Mapping.RANDOM, address, low=low, high=high)


def _last_run(found: list[int]) -> list[int]:
    """The newest ports that lie near each other: neighbours may have taken many since the older ones."""
    run: list[int] = []
    for port in reversed(found):
        if run and min(abs(port - each) for each in run) > SEQUENCE_GAP_MAX:
            break
        run.append(port)
    return run[::-1]
