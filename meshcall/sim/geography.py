"""Where the hosts of a world are, and how long a packet takes from one to another.

Cities are weighted by the internet users they stand for.  A packet crosses the great circle at two
thirds of the speed of light, times a path-stretch factor that is fixed for each pair of cities, and
the access lines at both ends.  Along fibre routes the rule of thumb is 2.1 times the line of sight
("Dissecting Latency in the Internet's Fiber Infrastructure", Bozkurt et al., 2018); as the access
lines are added apart here, the factors lie between 1.5 and 2.3.

All tables are rounded to microseconds, so that a world does not depend on a platform's libm.
"""

from __future__ import annotations

import hashlib
from bisect import bisect
from itertools import accumulate
from math import acos, cos, log, radians, sin
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping
    from random import Random

    from meshcall.sim.network import Spell
    from meshcall.sim.shaping import Shape

FIBRE_KM_PER_SECOND = 200_000
EARTH_RADIUS_KM = 6371
STRETCH_LEAST = 1.5
STRETCH_RANGE = 0.8
EXCHANGE_SECONDS = 0.001
"""Routers and exchanges on any way, one way."""
SPREAD_BITS = 10
"""Jitter is drawn from a table of 2**SPREAD_BITS quantiles."""


class City(NamedTuple):
    """A site.  `weight`: millions of internet users it stands for, in round figures."""

    name: str
    region: str
    latitude: float
    longitude: float
    weight: float


CITIES = (
    City("London", "europe", 51.5, -0.1, 75),
    City("Paris", "europe", 48.9, 2.3, 62),
    City("Frankfurt", "europe", 50.1, 8.7, 85),
    City("Amsterdam", "europe", 52.4, 4.9, 32),
    City("Madrid", "europe", 40.4, -3.7, 50),
    City("Milan", "europe", 45.5, 9.2, 52),
    City("Stockholm", "europe", 59.3, 18.1, 26),
    City("Warsaw", "europe", 52.2, 21.0, 45),
    City("Vienna", "europe", 48.2, 16.4, 30),
    City("Athens", "europe", 38.0, 23.7, 12),
    City("Bucharest", "europe", 44.4, 26.1, 28),
    City("Kyiv", "europe", 50.5, 30.5, 32),
    City("Moscow", "europe", 55.8, 37.6, 95),
    City("Yekaterinburg", "europe", 56.8, 60.6, 35),
    City("New York", "north america", 40.7, -74.0, 75),
    City("Atlanta", "north america", 33.7, -84.4, 55),
    City("Chicago", "north america", 41.9, -87.6, 55),
    City("Dallas", "north america", 32.8, -96.8, 45),
    City("Denver", "north america", 39.7, -105.0, 15),
    City("Los Angeles", "north america", 34.1, -118.2, 52),
    City("Seattle", "north america", 47.6, -122.3, 16),
    City("Toronto", "north america", 43.7, -79.4, 25),
    City("Vancouver", "north america", 49.3, -123.1, 10),
    City("Mexico City", "north america", 19.4, -99.1, 100),
    City("Guatemala City", "north america", 14.6, -90.5, 25),
    City("Bogota", "south america", 4.7, -74.1, 60),
    City("Lima", "south america", -12.0, -77.0, 35),
    City("Sao Paulo", "south america", -23.6, -46.6, 110),
    City("Recife", "south america", -8.1, -34.9, 60),
    City("Buenos Aires", "south america", -34.6, -58.4, 45),
    City("Santiago", "south america", -33.4, -70.7, 25),
    City("Cairo", "africa", 30.0, 31.2, 85),
    City("Casablanca", "africa", 33.6, -7.6, 40),
    City("Lagos", "africa", 6.5, 3.4, 110),
    City("Accra", "africa", 5.6, -0.2, 50),
    City("Nairobi", "africa", -1.3, 36.8, 55),
    City("Addis Ababa", "africa", 9.0, 38.7, 30),
    City("Kinshasa", "africa", -4.3, 15.3, 30),
    City("Johannesburg", "africa", -26.2, 28.0, 60),
    City("Istanbul", "middle east", 41.0, 29.0, 75),
    City("Tehran", "middle east", 35.7, 51.4, 75),
    City("Riyadh", "middle east", 24.7, 46.7, 50),
    City("Dubai", "middle east", 25.2, 55.3, 25),
    City("Baghdad", "middle east", 33.3, 44.4, 40),
    City("Tashkent", "middle east", 41.3, 69.2, 50),
    City("Karachi", "south asia", 24.9, 67.0, 110),
    City("Mumbai", "south asia", 19.1, 72.9, 270),
    City("Delhi", "south asia", 28.6, 77.2, 330),
    City("Chennai", "south asia", 13.1, 80.3, 200),
    City("Dhaka", "south asia", 23.8, 90.4, 85),
    City("Bangkok", "southeast asia", 13.8, 100.5, 70),
    City("Hanoi", "southeast asia", 21.0, 105.8, 80),
    City("Singapore", "southeast asia", 1.35, 103.8, 40),
    City("Jakarta", "southeast asia", -6.2, 106.8, 215),
    City("Manila", "southeast asia", 14.6, 121.0, 85),
    City("Hong Kong", "east asia", 22.3, 114.2, 230),
    City("Shanghai", "east asia", 31.2, 121.5, 330),
    City("Beijing", "east asia", 39.9, 116.4, 300),
    City("Chengdu", "east asia", 30.7, 104.1, 220),
    City("Taipei", "east asia", 25.0, 121.6, 22),
    City("Seoul", "east asia", 37.6, 127.0, 50),
    City("Tokyo", "east asia", 35.7, 139.7, 75),
    City("Osaka", "east asia", 34.7, 135.5, 30),
    City("Sydney", "oceania", -33.9, 151.2, 15),
    City("Melbourne", "oceania", -37.8, 145.0, 10),
    City("Auckland", "oceania", -36.8, 174.8, 5),
)
REGIONS = tuple(dict.fromkeys(city.region for city in CITIES))


