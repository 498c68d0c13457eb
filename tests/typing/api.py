"""The types of the public API, as a user's editor sees them. Checked by mypy and pyright, never run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, assert_type

import sabir
from sabir import aio
from sabir.testing import Faults, Scripted, VirtualClock, faults, recorded_answers, recorded_http


@dataclass
class Invoice:
    total: float


def blocking() -> None:
    assert_type(sabir.ask("…", schema=Invoice).parsed, Invoice)
    assert_type(sabir.ask("…").parsed, None)
    client = sabir.Client("openai-chat:gpt-4o-mini", temperature=0, timeout=5, recover="resume")
    sabir.Client("azure:mine", api_key=lambda: "token", organization="mine", extra_body={"a": 1})
    assert_type(client.ask("…", schema=Invoice, temperature=0.5).parsed, Invoice)
    assert_type(client.ask("…", schema={"type": "object"}).parsed, Any)
    assert_type(client.ask("…"), sabir.Response[None])
    assert_type(client.ask("…", recover=["continue", "restart"]), sabir.Response[None])
    assert_type(client.ask("…").cost, sabir.Cost | None)
    assert_type(client.ask("…", cache="1h").cache, sabir.CacheReport)
    assert_type(client.ask("…", cache=True).cache.hit_rate, float | None)
    assert_type(sabir.cached("…"), sabir.Text)
    assert_type(sabir.cached(sabir.user("…"), "1h"), sabir.Message)
    assert_type(client.capabilities("openai:gpt-5"), sabir.ModelFacts)
    with client.stream("…", schema=Invoice, include=["generating"]) as stream:
        for chunk in stream:
            assert_type(chunk, sabir.StreamChunk)
            assert_type(stream.partial(), dict[str, Any] | None)
    assert_type(stream.response, sabir.Response[Invoice])
    assert_type(stream.response.schema_mode, Literal["native", "grammar", "tool", "json", "prompt"] | None)
    assert_type(client.ask("…", schema=Invoice, schema_mode="tool", validation_retries=2).parsed, Invoice)
    assert_type(sabir.lint_schema(Invoice), tuple[sabir.SchemaFinding, ...])
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
    client.pull(on_progress=lambda progress: assert_type(progress.fraction, float | None), timeout=3600)
    batch = client.batches.submit(["…", [sabir.user("…")], ["…", dot]], schema=Invoice, key="…", temperature=0)
    client.batches.submit(["…"], images=[dot])  # type: ignore[call-arg]
    client.batches.status(batch, temperature=0)  # type: ignore[call-arg]
    assert_type(client.batches, sabir.Batches)
    assert_type(batch, sabir.Batch)
    assert_type(client.batches.status(batch), sabir.Batch)
    assert_type(client.batches.cancel("openai:…"), sabir.Batch)
    with client.batches.results(batch.id, schema=Invoice) as results:
        assert_type(results, sabir.BatchResults[Invoice])
        for result in results:
            assert_type(result, sabir.BatchResult[Invoice])
            # As docs/batches.md and README.md show it.
            if result.response is not None:
                assert_type(result.response.parsed, Invoice)
            shown = result.error if result.response is None else result.response.parsed
            assert_type(shown, sabir.SabirError | Invoice | None)
            assert_type(result.error, sabir.SabirError | None)
            assert_type(result.cost, sabir.Cost | None)
    assert_type(client.batches.results(batch), sabir.BatchResults[None])
    assert_type(client.batches.results(batch, schema={"type": "object"}), sabir.BatchResults[Any])
    made = client.image("…", images=[dot, "…"], mask=b"...", size="16:9", n=2, seed=None)
    assert_type(made, sabir.ImageResponse)
    assert_type(made.images, tuple[sabir.Image, ...])
    assert_type(made.save("…"), tuple[Path, ...])
    with client.stream_image("…", previews=2, include=["image_generating"]) as drawing:
        for chunk in drawing:
            assert_type(chunk, sabir.StreamChunk)
    assert_type(drawing.response, sabir.ImageResponse)
    assert_type(client.speak("…", voice="…", speed=1.5), sabir.SpeechResponse)
    assert_type(client.speak("…").audio, sabir.Audio)
    with client.stream_speech("…") as speaking:
        assert_type([*speaking.sounds()], list[bytes])
    assert_type(speaking, sabir.SpeechStream)
    assert_type(speaking.response, sabir.SpeechResponse)
    transcription = client.transcribe(Path("…"), timestamps="word", translate=False)
    assert_type(transcription, sabir.Transcription)
    assert_type(transcription.segments, tuple[sabir.Segment, ...])
    assert_type(transcription.words, tuple[sabir.Word, ...])
    assert_type(client.stream_transcript(b"..."), sabir.MediaStream[sabir.Transcription])
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
        assert_type(await client.image("…", size="2K"), sabir.ImageResponse)
        assert_type(await client.speak("…"), sabir.SpeechResponse)
        assert_type(await client.transcribe("…", diarize=True), sabir.Transcription)
        assert_type(client.stream_image("…"), aio.MediaStream[sabir.ImageResponse])
        async with client.stream_speech("…") as speaking:
            async for sound in speaking.sounds():
                assert_type(sound, bytes)
        assert_type(speaking, aio.SpeechStream)
        async with client.stream_transcript("…") as hearing:
            async for chunk in hearing:
                assert_type(chunk, sabir.StreamChunk)
        assert_type(hearing.response, sabir.Transcription)
        assert_type(await client.pull("llama3.2:1b", extra={"insecure": True}), None)
        batch = await client.batches.submit(["…"], journal=Path("…"), key="…")
        assert_type(await client.batches.status(batch.id), sabir.Batch)
        async for result in client.batches.results(batch, schema=Invoice):
            assert_type(result, sabir.BatchResult[Invoice])
        chat = client.chat(system="…")
        assert_type((await chat("…")).parsed, None)
        assert_type(chat.stream("…"), aio.Stream[None])
