"""Whole worlds, small: every scenario runs, one seed gives one result, and the page stands by itself."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from meshcall.cli.simulate import command
from meshcall.dht.items import MutableItem
from meshcall.sim import report
from meshcall.sim.host import new_dht
from meshcall.sim.run import Progress, Run
from meshcall.sim.scenario import load, shipped

NODES, HOURS = 36, 0.06


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    return Run(*load("outage30"), nodes=NODES, hours=HOURS).go()


LOOKUPS = [name for name in sorted(shipped()) if load(name)[1].calls is None]


@pytest.mark.parametrize("name", LOOKUPS)
def test_every_scenario_runs_and_its_checks_hold(name: str) -> None:
    seen: list[Progress] = []
    result = Run(*load(name), nodes=NODES, hours=HOURS, seed=3).go(seen.append)
    assert result["checks"]["sentences"] == []
    assert result["checks"]["served"] > 0 and result["checks"]["acknowledged"] > 0
    assert result["checks"]["found_at_the_end"] == result["checks"]["looked_up_at_the_end"] > 0
    assert result["lookups"]["at the end"]["found"] == 1.0
    assert result["network"]["too long"] == 0
    shares = [progress.share for progress in seen]
    assert shares == sorted(shares) and shares[-1] == 1.0
    json.dumps(result)
    report.page(result)


def _run_elsewhere(hash_seed: str, seed: int) -> dict[str, Any]:
    code = (
        "import json, sys; from meshcall.sim.run import Run; from meshcall.sim.scenario import load;"
        f"print(json.dumps(Run(*load('churn'), nodes={NODES}, hours={HOURS}, seed={seed}).go()))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    del result["speed"]
    return result


def test_one_seed_is_one_result_bit_for_bit() -> None:
    first = _run_elsewhere("0", 5)
    assert re.fullmatch(r"[0-9a-f]{32}", first["checksum"])
    assert _run_elsewhere("0", 5) == first
    assert _run_elsewhere("12345", 5) == first
    assert _run_elsewhere("0", 6)["checksum"] != first["checksum"]


def test_phases_and_sudden_death_are_told(result: dict[str, Any]) -> None:
    assert {"before", "at once after", "at once after, cold", "minutes after", "at the end"} == set(result["lookups"])
    dead = round(0.3 * NODES)
    assert [what for _, what in result["marks"]] == [f"{dead} hosts die", "all faults end"]
    assert result["online_at_the_end"] == NODES - dead
    group = result["lookups"]["before"]
    assert 80 <= group["first_ms"]["least"] <= group["first_ms"]["median"] <= group["converged_ms"]["median"]


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.plots = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "line", "polyline", "polygon"):
            self.open.append(tag)
        self.plots += tag == "svg"
        self.links += [f"{name}={value}" for name, value in attrs if name in ("src", "href", "srcset", "action")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """A closed element has no inside."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_needs_nothing_but_itself(result: dict[str, Any]) -> None:
    text = report.page({**result, "title": "<b>& bold", "description": "one\n\ntwo <i>"})
    page = _Page()
    page.feed(text)
    assert page.open == [] and page.links == [] and page.plots == 8
    assert not re.search(r"https?:|url\(|@import|<script|<link", text)
    assert "&lt;b&gt;&amp; bold" in text and "<b>& bold" not in text
    assert result["checksum"] in text and "prefers-color-scheme:dark" in text


def test_a_page_is_made_even_where_nothing_was_looked_up() -> None:
    name, scenario = load("lookups")
    people = msgspec.structs.replace(scenario.people, lookups_per_minute=0.0, publishers=1)
    quiet = msgspec.structs.replace(scenario, people=people)
    result = Run(name, quiet, nodes=NODES, hours=0.02).go()
    assert report.page(result)
    assert report.table(result)


def test_a_core_that_brings_old_items_back_is_caught() -> None:
    """The world is no use if it does not notice a broken node."""

    def forgetful(now: float, **given: Any) -> Any:
        core = new_dht(now, **given)
        store, real_put, real_get, kept = core.server.items, core.server.items.put, core.server.items.get, {}

        class Store:
            def __getattr__(self, name: str) -> Any:
                return getattr(store, name)

            def put(self, now: float, source: bytes, item: Any, cas: int | None = None) -> int:
                code = real_put(now, source, item, cas)
                if code == 0 and isinstance(item, MutableItem):
                    kept.setdefault(item.target, item)
                return code

            def get(self, now: float, target: bytes) -> Any:
                found = real_get(now, target)
                return found._replace(item=kept.get(target, found.item)) if found else None

        core.server.items = Store()
        return core

    name, scenario = load("lookups")
    people = msgspec.structs.replace(scenario.people, publishers=5, update_minutes=0.3)
    run = Run(name, msgspec.structs.replace(scenario, people=people), nodes=24, hours=0.06, new_core=forgetful)
    result = run.go()
    assert result["checks"]["violations"] > 0
    assert any("after seq" in sentence for sentence in result["checks"]["sentences"])


def test_the_command_lists_runs_and_writes(tmp_path: Path) -> None:
    runner = CliRunner()
    listed = runner.invoke(command, ["--list"])
    assert listed.exit_code == 0 and "outage50" in listed.stdout
    assert set(json.loads(runner.invoke(command, ["--list", "--json"]).stdout)) == set(shipped())
    out = tmp_path / "new" / "folder"
    done = runner.invoke(
        command, ["lookups", "--nodes", "20", "--hours", "0.03", "--seed", "9", "--out", str(out), "--json"]
    )
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    written = json.loads((out / "result.json").read_text())
    assert told == written and told["seed"] == 9 and told["nodes"] == 20
    assert (out / "index.html").read_text().startswith("<!doctype html>")
    plain = runner.invoke(command, ["lookups", "--nodes", "20", "--hours", "0.03", "--seed", "9"])
    assert told["checksum"] in plain.stdout and "look-ups" in plain.stdout
    assert "messages" in plain.stderr and "\x1b" not in plain.stderr


def test_the_command_says_what_is_wrong(tmp_path: Path) -> None:
    runner = CliRunner()
    assert runner.invoke(command, []).exit_code == 2
    assert "there is no scenario 'nothing'" in str(runner.invoke(command, ["nothing"]).exception)
    assert runner.invoke(command, ["lookups", "--nodes", "1"]).exit_code == 2
    file = tmp_path / "file"
    file.write_text("")
    refused = runner.invoke(command, ["lookups", "--nodes", "20", "--hours", "0.02", "--out", str(file)])
    assert "cannot be made" in str(refused.exception)
