"""The checks find what they are there for."""

from __future__ import annotations

from random import Random
from types import SimpleNamespace
from typing import Any

import bencode2
import pytest

from meshcall.dht.events import GetFinished, Report
from meshcall.dht.items import MutableItem, signing_buffer
from meshcall.sim.checks import ITEM_LIFE_SECONDS, Checks
from meshcall.sim.host import Host
from meshcall.sim.paper_suite import PaperSuite
from meshcall.sim.people import Job, People, Person
from meshcall.sim.tally import Tally
from tests.sim.small_world import START, Lab, PingPong

SUITE = PaperSuite(Random(1))
KEY = SUITE.expand(bytes(32))


def _item(seq: int, value: bytes = b"4:gold") -> MutableItem:
    return MutableItem(KEY.public, b"", seq, value, SUITE.sign(KEY, signing_buffer(b"", seq, value)))


class Scene:
    """A server and a client, and the checks on the line between them."""

    def __init__(self) -> None:
        self.lab, self.checks = Lab(), Checks()
        self.lab.network.tap = self.checks
        self.server, self.client = self.lab.host(PingPong()), self.lab.host(PingPong())
        for seq in (1, 2, 3):
            self.checks.signed(_item(seq))

    def say(self, host: Host, dest: Host, message: dict[bytes, Any]) -> None:
        host.core.say(dest.endpoint, bencode2.bencode(message))
        host.drain(self.lab.schedule.now)

    def serve(self, item: MutableItem) -> None:
        values = {
            b"id": b"i" * 20, b"k": item.public, b"seq": item.seq, b"sig": item.signature,
            b"v": bencode2.bdecode(item.value),
        }  # fmt: skip
        self.say(self.server, self.client, {b"t": b"aa", b"y": b"r", b"r": values})

    def put(self, item: MutableItem, answer: bytes | None, transaction: bytes = b"pp") -> None:
        arguments = {
            b"id": b"i" * 20, b"k": item.public, b"seq": item.seq, b"sig": item.signature, b"token": b"t",
            b"v": bencode2.bdecode(item.value),
        }  # fmt: skip
        self.say(self.client, self.server, {b"t": transaction, b"y": b"q", b"q": b"put", b"a": arguments})
        if answer == b"r":
            self.say(self.server, self.client, {b"t": transaction, b"y": b"r", b"r": {b"id": b"i" * 20}})
        elif answer == b"e":
            self.say(self.server, self.client, {b"t": transaction, b"y": b"e", b"e": [302, b"old"]})

    def violations(self) -> int:
        return self.checks.counts["violations"]


def test_an_honest_server_breaks_no_rule() -> None:
    scene = Scene()
    scene.put(_item(1), b"r")
    scene.serve(_item(1))
    scene.put(_item(2), b"r", b"qq")
    scene.serve(_item(2))
    scene.serve(_item(2))
    scene.put(_item(1), b"e", b"rr")
    scene.serve(_item(2))
    assert scene.violations() == 0
    assert scene.checks.counts["served"] == 4 and scene.checks.counts["acknowledged"] == 2
    assert scene.checks.watched == {}


def test_a_forged_item_is_found() -> None:
    scene = Scene()
    scene.serve(_item(2, b"4:lead"))
    assert scene.violations() == 1 and "nobody signed" in scene.checks.violations[0]
    scene.serve(_item(7))
    assert scene.violations() == 2


def test_an_older_item_than_was_served_is_found() -> None:
    scene = Scene()
    scene.serve(_item(2))
    scene.serve(_item(1))
    assert scene.violations() == 1 and "seq 1 after seq 2" in scene.checks.violations[0]


def test_an_older_item_than_was_acknowledged_is_found() -> None:
    scene = Scene()
    scene.put(_item(3), b"r")
    scene.serve(_item(2))
    assert scene.violations() == 1


def test_a_refused_or_unanswered_put_binds_nobody() -> None:
    scene = Scene()
    scene.put(_item(3), b"e")
    scene.put(_item(3), None, b"qq")
    scene.serve(_item(1))
    assert scene.violations() == 0


def test_a_restart_or_a_life_later_nothing_binds() -> None:
    scene = Scene()
    scene.serve(_item(3))
    scene.checks.gone(scene.server)
    scene.serve(_item(1))
    scene.lab.schedule.run(START + ITEM_LIFE_SECONDS + 1)
    scene.serve(_item(1))
    assert scene.violations() == 0


def test_what_look_ups_yield_is_judged() -> None:
    scene = Scene()
    scene.checks.yielded(START, scene.client, _item(2))
    assert scene.violations() == 0
    scene.checks.yielded(START, scene.client, _item(2, b"4:lead"))
    assert scene.violations() == 1
    assert not scene.checks.genuine(None)


@pytest.mark.parametrize(("calm", "violations"), [(True, 1), (False, 0)])
def test_a_look_up_that_a_disturbance_catches_is_excused(calm: bool, violations: int) -> None:
    scene = Scene()
    people: Any = SimpleNamespace(calm=calm, checks=scene.checks, tally=Tally())
    job = Job(Person(1, scene.server, KEY), 0.0, "before", 3, publishes=False, must=3)
    People._got(people, 5.0, scene.client, job, GetFinished(0, None, (), Report(5.0, 90, 3, 1)))
    assert scene.checks.counts["violations"] == violations
    assert [lookup.outcome for lookup in people.tally.lookups] == ["missing"]
