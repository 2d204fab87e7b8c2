"""What a call must cost on this machine: the same wake-ups and the same libopus, and nothing of meshcall between.

    .venv/bin/python tests/benchmarks/voice/cpu_floor.py [--seconds 15]

Prints % of a core of three programs, each a process of its own: one that is woken like an end of a call (a thread each
10 ms, a trio loop for each datagram that goes and that comes, every 20 ms); one that codes and decodes a frame every
20 ms and sleeps; and both in one.  What `end_cpu.py` measures beyond the last is meshcall's own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import socket
import sys
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import numpy as np
import trio

from meshcall.audio.codec import RATE
from meshcall.demo.speech import CLIPS
from meshcall.drivers.opus import OpusDecoder, OpusEncoder
from meshcall.drivers.sound.wav import WavSource

BLOCK_SECONDS = 0.01
SAMPLES = 960
PACKET_BYTES = 147
FRAME_BYTES = 117
"""Of a call without losses at 70 kbit/s."""
SETTLE_SECONDS = 1.0
PERCENT = 100


class Codec:
    """A frame out and a frame in, of real speech; or nothing."""

    def __init__(self, works: bool) -> None:
        self._works = works
        if works:
            self._encoder, self._decoder = OpusEncoder(), OpusDecoder()
            source = WavSource(CLIPS["Ann"], loop=True)
            blocks = [source.read() for _ in range(RATE // SAMPLES * 6)]
            source.close()
            self._frames = np.concatenate(blocks).reshape(-1, SAMPLES)
            self._packet = self._encoder.encode(self._frames[0], FRAME_BYTES).packet
        self._at = 0

    def encode(self) -> None:
        """The next frame."""
        if self._works:
            self._at = (self._at + 1) % len(self._frames)
            self._packet = self._encoder.encode(self._frames[self._at], FRAME_BYTES).packet

    def decode(self) -> None:
        """The frame that was coded last."""
        if self._works:
            self._decoder.decode(self._packet, SAMPLES)


def sleeps(codec: Codec, seconds: float) -> None:
    """No loop, no socket: one frame after the other."""
    due = time.monotonic()
    for _ in range(round(seconds / BLOCK_SECONDS / 2)):
        codec.encode()
        codec.decode()
        due += 2 * BLOCK_SECONDS
        time.sleep(max(0.0, due - time.monotonic()))


async def wakes(codec: Codec, seconds: float, out: socket.socket, into: socket.socket, to: tuple[str, int]) -> None:
    """A device's thread and a loop; what is sent is received by the same loop, 10 ms out of step."""
    token = trio.lowlevel.current_trio_token()
    over = threading.Event()

    def send() -> None:
        codec.encode()
        out.sendto(bytes(PACKET_BYTES), to)

    def device() -> None:
        due = time.monotonic()
        for n in range(round(seconds / BLOCK_SECONDS)):
            if n % 2:
                codec.decode()
                token.run_sync_soon(send)
            due += BLOCK_SECONDS
            time.sleep(max(0.0, due - time.monotonic()))
        over.set()

    thread = threading.Thread(target=device, daemon=True)
    thread.start()
    while not over.is_set():
        with trio.move_on_after(1.0):
            await trio.lowlevel.wait_readable(into)
            try:
                while True:
                    into.recv(PACKET_BYTES + 1)
            except BlockingIOError:
                pass
    thread.join()


def one(told: Connection, works: bool, woken: bool, seconds: float, other: int, mine: socket.socket) -> None:
    """The process: settle, measure, tell."""
    codec = Codec(works)

    def spend(duration: float) -> None:
        if woken:
            trio.run(wakes, codec, duration, mine, mine, ("127.0.0.1", other))
        else:
            sleeps(codec, duration)

    spend(SETTLE_SECONDS)
    began, spent = time.monotonic(), time.process_time()
    spend(seconds)
    told.send(PERCENT * (time.process_time() - spent) / (time.monotonic() - began))


def bound() -> socket.socket:
    """A socket on loopback."""
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.setblocking(False)
    one.bind(("127.0.0.1", 0))
    return one


def measure(works: bool, woken: bool, seconds: float) -> float:
    """Two processes that send to each other, as the ends of a call do; the mean of both."""
    context = multiprocessing.get_context("fork")
    sockets = [bound(), bound()]
    ports = [each.getsockname()[1] for each in sockets]
    pipes = [context.Pipe() for _ in sockets]
    ends = [
        context.Process(target=one, args=(pipes[n][1], works, woken, seconds, ports[1 - n], sockets[n]))
        for n in range(2)
    ]
    for end in ends:
        end.start()
    found: list[float] = [here.recv() for here, _ in pipes]
    for end in ends:
        end.join()
    for each in sockets:
        each.close()
    return sum(found) / len(found)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each of the three")
    seconds = parser.parse_args().seconds
    for name, works, woken in (("wake-ups alone", False, True), ("libopus alone", True, False), ("both", True, True)):
        print(f"{name}: {measure(works, woken, seconds):.1f} % of a core", flush=True)


if __name__ == "__main__":
    main()
