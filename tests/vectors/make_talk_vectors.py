"""Writes talk.json: golden vectors of call messages.

This is a second implementation, made from docs/calls.md alone; it shares no code with meshcall.  Run it as

    python tests/vectors/make_talk_vectors.py            (says whether talk.json is what it would write)
    python tests/vectors/make_talk_vectors.py --write

A vector, once published, is only ever added to.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

PLACE = Path(__file__).with_name("talk.json")

KINDS = {
    "offer": 1, "ringing": 2, "accept": 3, "decline": 4, "busy": 5, "cancel": 6, "elsewhere": 7, "end": 8, "hold": 9,
    "mute": 10, "resume": 11, "check": 12, "ack": 127,
}  # fmt: skip


def number(value, size):
    return value.to_bytes(size, "big")


def head(kind, serial, call):
    return b"\x54\x01" + number(KINDS[kind], 1) + number(serial, 1) + number(call, 4)


def terms(voice, kinds, rate, slot, capabilities):
    return number(voice, 1) + number(kinds, 2) + number(rate, 2) + number(slot, 2) + number(capabilities, 4)


def make():
    vectors = []
    some = [(1, 1, 70, 0x1234, 0), (1, 0x8001, 65535, 65535, 0xFFFFFFFF), (2, 3, 1, 0, 1)]
    for place, kind in enumerate(("offer", "ringing", "accept", "resume")):
        for turn, (voice, kinds, rate, slot, capabilities) in enumerate(some):
            serial, call = 16 * place + turn, 0xA1B2C300 + place
            message = head(kind, serial, call) + terms(voice, kinds, rate, slot, capabilities)
            vectors.append(
                {
                    "kind": kind, "serial": serial, "call": call, "detail": 0,
                    "terms": {
                        "voice": voice, "kinds": kinds, "kbit_per_second": rate, "slot": slot,
                        "capabilities": capabilities,
                    },
                    "message": message.hex(),
                }
            )  # fmt: skip
    details = {
        "decline": (0, 1, 2, 3, 200), "cancel": (0, 1), "elsewhere": (0, 1), "end": (0, 1, 2, 255), "hold": (0, 1),
        "mute": (0, 1), "ack": (0, 1, 2, 3, 4), "busy": (None,), "check": (None,),
    }  # fmt: skip
    for kind, values in details.items():
        for detail in values:
            body = b"" if detail is None else number(detail, 1)
            message = head(kind, 255, 0xFFFFFFFF) + body
            vectors.append(
                {"kind": kind, "serial": 255, "call": 0xFFFFFFFF, "detail": detail or 0, "message": message.hex()}
            )  # fmt: skip
    return {"vectors": vectors}


def main():
    text = json.dumps(make(), indent=1) + "\n"
    if "--write" in sys.argv:
        PLACE.write_text(text)
    else:
        print("the same" if PLACE.exists() and PLACE.read_text() == text else "different")


if __name__ == "__main__":
    main()
