"""The voice part of a page: how calls under study sounded by kind of line, the best and the worst of them, set-up.

`results` is what `CallRun.go` returned for a scenario with voice.
"""

from __future__ import annotations

from html import escape
from typing import Any

from meshcall.plots import Plot, Series, ticks

WIDTH, LEFT, RIGHT, ROW, TOP, BOTTOM = 560, 130, 76, 20, 6, 34
MOS_MOST = 4.5
_ALL = "all"


def table(results: dict[str, Any]) -> list[list[str]]:
    """Rows of cells for the terminal, the first one the heads."""
    rows = [["voice", "ways", "MOS", "p25", "least", "delay ms", "worst", "lost", "missing", "made up", "kbit/s"]]
    for name, group in results["voice"]["groups"].items():
        mos, delay, kbit = group["mos"], group["delay_ms"], group["kbit"]
        rows.append(
            [
                name, str(group["directions"]), f"{mos['median']:.2f}", f"{mos['p25']:.2f}", f"{mos['least']:.2f}",
                "-" if delay is None else f"{delay['median']:.0f}", "-" if delay is None else f"{delay['most']:.0f}",
                f"{group['lost']:.1%}", f"{group['missing']:.1%}", f"{group['made_up']:.1%}", f"{kbit['median']:.0f}",
            ]
        )  # fmt: skip
    return rows


def verdict(results: dict[str, Any]) -> str:
    """One line: how the calls under study sounded."""
    voice = results["voice"]
    scores = sorted(one["mos"] for one in voice["directions"])
    if not scores:
        return f"{voice['studied']} of {voice['calls']} calls under study, none was answered"
    usable = sum(score >= 3.1 for score in scores) / len(scores)
    return (
        f"{voice['studied']} of {voice['calls']} calls under study: median MOS {scores[len(scores) // 2]:.2f}, "
        f"{usable:.0%} of all directions 3.1 or better"
    )


