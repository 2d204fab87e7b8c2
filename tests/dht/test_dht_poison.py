"""Answers that name contacts which are not there, cannot be, or lead on for ever."""

from __future__ import annotations

from random import Random

import pytest

from meshcall.core import endpoint
from meshcall.dht.client import LOOKUP_REQUESTS_MAX
from meshcall.dht.events import GetFinished, PutFinished
from tests.dht.small_world import grown
from tests.dht.stranger import (
    ITEM,
    Stranger,
    contact,
    finish,
    looking,
    sent,
)


def test_contacts_that_cannot_be_are_neither_kept_nor_asked() -> None:
    node, known, _, asked = looking()
    impossible = [
        contact(b"\x01" * 20, endpoint(host, 6881))
        for host in ("10.0.0.1", "192.168.1.1", "127.0.0.1", "0.0.0.1", "224.0.0.9", "100.64.0.1", "169.254.1.1")
    ]
    impossible.append(b"\x02" * 20 + bytes([198, 51, 100, 1, 0, 0]))  # port 0
    impossible.append(contact(node.node_id(), endpoint("198.51.100.99", 6881)))
    for stranger, query in asked.values():
        stranger.answer(node, 3.1, query, nodes=b"".join(impossible), token=b"tok")
    finish(node)
    assert not {bytes(target) for target, _ in sent(node)} - {bytes(stranger.where) for stranger in known}
    assert {contact.endpoint for contact in node.tables[4].contacts()} == {stranger.where for stranger in known}


def test_thousands_of_contacts_are_bounded() -> None:
    """Every answer names as many contacts as fit, all nearer to the target: the look-up still ends, in bounds."""
    node, _, _, asked = looking()
    rng = Random(9)
    queue = list(asked.values())
    ids: dict[bytes, bytes] = {bytes(stranger.where): stranger.id for stranger, _ in queue}
    now, answered = 3.0, 0
    while queue and answered < 3000:
        stranger, query = queue.pop()
        invented = [
            (ITEM.target[:10] + rng.randbytes(10), endpoint(f"45.{rng.randrange(256)}.{rng.randrange(256)}.1", 6881))
            for _ in range(60)
        ]
        ids |= {bytes(where): node_id for node_id, where in invented}
        stranger.answer(node, now, query, nodes=b"".join(contact(*each) for each in invented), token=b"tok")
        answered += 1
        now += 0.01
        for where, data in sent(node):
            liar = Stranger("45.0.0.1", ids[bytes(where)])
            liar.where = where
            queue.append((liar, data))
    event = finish(node, now)
    assert isinstance(event, GetFinished)
    assert answered < 500
    assert node.tables[4].size <= 2000


@pytest.mark.parametrize("liars", [1, 8, 20])
def test_a_record_is_found_although_neighbours_name_invented_contacts(liars: int) -> None:
    """They are as near to the target as can be, and nobody is there."""
    world, places = grown(150, seed=5, warm=0)
    stored = world.item(b"bob", 3, b"5:there")
    assert isinstance(world.finish(places[3], world.nodes[places[3]].put(world.now, stored)), PutFinished)
    by_distance = sorted(
        places,
        key=lambda where: int.from_bytes(world.nodes[where].node_id(), "big") ^ int.from_bytes(stored.target, "big"),
    )
    rng = Random(liars)
    for number, liar in enumerate(by_distance[9 : 9 + liars]):
        invented = b"".join(
            stored.target[:18] + rng.randbytes(2) + endpoint(f"10.9.{n}.{number + 1}", 6881) for n in range(20)
        )
        server = world.nodes[liar].server
        server._near = lambda target, family, arguments, _lie=invented: {b"nodes": _lie}  # type: ignore[method-assign]
    asker = world.add(boot=by_distance[-1])  # knows nobody else yet
    event = world.finish(asker, world.nodes[asker].get_mutable(world.now, stored.public))
    assert isinstance(event, GetFinished)
    assert event.item == stored


def test_neighbours_that_always_name_a_nearer_one_do_not_hold_up_a_look_up() -> None:
    """Each answers as late as it can, and names one that is nearer still: on and on."""
    node, _, _, asked = looking()
    queue = list(asked.values())
    distance, now, answered = 2**100, 3.0, 0
    number = int.from_bytes(ITEM.target, "big")
    while not any(isinstance(event, GetFinished) for event in node.events):
        stranger, query = queue.pop(0)
        distance -= 1
        nearer = Stranger("45.1.2.3", (number ^ distance).to_bytes(20, "big"), port=1 + answered)
        stranger.answer(node, now, query, nodes=contact(nearer.id, nearer.where), token=b"tok")
        answered += 1
        for target, data in sent(node):
            queue += [(nearer, data)] if target == nearer.where else []
        assert answered < 1000
        now += 0.9
        assert now < 60
        node.wake(now)
        sent(node)
    assert answered < LOOKUP_REQUESTS_MAX
