"""The UDP driver: batches, timer, drain rule, and that nothing the network says ends a node."""

from __future__ import annotations

import errno
import socket
from typing import Any

import pytest
import trio

from meshcall.core import Endpoint, endpoint
from meshcall.drivers import udp
from meshcall.drivers.udp import NodeDriver, local_endpoint, open_udp, open_udp_pair
from meshcall.errors import UsageError


class EchoCore:
    """Answers each datagram in capitals, says an event for it, and wakes when told."""

    def __init__(self) -> None:
        self.outbox: list[tuple[Endpoint, bytes]] = []
        self.events: list[Any] = []
        self.received: list[tuple[float, Endpoint, bytes]] = []
        self.due: float | None = None
        self.woken: list[float] = []
        self.fails = False

    def receive(self, now: float, source: Endpoint, data: bytes) -> None:
        if self.fails:
            raise ZeroDivisionError("a defect")
        self.received.append((now, source, data))
        self.outbox.append((source, data.upper()))
        self.events.append(("got", data))

    def wake(self, now: float) -> None:
        if self.due is not None and self.due <= now:
            self.woken.append(now)
            self.due = None

    def next_wake(self) -> float | None:
        return self.due


async def _wait_for(condition: Any, seconds: float = 5.0) -> None:
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await trio.sleep(0.005)


def _peer(family: int = 4) -> socket.socket:
    one = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
    one.bind(("127.0.0.1" if family == 4 else "::1", 0))
    one.settimeout(5)
    return one


def _has_ipv6() -> bool:
    try:
        with _peer(6):
            return True
    except OSError:
        return False


@pytest.mark.parametrize("family", [4, 6])
async def test_a_datagram_is_answered_and_its_event_handed_on(nursery: trio.Nursery, family: int) -> None:
    if family == 6 and not _has_ipv6():
        pytest.skip("this machine has no IPv6")
    core, seen = EchoCore(), []
    driver = NodeDriver()
    one = open_udp(family, "127.0.0.1" if family == 4 else "::1")
    where = one.getsockname()
    node = driver.add(core, [one], lambda _now, events: seen.extend(events))
    await nursery.start(driver.run)
    with _peer(family) as peer:
        peer.sendto(b"hello", where)
        assert (await trio.to_thread.run_sync(peer.recvfrom, 100))[0] == b"HELLO"
        assert core.received[0][1] == local_endpoint(peer)
    assert seen == [("got", b"hello")]
    assert core.events == core.outbox == []
    assert node.endpoints[0] == endpoint(where[0], where[1])


async def test_a_burst_is_taken_in_batches_that_share_one_time(nursery: trio.Nursery) -> None:
    core, driver = EchoCore(), NodeDriver()
    one = open_udp(4, "127.0.0.1")
    where = one.getsockname()
    with _peer() as peer:
        for number in range(100):
            peer.sendto(b"%d" % number, where)
        driver.add(core, [one])
        await nursery.start(driver.run)
        await _wait_for(lambda: len(core.received) == 100)
    assert [data for _, _, data in core.received] == [b"%d" % number for number in range(100)]
    times = [now for now, _, _ in core.received]
    assert len(set(times)) == 2, "64 and 36"
    assert driver.counters["received"] == 100


async def test_a_command_is_sent_at_the_end_of_its_turn(nursery: trio.Nursery) -> None:
    core, driver = EchoCore(), NodeDriver()
    node = driver.add(core, [open_udp(4, "127.0.0.1")])
    await nursery.start(driver.run)
    with _peer() as peer:
        with node.turn() as now:
            assert isinstance(now, float)
            node.core.outbox.append((local_endpoint(peer), b"question"))
        assert await trio.to_thread.run_sync(peer.recv, 100) == b"question"


