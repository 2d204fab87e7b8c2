"""The daemon: one node on one home, its local API, its files, its signals.

A start: lock, saved nodes, sockets, local API, then READY; the network is found after that.  A stop
(SIGTERM, SIGINT, SIGHUP or the API) saves the nodes and leaves nothing behind but files.  After kill -9
the lock is free, because the system frees it, and the dead socket is replaced.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import trio

from meshcall import __version__
from meshcall.core import port_of, show_endpoint
from meshcall.daemon import shapes, start_points
from meshcall.daemon.calls import CallDesk
from meshcall.daemon.live import LiveNode
from meshcall.daemon.pings import COUNT_MAX, INTERVAL_SECONDS_MIN, Ping
from meshcall.daemon.start_points import Saved
from meshcall.drivers import control
from meshcall.drivers.control import ControlServer, EventSink, NoArgs, Op
from meshcall.drivers.notify import notify, watchdog_seconds
from meshcall.errors import StateError, UsageError
from meshcall.identity import read_address
from meshcall.logs import log

if TYPE_CHECKING:
    from pathlib import Path

    from meshcall.config import Config
    from meshcall.crypto.suite import Suite
    from meshcall.identity import Device, Identity

SAVE_SECONDS = 300.0
FIRST_SAVE_SECONDS = 20.0
"""After the network was found, so that a node that is killed early still knows where to begin."""

_log = logging.getLogger("meshcall.daemon")


@dataclass(frozen=True, slots=True)
class Owner:
    """Whom the node publishes."""

    identity: Identity
    device: Device
    name: str


class LookupArgs(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Of the op "lookup"."""

    address: str
    trace: bool = False


