"""libtorrent's DHT nodes for the interoperation tests, each on a loopback address of its own."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import trio

lt = pytest.importorskip(
    "libtorrent", reason="libtorrent has no wheel for this machine: interoperation with it is not tested here"
)

POLL_SECONDS = 0.02
"""How often the alerts of a session are read; its own notification comes on a foreign thread."""
ANSWER_SECONDS_MAX = 20.0
SETTINGS: dict[str, Any] = {
    "enable_dht": True,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "dht_bootstrap_nodes": "",
    "alert_mask": lt.alert.category_t.dht_notification
    | lt.alert.category_t.dht_operation_notification
    | lt.alert.category_t.error_notification
    | lt.alert.category_t.status_notification,
    # Many nodes on one machine are no attack here, and nobody is banned for asking much.
    "dht_restrict_routing_ips": False,
    "dht_restrict_search_ips": False,
    "dht_prefer_verified_node_ids": False,
    "dht_ignore_dark_internet": False,
    "dht_enforce_node_id": False,
    "dht_block_ratelimit": 1000,
    "dht_upload_rate_limit": 1_000_000,
}


def expanded(seed: bytes) -> bytes:
    """The form of a private key that libtorrent takes: SHA-512 of the seed, clamped (RFC 8032, 5.1.5)."""
    digest = bytearray(hashlib.sha512(seed).digest())
    digest[0] &= 248
    digest[31] = digest[31] & 63 | 64
    return bytes(digest)


class TorrentNode:
    """One libtorrent session, of which only the DHT is used."""

    def __init__(self, ip: str) -> None:
        self.ip = ip
        self.port = 0
        self.session = lt.session({**SETTINGS, "listen_interfaces": f"{ip}:0"})
        self._read: list[Any] = []

    async def opened(self) -> tuple[str, int]:
        """The UDP endpoint, once it is bound."""
        while not self.port:
            alert = await self._next(lt.listen_succeeded_alert)
            if alert.socket_type == lt.socket_type_t.udp:
                self.port = alert.port
        return self.ip, self.port

    def meet(self, *endpoints: tuple[str, int]) -> None:
        """Tell it of other nodes."""
        for endpoint in endpoints:
            self.session.add_dht_node(endpoint)

    async def _next(self, kind: type, **wanted: Any) -> Any:
        """The next alert of this kind that has these attributes; others of it are dropped."""
        with trio.fail_after(ANSWER_SECONDS_MAX):
            while True:
                self._read += self.session.pop_alerts()
                while self._read:
                    alert = self._read.pop(0)
                    if isinstance(alert, kind) and all(getattr(alert, key) == wanted[key] for key in wanted):
                        return alert
                await trio.sleep(POLL_SECONDS)

    async def put_mutable(self, private: bytes, public: bytes, value: bytes, salt: bytes = b"") -> int:
        """Store a string under an expanded private key; on how many nodes."""
        self.session.dht_put_mutable_item(private, public, value, salt)
        return int((await self._next(lt.dht_put_alert, public_key=public)).num_success)

    async def get_mutable(self, public: bytes, salt: bytes = b"") -> tuple[bytes | None, int]:
        """The newest string under a key, after the look-up has ended, and its seq."""
        self.session.dht_get_mutable_item(public, salt)
        newest: tuple[bytes | None, int] = (None, -1)
        while True:
            alert = await self._next(lt.dht_mutable_item_alert, key=public)
            if alert.item and alert.seq > newest[1]:
                newest = (alert.item, alert.seq)
            if alert.authoritative:
                return newest

    async def put_immutable(self, value: bytes) -> tuple[bytes, int]:
        """Store a string; its target and on how many nodes."""
        target = self.session.dht_put_immutable_item(value)
        return target.to_bytes(), int((await self._next(lt.dht_put_alert)).num_success)

    async def get_immutable(self, target: bytes) -> bytes:
        """The string of that hash."""
        self.session.dht_get_immutable_item(lt.sha1_hash(target))
        item: bytes = (await self._next(lt.dht_immutable_item_alert)).item
        return item

    def announce(self, info_hash: bytes, port: int) -> None:
        """Announce a port under an info-hash; libtorrent does not say when that is done."""
        self.session.dht_announce(lt.sha1_hash(info_hash), port, 0)

    async def get_peers(self, info_hash: bytes) -> list[tuple[str, int]]:
        """What the first node that has any lists under the info-hash."""
        target = lt.sha1_hash(info_hash)
        self.session.dht_get_peers(target)
        return list((await self._next(lt.dht_get_peers_reply_alert, info_hash=target)).peers())
