"""Two daemons as processes ping each other by address alone."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from pathlib import Path

from meshcall.drivers.relay_batch import has_mmsg
from tests.daemon.processes import Daemon, bootstrap, daemon, meshcall


def _identity(home: Path, name: str) -> str:
    made = meshcall("id", "new", "--home", str(home), "--name", name, "--no-passphrase", "--json")
    assert made.returncode == 0, made.stderr
    return str(json.loads(made.stdout)["address"])


def _person(stack: ExitStack, home: Path, config: str, *known: Daemon) -> Daemon:
    home.mkdir(exist_ok=True)
    file = home / "some.toml"
    file.write_text(config)
    return stack.enter_context(daemon(home, "--config", str(file), *bootstrap(*known), publish=True))


def test_ping_finds_links_and_echoes(tmp_path: Path) -> None:
    ann_home, bob_home = tmp_path / "ann", tmp_path / "bob"
    ann_address = _identity(ann_home, "Ann")
    bob_address = _identity(bob_home, "Bob")
    with ExitStack() as stack:
        first = stack.enter_context(daemon(tmp_path / "first"))
        second = stack.enter_context(daemon(tmp_path / "second", *bootstrap(first)))
        ann = _person(stack, ann_home, '[record]\npublish_addresses = "always"\n', first, second)
        bob = _person(stack, bob_home, "", first)
        ann.wait_for("record found again")
        bob.wait_for("record found again")

        pinged = meshcall("ping", ann_address, "--home", str(bob_home), "--json", "--count", "3", "--interval", "0.1")
        assert pinged.returncode == 0, pinged.stderr + pinged.stdout
        result = json.loads(pinged.stdout)
        assert (result["sent"], result["answered"]) == (3, 3)
        assert result["first_path"] == result["last_path"] == f"direct 127.0.0.1:{ann.port}"
        line = result["time_line"]
        assert line["resolved"] <= line["first_packet"] <= line["handshake"] <= line["first_echo"] <= line["direct"]

        for_people = meshcall("ping", ann_address, "--home", str(bob_home), "--count", "1")
        assert for_people.returncode == 0, for_people.stderr
        assert f"direct 127.0.0.1:{ann.port}" in for_people.stdout
        assert "1 of 1 echoes answered" in for_people.stdout
        assert "no link is open" in meshcall("paths", "--home", str(bob_home)).stdout, "a ping closes its link"

        nobody = meshcall("ping", bob_address, "--home", str(ann_home))
        assert nobody.returncode == 1
        assert "names no relay and no address" in nobody.stderr
        own = meshcall("ping", bob_address, "--home", str(bob_home))
        assert own.returncode == 1
        assert "your own address" in own.stderr


def test_strangers_meet_at_a_relay_and_contacts_go_direct(tmp_path: Path) -> None:
    homes = {name: tmp_path / name for name in ("ann", "bob", "vera")}
    addresses = {name: _identity(home, name) for name, home in homes.items()}
    with ExitStack() as stack:
        first = stack.enter_context(daemon(tmp_path / "first"))
        second = stack.enter_context(daemon(tmp_path / "second", *bootstrap(first)))
        relay = '[relay]\nmode = "open"\nleases = 0\n[dht]\nreachable = "yes"\n'
        vera = _person(stack, homes["vera"], relay, first, second)
        vera.wait_for("record found again")
        ann = _person(stack, homes["ann"], "", first, second)
        trusts = f'[contacts]\ntrusted = ["{addresses["ann"]}"]\n'
        bob = _person(stack, homes["bob"], trusts, first, second)
        ann.wait_for("place at a relay")
        bob.wait_for("place at a relay")

        def ping(who: str, whom: str, *options: str) -> dict[str, object]:
            end = time.monotonic() + 20
            while True:  # until the record that names the lease is out
                pinged = meshcall("ping", addresses[whom], "--home", str(homes[who]), "--json", *options)
                if pinged.returncode == 0:
                    return dict(json.loads(pinged.stdout))
                assert time.monotonic() < end, pinged.stderr + pinged.stdout
                time.sleep(0.5)

        stranger = ping("bob", "ann", "--count", "10", "--interval", "0.1")
        assert stranger["first_path"] == stranger["last_path"] == f"relay 127.0.0.1:{vera.port}"
        contact = ping("ann", "bob", "--count", "20", "--interval", "0.1", "--direct")
        assert contact["first_path"] == f"relay 127.0.0.1:{vera.port}"
        assert contact["last_path"] == f"direct 127.0.0.1:{bob.port}"

        said = json.loads(meshcall("relay", "status", "--home", str(homes["vera"]), "--json").stdout)
        assert said["relay"]["leases"] == 2
        forwarding = said["relay"]["forwarding"]
        assert forwarding["path"] == ("recvmmsg" if has_mmsg() else "recvfrom")
        assert forwarding["counters"]["forwarded"] > 20, "what has a route does not meet the core"
        assert [one["family"] for one in forwarding["sockets"]] == [4]
        assert forwarding["sockets"][0]["receive_buffer_bytes"] >= 1 << 17
        for_people = meshcall("relay", "status", "--home", str(homes["vera"])).stdout
        assert "for everybody" in for_people
        assert "in a thread of their own" in for_people
        assert vera.end() == 0
        assert "the node goes on" not in vera.log
        mine = meshcall("relay", "status", "--home", str(homes["ann"])).stdout
        assert f"127.0.0.1:{vera.port}" in mine