class PingArgs(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Of the op "ping"."""

    address: str
    count: Annotated[int, msgspec.Meta(ge=1, le=COUNT_MAX)] = 4
    interval_seconds: Annotated[float, msgspec.Meta(ge=INTERVAL_SECONDS_MIN, le=3600)] = 1.0
    direct: bool = False
    relayed: bool = False


WavPath = Annotated[str, msgspec.Meta(pattern=r"\A/[^\0]*\Z", max_length=4096)]
"""An absolute path: the node has a working directory of its own."""


class CallArgs(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Of the op "call".  Files are absolute paths, in the place of the configured devices."""

    address: str
    microphone: WavPath | None = None
    speaker: WavPath | None = None
    relayed: bool = False
    talk_seconds: Annotated[float, msgspec.Meta(gt=0, le=86_400)] | None = None


class AnswerArgs(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Of the op "answer"."""

    microphone: WavPath | None = None
    speaker: WavPath | None = None
    wait: bool = False
    talk_seconds: Annotated[float, msgspec.Meta(gt=0, le=86_400)] | None = None


class VoiceArgs(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Of the op "voice": what is to change in the call; null stays as it is."""

    mute: bool | None = None
    hold: bool | None = None
    echo_cancellation: bool | None = None
    noise_suppression: Literal["off", "low", "moderate", "high", "very-high"] | None = None
    automatic_gain: bool | None = None


class Service:
    """The daemon of one home folder.  Hold the lock of the folder around it."""

    def __init__(self, folder: Path, config: Config, suite: Suite, owner: Owner | None) -> None:
        """Opens the node's sockets; see `LiveNode`."""
        self._folder = folder
        self._owner = owner
        self._suite = suite
        self._started = trio.current_time()
        self._stop = trio.Event()
        saved, damage = start_points.load(folder)
        if damage:
            log(_log, logging.WARNING, damage)
        self.live = LiveNode(config, suite, saved)
        self._port = port_of(self.live.endpoints[0])
        self._calls = CallDesk(self.live, suite)
        self.live.on_call = self._calls.take
        self._server = ControlServer(
            {
                "status": Op(NoArgs, self._status),
                "lookup": Op(LookupArgs, self._lookup),
                "ping": Op(PingArgs, self._ping),
                "paths": Op(NoArgs, self._paths),
                "relay": Op(NoArgs, self._relay),
                "call": Op(CallArgs, self._call),
                "answer": Op(AnswerArgs, self._answer),
                "hangup": Op(NoArgs, self._hangup),
                "voice": Op(VoiceArgs, self._voice),
                "calls": Op(NoArgs, self._calls_op),
                "listen": Op(NoArgs, self._listen),
                "republish": Op(NoArgs, self._republish),
                "stop": Op(NoArgs, self._stop_op),
            },
            {"version": __version__, "pid": os.getpid()},
            self.live.on_fault,
        )

    async def run(self, greet: Callable[[LiveNode], None] | None = None) -> None:
        """Serve until told to stop; `greet` is called when nothing can fail any more, before the first event."""
        listener = control.listen(self._folder / control.SOCKET_NAME)
        socket_file = os.stat(self._folder / control.SOCKET_NAME).st_ino
        if greet is not None:
            greet(self.live)
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self._watch_signals)
                await nursery.start(self.live.run)
                nursery.start_soon(self._calls.run)
                await nursery.start(self._server.run, listener)
                if self._owner is not None:
                    self.live.publish(self._owner.identity, self._owner.device)
                self._save()  # the port; and a home that cannot be written is told of now, not in the night
                nursery.start_soon(self._save_now_and_then)
                nursery.start_soon(self._feed_watchdog)
                notify("READY=1\nSTATUS=looking for the network")
                log(_log, logging.INFO, "ready", pid=os.getpid(), port=self._port)
                nursery.start_soon(self._tell_joined)
                gc.freeze()  # what is loaded stays: the collector of cycles need not look through it again and again
                await self._stop.wait()
                notify("STOPPING=1")
                nursery.cancel_scope.cancel()
        finally:
            with contextlib.suppress(FileNotFoundError):
                if os.stat(self._folder / control.SOCKET_NAME).st_ino == socket_file:
                    os.unlink(self._folder / control.SOCKET_NAME)
            self._save()
            log(_log, logging.INFO, "stopped")

    async def _watch_signals(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        numbers = [signal.SIGTERM, signal.SIGINT]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # `nohup meshcall up &` outlives its terminal
            numbers.append(signal.SIGHUP)
        with trio.open_signal_receiver(*numbers) as received:
            task_status.started()
            async for number in received:
                log(_log, logging.INFO, "stopping", signal=signal.Signals(number).name)
                self._stop.set()

    async def _tell_joined(self) -> None:
        await self.live.joined.wait()
        notify("STATUS=on the network")

    async def _feed_watchdog(self) -> None:
        """Tell systemd that the loop turns; where it hangs, nobody does, and systemd starts us again."""
        seconds = watchdog_seconds()
        while seconds:
            notify("WATCHDOG=1")
            await trio.sleep(seconds)

    # Files

    async def _save_now_and_then(self) -> None:
        await self.live.joined.wait()
        await trio.sleep(FIRST_SAVE_SECONDS)
        while True:
            # In a thread: a slow disk may take a second to be sure of a file.
            await trio.to_thread.run_sync(self._write, self._to_save())
            await trio.sleep(SAVE_SECONDS)

    def _save(self) -> None:
        self._write(self._to_save())

    def _to_save(self) -> Saved:
        # A node that was cut off keeps what it knew before.
        live = self.live
        live.saved = Saved(
            self._port,
            live.good_contacts() or live.saved.contacts,
            live.saved.secret,
            live.good_relays() or live.saved.relays,
        )
        return self.live.saved

    def _write(self, saved: Saved) -> None:
        try:
            start_points.save(self._folder, saved)
        except StateError as problem:  # a full disk does not end a node that works
            log(_log, logging.WARNING, "the known nodes are not saved", reason=str(problem))

    # The local API

    async def _status(self, _args: NoArgs, _event: EventSink) -> Mapping[str, Any]:
        owner = self._owner
        snapshot = self.live.node.status(trio.current_time())
        said = shapes.status(snapshot)
        said["network"] = {
            "endpoints": [show_endpoint(where) for where in self.live.endpoints],
            "offline": start_points.is_offline(),
            "private": self.live.config.network.private,
            **said["network"],
            "lan": self.live.lan_status(),
            "port_mapping": self.live.mapping.status(trio.current_time()),
        }
        said["counters"] |= {
            "udp": self.live.udp_counters,
            "tcp": self.live.tcp.counters,
            "port mapping": self.live.mapping.counters,
            "api": dict(self._server.counters),
        }
        return {
            "version": __version__,
            "pid": os.getpid(),
            "uptime_seconds": round(trio.current_time() - self._started, 1),
            "home": str(self._folder),
            "identity": None
            if owner is None
            else {"address": owner.identity.address, "name": owner.name, "device": owner.device.serial},
            "publish_addresses": self.live.config.record.publish_addresses,
            "time": time.time(),
            "call": self._calls.status(trio.current_time())["call"],
            **said,
        }

    async def _lookup(self, args: LookupArgs, event: EventSink) -> Mapping[str, Any]:
        return await self.live.lookup(args.address, trace=args.trace, event=event)

    async def _ping(self, args: PingArgs, event: EventSink) -> Mapping[str, Any]:
        link = read_address(self._suite, args.address)
        if self._owner is not None and link.public == self._owner.identity.public:
            raise UsageError("this is your own address; ping somebody else's")
        if args.direct and args.relayed:
            raise UsageError("direct and relayed exclude each other")
        ping = Ping(
            self.live, link, event, count=args.count, interval=args.interval_seconds, direct=args.direct,
            relayed=args.relayed,
        )  # fmt: skip
        return await ping.run()

    async def _paths(self, _args: NoArgs, _event: EventSink) -> Mapping[str, Any]:
        station = self.live.node.station
        links = [] if station is None else station.peers.status(trio.current_time())
        return {"links": [shapes.link(one) for one in links]}

    async def _relay(self, _args: NoArgs, _event: EventSink) -> Mapping[str, Any]:
        now = trio.current_time()
        status = self.live.node.dht.status(now)
        return {
            "mode": self.live.config.relay.mode,
            "reachable": status.reachable,
            "tcp_port": self.live.tcp.port,
            "tcp_connections": dict(zip(("with_us", "to_others"), self.live.tcp.connections, strict=True)),
            **shapes.relay(self.live.node.station, now, self.live.forwarding.status()),
        }

    async def _call(self, args: CallArgs, event: EventSink) -> Mapping[str, Any]:
        return await self._calls.call(
            args.address, event, microphone=args.microphone, speaker=args.speaker, relayed=args.relayed,
            talk_seconds=args.talk_seconds,
        )  # fmt: skip

    async def _answer(self, args: AnswerArgs, event: EventSink) -> Mapping[str, Any]:
        return await self._calls.answer(
            event, microphone=args.microphone, speaker=args.speaker, wait=args.wait, talk_seconds=args.talk_seconds
        )

    async def _hangup(self, _args: NoArgs, _event: EventSink) -> Mapping[str, Any]:
        return self._calls.hang_up()

    async def _voice(self, args: VoiceArgs, _event: EventSink) -> Mapping[str, Any]:
        return self._calls.change(**msgspec.structs.asdict(args))

    async def _calls_op(self, _args: NoArgs, _event: EventSink) -> Mapping[str, Any]:
        return self._calls.status(trio.current_time())

    async def _listen(self, _args: NoArgs, event: EventSink) -> Mapping[str, Any]:
        return await self._calls.listen(event)

    async def _republish(self, _args: NoArgs, _event: EventSink) -> Mapping[str, Any]:
        with self.live.driven.turn() as now:
            self.live.node.publish_now(now)
        return {}

    async def _stop_op(self, _args: NoArgs, _event: EventSink) -> Mapping[str, Any]:
        log(_log, logging.INFO, "stopping", asked_by="local API")
        trio.lowlevel.spawn_system_task(self._stop_soon)
        return {}

    async def _stop_soon(self) -> None:
        await trio.sleep(0.05)  # the answer goes out first
        self._stop.set()
