"""The types of the public API, as a user's editor sees them. Checked by mypy and pyright, never run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_type

import sabir
from sabir import aio
from sabir.testing import Faults, Scripted, VirtualClock, faults, recorded_answers, recorded_http


@dataclass
class Invoice:
    total: float


def blocking() -> None:
    assert_type(sabir.ask("…", schema=Invoice).parsed, Invoice)
    assert_type(sabir.ask("…").parsed, None)
    client = sabir.Client("openai-chat:gpt-4o-mini", temperature=0, timeout=5)
    sabir.Client("azure:mine", api_key=lambda: "token", organization="mine", extra_body={"a": 1})
    assert_type(client.ask("…", schema=Invoice, temperature=0.5).parsed, Invoice)
    assert_type(client.ask("…", schema={"type": "object"}).parsed, Any)
    assert_type(client.ask("…"), sabir.Response[None])
    assert_type(client.ask("…").cost, sabir.Cost | None)
    assert_type(client.capabilities("openai:gpt-5"), sabir.ModelFacts)
    with client.stream("…", schema=Invoice, include=["generating"]) as stream:
        for chunk in stream:
            assert_type(chunk, sabir.StreamChunk)
    assert_type(stream.response, sabir.Response[Invoice])
    assert_type(client.raw_complete("…", max_tokens=5), sabir.Response[None])
    assert_type(client.raw_complete(["…"], model="openai:gpt-3.5-turbo-instruct"), sabir.Response[None])
    dot = sabir.image(sabir.Pixels(1, 1, b"..."))
    assert_type(dot, sabir.Image)
    assert_type(sabir.image(Path("…")), sabir.Image)
    assert_type(sabir.audio(b"..."), sabir.Audio)
    assert_type(sabir.video("https://…"), sabir.File)
    with Path("…").open("rb") as opened:
        assert_type(sabir.file(opened, name="…"), sabir.File)
        client.ask("…", images=[dot, "…", b"...", opened], audio=["…"], files=(Path("…"), opened))
    client.stream("…", images=[sabir.Pixels(1, 1, b"...")])
    assert_type(client.embed("…"), sabir.Embedding)
    assert_type(client.embed(["…"], dimensions=256, encoding_format="base64"), sabir.Embeddings)
    assert_type(client.embed_batch(("…",)), sabir.Embeddings)
    assert_type(client.embedding_dim(), int)
    vector: list[float] = client.embed("…")
    vectors: list[list[float]] = client.embed(["…"])
    vectors.append(vector)
    assert_type(client.embed("…", input_type="query"), sabir.Embedding)
    ranking = client.rerank("…", ["…"], model="cohere:rerank-v3.5", top_n=1)
    assert_type(ranking, sabir.Reranking)
    best: list[sabir.Ranked] = ranking
    assert_type(best[0].score, float)
    assert_type(best[0].document, str)
    chat = client.chat(system="…", tools=[print])
    assert_type(chat, sabir.Chat)
    assert_type(chat("…", schema=Invoice).parsed, Invoice)
    assert_type(chat.stream("…"), sabir.Stream[None])
    assert_type(chat.messages, tuple[sabir.Message, ...])
    assert_type(chat.fork(), sabir.Chat)
    with recorded_http("…") as http, recorded_answers("…") as answers:
        plan = Faults(faults.Refuse(), None, faults.Status(429, retry_after=2))
        sabir.Client(Scripted("…"), runtime_wrappers=[VirtualClock(), plan, http], model_wrappers=[answers])


async def awaitable() -> None:
    assert_type((await aio.ask("…", schema=Invoice)).parsed, Invoice)
    async with aio.Client("openai-chat:gpt-4o-mini") as client:
        assert_type((await client.ask("…", schema=Invoice)).parsed, Invoice)
        async with client.stream("…", schema=Invoice) as stream:
            async for chunk in stream:
                assert_type(chunk, sabir.StreamChunk)
        assert_type(stream.response, sabir.Response[Invoice])
        assert_type(await client.embed("…", model="openai:text-embedding-3-small"), sabir.Embedding)
        assert_type(await client.raw_complete("…"), sabir.Response[None])
        assert_type(await client.embed(["…"]), sabir.Embeddings)
        assert_type(await client.embed_batch(["…"]), sabir.Embeddings)
        assert_type(await client.embedding_dim("openai:text-embedding-3-small"), int)
        assert_type(await client.rerank("…", ("…",)), sabir.Reranking)
        chat = client.chat(system="…")
        assert_type((await chat("…")).parsed, None)
        assert_type(chat.stream("…"), aio.Stream[None])
