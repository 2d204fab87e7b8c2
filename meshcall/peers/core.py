"""All links of a device with what lives on them: a prober for each, echoes, and the policy of addresses.

Puts `handshake` and `path` together, which know nothing of each other.  Its outbox and its `receive`
speak of paths; what a path means on the wire is the matter of the one above.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from meshcall.core import earliest
from meshcall.errors import BadPacket, UsageError
from meshcall.handshake.dial import REPEAT_SECONDS, Callee
from meshcall.handshake.events import Closed, Established, Frame, LinkEvent, Message, Roamed
from meshcall.handshake.links import Links
from meshcall.handshake.stream import LinkBusyError
from meshcall.path.budget import ProbeBudget
from meshcall.path.candidates import Trust
from meshcall.path.events import InDoubt, OutsideSeen, OutsideWanted, PathChosen, SocketKept, SocketsClosed
from meshcall.path.life import MappingLife
from meshcall.path.paths import endpoint_of, is_relayed, is_stream
from meshcall.path.prober import Prober
from meshcall.peers.due import Due
from meshcall.peers.events import (
    EchoAnswered,
    LeaseMessage,
    LinkDown,
    LinkUp,
    Moved,
    PathChanged,
    PeerEvent,
    PeerStatus,
    Reached,
    TalkMessage,
)  # fmt: skip
from meshcall.peers.narrow import NarrowLine
from meshcall.peers.peer import Peer
from meshcall.peers.policy import PeerPolicy
from meshcall.peers.reach import Reaches
from meshcall.peers.ways import SocketKey, SocketsOver, by_socket, with_low_ttl
from meshcall.wire.control import (
    FRAME_ECHO_ANSWER,
    FRAME_ECHO_ASK,
    FRAME_VOICE,
    FRAMES_PATH_FROM,
    FRAMES_PATH_TO,
    MESSAGE_CANDIDATES,
    MESSAGE_LEASE,
    MESSAGE_TALK,
    NUMBER_MAX,
    decode_echo,
    encode_echo,
)  # fmt: skip
from meshcall.wire.path import NO_PORTS, Candidate, Kind, Ports

if TYPE_CHECKING:
    from random import Random

    from meshcall.core import Endpoint
    from meshcall.crypto.kem import Kem
    from meshcall.crypto.suite import Suite
    from meshcall.identity import Certificate, Device
    from meshcall.path.paths import Path
    from meshcall.wire.record import DeviceEntry

PROBERS_MAX = 512
"""Links whose paths are looked after; beyond it a stranger's link stays on the path it came by."""
RELAY_KEEP_ALIVE_SECONDS = 300.0
"""On links that carry only lease messages; the checks of the lease keep the NAT's mapping open."""


