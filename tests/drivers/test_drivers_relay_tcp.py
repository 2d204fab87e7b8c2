"""Frames over TCP on loopback: both sides, bad input, slow readers, too many connections."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from meshcall.core import endpoint
from meshcall.drivers import relay_tcp
from meshcall.drivers.relay_tcp import TcpPaths, TcpRelay
from meshcall.relay.places import Place, is_tcp_place, tcp_place


class Side:
    """Remembers what was delivered and what went away."""

    def __init__(self) -> None:
        self.got: list[tuple[Place, bytes]] = []
        self.lost: list[Place] = []

    def deliver(self, now: float, place: Place, data: bytes) -> None:
        self.got.append((place, data))

    def gone(self, now: float, place: Place) -> None:
        self.lost.append(place)


class Pair:
    """A relay and one who connects."""

    def __init__(self, port: int) -> None:
        self.at_relay, self.at_paths = Side(), Side()
        self.relay = TcpRelay(self.at_relay.deliver, self.at_relay.gone)
        self.paths = TcpPaths(self.at_paths.deliver, self.at_paths.gone)
        self.port = port
        self.place = tcp_place(endpoint("127.0.0.1", port), 0)


@asynccontextmanager
async def running() -> AsyncIterator[Pair]:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    pair = Pair(listeners[0].socket.getsockname()[1])
    async with trio.open_nursery() as nursery:
        await nursery.start(pair.relay.run, listeners)
        await nursery.start(pair.paths.run)
        yield pair
        nursery.cancel_scope.cancel()
    for listener in listeners:
        await listener.aclose()


async def until(condition) -> None:  # type: ignore[no-untyped-def]
    with trio.fail_after(5):
        while not condition():  # noqa: ASYNC110 - several sides, none of which says when
            await trio.sleep(0.005)


async def test_datagrams_go_both_ways_whole_and_in_order() -> None:
    async with running() as pair:
        sent = [bytes([number % 256]) * (1 + number % 1500) for number in range(300)]
        for number, data in enumerate(sent):
            pair.paths.send(trio.current_time(), pair.place, data)
            if number % 20 == 19:
                await until(lambda number=number: len(pair.at_relay.got) == number + 1)
        assert [data for _, data in pair.at_relay.got] == sent
        place = pair.at_relay.got[0][0]
        assert is_tcp_place(place)
        pair.relay.send(trio.current_time(), place, b"back")
        await until(lambda: pair.at_paths.got)
        assert pair.at_paths.got == [(pair.place, b"back")]
        pair.paths.close(pair.place)
        await until(lambda: pair.at_relay.lost == [place] and pair.at_paths.lost == [pair.place])
        pair.relay.send(trio.current_time(), place, b"too late")
        assert pair.relay.counters["tcp place gone"] == 1


async def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed_soon:
        nowhere = tcp_place(endpoint(*closed_soon.getsockname()), 0)
    async with running() as pair:
        pair.paths.send(trio.current_time(), nowhere, b"anybody?")
        await until(lambda: pair.at_paths.lost == [nowhere])
        assert not len(pair.paths)


@pytest.mark.parametrize("junk", [b"\0\0", b"\xff\xff", b"\x05\xdd" + bytes(2000), b"GET / HTTP/1.1\r\n\r\n" * 9])
async def test_a_connection_out_of_form_is_closed(junk: bytes) -> None:
    async with running() as pair:
        stream = await trio.open_tcp_stream("127.0.0.1", pair.port)
        await stream.send_all(junk)
        with trio.fail_after(5):
            try:
                assert await stream.receive_some(100) == b""
            except trio.BrokenResourceError:
                pass
        await until(lambda: not len(pair.relay))
        await stream.aclose()
        assert pair.relay.counters["tcp bad length"] == 1


@settings(max_examples=25, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.binary(max_size=60))
def test_any_bytes_are_datagrams_or_the_end(datagrams: list[bytes], junk: bytes) -> None:
    async def go() -> None:
        async with running() as pair:
            stream = await trio.open_tcp_stream("127.0.0.1", pair.port)
            whole = b"".join(len(data).to_bytes(2, "big") + data for data in datagrams)
            for at in range(0, len(whole), 7):  # however it is cut
                await stream.send_all(whole[at : at + 7])
                await trio.sleep(0)
            await until(lambda: len(pair.at_relay.got) == len(datagrams))
            assert [data for _, data in pair.at_relay.got] == datagrams
            await stream.send_all(junk)
            await stream.aclose()
            await until(lambda: not len(pair.relay))

    trio.run(go)


async def test_a_slow_reader_loses_packets_and_then_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_tcp, "SLOW_SECONDS", 0.2)
    async with running() as pair:
        stream = await trio.open_tcp_stream("127.0.0.1", pair.port)
        await stream.send_all(b"\0\5hello")
        await until(lambda: pair.at_relay.got)
        place = pair.at_relay.got[0][0]
        with trio.fail_after(20):
            while not pair.at_relay.lost:
                for _ in range(50):
                    pair.relay.send(trio.current_time(), place, bytes(1400))
                await trio.sleep(0.001)
        assert pair.relay.counters["tcp slow reader closed"] >= 1
        assert pair.relay.counters["tcp no room"] > 10
        await stream.aclose()


async def test_who_says_nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_tcp, "FIRST_SECONDS", 0.05)
    async with running() as pair:
        stream = await trio.open_tcp_stream("127.0.0.1", pair.port)
        with trio.fail_after(5):
            assert await stream.receive_some(10) == b""
        assert pair.relay.counters["tcp silent closed"] == 1
        await stream.aclose()


async def test_one_address_has_so_many_connections_and_no_more() -> None:
    async with running() as pair:
        streams = [
            await trio.open_tcp_stream("127.0.0.1", pair.port) for _ in range(relay_tcp.CONNECTIONS_PER_ADDRESS_MAX + 4)
        ]
        await until(lambda: pair.relay.counters["tcp refused: too many"] == 4)
        assert len(pair.relay) == relay_tcp.CONNECTIONS_PER_ADDRESS_MAX
        for stream in streams:
            await stream.aclose()
        await until(lambda: not len(pair.relay))
        assert not pair.relay._by_owner