def tiles(results: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Class, figure and words of the page's first tiles."""
    whole = results["voice"]["groups"].get(_ALL)
    if whole is None:
        return []
    mos, delay = whole["mos"], whole["delay_ms"]
    shown = [("", f"{mos['median']:.2f} / {mos['p25']:.2f}", "MOS of a direction, median / lower quartile")]
    if delay is not None:
        shown.append(("", f"{delay['median']:.0f} / {delay['p75']:.0f}", "ms mouth to ear, median / upper quartile"))
    return shown


def body(results: dict[str, Any]) -> str:
    """The sections on voice."""
    voice = results["voice"]
    if not voice["directions"]:
        return f"<h2>Voice</h2><p>{escape(verdict(results))}.</p>"
    groups = {name: group for name, group in voice["groups"].items() if name != _ALL}
    cards = [
        ("Quality by kind of line: MOS of each direction", _spreads(groups, "mos", "MOS (E-model)", 1.0, MOS_MOST, 2)),
        ("Mouth to ear, milliseconds", _spreads(groups, "delay_ms", "milliseconds", 0.0, None, 0)),
        ("Loss before and after repair", _losses(groups)),
        ("Sent on the wire, headers and second copies included", _spreads(groups, "kbit", "kbit/s", 0.0, None, 0)),
        *((plot.title, plot.svg()) for plot in _plots(voice)),
    ]
    shown = "".join(f'<div class="card"><h3>{escape(title)}</h3>{drawn}</div>' for title, drawn in cards)
    note = (
        '<p class="faint">Each call under study is two directions. Up: the person on this kind of line speaks; down: '
        "listens; the other end is on a plain line. Bars: the middle half, with the median as a mark and its value at "
        "the right; thin lines: least and most. A direction's MOS is the mean of its windows. Lost: before repair, as "
        "the receiver reports it. Missing: frames never played. Made up: sound that was concealed, also while frames "
        "were late.</p>"
    )
    return f'<h2>Voice</h2>{_rows(table(results))}{note}<div class="plots" style="margin-top:14px">{shown}</div>'


def _rows(rows: list[list[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in ["", *rows[0][1:]])
    cells = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows[1:])
    return f'<div class="wide"><table><tr>{head}</tr>{cells}</table></div>'


class _Chart:
    """Rows with names at the left and words at the right, over an axis of round values."""

    def __init__(self, names: list[str], low: float, high: float, label: str, percent: bool = False) -> None:
        self._low, self._high = low, high if high > low else low + 1.0
        height = TOP + len(names) * ROW + BOTTOM
        bottom = height - BOTTOM
        self.parts = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">']
        for value in ticks(low, self._high):
            x = self.x(value)
            words = f"{value * 100:g} %" if percent else f"{value:g}"
            self.parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{TOP}" y2="{bottom}"/>')
            self.parts.append(f'<text x="{x}" y="{bottom + 14}" text-anchor="middle">{words}</text>')
        middle = (LEFT + WIDTH - RIGHT) / 2
        self.parts.append(f'<text class="label" x="{middle}" y="{height - 3}" text-anchor="middle">{label}</text>')
        for number, name in enumerate(names):
            self.parts.append(f'<text x="{LEFT - 8}" y="{self.y(number) + 4}" text-anchor="end">{escape(name)}</text>')

    def x(self, value: float) -> float:
        share = (min(self._high, max(self._low, value)) - self._low) / (self._high - self._low)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def y(self, number: int) -> int:
        """The middle of a row."""
        return TOP + number * ROW + ROW // 2

    def bar(self, number: int, low: float, high: float, colour: str, height: int = 10, shift: int = 0) -> None:
        left = self.x(low)
        width = round(max(1.0, self.x(high) - left), 1)
        y = self.y(number) - height // 2 + shift
        self.parts.append(f'<rect x="{left}" y="{y}" width="{width}" height="{height}" rx="1" fill="var({colour})"/>')

    def words(self, number: int, words: str) -> None:
        self.parts.append(f'<text x="{WIDTH - RIGHT + 8}" y="{self.y(number) + 4}">{escape(words)}</text>')

    def svg(self) -> str:
        return "".join([*self.parts, "</svg>"])


def _spreads(
    groups: dict[str, Any], what: str, label: str, least: float, most: float | None, digits: int
) -> str:  # fmt: skip
    """Least to most as a line, the middle half as a bar, the median as a mark; one row for each group."""
    shown = [(name, group[what]) for name, group in groups.items() if group[what] is not None]
    high = most if most is not None else max((spread["most"] for _, spread in shown), default=1.0) * 1.02
    chart = _Chart([name for name, _ in shown], least, high, label)
    for number, (_, spread) in enumerate(shown):
        chart.bar(number, spread["least"], spread["most"], "--faint", 2)
        chart.bar(number, spread["p25"], spread["p75"], "--c1")
        middle = chart.x(spread["median"])
        y = chart.y(number)
        chart.parts.append(
            f'<rect x="{middle - 1.5}" y="{y - 8}" width="3" height="16" fill="var(--ink)"/>'
        )  # fmt: skip
        chart.words(number, f"{spread['median']:.{digits}f}")
    return chart.svg()


def _losses(groups: dict[str, Any]) -> str:
    high = max((max(group["lost"], group["made_up"]) for group in groups.values()), default=0.0) * 1.02
    chart = _Chart(list(groups), 0.0, max(0.01, high), "share", percent=True)
    for number, group in enumerate(groups.values()):
        chart.bar(number, 0.0, group["lost"], "--c6", 6, -3)
        chart.bar(number, 0.0, group["made_up"], "--c5", 6, 4)
        chart.bar(number, 0.0, group["missing"], "--c2", 6, 4)
        chart.words(number, f"{group['lost']:.0%} / {group['missing']:.0%}")
    legend = "".join(
        f'<span><i style="border-top:5px solid var({colour})"></i>{words}</span>'
        for colour, words in (("--c6", "lost before repair"), ("--c2", "missing after it"), ("--c5", "made up"))
    )
    return f'{chart.svg()}<div class="legend">{legend}</div>'


def _plots(voice: dict[str, Any]) -> list[Plot]:
    ranked = sorted(voice["directions"], key=lambda one: (one["mos"], one["at"]))
    chosen = {"worst": ranked[0], "median": ranked[len(ranked) // 2], "best": ranked[-1]}
    colours = {"worst": 1, "median": 0, "best": 2}
    where = {name: voice["window"].index(name) for name in ("seconds", "mos", "delay_ms", "kbit")}

    def series(column: str) -> list[Series]:
        drawn = []
        for name, one in chosen.items():
            points = [[w[where["seconds"]], w[where[column]]] for w in one["windows"] if w[where[column]] is not None]
            drawn.append(Series(f"{name}: {one['speaker']} to {one['listener']}", points, colour=colours[name]))
        return drawn

    setup = voice["setup"]
    curves = [
        Series(words, [[0.0, 0.0], *setup[f"{name}_curve"]], step=True)
        for name, words in (
            ("ringing", "from dialling: it rings"),
            ("answered", "from answering: the caller knows"),
            ("voice", "from answering: the caller hears"),
        )
        if setup[f"{name}_curve"]
    ]
    cut = max((setup[f"{name}_ms"]["p95"] for name in ("ringing", "voice") if setup[f"{name}_ms"]), default=None)
    return [
        Plot("Quality over time", "seconds since answering", "MOS", series("mos"), y_most=MOS_MOST),
        Plot("Mouth to ear over time", "seconds since answering", "milliseconds", series("delay_ms")),
        Plot("Sent on the wire over time", "seconds since answering", "kbit/s", series("kbit")),
        Plot("Set-up", "milliseconds", "of the calls", curves, x_most=cut, y_most=1.0, percent=True),
    ]
