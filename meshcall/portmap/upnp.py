"""UPnP IGD: what is sent and read to find a gateway and have it forward a port (UDA 1.1, WANIPConnection:1 and :2).

Formats only: the search by SSDP, the description, and SOAP actions.  Every text of the gateway's is
bounded and read without a DTD; every URL has to stay on the host that answered the search.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from html import escape
from typing import Final

from meshcall.core import Endpoint, endpoint
from meshcall.errors import BadPacket
from meshcall.portmap import http
from meshcall.portmap.http import Url
from meshcall.portmap.xml import read_xml

SSDP: Final = endpoint("239.255.255.250", 1900)
SEARCH_TARGETS: Final = (
    "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
    "urn:schemas-upnp-org:device:InternetGatewayDevice:2",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
)
"""The first two are asked for first; gateways that know only their services get a second chance."""
SEARCH_DELAY_SECONDS: Final = 1
"""MX: a gateway may wait so long before it answers."""
SSDP_BYTES_MAX: Final = 2_048
SERVICES: Final = (
    "urn:schemas-upnp-org:service:WANIPConnection:2",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
)
"""Services that map ports, the best first."""
SERVICES_MAX: Final = 3
DESCRIPTION: Final = "meshcall"
"""What the gateway's pages show beside the mapping."""

ERRORS: Final = {
    401: "invalid action", 402: "invalid arguments", 501: "action failed", 606: "not authorized",
    714: "no such mapping", 715: "wildcard not permitted", 716: "outer port wildcard not permitted",
    718: "conflict", 724: "same ports required", 725: "only permanent leases", 726: "only wildcard hosts",
    727: "only wildcard ports", 728: "no more mappings", 729: "conflict with another mechanism",
    732: "inner port wildcard not permitted",
}  # fmt: skip
"""Error codes of WANIPConnection:2 section 2.5.23 and of UDA; below 718 also of the older version."""
CONFLICT: Final = 718
SAME_PORTS_REQUIRED: Final = 724
ONLY_PERMANENT_LEASES: Final = 725
CONFLICT_ELSEWHERE: Final = 729
LEASE_SECONDS_MAX: Final = 604_800
"""WANIPConnection:2 allows no longer leases."""


@dataclass(frozen=True, slots=True)
class Service:
    """A service that maps ports, and where it takes actions."""

    kind: str
    control: Url


