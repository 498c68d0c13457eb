"""The server's half of chat completions, and the laws that tie it to the client's.

encode(decode(b)) == canonical(b); decode(encode(v)) == v; sum(decode(encode(deltas))) == sum(deltas).
"""

from __future__ import annotations

import json
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sabir.deltas import Blob, Close, Count, Delta, Finish, Head, Note, Open, Text
from sabir.dialects import response_of
from sabir.dialects.gemini import Gemini
from sabir.dialects.leftovers import without_nulls
from sabir.dialects.mistral import Mistral
from sabir.dialects.openai_chat import NAME, OpenAIChat
from sabir.dialects.openai_completions import OpenAICompletions
from sabir.errors import (
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    ContextOverflowError,
    DeadlineExceeded,
    NotFoundError,
    OverloadedError,
    RateLimitError,
    ServerError,
    UnsupportedError,
)
from sabir.messages import Image, Message, Refusal, ToolCall, ToolResult, assistant, system, user
from sabir.messages import Text as TextPart
from sabir.requests import OutputSchema, Request, ToolSpec
from sabir.usage import Usage

DIALECT = OpenAIChat()
PNG = b"\x89PNG\r\n\x1a\n"

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
names = st.text("abcdefghij_", min_size=1, max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=5,
)
# Fields that nobody has heard of, at any place of a body.
unknown = st.dictionaries(names.map("x_{}".format), json_values, max_size=2)


def encoded(request: Request) -> dict:
    return json.loads(DIALECT.encode_request(request)[0].body)


def decoded(body: dict) -> Request:
    return DIALECT.decode_request(json.dumps(body).encode())


def keeps(body: dict) -> None:
    assert without_nulls(encoded(decoded(body))) == DIALECT.canonical_request(body)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"seed": None}, {}),
        ({"stop": "x"}, {"stop": ["x"]}),
        ({"stream": False}, {}),
        ({"max_tokens": 5}, {"max_completion_tokens": 5}),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]},
            {"messages": [{"role": "user", "content": "hi"}]},
        ),
    ],
    ids=["null is absent", "a stop string", "stream: false", "max_tokens", "one text block"],
)
def test_each_equivalence_of_requests_is_one(one, other):
    base = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    assert DIALECT.canonical_request({**base, **one}) == DIALECT.canonical_request({**base, **other})
    assert decoded({**base, **one}) == decoded({**base, **other})
    keeps({**base, **one})


def test_nothing_else_is_equivalent():
    base = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    for different in (
        {"stream": True},
        {"max_tokens": 5, "max_completion_tokens": 6},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi", "cache_control": {"type": "e"}}]}]},
        {"messages": [{"role": "developer", "content": "hi"}]},
        {"tools": []},
    ):
        assert DIALECT.canonical_request({**base, **different}) != DIALECT.canonical_request(base)
        keeps({**base, **different})


messages_on_the_wire = st.one_of(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "developer", "user"]), "content": texts}),
    st.fixed_dictionaries(
        {
            "role": st.just("user"),
            "content": st.lists(
                st.one_of(
                    st.fixed_dictionaries({"type": st.just("text"), "text": texts}),
                    st.fixed_dictionaries(
                        {"type": st.just("image_url"), "image_url": st.just({"url": "data:image/png;base64,QUJD"})}
                    ),
                    st.fixed_dictionaries({"type": st.just("video_url"), "video_url": st.just({"url": "http://v"})}),
                ).flatmap(lambda block: unknown.map(lambda more: {**more, **block})),
                max_size=3,
            ),
        }
    ),
    st.fixed_dictionaries(
        {"role": st.just("assistant")},
        optional={
            "content": texts,
            "refusal": texts,
            "reasoning_content": texts,
            "reasoning": texts,
            "tool_calls": st.lists(
                st.fixed_dictionaries(
                    {
                        "id": names,
                        "type": st.just("function"),
                        "function": st.fixed_dictionaries({"name": names, "arguments": texts}),
                    }
                ).flatmap(lambda call: unknown.map(lambda more: {**more, **call})),
                max_size=2,
            ),
        },
    ).map(lambda message: message if len(message) > 1 else {**message, "content": "hi"}),
    st.fixed_dictionaries({"role": st.just("tool"), "tool_call_id": names, "content": texts}),
).flatmap(lambda message: unknown.map(lambda more: {**more, **message}))
bodies = st.fixed_dictionaries(
    {"model": names, "messages": st.lists(messages_on_the_wire, min_size=1, max_size=4)},
    optional={
        "temperature": st.floats(0, 2),
        "max_tokens": st.integers(1, 99),
        "max_completion_tokens": st.integers(1, 99),
        "stop": texts | st.lists(texts, max_size=2),
        "stream": st.booleans(),
        "stream_options": st.just({"include_usage": True}) | st.just({"include_usage": False}),
        "tool_choice": st.sampled_from(["auto", "none", "required", {"type": "function", "function": {"name": "f"}}]),
        "reasoning_effort": st.sampled_from(["low", "high", "none", "xhigh"]),
        "functions": st.just([{"name": "old"}]),
        "tools": st.lists(
            st.one_of(
                st.fixed_dictionaries(
                    {
                        "type": st.just("function"),
                        "function": st.fixed_dictionaries(
                            {"name": names},
                            optional={
                                "description": texts,
                                "parameters": st.just({"type": "object", "properties": {}}),
                                "strict": st.booleans(),
                            },
                        ),
                    }
                ),
                st.just({"type": "custom", "custom": {"name": "grep", "format": {"type": "text"}}}),
                st.just({"type": "web_search"}),
            ),
            max_size=2,
        ),
    },
).flatmap(lambda body: unknown.map(lambda more: {**more, **body}))


