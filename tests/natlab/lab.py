"""A NAT laboratory out of network namespaces: nftables for the kernel's NATs, `engines` for all else.

Needs root, `ip` and `nft`.  Nothing in it has a route to the machine's own interfaces.  README.md
has the traps.  Every namespace and process is ended by `Lab.close`.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
TRANSIT = "169.254.255.1"
"""A userspace NAT's own address on its outer link."""
INTERNET_HOPS = 10
"""Packets with a lower time to live die in the "internet"."""
DEVICE_WAIT_SECONDS = 5.0


class Kind(NamedTuple):
    """One kind of access.  A chain has a home's kind and a carrier's kind."""

    engine: str
    """none (no router), kernel, user (exact NAT), chain."""
    mapping: str
    filtering: str
    ports: str
    hairpin: bool = True


KINDS = {
    "public": Kind("none", "none", "none", "same"),
    "firewall": Kind("kernel", "none", "apdf", "same", False),
    "fullcone": Kind("user", "eim", "eif", "random"),
    "restricted": Kind("user", "eim", "adf", "random"),
    "portrestricted": Kind("user", "eim", "apdf", "random"),
    "linux": Kind("kernel", "apdm", "apdf", "preserve", False),  # plain masquerade
    "symmetric": Kind("kernel", "apdm", "apdf", "random", False),  # fully-random
    "symseq": Kind("user", "apdm", "apdf", "sequential"),
    "cgnat": Kind("chain", "linux", "portrestricted", ""),
    "cgnat-sym": Kind("chain", "linux", "symmetric", ""),
    "udpblocked": Kind("kernel", "tcp443", "apdf", "preserve", False),
}

FIREWALL = """
table ip lab {{
  chain input {{
    type filter hook input priority 0
    iifname "wan0" ct state established,related accept
    iifname "wan0" {unsolicited}
  }}
  chain forward {{
    type filter hook forward priority 0
    ct state established,related accept
    iifname "wan0" drop
    {forward}
  }}
  chain post {{
    type nat hook postrouting priority 100
    {nat}
  }}
}}"""


