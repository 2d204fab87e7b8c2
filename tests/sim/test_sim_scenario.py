"""Scenarios: those shipped are right, and every mistake in one is named with its place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcall.errors import ConfigError, MeshcallError, UsageError
from meshcall.sim.scenario import Scenario, load, parse, shipped


def test_those_that_come_with_meshcall_are_there_and_right() -> None:
    assert {"lookups", "churn", "outage30", "outage50", "loss", "partition"} <= set(shipped())
    for name in shipped():
        short, scenario = load(name)
        assert short == name
        assert scenario.title and len(scenario.description) > 100


def test_an_almost_empty_file_is_a_scenario() -> None:
    scenario = parse('title = "x"', "x.toml")
    assert scenario.nodes == Scenario(title="x").nodes
    assert scenario.world.access["fibre"] > 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nodes = 10", ["title"]),
        ("title = 'x'\nnode_count = 3", ["top of the file", "node_count"]),
        ("title = 'x'\n[network]\nloss = 0.1", ["network"]),
        ("title = 'x'\n[weather]\nlos = 0.1", ["[weather]", "los"]),
        ("title = 'x'\n[weather]\nloss = 1.5", ["[weather] loss", "<= 1.0"]),
        ("title = 'x'\n[world]\nnat = {conical = 1}", ["[world] nat", "conical", "full cone"]),
        ("title = 'x'\n[world]\naccess = {fibre = 0}", ["[world] access", "over 0"]),
        ("title = 'x'\n[world]\ndelay_ms = [80, 40]", ["[world] delay_ms", "least comes first"]),
        ("title = 'x'\nnodes = 4\n[world]\nrouters = 4", ["[world] routers"]),
        ("title = 'x'\n[churn]\nlifetime = 'pareto'\nshape = 0.9", ["[churn] shape", "over 1"]),
        ("title = 'x'\n[[event]]\nat = 0.1\nkind = 'kill'\nsahre = 0.1", ["[[event]] number 1", "sahre"]),
        ("title = 'x'\n[[event]]\nat = 0.1\nkind = 'explode'", ["[[event]] number 1 kind", "explode"]),
        ("title = 'x'\n[[event]]\nat = 0.1\nkind = 'kill'", ["[[event]] number 1", "share"]),
        ("title = 'x'\n[[event]]\nat = 0.1\nkind = 'lookups'", ["[[event]] number 1", "count"]),
        (
            "title = 'x'\n[[event]]\nat = 0.5\nkind = 'heal'\n[[event]]\nat = 0.1\nkind = 'heal'",
            ["[[event]] number 2", "order"],
        ),
        ("title = 'x'\n[[event]]\nat = 0\nkind = 'partition'\nregions = ['mars']", ["number 1", "mars", "europe"]),
        ("title = 'x'\nnodes = 1 2", ["not valid TOML", "line 2"]),
    ],
)
def test_mistakes_are_named_with_their_place(text: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, "x.toml")
    for word in ["x.toml", *words]:
        assert word in str(caught.value)


@given(st.text(max_size=200))
def test_no_text_breaks_the_reader(text: str) -> None:
    try:
        parse(text, "x.toml")
    except MeshcallError as error:
        assert str(error).startswith("x.toml: ")


def test_unknown_names_and_bad_files_are_told(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match="known are bad_audio, churn"):
        load("nothing")
    with pytest.raises(UsageError, match="cannot be read"):
        load(str(tmp_path / "missing.toml"))
    path = tmp_path / "binary.toml"
    path.write_bytes(b"title = '\xff'")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(str(path))
    path.write_text("title = 'mine'")
    assert load(str(path))[0] == "binary"
