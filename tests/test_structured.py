"""An answer fits its schema by whatever way its model has, and says by which."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from fakes import ChatServer
from scripted_server import ScriptedServer
from test_partial_json import is_beginning

import sabir
from sabir import Message, ToolCall
from sabir.chunks import Phase
from sabir.errors import StructuredOutputError, UnsupportedError
from sabir.lifting import lifted
from sabir.partial_json import PartialJson
from sabir.providers import PROVIDERS
from sabir.schema import schema_of
from sabir.testing import Scripted


@dataclass
class City:
    name: str
    people: int
    tags: dict[str, int] = field(default_factory=dict)
    mayor: str = "nobody"


OSLO = City("Oslo", 700_000, {"green": 1}, "nobody")
# As a format says it that knows no dictionaries and requires all.
SPELLED = {"name": "Oslo", "people": 700_000, "tags": [{"key": "green", "value": 1}], "mayor": None}
PLAIN = {"name": "Oslo", "people": 700_000, "tags": {"green": 1}}
GIVEN = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"], "additionalProperties": False}


def look(city: str) -> str:
    """Look at a city."""
    return f"{city} is green"


@pytest.mark.parametrize(
    ("model", "call", "mode"),
    [
        ("openai:gpt-5.1", {}, "native"),
        ("openai-chat:gpt-4o", {"tools": [look]}, "native"),
        ("anthropic:claude-sonnet-4-6", {}, "native"),
        ("anthropic:claude-sonnet-4-20250514", {}, "tool"),
        ("anthropic:claude-sonnet-4-20250514", {"thinking": True}, "prompt"),
        ("gemini:gemini-2.5-flash", {}, "native"),
        ("gemini:gemini-2.5-flash", {"tools": [look]}, "tool"),
        ("mistral:mistral-large-latest", {"tools": [look]}, "native"),
        ("cohere:command-a-03-2025", {}, "native"),
        ("cohere:command-a-03-2025", {"tools": [look]}, "tool"),
        ("cohere:command-a-03-2025", {"documents": ["a"]}, "prompt"),
        ("ollama:llama3.2", {}, "native"),
        ("ollama:llama3.2", {"tools": [look]}, "native"),
        ("deepseek:deepseek-chat", {}, "json"),
        ("vllm:x@http://127.0.0.1:1;tools,structured", {}, "native"),
        ("vllm:x@http://127.0.0.1:1;tools", {}, "tool"),
        ("vllm:x@http://127.0.0.1:1;vision", {}, "prompt"),
        ("pico", {}, "grammar"),
        ("pico", {"tools": [look]}, "grammar"),
        ("pico", {"schema_mode": "prompt"}, "prompt"),
        ("openai:gpt-5.1", {"schema_mode": "tool"}, "tool"),
    ],
)
def test_the_way_is_chosen_from_facts_and_told_beforehand(model, call, mode):
    client = sabir.Client(model, api_key="k") if model != "pico" else sabir.Client(model)
    explained = client.explain("What of Oslo?", schema=City, **call)
    assert explained.schema_mode == mode
    text = json.dumps(explained.body)
    assert ("Give the answer" in text) == (mode == "tool")
    assert ("fits this JSON Schema" in text) == (mode in ("json", "prompt"))


async def test_a_way_that_a_model_has_not_is_refused(surface):
    client = surface.client("vllm:x@http://127.0.0.1:1;tools")
    with pytest.raises(UnsupportedError, match="no schema_mode='native' for this call; there are: tool, prompt"):
        await client.ask("?", schema=City, schema_mode="native")
    with pytest.raises(sabir.errors.ConfigurationError, match="is one of native, grammar, tool, json"):
        await client.ask("?", schema=City, schema_mode="yaml")


NATIVE = ["openai-chat", "openai-responses", "anthropic", "gemini", "mistral", "cohere", "ollama", "bedrock"]
# A model of each that is not said to be unable to keep to a schema.
MODELS = {
    "anthropic": "claude-sonnet-4-6",
    "gemini": "gemini-3.5-flash",
    "bedrock": "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
    "openai-responses": "gpt-5.1",
    "openai-chat": "gpt-4o",
    "mistral": "mistral-large-latest",
    "cohere": "command-a-03-2025",
    "ollama": "llama3.2",
}


def connect(surface, row, server):
    return surface.client(f"{row}:{MODELS[row]}", base_url=server.url, api_key="k")


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("row", NATIVE)
async def test_an_answer_in_a_format_of_its_own_comes_back_as_it_was_meant(surface, row, is_stream):
    spelled = SPELLED if row.startswith("openai") else {**PLAIN, "tags": SPELLED["tags"]}
    spelled = PLAIN if row in ("gemini", "cohere", "ollama") else spelled
    dialect = PROVIDERS[row].dialect
    with ScriptedServer(dialect, json.dumps(spelled)) as server:
        client = connect(surface, row, server)
        response = await answer(client, is_stream, "What of Oslo?", schema=City)
        assert (response.parsed, response.schema_mode) == (OSLO, "native")
        assert json.loads(response.text) == spelled
        (request,) = server.requests
        assert request.schema is not None


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("row", [row for row in NATIVE if row != "ollama"])
async def test_a_forced_tools_arguments_are_the_answer(surface, row, is_stream):
    call = Message("assistant", (ToolCall(name="answer", input=json.dumps(PLAIN), id="call_1a2b3"),))
    with ScriptedServer(PROVIDERS[row].dialect, call) as server:
        client = connect(surface, row, server)
        response = await answer(client, is_stream, "What of Oslo?", schema=City, schema_mode="tool")
        assert (response.parsed, response.schema_mode) == (OSLO, "tool")
        assert (json.loads(response.text), response.tool_calls) == (PLAIN, ())
        assert response.finish_reason == "stop"
        (request,) = server.requests
        assert request.schema is None
        assert [tool.name for tool in request.tools] == ["answer"]
        assert request.tool_choice in ("answer", "required")
    assert [notice.kind for notice in response.warnings if notice.subject == "schema"] == ["emulated"]


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("row", ["openai-chat", "anthropic", "gemini"])
async def test_what_is_said_beside_the_forced_call_is_no_part_of_the_answer(surface, row, is_stream):
    call = ToolCall(name="answer", input=json.dumps(PLAIN), id="call_1a2b3")
    again = ToolCall(name="answer", input="{}", id="call_1a2b4")
    said = Message("assistant", (sabir.Text(text="Setting {name} now."), call, again))
    with ScriptedServer(PROVIDERS[row].dialect, said) as server:
        client = connect(surface, row, server)
        response = await answer(client, is_stream, "What of Oslo?", schema=City, schema_mode="tool")
    assert (response.parsed, json.loads(response.text)) == (OSLO, PLAIN)
    told = [str(notice) for notice in response.warnings if notice.subject == "schema"]
    assert any("Setting {name} now." in each for each in told)
    assert any("twice" in each for each in told)


async def test_prose_without_the_forced_call_is_the_answer(surface):
    with ScriptedServer(PROVIDERS["anthropic"].dialect, f"So: {json.dumps(PLAIN)}") as server:
        response = await connect(surface, "anthropic", server).ask("?", schema=City, schema_mode="tool")
    assert response.parsed == OSLO


@pytest.mark.parametrize("row", [row for row in NATIVE if row != "ollama"])
async def test_tools_run_first_and_the_forced_one_ends_it(surface, row):
    first = Message("assistant", (ToolCall(name="look", input='{"city": "Oslo"}', id="call_1a2b3"),))
    last = Message("assistant", (ToolCall(name="answer_", input=json.dumps(PLAIN), id="call_1a2b4"),))

    def answer(question: str) -> str:
        """A tool of the caller's that has the name."""
        return question

    with ScriptedServer(PROVIDERS[row].dialect, first, last) as server:
        client = connect(surface, row, server)
        response = await client.ask("What of Oslo?", schema=City, schema_mode="tool", tools=[look, answer])
        assert response.parsed == OSLO
        assert [message.role for message in response.messages] == ["assistant", "tool", "assistant"]
        assert response.messages[-1].text == response.text
        assert {request.tool_choice for request in server.requests} == {"required"}
        assert [tool.name for tool in server.requests[1].tools] == ["look", "answer", "answer_"]


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize(
    "said",
    [
        json.dumps(PLAIN),
        f"```json\n{json.dumps(PLAIN, indent=1)}\n```",
        f"Here it is: {json.dumps(PLAIN)} - anything else?",
        f"In {{braces}}: {json.dumps(PLAIN)}, or {{}}",
    ],
)
async def test_a_prompt_asks_for_json_and_takes_it_out_of_what_is_around_it(surface, said, is_stream):
    with ChatServer(lambda body: said) as server:
        client = surface.client(f"vllm:x@{server.url};vision")
        response = await answer(client, is_stream, "Oslo?", system="Be brief.", schema=City)
        (asked,) = server.asked
    assert (response.parsed, response.schema_mode, response.text) == (OSLO, "prompt", said)
    system, user = asked.body["messages"]
    assert system["role"] == "system"
    assert "Be brief." in str(system["content"])
    assert '"people"' in str(system["content"])
    assert user["role"] == "user"
    told = [str(notice) for notice in response.warnings if notice.subject == "schema"]
    assert len(told) == (1 if said == json.dumps(PLAIN) else 2)


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_model_that_is_held_only_without_tools_runs_them_first(surface, is_stream):
    first = Message("assistant", (ToolCall(name="look", input='{"city": "Oslo"}'),))
    with ScriptedServer(PROVIDERS["ollama"].dialect, first, "It is green.", json.dumps(PLAIN)) as server:
        client = connect(surface, "ollama", server)
        response = await answer(client, is_stream, "What of Oslo?", schema=City, tools=[look])
        assert (response.parsed, response.schema_mode) == (OSLO, "native")
        assert [(bool(request.tools), request.schema is not None) for request in server.requests] == [
            (True, False),
            (True, False),
            (False, True),
        ]
    # What was said before it was asked for in the shape is no part of the answer.
    assert [message.text for message in response.messages] == ["", "", json.dumps(PLAIN)]


