"""A gateway for tests: PCP, NAT-PMP and a UPnP IGD as functions of datagrams and requests, and a small server of them.

As a program it serves on the addresses it is given, inside a namespace, and prints one JSON line for
every mapping made or deleted.  Written against the RFCs, not against our codecs.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import re
import select
import socket
import struct
import sys
import time

SSDP_GROUP = "239.255.255.250"
DESCRIPTION = """<?xml version="1.0"?>
<root xmlns="urn:schemas-upnp-org:device-1-0"><specVersion><major>1</major><minor>0</minor></specVersion>
<device><deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType><deviceList><device>
<deviceType>urn:schemas-upnp-org:device:WANDevice:1</deviceType><deviceList><device><serviceList><service>
<serviceType>urn:schemas-upnp-org:service:WANIPConnection:{version}</serviceType>
<controlURL>{control}</controlURL></service></serviceList></device></deviceList></device></deviceList></device>
</root>"""
LAUGHS = (
    '<!DOCTYPE root [<!ENTITY a "ha">'
    + "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    + "]><root>&i;</root>"
)


class FakeGateway:
    """State and answers; knobs are plain attributes that a test sets."""

    def __init__(self, outside: str = "203.0.113.7", speaks: tuple[str, ...] = ("pcp", "nat-pmp", "upnp")) -> None:
        self.outside, self.speaks = outside, speaks
        self.started = 0.0
        self.life_max = 7200
        self.pcp_result = 0
        self.igd_version = 1
        self.permanent_only = False
        self.taken: set[int] = set()
        self.control = "/ctl"
        self.redirect = False
        self.evil = ""
        """laughs, huge: what its pages hold instead."""
        self.mappings: dict[int, tuple[str, int]] = {}
        """By inner port: protocol that made it, and outer port."""
        self.log: list[tuple[str, ...]] = []

    def restart(self, now: float) -> None:
        """Lose all state."""
        self.started = now
        self.mappings.clear()

    def epoch(self, now: float) -> int:
        return int(now - self.started)

    def datagram(self, now: float, data: bytes) -> list[bytes]:
        """What port 5351 answers."""
        if data[0] == 2 and "pcp" in self.speaks:
            return [self._pcp(now, data)]
        if "nat-pmp" not in self.speaks:
            return []
        if data[0] != 0:
            return [struct.pack("!BBHI", 0, 0x80 | data[1], 1, self.epoch(now))]
        if data[1] == 0:
            return [struct.pack("!BBHI", 0, 128, 0, self.epoch(now)) + ipaddress.IPv4Address(self.outside).packed]
        _, _, _, inner, outer, life = struct.unpack("!BBHHHI", data)
        life = min(life, self.life_max)
        outer = self._map("nat-pmp", inner, outer or inner, life)
        return [struct.pack("!BBHIHHI", 0, 129, 0, self.epoch(now), inner, outer, life)]

    def _pcp(self, now: float, data: bytes) -> bytes:
        assert len(data) == 60
        life = min(struct.unpack("!I", data[4:8])[0], self.life_max)
        inner, outer = struct.unpack("!HH", data[40:44])
        if not self.pcp_result:
            outer = self._map("pcp", inner, outer or inner, life)
        ip = ipaddress.ip_address(self.outside)
        host = ip.packed if ip.version == 6 else b"\0" * 10 + b"\xff\xff" + ip.packed
        head = struct.pack("!BBBBII12x", 2, 0x81, 0, self.pcp_result, life, self.epoch(now))
        return head + data[24:42] + struct.pack("!H", outer) + host

    def _map(self, protocol: str, inner: int, outer: int, life: int) -> int:
        if not life:
            self.mappings.pop(inner, None)
            self.log.append(("deleted", protocol, str(inner)))
            return 0
        if inner in self.mappings:
            outer = self.mappings[inner][1]
        while outer in self.taken:
            outer += 1
        self.mappings[inner] = (protocol, outer)
        self.log.append(("mapped", protocol, str(inner), str(outer), str(life)))
        return outer

    def search(self, data: bytes, location: str) -> list[bytes]:
        """What the SSDP port answers."""
        target = re.search(rb"\r\nST: (\S+)", data)
        if "upnp" not in self.speaks or target is None or b"InternetGatewayDevice:1" not in target[1]:
            return []
        lines = (
            f"HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=100\r\nLOCATION: {location}\r\nST: {target[1].decode()}\r\n\r\n"
        )
        return [lines.encode()]

    def http(self, data: bytes) -> bytes:
        """The response to a request."""
        head, _, body = data.partition(b"\r\n\r\n")
        if self.evil:
            return self._page(200, LAUGHS if self.evil == "laughs" else "<root>" + "<a>b</a>" * 1_000_000)
        if self.redirect:
            return b"HTTP/1.1 302 Found\r\nLocation: http://203.0.113.99/\r\nContent-Length: 0\r\n\r\n"
        if head.startswith(b"GET /desc.xml "):
            text = DESCRIPTION.format(version=self.igd_version, control=self.control)
            return self._page(200, text)
        action = re.search(rb'SOAPAction: "[^#]+#(\w+)"', head)
        if not head.startswith(f"POST {self.control} ".encode()) or action is None:
            return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
        return self._action(action[1].decode(), dict(re.findall(r"<(New\w+)>([^<]*)</", body.decode())))

    def _action(self, action: str, values: dict[str, str]) -> bytes:
        if action == "GetExternalIPAddress":
            return self._soap(action, f"<NewExternalIPAddress>{self.outside}</NewExternalIPAddress>")
        outer = int(values["NewExternalPort"])
        if action == "DeletePortMapping":
            inner = [each for each, (_, port) in self.mappings.items() if port == outer]
            if not inner:
                return self._fault(714)
            self._map("upnp", inner[0], 0, 0)
            return self._soap(action, "")
        life, inner_port = int(values["NewLeaseDuration"]), int(values["NewInternalPort"])
        if self.permanent_only and life:
            return self._fault(725)
        if action == "AddPortMapping" and outer in self.taken:
            return self._fault(718)
        if action == "AddAnyPortMapping" and self.igd_version < 2:
            return self._fault(401)
        port = self._map("upnp", inner_port, outer, life or 1)
        return self._soap(action, f"<NewReservedPort>{port}</NewReservedPort>" if "Any" in action else "")

    def _soap(self, action: str, fields: str) -> bytes:
        return self._page(
            200,
            '<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>'
            f'<u:{action}Response xmlns:u="x">{fields}</u:{action}Response></s:Body></s:Envelope>',
        )

    def _fault(self, code: int) -> bytes:
        return self._page(
            500,
            '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><s:Fault><faultcode>s:Client'
            "</faultcode><detail><UPnPError xmlns='urn:schemas-upnp-org:control-1-0'>"
            f"<errorCode>{code}</errorCode></UPnPError></detail></s:Fault></s:Body></s:Envelope>",
        )

    @staticmethod
    def _page(status: int, text: str) -> bytes:
        return f"HTTP/1.1 {status} X\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode()


def serve(host: str, options: dict[str, object]) -> None:
    """Serve until standard input is closed; every line read from it restarts the gateway and announces that."""
    gateway = FakeGateway()
    for name, value in options.items():
        setattr(gateway, name, value)
    gateway.started = time.monotonic()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    mapping = socket.socket(family, socket.SOCK_DGRAM)
    sockets = []
    if gateway.speaks != ["upnp"]:  # else the port is closed, as it is at most gateways
        mapping.bind((host, 5351))
        sockets.append(mapping)
    if family == socket.AF_INET:
        search = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        search.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        search.bind((SSDP_GROUP, 1900))
        group = socket.inet_aton(SSDP_GROUP) + socket.inet_aton(host)
        search.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
        reply = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        reply.bind((host, 1900))
        pages = socket.create_server((host, 5000))
        sockets += [search, pages]
    print("ready", flush=True)
    while True:
        readable, _, _ = select.select([*sockets, sys.stdin], [], [])
        now = time.monotonic()
        for one in readable:
            if one is sys.stdin:
                if not sys.stdin.readline():
                    return
                gateway.restart(now)
                announcement = struct.pack("!BBBBII12x", 2, 0x80, 0, 0, 0, 0)
                mapping.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(host))
                mapping.sendto(announcement, ("224.0.0.1", 5350))
            elif one is mapping:
                data, source = mapping.recvfrom(2048)
                for answer in gateway.datagram(now, data):
                    mapping.sendto(answer, source)
            elif one is pages:
                connection, _ = pages.accept()
                with connection, contextlib.suppress(OSError):
                    data = connection.recv(8192)
                    length = re.search(rb"Content-Length: (\d+)", data)
                    while length and len(data.partition(b"\r\n\r\n")[2]) < int(length[1]):
                        data += connection.recv(8192)
                    connection.sendall(gateway.http(data))
            else:
                data, source = search.recvfrom(2048)
                for answer in gateway.search(data, f"http://{host}:5000/desc.xml"):
                    reply.sendto(answer, source)
        for line in gateway.log:
            print(json.dumps(line), flush=True)
        gateway.log.clear()


if __name__ == "__main__":
    serve(sys.argv[1], json.loads(sys.argv[2]))
