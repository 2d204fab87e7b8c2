"""The driver: routing tables, bounded HTTP on loopback, and whole gateways in a namespace made for the test."""

from __future__ import annotations

import contextlib
import errno
import socket
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from random import Random
from typing import cast

import pytest
import trio

from meshcall.core import Endpoint, endpoint
from meshcall.drivers import gateway
from meshcall.drivers.gateway import PortMapper, default_route_v4, default_route_v6, fetch
from meshcall.handshake.budget import Budget
from meshcall.portmap.grant import Gateway
from meshcall.portmap.http import RESPONSE_BYTES_MAX
from meshcall.portmap.mapper import Mapper
from tests.natlab.home import Home

ROUTES_V4 = """Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT
wlan0 00000000 {far} 0003 0 0 600 00000000 0 0 0
eth0 00000000 {near} 0003 0 0 100 00000000 0 0 0
eth0 {net} 00000000 0001 0 0 0 00FFFFFF 0 0 0
tun0 00000000 00000000 0001 0 0 0 00000000 0 0 0
"""


def word(host: str) -> str:
    """An address as the kernel of this machine prints it."""
    packed = bytes(int(part) for part in host.split("."))
    return f"{int.from_bytes(packed, sys.byteorder):08X}"


def test_the_default_route_with_the_least_metric() -> None:
    text = ROUTES_V4.format(far=word("10.0.0.1"), near=word("192.168.1.1"), net=word("192.168.1.0"))
    assert default_route_v4(text) == ("eth0", bytes((192, 168, 1, 1)))
    for nothing in ("", "x", "a\nb c\n", text.replace("0003", "0001"), "h\n" + "z " * 11):
        assert default_route_v4(nothing) is None


def test_the_default_route_of_ipv6() -> None:
    zero, via = "0" * 32, "fe80" + "0" * 27 + "1"
    line = f"{zero} 00 {zero} 00 {via} 00000400 00000001 00000000 00000003 eth0\n"
    lo = f"{zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200 lo\n"
    assert default_route_v6(lo + line) == ("eth0", bytes.fromhex(via))
    for nothing in ("", lo, "zz\n", line.replace(" 00000003 ", " 00000001 ")):
        assert default_route_v6(nothing) is None


async def test_offline_means_that_nothing_is_even_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    def looked(family: int) -> None:
        raise AssertionError("asked for a gateway")

    mapper = PortMapper(40_123, secret=bytes(16), rng=Random(1), find=looked)
    with trio.fail_after(1):
        await mapper.run()
        assert [event async for event in mapper.events] == []
    assert mapper.mappings == ()


async def test_no_gateway_no_traffic_and_a_quick_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHCALL_OFFLINE", "0")
    monkeypatch.setattr(gateway.socket, "socket", None)
    mapper = PortMapper(40_123, secret=bytes(16), rng=Random(1), find=lambda family: None)
    with trio.move_on_after(0.05):
        await mapper.run()
    assert mapper.mappings == ()


@contextlib.asynccontextmanager
async def page(*pieces: bytes, pause: float = 0.0):  # type: ignore[no-untyped-def]
    """A server on loopback that sends these pieces, the last one for ever where it is all there is to `pause`."""

    async def handle(stream: trio.SocketStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await stream.receive_some(4096)
            for piece in pieces:
                await stream.send_all(piece)
            while pause:
                await trio.sleep(pause)
                await stream.send_all(b"x")

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, handle, 0, host="127.0.0.1"))
        yield endpoint("127.0.0.1", listeners[0].socket.getsockname()[1])
        nursery.cancel_scope.cancel()


async def test_fetch_stops_at_the_stated_length() -> None:
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab"
    async with page(whole, pause=5) as where:
        with trio.fail_after(2):
            assert await fetch(where, b"GET") == whole


async def test_fetch_does_not_wait_for_one_who_drips() -> None:
    async with page(b"HTTP/1.1 200 OK\r\n\r\n", pause=0.01) as where:
        with trio.fail_after(2):
            assert await fetch(where, b"GET", seconds=0.2) == "http too slow"


async def test_fetch_does_not_look_at_every_drop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look reads all that came so far: in bytes sent one by one that would be a hundred times the work."""
    looks: list[int] = []
    monkeypatch.setattr(gateway, "is_whole", lambda data: looks.append(len(data)))
    async with page(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", pause=0.0005) as where:
        assert await fetch(where, b"GET", seconds=0.5) == "http too slow"
    assert len(looks) <= 0.5 / gateway.READ_PAUSE_SECONDS + 1


async def test_fetch_without_a_file_to_spare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway.trio.socket, "socket", no_files)
    assert await fetch(endpoint("127.0.0.1", 1024), b"GET") == "http no connection"


def no_files(*_: object) -> None:
    raise OSError(errno.EMFILE, "too many open files")


async def test_without_a_file_to_spare_the_node_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway.socket, "socket", no_files)
    mapper = Mapper(40_123, secret=bytes(16), rng=Random(1))
    gateway._Family(cast(PortMapper, None), 4, mapper).set_route((Gateway(bytes((127, 0, 0, 1)), bytes(4)), "lo"))
    assert mapper.counters["pcp EMFILE"] == mapper.counters["ssdp EMFILE"] == mapper.counters["announce EMFILE"] == 1


class Heard:
    """A mapper that writes down what it was given."""

    def __init__(self) -> None:
        self.counters: Counter[str] = Counter()
        self.got: list[str] = []

    def receive(self, now: float, source: Endpoint, data: bytes) -> None:
        self.got.append("answer")

    def announced(self, now: float, source: Endpoint, data: bytes) -> None:
        self.got.append("announcement")


class Flooded:
    """A socket with so many datagrams of the gateway's port 5351."""

    def __init__(self, count: int) -> None:
        self.count = count

    def recvfrom(self, size: int) -> tuple[bytes, tuple[str, int]]:
        if not self.count:
            raise BlockingIOError
        self.count -= 1
        return b"x", ("192.168.1.1", 5351)


