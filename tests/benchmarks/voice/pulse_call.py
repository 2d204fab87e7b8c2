"""Mouth to ear through real sound callbacks: two daemons on one machine, PulseAudio between them and the air.

    pulse_call.py [--backends sounddevice,miniaudio] [--processing on,off] [--seconds 20] [--json]

A PulseAudio of its own, in a folder of its own, has a tape of two tracks.  What is said to Ann's microphone is
played on the right one, and her microphone hears that; Bob's loudspeaker is the left one.  One recording of both
tracks has one clock, so the shift between them, by correlation of two seconds at a time, is from mouth to ear with
nothing of the measuring in it.  That is checked in the same run: a sound put on both tracks at once must come out
with a shift of 0, which is printed, and subtracted.  The rest is as for users: two nodes for the DHT, a volunteer's
relay, two people who are contacts, `meshcall call` and `meshcall answer`.

CPU is that of the daemon's process during the conversation: `loop` is its main thread, `sound` all other threads.
Everything that is started is ended by its process ID.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from meshcall.demo.speech import CLIPS
from tests.daemon.processes import Daemon, bootstrap, daemon, environment, meshcall
from tests.sound.pulse import PulseServer, why_not

RATE = 48_000
DELAY_MS_MAX = 120.0
CPU_PERCENT_MAX = {"off": 3.0, "on": 6.0}
WINDOW_SECONDS, HOP_SECONDS = 2.0, 1.0
SHIFT_SECONDS_MAX = 0.6
LIKENESS_MIN = 0.3
"""Of the normalised correlation: below it, the window has no speech, or none that arrived."""
QUIET = 100.0
"""Less than this (RMS of 16-bit samples) is a pause."""
SETTLE_SECONDS = 8.0
"""After the first voice, before anything counts: a null sink calls nobody for its first 2 s."""
CALL_SECONDS_MAX = 60.0
OFF = 'echo_cancellation = false\nnoise_suppression = "off"\nautomatic_gain = false\n'

Samples = NDArray[np.float64]


@dataclass
class Person:
    """One end."""

    home: Path
    address: str
    node: Daemon

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """A command of the client that runs on."""
        return subprocess.Popen(
            [sys.executable, "-m", "meshcall", *arguments, "--json", "--home", str(self.home)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment(),
        )  # fmt: skip


class Told:
    """The events of a client, as they come."""

    def __init__(self, output: IO[str]) -> None:
        self.events: list[dict[str, Any]] = []
        self._thread = threading.Thread(target=self._read, args=(output,), daemon=True)
        self._thread.start()

    def _read(self, output: IO[str]) -> None:
        for line in output:
            self.events.append(json.loads(line))

    def wait_for(self, event: str, seconds: float) -> dict[str, Any]:
        """The first of this name."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for one in list(self.events):
                if one["event"] == event:
                    return one
            time.sleep(0.05)
        raise RuntimeError(f"no {event!r} within {seconds:.0f} s; there were {[one['event'] for one in self.events]}")


class Tape(PulseServer):
    """`mouth` and `ear` are loudspeakers on the tracks of one tape, `mouth_out` a microphone that hears the mouth.

    `rest` is a cable for what nobody listens to: Ann's loudspeaker and, silent, Bob's microphone.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, ("rest",))
        script = folder / "cables.pa"
        tracks = (("ear", "front-left"), ("mouth", "front-right"))
        lines = ["load-module module-null-sink sink_name=tape rate=48000 channels=2 channel_map=front-left,front-right"]
        one = "channels=1 channel_map=mono remix=no"
        for name, track in tracks:
            lines.append(f"load-module module-remap-sink master=tape sink_name={name} master_channel_map={track} {one}")
        lines.append(
            "load-module module-remap-source master=tape.monitor source_name=mouth_out "
            f"master_channel_map=front-right {one}"
        )
        # Bob's microphone hears a loudspeaker that nothing is played on.
        lines += [
            "load-module module-null-sink sink_name=still rate=48000 channels=1",
            "load-module module-remap-source master=still.monitor source_name=still_out",
        ]
        script.write_text(script.read_text() + "\n".join(lines) + "\n")

    @contextmanager
    def running(self, *command: str, output: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
        """A client of this server, ended when the body ends."""
        with ExitStack() as stack:
            to = subprocess.DEVNULL if output is None else stack.enter_context(output.open("wb"))
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=to, stderr=subprocess.DEVNULL, env=self.environment()
            )
            try:
                yield process
            finally:
                process.terminate()
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def recording(self, output: Path) -> Any:
        """Both tracks to a file.  No latency is asked for: that would hurry the tape for all who use it."""
        return self.running("parecord", "--device=tape.monitor", *RAW, "--channels=2", output=output)


RAW = ("--raw", "--format=s16le", f"--rate={RATE}")


def shifts(recording: Path, last_seconds: float) -> list[float]:
    """Milliseconds by which the left track is later than the right, for each window in which both say the same."""
    both = np.fromfile(recording, "<i2")
    both = both[: len(both) // 2 * 2].reshape(-1, 2)[-int(last_seconds * RATE) :]
    ear, mouth = (both[:, n].astype(np.float64) for n in (0, 1))
    size, reach = int(WINDOW_SECONDS * RATE), int(SHIFT_SECONDS_MAX * RATE)
    found = []
    for at in range(0, len(mouth) - size - reach, int(HOP_SECONDS * RATE)):
        said = mouth[at : at + size]
        if np.sqrt(np.mean(said**2)) > QUIET:
            shift, likeness = _shift(said, ear[at : at + size + reach])
            if likeness > LIKENESS_MIN:
                found.append(shift * 1000 / RATE)
    return found


def _shift(said: Samples, heard: Samples) -> tuple[int, float]:
    length = 1 << int(np.ceil(np.log2(len(said) + len(heard))))
    product = np.fft.irfft(np.fft.rfft(heard, length) * np.conj(np.fft.rfft(said, length)), length)
    product = np.abs(product[: len(heard) - len(said)])
    shift = int(np.argmax(product))
    power = float(np.sum(said**2) * np.sum(heard[shift : shift + len(said)] ** 2))
    return shift, float(product[shift]) / np.sqrt(power) if power > 0 else 0.0


def speech(seconds: float) -> NDArray[np.int16]:
    """Ann's clip again and again."""
    import wave

    import soxr

    with wave.open(str(CLIPS["Ann"])) as file:
        clip = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        clip = np.asarray(soxr.resample(clip, file.getframerate(), RATE), np.int16)
    return np.tile(clip, int(seconds * RATE / len(clip)) + 1)[: int(seconds * RATE)]


