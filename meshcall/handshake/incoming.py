"""How many incoming links come from where: bounds for callers whose identities cost nothing."""

from __future__ import annotations

from collections import Counter
from typing import Final

from meshcall.errors import BadPacket
from meshcall.handshake.budget import source_of

INCOMING_MAX: Final = 6144
"""Established incoming links of all the links there may be: whatever others do, there is room to call."""
INCOMING_PER_OWNER_MAX: Final = 256
"""From one IPv4 address or one /48 of IPv6; identities cost nothing, and a silent link lives for minutes."""
INCOMING_PER_FLOW_MAX: Final = 8
"""By one flow of a relay, which is one caller's."""


class Incoming:
    """The owners of established incoming links, by the links' numbers."""

    def __init__(self) -> None:
        self._owned: dict[int, bytes] = {}
        self._owners: Counter[bytes] = Counter()

    def owner_of(self, path: bytes) -> bytes:
        """Whose an incoming link will be.  Raises BadPacket where there are enough of those.

        Asked with its first sealed packet: a first message alone may have been sent in somebody else's name.
        """
        source = source_of(path)
        owner, most = (source, INCOMING_PER_FLOW_MAX) if source == path else (source[:7], INCOMING_PER_OWNER_MAX)
        if self._owners[owner] >= most:
            raise BadPacket("too many links of one caller")
        if len(self._owned) >= INCOMING_MAX:
            raise BadPacket("too many links")
        return owner

    def add(self, link: int, owner: bytes) -> None:
        """This link is established."""
        self._owned[link] = owner
        self._owners[owner] += 1

    def remove(self, link: int) -> None:
        """This link, if it was one, is over."""
        owner = self._owned.pop(link, None)
        if owner is not None:
            self._owners[owner] -= 1
            if not self._owners[owner]:
                del self._owners[owner]
