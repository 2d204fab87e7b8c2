"""How the daemon's relay forwards: in a thread beside the node (drivers/relay_hot.py), or in the node's loop.

The fast way needs ctypes or at least threads and poll(2); where they are missing, the node forwards as
it does everything else, and says so once.
"""

from __future__ import annotations

import gc
import logging
import socket
from typing import TYPE_CHECKING, Any

from meshcall.drivers.udp_buffers import datagrams_dropped
from meshcall.logs import log

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshcall.drivers.relay_hot import HotPath
    from meshcall.drivers.udp import Driven, NodeDriver
    from meshcall.node import Node

_log = logging.getLogger("meshcall.relay")


class Forwarding:
    """The relay's hot path in a live node: none until `start`, and only where the node is a relay."""

    def __init__(self) -> None:
        self._hot: HotPath | None = None
        self._way = "node"
        self._sockets: list[socket.socket] = []

    def start(self, driver: NodeDriver, driven: Driven[Node], on_fault: Callable[[Exception], None]) -> None:
        """Take over the reading of the node's sockets, if this node is a relay.  The driver must be running."""
        station = driven.core.station
        if self._hot is not None or station is None or station.relay is None or not driver.is_running:
            return
        try:
            from meshcall.drivers.relay_batch import has_mmsg
            from meshcall.drivers.relay_hot import HotPath, can_run
        except ImportError as problem:  # a Python without ctypes
            self._say_slow(str(problem))
            return
        if not can_run():
            self._say_slow("no poll(2) here")
            return
        self._sockets = driven.give_up_reading()
        self._hot = HotPath(self._sockets, station.relay, driven.deliver, driven.settle, on_fault=on_fault)
        driven.after_turn = self._hot.update
        self._way = "recvmmsg" if has_mmsg() else "recvfrom"
        if self._way == "recvfrom":
            log(_log, logging.INFO, "this system has no recvmmsg; the relay forwards one packet at a time")
        gc.collect()
        gc.freeze()  # a collection of all that was imported would keep the relay's thread waiting
        driver.start(self._hot.run)

    def _say_slow(self, why: str) -> None:
        log(_log, logging.INFO, "the relay forwards in the node's own loop, which costs more", reason=why)

    def status(self) -> dict[str, Any]:
        """As docs/control-api.md has it."""
        return {
            "path": self._way,
            "counters": {} if self._hot is None else dict(self._hot.totals()),
            "sockets": [
                {
                    "family": 4 if one.family == socket.AF_INET else 6,
                    "receive_buffer_bytes": one.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF),
                    "dropped": datagrams_dropped(one),
                }
                for one in self._sockets
                if one.fileno() >= 0
            ],
        }
