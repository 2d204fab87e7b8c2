"""How the people of a world are connected: public, behind a firewall, behind one NAT or two.

The kinds are those of the project's NAT laboratory, so that its figures and these can be laid side by side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from meshcall.core import Endpoint
from meshcall.sim.nat import ADDRESS, ADDRESS_AND_PORT, INDEPENDENT, Expiry, Nat, NatKind

if TYPE_CHECKING:
    from random import Random

    from meshcall.sim.geography import Line
    from meshcall.sim.host import Host
    from meshcall.sim.world import World

INSIDE = bytes([192, 168, 1])
BETWEEN = bytes([100, 64, 7, 7])
"""A home's address in its carrier's network (RFC 6598)."""


class Layer(NamedTuple):
    """One box."""

    kind: NatKind
    hairpin: bool = True


_LINUX = Layer(NatKind(INDEPENDENT, ADDRESS_AND_PORT), hairpin=False)
_SYMMETRIC = Layer(NatKind(ADDRESS_AND_PORT, ADDRESS_AND_PORT, "random"), hairpin=False)
_PORT_RESTRICTED = Layer(NatKind(INDEPENDENT, ADDRESS_AND_PORT, "random"))

ACCESS_KINDS: dict[str, tuple[Layer, ...]] = {
    "public": (),
    "firewall": (_LINUX,),
    "full cone": (Layer(NatKind(INDEPENDENT, INDEPENDENT, "random")),),
    "restricted": (Layer(NatKind(INDEPENDENT, ADDRESS, "random")),),
    "port restricted": (_PORT_RESTRICTED,),
    "linux": (_LINUX,),
    "symmetric": (_SYMMETRIC,),
    "sequential": (Layer(NatKind(ADDRESS_AND_PORT, ADDRESS_AND_PORT, "sequential")),),
    "carrier": (_LINUX, _PORT_RESTRICTED),
    "carrier symmetric": (_LINUX, _SYMMETRIC),
    "tcp only": (_LINUX,),
}
"""Boxes from the inside out.  A firewall is a box with the address of the one host behind it, so it translates nothing.

linux: port restricted, keeps the port; symmetric and sequential: another outside port for each destination;
tcp only: a network that bars UDP.
"""


BARS_UDP = frozenset({"tcp only"})


class Place(NamedTuple):
    """Where somebody is connected."""

    address: bytes
    """Of the host itself, 4 bytes."""
    line: Line
    nat: Nat | Carrier | None
    outer: bytes
    """The address that the internet sees."""
    bars_udp: bool = False
    """Only TCP connections leave here."""

    def forget(self) -> None:
        """All boxes here lose their mappings."""
        if self.nat is not None:
            self.nat.forget()


class _Inner:
    """What a carrier's box takes for a host: a home's outside endpoint."""

    __slots__ = ("endpoint", "home")

    def __init__(self, endpoint: Endpoint, home: Nat) -> None:
        self.endpoint = endpoint
        self.home = home

    def arrive(self, now: float, source: Endpoint, dest: Endpoint, data: bytes) -> None:
        """On to the home's box."""
        self.home.arrive(now, source, self.endpoint, data)


class Carrier:
    """A home's box behind its carrier's."""

    __slots__ = ("home", "outer")

    def __init__(self, home: Nat, outer: Nat) -> None:
        self.home = home
        self.outer = outer

    def outbound(self, now: float, host: Host, dest: Endpoint) -> Endpoint:
        """The source address that the world sees."""
        return self.outer.outbound(now, _Inner(self.home.outbound(now, host, dest), self.home), dest)

    def forget(self) -> None:
        """Both boxes lose all mappings."""
        self.home.forget()
        self.outer.forget()


def new_place(world: World, kind: str, rng: Random, expiry: Expiry) -> Place:
    """A fresh place of this kind somewhere in the world."""
    address, layers = world.new_address(), ACCESS_KINDS[kind]
    line = world.new_line("mobile" if kind.startswith("carrier") and world.settings.model != "flat" else None)
    if not layers:
        return Place(address, line, None, address)
    outer = Nat(address, line, layers[-1].kind, rng, expiry, layers[-1].hairpin)
    world.network.boxes[address] = outer
    inside = address if kind == "firewall" else INSIDE + bytes([rng.randrange(2, 255)])
    if len(layers) == 1:
        return Place(inside, line, outer, address, kind in BARS_UDP)
    home = Nat(BETWEEN, line, layers[0].kind, rng, expiry, layers[0].hairpin)
    return Place(inside, line, Carrier(home, outer), address)


def leave(world: World, place: Place) -> None:
    """Nobody is connected there any more."""
    place.forget()
    world.network.boxes.pop(place.outer, None)
