"""The hot path on loopback: the same frames, refusals and quotas as the core, whichever batch carries it."""

from __future__ import annotations

import itertools
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from meshcall.core import Endpoint, endpoint, host_of, port_of
from meshcall.drivers.relay_batch import BATCH_DATAGRAMS, Batch, PlainBatch, has_mmsg, open_batch
from meshcall.drivers.relay_hot import HAND_OVER_MAX, LOOK_BATCHES_MAX, OTHERS_MAX, HotPath
from meshcall.drivers.udp import local_endpoint, open_udp
from meshcall.relay.core import RelayCore
from meshcall.relay.places import Place, udp_place
from meshcall.relay.policy import RelayPolicy
from meshcall.relay.quota import Quotas
from meshcall.wire import relay as wire
from tests.relay.relay_world import Chance, key

POLICY = RelayPolicy(mode="open", bytes_per_second=4_000_000, lease_bytes_per_second=200_000)
WAYS = [pytest.param(PlainBatch, id="plain")]
if has_mmsg():
    WAYS.append(pytest.param(open_batch, id="mmsg"))
LOOPBACK = {4: "127.0.0.1", 6: "::1"}


class Hot:
    """A relay on one socket, and sockets of people on the same loopback."""

    def __init__(self, make_batch: Callable[..., Batch], family: int, policy: RelayPolicy) -> None:
        self.family = family
        self.socket = open_udp(family, LOOPBACK[family])
        self.here = local_endpoint(self.socket)
        self.core = RelayCore(
            trio.current_time(), suite=Chance(), policy=policy, static=key(1), secret=key(2), track_routes=True
        )
        self.not_ours: list[bytes] = []
        self.path = HotPath([self.socket], self.core, self.deliver, self.settle, make_batch=make_batch)
        self.people: list[socket.socket] = []

    def deliver(self, now: float, source: Endpoint, data: bytes) -> None:
        if data[:1] == b"\x4d":
            self.core.receive(now, udp_place(source), data)
        else:
            self.not_ours.append(data)

    def settle(self, now: float) -> None:
        for to, data in self.core.outbox:
            self.socket.sendto(data, (host_of(Endpoint(to)), port_of(Endpoint(to))))
        self.core.outbox.clear()
        self.path.update()

    def person(self) -> socket.socket:
        one = open_udp(self.family, LOOPBACK[self.family])
        one.connect(self.socket.getsockname()[:2])
        self.people.append(one)
        return one

    async def lease(self, holder: socket.socket, number: int = 1) -> bytes:
        place = Place(local_endpoint(holder))
        request = wire.encode_lease_message(wire.LeaseRequest(1, 600))
        now = trio.current_time()
        self.core.message(now, number, key(number), key(100 + number), place, request)
        self.settle(now)
        grant = wire.decode_lease_message(self.core.messages.pop()[1])
        assert isinstance(grant, wire.LeaseGrant)
        await self.prove(holder)
        state = wire.decode_frame(await receive(holder))
        assert (state.kind, state.status) == (wire.STATE, wire.KNOWN)
        return grant.lease_id

    async def prove(self, who: socket.socket) -> None:
        frame = wire.decode_frame(await receive(who))
        assert frame.kind == wire.CHALLENGE
        who.send(wire.frame(wire.PROOF, frame.frame_id, frame.payload))

    async def call(self, caller: socket.socket, holder: socket.socket, number: int = 1) -> tuple[bytes, bytes]:
        """Ids of the lease and of an established flow."""
        lease_id = await self.lease(holder, number)
        caller.send(wire.frame(wire.TO_LEASE, lease_id, bytes(200)))
        flow_id = wire.decode_frame(await receive(holder)).frame_id
        await self.prove(caller)
        holder.send(wire.frame(wire.TO_FLOW, flow_id, bytes(8)))
        assert (await receive(caller))[1] == wire.TO_CALLER
        with trio.fail_after(5):
            while not self.core.tables.routes:  # noqa: ASYNC110 - the core says no such event
                await trio.sleep(0.001)
        return lease_id, flow_id


async def receive(one: socket.socket) -> bytes:
    with trio.fail_after(5):
        await trio.lowlevel.wait_readable(one)
    return one.recv(4096)


async def receive_all(one: socket.socket) -> list[bytes]:
    """What comes until nothing has come for a tenth of a second."""
    found = []
    with trio.move_on_after(0.1) as quiet:
        while True:
            await trio.lowlevel.wait_readable(one)
            found.append(one.recv(4096))
            quiet.deadline = trio.current_time() + 0.1
    return found


