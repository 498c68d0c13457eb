"""1,000 streams of 2,000 chunks at once in one process: every text exact, and what they cost in memory and CPU.

The server is a process of its own. It begins to answer when every stream has asked, and goes round among them, so that
they are all under way until the end. Memory is the resident set of the client's process: what it grew by from the first
answer to its peak. `many_streams.py 200 500` asks for other numbers.
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

from sabir import aio

STREAMS = 1000
CHUNKS = 2000
AT_A_TIME = 10
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def text(stream, chunks):
    return "".join(f" {stream}.{number}" for number in range(chunks))


# The server


def event(delta, finish=None):
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    body = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    data = b"data: %b\n\n" % json.dumps(body).encode()
    return b"%x\r\n%b\r\n" % (len(data), data)


END = event({}, "stop") + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


class Server:
    def __init__(self, streams, chunks):
        self._streams = streams
        self._chunks = chunks
        self._asking = 0
        self._all_ask = asyncio.Event()

    async def answer(self, reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                prompt = json.loads(await reader.readexactly(length))["messages"][0]["content"]
                await (self._alone if prompt == "alone" else self._among_all)(prompt, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _alone(self, prompt, writer):
        writer.write(HEAD + event({"content": prompt}) + END)

    async def _among_all(self, prompt, writer):
        self._asking += 1
        if self._asking == self._streams:
            self._all_ask.set()
        await self._all_ask.wait()
        writer.write(HEAD)
        for first in range(0, self._chunks, AT_A_TIME):
            numbers = range(first, min(first + AT_A_TIME, self._chunks))
            writer.write(b"".join(event({"content": f" {prompt}.{number}"}) for number in numbers))
            await writer.drain()
            await asyncio.sleep(0)
        writer.write(END)


async def serve(streams, chunks):
    server = await asyncio.start_server(Server(streams, chunks).answer, "127.0.0.1", 0, backlog=streams)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


# The client


def resident_kb():
    """Of this process, now and at its peak."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return tuple(int(lines[name].split()[0]) for name in ("VmRSS", "VmHWM"))


async def read(client, prompt):
    stream, shown = client.stream(prompt, include=["generating"]), 0
    async for _ in stream:
        shown += 1
    return stream.response.text, shown


async def measure(port, streams, chunks):
    async with aio.Client(f"vllm:x@http://127.0.0.1:{port}/v1") as client:
        await read(client, "alone")
        gc.collect()
        before, _ = resident_kb()
        cpu, began = time.process_time(), time.perf_counter()
        answers = await asyncio.gather(*(read(client, str(number)) for number in range(streams)))
        cpu, took = time.process_time() - cpu, time.perf_counter() - began
        _, peak = resident_kb()
    wrong = [n for n, (said, shown) in enumerate(answers) if said != text(n, chunks) or shown != chunks]
    print(f"{streams} streams of {chunks} chunks at once: {streams - len(wrong)} texts exact, in {took:.1f} s")
    size = len(text(streams - 1, chunks)) / 1024
    print(f"memory at the peak: {peak / 1024:.0f} MB, of which {(peak - before) / 1024:.0f} MB for the streams")
    print(f"that is {(peak - before) / streams:.0f} kB for each, and its text is {size:.0f} kB")
    print(f"CPU per chunk: {1e6 * cpu / (streams * chunks):.1f} µs")
    return bool(wrong)


def main():
    streams, chunks = (int(number) for number in sys.argv[1:3]) if len(sys.argv) > 2 else (STREAMS, CHUNKS)
    # Both processes have a socket for each stream.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, streams + 200)), hard))
    if "serve" in sys.argv:
        asyncio.run(serve(streams, chunks))
        return
    command = [sys.executable, __file__, str(streams), str(chunks), "serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        is_wrong = asyncio.run(measure(int(server.stdout.readline()), streams, chunks))
        server.stdin.close()
    sys.exit(is_wrong)


if __name__ == "__main__":
    main()
