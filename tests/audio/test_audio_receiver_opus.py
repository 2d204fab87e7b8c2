"""The receiver with Opus: exact on a clean path, bridged without clicks on a bad one."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from meshcall.audio.receiver import Receiver
from meshcall.audio.repair import RepairEncoder
from meshcall.drivers.opus import OpusDecoder, OpusEncoder
from meshcall.wire.coded import WHOLE
from meshcall.wire.voice import Cover, Report, VoicePacket, encode_voice
from tests.audio.test_audio_stretch import voice

CALL = 3
FRAME_BYTES = 60
COVERS = (Cover(1, 4), Cover(1, 4))


def speech(seconds: int) -> NDArray[np.int16]:
    """Half-second vowels of several pitches, half a second of a quiet room between them."""
    chance = np.random.default_rng(5)
    parts = []
    for n in range(seconds):
        vowel = voice(0.5, 100 + 17 * (n % 7)) * np.hanning(24_000) ** 0.2
        parts += [vowel, np.zeros(24_000)]
    sound = np.concatenate(parts)
    return np.round(sound + chance.normal(0, 6, len(sound))).astype(np.int16)


def sent(sound: NDArray[np.int16], covers: tuple[Cover, ...] = ()) -> tuple[list[bytes], list[bytes]]:
    """The packets, and what the decoder is handed of them."""
    encoder, repair = OpusEncoder(), RepairEncoder()
    packets, frames = [], []
    for slot in range(len(sound) // 960):
        made = encoder.encode(sound[slot * 960 : (slot + 1) * 960], FRAME_BYTES)
        repair.add(slot, *made)
        possible = repair.possible(covers)
        symbols = tuple(repair.symbols(possible))
        packets.append(
            encode_voice(VoicePacket(CALL, slot, made.config, False, Report(), made.frame, possible, symbols))
        )
        frames.append(made.packet)
    return packets, frames


def heard(packets: list[bytes], delay: Callable[[int], float | None]) -> tuple[NDArray[np.int16], Receiver]:
    receiver = Receiver(0.0, OpusDecoder(), call=CALL)
    fates = [(slot, delay(slot)) for slot in range(len(packets))]
    arrivals = sorted(((slot + 1) * 0.02 + late, slot) for slot, late in fates if late is not None)
    blocks = []
    for tick in range(2 * len(packets)):
        now = tick * 0.01
        while arrivals and arrivals[0][0] <= now:
            receiver.push(now, packets[arrivals.pop(0)[1]])
        blocks.append(receiver.pull(now))
    return np.concatenate(blocks), receiver


def test_a_clean_path_plays_exactly_what_the_decoder_makes() -> None:
    packets, frames = sent(speech(12))
    decoder = OpusDecoder()
    decoded = np.concatenate([decoder.decode(frame, 960) for frame in frames])
    sound, receiver = heard(packets, lambda slot: 0.023)
    stats = receiver.stats()
    assert stats.concealed == 0 and stats.missing == 0
    # From the eighth second on nothing is scaled: the same samples, later.
    tail = sound[48_000 * 8 :]
    needle = tail[:2000]
    windows = np.lib.stride_tricks.sliding_window_view(decoded[48_000 * 7 : 48_000 * 9], 2000)
    start = int(np.argmin(np.abs(windows[:, ::50].astype(int) - needle[::50]).sum(axis=1))) + 48_000 * 7
    assert np.array_equal(tail, decoded[start : start + len(tail)])
    assert 48_000 * 8 - start <= 48_000 * 0.065


def test_after_a_stall_the_decoder_goes_on_as_if_there_had_been_none() -> None:
    packets, frames = sent(speech(8))
    decoder = OpusDecoder()
    decoded = np.concatenate([decoder.decode(frame, 960) for frame in frames])
    # The network stands still for 200 ms inside a vowel of the fifth second; all packets come in the end.
    sound, receiver = heard(packets, lambda slot: 0.023 + max(0, 217 - slot) * 0.02 * (slot >= 207))
    stats = receiver.stats()
    assert stats.missing == 0 and stats.concealed > 0
    after = int(48_000 * (208 * 0.02 + 0.3))
    needle = sound[after : after + 2000]
    windows = np.lib.stride_tricks.sliding_window_view(decoded[48_000 * 4 : 48_000 * 5], 2000)
    assert np.abs(windows[:, ::50].astype(int) - needle[::50]).sum(axis=1).min() == 0


def jumps(sound: NDArray[np.int16]) -> float:
    """The largest step of the second difference: what a click is made of."""
    return float(np.abs(np.diff(sound.astype(int), 2)).max())


def test_loss_jitter_and_stalls_leave_no_clicks_and_lose_little() -> None:
    packets, frames = sent(speech(12), COVERS)
    decoder = OpusDecoder()
    plain = jumps(np.concatenate([decoder.decode(frame, 960) for frame in frames]))
    chance = random.Random(12)

    def bad(slot: int) -> float | None:
        stall = max(0, 10 - slot % 120) * 0.02
        return None if chance.random() < 0.1 else 0.02 + stall + chance.gammavariate(1, 0.015)

    sound, receiver = heard(packets, bad)
    stats = receiver.stats()
    assert 0.05 < stats.loss < 0.15
    assert stats.missing < 0.02
    assert stats.concealed < 0.05
    assert jumps(sound) < 1.5 * plain + 200


def test_damaged_opus_is_bridged() -> None:
    packets, _ = sent(speech(6))
    chance = random.Random(13)
    whole = bytes([WHOLE[0] << 3])  # else any bytes are a frame to libopus
    spoilt = [
        whole + packet[1:-FRAME_BYTES] + b"\xff" + chance.randbytes(FRAME_BYTES - 1) if slot % 7 == 3 else packet
        for slot, packet in enumerate(packets)
    ]
    sound, receiver = heard(spoilt, lambda slot: 0.02)
    assert len(sound) == len(packets) * 960
    assert receiver.stats().damaged >= 30
    assert receiver.stats().missing < 0.2
