"""The numbers in docs/dht.md are those of the code."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "dht.md"
ROW = re.compile(r"^\| `(\w+)\.([A-Z][A-Z0-9_]*)` \| ([0-9.]+) \|", re.MULTILINE)
ROWS = ROW.findall(PAGE.read_text(encoding="utf-8"))


@pytest.mark.parametrize(("module", "name", "value"), ROWS)
def test_a_documented_constant_has_its_value(module: str, name: str, value: str) -> None:
    package = "wire" if module in ("bencode", "krpc") else "dht"
    assert getattr(importlib.import_module(f"meshcall.{package}.{module}"), name) == (float if "." in value else int)(
        value
    )


LIMIT = r"^([A-Z][A-Z0-9_]*_(?:MAX|MIN|SECONDS|BYTES|SECOND|FACTOR|SHARE|BURST|BUCKETS|LEAST|REQUESTS|ANSWERS)) ="
MODULES = (
    "client item_store limits maintenance node observed operation peer_store pending query reach rtt size table tokens"
)


@pytest.mark.parametrize("module", MODULES.split())
def test_every_limit_of_these_modules_is_documented(module: str) -> None:
    source = Path(importlib.import_module(f"meshcall.dht.{module}").__file__ or "").read_text(encoding="utf-8")
    names = set(re.findall(LIMIT, source, re.MULTILINE))
    documented = {name for _, name, _ in ROWS}
    assert names <= documented
