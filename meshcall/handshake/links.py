"""The core of all links of a device: dials, answers, sessions, by their numbers.

It knows paths only as names for where a datagram goes and came from.  What it never does: answer somebody
who does not know this device's public key, keep anything for a sender of single pieces beyond narrow bounds,
or tell anything upward of a caller that has not shown its key in a sealed packet.
Two devices that dial each other at once get two links, and both work; who sits above keeps one.
"""

from __future__ import annotations

import heapq
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from meshcall.core import earliest
from meshcall.errors import BadPacket, UsageError
from meshcall.handshake.budget import Budget
from meshcall.handshake.cookie import mac1_fits, mac_key
from meshcall.handshake.dial import Callee, Dial, DialError, start_handshake
from meshcall.handshake.events import LOST_BY_PEER, NO_ANSWER, WRONG_IDENTITY, Closed, LinkEvent
from meshcall.handshake.incoming import Incoming
from meshcall.handshake.indexes import Indexes
from meshcall.handshake.link import Link
from meshcall.handshake.noise import Handshake, KeyPair
from meshcall.handshake.replay import encode_time
from meshcall.handshake.responder import Caller, Responder, check_identity
from meshcall.handshake.session import Epoch, Peer, Session
from meshcall.handshake.stream import WAITING_BYTES_MAX, LinkBusyError
from meshcall.identity import STATIC_BYTES, Certificate
from meshcall.wire.link import (
    FORM_HYBRID,
    FORM_SECOND,
    INNER_FRAMES_FROM,
    INNER_FRAMES_TO,
    KIND_COOKIE,
    KIND_PIECE,
    KIND_RESET,
    KIND_SEALED,
    SEALED_OVERHEAD_BYTES,
    Answer,
    Offer,
    Piece,
    decode_answer,
    decode_cookie,
    decode_piece,
    decode_reset,
    encode_offer,
    encode_reset,
)

if TYPE_CHECKING:
    from meshcall.crypto.kem import Kem
    from meshcall.crypto.suite import Suite
    from meshcall.identity import Device
    from meshcall.path.paths import Path

LINKS_MAX: Final = 8192
"""Links and dials together."""
PENDING_MAX: Final = 1024
"""Answered handshakes whose initiator has not shown its key yet; the oldest gives way."""
RESETS_PER_SECOND: Final = 20.0
KEEP_ALIVE_SECONDS: Final = 25.0
"""Below the life of nearly every NAT's mapping (RFC 4787: at least 120, seen: 30)."""


