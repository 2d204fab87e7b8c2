"""One call between two real ends in real time, for the harness in voice/.

    voice_call.py --input IN.wav --output OUT.wav --proxy-a 127.0.0.1:P --proxy-b 127.0.0.1:Q [--kbps 70]

Each end is a process with a UDP socket, a link (real handshake, sealed packets), sender, Opus, receiver and WAV files
as sound devices.  End A sends all it has to proxy A, end B to proxy B; A's microphone is IN, what B plays becomes OUT,
and sample 0 of both is the same instant.  The last line on stdout is JSON: what the ends say of the call.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import trio

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a checkout that is not installed will do

from meshcall.audio.codec import Sound
from meshcall.audio.emodel import quality
from meshcall.audio.receiver import Receiver
from meshcall.audio.sender import Sender
from meshcall.core import endpoint
from meshcall.crypto.kem import MlKem768
from meshcall.crypto.sodium import Sodium
from meshcall.drivers.opus import OpusDecoder, OpusEncoder
from meshcall.drivers.sound.null import Discard, Silence
from meshcall.drivers.sound.timed import TimedDevice
from meshcall.drivers.sound.wav import WavSink, WavSource
from meshcall.drivers.udp import open_udp
from meshcall.handshake.dial import Callee
from meshcall.handshake.events import Closed, Established, Frame
from meshcall.handshake.links import Links
from meshcall.identity import Device, Identity
from meshcall.path.paths import Path as Way
from meshcall.path.paths import direct
from meshcall.wire.voice import VOICE

CALL = 1
CONNECT_SECONDS_MAX = 20.0
START_SECONDS = 0.3
"""From the moment when the link is open to sample 0."""
SETTLE_SECONDS = 2.0
"""CPU counts from so long after sample 0."""
TAIL_SECONDS = 1.0
DATAGRAM_MAX = 4096
CODEC_SECONDS = 0.0265
"""Of a frame of 20 ms and Opus's look-ahead: for the estimate of the delay."""


class End:
    """One end of the call: a trio task for the network, the thread of the device for the sound."""

    def __init__(self, proxy: int, kbps: float) -> None:
        suite = Sodium()
        now = time.monotonic()
        identity, device = Identity.new(suite), Device.new(suite)
        certificate = device.certify(suite, identity, time.time())
        self.callee = Callee(device.public, identity.public, True)
        self.links = Links(
            now, time.time(), suite=suite, kem=MlKem768(), device=device, identity=identity.public,
            certificate=certificate,
        )  # fmt: skip
        self.way: Way = direct(endpoint("127.0.0.1", proxy))
        self.target = ("127.0.0.1", proxy)
        self.socket = open_udp(4, "127.0.0.1")
        self.link: int | None = None
        self.established = trio.Event()
        self.wake_up = trio.Event()
        self.sender = Sender(now, OpusEncoder(), call=CALL, slot=0, limit_bits_per_second=int(kbps * 1000))
        self.receiver = Receiver(now, OpusDecoder(), call=CALL)
        self.token = trio.lowlevel.current_trio_token()
        self.worst_exchange = 0.0

    def exchange(self, captured: Sound) -> Sound:
        """10 ms in the thread of the device."""
        now = time.monotonic()
        played = self.receiver.pull(now)
        report = self.receiver.heard()
        if report is not None:
            self.sender.reported(now, report, late=self.receiver.heard_late)
        self.sender.telling = self.receiver.report()
        payload = self.sender.push(now, captured)
        if payload is not None:
            self.token.run_sync_soon(self.send, payload)
        self.worst_exchange = max(self.worst_exchange, time.monotonic() - now)
        return played

    def send(self, payload: bytes) -> None:
        """A voice packet, in the thread of the network."""
        if self.link is not None:
            self.links.send_frame(time.monotonic(), self.link, VOICE, payload)
            self.drain()

    def drain(self) -> None:
        """What the core wants: datagrams out, events to the receiver."""
        while self.links.outbox or self.links.events:
            for _, datagram in self.links.outbox:
                self.socket.sendto(datagram, self.target)
            self.links.outbox.clear()
            for event in self.links.events:
                if isinstance(event, Frame) and event.kind == VOICE:
                    self.receiver.push(time.monotonic(), event.data)
                elif isinstance(event, Established):
                    self.link = event.link
                    self.established.set()
                elif isinstance(event, Closed):
                    self.link = None
            self.links.events.clear()
        self.wake_up.set()

    async def take(self) -> None:
        """Datagrams in."""
        while True:
            await trio.lowlevel.wait_readable(self.socket)
            for _ in range(64):
                try:
                    datagram = self.socket.recv(DATAGRAM_MAX)
                except BlockingIOError:
                    break
                self.links.receive(time.monotonic(), self.way, datagram)
            self.drain()

    async def tick(self) -> None:
        """The core's timer."""
        while True:
            due = self.links.next_wake()
            self.wake_up = trio.Event()
            with trio.move_on_after(1.0 if due is None else max(0.0, due - time.monotonic())):
                await self.wake_up.wait()
            if due is not None and due <= time.monotonic():
                self.links.wake(time.monotonic())
                self.drain()

    def facts(self, seconds: float, cpu: float) -> dict[str, Any]:
        """What this end says of the call."""
        got, sent = self.receiver.stats(), self.sender.stats
        bit_rate = sent.shape.frame_bytes * 8 / sent.shape.seconds
        trip = (self.links.round_trip(self.link) if self.link is not None else None) or 0.0
        delay = CODEC_SECONDS + trip / 2 + got.playout_seconds
        return {
            "concealed_pct": round(100 * got.concealed, 2),
            "loss_pct": round(100 * got.loss, 2),
            "loss_after_pct": round(100 * got.missing, 2),
            "late": got.late,
            "repaired": got.repaired,
            "shape_changes": sent.shape_changes,
            "kbps_wire": round(sent.wire_bits_per_second / 1000, 1),
            "cpu_pct": round(100 * cpu / seconds, 2),
            "exchange_worst_ms": round(1000 * self.worst_exchange, 2),
            "round_trip_ms": round(1000 * trip, 1),
            "mos": round(quality(delay=delay, loss=got.missing, bit_rate=bit_rate).mos, 2),
        }