class Fault(Exception):  # noqa: N818 - SOAP's word for it
    """The gateway answered an action with a UPnP error; `code` 0 where it did not say which."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code

    @property
    def reason(self) -> str:
        """A short fixed text."""
        return f"upnp {ERRORS.get(self.code, 'unknown error')}"


def encode_search(target: str) -> bytes:
    """An M-SEARCH for one target (UDA 1.1 section 1.3.2)."""
    lines = (
        "M-SEARCH * HTTP/1.1", "HOST: 239.255.255.250:1900", 'MAN: "ssdp:discover"',
        f"MX: {SEARCH_DELAY_SECONDS}", f"ST: {target}", "", "",
    )  # fmt: skip
    return "\r\n".join(lines).encode("ascii")


def decode_search_answer(source: Endpoint, data: bytes) -> Url:
    """Where the description of a gateway is, by its answer to a search.  Raises BadPacket."""
    if len(data) > SSDP_BYTES_MAX:
        raise BadPacket("ssdp length")
    head = data.partition(b"\r\n\r\n")[0]
    if not head.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200")):
        raise BadPacket("ssdp form")
    if http.header(head, "st") not in SEARCH_TARGETS:
        raise BadPacket("ssdp another target")
    url = http.parse_url(http.header(head, "location") or "")
    if url.to[:-2] != source[:-2]:
        raise BadPacket("ssdp url of another host")
    return url


def encode_description_request(url: Url) -> bytes:
    """The request for a description."""
    return http.build_request("GET", url)


def decode_description(url: Url, body: bytes) -> tuple[Service, ...]:
    """The services of a description that map ports, the best first.  Raises BadPacket."""
    elements = read_xml(body)
    if not elements or elements[0].name != "root":
        raise BadPacket("upnp description")
    base = url
    if stated := elements[0].texts.get("URLBase"):
        base = url.join(stated)
    found: list[Service] = []
    for element in elements:
        kind, control = element.texts.get("serviceType"), element.texts.get("controlURL")
        if element.name == "service" and kind in SERVICES and control:
            found.append(Service(kind, base.join(control)))
    found.sort(key=lambda service: SERVICES.index(service.kind))
    return tuple(found[:SERVICES_MAX])


def encode_action(service: Service, action: str, arguments: tuple[tuple[str, str], ...] = ()) -> bytes:
    """A SOAP request (UDA 1.1 section 3.1.1)."""
    fields = "".join(f"<{name}>{escape(value, quote=False)}</{name}>" for name, value in arguments)
    body = (
        '<?xml version="1.0"?>\r\n'
        '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"'
        ' s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>'
        f'<u:{action} xmlns:u="{service.kind}">{fields}</u:{action}></s:Body></s:Envelope>\r\n'
    ).encode()
    headers = (("Content-Type", 'text/xml; charset="utf-8"'), ("SOAPAction", f'"{service.kind}#{action}"'))
    return http.build_request("POST", service.control, headers, body)


def encode_add(service: Service, local: bytes, inner_port: int, outer_port: int, lease: int) -> bytes:
    """AddAnyPortMapping where the service has it, else AddPortMapping; `lease` in seconds, 0: until deleted."""
    action = "AddAnyPortMapping" if service.kind == SERVICES[0] else "AddPortMapping"
    arguments = (
        ("NewRemoteHost", ""), ("NewExternalPort", str(outer_port)), ("NewProtocol", "UDP"),
        ("NewInternalPort", str(inner_port)), ("NewInternalClient", str(ipaddress.IPv4Address(local))),
        ("NewEnabled", "1"), ("NewPortMappingDescription", DESCRIPTION),
        ("NewLeaseDuration", str(min(lease, LEASE_SECONDS_MAX))),
    )  # fmt: skip
    return encode_action(service, action, arguments)


def encode_delete(service: Service, outer_port: int) -> bytes:
    """DeletePortMapping of our UDP mapping."""
    arguments = (("NewRemoteHost", ""), ("NewExternalPort", str(outer_port)), ("NewProtocol", "UDP"))
    return encode_action(service, "DeletePortMapping", arguments)


def encode_get_address(service: Service) -> bytes:
    """GetExternalIPAddress."""
    return encode_action(service, "GetExternalIPAddress")


def decode_action_answer(status: int, body: bytes) -> dict[str, str]:
    """The arguments of an answer, by name.  Raises Fault where the gateway said no, BadPacket else."""
    if status not in (200, 500):
        raise BadPacket("http redirect" if 300 <= status < 400 else "http status")
    elements = read_xml(body)
    for element in elements:
        if element.name == "Fault" or "errorCode" in element.texts:
            codes = [text for each in elements if (text := each.texts.get("errorCode"))]
            code = codes[0] if codes else "0"
            raise Fault(int(code) if code.isascii() and code.isdigit() and len(code) <= 4 else 0)
    answers = [element for element in elements if element.name.endswith("Response")]
    if status != 200 or not answers:
        raise BadPacket("soap form")
    return answers[0].texts


def decode_address(texts: dict[str, str]) -> bytes:
    """The outside address of an answer to GetExternalIPAddress, packed.  Raises BadPacket."""
    try:
        return ipaddress.IPv4Address(texts.get("NewExternalIPAddress", "")).packed
    except ValueError:
        raise BadPacket("upnp address") from None


def decode_reserved_port(texts: dict[str, str], asked: int) -> int:
    """The outer port that AddAnyPortMapping gave; AddPortMapping names none, then it is the one asked for."""
    text = texts.get("NewReservedPort", str(asked))
    if not text.isascii() or not text.isdigit() or len(text) > 5 or not 0 < int(text) < 65536:
        raise BadPacket("upnp port")
    return int(text)
