"""Daemons as users start them: processes of their own, on loopback, ended by their process ID."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

START_SECONDS_MAX = 20.0


def environment(**more: str) -> dict[str, str]:
    """That of a user who is offline and has set nothing else."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MESHCALL_", "NOTIFY_", "WATCH"))}
    return {**kept, "MESHCALL_OFFLINE": "1", "PYTHONUNBUFFERED": "1", **more}


def meshcall(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "meshcall", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(**more),
        stdin=subprocess.DEVNULL,
        check=False,
    )


class Daemon:
    """A running `meshcall up`."""

    def __init__(self, home: Path, process: subprocess.Popen[bytes], log: Path) -> None:
        self.home = home
        self.process = process
        self._log = log

    @property
    def log(self) -> str:
        """What it has said so far."""
        return self._log.read_text(errors="replace")

    @property
    def port(self) -> int:
        """Its UDP port, as it says."""
        line = next(line for line in self.log.splitlines() if line.startswith("Listening"))
        return int(line.split("UDP port ")[1].split(",")[0])

    def wait_for(self, text: str, seconds: float = START_SECONDS_MAX) -> None:
        """Until the log has `text` in it."""
        end = time.monotonic() + seconds
        while text not in self.log:
            assert self.process.poll() is None, f"the daemon ended with {self.process.returncode}:\n{self.log}"
            assert time.monotonic() < end, f"no {text!r} within {seconds} s:\n{self.log}"
            time.sleep(0.02)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout=10)


@contextmanager
def daemon(home: Path, *arguments: str, publish: bool = False, wait: bool = True, **more: str) -> Iterator[Daemon]:
    """`meshcall up` on a home, ready when the body begins, gone when it ends."""
    home.mkdir(parents=True, exist_ok=True)
    log = home / "daemon.log"
    options = [*([] if "--bind" in arguments else ["--bind", "127.0.0.1"]), "--private", *arguments]
    if not publish:
        options.append("--no-publish")
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "meshcall", "up", "--home", str(home), *options],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment(**more),
            start_new_session=True,
        )
    running = Daemon(home, process, log)
    try:
        if wait:
            running.wait_for("  ready  ")
        yield running
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def bootstrap(*running: Daemon) -> Sequence[str]:
    """Options that name these daemons."""
    return [option for one in running for option in ("--bootstrap", f"127.0.0.1:{one.port}")]
