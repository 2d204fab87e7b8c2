"""The skin between cores and UDP sockets: one task per socket, one timer for all cores.

A socket that has something to read is drained in one go: up to `BATCH_DATAGRAMS` datagrams, one
core turn each, with the time read once, and what the core wants to send leaves at the end.  There
is never an await per packet.  Nothing that the network answers (ICMP errors, no route, a firewall)
ends a node; it is counted.  What a datagram means is the core's business.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import socket
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, Protocol, TypeVar

import trio

from meshcall.core import ENDPOINT_V4_BYTES, ENDPOINT_V6_BYTES, Endpoint, endpoint
from meshcall.errors import UsageError

BATCH_DATAGRAMS = 64
"""Datagrams taken from one socket before the other tasks get their turn."""
DATAGRAM_BYTES_MAX = 4096
"""A longer datagram is none of ours: it is counted and dropped."""
SEND_QUEUE_DATAGRAMS = 256
"""Datagrams kept for a socket whose send buffer is full; more are counted and dropped."""
RECEIVE_BUFFER_BYTES = 1 << 20
"""Asked of the system for each socket, so that a burst survives a busy moment."""
TIMER_STEP_SECONDS = 0.001
"""The timer never fires more often, whatever a core asks for."""
PORT_TRIES = 8

_AF = {4: socket.AF_INET, 6: socket.AF_INET6}
_WILDCARD = {4: "0.0.0.0", 6: "::"}  # noqa: S104 - a node is there to be reached
_ENDPOINT_SIZES = (ENDPOINT_V4_BYTES, ENDPOINT_V6_BYTES)
_CLOSED = (errno.EBADF, errno.ENOTSOCK)


class PortInUseError(UsageError):
    """This UDP port is in use by another program."""


class DrivenCore(Protocol):
    """What the driver needs of a core: the members of `core.Core`.

    One that has an attribute `stirred` is asked for `next_wake` after a datagram only where that is true: something
    has happened since it was last asked that may have brought the moment nearer.  A frame of a stream does not.
    """

    outbox: list[tuple[Endpoint, bytes]]

    @property
    def events(self) -> list[Any]:
        """What happened; the driver hands it on and empties the list."""
        ...

    def receive(self, now: float, source: Endpoint, data: bytes) -> None:
        """Take one datagram."""
        ...

    def wake(self, now: float) -> None:
        """Do what is due."""
        ...

    def next_wake(self) -> float | None:
        """When to wake."""
        ...


CoreT = TypeVar("CoreT", bound=DrivenCore)


def open_udp(family: int, host: str | None = None, port: int = 0) -> socket.socket:
    """A bound, non-blocking UDP socket of family 4 or 6; `host` None is every address of the machine.

    Raises PortInUseError where the port is taken, UsageError where it is not ours to use, OSError where
    the machine does not have this family or address.
    """
    one = socket.socket(_AF[family], socket.SOCK_DGRAM)
    try:
        one.setblocking(False)
        if family == 6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        with contextlib.suppress(OSError):  # a wish; the system may give less
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        one.bind((host or _WILDCARD[family], port))
    except OSError as problem:
        one.close()
        if problem.errno == errno.EADDRINUSE:
            raise PortInUseError(f"UDP port {port} is in use by another program; choose another with --port") from None
        if problem.errno == errno.EACCES:
            raise UsageError(f"UDP port {port} may not be used by this account; choose one above 1023") from None
        raise
    return one


def open_udp_pair(families: Sequence[int], hosts: dict[int, str], port: int = 0) -> list[socket.socket]:
    """One socket for each of `families` that the machine has, all on one port (0: any free one).

    Raises PortInUseError where the port is taken, UsageError where no family is left.
    """
    for attempt in range(PORT_TRIES):
        opened: list[socket.socket] = []
        common = port
        try:
            for family in families:
                try:
                    opened.append(open_udp(family, hosts.get(family), common))
                except OSError as problem:
                    # No such family here, or not this address: the other family may still do.
                    if problem.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT):
                        raise
                    continue
                common = common or opened[-1].getsockname()[1]
        except UsageError:
            for one in opened:
                one.close()
            if port or attempt == PORT_TRIES - 1:
                raise
            continue  # the port that IPv4 gave us is taken in IPv6: try another one
        if opened:
            return opened
        break
    named = [hosts[family] for family in families if hosts.get(family)]
    if named:
        raise UsageError(f"{' and '.join(named)}: not an address of this machine; see --bind, and [network] bind_ipv4")
    names = " and ".join(f"IPv{family}" for family in families)
    raise UsageError(f"this machine has no {names}; see [network] families in the configuration")


def local_endpoint(one: socket.socket) -> Endpoint:
    """Where a socket is bound."""
    name = one.getsockname()
    return endpoint(name[0], name[1])


class _Port:
    """One socket of a core, and what waits to leave through it."""

    __slots__ = ("family", "queue", "socket")

    def __init__(self, one: socket.socket) -> None:
        self.socket = one
        self.family: int = one.family
        self.queue: deque[tuple[bytes, Any]] | None = None  # None: nothing waits, send at once


class Driven(Generic[CoreT]):
    """A core on its sockets.  Commands go through `turn`, so that the drain rule is always kept."""

    __slots__ = (
        "_armed", "_driver", "_on_events", "_ports", "_reading", "_v4", "_v6", "after_turn", "closed", "core",
        "elsewhere",
    )  # fmt: skip

    def __init__(
        self,
        driver: NodeDriver,
        core: CoreT,
        sockets: Sequence[socket.socket],
        on_events: Callable[[float, list[Any]], None] | None,
    ) -> None:
        self.core = core
        self.closed = False
        self.elsewhere: Callable[[Endpoint, bytes], None] | None = None
        """Takes what a core sends by ways that are no endpoints (`peers.ways`)."""
        self.after_turn: Callable[[], None] | None = None
        """Called when a turn is over and the core rests."""
        self._reading: list[trio.CancelScope] | None = []
        """Of the tasks that read; None: somebody else does."""
        self._driver = driver
        self._on_events = on_events
        self._ports = [_Port(one) for one in sockets]
        self._v4 = next((port for port in self._ports if port.family == socket.AF_INET), None)
        self._v6 = next((port for port in self._ports if port.family == socket.AF_INET6), None)
        self._armed: float | None = None  # the live entry in the timer's heap

    @property
    def endpoints(self) -> list[Endpoint]:
        """Where the sockets are bound."""
        return [local_endpoint(port.socket) for port in self._ports]

    @contextlib.contextmanager
    def turn(self) -> Iterator[float]:
        """`with node.turn() as now: node.core.command(now, ...)`: what follows from it is sent at the end."""
        now = trio.current_time()
        try:
            yield now
        finally:
            self._settle(now)

    def _settle(self, now: float, *, is_quiet: bool = False) -> None:
        """Empty outbox and events until the core rests, then set the timer."""
        core = self.core
        while core.outbox or core.events:
            if core.outbox:
                self._flush(core.outbox)
            if core.events:
                happened = list(core.events)
                core.events.clear()
                if self._on_events is not None:
                    self._on_events(now, happened)
        if self.after_turn is not None:
            self.after_turn()
        if not is_quiet or getattr(core, "stirred", True):
            self._arm(core.next_wake())

    def _arm(self, wake: float | None) -> None:
        if wake != self._armed:
            self._armed = wake
            self._driver.arm(wake, self)

    def _flush(self, outbox: list[tuple[Endpoint, bytes]]) -> None:
        counters = self._driver.counters
        for where, data in outbox:
            if len(where) not in _ENDPOINT_SIZES and self.elsewhere is not None:
                self.elsewhere(where, data)
                continue
            port = self._v4 if len(where) == ENDPOINT_V4_BYTES else self._v6
            if port is None or self.closed:
                counters["sent without a socket of its family"] += 1
                continue
            if port.family == socket.AF_INET:
                to: Any = (socket.inet_ntop(socket.AF_INET, where[:4]), where[4] << 8 | where[5])
            else:
                to = (socket.inet_ntop(socket.AF_INET6, where[:16]), where[16] << 8 | where[17])
            if port.queue is not None:
                self._enqueue(port, data, to)
                continue
            try:
                port.socket.sendto(data, to)
            except BlockingIOError:
                port.queue = deque()
                self._enqueue(port, data, to)
                self._driver.start(self._send_queued, port)
            except OSError as problem:
                self._driver.count_error("send", problem)
            else:
                counters["sent"] += 1
        outbox.clear()

    def _enqueue(self, port: _Port, data: bytes, to: Any) -> None:
        assert port.queue is not None
        if len(port.queue) < SEND_QUEUE_DATAGRAMS:
            port.queue.append((data, to))
        else:
            self._driver.counters["send queue full"] += 1

    async def _send_queued(self, port: _Port) -> None:
        """Send what waits for room in the socket's buffer, oldest first."""
        assert port.queue is not None
        counters = self._driver.counters
        while port.queue:
            try:
                await trio.lowlevel.wait_writable(port.socket)
                while port.queue:
                    port.socket.sendto(*port.queue[0])
                    port.queue.popleft()
                    counters["sent"] += 1
            except BlockingIOError:
                continue
            except trio.ClosedResourceError:
                break
            except OSError as problem:
                if problem.errno in _CLOSED:
                    break
                port.queue.popleft()
                self._driver.count_error("send", problem)
        port.queue = None

    def give_up_reading(self) -> list[socket.socket]:
        """The sockets, which somebody else reads from here on, calling `deliver` and `settle`."""
        for scope in self._reading or ():
            scope.cancel()
        self._reading = None
        return [port.socket for port in self._ports]

    def deliver(self, now: float, source: Endpoint, data: bytes) -> None:
        """Take a datagram that somebody else read; `settle` follows."""
        self._driver.counters["received"] += 1
        try:
            self.core.receive(now, source, data)
        except Exception as fault:
            self._driver.report(fault)

    async def _read_until_given_up(self, port: _Port) -> None:
        if self._reading is not None:
            with trio.CancelScope() as scope:
                self._reading.append(scope)
                await self._read(port)

    async def _read(self, port: _Port) -> None:
        """Drain one socket until it is closed."""
        driver = self._driver
        counters, buffer, view = driver.counters, driver.buffer, memoryview(driver.buffer)
        one, family, core = port.socket, port.family, self.core
        packed_bytes = 4 if family == socket.AF_INET else 16
        while not self.closed:
            try:
                await trio.lowlevel.wait_readable(one)
            except (trio.ClosedResourceError, OSError):
                return
            now = trio.current_time()
            try:
                for _ in range(BATCH_DATAGRAMS):
                    size, source = one.recvfrom_into(buffer)
                    if size >= DATAGRAM_BYTES_MAX:
                        counters["received too long"] += 1
                        continue
                    host = source[0]
                    if packed_bytes == 16 and "%" in host:
                        host = host.partition("%")[0]
                    counters["received"] += 1
                    where = Endpoint(socket.inet_pton(family, host) + source[1].to_bytes(2, "big"))
                    try:
                        core.receive(now, where, bytes(view[:size]))
                    except Exception as fault:
                        driver.report(fault)
            except BlockingIOError:
                pass
            except OSError as problem:
                if problem.errno in _CLOSED:
                    return
                driver.count_error("receive", problem)
            self.settle(now, is_quiet=True)

    def settle(self, now: float, *, is_quiet: bool = False) -> None:
        """Do what follows from what was delivered; a fault is reported, and ends nothing.

        `is_quiet`: it may have been no more than a frame of a stream, as the core's `stirred` tells.
        """
        try:
            self._settle(now, is_quiet=is_quiet)
        except Exception as fault:
            self._driver.report(fault)

    def wake_due(self, now: float) -> None:
        """The timer's entry: wake the core, then drain."""
        self._armed = None
        try:
            self.core.wake(now)
        except Exception as fault:
            self._driver.report(fault)
        self.settle(now)

    def entry_is_live(self, when: float) -> bool:
        """Whether a heap entry is the one that counts (another one may have replaced it)."""
        return not self.closed and self._armed == when

    def start(self) -> None:
        """Start the tasks; the driver calls this."""
        for port in self._ports:
            self._driver.start(self._read_until_given_up, port)
        self.settle(trio.current_time())

    def close(self) -> None:
        """Close the sockets; the core gets and sends nothing from here on."""
        if self.closed:
            return
        self.closed = True
        for port in self._ports:
            if self._driver.is_running:
                trio.lowlevel.notify_closing(port.socket)
            port.socket.close()


