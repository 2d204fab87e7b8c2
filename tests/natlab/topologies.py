"""Ready topologies of the lab: public servers, homes of every kind, and what roaming needs."""

from __future__ import annotations

from collections.abc import Iterable

from tests.natlab.lab import KINDS, Lab

STUN = ("203.0.113.2", "198.51.100.2")
RELAY = "203.0.113.8"


def services(lab: Lab) -> None:
    """Public servers: two for classification, two with four addresses each for DHT nodes, one relay.

    Their links are short: an eighth of the homes' delay.
    """
    near = {"delay": lab.link_options["delay"] / 8, "jitter": 0.0, "loss": 0.0}
    for name, address in zip(("stun1", "stun2"), STUN, strict=True):
        lab.public(name, address, **near)
    for name, network in (("dht1", "203.0.113"), ("dht2", "198.51.100")):
        lab.public(name, *(f"{network}.{n}" for n in (4, 5, 6, 7)), **near)
    lab.public("relay", RELAY, **near)


def homes(lab: Lab, kinds: Iterable[str] = tuple(KINDS), sides: str = "ab") -> None:
    """Homes of each kind: a-KIND (dials) and b-KIND (is dialled), behind routers of their own."""
    for n, kind in enumerate(kinds):
        if "a" in sides:
            lab.home("a-" + kind, kind, f"203.0.113.{20 + n}", inside=f"10.1.{n}.0/24")
        if "b" in sides:
            lab.home("b-" + kind, kind, f"198.51.100.{20 + n}", inside=f"10.2.{n}.0/24")


def neighbours(lab: Lab) -> None:
    """Two hosts on one LAN: hair1, hair2 (the exact NAT), lan1, lan2 (plain Linux)."""
    for name, kind, wan in (("hair", "portrestricted", "203.0.113.80"), ("lan", "linux", "203.0.113.81")):
        lab.router(name + "-r", kind, wan, inside="10.3.0.0/24")
        lab.host(name + "1", name + "-r")
        lab.host(name + "2", name + "-r")


def carriers(lab: Lab) -> None:
    """Two homes behind one carrier: cg1, cg2 (which hairpins), cn1, cn2 (which does not)."""
    for name, kind, wan in (("cg", "portrestricted", "203.0.113.82"), ("cn", "linux", "203.0.113.83")):
        lab.router(name + "-c", kind, wan, inside="100.64.0.0/10")
        for n in "12":
            router = f"{name}{n}-r"
            lab.router(
                router,
                "linux",
                f"100.64.8.{n}",
                up=name + "-c",
                inside=f"10.4.{n}.0/24",
                delay=0.0,
                jitter=0.0,
                loss=0.0,
            )
            lab.host(name + n, router)


def matrix(lab: Lab) -> None:
    """All of the above."""
    services(lab)
    homes(lab)
    neighbours(lab)
    carriers(lab)


def roam(lab: Lab) -> None:
    """A host `m` on router r1 that can be moved to r2 and back; a public host `p`."""
    services(lab)
    lab.router("r1", "portrestricted", "203.0.113.20", inside="10.1.0.0/24")
    lab.router("r2", "symmetric", "198.51.100.20", inside="10.2.0.0/24")
    lab.host("m", "r1")
    lab.public("p", "198.51.100.30")
