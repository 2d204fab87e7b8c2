"""The sender: constant sizes and clock, honest packets, and nothing of what is said in what an observer sees."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from random import Random
from statistics import mean

import numpy as np
import pytest

from meshcall.audio.codec import PULL_SAMPLES, RATE, SLOT_SAMPLES, Sound
from meshcall.audio.policy import Protection
from meshcall.audio.repair import RepairDecoder
from meshcall.audio.sender import LIMIT_BITS_PER_SECOND, Sender
from meshcall.drivers.opus import NoOpusError, OpusDecoder, OpusEncoder, describe
from meshcall.wire.coded import WHOLE, Coded
from meshcall.wire.voice import SLOTS_MODULUS, Cover, Report, decode_voice

START = 500.0
START_SLOT = SLOTS_MODULUS - 36
"""Soon the slots on the wire begin again."""
SILENCE = np.zeros(PULL_SAMPLES, np.int16)


class PaperEncoder:
    """Frames that tell their number; notes what it was handed."""

    def __init__(self) -> None:
        self.heard: list[Sound] = []
        self.told: list[tuple[float, bool]] = []
        self.configs = WHOLE

    def encode(self, sound: Sound, size: int) -> Coded:
        self.heard.append(sound.copy())
        return Coded(self.configs[len(sound) // SLOT_SAMPLES - 1], len(self.heard).to_bytes(size, "big"))

    def expect_loss(self, share: float, *, inband: bool) -> None:
        self.told.append((share, inband))


def paper(limit: int = LIMIT_BITS_PER_SECOND) -> tuple[Sender, PaperEncoder]:
    encoder = PaperEncoder()
    return Sender(START, encoder, call=7, slot=START_SLOT, limit_bits_per_second=limit), encoder


def run(
    sender: Sender, seconds: float, sound: Callable[[int], Sound] = lambda _: SILENCE,
    report: Callable[[float], Report | None] = lambda _: None, start: float = START,
) -> list[tuple[float, bytes]]:  # fmt: skip
    """Times and payloads."""
    out = []
    for n in range(int(seconds * 100)):
        now = start + n * 0.01
        told = report(now)
        if told is not None:
            sender.reported(now, told)
        payload = sender.push(now, sound(n))
        if payload is not None:
            out.append((now, payload))
    return out


def test_payloads_come_at_a_constant_clock_with_a_constant_size() -> None:
    sender, _ = paper()
    out = run(sender, 3.0)
    assert len(out) == 150
    assert {len(payload) for _, payload in out} == {91}  # 58 kbit/s until the path has shown that it carries more
    assert [round(b - a, 6) for (a, _), (b, _) in pairwise(out)] == [0.02] * 149
    packets = [decode_voice(payload) for _, payload in out]
    assert [packet.slot for packet in packets] == [(START_SLOT + n) % SLOTS_MODULUS for n in range(150)]


def test_the_limit_counts_all_headers() -> None:
    for limit in (70_000, 58_000, 24_000):
        sender, _ = paper(limit)
        out = run(sender, 20.0, report=lambda _: Report())
        last = [len(payload) for at, payload in out if at > START + 10]
        assert (sum(last) + 54 * len(last)) * 8 / 10 <= limit
        assert sender.stats.wire_bits_per_second <= limit
    sender.overhead = 66
    relayed = run(sender, 5.0, start=START + 20)[5:]
    assert (sum(len(payload) for _, payload in relayed) + 66 * len(relayed)) * 8 / 4.7 <= 24_000


@pytest.mark.parametrize("block", [
    np.zeros(0, np.int16), np.zeros(479, np.int16), np.zeros(960, np.int16), np.zeros(480, np.float32),
    np.zeros((480, 1), np.int16), np.zeros(480, np.uint16),
])  # fmt: skip
def test_a_block_of_another_form_is_refused_and_changes_nothing(block: Sound) -> None:
    sender, encoder = paper()
    sender.push(START, SILENCE)
    with pytest.raises(ValueError, match="block"):
        sender.push(START, block)
    assert sender.push(START, SILENCE) is not None
    assert encoder.heard[0].shape == (960,)


def test_sound_goes_to_the_encoder_as_it_is_whatever_its_level() -> None:
    sender, encoder = paper()
    chance = np.random.default_rng(1)
    blocks = [chance.integers(-32768, 32768, PULL_SAMPLES, dtype=np.int16) for _ in range(20)]
    run(sender, 0.2, lambda n: blocks[n])
    assert np.array_equal(np.concatenate(encoder.heard), np.concatenate(blocks))


def test_mute_sends_hiss_and_fades_without_a_click() -> None:
    sender, encoder = paper()
    loud = np.full(PULL_SAMPLES, 30_000, np.int16)
    run(sender, 0.2, lambda _: loud)
    sender.mute = True
    run(sender, 3.0, lambda _: loud)
    sender.mute = False
    run(sender, 0.2, lambda _: loud)
    heard = np.concatenate(encoder.heard).astype(int)
    assert np.abs(np.diff(heard)).max() < 200
    muted = heard[int(0.25 * RATE) : int(3.15 * RATE)]
    assert 0 < np.abs(muted).max() <= 4
    assert abs(float(muted.mean())) < 0.1
    assert heard[-1] == 30_000


def test_what_is_received_is_told_in_every_packet() -> None:
    sender, _ = paper()
    sender.telling = Report(loss=0.5, burst=3.0, late=0.25, jitter=0.1, queue=0.4)
    heard = Report()
    for _, payload in run(sender, 0.3):
        heard = decode_voice(payload, heard).report
    assert heard.loss == pytest.approx(0.5, abs=0.01)
    assert heard.queue == pytest.approx(0.4, abs=0.01)


def test_lost_frames_come_out_of_the_symbols_through_all_changes_of_shape() -> None:
    sender, _ = paper()
    sent: dict[int, bytes] = {}
    known: dict[int, bytes] = {}
    decoder = RepairDecoder()
    chance = Random(5)
    loss = 0.2

    def report(now: float) -> Report:
        queue = 0.2 if 15 < now - START < 15.6 else 0.0  # and a narrow line for a moment
        return Report(loss=loss if now - START > 2 else 0.0, burst=1.25, queue=queue)

    lost = 0
    before = START_SLOT
    for _, payload in run(sender, 60.0, report=report):
        packet = decode_voice(payload)
        slot = before + (packet.slot - before) % SLOTS_MODULUS
        before = slot
        sent[slot] = packet.frame
        if chance.random() < loss:
            lost += 1
            continue
        known.update({at: frame for at, _, frame, _ in decoder.add(packet, slot)})
    assert sender.stats.shape_changes >= 4
    assert decoder.contradictions == 0
    assert all(sent[at] == frame for at, frame in known.items())
    assert len(sent) - len(known) < lost / 5


def test_a_protection_may_be_fixed() -> None:
    sender, encoder = paper()
    sender.fix(Protection((Cover(1, 4),), False, 0.1))
    out = run(sender, 1.0, report=lambda _: Report(loss=0.5))
    assert {len(decode_voice(payload).covers) for _, payload in out[1:]} == {1}
    assert encoder.told[-1] == (0.1, False)
    with pytest.raises(ValueError, match="in-band"):
        sender.fix(Protection((Cover(1, 4),), True, 0.1))


def test_statistics_count_what_went_out() -> None:
    sender, _ = paper()
    out = run(sender, 10.0)
    stats = sender.stats
    assert stats.packets == len(out) == 500
    assert stats.payload_bytes == sum(len(payload) for _, payload in out)
    assert stats.wire_bytes == stats.payload_bytes + 54 * 500
    assert stats.seconds == pytest.approx(10.0)


def talk(n: int, chance: np.random.Generator) -> Sound:
    """A second of something like speech, a second of a quiet room, in turn."""
    t = (np.arange(PULL_SAMPLES) + n * PULL_SAMPLES) / RATE
    room = chance.normal(0, 5, PULL_SAMPLES)
    tone = sum(np.sin(2 * np.pi * 140 * k * t) / k for k in range(1, 20)) * 5000 if n // 100 % 2 else 0.0
    return np.round(tone + room).astype(np.int16)


def test_an_observer_cannot_tell_talk_from_silence_or_mute() -> None:
    """Sizes and times of packets with real Opus: a classifier that knows each value's share finds nothing to learn."""
    try:
        describe()
    except NoOpusError as missing:
        pytest.skip(str(missing))
    chance = np.random.default_rng(1)
    sender = Sender(START, OpusEncoder(), call=7, slot=0)
    features: list[tuple[int, float]] = []
    talking: list[bool] = []
    last = START
    decoder = OpusDecoder()
    for n in range(2400):
        now = START + n * 0.01
        sender.mute = 1200 <= n < 1500
        payload = sender.push(now, talk(n, chance))
        if payload is not None:
            features.append((len(payload), round(now - last, 6)))
            talking.append(n // 100 % 2 == 1 and not sender.mute)
            last = now
            packet = decode_voice(payload)
            decoder.decode(Coded(packet.config, packet.frame).packet, 960)
    features, talking = features[1:], talking[1:]
    half = len(features) // 2
    shares: dict[tuple[int, float], list[bool]] = {}
    for feature, is_talk in zip(features[:half], talking[:half], strict=True):
        shares.setdefault(feature, []).append(is_talk)
    assert len(shares) == 1
    prior = mean(talking[:half])
    guesses = [mean(shares.get(feature, [prior > 0.5])) >= 0.5 for feature in features[half:]]
    right = mean(guess == truth for guess, truth in zip(guesses, talking[half:], strict=True))
    always = max(mean(talking[half:]), 1 - mean(talking[half:]))
    assert right <= always
