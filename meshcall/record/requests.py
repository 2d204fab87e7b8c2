"""What publisher and resolver ask of the DHT: values that the node carries there, and the answers back.

Neither of them knows the DHT.  Whoever holds both starts `Dht.get_mutable` or `Dht.put` for each
request, remembers which operation belongs to which tag, and hands the operation's events to `answered`.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshcall.dht.events import GetFinished, Holder, ItemFound, PutFinished
from meshcall.dht.items import MutableItem


@dataclass(frozen=True, slots=True)
class Get:
    """Look up the newest item under a (blinded) public key, without salt."""

    public: bytes
    tag: int
    """Of the asker's choice, never used twice by one asker."""
    trace: bool = False


@dataclass(frozen=True, slots=True)
class Put:
    """Store an item at these holders, and nowhere else; with `cas` only in place of the item of that seq."""

    item: MutableItem
    cas: int | None
    holders: tuple[Holder, ...]
    tag: int


Request = Get | Put
Answer = ItemFound | GetFinished | PutFinished
