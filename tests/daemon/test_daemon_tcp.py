"""A relay's TCP side as its owner sees it: where it listens, what it answers, what it says when it cannot."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from meshcall.config import parse
from meshcall.errors import ConfigError
from meshcall.wire import detour
from meshcall.wire import relay as wire
from tests.daemon.processes import daemon, meshcall


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def relay_home(folder: Path, tcp_port: int) -> tuple[Path, Path]:
    """A home with an identity, and the configuration of a relay."""
    home, config = folder / "home", folder / "relay.toml"
    assert meshcall("id", "new", "--home", str(home), "--no-passphrase").returncode == 0
    config.write_text(f'[relay]\nmode = "open"\ntcp_port = {tcp_port}\n[dht]\nreachable = "yes"\n')
    return home, config


def said(home: Path, *command: str) -> dict[str, Any]:
    return dict(json.loads(meshcall(*command, "--home", str(home), "--json").stdout))


def exchange(stream: socket.socket, datagram: bytes) -> bytes:
    """The next record after one of ours."""
    stream.sendall(len(datagram).to_bytes(2, "big") + datagram)
    head = stream.recv(2, socket.MSG_WAITALL)
    return stream.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL)


def test_a_relay_answers_over_tcp_and_says_so(tmp_path: Path) -> None:
    port = free_port()
    home, config = relay_home(tmp_path, port)
    with daemon(home, "--config", str(config), publish=True) as running:
        running.wait_for("the relay takes TCP too")
        with socket.create_connection(("127.0.0.1", port), timeout=10) as stream:
            answer = wire.decode_frame(exchange(stream, wire.hello(b"a number")))
            assert answer.frame_id == b"a number"
            assert wire.decode_hello_answer(answer).tcp_port == port
            number, refused = detour.decode(exchange(stream, detour.encode(5, detour.Knock())))
            assert (number, refused) == (5, detour.Refused(detour.NO_NETWORK, 5)), "it is alone and knows no DHT"
            relay = said(home, "relay", "status")
            assert relay["tcp_port"] == port
            assert relay["tcp_connections"] == {"with_us": 1, "to_others": 0}
            assert relay["over_tcp"] is False
            shown = meshcall("relay", "status", "--home", str(home)).stdout
            assert f"port {port}, 1 connection" in shown
            status = said(home, "status")
            assert status["counters"]["tcp"]["relay tcp accepted"] == 1
            assert status["network"]["udp_barred"] is False
            assert status["network"]["gateways"] == 0
            documented = (Path(__file__).parents[2] / "docs" / "control-api.md").read_text()
            assert all(f"`{name}`" in documented for name in relay)
            stream.sendall(b"GET / HTTP/1.1\r\n\r\n" + bytes(20_000))
            stream.settimeout(10)
            with pytest.raises((ConnectionResetError, EOFError)):
                if not stream.recv(100):
                    raise EOFError
        assert said(home, "status")["counters"]["tcp"]["relay tcp bad length"] == 1


def test_a_port_that_is_taken_is_one_line_in_the_log_and_no_end(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        home, config = relay_home(tmp_path, port)
        with daemon(home, "--config", str(config), publish=True) as running:
            assert running.log.count("the relay takes no TCP") == 1
            assert f"port {port}: Address already in use" in running.log
            relay = said(home, "relay", "status")
            assert relay["tcp_port"] is None
            assert relay["relay"]["mode"] == "open"


@pytest.mark.parametrize("value", ["0", "80", "65536", "-1", '"some"', "true"])
def test_ports_that_will_not_do_are_refused(value: str) -> None:
    with pytest.raises(ConfigError, match="tcp_port"):
        parse(f"[relay]\ntcp_port = {value}", "test")


@pytest.mark.parametrize(("value", "expected"), [("443", 443), ("8443", 8443), ('"auto"', "auto"), ('"off"', "off")])
def test_ports_that_do(value: str, expected: object) -> None:
    assert parse(f"[relay]\ntcp_port = {value}", "test").relay.tcp_port == expected
