"""Opus through opuslib, on the bundled libopus or the one that MESHCALL_LIBOPUS names."""

from __future__ import annotations

import ctypes.util
import importlib.util
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from meshcall.errors import StateError

LIBRARY_VARIABLE = "MESHCALL_LIBOPUS"
_NAMES = ("libopus.so", "libopus.dylib", "opus.dll")


class NoOpusError(StateError):
    """There is no libopus on this machine; install the package opuslib-next-bundled, or the system's libopus."""


def bundled() -> str | None:
    """The library file that the package opuslib-next-bundled carries; its binding is not imported."""
    found = importlib.util.find_spec("opuslib_next")
    for folder in (found.submodule_search_locations or ()) if found is not None else ():
        for name in _NAMES:
            path = Path(folder) / "_native" / name
            if path.is_file():
                return str(path)
    return None


def find_library() -> str:
    """Which libopus to use: the one named by MESHCALL_LIBOPUS, the bundled one, the system's.  Raises NoOpusError."""
    path = os.environ.get(LIBRARY_VARIABLE) or bundled() or ctypes.util.find_library("opus")
    if not path:
        raise NoOpusError
    return path


@contextmanager
def _found_as_opus(path: str) -> Iterator[None]:
    """opuslib asks the system where libopus is, at import; it is told `path`."""
    original = ctypes.util.find_library
    ctypes.util.find_library = lambda name: path if name == "opus" else original(name)
    try:
        yield
    finally:
        ctypes.util.find_library = original


def load() -> Any:
    """The package opuslib, bound to the chosen library.  Raises NoOpusError."""
    path = find_library()
    with _found_as_opus(path), warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # `is not 0` in opuslib 3.0.1
        try:
            import opuslib.api
        except Exception as problem:  # opuslib raises a bare Exception where there is no library
            raise NoOpusError(f"{path}: this is no libopus that can be loaded ({problem})") from None
    return opuslib
