"""Daemons as processes, and people who call each other: files for ears and mouths, everything else as for users."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import wave
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soxr
from numpy.typing import NDArray
from pystoi import stoi

from meshcall.demo.speech import CLIPS
from tests.daemon.processes import Daemon, bootstrap, daemon, environment, meshcall

CALL_SECONDS_MAX = 60


@dataclass
class Person:
    name: str
    home: Path
    address: str
    node: Daemon

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """A command that runs on."""
        return subprocess.Popen(
            [sys.executable, "-m", "meshcall", *arguments, "--home", str(self.home)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
        )  # fmt: skip

    def ask(self, *arguments: str) -> dict[str, Any]:
        """A command with --json, to its end."""
        done = meshcall(*arguments, "--home", str(self.home), "--json")
        assert done.stdout, done.stderr
        return dict(json.loads(done.stdout))


def events(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """Of a command with --json that ends by itself; its errors are the test's."""
    out, err = process.communicate(timeout=CALL_SECONDS_MAX)
    assert out, err
    return [json.loads(line) for line in out.splitlines()]


def wait_for(process: subprocess.Popen[str], event: str) -> dict[str, Any]:
    """Read the output up to this event."""
    assert process.stdout is not None
    for line in process.stdout:
        said = dict(json.loads(line))
        if said["event"] == event:
            return said
    assert process.stderr is not None
    pytest.fail(f"no {event!r}: {process.stderr.read()}")


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Person]]:
    """Ann, Bob and Max are contacts, and Max answers by himself; Zoe is a stranger to all.

    A volunteer's relay carries what is not direct.
    """
    folder = tmp_path_factory.mktemp("calls")
    homes = {name: folder / name for name in ("ann", "bob", "max", "zoe")}
    addresses = {}
    for name, home in homes.items():
        made = meshcall("id", "new", "--home", str(home), "--name", name, "--no-passphrase", "--json")
        addresses[name] = str(json.loads(made.stdout)["address"])
    relay_home = folder / "relay"
    meshcall("id", "new", "--home", str(relay_home), "--name", "relay", "--no-passphrase")
    with ExitStack() as stack:
        first = stack.enter_context(daemon(folder / "first"))
        second = stack.enter_context(daemon(folder / "second", *bootstrap(first)))

        def up(home: Path, config: str, *more: str) -> Daemon:
            (home / "some.toml").write_text(config)
            options = ("--config", str(home / "some.toml"), *more, *bootstrap(first, second))
            return stack.enter_context(daemon(home, *options, publish=True))

        relay = up(relay_home, '[relay]\nmode = "open"\nleases = 0\n[dht]\nreachable = "yes"\n')
        relay.wait_for("record found again")
        contacts = "trusted = [" + ", ".join(f'"{addresses[name]}"' for name in ("ann", "bob", "max")) + "]"
        config = f'[contacts]\n{contacts}\n[audio]\nbackend = "null"\n'
        more = {"max": ("--auto-answer", "contacts")}
        nodes = {name: up(home, config, *more.get(name, ())) for name, home in homes.items()}
        found = {name: Person(name, homes[name], addresses[name], nodes[name]) for name in homes}
        for node in nodes.values():
            node.wait_for("place at a relay")
        for who, whom in (("ann", "bob"), ("bob", "ann"), ("ann", "max"), ("zoe", "ann")):
            _until_named(found[who], found[whom])
        yield found


def _until_named(who: Person, whom: Person) -> None:
    """Until the record that names the relay is out."""
    end = time.monotonic() + 40
    while time.monotonic() < end:
        record = who.ask("lookup", whom.address)["record"]
        if record is not None and any(one["relays"] for one in record["devices"]):
            return
        time.sleep(0.3)
    pytest.fail(f"{whom.name} is not found")


def _samples(path: Path) -> NDArray[np.float64]:
    """At 10 kHz, where STOI is defined."""
    with wave.open(str(path)) as file:
        sound = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float64)
        return soxr.resample(sound, file.getframerate(), 10_000)


def likeness(reference: Path, recording: Path) -> float:
    """STOI of the speech in a recording, after it was shifted to where it fits best; 1 is the same."""
    clean, heard = _samples(reference), _samples(recording)
    size = 1 << int(np.ceil(np.log2(len(clean) + len(heard))))
    spectrum = np.fft.rfft(heard, size) * np.conj(np.fft.rfft(clean, size))
    shift = int(np.argmax(np.abs(np.fft.irfft(spectrum)[: len(heard)])))
    part = _padded(heard[shift:], len(clean))
    return float(stoi(clean, part, 10_000))