async def test_what_was_generated_to_no_end_is_counted(surface):
    client = surface.client("pico")
    alone = await client.ask("What is the capital of Peru?")
    response = await client.ask("What is the capital of Peru?", schema=GIVEN, tools=[look])
    assert response.schema_mode == "grammar"
    assert response.usage.output > alone.usage.output


async def test_an_answer_that_does_not_fit_is_sent_back_with_what_is_wrong(surface):
    engine = Scripted('{"name": "Oslo"}', "no JSON", json.dumps(PLAIN))
    client = surface.client(engine)
    chat = client.chat()
    response = await chat("What of Oslo?", schema=City, validation_retries=2)
    assert response.parsed == OSLO
    wrong, complaint, worse, again, right = response.messages
    assert [wrong.text, worse.text, right.text] == ['{"name": "Oslo"}', "no JSON", json.dumps(PLAIN)]
    assert "missing required field `people`" in complaint.text
    assert "is not JSON" in again.text
    assert [request.messages[1:] for request in engine.requests] == [
        (),
        (wrong, complaint),
        (wrong, complaint, worse, again),
    ]
    assert [notice.kind for notice in response.warnings] == ["retried", "retried"]
    assert chat.messages[1:] == response.messages


async def test_where_no_attempt_fits_the_error_is_the_last_one_and_history_stays(surface):
    client = surface.client(Scripted("{}", '{"name": 5, "people": 1}', json.dumps(PLAIN)), validation_retries=1)
    chat = client.chat()
    with pytest.raises(StructuredOutputError, match="Expected `str`, got `int`") as caught:
        await chat("What of Oslo?", schema=City)
    assert chat.messages == ()
    assert [notice.kind for notice in caught.value.warnings] == ["retried"]
    assert caught.value.partial.text == '{"name": 5, "people": 1}'
    assert [each.text for each in caught.value.answers] == ["{}", '{"name": 5, "people": 1}']
    assert (await chat("What of Oslo?", schema=City)).parsed == OSLO


