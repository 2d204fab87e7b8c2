"""Real daemons behind real NATs: who reaches whom, and by which kind of path.  Times are not asserted."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.natlab.lab import Lab, missing
from tests.natlab.people import People
from tests.natlab.topologies import homes, neighbours, services

pytestmark = pytest.mark.xdist_group("natlab")

NEIGHBOURS = (("hair1", "hair2"), ("lan1", "lan2"))
KINDS = ("public", "portrestricted", "symmetric", "symseq", "udpblocked")


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Iterator[People]:
    """One person behind each of `KINDS` on either side, all contacts of each other."""
    lacks = missing()
    if lacks:
        pytest.skip(f"the NAT lab {lacks}")
    with Lab(0.02, prefix=f"p{os.getpid()}-") as lab:
        services(lab)
        homes(lab, KINDS)
        neighbours(lab)
        found = People(lab, tmp_path_factory.mktemp("people"))
        found.infrastructure()
        homes_of_people = [side + kind for side in ("a-", "b-") for kind in KINDS]
        found.people([*homes_of_people, *(host for pair in NEIGHBOURS for host in pair)])
        yield found


@pytest.mark.parametrize(
    ("one", "two", "last"),
    [
        ("public", "public", "direct"),
        ("portrestricted", "portrestricted", "direct"),
        ("public", "symmetric", "direct"),
        ("symseq", "portrestricted", "direct"),
        ("portrestricted", "symseq", "direct"),
        ("symmetric", "symmetric", "relay"),
    ],
)
def test_contacts_link_through_the_relay_and_go_direct_where_it_is_possible(
    people: People, one: str, two: str, last: str
) -> None:
    said = people.ping("a-" + one, "b-" + two)
    assert said.get("answered"), said
    assert said["first_path"].startswith("relay")
    assert said["last_path"].startswith(last)


@pytest.mark.parametrize(("one", "two"), [pair[::step] for pair in NEIGHBOURS for step in (1, -1)])
def test_contacts_on_one_local_network_link_there_at_once(people: People, one: str, two: str) -> None:
    said = people.ping(one, two, 10)
    assert said.get("answered") == 10, said
    assert said["first_path"] == f"direct {people.lab.hosts[two]}:{people.port(two)}"
    assert said["last_path"].startswith("direct"), "that, or by the hairpin of their router"
    print(f"direct after {(said['time_line']['direct'] - said['time_line']['first_packet']) * 1000:.0f} ms")


def test_on_a_local_network_too_who_wants_no_direct_path_gets_none(people: People) -> None:
    said = people.ping("lan1", "lan2", 10, 0.05, "--relayed")
    assert said.get("answered") == 10, said
    assert said["first_path"].startswith("relay")
    assert said["last_path"].startswith("relay")


@pytest.mark.parametrize(
    ("caller", "callee"),
    [
        *(("a-udpblocked", "b-" + kind) for kind in ("public", "portrestricted", "symmetric", "udpblocked")),
        *(("a-" + kind, "b-udpblocked") for kind in ("public", "portrestricted", "symmetric")),
    ],
)
def test_where_udp_is_barred_the_way_is_a_relay_over_tcp(people: People, caller: str, callee: str) -> None:
    said = people.ping(caller, callee, 30)
    assert said.get("answered") == 30, said
    assert said["time_line"]["direct"] is None
    own = "relay 203.0.113.8:443 over TCP" if "udpblocked" in caller else "relay 203.0.113.8:443"
    assert said["first_path"] == said["last_path"] == own, "each end says how it reaches the relay itself"


def test_who_wants_no_direct_path_gets_none(people: People) -> None:
    said = people.ping("a-public", "b-portrestricted", 30, 0.05, "--relayed")
    assert said["answered"] == 30
    assert said["first_path"] == said["last_path"]
    assert said["last_path"].startswith("relay")
    assert said["time_line"]["direct"] is None