async def test_a_handler_may_give_commands_within_the_turn(nursery: trio.Nursery) -> None:
    core, driver = EchoCore(), NodeDriver()
    with _peer() as peer:
        back = local_endpoint(peer)

        def handler(_now: float, events: list[Any]) -> None:
            for event in events:
                if event == "go":
                    core.outbox.append((back, b"went"))
                    core.events.append("gone")

        node = driver.add(core, [open_udp(4, "127.0.0.1")], handler)
        await nursery.start(driver.run)
        with node.turn():
            core.events.append("go")
        assert core.events == []
        assert await trio.to_thread.run_sync(peer.recv, 100) == b"went"


async def test_the_timer_wakes_on_time_and_an_earlier_deadline_wins(nursery: trio.Nursery) -> None:
    driver = NodeDriver()
    cores = [EchoCore() for _ in range(3)]
    nodes = [driver.add(core, [open_udp(4, "127.0.0.1")]) for core in cores]
    await nursery.start(driver.run)
    start = trio.current_time()
    for node, delay in zip(nodes, (0.2, 0.05, 0.1), strict=True):
        with node.turn() as now:
            node.core.due = now + delay
    with nodes[0].turn() as now:
        nodes[0].core.due = now + 0.02  # earlier than what the timer knows
    await _wait_for(lambda: all(core.woken for core in cores))
    woken = [core.woken[0] - start for core in cores]
    assert woken[0] < woken[1] < woken[2] < 1.0
    assert all(len(core.woken) == 1 for core in cores)


async def test_a_deadline_in_the_past_does_not_starve_the_others(nursery: trio.Nursery) -> None:
    class Restless(EchoCore):
        def next_wake(self) -> float | None:
            return 0.0

    driver = NodeDriver()
    driver.add(Restless(), [open_udp(4, "127.0.0.1")])
    await nursery.start(driver.run)
    with trio.fail_after(2):
        for _ in range(20):
            await trio.sleep(0.001)


async def test_errors_of_the_network_are_counted_and_never_fatal(nursery: trio.Nursery) -> None:
    class Broken:
        """A socket whose sends fail in every way a system knows."""

        family = socket.AF_INET

        def __init__(self, inner: socket.socket) -> None:
            self.inner = inner
            self.errors = [errno.ENETUNREACH, errno.EPERM, errno.EMSGSIZE, errno.ECONNREFUSED]

        def sendto(self, data: bytes, to: Any) -> int:
            if self.errors:
                raise OSError(self.errors.pop(0), "no")
            return self.inner.sendto(data, to)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

    core, driver = EchoCore(), NodeDriver()
    node = driver.add(core, [Broken(open_udp(4, "127.0.0.1"))])  # type: ignore[list-item]
    await nursery.start(driver.run)
    with _peer() as peer:
        with node.turn():
            core.outbox.extend([(local_endpoint(peer), b"x")] * 5)
        assert await trio.to_thread.run_sync(peer.recv, 100) == b"x"
    for name in ("send ENETUNREACH", "send EPERM", "send EMSGSIZE", "send ECONNREFUSED"):
        assert driver.counters[name] == 1
    assert driver.counters["sent"] == 1


