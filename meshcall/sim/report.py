"""A result for people: a page with plots that needs nothing but itself, and a short table for the terminal.

`results` is what `Run.go` returned, fresh or read from its JSON file.
"""

from __future__ import annotations

import itertools
import json
from html import escape
from pathlib import Path
from typing import Any

from meshcall.errors import UsageError
from meshcall.plots import STYLE, Plot, Series
from meshcall.sim import callreport

RESULT_NAME = "result.json"
PAGE_NAME = "index.html"
CURVE_SHARE = 0.995
"""The last half percent of a distribution would squeeze the rest of its plot."""


def prepare(folder: Path) -> None:
    """Make the folder that `write` will want, so that a long run does not end in vain.  Raises UsageError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise UsageError(f"{folder}: cannot be made: {problem.strerror}; name another folder with --out") from None


def write(folder: Path, results: dict[str, Any]) -> tuple[Path, Path]:
    """Write the JSON result and the page; where they are.  Raises UsageError."""
    data, shown = folder / RESULT_NAME, folder / PAGE_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        data.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        shown.write_text(page(results), encoding="utf-8")
    except OSError as problem:
        raise UsageError(f"{folder}: cannot be written: {problem.strerror}; name another folder with --out") from None
    return data, shown


def page(results: dict[str, Any]) -> str:
    """The whole HTML page."""
    title = f"{results['title']} - meshcall simulation"
    again = f"meshcall simulate {results['scenario']} --nodes {results['nodes']} --hours {results['hours']:g}"
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{escape(results['title'])}</h1>",
        f'<p class="faint">meshcall {escape(results["meshcall"])}, scenario {escape(results["scenario"])}: '
        f"{results['nodes']} nodes, {results['hours']:g} hours of virtual time, seed {results['seed']}</p>",
        *(f"<p>{escape(text)}</p>" for text in results["description"].split("\n\n") if text),
        callreport.body(results) if "calls" in results else _lookup_body(results),
        "<h2>More figures</h2>",
        '<div class="pairs">',
        *(_pairs(title, rows) for title, rows in _more(results)),
        "</div>",
        "<h2>Once more</h2>",
        "<p>The same command gives the same result, bit for bit; the checksum over all deliveries tells.</p>",
        f"<pre>{escape(again)} --seed {results['seed']}\nchecksum {results['checksum']}</pre>",
        "<details><summary>All settings</summary>",
        f"<pre>{escape(json.dumps(results['settings'], indent=2))}</pre></details>",
        "</body></html>\n",
    ]
    return "".join(parts)


def table(results: dict[str, Any]) -> list[str]:
    """The result in a few lines of text, aligned."""
    if "calls" in results:
        return callreport.table(results)
    rows = [("look-ups", "number", "found", "newest", "first ms", "p95", "converged", "p95", "requests")]
    for name, group in results["lookups"].items():
        first = group["first_ms"] or {"median": "-", "p95": "-"}
        rows.append(
            (
                name, str(group["lookups"]), f"{group['found']:.2%}", f"{group['newest']:.2%}",
                f"{first['median']}", f"{first['p95']}",
                f"{group['converged_ms']['median']}", f"{group['converged_ms']['p95']}",
                f"{group['requests']['mean']}",
            )
        )  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells))
    return lines


def verdict(results: dict[str, Any]) -> str:
    """One line on safety and liveness."""
    if "calls" in results:
        return callreport.verdict(results)
    checks = results["checks"]
    found = f"{checks['found_at_the_end']} of {checks['looked_up_at_the_end']} published items found at the end"
    if checks["newest_at_the_end"] != checks["found_at_the_end"]:
        found += f", {checks['newest_at_the_end']} in their newest version"
    if checks["violations"]:
        return f"{checks['violations']} violation{'s' if checks['violations'] > 1 else ''}; {found}"
    return f"nothing forged, nothing older served; {found}"


# ---- parts of the page


def _lookup_body(results: dict[str, Any]) -> str:
    return "".join(
        [
            _tiles(results),
            "<h2>Look-ups</h2>",
            _lookup_table(results),
            '<div class="plots" style="margin-top:14px">',
            *(f'<div class="card"><h3>{escape(plot.title)}</h3>{plot.svg()}</div>' for plot in _plots(results)),
            "</div>",
            "<h2>What must hold</h2>",
            _checks(results),
        ]
    )


def _more(results: dict[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Tables of names and numbers at the end of the page."""
    parts = {"The network": "network", "Hosts": "hosts", "What the cores counted": "cores"}
    if "calls" in results:
        parts = {"People": "people", "Devices": "devices", "The network": "network"}
    more = [(title, [(name, _number(value)) for name, value in results[part].items()]) for title, part in parts.items()]
    return more if "calls" in results else [("Publications", _publication_rows(results["publications"])), *more]


