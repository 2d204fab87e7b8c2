"""What a flood costs a daemon: forged first messages to the local networks' group, and the same to its own port.

    sudo .venv/bin/python tests/benchmarks/lan_flood.py [--seconds 4] [--rate 20000]

Two network namespaces and a cable between them.  Each piece has the right `mac1` (its sender knows the callee's
public key); two pieces are a message, so 20,000 a second are 10,000 messages.  CPU of the daemon's process.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from meshcall.handshake.cookie import mac_key, with_macs
from meshcall.handshake.pieces import cut
from meshcall.wire.link import FORM_HYBRID, encode_piece
from tests.natlab.home import ROOT, Home
from tests.natlab.lab import missing

PORT, GROUP = 40_123, ("239.255.109.99", 28003)
HOST = "192.168.77.2"
FLOOD = """
import socket, sys, time
data = [bytes.fromhex(line) for line in sys.stdin.read().split()]
host, port, rate, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
one.bind(("192.168.77.1", 4000))
sent, began = 0, time.monotonic()
while (passed := time.monotonic() - began) < seconds:
    while sent < passed * rate:
        one.sendto(data[sent % len(data)], (host, port))
        sent += 1
    time.sleep(0.001)
print(sent)
"""


def cpu_seconds(pid: int) -> float:
    """Of a process, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def static_key(folder: Path) -> bytes:
    """The daemon's, out of the hello answer of its relay (docs/relay.md), asked for on loopback."""
    code = (
        "import socket; from meshcall.wire import relay as w; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); "
        f"s.settimeout(5); s.sendto(w.hello(bytes(8)), ('{HOST}', {PORT})); "
        "print(w.decode_hello_answer(w.decode_frame(s.recv(2048))).static.hex())"
    )
    done = subprocess.run([*folder_command(folder), "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return bytes.fromhex(done.stdout)


def folder_command(folder: Path) -> list[str]:
    """Python in the namespace named in this folder."""
    return ["ip", "netns", "exec", (folder / "space").read_text(), sys.executable]


def main() -> None:
    """Flood, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rate", type=int, default=20_000, help="pieces a second")
    options = parser.parse_args()
    if lacks := missing(routers=False):
        sys.exit(f"namespaces: {lacks}")
    daemon: subprocess.Popen[bytes] | None = None
    with Home() as home, tempfile.TemporaryDirectory() as text:
        try:
            folder = Path(text)
            (folder / "space").write_text(home.host)
            environment = {**os.environ, "MESHCALL_OFFLINE": "1", "MESHCALL_NAMESPACE": "1", "PYTHONPATH": str(ROOT)}
            (folder / "c.toml").write_text('[relay]\nmode = "open"\nleases = 0\n')
            program = [*folder_command(folder), "-m", "meshcall"]
            where = ["--home", str(folder / "home")]
            subprocess.run([*program, "id", "new", *where, "--no-passphrase"], env=environment, check=True,
                           stdout=subprocess.DEVNULL)  # fmt: skip
            daemon = subprocess.Popen(
                [*program, "up", *where, "--config", str(folder / "c.toml"), "--private", "--port", str(PORT)],
                env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            )  # fmt: skip
            assert daemon.stderr is not None
            while b"  ready  " not in daemon.stderr.readline():
                assert daemon.poll() is None
            time.sleep(1.0)
            key, rng = mac_key(static_key(folder)), Random(1)
            pieces = [
                with_macs(encode_piece(piece), key, None).hex()
                for _ in range(200)
                for piece in cut(rng.randbytes(1434), FORM_HYBRID, rng.randbytes(4))
            ]
            for name, (host, port) in (("nothing", ("", 0)), ("its port", (HOST, PORT)), ("the group", GROUP)):
                before, began = cpu_seconds(daemon.pid), time.monotonic()
                sent = "0"
                if host:
                    flood = ["ip", "netns", "exec", home.gateway, sys.executable, "-c", FLOOD]
                    figures = [host, str(port), str(options.rate), str(options.seconds)]
                    done = subprocess.run(
                        [*flood, *figures], input="\n".join(pieces), capture_output=True, text=True, check=True
                    )
                    sent = done.stdout.strip()
                else:
                    time.sleep(options.seconds)
                spent, took = cpu_seconds(daemon.pid) - before, time.monotonic() - began
                print(f"flood of {name:10s} {int(sent) / took:8.0f} pieces/s: {100 * spent / took:5.1f} % of one core")
            said = subprocess.run([*program, "status", *where, "--json"], env=environment, capture_output=True)
            udp = json.loads(said.stdout)["counters"]["udp"]
            print({name: count for name, count in udp.items() if name.startswith("lan")})
        finally:
            if daemon is not None:
                daemon.send_signal(signal.SIGTERM)
                daemon.wait(15)


if __name__ == "__main__":
    main()
