"""The wheel: everything that an installed meshcall needs is in it, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from meshcall import __version__

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel of this checkout."""
    pytest.importorskip("hatchling", reason="hatchling is not installed here; `make test` installs it")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    [path] = folder.iterdir()
    assert path.name == f"meshcall_voice-{__version__}-py3-none-any.whl"
    return zipfile.ZipFile(path)


def test_the_package_and_the_scenarios_are_in_it(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "meshcall").rglob("*.py")}
    scenarios = {f"meshcall/sim/scenarios/{path.name}" for path in (ROOT / "simulations").glob("*.toml")}
    assert scenarios
    assert modules | scenarios | {"meshcall/py.typed"} <= names
    others = {name for name in names if not name.startswith(("meshcall/", "meshcall_voice-"))}
    assert not others


def test_an_installed_meshcall_finds_its_scenarios(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path / "site")
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); from meshcall.sim import scenario;"
        "print(scenario.__file__); print(*sorted(scenario.shipped()))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert result[0].startswith(str(tmp_path))
    assert result[1].split() == sorted(path.stem for path in (ROOT / "simulations").glob("*.toml"))
