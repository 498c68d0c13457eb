"""What comes of each fault of tests/fault_modes.py: with Sabir on both surfaces, and with the vendors' own SDKs.

Defaults everywhere but the deadline, where the fault is one of time. "2×" is the number of requests that the server
saw, SILENT a part of the text that looks like all of it. Asserts nothing; tests/test_fault_modes.py does.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from pathlib import Path

import anthropic
import openai

import sabir
from sabir import aio

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from fault_modes import FAULTS, TEXT, WIRES
from servers import Server

KEY = "sk-of-nobody"
GIVE_UP = 12.0


def ours(wire, url, fault):
    settings = {} if fault.timeout is None else {"timeout": fault.timeout}
    with sabir.Client(wire.model, base_url=url, api_key=KEY, **settings) as client:
        if not fault.is_stream:
            return client.ask("Count.").text
        return "".join(chunk.content for chunk in client.stream("Count.") if chunk.is_text())


def ours_later(wire, url, fault):
    async def scenario():
        settings = {} if fault.timeout is None else {"timeout": fault.timeout}
        async with aio.Client(wire.model, base_url=url, api_key=KEY, **settings) as client:
            if not fault.is_stream:
                return (await client.ask("Count.")).text
            return "".join([chunk.content async for chunk in client.stream("Count.") if chunk.is_text()])

    return asyncio.run(scenario())


def sdk(wire, url, fault):
    messages = [{"role": "user", "content": "Count."}]
    settings = {"base_url": url, "api_key": KEY, **({} if fault.timeout is None else {"timeout": fault.timeout})}
    if wire is WIRES["openai"]:
        with openai.OpenAI(**settings) as client:
            answer = client.chat.completions.create(model="m", messages=messages, stream=fault.is_stream)
            if not fault.is_stream:
                return answer.choices[0].message.content
            return "".join(chunk.choices[0].delta.content or "" for chunk in answer if chunk.choices)
    with anthropic.Anthropic(**settings) as client:
        if not fault.is_stream:
            return client.messages.create(model="m", messages=messages, max_tokens=99).content[0].text
        with client.messages.stream(model="m", messages=messages, max_tokens=99) as stream:
            return "".join(stream.text_stream)


CONTENDERS = {"Sabir": ours, "Sabir, awaitable": ours_later, "SDK": sdk}


def outcome(contender, wire, fault):
    told = []

    def work():
        try:
            text = contender(wire, server.url + wire.path, fault)
            told.append("ok" if text == TEXT else "SILENT")
        except Exception as error:  # noqa: BLE001 - which one it is, is what the table shows
            told.append(type(error).__name__)

    with Server(fault.server(wire)) as server:
        thread = threading.Thread(target=work, daemon=True)
        began = time.monotonic()
        thread.start()
        thread.join(GIVE_UP)
        seconds = time.monotonic() - began
        requests = len(server.calls)
    words = [told[0] if told else f"HANGS over {GIVE_UP:g} s"]
    words += [f"{requests}×"] if requests > 1 else []
    words += [f"{seconds:.1f} s"] if fault.timeout and told else []
    return "; ".join(words)


def main():
    names = [f"{name} ({wire})" for wire in WIRES for name in CONTENDERS]
    print(f"| fault | {' | '.join(names)} |\n|{'---|' * (len(names) + 1)}")
    for fault in FAULTS:
        cells = [outcome(contender, wire, fault) for wire in WIRES.values() for contender in CONTENDERS.values()]
        print(f"| {fault.what} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
