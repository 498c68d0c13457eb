"""Answers that break off in the middle, at every event and every byte, and what comes of them all the same."""

from __future__ import annotations

from decimal import Decimal
from time import monotonic

import msgspec
import openai
import pytest
import trio
from breaking import USAGE, Breaking
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import until

from sabir import (
    BadRequestError,
    Client,
    ConfigurationError,
    DeadlineExceeded,
    EngineError,
    Hook,
    OverloadedError,
    Prices,
    StreamInterrupted,
    ToolCall,
    aio,
)
from sabir.deltas import Head, Open, Text
from sabir.dialects import Cursor
from sabir.dialects.openai_responses import OpenAIResponses
from sabir.dialects.prefills import CLAUDE
from sabir.engines.llama_cpp import LlamaCpp, pico_path
from sabir.providers import PROVIDERS
from sabir.requests import Request
from sabir.runtime import Line
from sabir.strict_json import decode_json
from sabir.testing import Scripted, VirtualClock

TEXT = 'One  two\n\n  three "four" (five), \U0001f600 six.\n aaaa aaaa\n'
MODELS = {
    "anthropic": "anthropic:claude-sonnet-4-5",
    "mistral": "mistral:mistral-large-latest",
    "vllm": "vllm:x",
    "openai-chat": "openai-chat:gpt-4.1",
    "openai-responses": "openai-responses:gpt-5",
}
# The way that an answer of one text takes in each of them.
BEST = {
    "anthropic": "continue",
    "mistral": "continue",
    "vllm": "continue",
    "openai-chat": "restart",
    "openai-responses": "resume",
}


def texts(*parts):
    return lambda request: parts


class Asking:
    """A client of a server, on a clock of its own, and what was seen of its streams."""

    def __init__(self, surface, server, provider, **options):
        self.clock = VirtualClock()
        options = {"recover": True, "max_attempts": 5, "on_unsupported": "ignore", "api_key": "k", **options}
        model = options.pop("model", None) or MODELS[provider]
        self.client = surface.client(model, base_url=server.url, runtime_wrappers=[self.clock], **options)

    async def read(self, prompt="?", **options):
        """The response, and what a page would show that clears itself when it is told to."""
        shown = {"thinking": "", "generating": ""}
        self.restarts = []
        self.partials = []
        stream = self.client.stream(prompt, **options)
        async for chunk in stream:
            if chunk.phase in shown:
                shown[chunk.phase] += chunk.content
            elif chunk.is_restart():
                self.restarts.append(chunk.content)
                shown = dict.fromkeys(shown, "")
            elif chunk.is_tool_call():
                shown = dict.fromkeys(shown, "")
            self.partials.append(stream.partial())
        return stream.response, shown


def outcomes(response):
    return [attempt.outcome for attempt in response.attempts]


def told(response, kind="retried"):
    return [notice.message for notice in response.warnings if notice.kind == kind and notice.subject == "recover"]


async def recovered_at(surface, provider, says, cut, **settings):
    with Breaking(provider, says, cut, **settings) as server:
        asking = Asking(surface, server, provider)
        response, shown = await asking.read()
        return server, asking, response, shown


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("provider", MODELS)
async def test_a_text_that_is_cut_at_any_event_is_the_same_in_the_end(surface, provider, fails):
    with Breaking(provider, texts(TEXT)) as server:
        whole, _ = await Asking(surface, server, provider).read()
    ways = []
    for cut in range(1, 200):
        server, asking, response, shown = await recovered_at(surface, provider, texts(TEXT), cut, fails=fails)
        assert (response.text, shown["generating"]) == (TEXT, TEXT), cut
        assert response.finish_reason == "stop"
        assert [type(part).__name__ for part in response.message.parts] == ["Text"]
        if outcomes(response) == ["answered"]:
            break
        assert len(response.attempts) == 2, cut
        assert len(told(response)) == 1
        if asking.restarts:
            ways.append("restart")
            assert server.requests[0] == server.requests[1]
        elif server.resumed:
            ways.append("resume")
            assert len(server.requests) == 1
            assert (response.usage, response.cost) == (whole.usage, whole.cost)
            continue
        else:
            ways.append("continue")
            assert server.requests[1].messages[:-1] == server.requests[0].messages
        assert response.usage.output >= USAGE.output
        assert response.cost is None
    # Before there is any text there is nothing to go on with, and an error ends what is made in the background.
    expected = "restart" if fails and BEST[provider] == "resume" else BEST[provider]
    assert len(ways) > 10
    assert ways.count(expected) >= len(ways) - 3


