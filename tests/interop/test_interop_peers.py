"""BEP 5's get_peers and announce_peer between meshcall and libtorrent."""

from __future__ import annotations

import hashlib

import pytest
import trio

from meshcall.core import endpoint
from tests.interop.swarm import Swarm, swarm

pytestmark = pytest.mark.xdist_group("interop")

SWARMS = {"among libtorrent": (1, 12), "among meshcall": (12, 2), "half and half": (8, 8)}
ANNOUNCE_SECONDS_MAX = 10.0
STORED_MIN = 5


def info_hash(name: str) -> bytes:
    """One for each test."""
    return hashlib.sha1(name.encode(), usedforsecurity=False).digest()


async def libtorrent_finds_whom_we_announce(net: Swarm) -> None:
    ours, target = net.mesh[0], info_hash("ours")
    assert (await ours.announce(target)).stored >= STORED_MIN
    assert ours.address in await net.torrent[-1].get_peers(target)
    explicit = info_hash("ours with a port")
    assert (await ours.announce(explicit, 7654)).stored >= STORED_MIN
    assert (ours.address[0], 7654) in await net.torrent[-1].get_peers(explicit)


async def we_find_whom_libtorrent_announces(net: Swarm) -> None:
    theirs, target = net.torrent[-1], info_hash("theirs")
    theirs.announce(target, 4567)
    with trio.fail_after(ANNOUNCE_SECONDS_MAX):
        while True:  # libtorrent does not say when it has announced
            if endpoint(theirs.ip, 4567) in (await net.mesh[0].get_peers(target)).peers:
                return
            await trio.sleep(0.2)


@pytest.mark.parametrize("kinds", SWARMS)
async def test_peers_both_ways(kinds: str) -> None:
    async with swarm(*SWARMS[kinds]) as net:
        await libtorrent_finds_whom_we_announce(net)
        await we_find_whom_libtorrent_announces(net)