def _padded(sound: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    return np.pad(sound[:length], (0, max(0, length - len(sound))))


def test_what_one_says_is_what_the_other_hears(people: dict[str, Person], tmp_path: Path) -> None:
    ann, bob = people["ann"], people["bob"]
    heard = tmp_path / "heard.wav"
    answering = bob.start("answer", "--wait", "--json", "--speaker", str(heard))
    wait_for(answering, "waiting")
    calling = ann.start("call", bob.address, "--json", "--mic", str(CLIPS["Ann"]), "--seconds", "10.5")
    said = events(calling)
    there = events(answering)
    order = [one["event"] for one in said if one["event"] not in ("stats", "device", "path_changed")]
    assert order[:4] == ["resolved", "path", "ringing", "answered"], said
    assert "first_voice" in order
    assert order[-1] == "ended"
    assert [one["seconds"] for one in said] == sorted(one["seconds"] for one in said)
    end = said[-1]
    assert end["ending"] == "hung_up"
    assert there[-1]["ending"] == "hung_up_there"
    assert end["answered"]
    assert end["talk_seconds"] == pytest.approx(10.5, abs=2)
    assert end["path"].startswith("direct"), "contacts leave the relay"
    assert end["stats"]["packets"] > 100
    assert 1 <= end["stats"]["mos"] <= 4.6
    words = [next(one for one in side if one["event"] == "answered")["safety_words"] for side in (said, there)]
    assert words[0] == words[1]
    assert len(words[0]) >= 4
    assert likeness(CLIPS["Ann"], heard) > 0.6
    assert ann.ask("hangup")["ended"] is False


def test_a_call_that_is_hung_up_while_it_rings_is_missed(people: dict[str, Person]) -> None:
    ann, bob = people["ann"], people["bob"]
    calling = ann.start("call", bob.address, "--json")
    wait_for(calling, "ringing")
    calling.send_signal(signal.SIGINT)
    end = events(calling)[-1]
    assert (end["event"], end["ending"], end["answered"]) == ("ended", "withdrawn", False)
    assert calling.returncode == 1
    _quiet(bob)


def test_declined_and_busy(people: dict[str, Person]) -> None:
    ann, bob = people["ann"], people["bob"]
    calling = ann.start("call", bob.address, "--json")
    wait_for(calling, "ringing")
    again = meshcall("call", bob.address, "--home", str(ann.home), "--plain")
    assert again.returncode == 1
    assert "there is a call already" in again.stderr
    assert bob.ask("hangup") == {"ended": True, "address": ann.address}
    assert events(calling)[-1]["ending"] == "declined"
    _quiet(ann)


def test_hold_and_mute_are_told(people: dict[str, Person]) -> None:
    ann, bob = people["ann"], people["bob"]
    answering = bob.start("answer", "--wait", "--json")
    wait_for(answering, "waiting")
    calling = ann.start("call", bob.address, "--json")
    wait_for(calling, "first_voice")
    assert ann.ask("mute")["muted"] is True
    wait_for(answering, "muted")
    assert ann.ask("hold")["held"] is True
    wait_for(answering, "held")
    assert ann.ask("hold", "--off")["held"] is False
    assert bob.ask("hangup")["ended"] is True
    assert events(calling)[-1]["ending"] == "hung_up_there"
    assert events(answering)[-1]["ending"] == "hung_up"


def test_who_is_allowed_to_is_answered_without_asking(people: dict[str, Person]) -> None:
    ann, max_ = people["ann"], people["max"]
    said = events(ann.start("call", max_.address, "--json", "--seconds", "4"))
    assert said[-1]["answered"], said[-1]
    assert said[-1]["stats"]["packets"] > 20
    assert "answered" in [one["event"] for one in said]
    _quiet(max_)
    assert max_.ask("calls")["history"][0]["answered"] is True


def test_a_call_survives_a_client_that_is_killed_only_as_a_hang_up(people: dict[str, Person]) -> None:
    ann, max_ = people["ann"], people["max"]
    calling = ann.start("call", max_.address, "--json")
    wait_for(calling, "first_voice")
    calling.kill()
    calling.communicate()
    _quiet(ann)
    _quiet(max_)


def test_a_stranger_does_not_ring_and_waits_in_the_list(people: dict[str, Person]) -> None:
    zoe, ann = people["zoe"], people["ann"]
    end = events(zoe.start("call", ann.address, "--json"))[-1]
    assert (end["ending"], end["answered"]) == ("not_admitted", False)
    assert "not among their contacts" in end["reason"]
    assert [one["address"] for one in ann.ask("calls")["requests"]] == [zoe.address]
    assert zoe.address in meshcall("calls", "--home", str(ann.home)).stdout


def test_mistakes_are_told_in_a_sentence(people: dict[str, Person], tmp_path: Path) -> None:
    ann, bob = people["ann"], people["bob"]
    (tmp_path / "text.wav").write_text("not a sound")
    for arguments, words in (
        (("call", bob.address, "--mic", str(tmp_path / "none.wav")), "none.wav"),
        (("call", bob.address, "--mic", str(tmp_path / "text.wav")), "text.wav"),
        (("call", bob.address, "--speaker", str(tmp_path / "no" / "folder.wav")), "folder.wav"),
        (("call", ann.address), "your own address"),
        (("answer",), "no call rings"),
        (("mute",), "there is no call"),
    ):
        done = meshcall(*arguments, "--home", str(ann.home))
        assert done.returncode == 1
        assert words in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
    _quiet(ann)


def _quiet(person: Person) -> None:
    """Until there is no call any more."""
    end = time.monotonic() + 10
    while person.ask("calls")["call"] is not None:
        assert time.monotonic() < end
        time.sleep(0.1)