@pytest.mark.parametrize("provider", MODELS)
async def test_a_short_text_that_is_cut_at_any_byte_is_the_same_in_the_end(surface, provider):
    says = texts("Hi  \U0001f600!")
    # What the Responses API says of one word is long.
    step = 23 if surface.name != "blocking" else 3 if provider == "openai-responses" else 1
    for cut in range(1, 20000, step):
        _, _, response, shown = await recovered_at(surface, provider, says, cut, by_bytes=True)
        assert (response.text, shown["generating"]) == ("Hi  \U0001f600!", "Hi  \U0001f600!"), cut
        if outcomes(response) == ["answered"]:
            break
    assert cut > 300


@pytest.mark.parametrize("provider", MODELS)
async def test_thoughts_and_calls_that_are_cut_at_any_event_are_the_same_in_the_end(surface, provider):
    runs = []

    def add(a: int, b: int) -> int:
        runs.append((a, b))
        return a + b

    def says(request):
        if not any(message.role == "tool" for message in request.messages):
            return (("Let me think\nabout it.", ""), "I will add.", ToolCall("add", '{"a": 1, "b": 2}', id="abcdefghi"))
        return (TEXT,)

    for cut in range(1, 200):
        with Breaking(provider, says, cut) as server:
            runs.clear()
            asking = Asking(surface, server, provider, tools=[add])
            response, shown = await asking.read()
            assert (response.text, shown["generating"]) == (TEXT, TEXT), cut
            assert runs == [(1, 2)]
            first = response.messages[0]
            assert (first.text, first.thinking) == ("I will add.", "Let me think\nabout it.")
            assert [call.input for call in first.tool_calls] == ['{"a": 1, "b": 2}']
            # The second round is cut too where the first has had all its events before the cut.
            assert [message.role for message in response.messages] == ["assistant", "tool", "assistant"]
        if outcomes(response) == ["answered", "answered"]:
            break
        assert outcomes(response) == ["StreamInterrupted", "answered", "answered"]
        assert bool(asking.restarts) == (provider != "openai-responses")
    assert cut > 10


@pytest.mark.parametrize("provider", MODELS)
async def test_an_answer_may_break_off_again_and_again(surface, provider):
    with Breaking(provider, texts(TEXT * 4), 6, 5, 7, 6) as server:
        asking = Asking(surface, server, provider)
        response, shown = await asking.read()
        assert (response.text, shown["generating"]) == (TEXT * 4, TEXT * 4)
        assert outcomes(response) == [*["StreamInterrupted"] * 4, "answered"]
        assert [attempt.waited for attempt in response.attempts] == [0, *asking.clock.slept]


@pytest.mark.parametrize("provider", MODELS)
async def test_after_the_last_attempt_the_error_has_what_had_come(surface, provider):
    with Breaking(provider, texts(TEXT * 4), *[9] * 9) as server:
        asking = Asking(surface, server, provider, max_attempts=3)
        with pytest.raises(StreamInterrupted) as caught:
            await asking.read()
        assert len(caught.value.attempts) == 3
        assert len(server.requests) + len(server.resumed) == 3
        assert (TEXT * 4).startswith(caught.value.partial.text)
        assert caught.value.partial.text
        assert [notice.kind for notice in caught.value.warnings if notice.subject == "recover"].count("retried") == 2


