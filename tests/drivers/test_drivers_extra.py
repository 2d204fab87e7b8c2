"""The extra sockets of hole punching, on loopback: what comes in by them, and what must not end or hold up the node."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio

from meshcall.core import Endpoint, endpoint
from meshcall.drivers import extra
from meshcall.drivers.extra import DATAGRAMS_PER_TURN, ExtraSockets
from meshcall.drivers.udp import open_udp
from meshcall.peers.ways import SocketKey, by_socket

KEY = SocketKey(7, 1)


class FromPortZero(socket.socket):
    """A socket that gets what a raw socket can send, and the kernel hands on: UDP from port 0."""

    def recvfrom(self, *args: Any) -> Any:
        data, (host, port) = super().recvfrom(*args)
        return data, (host, 0 if data == b"zero" else port)


class Endless(socket.socket):
    """A socket whose flood never ends."""

    def recvfrom(self, *args: Any) -> Any:
        return b"more", ("127.0.0.1", 4000)


@dataclass
class Pair:
    sockets: ExtraSockets
    person: socket.socket
    got: list[tuple[SocketKey, Endpoint, bytes]] = field(default_factory=list)

    async def write(self) -> tuple[str, int]:
        """Have the extra socket of KEY write to `person`; where it is."""
        self.sockets.send(by_socket(endpoint(*self.person.getsockname()), KEY), b"hello")
        with trio.fail_after(5):
            await trio.lowlevel.wait_readable(self.person)
        name: tuple[str, int] = self.person.recvfrom(100)[1]
        return name


@asynccontextmanager
async def running() -> AsyncIterator[Pair]:
    person = open_udp(4, "127.0.0.1")
    got: list[tuple[SocketKey, Endpoint, bytes]] = []
    sockets = ExtraSockets((), "127.0.0.1", lambda key, source, data: got.append((key, source, data)))
    async with trio.open_nursery() as nursery:
        await nursery.start(sockets.run)
        yield Pair(sockets, person, got)
        nursery.cancel_scope.cancel()
    assert len(sockets) == 0
    person.close()


def opened_as(monkeypatch: pytest.MonkeyPatch, kind: type[socket.socket]) -> None:
    def open_odd(family: int, host: str | None = None) -> socket.socket:
        one = open_udp(family, host)
        return kind(fileno=one.detach())

    monkeypatch.setattr(extra, "open_udp", open_odd)


async def test_a_datagram_from_port_0_is_counted_and_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    opened_as(monkeypatch, FromPortZero)
    async with running() as pair:
        where = await pair.write()
        for data in (b"zero", b"zero", b"one"):
            pair.person.sendto(data, where)
        with trio.fail_after(5):
            while not pair.got:  # noqa: ASYNC110 - nothing tells of it
                await trio.sleep(0.005)
        assert pair.got == [(KEY, endpoint(*pair.person.getsockname()), b"one")]
        assert pair.sockets.counters["received from port 0"] == 2


async def test_a_flood_leaves_the_other_tasks_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    opened_as(monkeypatch, Endless)
    async with running() as pair:
        pair.person.sendto(b"begin", await pair.write())
        with trio.fail_after(5):
            while not pair.got:  # noqa: ASYNC110 - nothing tells of it
                await trio.sleep(0)
        before = len(pair.got)
        await trio.sleep(0)
        await trio.sleep(0)
        assert len(pair.got) - before <= 4 * DATAGRAMS_PER_TURN
