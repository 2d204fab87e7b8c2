"""Every way that is more than an endpoint comes apart again, and nothing else does."""

from __future__ import annotations

from meshcall.core import Endpoint, endpoint
from meshcall.peers.ways import SocketKey, by_socket, take_apart, with_low_ttl
from meshcall.relay.places import tcp_place

PLACES = (endpoint("203.0.113.8", 6881), endpoint("2001:db8::8", 6881))
KEY = SocketKey(7, 256)


def test_each_way_comes_apart_again() -> None:
    for where in PLACES:
        assert take_apart(with_low_ttl(where)) == (where, None, True)
        assert take_apart(by_socket(where, KEY)) == (where, KEY, False)
        assert take_apart(by_socket(where, KEY, low_ttl=True)) == (where, KEY, True)


def test_what_is_no_such_way() -> None:
    for where in PLACES:
        assert take_apart(where) is None
        assert take_apart(Endpoint(tcp_place(where, 3))) is None
    assert take_apart(Endpoint(b"")) is None