@asynccontextmanager
async def running(
    make_batch: Callable[..., Batch], family: int = 4, policy: RelayPolicy = POLICY
) -> AsyncIterator[Hot]:
    try:
        hot = Hot(make_batch, family, policy)
    except OSError:
        pytest.skip(f"no IPv{family} loopback on this machine")
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(hot.path.run)
            yield hot
            nursery.cancel_scope.cancel()
    finally:
        for one in (hot.socket, *hot.people):
            one.close()


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("make_batch", WAYS)
async def test_a_call_is_forwarded_without_the_core(make_batch: Callable[..., Batch], family: int) -> None:
    async with running(make_batch, family) as hot:
        caller, holder = hot.person(), hot.person()
        lease_id, flow_id = await hot.call(caller, holder)
        before = hot.core.counters["forwarded"]
        for number in range(100):
            caller.send(wire.frame(wire.TO_LEASE, lease_id, b"up %d" % number))
            holder.send(wire.frame(wire.TO_FLOW, flow_id, b"down %d" % number))
            if number % 10 == 9:
                await trio.sleep(0.002)
        ups, downs = await receive_all(holder), await receive_all(caller)
        assert ups == [wire.frame(wire.TO_HOLDER, flow_id, b"up %d" % number) for number in range(100)]
        assert downs == [wire.frame(wire.TO_CALLER, lease_id, b"down %d" % number) for number in range(100)]
        assert hot.core.counters["forwarded"] == before, "none of it went through the core"
        assert hot.path.totals()["forwarded"] == 200


@pytest.mark.parametrize("make_batch", WAYS)
async def test_what_is_not_of_a_route_goes_to_the_core_in_order(make_batch: Callable[..., Batch]) -> None:
    async with running(make_batch) as hot:
        caller, holder, stranger = hot.person(), hot.person(), hot.person()
        lease_id, flow_id = await hot.call(caller, holder)
        await receive_all(holder)
        for number in range(60):  # mixed into one batch
            caller.send(b"d%d" % number)
            caller.send(wire.frame(wire.TO_LEASE, lease_id, b"voice"))
            stranger.send(wire.frame(wire.TO_FLOW, flow_id, b"forged frame"))
            caller.send(wire.frame(wire.TO_LEASE, lease_id)[:11])
            caller.send(b"\x4d\x00\x00\x07" + lease_id + b"flags out of form")
            caller.send(wire.frame(wire.TO_FLOW, lease_id, b"wrong direction"))
            caller.send(bytes(3000))
            if number % 4 == 3:  # the socket's buffer is small
                await trio.sleep(0.003)
        ups = await receive_all(holder)
        assert ups == [wire.frame(wire.TO_HOLDER, flow_id, b"voice")] * 60
        assert [data for data in hot.not_ours if data[:1] == b"d"] == [b"d%d" % number for number in range(60)]
        assert hot.path.totals()["received too long"] == 60
        assert not any(data[1] == wire.TO_CALLER for data in await receive_all(caller))
        assert hot.core.counters["frame flags"] == 60


@pytest.mark.parametrize("make_batch", WAYS)
async def test_quotas_hold_on_the_hot_path(make_batch: Callable[..., Batch]) -> None:
    async with running(make_batch) as hot:
        caller, holder = hot.person(), hot.person()
        lease_id, flow_id = await hot.call(caller, holder)
        began = time.perf_counter()
        sent = 0
        while time.perf_counter() - began < 0.6:
            for _ in range(20):
                holder.send(wire.frame(wire.TO_FLOW, flow_id, bytes(1000)))
                sent += 1
            await trio.sleep(0.002)
        took = time.perf_counter() - began + 0.1
        got = sum(map(len, await receive_all(caller)))
        assert got <= POLICY.lease_bytes_per_second * (took + 0.25) + 5000
        assert got >= 0.3 * POLICY.lease_bytes_per_second * 0.6
        assert hot.path.totals()["over quota: lease"] > 0
        caller.send(wire.frame(wire.TO_LEASE, lease_id, b"x"))


@pytest.mark.parametrize("make_batch", WAYS)
async def test_a_flow_that_ends_is_forwarded_no_more(make_batch: Callable[..., Batch]) -> None:
    async with running(make_batch) as hot:
        caller, holder = hot.person(), hot.person()
        lease_id, _ = await hot.call(caller, holder)
        await receive_all(holder)
        hot.core.shut_down(trio.current_time())
        hot.settle(trio.current_time())
        caller.send(wire.frame(wire.TO_LEASE, lease_id, b"anybody there?"))
        assert await receive_all(holder) == []
        state = wire.decode_frame(await receive(caller))
        assert (state.kind, state.status) == (wire.STATE, wire.UNKNOWN_LEASE)


@pytest.mark.parametrize("make_batch", WAYS)
async def test_a_holder_who_moves_is_followed(make_batch: Callable[..., Batch]) -> None:
    async with running(make_batch) as hot:
        caller, holder = hot.person(), hot.person()
        lease_id, flow_id = await hot.call(caller, holder)
        moved = hot.person()
        now = trio.current_time()
        hot.core.moved(now, 1, Place(local_endpoint(moved)))
        hot.settle(now)
        await hot.prove(moved)
        assert wire.decode_frame(await receive(moved)).status == wire.KNOWN
        caller.send(wire.frame(wire.TO_LEASE, lease_id, b"where are you now"))
        assert (await receive(moved))[12:] == b"where are you now"
        holder.send(wire.frame(wire.TO_FLOW, flow_id, b"from the old place"))
        moved.send(wire.frame(wire.TO_FLOW, flow_id, b"from the new place"))
        assert await receive_all(caller) == [wire.frame(wire.TO_CALLER, lease_id, b"from the new place")]


