"""Candidates: at which addresses a device may be reached, in which order, and who may hear of them.

Gathering takes values (interfaces, sightings, port mappings, leases) and gives values.  Nothing is
asked here, and nothing is believed: an address of the peer's is only a place to send a few probes.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from enum import Enum

from meshcall.core import ENDPOINT_V4_BYTES, Endpoint
from meshcall.endpoints import is_loopback, is_nonsense, is_private, may_send
from meshcall.path.paths import Path, direct, relayed
from meshcall.wire.path import CANDIDATES_MAX, Candidate, Kind

HOSTS_MAX = 6
"""Interface addresses told; a machine with containers has dozens."""

_ORDER = {Kind.HOST: 0, Kind.MAPPED: 1, Kind.OBSERVED: 2, Kind.RELAY_UDP: 3, Kind.RELAY_TCP: 4}


class Trust(Enum):
    """How far the peer is trusted with addresses."""

    NONE = "none"
    """Not accepted yet: it hears of relays only, and no packet leaves that would show an address."""
    FULL = "full"
    """The call was accepted, the contact is trusted, or the user chose so."""
    RELAY_ONLY = "relay only"
    """The user never wants addresses shown to this contact."""

    @property
    def tells(self) -> bool:
        """Whether addresses may be told, and packets sent that show them."""
        return self is Trust.FULL


def gather(
    *,
    hosts: Iterable[Endpoint] = (),
    observed: Iterable[Endpoint] = (),
    mapped: Iterable[Endpoint] = (),
    leases: Iterable[Candidate] = (),
) -> tuple[Candidate, ...]:
    """All candidates of this device in the order of preference, at most `CANDIDATES_MAX`.

    `hosts` are interface addresses with the port of our socket, `observed` what others see, `mapped`
    what a router forwards to us.  What nobody else could reach is left out; so is what is known twice,
    but for its best kind.
    """
    found: dict[Endpoint, Kind] = {}
    for kind, endpoints in ((Kind.OBSERVED, observed), (Kind.MAPPED, mapped), (Kind.HOST, hosts)):
        for endpoint in endpoints:
            if not is_nonsense(endpoint):
                found[endpoint] = kind
    listed = [Candidate(kind, endpoint) for endpoint, kind in found.items()]
    listed.sort(key=_preference)
    kept = [candidate for candidate in listed if candidate.kind is Kind.HOST][:HOSTS_MAX]
    kept += [candidate for candidate in listed if candidate.kind is not Kind.HOST]
    relays = sorted(dict.fromkeys(leases), key=lambda lease: _ORDER[lease.kind])
    places = CANDIDATES_MAX - min(len(relays), CANDIDATES_MAX // 4)  # relays are the ones that always work
    kept = kept[:places]
    return tuple(kept + relays[: CANDIDATES_MAX - len(kept)])


def tellable(candidates: Iterable[Candidate], trust: Trust) -> tuple[Candidate, ...]:
    """Those that the peer may hear of: before acceptance none but relays."""
    return tuple(each for each in candidates if trust.tells or each.kind >= Kind.RELAY_UDP)


def path_to(candidate: Candidate) -> Path:
    """The path to a candidate of the peer's."""
    if candidate.kind >= Kind.RELAY_UDP:
        return relayed(candidate.endpoint, candidate.lease_id, candidate.kind is Kind.RELAY_TCP)
    return direct(candidate.endpoint)


def may_probe(endpoint: Endpoint, local: Iterable[Endpoint], same_network: bool) -> bool:
    """Whether a probe may go to an endpoint that the peer named.

    `local` are our own interface addresses; `same_network` says that we and the peer are seen with the
    same outer address.  A private address is somebody else's in every other network than its own, so
    it is tried only where it may be ours too: behind the same NAT, or in the /16 (IPv6: /48) of one of
    our own addresses.  Loopback: only where we have no other address that the peer could mean.
    """
    if not may_send(endpoint):
        return False
    mine = [each for each in local if len(each) == len(endpoint)]
    if not mine and len(endpoint) != ENDPOINT_V4_BYTES:
        return False  # we have no IPv6 here
    if is_loopback(endpoint):
        return bool(mine) and all(map(is_loopback, mine))
    if not is_private(endpoint):
        return True
    near = 2 if len(endpoint) == ENDPOINT_V4_BYTES else 6
    return same_network or any(each[:near] == endpoint[:near] for each in mine)


def may_connect(endpoint: Endpoint, local: Iterable[Endpoint]) -> bool:
    """Whether a TCP connection may go to a relay that a peer or its record named.

    Not to other people's services, and not to this machine, where it has any address (`local`) that others
    could mean: what listens on loopback trusts whoever connects.
    """
    return may_send(endpoint) and (not is_loopback(endpoint) or all(map(is_loopback, local)))


def relays_named(peer: Iterable[Candidate], local: Iterable[Candidate], kinds: Container[Kind]) -> list[Path]:
    """The paths by those relays of these kinds that the peer told of, and that may be sent to."""
    own = [each.endpoint for each in local if each.kind is Kind.HOST]
    return [
        path_to(each)
        for each in peer
        if each.kind in kinds
        and (may_connect(each.endpoint, own) if each.kind is Kind.RELAY_TCP else may_send(each.endpoint))
    ]


def seen_alike(ours: Iterable[Candidate], theirs: Iterable[Candidate]) -> bool:
    """Whether others see us and the peer with one outer address: we are behind the same NAT."""
    mine = {each.endpoint[:-2] for each in ours if each.kind is Kind.OBSERVED}
    return any(each.endpoint[:-2] in mine for each in theirs if each.kind is Kind.OBSERVED)


def _preference(candidate: Candidate) -> tuple[int, bool, Endpoint]:
    # IPv6 first within a kind: no translation stands in its way
    return _ORDER[candidate.kind], len(candidate.endpoint) == ENDPOINT_V4_BYTES, candidate.endpoint
