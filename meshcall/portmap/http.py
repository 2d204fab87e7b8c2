"""The little of HTTP/1.1 (RFC 9112) that a UPnP gateway needs: build a request, read a bounded response.

No redirects, no compression, no second request on a connection.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urljoin

from meshcall.core import Endpoint, show_endpoint
from meshcall.errors import BadPacket

RESPONSE_BYTES_MAX: Final = 65_536
"""A longer response, head included, is nobody's gateway."""
HEAD_BYTES_MAX: Final = 8_192
URL_CHARS_MAX: Final = 512
CHUNKS_MAX: Final = 256
"""Of one response; they are looked at anew with all that comes."""
PORT_LEAST: Final = 1024
PORTS_ALLOWED_BELOW: Final = frozenset({80})
"""Ports below 1024 are other services: nobody shall have us speak to them by naming them in a search's answer."""

_URL = re.compile(r"http://(\d{1,3}(?:\.\d{1,3}){3})(?::(\d{1,5}))?(/[!-~]*)?", re.ASCII)
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})(?: [^\r\n]*)?")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,6})[ \t]*(?:;[^\r\n]*)?\r\n")


@dataclass(frozen=True, slots=True)
class Url:
    """An http URL with a numeric IPv4 address."""

    to: Endpoint
    path: str

    def join(self, reference: str) -> Url:
        """The URL that a reference on this page leads to.  Raises BadPacket; also where the host is another."""
        if len(reference) > URL_CHARS_MAX or not all("!" <= sign <= "~" for sign in reference):
            raise BadPacket("bad url")
        try:
            joined = parse_url(urljoin(f"http://{show_endpoint(self.to)}{self.path}", reference))
        except ValueError:
            raise BadPacket("bad url") from None
        if joined.to[:-2] != self.to[:-2]:
            raise BadPacket("url of another host")
        return joined


def parse_url(text: str) -> Url:
    """Read an http URL with a numeric IPv4 address and no user, query words included.  Raises BadPacket, also for
    other services' ports."""
    match = _URL.fullmatch(text.partition("#")[0]) if len(text) <= 2 * URL_CHARS_MAX else None
    if match is None:
        raise BadPacket("bad url")
    port = int(match[2] or 80)
    try:
        host = ipaddress.IPv4Address(match[1]).packed
    except ValueError:
        raise BadPacket("bad url") from None
    if not 0 < port < 65536:
        raise BadPacket("bad url")
    if port < PORT_LEAST and port not in PORTS_ALLOWED_BELOW:
        raise BadPacket("url of another service")
    return Url(Endpoint(host + port.to_bytes(2, "big")), match[3] or "/")


def build_request(method: str, url: Url, headers: tuple[tuple[str, str], ...] = (), body: bytes = b"") -> bytes:
    """A whole request; what is in `url` was parsed here and holds no line breaks."""
    lines = [f"{method} {url.path} HTTP/1.1", f"Host: {show_endpoint(url.to)}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


def is_whole(data: bytes | bytearray) -> bool:
    """Whether a response is complete before the other side closes the connection."""
    try:
        head, rest = _split(bytes(data))
        if _is_chunked(head):
            return _join_chunks(rest) is not None
        length = _length(head)
    except BadPacket:
        return b"\r\n\r\n" in data  # it will not get any better
    return length is not None and len(rest) >= length


def parse_response(data: bytes) -> tuple[int, bytes]:
    """The status and the body of a whole response.  Raises BadPacket."""
    if len(data) > RESPONSE_BYTES_MAX:
        raise BadPacket("http too long")
    head, rest = _split(data)
    status = _STATUS.fullmatch(head.partition(b"\r\n")[0])
    if status is None:
        raise BadPacket("http status")
    if _is_chunked(head):
        body = _join_chunks(rest)
        if body is None:
            raise BadPacket("http cut short")
        return int(status[1]), body
    length = _length(head)
    if length is not None and len(rest) < length:
        raise BadPacket("http cut short")
    return int(status[1]), rest if length is None else rest[:length]


def _split(data: bytes) -> tuple[bytes, bytes]:
    head, end, rest = data.partition(b"\r\n\r\n")
    if not end or len(head) > HEAD_BYTES_MAX:
        raise BadPacket("http head")
    return head, rest


def header(head: bytes, name: str) -> str | None:
    """The first header field of that name (lower case) in a head, without spaces around."""
    for line in head.split(b"\r\n")[1:]:
        key, colon, value = line.partition(b":")
        if colon and key.strip().lower() == name.encode():
            return value.strip().decode("latin-1")
    return None


def _is_chunked(head: bytes) -> bool:
    return "chunked" in (header(head, "transfer-encoding") or "").lower()


def _length(head: bytes) -> int | None:
    text = header(head, "content-length")
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise BadPacket("http length")
    return int(text)


def _join_chunks(data: bytes) -> bytes | None:
    at = 0
    parts: list[bytes] = []
    while True:
        match = _CHUNK.match(data, at)
        if match is None:
            if len(data) - at > 64:
                raise BadPacket("http chunk")
            return None
        if len(parts) >= CHUNKS_MAX:
            raise BadPacket("http chunk")
        size = int(match[1], 16)
        at = match.end()
        if not size:
            return b"".join(parts)
        if len(data) < at + size + 2:
            return None
        parts.append(data[at : at + size])
        if data[at + size : at + size + 2] != b"\r\n":
            raise BadPacket("http chunk")
        at += size + 2
