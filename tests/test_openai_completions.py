"""Legacy completions in both directions, without a network: both sides of each table come from the API's reference.

Bodies are compared as JSON, both ways round; what hypothesis makes up has fields that nobody knows.
"""

from __future__ import annotations

import json
from itertools import pairwise

import msgspec
import pytest
from halves import same
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import sabir
from sabir import (
    BadRequestError,
    ContextOverflowError,
    Image,
    Message,
    Options,
    ProviderState,
    RateLimitError,
    SabirError,
    ServerError,
    StreamInterrupted,
    StreamProtocolError,
    Text,
    UnsupportedError,
    Value,
    system,
    user,
)
from sabir.deltas import Assembler, Close, Count, Finish, Head, Note, Open, State
from sabir.deltas import Text as TextDelta
from sabir.dialects import Unsupported, response_of
from sabir.dialects.openai_completions import NAME, OPEN_COMPLETION_PARAMETERS, OpenAICompletions
from sabir.requests import OutputSchema, Request, ToolSpec
from sabir.testing.replay import replay
from sabir.usage import Usage

DIALECT = OpenAICompletions()
OPEN = OpenAICompletions(parameters=OPEN_COMPLETION_PARAMETERS, least_logprobs=1)
HEAD = {"id": "cmpl-1", "object": "text_completion", "created": 5, "model": "m"}
COLUMNS = {
    "tokens": [" a", " b"],
    "token_logprobs": [None, -0.5],
    "top_logprobs": [None, {" b": -0.5, " c": -2.0}],
    "text_offset": [5, 7],
}
ROWS = [{"id": 9, "token": " a", "bytes": [32, 97], "logprob": -0.1, "top_logprobs": []}]


def sent(request, dialect=DIALECT):
    http, notices = dialect.encode_request(request)
    assert (http.method, http.url) == ("POST", "/completions")
    return json.loads(http.body), notices


def asked(*messages, **options):
    return Request(model="m", messages=messages or (user("Once"),), **options)


def choice(text, index=0, finish=None, **more):
    return {"text": text, "index": index, "logprobs": None, "finish_reason": finish, **more}


def sse(*chunks, end=b"data: [DONE]\n\n"):
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks) + end


def decoded(data, cuts=(), dialect=DIALECT):
    """The deltas, and the error at the end if there is one."""
    decoder, deltas = dialect.decoder(), []
    places = sorted({0, *cuts, len(data)})
    try:
        for start, end in pairwise(places):
            deltas += decoder.feed(data[start:end])
        deltas += decoder.close()
    except SabirError as error:
        return deltas, error
    return deltas, None


def streamed(deltas, dialect=DIALECT):
    encoder = dialect.encoder()
    return b"".join([*map(encoder.feed, deltas), encoder.close()])


def total(deltas):
    answer = Assembler(NAME)
    for delta in deltas:
        answer.add(delta)
    return answer.choices, answer.usage, answer.finishes


def told_again(body, dialect=DIALECT):
    deltas = dialect.decode_answer(json.dumps(body).encode())
    return json.loads(dialect.encode_response(response_of(NAME, deltas)))


# What is asked


@pytest.mark.parametrize(
    ("messages", "prompt"),
    [
        ((user("Once upon"),), "Once upon"),
        ((user("Once ", "upon"),), "Once upon"),
        ((user("One"), user("Two")), ["One", "Two"]),
        ((user(Value(value=[1, 2])),), [1, 2]),
        ((user(Value(value=[1, 2])), user("Two")), [[1, 2], "Two"]),
        ((user("As JSON: ", Value(value={"a": 1})),), 'As JSON: {"a":1}'),
    ],
    ids=["one", "parts", "two", "tokens", "tokens and a text", "a value"],
)
def test_messages_of_a_user_are_prompts(messages, prompt):
    body, notices = sent(asked(*messages))
    assert (body, notices) == ({"model": "m", "prompt": prompt}, ())


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (asked(system("Be brief."), user("x")), "no roles.*'system'"),
        (asked(Message("assistant", (Text(text="x"),))), "no roles.*'assistant'"),
        (asked(user(Image(url="https://x/y"))), "no place for an image; describe it in words"),
        (asked(user("x", Value(value=[1, 2]))), "a list of tokens is a prompt of its own"),
        (asked(tools=(ToolSpec("look"),)), "calls no tools"),
    ],
    ids=["system", "assistant", "image", "tokens within", "tools"],
)
def test_what_a_prompt_cannot_say_is_an_error_before_anything_is_sent(request_, reason):
    with pytest.raises(UnsupportedError, match=reason):
        DIALECT.encode_request(request_)


