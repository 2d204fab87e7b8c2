"""Which way the relay of a live node forwards, and that it is said once where the fast way is not there."""

from __future__ import annotations

import logging

import pytest
import trio
from msgspec.structs import replace

from meshcall.config import Config, Network, Relay
from meshcall.crypto.sodium import Sodium
from meshcall.daemon.live import LiveNode
from meshcall.daemon.start_points import Saved
from meshcall.drivers import relay_batch, relay_hot
from meshcall.drivers.udp import open_udp
from meshcall.identity import Device, Identity


def _live(mode: str) -> LiveNode:
    network = Network(families=(4,), bind_ipv4="127.0.0.1", private=True)
    relay = Relay(mode=mode, leases=0)  # type: ignore[arg-type]
    return LiveNode(replace(Config(), network=network, relay=relay), Sodium(), Saved())


async def _is_heard(live: LiveNode) -> bool:
    """Whether a datagram that no route takes reaches the node."""
    station, person = live.node.people, open_udp(4, "127.0.0.1")
    before = station.counters["unknown kind"]
    with trio.move_on_after(5):
        while station.counters["unknown kind"] == before:
            person.sendto(b"\xff", live.driven._ports[0].socket.getsockname())
            await trio.sleep(0.02)
    person.close()
    return station.counters["unknown kind"] > before


@pytest.mark.parametrize(("lacks", "path"), [("", ""), ("recvmmsg", "recvfrom"), ("poll", "node")])
async def test_the_relay_takes_the_fastest_way_there_is(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, lacks: str, path: str
) -> None:
    if lacks == "recvmmsg":
        monkeypatch.setattr(relay_batch, "has_mmsg", lambda: False)
    if lacks == "poll":
        monkeypatch.setattr(relay_hot, "can_run", lambda: False)
    path = path or ("recvmmsg" if relay_batch.has_mmsg() else "recvfrom")
    live = _live("open")
    suite = Sodium()
    with caplog.at_level(logging.INFO):
        await nursery.start(live.run)
        live.publish(Identity.new(suite), Device.new(suite))
        await trio.sleep(0.05)
        assert await _is_heard(live)
    assert live.forwarding.status()["path"] == path
    said = [line for line in caplog.messages if "relay forwards" in line]
    assert len(said) == (path != "recvmmsg")
    assert live.node.people.relay is not None
    assert live.node.people.relay.tables.track_changes == (path != "node"), "kept only while somebody empties it"


async def test_a_node_that_is_no_relay_reads_its_own_sockets(nursery: trio.Nursery) -> None:
    live = _live("off")
    suite = Sodium()
    await nursery.start(live.run)
    live.publish(Identity.new(suite), Device.new(suite))
    assert live.forwarding.status() == {"path": "node", "counters": {}, "sockets": []}
    assert await _is_heard(live)
