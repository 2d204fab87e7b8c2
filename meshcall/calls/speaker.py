"""Saying and reading call messages on links: serials, acknowledgements, bounds, and links that are to be closed.

A link on which the last word was said stays open until it is acknowledged, or for a short time.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import TYPE_CHECKING, Final

from meshcall.errors import BadPacket
from meshcall.handshake.budget import Budget
from meshcall.wire.talk import (
    SERIAL_MODULUS,
    Kind,
    Status,
    Talk,
    Terms,
    decode_head,
    decode_talk,
    encode_talk,
    is_known,
)
from meshcall.wire.talk import VERSION as TALK_VERSION

if TYPE_CHECKING:
    from meshcall.calls.lines import Lines

MESSAGES_PER_SECOND: Final = 20.0
MESSAGES_BURST: Final = 60.0
"""Read of one link, acknowledgements included; beyond it they are dropped."""
LANES_MAX: Final = 512
"""Links whose serials and budget are kept; the ones that were silent longest give way."""
UNACKNOWLEDGED_MAX: Final = 32
"""Messages of one link whose acknowledgement is awaited."""
LINGER_SECONDS: Final = 2.0
"""The last word is not acknowledged: who dialled the link closes it after this time."""
LINGER_CALLEE_SECONDS: Final = 10.0
"""Who did not dial it."""
LINGERING_MAX: Final = 64
_LAST_WORDS: Final = frozenset({Kind.DECLINE, Kind.BUSY, Kind.CANCEL, Kind.ELSEWHERE, Kind.END})


class _Lane:
    __slots__ = ("budget", "serial", "waiting")

    def __init__(self, now: float) -> None:
        self.budget = Budget(now, MESSAGES_PER_SECOND, MESSAGES_BURST)
        self.serial = 0
        self.waiting: OrderedDict[int, tuple[Kind, int]] = OrderedDict()


class Speaker:
    """For all links of a device."""

    def __init__(self, lines: Lines, counters: Counter[str]) -> None:
        self._lines = lines
        self._counters = counters
        self._lanes: OrderedDict[int, _Lane] = OrderedDict()
        self._lingering: OrderedDict[int, tuple[float, bool]] = OrderedDict()  # link: close at; dialled by us

    def __len__(self) -> int:
        return len(self._lanes) + len(self._lingering)

    def say(
        self, now: float, link: int, kind: Kind, call: int, *, terms: Terms | None = None, detail: int = 0
    ) -> None:  # fmt: skip
        """Send a message, and await its acknowledgement."""
        lane = self._lane(now, link)
        serial, lane.serial = lane.serial, (lane.serial + 1) % SERIAL_MODULUS
        lane.waiting[serial] = (kind, call)
        if len(lane.waiting) > UNACKNOWLEDGED_MAX:
            lane.waiting.popitem(last=False)
        self._lines.say(now, link, encode_talk(Talk(kind, call, serial, terms, detail)))

    def acknowledge(self, now: float, link: int, message: Talk, status: Status) -> None:
        """Say what was done with a message."""
        self._lines.say(now, link, encode_talk(Talk(Kind.ACK, message.call, message.serial, detail=status)))

    def read(self, now: float, link: int, data: bytes) -> Talk | None:
        """A message that may be acted upon; what this version does not know is answered here."""
        if not self._lane(now, link).budget.take(now):
            self._counters["call message: too many"] += 1
            return None
        try:
            head = decode_head(data)
            if is_known(head):
                return decode_talk(data)
        except BadPacket as bad:
            self._counters[bad.reason] += 1
            return None
        self._counters["call message unknown"] += 1
        if head.kind != Kind.ACK:
            status = Status.UNKNOWN_KIND if head.version == TALK_VERSION else Status.UNKNOWN_VERSION
            self._lines.say(now, link, encode_talk(Talk(Kind.ACK, head.call, head.serial, detail=status)))
        return None

    def acknowledged(self, now: float, link: int, ack: Talk) -> Kind | None:
        """Which message of ours an ACK answers; None: none.  A link with nothing more to say is closed."""
        lane = self._lanes.get(link)
        said = None if lane is None else lane.waiting.get(ack.serial)
        if lane is None or said is None or said[1] != ack.call:
            self._counters["acknowledged what was not said"] += 1
            return None
        del lane.waiting[ack.serial]
        lingering = self._lingering.get(link)
        if said[0] in _LAST_WORDS and lingering is not None and lingering[1]:
            self._close(now, link)
        return said[0]

    # Links with nothing more to say

    def linger(self, now: float, link: int, *, dialled: bool) -> None:
        """Close a link soon."""
        self._lingering[link] = (now + (LINGER_SECONDS if dialled else LINGER_CALLEE_SECONDS), dialled)
        self._lingering.move_to_end(link)
        while len(self._lingering) > LINGERING_MAX:
            self._close(now, next(iter(self._lingering)))

    def keep(self, link: int) -> bool:
        """A link is needed again after all; whether it was one that we dialled."""
        return self._lingering.pop(link, (0.0, False))[1]

    def forget(self, link: int) -> None:
        """A link is over."""
        self._lanes.pop(link, None)
        self._lingering.pop(link, None)

    def wake(self, now: float) -> None:
        """Close what has lingered long enough."""
        for link in [link for link, (when, _) in self._lingering.items() if when <= now]:
            self._close(now, link)

    def next_wake(self) -> float | None:
        """When `wake` wants to be called."""
        return min(when for when, _ in self._lingering.values()) if self._lingering else None

    def _close(self, now: float, link: int) -> None:
        self.forget(link)
        self._lines.close(now, link)

    def _lane(self, now: float, link: int) -> _Lane:
        lane = self._lanes.get(link)
        if lane is None:
            lane = self._lanes[link] = _Lane(now)
            if len(self._lanes) > LANES_MAX:
                self._lanes.popitem(last=False)
        else:
            self._lanes.move_to_end(link)
        return lane
