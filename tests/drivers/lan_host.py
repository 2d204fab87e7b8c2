"""A program for tests, inside a namespace: the group's sockets beside a node's; JSON lines of what came.

Orders on its input: `send HEX`, `to HOST:PORT HEX`, `look`, `counters`.  Ends with its input.
"""

from __future__ import annotations

import json
import sys

import trio

from meshcall.core import show_endpoint
from meshcall.drivers.lan import LanSockets
from meshcall.drivers.udp import open_udp


def say(*what: object) -> None:
    print(json.dumps(what), flush=True)


async def main(port: int, families: tuple[int, ...]) -> None:
    main_sockets = [open_udp(family, None, port) for family in families]
    lan = LanSockets(main_sockets, lambda source, data: say("heard", show_endpoint(source), data.hex()))

    async def answers() -> None:
        while True:
            await trio.lowlevel.wait_readable(main_sockets[0])
            data, name = main_sockets[0].recvfrom(4096)
            say("answer", f"{name[0]}:{name[1]}", data.hex())

    async with trio.open_nursery() as nursery:
        await nursery.start(lan.run)
        nursery.start_soon(answers)
        print("ready", flush=True)
        async for line in trio.wrap_file(sys.stdin):
            order, _, argument = line.strip().partition(" ")
            if order == "send":
                lan.send(bytes.fromhex(argument))
            elif order == "look":
                lan.network_changed()
                await trio.sleep(0.1)
                say("joined", lan.joined)
            elif order == "to":
                where, _, data = argument.partition(" ")
                host, _, number = where.rpartition(":")
                main_sockets[0].sendto(bytes.fromhex(data), (host, int(number)))
            else:
                say("counters", lan.counters)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]), tuple(int(word) for word in sys.argv[2:]))