class NodeDriver:
    """Runs any number of cores in one trio process; `async with` style: `await nursery.start(driver.run)`.

    `on_fault` gets an exception that a core raised (a defect of ours); the node goes on, because a
    stranger's packet must not be able to stop it.  Without it, the exception ends the driver.
    """

    def __init__(self, on_fault: Callable[[Exception], None] | None = None) -> None:
        self.counters: Counter[str] = Counter()
        self.buffer = bytearray(DATAGRAM_BYTES_MAX)
        self._on_fault = on_fault
        self._heap: list[tuple[float, int, Driven[Any]]] = []
        self._order = 0
        self._fired_at = float("-inf")
        self._sleep: trio.CancelScope | None = None  # of the timer, while it waits
        self._nursery: trio.Nursery | None = None
        self._nodes: list[Driven[Any]] = []

    @property
    def is_running(self) -> bool:
        """Whether `run` has begun and not ended."""
        return self._nursery is not None

    def add(
        self,
        core: CoreT,
        sockets: Sequence[socket.socket],
        on_events: Callable[[float, list[Any]], None] | None = None,
    ) -> Driven[CoreT]:
        """Put a core on sockets (`open_udp`), which from now on belong to the driver.

        `on_events(now, events)` is called within the turn; it may give the core commands.
        """
        node = Driven(self, core, sockets, on_events)
        self._nodes.append(node)
        if self._nursery is not None:
            node.start()
        return node

    def remove(self, node: Driven[Any]) -> None:
        """Take a core off its sockets and close them."""
        node.close()
        with contextlib.suppress(ValueError):  # removed before
            self._nodes.remove(node)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; all sockets are closed at the end."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                for node in self._nodes:
                    node.start()
                task_status.started()
                await self._run_timer()
        finally:
            for node in list(self._nodes):
                self.remove(node)
            self._nursery = None

    def start(self, task: Callable[..., Any], *args: Any) -> None:
        """Start a task of a node."""
        if self._nursery is not None:
            self._nursery.start_soon(task, *args)

    def arm(self, when: float | None, node: Driven[Any]) -> None:
        """Have `node` woken at `when`, and no more at the time before."""
        if when is not None:
            self._order += 1
            heapq.heappush(self._heap, (when, self._order, node))
        self._set_timer()

    def _set_timer(self) -> None:
        """Sleep until the first entry that is live.  In a call it moves all the time, for which nobody is woken."""
        heap = self._heap
        while heap and not heap[0][2].entry_is_live(heap[0][0]):
            heapq.heappop(heap)
        if self._sleep is not None:
            until = max(heap[0][0], self._fired_at + TIMER_STEP_SECONDS) if heap else float("inf")
            if until != self._sleep.deadline:
                self._sleep.deadline = until

    async def _run_timer(self) -> None:
        heap = self._heap
        while True:
            with trio.CancelScope() as self._sleep:
                self._set_timer()
                await trio.sleep_forever()
            self._sleep = None
            now = self._fired_at = trio.current_time()
            due: list[tuple[float, Driven[Any]]] = []
            while heap and heap[0][0] <= now:
                when, _, node = heapq.heappop(heap)
                due.append((when, node))
            for when, node in due:  # what they set anew, even for the past, waits for the next round
                if node.entry_is_live(when):
                    node.wake_due(now)

    def report(self, fault: Exception) -> None:
        """Hand on what a core should never raise; to be called while it is being handled."""
        self.counters["faults in a core"] += 1
        if self._on_fault is None:
            raise fault
        self._on_fault(fault)

    @contextlib.contextmanager
    def guard(self) -> Iterator[None]:
        """Around a turn that a stranger's bytes led to: what the core should never raise is reported, not raised."""
        try:
            yield
        except Exception as fault:
            self.report(fault)

    def count_error(self, what: str, problem: OSError) -> None:
        """Count what the system or the network said; the name of the errno is a short fixed word."""
        self.counters[f"{what} {errno.errorcode.get(problem.errno or 0, 'error')}"] += 1