async def test_what_is_shown_stays_until_there_is_something_of_the_new_answer(surface):
    with Breaking("openai-chat", texts(TEXT), 6, 0) as server:
        seen = []
        with pytest.raises(StreamInterrupted) as caught:
            await collect(Asking(surface, server, "openai-chat", max_attempts=2).client.stream("?"), seen)
        assert len(server.requests) == 2
        assert not any(chunk.is_restart() for chunk in seen)
        assert caught.value.partial.text == "".join(chunk.content for chunk in seen)


async def collect(stream, seen):
    async for chunk in stream:
        seen.append(chunk)


@pytest.mark.parametrize("provider", MODELS)
async def test_without_the_option_nothing_is_recovered_and_nothing_else_is_asked_for(surface, provider):
    with Breaking(provider, texts(TEXT), 8, 8) as server:
        asking = Asking(surface, server, provider, recover=False)
        with pytest.raises(StreamInterrupted):
            await asking.read()
        with pytest.raises(StreamInterrupted):
            await asking.read(recover=None)
        plain, asked = asking.client.explain("?", stream=True), server.calls[0].body
        assert len(server.calls) == 2
    assert "background" not in plain.body
    assert b"background" not in asked


@pytest.mark.parametrize(("way", "provider"), [("continue", "openai-chat"), ("resume", "mistral"), ("resume", "vllm")])
async def test_no_other_way_is_taken_than_those_that_are_named(surface, way, provider):
    with Breaking(provider, texts(TEXT), 8) as server:
        with pytest.raises(StreamInterrupted) as caught:
            await Asking(surface, server, provider, recover=way).read()
        assert len(server.calls) == 1
        assert any("recover=True takes" in notice.message for notice in caught.value.warnings)


READ_ON, GONE_ON = "read on where its stream broke off", "gone on with from its text"


@pytest.mark.parametrize(
    ("model", "options", "lacks"),
    [
        ("vllm:x", {"recover": "resume"}, READ_ON),
        ("pico", {"recover": "resume"}, READ_ON),
        ("openai-chat:gpt-4.1", {"recover": ["continue"]}, GONE_ON),
        ("openai-chat:gpt-4.1", {"recover": ["resume", "continue"]}, f"{READ_ON} or {GONE_ON}"),
        # The model takes beginnings of answers, and not of this one; or only its older ones do.
        ("anthropic:claude-sonnet-4-5", {"recover": "continue", "thinking": True, "max_tokens": 4000}, GONE_ON),
        ("anthropic:claude-sonnet-4-5", {"recover": "continue"}, None),
        ("anthropic:claude-opus-4-6", {"recover": "continue"}, GONE_ON),
        ("openai-responses:gpt-5", {"recover": "resume"}, None),
        ("openai-chat:gpt-4.1", {"recover": ["continue", "restart"]}, None),
        ("openai-chat:gpt-4.1", {"recover": True}, None),
        ("openai-chat:gpt-4.1", {"recover": False}, None),
    ],
)
def test_ways_that_are_none_of_the_models_are_said(model, options, lacks):
    with Client(model, **({} if model == "pico" else {"api_key": "k", "base_url": "http://localhost:1"})) as client:
        for is_stream in (True, False):
            notices = client.explain("?", stream=is_stream, **options).notices
            said = [each.message for each in notices if (each.kind, each.subject) == ("unsupported", "recover")]
            assert len(said) == (lacks is not None)
            assert lacks is None or f"cannot be {lacks}; recover=True takes" in said[0]


@pytest.mark.parametrize("provider", MODELS)
async def test_one_way_that_is_named_is_the_one_that_is_taken(surface, provider):
    with Breaking(provider, texts(TEXT), 8) as server:
        asking = Asking(surface, server, provider, recover=False)
        response, shown = await asking.read(recover="restart")
        assert (response.text, shown["generating"]) == (TEXT, TEXT)
        assert [each["attempt"] for each in asking.restarts] == [2]
        assert server.calls[0].body == server.calls[1].body