async def test_an_answer_that_was_cut_or_declined_is_not_asked_for_again(surface):
    declined = Message("assistant", (sabir.Refusal("I will not."),))
    client = surface.client(Scripted(declined))
    with pytest.raises(StructuredOutputError, match="declined"):
        await client.ask("?", schema=City, validation_retries=3)


async def test_a_stream_says_when_its_answer_comes_anew(surface):
    client = surface.client(Scripted('{"name": "Bergen"}', json.dumps(PLAIN)))
    stream = client.stream("?", schema=City, validation_retries=1)
    phases, partials = [], []
    async for chunk in stream:
        phases.append(chunk.phase)
        partials.append(stream.partial())
        if chunk.is_restart():
            assert chunk.content["attempt"] == 2
            assert "people" in chunk.content["reason"]
    assert [*dict.fromkeys(phases)] == [Phase.GENERATING, Phase.RESTARTING, Phase.DONE]
    assert partials[phases.index(Phase.RESTARTING) - 1] == {"name": "Bergen"}
    assert partials[-1] == PLAIN
    assert stream.response.parsed == OSLO


async def test_a_stream_shows_the_object_as_it_grows(surface):
    client = surface.client("pico")
    stream = client.stream("Fill in the form.", schema=GIVEN, seed=1)
    assert stream.partial() is None
    partials = [stream.partial() async for _ in stream]
    assert partials[0] == {}
    assert partials[-1] == stream.response.parsed
    plain = client.stream("Hello")
    async for _ in plain:
        assert plain.partial() is None


