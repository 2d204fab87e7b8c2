"""Blinded records on libtorrent's nodes: what only meshcall can read lives where everybody can store it."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
import trio

from meshcall.identity import Device, Identity
from meshcall.record.blinding import blinded_key, blinded_public
from meshcall.record.period import period_at
from meshcall.record.seal import device_entry, seal_record
from meshcall.wire.record import Record
from tests.interop.swarm import SETTLE_SECONDS, SUITE, swarm
from tests.interop.torrent import TorrentNode

pytestmark = pytest.mark.xdist_group("interop")


async def test_a_record_lives_on_libtorrent_nodes() -> None:
    async with swarm(2, 12) as net:
        identity, device = Identity.new(SUITE), Device.new(SUITE)
        publishing, asking = net.mesh
        with publishing.driven.turn() as now:
            publishing.driven.core.publish(now, identity, device)
        said = await publishing.confirmed()

        ended = await asking.lookup(identity.public)
        assert ended.outcome == "found"
        assert ended.best is not None
        assert [entry.static for entry in ended.best.record.devices] == [device.public]

        # A plain BitTorrent node sees the blinded key, and under it a sealed string of one size.
        blinded = blinded_public(SUITE, identity.public, said.period)
        value, seq = await net.torrent[0].get_mutable(blinded)
        assert seq == said.seq
        assert value is not None
        assert identity.public not in value
        assert device.public not in value
        assert (await net.torrent[0].get_mutable(identity.public))[0] is None


async def test_libtorrent_stores_a_record_that_meshcall_opens() -> None:
    async with swarm(1, 12) as net:
        identity, device = Identity.new(SUITE), Device.new(SUITE)
        now = time.time()
        period = period_at(identity.public, now)
        entry = replace(device_entry(device.certify(SUITE, identity, now)), time=int(now))
        record = Record(devices=(entry,))
        # libtorrent begins with seq 1; the seal is bound to it.
        item = seal_record(SUITE, identity.key, period, record, 1)
        key = blinded_key(SUITE, identity.key, period)
        text = item.value.partition(b":")[2]
        assert await net.torrent[0].put_mutable(key.scalar + key.prefix, key.public, text) >= 5
        ended = await net.mesh[0].lookup(identity.public)
        assert ended.outcome == "found"
        assert ended.best is not None
        assert (ended.best.record, ended.best.seq) == (record, 1)


async def test_a_record_lives_in_a_mixed_swarm() -> None:
    async with swarm(8, 8) as net:
        identity, device = Identity.new(SUITE), Device.new(SUITE)
        with net.mesh[0].driven.turn() as now:
            net.mesh[0].driven.core.publish(now, identity, device)
        said = await net.mesh[0].confirmed()
        for asking in net.mesh[1:4]:
            assert (await asking.lookup(identity.public)).outcome == "found"
        latecomer = TorrentNode("127.0.2.200")
        await latecomer.opened()
        latecomer.meet(*[node.address for node in net.mesh])
        await trio.sleep(SETTLE_SECONDS)
        value, _ = await latecomer.get_mutable(blinded_public(SUITE, identity.public, said.period))
        assert value is not None
