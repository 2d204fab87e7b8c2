"""The two people: each with a home folder, an identity, and a node in a process of its own.

Everything goes the way it goes for users: `meshcall id new`, `meshcall up`, the local API.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import trio

from meshcall.daemon.start_points import OFFLINE_VARIABLE
from meshcall.drivers.control import ControlClient, EventSink, connect
from meshcall.drivers.files import HOME_VARIABLE
from meshcall.errors import DaemonError, MeshcallError

START_SECONDS_MAX = 15.0
STOP_SECONDS_MAX = 3.0
_ERROR_CHARACTERS_MAX = 500


def _environment() -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MESHCALL_")}
    environment[OFFLINE_VARIABLE] = "1"
    environment.pop(HOME_VARIABLE, None)
    return environment


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "meshcall", *arguments]


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody with a running node."""

    name: str
    home: Path
    address: str
    client: ControlClient
    process: trio.Process

    async def status(self) -> dict[str, Any]:
        """What their node says of itself."""
        return await self.client.request("status")

    async def look_up(self, address: str) -> dict[str, Any]:
        """Find somebody by address, with the way it took."""
        return await self.client.request("lookup", {"address": address, "trace": True})

    async def ping(self, address: str, count: int, interval: float, event: EventSink) -> dict[str, Any]:
        """Link to somebody and send echoes; `event` hears what happens."""
        args = {"address": address, "count": count, "interval_seconds": interval}
        return await self.client.request("ping", args, event)

    async def call(
        self, address: str, microphone: Path, speaker: Path, talk_seconds: float, event: EventSink
    ) -> dict[str, Any]:
        """Call somebody, with files in the place of devices; `event` hears what happens."""
        files = {"microphone": str(microphone), "speaker": str(speaker)}
        return await self.client.request("call", {"address": address, "talk_seconds": talk_seconds, **files}, event)

    async def answer(self, microphone: Path, speaker: Path, event: EventSink) -> dict[str, Any]:
        """Answer the next call."""
        files = {"microphone": str(microphone), "speaker": str(speaker)}
        return await self.client.request("answer", {"wait": True, **files}, event)

    async def places(self) -> list[dict[str, Any]]:
        """At which relays their node has a place."""
        found: list[dict[str, Any]] = (await self.client.request("relay"))["leases"]
        return found


async def make_identity(name: str, home: Path) -> str:
    """`meshcall id new`; the address."""
    arguments = _command("id", "new", "--home", str(home), "--name", name, "--no-passphrase", "--json")
    done = await trio.run_process(
        arguments, capture_stdout=True, capture_stderr=True, check=False, env=_environment(), start_new_session=True
    )
    if done.returncode:
        raise MeshcallError(f"no identity for {name}: {_last_words(done.stderr)}")
    answer: dict[str, Any] = msgspec.json.decode(done.stdout)
    return str(answer["address"])


@contextlib.asynccontextmanager
async def running(
    name: str, home: Path, address: str, bootstrap: Sequence[str], trusted: Sequence[str]
) -> AsyncIterator[Person]:
    """`meshcall up` while inside, `trusted` being its contacts; the process is gone afterwards, whatever happens.

    It has a session of its own, so that Ctrl-C ends this program first, which then ends the node in order.
    """
    log = home / "node.log"
    config = home / "demo.toml"
    listed = ", ".join(f'"{each}"' for each in trusted)
    config.write_text(f'[contacts]\ntrusted = [{listed}]\n[audio]\nbackend = "null"\n')
    options = [option for where in bootstrap for option in ("--bootstrap", where)]
    arguments = _command(
        "up", "--home", str(home), "--config", str(config), "--bind", "127.0.0.1", "--private", *options
    )
    with log.open("wb") as output:
        process = await trio.lowlevel.open_process(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=_environment(),
            start_new_session=True,
        )
    try:
        async with contextlib.AsyncExitStack() as stack:
            client = await _connect(stack, name, home, process)
            yield Person(name, home, address, client, process)
    finally:
        with trio.CancelScope(shield=True):
            await _end(process)


async def _connect(stack: contextlib.AsyncExitStack, name: str, home: Path, process: trio.Process) -> ControlClient:
    with trio.move_on_after(START_SECONDS_MAX):
        while process.poll() is None:
            try:
                return await stack.enter_async_context(connect(home))
            except DaemonError:
                await trio.sleep(0.02)
    words = _last_words((home / "node.log").read_bytes())
    raise MeshcallError(f"the node of {name} did not start: {words or 'it said nothing'}")


async def _end(process: trio.Process) -> None:
    if process.poll() is None:
        process.terminate()
        with trio.move_on_after(STOP_SECONDS_MAX):
            await process.wait()
    if process.poll() is None:
        process.kill()
        await process.wait()


def _last_words(output: bytes) -> str:
    return output.decode(errors="replace").strip()[-_ERROR_CHARACTERS_MAX:]