class Peers:
    """A `core.Core`, with paths in the place of endpoints."""

    def __init__(
        self, now: float, unix_time: float, *, rng: Random, suite: Suite, kem: Kem | None, device: Device,
        identity: bytes, certificate: Certificate, policy: PeerPolicy, families: tuple[int, ...] = (4,),
    ) -> None:  # fmt: skip
        """`identity`: the public key behind `certificate`."""
        self.links = Links(
            now, unix_time, suite=suite, kem=kem, device=device, identity=identity, certificate=certificate
        )
        self.outbox: list[tuple[Path, bytes]] = self.links.outbox
        self.events: list[PeerEvent] = []
        self.special: list[tuple[Endpoint, bytes]] = []
        """What leaves by ways of `peers.ways`; emptied by the owner as `outbox` is."""
        self.kept: dict[Path, SocketKey] = {}
        """Direct paths that leave from an extra socket."""
        self.voice_links: set[int] = set()
        """Links whose voice packets are wanted, as events; the one above fills it."""
        self.counters: Counter[str] = Counter()
        self.policy = policy
        self._key: SocketKey | None = None  # by which the datagram under way came in
        self._rng = rng
        self._own = identity
        self._budget = ProbeBudget(now)
        self._life = MappingLife()
        self._candidates: tuple[Candidate, ...] = ()
        self._ports = NO_PORTS
        self._peers: dict[int, Peer] = {}
        self._probers = 0
        self.reaches = Reaches(
            self.links, self.events, own_static=device.public, families=families, lan=policy.lan
        )  # fmt: skip
        self._lease_dials: set[int] = set()
        self.narrow = NarrowLine(now)
        self._due = Due()

    # Reaching somebody

    def reach(
        self, now: float, identity: bytes, *, trust: Trust | None = None, relayed_only: bool = False,
        keep_all: bool = False,
    ) -> int:  # fmt: skip
        """Begin to reach an identity; tell its records with `found`.  Reached or Unreached of this number follows.

        `trust`: what it may learn of us (None: as the policy says); `relayed_only`: use no address in its record;
        `keep_all`: keep every device that answers, with a Reached for each.  Raises UsageError: too many under way.
        """
        trust = trust or self.policy.trust_of(self._own, identity)
        return self.reaches.begin(identity, trust, relayed_only, keep_all)

    def found(self, now: float, reach: int, devices: Iterable[DeviceEntry]) -> int:
        """Dial these devices of the record, or tell a dial of more paths; how many are being dialled."""
        dialled = self.reaches.found(now, reach, devices)
        self._settle(now)
        return dialled

    def finish(self, now: float, reach: int) -> None:
        """No newer record will come."""
        self.reaches.finish(reach)

    def give_up(self, now: float, reach: int) -> None:
        """Stop an attempt; no event of it follows, and links that it has brought stay."""
        self.reaches.give_up(now, reach)

    def is_reaching(self, reach: int) -> bool:
        """Whether a device may still be reached by this attempt."""
        return reach in self.reaches

    # Links

    def dial_relay(self, now: float, paths: list[Path], static: bytes) -> int:
        """A link that carries lease messages, to whoever has this static key.  Raises DialError."""
        callee = Callee(static, None, hybrid=True)
        link = self.links.dial(now, paths, callee, keep_alive=RELAY_KEEP_ALIVE_SECONDS)
        self._lease_dials.add(link)
        return link

    def say(self, now: float, link: int, data: bytes) -> None:
        """Send a control message; lost where the link is over."""
        self._send_message(now, link, data)
        self._settle(now)

    def send_voice(
        self, now: float, link: int, data: bytes, *, once: bool = False, is_narrow: bool = False
    ) -> tuple[Path, ...]:  # fmt: skip
        """Send a voice packet; the paths it went by, none where the link is over.

        `once`: by the best path only, whatever is doubtful.  `is_narrow`: the line is, or may be, full: few probes.
        """
        if (peer := self._peers.get(link)) is None:
            return ()
        self.narrow.said(now, is_narrow=is_narrow)
        paths = self._send_frame(now, link, peer, FRAME_VOICE, data, once=once, is_narrow=is_narrow)
        self._settle(now)
        return paths

    def expect_voice(self, now: float, link: int) -> None:
        """Voice packets of a link are wanted from now on, and ours are about to flow by it."""
        self.voice_links.add(link)
        if (peer := self._peers.get(link)) is not None and peer.prober is not None:
            peer.prober.expect_stream(now)

    def round_trip(self, link: int) -> float | None:
        """Of the best path of a link in the last seconds, not smoothed."""
        prober = None if (peer := self._peers.get(link)) is None else peer.prober
        return None if prober is None or prober.chosen is None else prober.chosen.trip()

    def report_loss(self, now: float, link: int, loss: float) -> None:
        """The share (0 to 1) of voice packets that the other side of a link did not get."""
        if (peer := self._peers.get(link)) is not None and peer.prober is not None and peer.prober.best is not None:
            peer.prober.report_loss(now, peer.prober.best, loss)
            self._drain(now, link, peer.prober)

    def close(self, now: float, link: int) -> None:
        """End a link or a dial; no event follows."""
        self._lease_dials.discard(link)
        self._forget(link)
        self.links.close(now, link)
        self._settle(now)

    def show(self, now: float, link: int) -> None:
        """Send something authentic on a link, so that the other side sees where we are."""
        try:
            self.links.send_frame(now, link, FRAME_ECHO_ASK, encode_echo(0))
        except UsageError:
            self.counters["message to a link that is over"] += 1
        self._settle(now)

    def is_open(self, link: int) -> bool:
        """Whether there is such a link, past its handshake."""
        return link in self._peers

    def end_of(self, link: int) -> tuple[bytes, bytes, Path] | None:
        """Identity key and static key at the other end of an open link, and the path in use."""
        peer = self._peers.get(link)
        return None if peer is None else (peer.identity, peer.static, self.links.path(link))

    def heard_at(self, link: int) -> float | None:
        """When something authentic last came by an open link."""
        return max(self.links.heard(link).values(), default=None) if link in self._peers else None

    def transcript(self, link: int) -> bytes | None:
        """Of an open link, for its safety words."""
        return self.links.transcript(link) if link in self._peers else None

    def echo(self, now: float, link: int, number: int, size: int = 64) -> tuple[Path, ...]:
        """Send an echo of `size` bytes; EchoAnswered follows if the other side answers.  The paths it went by.

        Raises UsageError where there is no such link.
        """
        if (peer := self._peers.get(link)) is None:
            raise UsageError(f"there is no open link {link}")
        peer.ask(now, number & NUMBER_MAX)
        paths = self._send_frame(now, link, peer, FRAME_ECHO_ASK, encode_echo(number & NUMBER_MAX, size))
        self._settle(now)
        return paths

    def trust(self, now: float, link: int, trust: Trust) -> None:
        """What the other side of a link may learn from now on: a call was accepted, or ended."""
        if (peer := self._peers.get(link)) is not None:
            peer.trust = trust
            if peer.prober is not None:
                peer.prober.set_trust(now, trust)
                self._drain(now, link, peer.prober)
            self._settle(now)

    # What is known of this device

    def set_clock(self, now: float, unix_time: float) -> None:
        """What the calendar says."""
        self.links.set_clock(now, unix_time)

    def set_local(self, now: float, candidates: Iterable[Candidate], ports: Ports) -> None:
        """Where this device may be reached now; every peer that is trusted with it is told."""
        candidates = tuple(candidates)
        if candidates == self._candidates and ports == self._ports:
            return
        self._candidates, self._ports = candidates, ports
        self.reaches.local = tuple(each.endpoint for each in candidates if each.kind is Kind.HOST)
        for link, prober in self._all_probers():
            prober.set_local(now, candidates, ports)
            self._drain(now, link, prober)
        self._settle(now)

    def network_changed(self, now: float) -> None:
        """Another address, or the machine slept."""
        for link, prober in self._all_probers():
            prober.network_changed(now)
            self._drain(now, link, prober)
        self._settle(now)

    def status(self, now: float) -> list[PeerStatus]:
        """All open links."""
        return [peer.status(now, link, self.links.path(link)) for link, peer in self._peers.items()]

    # The members of a core

    def receive(self, now: float, path: Path, datagram: bytes, key: SocketKey | None = None) -> None:
        """Take one datagram of a link; `key`: of the extra socket by which it came."""
        self._key = key
        self.links.receive(now, path, datagram)
        self._settle(now)
        self._key = None

    def receive_lan(self, now: float, source: Path, datagram: bytes) -> None:
        """Take one datagram of the local networks' group; only who is trusted with our addresses is answered."""
        self.links.receive_lan(now, source, datagram, lambda one: self.policy.trust_of(self._own, one).tells)
        self._settle(now)

    def wake(self, now: float) -> None:
        """Do what time has made due."""
        if (due := self.links.next_wake()) is not None and due <= now:
            self.links.wake(now)
        self.reaches.wake(now)
        for link in self._due.pop(now):
            if (peer := self._peers.get(link)) is not None and peer.prober is not None:
                peer.prober.wake(now)
                self._drain(now, link, peer.prober)
        self._settle(now)

    def next_wake(self) -> float | None:
        """When `wake` wants to be called."""
        return earliest(self.links.next_wake(), self.reaches.next_wake(), self._due.next())

    # What links say

    def _settle(self, now: float) -> None:
        while self.links.events:
            events, self.links.events[:] = list(self.links.events), []
            for event in events:
                self._take(now, event)

    def _take(self, now: float, event: LinkEvent) -> None:
        self.links.stirred |= not (isinstance(event, Frame) and event.kind == FRAME_VOICE)
        if isinstance(event, Established):
            self._established(now, event)
        elif isinstance(event, Closed):
            self._closed(now, event)
        elif (peer := self._peers.get(event.link)) is None:
            pass  # it was closed here meanwhile
        elif isinstance(event, Frame):
            self._frame(now, peer, event)
        elif isinstance(event, Message):
            self._message(now, peer, event)
        elif isinstance(event, Roamed):
            self.events.append(Moved(event.link, event.path))
            if peer.prober is not None and not is_stream(event.path):
                peer.prober.heard(now, event.path)
                self._drain(now, event.link, peer.prober)

    def _established(self, now: float, event: Established) -> None:
        link = event.link
        answered = self.reaches.established(now, link)
        trust = self.policy.trust_of(self._own, event.identity) if answered is None else answered[0].trust
        peer = self._peers[link] = Peer(now, event, trust, is_lease=link in self._lease_dials)
        self._lease_dials.discard(link)
        self.events.append(LinkUp(link, event.path, event.identity, event.certificate.static, event.incoming))
        if answered is None:
            return
        reach, took = answered
        self._look_after(now, link, peer, event.path, took if took < REPEAT_SECONDS else None)
        self.events.append(Reached(reach.number, link, event.path, event.hybrid))

    def _closed(self, now: float, event: Closed) -> None:
        self._lease_dials.discard(event.link)
        self._forget(event.link)
        self.events.append(LinkDown(event.link, event.reason))
        self.reaches.closed(event.link, event.reason)

    def _frame(self, now: float, peer: Peer, event: Frame) -> None:
        link, kind = event.link, event.kind
        prober = None if is_stream(event.path) else peer.prober
        if FRAMES_PATH_FROM <= kind <= FRAMES_PATH_TO:
            prober = prober or self._look_after(now, link, peer, event.path, None)
            if prober is not None:
                prober.receive(now, event.path, kind, event.data, self._socket(link))
                self._drain(now, link, prober)
            return
        if prober is not None:
            prober.heard(now, event.path, self._socket(link))
        try:
            if kind == FRAME_VOICE:
                self.narrow.heard(now)
                if link in self.voice_links:
                    self.events.append(event)
                else:
                    self.counters["voice not wanted"] += 1
            elif kind == FRAME_ECHO_ASK:
                self._answer_echo(now, peer, event)
            elif kind == FRAME_ECHO_ANSWER:
                number = decode_echo(event.data)
                asked = peer.asked.pop(number, None)
                if asked is None:
                    self.counters["echo answered twice or late"] += 1
                else:
                    self.events.append(EchoAnswered(link, number, event.path, now - asked))
            else:
                self.counters["frame of unknown kind"] += 1
        except BadPacket as bad:
            self.counters[bad.reason] += 1
        if prober is not None:
            self._drain(now, link, prober, is_voice=kind == FRAME_VOICE)

    def _answer_echo(self, now: float, peer: Peer, event: Frame) -> None:
        """Back where it came from, so that the asker learns of that path and no other."""
        decode_echo(event.data)
        if not self.policy.answers_ping(self._own, peer.identity):
            self.counters["echo not answered: policy"] += 1
        elif not peer.budget.take(now):
            self.counters["echo not answered: too many"] += 1
        else:
            self.links.send_frame(now, event.link, FRAME_ECHO_ANSWER, event.data, event.path)
            if peer.prober is not None and not is_stream(event.path):
                peer.prober.sent(now, event.path)

    def _message(self, now: float, peer: Peer, event: Message) -> None:
        kind = event.data[0] if event.data else -1
        if kind == MESSAGE_LEASE:
            self.events.append(LeaseMessage(event.link, event.data))
        elif kind == MESSAGE_TALK:
            self.events.append(TalkMessage(event.link, event.data))
        elif kind == MESSAGE_CANDIDATES:
            prober = peer.prober or self._look_after(now, event.link, peer, self.links.path(event.link), None)
            if prober is not None:
                prober.take_message(now, event.data)
                self._drain(now, event.link, prober)
        else:
            self.counters["control message of unknown kind"] += 1

    # Probers

    def _look_after(self, now: float, link: int, peer: Peer, path: Path, rtt: float | None) -> Prober | None:
        """A prober for this link; None where it needs none, or there are too many."""
        if peer.is_lease or is_stream(path) or (self._probers >= PROBERS_MAX and peer.trust is not Trust.FULL):
            return None
        self._probers += 1
        prober = peer.prober = Prober(
            now, rng=self._rng, path=path, budget=self._budget, life=self._life, rtt=rtt, trust=peer.trust,
            candidates=self._candidates, ports=self._ports,
        )  # fmt: skip
        if link in self.voice_links:
            prober.expect_stream(now)
        self._drain(now, link, prober)
        return prober

    def _drain(self, now: float, link: int, prober: Prober, *, is_voice: bool = False) -> None:
        """Send what a prober wants to be sent, and do what it has decided; `is_voice`: after a frame of a stream."""
        if is_voice and prober.is_quiet and not self._peers[link].looks(now):
            return
        self.links.stirred = True
        for data in prober.messages:
            self._send_message(now, link, data)
        prober.messages.clear()
        for frame in prober.outbox:
            try:
                self.links.send_frame(now, link, frame.kind, frame.payload, frame.path)
            except UsageError:  # it ended meanwhile; Closed says so
                break
            if frame.socket and not is_relayed(frame.path):
                way = by_socket(endpoint_of(frame.path), SocketKey(link, frame.socket), low_ttl=frame.low_ttl)
                self.special.append((way, self.outbox.pop()[1]))
            elif frame.low_ttl:
                self.special.append((with_low_ttl(endpoint_of(frame.path)), self.outbox.pop()[1]))
        prober.outbox.clear()
        for event in prober.events:
            if isinstance(event, PathChosen):
                if event.best is not None and link in self._peers:
                    self._set_path(link, event.best)
                self.events.append(PathChanged(link, event.best, event.second, event.reason))
            elif isinstance(event, InDoubt | OutsideSeen | OutsideWanted):
                self.events.append(event)
            elif isinstance(event, SocketKept):
                self.kept[event.path] = SocketKey(link, event.socket)
            elif isinstance(event, SocketsClosed):
                self._close_sockets(link, event.kept)
        prober.events.clear()
        if (due := prober.next_wake()) is not None:
            self._due.set(link, due)
        if prober.chosen is not None:
            self.links.set_patience(link, prober.chosen.patience())

    def _close_sockets(self, link: int, kept: tuple[int, ...]) -> None:
        for path in [path for path, key in self.kept.items() if key.link == link and key.number not in kept]:
            del self.kept[path]
        self.events.append(SocketsOver(link, kept))

    def _all_probers(self) -> list[tuple[int, Prober]]:
        return [(link, peer.prober) for link, peer in self._peers.items() if peer.prober is not None]

    def _socket(self, link: int) -> int:
        return self._key.number if self._key is not None and self._key.link == link else 0

    def _set_path(self, link: int, path: Path) -> None:
        try:
            self.links.set_path(link, path)
        except UsageError:
            self.counters["path of a link that is over"] += 1

    def _send_frame(
        self, now: float, link: int, peer: Peer, kind: int, payload: bytes, *, once: bool = False,
        is_narrow: bool = False,
    ) -> tuple[Path, ...]:  # fmt: skip
        paths = peer.prober.duplicates(now, once=once, is_narrow=is_narrow) if peer.prober is not None else ()
        paths = paths or (self.links.path(link),)
        for path in paths:
            self.links.send_frame(now, link, kind, payload, path)
        if peer.prober is not None:
            self._drain(now, link, peer.prober, is_voice=kind == FRAME_VOICE)
        return paths

    def _send_message(self, now: float, link: int, data: bytes) -> None:
        try:
            self.links.send_message(now, link, data)
        except LinkBusyError:
            self.counters["control stream busy"] += 1
        except UsageError:
            self.counters["message to a link that is over"] += 1

    def _forget(self, link: int) -> None:
        peer = self._peers.pop(link, None)
        self.voice_links.discard(link)
        self._due.forget(link)
        if peer is not None and peer.prober is not None:
            self._probers -= 1
            self._close_sockets(link, ())
