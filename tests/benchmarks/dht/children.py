"""Child processes of a run: the workers that hold the nodes, and the shim that is the network between them."""

import asyncio
import json
import os
import statistics
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
LINE_BYTES_MAX = 1 << 22


class Child:
    """A child process that speaks JSON lines."""

    def __init__(self, process):
        self.process = process
        self.pid = process.pid
        self.last_id = 0
        self.waiting = {}

    @classmethod
    async def open(cls, argv, errors=None):
        """Start `argv` in this folder."""
        pipe = asyncio.subprocess.PIPE
        return cls(
            await asyncio.create_subprocess_exec(
                *argv, cwd=HERE, limit=LINE_BYTES_MAX, stdin=pipe, stdout=pipe, stderr=errors
            )
        )

    def rss(self):
        """KiB resident, this process and its children."""
        todo, total = [self.pid], 0
        while todo:
            pid = todo.pop()
            try:
                with open(f"/proc/{pid}/status") as file:
                    total += sum(int(line.split()[1]) for line in file if line.startswith("VmRSS"))
                with open(f"/proc/{pid}/task/{pid}/children") as file:
                    todo += map(int, file.read().split())
            except (OSError, ValueError):  # it ended meanwhile
                continue
        return total

    def cpu(self):
        """Seconds of processor time used so far."""
        with open(f"/proc/{self.pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS

    def send(self, message):
        """Write one line."""
        self.process.stdin.write(json.dumps(message).encode() + b"\n")

    async def listen(self):
        """Hand each answer to the call that waits for it; an adapter may print other lines."""
        while line := await self.process.stdout.readline():
            try:
                answer = json.loads(line)
                self.waiting.pop(answer["id"]).set_result(answer)
            except (ValueError, KeyError, TypeError):
                continue

    async def call(self, op, timeout=90, **fields):
        """One operation of the adapter protocol."""
        self.last_id += 1
        answer = self.waiting[self.last_id] = asyncio.get_running_loop().create_future()
        self.send({"id": self.last_id, "op": op, **fields})
        try:
            return await asyncio.wait_for(answer, timeout)
        except TimeoutError:
            return {"ok": False, "error": "timeout in runner"}

    def end(self):
        """Kill it, unless it ended."""
        if self.process.returncode is None:
            self.process.kill()


class Shim(Child):
    """The network between the nodes, see lab.py."""

    def __init__(self, process):
        super().__init__(process)
        self.lock = asyncio.Lock()

    @classmethod
    async def start(cls, seed):
        """Start it and wait until packets pass."""
        shim = await cls.open([sys.executable, "lab.py", "shim", str(seed)])
        await shim.process.stdout.readline()
        return shim

    async def ask(self, **command):
        """One command and its answer."""
        async with self.lock:
            self.send(command)
            return json.loads(await self.process.stdout.readline())


def distribution(values):
    """Quantiles of what is not None; None where nothing is."""
    values = sorted(value for value in values if value is not None)
    if not values:
        return None
    return {
        "min": round(values[0], 1),
        "med": round(statistics.median(values), 1),
        "p95": round(values[min(len(values) - 1, int(0.95 * len(values)))], 1),
        "max": round(values[-1], 1),
        "mean": round(statistics.fmean(values), 1),
        "n": len(values),
    }


async def pooled(width, jobs):
    """Run the jobs, `width` at once; their results in order."""
    room = asyncio.Semaphore(width)

    async def one(job):
        async with room:
            return await job()

    return await asyncio.gather(*(one(job) for job in jobs))
