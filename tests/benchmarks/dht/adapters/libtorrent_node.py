"""libtorrent as a system under test: its DHT is the mature implementation that meshcall is compared with."""

import asyncio
import hashlib
import os
import time

import libtorrent as lt
from nacl.signing import SigningKey
from worker import milliseconds, serve

SECONDS_MAX = 60
SETTINGS = {
    "enable_dht": True,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "alert_mask": lt.alert.category_t.dht_notification | lt.alert.category_t.error_notification,
    # Needed where many nodes share one address or one /24: else it would use one of them only.
    "dht_restrict_routing_ips": False,
    "dht_restrict_search_ips": False,
    "dht_prefer_verified_node_ids": False,
    "dht_ignore_dark_internet": False,
    "dht_enforce_node_id": False,
    # Never slowed down or banned for what the bench does.
    "dht_upload_rate_limit": 1000000,
    "dht_block_ratelimit": 1000,
    # Small: no torrents here.
    "aio_threads": 1,
    "hashing_threads": 1,
    "disk_io_write_mode": 0,
}
loop = None
nodes, waiting = {}, {}


def expanded(key):
    """The form of a private key that libtorrent takes: SHA-512 of the seed, clamped (RFC 8032, 5.1.5)."""
    digest = bytearray(hashlib.sha512(bytes(key)).digest())
    digest[0] &= 248
    digest[31] = digest[31] & 63 | 64
    return bytes(digest)


def pump(name):
    """Sort the alerts of one session to those who wait for them."""
    for alert in nodes[name].pop_alerts() if name in nodes else ():
        if isinstance(alert, lt.dht_bootstrap_alert):
            fire(name, "boot", True)
        elif isinstance(alert, lt.dht_put_alert):
            fire(name, "put", alert.num_success, alert.public_key)
        elif isinstance(alert, lt.dht_mutable_item_alert):
            fire(name, "get", (alert.item, alert.authoritative), alert.key)


def fire(name, kind, value, key=b""):
    """Something that was waited for, perhaps."""
    queue = waiting.get((name, kind, bytes(key)))
    if queue:
        queue.put_nowait(value)


def expect(name, kind, key=b""):
    """The queue of what is going to happen."""
    return waiting.setdefault((name, kind, key), asyncio.Queue())


async def hello(_message):
    return {"ok": True, "version": lt.__version__, "mark": b"1:y1:q".hex(), "at": None, "signed": True}


async def start(message):
    started, name, boot = time.monotonic(), message["node"], message["boot"]
    joined = expect(name, "boot")
    nodes[name] = lt.session(
        {
            **SETTINGS,
            "listen_interfaces": f"{message['ip']}:{message['port']}",
            "dht_bootstrap_nodes": f"{boot[0]}:{boot[1]}" if boot else "",
        }
    )
    nodes[name].set_alert_notify(lambda: loop.call_soon_threadsafe(pump, name))
    pump(name)
    if boot:
        await asyncio.wait_for(joined.get(), SECONDS_MAX)
    return {"ok": True, "ms": milliseconds(started)}


async def put(message):
    key = SigningKey(hashlib.sha256(b"key %d" % message["tag"]).digest())
    public = bytes(key.verify_key)
    done = expect(message["node"], "put", public)
    started = time.monotonic()
    nodes[message["node"]].dht_put_mutable_item(expanded(key), public, message["value"].encode(), b"")
    stored = await asyncio.wait_for(done.get(), SECONDS_MAX)
    return {"ok": stored > 0, "key": public.hex(), "stored": stored, "ms": milliseconds(started)}


async def get(message):
    public = bytes.fromhex(message["key"]) if message["key"] else os.urandom(32)
    found = expect(message["node"], "get", public)
    started, first, value = time.monotonic(), None, None
    nodes[message["node"]].dht_get_mutable_item(public, b"")
    while True:
        item, is_last = await asyncio.wait_for(found.get(), SECONDS_MAX)
        if item:
            value = item.decode() if isinstance(item, bytes) else item
            first = milliseconds(started) if first is None else first
        if is_last:
            waiting.pop((message["node"], "get", public), None)
            return {"ok": value is not None, "value": value, "first": first, "ms": milliseconds(started)}


async def main():
    global loop
    loop = asyncio.get_running_loop()
    await serve({"hello": hello, "start": start, "put": put, "get": get})
    os._exit(0)  # sessions would take their time to say goodbye


asyncio.run(main())