def _tiles(results: dict[str, Any]) -> str:
    groups, checks = results["lookups"], results["checks"]
    found = sum(group["outcomes"].get("newest", 0) for group in groups.values())
    total = sum(group["lookups"] for group in groups.values())
    busiest = max(groups.values(), key=lambda group: group["lookups"], default=None)
    tiles = [
        (
            "good" if found == total else "",
            f"{found / total:.2%}" if total else "-",
            f"of {total} look-ups found the newest",
        ),
        ("bad" if checks["violations"] else "good", str(checks["violations"]), "violations"),
    ]
    if busiest is not None and busiest["first_ms"]:
        tiles += [
            ("", f"{busiest['first_ms']['median']:.0f} / {busiest['first_ms']['p95']:.0f}",
             "ms to the first value, median / p95"),
            ("", f"{busiest['converged_ms']['median']:.0f} / {busiest['converged_ms']['p95']:.0f}",
             "ms until converged, median / p95"),
            ("", f"{busiest['requests']['mean']:g}", "requests per look-up"),
        ]  # fmt: skip
    tiles.append(("", _number(results["network"]["delivered"]), "messages delivered"))
    if speed := results.get("speed"):
        tiles.append(("", f"{speed['wall_seconds']:g} s", f"for {speed['virtual_seconds'] / 60:.0f} virtual minutes"))
    cells = [
        f'<div class="tile {kind}"><b>{escape(value)}</b><span>{escape(what)}</span></div>'
        for kind, value, what in tiles
    ]
    return f'<div class="tiles">{"".join(cells)}</div>'


def _lookup_table(results: dict[str, Any]) -> str:
    heads = ("", "look-ups", "found", "newest", "first value ms", "p95", "p99", "converged ms", "p95", "p99",
             "requests", "p95", "hops")  # fmt: skip
    rows = []
    for name, group in results["lookups"].items():
        first, done = group["first_ms"], group["converged_ms"]
        rows.append(
            (
                name, group["lookups"], f"{group['found']:.2%}", f"{group['newest']:.2%}",
                *((first["median"], first["p95"], first["p99"]) if first else ("-", "-", "-")),
                done["median"], done["p95"], done["p99"],
                group["requests"]["mean"], group["requests"]["p95"], group["hops"]["mean"],
            )
        )  # fmt: skip
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    note = (
        '<p class="faint">A look-up hands up the first valid value at once and has converged when the nearest nodes '
        "that answer have answered. Found: a value that its owner signed; newest: nothing newer had been published "
        "before the look-up began. First columns are medians, requests and hops are means.</p>"
    )
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>{note}'


