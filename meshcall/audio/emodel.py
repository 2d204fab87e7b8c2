"""How good a call was, by the wideband E-model: a MOS out of delay, loss after repair and bit rate.

ITU-T G.107.1 (06/2019): R = 129 - Id - Ie,eff, with all that this model has no input for (loudness, room noise,
echo, which the canceller removes) at its default, where it impairs nothing; MOS by G.107 Annex B from R / 1.29.
The delay term is G.107's Idd (7.4), the loss term G.107's Ie,eff with burst ratio (7.5).  G.113 has no values for
Opus: those of G.722.2 (AMR-WB; Appendix IV) stand in for it up to 24 kbit/s, where Opus is not worse; docs/voice.md
says how the estimate compares with PESQ-WB.  An estimate for showing and comparing, not a measurement.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import Final

RATING_MAX: Final = 129.0
"""G.107.1: R of a wideband connection that nothing impairs."""
NARROWBAND_SCALE: Final = 1.29
"""G.107.1 Annex A: R of the wideband scale over R of G.107's own."""
DELAY_UNNOTICED_SECONDS: Final = 0.1
"""G.107's mT: a one-way delay up to this impairs nothing."""
LOSS_IMPAIRMENT_MAX: Final = 95.0
LOSS_ROBUSTNESS: Final = 4.3
"""Bpl: percent of random loss, covered by nothing but the decoder's concealment, that costs half of what is left."""

_CODEC: Final = (
    (6_600, 41.0), (8_850, 26.0), (12_650, 13.0), (14_250, 10.0), (15_850, 7.0), (18_250, 5.0), (19_850, 4.0),
    (23_050, 1.0), (24_000, 0.0),
)  # fmt: skip
"""Bit rate in bit/s, and Ie,WB; in between by straight lines."""

_WORDS: Final = ((3.1, "bad"), (3.6, "poor"), (4.03, "fair"), (4.34, "good"))
"""Below which MOS which word holds: G.109's limits of R = 60, 70, 80, 90."""


@dataclass(frozen=True, slots=True)
class Quality:
    """The estimate for one direction of a call."""

    rating: float
    """R, 0 to 129."""
    mos: float
    """Mean opinion score, 1 to 4.5."""
    delay_impairment: float
    loss_impairment: float
    """Ie,eff: codec and loss together; both impairments in units of R."""

    @property
    def word(self) -> str:
        """For people: bad, poor, fair, good, excellent."""
        return next((word for limit, word in _WORDS if self.mos < limit), "excellent")


def quality(*, delay: float, loss: float, bit_rate: float, burst: float = 1.0) -> Quality:
    """`delay`: mouth to ear, one way, in seconds; `loss`: share of frames that were concealed, 0 to 1; `bit_rate`: of
    the frames alone, bit/s; `burst`: mean length of a run of concealed frames.  Out of range is brought into it.
    """
    loss = min(1.0, max(0.0, loss))
    slow = delay_impairment(delay)
    damaged = loss_impairment(loss, codec_impairment(bit_rate), LOSS_ROBUSTNESS, burst_ratio(loss, burst))
    rating = min(RATING_MAX, max(0.0, RATING_MAX - slow - damaged))
    return Quality(rating, mos_of(rating / NARROWBAND_SCALE), slow, damaged)


def delay_impairment(delay: float) -> float:
    """G.107's Idd of a one-way delay in seconds, at its default sensitivity (sT = 1, mT = 100 ms)."""
    if not delay > DELAY_UNNOTICED_SECONDS:
        return 0.0
    x = math.log2(delay / DELAY_UNNOTICED_SECONDS)
    return 25 * (math.pow(1 + math.pow(x, 6), 1 / 6) - 3 * math.pow(1 + math.pow(x / 3, 6), 1 / 6) + 2)


def codec_impairment(bit_rate: float) -> float:
    """Ie,WB of a bit rate in bit/s; at the ends of the table it stays what it is there."""
    rates = [rate for rate, _ in _CODEC]
    at = bisect_right(rates, bit_rate)
    if at == 0:
        return _CODEC[0][1]
    if at == len(_CODEC):
        return _CODEC[-1][1]
    (low, worse), (high, better) = _CODEC[at - 1], _CODEC[at]
    return worse + (better - worse) * (bit_rate - low) / (high - low)


def loss_impairment(loss: float, codec: float, robustness: float, ratio: float = 1.0) -> float:
    """G.107's Ie,eff: `loss` as a share, `codec` = Ie, `robustness` = Bpl in percent, `ratio` = BurstR."""
    percent = 100 * loss
    return codec + (LOSS_IMPAIRMENT_MAX - codec) * percent / (percent / ratio + robustness) if percent > 0 else codec


def burst_ratio(loss: float, burst: float) -> float:
    """G.107's BurstR: mean run of losses over what it would be if losses were independent; at least 1."""
    return max(1.0, burst * (1 - loss))


def mos_of(rating: float) -> float:
    """G.107 Annex B: MOS of an R on the narrowband scale of 0 to 100."""
    if not rating > 0:
        return 1.0
    if rating >= 100:
        return 4.5
    return max(1.0, 1 + 0.035 * rating + rating * (rating - 60) * (100 - rating) * 7e-6)
