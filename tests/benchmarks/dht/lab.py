"""A closed network for DHT tests: one network namespace, one TUN device, one userspace shim.

Every node binds its own address 10.77.a.b and is *seen* by the others as 10.78.a.b: packets to
10.78.* leave through tun0, where the shim swaps the two prefixes (the checksums stay right, since
the swap leaves the sum of the words unchanged), and may delay, drop, count or black-hole them.
Nothing has a route out of the namespace.  A black-holed address is silent, as after a power cut: no
ICMP comes back.

  python lab.py shim SEED     (inside the namespace) JSON lines on stdin/stdout, see `shim`
"""

import fcntl
import heapq
import json
import os
import random
import select
import struct
import subprocess
import sys
import time


def local(i, base=77):
    """The address node number i binds."""
    return f"10.{base}.{i // 250 + 1}.{i % 250 + 1}"


def seen(ip):
    """The address under which the others see that node."""
    return ip.replace("10.77.", "10.78.", 1)


def enter():
    """Become the same program inside a fresh namespace, which ends with it (without root: in a user namespace)."""
    if "DHTLAB_NS" in os.environ:
        check()
        return
    env = dict(os.environ, DHTLAB_NS="1", MESHCALL_NAMESPACE="1")
    flags = "--net" if os.geteuid() == 0 else "--net --user --map-root-user"
    try:
        os.execvpe("unshare", ["unshare", *flags.split(), sys.executable, *sys.argv], env)
    except FileNotFoundError:
        sys.exit("this needs unshare (Debian package util-linux) and Linux network namespaces")


def check():
    """Refuse to go on where there is any link but lo or any route out; then lay lo and tun0."""
    links = [
        line.split(":")[1].strip() for line in subprocess.check_output(["ip", "-o", "link"], text=True).splitlines()
    ]
    if links != ["lo"] or subprocess.check_output(["ip", "route"], text=True).strip():
        sys.exit(f"not an empty namespace: {links}")
    for cmd in (
        "ip link set lo up",
        "ip tuntap add dev tun0 mode tun",
        "ip link set tun0 txqueuelen 20000 mtu 1500 up",
        "ip route add local 10.77.0.0/16 dev lo",
        "ip route add 10.78.0.0/16 dev tun0",
    ):
        subprocess.run(cmd.split(), check=True)
    for key in ("net/ipv4/conf/all/rp_filter", "net/ipv4/conf/tun0/rp_filter"):
        with open("/proc/sys/" + key, "w") as f:
            f.write("0")


def shim(seed):
    """Forward packets.  Commands, one JSON object a line:
    {"delay":[lo_ms,hi_ms]}  {"loss":0.01}  {"dead":[ip,...]}  {"mark":"hex","at":0|null}
    {"count":ip} answers {"pk":sent,"by":bytes,"rq":requests}; {"total":1} answers the sums."""
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH", b"tun0", 0x0001 | 0x1000))  # IFF_TUN | IFF_NO_PI
    print(json.dumps({"ready": 1}), flush=True)
    rng = random.Random(seed)
    lo = hi = loss = 0.0
    dead, mark, at = frozenset(), b"", 0
    counts, heap, n, dropped = {}, [], 0, 0
    late, sent = 0.0, 0  # how far behind their due time delayed packets leave
    stdin = sys.stdin.fileno()
    os.set_blocking(stdin, False)
    buf = b""
    poll = select.poll()
    poll.register(tun, select.POLLIN)
    poll.register(stdin, select.POLLIN)
    while True:
        wait = None
        if heap:
            wait = max(0.0, (heap[0][0] - time.monotonic()) * 1000)
        events = dict(poll.poll(wait))
        if stdin in events:
            data = os.read(stdin, 65536)
            if not data:
                return
            buf += data
            while b"\n" in buf:
                line, buf = buf.split(b"\n", 1)
                cmd = json.loads(line)
                if "delay" in cmd:
                    lo, hi = (x / 1000 for x in cmd["delay"])
                if "loss" in cmd:
                    loss = cmd["loss"]
                if "dead" in cmd:
                    dead = frozenset(bytes(map(int, ip.split("."))) for ip in cmd["dead"])
                    dead |= frozenset(b"\x0a\x4e" + d[2:] for d in dead)
                if "mark" in cmd:
                    mark, at = bytes.fromhex(cmd["mark"]), cmd.get("at")
                out = {"ok": 1}
                if "count" in cmd:
                    c = counts.get(bytes(map(int, cmd["count"].split("."))), (0, 0, 0))
                    out = {"pk": c[0], "by": c[1], "rq": c[2]}
                if "total" in cmd:
                    out = {
                        "pk": sum(c[0] for c in counts.values()),
                        "by": sum(c[1] for c in counts.values()),
                        "rq": sum(c[2] for c in counts.values()),
                        "dropped": dropped,
                        "cpu": time.process_time(),
                        "late_ms": round(late / max(1, sent) * 1000, 2),
                    }
                    late, sent = 0.0, 0
                os.write(1, json.dumps(out).encode() + b"\n")
        if tun in events:
            for _ in range(64):
                try:
                    p = bytearray(os.read(tun, 65535))
                except BlockingIOError:
                    break
                if p[0] != 0x45 or p[9] not in (6, 17) or p[16:18] != b"\x0a\x4e":
                    continue
                src = bytes(p[12:16])
                c = counts.get(src)
                if c is None:
                    c = counts[src] = [0, 0, 0]
                if not (p[6] & 0x1F or p[7]):  # not a later fragment
                    c[0] += 1
                    if mark and (p.find(mark, 28) >= 0 if at is None else p.startswith(mark, 28 + at)):
                        c[2] += 1
                c[1] += len(p)
                if (dead and (src in dead or bytes(p[16:20]) in dead)) or (loss and rng.random() < loss):
                    dropped += 1
                    continue
                p[13], p[17] = 78, 77
                if hi:
                    n += 1
                    heapq.heappush(heap, (time.monotonic() + rng.uniform(lo, hi), n, p))
                else:
                    try:
                        os.write(tun, p)
                    except OSError:
                        dropped += 1
        if heap:
            now = time.monotonic()
            while heap and heap[0][0] <= now:
                due, _, p = heapq.heappop(heap)
                late, sent = late + now - due, sent + 1
                try:
                    os.write(tun, p)
                except OSError:
                    dropped += 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["shim"]:
        shim(int(sys.argv[2]))
    else:
        sys.exit(__doc__)