async def test_a_server_that_refuses_a_beginning_is_asked_anew_or_the_error_says_so(surface):
    for recover, most in ((True, 3), (True, 2), ("continue", 3)):
        with Breaking("anthropic", texts(TEXT), 8, takes_beginnings=False) as server:
            asking = Asking(surface, server, "anthropic", recover=recover, max_attempts=most)
            if (recover, most) == (True, 3):
                response, shown = await asking.read()
                assert (response.text, shown["generating"]) == (TEXT, TEXT)
                assert outcomes(response) == ["StreamInterrupted", "BadRequestError", "answered"]
                assert [each["attempt"] for each in asking.restarts] == [3]
                continue
            with pytest.raises(StreamInterrupted, match="did not go on with it") as caught:
                await asking.read()
            assert TEXT.startswith(caught.value.partial.text)


@pytest.mark.parametrize("options", [{"thinking": True}, {"model": "claude-opus-4-6"}])
async def test_a_model_that_takes_no_beginning_is_asked_anew(surface, options):
    with Breaking("anthropic", texts(TEXT), 8) as server:
        response, shown = await Asking(surface, server, "anthropic").read(**options)
        assert (response.text, shown["generating"]) == (TEXT, TEXT)
        assert outcomes(response) == ["StreamInterrupted", "answered"]


@pytest.mark.parametrize(
    ("model", "takes"),
    [
        ("claude-3-5-sonnet-20241022", True),
        ("claude-sonnet-4-20250514", True),
        ("claude-opus-4-1", True),
        ("claude-haiku-4-5@20251001", True),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", True),
        ("anthropic/claude-sonnet-4.5", True),
        ("claude-opus-4-6", False),
        ("claude-opus-4-10", False),
        ("anthropic/claude-opus-4.6", False),
        ("claude-sonnet-5", False),
        ("openai/gpt-5", False),
    ],
)
def test_which_models_of_anthropics_take_a_beginning(model, takes):
    assert bool(CLAUDE.models.search(model)) == takes


async def test_deepseek_goes_on_with_a_marked_message_at_another_address(surface):
    with Breaking("deepseek", texts(TEXT), 8) as server:
        asking = Asking(surface, server, "deepseek", model="deepseek:deepseek-chat")
        response, _ = await asking.read()
        assert response.text == TEXT
        assert [call.target for call in server.calls] == ["/chat/completions", "/beta/chat/completions"]


async def test_bedrock_goes_on_with_claude(surface):
    for cut in range(1, 4000, 60):
        with Breaking("bedrock", texts(TEXT), cut, by_bytes=True) as server:
            asking = Asking(surface, server, "bedrock", model="bedrock:anthropic.claude-sonnet-4-5-20250929-v1:0")
            response, shown = await asking.read()
            assert (response.text, shown["generating"]) == (TEXT, TEXT), cut
            if outcomes(response) == ["answered"]:
                break
    assert cut > 1000


@pytest.mark.parametrize("way", ["continue", "restart"])
async def test_what_both_answers_took_is_counted_and_what_that_costs_is_not_known(surface, way):
    with Breaking("anthropic", texts(TEXT), 8) as server:
        asking = Asking(
            surface,
            server,
            "anthropic",
            recover=way,
            prices={MODELS["anthropic"]: Prices(input=Decimal(1), output=Decimal(2))},
        )
        assert (await asking.read())[0].cost is None
        response, _ = await asking.read()
        assert response.cost is not None
        assert (response.usage.input_tokens, response.usage.output_tokens) == (10, 5)
    with Breaking("anthropic", texts(TEXT), 8) as server:
        response, _ = await Asking(surface, server, "anthropic", recover=way).read()
        assert (response.usage.input_tokens, response.usage.output_tokens) == (20, 5)


async def test_a_call_has_one_beginning_and_one_end_however_often_it_breaks_off(surface):
    seen = []

    class Watching(Hook):
        def on_start(self, event):
            seen.append("start")

        def on_first_token(self, event):
            seen.append("token")

        def on_end(self, event):
            seen.append("end")

    with Breaking("openai-chat", texts(TEXT), 5, 6, 7) as server:
        response, _ = await Asking(surface, server, "openai-chat", hooks=[Watching()]).read()
        assert response.text == TEXT
    assert seen == ["start", "token", "end"]