class Endless(PlainBatch):
    """Always has more, and notes at which times it was asked."""

    def __init__(self, one: socket.socket, quotas: Quotas) -> None:
        super().__init__(one, quotas)
        self.times: list[float] = []

    def take(self, now: float) -> int:
        self.times.append(now)
        time.sleep(0.001)
        return BATCH_DATAGRAMS


async def test_a_heap_of_packets_is_paid_for_by_the_time_it_takes() -> None:
    """Were the clock read once for a heap, a relay behind its packets would refill no quota and refuse them."""
    ones = [open_udp(4, "127.0.0.1") for _ in range(2)]
    core = RelayCore(0.0, suite=Chance(), policy=POLICY, static=key(1), secret=key(2))
    made: list[Endless] = []

    def make(one: socket.socket, quotas: Quotas) -> Endless:
        made.append(Endless(one, quotas))
        return made[-1]

    path = HotPath(ones, core, lambda now, source, data: None, lambda now: None, make_batch=make)
    assert path._look() == 2 * LOOK_BATCHES_MAX * BATCH_DATAGRAMS
    for batch in made:
        assert len(batch.times) == LOOK_BATCHES_MAX, "the other socket has its turn"
        assert all(later > before for before, later in itertools.pairwise(batch.times))
    for one in ones:
        one.close()


async def test_a_defect_is_reported_and_the_node_is_not_deaf_after_it() -> None:
    one, person = open_udp(4, "127.0.0.1"), open_udp(4, "127.0.0.1")
    core = RelayCore(0.0, suite=Chance(), policy=POLICY, static=key(1), secret=key(2))
    heard: list[bytes] = []
    faults: list[Exception] = []

    class Broken(PlainBatch):
        def take(self, now: float) -> int:
            if not faults:
                raise RuntimeError("a defect")
            return super().take(now)

    path = HotPath(
        [one], core, lambda now, source, data: heard.append(data), lambda now: None, make_batch=Broken,
        on_fault=faults.append,
    )  # fmt: skip
    async with trio.open_nursery() as nursery:
        await nursery.start(path.run)
        person.sendto(b"hello", one.getsockname())
        with trio.fail_after(10):
            while not heard:  # noqa: ASYNC110 - nothing tells of it
                await trio.sleep(0.005)
        nursery.cancel_scope.cancel()
    assert [str(fault) for fault in faults] == ["a defect"] * path.totals()["faults"]
    one.close()
    person.close()


def open_files() -> int:
    """How many this process has; 0 where the system does not tell."""
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


class Counting(Counter[str]):
    """Counts a new word while somebody goes through the old ones, as the relay's thread may."""

    def items(self) -> Any:
        for number, item in enumerate(list(super().items())):
            self[f"new {number}"] += 1
            yield item
        for item in super().items():
            self["one more"] += 1
            yield item


def test_counters_can_be_read_while_the_thread_counts() -> None:
    one = open_udp(4, "127.0.0.1")
    core = RelayCore(0.0, suite=Chance(), policy=POLICY, static=key(1), secret=key(2))
    path = HotPath([one], core, lambda now, source, data: None, lambda now: None)
    path.counters["faults"] += 1
    path._batches[0].counters = Counting({"forwarded": 5, "over quota: lease": 2})
    assert path.totals() == {"faults": 1, "forwarded": 5, "over quota: lease": 2}
    one.close()


async def test_a_flood_for_the_core_leaves_the_other_tasks_their_turn() -> None:
    one = open_udp(4, "127.0.0.1")
    core = RelayCore(0.0, suite=Chance(), policy=POLICY, static=key(1), secret=key(2))
    heard: list[bytes] = []
    path = HotPath([one], core, lambda now, source, data: heard.append(data), lambda now: None)
    path._token = trio.lowlevel.current_trio_token()
    flood = [(endpoint("192.0.2.1", 4000), bytes([n % 256])) for n in range(OTHERS_MAX + 100)]
    path._pass_on(list(flood))
    assert path.counters["waiting for the core: full"] == 100
    most = 0
    while len(heard) < OTHERS_MAX:
        before = len(heard)
        await trio.sleep(0)
        most = max(most, len(heard) - before)
    assert most <= 2 * HAND_OVER_MAX
    assert heard == [data for _, data in flood[:OTHERS_MAX]], "in order, none twice"
    one.close()


async def test_thread_and_pipes_end_with_the_task() -> None:
    files, threads = open_files(), threading.active_count()
    for _ in range(5):
        async with running(open_batch):
            pass
    assert open_files() <= files
    assert threading.active_count() == threads


def test_the_plain_batch_serves_where_the_fast_one_cannot() -> None:
    assert endpoint("127.0.0.1", 1)
    one = open_udp(4, "127.0.0.1")
    core = RelayCore(0.0, suite=Chance(), policy=POLICY, static=key(1), secret=key(2))
    assert PlainBatch(one, core.quotas).take(1.0) == 0
    one.close()
