"""One link: a session, its control stream, the paths it was heard on, and when it has to say something."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from meshcall.errors import BadPacket
from meshcall.handshake.events import (
    BROKEN,
    CLOSED_BY_PEER,
    NOT_CONFIRMED,
    SILENT,
    Established,
    Frame,
    LinkEvent,
    Message,
    Roamed,
)
from meshcall.handshake.stream import Stream
from meshcall.wire.link import (
    INNER_ACK,
    INNER_CLOSE,
    INNER_FRAMES_FROM,
    INNER_FRAMES_TO,
    INNER_KEEP_ALIVE,
    INNER_REKEY,
    INNER_SEGMENT,
)

if TYPE_CHECKING:
    from meshcall.handshake.session import Session
    from meshcall.path.paths import Path

CONFIRM_LIMIT_SECONDS: Final = 10.0
"""A session that the initiator does not use within this time is forgotten by the responder."""
SILENCE_EXTRA_SECONDS: Final = 15.0
"""A link that has heard nothing for two keep-alive times and this is over."""
PINNED_SILENCE_SECONDS: Final = 1.0
"""A chosen path that was silent for so long is left for one on which the other side is heard."""
ASK_AGAIN_SECONDS: Final = 1.0
ASK_AGAIN_SECONDS_MAX: Final = 4.0
"""A keep-alive that is not answered is repeated after this time, doubled each time."""
ROUND_TRIP_SECONDS_MAX: Final = 0.25
"""A handshake that took longer may have lost datagrams, and says nothing about the control stream's round trip."""
HEARD_MAX: Final = 16
"""Paths remembered as heard."""


