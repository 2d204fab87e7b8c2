"""Real devices: PortAudio and miniaudio on a PulseAudio of the test's own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sound.pulse import PulseServer, why_not

pytestmark = [
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
    pytest.mark.xdist_group("sound"),
]
TRIP_MS_MAX = 150.0
"""From the loudspeaker of a cable to its microphone, buffers of both sides included; 44 to 50 ms when nothing
else runs."""


class Child:
    """loop_child.py."""

    def __init__(self, server: PulseServer, backend: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("loop_child.py")), backend],
            env={**server.environment("cable", "cable_out"), "PYTHONPATH": str(Path(__file__).parents[2])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ask(self, line: str = "look") -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def wait_for(self, holds: Callable[[dict[str, Any]], bool], seconds: float = 30.0) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while not holds(answer := self.ask()):
            assert time.monotonic() < end, answer
            time.sleep(0.1)
        return answer

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PulseServer]:
    with PulseServer(tmp_path) as one:
        yield one


@pytest.fixture
def child(server: PulseServer) -> Iterator[Callable[[str], Child]]:
    children: list[Child] = []

    def make(backend: str) -> Child:
        children.append(Child(server, backend))
        return children[-1]

    yield make
    for one in children:
        one.close()


@pytest.mark.parametrize("backend", ["sounddevice", "miniaudio"])
def test_sound_goes_round(backend: str, child: Callable[[str], Child]) -> None:
    one = child(backend)
    answer = one.wait_for(lambda answer: len(answer["trips"]) == 5)
    assert answer["chosen"]
    assert backend in answer["name"]
    assert 5 < min(answer["trips"]) < TRIP_MS_MAX
    assert answer["gap"] < 1.0
    assert answer["stats"].get("devices failed", 0) == 0
    assert one.ask("stop")["stopped_in"] < 3
    assert one.process.wait(10) == 0


@pytest.mark.parametrize("backend", ["sounddevice", "miniaudio"])
def test_a_sound_server_that_dies_and_comes_back(
    backend: str, child: Callable[[str], Child], server: PulseServer
) -> None:
    one = child(backend)
    one.wait_for(lambda answer: len(answer["trips"]) >= 2)
    server.kill()
    answer = one.wait_for(lambda answer: not answer["chosen"])
    assert answer["name"] == "no sound device"
    assert any(why and backend in why for _, why in answer["said"])
    time.sleep(1.0)
    answer = one.ask()
    assert answer["gap"] < 1.0, "the call went on"
    before = answer["blocks"]
    server.start()
    answer = one.wait_for(lambda answer: answer["chosen"], 60)
    assert backend in answer["name"]
    answer = one.wait_for(lambda answer: answer["blocks"] > before + 100 and answer["trips"])
    assert answer["gap"] < 1.0
    assert one.ask("stop")["stopped_in"] < 3
    assert one.process.wait(10) == 0
