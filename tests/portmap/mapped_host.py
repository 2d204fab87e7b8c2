"""A program for tests: keeps UDP port 40123 mapped, prints events as JSON lines; ends cleanly with its input.

The line `change` on its input tells it of a change of the network.
"""

from __future__ import annotations

import json
import os
import sys
from random import Random

import trio

from meshcall.core import show_endpoint
from meshcall.drivers.gateway import PortMapper
from meshcall.portmap.mapper import Mapped


async def main(families: tuple[int, ...]) -> None:
    mapper = PortMapper(40_123, secret=bytes(16), rng=Random(1), families=families)

    async def tell() -> None:
        async for event in mapper.events:
            where = None if event.outside is None else show_endpoint(event.outside)
            how = event.protocol if isinstance(event, Mapped) else event.reason
            print(json.dumps([type(event).__name__, where, how]), flush=True)

    async with trio.open_nursery() as outer:
        outer.start_soon(tell)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mapper.run)
            while True:
                await trio.lowlevel.wait_readable(sys.stdin)
                if b"change" not in os.read(0, 100):
                    break
                mapper.network_changed()
            nursery.cancel_scope.cancel()
    print(json.dumps(["End", len(mapper.mappings), mapper.counters]), flush=True)


if __name__ == "__main__":
    trio.run(main, tuple(int(word) for word in sys.argv[1:]))