PARAMETERS = [
    ({"temperature": 0.5}, {"temperature": 0.5}),
    ({"top_p": 0.5}, {"top_p": 0.5}),
    ({"top_k": 5}, None),
    ({"min_p": 0.5}, None),
    ({"max_tokens": 5}, {"max_tokens": 5}),
    ({"stop": ("x", "y")}, {"stop": ["x", "y"]}),
    ({"seed": 7}, {"seed": 7}),
    ({"frequency_penalty": 0.5}, {"frequency_penalty": 0.5}),
    ({"presence_penalty": 0.5}, {"presence_penalty": 0.5}),
    ({"repetition_penalty": 1.5}, None),
    ({"thinking": True}, None),
    ({"tool_choice": "none"}, None),
    ({"parallel_tool_calls": False}, None),
    ({"logprobs": True}, {"logprobs": 0}),
    ({"logprobs": False}, {}),
    ({"top_logprobs": 3}, {"logprobs": 3}),
    ({"logprobs": True, "top_logprobs": 3}, {"logprobs": 3}),
    ({"logprobs": False, "top_logprobs": 3}, None),
    ({"n": 2}, {"n": 2}),
    ({"user": "u"}, {"user": "u"}),
    ({"documents": ("a",)}, None),
    ({"schema": OutputSchema("answer", {"type": "object"})}, None),
    ({"extra": {"echo": True, "temperature": 1}}, {"echo": True, "temperature": 1}),
    ({"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}),
]


@pytest.mark.parametrize(("options", "wire"), PARAMETERS, ids=lambda value: "+".join(value) if value else None)
def test_an_option_is_sent_in_the_formats_words_or_reported(options, wire):
    body, notices = sent(asked(**options))
    assert body == {"model": "m", "prompt": "Once", **(wire or {})}
    assert bool(notices) == (wire is None)
    if notices:
        assert notices[0].subject in options
        assert notices[0].kind in ("unsupported", "dropped")


def test_every_portable_option_has_a_verdict_and_is_tried_above():
    verdicts = DIALECT.verdicts()
    assert {*Options.__annotations__, "schema"} == verdicts.keys()
    # What becomes of `cache` is in test_prompt_cache.py, for all formats.
    tried = {name for options, _ in PARAMETERS for name in options} | {"headers", "cache"}
    assert verdicts.keys() <= tried
    for options, wire in PARAMETERS:
        if len(options) == 1 and (name := next(iter(options))) in verdicts:
            assert isinstance(verdicts[name], Unsupported) == (wire is None), name


def test_open_servers_take_the_samplers_and_are_asked_for_logprobs_by_a_number():
    body, notices = sent(asked(top_k=3, min_p=0.1, repetition_penalty=1.1, logprobs=True), OPEN)
    assert body == {"model": "m", "prompt": "Once", "top_k": 3, "min_p": 0.1, "repetition_penalty": 1.1, "logprobs": 1}
    assert notices == ()
    assert OPEN.decode_request(json.dumps(body).encode()) == asked(
        top_k=3, min_p=0.1, repetition_penalty=1.1, logprobs=True
    )


def test_what_only_another_format_knows_is_left_out_and_reported():
    state = ProviderState("ollama", {"set": {"keep_alive": 5}})
    body, (notice,) = sent(asked(state=state))
    assert body == {"model": "m", "prompt": "Once"}
    assert "ollama" in notice.message
    named, (told,) = sent(asked(Message("user", (Text(text="Once"),), name="Ann")))
    assert named == body
    assert (told.kind, told.subject) == ("dropped", "name")


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": ["a", 1.5]}, r"prompt\[1\]"),
        ({"prompt": ["a", []]}, r"prompt\[1\]"),
        ({"prompt": [[["a"]]]}, r"prompt\[0\]"),
        ({"prompt": True}, "prompt"),
        ({"model": 5}, "model"),
        ({"stream": "yes"}, "stream"),
        ({"temperature": "hot"}, "temperature"),
        ({"stop": ["a", 5]}, r"stop\[1\]"),
        ({"logprobs": "all"}, "logprobs"),
        ({"n": 1.5}, "n"),
    ],
)
def test_a_wrong_request_is_refused_and_told_where(body, where):
    with pytest.raises(BadRequestError, match=f"^{where}: ") as caught:
        DIALECT.decode_request(json.dumps({"model": "m", "prompt": "x", **body}).encode())
    assert caught.value.status == 400


