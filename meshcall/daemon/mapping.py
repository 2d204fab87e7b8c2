"""The daemon's port mapping: whether to ask the gateway at all, for which address, and how it stands.

Asked only for sockets that the gateway could forward to: not for loopback, and with a bound address
only where the way to the gateway begins there.  With MESHCALL_OFFLINE=1 nobody is asked.
"""

from __future__ import annotations

import ipaddress
import logging
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import trio

from meshcall.core import ENDPOINT_V4_BYTES, port_of, show_endpoint
from meshcall.daemon import start_points
from meshcall.drivers.gateway import PortMapper, Route, default_gateway
from meshcall.logs import log
from meshcall.portmap.mapper import Mapped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meshcall.core import Endpoint

SWITCHED_OFF = "[network] port_mapping is false"
OFFLINE = "MESHCALL_OFFLINE is set"
LOOPBACK_ONLY = "the sockets are bound to this machine only"

_log = logging.getLogger("meshcall.node")

Find = Callable[[int], Route | None]


class PortMapping:
    """`run` until cancelled, which gives the mappings back."""

    def __init__(self, bound: Sequence[Endpoint], secret: bytes, *, wanted: bool, find: Find = default_gateway) -> None:
        """`bound`: where the node's sockets are, one for each family, on one port."""
        self._find = find
        self._hosts = {4 if len(each) == ENDPOINT_V4_BYTES else 6: bytes(each[:-2]) for each in bound}
        families = tuple(family for family, host in self._hosts.items() if not ipaddress.ip_address(host).is_loopback)
        self.off = self._why_not(wanted, families)
        """Why nobody is asked; empty: it is on."""
        self._mapper: PortMapper | None = None
        if not self.off:
            self._mapper = PortMapper(
                port_of(bound[0]), secret=secret, rng=random.SystemRandom(), families=families, find=self._gateway
            )

    @staticmethod
    def _why_not(wanted: bool, families: tuple[int, ...]) -> str:
        if not wanted:
            return SWITCHED_OFF
        if start_points.is_offline():
            return OFFLINE
        return "" if families else LOOPBACK_ONLY

    def _gateway(self, family: int) -> Route | None:
        """The gateway, unless our socket is bound to an address that is not the one towards it."""
        route = self._find(family)
        host = self._hosts[family]
        return None if route is None or (any(host) and host != route[0].local) else route

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """What gateways forward to us now."""
        return () if self._mapper is None else tuple(each.outside for each in self._mapper.mappings)

    @property
    def counters(self) -> dict[str, int]:
        """By short fixed words."""
        return {} if self._mapper is None else self._mapper.counters

    def network_changed(self) -> None:
        """Another address, or the machine slept."""
        if self._mapper is not None:
            self._mapper.network_changed()

    async def run(self, on_change: Callable[[], None]) -> None:
        """Keep the mappings; `on_change` is called when `endpoints` may be others."""
        mapper = self._mapper
        if mapper is None:
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mapper.run)
            async for event in mapper.events:
                if isinstance(event, Mapped):
                    beyond = ", which is itself behind a NAT" if event.private else ""
                    log(_log, logging.INFO, f"the router forwards a port to this node{beyond}", by=event.protocol)
                elif event.outside is not None:
                    log(_log, logging.INFO, "the router forwards no port any more", reason=event.reason)
                on_change()

    def status(self, now: float) -> dict[str, Any]:
        """As docs/control-api.md has it."""
        families = [] if self._mapper is None else self._mapper.status(now)
        return {
            "on": not self.off,
            "off_because": self.off or None,
            "families": [
                {
                    "family": one.family,
                    "protocol": None if one.mapped is None else one.mapped.protocol,
                    "outside": None if one.mapped is None else show_endpoint(one.mapped.outside),
                    "double_nat": one.mapped is not None and one.mapped.private,
                    "ends_in_seconds": _rounded(one.seconds if one.mapped is not None else None),
                    "next_try_in_seconds": _rounded(one.seconds if one.mapped is None else None),
                    "reason": one.reason,
                }
                for one in families
            ],
        }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