class Link:
    """A session with the peer, from the moment it has keys.

    `outbox` and `events` are handed in and appended to.  `over` says why the link has ended, once it has.
    """

    def __init__(
        self,
        now: float,
        number: int,
        session: Session,
        path: Path,
        *,
        incoming: bool,
        keep_alive: float,
        outbox: list[tuple[Path, bytes]],
        events: list[LinkEvent],
    ) -> None:
        self.number = number
        self.session = session
        self.path = path
        self.incoming = incoming
        self.over: str | None = None
        self.stream = Stream()
        self._outbox = outbox
        self._events = events
        self._established = False
        self._pinned = False
        self._heard: dict[Path, float] = {}
        self._keep_alive = keep_alive
        self._last_sent = now
        self._ask_at = now + keep_alive
        self._ask_pause = ASK_AGAIN_SECONDS
        self._silence = 2 * keep_alive + SILENCE_EXTRA_SECONDS
        self._made_at = now
        self._last_heard = now

    def __repr__(self) -> str:
        return f"<Link {self.number} {'in' if self.incoming else 'out'}>"

    @property
    def established(self) -> bool:
        """Whether it was told upward."""
        return self._established

    @property
    def heard(self) -> Mapping[Path, float]:
        """When something authentic came last on which path."""
        return self._heard

    def establish(self, now: float, round_trip: float) -> None:
        """Tell it upward; `round_trip`: seconds of the handshake.

        The initiator shows its key at once by a first sealed packet.
        """
        self._established = True
        peer = self.session.peer
        if round_trip < ROUND_TRIP_SECONDS_MAX:
            self.stream.round_trip.add(round_trip)
        self._events.append(
            Established(
                self.number, self.path, peer.identity, peer.certificate, self.incoming, self.session.hybrid,
                round_trip,
            )
        )  # fmt: skip
        if not self.incoming:
            self.send(now, INNER_KEEP_ALIVE, b"")

    def set_path(self, path: Path) -> None:
        """Send here from now on, until it falls silent."""
        self._go_by(path)
        self._pinned = True

    def send(self, now: float, kind: int, payload: bytes, path: Path | None = None) -> None:
        """Seal and send one packet."""
        self._last_sent = now
        self._ask_at = now + self._keep_alive
        self._outbox.append((path or self.path, self.session.seal(now, kind, payload)))
        self.over = self.over or self.session.dead

    def send_message(self, now: float, message: bytes) -> None:
        """Send by the control stream.  Raises LinkBusyError and ValueError."""
        self.stream.send(now, message)
        self._flush(now)

    def receive(self, now: float, path: Path, datagram: bytes) -> None:
        """Take a sealed packet that is addressed to this link."""
        opened = self.session.open(now, datagram)
        if opened is None:
            return
        kind, payload = opened
        self._last_heard = now
        self._ask_pause = ASK_AGAIN_SECONDS
        self._ask_at = self._last_sent + self._keep_alive
        self._hear(now, path)
        if not self._established:
            self.path = path
            self.establish(now, now - self._made_at)
            if kind != INNER_KEEP_ALIVE:
                self.send(now, INNER_KEEP_ALIVE, b"")
        elif path != self.path and self.session.newest:
            self._roam(now, path)
        if kind >= INNER_FRAMES_FROM:
            if kind <= INNER_FRAMES_TO:
                self._events.append(Frame(self.number, path, kind, payload))
            else:
                self.session.counters["inner kind"] += 1
        else:
            self._inner(now, path, kind, payload)
        self._flush(now)

    def wake(self, now: float) -> None:
        """Do what is due."""
        if not self._established:
            if now >= self._made_at + CONFIRM_LIMIT_SECONDS:
                self.over = NOT_CONFIRMED
            return
        if now >= self._last_heard + self._silence:
            self.over = SILENT
            return
        self.session.wake(now)
        self.over = self.over or self.session.dead
        if self.over is None:
            self.stream.wake(now)
            self._flush(now)
            if not self.incoming and now >= self._ask_at:
                self.send(now, INNER_KEEP_ALIVE, b"")
                self._ask_at = now + self._ask_pause
                self._ask_pause = min(2 * self._ask_pause, ASK_AGAIN_SECONDS_MAX)

    def next_wake(self) -> float:
        """When `wake` wants to be called."""
        if not self._established:
            return self._made_at + CONFIRM_LIMIT_SECONDS
        soonest = min(self.session.next_wake(), self._last_heard + self._silence)
        if not self.incoming:
            soonest = min(soonest, self._ask_at)
        overdue = self.stream.next_wake()
        return soonest if overdue is None else min(soonest, overdue)

    def say_goodbye(self, now: float) -> None:
        """Tell the other side that the link is over, along the two paths it was heard on last."""
        latest = sorted(self._heard, key=self._heard.__getitem__, reverse=True)
        for path in dict.fromkeys([self.path, *latest[:1]]):
            self.send(now, INNER_CLOSE, b"", path)

    def _inner(self, now: float, path: Path, kind: int, payload: bytes) -> None:
        """Our own kinds."""
        counters = self.session.counters
        try:
            if kind == INNER_SEGMENT:
                self.stream.segment(payload)
            elif kind == INNER_ACK:
                self.stream.ack(now, payload)
            elif kind == INNER_CLOSE:
                self.over = CLOSED_BY_PEER
            elif kind == INNER_KEEP_ALIVE:
                if self.incoming:  # the initiator asks, the responder answers: no echo of an echo
                    self.send(now, INNER_KEEP_ALIVE, b"", path)
            elif kind != INNER_REKEY:
                counters["inner kind"] += 1
        except BadPacket as bad:
            counters[bad.reason] += 1
            if bad.reason == "message size":
                self.over = BROKEN

    def _flush(self, now: float) -> None:
        """What session and stream want to say."""
        if self.session.outbox:
            self._outbox.extend((self.path, datagram) for datagram in self.session.outbox)
            self.session.outbox.clear()
        if self.stream.outbox:
            for kind, payload in self.stream.outbox:
                self.send(now, kind, payload)
            self.stream.outbox.clear()
        if self.stream.messages:
            self._events.extend(Message(self.number, message) for message in self.stream.messages)
            self.stream.messages.clear()

    def _hear(self, now: float, path: Path) -> None:
        if path not in self._heard and len(self._heard) >= HEARD_MAX:
            del self._heard[min(self._heard, key=self._heard.__getitem__)]
        self._heard[path] = now

    def _roam(self, now: float, path: Path) -> None:
        if self._pinned and now - self._heard.get(self.path, self._made_at) < PINNED_SILENCE_SECONDS:
            return
        self._go_by(path)
        self._pinned = False
        self._events.append(Roamed(self.number, path))

    def _go_by(self, path: Path) -> None:
        if path != self.path:
            self.path = path
            self.stream.round_trip.moved()
