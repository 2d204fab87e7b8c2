"""Where a node begins: nodes of the last run, configured addresses, public routers; and the file of the first.

Names are resolved only for what the configuration names and for the built-in routers, in bounded
time, and never with MESHCALL_OFFLINE=1.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from meshcall.config import host_and_port
from meshcall.core import Endpoint, endpoint, parse_endpoint, show_endpoint
from meshcall.drivers import files
from meshcall.errors import StateError, UsageError

if TYPE_CHECKING:
    from meshcall.config import Config

OFFLINE_VARIABLE: Final = "MESHCALL_OFFLINE"
NAMESPACE_VARIABLE: Final = "MESHCALL_NAMESPACE"
"""Set by tests in a network namespace that they made, without a route to anywhere else."""
PUBLIC_ROUTERS: Final = (
    "dht.libtorrent.org:25401",
    "dht.transmissionbt.com:6881",
    "router.bittorrent.com:6881",
    "router.utorrent.com:6881",
)
"""Well-known nodes of the BitTorrent DHT, asked when nobody else is known.  They see an IP address, no more."""
RESOLVE_SECONDS_MAX: Final = 5.0
ADDRESSES_PER_NAME_MAX: Final = 4
NODES_FILE: Final = "nodes.json"
NODES_MAX: Final = 300
SECRET_BYTES: Final = 32
RELAYS_MAX: Final = 8
NODES_FILE_BYTES_MAX: Final = 256 * 1024
_VERSION: Final = 1
_DAMAGE = (StateError, UsageError, ValueError, TypeError, KeyError, RecursionError)

Contact = tuple[bytes, Endpoint]
"""A node's ID (20 bytes) and where it is."""


def is_offline() -> bool:
    """Whether this process must not reach out on its own account: no names, no built-in router."""
    return os.environ.get(OFFLINE_VARIABLE, "0") not in ("", "0")


def may_use_lan() -> bool:
    """Whether this process may send to the local networks' group: in a test only where it is in a namespace."""
    return not is_offline() or os.environ.get(NAMESPACE_VARIABLE, "0") not in ("", "0")


@dataclass(frozen=True, slots=True)
class Saved:
    """What is kept of the last run: the port it had (0: none), nodes that answered, a secret of this home."""

    port: int = 0
    contacts: tuple[Contact, ...] = ()
    secret: bytes = field(default=b"", repr=False)
    """By which the gateway knows again who asked for a mapping (docs/portmap.md); empty: there is none yet."""
    relays: tuple[Endpoint, ...] = ()
    """Where relays took TCP connections, for a start in a network that bars UDP."""


def load(folder: Path) -> tuple[Saved, str | None]:
    """What the last run saved, and a message where the file was damaged and has been set aside."""
    path = folder / NODES_FILE
    try:
        raw = files.read(path, NODES_FILE_BYTES_MAX)
        return (_decode(raw) if raw is not None else Saved()), None
    except _DAMAGE:
        aside = files.set_aside(path)
        return Saved(), f"{path} was damaged and is now {aside.name}; the node finds the network without it"


def _decode(raw: bytes) -> Saved:
    content = json.loads(raw.decode())
    if content["version"] != _VERSION:
        raise ValueError("another version")
    port = content["port"]
    secret = bytes.fromhex(content.get("secret", ""))
    contacts = tuple((bytes.fromhex(node_id), parse_endpoint(where)) for node_id, where in content["nodes"])
    if type(port) is not int or not 0 <= port < 65536 or len(contacts) > NODES_MAX:
        raise ValueError("out of range")
    if any(len(node_id) != 20 for node_id, _ in contacts):
        raise ValueError("not a node ID")
    if len(secret) not in (0, SECRET_BYTES):
        raise ValueError("not a secret")
    relays = tuple(parse_endpoint(where) for where in content.get("relays", ())[:RELAYS_MAX])
    return Saved(port, contacts, secret, relays)


def save(folder: Path, saved: Saved) -> None:
    """Write it down.  Raises StateError."""
    nodes = [[node_id.hex(), show_endpoint(where)] for node_id, where in saved.contacts[:NODES_MAX]]
    relays = [show_endpoint(where) for where in saved.relays[:RELAYS_MAX]]
    text = json.dumps(
        {"version": _VERSION, "port": saved.port, "secret": saved.secret.hex(), "nodes": nodes, "relays": relays}
    )
    files.write(folder / NODES_FILE, text.encode() + b"\n")


def numeric(texts: Iterable[str]) -> list[Endpoint]:
    """Those of "host:port" that need no name server."""
    found: list[Endpoint] = []
    for text in texts:
        host, port = host_and_port(text)
        try:
            found.append(endpoint("127.0.0.1" if host == "localhost" else host, port))
        except UsageError:
            continue
    return found


def names(texts: Iterable[str]) -> list[str]:
    """Those of "host:port" that do."""
    return [text for text in texts if not numeric([text])]


def built_in(config: Config) -> tuple[str, ...]:
    """The public routers, where this node may use them."""
    return () if config.network.private or is_offline() else PUBLIC_ROUTERS


async def resolve(texts: Iterable[str], families: Iterable[int]) -> tuple[list[Endpoint], list[str]]:
    """Endpoints of names, and the names that gave none within RESOLVE_SECONDS_MAX.  Offline: no name is asked for."""
    texts = list(texts)
    if is_offline():
        return [], texts
    wanted = {trio.socket.AF_INET if family == 4 else trio.socket.AF_INET6 for family in families}
    found: dict[str, list[Endpoint]] = {}

    async def one(text: str) -> None:
        host, port = host_and_port(text)
        try:
            entries = await trio.socket.getaddrinfo(host, port, type=trio.socket.SOCK_DGRAM)
        except OSError:
            return  # the name is reported as one that gave nothing
        endpoints = [endpoint(str(entry[4][0]), port) for entry in entries if entry[0] in wanted]
        found[text] = list(dict.fromkeys(endpoints))[:ADDRESSES_PER_NAME_MAX]

    with trio.move_on_after(RESOLVE_SECONDS_MAX):
        async with trio.open_nursery() as nursery:
            for text in texts:
                nursery.start_soon(one, text)
    endpoints = [where for text in texts for where in found.get(text, ())]
    return endpoints, [text for text in texts if not found.get(text)]


def peek(folder: Path) -> Saved:
    """What the last run saved, for a guest that changes nothing; nothing where there is nothing (sound)."""
    try:
        raw = files.read(folder / NODES_FILE, NODES_FILE_BYTES_MAX)
        return _decode(raw) if raw is not None else Saved()
    except _DAMAGE:
        return Saved()
