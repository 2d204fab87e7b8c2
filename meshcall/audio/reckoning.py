"""What a call costs and how good it is: bytes below the payload, the parts of its delay, and the E-model's opinion.

The daemon asks with what it estimates, the simulator with what it knows; the arithmetic is here once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from meshcall.audio.codec import PULL_SAMPLES, RATE
from meshcall.audio.emodel import Quality, quality
from meshcall.audio.sender import OVERHEAD_BYTES

LOOKAHEAD_SECONDS: Final = 0.0065
"""Of Opus (RFC 6716, 4.1: 2.5 ms of overlap and 4 ms to line its two layers up)."""
PULL_SECONDS: Final = PULL_SAMPLES / RATE
RELAY_BYTES: Final = 12
IPV6_BYTES: Final = 20


def overhead_bytes(*, relayed: bool, ipv6: bool = False) -> int:
    """Bytes of a voice packet on the wire below its payload."""
    return OVERHEAD_BYTES + (RELAY_BYTES if relayed else 0) + (IPV6_BYTES if ipv6 else 0)


@dataclass(frozen=True, slots=True)
class Delay:
    """From mouth to ear, one way, in seconds."""

    network: float
    waiting: float
    """For repair and for those packets that come later than others."""
    fixed: float
    """Frame, codec, blocks, devices."""

    @property
    def total(self) -> float:
        return self.network + self.waiting + self.fixed


def delay_of(*, network: float, waiting: float, frame: float, devices: float = 0.0) -> Delay:
    """All in seconds.  `network`: one way; `waiting`: from a packet's coming to its being played; `frame`: its
    length; `devices`: the buffers of microphone and loudspeaker.
    """
    return Delay(network, waiting, frame + LOOKAHEAD_SECONDS + PULL_SECONDS + devices)


def judge(delay: Delay, *, missing: float, made_up: float, bit_rate: float, burst: float = 1.0) -> Quality:
    """How good one direction of a call is.

    `missing`: share of frames that were never played; `made_up`: share of the sound that was concealed, that
    bridged by it included while frames were late.  The greater counts as the loss.  `bit_rate` and `burst` as in
    `emodel.quality`.
    """
    return quality(delay=delay.total, loss=max(missing, made_up), bit_rate=bit_rate, burst=burst)
