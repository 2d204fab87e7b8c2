"""The live node: other networks, sleep, where to begin, and a demonstration that leaves nothing behind."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from msgspec.structs import replace

from meshcall.config import Config, Discovery, Network
from meshcall.core import endpoint, show_endpoint
from meshcall.crypto.sodium import Sodium
from meshcall.daemon import live as live_module
from meshcall.daemon import start_points
from meshcall.daemon.live import LiveNode
from meshcall.daemon.start_points import Saved
from meshcall.demo.swarm import Swarm
from meshcall.identity import Device, Identity
from tests.daemon.processes import environment

CALLABLE_SECONDS_MAX = 5.0


def _config(bootstrap: list[str], **record: Any) -> Config:
    return replace(
        Config(),
        network=Network(families=(4,), bind_ipv4="127.0.0.1", private=True),
        dht=Discovery(bootstrap=tuple(bootstrap)),
    )


async def _swarm(nursery: trio.Nursery, size: int = 6) -> list[str]:
    swarm = Swarm(size, Sodium())
    await nursery.start(swarm.run)
    await swarm.join(contacts_min=1)
    return [show_endpoint(where) for where in swarm.first_endpoints]


async def _until(condition: Callable[[], bool], seconds: float) -> None:
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await trio.sleep(0.02)


def _published(live: LiveNode) -> int | None:
    """The seq of the present period's record, once it is stored."""
    status = live.node.status(trio.current_time()).publisher
    return status.periods[0].seq if status and status.periods and status.periods[0].stored else None


@pytest.mark.parametrize("what", ["sleep", "address"])
async def test_callable_again_within_5_seconds(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """The clock that counts sleep jumps, or the interfaces show other addresses; the nodes are real."""
    ahead, addresses = [0.0], [frozenset({"192.0.2.10"})]
    monkeypatch.setattr(live_module, "sleeping_clock", lambda: lambda: time.monotonic() + ahead[0])
    monkeypatch.setattr(live_module, "read_addresses", lambda: addresses[0])
    known = await _swarm(nursery)
    suite = Sodium()
    ann = LiveNode(_config(known), suite, Saved())
    bob = LiveNode(_config(known), suite, Saved())
    await nursery.start(ann.run)
    await nursery.start(bob.run)
    identity = Identity.new(suite)
    with ann.driven.turn() as now:
        ann.node.publish(now, identity, Device.new(suite))
    await _until(lambda: _published(ann) is not None, 10)
    before = _published(ann)
    assert before is not None
    await trio.sleep(1.1)  # seq follows the clock in whole seconds

    if what == "sleep":
        ahead[0] += 8 * 3600
    else:
        addresses[0] = frozenset({"198.51.100.20"})
    began = trio.current_time()
    await _until(lambda: (_published(ann) or 0) > before, CALLABLE_SECONDS_MAX)
    result = await bob.lookup(identity.address, trace=False, event=lambda _name, _data: None)
    assert result["found"]
    assert result["record"]["seq"] > before
    assert trio.current_time() - began < CALLABLE_SECONDS_MAX
    assert ann.node.counters["network changed"] == 1


async def test_a_look_up_waits_for_the_network(nursery: trio.Nursery) -> None:
    known = await _swarm(nursery, 4)
    live = LiveNode(_config(known), Sodium(), Saved(), read_only=True)
    await nursery.start(live.run)
    result = await live.lookup(Identity.new(Sodium()).address, trace=True, event=lambda _name, _data: None)
    assert result["outcome"] == "not published"
    assert result["lookups"][0]["report"]["answers"] >= 1


async def test_dead_saved_nodes_do_not_keep_it_from_the_configured_ones(nursery: trio.Nursery) -> None:
    known = await _swarm(nursery, 4)
    dead = tuple((bytes([number]) * 20, endpoint("127.0.0.1", 1000 + number)) for number in range(60))
    live = LiveNode(_config(known), Sodium(), Saved(0, dead))
    await nursery.start(live.run)
    with trio.fail_after(8):
        await live.joined.wait()


async def test_saved_nodes_alone_are_enough(nursery: trio.Nursery) -> None:
    known = await _swarm(nursery, 4)
    first = LiveNode(_config(known), Sodium(), Saved())
    await nursery.start(first.run)
    await _until(lambda: len(first.good_contacts()) >= 2, 10)
    second = LiveNode(_config([]), Sodium(), Saved(0, first.good_contacts()))
    await nursery.start(second.run)
    with trio.fail_after(8):
        await second.joined.wait()


async def test_a_defect_that_comes_again_and_again_does_not_fill_the_disk(caplog: pytest.LogCaptureFixture) -> None:
    live = LiveNode(_config([]), Sodium(), Saved())
    with caplog.at_level(logging.ERROR):
        for number in range(200):
            with live._driver.guard():
                raise RuntimeError(f"by packet {number}")
    written = [record for record in caplog.records if "a defect in meshcall" in record.message]
    assert live_module.FAULTS_BURST <= len(written) <= live_module.FAULTS_BURST + 2
    assert "by packet 0" in caplog.text
    assert live.udp_counters["faults in a core"] == 200
    live.driven.close()


async def test_offline_no_name_is_asked_for(nursery: trio.Nursery, caplog: pytest.LogCaptureFixture) -> None:
    # The guard in conftest fails this test if a name is resolved.
    assert start_points.built_in(Config()) == ()
    found, failed = await start_points.resolve(["dht.example.org:6881"], (4, 6))
    assert found == []
    assert failed == ["dht.example.org:6881"]
    live = LiveNode(_config(["dht.example.org:6881"]), Sodium(), Saved())
    await nursery.start(live.run)
    await trio.sleep(0.1)
    assert "offline: no name is looked up" in caplog.text


def test_online_the_public_routers_are_the_last_resort(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(start_points.OFFLINE_VARIABLE)
    assert start_points.built_in(Config()) == start_points.PUBLIC_ROUTERS
    private = replace(Config(), network=Network(private=True))
    assert start_points.built_in(private) == ()


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    saved = Saved(40_000, tuple((n.to_bytes(20, "big"), endpoint("2001:db8::1", n + 1)) for n in range(300)))
    start_points.save(tmp_path, saved)
    assert start_points.load(tmp_path) == (saved, None)
    assert start_points.peek(tmp_path) == saved
    assert (tmp_path / start_points.NODES_FILE).stat().st_mode & 0o077 == 0


def _demo(*arguments: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "meshcall", "demo", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(TMPDIR=str(folder)),
        start_new_session=True,
    )


def test_the_demonstration_works_and_leaves_nothing(tmp_path: Path) -> None:
    with _demo("--json", "--nodes", "12", folder=tmp_path) as process:
        said, complaint = process.communicate(timeout=60)
    assert process.returncode == 0, complaint
    measured = json.loads(said)
    assert measured["nodes"] == 12
    assert measured["lookup"]["answers"] >= 1
    assert measured["lookup_after_silence"]["first_ms"] > 0
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_ends_the_demonstration_with_all_its_processes(tmp_path: Path) -> None:
    with _demo("--plain", folder=tmp_path) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("   processes "):
                pids = [int(word) for word in line.replace(",", " ").split() if word.isdigit()][:2]
                break
        os.kill(process.pid, signal.SIGINT)
        _, complaint = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in complaint
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert list(tmp_path.iterdir()) == []