async def test_a_full_send_buffer_queues_within_a_bound_and_keeps_the_order(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        """A socket whose buffer is full until told otherwise."""

        family = socket.AF_INET

        def __init__(self, inner: socket.socket) -> None:
            self.inner = inner
            self.full = True

        def sendto(self, data: bytes, to: Any) -> int:
            if self.full:
                raise BlockingIOError(errno.EAGAIN, "full")
            return self.inner.sendto(data, to)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

    monkeypatch.setattr(udp, "SEND_QUEUE_DATAGRAMS", 10)
    core, driver = EchoCore(), NodeDriver()
    full = Full(open_udp(4, "127.0.0.1"))
    node = driver.add(core, [full])  # type: ignore[list-item]
    await nursery.start(driver.run)
    with _peer() as peer:
        with node.turn():
            core.outbox.extend((local_endpoint(peer), b"%d" % number) for number in range(15))
        await trio.sleep(0.02)
        assert driver.counters["send queue full"] == 5
        full.full = False
        for number in range(10):
            assert await trio.to_thread.run_sync(peer.recv, 100) == b"%d" % number
        with node.turn():
            core.outbox.append((local_endpoint(peer), b"after"))
        assert await trio.to_thread.run_sync(peer.recv, 100) == b"after"


async def test_a_defect_in_a_core_is_reported_and_the_node_goes_on(nursery: trio.Nursery) -> None:
    faults: list[Exception] = []
    core, driver = EchoCore(), NodeDriver(on_fault=faults.append)
    one = open_udp(4, "127.0.0.1")
    where = one.getsockname()
    driver.add(core, [one])
    await nursery.start(driver.run)
    with _peer() as peer:
        core.fails = True
        peer.sendto(b"poison", where)
        await _wait_for(lambda: faults)
        core.fails = False
        peer.sendto(b"well", where)
        assert await trio.to_thread.run_sync(peer.recv, 100) == b"WELL"
    assert isinstance(faults[0], ZeroDivisionError)
    assert driver.counters["faults in a core"] == 1


async def test_too_long_datagrams_are_dropped_and_empty_ones_are_not(nursery: trio.Nursery) -> None:
    core, driver = EchoCore(), NodeDriver()
    one = open_udp(4, "127.0.0.1")
    where = one.getsockname()
    driver.add(core, [one])
    await nursery.start(driver.run)
    with _peer() as peer:
        peer.sendto(b"x" * 5000, where)
        peer.sendto(b"", where)
        await _wait_for(lambda: core.received)
    assert [data for _, _, data in core.received] == [b""]
    assert driver.counters["received too long"] == 1


async def test_a_removed_node_is_silent_and_the_others_stay(nursery: trio.Nursery) -> None:
    driver = NodeDriver()
    first, second = EchoCore(), EchoCore()
    one, two = open_udp(4, "127.0.0.1"), open_udp(4, "127.0.0.1")
    where, other = one.getsockname(), two.getsockname()
    node = driver.add(first, [one])
    driver.add(second, [two])
    await nursery.start(driver.run)
    await trio.sleep(0.01)
    driver.remove(node)
    driver.remove(node)
    with _peer() as peer:
        peer.sendto(b"to the gone", where)
        peer.sendto(b"to the living", other)
        assert await trio.to_thread.run_sync(peer.recv, 100) == b"TO THE LIVING"
    assert not first.received
    with node.turn():
        first.outbox.append((endpoint("127.0.0.1", 9), b"late"))
    assert driver.counters["sent without a socket of its family"] == 1


async def test_cancelling_closes_all_sockets() -> None:
    driver = NodeDriver()
    one = open_udp(4, "127.0.0.1")
    async with trio.open_nursery() as nursery:
        driver.add(EchoCore(), [one])
        await nursery.start(driver.run)
        nursery.cancel_scope.cancel()
    assert one.fileno() == -1
    assert not driver.is_running


def test_a_taken_port_is_a_sentence() -> None:
    with open_udp(4, "127.0.0.1") as first:
        port = first.getsockname()[1]
        with pytest.raises(UsageError, match=rf"UDP port {port} is in use.*--port"):
            open_udp(4, "127.0.0.1", port)
        with pytest.raises(UsageError, match="is in use"):
            open_udp_pair((4, 6), {4: "127.0.0.1", 6: "::1"}, port)


def test_a_pair_shares_one_port_and_lacking_families_are_left_out() -> None:
    pair = open_udp_pair((4, 6), {4: "127.0.0.1", 6: "::1"})
    try:
        assert len({one.getsockname()[1] for one in pair}) == 1
        assert len(pair) == (2 if _has_ipv6() else 1)
    finally:
        for one in pair:
            one.close()
    only = open_udp_pair((4, 6), {4: "127.0.0.1", 6: "2001:db8::77"})  # not an address of any machine
    try:
        assert [one.family for one in only] == [socket.AF_INET]
    finally:
        for one in only:
            one.close()
    with pytest.raises(UsageError, match=r"192\.0\.2\.77: not an address of this machine"):
        open_udp_pair((4,), {4: "192.0.2.77"})
