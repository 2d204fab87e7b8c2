"""The E-model against published values of G.107, G.109 and G.113, and where its inputs end."""

from __future__ import annotations

import math

import pytest

from meshcall.audio.emodel import (
    NARROWBAND_SCALE,
    RATING_MAX,
    burst_ratio,
    codec_impairment,
    delay_impairment,
    loss_impairment,
    mos_of,
    quality,
)  # fmt: skip


def test_the_default_connection_of_g107() -> None:
    """R = 93.2 with all parameters at their default is a MOS of 4.41."""
    assert round(mos_of(93.2), 2) == 4.41


@pytest.mark.parametrize(
    ("rating", "mos"), [(90, 4.34), (80, 4.03), (70, 3.60), (60, 3.10), (50, 2.58), (0, 1.0), (100, 4.5)]
)
def test_the_table_of_annex_b(rating: float, mos: float) -> None:
    assert mos_of(rating) == pytest.approx(mos, abs=0.01)


@pytest.mark.parametrize(
    ("milliseconds", "impairment"),
    [(0, 0.0), (100, 0.0), (150, 0.16), (200, 3.04), (300, 14.8), (400, 24.1), (500, 30.6)],
)
def test_delay_by_the_formula_of_g107(milliseconds: float, impairment: float) -> None:
    assert delay_impairment(milliseconds / 1000) == pytest.approx(impairment, abs=0.1)


@pytest.mark.parametrize(
    ("codec", "robustness", "percent", "impairment"),
    [
        (0, 4.3, 1, 17.9),  # G.711 without concealment
        (0, 25.1, 2, 7.0),  # G.711 with its Appendix I
        (11, 19.0, 2, 19.0),  # G.729A
        (15, 16.1, 5, 34.0),  # G.723.1 at 6.3 kbit/s
        (5, 10.0, 0, 5.0),  # GSM-EFR, nothing lost
    ],
)
def test_random_loss_with_the_codecs_of_g113(
    codec: float, robustness: float, percent: float, impairment: float
) -> None:
    assert loss_impairment(percent / 100, codec, robustness) == pytest.approx(impairment, abs=0.05)


def test_bursts_hurt_more_than_random_loss() -> None:
    assert burst_ratio(0.1, 1 / 0.9) == pytest.approx(1.0)
    assert burst_ratio(0.1, 4.0) == pytest.approx(3.6)
    assert loss_impairment(0.02, 0, 4.3, 2.0) > loss_impairment(0.02, 0, 4.3, 1.0)


def test_a_codec_costs_less_the_more_bits_it_gets() -> None:
    assert codec_impairment(12_650) == 13
    assert codec_impairment(13_450) == pytest.approx(11.5)
    assert codec_impairment(1_000) == 41
    assert codec_impairment(64_000) == 0


def test_a_perfect_call_is_the_best_there_is() -> None:
    best = quality(delay=0.075, loss=0.0, bit_rate=44_000)
    assert best.rating == RATING_MAX
    assert best.mos == 4.5
    assert best.word == "excellent"


def test_each_impairment_lowers_the_score() -> None:
    best = quality(delay=0.075, loss=0.0, bit_rate=44_000)
    slow = quality(delay=0.4, loss=0.0, bit_rate=44_000)
    poor = quality(delay=0.075, loss=0.05, bit_rate=44_000)
    narrow = quality(delay=0.075, loss=0.0, bit_rate=12_650)
    assert slow.rating == pytest.approx(RATING_MAX - 24.1, abs=0.1)
    assert narrow.rating == RATING_MAX - 13
    assert narrow.mos == pytest.approx(mos_of(116 / NARROWBAND_SCALE))
    assert best.mos > narrow.mos > slow.mos > poor.mos
    assert quality(delay=0.4, loss=0.3, bit_rate=6_600, burst=4.0).word == "bad"


@pytest.mark.parametrize("value", [-1.0, 0.0, 1e9, math.inf, math.nan])
def test_no_input_makes_it_leave_its_range(value: float) -> None:
    for inputs in (
        {"delay": value, "loss": 0.1, "bit_rate": 2e4, "burst": 2.0},
        {"delay": 0.1, "loss": value, "bit_rate": 2e4, "burst": 2.0},
        {"delay": 0.1, "loss": 0.1, "bit_rate": value, "burst": 2.0},
        {"delay": 0.1, "loss": 0.1, "bit_rate": 2e4, "burst": value},
    ):
        found = quality(**inputs)
        assert 1.0 <= found.mos <= 4.5, inputs
        assert 0.0 <= found.rating <= RATING_MAX, inputs
