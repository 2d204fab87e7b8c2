"""What an eavesdropper sees of a call: sizes and times of sealed packets tell nothing about who speaks when.

Real sender, real Opus, real links and a real receiver that reports back, in virtual time.  The same classifiers that
fail here tell talk from silence at once where Opus is sent as it comes (variable rate): they are not blind.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from random import Random

import numpy as np
import pytest
from numpy.typing import NDArray

from meshcall.audio.codec import PULL_SAMPLES, RATE, SLOT_SAMPLES, Sound
from meshcall.audio.receiver import Receiver
from meshcall.audio.sender import Sender
from meshcall.drivers.opus import OpusDecoder, OpusEncoder, load
from meshcall.handshake.events import Frame
from meshcall.wire.voice import VOICE
from tests.handshake.two_links import Party, Wire

SECONDS = 48
TURN_SECONDS = 2.0
"""Somebody speaks, pauses, speaks and is muted, speaks, ... for so long each."""
TALK, PAUSE, MUTED = 0, 1, 2
WINDOW = 10
"""Packets that a classifier looks at: 200 ms."""
LOSS = 0.08
CHANCE_SIGMAS = 3.0


@dataclass(frozen=True)
class Seen:
    """What was on the wire, and what was going on."""

    times: NDArray[np.float64]
    sizes: NDArray[np.float64]
    turns: NDArray[np.int64]

    def windows(self) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Sizes and intervals of runs of packets within one turn; whether somebody spoke."""
        intervals = np.diff(self.times, prepend=self.times[0] - 0.02)
        rows, talks = [], []
        for start in range(0, len(self.sizes) - WINDOW, WINDOW):
            part = slice(start, start + WINDOW)
            if len(set(self.turns[part])) == 1:
                rows.append(np.concatenate([self.sizes[part], intervals[part] * 1000]))
                talks.append(self.turns[start] == TALK)
        return np.array(rows), np.array(talks)


def turn_at(seconds: float) -> int:
    """Talk, pause, talk, mute, ..."""
    return (TALK, PAUSE, TALK, MUTED)[int(seconds / TURN_SECONDS) % 4]


@cache
def speech() -> Sound:
    """Syllables of a buzzing voice and hisses between them, for as long as the call."""
    chance = np.random.default_rng(5)
    at = np.arange(SECONDS * RATE) / RATE
    pitch = 120 + 30 * np.sin(2 * np.pi * 0.7 * at)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    voice = sum(np.sin(k * phase) / k for k in range(1, 20))
    hiss = chance.normal(0, 1, len(at))
    syllable = np.clip(np.sin(2 * np.pi * 3.1 * at), 0, 1)
    fricative = np.clip(np.sin(2 * np.pi * 3.1 * at + 3.6), 0, 1) ** 4
    sound = 4000 * voice * syllable + 1500 * hiss * fricative + 3 * hiss
    return np.clip(sound, -30000, 30000).astype(np.int16)


@cache
def room() -> Sound:
    """A quiet room."""
    return np.random.default_rng(6).normal(0, 4, SECONDS * RATE).astype(np.int16)


def block(tick: int) -> Sound:
    """What the microphone of the watched person gives; a muted person goes on speaking."""
    source = room() if turn_at(tick * 0.01) == PAUSE else speech()
    return cut(source, tick)


def cut(sound: Sound, tick: int) -> Sound:
    """The 10 ms of a tick."""
    return sound[tick * PULL_SAMPLES : (tick + 1) * PULL_SAMPLES]


@cache
def watched(seed: int) -> Seen:
    """A call over a network with loss and jitter, as seen next to the first person's door."""
    chance = Random(seed)
    wire = Wire(seed=seed)
    people = wire.party("a"), wire.party("b")
    numbers = wire.connect(*people)
    wire.change = lambda datagram: [] if chance.random() < LOSS else [datagram]
    senders = [Sender(wire.now, OpusEncoder(complexity=3), call=1, slot=chance.randrange(1 << 16)) for _ in people]
    receivers = [Receiver(wire.now, OpusDecoder(), call=1) for _ in people]
    began = wire.now
    times, sizes, turns = [], [], []
    for tick in range(SECONDS * 100):
        turn = turn_at(tick * 0.01)
        senders[0].mute = turn == MUTED
        for k, person in enumerate(people):
            _hear(person, receivers[k], wire.now)
            receivers[k].pull(wire.now)
            report = receivers[k].heard()
            if report is not None:
                senders[k].reported(wire.now, report)
            senders[k].telling = receivers[k].report()
            payload = senders[k].push(wire.now, block(tick) if k == 0 else cut(room(), tick))
            if payload is not None:
                person.links.send_frame(wire.now, numbers[k], VOICE, payload)
        before = len(wire.sent)
        wire.delay = 0.02 + chance.expovariate(1 / 0.008)
        wire.collect()
        for source, _, datagram in wire.sent[before:]:
            if source == people[0].path:
                times.append(wire.now - began)
                sizes.append(len(datagram))
                turns.append(turn)
        wire.run(0.01)
    return Seen(np.array(times), np.array(sizes, np.float64), np.array(turns))


