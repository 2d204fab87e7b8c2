"""docs/path.md names every constant of the path layer with its value."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path

import meshcall.path

DOCUMENT = Path(__file__).resolve().parent.parent.parent / "docs" / "path.md"


def documented() -> dict[str, float]:
    return {
        name: float(value) for name, value in re.findall(r"^\| `([\w.]+)` \| ([\d.]+) \|", DOCUMENT.read_text(), re.M)
    }


def test_every_constant_is_documented_as_it_is() -> None:
    for name, value in documented().items():
        module, _, constant = name.rpartition(".")
        assert getattr(importlib.import_module(f"meshcall.{module}"), constant) == value, name


def test_no_constant_is_forgotten() -> None:
    told = documented()
    for info in pkgutil.iter_modules(meshcall.path.__path__, "path."):
        module = importlib.import_module(f"meshcall.{info.name}")
        source = Path(str(module.__file__)).read_text()
        for constant in re.findall(r"^([A-Z][A-Z_]+) = ", source, re.M):
            if isinstance(getattr(module, constant), int | float) and constant != "RELAY_ID_BYTES":
                assert f"{info.name}.{constant}" in told, f"{info.name}.{constant}"
