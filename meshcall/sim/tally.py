"""Counting: what became of each look-up and publication, and the figures made of many.

Plain values in, plain values out; everything here ends up in the JSON result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

CURVE_POINTS = 100
"""Points by which a distribution is drawn."""


@dataclass(slots=True)
class Lookup:
    """One look-up.  Times in virtual seconds; durations from its beginning."""

    phase: str
    cold: bool
    started: float
    outcome: str
    """"newest", "older", "missing" or "forged"; what had been fully published before it began is the measure."""
    first: float | None
    """Until the first valid value was there."""
    done: float
    """Until it had converged."""
    requests: int
    answers: int
    hops: int


@dataclass(slots=True)
class Publication:
    """One put."""

    phase: str
    started: float
    took: float
    requests: int
    stored: int
    """Nodes that acknowledged."""
    refused: dict[int, int]


@dataclass(slots=True)
class Sample:
    """The state of the world at one moment; counts are since its beginning."""

    when: float
    online: int
    ready: int
    sent: int
    delivered: int


@dataclass(slots=True)
class Tally:
    """All that was counted while a world ran."""

    lookups: list[Lookup] = field(default_factory=list)
    abandoned: int = 0
    """Look-ups and publications whose own host was switched off meanwhile."""
    publications: list[Publication] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    marks: list[tuple[float, str]] = field(default_factory=list)
    """What happened, and when."""


def quantile(ordered: list[float], share: float) -> float:
    """The value below which this share of an ordered, non-empty list lies (nearest rank)."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def distribution(values: list[float], digits: int) -> dict[str, Any] | None:
    """Figures of a distribution; None where there are no values."""
    if not values:
        return None
    ordered = sorted(values)
    shown = {name: round(quantile(ordered, share), digits) for name, share in _SHARES}
    mean = round(sum(ordered) / len(ordered), digits)
    return {"count": len(ordered), "least": round(ordered[0], digits), **shown, "most": round(ordered[-1], digits),
            "mean": mean}  # fmt: skip


def curve(values: list[float], total: int, digits: int) -> list[list[float]]:
    """Points (value, share of `total` at or below it) of a cumulative distribution."""
    ordered = sorted(values)
    step = max(1, len(ordered) // CURVE_POINTS)
    ranks = sorted({*range(0, len(ordered), step), len(ordered) - 1}) if ordered else []
    return [[round(ordered[rank], digits), round((rank + 1) / total, 4)] for rank in ranks]


def counts(values: Iterable[int]) -> list[list[float]]:
    """Points (value, share at or below it), one for each value there is."""
    numbers = Counter(values)
    total, reached, points = sum(numbers.values()), 0, []
    for value in sorted(numbers):
        reached += numbers[value]
        points.append([float(value), round(reached / total, 4)])
    return points


def summary(lookups: list[Lookup]) -> dict[str, Any]:
    """The figures of some look-ups."""
    outcomes = Counter(lookup.outcome for lookup in lookups)
    first = [lookup.first * 1000 for lookup in lookups if lookup.first is not None]
    done = [lookup.done * 1000 for lookup in lookups]
    return {
        "lookups": len(lookups),
        "outcomes": dict(sorted(outcomes.items())),
        "found": round((outcomes["newest"] + outcomes["older"]) / len(lookups), 5),
        "newest": round(outcomes["newest"] / len(lookups), 5),
        "first_ms": distribution(first, 1),
        "converged_ms": distribution(done, 1),
        "requests": distribution([float(lookup.requests) for lookup in lookups], 1),
        "hops": distribution([float(lookup.hops) for lookup in lookups], 1),
        "first_curve": curve(first, len(lookups), 1),
        "converged_curve": curve(done, len(lookups), 1),
        "requests_curve": counts(lookup.requests for lookup in lookups),
        "hops_curve": counts(lookup.hops for lookup in lookups),
    }


def published(publications: list[Publication]) -> dict[str, Any]:
    """The figures of some publications."""
    refused: Counter[str] = Counter()
    for publication in publications:
        refused.update({str(code): count for code, count in publication.refused.items()})
    return {
        "publications": len(publications),
        "stored_nowhere": sum(1 for publication in publications if not publication.stored),
        "ms": distribution([publication.took * 1000 for publication in publications], 1),
        "requests": distribution([float(publication.requests) for publication in publications], 1),
        "stored": distribution([float(publication.stored) for publication in publications], 1),
        "refused": dict(sorted(refused.items())),
    }


_SHARES = (("median", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99))
