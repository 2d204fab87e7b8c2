"""The local networks' group on real sockets, between two namespaces that the test makes; and its arithmetic."""

from __future__ import annotations

import errno
import socket
import subprocess
import sys
import time

import pytest
import trio

from meshcall.drivers.interfaces import LocalNetwork, read_networks
from meshcall.drivers.lan import DATAGRAMS_BURST, DATAGRAMS_PER_SECOND, GROUP_V4, PORT, LanSockets
from meshcall.drivers.udp import open_udp
from meshcall.wire.link import PIECE_BYTES_MAX
from tests.natlab.home import Home, Program

ALICE, BOB = "192.168.77.1", "192.168.77.2"
SPOOF = """
import socket, struct, sys
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
raw.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("192.168.77.1"))
data = b"spoofed"
udp = struct.pack("!HHHH", 4000, {port}, 8 + len(data), 0) + data
head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 1, 17, 0, socket.inet_aton(sys.argv[1]),
                   socket.inet_aton("{group}"))
raw.sendto(head + udp, ("{group}", 0))
"""


def start(home: Home, space: str, port: int, *families: str) -> Program:
    program = home.start(space, "tests.drivers.lan_host", str(port), *(families or ("4",)))
    assert program.line() == "ready"
    return program


def counters(program: Program) -> dict[str, int]:
    program.say("counters")
    word, found = program.line()
    assert word == "counters"
    return dict(found)


def test_neighbours_hear_each_other_and_answer_to_the_main_socket(home: Home) -> None:
    alice, bob = start(home, home.gateway, 4001), start(home, home.host, 4002)
    alice.say("send 100102")
    assert bob.line() == ["heard", f"{ALICE}:4001", "100102"], "sent from the node's own port"
    bob.say(f"to {ALICE}:4001 aabb")
    assert alice.line() == ["answer", f"{BOB}:4002", "aabb"]
    assert counters(alice)["own"] == 1
    assert counters(alice)["sent"] == 1


def test_ipv6_by_an_address_that_has_a_way_back(home: Home) -> None:
    try:
        home.with_ipv6()
        home.ip("-n", home.gateway, "addr", "add", "2001:db8:77::1/64", "dev", "lan0", "nodad")
    except subprocess.CalledProcessError:
        pytest.skip("no IPv6 in namespaces here")
    alice, bob = start(home, home.gateway, 4001, "6"), start(home, home.host, 4002, "6")
    alice.say("send 1001")
    assert bob.line() == ["heard", "[2001:db8:77::1]:4001", "1001"]
    alice.say(f"to 2001:db8:77::2:{PORT} 1002")
    alice.say("send 1003")
    assert bob.line() == ["heard", "[2001:db8:77::1]:4001", "1003"]
    assert counters(bob)["not to the group"] == 1


def test_two_nodes_of_one_machine_hear_each_other(home: Home) -> None:
    alice, other = start(home, home.gateway, 4001), start(home, home.gateway, 4002)
    alice.say("send 1001")
    assert other.line() == ["heard", f"{ALICE}:4001", "1001"]


def test_the_group_is_joined_where_we_are_now(home: Home) -> None:
    alice, bob = start(home, home.gateway, 4001), start(home, home.host, 4002)
    home.ip("-n", home.host, "addr", "flush", "dev", "lan0")
    bob.say("look")
    assert bob.line() == ["joined", 0]
    alice.say("send 1001")
    home.ip("-n", home.host, "addr", "add", "10.9.0.2/24", "dev", "lan0")
    home.ip("-n", home.gateway, "addr", "add", "10.9.0.1/24", "dev", "lan0")
    for one in (alice, bob):
        one.say("look")
        assert one.line() == ["joined", 1]
    bob.say("send 1002")
    assert alice.line() == ["heard", "10.9.0.2:4002", "1002"]
    home.ip("link", "add", "lan1", "netns", home.gateway, "type", "veth", "peer", "lan1", "netns", home.host)
    for space, last in ((home.gateway, 1), (home.host, 2)):
        home.ip("-n", space, "link", "set", "lan1", "up")
        home.ip("-n", space, "addr", "add", f"10.10.0.{last}/24", "dev", "lan1")
    for one in (alice, bob):
        one.say("look")
        assert one.line() == ["joined", 2]
    alice.say("send 1003")
    heard = [bob.line(), bob.line()]
    assert all(word == "heard" and data == "1003" for word, _, data in heard), "on each local network"


