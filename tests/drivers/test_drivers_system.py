"""What the drivers ask of the system: sleep, interfaces, systemd."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest
import trio
import trio.testing

from meshcall.core import endpoint
from meshcall.drivers.clock import SleepDetector, sleeping_clock, watch_sleep
from meshcall.drivers.interfaces import local_endpoints, read_addresses, watch_addresses
from meshcall.drivers.notify import notify, watchdog_seconds


def test_the_detector_tells_sleep_from_time_that_passes() -> None:
    counting, standing = [100.0], [5.0]
    detector = SleepDetector(lambda: counting[0], lambda: standing[0])
    counting[0] += 60
    standing[0] += 60
    assert detector.slept() == 0.0
    counting[0] += 3600
    standing[0] += 1
    assert detector.slept() == pytest.approx(3599)
    assert detector.slept() == 0.0, "told once"


def test_small_steps_of_a_clock_are_not_sleep() -> None:
    counting = [0.0]
    detector = SleepDetector(lambda: counting[0], lambda: 0.0)
    for _ in range(10):
        counting[0] += 1.5
        assert detector.slept() == 0.0


def test_the_clock_of_this_machine_goes_on() -> None:
    clock = sleeping_clock()
    assert clock() <= clock()


async def test_a_wake_up_is_told_within_a_second(autojump_clock: trio.testing.MockClock, nursery: trio.Nursery) -> None:
    ahead, told = [0.0], []
    nursery.start_soon(
        watch_sleep,
        lambda seconds: told.append((trio.current_time(), seconds)),
        lambda: trio.current_time() + ahead[0],
        trio.current_time,
    )
    await trio.sleep(10.5)
    ahead[0] = 7200.0
    start = trio.current_time()
    await trio.sleep(20)
    assert len(told) == 1
    assert told[0][0] - start <= 1.0
    assert told[0][1] == pytest.approx(7200)


async def test_other_addresses_are_told_once(autojump_clock: trio.testing.MockClock, nursery: trio.Nursery) -> None:
    current = [frozenset({"192.0.2.1"})]
    told: list[frozenset[str]] = []
    nursery.start_soon(watch_addresses, told.append, lambda: current[0])
    await trio.sleep(10)
    assert told == []
    current[0] = frozenset({"198.51.100.7"})
    await trio.sleep(2.1)
    assert told == [frozenset({"198.51.100.7"})]
    await trio.sleep(10)
    assert len(told) == 1


def test_addresses_of_this_machine_are_numeric_and_lead_somewhere() -> None:
    for text in read_addresses():
        assert not text.startswith("127.")
        assert endpoint(text, 1)


def test_a_wildcard_stands_for_all_addresses_of_its_family() -> None:
    addresses = frozenset({"192.0.2.1", "2001:db8::1"})
    assert local_endpoints([endpoint("0.0.0.0", 5)], addresses) == [endpoint("127.0.0.1", 5), endpoint("192.0.2.1", 5)]
    assert local_endpoints([endpoint("::", 5)], addresses) == [endpoint("2001:db8::1", 5), endpoint("::1", 5)]
    assert local_endpoints([endpoint("127.0.0.1", 5)], addresses) == [endpoint("127.0.0.1", 5)]


@pytest.mark.parametrize("form", ["path", "abstract"])
def test_systemd_is_told(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if form == "abstract" and sys.platform != "linux":
        pytest.skip("abstract sockets are of Linux")
    name = str(tmp_path / "n") if form == "path" else f"@meshcall-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(name if form == "path" else "\0" + name[1:])
        supervisor.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        assert notify("READY=1\nSTATUS=up")
        assert supervisor.recv(100) == b"READY=1\nSTATUS=up"


def test_without_systemd_nothing_happens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    assert not notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", "vsock:1:2")
    assert not notify("READY=1")


def test_the_watchdog_is_fed_twice_as_often_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    assert watchdog_seconds() == 15.0
    monkeypatch.setenv("WATCHDOG_PID", "1" if os.getpid() != 1 else "2")
    assert watchdog_seconds() is None
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    monkeypatch.setenv("WATCHDOG_USEC", "junk")
    assert watchdog_seconds() is None
