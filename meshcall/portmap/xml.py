"""Strangers' XML, made harmless: bounded in bytes, elements and depth, and without any document type.

With no DTD there is nothing to expand and nothing to fetch: no entities but the five of XML itself.
Names are taken without their namespaces, as gateways get those wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final
from xml.etree import ElementTree

from meshcall.errors import BadPacket

XML_BYTES_MAX: Final = 65_536
ELEMENTS_MAX: Final = 2_000
DEPTH_MAX: Final = 32


@dataclass(slots=True)
class Element:
    """The texts directly below one element, by name; the first of each counts."""

    name: str
    texts: dict[str, str] = field(default_factory=dict)


class _Target:
    """Gathers elements as the parser meets them; every bound is checked before anything is kept."""

    def __init__(self) -> None:
        self.elements: list[Element] = []
        self._open: list[Element] = []
        self._text: list[str] = []

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if len(self._open) >= DEPTH_MAX:
            raise BadPacket("xml too deep")
        if len(self.elements) >= ELEMENTS_MAX:
            raise BadPacket("xml too many elements")
        element = Element(tag.rpartition("}")[2])
        self.elements.append(element)
        self._open.append(element)
        self._text.clear()

    def data(self, text: str) -> None:
        self._text.append(text)

    def end(self, tag: str) -> None:
        element = self._open.pop()
        if self._open:
            self._open[-1].texts.setdefault(element.name, "".join(self._text).strip())
        self._text.clear()

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        raise BadPacket("xml with dtd")

    def close(self) -> list[Element]:
        return self.elements


def read_xml(data: bytes) -> list[Element]:
    """All elements in the order of their start tags.  Raises BadPacket."""
    if len(data) > XML_BYTES_MAX:
        raise BadPacket("xml too long")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    text = text.strip(" \t\r\n\x00")
    if "\x00" in text:
        raise BadPacket("xml encoding")
    # As text it is parsed as UTF-8 whatever it claims to be, so this look at it is the parser's look.
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise BadPacket("xml with dtd")
    target = _Target()
    parser = ElementTree.XMLParser(target=target)  # noqa: S314 - no DTD gets as far as this
    try:
        parser.feed(text)
        parser.close()
    except (ElementTree.ParseError, ValueError, LookupError):
        raise BadPacket("xml form") from None
    return target.elements
