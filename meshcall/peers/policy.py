"""Who is trusted with what: addresses, answers to pings.  Values only; DESIGN and docs/links.md say why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from meshcall.path.candidates import Trust

AnswerPings = Literal["all", "trusted", "nobody"]


@dataclass(frozen=True, slots=True)
class PeerPolicy:
    """What the owner of this device has decided."""

    trusted: frozenset[bytes] = frozenset()
    """Identity keys that may learn the addresses of this device; its own identity always may."""
    answer_pings: AnswerPings = "all"
    """Whose pings are answered.  An answer tells no more than the handshake before it: that the device is there."""

    hides: bool = False
    """Nobody learns an address, not even who is trusted."""
    lan: bool = False
    """Whether trusted identities are also called by the local networks; the owner's driver carries that."""

    def trust_of(self, own: bytes, identity: bytes) -> Trust:
        """What an identity that calls, or is called, may learn."""
        if self.hides:
            return Trust.RELAY_ONLY
        return Trust.FULL if self._knows(own, identity) else Trust.NONE

    def answers_ping(self, own: bytes, identity: bytes) -> bool:
        """Whether a ping of this identity is answered."""
        if self.answer_pings == "trusted":
            return self._knows(own, identity)
        return self.answer_pings == "all"

    def _knows(self, own: bytes, identity: bytes) -> bool:
        return identity in self.trusted or identity == own