def _plots(results: dict[str, Any]) -> list[Plot]:
    groups = {name: group for name, group in results["lookups"].items() if group["lookups"] > 1}
    marks = [(when / 60, what) for when, what in results["marks"]]
    first = [Series(name, _from_zero(group["first_curve"]), step=True) for name, group in groups.items()]
    done = [Series(name, _from_zero(group["converged_curve"]), step=True) for name, group in groups.items()]
    samples, timeline = results["samples"], results["timeline"]
    rates = []
    for before, after in itertools.pairwise(samples):
        span = after["when"] - before["when"]
        if span > 0:
            rates.append([after["when"] / 60, round((after["sent"] - before["sent"]) / span, 1)])
    load = results["load"]
    step = max(1, len(load) // 200)
    shares = [[value, round((rank + 1) / len(load), 4)] for rank, value in enumerate(load) if not rank % step]
    return [
        Plot("Time to the first value", "milliseconds", "of all look-ups", first, x_most=_end(groups, "first_curve"),
             y_most=1.0, percent=True),
        Plot("Time until converged", "milliseconds", "of all look-ups", done, x_most=_end(groups, "converged_curve"),
             y_most=1.0, percent=True),
        Plot("Found, over time", "minutes", "of the look-ups begun", [
            Series("newest", [[when / 60, newest / count] for when, count, newest, _ in timeline], colour=2),
            Series("any value", [[when / 60, (newest + older) / count] for when, count, newest, older in timeline],
                   dashed=True, colour=0),
        ], y_most=1.0, percent=True, marks=marks),
        Plot("Hosts", "minutes", "hosts", [
            Series("switched on", [[s["when"] / 60, s["online"]] for s in samples], step=True, fill=True),
            Series("in the network", [[s["when"] / 60, s["ready"]] for s in samples], step=True, dashed=True),
        ], marks=marks),
        Plot("Messages", "minutes", "sent a second, all hosts", [Series("sent", rates, fill=True)], marks=marks),
        Plot("Load", "messages received a minute", "of the hosts that stayed", [Series("hosts", shares, step=True)],
             y_most=1.0, percent=True),
        Plot("Requests for a look-up", "requests, at most", "of all look-ups",
             [Series(name, _from_zero(group["requests_curve"]), step=True) for name, group in groups.items()],
             y_most=1.0, whole=True, percent=True),
        Plot("Hops", "referrals behind the farthest answer, at most", "of all look-ups",
             [Series(name, _from_zero(group["hops_curve"]), step=True) for name, group in groups.items()],
             y_most=1.0, whole=True, percent=True),
    ]  # fmt: skip


def _end(groups: dict[str, Any], curve: str) -> float | None:
    """Where an axis can end without hiding more than a few outliers."""
    ends = [
        next((point[0] for point in group[curve] if point[1] >= CURVE_SHARE * group[curve][-1][1]), None)
        for group in groups.values()
        if group[curve]
    ]
    known = [end for end in ends if end is not None]
    return max(known) * 1.02 if known else None


def _from_zero(points: list[list[float]]) -> list[list[float]]:
    """A cumulative curve with its first rise."""
    return [[points[0][0], 0.0], *points] if points else []


def _checks(results: dict[str, Any]) -> str:
    checks = results["checks"]
    sentences = "".join(f"<li>{escape(sentence)}</li>" for sentence in checks["sentences"])
    more = checks["violations"] - len(checks["sentences"])
    if more > 0:
        sentences += f"<li>and {more} more</li>"
    looked = (
        f"{_number(checks['served'])} answers with an item, {_number(checks['acknowledged'])} acknowledged writes and "
        f"{_number(checks['yielded'])} values handed up by look-ups were examined from outside the nodes."
    )
    rules = (
        "No node may serve an item that its owner did not sign, or an older one than it served or acknowledged before; "
        "while nothing disturbs the world, no look-up may miss what was published or end with something older."
    )
    return f"<p>{looked} {rules}</p><p><b>{escape(verdict(results).capitalize())}.</b></p><ul>{sentences}</ul>"


def _publication_rows(published: dict[str, Any]) -> list[tuple[str, str]]:
    if not published:
        return []
    return [
        ("publications", _number(published["publications"])),
        ("stored nowhere", _number(published["stored_nowhere"])),
        ("time ms, median / p95", f"{published['ms']['median']} / {published['ms']['p95']}"),
        ("requests, mean", str(published["requests"]["mean"])),
        ("stored by, least / mean", f"{published['stored']['least']:g} / {published['stored']['mean']}"),
        *((f"refused with {code}" if code != "0" else "without an answer", _number(count))
          for code, count in published["refused"].items()),
    ]  # fmt: skip


def _pairs(title: str, rows: list[tuple[str, str]]) -> str:
    body = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in rows)
    return f'<div class="card"><h3>{escape(title)}</h3><div class="wide"><table>{body}</table></div></div>'


def _number(value: float) -> str:
    return f"{value:,}".replace(",", " ")
