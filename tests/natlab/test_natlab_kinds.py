"""Every kind of access in the lab is what its name says, classified from inside as RFC 5780 does."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.natlab.classify import classify, expected, occupy
from tests.natlab.lab import KINDS, Lab

pytestmark = pytest.mark.xdist_group("natlab")


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_as_declared(nat_lab: Lab, kind: str) -> None:
    found = classify(nat_lab, "a-" + kind)
    assert found == {**found, **expected(kind)}


def test_an_early_packet_spoils_the_port_where_input_is_open(nat_lab: Lab) -> None:
    assert classify(nat_lab, "a-linux")["early"] == "same"
    assert classify(nat_lab, "open")["early"] == "changed"


def test_linux_gives_another_port_where_a_neighbour_has_taken_it(nat_lab: Lab) -> None:
    occupy(nat_lab, "lan1", 40000)
    assert classify(nat_lab, "lan2", 40000)["mapping"] == "apdm"
    occupy(nat_lab, "hair1", 40000)
    assert classify(nat_lab, "hair2", 40000)["mapping"] == "eim"


@pytest.mark.parametrize(("host", "hairpin"), [("cg1", "yes"), ("cn1", "no")])
def test_carriers_hairpin_or_not(nat_lab: Lab, host: str, hairpin: str) -> None:
    assert classify(nat_lab, host)["hairpin"] == hairpin


def test_neighbours_meet_on_their_lan(nat_lab: Lab) -> None:
    ping(nat_lab, "lan1", nat_lab.hosts["lan2"])
    ping(nat_lab, "hair1", nat_lab.hosts["hair2"])


def test_a_host_moves_and_a_router_forgets(nat_lab: Lab) -> None:
    nat_lab.router("m1-r", "portrestricted", "203.0.113.91", inside="10.6.0.0/24")
    nat_lab.router("m2-r", "linux", "203.0.113.92", inside="10.7.0.0/24")
    nat_lab.host("m", "m1-r")
    assert classify(nat_lab, "m")["ports"] == "random"
    nat_lab.rebind("m1-r")
    nat_lab.move("m", "m2-r")
    assert nat_lab.hosts["m"] == "10.7.0.10"
    assert classify(nat_lab, "m")["ports"] == "preserve"
    nat_lab.rebind("m2-r", "203.0.113.93")
    assert classify(nat_lab, "m")["mapping"] == "eim"


def ping(lab: Lab, host: str, address: str) -> None:
    """One datagram from host to host, unanswered; the send must find a route."""
    send = f"import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ({address!r}, 9))"
    shown = lab.run(host, [sys.executable, "-c", send], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert shown.returncode == 0, shown.stderr
