"""Time scaling: by how much, at the pitch, without a seam that can be seen in the spectrum or the wave."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from meshcall.audio.codec import SLOT_SAMPLES
from meshcall.audio.stretch import CONTEXT, LAG_LEAST, LAG_MOST, cross_fade, lead_in, lengthen, shorten

Sound = NDArray[np.int16]
Scale = Callable[..., Sound]


def voice(seconds: float, pitch: float) -> Sound:
    """A vowel-like sound: harmonics under two formants, the pitch gliding by 6 %, a little breath."""
    at = np.arange(int(seconds * 48_000)) / 48_000
    phase = 2 * np.pi * pitch * (at + 0.03 * at * at / seconds)
    chance = np.random.default_rng(1)
    sound = np.zeros(len(at))
    for harmonic in range(1, int(4000 / pitch)):
        f = harmonic * pitch
        sound += np.sin(harmonic * phase) * (
            np.exp(-(((f - 600) / 300) ** 2)) + 0.4 * np.exp(-(((f - 1800) / 400) ** 2))
        )
    sound = sound / np.abs(sound).max() * 8000 + chance.normal(0, 20, len(at))
    return np.round(sound).astype(np.int16)


def scaled(sound: Sound, scale: Scale, every: int = 3) -> tuple[Sound, int]:
    """All of it in frames of 20 ms, each third one scaled; and how many were."""
    out, heard, count = [], np.zeros(CONTEXT, np.int16), 0
    for n in range(len(sound) // SLOT_SAMPLES):
        piece = sound[n * SLOT_SAMPLES : (n + 1) * SLOT_SAMPLES]
        new = scale(heard, piece, LAG_MOST, quiet=False) if n and n % every == 0 else piece
        count += len(new) != len(piece)
        out.append(new)
        heard = np.concatenate([heard, new])[-CONTEXT:]
    return np.concatenate(out), count


def flux(sound: Sound) -> NDArray[np.float64]:
    """Change of the spectrum from each 10 ms to the next, relative to its power: a click is a spike of it."""
    frames = np.lib.stride_tricks.sliding_window_view(sound.astype(float), 480)[::120] * np.hanning(480)
    spectra = np.abs(np.fft.rfft(frames))[:, :200]
    return np.linalg.norm(np.diff(spectra, axis=0), axis=1) / (np.linalg.norm(spectra[1:], axis=1) + 1)


@pytest.mark.parametrize("scale", [shorten, lengthen])
@pytest.mark.parametrize("pitch", [85.0, 120.0, 210.0, 330.0])
def test_a_voice_is_scaled_without_a_seam(scale: Scale, pitch: float) -> None:
    sound = voice(2, pitch)
    out, count = scaled(sound, scale)
    assert count >= 25
    before, after = flux(sound), flux(out)
    assert np.percentile(after, 99.5) < 1.6 * np.percentile(before, 99.5) + 0.05
    assert after.max() < 2 * before.max() + 0.1
    assert np.abs(np.diff(out.astype(int))).max() < 1.3 * np.abs(np.diff(sound.astype(int))).max()


@pytest.mark.parametrize("scale", [shorten, lengthen])
@pytest.mark.parametrize("frequency", [150.0, 440.0, 997.0])
def test_a_sine_stays_a_sine(scale: Scale, frequency: float) -> None:
    at = np.arange(96_000) / 48_000
    sound = np.round(9000 * np.sin(2 * np.pi * frequency * at)).astype(np.int16)
    out, count = scaled(sound, scale)
    assert count >= 25
    spectrum = np.abs(np.fft.rfft(out * np.hanning(len(out)))) ** 2
    line = np.abs(np.fft.rfftfreq(len(out), 1 / 48_000) - frequency) < 30
    assert spectrum[line].sum() > 0.99 * spectrum.sum()


def test_what_does_not_resemble_itself_is_left_alone_while_somebody_speaks() -> None:
    noise = np.round(np.random.default_rng(3).normal(0, 2000, 48_000)).astype(np.int16)
    for scale in (shorten, lengthen):
        out, count = scaled(noise, scale)
        assert count == 0 and np.array_equal(out, noise)


@pytest.mark.parametrize("most", [1, 50, 480, 720, 5000])
def test_a_pause_is_cut_and_stretched_exactly_with_its_loudness_kept(most: int) -> None:
    noise = np.round(np.random.default_rng(4).normal(0, 30, 2 * SLOT_SAMPLES)).astype(np.int16)
    before, piece = noise[:CONTEXT], noise[CONTEXT : CONTEXT + SLOT_SAMPLES]
    by = min(most, LAG_MOST)
    short = shorten(before, piece, most, quiet=True)
    long = lengthen(before, piece, most, quiet=True)
    assert len(short) == SLOT_SAMPLES - by and len(long) == SLOT_SAMPLES + by
    for out in (short, long):
        assert 0.8 < out.astype(float).std() / piece.astype(float).std() < 1.25
    assert short[-1] == long[-1] == piece[-1]


@settings(deadline=None)
@given(
    st.sampled_from([960, 1920, 2880]), st.integers(-10, 3000), st.booleans(), st.sampled_from([shorten, lengthen]),
    st.integers(0, 2**32 - 1), st.sampled_from([0.0, 3.0, 3000.0, 60_000.0]),
)  # fmt: skip
def test_any_sound_is_scaled_by_no_more_than_asked_for(
    length: int, most: int, quiet: bool, scale: Scale, seed: int, level: float
) -> None:
    chance = np.random.default_rng(seed)
    sound = np.clip(chance.normal(0, 1, CONTEXT + length) * level, -32768, 32767).astype(np.int16)
    out = scale(sound[:CONTEXT], sound[CONTEXT:], most, quiet=quiet, likeness=0.3)
    change = abs(len(out) - length)
    assert out.dtype == np.int16
    assert change <= max(0, min(most, LAG_MOST))
    assert quiet or not change or change >= LAG_LEAST


def test_a_cross_fade_begins_as_one_and_ends_as_the_other() -> None:
    out = cross_fade(np.full(240, 1000, np.int16), np.full(960, -1000, np.int16))
    assert len(out) == 240 and out[0] > 900 and out[-1] < -900


@pytest.mark.parametrize("pitch", [110, 210, 390])
def test_made_up_sound_turns_into_the_voice_that_follows(pitch: int) -> None:
    sound = voice(1.0, pitch)
    made_up, lost, following = (sound[at : at + SLOT_SAMPLES] for at in (19_910, 20_000, 20_960))
    led = lead_in(made_up, following)
    assert len(led) == len(made_up) and led.dtype == np.int16
    assert abs(int(led[0]) - int(made_up[0])) < 300  # which is out of phase
    assert abs(np.corrcoef(made_up[-480:], lost[-480:])[0, 1]) < 0.5
    assert np.corrcoef(led[-480:], lost[-480:])[0, 1] > 0.85
    both = np.concatenate([led, following]).astype(int)
    assert np.abs(np.diff(both)).max() < 1.5 * np.abs(np.diff(sound.astype(int))).max()


def test_nothing_leads_into_noise_silence_or_half_a_frame() -> None:
    noise = np.round(np.random.default_rng(3).normal(0, 2000, SLOT_SAMPLES)).astype(np.int16)
    made_up = voice(0.02, 120)
    for following in (noise, np.zeros(SLOT_SAMPLES, np.int16), voice(0.01, 120)):
        assert np.array_equal(lead_in(made_up, following), made_up)
    assert not lead_in(np.zeros(SLOT_SAMPLES, np.int16), np.zeros(SLOT_SAMPLES, np.int16)).any()
