"""`ping` of the daemon: find a person, link to one of their devices, send echoes, say what each one took.

One task for each ping.  It waits for the node's events through the queues of `Switchboard` and speaks to
the node in turns; the time line it gives is in seconds from its beginning.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import trio

from meshcall.address import encode
from meshcall.errors import MeshcallError, UsageError
from meshcall.path.candidates import Trust
from meshcall.path.paths import is_relayed, show_path
from meshcall.peers.events import EchoAnswered, LinkDown, PathChanged, Reached, Unreached
from meshcall.record.events import RecordFound, RecordUpdated, ResolveFinished

if TYPE_CHECKING:
    from meshcall.address import Link
    from meshcall.daemon.live import LiveNode
    from meshcall.drivers.control import EventSink
    from meshcall.path.paths import Path

COUNT_MAX = 100_000
INTERVAL_SECONDS_MIN = 0.01
LAST_WAIT_SECONDS = 2.0
"""How long the answer to the last echo may take."""
QUEUE_MAX = 1024
NO_ECHO = "its device is there, but does not answer your pings: its owner answers those of contacts only, or none"


class PingError(MeshcallError):
    """The person could not be reached."""


class Switchboard:
    """Hands events of reaches and links to the tasks that wait for them."""

    def __init__(self) -> None:
        self._reaches: dict[int, trio.MemorySendChannel[Any]] = {}
        self._links: dict[int, trio.MemorySendChannel[Any]] = {}

    @contextlib.contextmanager
    def reach(self, number: int) -> Iterator[trio.MemoryReceiveChannel[Any]]:
        """The queue of this reach."""
        yield from self._queue(self._reaches, number)

    @contextlib.contextmanager
    def link(self, number: int) -> Iterator[trio.MemoryReceiveChannel[Any]]:
        """The queue of this link."""
        yield from self._queue(self._links, number)

    def take(self, event: Any) -> None:
        """An event of the node; what nobody waits for is dropped."""
        if isinstance(event, Reached | Unreached):
            queue = self._reaches.get(event.reach)
        elif isinstance(event, EchoAnswered | PathChanged | LinkDown):
            queue = self._links.get(event.link)
        else:
            return
        if queue is not None:
            with contextlib.suppress(trio.WouldBlock):  # a reader so slow has lost the count of time anyway
                queue.send_nowait(event)

    @staticmethod
    def _queue(table: dict[int, trio.MemorySendChannel[Any]], number: int) -> Iterator[trio.MemoryReceiveChannel[Any]]:
        sender, receiver = trio.open_memory_channel[Any](QUEUE_MAX)
        table[number] = sender
        try:
            yield receiver
        finally:
            del table[number]
            sender.close()
            receiver.close()


class Ping:
    """One run."""

    def __init__(
        self, live: LiveNode, link: Link, event: EventSink, *, count: int, interval: float, direct: bool, relayed: bool
    ) -> None:
        self._live = live
        self._link = link
        self._event = event
        self._count = count
        self._interval = interval
        self._trust = Trust.FULL if direct else Trust.RELAY_ONLY if relayed else None
        self._relayed = relayed
        self._began = trio.current_time()
        self._line: dict[str, float | None] = dict.fromkeys(
            ("resolved", "first_packet", "handshake", "first_echo", "direct")
        )
        self._trips: list[float] = []
        self._sent = 0
        self._last_path: Path | None = None
        self._reason: str | None = None

    async def run(self) -> dict[str, Any]:
        """Until the last echo is answered or given up.  Raises PingError where nobody can be reached."""
        reached = await self._reach()
        with self._live.switchboard.link(reached.link) as queue:
            try:
                self._step("handshake", path=show_path(reached.path), hybrid=reached.hybrid)
                with trio.CancelScope() as over:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._ask, reached.link, over)
                        await self._listen(queue)
                        nursery.cancel_scope.cancel()
            finally:
                with self._live.driven.turn() as now:
                    self._live.node.people.hang_up(now, reached.link)
        return self._result(reached)

    def _step(self, name: str, **more: Any) -> None:
        """The next step of the time line, the first time it is reached."""
        if self._line[name] is None:
            self._line[name] = trio.current_time() - self._began
            self._event("step", {"step": name, "seconds": _round(self._line[name]), **more})

    async def _reach(self) -> Reached:
        node, driven = self._live.node, self._live.driven
        with driven.turn() as now:
            number = node.people.reach(now, self._link.public, trust=self._trust, relayed_only=self._relayed)
        try:
            with self._live.switchboard.reach(number) as queue, trio.CancelScope():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._resolve, number)
                    said = await queue.receive()
                    nursery.cancel_scope.cancel()
        finally:
            with driven.turn() as now:
                node.people.give_up(now, number)
        if isinstance(said, Reached):
            return said
        raise PingError(f"{encode(self._link.public)} cannot be reached: {said.reason}")

    async def _resolve(self, number: int) -> None:
        """Look the address up and dial what is found, at once and with every newer record."""
        node, driven = self._live.node, self._live.driven

        def found(said: RecordFound | RecordUpdated | ResolveFinished) -> None:
            if isinstance(said, RecordFound | RecordUpdated):
                self._step("resolved")
                if node.people.found(trio.current_time(), number, said.record, time.time()):
                    self._step("first_packet")

        finished = await self._live.resolve(self._link, found)
        with driven.turn() as now:
            if finished.reason is not None and finished.best is None:
                self._live.switchboard.take(Unreached(number, finished.reason))
            else:
                node.people.found(now, number, None, time.time())

    async def _ask(self, link: int, over: trio.CancelScope) -> None:
        due = trio.current_time()
        for number in range(self._count):
            try:
                with self._live.driven.turn() as now:
                    self._live.node.people.echo(now, link, number)
            except UsageError:  # the link is over; the listener hears of it
                return
            self._sent += 1
            due = max(due + self._interval, trio.current_time())
            if number < self._count - 1:
                await trio.sleep_until(due)
        await trio.sleep(LAST_WAIT_SECONDS)
        over.cancel()

    async def _listen(self, queue: trio.MemoryReceiveChannel[Any]) -> None:
        """Until every echo is answered, or the link is over."""
        async for said in queue:
            if isinstance(said, EchoAnswered):
                self._step("first_echo")
                self._trips.append(said.seconds)
                self._last_path = said.path
                if not is_relayed(said.path):
                    self._step("direct", path=show_path(said.path))
                self._event(
                    "echo",
                    {
                        "number": said.number,
                        "seconds": _round(said.seconds),
                        "kind": "relay" if is_relayed(said.path) else "direct",
                        "path": show_path(said.path),
                    },
                )
                if len(self._trips) == self._count:
                    return
            elif isinstance(said, PathChanged):
                if said.best is not None and not is_relayed(said.best):
                    self._step("direct", path=show_path(said.best))
                self._event(
                    "path", {"path": None if said.best is None else show_path(said.best), "reason": said.reason}
                )
            elif isinstance(said, LinkDown):
                self._reason = f"the link is over: {said.reason}"
                return

    def _result(self, reached: Reached) -> dict[str, Any]:
        trips = sorted(self._trips)
        return {
            "address": encode(self._link.public),
            "name": self._link.name,
            "sent": self._sent,
            "answered": len(trips),
            "reason": self._reason or (None if trips else NO_ECHO),
            "round_trip": {
                "least": _round(trips[0] if trips else None),
                "median": _round(trips[len(trips) // 2] if trips else None),
                "most": _round(trips[-1] if trips else None),
            },
            "time_line": {name: _round(seconds) for name, seconds in self._line.items()},
            "first_path": show_path(reached.path),
            "last_path": show_path(self._last_path) if self._last_path is not None else None,
        }


def _round(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)
