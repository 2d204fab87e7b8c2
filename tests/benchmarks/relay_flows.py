"""Opens leases and flows for K calls at a running relay and writes the flows file of the load generator.

    python tests/benchmarks/relay_flows.py --relay 127.0.0.1:3478 --calls 200 --out FILE

Each call is a lease of its own (its own device and identity), a caller, and a flow that both sides
have proven, all from the very ports that relay/loadgen.c then sends from.  One line for each end:
`local_ip local_port relay_ip relay_port prefix_hex expected_sender`; even lines are callers, odd ones
holders.  Leases are asked for as devices do, over a link with the relay whose key its HELLO_ANSWER tells;
with `--control PATH` through the door of relay/standalone.py, which has no links.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import socket
import sys
import time
from pathlib import Path

from meshcall.core import endpoint, host_of, parse_endpoint, port_of
from meshcall.crypto.kem import MlKem768
from meshcall.crypto.sodium import Sodium
from meshcall.errors import BadPacket
from meshcall.handshake.dial import Callee
from meshcall.handshake.events import Message
from meshcall.handshake.links import Links
from meshcall.identity import Device, Identity
from meshcall.path.paths import direct
from meshcall.wire import relay as wire
from meshcall.wire.link import KIND_PIECE, KIND_RESET

TRIES = 8
WAIT_SECONDS = 0.3
LEASE_SECONDS_MAX = 10.0
OPENER = bytes(200)


class Door:
    """Where lease messages of many devices go in, in place of their links."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._lines = self._socket.makefile("rb")

    def lease(self, number: int, holder: End) -> bytes:
        """The id of a lease for device `number`."""
        place = endpoint(*holder.local)
        device = hashlib.blake2b(b"device %d" % number, digest_size=32).hexdigest()
        request = wire.encode_lease_message(wire.LeaseRequest(1, 3600))
        asked = {"link": number, "identity": device, "device": device, "place": place.hex(), "message": request.hex()}
        self._socket.sendall(json.dumps(asked).encode() + b"\n")
        for said in json.loads(self._lines.readline()):
            message = wire.decode_lease_message(bytes.fromhex(said))
            if isinstance(message, wire.LeaseGrant):
                return message.lease_id
            if isinstance(message, wire.LeaseRefusal):
                raise SystemExit(f"no lease for device {number}: {wire.SHOW_REASON[message.reason]}")
        raise SystemExit(f"no answer about a lease for device {number}")


class Linked:
    """The same by links: each holder is a device that dials the relay from its own port."""

    def __init__(self, relay: tuple[str, int], ip: str, port: int) -> None:
        self._suite = Sodium()
        self._relay = direct(endpoint(*relay))
        asker = End((ip, port), relay)
        answer = asker.ask(wire.hello(bytes(8)), wire.HELLO_ANSWER)
        self._static = wire.decode_hello_answer(answer).static
        asker.close()

    def lease(self, number: int, holder: End) -> bytes:
        """The id of a lease for a new device of a new identity; its link is closed, the lease lives on."""
        now, unix_time = time.monotonic(), time.time()
        identity, device = Identity.new(self._suite), Device.new(self._suite)
        links = Links(
            now, unix_time, suite=self._suite, kem=MlKem768(), device=device, identity=identity.public,
            certificate=device.certify(self._suite, identity, unix_time),
        )  # fmt: skip
        link = links.dial(now, [self._relay], Callee(self._static, None, hybrid=True))
        links.send_message(now, link, wire.encode_lease_message(wire.LeaseRequest(1, 1800)))
        until = now + LEASE_SECONDS_MAX
        while time.monotonic() < until:
            for _, data in links.outbox:
                holder.send(data)
            links.outbox.clear()
            data = holder.receive()
            now = time.monotonic()
            if data is not None and KIND_PIECE <= data[0] <= KIND_RESET:
                links.receive(now, self._relay, data)
            links.wake(now)
            for event in links.events:
                if not isinstance(event, Message):
                    continue
                said = wire.decode_lease_message(event.data)
                if isinstance(said, wire.LeaseGrant):
                    links.close(now, link)
                    for _, data in links.outbox:
                        holder.send(data)
                    return said.lease_id
                if isinstance(said, wire.LeaseRefusal):
                    raise SystemExit(f"no lease for device {number}: {wire.SHOW_REASON[said.reason]}")
            links.events.clear()
        raise SystemExit(f"no answer about a lease for device {number}")


