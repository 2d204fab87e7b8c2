"""The worker side of the adapter protocol for Python adapters on asyncio: see ../README.md."""

import asyncio
import json
import sys
import time

LINE_BYTES_MAX = 1 << 22


def milliseconds(started):
    """Since `started`, for the report."""
    return round((time.monotonic() - started) * 1000, 2)


async def serve(operations):
    """Read JSON lines, run operations[line["op"]](line) at once and concurrently, answer in any order."""
    reader = asyncio.StreamReader(limit=LINE_BYTES_MAX)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    tasks = set()

    async def one(message):
        try:
            answer = await operations[message["op"]](message)
        except Exception as problem:  # an adapter failing one operation must not end the run
            answer = {"ok": False, "error": f"{type(problem).__name__}: {problem}"}
        answer["id"] = message["id"]
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()

    while line := await reader.readline():
        message = json.loads(line)
        if message["op"] == "quit":
            return
        task = asyncio.create_task(one(message))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
