"""QR codes, read back from the terminal and from the SVG by their modules."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import segno

from meshcall import qr
from meshcall.address import Link, parse

KEY = bytes(range(32))


def expected() -> list[list[bool]]:
    code = segno.make_qr(qr.content(KEY), error="m", boost_error=False)
    assert code.mode == "alphanumeric"
    assert code.version == 4
    return [list(map(bool, row)) for row in code.matrix_iter(border=4)]


def test_the_code_says_the_link() -> None:
    assert qr.content(KEY) == qr.content(KEY).upper()
    assert parse(qr.content(KEY)) == Link(KEY)


def test_terminal() -> None:
    upper, lower = {"█": (0, 0), "▀": (0, 1), "▄": (1, 0), " ": (1, 1)}, []
    for line in qr.terminal_lines(KEY, colour=False):
        lower += [[bool(upper[c][half]) for c in line] for half in (0, 1)]
    assert lower[: len(expected())] == expected()
    assert not any(map(any, lower[len(expected()) :]))


def test_terminal_colours_do_not_depend_on_the_terminal() -> None:
    plain, coloured = qr.terminal_lines(KEY, colour=False), qr.terminal_lines(KEY, colour=True)
    assert [f"\x1b[38;5;231;48;5;16m{line}\x1b[0m" for line in plain] == coloured
    assert all(len(line) == 41 for line in plain)


def test_svg_is_a_document() -> None:
    root = ElementTree.fromstring(qr.svg(KEY))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.get("viewBox") == "0 0 328 328"