def _hear(person: Party, receiver: Receiver, now: float) -> None:
    for frame in person.take(Frame):
        if frame.kind == VOICE:
            receiver.push(now, frame.data)


@cache
def unguarded() -> Seen:
    """The same speech by the same Opus, but sent as it comes: variable rate, nothing padded."""
    api = load().api
    encoder = api.encoder.create_state(RATE, 1, 2048)
    api.encoder.encoder_ctl(encoder, api.ctl.set_bitrate, 24_000)
    sizes, turns = [], []
    for tick in range(0, SECONDS * 100, 2):
        source = speech() if turn_at(tick * 0.01) == TALK else room()
        sound = np.concatenate([cut(source, tick), cut(source, tick + 1)])
        sizes.append(len(api.encoder.encode(encoder, sound.tobytes(), SLOT_SAMPLES, 1000)))
        turns.append(turn_at(tick * 0.01))
    return Seen(np.arange(len(sizes)) * 0.02, np.array(sizes, np.float64), np.array(turns))


def regression(train: NDArray[np.float64], talks: NDArray[np.bool_], test: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Logistic regression by gradient descent, on means, spreads and the values themselves."""

    def features(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        parts = [rows, rows[:, :WINDOW].mean(1, keepdims=True), rows[:, :WINDOW].std(1, keepdims=True)]
        return np.concatenate([*parts, rows[:, WINDOW:].std(1, keepdims=True)], axis=1)

    known, asked = features(train), features(test)
    middle, spread = known.mean(0), known.std(0) + 1e-9
    known, asked = (known - middle) / spread, (asked - middle) / spread
    weights, bias = np.zeros(known.shape[1]), 0.0
    for _ in range(500):
        error = 1 / (1 + np.exp(-np.clip(known @ weights + bias, -30, 30))) - talks
        weights -= 0.1 * (known.T @ error / len(talks) + 0.01 * weights)
        bias -= 0.1 * float(error.mean())
    return asked @ weights + bias > 0


def neighbours(train: NDArray[np.float64], talks: NDArray[np.bool_], test: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The vote of the five nearest windows."""
    distances = ((test[:, None, :] - train[None, :, :]) ** 2).sum(2)
    nearest = np.argsort(distances, axis=1, kind="stable")[:, :5]
    return talks[nearest].mean(1) > 0.5


CLASSIFIERS = {"regression": regression, "neighbours": neighbours}


def balanced_accuracy(seen: Seen, name: str) -> tuple[float, float]:
    """Mean of the shares of talk and of silence told rightly (1/2: chance) in the second half of a call, having
    learnt from the first; and the standard deviation of guessing."""
    rows, talks = seen.windows()
    half = len(rows) // 2
    said = CLASSIFIERS[name](rows[:half], talks[:half], rows[half:])
    truth = talks[half:]
    sigma = 0.5 * float(np.sqrt(0.25 / truth.sum() + 0.25 / (~truth).sum()))
    return float((said[truth].mean() + (~said[~truth]).mean()) / 2), sigma


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_no_classifier_does_better_than_chance(name: str) -> None:
    accuracy, sigma = balanced_accuracy(watched(1), name)
    assert accuracy <= 0.5 + CHANCE_SIGMAS * sigma, f"{accuracy:.2f}"


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_classifiers_see_what_there_is_to_see(name: str) -> None:
    accuracy, _ = balanced_accuracy(unguarded(), name)
    assert accuracy > 0.9, f"{accuracy:.2f}"


@pytest.mark.timeout(300)
def test_packets_keep_their_clock_whatever_is_said() -> None:
    seen = watched(1)
    intervals = np.diff(seen.times)
    for turn in (TALK, PAUSE, MUTED):
        assert np.allclose(intervals[seen.turns[1:] == turn], 0.02), turn


@pytest.mark.timeout(300)
def test_a_size_changes_with_the_network_only() -> None:
    """Silence in place of the speech, all else equal: the very same sizes at the very same times."""
    spoken = watched(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"{__name__}.speech", room)
        silent = watched.__wrapped__(1)
    assert np.array_equal(spoken.sizes, silent.sizes)
    assert np.allclose(spoken.times, silent.times)
    assert len(set(spoken.sizes)) < 10
