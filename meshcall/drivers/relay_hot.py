"""The relay's hot path: a thread of its own that reads the node's socket and forwards frames of known routes.

It coalesces: while traffic is dense it looks once a millisecond, so that waking up, which costs more
than forwarding, is shared by many packets.  What no route takes (KRPC, links, first frames) goes to
the trio thread, in batches.  The core stays the owner of routes and quotas; see drivers/relay_batch.py.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable

import trio

from meshcall.core import Endpoint
from meshcall.drivers.relay_batch import BATCH_DATAGRAMS, Batch, open_batch
from meshcall.drivers.udp_buffers import enlarge_buffers
from meshcall.relay.core import RelayCore

COALESCE_SECONDS = 0.001
"""How long a packet may wait for others while traffic is dense."""
DENSE_DATAGRAMS = 2
"""Traffic is dense while each look finds so many."""
BUFFER_BYTES = 8 << 20
"""Asked of the system for each socket: 20,000 packets a second fill it in a third of a second or more."""
LOOK_BATCHES_MAX = 32
"""Taken from one socket before the other has its turn."""
OTHERS_MAX = 2048
"""Datagrams kept for the core; more are counted and dropped."""
HAND_OVER_MAX = 256
"""Given to the core before the other tasks have their turn."""
FAULT_PAUSE_SECONDS = 0.05
"""A fault that stays must not spin."""
SWITCH_SECONDS = 0.001
"""How long the interpreter's other threads may keep this one waiting."""


def can_run() -> bool:
    """Whether this system can wait for sockets and a pipe in one thread."""
    return hasattr(select, "poll")


class HotPath:
    """Reads sockets in place of the node's own reading task, from `run` on.

    `deliver(now, source, data)` gets, in the trio thread, what no route took; `settle(now)` is called
    after each such batch; neither may raise.  Call `update` after every turn of the core, so that
    its routes take effect.  The sockets stay their owner's: they may be closed after `run` has ended, and not before.
    """

    def __init__(
        self,
        sockets: list[socket.socket],
        core: RelayCore,
        deliver: Callable[[float, Endpoint, bytes], None],
        settle: Callable[[float], None],
        *,
        make_batch: Callable[..., Batch] = open_batch,
        on_fault: Callable[[Exception], None] | None = None,
    ) -> None:
        """`on_fault` is told, in the trio thread, of a defect of ours in the relay's thread, which goes on."""
        self.counters: Counter[str] = Counter()
        self._core = core
        self._deliver = deliver
        self._settle = settle
        self._sockets = sockets
        for one in sockets:
            enlarge_buffers(one, BUFFER_BYTES)
        self._batches = [make_batch(one, core.quotas) for one in sockets]
        self._others: deque[tuple[Endpoint, bytes]] = deque()
        self._on_fault = on_fault
        self._stopping = False
        self._offset = 0.0
        self._token: trio.lowlevel.TrioToken | None = None
        core.tables.track_changes = True
        for route in core.tables.routes.values():
            self._put(route.frame_id + route.source)

    def update(self) -> None:
        """Take over what the core changed in its routes."""
        changes = self._core.tables.changes
        for key, _ in changes:
            self._put(key)
        changes.clear()

    def _put(self, key: bytes) -> None:
        route = self._core.tables.routes.get(key)
        for batch in self._batches:
            if route is None:
                batch.drop(key)
            else:
                batch.put(route)

    def totals(self) -> Counter[str]:
        """What was counted, over all sockets."""
        total = Counter(self.counters)
        for batch in self._batches:
            total.update(dict(batch.counters))  # at once: the relay's thread may count a new word meanwhile
        return total

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Forward until cancelled."""
        self._token = trio.lowlevel.current_trio_token()
        self._offset = trio.current_time() - time.perf_counter()
        switched = sys.getswitchinterval()
        sys.setswitchinterval(min(switched, SWITCH_SECONDS))
        wake_read, wake_write = os.pipe()
        thread = threading.Thread(target=self._loop, args=(wake_read,), name="relay", daemon=True)
        thread.start()
        try:
            task_status.started()
            await trio.sleep_forever()
        finally:
            self._stopping = True
            os.write(wake_write, b"x")
            thread.join()
            os.close(wake_read)
            os.close(wake_write)
            sys.setswitchinterval(switched)
            self._hand_over(OTHERS_MAX)
            self._core.tables.track_changes = False
            self._core.tables.changes.clear()

    # In the relay's thread

    def _loop(self, wake: int) -> None:
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        for one in self._sockets:
            poll.register(one, select.POLLIN)
        while not self._stopping:
            try:
                poll.poll()
                while self._look() >= DENSE_DATAGRAMS and not self._stopping:
                    time.sleep(COALESCE_SECONDS)
            except Exception as fault:
                self._report(fault)
                time.sleep(FAULT_PAUSE_SECONDS)

    def _report(self, fault: Exception) -> None:
        """A defect of ours: the node must not go deaf by it."""
        self.counters["faults"] += 1
        if self._on_fault is not None and self._token is not None:
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._on_fault, fault)

    def _look(self) -> int:
        """Take what has come, within bounds; returns how many datagrams."""
        total = 0
        for batch in self._batches:
            for _ in range(LOOK_BATCHES_MAX):
                # the time anew for each: a heap that takes long to forward must not outlive its quotas' refills
                count = batch.take(time.perf_counter() + self._offset)
                total += count
                if batch.others:
                    self._pass_on(batch.others)
                if count < BATCH_DATAGRAMS or self._stopping:
                    break
        return total

    def _pass_on(self, others: list[tuple[Endpoint, bytes]]) -> None:
        room = OTHERS_MAX - len(self._others)
        if len(others) > room:
            self.counters["waiting for the core: full"] += len(others) - room
            del others[max(room, 0) :]
        self._others.extend(others)
        others.clear()
        assert self._token is not None
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._hand_over, idempotent=True)

    # In trio's thread

    def _hand_over(self, most: int = HAND_OVER_MAX) -> None:
        now = time.perf_counter() + self._offset
        for _ in range(min(len(self._others), most)):  # what comes meanwhile waits for the other tasks' turn
            source, data = self._others.popleft()
            self._deliver(now, source, data)
        self._settle(now)
        if self._others and self._token is not None:
            self._token.run_sync_soon(self._hand_over, idempotent=True)
