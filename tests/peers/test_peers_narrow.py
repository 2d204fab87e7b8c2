"""What can wait waits for a call on a narrow line, but not for ever, and not where the call itself needs a way."""

from __future__ import annotations

import pytest

from meshcall.peers.narrow import HOLD_SECONDS_MAX, LET_GO_SECONDS, NARROW_SECONDS, NarrowLine

STEP = 0.1


def talk(line: NarrowLine, start: float, seconds: float, *, is_narrow: bool = True, hears: bool = True) -> float:
    """Packets both ways for so long; the share of the time in which the rest waits."""
    held = 0
    for n in range(round(seconds / STEP)):
        now = start + n * STEP
        line.said(now, is_narrow=is_narrow)
        if hears:
            line.heard(now)
        held += line.holds(now)
    return held * STEP / seconds


def test_only_a_narrow_line_on_which_somebody_is_heard_is_kept_free() -> None:
    assert talk(NarrowLine(0.0), 100.0, 10) == pytest.approx(1.0)
    assert talk(NarrowLine(0.0), 100.0, 10, is_narrow=False) == 0
    assert talk(NarrowLine(0.0), 100.0, 10, hears=False) == 0, "the call may need a relay"
    assert not NarrowLine(0.0).holds(0.0)


def test_it_ends_with_the_call_and_when_the_line_is_found_wide() -> None:
    for is_narrow in (True, False):
        line = NarrowLine(0.0)
        talk(line, 100.0, 10)
        if not is_narrow:
            talk(line, 110.0, NARROW_SECONDS + STEP, is_narrow=False)
        assert not line.holds(110.0 + NARROW_SECONDS)


def test_a_long_call_lets_the_rest_have_its_turn() -> None:
    line = NarrowLine(0.0)
    round_seconds = HOLD_SECONDS_MAX + LET_GO_SECONDS
    assert talk(line, 0.0, 3 * round_seconds) == pytest.approx(HOLD_SECONDS_MAX / round_seconds, abs=0.01)