async def one_end(name: str, options: argparse.Namespace) -> None:
    """The process of one end; it talks with its parent by lines of JSON."""
    port = int((options.proxy_a if name == "a" else options.proxy_b).rpartition(":")[2])
    end = End(port, options.kbps)
    source = WavSource(options.input, held=True) if name == "a" else Silence()
    sink = WavSink(options.output, held=True) if name == "b" else Discard()
    device = TimedDevice(source, sink)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(end.take)
        nursery.start_soon(end.tick)
        print(json.dumps([end.callee.static.hex(), end.callee.identity.hex()]), flush=True)
        static, identity = json.loads(await trio.to_thread.run_sync(sys.stdin.readline))
        # Both send something first, so that the proxy knows where they are.
        end.socket.sendto(b"\0", end.target)
        await trio.sleep(0.1)
        began = time.monotonic()
        if name == "a":
            end.links.dial(began, [end.way], Callee(bytes.fromhex(static), bytes.fromhex(identity), True))
            end.drain()
        with trio.fail_after(CONNECT_SECONDS_MAX):
            await end.established.wait()
        print(json.dumps({"connect_ms": round(1000 * (time.monotonic() - began))}), flush=True)
        at, seconds = json.loads(await trio.to_thread.run_sync(sys.stdin.readline))
        device.start(end.exchange)
        device.begin(at)
        await trio.sleep(max(0.0, at + SETTLE_SECONDS - time.monotonic()))
        mark, cpu = time.monotonic(), time.process_time()
        await trio.sleep(max(0.0, at + seconds - time.monotonic()))
        facts = end.facts(time.monotonic() - mark, time.process_time() - cpu)
        await trio.to_thread.run_sync(device.stop)
        sink.close()
        source.close()
        print(json.dumps({**facts, **{f"device {key}": count for key, count in device.counters.items()}}), flush=True)
        nursery.cancel_scope.cancel()


def both_ends(arguments: list[str], seconds: float) -> dict[str, Any]:
    """Start the two processes, introduce them to each other, give the start signal."""
    command = [sys.executable, str(Path(__file__).resolve()), *arguments, "--end"]
    ends = {
        name: subprocess.Popen([*command, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for name in "ab"
    }
    limit = threading.Timer(seconds + CONNECT_SECONDS_MAX + 30, lambda: [end.kill() for end in ends.values()])
    limit.start()

    def tell(name: str, message: object) -> None:
        stream = ends[name].stdin
        assert stream is not None
        stream.write(json.dumps(message) + "\n")
        stream.flush()

    def hear(name: str) -> Any:
        stream = ends[name].stdout
        assert stream is not None
        line = stream.readline()
        if not line:
            raise RuntimeError(f"end {name} ended early")
        return json.loads(line)

    try:
        keys = {name: hear(name) for name in ends}
        tell("b", keys["a"])
        tell("a", keys["b"])
        connect = {name: hear(name) for name in ends}
        at = time.monotonic() + START_SECONDS
        for name in ends:
            tell(name, [at, seconds])
        facts = {name: hear(name) for name in ends}
    finally:
        limit.cancel()
        for end in ends.values():
            end.terminate()
            end.wait()
    return {"connect_ms": connect["a"]["connect_ms"], "concealed_pct": facts["b"]["concealed_pct"], **facts}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--proxy-a", required=True, help="host:port on loopback")
    parser.add_argument("--proxy-b", required=True)
    parser.add_argument("--kbps", type=float, default=70.0, help="limit on the wire")
    parser.add_argument("--end", choices=("a", "b"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.end:
        trio.run(one_end, options.end, options)
        return
    source = WavSource(options.input)
    seconds = source.layout.frames / source.layout.rate + TAIL_SECONDS
    source.close()
    arguments = ["--input", str(options.input), "--output", str(options.output), "--kbps", f"{options.kbps}"]
    arguments += ["--proxy-a", options.proxy_a, "--proxy-b", options.proxy_b]
    print(json.dumps(both_ends(arguments, seconds)))


if __name__ == "__main__":
    main()