async def test_a_wait_that_goes_beyond_the_deadline_is_not_begun(surface):
    with Breaking("openai-chat", texts(TEXT), *[6] * 20) as server:
        asking = Asking(surface, server, "openai-chat", timeout=3, max_attempts=20)
        with pytest.raises((StreamInterrupted, DeadlineExceeded)):
            await asking.read()
        assert sum(asking.clock.slept) < 3
        assert 2 < len(server.requests) < 8


@pytest.mark.parametrize("value", ["again", 3, ["resume", "again"], {"x": 1}])
async def test_another_word_is_refused_before_anything_is_sent(surface, value):
    with pytest.raises(ConfigurationError, match="recover"):
        surface.client("openai-chat:gpt-4.1", api_key="k", recover=value)
    client = surface.client("openai-chat:gpt-4.1", api_key="k")
    with pytest.raises(ConfigurationError, match="recover"):
        await client.ask("?", recover=value)


SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "people": {"type": "integer"}},
    "required": ["city", "people"],
    "additionalProperties": False,
}
GOOD = '{"city": "Istanbul", "people": 15701602}'
BAD = '{"city": "Ankara", "people": "many"}'


@pytest.mark.parametrize("mode", ["native", "prompt", "tool"])
@pytest.mark.parametrize("provider", MODELS)
async def test_objects_are_never_mixed_of_two_attempts(surface, provider, mode):
    """An answer that does not fit is sent back; each of the two is cut at every event."""

    def says(request):
        is_second = any(message.role == "assistant" and "Ankara" in message.text for message in request.messages[:-1])
        is_second = is_second or "Answer again" in request.messages[-1].text
        text = GOOD if is_second else BAD
        calls = [tool.name for tool in request.tools]
        return [ToolCall(calls[0], text, id="abcdefghi")] if calls else [text]

    step = 1 if surface.name == "asyncio" else 4
    for cut in range(1, 200, step):
        for cuts in ((cut,), (1000, cut)):
            with Breaking(provider, says, *cuts) as server:
                asking = Asking(surface, server, provider)
                response, shown = await asking.read(schema=SCHEMA, schema_mode=mode, validation_retries=1)
                assert response.parsed == {"city": "Istanbul", "people": 15701602}
                assert shown["generating"] == response.text == GOOD
            wholes = [{"city": "Ankara", "people": "many"}, {"city": "Istanbul", "people": 15701602}]
            for partial in filter(None, asking.partials):
                assert any(is_beginning(partial, whole) for whole in wholes), (cuts, partial)
        if outcomes(response) == ["answered", "answered"]:
            break
    assert cut > 1


def is_beginning(partial, whole):
    pairs = list(zip(partial.items(), whole.items(), strict=False))
    return all(one[0] == other[0] and str(other[1]).startswith(str(one[1])) for one, other in pairs)


@pytest.mark.parametrize("include", [["generating"], ["generating", "restarting"], ["tool_calling"], None])
async def test_who_would_not_see_a_restart_is_spared_it(surface, include):
    with Breaking("openai-chat", texts(TEXT), 8) as server:
        stream = Asking(surface, server, "openai-chat").client.stream("?", include=include)
        if include != ["generating"]:
            await collect(stream, [])
            assert stream.response.text == TEXT
            return
        with pytest.raises(StreamInterrupted) as caught:
            await collect(stream, [])
        assert any("add 'restarting' to it" in notice.message for notice in caught.value.warnings)
        assert (await Asking(surface, server, "openai-chat").client.ask("?")).text == TEXT


async def test_a_model_in_this_process_is_asked_again_too(surface):
    class Failing(Scripted):
        def deltas(self, request, line):
            yield from super().deltas(request, line)
            if len(self.requests) < 3:
                raise EngineError("out of memory", retryable=True)

    engine = Failing(*[[Head("1", "m"), Open(0, "text"), Text(0, TEXT)]] * 3)
    client = surface.client(engine, recover=True, runtime_wrappers=[VirtualClock()])
    response = await client.ask("?")
    assert response.text == TEXT
    assert len(told(response)) == 2
    with pytest.raises(EngineError):
        await surface.client(Failing(*[[Open(0, "text")]] * 2), recover=True, max_attempts=1).ask("?")