def control(tape: Tape, folder: Path) -> float:
    """The shift of a sound that is put on both tracks at once, in milliseconds: what the measuring adds."""
    both = np.repeat(speech(6.0), 2)
    (folder / "control.raw").write_bytes(both.tobytes())
    with tape.recording(folder / "control.tape"):
        play = ("paplay", "--device=tape", *RAW, "--channels=2", str(folder / "control.raw"))
        with tape.running(*play) as player:
            player.wait(30)
        time.sleep(1.0)
    found = shifts(folder / "control.tape", 8.0)
    if not found:
        raise RuntimeError("the tape recorded nothing of what was put on it")
    return float(np.median(found))


def ticks(pid: int) -> tuple[float, float]:
    """Seconds of CPU of the main thread, and of all others, those that have ended included."""
    whole, loop = (_seconds(Path(f"/proc/{pid}/{part}stat")) for part in ("", f"task/{pid}/"))
    return loop, whole - loop


def _seconds(stat: Path) -> float:
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Street:
    """Two nodes for the DHT, a relay, and room for people."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self._stack, self._folder = stack, folder
        first = stack.enter_context(daemon(folder / "first"))
        self._nodes = (first, stack.enter_context(daemon(folder / "second", *bootstrap(first))))
        meshcall("id", "new", "--home", str(folder / "relay"), "--name", "relay", "--no-passphrase")
        relay = self.up(folder / "relay", '[relay]\nmode = "open"\nleases = 0\n[dht]\nreachable = "yes"\n', stack)
        relay.wait_for("record found again", 60)

    def up(self, home: Path, config: str, stack: ExitStack, **more: str) -> Daemon:
        """A daemon with this configuration."""
        (home / "some.toml").write_text(config)
        options = ("--config", str(home / "some.toml"), *bootstrap(*self._nodes))
        return stack.enter_context(daemon(home, *options, publish=True, **more))

    def people(self, stack: ExitStack, tape: Tape, audio: str, label: str) -> tuple[Person, Person]:
        """Ann with the mouth, Bob with the ear, ready to call each other."""
        homes = {name: self._folder / f"{name}-{label}" for name in ("ann", "bob")}
        addresses = {}
        for name, home in homes.items():
            made = meshcall("id", "new", "--home", str(home), "--name", name, "--no-passphrase", "--json")
            addresses[name] = str(json.loads(made.stdout)["address"])
        trusted = ", ".join(f'"{one}"' for one in addresses.values())
        config = f"[contacts]\ntrusted = [{trusted}]\n[audio]\n{audio}"
        ports = {"ann": ("rest", "mouth_out"), "bob": ("ear", "still_out")}
        ann, bob = (
            Person(homes[name], addresses[name], self.up(homes[name], config, stack, **tape.environment(*ports[name])))
            for name in ("ann", "bob")
        )
        for one in (ann, bob):
            one.node.wait_for("place at a relay", 60)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            found = meshcall("lookup", bob.address, "--home", str(ann.home), "--json")
            record = json.loads(found.stdout)["record"] if found.stdout else None
            if record is not None and any(device["relays"] for device in record["devices"]):
                return ann, bob
            time.sleep(0.3)
        raise RuntimeError("Bob's record does not appear in the DHT")


def measure(street: Street, tape: Tape, folder: Path, backend: str, processing: str, seconds: float) -> dict[str, Any]:
    """One call."""
    label = f"{backend}-{processing}"
    audio = f'backend = "{backend}"\n' + (OFF if processing == "off" else "")
    with ExitStack() as stack:
        ann, bob = street.people(stack, tape, audio, label)
        # Who uses the tape stays the same during the call: a null sink may pause when that changes.
        track = folder / f"{label}.raw"
        track.write_bytes(speech(seconds + CALL_SECONDS_MAX).tobytes())
        stack.enter_context(tape.running("paplay", "--device=mouth", *RAW, "--channels=1", str(track)))
        with tape.recording(folder / f"{label}.tape"):
            answering, calling = _call(stack, ann, bob)
            time.sleep(SETTLE_SECONDS)
            began, before = time.monotonic(), [ticks(one.node.process.pid) for one in (ann, bob)]
            time.sleep(seconds)
            passed, after = time.monotonic() - began, [ticks(one.node.process.pid) for one in (ann, bob)]
        found = shifts(folder / f"{label}.tape", seconds)
        meshcall("hangup", "--home", str(ann.home))
        end = answering.wait_for("ended", 20)
        devices = [one["message"] for told in (calling, answering) for one in told.events if one["event"] == "device"]
        used = [
            100 * (b - a) / passed
            for one, two in zip(before, after, strict=True)
            for a, b in zip(one, two, strict=True)
        ]
        voice = end["stats"]
        there = calling.wait_for("ended", 20)["stats"]
    return {
        "backend": backend, "processing": processing, "windows": len(found),
        "ms": [round(float(np.percentile(found, q)), 1) for q in (50, 5, 95)] if found else None,
        "each_ms": [round(one) for one in found],
        "estimate_ms": {name: round(1000 * part, 1) for name, part in voice["delay"].items()},
        "device_ms": {name: _latency_ms(one) for name, one in (("ann", there), ("bob", voice))},
        "cpu": {"ann": _cpu(used[:2]), "bob": _cpu(used[2:])},
        "path": end["path"], "loss": voice["loss"], "concealed": voice["concealed"],
        "counters": {"ann": there["counters"], "bob": voice["counters"]}, "devices": devices,
    }  # fmt: skip


def _cpu(parts: Sequence[float]) -> dict[str, float]:
    return {"all": round(sum(parts), 2), "loop": round(parts[0], 2), "sound": round(parts[1], 2)}


def _latency_ms(voice: dict[str, Any]) -> float:
    return round(1000 * float(voice["delay"]["devices"]), 1)


def _call(stack: ExitStack, ann: Person, bob: Person) -> tuple[Told, Told]:
    """Both clients, once the conversation has begun: Bob's, then Ann's."""
    told = []
    for person, event, arguments in (
        (bob, "waiting", ("answer", "--wait")),
        (ann, "first_voice", ("call", bob.address)),
    ):
        process = person.start(*arguments)
        stack.callback(_ended, process)
        assert process.stdout is not None
        told.append(Told(process.stdout))
        told[-1].wait_for(event, 40)
    return told[0], told[1]


def _ended(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.kill()
    process.wait()


def show(row: dict[str, Any]) -> str:
    """One call in words."""
    counters = ", ".join(
        f"{who}: {name} {count}" for who, all_of in row["counters"].items() for name, count in all_of.items()
        if count and name != "blocks"
    )  # fmt: skip
    heard = "nothing arrived" if row["ms"] is None else "{} ms (5 to 95 %: {} to {})".format(*row["ms"])
    cpu = "; ".join("{} {all} % (loop {loop}, sound {sound})".format(who, **used) for who, used in row["cpu"].items())
    estimate = row["estimate_ms"]
    return "\n".join([
        f"{row['backend']}, processing {row['processing']}: mouth to ear {heard}, target <= {DELAY_MS_MAX:.0f} ms; "
        f"{row['windows']} windows",
        f"    the daemon's estimate {estimate['total']} ms: {estimate}; devices tell {row['device_ms']} ms",
        f"    CPU of a core: {cpu}; target <= {CPU_PERCENT_MAX[row['processing']]} %",
        f"    {row['path']}, loss {row['loss']}, concealed {row['concealed']}; {counters or 'no xruns'}",
    ])  # fmt: skip


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All calls that were asked for."""
    os.environ["MESHCALL_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory(prefix="pulse-") as name, ExitStack() as stack:
        folder = Path(name)
        (folder / "pulse").mkdir()
        tape = stack.enter_context(Tape(folder / "pulse"))
        zero = control(tape, folder)
        street = Street(stack, folder)
        rows = []
        for backend in options.backends.split(","):
            for processing in options.processing.split(","):
                row = measure(street, tape, folder, backend, processing, options.seconds)
                if row["ms"] is not None:
                    row["ms"] = [round(one - zero, 1) for one in row["ms"]]
                rows.append(row)
                if not options.json:
                    print(show(row), flush=True)
        return {"control_ms": zero, "calls": rows, "load": os.getloadavg()[0]}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", default="sounddevice,miniaudio")
    parser.add_argument("--processing", default="on,off", help="a comma list of: on, off")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each conversation that are measured")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if reason := why_not():
        print(f"skipped: {reason}", file=sys.stderr)
        return
    result = run(options)
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        print(f"what the measuring adds, subtracted: {result['control_ms']:.2f} ms; load {result['load']:.1f}")


if __name__ == "__main__":
    main()
