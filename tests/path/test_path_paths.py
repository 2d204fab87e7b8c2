"""Paths as values."""

from __future__ import annotations

import pytest

from meshcall.core import Endpoint, parse_endpoint
from meshcall.path.paths import direct, endpoint_of, is_relayed, is_tcp, relay_id, relayed, show_path

V4 = parse_endpoint("192.0.2.1:6881")
V6 = parse_endpoint("[2001:db8::1]:6881")
ID = bytes(range(8))


@pytest.mark.parametrize("where", [V4, V6])
def test_direct(where: Endpoint) -> None:
    path = direct(where)
    assert path == b"\x00" + where
    assert endpoint_of(path) == where
    assert relay_id(path) is None
    assert not is_relayed(path)
    assert not is_tcp(path)


@pytest.mark.parametrize("where", [V4, V6])
@pytest.mark.parametrize("tcp", [False, True])
def test_relayed(where: Endpoint, tcp: bool) -> None:
    path = relayed(where, ID, tcp)
    assert path == (b"\x02" if tcp else b"\x01") + where + ID
    assert endpoint_of(path) == where
    assert relay_id(path) == ID
    assert is_relayed(path)
    assert is_tcp(path) == tcp


def test_shown() -> None:
    assert show_path(direct(V4)) == "direct 192.0.2.1:6881"
    assert show_path(relayed(V4, ID)) == "relay 192.0.2.1:6881"
    assert show_path(relayed(V6, ID, tcp=True)) == "relay [2001:db8::1]:6881 over TCP"


def test_programming_mistakes_are_loud() -> None:
    with pytest.raises(ValueError, match="6 or 18"):
        direct(Endpoint(b"12345"))
    with pytest.raises(ValueError, match="8"):
        relayed(V4, b"short")
