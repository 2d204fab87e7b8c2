"""Signed and immutable items (BEP 44) between meshcall and libtorrent, in swarms of one kind and of both."""

from __future__ import annotations

import hashlib

import pytest

from meshcall.dht.items import ImmutableItem, MutableItem, signing_buffer
from tests.interop.swarm import SUITE, Swarm, swarm
from tests.interop.torrent import expanded

pytestmark = pytest.mark.xdist_group("interop")

SWARMS = {"among libtorrent": (1, 12), "among meshcall": (12, 2), "half and half": (8, 8)}
STORED_MIN = 5
"""Of k = 8: in so small a swarm libtorrent does not always ask everybody."""

STORED_ASTRAY_MAX = 3
"""Nodes that never had the newer item and so cannot know better."""


def bencoded(text: bytes) -> bytes:
    """A string as it travels."""
    return b"%d:%s" % (len(text), text)


def signed(seed: bytes, seq: int, text: bytes, salt: bytes = b"") -> MutableItem:
    """A string, signed by the key of a seed."""
    key = SUITE.expand(seed)
    value = bencoded(text)
    return MutableItem(key.public, salt, seq, value, SUITE.sign(key, signing_buffer(salt, seq, value)))


def seed_of(name: str) -> bytes:
    """A key for each test."""
    return hashlib.sha256(name.encode()).digest()


async def libtorrent_reads_what_we_put(net: Swarm) -> None:
    seed = seed_of("ours")
    for salt, text in ((b"", b"without salt"), (b"a salt", b"with salt")):
        item = signed(seed, 7, text, salt)
        assert (await net.mesh[0].put(item)).stored >= STORED_MIN
        assert await net.torrent[-1].get_mutable(item.public, salt) == (text, 7)


async def we_read_what_libtorrent_puts(net: Swarm) -> None:
    seed = seed_of("theirs")
    public = SUITE.expand(seed).public
    for salt, text in ((b"", b"without salt"), (b"a salt", b"with salt")):
        assert await net.torrent[-1].put_mutable(expanded(seed), public, text, salt) >= STORED_MIN
        found = (await net.mesh[0].get_mutable(public, salt)).item
        assert isinstance(found, MutableItem)
        assert (found.value, found.salt) == (bencoded(text), salt)
        assert SUITE.verify(public, signing_buffer(salt, found.seq, found.value), found.signature)


async def each_raises_the_others_seq(net: Swarm) -> None:
    seed = seed_of("in turns")
    public = SUITE.expand(seed).public
    await net.mesh[0].put(signed(seed, 1, b"first"))
    await net.torrent[-1].put_mutable(expanded(seed), public, b"second")
    second = (await net.mesh[0].get_mutable(public)).item
    assert isinstance(second, MutableItem)
    assert (second.value, second.seq) == (bencoded(b"second"), 2)
    assert (await net.mesh[0].put(signed(seed, 3, b"third"), cas=2)).stored >= STORED_MIN
    assert await net.torrent[-1].get_mutable(public) == (b"third", 3)
    # An older one is refused with BEP 44's code by all who hold the newer one; look-ups do not see the others.
    late = await net.mesh[0].put(signed(seed, 2, b"too late"))
    assert late.errors.get(302, 0) >= STORED_MIN
    assert late.stored <= STORED_ASTRAY_MAX
    assert await net.torrent[-1].get_mutable(public) == (b"third", 3)
    # So is one that was written on an older basis.
    astray = await net.mesh[0].put(signed(seed, 4, b"another basis"), cas=1)
    assert astray.errors.get(301, 0) >= STORED_MIN
    assert astray.stored <= STORED_ASTRAY_MAX


async def immutable_items_both_ways(net: Swarm) -> None:
    ours, theirs = b"an immutable value of ours", b"an immutable value of theirs"
    item = ImmutableItem(bencoded(ours))
    assert (await net.mesh[0].put(item)).stored >= STORED_MIN
    assert await net.torrent[-1].get_immutable(item.target) == ours
    target, stored = await net.torrent[-1].put_immutable(theirs)
    assert stored >= STORED_MIN
    assert (await net.mesh[0].get_immutable(target)).item == ImmutableItem(bencoded(theirs))


@pytest.mark.parametrize("kinds", SWARMS)
async def test_items_both_ways(kinds: str) -> None:
    async with swarm(*SWARMS[kinds]) as net:
        await libtorrent_reads_what_we_put(net)
        await we_read_what_libtorrent_puts(net)
        await each_raises_the_others_seq(net)
        await immutable_items_both_ways(net)


async def test_the_largest_value_both_ways() -> None:
    async with swarm(1, 12) as net:
        text = b"v" * 996  # 1000 bytes with its bencoding: BEP 44's bound
        item = signed(seed_of("large"), 1, text)
        assert (await net.mesh[0].put(item)).stored >= STORED_MIN
        assert await net.torrent[0].get_mutable(item.public) == (text, 1)
        assert (await net.mesh[0].get_mutable(item.public)).item == item
