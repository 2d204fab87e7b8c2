"""What holds for every test: nothing leaves this machine, and no name is ever resolved.

`MESHCALL_OFFLINE=1` is set before anything of meshcall is imported.  A guard watches the socket
calls of the test process (children run with the same variable) and fails the test that speaks to
any address but loopback.  Tests that run inside a network namespace of their own, without a route
out, set `MESHCALL_NAMESPACE=1` there.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.natlab.home import Home
from tests.natlab.lab import missing

os.environ["MESHCALL_OFFLINE"] = "1"

# How long an example takes says more about what else runs on the machine than about the code.
settings.register_profile("meshcall", deadline=None)
settings.load_profile("meshcall")

_escapes: list[str] = []


class LeftTheMachine(RuntimeError):
    """A test wanted to speak to an address that is not loopback."""


def _is_local(address: object) -> bool:
    if not isinstance(address, tuple):  # a path: AF_UNIX
        return True
    host = address[0]
    if host in ("", "localhost", None):
        return True
    try:
        ip = ipaddress.ip_address(str(host).partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    return ip.is_loopback or ip.is_unspecified


def _watch(event: str, args: tuple[object, ...]) -> None:
    if not event.startswith("socket.") or os.environ.get("MESHCALL_NAMESPACE"):
        return
    if event in ("socket.sendto", "socket.sendmsg", "socket.connect"):
        sock, address = args[0], args[1]
        if address is None or _is_local(address):
            return
        assert isinstance(sock, socket.SocketType)
        if sock.family not in (socket.AF_INET, socket.AF_INET6):
            return
        if event == "socket.connect" and sock.type == socket.SOCK_DGRAM:
            return  # sends nothing; it asks the kernel for a source address
        what = f"{event} to {address!r}"
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        host = args[0].decode(errors="replace") if isinstance(args[0], bytes) else args[0]
        if host is None or _is_numeric(str(host)) or host == "localhost":
            return
        what = f"{event} of {host!r}"
    else:
        return
    _escapes.append(what)
    raise LeftTheMachine(what)


def _is_numeric(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host == ""
    return True


sys.addaudithook(_watch)


@pytest.fixture
def home() -> Iterator[Home]:
    """A gateway and a host behind it in network namespaces, or a clear word why there are none."""
    if lacks := missing(routers=False):
        pytest.skip(f"a home in network namespaces {lacks}")
    with Home() as made:
        yield made


@pytest.fixture(autouse=True)
def stays_on_this_machine() -> Iterator[None]:
    """Fail a test that tried to leave, even where the code under test swallowed the refusal."""
    _escapes.clear()
    yield
    tried, _escapes[:] = list(_escapes), []
    if tried:
        pytest.fail(f"the test tried to leave this machine: {'; '.join(tried[:3])}")
