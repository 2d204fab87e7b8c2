"""Write tokens (BEP 5): who writes here has shown that datagrams sent to its address reach it.

A token is a keyed hash of the address, so nothing is kept for those who asked for one.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from meshcall.core import Endpoint

if TYPE_CHECKING:
    from random import Random

TOKEN_BYTES = 8
SECRET_BYTES = 16
SECRET_LIFE_SECONDS = 300.0
"""A token is good while its secret is the present one or the one before: 5 to 10 minutes, as BEP 5 proposes."""


class Tokens:
    """Makes and checks the tokens of one node.  `rng` must be unpredictable outside simulations."""

    __slots__ = ("_before", "_due", "_present", "_rng")

    def __init__(self, now: float, rng: Random) -> None:
        self._rng = rng
        self._present = self._before = rng.randbytes(SECRET_BYTES)
        self._due = now + SECRET_LIFE_SECONDS

    def make(self, now: float, endpoint: Endpoint) -> bytes:
        """The token, 8 bytes, for the address of `endpoint`; its port may change (NATs do that)."""
        if now >= self._due:
            self._rotate(now)
        return hashlib.blake2b(endpoint[:-2], digest_size=TOKEN_BYTES, key=self._present).digest()

    def good(self, now: float, endpoint: Endpoint, token: bytes) -> bool:
        """Whether `token` was made here for this address at most ten minutes ago."""
        if now >= self._due:
            self._rotate(now)
        host = endpoint[:-2]
        expected = hashlib.blake2b(host, digest_size=TOKEN_BYTES, key=self._present).digest()
        if hmac.compare_digest(expected, token):
            return True
        expected = hashlib.blake2b(host, digest_size=TOKEN_BYTES, key=self._before).digest()
        return hmac.compare_digest(expected, token)

    def _rotate(self, now: float) -> None:
        # after a long silence the present secret is too old even to be the one before
        fresh = self._rng.randbytes(SECRET_BYTES)
        overslept = now >= self._due + SECRET_LIFE_SECONDS
        self._before = fresh if overslept else self._present
        self._present = fresh
        self._due = now + SECRET_LIFE_SECONDS