@pytest.mark.parametrize("body", [b"", b"[]", b"5", b"{", b'"x"'])
def test_a_body_that_is_no_object_is_refused(body):
    with pytest.raises(BadRequestError):
        DIALECT.decode_request(body)


def test_a_request_is_read_in_portable_words():
    body = {"model": "m", "prompt": ["One", [1, 2], {"prompt_string": "x"}], "stop": "x", "logprobs": 2, "best_of": 3}
    request = DIALECT.decode_request(json.dumps({**body, "stream": False, "suffix": None}).encode())
    form = ProviderState(NAME, {"form": "prompt"})
    assert request == asked(
        user("One"),
        user(Value(value=[1, 2])),
        user(Value(value={"prompt_string": "x"}, state=form)),
        stop=("x",),
        logprobs=True,
        top_logprobs=2,
        state=ProviderState(NAME, {"set": {"best_of": 3}}),
    )


def test_a_model_may_be_asked_to_begin_anywhere():
    request = DIALECT.decode_request(b'{"model": "m", "prompt": null}')
    assert request == Request(model="m", messages=())
    assert sent(request)[0] == {"model": "m"}


words = st.text(max_size=8)
names = st.text("abcdef_", min_size=1, max_size=6)
numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
jsons = st.recursive(
    st.none() | st.booleans() | numbers | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
patches = st.dictionaries(names, jsons, max_size=2)
ids = st.lists(st.integers(0, 99_999), min_size=1, max_size=3)
floats = st.none() | st.floats(0, 2)
requests = st.builds(
    Request,
    model=words,
    messages=st.lists(words.map(user) | ids.map(lambda each: user(Value(value=each))), min_size=1, max_size=3).map(
        tuple
    ),
    stream=st.booleans(),
    temperature=floats,
    top_p=st.none() | st.floats(0, 1),
    max_tokens=st.none() | st.integers(1, 50_000),
    stop=st.none() | st.lists(words, max_size=2).map(tuple),
    seed=st.none() | st.integers(0, 99),
    frequency_penalty=floats,
    presence_penalty=floats,
    n=st.none() | st.integers(1, 3),
    user=st.none() | words,
)


@given(requests, st.none() | st.integers(1, 5) | st.just(True))
@settings(max_examples=150, deadline=None)
def test_a_request_comes_back(request, logprobs):
    if logprobs is not None:
        most = None if logprobs is True else logprobs
        request = msgspec.structs.replace(request, logprobs=True, top_logprobs=most)
    http, notices = DIALECT.encode_request(request)
    assert notices == ()
    assert DIALECT.decode_request(http.body) == request


def with_more(inner):
    return st.builds(lambda patch, value: {**patch, **value}, patches, inner)


prompts = words | ids | st.fixed_dictionaries({"prompt_string": words}) | st.none()
bodies = with_more(
    st.fixed_dictionaries(
        {"model": words, "prompt": prompts | st.lists(words | ids, max_size=3) | jsons},
        optional={
            "stream": st.booleans() | st.none(),
            "stream_options": st.dictionaries(names, jsons, max_size=1),
            "temperature": numbers | st.none(),
            "stop": words | st.lists(words, max_size=2),
            "logprobs": st.integers(-1, 5) | st.booleans() | st.none(),
            "top_k": numbers,
            "echo": st.booleans(),
            "logit_bias": st.dictionaries(names, numbers, max_size=2),
        },
    )
)


@pytest.mark.parametrize("dialect", [DIALECT, OPEN], ids=["openai", "open"])
@given(body=bodies)
@settings(max_examples=150, deadline=None)
def test_every_request_that_is_read_is_the_same_when_it_is_sent_again(dialect, body):
    try:
        request = dialect.decode_request(json.dumps(body).encode())
    except BadRequestError:
        assume(False)
    again, _ = sent(request, dialect)
    assert same(again, dialect.canonical_request(body)), (again, dialect.canonical_request(body))


# What is answered


def test_a_whole_answer_is_its_texts_in_order():
    usage = {"prompt_tokens": 4, "completion_tokens": 3, "total_tokens": 7}
    body = {**HEAD, "choices": [choice("a", 0, "length"), choice("", 1, "stop"), choice("c", 2, "stop")]}
    response = response_of(NAME, DIALECT.decode_answer(json.dumps({**body, "usage": usage}).encode()))
    assert [message.text for message in response.choices] == ["a", "", "c"]
    assert (response.text, response.finish_reason, response.model, response.message.id) == (
        "a",
        "length",
        "m",
        "cmpl-1",
    )
    assert (response.usage.input_tokens, response.usage.output_tokens) == (4, 3)


@pytest.mark.parametrize(
    ("logprobs", "rows"),
    [
        (
            COLUMNS,
            [
                {"token": " a", "text_offset": 5},
                {
                    "token": " b",
                    "logprob": -0.5,
                    "top_logprobs": [{"token": " b", "logprob": -0.5}, {"token": " c", "logprob": -2.0}],
                    "text_offset": 7,
                },
            ],
        ),
        ({"content": ROWS}, ROWS),
        (
            {"tokens": ["a", "b"], "token_logprobs": [-1.0]},
            [{"token": "a", "logprob": -1.0}, {"token": "b"}],
        ),
        ({"tokens": []}, []),
    ],
    ids=["columns", "rows", "ragged", "none"],
)
def test_log_probabilities_are_notes_a_token_and_are_told_as_they_came(logprobs, rows):
    body = {**HEAD, "choices": [{**choice(" a b", finish="stop"), "logprobs": logprobs}]}
    deltas = DIALECT.decode_answer(json.dumps(body).encode())
    (message,), *_ = total(deltas)
    assert message.parts[0].notes == tuple({"logprob": row} for row in rows)
    assert told_again(body) == DIALECT.canonical_answer(body)
    (again,), *_ = total(decoded(streamed(deltas))[0])
    assert (again.text, again.parts[0].notes) == (" a b", message.parts[0].notes)


answers = with_more(
    st.fixed_dictionaries(
        {
            "choices": st.lists(
                with_more(
                    st.fixed_dictionaries(
                        {"text": words},
                        optional={
                            "finish_reason": st.sampled_from(["stop", "length", "content_filter", "abort", None]),
                            "logprobs": st.fixed_dictionaries(
                                {},
                                optional={
                                    "tokens": st.lists(words | jsons, max_size=2),
                                    "token_logprobs": st.lists(numbers | st.none(), max_size=2),
                                    "top_logprobs": st.lists(st.dictionaries(words, numbers) | jsons, max_size=2),
                                    "content": st.lists(st.just(ROWS[0]) | jsons, max_size=2),
                                },
                            ),
                            "message": jsons,
                            "delta": jsons,
                        },
                    )
                ),
                min_size=1,
                max_size=3,
            )
        },
        optional={
            "id": words,
            "model": words,
            "object": words,
            "usage": st.dictionaries(
                st.sampled_from(["prompt_tokens", "completion_tokens", "total_tokens", "x"]), st.integers(0, 99) | jsons
            ),
        },
    )
)


@given(answers)
@settings(max_examples=300, deadline=None)
def test_every_answer_that_is_read_is_the_same_when_it_is_told_again(body):
    assume(not body.get("error") and body.get("object") != "error")
    for index, each in enumerate(body["choices"]):
        each["index"] = index
    try:
        again = told_again(body)
    except SabirError:
        assume(False)
    assert same(DIALECT.canonical_answer(again), DIALECT.canonical_answer(body)), again


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"<html>", ServerError),
        (b"{}", StreamProtocolError),
        (b'{"choices": []}', StreamProtocolError),
        (b'{"choices": [5]}', StreamProtocolError),
        (b'{"choices": [{"text": 5}]}', StreamProtocolError),
        (b"[]", StreamProtocolError),
        (b'{"error": {"message": "no"}}', ServerError),
    ],
)
def test_a_body_that_is_no_answer_is_an_error(body, error):
    with pytest.raises(error):
        DIALECT.decode_answer(body)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, {"error": {"message": "Incorrect key", "code": "invalid_api_key"}}, sabir.AuthenticationError),
        (429, {"error": {"message": "slow", "type": "requests"}}, RateLimitError),
        (400, {"object": "error", "message": "maximum context length is 4 tokens", "code": 400}, ContextOverflowError),
        (500, {"error": {"message": "down"}}, ServerError),
    ],
)
def test_an_error_becomes_the_exception_it_means_and_the_same_error_again(status, body, kind):
    error = DIALECT.decode_error(status, {}, json.dumps(body).encode())
    assert type(error) is kind
    again, told = DIALECT.encode_error(error)
    assert again == status
    assert type(DIALECT.decode_error(again, {}, told)) is kind


