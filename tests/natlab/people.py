"""Real daemons on the hosts of the NAT lab: DHT nodes, a volunteer's relay, and people who trust each other.

Each is the product as users start it, `meshcall up`, in its host's namespace.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.natlab.lab import ROOT, Lab
from tests.natlab.topologies import RELAY

PORT = 6881
RELAY_PORT = 443
START_SECONDS_MAX = 60.0
BOOTSTRAP = ("203.0.113.4", "198.51.100.4")


class People:
    """Daemons by host name; they end with the lab.

    People know the relay as a node to start from: where UDP is barred, it is their only way in.
    """

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.folder = folder
        self.addresses: dict[str, str] = {}
        self._daemons: dict[str, tuple[subprocess.Popen[Any], tuple[str, tuple[str, ...], str]]] = {}
        self._environment = {
            **os.environ,
            "MESHCALL_OFFLINE": "1",
            "MESHCALL_NAMESPACE": "1",
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
        }

    def infrastructure(self) -> None:
        """Four DHT nodes at each of two places, and a relay for everybody."""
        for name, network in (("dht1", "203.0.113"), ("dht2", "198.51.100")):
            for number in (4, 5, 6, 7):
                self._up(name, f"{name}-{number}", "--no-publish", "--bind", f"{network}.{number}", "--port", str(PORT))
        self._identity("relay")
        config = '[relay]\nmode = "open"\nleases = 0\n[dht]\nreachable = "yes"\n'
        self._up("relay", "relay", "--bind", RELAY, "--port", str(RELAY_PORT), config=config)
        self._wait_for("relay", "record found again")

    def people(self, hosts: Iterable[str], *, trusted: bool = True) -> None:
        """One person on each of these hosts; all trust each other, or nobody."""
        hosts = list(hosts)
        for host in hosts:
            self._identity(host)
        everybody = ", ".join(f'"{self.addresses[host]}"' for host in hosts)
        config = f"[contacts]\ntrusted = [{everybody}]\n" if trusted else ""
        for host in hosts:
            self._up(host, host, "--bootstrap", f"{RELAY}:{RELAY_PORT}", config=config)
        for host in hosts:
            self._wait_for(host, "place at a relay")
            self._wait_for(host, "record found again")

    def ping(self, host: str, whom: str, count: int = 60, interval: float = 0.05, *more: str) -> dict[str, Any]:
        """What `meshcall ping --json` says, or {"error": its sentence}."""
        options = ["--count", str(count), "--interval", str(interval), "--json", *more]
        done = self.lab.run(
            host, self._command("ping", self.addresses[whom], "--home", str(self.folder / host), *options),
            env=self._environment, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        try:
            return dict(json.loads(done.stdout))
        except ValueError:
            return {"error": done.stderr.strip() or done.stdout.strip()}

    def restart(self, name: str) -> None:
        """Kill a daemon as a power cut would, and start it again at once."""
        process, (host, options, config) = self._daemons[name]
        process.kill()
        process.wait()
        self._up(host, name, *options, config=config)

    def log(self, name: str) -> str:
        """What a daemon has said."""
        return (self.folder / name / "daemon.log").read_text(errors="replace")

    def port(self, name: str) -> int:
        """The UDP port of a daemon, as it says."""
        line = next(line for line in self.log(name).splitlines() if line.startswith("Listening"))
        return int(line.split("UDP port ")[1].split(",")[0])

    def _command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "meshcall", *arguments]

    def _identity(self, name: str) -> None:
        made = subprocess.run(
            self._command("id", "new", "--home", str(self.folder / name), "--name", name, "--no-passphrase", "--json"),
            env=self._environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        self.addresses[name] = str(json.loads(made.stdout)["address"])

    def _up(self, host: str, name: str, *options: str, config: str = "") -> None:
        home = self.folder / name
        home.mkdir(parents=True, exist_ok=True)
        (home / "lab.toml").write_text(config)
        known = [option for where in BOOTSTRAP for option in ("--bootstrap", f"{where}:{PORT}")]
        with (home / "daemon.log").open("ab") as log:
            process = self.lab.popen(
                host, self._command(
                    "up", "--home", str(home), "--config", str(home / "lab.toml"), "--private", *known, *options
                ),
                env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        self._daemons[name] = process, (host, options, config)

    def _wait_for(self, name: str, text: str) -> None:
        end = time.monotonic() + START_SECONDS_MAX
        while text not in self.log(name):
            if time.monotonic() > end:
                raise TimeoutError(f"{name}: no {text!r} within {START_SECONDS_MAX:.0f} s:\n{self.log(name)}")
            time.sleep(0.05)
