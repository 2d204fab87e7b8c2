"""The real sender and receiver for the benches, and other ways to repair losses to compare with the policy.

Variants: `policy` is what meshcall does.  `copies:1,3` copies of the frames so far back; `rlc:4` or `rlc:4+8` symbols
over so many frames, one each; `inband` LBRR alone; `none`.  `rlc:4;inband` combines, for repairs.py only: no packet has
both.  All at the same bits per second.
"""

from __future__ import annotations

from dataclasses import asdict
from random import Random
from typing import Any

from meshcall.audio.policy import Protection
from meshcall.audio.receiver import Receiver
from meshcall.audio.sender import Sender
from meshcall.drivers.opus import OpusDecoder, OpusEncoder
from meshcall.wire.voice import Cover

CALL = 7
_EXPECTED_LOSS = 0.1
"""What Opus is told in a variant with LBRR: less, and it sends none."""


def protection(variant: str) -> Protection | None:
    """None for the policy.  Raises ValueError."""
    if variant == "policy":
        return None
    covers: list[Cover] = []
    inband = False
    for part in variant.split(";"):
        kind, _, numbers = part.partition(":")
        if kind == "copies":
            covers += [Cover(int(back), 1) for back in numbers.split(",")]
        elif kind == "rlc":
            covers += [Cover(1, int(count)) for count in numbers.split("+")]
        elif kind == "inband":
            inband = True
        elif kind != "none":
            raise ValueError(f"{part}: not a way to repair")
    return Protection(tuple(covers), inband, _EXPECTED_LOSS if inband else 0.0)


def sender(chance: Random, kbps: float, variant: str, now: float) -> Sender:
    """With Opus; at most so many kbit/s on the wire."""
    made = Sender(now, OpusEncoder(), call=CALL, slot=chance.randrange(1 << 16), limit_bits_per_second=int(kbps * 1000))
    fixed = protection(variant)
    if fixed is not None:
        made.fix(fixed)
    return made


def receiver(now: float) -> Receiver:
    """With Opus."""
    return Receiver(now, OpusDecoder(), call=CALL)


def facts_of(sender: Sender, receiver: Receiver) -> dict[str, Any]:
    """What the two say of themselves."""
    sent, got = sender.stats, receiver.stats()
    return {
        "loss_pct": round(100 * got.loss, 2),
        "loss_after_pct": round(100 * got.missing, 2),
        "concealed_pct": round(100 * got.concealed, 2),
        "shape": str(sent.shape),
        **{key: value for key, value in asdict(got).items() if key not in ("loss", "missing", "concealed")},
        "shape_changes": sent.shape_changes,
    }
