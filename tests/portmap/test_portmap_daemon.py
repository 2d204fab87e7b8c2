"""A real daemon behind a gateway, in a namespace of the test: it asks, shows, makes sure, and gives back at its end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.natlab.home import ROOT, Home

WAIT_SECONDS = 30.0
PORT = 40_123


class Node:
    """`meshcall up` on the host behind the gateway."""

    def __init__(self, home: Home, folder: Path, config: str = "") -> None:
        self._home, self._folder = home, folder
        self._environment = {
            **os.environ, "MESHCALL_NAMESPACE": "1", "MESHCALL_OFFLINE": "0", "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
        }  # fmt: skip
        self._run("id", "new", "--no-passphrase")
        (folder / "test.toml").write_text(config)
        self._log = (folder / "log").open("wb")
        self.process = subprocess.Popen(
            self._command("up", "--config", str(folder / "test.toml"), "--private", "--port", str(PORT)),
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, env=self._environment,
        )  # fmt: skip

    def _command(self, *words: str) -> list[str]:
        inside = ["ip", "netns", "exec", self._home.host, sys.executable, "-m", "meshcall"]
        return [*inside, *words, "--home", str(self._folder)]

    def _run(self, *words: str) -> str:
        done = subprocess.run(self._command(*words), env=self._environment, capture_output=True, text=True, timeout=60)
        return done.stdout

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text()

    def wait_for(self, text: str) -> None:
        end = time.monotonic() + WAIT_SECONDS
        while text not in self.log:
            assert self.process.poll() is None, self.log
            assert time.monotonic() < end, f"no {text!r}:\n{self.log}"
            time.sleep(0.05)

    def mapping(self) -> dict[str, Any]:
        return dict(json.loads(self._run("status", "--json"))["network"]["port_mapping"])

    def line(self) -> str:
        found = re.search(r"^Port mapping +(.*)$", self._run("status"), re.MULTILINE)
        assert found
        return found[1]

    def end(self) -> int:
        """Stop it; the seconds its end may take are bounded."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(15)
        self._log.close()
        return code


@pytest.fixture
def nodes(home: Home, tmp_path: Path) -> Iterator[list[Node]]:
    started: list[Node] = []
    try:
        yield started
    finally:
        for node in started:
            node.end()


@pytest.mark.parametrize(("speaks", "name"), [("pcp", "PCP"), ("nat-pmp", "NAT-PMP"), ("upnp", "UPnP")])
def test_a_daemon_asks_shows_makes_sure_and_gives_back(
    home: Home, nodes: list[Node], tmp_path: Path, speaks: str, name: str
) -> None:
    fake = home.start_gateway(speaks=[speaks])
    nodes.append(node := Node(home, tmp_path))
    assert fake.line()[:3] == ["mapped", speaks, str(PORT)]
    node.wait_for("the router forwards a port to this node")
    said = node.mapping()
    assert said["on"]
    assert said["off_because"] is None
    first = said["families"][0]
    assert (first["family"], first["protocol"], first["outside"]) == (4, speaks, f"203.0.113.7:{PORT}")
    assert not first["double_nat"]
    assert 7000 < first["ends_in_seconds"] <= 7200
    assert first["next_try_in_seconds"] is None
    assert node.line().startswith(f"IPv4: 203.0.113.7:{PORT} by {name}, for 2.0 h unless renewed")

    home.ip("-n", home.host, "addr", "add", "192.168.77.9/24", "dev", "lan0")  # a change that leaves the gateway
    assert fake.line()[:3] == ["mapped", speaks, str(PORT)]

    assert node.end() == 0
    assert fake.line() == ["deleted", speaks, str(PORT)]
    assert "the node goes on" not in node.log


def test_a_double_nat_is_said_in_words(home: Home, nodes: list[Node], tmp_path: Path) -> None:
    home.start_gateway(speaks=["pcp"], outside="100.64.3.4")
    nodes.append(node := Node(home, tmp_path))
    node.wait_for("the router forwards a port to this node, which is itself behind a NAT")
    assert node.mapping()["families"][0]["double_nat"]
    assert "double NAT" in node.line()


def test_a_gateway_that_speaks_nothing_is_named(home: Home, nodes: list[Node], tmp_path: Path) -> None:
    nodes.append(node := Node(home, tmp_path))
    node.wait_for("  ready  ")
    end = time.monotonic() + WAIT_SECONDS
    while not (said := node.mapping())["families"][0]["reason"] and time.monotonic() < end:
        time.sleep(0.2)
    assert said["families"][0]["reason"] == "upnp no answer"
    assert 700 < said["families"][0]["next_try_in_seconds"] < 1000
    assert said["families"][1]["reason"] == "no gateway"
    assert node.line().startswith("IPv4: none (upnp no answer), next attempt in ")


def test_who_does_not_want_it_asks_nobody(home: Home, nodes: list[Node], tmp_path: Path) -> None:
    fake = home.start_gateway()
    nodes.append(node := Node(home, tmp_path, "[network]\nport_mapping = false\n"))
    node.wait_for("  ready  ")
    time.sleep(1)
    assert node.mapping() == {"on": False, "off_because": "[network] port_mapping is false", "families": []}
    assert node.line() == "off: [network] port_mapping is false"
    assert node.end() == 0
    assert fake.rest() == b"", "the gateway was asked"
