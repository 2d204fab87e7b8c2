"""How long hosts live and stay away.

Session times in real DHTs are Weibull distributed with a heavy tail (Steiner, En-Najjary and
Biersack, "Long Term Study of Peer Behavior in the KAD DHT", 2009): most leave soon, some never.
A world begins in the middle of its life: the first lifetimes are what is left of the sessions an
observer meets at a random moment, or all would seem to have been switched on together.
"""

from __future__ import annotations

from math import gamma
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from meshcall.sim.scenario import Churn

LIFE_SECONDS_MAX = 10 * 365 * 86400.0


class Lifetimes:
    """Draws times after the settings of a scenario.  Milliseconds are exact enough for all."""

    def __init__(self, settings: Churn) -> None:
        self._settings = settings
        mean, shape = settings.mean_minutes * 60, settings.shape
        if settings.lifetime == "weibull":
            self._scale = mean / gamma(1 + 1 / shape)
        else:
            self._scale = mean * (shape - 1)

    @property
    def active(self) -> bool:
        """Whether anybody ever leaves."""
        return self._settings.lifetime != "none"

    def session(self, rng: Random) -> float:
        """Seconds from switching on to switching off."""
        shape = self._settings.shape
        if self._settings.lifetime == "weibull":
            life = rng.weibullvariate(self._scale, shape)
        else:  # Lomax, a Pareto law that begins at zero
            life = self._scale * (rng.paretovariate(shape) - 1)
        return round(min(life, LIFE_SECONDS_MAX), 3)

    def remainder(self, rng: Random) -> float:
        """Seconds that a host met at a random moment goes on: the law's equilibrium distribution."""
        shape = self._settings.shape
        if self._settings.lifetime == "weibull":
            life = self._scale * float(rng.gammavariate(1 / shape, 1.0) ** (1 / shape))
        else:
            life = self._scale * (rng.paretovariate(shape - 1) - 1)
        return round(min(life, LIFE_SECONDS_MAX), 3)

    def away(self, rng: Random) -> float:
        """Seconds from switching off to switching on."""
        return round(rng.expovariate(1 / (self._settings.away_mean_minutes * 60)), 3)