def test_too_long_is_not_handed_on(home: Home) -> None:
    alice, bob = start(home, home.gateway, 4001), start(home, home.host, 4002)
    for size in (PIECE_BYTES_MAX + 1, 1400, 9000, PIECE_BYTES_MAX):
        alice.say("send " + "ab" * size)
    assert bob.line() == ["heard", f"{ALICE}:4001", "ab" * PIECE_BYTES_MAX]
    assert counters(bob)["too long"] == 3


@pytest.mark.parametrize("source", ["203.0.113.5", "192.168.78.1", "127.0.0.1", "239.255.109.99"])
def test_a_false_sender_outside_of_the_network_is_dropped(home: Home, source: str) -> None:
    bob = start(home, home.host, 4002)
    text = SPOOF.format(port=PORT, group=GROUP_V4)
    command = ["ip", "netns", "exec", home.gateway, sys.executable, "-c", text]
    subprocess.run([*command, source], check=True)
    subprocess.run([*command, "192.168.77.50"], check=True)  # of a neighbour who is none: the core answers no stranger
    assert bob.line() == ["heard", "192.168.77.50:4000", b"spoofed".hex()]
    assert counters(bob).get("received") == 1


def test_a_flood_is_read_no_faster_than_the_limit(home: Home) -> None:
    alice, bob = start(home, home.gateway, 4001), start(home, home.host, 4002)
    began = time.monotonic()
    for _ in range(5000):
        alice.say("send 1001")
    assert counters(alice)["sent"] == 5000
    heard = 0
    bob.say("counters")
    while (line := bob.line())[0] == "heard":
        heard += 1
    seconds = time.monotonic() - began
    assert line[1]["flood"] >= 1
    assert heard <= DATAGRAMS_BURST + DATAGRAMS_PER_SECOND * (seconds + 1)


def test_which_addresses_are_neighbours() -> None:
    home = LocalNetwork(2, bytes((192, 168, 77, 2)), 24)
    assert home.family == 4
    assert home.holds(bytes((192, 168, 77, 200)))
    assert not home.holds(bytes((192, 168, 78, 2)))
    assert not home.holds(bytes(16))
    assert LocalNetwork(2, bytes.fromhex("20010db8" + "00" * 11 + "01"), 64).family == 6
    assert all(each.prefix_bits < 31 for each in read_networks() if each.family == 4), "who stands alone has none"


async def test_without_a_network_nothing_is_sent_and_nothing_breaks() -> None:
    lan = LanSockets((), lambda source, data: None, read=lambda: (LocalNetwork(1, bytes((10, 0, 0, 1)), 8),))
    async with trio.open_nursery() as nursery:
        await nursery.start(lan.run)
        lan.send(b"\x10")
        lan.network_changed()
        await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert not lan.counters
    assert lan.joined == 0


async def test_without_a_file_to_spare_the_node_goes_on_without_the_group(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_files(*_: object) -> None:
        raise OSError(errno.EMFILE, "too many open files")

    main = open_udp(4, "127.0.0.1")
    lan = LanSockets([main], lambda source, data: None, read=lambda: ())
    monkeypatch.setattr(socket, "socket", no_files)
    async with trio.open_nursery() as nursery:
        await nursery.start(lan.run)
        nursery.cancel_scope.cancel()
    assert lan.counters == {"open EMFILE": 1}
    main.close()


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
async def test_who_writes_to_the_ipv6_port_from_afar_takes_nothing_from_ipv4() -> None:
    main = [open_udp(4, "127.0.0.1"), open_udp(6, "::1")]
    lan = LanSockets(main, lambda source, data: None, read=lambda: ())
    now = trio.current_time()
    while lan._budgets[6].take(now):
        pass
    assert all(lan._budgets[4].take(now) for _ in range(int(DATAGRAMS_BURST)))
    for one in main:
        one.close()
