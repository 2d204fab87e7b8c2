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
STYLE = """
:root{color-scheme:light dark;--paper:#fff;--card:#f6f7f9;--ink:#1c2330;--faint:#667085;--grid:#dfe3ea;--good:#067647;
--bad:#b42318;--c1:#0072b2;--c2:#d55e00;--c3:#009e73;--c4:#cc79a7;--c5:#b58900;--c6:#56b4e9}
@media(prefers-color-scheme:dark){:root{--paper:#12161d;--card:#1a202b;--ink:#e6e9ef;--faint:#98a2b3;--grid:#2f3847;
--good:#4ade80;--bad:#f87171;--c1:#5cb3ee;--c2:#ff9a4d;--c3:#3dd6a5;--c4:#e9a3c9;--c5:#e6c14d;--c6:#9ad5f7}}
*{box-sizing:border-box}
body{margin:0 auto;padding:28px 22px 60px;max-width:1240px;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif}
h1{font-size:26px;margin:0 0 2px}h2{font-size:18px;margin:34px 0 12px}h3{font-size:14px;margin:0 0 6px}
p{max-width:78ch;margin:6px 0}.faint,.empty{color:var(--faint)}
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(158px,1fr));gap:10px;margin:18px 0}
.tile,.card{background:var(--card);border-radius:10px;padding:12px 14px}
.tile b{display:block;font-size:21px;line-height:1.25;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
.tile span{color:var(--faint);font-size:13px}
.good b{color:var(--good)}.bad b{color:var(--bad)}
.plots{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,480px),1fr));gap:14px}
svg{width:100%;height:auto;display:block}svg text{fill:var(--faint);font-size:11px}svg .label{font-size:12px}
.grid{stroke:var(--grid);stroke-width:1}.mark line{stroke:var(--bad);stroke-width:1;stroke-dasharray:3 3}
svg .mark text{fill:var(--bad)}
.legend{display:flex;flex-wrap:wrap;gap:2px 16px;font-size:13px;padding-left:10px}
.legend b{color:var(--bad);margin-right:6px}
.legend i{display:inline-block;width:20px;margin-right:6px;vertical-align:middle}
.wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:14px;min-width:100%}
th,td{text-align:right;padding:5px 12px;border-bottom:1px solid var(--grid);white-space:nowrap}
th{color:var(--faint);font-weight:600}th:first-child,td:first-child{text-align:left}
.pairs{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,330px),1fr));gap:14px}
code,pre{font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
pre{background:var(--card);border-radius:10px;padding:12px 14px;overflow-x:auto}
li{margin:2px 0}
"""
"""The look of a page with plots: light or dark as the reader has it."""

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
