"""A sender on paper, a network and a receiver, in virtual time: what comes when, and what sounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from meshcall.audio.receiver import Receiver
from tests.audio.paper_codec import PaperDecoder, paper_packet, slot_of

PULL = 0.01


@dataclass
class Heard:
    """A run: the receiver, its decoder and all that came out."""

    receiver: Receiver
    decoder: PaperDecoder
    blocks: list[NDArray[np.int16]] = field(default_factory=list)

    def sound(self) -> NDArray[np.int16]:
        return np.concatenate(self.blocks)

    def starts(self) -> dict[int, int]:
        """At which output sample each slot was first heard."""
        sound = self.sound()
        edges = np.flatnonzero(np.diff(sound, prepend=sound[0] - 1))
        played = set(self.decoder.decoded) | set(self.decoder.inband)  # a fade runs through the numbers of other slots
        heard: dict[int, int] = {}
        for at in edges.tolist():
            slot = slot_of(int(sound[at]))
            if slot is not None and slot in played:
                heard.setdefault(slot, at)
        return heard

    def delays(self, slots: Iterable[int]) -> list[float]:
        """Seconds from the end of each slot at the sender to its being heard."""
        starts = self.starts()
        return [starts[slot] / 48_000 - (slot + 1) * 0.02 for slot in slots if slot in starts]


def new_receiver(call: int = 7) -> tuple[Receiver, PaperDecoder]:
    decoder = PaperDecoder()
    return Receiver(0.0, decoder, call=call), decoder


def run(
    seconds: float, delay: Callable[[int], float | None], *, slots: int = 1, drift: float = 0.0, first: int = 0,
    copies: tuple[int, ...] = (), inband: bool = False,
) -> Heard:  # fmt: skip
    """`delay`: of the packet of a slot, in seconds; None: lost.  `drift`: how much slower the sender's clock is."""
    receiver, decoder = new_receiver()
    arrivals = []
    for slot in range(first, first + int(seconds / 0.02), slots):
        late = delay(slot)
        if late is not None:
            arrivals.append(((slot - first + slots) * 0.02 * (1 + drift) + late, slot))
    arrivals.sort()
    heard = Heard(receiver, decoder)
    at = 0
    for tick in range(math.floor(seconds / PULL)):
        now = tick * PULL
        while at < len(arrivals) and arrivals[at][0] <= now:
            receiver.push(arrivals[at][0], paper_packet(arrivals[at][1], slots, copies=copies, inband=inband))
            at += 1
        heard.blocks.append(receiver.pull(now))
    return heard
