"""A link as a QR code, for the terminal and as SVG.

In capitals, so that the compact alphanumeric mode serves: 33 modules a side with 15 % error
correction.  The name is left out, because it would not fit that mode.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final

from meshcall.address import SCHEME, encode

if TYPE_CHECKING:
    from segno import QRCode

BORDER_MODULES: Final = 4
"""The quiet zone that scanners need (ISO/IEC 18004)."""
_WHITE_ON_BLACK: Final = "\x1b[38;5;231;48;5;16m"
_RESET: Final = "\x1b[0m"
_HALF_BLOCKS: Final = {(True, True): "█", (True, False): "▀", (False, True): "▄", (False, False): " "}


def content(public: bytes) -> str:
    """What the code says: `MESHCALL:MC1...`."""
    return (SCHEME + encode(public)).upper()


def terminal_lines(public: bytes, *, colour: bool) -> list[str]:
    """Two rows of modules a line, 21 lines of 41 columns.

    With `colour` the code is black on white whatever the terminal's colours are; without, it needs light text on dark.
    """
    rows = [list(map(bool, row)) for row in _code(public).matrix_iter(border=BORDER_MODULES)]
    if len(rows) % 2:
        rows.append([False] * len(rows[0]))
    lines = (
        "".join(_HALF_BLOCKS[not upper, not lower] for upper, lower in zip(rows[place], rows[place + 1], strict=True))
        for place in range(0, len(rows), 2)
    )
    return [f"{_WHITE_ON_BLACK}{line}{_RESET}" if colour else line for line in lines]


def svg(public: bytes) -> str:
    """A complete SVG document, black on white."""
    document = io.BytesIO()
    _code(public).save(
        document, kind="svg", scale=8, border=BORDER_MODULES, light="#fff", svgclass=None, lineclass=None, omitsize=True
    )
    return document.getvalue().decode()


def _code(public: bytes) -> QRCode:
    import segno

    return segno.make_qr(content(public), error="m", boost_error=False)
