"""For which sockets the daemon asks its gateway, and for which it does not."""

from __future__ import annotations

import pytest

from meshcall.core import endpoint
from meshcall.daemon import mapping
from meshcall.daemon.mapping import PortMapping
from meshcall.drivers.gateway import Route
from meshcall.portmap.grant import Gateway

LOCAL = bytes((192, 168, 77, 2))
ROUTE: Route = Gateway(bytes((192, 168, 77, 1)), LOCAL), "lan0"


def find(family: int) -> Route | None:
    return ROUTE if family == 4 else None


def test_offline_switched_off_or_on_loopback_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    everywhere = [endpoint("0.0.0.0", 40_123)]
    assert PortMapping(everywhere, bytes(32), wanted=True).off == mapping.OFFLINE
    monkeypatch.setenv("MESHCALL_OFFLINE", "0")
    assert PortMapping(everywhere, bytes(32), wanted=False).off == mapping.SWITCHED_OFF
    only_here = PortMapping([endpoint("127.0.0.1", 40_123)], bytes(32), wanted=True)
    assert only_here.off == mapping.LOOPBACK_ONLY
    assert only_here.status(0.0) == {"on": False, "off_because": mapping.LOOPBACK_ONLY, "families": []}
    assert only_here.endpoints == ()


@pytest.mark.parametrize(("host", "is_asked"), [("0.0.0.0", True), ("192.168.77.2", True), ("10.9.0.2", False)])
def test_a_bound_address_is_mapped_where_the_way_to_the_gateway_begins(
    monkeypatch: pytest.MonkeyPatch, host: str, is_asked: bool
) -> None:
    monkeypatch.setenv("MESHCALL_OFFLINE", "0")
    made = PortMapping([endpoint(host, 40_123)], bytes(32), wanted=True, find=find)
    assert (made._gateway(4) is not None) == is_asked
    assert made.status(0.0)["families"][0]["reason"] == "no gateway", "nobody was asked yet"
