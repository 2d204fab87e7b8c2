"""A relay alone: the core and its hot path on one UDP socket, with a door for lease messages instead of links.

    python tests/benchmarks/relay/standalone.py --listen 127.0.0.1:3478 --control PATH

Prints READY.  The door is a Unix socket with one JSON object a line: {"link", "identity", "device",
"place", "message"} (bytes in hex); the answer is the list of lease messages for that link.  It proves
nothing of whom it speaks with, so it is for the benchmark and for tests only.
"""

from __future__ import annotations

import argparse
import gc
import json
import secrets
import signal
import socket
import sys
from functools import partial

import trio

from meshcall.core import ENDPOINT_V4_BYTES, Endpoint, host_of, parse_endpoint, port_of
from meshcall.drivers.relay_batch import PlainBatch, open_batch
from meshcall.drivers.relay_hot import HotPath
from meshcall.drivers.udp import open_udp
from meshcall.drivers.udp_buffers import datagrams_dropped
from meshcall.relay.core import RelayCore
from meshcall.relay.places import Place
from meshcall.relay.policy import RelayPolicy


class Chance:
    """Unpredictable bytes."""

    def random(self, size: int) -> bytes:
        """`size` of them."""
        return secrets.token_bytes(size)


class Standalone:
    """The relay, its socket and its door."""

    def __init__(self, listen: Endpoint, calls: int, plain: bool) -> None:
        policy = RelayPolicy(
            mode="open",
            leases_max=calls + 8,
            flows_max=2 * calls + 64,
            leases_per_source_max=calls + 8,
            bytes_per_second=24_000 * calls + 100_000,
        )
        family = 4 if len(listen) == ENDPOINT_V4_BYTES else 6
        self.socket = open_udp(family, host_of(listen), port_of(listen))
        self.core = RelayCore(
            trio.current_time(), suite=Chance(), policy=policy, static=bytes(32), secret=secrets.token_bytes(32),
            track_routes=True,
        )  # fmt: skip
        make_batch = PlainBatch if plain else open_batch
        self.hot = HotPath([self.socket], self.core, self.deliver, self.settle, make_batch=make_batch)

    def deliver(self, now: float, source: Endpoint, data: bytes) -> None:
        """A datagram that no route took."""
        self.core.receive(now, Place(source), data)

    def settle(self, now: float) -> None:
        """Empty what the core filled."""
        for place, data in self.core.outbox:
            self.socket.sendto(data, (host_of(Endpoint(place)), port_of(Endpoint(place))))
        self.core.outbox.clear()
        self.core.events.clear()
        self.hot.update()

    async def serve_door(self, stream: trio.SocketStream) -> None:
        """Answer lease messages until the other side closes."""
        rest = b""
        async for chunk in stream:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                asked = json.loads(line)
                identity, device, place, message = (
                    bytes.fromhex(asked[name]) for name in ("identity", "device", "place", "message")
                )
                now = trio.current_time()
                self.core.message(now, asked["link"], identity, device, Place(place), message)
                said = [data.hex() for link, data in self.core.messages if link == asked["link"]]
                self.core.messages.clear()
                self.settle(now)
                await stream.send_all(json.dumps(said).encode() + b"\n")

    async def wake(self) -> None:
        """The core's timer."""
        while True:
            await trio.sleep(1.0)
            now = trio.current_time()
            self.core.wake(now)
            self.settle(now)


async def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listen", required=True, type=parse_endpoint)
    parser.add_argument("--control", required=True, help="path of the Unix socket for lease messages")
    parser.add_argument("--calls", type=int, default=256, help="how many calls there is room for")
    parser.add_argument("--plain", action="store_true", help="without recvmmsg, as on other systems")
    options = parser.parse_args()
    relay = Standalone(options.listen, options.calls, options.plain)
    door = trio.socket.socket(socket.AF_UNIX)
    await door.bind(options.control)
    door.listen()
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            await nursery.start(relay.hot.run)
            nursery.start_soon(relay.wake)
            nursery.start_soon(partial(trio.serve_listeners, relay.serve_door, [trio.SocketListener(door)]))
            gc.collect()
            gc.freeze()
            print("READY", flush=True)
            async for _ in signals:
                break
            nursery.cancel_scope.cancel()
    dropped = datagrams_dropped(relay.socket) or 0
    counted = {**relay.core.counters, **relay.hot.totals(), "dropped by its socket": dropped}
    print(json.dumps(counted), file=sys.stderr)


if __name__ == "__main__":
    trio.run(main)
