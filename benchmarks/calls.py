"""What calls, streams and tool rounds cost over HTTP on loopback, against raw httpx 0.28 and json; asserts nothing.

The server is a process of its own that has its answers ready, so that what is measured is the client: CPU of this
process, all threads. The contenders take turns, the first round warms up and is not counted, and the ratio is the
median over the rounds of the two figures of one round. The raw client does the least that gives the same result: it
decodes the JSON and takes the text; it does not check, count, retry or keep a deadline.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from contextlib import contextmanager
from statistics import median

import httpx

import sabir
from sabir import aio

ROUNDS = 7
CALLS = 200
AT_ONCE = 50
CHUNKS = 2000
PACED_CHUNKS = 300
TOOL_ROUNDS = 50


def chunk(delta, finish=None):
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


def stream(chunks):
    events = [chunk({"role": "assistant", "content": ""}), *(chunk({"content": f" w{n}"}) for n in range(chunks))]
    events = [json.dumps(event) for event in (*events, chunk({}, "stop"))]
    return [b"data: %b\n\n" % event.encode() for event in (*events, "[DONE]")]


def whole(message, finish):
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    usage = {"prompt_tokens": 20, "completion_tokens": 30, "total_tokens": 50}
    answer = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
    body = json.dumps(answer).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


CALL = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}}
ANSWER = whole({"content": "A plain short answer that a model could have written."}, "stop")
TOOL_CALL = whole({"content": None, "tool_calls": [CALL]}, "tool_calls")
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


class Server(asyncio.Protocol):
    """Answers by the name of the model: "whole", "tools", "burst" and "paced", one HTTP chunk for each event."""

    def connection_made(self, transport):
        self._transport = transport
        self._heard = b""

    def data_received(self, data):
        self._heard += data
        head, end, body = self._heard.partition(b"\r\n\r\n")
        if not end or len(body) < int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]):
            return
        self._heard = b""
        if b'"burst"' in body:
            self._transport.write(BURST)
        elif b'"paced"' in body:
            self._task = asyncio.get_running_loop().create_task(self._pace())
        else:
            self._transport.write(TOOL_CALL if b'"tools"' in body and b'"tool"' not in body else ANSWER)

    async def _pace(self):
        self._transport.write(STREAM_HEAD)
        for piece in PACED:
            await asyncio.sleep(0.001)
            self._transport.write(piece)


async def serve():
    global BURST, PACED
    PACED = [b"%x\r\n%b\r\n" % (len(event), event) for event in stream(PACED_CHUNKS)] + [b"0\r\n\r\n"]
    burst = [b"%x\r\n%b\r\n" % (len(event), event) for event in stream(CHUNKS)]
    BURST = STREAM_HEAD + b"".join(burst) + b"0\r\n\r\n"
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


def get_weather(city: str) -> str:
    """Look up the weather."""
    return f"sunny in {city}"


SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "get_weather", "description": "", "parameters": SCHEMA}}


class Raw:
    """httpx and json, by hand."""

    def __init__(self, url):
        self._url = f"{url}/chat/completions"
        self._client = httpx.Client()
        self._later = httpx.AsyncClient(limits=httpx.Limits(max_connections=AT_ONCE))

    def body(self, model, **more):
        return {"model": model, "messages": [{"role": "user", "content": "Hello"}], **more}

    def ask(self):
        answer = self._client.post(self._url, json=self.body("whole")).raise_for_status().json()
        return answer["choices"][0]["message"]["content"]

    async def ask_later(self):
        answer = (await self._later.post(self._url, json=self.body("whole"))).raise_for_status().json()
        return answer["choices"][0]["message"]["content"]

    def stream(self, model):
        with self._client.stream("POST", self._url, json=self.body(model, stream=True)) as answer:
            for line in answer.iter_lines():
                if (text := text_of(line)) is not None:
                    yield text

    async def stream_later(self, model):
        async with self._later.stream("POST", self._url, json=self.body(model, stream=True)) as answer:
            async for line in answer.aiter_lines():
                if (text := text_of(line)) is not None:
                    yield text

    def tools(self):
        body = self.body("tools", tools=[TOOL])
        message = self._client.post(self._url, json=body).raise_for_status().json()["choices"][0]["message"]
        body["messages"].append(message)
        for call in message["tool_calls"]:
            result = get_weather(**json.loads(call["function"]["arguments"]))
            body["messages"].append({"role": "tool", "tool_call_id": call["id"], "content": result})
        answer = self._client.post(self._url, json=body).raise_for_status().json()
        return answer["choices"][0]["message"]["content"]

    async def close_later(self):
        await self._later.aclose()


def text_of(line):
    if line.startswith("data: ") and line != "data: [DONE]":
        return json.loads(line[6:])["choices"][0]["delta"].get("content") or None
    return None


class Ours:
    """The library, as its README shows it."""

    def __init__(self, url):
        self._client = sabir.Client("vllm:whole", base_url=url)
        self._later = aio.Client("vllm:whole", base_url=url)

    def ask(self):
        return self._client.ask("Hello").text

    async def ask_later(self):
        return (await self._later.ask("Hello")).text

    def stream(self, model):
        return (chunk.content for chunk in self._client.stream("Hello", model=model) if chunk.is_text())

    async def stream_later(self, model):
        async for chunk in self._later.stream("Hello", model=model):
            if chunk.is_text():
                yield chunk.content

    def tools(self):
        return self._client.ask("Hello", model="tools", tools=[get_weather]).text

    async def close_later(self):
        self._later.close()


def calls(contender):
    for _ in range(CALLS):
        assert contender.ask()
    return CALLS


def calls_later(contender):
    async def work(left):
        while left:
            left.pop()
            assert await contender.ask_later()

    async def scenario():
        left = [None] * CALLS
        await asyncio.gather(*(work(left) for _ in range(AT_ONCE)))
        await contender.close_later()

    asyncio.run(scenario())
    return CALLS


def tool_rounds(contender):
    for _ in range(TOOL_ROUNDS):
        assert contender.tools()
    return TOOL_ROUNDS


def streamed(model, chunks):
    wanted = "".join(f" w{number}" for number in range(chunks))

    def measure(contender):
        assert "".join(contender.stream(model)) == wanted
        return chunks

    def measure_later(contender):
        async def scenario():
            assert "".join([text async for text in contender.stream_later(model)]) == wanted
            await contender.close_later()

        asyncio.run(scenario())
        return chunks

    return measure, measure_later


BURST_NOW, BURST_LATER = streamed("burst", CHUNKS)
PACED_NOW, PACED_LATER = streamed("paced", PACED_CHUNKS)

MEASURES = {
    "call, blocking": calls,
    f"call, awaitable, {AT_ONCE} at once": calls_later,
    "round with a tool, blocking": tool_rounds,
    "event of a burst, blocking": BURST_NOW,
    "event of a burst, awaitable": BURST_LATER,
    "event each ms, blocking": PACED_NOW,
    "event each ms, awaitable": PACED_LATER,
}


def cpu_of(measure, make):
    contender = make()
    start = time.process_time()
    done = measure(contender)
    return (time.process_time() - start) / done * 1e6


def main():
    with server() as url:
        # What awaits is made anew each time, since it belongs to an event loop; connections are part of the price.
        raw, ours = Raw(url), Ours(url)
        print(f"{'CPU, µs':<36}{'httpx':>9}{'sabir':>9}{'ratio':>8}")
        for name, measure in MEASURES.items():
            makers = [lambda: Raw(url), lambda: Ours(url)] if "awaitable" in name else [lambda: raw, lambda: ours]
            rounds = [[cpu_of(measure, make) for make in makers] for _ in range(ROUNDS + 1)][1:]
            theirs, own = (median(figures) for figures in zip(*rounds, strict=True))
            ratio = median(mine / other for other, mine in rounds)
            print(f"{name:<36}{theirs:>9.1f}{own:>9.1f}{ratio:>8.2f}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        asyncio.run(serve())
    else:
        main()