class Links:
    """All links of one device.  A `core.Core`, with paths in the place of endpoints."""

    def __init__(
        self,
        now: float,
        unix_time: float,
        *,
        suite: Suite,
        kem: Kem | None,
        device: Device,
        identity: bytes,
        certificate: Certificate,
        resets: bool = False,
    ) -> None:
        """`kem`: None for a device that does not offer ML-KEM.  `identity`: the public key behind `certificate`.

        `resets`: whether to answer packets of sessions that a restart has lost, so that the other side knows at once.
        For relays: the answers are the same wherever the device is, so a wanderer would be known by them.
        """
        self.outbox: list[tuple[Path, bytes]] = []
        self.events: list[LinkEvent] = []
        self.counters: Counter[str] = Counter()
        self.stirred = True
        """Something has happened that may have brought `next_wake` nearer; the owner clears it."""
        self.blocked: frozenset[bytes] = frozenset()
        """Identities that get no answer to their handshakes."""
        self._suite = suite
        self._kem = kem
        self._static = KeyPair(device.secret, device.public)
        self._identity = identity
        self._certificate = certificate
        self._offset = unix_time - now
        self._last_time = 0
        self._indexes = Indexes(suite, device.secret)
        self._responder = Responder(now, suite, kem, self._static)
        self._mac_key = mac_key(device.public)
        self._resets = Budget(now, RESETS_PER_SECOND, RESETS_PER_SECOND) if resets else None
        self._last_number = 0
        self._dials: dict[int, Dial] = {}
        self._links: dict[int, Link] = {}
        self._pending: OrderedDict[int, None] = OrderedDict()  # incoming links that are not established yet
        self._incoming = Incoming()
        self._deadlines: list[tuple[float, int]] = []
        self._scheduled: dict[int, float] = {}

    def __len__(self) -> int:
        return len(self._links)

    # Commands

    def set_clock(self, now: float, unix_time: float) -> None:
        """What the calendar says; between two tellings it runs on with `now`."""
        self._offset = unix_time - now

    def set_certificate(self, certificate: Certificate) -> None:
        """A renewed certificate of the same device, for handshakes from now on."""
        self._certificate = certificate

    def dial(
        self, now: float, paths: list[Path], callee: Callee, *, keep_alive: float = KEEP_ALIVE_SECONDS,
        lan: Path | None = None,
    ) -> int:  # fmt: skip
        """Call a device along all paths at once; the number of the link to be.  Established or Closed follows.

        `lan`: a path to all devices of the local networks; the callee answers from an address of its own.
        `keep_alive`: after so many seconds without other packets something is sent; 1 to 65535.
        Raises DialError where it cannot be called at all.
        """
        if callee.hybrid and self._kem is None:
            raise DialError("the other device speaks only with ML-KEM, which this one does not offer")
        if len(self._links) + len(self._dials) >= LINKS_MAX:
            raise DialError("too many links are open")
        number = self._number()
        index = self._indexes.draw(number)
        handshake = start_handshake(
            self._suite, self._kem, self._static, index, hybrid=callee.hybrid, remote_static=callee.static
        )
        offer = Offer(
            self._time(now), self._identity, self._certificate.encode()[STATIC_BYTES:],
            max(1, min(round(keep_alive), 65535)), self._indexes.token(index),
        )  # fmt: skip
        try:
            dial = Dial(now, number, callee, handshake, index, encode_offer(offer), paths, keep_alive, lan)
        except BadPacket:
            self._indexes.free(index)
            raise DialError("the other device's key is none") from None
        self._dials[number] = dial
        self.outbox += dial.repeat(now)
        self._schedule(number, dial.next_wake())
        return number

    def add_paths(self, now: float, link: int, paths: list[Path]) -> None:
        """More ways to a device that is being dialled; without effect once it has answered."""
        dial = self._dials.get(link)
        if dial is not None:
            for path in dial.add_paths(now, paths):
                self.outbox += [(path, datagram) for datagram in dial.datagrams(now, path)]

    def send_message(self, now: float, link: int, message: bytes) -> None:
        """Send up to 16 KiB by the control stream; while the link is dialled it waits for the answer.

        Raises LinkBusyError where too much is waiting, UsageError where there is no such link.
        """
        dial = self._dials.get(link)
        if dial is not None:
            if sum(map(len, dial.messages)) + len(message) > WAITING_BYTES_MAX:
                raise LinkBusyError
            dial.messages.append(message)
            return
        found = self._open_link(link)
        found.send_message(now, message)
        self._touched(now, found)

    def send_frame(self, now: float, link: int, kind: int, payload: bytes, path: Path | None = None) -> None:
        """Send one frame, of kind 16 to 63, along a path or the one in use.  Raises UsageError: no such link."""
        if not INNER_FRAMES_FROM <= kind <= INNER_FRAMES_TO:
            raise ValueError(f"{kind} is not a kind for frames")
        found = self._open_link(link)
        found.send(now, kind, payload, path)
        if found.over is not None:
            self._touched(now, found)

    def set_path(self, link: int, path: Path) -> None:
        """Send along this path from now on.  Raises UsageError where there is no such link."""
        self._open_link(link).set_path(path)

    def close(self, now: float, link: int) -> None:
        """End a link or a dial; the other side is told, messages still waiting are lost.  No event follows."""
        if self._dials.get(link) is not None:
            self._end_dial(link)
        elif (found := self._links.get(link)) is not None:
            found.say_goodbye(now)
            self._end_link(found)

    # What is known of a link

    def path(self, link: int) -> Path:
        """The path in use."""
        return self._open_link(link).path

    def heard(self, link: int) -> Mapping[Path, float]:
        """When something authentic came last, by path."""
        return self._open_link(link).heard

    def transcript(self, link: int) -> bytes:
        """64 bytes that both sides share and nobody else knows beforehand; for `safety.safety_words`."""
        return self._open_link(link).session.transcript

    def peer(self, link: int) -> Peer:
        """Who is at the other end."""
        return self._open_link(link).session.peer

    def waiting_bytes(self, link: int) -> int:
        """Of messages that the other side has not acknowledged."""
        return self._open_link(link).stream.waiting_bytes

    def set_patience(self, link: int, seconds: float | None) -> None:
        """How long an answer by the path in use may take, None: unknown; a link that is over does not matter."""
        if (found := self._links.get(link)) is not None:
            found.stream.round_trip.patience = seconds

    def round_trip(self, link: int) -> float | None:
        """The control stream's smoothed round trip in seconds; None before the first."""
        return self._open_link(link).stream.round_trip.seconds

    # The five members

    def receive(self, now: float, path: Path, datagram: bytes) -> None:
        """Take one datagram.  What is wrong with it is counted, and it is dropped."""
        kind = datagram[0] if datagram else -1
        try:
            if kind == KIND_SEALED:
                self._sealed(now, path, datagram)
                return
            self.stirred = True
            if kind == KIND_PIECE:
                self._piece(now, path, datagram)
            elif kind == KIND_COOKIE:
                self._cookie(now, path, datagram)
            elif kind == KIND_RESET:
                self._reset(now, datagram)
            else:
                self.counters["unknown kind"] += 1
        except BadPacket as bad:
            self.counters[bad.reason] += 1

    def receive_lan(self, now: float, path: Path, datagram: bytes, trusts: Callable[[bytes], bool]) -> None:
        """Take one datagram of the local networks' group; `path`: straight to its sender.

        Nobody is answered, not even with a cookie, but who proves an identity that `trusts` says yes to.
        """
        self.stirred = True
        try:
            piece = decode_piece(datagram)
            if piece.form & FORM_SECOND:
                raise BadPacket("lan: no first message")
            if not mac1_fits(datagram, self._mac_key):
                raise BadPacket("lan: for somebody else")
            found = self._responder.take_lan(now, now + self._offset, path, piece, trusts)
            if isinstance(found, Caller):
                found = self._answer(now, path, found)
            if found:
                self.outbox += [(path, answer) for answer in found]
        except BadPacket as bad:
            self.counters[bad.reason] += 1

    def wake(self, now: float) -> None:
        """Do what time has made due."""
        self._responder.expire(now)
        while self._deadlines and self._deadlines[0][0] <= now:
            when, number = heapq.heappop(self._deadlines)
            if self._scheduled.get(number) != when:
                continue
            del self._scheduled[number]
            if (dial := self._dials.get(number)) is not None:
                self._wake_dial(now, dial)
            elif (link := self._links.get(number)) is not None:
                if link.next_wake() <= now:
                    link.wake(now)
                self._touched(now, link)

    def next_wake(self) -> float | None:
        """When `wake` wants to be called."""
        while self._deadlines and self._scheduled.get(self._deadlines[0][1]) != self._deadlines[0][0]:
            heapq.heappop(self._deadlines)
        expiry = self._responder.next_expiry()
        return earliest(expiry, self._deadlines[0][0]) if self._deadlines else expiry

    # Datagrams

    def _sealed(self, now: float, path: Path, datagram: bytes) -> None:
        number = self._indexes.owner(datagram[1:5])
        link = None if number is None else self._links.get(number)
        if link is not None:
            owner = self._incoming.owner_of(path) if number in self._pending else None
            link.receive(now, path, datagram)
            if owner is not None and link.established:
                del self._pending[link.number]
                self._incoming.add(link.number, owner)
            self._touched(now, link)
            return
        self.counters["sealed unknown"] += 1
        if number is not None or self._resets is None or len(datagram) < SEALED_OVERHEAD_BYTES:
            return
        if self._resets.take(now):
            self.outbox.append((path, encode_reset(self._indexes.token(datagram[1:5]))))

    def _reset(self, now: float, datagram: bytes) -> None:
        number = self._indexes.reset_by(decode_reset(datagram))
        link = None if number is None else self._links.get(number)
        if link is None:
            raise BadPacket("reset unknown")
        link.over = LOST_BY_PEER
        self._touched(now, link)

    def _cookie(self, now: float, path: Path, datagram: bytes) -> None:
        index, nonce, sealed = decode_cookie(datagram)
        number = self._indexes.owner(index)
        dial = None if number is None else self._dials.get(number)
        if dial is None or not dial.budget.take(now):
            raise BadPacket("cookie unknown")
        if dial.take_cookie(now, path, self._suite, nonce, sealed):
            self.outbox += [(path, piece) for piece in dial.datagrams(now, path)]

    def _piece(self, now: float, path: Path, datagram: bytes) -> None:
        piece = decode_piece(datagram)
        if not mac1_fits(datagram, self._mac_key):
            raise BadPacket("piece mac1")
        if piece.form & FORM_SECOND:
            self._second(now, path, piece)
            return
        try:
            found = self._responder.take(now, now + self._offset, path, datagram, piece)
        finally:
            reply, self._responder.gate.reply = self._responder.gate.reply, None
            if reply is not None:
                self.outbox.append((path, reply))
        if isinstance(found, Caller):
            found = self._answer(now, path, found)
        if found:
            self.outbox += [(path, piece) for piece in found]

    # Handshakes

    def _answer(self, now: float, path: Path, caller: Caller) -> list[bytes]:
        """A session for a caller who has proved an identity; told upward only with its first sealed packet."""
        if caller.peer.identity in self.blocked:
            raise BadPacket("blocked")
        if len(self._links) + len(self._dials) >= LINKS_MAX:
            raise BadPacket("too many links")
        number = self._number()
        index = self._indexes.draw(number)
        answer = Answer(
            index, self._identity, self._certificate.encode()[STATIC_BYTES:], self._indexes.token(index)
        )  # fmt: skip
        try:
            datagrams = self._responder.answer(caller, answer)
        except BadPacket:
            self._indexes.free(index)
            raise
        session = self._session(
            now, number, caller.handshake, caller.peer, index, caller.index, caller.offer.reset_token,
            starter=False, hybrid=self._kem is not None,
        )  # fmt: skip
        self._add_link(now, number, session, path, incoming=True, keep_alive=float(caller.offer.keep_alive))
        self._pending[number] = None
        if len(self._pending) > PENDING_MAX:
            oldest, _ = self._pending.popitem(last=False)
            self._end_link(self._links[oldest])
            self.counters["pending dropped"] += 1
        return datagrams

    def _second(self, now: float, path: Path, piece: Piece) -> None:
        number = self._indexes.owner(piece.index)
        dial = None if number is None else self._dials.get(number)
        if dial is None:
            raise BadPacket("answer late")
        if bool(piece.form & FORM_HYBRID) != dial.callee.hybrid:
            raise BadPacket("answer unfit")
        message = dial.answer_piece(now, path, piece)
        if message is None:
            return
        payload = dial.handshake.read(message)
        if payload is None:
            raise BadPacket("answer forged")
        self._answered(now, path, dial, decode_answer(payload))

    def _answered(self, now: float, path: Path, dial: Dial, answer: Answer) -> None:
        """The callee has proved its static key; whether it is who we called, its certificate must say."""
        certificate = Certificate.decode(dial.callee.static + answer.certificate)
        known = dial.callee.identity in (None, answer.identity)
        if not known or not check_identity(self._suite, answer.identity, certificate, now + self._offset):
            self._end_dial(dial.number)
            self.events.append(Closed(dial.number, WRONG_IDENTITY))
            return
        del self._dials[dial.number]
        session = self._session(
            now, dial.number, dial.handshake, Peer(answer.identity, certificate), dial.index, answer.index,
            answer.reset_token, starter=True, hybrid=dial.callee.hybrid,
        )  # fmt: skip
        link = self._add_link(now, dial.number, session, path, incoming=False, keep_alive=dial.keep_alive)
        link.establish(now, now - dial.sent_at)
        for message in dial.messages:
            link.send_message(now, message)
        self._touched(now, link)

    def _session(
        self, now: float, number: int, handshake: Handshake, peer: Peer, index: bytes, send_index: bytes, token: bytes,
        *, starter: bool, hybrid: bool,
    ) -> Session:  # fmt: skip
        return Session(
            now, suite=self._suite, kem=self._kem if hybrid else None, static=self._static, peer=peer,
            indexes=self._indexes, owner=number, starter=starter, counters=self.counters,
            epoch=Epoch(now, self._suite, handshake, index, send_index, token),
        )  # fmt: skip

    # Housekeeping

    def _number(self) -> int:
        self._last_number += 1
        return self._last_number

    def _time(self, now: float) -> bytes:
        """The time of a first message: never the same twice, whatever the clock does."""
        self._last_time = max(self._last_time + 1, int((now + self._offset) * 10**9))
        return encode_time(self._last_time)

    def _open_link(self, number: int) -> Link:
        link = self._links.get(number)
        if link is None:
            raise UsageError(f"there is no open link {number}")
        return link

    def _add_link(
        self, now: float, number: int, session: Session, path: Path, *, incoming: bool, keep_alive: float
    ) -> Link:
        link = self._links[number] = Link(
            now, number, session, path, incoming=incoming, keep_alive=keep_alive, outbox=self.outbox,
            events=self.events,
        )  # fmt: skip
        self._schedule(number, link.next_wake())
        return link

    def _touched(self, now: float, link: Link) -> None:
        """After anything that may have ended the link or brought its next deadline nearer."""
        if link.over is None:
            self._schedule(link.number, link.next_wake())
            return
        self._end_link(link)
        if link.established:
            self.events.append(Closed(link.number, link.over))

    def _wake_dial(self, now: float, dial: Dial) -> None:
        if now >= dial.give_up_at:
            self._end_dial(dial.number)
            self.events.append(Closed(dial.number, NO_ANSWER))
            return
        dial.expire(now)
        self.outbox += dial.repeat(now)
        self._schedule(dial.number, dial.next_wake())

    def _end_dial(self, number: int) -> None:
        self._indexes.free(self._dials.pop(number).index)
        self._scheduled.pop(number, None)

    def _end_link(self, link: Link) -> None:
        link.session.close()
        self._links.pop(link.number, None)
        self._pending.pop(link.number, None)
        self._incoming.remove(link.number)
        self._scheduled.pop(link.number, None)

    def _schedule(self, number: int, when: float) -> None:
        """A deadline that has moved further away is found out when the old one comes."""
        before = self._scheduled.get(number)
        if before is None or when < before:
            self._scheduled[number] = when
            self.stirred = True
            heapq.heappush(self._deadlines, (when, number))
