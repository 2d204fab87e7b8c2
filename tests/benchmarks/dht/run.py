"""Measure one DHT implementation: a swarm in a closed namespace, puts, gets, cold gets, sudden death.

  python run.py --name libtorrent --adapter "python adapters/libtorrent_node.py" --n 200 --kill 0.3 --delay 40,80

One JSON line a phase goes to --out (and stdout).  README.md has the phases and the adapter protocol.
"""

import argparse
import asyncio
import json
import os
import random
import shlex
import signal
import subprocess
import time

import lab
from children import Child, Shim, distribution, pooled

PORT = 20000
IDLE_SECONDS = 10
CORES = os.cpu_count() or 1


class Run:
    """One swarm from its first node to its end."""

    def __init__(self, args):
        self.args = args
        self.rng = random.Random(args.seed)
        self.delay = [float(part) for part in args.delay.split(",")] if args.delay else [0.0, 0.0]
        self.base = {"name": args.name, "n": args.n, "delay": self.delay, "loss": args.loss, "seed": args.seed}
        self.workers, self.listeners = [], []
        self.owner, self.live = {}, []
        self.busy, self.keys = set(), []
        self.boot = [lab.seen(lab.local(0)), PORT]
        self.empty_kib = 0
        self.shim = None
        self.errors = subprocess.DEVNULL

    async def all_phases(self):
        """The whole run."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.abort)
        if self.args.stderr:
            self.errors = os.open(self.args.stderr, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        self.shim = await Shim.start(self.args.seed)
        await self.swarm_up()
        await asyncio.sleep(self.args.settle / 2)
        if self.args.warm:
            await self.warm_up()
        await asyncio.sleep(self.args.settle / 2)
        await self.rest()
        await self.puts()
        await asyncio.sleep(1)
        if self.keys:
            await self.gets("get_warm", self.live)
            if self.args.kill:
                await self.sudden_death()
            await self.cold_gets()
        total = await self.shim.ask(total=1)
        self.report("end", packets=total["pk"], shim_cpu_s=round(total["cpu"], 1), errors=[])
        for child in [*self.workers, self.shim]:
            child.end()
            await child.process.wait()

    def abort(self):
        """Leave nothing behind."""
        for child in [*self.workers, *([self.shim] if self.shim else [])]:
            child.end()
        os._exit(1)

    def report(self, phase, **fields):
        """One line of the result."""
        line = json.dumps({**self.base, "phase": phase, **fields})
        print(line, flush=True)
        if self.args.out:
            with open(self.args.out, "a") as file:
                file.write(line + "\n")

    def summary(self, phase, results, **fields):
        """One line about many operations."""
        good = [result for result in results if result["ok"]]
        self.report(
            phase,
            ok=len(good),
            total=len(results),
            first_ms=distribution(result.get("first") for result in good),
            done_ms=distribution(result.get("ms") for result in good),
            fail_ms=distribution(result.get("ms") for result in results if not result["ok"]),
            requests=distribution(result.get("rq") for result in results),
            packets=distribution(result.get("pk") for result in results),
            errors=sorted({result["error"] for result in results if result.get("error")})[:3],
            **fields,
        )

    def cpu(self):
        """Processor seconds of everything so far."""
        return sum(child.cpu() for child in [*self.workers, self.shim])

    async def worker(self):
        """One more process for nodes."""
        worker = await Child.open(shlex.split(self.args.adapter), errors=self.errors)
        self.listeners.append(asyncio.create_task(worker.listen()))
        self.workers.append(worker)
        return worker

    async def up(self, number, worker):
        """One more node."""
        self.owner[number] = worker
        return await worker.call(
            "start", node=str(number), ip=lab.local(number), port=PORT, boot=self.boot if number else None
        )

    async def swarm_up(self):
        """All nodes join node 0."""
        args = self.args
        hello = await (await self.worker()).call("hello")
        self.base["version"] = hello.get("version")
        await self.shim.ask(mark=hello.get("mark", ""), at=hello.get("at"))
        await self.shim.ask(delay=self.delay, loss=args.loss)
        for _ in range((args.n + args.per_proc - 1) // args.per_proc - 1):
            await (await self.worker()).call("hello")
        self.empty_kib = sum(worker.rss() for worker in self.workers)
        begun = time.monotonic()
        started = [await self.up(0, self.workers[0])]
        started += await pooled(
            args.width,
            [lambda i=i: self.up(i, self.workers[i % len(self.workers)]) for i in range(1, args.n)],
        )
        took = time.monotonic() - begun
        self.live = [number for number in range(args.n) if started[number]["ok"]]
        total = await self.shim.ask(total=1)
        self.report(
            "up",
            ok=len(self.live),
            total=args.n,
            seconds=round(took, 1),
            join_ms=distribution(result.get("ms") for result in started[1:]),
            packets_per_node=round(total["pk"] / args.n, 1),
            errors=[result.get("error") for result in started if not result["ok"]][:2],
        )

    async def warm_up(self):
        """Every node looks up a few random absent keys, so that tables fill."""
        before, begun = await self.shim.ask(total=1), time.monotonic()
        for _ in range(self.args.warm):
            await pooled(
                self.args.width,
                [lambda i=i: self.owner[i].call("get", node=str(i), key=None) for i in self.live],
            )
        after = await self.shim.ask(total=1)
        self.report(
            "warmup",
            lookups=self.args.warm * len(self.live),
            seconds=round(time.monotonic() - begun, 1),
            requests_per_lookup=round((after["rq"] - before["rq"]) / self.args.warm / len(self.live), 1),
        )

    async def rest(self):
        """What the swarm costs while nobody asks for anything."""
        count = self.args.n
        before = await self.shim.ask(total=1)
        await asyncio.sleep(IDLE_SECONDS)
        after = await self.shim.ask(total=1)
        resident = sum(worker.rss() for worker in self.workers)
        self.report(
            "memory",
            rss_kib_per_node=round(resident / count),
            marginal_kib_per_node=round((resident - self.empty_kib) / count),
            processes=len(self.workers),
            idle_packets_per_node_s=round((after["pk"] - before["pk"]) / IDLE_SECONDS / count, 2),
            cpu_s_per_node=round(sum(worker.cpu() for worker in self.workers) / count, 3),
        )

    async def counted(self, number, op, **fields):
        """One operation and the packets that its node sent meanwhile."""
        before = await self.shim.ask(count=lab.local(number))
        result = await self.owner[number].call(op, node=str(number), **fields)
        after = await self.shim.ask(count=lab.local(number))
        result.update(pk=after["pk"] - before["pk"], rq=after["rq"] - before["rq"], by=after["by"] - before["by"])
        return result

    async def by_idle_node(self, nodes, op, **fields):
        """The same at a random node; one operation a node at a time, so that its packets are its own."""
        while (number := self.rng.choice(nodes)) in self.busy:  # noqa: ASYNC110 - any node will do, not one
            await asyncio.sleep(0.005)
        self.busy.add(number)
        try:
            return await self.counted(number, op, **fields)
        finally:
            self.busy.discard(number)

    async def puts(self):
        """Items from random nodes."""

        async def one(tag):
            value = f"{tag}:" + "v" * (self.args.value - 5)
            result = await self.by_idle_node(self.live, "put", tag=tag, value=value, seq=1)
            if result["ok"]:
                self.keys.append((result["key"], value))
            return result

        results = await pooled(self.args.width, [lambda tag=tag: one(tag) for tag in range(self.args.puts)])
        self.summary("put", results, stored=distribution(result.get("stored") for result in results))

    async def gets(self, phase, nodes, width=None, **fields):
        """Look-ups of what was put, from random nodes."""

        async def one():
            key, value = self.rng.choice(self.keys)
            result = await self.by_idle_node(nodes, "get", key=key)
            result["ok"] = bool(result["ok"] and result.get("value") == value)
            (found if result["ok"] else missed).add(key)
            return result

        found, missed = set(), set()
        await self.shim.ask(total=1)
        cpu, begun = self.cpu(), time.monotonic()
        results = await pooled(min(width or self.args.width, len(nodes) * 9 // 10), [one] * self.args.gets)
        wall = time.monotonic() - begun
        self.summary(
            phase,
            results,
            missed_keys=len(missed),
            missed_keys_found_by_others=len(missed & found),
            wall_s=round(wall, 1),
            shim_late_ms=(await self.shim.ask(total=1))["late_ms"],
            cpu_use=round((self.cpu() - cpu) / wall / CORES, 2),
            **fields,
        )

    async def sudden_death(self):
        """A share falls silent from one moment to the next, and the gets start at once; node 0 lives on."""
        args = self.args
        dead = set(self.rng.sample([number for number in self.live if number], int(args.kill * args.n)))
        alive = [number for number in self.live if number not in dead]
        await self.shim.ask(dead=[lab.local(number) for number in dead])
        for again in ["", *["_again"] * args.again]:
            await self.gets(f"get_kill{round(args.kill * 100)}{again}", alive, args.kill_width, killed=len(dead))

    async def cold_gets(self):
        """Fresh nodes, each of which joins and gets at once."""
        worker = await self.worker()
        await worker.call("hello")

        async def one(number):
            begun = time.monotonic()
            started = await self.up(number, worker)
            if not started["ok"]:
                return started
            key, value = self.rng.choice(self.keys)
            result = await self.counted(number, "get", key=key)
            result["ok"] = bool(result["ok"] and result.get("value") == value)
            result.update(join=started["ms"], all=(time.monotonic() - begun) * 1000)
            return result

        numbers = range(self.args.n, self.args.n + self.args.cold)
        results = await pooled(self.args.width, [lambda i=i: one(i) for i in numbers])
        self.summary(
            "get_cold" + (f"_kill{round(self.args.kill * 100)}" if self.args.kill else ""),
            results,
            join_ms=distribution(result.get("join") for result in results),
            join_and_get_ms=distribution(result.get("all") for result in results),
        )


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", required=True)
    parser.add_argument("--adapter", required=True, help="command line of one worker, run in this folder")
    parser.add_argument("--n", type=int, default=50)
    parser.add_argument("--per-proc", type=int, default=25, help="nodes in one worker process")
    parser.add_argument("--kill", type=float, default=0.3)
    parser.add_argument("--delay", default="", help="one-way delay in ms, low,high")
    parser.add_argument("--loss", type=float, default=0)
    parser.add_argument("--puts", type=int, default=100)
    parser.add_argument("--gets", type=int, default=200)
    parser.add_argument("--cold", type=int, default=50)
    parser.add_argument("--value", type=int, default=300, help="bytes in a value")
    parser.add_argument("--width", type=int, default=8, help="operations at once")
    parser.add_argument("--kill-width", type=int, default=32, help="the same, after the sudden death")
    parser.add_argument("--again", action="store_true", help="a second round of gets after the sudden death")
    parser.add_argument("--settle", type=float, default=10, help="seconds between the swarm being up and the first put")
    parser.add_argument("--warm", type=int, default=2, help="lookups of absent keys by every node before the first put")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out")
    parser.add_argument("--stderr")
    return parser.parse_args()


if __name__ == "__main__":
    options = arguments()
    lab.enter()
    asyncio.run(Run(options).all_phases())
