"""meshcall's DHT node as a system under test: several real nodes on real sockets in one process.

Speaks the JSON lines of dht/README.md on stdin and stdout.  The nodes are the product's own: the
sans-IO core, the UDP driver, libsodium's verification of every item.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from meshcall import __version__
from meshcall.core import endpoint
from meshcall.crypto.sodium import Sodium
from meshcall.dht.config import DhtConfig
from meshcall.dht.events import GetFinished, ItemFound, Joined, PutFinished
from meshcall.dht.items import MutableItem, signing_buffer
from meshcall.dht.node import Dht
from meshcall.dht.table import Identity
from meshcall.drivers.udp import Driven, NodeDriver, open_udp

JOIN_SECONDS_MAX = 60
OPERATION_SECONDS_MAX = 60
LINE_BYTES_MAX = 1 << 22

Message = dict[str, Any]


class Node:
    """One node, and whoever waits for its events."""

    def __init__(self, driver: NodeDriver, ip: str, port: int, suite: Sodium, pool: dict[bytes, Identity]) -> None:
        now = trio.current_time()
        config = DhtConfig(reachable="yes")
        core = Dht(now, rng=random.SystemRandom(), verifier=suite, config=config, families=(4,), pool=pool)
        core.set_local_addresses(now, [endpoint(ip, port)])
        self.driven: Driven[Dht] = driver.add(core, [open_udp(4, ip, port)], self.happened)
        self.joined = trio.Event()
        self.waiting: dict[int, Operation] = {}

    def happened(self, now: float, events: list[Any]) -> None:
        """Sort events to the operations that they belong to."""
        for event in events:
            if isinstance(event, Joined):
                self.joined.set()
            elif isinstance(event, ItemFound | GetFinished | PutFinished):
                operation = self.waiting.get(event.operation)
                if operation is not None:
                    operation.take(now, event)

    async def run(self, started: float, begin: Callable[[float], int]) -> Operation:
        """Begin an operation and wait for its end; it may end within the turn that begins it."""
        operation = Operation(started)
        with self.driven.turn() as now:
            number = begin(now)
            self.waiting[number] = operation
        try:
            with trio.fail_after(OPERATION_SECONDS_MAX):
                await operation.done.wait()
        finally:
            del self.waiting[number]
        return operation


class Operation:
    """What is known of one get or put."""

    def __init__(self, started: float) -> None:
        self.started = started
        self.ended = started
        self.first: float | None = None
        self.finished: GetFinished | PutFinished | None = None
        self.done = trio.Event()

    def take(self, now: float, event: ItemFound | GetFinished | PutFinished) -> None:
        """The next event of this operation; the time is read anew, so that verification counts."""
        if isinstance(event, ItemFound):
            if self.first is None:
                self.first = trio.current_time()
            return
        self.ended, self.finished = trio.current_time(), event
        self.done.set()


def milliseconds(seconds: float) -> float:
    """For the report."""
    return round(seconds * 1000, 2)


class Adapter:
    """The operations of the protocol."""

    def __init__(self) -> None:
        self.driver = NodeDriver()
        self.suite = Sodium()
        self.pool: dict[bytes, Identity] = {}
        self.nodes: dict[str, Node] = {}
        self.operations: dict[str, Callable[[Message], Awaitable[Message]]] = {
            "hello": self.hello,
            "start": self.start,
            "put": self.put,
            "get": self.get,
        }

    async def hello(self, _message: Message) -> Message:
        """Who we are, and how the lab knows a request of ours."""
        return {"ok": True, "version": __version__, "mark": b"1:y1:q".hex(), "at": None, "signed": True}

    async def start(self, message: Message) -> Message:
        """A node; answers when it has joined."""
        started = trio.current_time()
        node = self.nodes[message["node"]] = Node(self.driver, message["ip"], message["port"], self.suite, self.pool)
        if message["boot"]:
            with node.driven.turn() as now:
                node.driven.core.bootstrap(now, [endpoint(*message["boot"])])
            with trio.fail_after(JOIN_SECONDS_MAX):
                await node.joined.wait()
        return {"ok": True, "ms": milliseconds(trio.current_time() - started)}

    async def put(self, message: Message) -> Message:
        """A signed item under a key made from the tag."""
        node = self.nodes[message["node"]]
        key = self.suite.expand(hashlib.sha256(b"key %d" % message["tag"]).digest())
        text = message["value"].encode()
        value = b"%d:%s" % (len(text), text)
        started = trio.current_time()
        signature = self.suite.sign(key, signing_buffer(b"", message["seq"], value))
        item = MutableItem(key.public, b"", message["seq"], value, signature)
        ended = await node.run(started, lambda now: node.driven.core.put(now, item))
        assert isinstance(ended.finished, PutFinished)
        stored = ended.finished.stored
        return {
            "ok": stored > 0,
            "key": key.public.hex(),
            "stored": stored,
            "ms": milliseconds(ended.ended - started),
        }

    async def get(self, message: Message) -> Message:
        """The item of a key (null: of a random one), first value and converged."""
        node = self.nodes[message["node"]]
        public = bytes.fromhex(message["key"]) if message["key"] else os.urandom(32)
        started = trio.current_time()
        ended = await node.run(started, lambda now: node.driven.core.get_mutable(now, public))
        assert isinstance(ended.finished, GetFinished)
        item = ended.finished.item
        value = item.value.partition(b":")[2].decode() if item is not None else None
        return {
            "ok": item is not None,
            "value": value,
            "first": milliseconds(ended.first - started) if ended.first is not None else None,
            "ms": milliseconds(ended.ended - started),
        }

    async def serve(self) -> None:
        """Read requests until "quit" or the end of stdin; answer each when it is done, in any order."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.driver.run)
            buffer = b""
            stdin = trio.lowlevel.FdStream(os.dup(sys.stdin.fileno()))
            async for chunk in stdin:
                buffer += chunk
                *lines, buffer = buffer.split(b"\n")
                if len(buffer) > LINE_BYTES_MAX:
                    break
                for line in lines:
                    message = json.loads(line)
                    if message["op"] == "quit":
                        nursery.cancel_scope.cancel()
                        return
                    nursery.start_soon(self.answer, message)
            nursery.cancel_scope.cancel()

    async def answer(self, message: Message) -> None:
        """One request; its failure is an answer too."""
        try:
            out = await self.operations[message["op"]](message)
        except Exception as problem:  # one operation that fails must not end the run
            out = {"ok": False, "error": f"{type(problem).__name__}: {problem}"}
        sys.stdout.write(json.dumps({**out, "id": message["id"]}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    trio.run(Adapter().serve)
