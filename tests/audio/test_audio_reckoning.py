"""Bytes, delay and the judgement that daemon and simulator share."""

from __future__ import annotations

import pytest

from meshcall.audio.emodel import quality
from meshcall.audio.reckoning import delay_of, judge, overhead_bytes


def test_what_lies_below_a_payload() -> None:
    assert overhead_bytes(relayed=False) == 54
    assert overhead_bytes(relayed=True) == 66
    assert overhead_bytes(relayed=True, ipv6=True) == 86


def test_the_parts_of_a_delay_add_up() -> None:
    delay = delay_of(network=0.02, waiting=0.03, frame=0.02, devices=0.01)
    assert delay.fixed == pytest.approx(0.0465)
    assert delay.total == pytest.approx(0.0965)


def test_the_greater_of_missing_and_made_up_counts() -> None:
    delay = delay_of(network=0.02, waiting=0.03, frame=0.02)
    expected = quality(delay=delay.total, loss=0.1, bit_rate=20_000)
    assert judge(delay, missing=0.1, made_up=0.0, bit_rate=20_000) == expected
    assert judge(delay, missing=0.02, made_up=0.1, bit_rate=20_000) == expected