# Streams


@pytest.mark.parametrize(
    ("data", "texts", "reason", "error"),
    [
        (
            sse({**HEAD, "choices": [choice("a")]}, {**HEAD, "choices": [choice("b", finish="stop")]}),
            ["ab"],
            "stop",
            None,
        ),
        (sse({**HEAD, "choices": [choice("a", finish="stop")]}, end=b""), ["a"], "stop", None),
        (sse({**HEAD, "choices": [choice("a")]}), ["a"], None, None),
        (sse({**HEAD, "choices": [choice("a")]}, end=b""), ["a"], None, StreamInterrupted),
        (
            sse({**HEAD, "choices": [choice("a", finish="stop")]}, {**HEAD, "choices": [choice("b", 1)]}, end=b""),
            ["a", "b"],
            None,
            StreamInterrupted,
        ),
        (b"", [""], None, StreamInterrupted),
        (sse({"value": "a"}, end=b""), [""], None, StreamInterrupted),
        (sse({**HEAD, "choices": [choice("a")]}, {"error": {"message": "x", "code": 500}}), ["a"], None, ServerError),
        (sse({**HEAD, "choices": [choice("a")]})[:-3] + b"\n\ndata: {\n\n", ["a"], None, StreamProtocolError),
        (sse({**HEAD, "choices": [choice("a")]}, {**HEAD, "choices": [choice(5)]}), ["a"], None, StreamProtocolError),
    ],
    ids=[
        "whole",
        "no done",
        "no reason",
        "cut",
        "a choice is cut",
        "nothing",
        "another format",
        "an error",
        "no JSON",
        "no text",
    ],
)
def test_a_stream_ends_whole_or_with_an_error_after_all_that_came(data, texts, reason, error):
    deltas, raised = decoded(data)
    choices, _, finishes = total(deltas)
    assert [message.text for message in choices] == texts
    assert type(raised) is (error or type(None))
    assert (finishes[0].reason if finishes else None) == reason
    assert decoded(data, range(len(data)))[0] == deltas


