"""Whole nodes in the world: people call each other through boxes and relays, and one seed gives one result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from meshcall.cli.simulate import command
from meshcall.errors import ConfigError
from meshcall.sim import report
from meshcall.sim.callrun import CallRun
from meshcall.sim.scenario import Scenario, load, parse, shipped

CALLS = [name for name in sorted(shipped()) if load(name)[1].calls is not None]
SMALL = """
title = "small"
nodes = 16
hours = 0.02
[world]
model = "flat"
delay_ms = [15, 25]
join_seconds = 10
settle_seconds = 45
[calls]
people = %d
relays = 3
%s
[calls.access]
%s
"""


def small(people: int, access: str, more: str = "call_seconds = 8", events: str = "") -> Scenario:
    return parse(SMALL % (people, more, access) + events, "test")


def result(scenario: Scenario, seed: int = 1, hours: float | None = None) -> dict[str, Any]:
    return CallRun("test", scenario, seed=seed, hours=hours).go()


def by_pair(results: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(pair["caller"], pair["callee"]): pair for pair in results["pairs"]}


@pytest.mark.parametrize("name", CALLS)
def test_the_shipped_ones_can_be_read_and_begun(name: str) -> None:
    run = CallRun(*load(name), nodes=8)
    assert len(run.callers.people) > 1
    assert run.callers.relays


def test_a_matrix_of_pairs_ends_as_the_boxes_say() -> None:
    access = '"port restricted" = 1\nsymmetric = 1\n"full cone" = 1\ncarrier = 1'
    results = result(small(1, access, 'pattern = "matrix"\ncall_seconds = 8'))
    pairs = by_pair(results)
    assert len(pairs) == 16
    assert results["checks"]["sentences"] == []
    for (caller, callee), pair in pairs.items():
        assert pair["failed"] == pair["broken"] == 0
        if caller == callee == "symmetric":
            assert pair["relayed"] == 1, "nobody can foretell a port here"
        else:
            assert pair["direct"] == 1, (caller, callee)
    assert results["devices"]["extra sockets"] > 0, "symmetric and port restricted meet by birthday probing"
    assert results["devices"]["with a low time to live"] > 0
    json.dumps(results)
    page = report.page(results)
    assert page.count("<svg") >= 6
    assert report.table(results)[0].startswith("calls")
    assert "16 of 16 calls" in report.verdict(results)


def test_one_seed_is_one_result_and_another_is_another() -> None:
    scenario = small(4, "linux = 1\nsymmetric = 1", "call_seconds = 8\nechoes_per_second = 5")
    first, again, other = (result(scenario, seed, hours=0.0065) for seed in (1, 1, 2))
    del first["speed"], again["speed"]
    assert first == again
    assert other["checksum"] != first["checksum"]


def test_a_relay_that_dies_costs_a_moment_and_comes_back() -> None:
    events = '[[event]]\nat = 0.2\nkind = "kill relays"\nshare = 0.34\nphase = "after"\n'
    events += '[[event]]\nat = 0.6\nkind = "revive relays"\n'
    results = result(small(8, "symmetric = 1", "call_seconds = 30\nmust_connect = false", events), seed=2)
    group = results["calls"]["after"]
    assert group["struck"] >= 1
    assert group["struck_outcomes"].get("relayed", 0) >= 1
    assert [what for _, what in results["marks"]] == ["1 relays die", "1 relays come back"]
    assert group["gap_ms"]["least"] < 3000


def test_callers_move_and_their_calls_go_on() -> None:
    events = '[[event]]\nat = 0.2\nkind = "move"\nshare = 1.0\n[[event]]\nat = 0.4\nkind = "rebind"\nshare = 1.0\n'
    results = result(small(4, "linux = 1", "call_seconds = 40", events))
    (group,) = results["calls"].values()
    assert group["struck"] == 2
    assert group["outcomes"]["direct"] + group["outcomes"]["relayed"] == 2
    assert group["gap_ms"]["most"] < 5000
    assert results["checks"]["violations"] == 0


def test_a_narrow_uplink_drops_and_delays() -> None:
    scenario = small(
        8, "symmetric = 1", "call_seconds = 8\nrelay_uplink_kbit = 60\nechoes_per_second = 20\nmust_connect = false"
    )
    results = result(scenario, hours=0.003)
    assert sum(relay["dropped"] for relay in results["relays"]) > 0
    assert all(relay["uplink_share"] <= 1.01 for relay in results["relays"])
    assert sum(relay["leases"] for relay in results["samples"][0]["relays"]) > 0


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('title="x"\n[calls]\n[calls.access]\nmoon=1', "there is no 'moon'"),
        ('title="x"\n[calls]\n[[event]]\nat=0.5\nkind="kill"\nshare=0.5', "not for a world with calls"),
        ('title="x"\n[[event]]\nat=0.5\nkind="move"\nshare=0.5', "only for a world with calls"),
        ('title="x"\n[calls]\n[[event]]\nat=0.5\nkind="move"', "needs a share"),
        ('title="x"\n[calls]\n[people]\npublishers=3', "has no [churn], [people] and [ending]"),
    ],
)
def test_what_does_not_fit_together_is_told(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence.replace("[", r"\[").replace("]", r"\]")):
        parse(text, "test")


def test_the_command_runs_one(tmp_path: Path) -> None:
    file = tmp_path / "tiny.toml"
    file.write_text(SMALL % (2, "call_seconds = 8", "linux = 1"), encoding="utf-8")
    done = CliRunner().invoke(command, [str(file), "--hours", "0.003", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "calls came about and held" in done.output
    assert (tmp_path / "out" / "index.html").read_text(encoding="utf-8").startswith("<!doctype html>")
