"""A PulseAudio of one's own, with loudspeakers that are heard by microphones, in a folder of its own.

with PulseServer(folder) as server:
    subprocess.run(..., env=server.environment("speaker of ann", "microphone of ann"))
"""

from __future__ import annotations

import ctypes.util
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

ALSA_PLUGINS = (
    "/usr/lib/x86_64-linux-gnu/alsa-lib",
    "/usr/lib/aarch64-linux-gnu/alsa-lib",
    "/usr/lib/alsa-lib",
    "/usr/lib64/alsa-lib",
)


def why_not() -> str | None:
    """What this machine lacks for tests with real sound, as a sentence; None if it has all."""
    if shutil.which("pulseaudio") is None:
        return "no pulseaudio here; `apt install pulseaudio libportaudio2 libasound2-plugins`"
    if ctypes.util.find_library("portaudio") is None:
        return "no libportaudio2 here; `apt install libportaudio2`"
    if not any(Path(folder, "libasound_module_pcm_pulse.so").exists() for folder in ALSA_PLUGINS):
        return "no ALSA plugin for PulseAudio here; `apt install libasound2-plugins`"
    return None


class PulseServer:
    """One process, ended by its id; all its files are in the folder."""

    def __init__(self, folder: Path, cables: Sequence[str] = ("cable",)) -> None:
        """Each cable is a loudspeaker (null sink) of that name and a microphone `NAME_out` that hears it."""
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        lines = [f"load-module module-native-protocol-unix socket={folder}/native"]
        for name in cables:
            lines += [
                f"load-module module-null-sink sink_name={name} rate=48000 channels=1",
                f"load-module module-remap-source master={name}.monitor source_name={name}_out",
            ]
        (folder / "cables.pa").write_text("\n".join(lines) + "\n")

    def environment(self, sink: str | None = None, source: str | None = None) -> dict[str, str]:
        """For a process that uses it; `sink`, `source`: its loudspeaker and microphone."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PULSE_", "DBUS_"))}
        chosen = {"PULSE_SINK": sink, "PULSE_SOURCE": source}
        return {
            **kept,
            "XDG_RUNTIME_DIR": str(self.folder),
            "HOME": str(self.folder),
            "PULSE_SERVER": f"unix:{self.folder}/native",
            "DBUS_SESSION_BUS_ADDRESS": f"unix:path={self.folder}/none",
            **{name: value for name, value in chosen.items() if value is not None},
        }

    def __enter__(self) -> PulseServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Start, and wait until it listens."""
        environment = {name: v for name, v in self.environment().items() if name != "PULSE_SERVER"}
        self.process = subprocess.Popen(
            [
                "pulseaudio",
                "-n",
                "-F",
                str(self.folder / "cables.pa"),
                "--daemonize=no",
                "--exit-idle-time=-1",
                f"--log-target=file:{self.folder}/log",
                "--use-pid-file=no",
                # A busy machine would exceed its limit of real-time CPU, and it would be killed for that.
                "--realtime=no",
                "--high-priority=no",
            ],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        end = time.monotonic() + 20
        while not (self.folder / "native").exists():
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError("pulseaudio did not start: " + (self.folder / "log").read_text())
            time.sleep(0.05)

    def kill(self) -> None:
        """End it at once, as if it crashed."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
        (self.folder / "native").unlink(missing_ok=True)
