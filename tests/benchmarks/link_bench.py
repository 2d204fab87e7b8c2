"""Prints what a link costs: bytes, handshake CPU of both sides, seal and open, and forged pieces.

    python -m tests.benchmarks.link_bench [--quick]      (from the top folder)

CPU time of this process, medians of batches; nothing is asserted.  Compared with what docs/link.md promises
and, for bytes, with WireGuard (whitepaper section 5.4.6: 16 bytes of header and 16 of tag).
"""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable
from random import Random

from meshcall.core import endpoint
from meshcall.handshake.cookie import mac_key, with_macs
from meshcall.handshake.events import Established
from meshcall.handshake.pieces import cut
from meshcall.path.paths import direct
from meshcall.wire.link import FORM_HYBRID, SEALED_OVERHEAD_BYTES, decode_piece, encode_piece
from tests.handshake.two_links import Party, Wire


def cost(work: Callable[[], None], batches: int, each: int) -> float:
    """Seconds of CPU for one `work`, the median of batches of `each`."""
    times = []
    for _ in range(batches):
        start = time.process_time()
        for _ in range(each):
            work()
        times.append((time.process_time() - start) / each)
    return statistics.median(times)


def handshake(wire: Wire, alice: Party, bob: Party) -> int:
    """Both messages and the first sealed packet, handed over without a wire."""
    number = wire.dial(alice, bob)
    for _ in range(3):
        for here, there in ((alice, bob), (bob, alice)):
            for _, datagram in here.links.outbox:
                there.links.receive(wire.now, here.path, datagram)
            here.links.outbox.clear()
    wire.now += 0.5
    for party in (alice, bob):
        opened = [event for event in party.links.events if isinstance(event, Established)]
        assert len(opened) == 1
        party.links.events.clear()
        party.links.close(wire.now, opened[0].link)
        party.links.outbox.clear()
    return number


def row(what: str, value: str, against: str = "") -> None:
    print(f"{what:<58} {value:>14}   {against}")


def main() -> None:
    quick = "--quick" in sys.argv
    batches, each = (3, 10) if quick else (9, 40)
    for kem, name in ((True, "hybrid"), (False, "classical")):
        wire = Wire()
        alice, bob = wire.party("alice", kem=kem), wire.party("bob", kem=kem)
        handshake(wire, alice, bob)
        seconds = cost(lambda w=wire, a=alice, b=bob: handshake(w, a, b) and None, batches, each)  # type: ignore[misc]
        row(f"handshake, {name}, both sides with first packet", f"{seconds * 1e3:.2f} ms", "to reach: <= 4 ms")
    wire = Wire()
    alice, bob = wire.party("alice"), wire.party("bob")
    out, _ = wire.connect(alice, bob)
    sizes = [(source == alice.path, len(datagram)) for source, _, datagram in wire.sent if datagram[0] == 0x10]
    row("first message, hybrid", f"{sum(size for mine, size in sizes if mine)} bytes", "in two datagrams")
    row("second message, hybrid", f"{sum(size for mine, size in sizes if not mine)} bytes", "in two datagrams")
    row("sealed packet, overhead", f"{SEALED_OVERHEAD_BYTES} bytes", "to reach: <= 26; WireGuard 32")

    voice = bytes(120)
    session, other = alice.links._links[out].session, bob.links._links[1].session
    seal = cost(lambda: session.seal(0.0, 32, voice) and None, batches, 50 * each)
    datagrams = [session.seal(0.0, 32, voice) for _ in range(batches * 50 * each)]
    supply = iter(datagrams)
    opened = cost(lambda: other.open(0.0, next(supply)) and None, batches, 50 * each)
    row("seal 120 bytes, session alone", f"{seal * 1e6:.1f} us")
    row("open 120 bytes, session alone", f"{opened * 1e6:.1f} us")

    def frame() -> None:
        alice.links.send_frame(wire.now, out, 32, voice)
        bob.links.receive(wire.now, alice.path, alice.links.outbox.pop()[1])
        bob.links.events.clear()

    row("send_frame and receive, both cores", f"{cost(frame, batches, 50 * each) * 1e6:.1f} us")

    rng = Random(1)
    key = mac_key(bob.device.public)
    flood = [
        with_macs(encode_piece(piece), key, None)
        for _ in range(200)
        for piece in cut(rng.randbytes(1434), FORM_HYBRID, rng.randbytes(4))
    ]
    sources = [direct(endpoint(f"198.18.{n >> 8}.{n & 255}", 4321)) for n in range(1000)]
    numbers = iter(range(10**9))

    def forged(seconds_apart: float) -> Callable[[], None]:
        def one() -> None:
            number = next(numbers)
            wire.now += seconds_apart
            bob.links.receive(wire.now, sources[number % 1000], flood[number % len(flood)])
            bob.links.outbox.clear()

        return one

    load = cost(forged(1 / 20_000), batches, 100 * each)
    row("forged piece with right mac1, 20,000 a second", f"{load * 1e6:.1f} us", "10,000 messages a second:")
    row("  share of one core", f"{load * 20_000 * 100:.0f} %", f"{len(bob.links)} link still open")
    anybody = cost(
        lambda: bob.links.receive_lan(wire.now, sources[0], flood[next(numbers) % len(flood)], lambda identity: False),
        batches, 100 * each,
    )  # fmt: skip
    row("forged piece by the local network's group", f"{anybody * 1e6:.1f} us", "its socket reads 300 a second")
    stranger = [datagram[:-32] + bytes(32) for datagram in flood]
    stray = iter(stranger * (batches * each))
    row(
        "forged piece with wrong mac1",
        f"{cost(lambda: bob.links.receive(wire.now, sources[0], next(stray)), batches, 10 * each) * 1e6:.1f} us",
    )
    row("parse of a piece alone", f"{cost(lambda: decode_piece(flood[0]) and None, batches, 50 * each) * 1e6:.1f} us")
    noise = [b"\x12" + rng.randbytes(140) for _ in range(1000)]
    junk = iter(noise * (batches * each))
    row(
        "sealed packet of an unknown session",
        f"{cost(lambda: bob.links.receive(wire.now, sources[0], next(junk)), batches, 10 * each) * 1e6:.1f} us",
    )

    many = Wire()
    relay, people = many.party("relay"), [many.party("somebody") for _ in range(20 if quick else 200)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for person in people:
        many.dial(person, relay)
        many.run(0.2)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    row("memory of one link, both ends", f"{grown / len(people):.1f} KiB", "growth of this process")


if __name__ == "__main__":
    main()
