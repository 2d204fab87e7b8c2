"""Who rings here, who is answered at once, and who learns our addresses in a call.  Values and pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

from meshcall.path.candidates import Trust

Direct = Literal["contacts", "accepted", "never"]
Ring = Literal["contacts", "all"]


class Standing(Enum):
    """What somebody who calls is to us."""

    CONTACT = "contact"
    STRANGER = "stranger"
    BLOCKED = "blocked"


@dataclass(frozen=True, slots=True)
class CallPolicy:
    """What the owner of this device has decided."""

    contacts: frozenset[bytes] = frozenset()
    """Identity keys of people whose calls ring."""
    blocked: frozenset[bytes] = frozenset()
    """Identity keys that get silence; it counts more than being a contact."""
    ring: Ring = "contacts"
    """Whose calls ring; other people's are kept as requests."""
    direct: Direct = "accepted"
    """With whom a call may leave the relay, which shows each other's IP address: contacts only, with everybody once
    the call was accepted, or nobody."""
    auto_answer: Literal["contacts", "nobody"] | frozenset[bytes] = "nobody"
    """Whose calls are answered without asking."""
    kbit_per_second: int = 70
    """What this device wants to receive at most, headers included; 1 to 65535."""

    def standing(self, own: bytes, identity: bytes) -> Standing:
        """What an identity is to us; `own` is our own, whose other devices are contacts."""
        if identity in self.blocked:
            return Standing.BLOCKED
        return Standing.CONTACT if identity in self.contacts or identity == own else Standing.STRANGER

    def rings(self, own: bytes, identity: bytes) -> bool:
        """Whether a call of this identity rings."""
        standing = self.standing(own, identity)
        return standing is Standing.CONTACT or (standing is Standing.STRANGER and self.ring == "all")

    def answers(self, own: bytes, identity: bytes) -> bool:
        """Whether a call of this identity, which rings, is answered at once."""
        if isinstance(self.auto_answer, frozenset):
            return identity in self.auto_answer
        return self.auto_answer == "contacts" and self.standing(own, identity) is Standing.CONTACT

    def trust(self, own: bytes, identity: bytes, *, accepted: bool) -> Trust:
        """What the other side may learn of us by the link of a call; `accepted`: both sides want the call."""
        if self.direct == "never":
            return Trust.RELAY_ONLY
        if self.standing(own, identity) is Standing.CONTACT or (accepted and self.direct == "accepted"):
            return Trust.FULL
        return Trust.NONE
