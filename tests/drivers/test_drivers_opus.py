"""libopus through our own calls: exact sizes, nothing read past a buffer, damage leaves no trace."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshcall.audio.codec import RATE, Sound
from meshcall.drivers import opus
from meshcall.drivers.opus import NoOpusError, OpusDecoder, OpusEncoder, OpusFaultError, describe
from meshcall.errors import BadPacket
from meshcall.wire.coded import WHOLE, Coded, slots_of

try:
    LIBRARY = describe()
except NoOpusError as missing:  # a machine without any libopus
    pytest.skip(str(missing), allow_module_level=True)

_GET_COMPLEXITY = 4011


def voice(seconds: float, pitch: float = 120.0) -> Sound:
    """Something with the harmonics of a voice, and syllables."""
    t = np.arange(int(seconds * RATE)) / RATE
    tone = sum(np.sin(2 * np.pi * pitch * n * t) / n for n in range(3, 25))
    sound: Sound = np.round(4000 * tone * (0.55 + 0.45 * np.sin(2 * np.pi * 3 * t))).astype(np.int16)
    return sound


def frames(sound: Sound, samples: int) -> list[Sound]:
    return [sound[at : at + samples] for at in range(0, len(sound) - samples + 1, samples)]


def error_db(reference: Sound, heard: Sound) -> float:
    """Of the difference, against the reference; 312 samples of libopus's delay are taken off."""
    a, b = reference[: len(heard) - 312].astype(float), heard[312:].astype(float)[: len(reference)]
    return float(10 * np.log10(((a - b) ** 2).mean() / (a**2).mean()))


@pytest.mark.parametrize("samples", [960, 1920, 2880])
@pytest.mark.parametrize("size", [3, 4, 9, 29, 39, 58, 117, 255, 256, 700, 1274])
@pytest.mark.parametrize("inband", [False, True])
def test_every_frame_has_exactly_the_size_asked_for(samples: int, size: int, inband: bool) -> None:
    encoder, decoder = OpusEncoder(), OpusDecoder()
    encoder.expect_loss(0.1, inband=inband)
    silence = np.zeros(samples, np.int16)
    noise = np.random.default_rng(1).integers(-32768, 32768, samples, dtype=np.int16)
    loud = np.full(samples, 32767, np.int16)
    for sound in [*frames(voice(0.4), samples), silence, silence, silence, noise, loud, silence]:
        made = encoder.encode(sound, size)
        assert len(made.frame) == size
        assert slots_of(made.config) == samples // 960
        assert len(decoder.decode(made.packet, samples)) == samples


