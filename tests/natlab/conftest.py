"""The lab as a fixture: one for all tests of this folder, or a clear word why there is none."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.natlab.classify import start_servers
from tests.natlab.lab import Lab, missing
from tests.natlab.topologies import carriers, homes, neighbours, services


@pytest.fixture(scope="session")
def nat_lab() -> Iterator[Lab]:
    """Homes of every kind (a-KIND), neighbours and carriers, without delay; classification servers run."""
    lacks = missing()
    if lacks:
        pytest.skip(f"the NAT lab {lacks}")
    with Lab(prefix=f"t{os.getpid()}-") as lab:
        services(lab)
        homes(lab, sides="a")
        neighbours(lab)
        carriers(lab)
        lab.router("open-r", "linux", "203.0.113.90", inside="10.5.0.0/24", unsolicited="accept")
        lab.host("open", "open-r")
        start_servers(lab)
        yield lab