async def test_what_a_format_spells_otherwise_is_shown_as_it_was_meant(surface):
    with ScriptedServer(PROVIDERS["openai-chat"].dialect, json.dumps(SPELLED)) as server:
        stream = connect(surface, "openai-chat", server).stream("?", schema=City)
        async for _ in stream:
            last = stream.partial()
    assert last == PLAIN
    assert stream.response.parsed == OSLO


@dataclass
class Pair:
    key: str
    value: int


@dataclass
class Either:
    x: dict[str, int] | list[Pair]


async def test_what_fits_as_it_is_stays_as_it_is(surface):
    pairs = [{"key": "a", "value": 1}, {"key": "a", "value": 2}]
    for row in ("gemini", "openai-chat"):
        with ScriptedServer(PROVIDERS[row].dialect, json.dumps({"x": pairs})) as server:
            response = await connect(surface, row, server).ask("?", schema=Either)
        assert response.parsed == Either([Pair("a", 1), Pair("a", 2)])


async def test_two_entries_of_one_key_are_no_dictionary(surface):
    twice = SPELLED | {"tags": [{"key": "a", "value": 1}, {"key": "a", "value": 2}]}
    with ScriptedServer(PROVIDERS["openai-chat"].dialect, json.dumps(twice)) as server:
        client = connect(surface, "openai-chat", server)
        with pytest.raises(StructuredOutputError, match="tags"):
            await client.ask("?", schema=City)


def test_entries_that_are_still_written_are_a_dictionary_already():
    schema = schema_of(City).json
    text, partial, seen = json.dumps(SPELLED), PartialJson(), []
    for at in range(0, len(text), 4):
        partial.feed(text[at : at + 4])
        if partial.value is not None:
            seen.append(lifted(partial.value, schema, is_partial=True))
    assert all(isinstance(each.get("tags", {}), dict) for each in seen)
    assert seen[-1] == PLAIN
    for earlier, later in pairwise(seen):
        assert is_beginning(earlier, later)


def test_a_mode_without_a_schema_is_told():
    with pytest.raises(sabir.errors.ConfigurationError, match="there is no schema="):
        sabir.Client("pico").explain("?", schema_mode="prompt")


async def answer(client, is_stream, prompt, **call):
    if not is_stream:
        return await client.ask(prompt, **call)
    stream = client.stream(prompt, **call)
    texts = [chunk.content async for chunk in stream if chunk.phase is Phase.GENERATING]
    assert "".join(texts) == stream.response.text
    return stream.response
