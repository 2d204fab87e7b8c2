"""The daemon as a process: start, second start, stop, kill -9, damaged files, finding each other."""

from __future__ import annotations

import json
import re
import signal
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random

import pytest

from meshcall.drivers.control import SOCKET_NAME
from tests.daemon.processes import bootstrap, daemon, meshcall

RSS_KIB_MAX = 50 * 1024
DOCS = Path(__file__).resolve().parents[2] / "docs"


def _keys(value: object) -> Iterator[str]:
    """All field names of an answer, without the words under which things are counted."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            if key != "counters":
                yield from _keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _keys(inner)


def _identity(home: Path, name: str) -> str:
    made = meshcall("id", "new", "--home", str(home), "--name", name, "--no-passphrase", "--json")
    assert made.returncode == 0, made.stderr
    return str(json.loads(made.stdout)["address"])


def test_two_people_find_each_other_through_their_daemons(tmp_path: Path) -> None:
    ann_home, bob_home = tmp_path / "ann", tmp_path / "bob"
    ann_address = _identity(ann_home, "Ann")
    _identity(bob_home, "Bob")
    with ExitStack() as stack:
        first = stack.enter_context(daemon(tmp_path / "first"))
        second = stack.enter_context(daemon(tmp_path / "second", *bootstrap(first)))
        ann = stack.enter_context(daemon(ann_home, *bootstrap(first, second), publish=True))
        bob = stack.enter_context(daemon(bob_home, *bootstrap(first), publish=True))
        # Bob's record goes to all nodes that there are: by then his node knows them, however slowly they started.
        for one in (ann, bob):
            one.wait_for("record published")

        found = meshcall("lookup", ann_address, "--home", str(bob_home), "--json")
        assert found.returncode == 0, found.stderr + found.stdout
        result = json.loads(found.stdout)
        assert result["outcome"] == "found"
        assert result["address"] == ann_address
        (device,) = result["record"]["devices"]
        assert device["callable"] is True
        assert device["direct"] == [], "addresses are published only where the owner allows"
        assert result["lookups"][0]["report"]["requests"] >= 1

        for_people = meshcall("lookup", "--trace", ann_address, "--home", str(bob_home))
        assert for_people.returncode == 0
        assert "on the network" in for_people.stdout
        assert f"127.0.0.1:{first.port}" in for_people.stdout
        assert "round trip" in for_people.stdout

        alone = meshcall(
            "lookup", ann_address.upper(), "--home", str(tmp_path / "nobody"), "--json", "--bind", "127.0.0.1",
            "--private", *bootstrap(first),
        )  # fmt: skip
        assert alone.returncode == 0, alone.stderr
        assert json.loads(alone.stdout)["found"] is True
        assert not (tmp_path / "nobody").exists(), "a question leaves nothing behind"

        status = json.loads(meshcall("status", "--home", str(ann_home), "--json").stdout)
        assert status["identity"]["address"] == ann_address
        assert status["network"]["joined"] is True
        assert status["record"]["periods"][0]["stored"] >= 1
        assert status["record"]["periods"][0]["next_in_seconds"] > 0
        assert status["network"]["families"][0]["contacts"] >= 2
        text = meshcall("status", "--home", str(ann_home), "--counters").stdout
        assert ann_address in text
        assert "Counters: udp" in text

        documented = set(re.findall(r"[a-z_]+", (DOCS / "control-api.md").read_text()))
        for answer in (status, result):
            assert not set(_keys(answer)) - documented, "docs/control-api.md names every field"

        rss = int(next(line for line in Path(f"/proc/{ann.process.pid}/status").read_text().splitlines()
                       if line.startswith("VmRSS")).split()[1])  # fmt: skip
        assert rss <= RSS_KIB_MAX


def test_over_ipv6_too(tmp_path: Path) -> None:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as one:
            one.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    address = _identity(tmp_path / "ann", "Ann")
    with daemon(tmp_path / "first", "--bind", "::1") as first:
        options = ["--bind", "::1", "--bootstrap", f"[::1]:{first.port}"]
        with daemon(tmp_path / "ann", *options, publish=True) as ann:
            ann.wait_for("record published")
            link = f"meshcall:{address}?name=Ann"
            found = meshcall("lookup", link, "--home", str(tmp_path / "bob"), "--json", "--private", *options)
            assert found.returncode == 0, found.stderr
            assert json.loads(found.stdout)["name"] == "Ann"


def test_nobody_there_and_a_typing_error_are_sentences(tmp_path: Path) -> None:
    address = _identity(tmp_path / "ann", "Ann")
    with daemon(tmp_path / "first") as first:
        options = ["--home", str(tmp_path / "bob"), "--bind", "127.0.0.1", "--private", *bootstrap(first)]
        nobody = meshcall("lookup", address, *options)
        assert nobody.returncode == 1
        assert "Nothing is published" in nobody.stdout
    wrong = meshcall("lookup", address[:20] + ("q" if address[20] != "q" else "p") + address[21:])
    assert wrong.returncode == 1
    assert "21st character cannot be right" in wrong.stderr
    assert "Traceback" not in wrong.stderr + nobody.stderr
    cut_off = meshcall("lookup", address, "--home", str(tmp_path / "bob"))
    assert cut_off.returncode == 1
    assert "knows no node to ask" in cut_off.stdout


def test_a_second_start_says_who_is_there(tmp_path: Path) -> None:
    with daemon(tmp_path) as first:
        again = meshcall("up", "--home", str(tmp_path), "--no-publish")
        assert again.returncode == 1
        assert f"process {first.process.pid}" in again.stderr
        assert "--home" in again.stderr
        assert meshcall("status", "--home", str(tmp_path)).returncode == 0, "the first one goes on"


def test_a_taken_port_is_a_sentence(tmp_path: Path) -> None:
    with daemon(tmp_path / "one") as first:
        port = str(first.port)
        again = meshcall("up", "--home", str(tmp_path / "two"), "--no-publish", "--bind", "127.0.0.1", "--port", port)
        assert again.returncode == 1
        assert f"UDP port {port} is in use" in again.stderr
        assert "Traceback" not in again.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_in_order(tmp_path: Path, number: int) -> None:
    with daemon(tmp_path) as running:
        assert stat.S_IMODE((tmp_path / SOCKET_NAME).stat().st_mode) == 0o600
        assert running.end(number) == 0
        assert "stopped" in running.log
        assert not (tmp_path / SOCKET_NAME).exists()
        assert json.loads((tmp_path / "nodes.json").read_text())["port"] == running.port


def test_under_nohup_it_outlives_its_terminal(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # children inherit what is ignored
    try:
        with daemon(tmp_path) as running:
            running.process.send_signal(signal.SIGHUP)
            assert meshcall("status", "--home", str(tmp_path)).returncode == 0
            assert running.process.poll() is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_after_kill_9_it_starts_again_on_the_same_port(tmp_path: Path) -> None:
    with daemon(tmp_path / "first") as first, daemon(tmp_path / "killed", *bootstrap(first)) as killed:
        killed.wait_for("joined")
        port = killed.port
        killed.end(signal.SIGKILL)
        assert (tmp_path / "killed" / SOCKET_NAME).exists(), "a dead socket is left"
        gone = meshcall("status", "--home", str(tmp_path / "killed"))
        assert gone.returncode == 1
        assert "no node is running here" in gone.stderr
        assert "meshcall up" in gone.stderr
        (tmp_path / "killed" / "daemon.log").unlink()
        with daemon(tmp_path / "killed", *bootstrap(first)) as again:
            assert again.port == port
            assert meshcall("status", "--home", str(tmp_path / "killed")).returncode == 0


def test_known_nodes_are_kept_over_a_restart(tmp_path: Path) -> None:
    with daemon(tmp_path / "first") as first:
        with daemon(tmp_path / "node", *bootstrap(first)) as node:
            node.wait_for("joined")
            node.end()
        (tmp_path / "node" / "daemon.log").unlink()
        with daemon(tmp_path / "node") as again:  # nobody tells it where to begin
            again.wait_for("joined")


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\x00\xff\x00", b"[]", b"{", b'{"version": 1}', b'{"version": 9, "port": 1, "nodes": []}',
        b'{"version": 1, "port": "x", "nodes": []}', b'{"version": 1, "port": 1, "nodes": [["zz", "127.0.0.1:1"]]}',
        b'{"version": 1, "port": 1, "nodes": [["00", "127.0.0.1:1"]]}', b'{"version": 1, "port": 1, "nodes": [[1,2]]}',
        b'{"version": 1, "port": 99999, "nodes": []}', b"[" * 50_000, b" " * 300_000,
    ],
)  # fmt: skip
def test_a_damaged_node_file_is_set_aside(tmp_path: Path, content: bytes) -> None:
    from meshcall.daemon import start_points

    (tmp_path / "nodes.json").write_bytes(content)
    assert start_points.peek(tmp_path) == start_points.Saved()
    saved, message = start_points.load(tmp_path)
    assert saved == start_points.Saved()
    assert message is not None
    assert "damaged" in message
    assert not (tmp_path / "nodes.json").exists()
    assert (tmp_path / "nodes.json.damaged-1").read_bytes() == content
    assert start_points.load(tmp_path) == (start_points.Saved(), None)


def test_a_daemon_with_a_damaged_node_file_says_so_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "nodes.json").write_bytes(b"not JSON at all")
    with daemon(tmp_path) as running:
        assert "nodes.json was damaged and is now nodes.json.damaged-1" in running.log


def test_no_identity_is_a_sentence(tmp_path: Path) -> None:
    none = meshcall("up", "--home", str(tmp_path))
    assert none.returncode == 1
    assert "meshcall id new" in none.stderr
    assert "--no-publish" in none.stderr


def test_systemd_hears_ready_and_stopping_and_is_fed(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(tmp_path / "notify"))
        supervisor.settimeout(20)
        more = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        heard: list[str] = []
        with daemon(tmp_path / "home", wait=False, **more) as running:
            while not any("WATCHDOG=1" in line for line in heard):
                heard.append(supervisor.recv(1000).decode())
            running.end()
        supervisor.settimeout(0.2)
        try:
            while True:
                heard.append(supervisor.recv(1000).decode())
        except TimeoutError:
            pass
    assert sum("READY=1" in line for line in heard) == 1
    assert heard[-1] == "STOPPING=1"


def test_junk_on_both_sockets_does_not_stop_service(tmp_path: Path) -> None:
    rng = Random(7)
    with daemon(tmp_path) as running, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for number in range(2000):
            size = rng.randrange(0, 200)
            stranger.sendto((b"d" if number % 2 else b"") + rng.randbytes(size), ("127.0.0.1", running.port))
        for _ in range(20):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(tmp_path / SOCKET_NAME))
                try:
                    client.sendall(rng.randbytes(rng.randrange(1, 3000)).replace(b"\n", b" ") + b"\n")
                    client.sendall(rng.randbytes(100))
                except BrokenPipeError:
                    pass
        status = json.loads(meshcall("status", "--home", str(tmp_path), "--json").stdout)
        assert status["counters"]["udp"]["received"] > 500
        assert status["counters"]["node"]["unknown kind"] > 100
        assert sum(count for name, count in status["counters"]["dht"].items() if "bad packet" in name) > 100
        assert running.process.poll() is None
        assert "defect" not in running.log


def test_logs_are_json_lines_without_addresses(tmp_path: Path) -> None:
    with daemon(tmp_path / "first") as first:
        home = tmp_path / "json"
        with daemon(home, *bootstrap(first), "--log-format", "json", wait=False) as running:
            running.wait_for('"event": "joined the network"')
            running.end()
        lines = [json.loads(line) for line in (home / "daemon.log").read_text().splitlines()]
        assert {"time", "level", "logger", "event"} <= set(lines[0])
        assert "127.0.0.1" not in (home / "daemon.log").read_text()


def test_a_home_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    wrong = meshcall("up", "--home", str(tmp_path / "file" / "home"), "--no-publish")
    assert wrong.returncode == 1
    assert "cannot be made" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_a_node_that_hangs_does_not_hang_its_user(tmp_path: Path) -> None:
    with daemon(tmp_path) as running:
        running.process.send_signal(signal.SIGSTOP)
        try:
            hung = meshcall("status", "--home", str(tmp_path))
        finally:
            running.process.send_signal(signal.SIGCONT)
        assert hung.returncode == 1
        assert "gave no sign for 5 seconds" in hung.stderr
