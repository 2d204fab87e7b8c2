"""A result of calls for people: the page's own parts, a short table for the terminal, and one line of verdict.

`results` is what `CallRun.go` returned, fresh or read from its JSON file.
"""

from __future__ import annotations

import itertools
from html import escape
from typing import Any

from meshcall.plots import Plot, Series
from meshcall.sim.tally import quantile

COLOURS = {"direct": "--c3", "relayed": "--c1", "broken": "--c5", "failed": "--c2"}
BAR_WIDTH, BAR_HEIGHT, BAR_LEFT, BAR_RIGHT = 560, 22, 190, 60
BARS_MAX = 60


def table(results: dict[str, Any]) -> list[str]:
    """The result in a few lines of text, aligned."""
    rows = [("calls", "number", *COLOURS, "first ms", "p95", "direct ms", "p95", "gap ms", "p95")]
    for name, group in results["calls"].items():
        rows.append((name, *(str(cell) for cell in _cells(group))))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells))
    return lines


def verdict(results: dict[str, Any]) -> str:
    """One line: how many calls came about and held."""
    outcomes = _outcomes(results)
    total = sum(outcomes.values())
    held = f"{outcomes['direct'] + outcomes['relayed']} of {total} calls came about and held"
    bad = results["checks"]["violations"]
    return f"{bad} violation{'s' if bad > 1 else ''}; {held}" if bad else held


def body(results: dict[str, Any]) -> str:
    """What stands on the page between its head and the list of settings."""
    groups, outcomes = results["calls"], _outcomes(results)
    total = sum(outcomes.values()) or 1
    whole = max(groups.values(), key=lambda group: group["calls"], default=None)
    tiles = [("good" if not outcomes["failed"] + outcomes["broken"] else "bad", verdict(results), "")]
    tiles += [("", f"{outcomes[name] / total:.1%}", name) for name in COLOURS]
    if whole and whole["first_ms"]:
        tiles.append(("", _two(whole["first_ms"]), "ms from address to first echo, median / p95"))
    if whole and whole["direct_ms"]:
        tiles.append(("", _two(whole["direct_ms"]), "ms from record to direct path, median / p95"))
    shown = "".join(
        f'<div class="tile {kind}"><b>{escape(value)}</b><span>{escape(what)}</span></div>'
        for kind, value, what in tiles
    )
    plots = "".join(f'<div class="card"><h3>{escape(plot.title)}</h3>{plot.svg()}</div>' for plot in _plots(results))
    sentences = "".join(f"<li>{escape(sentence)}</li>" for sentence in results["checks"]["sentences"])
    return "".join(
        [
            f'<div class="tiles">{shown}</div><h2>Calls</h2>', _call_table(results),
            f'<div class="plots" style="margin-top:14px">{plots}</div>',
            "<h2>From each kind of access to each</h2>", _matrix(results),
            '<div class="plots" style="margin-top:14px"><div class="card"><h3>What became of calls, by pair</h3>',
            _pair_bars(results), '</div><div class="card"><h3>Load of the relays, share of the uplink</h3>',
            _relay_bars(results), "</div></div>", "<h2>Relays</h2>", _relay_table(results),
            f"<h2>What must hold</h2><p><b>{escape(verdict(results).capitalize())}.</b></p><ul>{sentences}</ul>",
        ]
    )  # fmt: skip


def _outcomes(results: dict[str, Any]) -> dict[str, int]:
    return {name: sum(group["outcomes"][name] for group in results["calls"].values()) for name in COLOURS}


def _two(figures: dict[str, Any]) -> str:
    return f"{figures['median']:.0f} / {figures['p95']:.0f}"


def _cells(group: dict[str, Any]) -> list[Any]:
    cells: list[Any] = [group["calls"], *(group["outcomes"][name] for name in COLOURS)]
    for name in ("first_ms", "direct_ms", "gap_ms"):
        figures = group[name] or {"median": "-", "p95": "-"}
        cells += [figures["median"], figures["p95"]]
    return cells


def _rows(heads: tuple[str, ...], rows: list[list[Any]]) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    cells = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{head}</tr>{cells}</table></div>'


def _call_table(results: dict[str, Any]) -> str:
    heads = ("", "calls", *COLOURS, "first echo ms", "p95", "direct ms", "p95", "gap ms", "p95", "struck", "echoes")
    rows = [
        [name, *_cells(group), group["struck"], f"{group['echoes_answered']:.2%}"]
        for name, group in results["calls"].items()
    ]
    note = (
        '<p class="faint">First echo: from the moment the address was known, with look-up, handshake and a round trip. '
        "Direct: from the moment the record was there until the caller's frames left directly. Struck: calls that an "
        "event hit; gap: the longest time from then on in which nothing came back. Echoes: the share that was "
        "answered, those under way at the end count as lost.</p>"
    )
    return _rows(heads, rows) + note


def _matrix(results: dict[str, Any]) -> str:
    kinds = list(results["people"])
    pairs = {(pair["caller"], pair["callee"]): pair for pair in results["pairs"]}
    rows = []
    for caller in kinds:
        row: list[Any] = [caller]
        for callee in kinds:
            pair = pairs.get((caller, callee))
            row.append("" if pair is None else _cell(pair))
        rows.append(row)
    note = (
        '<p class="faint">Caller at the left. Share of calls that ended direct, median milliseconds from record to '
        "direct path; the others stayed on a relay, or as it says.</p>"
    )
    return _rows(("", *kinds), rows) + note


