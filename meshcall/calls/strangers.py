"""People who want to call and are no contacts: a bounded list for the user to look at.  Nothing of it rings."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from meshcall.handshake.budget import Budget

STRANGERS_MAX: Final = 64
"""The ones that have not asked for longest give way: keys cost nothing, so who floods can empty the list."""
TELL_PER_SECOND: Final = 0.1
TELL_BURST: Final = 8.0
"""Events about new ones."""


@dataclass(slots=True)
class Stranger:
    """Somebody who called and was told that it does not ring."""

    identity: bytes
    first_at: float
    last_at: float
    """Monotonic."""
    times: int = 1


class Strangers:
    """The list."""

    def __init__(self, now: float) -> None:
        self._kept: OrderedDict[bytes, Stranger] = OrderedDict()
        self._budget = Budget(now, TELL_PER_SECOND, TELL_BURST)

    def __len__(self) -> int:
        return len(self._kept)

    def asked(self, now: float, identity: bytes) -> bool:
        """Somebody called; whether that is worth an event."""
        known = self._kept.get(identity)
        if known is not None:
            known.last_at = now
            known.times += 1
            self._kept.move_to_end(identity)
            return False
        self._kept[identity] = Stranger(identity, now, now)
        if len(self._kept) > STRANGERS_MAX:
            self._kept.popitem(last=False)
        return self._budget.take(now)

    def forget(self, identity: bytes) -> bool:
        """The user has decided about one; whether it was there."""
        return self._kept.pop(identity, None) is not None

    def all(self) -> list[Stranger]:
        """The latest first."""
        return list(reversed(self._kept.values()))
