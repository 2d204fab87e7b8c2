"""The paths of one link: probes them, measures, chooses, keeps a second one warm and opens better ones.

No crypto, no sockets.  The owner hands in what came out of sealed packets, with the path it came by,
and sends `outbox` and `messages`, sealed.  Frames of a call go by the paths that `duplicates` names.
The drain rule of `core` holds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from meshcall.core import Endpoint, earliest
from meshcall.endpoints import is_private
from meshcall.errors import BadPacket
from meshcall.path.budget import ProbeBudget
from meshcall.path.candidates import Trust, relays_named
from meshcall.path.choice import choose, doubles
from meshcall.path.events import (
    Frame,
    InDoubt,
    OutsideSeen,
    OutsideWanted,
    PathChosen,
    PathEvent,
    PathLost,
    ProberStatus,
    SocketKept,
    SocketsClosed,
)
from meshcall.path.exchange import Exchange
from meshcall.path.health import CLOCK_GRAIN_SECONDS, NARROW_SLACK_SECONDS, Health, State
from meshcall.path.life import MappingLife
from meshcall.path.paths import Path, direct, endpoint_of, is_relayed, is_tcp
from meshcall.path.punch import common_moment, hard_target, probeable
from meshcall.path.punching import Punching
from meshcall.path.rhythm import Place, next_probe, retry_pause
from meshcall.path.table import PATHS_MAX, Table
from meshcall.path.thrift import HELD_SECONDS, NARROW_PROBES_KEPT, Thrift
from meshcall.wire.path import (
    KIND_ANSWER,
    KIND_PROBE,
    NO_PORTS,
    Answer,
    Candidate,
    Kind,
    Mapping,
    Ports,
    Probe,
    decode_answer,
    decode_probe,
    encode_answer,
)

if TYPE_CHECKING:
    from random import Random

RTT_GUESS_SECONDS = 0.1
"""Round trip of the session before it is measured."""
ACTIVE_SECONDS = 1.0
"""A link is in use for so long after the last frame of a call."""
OVERLAP_SECONDS = 0.3
"""After a change, frames go by the old path too."""
DOUBT_SECONDS = 0.3
"""For so long after the peer said that it hears nothing, frames go by both."""
ROAM_SECONDS = 1.0
"""After a change of network."""
CREDIT_MAX = 64
"""Frames that may go by a path not yet proved, one for each that came by it."""
FRAME_RECENT_SECONDS = 0.5
LOOK_SECONDS = 0.25
"""Before punching anew: others are asked how they see us, and answer in this time."""


class Prober:
    """One for each established link."""

    def __init__(
        self,
        now: float,
        *,
        rng: Random,
        path: Path,
        budget: ProbeBudget,
        life: MappingLife,
        rtt: float | None = None,
        trust: Trust = Trust.NONE,
        candidates: Iterable[Candidate] = (),
        ports: Ports = NO_PORTS,
    ) -> None:
        """`path`: where the handshake came through; `rtt`: its round trip in seconds.

        `budget` and `life` are one for all links of the node.  `candidates` and `ports` as for `set_local`.
        """
        self.outbox: list[Frame] = []
        self.messages: list[bytes] = []
        """For the control stream."""
        self.events: list[PathEvent] = []
        self.counters: Counter[str] = Counter()
        self.best: Path | None = None
        self.second: Path | None = None
        self._reason = ""
        self._now = now
        self._life = life
        self._first = path
        self._thrift = Thrift(now)
        self._table = Table(rng, budget, self.outbox, self.counters, self._thrift)
        self._paths = self._table.paths
        self._punching = Punching(rng, budget, self._thrift)
        self._exchange = Exchange(now, self.messages, self.counters, trust, candidates, ports)
        self._active_at: float | None = None
        self._double_until = 0.0
        self._overlap: Path | None = None
        self._suspected: Path | None = None
        self._retries = 0
        self._retry_at: float | None = None
        self._has_sockets = False
        self._stream = Health(now, path)  # of frames by whatever path
        health = self._paths[path] = Health(now, path)
        health.verified = True
        health.heard_at = now
        health.rtt = rtt
        self._decide(now)
        self._table.probe(now, health)
        self._exchange.tell(now, asks=True)

    @property
    def is_quiet(self) -> bool:
        """Whether there is nothing to take out."""
        return not (self.outbox or self.messages or self.events)

    # What came

    def receive(self, now: float, path: Path, kind: int, payload: bytes, socket: int = 0) -> None:
        """Take a frame of the kinds 16 to 31 that came, authentic, by `path` and on `socket`."""
        self._now = now
        if not self._is_welcome(path):
            return
        try:
            if kind == KIND_PROBE:
                self._take_probe(now, path, decode_probe(payload), socket)
            elif kind == KIND_ANSWER:
                self._take_answer(now, path, decode_answer(payload), socket)
            else:
                self.counters["frame of unknown kind"] += 1
        except BadPacket as error:
            self.counters[error.reason] += 1

    def heard(self, now: float, path: Path, socket: int = 0) -> None:
        """Something authentic that is not the path layer's came by this path: a frame, a part of a message."""
        self._now = now
        health = self._paths.get(path)
        if health is None:
            if not self._is_welcome(path):
                return
            health = self._table.meet(now, path, socket, self._kept())
            if health is None:
                return
        health.heard(now, True)
        self._stream.heard(now, True)
        if not health.verified or health.is_lost:
            health.credit = min(health.credit + 1, CREDIT_MAX)
            self._table.check_back(now, health)

    def take_message(self, now: float, data: bytes) -> None:
        """Take a candidates message from the control stream."""
        self._now = now
        if self._exchange.take(now, data, self._rtt()):
            self._punch(now)

    # Commands

    def set_local(self, now: float, candidates: Iterable[Candidate], ports: Ports = NO_PORTS) -> None:
        """Say where this device may be reached now; told to the peer as far as it is trusted, and punched anew."""
        self._now = now
        self._exchange.set_local(now, candidates, ports)

    def set_trust(self, now: float, trust: Trust) -> None:
        """Say whether the peer may hear our addresses from now on."""
        self._now = now
        if trust is self._exchange.trust:
            return
        self._exchange.trust = trust
        if not trust.tells:
            self._punching.stop()
            for path in [path for path in self._paths if not self._is_welcome(path)]:
                self._forget(path)
        self._exchange.tell(now, asks=True)
        if trust.tells and self._exchange.peer_known:
            self._punch(now)
        self._decide(now)

    def network_changed(self, now: float) -> None:
        """Another address, an interface gone, or the machine slept: prove every path anew, tell the peer.

        Tell the new candidates with `set_local`, before or after.
        """
        self._now = now
        self.counters["network changed"] += 1
        self._life.forget()
        self._punching.network_changed()
        self._close_sockets(kept=())
        self._double_until = now + ROAM_SECONDS
        self._retries = 0
        for health in list(self._paths.values()):
            health.moved(now + ROAM_SECONDS)
            self._table.probe(now, health)
        self.events.append(OutsideWanted())
        self._exchange.tell(now, asks=True)
        self._decide(now)

    def unsendable(self, now: float, path: Path) -> None:
        """The system refuses to send there: its interface is gone."""
        self._now = now
        health = self._paths.get(path)
        if health is not None and not health.is_lost:
            self.counters["not sendable"] += 1
            health.kill()
            self._lost(now, health)
            self._decide(now)

    def report_loss(self, now: float, path: Path, loss: float) -> None:
        """The share (0 to 1) of frames lost on the way to the peer by this path, as it counted them."""
        self._now = now
        health = self._paths.get(path)
        if health is not None:
            health.report(now, loss)
            self._decide(now)

    def sent(self, now: float, path: Path) -> None:
        """Something was sent by this path without asking `duplicates`: it needs no keep-alive so soon."""
        health = self._paths.get(path)
        if health is not None:
            health.sent_at = now

    def duplicates(self, now: float, *, once: bool = False, is_narrow: bool = False) -> tuple[Path, ...]:
        """The paths by which a frame of a call is to be sent now: mostly one, two while there is doubt.

        `once`: one in any case, as all paths may share a line that has no room for more.  `is_narrow`: that line
        is, or may be, full: there are few probes, and more time for their answers.
        """
        self._now = now
        self._active_at = now
        self._set_narrow(now, is_narrow)
        paths = [self._first if self.best is None else self.best]
        if self._is_doubtful(now, self._paths[paths[0]]):
            paths += [path for path in (self._overlap, self.second) if path is not None and path not in paths]
            paths = paths[:2]
        if once:
            del paths[1:]
        for path, other in () if once else self._paths.items():
            if other.credit and path not in paths:
                if other.frame_at is not None and now - other.frame_at < FRAME_RECENT_SECONDS:
                    other.credit -= 1
                    paths.append(path)
                else:
                    other.credit = 0
        for path in paths:
            self._paths[path].sent_at = now
        return tuple(paths)

    @property
    def chosen(self) -> Health | None:
        """What is known of the best path."""
        return None if self.best is None else self._paths[self.best]

    def expect_stream(self, now: float) -> None:
        """Frames of a call are about to go out, and what the line carries is not known yet."""
        self._thrift.is_call = True
        if self._active_at is None:
            self._set_narrow(now, True)

    def status(self, now: float) -> ProberStatus:
        """A snapshot, the best path first."""
        shown = self._table.show(now, self.best, self.second)
        return ProberStatus(shown, self._reason, self._punching.tactic.value, self._life.safe(), dict(self.counters))

    # Time

    def wake(self, now: float) -> None:
        """Do what time has made due."""
        self._now = now
        for health in list(self._paths.values()):
            was_lost = health.is_lost
            health.check(now)
            if health.is_lost and not was_lost:
                self._lost(now, health)
        self._look_for_trouble(now)
        for health in list(self._paths.values()):
            due = self._next_probe(now, health)
            if due is not None and due <= now + CLOCK_GRAIN_SECONDS:
                self._table.probe(now, health, is_best=health.path == self.best)
        for step in self._punching.due(now):
            self._has_sockets = self._has_sockets or step.socket > 0
            self._table.send(now, direct(step.endpoint), step.socket, low_ttl=step.low_ttl)
        if (until := self._punching.sockets_until) is not None and until <= now:
            self._close_sockets(kept=tuple(health.socket for health in self._paths.values() if health.socket))
        if self._exchange.tell_at is not None and self._exchange.tell_at <= now:
            self._exchange.tell(now, asks=True)
        if self._retry_at is not None and self._retry_at <= now:
            self._retry(now)
        self._table.tidy(now, self._kept())
        self._decide(now)

    def next_wake(self) -> float | None:
        """When `wake` wants to be called."""
        now = self._now
        times = [self._punching.next_at(), self._punching.sockets_until, self._exchange.tell_at, self._retry_at]
        times.append(self._stream.next_check(now))
        for health in self._paths.values():
            times += self._next_probe(now, health), health.next_check(now)
        return earliest(*times)

    # Probes

    def _take_probe(self, now: float, path: Path, probe: Probe, socket: int) -> None:
        health = self._table.meet(now, path, socket, self._kept())
        observed = None if is_relayed(path) else endpoint_of(path)
        # an answer leaves by the way the probe came, known or not: one for one, and only for what is authentic
        self.outbox.append(Frame(path, KIND_ANSWER, encode_answer(Answer(probe.nonce, observed)), socket))
        if health is None:
            return
        health.heard(now, False)
        health.sent_at = now
        if probe.deaf and self.best is not None:
            self.counters["peer is deaf"] += 1
            best = self._paths[self.best]
            if best.state(now) is State.LIVE:
                best.doubt(now + DOUBT_SECONDS)
                self._look_for_trouble(now)
        if not health.verified or health.is_lost:
            self._table.check_back(now, health)

    def _take_answer(self, now: float, path: Path, answer: Answer, socket: int) -> None:
        asked, same_way = self._table.match(now, path, socket, answer.nonce)
        health = None if asked is None else self._table.meet(now, path, socket, self._kept())
        if asked is None or health is None:
            return
        if not same_way:
            if not health.verified:
                self._table.check_back(now, health)
            return
        was_new = not health.verified or health.is_lost
        health.answered(now, answer.nonce, now - asked.at)
        if answer.observed is not None and len(answer.observed) == len(endpoint_of(path)):
            self._learn(health, answer.observed, asked.silence)
        if was_new:
            self.counters["paths proved"] += 1
            health.credit = 0
            if health.socket:
                self.events.append(SocketKept(path, health.socket))
                self._close_sockets(kept=(health.socket,))
        self._decide(now)

    def _learn(self, health: Health, observed: Endpoint, silence: float) -> None:
        """What the peer sees tells whether our mapping outlived the silence before the probe."""
        if observed == health.observed:
            self._life.survived(silence)
            return
        if health.observed is not None:
            self.counters["rebound"] += 1
            self._life.died(silence)
        health.observed = observed
        if not health.socket and not is_private(observed):
            self.events.append(OutsideSeen(health.path, observed))

    def _next_probe(self, now: float, health: Health) -> float | None:
        is_active = self._active_at is not None and now - self._active_at < ACTIVE_SECONDS
        place = Place.BEST if health.path == self.best else Place.OTHER
        if health.path == self.second:
            place = Place.SECOND
        due = next_probe(
            now, health, place, is_active=is_active, is_doubt=self._suspected is not None,
            life=self._life, has_spare=self.second is not None, is_narrow=self._thrift.is_on,
        )  # fmt: skip
        return due if due is None or place is Place.BEST else max(due, self._thrift.next_at(NARROW_PROBES_KEPT))

    def _set_narrow(self, now: float, is_narrow: bool) -> None:
        if is_narrow is self._thrift.is_on:
            return
        self._thrift.is_on = is_narrow
        for health in self._paths.values():
            health.slack = NARROW_SLACK_SECONDS if is_narrow else 0.0
        if self._punching.is_held and not is_narrow:
            self._punching.is_held = False
            self._retry_at = None if self._retry_at is None else now + HELD_SECONDS  # None: there is a direct path

    def _look_for_trouble(self, now: float) -> None:
        """When the best path falls into doubt, ask all that work at once."""
        best = self.best
        if (is_deaf := self._stream.is_deaf(now)) and not self._table.is_deaf:
            self._suspected = None  # something new to tell
        self._table.is_deaf = is_deaf
        if best is None or (self._paths[best].state(now) is State.LIVE and not is_deaf):
            self._suspected = None
        elif self._suspected != best:
            self._suspected = best
            self.counters["doubts"] += 1
            self.events.append(InDoubt(best))
            for health in list(self._paths.values()):
                if health.verified and not health.is_lost:
                    self._table.probe(now, health)

    # Paths

    def _is_welcome(self, path: Path) -> bool:
        """Before acceptance nothing is answered but by relays and by the path of the handshake."""
        if is_relayed(path) or self._exchange.trust.tells or path == self._first:
            return True
        self.counters["before acceptance"] += 1
        return False

    def _forget(self, path: Path) -> None:
        del self._paths[path]
        if path == self.best:
            self.best = None
        if path == self.second:
            self.second = None
        if path == self._overlap:
            self._overlap = None

    def _lost(self, now: float, health: Health) -> None:
        self.counters["paths lost"] += 1
        health.tries = 0
        self.events.append(PathLost(health.path))
        others = [path for path, other in self._paths.items() if other.verified and not other.is_lost]
        if self._exchange.trust.tells and not others:
            self._meet_relays(now, Kind.RELAY_TCP)
        if self._exchange.trust.tells and not is_relayed(health.path) and all(map(is_relayed, others)):
            self.events.append(OutsideWanted())
            self._retries = 0
            self._exchange.tell(now, asks=True)

    def _is_doubtful(self, now: float, best: Health) -> bool:
        return now < self._double_until or doubles(best.measured(now))

    def _decide(self, now: float) -> None:
        choice = choose([health.measured(now) for health in self._paths.values()], self.best)
        if choice.best != self.best or choice.second != self.second:
            if choice.best != self.best:
                self.counters["changes"] += 1
                self._overlap = self.best
                self._double_until = max(self._double_until, now + OVERLAP_SECONDS)
                self._reason = choice.reason
            self.best, self.second = choice.best, choice.second
            self.events.append(PathChosen(self.best, self.second, self._reason))
        is_direct = self.best is not None and not is_relayed(self.best)
        if is_direct and self.best is not None and self._paths[self.best].state(now) is State.LIVE:
            self._punching.found(now)
            self._retry_at, self._retries = None, 0
        elif self._retry_at is None and self._exchange.trust.tells and self._exchange.peer_known:
            self._retry_at = now + self._retry_pause(now)

    def _kept(self) -> tuple[Path | None, ...]:
        return self.best, self.second, self._first, self._overlap

    # Candidates and hole punching

    def _punch(self, now: float) -> None:
        peer, local, mine = self._exchange.peer, self._exchange.local, self._exchange.ports
        live = [path for path, health in self._paths.items() if health.state(now) is State.LIVE]
        endpoints = [each for each in probeable(peer, local, mine.mapping) if direct(each) not in live]
        self._meet_relays(now, Kind.RELAY_UDP)
        if all(is_tcp(path) for path, health in self._paths.items() if not health.is_lost):
            self._meet_relays(now, Kind.RELAY_TCP)  # connections, so only where nothing else works
        is_direct = any(not is_relayed(path) for path in live)
        target = None if is_direct else hard_target(peer, local)
        rtt = self._rtt()
        go = common_moment(now, self._exchange.told_at, rtt)
        self._punching.begin(now, go, rtt, endpoints, mine, peer.ports, target)

    def _meet_relays(self, now: float, *kinds: Kind) -> None:
        for path in relays_named(self._exchange.peer.candidates, self._exchange.local, kinds):
            if path not in self._paths and len(self._paths) < PATHS_MAX:
                health = self._paths[path] = Health(now, path)
                self._table.probe(now, health)

    def _retry(self, now: float) -> None:
        self._retry_at = None
        self._retries += 1
        self.events.append(OutsideWanted())
        self._exchange.tell_at = now + LOOK_SECONDS  # by then the new look is in
        self._decide(now)

    def _retry_pause(self, now: float) -> float:
        is_active = self._active_at is not None and now - self._active_at < ACTIVE_SECONDS
        is_guess = Mapping.SEQUENTIAL in (self._exchange.ports.mapping, self._exchange.peer.ports.mapping)
        return retry_pause(self._retries, is_active=is_active, is_guess=is_guess)

    def _rtt(self) -> float:
        rtt = None if (health := self._paths.get(self.best or self._first)) is None else health.rtt
        return RTT_GUESS_SECONDS if rtt is None else rtt

    def _close_sockets(self, kept: tuple[int, ...]) -> None:
        self._punching.sockets_until = None
        if self._has_sockets:
            self._has_sockets = bool(kept)
            self.events.append(SocketsClosed(kept))
