"""Records for calls: look-ups that start when the network is found, and end with the call that wants them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from meshcall.core import earliest
from meshcall.errors import MeshcallError
from meshcall.record.events import RecordFound, RecordUpdated

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshcall.calls.core import Calls
    from meshcall.record.events import ResolverEvent

JOIN_SECONDS: Final = 6.0
"""So long a call waits for a node that has not found the network yet, and then looks all the same."""


class Finder:
    """Between calls and the look-ups of the node."""

    def __init__(
        self, calls: Calls, look_up: Callable[[float, bytes], int], cancel: Callable[[int], None]
    ) -> None:  # fmt: skip
        """`look_up`: begins one and gives its number, or raises MeshcallError; `cancel`: ends one."""
        self.calls = calls
        self._look_up = look_up
        self._cancel = cancel
        self._waiting: dict[int, float] = {}  # call: when to look, found network or not
        self._running: dict[int, int] = {}  # look-up: call

    def carry(self, now: float, joined: bool) -> None:
        """Start what is wanted, end what is not."""
        calls = self.calls
        if not (calls.wanted or self._waiting or self._running):
            return
        for call in calls.wanted:
            self._waiting[call] = now + JOIN_SECONDS
        calls.wanted.clear()
        for call, due in list(self._waiting.items()):
            identity = calls.identity_of(call)
            if identity is None:
                del self._waiting[call]
            elif joined or due <= now:
                del self._waiting[call]
                try:
                    self._running[self._look_up(now, identity)] = call
                except MeshcallError as problem:
                    calls.finish(now, call, str(problem))
        for lookup in [lookup for lookup, call in self._running.items() if calls.identity_of(call) is None]:
            del self._running[lookup]
            self._cancel(lookup)

    def take(self, now: float, unix_time: float, lookup: int, event: ResolverEvent) -> bool:
        """An event of a look-up; whether it was one of ours."""
        call = self._running.get(lookup)
        if call is None:
            return False
        if isinstance(event, RecordFound | RecordUpdated):
            self.calls.found(now, call, event.record, unix_time)
        else:
            del self._running[lookup]
            self.calls.finish(now, call, event.reason)
        return True

    def wake(self, now: float) -> None:
        """Do what time has made due; `carry` follows."""
        due = self.calls.next_wake()
        if due is not None and due <= now:
            self.calls.wake(now)

    def next_wake(self) -> float | None:
        """When `wake` wants to be called; 0 is at once."""
        if self.calls.wanted:
            return 0.0
        return earliest(self.calls.next_wake(), *self._waiting.values())
