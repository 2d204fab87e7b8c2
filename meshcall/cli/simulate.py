"""`meshcall simulate`: run a scenario of many nodes in virtual time, with a bar while it runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from meshcall.cli.output import json_option, remark, show

if TYPE_CHECKING:
    from meshcall.sim.callrun import CallRun
    from meshcall.sim.run import Progress, Run

PLAIN_STEPS = 10
"""Lines of progress where there is no terminal."""


@click.command(name="simulate")
@click.argument("scenario", required=False)
@click.option(
    "--nodes", type=click.IntRange(4, 1_000_000), metavar="N", help="As many nodes, instead of the scenario's."
)
@click.option("--hours", type=click.FloatRange(0.001, 8760), metavar="H", help="So many virtual hours.")
@click.option("--seed", type=click.IntRange(0), metavar="S", help="Another seed, another world.")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Write result.json and a page with plots.")
@click.option("--list", "as_list", is_flag=True, help="Name the scenarios that come with meshcall.")
@json_option
def command(
    scenario: str | None,
    nodes: int | None,
    hours: float | None,
    seed: int | None,
    out: Path | None,
    as_list: bool,
    as_json: bool,
) -> int | None:
    """Run SCENARIO (a name from --list, or a TOML file) with the very code of a node, in virtual time.

    The same seed gives the same result, bit for bit; the checksum tells.  The exit code is 1 if a check
    of the scenario failed.
    """
    from meshcall.sim import report
    from meshcall.sim.callrun import CallRun
    from meshcall.sim.run import Run
    from meshcall.sim.scenario import check_size, load, shipped

    if as_list:
        scenarios = {name: load(name)[1] for name in shipped()}
        data = {name: {"title": s.title, "nodes": s.nodes, "hours": s.hours} for name, s in scenarios.items()}
        width = max((len(name) for name in scenarios), default=0)
        lines = [f"{name:<{width}}  {s.title} ({s.nodes} nodes, {s.hours:g} h)" for name, s in scenarios.items()]
        show(data, lines, as_json=as_json)
        return None
    if scenario is None:
        raise click.UsageError("name a scenario; meshcall simulate --list shows them")
    name, parsed = load(scenario)
    check_size(parsed, nodes)
    if out is not None:
        report.prepare(out)
    kind = Run if parsed.calls is None else CallRun
    what = "look-ups" if parsed.calls is None else "calls"
    results = _run(kind(name, parsed, nodes=nodes, hours=hours, seed=seed), parsed.title, what)
    lines = [*report.table(results), "", *_closing(results)]
    if out is not None:
        data_path, page_path = report.write(out, results)
        lines.append(f"results   {page_path} and {data_path}")
    show(results, lines, as_json=as_json)
    return 1 if results["checks"]["violations"] else None


def _closing(results: dict[str, Any]) -> list[str]:
    from meshcall.cli.output import aligned
    from meshcall.sim.report import verdict

    speed = results["speed"]
    return aligned(
        [
            ("checks", verdict(results)),
            ("speed", f"{speed['wall_seconds']:g} s for {speed['virtual_seconds'] / 60:.0f} virtual minutes, "
                      f"{speed['messages']:,} messages, {speed['messages_per_cpu_second']:,}/s per core"),
            ("seed", f"{results['seed']}  ({results['nodes']} nodes, {results['hours']:g} h)"),
            ("checksum", results["checksum"]),
        ]
    )  # fmt: skip


def _run(run: Run | CallRun, title: str, what: str) -> dict[str, Any]:
    """Run it, with a bar on a terminal and a few plain lines elsewhere; both go to stderr."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        remark(f"{title}: {run.nodes} nodes, {run.hours:g} h, seed {run.seed}")
        told = 0

        def tell(progress: Progress) -> None:
            nonlocal told
            if progress.share * PLAIN_STEPS >= told + 1:
                told = int(progress.share * PLAIN_STEPS)
                remark(f"  {progress.share:4.0%}  {progress.messages:>9,} messages  {progress.lookups:>6,} {what}")

        return run.go(tell)

    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("[bold]{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(),
        TextColumn("{task.fields[clock]}  {task.fields[messages]:,} messages  {task.fields[lookups]:,} " + what),
    )  # fmt: skip
    with Bar(*columns, console=console) as bar:
        task = bar.add_task("joining", total=1.0, clock="", messages=0, lookups=0)

        def draw(progress: Progress) -> None:
            minutes = progress.virtual_seconds / 60
            bar.update(
                task, completed=progress.share, description=progress.phase, clock=f"{minutes:.0f} min",
                messages=progress.messages, lookups=progress.lookups,
            )  # fmt: skip

        return run.go(draw)
