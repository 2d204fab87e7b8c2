"""What the benchmark is held against: one row a figure, with the best anchor and the target.

The anchors' figures in the rows are those that the targets were set by;
`make bench` measures libtorrent, the strongest of them, again in the same run on the same machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Figures = dict[str, Any]
"""Phases of the DHT runs by "label/phase", and single figures by their own name."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    `title` may have `{n}`, `{nodes}` of what was measured in it.  `read` gives the figures, each held
    against the limit of the same place.
    """

    title: str
    key: str
    read: Callable[[Any], tuple[float | None, ...]]
    anchor: str
    limits: tuple[float, ...]
    unit: str
    is_floor: bool = False
    """Whether the figure has to reach the limit (else: not to exceed it)."""

    def measured(self, figures: Figures) -> tuple[float | None, ...] | None:
        """What was measured, or None where this run did not."""
        found = figures.get(self.key)
        return None if found is None else self.read(found)

    def heading(self, figures: Figures) -> str:
        """The title, with the number of nodes that this run had."""
        found = figures[self.key]
        return self.title.format_map(found) if isinstance(found, dict) else self.title

    def holds(self, values: tuple[float | None, ...]) -> bool:
        """Whether every figure keeps to its limit."""
        for value, limit in zip(values, self.limits, strict=True):
            if value is None or (value < limit if self.is_floor else value > limit):
                return False
        return True


def spread(field: str, *names: str) -> Callable[[Any], tuple[float | None, ...]]:
    """Read quantiles of one distribution of a phase."""

    def read(phase: Any) -> tuple[float | None, ...]:
        values = phase.get(field)
        return tuple(values[name] if values else None for name in names)

    return read


def share_found(phase: Any) -> tuple[float | None, ...]:
    """Percent of the look-ups that found the value."""
    return (round(100 * phase["ok"] / phase["total"], 1),)


def single(field: str) -> Callable[[Any], tuple[float | None, ...]]:
    """Read one figure of a phase."""

    def read(phase: Any) -> tuple[float | None, ...]:
        return (phase[field],)

    return read


def plain(value: Any) -> tuple[float | None, ...]:
    """A figure that is its own value."""
    return (value,)


ROWS = (
    Row("N={n} warm: first verified value, med / p95", "200/get_warm", spread("first_ms", "med", "p95"),
        "110 / 205 (libtorrent)", (115, 200), "ms"),
    Row("N={n} warm: first verified value, med / p95", "1000/get_warm", spread("first_ms", "med", "p95"),
        "131 / 246", (140, 260), "ms"),
    Row("N={n} warm: converged, med / p95", "200/get_warm", spread("done_ms", "med", "p95"),
        "341 / 476", (350, 480), "ms"),
    Row("N={n}: requests per get", "200/get_warm", spread("requests", "med"), "13", (15,), "requests"),
    Row("N={n}: requests per put", "200/put", spread("requests", "med"), "21", (25,), "requests"),
    Row("N={n}, 30 % dead: found", "200/get_kill30", share_found, "100", (100,), "%", is_floor=True),
    Row("N={n}, 30 % dead: first value, p95", "200/get_kill30", spread("first_ms", "p95"), "156", (250,), "ms"),
    Row("N={n}, 30 % dead: converged, p95", "200/get_kill30", spread("done_ms", "p95"), "2709", (1000,), "ms"),
    Row("N={n}, 50 % dead: found", "1000/get_kill50", share_found, "100", (99.5,), "%", is_floor=True),
    Row("N={n}, 50 % dead: first value, p95", "1000/get_kill50", spread("first_ms", "p95"), "2108", (500,), "ms"),
    Row("cold join + get, med", "cold/get_cold", spread("join_and_get_ms", "med"), "918", (900,), "ms"),
    Row("cold join + get, 30 % dead, med", "200/get_cold_kill30", spread("join_and_get_ms", "med"),
        "about 3000", (1500,), "ms"),
    Row("5 % packet loss: put, p95", "loss/put", spread("done_ms", "p95"), "3746", (1500,), "ms"),
    Row("memory of one more node", "1000/memory", single("marginal_kib_per_node"),
        "65 (no signatures) to 1100", (100,), "KiB"),
    Row("simulator, {nodes} nodes", "simulator", single("messages_per_cpu_second"),
        "prototype 64,000", (30_000,), "messages/s", is_floor=True),
    Row("simulator, {nodes} nodes: memory", "simulator", single("kib_per_node"), "-", (60,), "KiB per node"),
    Row("`meshcall --help`", "help milliseconds", plain, "-", (150,), "ms"),
    Row("resident memory of an idle daemon", "daemon MB", plain, "-", (50,), "MB"),
    Row("echo canceller, worst delay: echo return loss", "echo", single("erle_db"), "-", (25,), "dB", is_floor=True),
    Row("echo canceller, worst delay: near voice in double talk", "echo", single("near_gain_db"), "-", (-6,), "dB",
        is_floor=True),
    Row("processing, everything on (WebRTC's parts alone: {alone} %)", "processing", single("core_percent"),
        "-", (6,), "% of a core"),
    Row("call through PulseAudio, {backend}, processing {processing}: mouth to ear, med", "pulse/on",
        single("median_ms"), "-", (120,), "ms"),
    Row("call through PulseAudio, {backend}, processing {processing}: mouth to ear, med", "pulse/off",
        single("median_ms"), "-", (120,), "ms"),
    Row("call through PulseAudio, processing {processing}: CPU of an end", "pulse/on", single("core_percent"),
        "-", (6,), "% of a core"),
    Row("call through PulseAudio, processing {processing}: CPU of an end", "pulse/off", single("core_percent"),
        "-", (3,), "% of a core"),
)  # fmt: skip


def number(value: float | None) -> str:
    """A figure as people read it."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 or float(value).is_integer() else f"{value:.1f}"


def table(ours: Figures, theirs: Figures) -> list[str]:
    """The lines of the Markdown table; `theirs` is libtorrent in the same run."""
    lines = [
        "| | meshcall | libtorrent, same run | anchor | target | |",
        "|---|---|---|---|---|---|",
    ]
    for row in ROWS:
        values = row.measured(ours)
        if values is None:
            continue
        other = row.measured(theirs)
        sign = ">=" if row.is_floor else "<="
        limits = " / ".join(f"{sign} {number(limit)}" for limit in row.limits)
        lines.append(
            f"| {row.heading(ours)} | **{' / '.join(map(number, values))}** {row.unit} "
            f"| {' / '.join(map(number, other)) if other else '-'} "
            f"| {row.anchor} | {limits} | {'kept' if row.holds(values) else 'MISSED'} |"
        )
    return lines
