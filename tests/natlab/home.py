"""A home in two network namespaces: a gateway, a host behind it, and no way out of them.  The fixture is `home`."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
WAIT_SECONDS = 25.0


class Program:
    """A child inside a namespace that speaks in JSON lines."""

    def __init__(self, space: str, *arguments: str) -> None:
        surroundings = {**os.environ, "MESHCALL_NAMESPACE": "1", "MESHCALL_OFFLINE": "0"}
        self._child = subprocess.Popen(
            ["ip", "netns", "exec", space, sys.executable, "-m", *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, env=surroundings,
        )  # fmt: skip
        assert self._child.stdin
        assert self._child.stdout
        self._in, self._out = self._child.stdin, self._child.stdout
        self._rest = b""

    def line(self) -> Any:
        """The next line, within `WAIT_SECONDS`."""
        end = time.monotonic() + WAIT_SECONDS
        with selectors.DefaultSelector() as selector:
            selector.register(self._out, selectors.EVENT_READ)
            while b"\n" not in self._rest:
                assert selector.select(max(0.0, end - time.monotonic())), "no line in time"
                chunk = os.read(self._out.fileno(), 4096)
                assert chunk, "the program ended"
                self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        return "ready" if line == b"ready" else json.loads(line)

    def say(self, text: str) -> None:
        self._in.write(text.encode() + b"\n")
        self._in.flush()

    def end(self) -> None:
        """Close its input, which ends it."""
        self._in.close()

    def rest(self) -> bytes:
        """End it, and all that it still had to say."""
        self.end()
        self._child.wait(WAIT_SECONDS)
        return self._rest + self._out.read()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._in.close()
        try:
            self._child.wait(5)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._out.close()


class Home:
    """Two namespaces and a cable, for a `with`: a gateway and a host behind it, with no way out."""

    def __init__(self) -> None:
        self.gateway, self.host = f"pm{os.getpid()}g", f"pm{os.getpid()}h"
        self._programs: list[Program] = []

    def __enter__(self) -> Home:
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _build(self) -> None:
        for space in (self.gateway, self.host):
            self.ip("netns", "add", space)
            self.ip("-n", space, "link", "set", "lo", "up")
        self.ip("link", "add", "lan0", "netns", self.gateway, "type", "veth", "peer", "lan0", "netns", self.host)
        for space, last in ((self.gateway, 1), (self.host, 2)):
            self.ip("-n", space, "link", "set", "lan0", "addrgenmode", "none", "up")
            self.ip("-n", space, "addr", "add", f"192.168.77.{last}/24", "dev", "lan0")
        self.ip("-n", self.host, "route", "add", "default", "via", "192.168.77.1")

    def with_ipv6(self) -> None:
        self.ip("-n", self.gateway, "addr", "add", "fe80::1/64", "dev", "lan0", "nodad")
        self.ip("-n", self.gateway, "route", "add", "2001:db8:77::/64", "dev", "lan0")
        self.ip("-n", self.host, "addr", "add", "fe80::2/64", "dev", "lan0", "nodad")
        self.ip("-n", self.host, "addr", "add", "2001:db8:77::2/64", "dev", "lan0", "nodad")
        self.ip("-n", self.host, "route", "add", "default", "via", "fe80::1", "dev", "lan0")

    @staticmethod
    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    def start_gateway(self, address: str = "192.168.77.1", **options: object) -> Program:
        program = self.start(self.gateway, "tests.portmap.fake_gateway", address, json.dumps(options))
        assert program.line() == "ready"
        return program

    def start_host(self, *families: str) -> Program:
        return self.start(self.host, "tests.portmap.mapped_host", *(families or ("4",)))

    def start(self, space: str, *arguments: str) -> Program:
        """A module of the tests as a program in one of the namespaces."""
        self._programs.append(Program(space, *arguments))
        return self._programs[-1]

    def close(self) -> None:
        for program in self._programs:
            program.close()
        for space in (self.gateway, self.host):
            subprocess.run(["ip", "netns", "del", space], check=False, capture_output=True)