class End:
    """A holder or a caller on a port of its own."""

    def __init__(self, local: tuple[str, int], relay: tuple[str, int]) -> None:
        self.local = local
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(local)
        self._socket.connect(relay)
        self._socket.settimeout(WAIT_SECONDS)

    def send(self, data: bytes) -> None:
        """One frame to the relay."""
        self._socket.send(data)

    def receive(self) -> bytes | None:
        """The next datagram; a challenge is answered; None after a while."""
        try:
            data = self._socket.recv(2048)
        except TimeoutError:
            return None
        if data[:1] == bytes([wire.MAGIC]):
            try:
                frame = wire.decode_frame(data)
            except BadPacket:
                return None
            if frame.kind == wire.CHALLENGE:
                self.send(wire.frame(wire.PROOF, frame.frame_id, frame.payload))
        return data

    def ask(self, question: bytes, *kinds: int) -> wire.Frame:
        """The first frame of these kinds after a question that is asked again until it is answered."""
        for _ in range(TRIES):
            self.send(question)
            found = self.wait(*kinds)
            if found is not None:
                return found
        raise SystemExit(f"{self.local[0]}:{self.local[1]}: the relay does not answer")

    def wait(self, *kinds: int) -> wire.Frame | None:
        """The next frame of these kinds, or None after a while; challenges are answered on the way."""
        until = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < until:
            try:
                frame = wire.decode_frame(self._socket.recv(2048))
            except (TimeoutError, BadPacket):
                continue
            if frame.kind == wire.CHALLENGE:
                self.send(wire.frame(wire.PROOF, frame.frame_id, frame.payload))
            if frame.kind in kinds:
                return frame
        return None

    def close(self) -> None:
        """Leave the port to the load generator."""
        self._socket.close()


def open_call(door: Door | Linked, number: int, relay: tuple[str, int], ip: str, port: int) -> list[str]:
    """The two lines of one call, whose flow is established."""
    caller, holder = End((ip, port + 2 * number), relay), End((ip, port + 2 * number + 1), relay)
    lease_id = door.lease(number, holder)
    for _ in range(TRIES):
        state = holder.ask(wire.frame(wire.CHECK, lease_id, bytes(8)), wire.STATE, wire.CHALLENGE)
        if state.kind == wire.STATE and state.status == wire.KNOWN:
            break
    caller.ask(wire.frame(wire.TO_LEASE, lease_id, OPENER), wire.CHALLENGE)
    at_holder = holder.wait(wire.TO_HOLDER)
    if at_holder is None:
        raise SystemExit(f"call {number}: the caller's packet did not reach the holder")
    answer = holder_answers(holder, caller, at_holder.frame_id)
    if answer.frame_id != lease_id:
        raise SystemExit(f"call {number}: the answer came by another lease")
    lines = []
    for end, kind, frame_id, other in (
        (caller, wire.TO_LEASE, lease_id, 2 * number + 1),
        (holder, wire.TO_FLOW, at_holder.frame_id, 2 * number),
    ):
        end.close()
        prefix = wire.frame(kind, frame_id).hex()
        lines.append(f"{end.local[0]} {end.local[1]} {relay[0]} {relay[1]} {prefix} {other}\n")
    return lines


def holder_answers(holder: End, caller: End, flow_id: bytes) -> wire.Frame:
    """What reaches the caller of the holder's first frame."""
    for _ in range(TRIES):
        holder.send(wire.frame(wire.TO_FLOW, flow_id, bytes(20)))
        found = caller.wait(wire.TO_CALLER)
        if found is not None:
            return found
    raise SystemExit("the holder's packet did not reach the caller")


def main() -> None:
    """Open all calls, write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--relay", required=True, type=parse_endpoint)
    parser.add_argument("--control", help="the door of relay/standalone.py; without it: by links")
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--ip", default="127.0.0.1", help="local address of all ends")
    parser.add_argument("--port", type=int, default=20000, help="first local port")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    relay = (host_of(options.relay), port_of(options.relay))
    door = Door(options.control) if options.control else Linked(relay, options.ip, options.port)
    lines = []
    started = time.monotonic()
    for number in range(options.calls):
        lines += open_call(door, number, relay, options.ip, options.port)
    options.out.write_text("".join(lines))
    print(f"{options.calls} calls opened in {time.monotonic() - started:.1f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
