"""A swarm of meshcall and libtorrent nodes on loopback, and meshcall's side of each operation."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import trio

from meshcall.address import Link
from meshcall.core import Endpoint, endpoint, host_of, port_of
from meshcall.crypto.sodium import Sodium
from meshcall.dht.config import DhtConfig
from meshcall.dht.events import GetFinished, Joined, PeersFinished, PutFinished
from meshcall.dht.items import Item
from meshcall.drivers.udp import Driven, NodeDriver, open_udp
from meshcall.node import LookupEvent, Node
from meshcall.record.events import RecordConfirmed, ResolveFinished
from tests.interop.torrent import TorrentNode

SUITE = Sodium()
EVENT_SECONDS_MAX = 25.0
SETTLE_SECONDS = 1.5
"""libtorrent takes up what it was told of within about a second, and says of no node that it did."""


class MeshNode:
    """One meshcall node on a real socket."""

    def __init__(self, driver: NodeDriver, ip: str) -> None:
        now = trio.current_time()
        core = Node(now, time.time(), rng=random.SystemRandom(), suite=SUITE, config=DhtConfig(reachable="yes"))
        self._events: list[Any] = []
        self._news = trio.Event()
        self.driven: Driven[Node] = driver.add(core, [open_udp(4, ip)], self._happened)
        self.where: Endpoint = self.driven.endpoints[0]
        core.dht.set_local_addresses(now, [self.where])

    @property
    def address(self) -> tuple[str, int]:
        """As libtorrent takes it."""
        return host_of(self.where), port_of(self.where)

    def _happened(self, _now: float, events: list[Any]) -> None:
        self._events += events
        self._news.set()

    async def _wait(self, is_it: Callable[[Any], bool]) -> Any:
        with trio.fail_after(EVENT_SECONDS_MAX):
            while True:
                for event in self._events:
                    if is_it(event):
                        return event
                self._news = trio.Event()
                await self._news.wait()

    async def join(self, *others: tuple[str, int]) -> None:
        """Find the network through these."""
        with self.driven.turn() as now:
            self.driven.core.start(now, [endpoint(*other) for other in others])
        await self._wait(lambda event: isinstance(event, Joined))

    async def _finish(self, kind: type, begin: Callable[[float], int]) -> Any:
        with self.driven.turn() as now:
            number = begin(now)
        return await self._wait(lambda event: isinstance(event, kind) and event.operation == number)

    async def put(self, item: Item, cas: int | None = None) -> PutFinished:
        """Store an item."""
        ended = await self._finish(PutFinished, lambda now: self.driven.core.dht.put(now, item, cas=cas))
        assert isinstance(ended, PutFinished)
        return ended

    async def get_mutable(self, public: bytes, salt: bytes = b"") -> GetFinished:
        """The newest item of a key."""
        ended = await self._finish(GetFinished, lambda now: self.driven.core.dht.get_mutable(now, public, salt))
        assert isinstance(ended, GetFinished)
        return ended

    async def get_immutable(self, target: bytes) -> GetFinished:
        """The item of that hash."""
        ended = await self._finish(GetFinished, lambda now: self.driven.core.dht.get_immutable(now, target))
        assert isinstance(ended, GetFinished)
        return ended

    async def announce(self, info_hash: bytes, port: int | None = None) -> PutFinished:
        """Announce ourselves under an info-hash."""
        ended = await self._finish(PutFinished, lambda now: self.driven.core.dht.announce(now, info_hash, port))
        assert isinstance(ended, PutFinished)
        return ended

    async def get_peers(self, info_hash: bytes) -> PeersFinished:
        """Who is announced under an info-hash."""
        ended = await self._finish(PeersFinished, lambda now: self.driven.core.dht.get_peers(now, info_hash))
        assert isinstance(ended, PeersFinished)
        return ended

    async def lookup(self, public: bytes) -> ResolveFinished:
        """Look a person up by key."""
        with self.driven.turn() as now:
            number = self.driven.core.lookup(now, Link(public))

        def is_it(event: Any) -> bool:
            return (
                isinstance(event, LookupEvent) and event.lookup == number and isinstance(event.event, ResolveFinished)
            )

        ended = (await self._wait(is_it)).event
        assert isinstance(ended, ResolveFinished)
        return ended

    async def confirmed(self) -> RecordConfirmed:
        """Wait until what was published was found again."""
        said = await self._wait(lambda event: isinstance(event, RecordConfirmed))
        assert isinstance(said, RecordConfirmed)
        return said


class Swarm:
    """Some nodes of each kind that know of each other."""

    def __init__(self, mesh: list[MeshNode], torrent: list[TorrentNode]) -> None:
        self.mesh = mesh
        self.torrent = torrent


@contextlib.asynccontextmanager
async def swarm(mesh: int, torrent: int) -> AsyncIterator[Swarm]:
    """So many nodes of each; they are gone at the end."""
    driver = NodeDriver()
    async with trio.open_nursery() as nursery:
        await nursery.start(driver.run)
        torrents = [TorrentNode(f"127.0.2.{number + 1}") for number in range(torrent)]
        places = [await node.opened() for node in torrents]
        ours = [MeshNode(driver, f"127.0.3.{number + 1}") for number in range(mesh)]
        places += [node.address for node in ours]
        for node in torrents:
            node.meet(*[place for place in places if place != (node.ip, node.port)])
        await trio.sleep(SETTLE_SECONDS)
        for node in ours:
            nursery.start_soon(node.join, *[place for place in places if place != node.address][:8])
        await trio.sleep(SETTLE_SECONDS)
        try:
            yield Swarm(ours, torrents)
        finally:
            for session in torrents:
                session.session.pause()
            nursery.cancel_scope.cancel()
