"""The indexes by which our sessions are addressed, whose they are, and the reset tokens that belong to them.

A reset (compare RFC 9000 section 10.3) is how a node that has restarted says so: the token of an index can be
computed again from the device's secret, and the other side was told it inside the handshake.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from meshcall.wire.link import INDEX_BYTES, RESET_TOKEN_BYTES

if TYPE_CHECKING:
    from meshcall.crypto.suite import Suite


class Indexes:
    """All indexes and expected reset tokens of one device.  An owner is a link number."""

    __slots__ = ("_key", "_owners", "_suite", "_tokens")

    def __init__(self, suite: Suite, device_secret: bytes) -> None:
        self._suite = suite
        self._key = hashlib.blake2b(b"meshcall reset 1", key=device_secret, digest_size=32).digest()
        self._owners: dict[bytes, int] = {}
        self._tokens: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._owners)

    def draw(self, owner: int) -> bytes:
        """A random index that nobody else has."""
        while (index := self._suite.random(INDEX_BYTES)) in self._owners:
            pass
        self._owners[index] = owner
        return index

    def free(self, index: bytes) -> None:
        """Give an index back."""
        self._owners.pop(index, None)

    def owner(self, index: bytes) -> int | None:
        """Whose index this is."""
        return self._owners.get(index)

    def token(self, index: bytes) -> bytes:
        """The reset token of an index of ours: 16 bytes."""
        return hashlib.blake2b(index, key=self._key, digest_size=RESET_TOKEN_BYTES).digest()

    def expect(self, token: bytes, owner: int) -> None:
        """From now on this token ends the owner's session."""
        self._tokens[token] = owner

    def forget(self, token: bytes) -> None:
        """From now on this token means nothing."""
        self._tokens.pop(token, None)

    def reset_by(self, token: bytes) -> int | None:
        """Whose session a token ends."""
        return self._tokens.get(token)