def missing(*, routers: bool = True) -> str:
    """What this machine lacks for a lab; empty: nothing.  `routers`: with NATs and engines of its own."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "needs root on Linux"
    for tool in ("ip", "nft") if routers else ("ip",):
        if shutil.which(tool) is None:
            return f"needs the program {tool}"
    if routers and not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "needs /dev/net/tun"
    probe = f"natlab-probe-{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", probe], capture_output=True).returncode:
        return "may not make network namespaces"
    try:
        if not routers:
            return ""
        rules = "table ip probe { chain c { type nat hook postrouting priority 100; }\n}"
        nft = ["ip", "netns", "exec", probe, "nft", "-f", "-"]
        if subprocess.run(nft, input=rules, text=True, capture_output=True).returncode:
            return "may not use nftables"
    finally:
        subprocess.run(["ip", "netns", "del", probe], check=False)
    return ""


class Lab:
    """Builds on use, tears down on `close`.

    Link options (`delay` and `jitter` in seconds one way, `loss` 0 to 1) hold for each access link; the
    lab's own are the default.  `prefix` begins the name of every namespace, so that labs can stand side by side.
    """

    def __init__(self, delay: float = 0.0, jitter: float = 0.0, loss: float = 0.0, prefix: str = "nl-") -> None:
        self.link_options = {"delay": delay, "jitter": jitter, "loss": loss}
        self.prefix = prefix
        self.spaces: list[str] = []
        self.hosts: dict[str, str] = {}
        self.routers: dict[str, dict[str, Any]] = {}
        self._children: list[subprocess.Popen[Any]] = []
        self._count = 0
        try:
            self._namespace("inet")
            rule = f"type filter hook forward priority 0; ip ttl < {INTERNET_HOPS} drop;"
            self._nft("inet", f"table ip lab {{ chain forward {{ {rule} }}\n}}")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # What a test builds with

    def public(self, name: str, *addresses: str, **options: float) -> None:
        """A host on the public internet with these addresses."""
        self._namespace(name)
        self._attach("inet", name, "eth0", addresses, options)
        self.hosts[name] = addresses[0]

    def router(
        self,
        name: str,
        kind: str,
        wan: str,
        up: str = "inet",
        inside: str = "10.0.0.0/24",
        timeout: float = 120.0,
        unsolicited: str = "drop",
        **options: float,
    ) -> None:
        """A NAT or firewall with the outer address `wan`; `timeout` is its mappings' life in seconds.

        `unsolicited`: accept or reject make a kernel router answer instead of dropping (the first trap of README.md).
        """
        spec = KINDS[kind]
        self._namespace(name)
        self.routers[name] = {"engine": spec.engine, "kind": kind, "wan": wan, "up": up, "inside": inside, "next": 10}
        self._attach(up, name, "wan0", (wan,), options, transit=spec.engine == "user")
        self.routers[name]["outer"] = f"v{self._count}"
        self._sysctl(name, "net.ipv4.ip_forward=1")
        if spec.engine == "user":
            child = self._engine(
                "nat",
                wan,
                inside,
                spec.mapping,
                spec.filtering,
                spec.ports,
                str(spec.hairpin),
                str(timeout),
                space=name,
            )
            self.routers[name]["process"] = child
            self._await(name, "tun0")
            self._ip(name, "link set tun0 up", f"route add {wan}/32 dev tun0", "route add default dev tun0 table 100")
            return
        flags = {"random": "masquerade random,fully-random", "preserve": "masquerade"}.get(spec.ports, "")
        self._sysctl(name, f"net.netfilter.nf_conntrack_udp_timeout_stream={int(timeout)}")
        rules = FIREWALL.format(
            unsolicited=unsolicited,
            nat=f'oifname "wan0" {flags}' if flags else "",
            forward="tcp dport 443 accept\n    drop" if spec.mapping == "tcp443" else "",
        )
        self._nft(name, rules)

    def host(self, name: str, router: str, address: str | None = None, **options: float) -> None:
        """A host on the router's LAN (a bridge, so two hosts there also meet at layer 2)."""
        self._namespace(name)
        self._plug(name, router, address, options)

    def home(self, name: str, kind: str, wan: str, inside: str = "10.0.0.0/24", **options: float) -> None:
        """One host called `name` on an access of `kind`; its router is NAME-r (and NAME-c)."""
        near = {"delay": 0.0, "jitter": 0.0, "loss": 0.0}
        if kind == "public":
            self.public(name, wan, **options)
            return
        router = name + "-r"
        if KINDS[kind].engine == "chain":
            self.router(name + "-c", KINDS[kind].filtering, wan, inside="100.64.0.0/10", **options)
            self.router(router, KINDS[kind].mapping, "100.64.7.7", up=name + "-c", inside=inside, **near)
        else:
            self.router(router, kind, wan, inside=inside, **options)
        if kind != "firewall":
            self.host(name, router)
            return
        self._namespace(name)  # the host itself holds the public address
        mine = str(ipaddress.ip_address(wan) + 100)
        self._attach(router, name, "eth0", (mine,), near)
        self._ip("inet", f"route add {mine}/32 via {wan} dev {self.routers[router]['outer']} onlink")
        self.hosts[name] = mine

    def move(self, host: str, router: str, gap: float = 0.0) -> None:
        """Roaming: the host leaves its network and after `gap` seconds joins `router`'s, with a new address."""
        if self._is_veth(host):
            self._ip(host, "link del eth0")
        else:
            self._ip(host, "link set eth0 down", "link set eth0 name old0")
        time.sleep(gap)
        self._plug(host, router, None, {})

    def rebind(self, router: str, new_wan: str | None = None) -> None:
        """The router forgets every mapping, as at a reboot; `new_wan`: and gets another address (kernel routers)."""
        known = self.routers[router]
        if known["engine"] == "user":
            known["process"].send_signal(signal.SIGHUP)
            return
        wan, up = new_wan or known["wan"], known["up"]
        self._ip(  # masquerade drops its entries with the link
            router,
            "link set wan0 down",
            f"addr del {known['wan']}/32 dev wan0",
            f"addr add {wan}/32 dev wan0",
            "link set wan0 up",
            f"route add default via {self._gateway(up)} dev wan0 onlink",
        )
        self._ip(up, f"route del {known['wan']}/32", f"route add {wan}/32 dev {known['outer']}")
        known["wan"] = wan

    def argv(self, host: str, command: list[str]) -> list[str]:
        """The command line that runs a command on a host."""
        return ["ip", "netns", "exec", self.prefix + host, *command]

    def run(self, host: str, command: list[str], **keywords: Any) -> subprocess.CompletedProcess[Any]:
        """Run a command on a host and wait for its end."""
        return subprocess.run(self.argv(host, command), check=keywords.pop("check", False), **keywords)

    def popen(self, host: str, command: list[str], **keywords: Any) -> subprocess.Popen[Any]:
        """Start a command on a host; it ends with the lab at the latest."""
        child = subprocess.Popen(self.argv(host, command), **keywords)
        self._children.append(child)
        return child

    def close(self) -> None:
        """End what runs in our namespaces and the cables, all started here, and take the namespaces down."""
        for space in self.spaces:
            listed = subprocess.run(["ip", "netns", "pids", self.prefix + space], capture_output=True, text=True)
            for pid in map(int, listed.stdout.split()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for child in self._children:
            child.kill()
            child.wait()
            for stream in (child.stdin, child.stdout, child.stderr):
                if stream is not None:
                    stream.close()
        for space in self.spaces:
            subprocess.run(["ip", "netns", "del", self.prefix + space], check=False)
        self.spaces.clear()
        self._children.clear()

    # Small tools

    def _ip(self, space: str, *commands: str) -> None:
        batch = ["ip", "-n", self.prefix + space, "-batch", "-"]
        subprocess.run(batch, input="\n".join(commands), text=True, check=True)

    def _nft(self, space: str, rules: str) -> None:
        self.run(space, ["nft", "-f", "-"], input=rules, text=True, check=True)

    def _sysctl(self, space: str, *settings: str) -> None:
        self.run(space, ["sysctl", "-qw", *settings], check=True)

    def _engine(self, *arguments: str, space: str | None = None) -> subprocess.Popen[Any]:
        command = [sys.executable, "-m", "tests.natlab.engines", *arguments]
        if space is not None:
            return self.popen(space, command, cwd=ROOT, stdin=subprocess.DEVNULL)
        child = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL)
        self._children.append(child)
        return child

    def _namespace(self, space: str) -> None:
        subprocess.run(["ip", "netns", "add", self.prefix + space], check=True)
        self.spaces.append(space)
        each = [f"net.ipv{family}.conf.{which}" for family in (4, 6) for which in ("all", "default")]
        self._sysctl(
            space,
            *(f"{name}.rp_filter=0" for name in each[:2]),
            *(f"{name}.send_redirects=0" for name in each[:2]),
            *(f"{name}.disable_ipv6=1" for name in each[2:]),
        )
        self._ip(space, "link set lo up")

    def _link(self, a: str, if_a: str, b: str, if_b: str, options: dict[str, float]) -> None:
        options = {**self.link_options, **options}
        if any(options.values()):
            figures = [str(options[name]) for name in ("delay", "jitter", "loss")]
            self._engine("cable", self.prefix + a, if_a, self.prefix + b, if_b, *figures)
            self._await(a, if_a)
            self._await(b, if_b)
        else:
            self._ip(a, f"link add {if_a} type veth peer name {if_b} netns {self.prefix}{b}")
        for space, name in ((a, if_a), (b, if_b)):
            self._ip(space, f"link set {name} up")

    def _await(self, space: str, name: str) -> None:
        end = time.monotonic() + DEVICE_WAIT_SECONDS
        while time.monotonic() < end:
            show = ["ip", "-n", self.prefix + space, "link", "show", name]
            if not subprocess.run(show, capture_output=True).returncode:
                return
            time.sleep(0.01)
        raise TimeoutError(f"{name} did not come up in {space}")

    def _gateway(self, space: str) -> str:
        """Its address on all the routed links below it, another one in each space (trap 7 of README.md)."""
        return "169.254.{}.{}".format(*divmod(self.spaces.index(space) + 256, 256))

    def _attach(
        self,
        parent: str,
        child: str,
        child_if: str,
        addresses: tuple[str, ...],
        options: dict[str, float],
        transit: bool = False,
    ) -> None:
        """A routed link: `parent` (inet or a router) reaches `addresses` through `child`."""
        self._count += 1
        near = f"v{self._count}"
        gateway = self._gateway(parent)
        self._link(parent, near, child, child_if, options)
        way = f"via {TRANSIT} dev {near} onlink" if transit else f"dev {near}"
        self._ip(parent, f"addr add {gateway}/32 dev {near}", *(f"route add {each}/32 {way}" for each in addresses))
        own = (TRANSIT,) if transit else addresses
        default = f"route add default via {gateway} dev {child_if} onlink"
        self._ip(child, *(f"addr add {each}/32 dev {child_if}" for each in own), default)
        self._inside(parent, near)
        self._sysctl(parent, "net.ipv4.ip_forward=1")

    def _inside(self, router: str, interface: str) -> None:
        """What comes in by an inner interface of a userspace NAT goes to its tun0."""
        if self.routers.get(router, {}).get("engine") == "user":
            self._ip(router, f"rule add iif {interface} lookup 100")

    def _plug(self, name: str, router: str, address: str | None, options: dict[str, float]) -> None:
        known = self.routers[router]
        network = ipaddress.ip_network(known["inside"])
        gateway = network.network_address + 1
        if "lan" not in known:
            known["lan"] = True
            bridge = f"addr add {gateway}/{network.prefixlen} dev br0"
            self._ip(router, "link add br0 type bridge", "link set br0 up", bridge)
            self._inside(router, "br0")
        if address is None:
            address, known["next"] = str(network.network_address + known["next"]), known["next"] + 1
        self._count += 1
        near = f"v{self._count}"
        self._link(router, near, name, "eth0", {"delay": 0.0, "jitter": 0.0, "loss": 0.0, **options})
        self._ip(router, f"link set {near} master br0")
        self._ip(name, f"addr add {address}/{network.prefixlen} dev eth0", f"route add default via {gateway}")
        self.hosts[name] = address

    def _is_veth(self, host: str) -> bool:
        show = ["ip", "-n", self.prefix + host, "-d", "link", "show", "eth0"]
        return "veth" in subprocess.run(show, capture_output=True, text=True).stdout
