"""Writes voice.json: golden vectors of voice packets and of the repair code.

This is a second implementation, made from docs/voice.md alone; it shares no code with meshcall.  Run it as

    python tests/vectors/make_voice_vectors.py            (says whether voice.json is what it would write)
    python tests/vectors/make_voice_vectors.py --write

A vector, once published, is only ever added to.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

PLACE = Path(__file__).with_name("voice.json")
TOLD = ("queue", "loss", "burst", "queue", "jitter", "loss", "late")
UNITS = {"queue": 0.004, "loss": 1 / 255, "burst": 1 / 8, "jitter": 0.002, "late": 1 / 255}
IMPLIED = ([[1, 1], [2, 1]], [[2, 1], [3, 1]], [[1, 2], [4, 1]])
COEFFICIENTS = ((1, 0, 0, 1), (1, 0, 0, 2), (2, 1, 0, 3), (63, 2, 0, 15), (64, 2, 63, 4), (70_000, 1, 69_996, 8))


def times(a, b):
    """Shift and add, the slow way: nothing of tables."""
    product = 0
    while b:
        if b & 1:
            product ^= a
        a = a << 1 ^ (0x11D if a & 0x80 else 0)
        b >>= 1
    return product


def inverse(a):
    return next(b for b in range(1, 256) if times(a, b) == 1)


def coefficient(packet_slot, index, frame_slot, count):
    return 1 if count == 1 else inverse((64 + 3 * (packet_slot % 64) + index) ^ (frame_slot % 64))


def frame_of(slot, length):
    return hashlib.blake2b(slot.to_bytes(8, "big"), digest_size=length).digest()


def symbol(packet_slot, index, slots, frames):
    """`frames`: slot -> bytes of those covered."""
    total = bytearray(len(next(iter(frames.values()))))
    for slot, frame in frames.items():
        factor = coefficient(packet_slot, index, slot, len(frames))
        for n, byte in enumerate(frame):
            total[n] ^= times(factor, byte)
    return bytes(total)


def stream(name, first, config, length, covers, count, report, call, inband, implied=False):
    packets = []
    slots = {0: 1, 4: 2, 8: 3}.get(config, config % 4 if config < 12 else 1)
    sent = {}
    for n in range(count):
        slot = first + n * slots
        sent[slot] = frame_of(slot, length)
        symbols, told = [], []
        for index, (near, many) in enumerate(covers):
            reach = [slot - back * slots for back in range(near, near + many)]
            there = {one: sent[one] for one in reach if one in sent}
            if implied:
                there = {one: sent.get(one, bytes(length)) for one in reach}
            symbols.append(symbol(slot, index, slots, there) if there else bytes(length))
            told.append((near - 1) << 4 | len(there))
        if implied:
            plan, told = 5 + IMPLIED.index(covers), []
        elif covers:
            plan = 1 + len(covers)
        else:
            plan = 1 if inband else 0
        wire = slot % 4096
        field = TOLD[wire % 7]
        place = call % 16 << 12 | wire
        head = bytes([config << 3 | plan, place >> 8, place & 255, min(255, round(report[field] / UNITS[field]))])
        packets.append({
            "slot": slot, "frame": sent[slot].hex(), "symbols": [one.hex() for one in symbols],
            "payload": (head + bytes(told) + b"".join(symbols) + sent[slot]).hex(),
        })  # fmt: skip
    return {
        "name": name, "config": config, "slots": slots, "covers": covers, "call": call, "inband": inband,
        "implied": implied, "report": report, "packets": packets,
    }  # fmt: skip


def make():
    report = {"loss": 0.2, "burst": 1.5, "late": 0.1, "jitter": 0.04, "queue": 0.2}
    return {
        "coefficients": [
            {"packet_slot": p, "index": i, "frame_slot": f, "count": c, "coefficient": coefficient(p, i, f, c)}
            for p, i, f, c in COEFFICIENTS
        ],
        "streams": [
            stream("no symbols, hybrid", 7, 15, 12, [], 3, report, 5, False),
            stream("in-band copies", 8191, 13, 12, [], 3, report, 255, True),
            stream("a copy", 4094, 9, 10, [[1, 1]], 4, report, 255, False),
            stream("two frames", 100, 9, 8, [[1, 2]], 5, report, 0, False),
            stream("copies 1 and 2 back, implied", 4080, 10, 6, IMPLIED[0], 5, report, 9, False, True),
            stream("copies 2 and 3 back, implied", 200, 9, 9, IMPLIED[1], 5, report, 9, False, True),
            stream("two frames and a copy, implied", 200, 9, 9, IMPLIED[2], 7, report, 9, False, True),
            stream("a copy and a symbol of three, told", 200, 9, 9, [[2, 1], [2, 3]], 7, report, 9, False),
            stream("three symbols of 40 ms frames", 4080, 10, 6, [[1, 4], [1, 4], [1, 4]], 10, report, 9, False),
            stream("60 ms", 3, 11, 16, [[16, 15]], 3, report, 1, False),
            stream("whole packets of 40 ms", 5, 4, 16, [[1, 1]], 3, report, 1, False),
        ],
        "refused": [
            {"why": "voice size", "payload": "48700100"},
            {"why": "voice size", "payload": ""},
            {"why": "voice form", "payload": "60700100ff"},
            {"why": "voice form", "payload": "80700100ff"},
            {"why": "voice length", "payload": "4a700100101a"},
            {"why": "voice length", "payload": "4d700100101a"},
        ],
    }


def main():
    text = json.dumps(make(), indent=1) + "\n"
    if "--write" in sys.argv:
        PLACE.write_text(text)
    same = PLACE.exists() and PLACE.read_text() == text
    print("voice.json is what the document says" if same else "voice.json differs")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