def _cell(pair: dict[str, Any]) -> str:
    lost = pair["failed"] + pair["broken"]
    words = []
    if pair["direct"]:
        share = f"{pair['direct'] / pair['calls']:.0%} " if pair["direct"] < pair["calls"] else ""
        words.append(f"{share}{pair['direct_ms']['median']:.0f}")
    elif pair["relayed"]:
        words.append("relay")
    if lost:
        words.append(f"{lost} lost")
    return ", ".join(words)


def _bars(rows: list[tuple[str, list[tuple[float, str]], str]]) -> str:
    """Bars of shares (0 to 1) in CSS colours, each with a word before and one behind."""
    if not rows:
        return '<p class="empty">Nothing to draw.</p>'
    width = BAR_WIDTH - BAR_LEFT - BAR_RIGHT
    parts = [f'<svg viewBox="0 0 {BAR_WIDTH} {len(rows) * BAR_HEIGHT + 4}" role="img">']
    for number, (name, shares, words) in enumerate(rows):
        y, x = number * BAR_HEIGHT + 4, float(BAR_LEFT)
        parts.append(f'<text x="{BAR_LEFT - 6}" y="{y + 12}" text-anchor="end">{escape(name)}</text>')
        for share, colour in shares:
            part = round(min(1.0, share) * width, 1)
            parts.append(
                f'<rect x="{round(x, 1)}" y="{y}" width="{part}" height="{BAR_HEIGHT - 6}" fill="var({colour})"/>'
            )
            x += part
        parts.append(f'<text x="{BAR_WIDTH - BAR_RIGHT + 5}" y="{y + 12}">{escape(words)}</text>')
    return "".join([*parts, "</svg>"])


def _pair_bars(results: dict[str, Any]) -> str:
    """Pairs of kinds, whoever called: those that are always direct in one bar."""
    sums: dict[tuple[str, str], dict[str, int]] = {}
    for pair in results["pairs"]:
        key = tuple(sorted((pair["caller"], pair["callee"])))
        found = sums.setdefault((key[0], key[1]), dict.fromkeys(("calls", *COLOURS), 0))
        for name in found:
            found[name] += pair[name]
    plain = [found for found in sums.values() if found["direct"] == found["calls"]]
    rows = []
    if plain:
        rows.append(
            (f"{len(plain)} other pairs", [(1.0, COLOURS["direct"])], str(sum(each["calls"] for each in plain)))
        )
    for (one, other), found in sorted(sums.items()):
        if found["direct"] < found["calls"]:
            shares = [(found[name] / found["calls"], colour) for name, colour in COLOURS.items()]
            rows.append((f"{one} - {other}", shares, str(found["calls"])))
    legend = "".join(f'<span><i style="border-top:3px solid var({c})"></i>{name}</span>' for name, c in COLOURS.items())
    return _bars(rows[:BARS_MAX]) + f'<div class="legend">{legend}</div>'


def _relay_bars(results: dict[str, Any]) -> str:
    rows = [
        (f"relay {number}", [(relay["uplink_share"], COLOURS["relayed"])], f"{relay['uplink_share']:.1%}")
        for number, relay in enumerate(results["relays"][:BARS_MAX], 1)
    ]
    return _bars(rows)


def _relay_table(results: dict[str, Any]) -> str:
    relays = results["relays"]
    loads = sorted(relay["kbit_per_second"] for relay in relays)
    mean = sum(loads) / len(loads)
    rows = [
        [f"relay {number}", relay["calls"], relay["leases"], relay["kbit_per_second"], f"{relay['uplink_share']:.1%}",
         relay["dropped"]]
        for number, relay in enumerate(relays, 1)
    ]  # fmt: skip
    note = f'<p class="faint">Mean {mean:.1f} kbit/s, median {quantile(loads, 0.5):.1f}, most {loads[-1]:.1f}.</p>'
    heads = ("", "calls that used it", "leases at the end", "kbit/s sent", "of its uplink", "dropped before the uplink")
    return _rows(heads, rows) + note


def _plots(results: dict[str, Any]) -> list[Plot]:
    groups, samples = results["calls"], results["samples"]
    marks = [(when, what) for when, what in results["marks"]]

    def curves(name: str) -> list[Series]:
        drawn = {phase: group[name] for phase, group in groups.items() if group[name]}
        return [Series(phase, [[0.0, 0.0], *points], step=True) for phase, points in drawn.items()]

    loads: list[Series] = []
    for number in range(len(results["relays"])):
        points = []
        for before, after in itertools.pairwise(samples):
            span = after["when"] - before["when"]
            if span > 0:
                sent = after["relays"][number]["bytes"] - before["relays"][number]["bytes"]
                points.append([after["when"], round(sent / 125 / span, 1)])
        loads.append(Series(f"relay {number + 1}", points))
    return [
        Plot("Time to the first echo", "milliseconds", "of all calls", curves("first_curve"), y_most=1.0, percent=True),
        Plot("Time to a direct path", "milliseconds from the record", "of all calls", curves("direct_curve"),
             y_most=1.0, percent=True),
        Plot("Gap after an event", "milliseconds", "of the calls struck", curves("gap_curve"), y_most=1.0,
             percent=True),
        Plot("Calls under way", "seconds", "calls", [
            Series("all", [[s["when"], s["open"]] for s in samples], step=True),
            Series("direct", [[s["when"], s["direct"]] for s in samples], step=True, colour=2),
        ], marks=marks),
        Plot("Load of each relay", "seconds", "kbit/s sent", loads, marks=marks),
    ]  # fmt: skip
