"""Classifies an access from inside it, the way of RFC 5780: two servers on two public hosts, two ports each.

They say what address they saw, and answer from another address or port on request.

    python -m tests.natlab.classify server ADDRESS
    python -m tests.natlab.classify client [LOCAL_PORT]
    python -m tests.natlab.classify once LOCAL_PORT        (speaks to one server, so that the port is taken)
"""

from __future__ import annotations

import json
import random
import select
import socket
import sys
import time
from itertools import pairwise
from typing import Any

from tests.natlab.lab import KINDS, ROOT, Lab
from tests.natlab.topologies import STUN

PORTS = (3478, 3479)
BETWEEN = 3480
"""The port for requests between the servers."""
WAIT_SECONDS = 0.4

Address = tuple[str, int]


def server(mine: str) -> None:
    """A request names the `id`, and may name the address to answer `from` and whom to answer (`to`)."""
    other = STUN[1 - STUN.index(mine)]
    sockets = {port: udp(port, mine) for port in (*PORTS, BETWEEN)}
    while True:
        for sock in select.select(list(sockets.values()), [], [])[0]:
            data, seen = sock.recvfrom(2000)
            request = json.loads(data)
            if sock is sockets[BETWEEN]:
                sockets[request["port"]].sendto(request["answer"].encode(), tuple(request["to"]))
                continue
            answer = json.dumps({"id": request["id"], "seen": seen})
            host, port = request.get("from", (mine, sock.getsockname()[1]))
            to = request.get("to", seen)
            if host == mine:
                sockets[port].sendto(answer.encode(), tuple(to))
            else:
                sock.sendto(json.dumps({"port": port, "to": to, "answer": answer}).encode(), (other, BETWEEN))


def ask(sock: socket.socket, target: Address, tries: int = 2, **request: Any) -> Address | None:
    """The address that the server saw; None where no answer came."""
    for _ in range(tries):
        request["id"] = random.getrandbits(32)
        sock.sendto(json.dumps(request).encode(), target)
        end = time.monotonic() + WAIT_SECONDS
        while select.select([sock], [], [], max(0, end - time.monotonic()))[0]:
            answer = json.loads(sock.recvfrom(2000)[0])
            if answer.get("id") == request["id"]:
                return answer["seen"][0], answer["seen"][1]
    return None


def udp(port: int = 0, host: str = "0.0.0.0") -> socket.socket:
    """A bound socket."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((host, port))
    return sock


def client(port: int = 0) -> dict[str, str]:
    """Mapping, port allocation, filtering, hairpin, and what a packet that comes too early does."""
    (one, two), (p, q) = STUN, PORTS
    sock = udp(port)
    seen = [ask(sock, target) for target in ((one, p), (one, q), (two, p), (two, q))]
    maps = [each for each in seen if each is not None]
    if len(maps) < len(seen):
        return {"mapping": "udp blocked", "filtering": "-", "ports": tcp_ports(one), "hairpin": "-", "early": "-"}
    local = (local_address(), sock.getsockname()[1])
    steps = [after[1] - before[1] for before, after in pairwise(maps)]
    mapping = "eim" if len(set(maps)) == 1 else "adm" if maps[0] == maps[1] else "apdm"
    if maps[0] == local:
        mapping = "none"
    ports = "random"
    if {each[1] for each in maps} == {local[1]}:
        ports = "preserve"
    elif mapping == "apdm" and all(0 < step < 5 for step in steps):
        ports = "sequential"
    return {
        "mapping": mapping,
        "filtering": filtering(),
        "ports": ports,
        "hairpin": "yes" if mapping != "none" and hairpins() else "no",
        "early": "-" if mapping == "apdm" else early(),
    }


def filtering() -> str:
    """Who may answer a socket that has spoken to one server's one port only."""
    (one, two), (p, q) = STUN, PORTS
    fresh = udp()
    if ask(fresh, (one, p), **{"from": (two, q)}):
        return "eif"
    return "adf" if ask(fresh, (one, p), **{"from": (one, q)}) else "apdf"