def test_a_usage_beside_a_choice_is_that_choices_and_one_beside_none_is_of_all():
    def end(index, *counts):
        usage = dict(zip(("prompt_tokens", "completion_tokens", "total_tokens"), counts, strict=True))
        return {**HEAD, "choices": [choice("", index, "stop")], "usage": usage}

    ends = [end(1, 2, 3, 5), end(0, 7, 1, 8)]
    _, usage, _ = total(decoded(sse(*ends))[0])
    assert (usage.input_tokens, usage.output_tokens, usage.reported_total) == (9, 4, 13)
    of_all = {**ends[0], "choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}}
    _, usage, _ = total(decoded(sse(*ends, of_all))[0])
    assert (usage.input_tokens, usage.output_tokens, usage.reported_total) == (9, 5, 14)


def test_halves_of_a_character_are_joined():
    data = sse({**HEAD, "choices": [choice("a \ud83e")]}, {**HEAD, "choices": [choice("\udd8a", finish="stop")]})
    deltas, error = decoded(data)
    assert error is None
    assert total(deltas)[0][0].text == "a 🦊"


def test_a_choice_that_is_asked_for_no_usage_is_told_none():
    request = DIALECT.decode_request(b'{"model": "m", "prompt": "x", "stream": true}')
    deltas = [Head("1", "m"), Open(0, "text"), TextDelta(0, "a"), Count(Usage(input=1)), Finish("stop", raw="stop")]
    for wish, is_told in ((request, False), (None, True)):
        encoder = DIALECT.encoder(wish)
        told = b"".join([*map(encoder.feed, deltas), encoder.close()])
        assert (b"usage" in told) == is_told
        assert told.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("kind", ["thinking", "call", "image", "server"])
def test_what_is_no_text_is_not_told_as_one(kind):
    with pytest.raises(UnsupportedError, match=kind):
        DIALECT.encoder().feed(Open(0, kind))
    message = Message("assistant", (Image(url="https://x/y"),))
    response = msgspec.structs.replace(response_of(NAME, []), message=message, choices=(message,))
    with pytest.raises(UnsupportedError, match="Image"):
        DIALECT.encode_response(response)


@st.composite
def delta_streams(draw):
    """Deltas as our decoder gives them: texts of several choices, interleaved, with log probabilities."""
    deltas, parts = [Head("1", "m")], draw(st.integers(1, 3))
    deltas += [Open(part, "text", choice=part) for part in range(parts)]
    for part in (*range(parts), *draw(st.lists(st.integers(0, parts - 1), max_size=3))):
        deltas.append(TextDelta(part, draw(st.text(min_size=1, max_size=5))))
        if draw(st.booleans()):
            row = draw(st.sampled_from([{"token": "a", "logprob": -1.0}, *ROWS, {"token": "b", "text_offset": 3}]))
            deltas.append(Note(part, {"logprob": row}))
    if draw(st.booleans()):
        deltas.append(Count(Usage(input=draw(st.integers(0, 99)), output=draw(st.integers(0, 9)))))
    if extra := draw(st.none() | words):
        deltas.insert(1, State(None, {"answer": {"set": {"system_fingerprint": extra}}}))
    ends = [Finish(draw(st.sampled_from(["stop", "length"])), part) for part in range(parts)]
    return [*deltas, *(msgspec.structs.replace(end, raw=end.reason) for end in ends)]


@given(delta_streams(), st.data())
@settings(max_examples=150, deadline=None)
def test_the_sum_of_deltas_survives_being_a_stream_however_it_is_cut(deltas, data):
    told = streamed(deltas)
    cuts = data.draw(st.lists(st.integers(0, len(told)), max_size=5))
    again, error = decoded(told, cuts)
    assert error is None
    choices, usage, finishes = total(deltas)
    back, counted, ends = total(again)
    assert [message.parts for message in back] == [message.parts for message in choices]
    assert ends == finishes
    assert msgspec.structs.replace(counted, reported_total=None) == usage
    assert again == decoded(told)[0]


@given(answers)
@settings(max_examples=150, deadline=None)
def test_a_stream_sums_to_its_whole_answer(body):
    assume(not body.get("error") and body.get("object") != "error")
    for index, each in enumerate(body["choices"]):
        each.update(index=index, finish_reason=each.get("finish_reason") or "stop")
    try:
        deltas = DIALECT.decode_answer(json.dumps(body).encode())
        chunks, error = decoded(sse({**body, "choices": body["choices"]}))
    except SabirError:
        assume(False)
    assert error is None
    whole, parts = (total([it for it in side if not isinstance(it, (State, Close))]) for side in (deltas, chunks))
    assert whole == parts


# What is recorded elsewhere under this name


@pytest.mark.parametrize(
    "body",
    [
        {"id": "c", "object": "chat.completion", "choices": [{"message": {"content": "a"}}]},
        'data: {"object":"chat.completion.chunk","choices":[{"delta":{"content":"a"}}]}\n\ndata: [DONE]\n\n',
        'data: {"value":"Sure"}\n\ndata: {"value":","}\n\n',
    ],
    ids=["a chat", "a stream of a chat", "a stream of values"],
)
def test_an_answer_of_another_format_is_unsupported_not_passed(body):
    response = {"status": 200, "content_type": None, "headers": {}, "body": body}
    exchange = {"id": "x", "dialect": "openai-completions", "endpoint": "completions", "stream": isinstance(body, str)}
    result = replay({**exchange, "response": response})
    assert result.verdict == "unsupported"
    assert "none of" in result.notes[0] or "no answer of" in result.notes[0]