class PicoServer(Breaking):
    """The embedded model behind chat completions."""

    engine = None

    def _deltas(self, request, body):
        request = msgspec.structs.replace(request, model="pico", max_tokens=300, temperature=0)
        yield from self.engine.deltas(request, Line())


@settings(max_examples=150, deadline=None)
@given(
    provider=st.sampled_from(sorted(MODELS)),
    text=st.text("aab \n\u2003\U0001f600", min_size=1, max_size=30),
    cuts=st.lists(st.integers(1, 14), min_size=1, max_size=3),
)
def test_whatever_the_text_and_wherever_it_is_cut_the_text_is_the_same(provider, text, cuts):
    with Breaking(provider, texts(text), *cuts) as server:
        client = Client(
            MODELS[provider],
            base_url=server.url,
            api_key="k",
            recover=True,
            max_attempts=5,
            on_unsupported="ignore",
            runtime_wrappers=[VirtualClock()],
        )
        with client, client.stream("?") as stream:
            shown = ""
            for chunk in stream:
                shown = "" if chunk.is_restart() else shown + chunk.content
        assert (stream.response.text, shown) == (text, text)


async def test_a_real_model_goes_on_with_what_it_said(surface, pico):
    """Where its words are cut, not within one: a beginning is read as words that may be others."""
    PicoServer.engine = engine = LlamaCpp(pico_path(), PROVIDERS["pico"].dialect, name="pico")
    step = 9 if surface.name == "asyncio" else 40
    try:
        with PicoServer("vllm", texts()) as server:
            whole, _ = await Asking(surface, server, "vllm").read("Tell me a story about a cat.")
        assert len(whole.text) > 200
        for cut in range(3, 55, step):
            with PicoServer("vllm", texts(), cut) as server:
                asking = Asking(surface, server, "vllm")
                response, shown = await asking.read("Tell me a story about a cat.")
                assert (response.text, shown["generating"]) == (whole.text, whole.text)
                assert (asking.restarts, outcomes(response)) == ([], ["StreamInterrupted", "answered"])
    finally:
        engine.close()


# Answers in the background


async def test_what_is_made_in_the_background_is_said(surface):
    with Breaking("openai-responses", texts(TEXT)) as server:
        asking = Asking(surface, server, "openai-responses")
        response, _ = await asking.read()
        assert len(told(response, "advice")) == 1
        assert asking.client.explain("?", stream=True).body["background"] is True
        assert (await asking.client.ask("?")).text == TEXT
        with_own = await asking.read(extra={"store": False})
        assert told(with_own[0], "unsupported")
    bodies = [decode_json(call.body) for call in server.calls]
    assert [body.get("background") for body in bodies] == [True, None, None]
    assert [body["store"] for body in bodies] == [True, False, False]
    assert server.cancelled == []


@pytest.mark.parametrize("recover", [True, "resume"])
async def test_an_answer_that_is_gone_is_asked_for_anew_or_the_error_says_so(surface, recover):
    with Breaking("openai-responses", texts(TEXT), 8) as server:
        server.keeps = False
        asking = Asking(surface, server, "openai-responses", recover=recover)
        if recover is True:
            response, shown = await asking.read()
            assert (response.text, shown["generating"]) == (TEXT, TEXT)
            assert outcomes(response) == ["StreamInterrupted", "StreamInterrupted", "answered"]
        else:
            with pytest.raises(StreamInterrupted, match="could not be read on: no such response") as caught:
                await asking.read()
            assert TEXT.startswith(caught.value.partial.text)


async def test_events_that_are_missing_are_no_answer(surface):
    with Breaking("openai-responses", texts(TEXT), 8, 1000, 8) as server:
        server.skips = 1
        with pytest.raises(StreamInterrupted, match="the events from 8 to 8 are missing"):
            await Asking(surface, server, "openai-responses", recover="resume").read()
        response, shown = await Asking(surface, server, "openai-responses").read()
        assert (response.text, shown["generating"]) == (TEXT, TEXT)