def hairpins() -> bool:
    """Whether two sockets here reach each other by the outer address, open to each other in both directions."""
    first, second = udp(), udp()
    server_at = (STUN[0], PORTS[0])
    for _ in range(2):
        for a, b in ((first, second), (second, first)):
            at = ask(b, server_at)
            assert at is not None
            a.sendto(b"{}", at)
    return bool(select.select([first], [], [], 0.5)[0])


def early() -> str:
    """Whether an unsolicited packet from a server changes our later mapping to it."""
    (one, two), (p, q) = STUN, PORTS
    sock, helper = udp(), udp()
    before = ask(sock, (one, p))
    ask(helper, (one, p), tries=1, **{"from": (two, q), "to": before})
    return "same" if ask(sock, (two, q)) == before else "changed"


def tcp_ports(host: str) -> str:
    """Which of the ports 80 and 443 can be reached over TCP."""
    found = []
    for port in (80, 443):
        try:
            socket.create_connection((host, port), 1).close()
            found.append(f"tcp {port}")
        except OSError:
            continue
    return ", ".join(found) or "none"


def local_address() -> str:
    """The address that our packets leave with."""
    sock = udp()
    sock.connect((STUN[0], 1))
    return str(sock.getsockname()[0])


# From outside the lab


def start_servers(lab: Lab) -> None:
    """The two servers, and TCP listeners on the first one's host; returns when they answer."""
    listen = "import socket,time; s=[socket.create_server(('', port)) for port in (80, 443)]; time.sleep(3600)"
    lab.popen("stun1", [sys.executable, "-c", listen])
    for host, address in zip(("stun1", "stun2"), STUN, strict=True):
        lab.popen(host, [sys.executable, "-m", __name__, "server", address], cwd=ROOT)
    for host in ("stun2", "stun1"):
        wait = "import sys; from tests.natlab.classify import *; sys.exit(wait_for_servers())"
        lab.run(host, [sys.executable, "-c", wait], cwd=ROOT, check=True, timeout=20)


def wait_for_servers() -> int:
    """0 as soon as both servers answer."""
    for address in STUN:
        for _ in range(20):
            if ask(udp(), (address, PORTS[0]), tries=1):
                break
        else:
            return 1
    return 0


def classify(lab: Lab, host: str, port: int = 0) -> dict[str, str]:
    """What the host's access is like."""
    command = [sys.executable, "-m", "tests.natlab.classify", "client", str(port)]
    shown = lab.run(host, command, capture_output=True, text=True, cwd=ROOT, timeout=30)
    assert shown.returncode == 0, shown.stderr
    found: dict[str, str] = json.loads(shown.stdout)
    return found


def occupy(lab: Lab, host: str, port: int) -> None:
    """Let a host speak to one server from this local port."""
    lab.run(host, [sys.executable, "-m", "tests.natlab.classify", "once", str(port)], cwd=ROOT, check=True, timeout=20)


def expected(kind: str) -> dict[str, str]:
    """What `KINDS` says that a classification finds."""
    spec = KINDS[kind]
    if kind == "udpblocked":
        return {"mapping": "udp blocked", "ports": "tcp 443"}
    if spec.engine == "chain":  # the stricter of the two, RFC 4787
        carrier = KINDS[spec.filtering]
        return {"mapping": carrier.mapping, "filtering": "apdf", "ports": carrier.ports}
    found = {"mapping": spec.mapping, "filtering": spec.filtering}
    if kind == "public":
        found["filtering"] = "eif"
    if kind == "linux":  # looks endpoint-independent until two inner ports clash (trap 2 of README.md)
        found["mapping"] = "eim"
    if spec.ports != "same":
        found["ports"] = spec.ports
    if spec.engine == "user" and spec.mapping == "eim":
        found["hairpin"] = "yes"
    return found


if __name__ == "__main__":
    if sys.argv[1] == "server":
        server(sys.argv[2])
    elif sys.argv[1] == "once":
        ask(udp(int(sys.argv[2])), (STUN[0], PORTS[1]))
    else:
        print(json.dumps(client(int(sys.argv[2]) if sys.argv[2:] else 0)))