def test_speech_survives_and_the_size_may_change_at_any_frame() -> None:
    encoder, decoder = OpusEncoder(), OpusDecoder()
    sound = voice(2.0)
    sizes = [116, 57, 38, 116]
    heard = [
        decoder.decode(encoder.encode(one, sizes[n // 25]).packet, 960) for n, one in enumerate(frames(sound, 960))
    ]
    assert error_db(sound, np.concatenate(heard)) < -6


@pytest.mark.parametrize(
    "sound",
    [
        np.zeros(0, np.int16),
        np.zeros(959, np.int16),
        np.zeros(961, np.int16),
        np.zeros(480, np.int16),
        np.zeros(5760, np.int16),
        np.zeros(960, np.int32),
        np.zeros(960, np.float32),
        np.zeros((960, 2), np.int16),
    ],
)
def test_sound_that_is_no_frame_is_refused_before_libopus_sees_it(sound: Sound) -> None:
    with pytest.raises(ValueError, match="frame"):
        OpusEncoder().encode(sound, 60)


@pytest.mark.parametrize("size", [-1, 0, 2, 1275, 1 << 31])
def test_a_size_that_no_frame_has_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="length"):
        OpusEncoder().encode(np.zeros(960, np.int16), size)


def test_a_view_with_gaps_is_read_as_what_it_shows() -> None:
    wide = np.zeros(1920, np.int16)
    wide[::2] = voice(0.02)
    assert OpusEncoder().encode(wide[::2], 60) == OpusEncoder().encode(voice(0.02), 60)


def test_lbrr_carries_the_frame_before_and_its_absence_is_seen() -> None:
    sound = voice(1.0)
    for inband in (False, True):
        encoder, decoder = OpusEncoder(), OpusDecoder()
        encoder.expect_loss(0.15, inband=inband)
        packets = [encoder.encode(one, 116).packet for one in frames(sound, 960)]
        heard, found = [], 0
        for n, packet in enumerate(packets[:-1]):
            if n % 5 != 3:
                heard.append(decoder.decode(packet, 960))
                continue
            copy = decoder.decode_inband(packets[n + 1], 960)
            found += copy is not None
            heard.append(decoder.conceal(960) if copy is None else copy)
        assert found >= 5 if inband else found == 0  # quiet frames have none
        if inband:
            assert error_db(sound, np.concatenate(heard)) < -4


def test_concealment_sounds_and_fades() -> None:
    encoder, decoder = OpusEncoder(), OpusDecoder()
    for one in frames(voice(0.5), 960):
        decoder.decode(encoder.encode(one, 57).packet, 960)
    made = [float(np.abs(decoder.conceal(480)).mean()) for _ in range(40)]
    assert made[0] > 300
    assert made[-1] < made[0] / 3
    for samples in (0, 100, 5880, -120):
        with pytest.raises(ValueError, match="concealed"):
            decoder.conceal(samples)


def test_a_decoder_goes_back_to_where_it_was_kept() -> None:
    encoder, plain, tried = OpusEncoder(), OpusDecoder(), OpusDecoder()
    packets = [encoder.encode(one, 57).packet for one in frames(voice(0.5), 960)]
    for n, packet in enumerate(packets):
        tried.keep()
        tried.conceal(1920)
        tried.decode(packets[-1 - n], 960)
        tried.go_back()
        assert np.array_equal(plain.decode(packet, 960), tried.decode(packet, 960))


@given(st.binary(max_size=1400), st.sampled_from([480, 960, 1920, 2880]))
@settings(max_examples=300)
def test_any_bytes_are_a_frame_of_that_length_or_refused(data: bytes, samples: int) -> None:
    decoder = OpusDecoder()
    for call in (decoder.decode, decoder.decode_inband):
        try:
            sound = call(data, samples)
        except BadPacket:
            continue
        assert sound is None or len(sound) == samples


def test_refused_packets_leave_no_trace() -> None:
    chance = Random(1)
    encoder, plain, bothered = OpusEncoder(), OpusDecoder(), OpusDecoder()
    refused = 0
    for n, one in enumerate(frames(voice(1.0), 960)):
        packet = encoder.encode(one, 57).packet
        for _ in range(20):
            bad = bytes([chance.choice([packet[0], 3 | packet[0], chance.randrange(256)])]) + chance.randbytes(n % 60)
            try:
                bothered.decode(bad, 960)
            except BadPacket:
                refused += 1
            else:
                plain.decode(bad, 960)  # taken by both
        assert np.array_equal(plain.decode(packet, 960), bothered.decode(packet, 960))
    assert refused > 300


def test_a_damaged_packet_that_libopus_takes_is_a_frame_of_sound_and_no_more() -> None:
    chance = Random(2)
    encoder, decoder = OpusEncoder(), OpusDecoder()
    for one in frames(voice(1.0), 960):
        packet = bytearray(encoder.encode(one, 57).packet)
        packet[chance.randrange(1, len(packet))] ^= 1 << chance.randrange(8)
        assert len(decoder.decode(bytes(packet), 960)) == 960


def test_the_errors_of_libopus_have_words() -> None:
    with pytest.raises(OpusFaultError, match="bad argument"):
        OpusEncoder(complexity=99)


def test_the_library_is_described() -> None:
    assert LIBRARY.version
    assert LIBRARY.path in str(LIBRARY)
    assert ("no deep PLC" in str(LIBRARY)) is not LIBRARY.deep_plc


def test_the_library_with_deep_plc_is_preferred_and_a_named_one_to_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    carried = opus.bundled()
    if carried is None or sys.platform != "linux":
        pytest.skip("no bundled libopus here, or not Linux")
    systems = tmp_path / "libopus.so.0"
    systems.symlink_to(carried)
    no_library = tmp_path / "text.so"
    no_library.write_text("no ELF")
    opus._chosen.cache_clear()
    monkeypatch.delenv(opus.LIBRARY_VARIABLE, raising=False)
    try:
        monkeypatch.setattr(opus, "_SYSTEMS_NAME", str(systems))
        assert not opus.has_deep_plc(str(systems))
        assert opus.find_library() == carried
        opus._chosen.cache_clear()
        monkeypatch.setattr(opus, "DEEP_STATE_BYTES", 1_000)  # as if this one had the networks
        assert opus.has_deep_plc(str(systems))
        assert opus.find_library() == str(systems)
        monkeypatch.setenv(opus.LIBRARY_VARIABLE, "/named/libopus.so.0")
        assert opus.find_library() == "/named/libopus.so.0"
        monkeypatch.delenv(opus.LIBRARY_VARIABLE)
        for bad in (no_library, tmp_path / "none.so"):
            opus._chosen.cache_clear()
            monkeypatch.setattr(opus, "_SYSTEMS_NAME", str(bad))
            assert not opus.has_deep_plc(str(bad))
            assert opus.find_library() == carried
    finally:
        opus._chosen.cache_clear()


def test_bandwidth_ends_at_8_khz_below_36_kbit_per_second() -> None:
    noise = np.random.default_rng(3).normal(0, 3000, RATE).astype(np.int16)
    shares = {}
    for size in (57, 116):
        encoder, decoder = OpusEncoder(), OpusDecoder()
        heard = np.concatenate([decoder.decode(encoder.encode(one, size).packet, 960) for one in frames(noise, 960)])
        power = np.abs(np.fft.rfft(heard.astype(float))) ** 2
        shares[size] = power[8_500:].sum() / power.sum()
    assert shares[57] < 0.01 < shares[116]


@pytest.mark.parametrize(
    ("size", "asked", "used"), [(116, 10, opus.COMPLEXITY_WIDE), (116, 3, 3), (38, 10, 10), (38, 3, 3)]
)
def test_wide_frames_are_encoded_with_less_effort_and_narrow_ones_as_well_as_may_be(
    size: int, asked: int, used: int
) -> None:
    encoder = OpusEncoder(complexity=asked)
    for one in (38, 116, size):  # also after a change
        encoder.encode(np.zeros(960, np.int16), one)
    told = ctypes.c_int32()
    assert encoder._calls.encoder_ctl(encoder._state, _GET_COMPLEXITY, ctypes.byref(told)) == 0
    assert told.value == used


def test_a_file_that_is_no_libopus_is_named_in_the_error(tmp_path: object) -> None:
    code = """
from meshcall.drivers.opus import describe
try:
    describe()
except Exception as problem:
    print(type(problem).__name__, problem)
"""
    environment = {**os.environ, opus.LIBRARY_VARIABLE: f"{tmp_path}/none.so"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.startswith("NoOpusError")
    assert "none.so" in run.stdout


def whole_packet(encoder: OpusEncoder, sound: Sound, size: int) -> bytes:
    """What libopus made of it, padding included, table of contents first."""
    return bytes(encoder._out[: encoder._packet(np.ascontiguousarray(sound), size)])


@pytest.mark.parametrize("samples", [960, 1920, 2880])
def test_what_travels_sounds_as_what_libopus_made_through_all_changes_of_mode(samples: int) -> None:
    """Padding and table of contents go and come back: the decoder hears the same, at changes of mode as well."""
    encoder, plain = OpusEncoder(), OpusEncoder()
    one, other = OpusDecoder(), OpusDecoder()
    sizes = [39, 58, 117, 250, 29, 87, 24, 255, 43, 160]
    slots = samples // 960
    configs = set()
    for n, sound in enumerate(frames(np.concatenate([voice(1.5), voice(1.5, 210), np.zeros(RATE, np.int16)]), samples)):
        size = sizes[n // (12 // slots) % len(sizes)] * slots
        made = encoder.encode(sound, size)
        configs.add(made.config)
        length = size if made.config in WHOLE else size + 1
        assert np.array_equal(
            one.decode(made.packet, samples), other.decode(whole_packet(plain, sound, length), samples)
        )
    assert len(configs) >= 2


@pytest.mark.parametrize("samples", [1920, 2880])
def test_several_frames_in_a_packet_travel_whole_and_the_encoder_goes_on(samples: int) -> None:
    """40 and 60 ms of hybrid coding are several frames of 20 ms."""
    slots = samples // 960
    encoder, decoder = OpusEncoder(), OpusDecoder()
    sound = voice(1.2)
    heard = []
    for one in frames(sound, samples):
        made = encoder.encode(one, 120 * slots)
        assert made.config == WHOLE[slots - 1]
        assert len(made.frame) == 120 * slots
        assert made.packet[0] & 3  # more frames than one
        heard.append(decoder.decode(made.packet, samples))
    assert error_db(sound, np.concatenate(heard)) < -6
    assert encoder.encode(frames(sound, samples)[0], 40 * slots).config == 8 + slots  # and back to SILK


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_the_configuration_does_not_change_with_what_is_said(slots: int) -> None:
    """At the lengths where symbols protect frames: a row of them is not broken by speech."""
    chance = np.random.default_rng(5)
    noise = chance.normal(0, 2000, RATE).astype(np.int16)
    said = np.concatenate([voice(1.0), noise, np.zeros(RATE, np.int16), voice(1.0, 250), noise // 200, voice(0.5, 80)])
    for bytes_per_slot in (26, 29, 39, 43, 58, 79):
        encoder = OpusEncoder()
        encoder.expect_loss(0.0, inband=False)
        configs = {encoder.encode(one, bytes_per_slot * slots).config for one in frames(said, 960 * slots)}
        assert configs == {8 + slots}


def test_a_frame_cut_at_any_place_or_of_any_configuration_is_refused_or_sounds() -> None:
    chance = Random(9)
    encoder, decoder = OpusEncoder(), OpusDecoder()
    for one in frames(voice(1.0), 960):
        frame = encoder.encode(one, 39).frame
        for config in range(32):
            slots = slots_of(config)
            if slots is None:
                continue
            try:
                sound = decoder.decode(Coded(config, frame[: chance.randrange(1, 40)]).packet, 960 * slots)
            except BadPacket:
                continue
            assert len(sound) == 960 * slots
