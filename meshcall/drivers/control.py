"""The local API: one JSON object a line over a unix socket that only its owner can open.

The server knows no commands of its own; the daemon hands it a table of them.  Hostile input gets
an error, too much of it a closed connection, never a crash.  The format is in docs/control-api.md.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import trio

from meshcall.errors import DaemonError, MeshcallError, UsageError

PROTOCOL_VERSION = 1
"""Grows when a change would break a program that speaks the one before."""
SOCKET_NAME = "control.sock"
LINE_BYTES_MAX = 64 * 1024
"""Of one request.  Answers are ours and may be longer (a status with a large table)."""
ANSWER_BYTES_MAX = 8 * 1024 * 1024
CLIENTS_MAX = 32
PENDING_MAX = 16
"""Requests of one client that run at the same time."""
EVENTS_WAITING_MAX = 256
"""Events of one request that its client has not read yet; more are counted and dropped."""
SEND_SECONDS_MAX = 10.0
"""A client that reads nothing for so long is let go."""
HELLO_SECONDS_MAX = 5.0
"""How long the helper for clients waits for a hello..."""
ANSWER_SECONDS_MAX = 45.0
"""...and for the next sign of a request; longer than any look-up."""
UNIX_PATH_BYTES_MAX = 100
"""The system's limit is 104 to 108; above this a way round is taken."""

ArgsT = TypeVar("ArgsT", bound=msgspec.Struct)


class NoNodeError(DaemonError):
    """No node is running here; start one with `meshcall up`."""


class Request(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What a client sends."""

    id: int | str
    op: str
    args: dict[str, Any] = {}


class NoArgs(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """For ops that take nothing."""


EventSink = Callable[[str, Mapping[str, Any]], None]
"""`event(name, data)`: sends one event of a running request; never waits, never fails."""


@dataclass(frozen=True, slots=True)
class Op:
    """One command: the form of its arguments, and what carries it out.

    `run(args, event)` returns what the answer carries.  It is cancelled when its client goes away.
    """

    args: type[msgspec.Struct]
    run: Callable[[Any, EventSink], Awaitable[Mapping[str, Any]]]


def _encode(value: object) -> bytes:
    return msgspec.json.encode(value) + b"\n"


def _failure(request: int | str | None, kind: str, message: str) -> dict[str, Any]:
    return {"id": request, "ok": False, "error": {"kind": kind, "message": message}}


def kind_of(problem: MeshcallError) -> str:
    """The word by which a program tells errors apart: "usage", "address", "state", ..."""
    kind = next((one for one in type(problem).__mro__ if MeshcallError in one.__bases__), MeshcallError)
    return kind.__name__.removesuffix("Error").lower()


@contextlib.contextmanager
def _reachable_path(path: Path) -> Iterator[str]:
    """A spelling of `path` that fits into a socket address, however deep the folder lies."""
    if len(os.fsencode(path)) <= UNIX_PATH_BYTES_MAX:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        short = f"/proc/self/fd/{folder}/{path.name}"
        if not os.path.exists(os.path.dirname(short)):
            raise UsageError(f"the path {path} is too long for a socket; choose a shorter --home")
        yield short
    finally:
        os.close(folder)


def listen(path: Path) -> trio.SocketListener:
    """A listening socket at `path`, mode 0600, in a folder made 0700.

    A socket that is there already is taken for a dead one: hold the home's lock before.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise UsageError(f"{path} is not a socket; move it away, the node needs this name")
        path.unlink()
    one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)  # from the first moment nobody else can open it
    try:
        with _reachable_path(path) as name:
            one.bind(name)
        one.listen(CLIENTS_MAX)
    except BaseException:
        one.close()
        raise
    finally:
        os.umask(before)
    return trio.SocketListener(trio.socket.from_stdlib_socket(one))


