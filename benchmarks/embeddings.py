"""What 256 vectors of 384 numbers cost, over HTTP on loopback, against raw httpx and json; asserts nothing.

The server is a process of its own that has its answers ready, so that what is measured is the client: CPU of this
process, threads included. The contenders take turns, the first round warms up and is not counted, and each figure is
the median of the rest. The raw client is asked for what servers give where nobody says how: floats.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import struct
import subprocess
import sys
import time
from contextlib import contextmanager
from statistics import median

import httpx

import sabir

ROUNDS = 15
CALLS = 10
TEXTS = [f"a short text number {number} to be embedded" for number in range(256)]
DIMENSIONS = 384


class Server(asyncio.Protocol):
    """Answers each request with the whole list, in the format that it asks for."""

    answers: dict[bytes, bytes]

    def connection_made(self, transport):
        self._transport = transport
        self._heard = b""

    def data_received(self, data):
        self._heard += data
        head, end, body = self._heard.partition(b"\r\n\r\n")
        if not end or len(body) < int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]):
            return
        self._heard = b""
        answer = self.answers[b"base64" if b'"base64"' in body else b"float"]
        kind = b"content-type: application/json"
        self._transport.write(b"HTTP/1.1 200 OK\r\n%b\r\ncontent-length: %d\r\n\r\n%b" % (kind, len(answer), answer))


def answer(pack):
    chance = random.Random(7)
    floats = struct.Struct(f"<{DIMENSIONS}f")
    packed = [floats.pack(*(chance.uniform(-0.2, 0.2) for _ in range(DIMENSIONS))) for _ in TEXTS]
    rows = [
        {"object": "embedding", "index": number, "embedding": pack(floats, data)} for number, data in enumerate(packed)
    ]
    usage = {"prompt_tokens": 2048, "total_tokens": 2048}
    return json.dumps({"object": "list", "data": rows, "model": "m", "usage": usage}).encode()


async def serve():
    Server.answers = {
        b"float": answer(lambda floats, data: [round(number, 8) for number in floats.unpack(data)]),
        b"base64": answer(lambda _, data: base64.b64encode(data).decode()),
    }
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def server():
    with subprocess.Popen([sys.executable, __file__, "serve"], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}/v1"
        finally:
            process.kill()


def raw(client, url):
    reply = client.post(f"{url}/embeddings", json={"model": "m", "input": TEXTS})
    return [row["embedding"] for row in reply.json()["data"]]


def cpu_ms(function):
    began = time.process_time()
    for _ in range(CALLS):
        function()
    return 1e3 * (time.process_time() - began) / CALLS


def main():
    with (
        server() as url,
        httpx.Client(trust_env=False) as plain,
        sabir.Client("vllm:m", base_url=url) as client,
    ):
        contenders = {
            "httpx and json, floats": lambda: raw(plain, url),
            "sabir, base64 (its default)": lambda: client.embed(TEXTS),
            "sabir, floats": lambda: client.embed(TEXTS, encoding_format="float"),
        }
        samples = {name: [] for name in contenders}
        for turn in range(ROUNDS + 1):
            for name, function in contenders.items():
                spent = cpu_ms(function)
                if turn:
                    samples[name].append(spent)
        vectors = contenders["sabir, floats"]()
        if vectors != contenders["httpx and json, floats"]():
            sys.exit("the contenders disagree")
    print(f"Python {sys.version.split()[0]}, {sys.platform}; CPU of a call, median of {ROUNDS} rounds of {CALLS}")
    base = median(samples["httpx and json, floats"])
    for name, spent in samples.items():
        print(f"{name:30}{median(spent):8.2f} ms{median(spent) / base:8.2f} ÷ httpx")


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        asyncio.run(serve())
    else:
        main()
