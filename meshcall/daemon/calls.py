"""The calls of the daemon: what the node's core says of them, its voice, and the clients that look after them.

One call at a time.  A client that called or answered holds the conversation: it hears its events, and when
it goes away the call ends.  A call that was answered by the configuration belongs to no client and uses the
configured devices.  All that sounds is in `sounding`, which is loaded with the first call.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio

from meshcall.address import encode
from meshcall.calls.events import (
    CallAnswered,
    CallEnded,
    CallEvent,
    CallHeld,
    CallIncoming,
    CallLineBack,
    CallLineLost,
    CallLinked,
    CallMuted,
    CallPath,
    CallRequested,
    CallResolved,
    CallRinging,
    VoiceArrived,
    VoiceUnheard,
)
from meshcall.errors import MeshcallError, StateError, UsageError
from meshcall.identity import read_address
from meshcall.logs import log
from meshcall.path.paths import is_relayed, show_path

if TYPE_CHECKING:
    from types import ModuleType

    from meshcall.crypto.suite import Suite
    from meshcall.daemon.live import LiveNode
    from meshcall.daemon.sound import Files
    from meshcall.daemon.sounding import Sounding
    from meshcall.drivers.control import EventSink
    from meshcall.drivers.sound.duplex import Changed
    from meshcall.path.paths import Path as Way

STATS_SECONDS: Final = 1.0
"""Between two `stats`, which also tell a client that the node is alive."""
HISTORY_MAX: Final = 100
WAITERS_MAX: Final = 8
"""Clients that wait for a call, or listen."""

Json = dict[str, Any]
_log = logging.getLogger("meshcall.call")


@dataclass(slots=True)
class Talk:
    """One call, as the daemon looks after it."""

    number: int
    address: str
    incoming: bool
    began: float
    sink: EventSink | None = None
    files: Files | None = None
    """In the place of devices, where the client named some."""
    sound: Sounding | None = None
    answered_at: float | None = None
    was_ringing: bool = False
    sounds: bool = False
    """Its sound was begun, or is being loaded."""
    path: Way | None = None
    paths: int = 0
    over: trio.Event = field(default_factory=trio.Event)
    result: Json = field(default_factory=dict)

    def tell(self, event: str, at: float, **data: Any) -> None:
        """To the client, if there is one; `seconds` is the time since the call began."""
        if self.sink is not None:
            self.sink(event, {"seconds": round(at - self.began, 4), **data})


class CallDesk:
    """`await nursery.start_soon(desk.run)`; ops are called by the local API."""

    def __init__(self, live: LiveNode, suite: Suite) -> None:
        self._live = live
        self._suite = suite
        self._talk: Talk | None = None
        self._waiters: set[Callable[[str, Json], None]] = set()
        self._incoming = trio.Event()
        self._history: deque[tuple[float, Json]] = deque(maxlen=HISTORY_MAX)
        self._nursery: trio.Nursery | None = None

    async def run(self) -> None:
        """Look after calls until cancelled; then the call ends."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._tell_stats)
        finally:
            self._nursery = None
            talk = self._talk
            if talk is not None:
                with trio.CancelScope(shield=True):
                    self._hang_up(talk)
                    await _quieten(talk)

    # What clients ask for

    async def call(
        self, address: str, sink: EventSink, *, microphone: str | None, speaker: str | None, relayed: bool,
        talk_seconds: float | None,
    ) -> Json:  # fmt: skip
        """Call somebody and stay with it until it is over."""
        link = read_address(self._suite, address)
        if self._talk is not None and not (self._is_ringing() and self._talk.address == encode(link.public)):
            raise UsageError("there is a call already; hang it up first (`meshcall hangup`)")
        files = await self._files(microphone, speaker)
        try:
            with self._live.driven.turn() as now:
                number = self._live.node.calls.call(now, link.public, relayed=relayed)
                talk = self._talk  # theirs rang at this moment, and this has answered it
                if talk is None:
                    talk = self._talk = Talk(number, encode(link.public), False, now)
                talk.sink, talk.files = sink, files
        except MeshcallError:
            if files is not None:
                files.close()
            raise
        if self._nursery is not None:
            self._nursery.start_soon(self._load)  # while the record is looked up
        return await self._stay(talk, talk_seconds)

    async def answer(
        self, sink: EventSink, *, microphone: str | None, speaker: str | None, wait: bool, talk_seconds: float | None
    ) -> Json:
        """Answer the call that rings, or the next one, and stay with it until it is over."""
        began = trio.current_time()
        files = await self._files(microphone, speaker)  # before it rings: to answer takes no longer for it
        try:
            return await self._answer(sink, files, began, wait=wait, talk_seconds=talk_seconds)
        finally:
            if files is not None:
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(files.close)

    async def _answer(
        self, sink: EventSink, files: Files | None, began: float, *, wait: bool, talk_seconds: float | None
    ) -> Json:
        if wait:
            await self._load()
            sink("waiting", {"seconds": 0.0})
        while wait and not self._is_ringing():
            with trio.move_on_after(STATS_SECONDS * 10):
                await self._incoming.wait()
            if not self._is_ringing():
                sink("alive", {"seconds": round(trio.current_time() - began, 1)})
        talk = self._talk
        if talk is None or not self._is_ringing():
            raise UsageError("no call rings at present; `meshcall answer --wait` waits for one")
        talk.sink, talk.files = sink, files
        talk.tell("incoming", trio.current_time(), address=talk.address)
        with self._live.driven.turn() as now:
            self._live.node.calls.accept(now, talk.number)
        return await self._stay(talk, talk_seconds)

    def hang_up(self) -> Json:
        """End the call, withdraw or decline it."""
        talk = self._talk
        if talk is None:
            return {"ended": False, "address": None}
        self._hang_up(talk)
        return {"ended": True, "address": talk.address}

    def change(
        self, *, mute: bool | None, hold: bool | None, echo_cancellation: bool | None, noise_suppression: Any,
        automatic_gain: bool | None,
    ) -> Json:  # fmt: skip
        """Switch something in the call."""
        talk = self._talk
        if talk is None or talk.sound is None:
            raise UsageError("there is no call")
        with self._live.driven.turn() as now:
            if mute is not None:
                self._live.node.calls.mute(now, talk.number, mute)
            if hold is not None:
                self._live.node.calls.hold(now, talk.number, hold)
        self._take_switches(talk)
        settings = talk.sound.processing.switch(
            echo_cancellation=echo_cancellation, noise_suppression=noise_suppression, automatic_gain=automatic_gain
        )
        status = self._live.node.calls.status(trio.current_time())
        return {
            "muted": status is not None and status.muted,
            "held": status is not None and status.held,
            "echo_cancellation": settings.echo_cancellation,
            "noise_suppression": settings.noise_suppression,
            "automatic_gain": settings.automatic_gain,
            "missing": talk.sound.processing.missing,
        }

    def status(self, now: float) -> Json:
        """The call, people who wait to be admitted, and the last calls."""
        node = self._live.node
        if node.station is None:
            return {"call": None, "requests": [], "history": []}
        found = node.calls.status(now)
        return {
            "call": None
            if found is None
            else {
                "address": encode(found.identity),
                "standing": found.standing.value,
                "outgoing": found.outgoing,
                "state": found.state.value,
                "seconds": round(found.seconds, 1),
                "path": None if found.path is None else show_path(found.path),
                "muted": found.muted,
                "held": found.held,
                "stats": self._stats(self._talk),
            },
            "requests": [
                {"address": encode(one.identity), "seconds_ago": round(now - one.last_at, 1), "times": one.times}
                for one in node.calls.strangers()
            ],
            "history": [{"ended_seconds_ago": round(now - at, 1), **one} for at, one in reversed(self._history)],
        }

    async def listen(self, sink: EventSink) -> Json:
        """Tell of calls that ring here, requests and ends, until the client goes."""
        if len(self._waiters) >= WAITERS_MAX:
            raise UsageError(f"{WAITERS_MAX} programs listen for calls already")
        self._waiters.add(sink)
        try:
            await trio.sleep_forever()
        finally:
            self._waiters.discard(sink)

    # A client stays with its call

    async def _stay(self, talk: Talk, talk_seconds: float | None) -> Json:
        try:
            while not talk.over.is_set():
                limit = float("inf")
                if talk_seconds is not None:
                    limit = STATS_SECONDS if talk.answered_at is None else talk.answered_at + talk_seconds - _now()
                if limit <= 0:
                    self._hang_up(talk)
                    limit = float("inf")
                    talk_seconds = None
                with trio.move_on_after(limit):
                    await talk.over.wait()
        finally:
            talk.sink = None
            if not talk.over.is_set():
                self._hang_up(talk)
        return talk.result

    def _hang_up(self, talk: Talk) -> None:
        try:
            with self._live.driven.turn() as now:
                self._live.node.calls.hang_up(now, talk.number)
        except UsageError:
            log(_log, logging.DEBUG, "the call was over already")

    def _is_ringing(self) -> bool:
        return self._talk is not None and self._talk.incoming and self._talk.answered_at is None

    # What the core says

    def take(self, now: float, event: CallEvent) -> None:
        """An event of the node's calls, within its turn."""
        if isinstance(event, (VoiceArrived, VoiceUnheard)):
            if self._talk is not None and self._talk.sound is not None and event.call == self._talk.number:
                voice = self._talk.sound.voice
                if isinstance(event, VoiceArrived):
                    voice.arrived(event.at, event.path, event.data)
                else:
                    voice.unheard(event.at, event.link, event.path, event.data)
            return
        if isinstance(event, CallRequested):
            log(_log, logging.INFO, "somebody who is no contact wants to call; see `meshcall calls`")
            self._announce("request", {"address": encode(event.identity)})
            return
        if isinstance(event, CallIncoming):
            self._talk = Talk(event.call, encode(event.identity), True, event.at, path=event.path)
            log(_log, logging.INFO, "a call rings; `meshcall answer` answers it", standing=event.standing.value)
            self._announce("incoming", {"address": encode(event.identity), "standing": event.standing.value})
            self._start_sound(self._talk)
            self._incoming.set()
            self._incoming = trio.Event()
            return
        talk = self._talk
        if talk is None or event.call != talk.number:
            return
        match event:
            case CallResolved():
                talk.tell("resolved", event.at, devices=event.devices)
            case CallLinked():
                talk.path = event.path
                talk.tell("path", event.at, path=show_path(event.path), kind=_kind(event.path))
            case CallRinging():
                talk.was_ringing = True
                talk.tell("ringing", event.at)
                self._start_sound(talk)
            case CallAnswered():
                self._answered(now, talk, event)
            case CallPath():
                self._path_changed(now, talk, event)
            case CallHeld():
                talk.tell("held", event.at, held=event.held)
                self._take_switches(talk)
            case CallMuted():
                talk.tell("muted", event.at, muted=event.muted)
            case CallLineLost():
                talk.tell("line", event.at, back=False)
            case CallLineBack():
                talk.tell("line", event.at, back=True)
            case CallEnded():
                self._ended(now, talk, event)

    def _announce(self, event: str, data: Json) -> None:
        for sink in list(self._waiters):
            sink(event, data)

    def _answered(self, now: float, talk: Talk, event: CallAnswered) -> None:
        talk.answered_at = event.at
        talk.path = event.path
        words = list(self._live.node.calls.words(talk.number))
        talk.tell("answered", event.at, path=show_path(event.path), safety_words=words, automatic=event.automatic)
        log(_log, logging.INFO, "a call was answered", automatic=event.automatic)
        if talk.sound is None:
            self._start_sound(talk)
            return
        status = self._live.node.calls.status(now)
        if status is not None:
            talk.sound.answered(now, status, event.path)
        if talk.incoming and self._nursery is not None:
            self._nursery.start_soon(talk.sound.listen, talk.files or talk.sound.files)

    def _path_changed(self, now: float, talk: Talk, event: CallPath) -> None:
        path = None if event.best is None else show_path(event.best)
        if event.best != talk.path:
            talk.path = event.best
            talk.paths += 1
            talk.tell(
                "path_changed", event.at, path=path, kind=None if event.best is None else _kind(event.best),
                reason=event.reason,
            )  # fmt: skip
            if talk.sound is not None:
                talk.sound.voice.path_changed(now, event.best)

    def _ended(self, now: float, talk: Talk, event: CallEnded) -> None:
        self._talk = None
        stats = self._stats(talk)
        talk.result = {
            "address": talk.address,
            "incoming": talk.incoming,
            "answered": event.seconds is not None,
            "ending": event.ending.name.lower(),
            "reason": event.reason,
            "talk_seconds": event.seconds,
            "path": None if talk.path is None else show_path(talk.path),
            "path_changes": talk.paths,
            "stats": stats,
        }
        self._history.append((event.at, talk.result))
        log(_log, logging.INFO, "a call is over", reason=event.reason)
        talk.tell("ended", event.at, **talk.result)
        self._announce("ended", talk.result)
        if self._nursery is not None:
            self._nursery.start_soon(_quieten, talk)

    def _take_switches(self, talk: Talk) -> None:
        status = self._live.node.calls.status(_now())
        if talk.sound is not None and status is not None:
            talk.sound.voice.is_muted = status.muted
            talk.sound.voice.is_held = status.held or status.held_there

    # Sound

    async def _load(self) -> ModuleType:
        """What sounds is loaded in a thread: it takes a moment, and packets do not wait."""
        return await trio.to_thread.run_sync(_load)

    async def _files(self, microphone: str | None, speaker: str | None) -> Files | None:
        """Raises WavError."""
        if microphone is None and speaker is None:
            return None
        sounding = await self._load()
        files: Files = await trio.to_thread.run_sync(
            sounding.Files, *(None if name is None else Path(name) for name in (microphone, speaker))
        )
        return files

    def _start_sound(self, talk: Talk) -> None:
        if self._nursery is not None and not talk.sounds:
            talk.sounds = True
            self._nursery.start_soon(self._sound, talk)

    async def _sound(self, talk: Talk) -> None:
        """Let packets flow: with microphone where this side's user waits, else with the loudspeaker only."""
        sounding = await self._load()
        number, calls, driven = talk.number, self._live.node.calls, self._live.driven
        if (status := calls.status(_now())) is None or status.call != number:
            return

        def send(_at: float, payload: bytes, once: bool, is_narrow: bool) -> int:
            now = _now()
            sent = calls.send_voice(now, number, payload, once=once, is_narrow=is_narrow)
            driven.settle(now, is_quiet=True)
            if talk.sound is not None:
                talk.sound.voice.took(calls.round_trip(number))
            return sent

        def reported(_at: float, loss: float) -> None:
            with driven.turn() as now:
                calls.report_loss(now, number, loss)

        def on_device(said: Changed) -> None:
            talk.tell(
                "device", _now(), device=said.device, backend=said.backend, chosen=said.chosen,
                message=said.why or f"Sound: {said.device}.",
            )  # fmt: skip

        try:
            talk.sound = sounding.Sounding(
                _now(), status, self._live.config, talk.files or sounding.Files(), incoming=talk.incoming, send=send,
                reported=reported, first_voice=lambda: talk.tell("first_voice", _now()), on_device=on_device,
                on_fault=self._live.on_fault,
            )  # fmt: skip
        except StateError as problem:  # no libopus: the call is of no use
            log(_log, logging.ERROR, "no voice", reason=str(problem))
            talk.tell("device", _now(), message=str(problem))
            with driven.turn() as now:
                calls.hang_up(now, number, trouble=True)
            return
        self._take_switches(talk)
        talk.sound.start(listening=not talk.incoming or talk.answered_at is not None)
        if talk.answered_at is not None and talk.path is not None:
            talk.sound.answered(_now(), status, talk.path)

    # Statistics

    async def _tell_stats(self) -> None:
        while True:
            await trio.sleep(STATS_SECONDS)
            talk = self._talk
            if talk is None or talk.sink is None:
                continue
            now = _now()
            status = self._live.node.calls.status(now)
            stats = self._stats(talk)
            talk.tell(
                "stats", now, state="talking" if talk.answered_at else "ringing" if talk.was_ringing else "calling",
                talk_seconds=None if talk.answered_at is None else round(now - talk.answered_at, 1),
                muted=status is not None and status.muted, held=status is not None and status.held,
                path=None if talk.path is None else show_path(talk.path), voice=stats,
            )  # fmt: skip

    def _stats(self, talk: Talk | None) -> Json | None:
        if talk is None or talk.sound is None or talk.answered_at is None:
            return None
        link = None if (status := self._live.node.calls.status(_now())) is None else status.link
        links = self._live.node.people.peers.status(_now())
        ways = next((one.paths.paths for one in links if one.link == link and one.paths is not None), ())
        return talk.sound.stats(next((way.rtt for way in ways if way.is_best), None))


def _load() -> ModuleType:
    module = import_module("meshcall.daemon.sounding")
    module.prepare()
    return module


async def _quieten(talk: Talk) -> None:
    """End the sound of a call that is over."""
    if talk.sound is not None:
        await talk.sound.stop()
    elif talk.files is not None:
        await trio.to_thread.run_sync(talk.files.close)
    talk.over.set()


def _kind(path: Way) -> str:
    return "relay" if is_relayed(path) else "direct"


def _now() -> float:
    return trio.current_time()
