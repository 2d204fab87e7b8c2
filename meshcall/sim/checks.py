"""What must hold, seen from outside the cores.

Safety, at all times: no node serves an item that its owner did not sign; no node serves an older
item than one it has served or acknowledged before (while it kept running, within an item's life);
no look-up yields a forged item.  Liveness, when nothing disturbs the world (any more): a look-up
that has converged yields nothing older than what was fully published before it began, and every
published item is found.

The checks read datagrams with a decoder of their own and know what was signed from those who signed.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING, Any

import bencode2

from meshcall.dht.items import MutableItem

if TYPE_CHECKING:
    from meshcall.core import Endpoint
    from meshcall.dht.items import Item
    from meshcall.sim.host import Host
    from meshcall.sim.network import Door

ITEM_LIFE_SECONDS = 7200.0
"""After so long without a put an item may be forgotten, and an older one taken (BEP 44)."""
PUT_ANSWER_SECONDS = 30.0
"""A put without an answer for so long is not waited for."""
VIOLATIONS_SHOWN = 50
TARGET_BYTES = 20


def _digest(value: bytes) -> bytes:
    return hashlib.blake2b(value, digest_size=8).digest()


class Checks:
    """Listens on the lines (`network.Tap`) and judges what look-ups yield."""

    def __init__(self) -> None:
        self.mark = b"3:seqi"
        """Only messages about mutable items contain this; the others are not looked at."""
        self.watched: dict[int, int] = {}
        """Hosts that owe answers to puts, and how many."""
        self.counts: Counter[str] = Counter(dict.fromkeys(("served", "acknowledged", "yielded", "violations"), 0))
        self.violations: list[str] = []
        """The first ones, as sentences."""
        self._signed: dict[tuple[bytes, int], bytes] = {}
        self._floors: dict[int, dict[bytes, tuple[int, float]]] = {}
        self._puts: dict[int, dict[tuple[bytes, bytes], tuple[bytes, int, float]]] = {}

    def signed(self, item: MutableItem) -> None:
        """An honest person made this item.  (A public key and seq stand for one value.)"""
        self._signed[item.public, item.seq] = _digest(item.value)

    def genuine(self, item: Item | None) -> bool:
        """Whether its owner made this item, so and not otherwise."""
        return isinstance(item, MutableItem) and self._signed.get((item.public, item.seq)) == _digest(item.value)

    def yielded(self, now: float, host: Host, item: Item) -> None:
        """A look-up of this host handed up an item."""
        self.counts["yielded"] += 1
        if not self.genuine(item):
            self.violate(now, f"a look-up of host {host.number} yielded an item that nobody signed")

    def violate(self, now: float, sentence: str) -> None:
        """Something that must not be."""
        self.counts["violations"] += 1
        if len(self.violations) < VIOLATIONS_SHOWN:
            self.violations.append(f"at {now:.3f} s: {sentence}")

    def gone(self, host: Host) -> None:
        """The host lost its memory: what it promised no longer binds it."""
        self._floors.pop(host.number, None)
        self._puts.pop(host.number, None)
        self.watched.pop(host.number, None)

    def saw(self, now: float, host: Host, source: Endpoint, dest: Endpoint, door: Door | None, data: bytes) -> None:
        """A datagram on the line; called for those with the mark and those of watched hosts."""
        message = bencode2.bdecode(data)
        kind = message[b"y"]
        if kind == b"q":
            if message[b"q"] == b"put" and b"k" in message[b"a"]:
                self._put_sent(now, source, door, message)
            return
        if host.number in self.watched:
            self._put_answered(now, host, dest, message)
        if kind == b"r" and b"v" in message[b"r"] and b"k" in message[b"r"]:
            self._served(now, host, message[b"r"])

    def _put_sent(self, now: float, source: Endpoint, door: Any, message: dict[bytes, Any]) -> None:
        number = getattr(door, "number", None)  # what stands behind a NAT box is not followed
        if number is None:
            return
        arguments = message[b"a"]
        waiting = self._puts.setdefault(number, {})
        for key in [key for key, (_, _, sent) in waiting.items() if now - sent > PUT_ANSWER_SECONDS]:
            del waiting[key]
        waiting[source, message[b"t"]] = (arguments[b"k"], arguments[b"seq"], now)
        self.watched[number] = len(waiting)

    def _put_answered(self, now: float, host: Host, dest: Endpoint, message: dict[bytes, Any]) -> None:
        waiting = self._puts[host.number]
        found = waiting.pop((dest, message[b"t"]), None)
        if not waiting:
            del self._puts[host.number], self.watched[host.number]
        if found is not None and message[b"y"] == b"r":
            public, seq, _ = found
            self.counts["acknowledged"] += 1
            self._floors.setdefault(host.number, {})[public] = (max(seq, self._floor(now, host, public)), now)

    def _served(self, now: float, host: Host, values: dict[bytes, Any]) -> None:
        self.counts["served"] += 1
        public, seq = values[b"k"], values[b"seq"]
        if self._signed.get((public, seq)) != _digest(bencode2.bencode(values[b"v"])):
            self.violate(now, f"host {host.number} served an item that nobody signed")
        floor = self._floor(now, host, public)
        if seq < floor:
            self.violate(now, f"host {host.number} served seq {seq} after seq {floor} of {public.hex()[:8]}")
        elif seq > floor:
            self._floors.setdefault(host.number, {})[public] = (seq, now)

    def _floor(self, now: float, host: Host, public: bytes) -> int:
        seq, when = self._floors.get(host.number, {}).get(public, (-1, now))
        return seq if now - when < ITEM_LIFE_SECONDS else -1
