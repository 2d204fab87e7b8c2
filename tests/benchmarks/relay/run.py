"""CPU per forwarded packet of our relay and of coturn, in turn, in the same run.

    python tests/benchmarks/relay/run.py [--calls 200] [--rounds 5] [--seconds 4] [--json FILE]

`meshcall` is the daemon as users start it, with leases that real links asked for; `meshcall-alone` the relay's
core and hot path without the rest of a node, `meshcall-plain` that without recvmmsg.

Needs gcc for the load generator (the relay itself needs no compiler), and coturn (Debian: `apt install
coturn`) to compare with; what is missing is named in one line.  The machine may be busy with other
things: compare inside a round only.  What the figures mean: docs/relay.md.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ENDS_IP, RELAY_IP, RELAY_PORT, ENDS_PORT = "127.77.0.1", "127.77.0.2", 3478, 20000
START_SECONDS_MAX = 20.0
STOP_SECONDS_MAX = 5.0
COTURN_START_SECONDS = 1.5
FIRST_CHANNEL = 0x4000
FILES = 8192
SURROUNDINGS = {
    **{name: value for name, value in os.environ.items() if not name.startswith("MESHCALL_")},
    "MESHCALL_OFFLINE": "1",
    "PYTHONPATH": str(HERE.parents[2]),
    "PYTHONUNBUFFERED": "1",
}
Figures = dict[str, Any]


def coturn(folder: Path) -> list[str]:
    """coturn at its best: one relay thread, no authentication, no log, nothing but UDP."""
    return [
        "turnserver", "-n", "-z", "-m", "1", "-L", RELAY_IP, "-E", RELAY_IP, "-p", str(RELAY_PORT),
        "--min-port", "40000", "--max-port", "49151", "--allow-loopback-peers", "--no-tls", "--no-dtls", "--no-tcp",
        "--no-tcp-relay", "--no-cli", "--no-multicast-peers", "--log-file", os.devnull, "--simple-log",
        "--pidfile", f"{folder}/turn.pid", "--userdb", f"{folder}/turndb", "--realm", "bench",
    ]  # fmt: skip


def daemon(folder: Path, calls: int) -> list[str]:
    """`meshcall up` with a new identity, as a relay for everybody."""
    home = str(folder / "home")
    program = [sys.executable, "-m", "meshcall"]
    made = [*program, "id", "new", "--home", home, "--no-passphrase"]
    subprocess.run(made, check=True, env=SURROUNDINGS, stdout=subprocess.DEVNULL)
    uplink = 200 * calls + 1000  # kbit/s: a call takes 128
    config = f'[relay]\nmode = "open"\nleases = 0\nleases_max = {calls + 8}\nuplink_kbit_per_second = {uplink}\n'
    (folder / "bench.toml").write_text(config)
    options = ["--home", home, "--config", str(folder / "bench.toml"), "--bind", RELAY_IP, "--port", str(RELAY_PORT)]
    return [*program, "up", *options, "--private"]


def alone(folder: Path, calls: int, plain: bool) -> list[str]:
    """Our relay without the rest of a node."""
    command = [
        sys.executable, str(HERE / "standalone.py"), "--listen", f"{RELAY_IP}:{RELAY_PORT}",
        "--control", f"{folder}/door", "--calls", str(calls),
    ]  # fmt: skip
    return [*command, "--plain"] if plain else command


def turn_flows(calls: int, payload: int, out: Path) -> None:
    """One allocation a call: even ends are TURN clients with a channel, odd ones plain peers."""
    from turn_client import allocate

    lines = []
    for number in range(calls):
        local, peer = (ENDS_IP, ENDS_PORT + 2 * number), (ENDS_IP, ENDS_PORT + 2 * number + 1)
        channel = FIRST_CHANNEL + number
        relayed = allocate((RELAY_IP, RELAY_PORT), local, peer, channel)
        prefix = channel.to_bytes(2, "big") + payload.to_bytes(2, "big")
        lines.append(f"{local[0]} {local[1]} {RELAY_IP} {RELAY_PORT} {prefix.hex()} {2 * number + 1}\n")
        lines.append(f"{peer[0]} {peer[1]} {relayed[0]} {relayed[1]} - {2 * number}\n")
    out.write_text("".join(lines))


def our_flows(calls: int, folder: Path, out: Path, *, by_links: bool) -> None:
    """Real leases and flows."""
    command = [
        sys.executable, str(HERE.parent / "relay_flows.py"), "--relay", f"{RELAY_IP}:{RELAY_PORT}",
        "--calls", str(calls), "--ip", ENDS_IP, "--port", str(ENDS_PORT), "--out", str(out),
        *([] if by_links else ["--control", f"{folder}/door"]),
    ]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def relay_counters(name: str, folder: Path, said: bytes) -> dict[str, Any]:
    """What our relay itself counted."""
    if name == "meshcall":
        command = [sys.executable, "-m", "meshcall", "relay", "status", "--home", str(folder / "home"), "--json"]
        done = subprocess.run(command, check=True, env=SURROUNDINGS, stdout=subprocess.PIPE)
        relay = json.loads(done.stdout)["relay"]
        forwarding = relay["forwarding"]
        dropped = sum(one["dropped"] or 0 for one in forwarding["sockets"])
        return {
            "path": forwarding["path"], "dropped by its socket": dropped,
            **{f"core: {key}": count for key, count in relay["counters"].items()}, **forwarding["counters"],
        }  # fmt: skip
    return dict(json.loads(said.splitlines()[-1])) if said.strip() else {}


def system_drops() -> dict[str, int]:
    """Datagrams that the kernel has dropped since it started, of all programs, by the place where."""
    head, values = (line.split() for line in Path("/proc/net/snmp").read_text().splitlines() if line.startswith("Udp:"))
    udp = dict(zip(head, values, strict=True))
    backlog = sum(int(line.split()[1], 16) for line in Path("/proc/net/softnet_stat").read_text().splitlines())
    return {
        "receive buffer full": int(udp["RcvbufErrors"]),
        "send buffer full": int(udp["SndbufErrors"]),
        "backlog of a processor full": backlog,
    }


def pin(cpu: int, priority: int) -> None:
    """Bind the calling process to one processor core, with real-time priority if asked."""
    if cpu >= 0:
        os.sched_setaffinity(0, {cpu})
    if priority:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(priority))


@contextmanager
def running(name: str, folder: Path, options: argparse.Namespace) -> Iterator[subprocess.Popen[bytes]]:
    """The relay process, ready."""
    is_ours, is_alone = name != "coturn", name.startswith("meshcall-")
    if is_ours:
        command = alone(folder, options.calls, name.endswith("plain")) if is_alone else daemon(folder, options.calls)
    else:
        command = coturn(folder)
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE if is_ours else subprocess.DEVNULL,
        stderr=subprocess.PIPE if is_alone else subprocess.STDOUT if is_ours else subprocess.DEVNULL,
        cwd=folder,
        env=SURROUNDINGS,
        preexec_fn=lambda: pin(options.relay_cpu, options.priority),
    )
    try:
        if is_ours:
            assert process.stdout is not None
            while line := process.stdout.readline():
                if line.strip() == b"READY" or b"  ready  " in line:
                    break
            else:
                raise RuntimeError(f"{name} did not start")
        else:
            time.sleep(COTURN_START_SECONDS)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def measure(name: str, generator: Path, options: argparse.Namespace) -> Figures:
    """One run of one relay."""
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        flows = folder / "flows"
        with running(name, folder, options) as process:
            if name == "coturn":
                turn_flows(options.calls, options.payload, flows)
            else:
                our_flows(options.calls, folder, flows, by_links=name == "meshcall")
            command = [
                str(generator), "--flows", str(flows), "--pid", str(process.pid), "--mode", options.mode,
                "--pps", str(options.rate), "--secs", str(options.seconds), "--warmup", "1",
                "--payload", str(options.payload), "--cpu", str(options.generator_cpu),
            ]  # fmt: skip
            before, started = system_drops(), time.monotonic()
            stalls = threading.Timer(2.0, stall, [process.pid, options.stall, started + options.seconds + 1])
            if options.stall:
                stalls.start()
            result = subprocess.run(
                command, stdout=subprocess.PIPE, timeout=options.seconds + 60,
                check=True, preexec_fn=lambda: pin(-1, options.priority),
            )  # fmt: skip
            if options.stall:
                stalls.join()
            drops = {place: count - before[place] for place, count in system_drops().items()}
            counters = relay_counters(name, folder, b"") if name == "meshcall" else {}
        if name.startswith("meshcall-"):
            counters = relay_counters(name, folder, process.stderr.read() if process.stderr is not None else b"")
    return {
        "relay": name, "calls": options.calls, **json.loads(result.stdout), "relay_counters": counters,
        "system_drops": drops,
    }  # fmt: skip


def stall(pid: int, milliseconds: int, until: float) -> None:
    """Stop the relay for so long once a second, as a busy machine may do."""
    while time.monotonic() < until:
        os.kill(pid, signal.SIGSTOP)
        time.sleep(milliseconds / 1000)
        os.kill(pid, signal.SIGCONT)
        time.sleep(max(0.0, 1 - milliseconds / 1000))


def build(folder: Path) -> Path | None:
    """The load generator, or None where there is no compiler."""
    if shutil.which("gcc") is None:
        print("skipped: the load generator needs gcc (Debian: apt install gcc libc6-dev)")
        return None
    out = folder / "loadgen"
    subprocess.run(["gcc", "-O2", "-Wall", "-o", str(out), str(HERE / "loadgen.c")], check=True)
    return out


def refusals(run: Figures) -> str:
    """What our relay refused itself, for the line of a run; what is lost beside it, the system lost."""
    words = ("over quota", "room", "full", "forward ", "dropped", "faults")
    counted = {**run["relay_counters"], **{f"system: {place}": n for place, n in run["system_drops"].items()}}
    said = [f"{count} {name}" for name, count in counted.items() if count and any(word in name for word in words)]
    return ", " + ", ".join(said) if said else ""


def table(runs: list[Figures]) -> list[str]:
    """Medians over the rounds, as Markdown; ratios are medians of the ratios inside each round."""
    names = list(dict.fromkeys(run["relay"] for run in runs))
    by_round = {(run["relay"], run["round"]): run["relay_cpu_us_per_pkt"] for run in runs}
    lines = [
        "| relay | CPU us per packet (min..max) | x coturn | packets/s | lost | p50 / p99 / p99.9 ms "
        "| wake-ups/s | MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in names:
        own = [run for run in runs if run["relay"] == name]
        cpu = [run["relay_cpu_us_per_pkt"] for run in own]
        ratios = [
            by_round[name, run["round"]] / by_round["coturn", run["round"]]
            for run in own
            if ("coturn", run["round"]) in by_round
        ]
        ratio = f"{statistics.median(ratios):.2f}" if ratios else "-"
        delays = " / ".join(
            f"{statistics.median(run['lat_us'][field] for run in own) / 1000:.2f}" for field in ("p50", "p99", "p999")
        )
        sent = sum(run["sent"] for run in own)
        lost = sent - sum(run["delivered"] for run in own)
        lines.append(
            f"| {name} | {statistics.median(cpu):.2f} ({min(cpu):.2f}..{max(cpu):.2f}) | {ratio} "
            f"| {statistics.median(run['fwd_pps'] for run in own):,.0f} | {lost} of {sent:,} "
            f"| {delays} | {statistics.median(run['relay_vol_cs_per_s'] for run in own):,.0f} "
            f"| {statistics.median(run['relay_rss_kb'] for run in own) / 1024:.0f} |"
        )
    return lines


def main() -> None:
    """Measure in turn, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--relays", default="coturn,meshcall", help="and meshcall-alone, meshcall-plain")
    parser.add_argument("--stall", type=int, default=0, help="stop the relay for so many milliseconds once a second")
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--rate", type=float, default=50, help="packets per second of each end")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--payload", type=int, default=120, help="bytes")
    parser.add_argument("--mode", choices=["paced", "flood"], default="paced")
    parser.add_argument("--generator-cpu", type=int, default=0)
    parser.add_argument("--relay-cpu", type=int, default=min(1, (os.cpu_count() or 1) - 1))
    parser.add_argument("--priority", type=int, default=0, help="real-time, for delays on a busy machine (root)")
    parser.add_argument("--json", type=Path, help="append the runs to this file")
    options = parser.parse_args()
    names = options.relays.split(",")
    if "coturn" in names and shutil.which("turnserver") is None:
        print("without coturn, which is not installed here (Debian: apt install coturn): no ratio")
        names.remove("coturn")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, FILES)), hard))
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        generator = build(Path(folder))
        if generator is None:
            return
        for number in range(options.rounds):
            for name in names:
                run = {**measure(name, generator, options), "round": number}
                runs.append(run)
                print(
                    f"round {number + 1} {name:16s} {run['relay_cpu_us_per_pkt']:6.2f} us/packet, lost "
                    f"{run['sent'] - run['delivered']}, p99 {run['lat_us']['p99'] / 1000:.2f} ms, "
                    f"load of the machine {os.getloadavg()[0]:.1f}{refusals(run)}",
                    file=sys.stderr,
                    flush=True,
                )
    print("\n".join(table(runs)))
    if options.json:
        with options.json.open("a") as file:
            file.writelines(json.dumps(run) + "\n" for run in runs)


if __name__ == "__main__":
    main()