class Access(NamedTuple):
    """An access line, one way: what it always adds, and the mean of what it adds by chance."""

    least_ms: float
    most_ms: float
    jitter_ms: float


ACCESS = {
    "datacentre": Access(0.2, 0.6, 0.1),
    "fibre": Access(1.0, 4.0, 0.4),
    "cable": Access(5.0, 11.0, 2.0),
    "dsl": Access(7.0, 18.0, 1.5),
    "mobile": Access(15.0, 35.0, 6.0),
}


class Line:
    """An access line: the place in the world that a host, or a NAT box with its hosts, has."""

    __slots__ = ("burst", "clog", "jitter", "kind", "lag", "row", "shape", "side", "site")

    def __init__(self, site: int, row: list[float], lag: float, jitter: float, kind: str) -> None:
        self.site = site
        self.row = row
        """One-way seconds from here to each site."""
        self.lag = lag
        self.jitter = jitter
        self.kind = kind
        self.side = 0
        """Lines on different sides do not reach each other while the network is split."""
        self.burst: Spell | None = None
        """Spells of loss; the network makes one for each line when a scenario wants it."""
        self.clog: Spell | None = None
        """Spells in which everything stands still."""
        self.shape: Shape | None = None
        """What a scenario does to this line beyond that."""


def great_circle_km(a: City, b: City) -> float:
    """Distance over ground (spherical law of cosines; exact enough from a kilometre up)."""
    south, north = radians(a.latitude), radians(b.latitude)
    angle = sin(south) * sin(north) + cos(south) * cos(north) * cos(radians(a.longitude - b.longitude))
    return EARTH_RADIUS_KM * acos(min(1.0, angle))


def stretch(a: City, b: City) -> float:
    """How much longer the packets' way is than the great circle; fixed for a pair, both ways alike."""
    pair = "|".join(sorted((a.name, b.name))).encode()
    return STRETCH_LEAST + STRETCH_RANGE * hashlib.blake2b(pair, digest_size=1).digest()[0] / 255


def exponential() -> list[float]:
    """2**SPREAD_BITS quantiles of the exponential distribution with the mean 1."""
    steps = 1 << SPREAD_BITS
    return [round(-log(1 - (step + 0.5) / steps), 6) for step in range(steps)]


class Geography:
    """Places hosts by population and knows the way between any two sites."""

    def __init__(self, access: Mapping[str, float]) -> None:
        self.sites: tuple[City, ...] = CITIES
        self.rows = [
            [round(EXCHANGE_SECONDS + great_circle_km(a, b) * stretch(a, b) / FIBRE_KM_PER_SECOND, 6) for b in CITIES]
            for a in CITIES
        ]
        self.spread = exponential()
        """Quantiles of the jitter, in units of a line's mean."""
        self._cities = list(accumulate(city.weight for city in CITIES))
        self._kinds = list(access)
        self._shares = list(accumulate(access.values()))

    def line(self, rng: Random, kind: str | None = None) -> Line:
        """A line somewhere, of the given kind of access or one drawn by the shares."""
        site = bisect(self._cities, rng.random() * self._cities[-1])
        kind = kind or self._kinds[bisect(self._shares, rng.random() * self._shares[-1])]
        access = ACCESS[kind]
        lag = rng.uniform(access.least_ms, access.most_ms) / 1000
        return Line(site, self.rows[site], round(lag, 6), access.jitter_ms / 1000, kind)


class Flatland(Geography):
    """One site; each packet takes a time drawn evenly from a range, as in a laboratory bench."""

    def __init__(self, least_ms: float, most_ms: float) -> None:
        self.sites = (City("Flatland", "flatland", 0.0, 0.0, 1.0),)
        self.rows = [[round(least_ms / 1000, 6)]]
        steps = 1 << SPREAD_BITS
        self.spread = [(step + 0.5) / steps for step in range(steps)]
        self._jitter = round((most_ms - least_ms) / 2000, 6)

    def line(self, rng: Random, kind: str | None = None) -> Line:
        """A line like all others; sender and receiver each add half of the range's width."""
        return Line(0, self.rows[0], 0.0, self._jitter, kind or "bench")