@settings(max_examples=300, deadline=None)
@given(bodies)
def test_a_body_that_is_accepted_is_said_again(body):
    keeps(body)


parts = st.one_of(
    texts.map(lambda text: TextPart(text=text)),
    st.just(Image(data=PNG, media_type="image/png")),
    st.just(Image(url="https://host/cat.png", detail="low")),
)
histories = st.lists(
    st.one_of(
        texts.map(user),
        st.lists(parts, min_size=1, max_size=3).map(lambda several: Message("user", tuple(several))),
        texts.map(assistant),
        texts.map(lambda text: Message("assistant", (Refusal(text=text),))),
        st.tuples(names, texts).map(
            lambda pair: Message("assistant", (TextPart(text=pair[1]), ToolCall(name=pair[0], input="{}", id="c1")))
        ),
    ),
    min_size=1,
    max_size=4,
).map(tuple)
requests = st.builds(
    Request,
    model=names,
    messages=histories,
    tools=st.lists(names, max_size=2, unique=True).map(
        lambda several: tuple(ToolSpec(name, "look", {"type": "object", "properties": {}}) for name in several)
    ),
    temperature=st.none() | st.floats(0, 2),
    max_tokens=st.none() | st.integers(1, 99),
    stop=st.none() | st.lists(texts, min_size=1, max_size=2).map(tuple),
    seed=st.none() | st.integers(0, 9),
    thinking=st.none() | st.sampled_from(["low", "high"]),
    tool_choice=st.none() | st.sampled_from(["auto", "none", "required", "f"]),
    parallel_tool_calls=st.none() | st.booleans(),
    stream=st.booleans(),
    schema=st.none()
    | st.just(
        OutputSchema(
            "a",
            {
                "type": "object",
                "properties": {"n": {"type": "integer"}},
                "required": ["n"],
                "additionalProperties": False,
            },
        )
    ),
)


@settings(max_examples=300, deadline=None)
@given(requests)
def test_a_request_comes_back_from_the_wire_as_it_was(request_):
    http, notices = DIALECT.encode_request(request_)
    assert notices == ()
    assert DIALECT.decode_request(http.body) == request_


