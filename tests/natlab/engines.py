"""The processes of the lab: an exact NAT behind a TUN device, and a cable with delay and loss between two TAPs.

python -m tests.natlab.engines nat WAN INSIDE MAPPING FILTERING PORTS HAIRPIN TIMEOUT
python -m tests.natlab.engines cable NS_A IF_A NS_B IF_B DELAY JITTER LOSS
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import heapq
import ipaddress
import os
import random
import select
import signal
import struct
import sys
import time

from tests.natlab.exact_nat import ExactNat

TUN, TAP = 1, 2
NICE = -15
"""Little work, but a busy machine must not delay it."""
_SET_INTERFACE = 0x400454CA
_NO_INFORMATION = 0x1000
_NEW_NETWORK = 0x40000000


def open_tun(name: str, flags: int) -> int:
    """A TUN or TAP device of this name in the present namespace."""
    handle = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(handle, _SET_INTERFACE, struct.pack("16sH22x", name.encode(), flags | _NO_INFORMATION))
    return handle


def nat(wan: str, inside: str, mapping: str, filtering: str, ports: str, hairpin: str, timeout: str) -> None:
    """In the router's namespace: read tun0, translate, write back to tun0.  SIGHUP: forget all mappings."""
    os.nice(NICE)
    network = ipaddress.ip_network(inside)
    low, mask = int(network.network_address), int(network.netmask)
    box = ExactNat(wan, mapping, filtering, ports, hairpin == "True", float(timeout))
    handle = open_tun("tun0", TUN)
    signal.signal(signal.SIGHUP, lambda *_: box.forget())
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    while True:
        poll.poll()
        with contextlib.suppress(BlockingIOError):
            packet = bytearray(os.read(handle, 65535))
            (source,) = struct.unpack_from("!I", packet, 12)
            if box.handle(packet, time.monotonic(), source & mask == low):
                os.write(handle, packet)


def cable(ns_a: str, if_a: str, ns_b: str, if_b: str, delay: str, jitter: str, loss: str) -> None:
    """Two TAP ends, one in each namespace; frames cross in order after delay + U(0, jitter) seconds."""
    os.nice(NICE)
    pause, spread, share = float(delay), float(jitter), float(loss)
    libc, ends = ctypes.CDLL(None, use_errno=True), []
    for space, name in ((ns_a, if_a), (ns_b, if_b)):
        with open(f"/run/netns/{space}") as handle:
            if libc.setns(handle.fileno(), _NEW_NETWORK):
                raise OSError(ctypes.get_errno(), "setns")
        ends.append(open_tun(name, TAP))
    across, last = dict(zip(ends, ends[::-1], strict=True)), dict.fromkeys(ends, 0.0)
    queue: list[tuple[float, int, int, bytes]] = []
    count = 0
    poll = select.epoll()
    for end in ends:
        poll.register(end, select.EPOLLIN)
    while True:
        wait = max(0.0, queue[0][0] - time.monotonic()) if queue else -1
        for end, _ in poll.poll(wait):
            with contextlib.suppress(OSError):
                while True:  # until there is no more
                    frame = os.read(end, 65535)
                    if random.random() >= share:
                        due = max(time.monotonic() + pause + random.random() * spread, last[end])
                        last[end] = due
                        count += 1
                        heapq.heappush(queue, (due, count, across[end], frame))
        while queue and queue[0][0] <= time.monotonic():
            with contextlib.suppress(OSError):
                os.write(queue[0][2], queue[0][3])
            heapq.heappop(queue)


if __name__ == "__main__":
    {"nat": nat, "cable": cable}[sys.argv[1]](*sys.argv[2:])
