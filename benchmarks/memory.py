"""What 10,000 calls leave behind: growth of memory and open files over the last 9,000, on both surfaces.

The server is a process of its own. Calls come one after the other through one client; memory is the resident set of
this process as Linux tells it, read when garbage has been collected. `memory.py 2000` makes fewer calls. Asserts
nothing.
"""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
from pathlib import Path

import sabir
from sabir import aio

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from chats import Speaker
from servers import Server

CALLS = 10_000
WARM = 0.1


def double(number: int) -> int:
    return 2 * number


# The server


def said_to(request):
    return "Four." if request.messages[-1].role == "tool" else CALL if request.tools else "one two three four five"


CALL = (sabir.ToolCall("double", '{"number": 2}', "call_1"),)
SPEAKER = Speaker(said_to)


async def answer(call):
    if b'"refuse"' in call.body:
        call.head("Content-Type: application/json", "Content-Length: 2", status="400 Bad Request")
        call.write(b"{}")
    else:
        await SPEAKER(call)


# The client


def ask(client):
    client.ask("?")


def stream(client):
    for _ in client.stream("?"):
        pass


def left_early(client):
    for _ in client.stream("?"):
        break


def tool_round(client):
    client.ask("?", tools=[double])


def refused(client):
    try:
        client.ask("refuse")
    except sabir.BadRequestError:
        pass


async def ask_later(client):
    await client.ask("?")


async def stream_later(client):
    async for _ in client.stream("?"):
        pass


async def left_early_later(client):
    async for _ in client.stream("?"):
        break


async def tool_round_later(client):
    await client.ask("?", tools=[double])


async def refused_later(client):
    try:
        await client.ask("refuse")
    except sabir.BadRequestError:
        pass


def footprint():
    """Resident kB, open files, objects."""
    gc.collect()
    lines = Path("/proc/self/status").read_text().splitlines()
    resident = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
    return resident, sum(1 for _ in Path("/proc/self/fd").iterdir()), len(gc.get_objects())


def blocking(call, url, calls):
    with sabir.Client(f"vllm:x@{url}/v1") as client:
        for number in range(calls):
            if number == calls * WARM:
                before = footprint()
            call(client)
        return before, footprint()


def awaitable(call, url, calls):
    async def main():
        async with aio.Client(f"vllm:x@{url}/v1") as client:
            for number in range(calls):
                if number == calls * WARM:
                    before = footprint()
                await call(client)
            return before, footprint()

    return asyncio.run(main())


def main():
    if "serve" in sys.argv:
        with Server(answer) as server:
            print(json.dumps(server.url), flush=True)
            sys.stdin.read()
        return
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else CALLS
    print(f"growth over the last {calls * (1 - WARM):.0f} of {calls} calls")
    print(f"{'':22}{'memory, kB':>12}{'files':>8}{'objects':>10}{'of memory, MB':>16}")
    command = [sys.executable, __file__, "serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        url = json.loads(server.stdout.readline())
        for call in (ask, stream, left_early, tool_round, refused):
            for surface, function in ((blocking, call), (awaitable, globals()[f"{call.__name__}_later"])):
                before, after = surface(function, url, calls)
                memory, files, objects = (late - early for early, late in zip(before, after, strict=True))
                title = f"{call.__name__.replace('_', ' ')}, {surface.__name__}"
                print(f"{title:22}{memory:12}{files:8}{objects:10}{after[0] / 1024:16.1f}", flush=True)
        server.stdin.close()


if __name__ == "__main__":
    main()