def test_a_round_of_tools_comes_back_as_one_message():
    history = (
        system("Be brief."),
        user("?"),
        Message("assistant", (ToolCall(name="f", input="{}", id="a"), ToolCall(name="g", input='{"x":1}', id="b"))),
        Message(
            "tool",
            (
                ToolResult(call_id="a", name="f", content=(TextPart(text="1"),)),
                ToolResult(call_id="b", name="g", content=(TextPart(text="2"), TextPart(text="3"))),
            ),
        ),
    )
    request = Request(model="m", messages=history)
    assert decoded(encoded(request)) == request


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"model": 5, "messages": [{"role": "user", "content": "x"}]}, "model"),
        ({"model": "m"}, "messages"),
        ({"model": "m", "messages": []}, "messages"),
        ({"model": "m", "messages": ["x"]}, "messages[0]"),
        ({"model": "m", "messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"model": "m", "messages": [{"role": "user"}]}, "messages[0].content"),
        ({"model": "m", "messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"model": "m", "messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages[0].content[0].type"),
        ({"model": "m", "messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0]"),
        ({"model": "m", "messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        (
            {"model": "m", "messages": [{"role": "assistant", "tool_calls": [{"id": "a", "function": {}}]}]},
            "messages[0].tool_calls[0].function.name",
        ),
        ({"model": "m", "messages": [{"role": "user", "content": "x"}], "temperature": "hot"}, "temperature"),
        ({"model": "m", "messages": [{"role": "user", "content": "x"}], "tools": [{"type": "function"}]}, "tools[0]"),
    ],
)
def test_what_is_no_request_is_refused_with_its_place(body, where):
    with pytest.raises(BadRequestError) as caught:
        decoded(body)
    assert str(caught.value).startswith(where)
    assert caught.value.status == 400


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'"x"', b"\xff"])
def test_a_body_that_is_no_object_is_refused(body):
    with pytest.raises(BadRequestError):
        DIALECT.decode_request(body)


answers = st.fixed_dictionaries(
    {
        "id": names,
        "object": st.just("chat.completion"),
        "created": st.integers(0, 9),
        "model": names,
        "choices": st.integers(1, 2).flatmap(
            lambda count: st.tuples(
                *(
                    st.fixed_dictionaries(
                        {
                            "index": st.just(number),
                            "finish_reason": st.sampled_from(
                                ["stop", "length", "tool_calls", "eos", "new_reason", None]
                            ),
                            "message": st.fixed_dictionaries(
                                {"role": st.just("assistant")},
                                optional={
                                    "content": texts | st.none(),
                                    "refusal": texts | st.none(),
                                    "reasoning_content": texts,
                                    "annotations": st.lists(st.just({"type": "url_citation"}), max_size=1),
                                    "tool_calls": st.lists(
                                        st.fixed_dictionaries(
                                            {
                                                "id": st.sampled_from(["a", "b"]),
                                                "type": st.just("function"),
                                                "function": st.fixed_dictionaries({"name": names, "arguments": texts}),
                                            }
                                        ),
                                        max_size=2,
                                        unique_by=lambda call: call["id"],
                                    ),
                                },
                            ).flatmap(lambda message: unknown.map(lambda more: {**more, **message})),
                        },
                        optional={"logprobs": st.just({"content": [{"token": "x", "logprob": -1.0}]}) | st.none()},
                    ).flatmap(lambda choice: unknown.map(lambda more: {**more, **choice}))
                    for number in range(count)
                )
            ).map(list)
        ),
    },
    optional={
        "usage": st.fixed_dictionaries(
            {"prompt_tokens": st.integers(0, 9), "completion_tokens": st.integers(0, 9)},
            optional={
                "total_tokens": st.integers(0, 30),
                "prompt_tokens_details": st.just({"cached_tokens": 2, "audio_tokens": 0}),
                "completion_tokens_details": st.just({"reasoning_tokens": 3}),
                "cost": st.just(0.5),
            },
        ),
        "service_tier": st.just("default"),
    },
).flatmap(lambda answer: unknown.map(lambda more: {**more, **answer}))


@settings(max_examples=400, deadline=None)
@given(answers)
def test_an_answer_is_said_again(answer):
    response = response_of(NAME, DIALECT.decode_answer(json.dumps(answer).encode()))
    again = json.loads(DIALECT.encode_response(response))
    assert DIALECT.canonical_answer(again) == DIALECT.canonical_answer(answer)


def streamed(deltas: Iterable[Delta]) -> bytes:
    encoder = DIALECT.encoder()
    return b"".join(encoder.feed(delta) for delta in deltas) + encoder.close()


def read(data: bytes) -> list[Delta]:
    decoder = DIALECT.decoder()
    return [*decoder.feed(data), *decoder.close()]


@st.composite
def answers_in_deltas(draw: st.DrawFn) -> list[Delta]:
    """What a stream of any dialect may say that this one has words for: at most one thought, text and refusal."""
    deltas: list[Delta] = [Head("r", "m")]
    kinds = draw(st.lists(st.sampled_from(["thinking", "text", "refusal"]), unique=True, max_size=3))
    calls = draw(st.integers(0, 2))
    for number, kind in enumerate(kinds):
        deltas.append(Open(number, kind, state={"field": "reasoning_content"} if kind == "thinking" else None))
        pieces = draw(st.lists(texts.filter(bool), min_size=1, max_size=3))
        deltas.extend(Text(number, piece) for piece in pieces)
        if kind == "text" and draw(st.booleans()):
            deltas.append(Note(number, {"logprob": {"token": "x"}}))
    for number in range(len(kinds), len(kinds) + calls):
        deltas.append(Open(number, "call", f"c{number}", draw(names)))
        deltas.extend(Text(number, piece) for piece in draw(st.lists(texts.filter(bool), max_size=3)))
    deltas.extend(Close(number) for number in range(len(kinds) + calls))
    deltas.append(Finish(draw(st.sampled_from(["stop", "length", "tool_calls", "content_filter"])), raw=None))
    deltas.append(Count(Usage(input=3, cache_read=2, output=4, reported_total=9)))
    return deltas


@settings(max_examples=300, deadline=None)
@given(answers_in_deltas())
def test_a_stream_sums_to_what_was_encoded(deltas):
    before, after = response_of(NAME, deltas), response_of(NAME, read(streamed(deltas)))
    assert after.message == before.message
    assert after.usage == before.usage
    refused = before.refusal is not None and before.finish_reason == "stop"
    assert after.finish_reason == ("refusal" if refused else before.finish_reason)


@pytest.mark.parametrize("dialect", [DIALECT, Mistral(), OpenAICompletions()], ids=lambda dialect: dialect.name)
@pytest.mark.parametrize("reason", ["cancelled", "paused", "unknown"])
def test_an_end_that_this_format_has_no_word_for_is_not_told_as_another(dialect, reason):
    deltas = [Head("r", "m"), Open(0, "text"), Text(0, "Hel"), Close(0), Finish(reason, raw="pause_turn")]
    (whole,) = json.loads(dialect.encode_response(response_of("anthropic", deltas)))["choices"]
    assert whole["finish_reason"] is None
    encoder = dialect.encoder()
    stream = b"".join(map(encoder.feed, deltas)) + encoder.close()
    chunks = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith(b"data: {")]
    assert {choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]} == {None}
    assert stream.endswith(b"data: [DONE]\n\n")
    decoder = dialect.decoder()
    after = response_of(dialect.name, [*decoder.feed(stream), *decoder.close()])
    assert (after.text, after.finish_reason) == ("Hel", "unknown")


