"""How the demonstration is shown: plain lines, or a live picture on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from meshcall.demo.swarm import Seat

Json = dict[str, Any]

OUTCOMES = {
    "value": "gave the record",
    "answered": "named nearer nodes",
    "slow": "no answer yet, another asked in its place",
    "late": "answered late",
    "waiting": "not waited for",
    "failed": "silent",
    "refused": "refused",
}


class View(Protocol):
    """What the story tells."""

    def begin(self, title: str) -> None:
        """A step begins."""
        ...

    def done(self, remark: str, seconds: float) -> None:
        """The step is over, and this came of it."""
        ...

    def network(self, seats: Sequence[Seat]) -> None:
        """How the nodes stand now."""
        ...

    def way(self, who: str, whom: str, result: Json, names: Mapping[str, str | None]) -> None:
        """The way that a look-up took; `names` of endpoints."""
        ...

    def note(self, seconds: float, text: str) -> None:
        """Something happened within the step, so many seconds after its beginning."""
        ...

    def pulse(self, text: str) -> None:
        """What happens at this moment, to be replaced by the next."""
        ...

    def chart(self, name: str, bars: str) -> None:
        """A line of bars with its name."""
        ...


def way_rows(result: Json, names: Mapping[str, str | None]) -> list[tuple[str, str, str, str, str]]:
    """When asked, round trip, who, where, outcome; in the order of asking, for the period that had the record."""
    report = _main_lookup(result)["report"]
    return [
        (
            f"{step['sent_seconds'] * 1000:.1f} ms",
            "-" if step["round_trip_seconds"] is None else f"{step['round_trip_seconds'] * 1000:.1f} ms",
            names.get(step["endpoint"]) or "?",
            step["endpoint"],
            OUTCOMES.get(step["outcome"], step["outcome"]),
        )
        for step in (report["steps"] if report else [])
    ]


def _main_lookup(result: Json) -> Json:
    """Near midnight of an identity two periods are asked for; the one in which it was found."""
    period = result["record"]["period"]
    found: Json = next(one for one in result["lookups"] if one["period"] == period)
    return found


def way_title(who: str, whom: str, result: Json) -> str:
    """One line above the table."""
    report = _main_lookup(result)["report"] or {"requests": 0, "answers": 0, "hops": 0}
    hops = report["hops"]
    text = f"The way from {who} to {whom}: {report['requests']} questions, {report['answers']} answers, "
    text += f"{hops} hop{'s' * (hops != 1)}"
    others = sum(one["report"]["requests"] for one in result["lookups"] if one["report"]) - report["requests"]
    return f"{text} (and {others} questions about the neighbouring day)" if others else text


WAY_HEAD = ("asked at", "round trip", "whom", "where", "outcome")


class PlainView:
    """A line for each thing, as it happens."""

    def __init__(self, write: Callable[[str], object] | None = None) -> None:
        self._write = write or _print
        self._number = 0

    def begin(self, title: str) -> None:
        """The title with its number."""
        self._number += 1
        self._write(f"{self._number}. {title} ...")

    def done(self, remark: str, seconds: float) -> None:
        """What came of it."""
        self._write(f"   {remark}  [{seconds:.2f} s]")

    def network(self, seats: Sequence[Seat]) -> None:
        """Nothing: a moving picture is for terminals."""

    def way(self, who: str, whom: str, result: Json, names: Mapping[str, str | None]) -> None:
        """A table."""
        self._write(f"   {way_title(who, whom, result)}")
        rows = [WAY_HEAD, *way_rows(result, names)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(WAY_HEAD))]
        for row in rows:
            cells = (
                f"{cell:>{width}}" if column < 2 else f"{cell:<{width}}"
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            self._write(f"     {'  '.join(cells).rstrip()}")

    def note(self, seconds: float, text: str) -> None:
        """A line."""
        self._write(f"     {seconds * 1000:7.1f} ms  {text}")

    def pulse(self, text: str) -> None:
        """Nothing: a moving picture is for terminals."""

    def chart(self, name: str, bars: str) -> None:
        """A line."""
        self._write(f"     {name:>9}  {bars}")


class QuietView:
    """For programs: nothing but the result."""

    def begin(self, title: str) -> None:
        """Nothing."""

    def done(self, remark: str, seconds: float) -> None:
        """Nothing."""

    def network(self, seats: Sequence[Seat]) -> None:
        """Nothing."""

    def way(self, who: str, whom: str, result: Json, names: Mapping[str, str | None]) -> None:
        """Nothing."""

    def note(self, seconds: float, text: str) -> None:
        """Nothing."""

    def pulse(self, text: str) -> None:
        """Nothing."""

    def chart(self, name: str, bars: str) -> None:
        """Nothing."""


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