def _is_ours(stream: trio.SocketStream) -> bool:
    """Whether the process at the other end runs as our user or as root (where the system tells)."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    size = struct.calcsize("3i")
    raw = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    _, uid, _ = struct.unpack("3i", raw)
    return uid in (0, os.getuid())


class _Lines:
    """Cuts a byte stream into lines, with a bound on their length."""

    def __init__(self, stream: trio.SocketStream, limit: int) -> None:
        self._stream = stream
        self._limit = limit
        self._rest = bytearray()

    async def next(self) -> bytes | None:
        """The next line without its end; None at the end of the stream.  Raises UsageError where it is too long."""
        searched = 0
        while (end := self._rest.find(b"\n", searched)) < 0:
            searched = len(self._rest)
            if searched > self._limit:
                raise UsageError(f"a line may have {self._limit} bytes at most")
            more = await self._stream.receive_some(16384)
            if not more:
                return None
            self._rest += more
        line = bytes(self._rest[:end])
        del self._rest[: end + 1]
        if len(line) > self._limit:
            raise UsageError(f"a line may have {self._limit} bytes at most")
        return line


class _Client:
    """One connection: reads requests, runs each in its own task, writes what comes of them."""

    def __init__(self, server: ControlServer, stream: trio.SocketStream) -> None:
        self._server = server
        self._stream = stream
        self._lock = trio.Lock()
        self._running: dict[int | str, trio.CancelScope] = {}
        self._scope = trio.CancelScope()

    async def serve(self) -> None:
        """Until the client goes, misbehaves or the server ends; the connection is closed in every case."""
        try:
            with self._scope:
                await self._send(self._server.hello)
                async with trio.open_nursery() as nursery:
                    await self._read(nursery)
                    nursery.cancel_scope.cancel()
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            self._server.counters["clients gone"] += 1
        finally:
            await trio.aclose_forcefully(self._stream)

    async def _read(self, nursery: trio.Nursery) -> None:
        lines = _Lines(self._stream, LINE_BYTES_MAX)
        while True:
            try:
                line = await lines.next()
            except UsageError as problem:
                await self._refuse(None, "bad request", str(problem))
                return
            if line is None:
                return
            if not line.strip():
                continue
            try:
                request = msgspec.json.decode(line, type=Request)
            except (msgspec.MsgspecError, ValueError, RecursionError):
                await self._refuse(None, "bad request", 'not of the form {"id": 1, "op": "status", "args": {}}')
                continue
            if request.op == "cancel":
                await self._cancel(request)
            elif request.id in self._running:
                await self._refuse(request.id, "bad request", "a request with this id is still running")
            elif len(self._running) >= PENDING_MAX:
                await self._refuse(request.id, "busy", f"{PENDING_MAX} requests are running; wait for one of them")
            else:
                self._running[request.id] = trio.CancelScope()
                nursery.start_soon(self._run, request)

    async def _cancel(self, request: Request) -> None:
        target = request.args.get("request")
        scope = self._running.get(target) if isinstance(target, int | str) else None
        if scope is not None:
            scope.cancel()
        await self._send({"id": request.id, "ok": True, "result": {"cancelled": scope is not None}})

    async def _refuse(self, request: int | str | None, kind: str, message: str) -> None:
        self._server.counters[f"refused: {kind}"] += 1
        await self._send(_failure(request, kind, message))

    async def _run(self, request: Request) -> None:
        scope = self._running[request.id]
        events, waiting = trio.open_memory_channel[Mapping[str, Any]](EVENTS_WAITING_MAX)

        def event(name: str, data: Mapping[str, Any]) -> None:
            try:
                events.send_nowait({"id": request.id, "event": name, "data": data})
            except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
                self._server.counters["events dropped"] += 1

        answer: Mapping[str, Any] | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._pass_on, waiting)
            with scope:
                answer = await self._answer(request, event)
            events.close()  # the events that wait go out before the answer
        if answer is None:
            answer = _failure(request.id, "cancelled", "the request was cancelled")
        del self._running[request.id]
        await self._send(answer)

    async def _answer(self, request: Request, event: EventSink) -> Mapping[str, Any]:
        op = self._server.ops.get(request.op)
        if op is None:
            known = ", ".join(sorted(self._server.ops))
            return _failure(request.id, "unknown op", f"this node knows: {known}")
        try:
            args = msgspec.convert(request.args, op.args)
        except (msgspec.ValidationError, RecursionError) as problem:
            return _failure(request.id, "bad request", f"args of {request.op}: {problem}")
        try:
            return {"id": request.id, "ok": True, "result": await op.run(args, event)}
        except MeshcallError as problem:
            return _failure(request.id, kind_of(problem), str(problem))
        except Exception as fault:  # a defect of ours: the client is told, the node goes on
            if self._server.on_fault is None:
                raise
            self._server.on_fault(fault)
            return _failure(request.id, "internal", f"the node has a defect ({type(fault).__name__}); see its log")

    async def _pass_on(self, waiting: trio.MemoryReceiveChannel[Mapping[str, Any]]) -> None:
        async for message in waiting:
            await self._send(message)

    async def _send(self, message: Mapping[str, Any]) -> None:
        with trio.move_on_after(SEND_SECONDS_MAX) as limit:
            async with self._lock:
                await self._stream.send_all(_encode(message))
        if limit.cancelled_caught:  # half a line may be out: nothing more can be said on this connection
            self._server.counters["clients too slow"] += 1
            self._scope.cancel()


class ControlServer:
    """Serves `ops` (by name) to the programs of this user."""

    def __init__(
        self, ops: Mapping[str, Op], hello: Mapping[str, Any], on_fault: Callable[[Exception], None] | None = None
    ) -> None:
        self.ops = ops
        self.hello = {"hello": "meshcall", "protocol": PROTOCOL_VERSION, **hello, "ops": sorted([*ops, "cancel"])}
        self.counters: Counter[str] = Counter()
        self.on_fault = on_fault
        self._clients = 0

    async def run(
        self, listener: trio.SocketListener, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve until cancelled; then the listener is closed."""
        async with listener, trio.open_nursery() as nursery:
            task_status.started()
            while True:
                try:
                    stream = await listener.accept()
                except OSError as problem:
                    if problem.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                        raise
                    self.counters["accept failed"] += 1
                    await trio.sleep(0.1)
                    continue
                if self._clients >= CLIENTS_MAX or not _is_ours(stream):
                    self.counters["clients refused"] += 1
                    await stream.aclose()
                    continue
                self._clients += 1
                nursery.start_soon(self._serve, stream)

    async def _serve(self, stream: trio.SocketStream) -> None:
        try:
            await _Client(self, stream).serve()
        finally:
            self._clients -= 1