async def test_events_that_come_once_more_are_not_read_twice(surface):
    with Breaking("openai-responses", texts(TEXT), 8) as server:
        server.skips = -5
        response, shown = await Asking(surface, server, "openai-responses", recover="resume").read()
        assert (response.text, shown["generating"]) == (TEXT, TEXT)


async def test_whoever_leaves_early_has_the_answer_ended_at_its_server(surface):
    with Breaking("openai-responses", texts(TEXT), 8) as server:
        server.hangs = True
        asking = Asking(surface, server, "openai-responses")
        async with asking.client.stream("?") as stream:
            async for _ in stream:
                break
        assert await surface.in_thread(lambda: until(lambda: server.cancelled == ["answer1"], 5))
        server.hangs = False


async def test_a_server_that_never_hears_of_it_holds_nobody_up(surface):
    with Breaking("openai-responses", texts(TEXT), 8) as server:
        server.hangs = server.is_deaf = True
        stream = Asking(surface, server, "openai-responses").client.stream("?")
        async for _ in stream:
            break
        began = monotonic()
        stream.close()
        assert monotonic() - began < 0.5


async def test_an_answer_that_is_given_up_is_ended_at_its_server(surface):
    with Breaking("openai-responses", texts(TEXT), 8, 0, 0) as server:
        with pytest.raises(StreamInterrupted):
            await Asking(surface, server, "openai-responses", max_attempts=3).read()
        assert await surface.in_thread(lambda: until(lambda: server.cancelled == ["answer1"], 5))


def test_openais_sdk_reads_on_where_it_says():
    with Breaking("openai-responses", texts(TEXT), 8) as server, openai.OpenAI(base_url=server.url, api_key="k") as sdk:
        events = []
        with pytest.raises(openai.APIConnectionError):
            events += sdk.responses.create(model="gpt-5", input="?", background=True, stream=True)
        assert len(events) == 8
        events += sdk.responses.retrieve("answer1", stream=True, starting_after=events[-1].sequence_number)
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == TEXT
        sdk.responses.cancel("answer1")
        assert server.cancelled == ["answer1"]


@pytest.mark.parametrize("target", ["/v1/responses", "/responses/r?stream=false&starting_after=3", "/responses/r/x"])
def test_what_is_no_wish_to_read_on_is_not_taken_for_one(target):
    assert OpenAIResponses().decode_resume(target) is None


def test_a_wish_to_read_on_is_read_as_it_was_written():
    dialect, request = OpenAIResponses(), Request(model="m", messages=(), headers={"x-a": "b"})
    http = dialect.encode_resume(request, Cursor("a/b c", 7))
    assert (http.method, http.headers) == ("GET", (("x-a", "b"),))
    assert dialect.decode_resume(http.url) == Cursor("a/b c", 7)
    assert dialect.decode_resume("/v1/responses/r?stream=true") == Cursor("r", -1)
    with pytest.raises(BadRequestError, match="starting_after"):
        dialect.decode_resume("/responses/r?stream=true&starting_after=x")


def test_it_is_the_same_on_trio():
    async def main(server):
        settings = {"base_url": server.url, "api_key": "k", "recover": True, "transport": "httpx2"}
        async with aio.Client(MODELS["openai-responses"], **settings) as client:
            stream = client.stream("?")
            seen = [chunk.content async for chunk in stream]
            assert "".join(seen) == stream.response.text == TEXT
            server.hangs = True
            async with client.stream("?") as stream:
                async for _ in stream:
                    break
            assert await trio.to_thread.run_sync(lambda: until(lambda: server.cancelled == ["answer2"], 5))

    # Two streams of the first answer, of which one breaks off, and one of the second.
    with Breaking("openai-responses", texts(TEXT), 8, 1000, 8) as server:
        trio.run(main, server)


async def test_an_overload_that_is_told_within_a_stream_is_an_error_without_the_option(surface):
    with Breaking("anthropic", texts(TEXT), 8, fails=True) as server, pytest.raises(OverloadedError):
        await Asking(surface, server, "anthropic", recover=False).read()