async def test_answers_come_by_the_socket_that_asked_and_no_other() -> None:
    heard, budget = Heard(), Budget(trio.current_time(), 1000, 1000)
    family = gateway._Family(cast(PortMapper, None), 4, cast(Mapper, heard))
    for name in ("pcp", "announce", "ssdp"):
        assert family._take_datagrams(name, cast(socket.socket, Flooded(1)), budget)
    assert heard.got == ["answer", "announcement"]
    assert heard.counters["wrong source"] == 1, "everybody knows the port from which was searched"


async def test_a_flood_on_the_local_network_is_read_no_faster_than_the_limit() -> None:
    heard, flood = Heard(), Flooded(100_000)
    family = gateway._Family(cast(PortMapper, None), 4, cast(Mapper, heard))
    budget = Budget(trio.current_time(), gateway.DATAGRAMS_PER_SECOND, gateway.DATAGRAMS_PER_SECOND)
    began = trio.current_time()
    while family._take_datagrams("announce", cast(socket.socket, flood), budget):
        assert len(heard.got) < 10_000
    assert len(heard.got) <= gateway.DATAGRAMS_PER_SECOND * (1 + trio.current_time() - began)


async def test_fetch_takes_no_more_than_it_said() -> None:
    async with page(b"HTTP/1.1 200 OK\r\n\r\n", b"<" * (RESPONSE_BYTES_MAX * 4)) as where:
        with trio.fail_after(2):
            assert await fetch(where, b"GET") == "http too long"


async def test_fetch_from_nobody_or_from_one_who_says_nothing() -> None:
    async with page() as where:
        assert await fetch(where, b"GET") == "http empty"
    with trio.fail_after(2):
        assert await fetch(where, b"GET") == "http no connection"


@pytest.mark.parametrize("protocol", ["pcp", "nat-pmp", "upnp"])
def test_a_port_is_mapped_and_given_back(home: Home, protocol: str) -> None:
    fake = home.start_gateway(speaks=[protocol])
    host = home.start_host()
    assert host.line() == ["Mapped", "203.0.113.7:40123", protocol]
    assert fake.line()[:3] == ["mapped", protocol, "40123"]
    host.end()
    assert host.line() == ["Unmapped", "203.0.113.7:40123", "stopped"]
    end = host.line()
    assert end[:2] == ["End", 0]
    assert end[2]["deleted"] == 1
    assert fake.line() == ["deleted", protocol, "40123"]


def test_a_restarted_gateway_is_heard_of_and_asked_again(home: Home) -> None:
    fake = home.start_gateway(speaks=["pcp"])
    host = home.start_host()
    assert host.line()[0] == "Mapped"
    assert fake.line()[0] == "mapped"
    time.sleep(3)  # its epoch has to be seen to go back
    fake.say("restart")
    assert fake.line()[:2] == ["mapped", "pcp"]


def test_a_host_that_changes_networks_asks_the_new_gateway(home: Home) -> None:
    home.start_gateway(speaks=["pcp"])
    home.ip("-n", home.gateway, "addr", "add", "10.9.0.1/24", "dev", "lan0")
    home.start_gateway("10.9.0.1", speaks=["nat-pmp"], outside="198.51.100.9")
    host = home.start_host()
    assert host.line() == ["Mapped", "203.0.113.7:40123", "pcp"]
    home.ip("-n", home.host, "addr", "flush", "dev", "lan0")
    home.ip("-n", home.host, "addr", "add", "10.9.0.2/24", "dev", "lan0")
    home.ip("-n", home.host, "route", "add", "default", "via", "10.9.0.1")
    host.say("change")
    assert host.line() == ["Unmapped", "203.0.113.7:40123", "network changed"]
    assert host.line() == ["Mapped", "198.51.100.9:40123", "nat-pmp"]


def test_a_gateway_that_speaks_nothing(home: Home) -> None:
    host = home.start_host()
    assert host.line() == ["Unmapped", None, "upnp no answer"]  # 5351 is closed: at once, and UPnP is silent
    host.end()
    assert host.line()[:2] == ["End", 0]


def test_a_pinhole_for_ipv6(home: Home) -> None:
    try:
        home.with_ipv6()
    except subprocess.CalledProcessError:
        pytest.skip("no IPv6 in namespaces here")
    fake = home.start_gateway("::", speaks=["pcp"], outside="2001:db8:77::2")
    host = home.start_host("6")
    assert host.line() == ["Mapped", "[2001:db8:77::2]:40123", "pcp"]
    assert fake.line()[:2] == ["mapped", "pcp"]
    host.end()
    assert host.line()[0] == "Unmapped"
    assert fake.line()[0] == "deleted"


@pytest.mark.parametrize(("evil", "reason"), [("laughs", "xml with dtd"), ("huge", "http too long")])
def test_a_gateway_with_evil_pages(home: Home, evil: str, reason: str) -> None:
    fake = home.start_gateway(speaks=["upnp"], evil=evil)
    host = home.start_host()
    assert host.line() == ["Unmapped", None, reason]
    host.end()
    assert host.line()[:2] == ["End", 0]
    fake.end()
