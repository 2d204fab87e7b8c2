"""Plots as SVG text: lines and steps with axes, legend and marks; no library, no script.

Colours come from CSS variables (`--c1` to `--c6`, `--ink`, `--faint`, `--grid`) of the page around,
so the same plot is right in light and in dark.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from math import ceil, floor, log10

WIDTH, HEIGHT = 560, 300
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 24, 46
COLOURS = 6
TICKS = 6


@dataclass(slots=True)
class Series:
    """One line.  `step`: the value holds until the next point; `fill`: the area below is shaded."""

    name: str
    points: Sequence[Sequence[float]]
    step: bool = False
    dashed: bool = False
    fill: bool = False
    colour: int | None = None


@dataclass(slots=True)
class Plot:
    """A plot; limits that are None follow the data."""

    title: str
    x_label: str
    y_label: str
    series: list[Series]
    x_most: float | None = None
    y_most: float | None = None
    whole: bool = False
    """The x values are whole numbers."""
    percent: bool = False
    """The y values are shares, shown as percent."""
    marks: list[tuple[float, str]] = field(default_factory=list)
    """Vertical lines with their words."""
    _low: float = 0.0
    _high: float = 1.0
    _top: float = 1.0

    def svg(self) -> str:
        """The plot as one `<svg>` element; a sentence where there is nothing to draw."""
        points = [point for series in self.series for point in series.points]
        if not points:
            return '<p class="empty">Nothing to draw.</p>'
        xs = [point[0] for point in points]
        self._low = min(0.0, *xs)
        self._high = self.x_most if self.x_most is not None else max(*xs, self._low + 1e-09)
        top = self.y_most if self.y_most is not None else max(point[1] for point in points) * 1.05
        self._top = top or 1.0
        parts = [
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(self.title)}">',
            *self._y_axis(),
            *self._x_axis(),
            *self._mark_lines(),
        ]
        for number, series in enumerate(self.series):
            if series.points:
                parts.append(self._line(series, self._colour(number)))
        parts.append("</svg>")
        return "".join(parts) + self._legend()

    def _colour(self, number: int) -> str:
        chosen = self.series[number].colour
        return f"var(--c{(number if chosen is None else chosen) % COLOURS + 1})"

    def _x(self, value: float) -> float:
        low, high = self._low, self._high
        share = (value - low) / (high - low) if high > low else 0.0
        return round(LEFT + min(1.0, max(0.0, share)) * (WIDTH - LEFT - RIGHT), 1)

    def _y(self, value: float) -> float:
        return round(TOP + (1 - min(1.0, value / self._top)) * (HEIGHT - TOP - BOTTOM), 1)

    def _y_axis(self) -> list[str]:
        parts = []
        for value in ticks(0.0, self._top):
            y = self._y(value)
            label = f"{value * 100:g} %" if self.percent else short(value)
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
            parts.append(f'<text x="{LEFT - 7}" y="{y + 4}" text-anchor="end">{label}</text>')
        middle = (TOP + HEIGHT - BOTTOM) / 2
        parts.append(
            f'<text class="label" transform="translate(13 {middle}) rotate(-90)" text-anchor="middle">'
            f"{escape(self.y_label)}</text>"
        )
        return parts

    def _x_axis(self) -> list[str]:
        parts, bottom = [], HEIGHT - BOTTOM
        for value in ticks(self._low, self._high, 1.0 if self.whole else 0.0):
            x = self._x(value)
            parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{TOP}" y2="{bottom + 4}"/>')
            parts.append(f'<text x="{x}" y="{bottom + 17}" text-anchor="middle">{short(value)}</text>')
        centre = (LEFT + WIDTH - RIGHT) / 2
        parts.append(
            f'<text class="label" x="{centre}" y="{HEIGHT - 6}" text-anchor="middle">{escape(self.x_label)}</text>'
        )
        return parts

    def _mark_lines(self) -> list[str]:
        """Numbered; the words are in the legend, where they cannot collide."""
        parts = []
        for number, (where, words) in enumerate(self.marks, 1):
            x = self._x(where)
            parts.append(
                f'<g class="mark"><title>{escape(words)}</title>'
                f'<line x1="{x}" x2="{x}" y1="{TOP - 5}" y2="{HEIGHT - BOTTOM}"/>'
                f'<text x="{x}" y="{TOP - 9}" text-anchor="middle">{number}</text></g>'
            )
        return parts

    def _line(self, series: Series, colour: str) -> str:
        way: list[str] = []
        before: float | None = None
        for point in series.points:
            x, y = self._x(point[0]), self._y(point[1])
            if series.step and before is not None:
                way.append(f"{x},{before}")
            way.append(f"{x},{y}")
            before = y
        dashes = ' stroke-dasharray="5 4"' if series.dashed else ""
        line = f'<polyline fill="none" stroke="{colour}" stroke-width="2"{dashes} points="{" ".join(way)}"/>'
        if series.fill:
            bottom = HEIGHT - BOTTOM
            first, last = self._x(series.points[0][0]), self._x(series.points[-1][0])
            area = f"{first},{bottom} {' '.join(way)} {last},{bottom}"
            line = f'<polygon fill="{colour}" fill-opacity="0.14" points="{area}"/>' + line
        return line

    def _legend(self) -> str:
        entries = []
        for number, series in enumerate(self.series):
            if series.points and len(self.series) > 1:
                style = "dashed" if series.dashed else "solid"
                entries.append(
                    f'<span><i style="border-top:3px {style} {self._colour(number)}"></i>{escape(series.name)}</span>'
                )
        for number, (_, words) in enumerate(self.marks, 1):
            entries.append(f"<span><b>{number}</b>{escape(words)}</span>")
        return f'<div class="legend">{"".join(entries)}</div>' if entries else ""


def ticks(low: float, high: float, finest: float = 0.0) -> list[float]:
    """Round values between two limits, about TICKS of them, at least `finest` apart."""
    span = high - low
    if span <= 0:
        return [low]
    raw = span / TICKS
    power: float = 10.0 ** floor(log10(raw))
    step = max(finest, power * next(nice for nice in (1, 2, 5, 10) if raw <= nice * power * 1.0001))
    return [round(number * step, 10) for number in range(ceil(low / step - 1e-9), floor(high / step + 1e-9) + 1)]


def short(value: float) -> str:
    """A number for an axis."""
    if abs(value) >= 1_000_000:
        return f"{value / 1_000_000:g}M"
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:g}"