class ControlClient:
    """A connection to the node of this home; one request at a time."""

    def __init__(self, stream: trio.SocketStream, hello: dict[str, Any], lines: _Lines) -> None:
        self.hello = hello
        self._stream = stream
        self._lines = lines
        self._last_id = 0

    async def request(
        self, op: str, args: Mapping[str, Any] | None = None, on_event: EventSink | None = None
    ) -> dict[str, Any]:
        """Carry out `op` and return its result.  Raises DaemonError with the node's own sentence."""
        self._last_id += 1
        try:
            await self._stream.send_all(_encode({"id": self._last_id, "op": op, "args": args or {}}))
            while True:
                message = await _next_object(self._lines, ANSWER_SECONDS_MAX)
                if message.get("id") != self._last_id:
                    continue
                if "event" in message:
                    if on_event is not None:
                        on_event(str(message["event"]), message.get("data") or {})
                    continue
                if message.get("ok"):
                    result: dict[str, Any] = message.get("result") or {}
                    return result
                error = message.get("error") or {}
                raise DaemonError(str(error.get("message") or "the node refused without a reason"))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise DaemonError("the node stopped while it was asked") from None


async def _next_object(lines: _Lines, seconds: float) -> dict[str, Any]:
    with trio.move_on_after(seconds) as limit:
        line = await lines.next()
    if limit.cancelled_caught:
        raise DaemonError(f"the node gave no sign for {seconds:.0f} seconds; stop it and start it again")
    if line is None:
        raise DaemonError("the node closed the connection; it stopped, or has too many clients")
    try:
        message = msgspec.json.decode(line)
    except (msgspec.MsgspecError, ValueError):
        message = None
    if not isinstance(message, dict):
        raise DaemonError("what answers at the control socket is not a meshcall node")
    return message


@contextlib.asynccontextmanager
async def connect(home: Path) -> AsyncIterator[ControlClient]:
    """Speak with the node that runs on `home`.  Raises NoNodeError where there is none, DaemonError
    where it does not answer or speaks another protocol.
    """
    path = home / SOCKET_NAME
    nobody = f"no node is running here ({home}); start one with `meshcall up`"
    try:
        with _reachable_path(path) as name:
            stream = await trio.open_unix_socket(name)
    except (FileNotFoundError, ConnectionRefusedError):
        raise NoNodeError(nobody) from None
    except PermissionError:
        raise DaemonError(f"the node's socket {path} belongs to another user") from None
    except OSError as problem:
        raise DaemonError(f"the node's socket {path} cannot be used: {problem.strerror}") from None
    async with stream:
        lines = _Lines(stream, ANSWER_BYTES_MAX)
        try:
            hello = await _next_object(lines, HELLO_SECONDS_MAX)
        except trio.BrokenResourceError:
            raise DaemonError("the node closed the connection; it has too many clients, or is another user's") from None
        if hello.get("hello") != "meshcall" or hello.get("protocol") != PROTOCOL_VERSION:
            raise DaemonError(
                f"the running node is version {hello.get('version', 'unknown')} and speaks another protocol; "
                "stop it and start it again with `meshcall up`"
            )
        yield ControlClient(stream, hello, lines)