@pytest.mark.parametrize("dialect", [DIALECT, Mistral(), Gemini()], ids=lambda dialect: dialect.name)
def test_each_of_several_answers_says_why_it_ended(dialect):
    reasons = ("stop", "length", "content_filter")
    deltas = [Head("r", "m")]
    for number, reason in enumerate(reasons):
        deltas += [Open(number, "text", choice=number), Text(number, "a"), Close(number), Finish(reason, number)]
    response = response_of("anthropic", deltas)
    assert response.finish_reasons == reasons
    encoder = dialect.encoder()
    stream = b"".join(map(encoder.feed, deltas)) + encoder.close()
    decoder = dialect.decoder()
    for told in (dialect.decode_answer(dialect.encode_response(response)), [*decoder.feed(stream), *decoder.close()]):
        assert response_of(dialect.name, told).finish_reasons == reasons


@pytest.mark.parametrize("kind", ["image", "file"])
def test_what_the_model_made_and_this_format_cannot_say_is_an_error(kind):
    deltas = [Head("r", "m"), Open(0, kind, media_type="image/png"), Blob(0, PNG), Close(0), Finish("stop")]
    with pytest.raises(UnsupportedError, match=kind):
        DIALECT.encode_response(response_of("gemini", deltas))
    with pytest.raises(UnsupportedError, match=kind):
        streamed(deltas)


@settings(max_examples=100, deadline=None)
@given(answers)
def test_a_whole_answer_can_be_streamed_out_again(answer):
    whole = DIALECT.decode_answer(json.dumps(answer).encode())
    before, after = response_of(NAME, whole), response_of(NAME, read(streamed(whole)))
    assert [message.parts for message in after.choices] == [message.parts for message in before.choices]
    assert after.usage == before.usage


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (AuthenticationError("no", status=401), 401, AuthenticationError),
        (NotFoundError("no such model"), 404, NotFoundError),
        (RateLimitError("slowly"), 429, RateLimitError),
        (OverloadedError("busy"), 503, OverloadedError),
        (OverloadedError("busy", status=529), 529, OverloadedError),
        (ConfigurationError("wrong"), 400, BadRequestError),
        (UnsupportedError("no images"), 400, BadRequestError),
        (ContextOverflowError("too long"), 400, ContextOverflowError),
        (DeadlineExceeded("too slow"), 504, ServerError),
        (ServerError("broken"), 500, ServerError),
    ],
)
def test_an_error_says_its_kind_over_the_wire(error, status, kind):
    sent, body = DIALECT.encode_error(error)
    assert sent == status
    told = DIALECT.decode_error(sent, {}, body)
    assert type(told) is kind
    assert error.message in str(told)


def test_an_error_in_a_stream_ends_it():
    encoder = DIALECT.encoder()
    data = b"".join(map(encoder.feed, [Head("r", "m"), Open(0, "text"), Text(0, "so far")]))
    decoder = DIALECT.decoder()
    deltas = decoder.feed(data + encoder.fail(OverloadedError("busy")))
    assert Text(0, "so far") in deltas
    assert decoder.is_over
    with pytest.raises(OverloadedError, match="busy"):
        decoder.close()
