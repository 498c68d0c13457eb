"""The vendors' SDKs on both ends of batches: clients of our server halves, and readers of what our client made.

What one makes the other reads: a batch of the SDK's by our client, and ours by the SDK.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import openai
import pytest
from batch_server import KEY, KINDS, UNWANTED, BatchServer
from google import genai
from google.genai import types
from llamas import skip_without_llama
from mistralai.client import Mistral as MistralClient

import sabir
from sabir.engines.llama_cpp import LlamaCpp, pico_path
from sabir.providers import PROVIDERS

skip_without_llama()
pytestmark = [
    pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning"),
]

CITIES = ("France", "Norway")
PROMPTS = [f"What is the capital of {country}?" for country in CITIES]
ANSWERS = {"first": "The capital of France is Paris.", "second": "The capital of Norway is Oslo."}


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture(scope="module")
def engine():
    made = LlamaCpp(pico_path(), PROVIDERS["pico"].dialect, name="pico")
    yield made
    made.close()


def served(name: str) -> Callable[..., Any]:
    @pytest.fixture
    def server(engine) -> Iterator[BatchServer]:
        with BatchServer(KINDS[name], engine, patience=0).serving() as serving:
            yield serving

    return server


openai_server, anthropic_server = served("openai"), served("anthropic")
gemini_server, mistral_server = served("gemini"), served("mistral")


def ours(server: BatchServer) -> sabir.Client:
    return sabir.Client(f"{server.kind.provider}:{server.kind.model}", base_url=server.url, api_key=KEY)


def read_by_us(server: BatchServer, id_: str) -> dict[str, str]:
    """What our client reads of a batch that it has not made."""
    with ours(server) as client:
        results = list(client.batches.results(f"{server.kind.provider}:{id_}"))
    assert {result.index for result in results} == {None}
    return {result.id: result.response.text if result.response else str(result.error) for result in results}


def made_by_us(server: BatchServer) -> str:
    """The id of a batch of ours that is over: two answers, and an error in the middle."""
    with ours(server) as client:
        keyed = {} if server.kind.provider == "anthropic" else {"key": "a key"}
        batch = client.batches.submit([PROMPTS[0], UNWANTED, PROMPTS[1]], **keyed)
        assert client.batches.status(batch.id).is_over
    return batch.id.partition(":")[2]


def chat_body(model: str, prompt: str) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": prompt}], "max_tokens": 50}


def lines(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


# openai


@pytest.fixture
def openai_sdk(openai_server):
    with openai.OpenAI(base_url=openai_server.url, api_key=KEY, max_retries=0) as client:
        yield client


def openai_batch(client: openai.OpenAI, endpoint: str = "/v1/chat/completions") -> Any:
    rows = [
        {"custom_id": id_, "method": "POST", "url": endpoint, "body": chat_body("gpt-4o-mini", prompt)}
        for id_, prompt in zip(ANSWERS, PROMPTS, strict=True)
    ]
    file = client.files.create(file=("mine.jsonl", lines(rows)), purpose="batch")
    assert (file.object, file.filename, file.purpose) == ("file", "mine.jsonl", "batch")
    assert file.bytes == len(lines(rows))
    return client.batches.create(
        input_file_id=file.id, endpoint=endpoint, completion_window="24h", metadata={"mine": "yes"}
    )


def test_openais_sdk_has_a_batch_answered(openai_server, openai_sdk):
    made = openai_batch(openai_sdk)
    assert (made.object, made.status, made.endpoint) == ("batch", "in_progress", "/v1/chat/completions")
    assert abs(made.created_at - time.time()) < 60
    batch = openai_sdk.batches.retrieve(made.id)
    assert (batch.status, batch.request_counts.total, batch.request_counts.completed) == ("completed", 2, 2)
    assert batch.completed_at is not None
    assert batch.error_file_id is None
    rows = [json.loads(line) for line in openai_sdk.files.content(batch.output_file_id).text.splitlines()]
    texts = {row["custom_id"]: row["response"]["body"]["choices"][0]["message"]["content"] for row in rows}
    assert texts == ANSWERS
    assert [each.id for each in openai_sdk.batches.list()] == [batch.id]
    assert read_by_us(openai_server, batch.id) == ANSWERS


def test_openais_sdk_cancels_a_batch(openai_server, openai_sdk):
    openai_server.patience = None
    made = openai_batch(openai_sdk)
    assert openai_sdk.batches.cancel(made.id).status == "cancelling"
    assert openai_sdk.batches.retrieve(made.id).status == "cancelled"


def test_openais_sdk_pages_through_batches(engine):
    with (
        BatchServer(KINDS["openai"]._replace(page=2), engine).serving() as server,
        openai.OpenAI(base_url=server.url, api_key=KEY, max_retries=0) as client,
    ):
        ids = [openai_batch(client).id for _ in range(5)]
        assert [batch.id for batch in client.batches.list(limit=2)] == ids[::-1]
        assert len(list(client.files.list(purpose="batch"))) == 5


def test_openais_sdk_reads_our_batch(openai_server, openai_sdk):
    batch = openai_sdk.batches.retrieve(made_by_us(openai_server))
    assert (batch.request_counts.completed, batch.request_counts.failed) == (2, 1)
    assert batch.metadata["sabir_key"] == "a key"
    (output,) = [openai_sdk.files.content(batch.output_file_id).text.splitlines()]
    (failure,) = openai_sdk.files.content(batch.error_file_id).text.splitlines()
    assert [json.loads(row)["response"]["status_code"] for row in output] == [200, 200]
    assert json.loads(failure)["response"]["body"]["error"]["message"] == "this is not wanted here"
    sent = json.loads(openai_server.files[batch.input_file_id].data.splitlines()[0])
    assert sent["url"] == batch.endpoint == "/v1/chat/completions"


def test_openais_sdk_is_told_what_is_wrong(openai_sdk):
    with pytest.raises(openai.NotFoundError, match="no batch 'nothing'"):
        openai_sdk.batches.retrieve("nothing")
    with pytest.raises(openai.NotFoundError, match="no file"):
        openai_sdk.batches.create(input_file_id="f", endpoint="/v1/responses", completion_window="24h")
    with pytest.raises(openai.BadRequestError, match="endpoint"):
        openai_sdk.batches.create(input_file_id="f", endpoint="/v1/moderations", completion_window="24h")
    with pytest.raises(openai.BadRequestError, match="purpose"):
        openai_sdk.files.create(file=("x.jsonl", b"{}"), purpose="vision")


# anthropic


@pytest.fixture
def anthropic_sdk(anthropic_server):
    with anthropic.Anthropic(base_url=anthropic_server.url, api_key=KEY, max_retries=0) as client:
        yield client


def anthropic_batch(client: anthropic.Anthropic) -> Any:
    requests: Any = [
        {"custom_id": id_, "params": chat_body("claude-haiku-4-5", prompt)}
        for id_, prompt in zip(ANSWERS, PROMPTS, strict=True)
    ]
    return client.messages.batches.create(requests=requests)


def test_anthropics_sdk_has_a_batch_answered(anthropic_server, anthropic_sdk):
    made = anthropic_batch(anthropic_sdk)
    assert (made.type, made.processing_status, made.request_counts.processing) == ("message_batch", "in_progress", 2)
    batch = anthropic_sdk.messages.batches.retrieve(made.id)
    assert (batch.processing_status, batch.request_counts.succeeded) == ("ended", 2)
    results = list(anthropic_sdk.messages.batches.results(batch.id))
    assert {each.custom_id: each.result.message.content[0].text for each in results} == ANSWERS
    assert results[0].result.message.usage.output_tokens > 0
    assert [each.id for each in anthropic_sdk.messages.batches.list()] == [batch.id]
    assert read_by_us(anthropic_server, batch.id) == ANSWERS


def test_anthropics_sdk_cancels_a_batch(anthropic_server, anthropic_sdk):
    anthropic_server.patience = None
    made = anthropic_batch(anthropic_sdk)
    assert anthropic_sdk.messages.batches.cancel(made.id).processing_status == "canceling"
    assert anthropic_sdk.messages.batches.retrieve(made.id).processing_status == "ended"
    kinds = [each.result.type for each in anthropic_sdk.messages.batches.results(made.id)]
    assert kinds == ["canceled", "canceled"]


def test_anthropics_sdk_pages_through_batches(engine):
    with (
        BatchServer(KINDS["anthropic"]._replace(page=2), engine).serving() as server,
        anthropic.Anthropic(base_url=server.url, api_key=KEY, max_retries=0) as client,
    ):
        ids = [anthropic_batch(client).id for _ in range(5)]
        assert [batch.id for batch in client.messages.batches.list(limit=2)] == ids[::-1]


def test_anthropics_sdk_reads_our_batch(anthropic_server, anthropic_sdk):
    results = list(anthropic_sdk.messages.batches.results(made_by_us(anthropic_server)))
    kinds = {each.custom_id: each.result.type for each in results}
    assert kinds == {"sabir-0": "succeeded", "sabir-1": "errored", "sabir-2": "succeeded"}
    (error,) = [each.result.error.error for each in results if each.result.type == "errored"]
    assert (error.type, error.message) == ("invalid_request_error", "this is not wanted here")


def test_anthropics_sdk_is_told_what_is_wrong(anthropic_sdk):
    with pytest.raises(anthropic.NotFoundError, match="no batch 'nothing'"):
        anthropic_sdk.messages.batches.retrieve("nothing")
    with pytest.raises(anthropic.BadRequestError, match="at least one request"):
        anthropic_sdk.messages.batches.create(requests=[])
    twice: Any = [{"custom_id": "a", "params": chat_body("m", "x")}] * 2
    with pytest.raises(anthropic.BadRequestError, match="stands twice"):
        anthropic_sdk.messages.batches.create(requests=twice)


# google-genai


@pytest.fixture
def gemini_sdk(gemini_server):
    options = types.HttpOptions(base_url=gemini_server.url.removesuffix("/v1beta"), api_version="v1beta")
    client = genai.Client(api_key=KEY, http_options=options)
    yield client
    client.close()


def gemini_rows() -> list[dict[str, Any]]:
    return [
        {"contents": [{"role": "user", "parts": [{"text": prompt}]}], "metadata": {"key": id_}}
        for id_, prompt in zip(ANSWERS, PROMPTS, strict=True)
    ]


def test_googles_sdk_has_a_batch_answered(gemini_server, gemini_sdk):
    made = gemini_sdk.batches.create(model=gemini_server.kind.model, src=gemini_rows(), config={"display_name": "mine"})
    assert (made.state.name, made.display_name) == ("JOB_STATE_RUNNING", "mine")
    batch = gemini_sdk.batches.get(name=made.name)
    assert batch.state.name == "JOB_STATE_SUCCEEDED"
    assert batch.done
    rows = batch.dest.inlined_responses
    assert {row.metadata["key"]: row.response.text for row in rows} == ANSWERS
    assert [each.name for each in gemini_sdk.batches.list()] == [batch.name]
    assert read_by_us(gemini_server, batch.name.removeprefix("batches/")) == ANSWERS


def test_googles_sdk_has_a_file_of_requests_answered(gemini_server, gemini_sdk):
    rows = [
        {"key": id_, "request": {"contents": [{"role": "user", "parts": [{"text": prompt}]}]}}
        for id_, prompt in zip(ANSWERS, PROMPTS, strict=True)
    ]
    config: Any = {"display_name": "mine.jsonl", "mime_type": "application/jsonl"}
    file = gemini_sdk.files.upload(file=io.BytesIO(lines(rows)), config=config)
    assert (file.display_name, file.size_bytes) == ("mine.jsonl", len(lines(rows)))
    made = gemini_sdk.batches.create(model=gemini_server.kind.model, src=file.name, config={"display_name": "mine"})
    batch = gemini_sdk.batches.get(name=made.name)
    answers = [json.loads(line) for line in gemini_sdk.files.download(file=batch.dest.file_name).splitlines()]
    texts = {row["key"]: row["response"]["candidates"][0]["content"]["parts"][0]["text"] for row in answers}
    assert texts == ANSWERS
    assert read_by_us(gemini_server, batch.name.removeprefix("batches/")) == ANSWERS


def test_googles_sdk_cancels_a_batch(gemini_server, gemini_sdk):
    gemini_server.patience = None
    made = gemini_sdk.batches.create(model=gemini_server.kind.model, src=gemini_rows())
    gemini_sdk.batches.cancel(name=made.name)
    assert gemini_sdk.batches.get(name=made.name).state.name == "JOB_STATE_CANCELLED"


def test_googles_sdk_reads_our_batch(gemini_server, gemini_sdk):
    batch = gemini_sdk.batches.get(name=f"batches/{made_by_us(gemini_server)}")
    rows = {row.metadata["key"].rpartition("-")[2]: row for row in batch.dest.inlined_responses}
    assert {number: row.response.text for number, row in rows.items() if row.response} == {
        "0": ANSWERS["first"],
        "2": ANSWERS["second"],
    }
    assert (rows["1"].error.code, rows["1"].error.message) == (3, "this is not wanted here")
    assert batch.display_name.startswith("sabir: a key #")
    assert batch.model == f"models/{gemini_server.kind.model}"


# mistralai


@pytest.fixture
def mistral_sdk(mistral_server):
    with MistralClient(api_key=KEY, server_url=mistral_server.url.removesuffix("/v1")) as client:
        yield client


def mistral_batch(client: MistralClient) -> Any:
    rows = [
        {"custom_id": id_, "body": chat_body("mistral-small-latest", prompt)}
        for id_, prompt in zip(ANSWERS, PROMPTS, strict=True)
    ]
    file = client.files.upload(file={"file_name": "mine.jsonl", "content": lines(rows)}, purpose="batch")
    assert (file.filename, file.size_bytes) == ("mine.jsonl", len(lines(rows)))
    return client.batch.jobs.create(
        input_files=[file.id],
        model="mistral-small-latest",
        endpoint="/v1/chat/completions",
        metadata={"mine": "yes"},
    )


def test_mistrals_sdk_has_a_batch_answered(mistral_server, mistral_sdk):
    made = mistral_batch(mistral_sdk)
    assert (made.status, made.total_requests, made.model) == ("RUNNING", 2, "mistral-small-latest")
    batch = mistral_sdk.batch.jobs.get(job_id=made.id)
    assert (batch.status, batch.succeeded_requests, batch.failed_requests) == ("SUCCESS", 2, 0)
    data = mistral_sdk.files.download(file_id=batch.output_file).read()
    rows = [json.loads(line) for line in data.splitlines()]
    texts = {row["custom_id"]: row["response"]["body"]["choices"][0]["message"]["content"] for row in rows}
    assert texts == ANSWERS
    listed = mistral_sdk.batch.jobs.list()
    assert [each.id for each in listed.data] == [batch.id]
    assert read_by_us(mistral_server, batch.id) == ANSWERS


def test_mistrals_sdk_cancels_a_batch(mistral_server, mistral_sdk):
    mistral_server.patience = None
    made = mistral_batch(mistral_sdk)
    assert mistral_sdk.batch.jobs.cancel(job_id=made.id).status == "CANCELLATION_REQUESTED"
    assert mistral_sdk.batch.jobs.get(job_id=made.id).status == "CANCELLED"


def test_mistrals_sdk_reads_our_batch(mistral_server, mistral_sdk):
    batch = mistral_sdk.batch.jobs.get(job_id=made_by_us(mistral_server))
    assert (batch.succeeded_requests, batch.failed_requests) == (2, 1)
    assert batch.metadata["sabir_key"] == "a key"
    failure = json.loads(mistral_sdk.files.download(file_id=batch.error_file).read())
    assert failure["custom_id"].endswith("-1")
    listed = mistral_sdk.files.list(purpose="batch").data
    assert next(file.filename for file in listed if file.id in batch.input_files).startswith("sabir-")
