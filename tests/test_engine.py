"""llama.cpp in this process, with the real model that comes with the package: nothing here is simulated."""

from __future__ import annotations

import ctypes
import gc
import http.client
import importlib.util
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sabir import errors
from sabir.deltas import Assembler, Event, Text
from sabir.dialects.openai_chat import OpenAIChat
from sabir.engines import llama_cpp
from sabir.engines.llama_cpp import LlamaCpp, engine, pico_path
from sabir.messages import Message, ToolResult, assistant, system, user
from sabir.messages import Text as TextPart
from sabir.providers import PROVIDERS
from sabir.requests import OutputSchema, Request, ToolSpec
from sabir.runtime import Line

if importlib.util.find_spec("xllamacpp") is None:
    assert os.environ.get("CI") != "true", "xllamacpp is missing, so that no test of the engine would run"
    pytest.skip("xllamacpp is not installed: pip install 'sabir[local]'", allow_module_level=True)

DIALECT = PROVIDERS["pico"].dialect
C = ctypes.CDLL(None) if os.name == "posix" else None
SOURCE = Path(__file__).resolve().parent.parent / "src"
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
POSIX = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
CAPITALS = {
    "France": "Paris",
    "Germany": "Berlin",
    "Italy": "Rome",
    "Spain": "Madrid",
    "Japan": "Tokyo",
    "Norway": "Oslo",
    "Peru": "Lima",
    "Egypt": "Cairo",
}
ENDLESS = {"ignore_eos": True}
WEATHER = ToolSpec(
    name="get_weather",
    description="Get the weather in a city",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
MOODS = ["glad", "sad", "indifferent"]
REVIEW = {
    "type": "object",
    "properties": {
        "mood": {"type": "string", "enum": MOODS},
        "score": {"type": "integer"},
        "is_long": {"type": "boolean"},
    },
    "required": ["mood", "score", "is_long"],
    "additionalProperties": False,
}


def new_engine(path=None, **quirks):
    return LlamaCpp(path or pico_path(), OpenAIChat(**quirks) if quirks else DIALECT, name="pico")


def question(*said, **options):
    messages = tuple(user(each) if isinstance(each, str) else each for each in said)
    return Request(model="pico", messages=messages, **{"temperature": 0.0, **options})


def ask(model, *said, line=None, **options):
    answer = Assembler("openai_chat")
    for delta in model.deltas(question(*said, **options), line or Line()):
        answer.add(delta)
    return answer


def text(model, *said, **options):
    return ask(model, *said, **options).message().text


def until(condition, seconds=5.0):
    """Seconds until `condition()` holds."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, "it does not happen"
        time.sleep(0.0005)
    return time.monotonic() - start


def threads():
    return len([*Path("/proc/self/task").iterdir()])


def files():
    return len([*Path("/proc/self/fd").iterdir()])


def resident():
    """Resident memory in bytes, without what malloc keeps for later."""
    if hasattr(C, "malloc_trim"):
        C.malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def with_context(folder, length):
    """Pico, said to have another length of context."""
    data = bytearray(pico_path().read_bytes())
    at = data.index(b"qwen3.context_length") + len(b"qwen3.context_length") + 4
    data[at : at + 4] = struct.pack("<I", length)
    path = folder / f"context-{length}.gguf"
    path.write_bytes(data)
    return path


@pytest.fixture(scope="module")
def pico():
    model = new_engine()
    yield model
    model.close()


@pytest.fixture
def loads(monkeypatch):
    """The paths that were really loaded."""
    made, original = [], llama_cpp._server

    def counted(library, path, size):
        made.append(path)
        return original(library, path, size)

    monkeypatch.setattr(llama_cpp, "_server", counted)
    return made


@pytest.fixture
def own(tmp_path):
    """A copy of Pico that no other test has loaded."""
    return shutil.copy(pico_path(), tmp_path / "own.gguf")


# Answers


def test_it_answers(pico):
    answer = ask(pico, "What is the capital of France?")
    assert answer.message().text == "The capital of France is Paris."
    assert answer.finishes[0].reason == "stop"
    assert answer.model == "pico"
    assert str(pico_path()) not in str(answer.message())


def test_deltas_come_one_token_at_a_time(pico):
    texts = [
        delta.text for delta in pico.deltas(question("What is the capital of France?"), Line()) if type(delta) is Text
    ]
    assert len(texts) > 5
    assert "".join(texts) == "The capital of France is Paris."


def test_a_request_that_does_not_stream_is_answered_alike(pico):
    plain, streamed = (
        [delta for delta in pico.deltas(question("Who are you?", stream=stream), Line()) if type(delta) is Text]
        for stream in (False, True)
    )
    assert plain == streamed


def test_the_progress_of_reading_the_prompt_is_an_event_for_who_asks(pico):
    quiet = list(pico.deltas(question("Hello there. " * 100, max_tokens=1), Line()))
    asked = list(pico.deltas(question("Hello again. " * 100, max_tokens=1, extra={"return_progress": True}), Line()))
    assert "prompt_progress" not in repr(quiet)
    progress = [delta.raw["prompt_progress"] for delta in asked if type(delta) is Event]
    assert progress[-1]["processed"] == progress[-1]["total"]


def test_thinking_comes_as_thinking(pico):
    answer = ask(pico, "What is 2 + 3?", thinking=True)
    assert answer.message().thinking
    assert "<think>" not in answer.message().text


def test_max_tokens_ends_with_length(pico):
    answer = ask(pico, "Tell me a story.", max_tokens=7)
    assert answer.finishes[0].reason == "length"
    assert answer.usage.output_tokens == 7


def test_the_end_of_the_context_ends_with_length(pico):
    answer = ask(pico, "Hello", extra=ENDLESS)
    assert answer.finishes[0].reason == "length"
    assert answer.usage.total_tokens == 2048


def test_stop_strings_stop(pico):
    whole = text(pico, "Tell me a story.")
    assert "river" in whole
    assert text(pico, "Tell me a story.", stop=("river", "never said")) == whole[: whole.index("river")]


def test_a_seed_makes_chance_repeatable(pico):
    wild = {"temperature": 3.0, "top_p": 1.0, "min_p": 0.0, "max_tokens": 40, "extra": ENDLESS}
    first = [text(pico, "Tell me a story.", seed=seed, **wild) for seed in range(5)]
    assert first == [text(pico, "Tell me a story.", seed=seed, **wild) for seed in range(5)]
    assert len(set(first)) == 5


def test_a_schema_holds_at_any_temperature(pico):
    schema, said = OutputSchema(name="review", json=REVIEW), []
    for seed in range(50):
        answer = ask(pico, "Tell me a story.", schema=schema, temperature=1.5, top_p=1.0, min_p=0.0, seed=seed)
        assert answer.finishes[0].reason == "stop", seed
        said.append(answer.message().text)
        value = json.loads(said[-1])
        assert set(value) == {"mood", "score", "is_long"}
        assert value["mood"] in MOODS
        assert [type(value["score"]), type(value["is_long"])] == [int, bool]
    assert len(set(said)) > 10


def test_a_tool_call_comes_as_deltas_and_its_result_is_read(pico):
    said = [system("You are a helpful agent. Use the tools."), user("What is the weather in Paris?")]
    answer = ask(pico, *said, tools=(WEATHER,))
    (call,) = answer.message().tool_calls
    assert answer.finishes[0].reason == "tool_calls"
    assert (call.name, call.arguments) == ("get_weather", {"city": "Paris"})
    assert call.id
    result = ToolResult(call_id=call.id, name=call.name, content=(TextPart(text='{"city": "Paris", "temp": 7}'),))
    said += [answer.message(), Message("tool", (result,))]
    assert "7" in text(pico, *said, tools=(WEATHER,))


def test_tools_can_be_forbidden(pico):
    asked = "What is the weather in Paris?"
    assert ask(pico, asked, tools=(WEATHER,)).message().tool_calls
    assert not ask(pico, asked, tools=(WEATHER,), tool_choice="none").message().tool_calls


def test_a_second_turn_reads_the_first_from_the_cache(own):
    model = new_engine(own)
    first = ask(model, "My name is Alice.")
    assert first.usage.cached_tokens == 0
    second = ask(model, "My name is Alice.", assistant(first.message().text), "What is my name?")
    assert "Alice" in second.message().text
    assert second.usage.cached_tokens >= first.usage.input_tokens
    assert second.usage.input_tokens > second.usage.cached_tokens
    model.close()


# Refusals


def test_a_prompt_beyond_the_context_is_refused_with_both_numbers(pico):
    with pytest.raises(errors.ContextOverflowError) as caught:
        ask(pico, "hello " * 3000)
    assert caught.value.context_length == 2048
    assert caught.value.prompt_tokens > 3000
    assert "HTTP" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"extra": {"messages": "x"}}, "array"),
        ({"extra": {"tools": "x"}}, "tools"),
        ({"extra": {"temperature": "x"}}, "temperature"),
        ({"extra": {"max_tokens": -5}}, "max_tokens"),
    ],
)
def test_what_llama_cpp_refuses_is_a_bad_request_in_its_words(pico, options, reason):
    with pytest.raises(errors.BadRequestError, match=reason):
        ask(pico, "Hello", **options)
    assert text(pico, "What is the capital of Peru?") == "The capital of Peru is Lima."


def test_an_image_is_refused(pico):
    picture = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}
    with pytest.raises(errors.BadRequestError, match="image"):
        ask(pico, "Hello", extra={"messages": [picture]})


@pytest.mark.parametrize("value", [float("nan"), object()])
def test_what_is_no_json_is_refused_before_anything_runs(own, loads, value):
    with pytest.raises(errors.ConfigurationError, match="JSON"):
        ask(new_engine(own), "Hello", extra={"temperature": value})
    assert loads == []


def test_half_a_surrogate_pair_is_a_bad_request(pico):
    with pytest.raises(errors.BadRequestError):
        ask(pico, "\ud83d")


def test_without_the_wheel_the_error_says_what_to_install(own, monkeypatch):
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(errors.ConfigurationError, match=re.escape("pip install 'sabir[local]'")):
        ask(new_engine(own), "Hello")


def test_making_an_engine_neither_imports_nor_reads():
    engine = LlamaCpp("/nowhere/at/all.gguf", DIALECT, name="nothing")
    engine.close()
    engine.close()


def test_a_row_of_the_table_makes_an_engine(own):
    assert text(engine("pico", PROVIDERS["pico"]), "What is the capital of Peru?") == "The capital of Peru is Lima."
    model = engine(str(own), PROVIDERS["llamacpp"])
    assert ask(model, "Hello", thinking=False).model == str(own)
    model.close()


# Sharing and freeing


def test_engines_on_one_file_load_it_once(own, tmp_path, loads):
    link = tmp_path / "link.gguf"
    link.symlink_to(own)
    models = [new_engine(own), new_engine(str(own)), new_engine(link, limit="max_tokens")]
    for model in models:
        assert "Paris" in text(model, "What is the capital of France?")
    assert len(loads) == 1
    for model in models[:2]:
        model.close()
    assert "Paris" in text(models[2], "What is the capital of France?")
    assert len(loads) == 1
    models[2].close()


def test_concurrent_first_uses_load_once(own, loads):
    models = [new_engine(own) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(lambda model: text(model, "What is the capital of Egypt?"), models))
    assert said == ["The capital of Egypt is Cairo."] * 8
    assert len(loads) == 1
    for model in models:
        model.close()


def test_a_file_that_has_changed_is_another_model(own, loads):
    old = new_engine(own)
    text(old, "Hello")
    os.utime(own, ns=(1, 1))
    new = new_engine(own)
    text(new, "Hello")
    text(old, "Hello")
    assert len(loads) == 2
    old.close()
    new.close()


@LINUX
def test_a_second_engine_costs_no_memory_and_the_last_one_frees_it(tmp_path):
    path = with_context(tmp_path, 16384)  # four slots of 16 MB
    before, threads_before = resident(), threads()
    one, two = new_engine(path), new_engine(path)
    text(one, "Hello")
    loaded, threads_loaded = resident(), threads()
    assert loaded - before > 60e6
    text(two, "Hello")
    assert resident() - loaded < 5e6
    one.close()
    until(lambda: threads() <= threads_loaded)
    assert resident() - before > 60e6
    two.close()
    until(lambda: threads() - threads_before <= 1)  # llama.cpp keeps the thread of its log
    assert resident() - before < 20e6


@LINUX
def test_an_engine_that_is_forgotten_frees_its_memory(tmp_path):
    path = with_context(tmp_path, 16384)
    before = resident()
    model = new_engine(path)
    text(model, "Hello")
    assert resident() - before > 60e6
    del model
    gc.collect()
    until(lambda: resident() - before < 20e6)


@LINUX
def test_an_error_that_is_kept_keeps_no_memory(tmp_path):
    path = with_context(tmp_path, 16384)
    before = resident()
    model = new_engine(path)
    with pytest.raises(errors.BadRequestError) as caught:
        ask(model, "Hello", extra={"tools": "x"})
    model.close()
    assert caught.value.__traceback__ is not None
    assert resident() - before < 20e6


@LINUX
def test_loading_and_freeing_leaves_nothing_behind(own):
    def once():
        model = new_engine(own)
        text(model, "Hello")
        model.close()

    for _ in range(10):
        once()
    memory, counts = resident(), (threads(), files())
    for _ in range(20):
        once()
    assert resident() - memory < 60e6  # of the 200 MB that were loaded and freed
    until(lambda: threads() <= counts[0] and files() <= counts[1])


def test_after_close_it_refuses(own):
    model = new_engine(own)
    text(model, "Hello")
    model.close()
    model.close()
    with pytest.raises(errors.ClosedError):
        text(model, "Hello")


def test_closing_ends_what_runs(own):
    model = new_engine(own)
    deltas = model.deltas(question("Hello", extra=ENDLESS), Line())
    next(deltas)
    assert model.running == 1
    model.close()
    assert model.running == 0
    with pytest.raises(errors.ClosedError):
        list(deltas)


def test_closing_one_engine_leaves_the_other_alone(own):
    one, two = new_engine(own), new_engine(own)
    deltas = two.deltas(question("What is the capital of France?"), Line())
    next(deltas)
    text(one, "Hello")
    one.close()
    assert "".join(delta.text for delta in deltas if type(delta) is Text).endswith("is Paris.")
    two.close()


def test_close_and_use_may_meet(own):
    for _ in range(20):
        models = [new_engine(own) for _ in range(4)]

        def use(model):
            try:
                return text(model, "What is the capital of Egypt?") == "The capital of Egypt is Cairo."
            except errors.ClosedError:
                return True

        with ThreadPoolExecutor(8) as pool:
            used = [pool.submit(use, model) for model in models]
            closed = [pool.submit(model.close) for model in models]
            assert all(each.result(30) for each in used)
            assert all(each.result(30) is None for each in closed)
        assert sum(model.running for model in models) == 0
    gc.collect()
    assert str(own) not in {key[0] for key in llama_cpp._loaded}


# Several at once


def test_sixteen_threads_get_their_own_answers(pico):
    asked = list(CAPITALS.items()) * 8
    with ThreadPoolExecutor(16) as pool:
        said = list(pool.map(lambda pair: text(pico, f"What is the capital of {pair[0]}?"), asked))
    assert said == [f"The capital of {country} is {city}." for country, city in asked]


def test_four_at_once_may_each_use_the_whole_context(own):
    model = new_engine(own)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda number: ask(model, f"Repeat: {number}", extra=ENDLESS), range(4)))
    assert [(answer.finishes[0].reason, answer.usage.total_tokens) for answer in answers] == [("length", 2048)] * 4
    model.close()


def test_slots_that_share_memory_fail_loudly_when_it_is_too_small(own, monkeypatch):
    monkeypatch.setattr(llama_cpp, "_SMALL", 0)
    monkeypatch.setattr(llama_cpp, "_threads", lambda size: 1)
    model = new_engine(own)
    assert ask(model, "Hello", extra=ENDLESS).usage.total_tokens == 2048
    with ThreadPoolExecutor(4) as pool:
        failures = [
            each.exception(30)
            for each in [pool.submit(ask, model, f"Repeat: {number}", extra=ENDLESS) for number in range(4)]
        ]
    lost = [failure for failure in failures if failure is not None]
    assert lost
    assert all(isinstance(failure, errors.EngineError) and failure.retryable for failure in lost)
    assert "Context size" in str(lost[0])
    assert "Paris" in text(model, "What is the capital of France?")
    model.close()


def test_threads_are_those_this_process_may_use(monkeypatch):
    assert llama_cpp._threads(pico_path().stat().st_size) == 1
    if sys.platform == "linux":
        assert 1 <= llama_cpp._threads(1 << 30) <= len(os.sched_getaffinity(0))
        monkeypatch.setattr(llama_cpp, "_cpu_quota", lambda: 0)
        assert llama_cpp._threads(1 << 30) == 1


# Stopping


def timely(attempt, limit=0.1, tries=5):
    """Some attempt is in time: on a busy machine not every one can be."""
    took = []
    for _ in range(tries):
        took.append(attempt())
        if took[-1] < limit:
            return
    pytest.fail(f"it took {took} s")


def test_an_abort_from_another_thread_ends_it_within_100_ms(pico):
    def attempt():
        line, aborted = Line(), []

        def abort():
            aborted.append(time.monotonic())
            line.abort()

        timer = threading.Timer(0.05, abort)
        timer.start()
        with pytest.raises(errors.ClosedError):
            ask(pico, "Hello", line=line, extra=ENDLESS)
        until(lambda: pico.running == 0)
        timer.join()
        return time.monotonic() - aborted[0]

    timely(attempt)


def test_a_reader_that_has_gone_ends_it_within_100_ms(pico):
    def attempt():
        deltas = pico.deltas(question("Hello", extra=ENDLESS), Line())
        next(deltas)
        assert pico.running == 1
        deltas.close()
        return until(lambda: pico.running == 0)

    timely(attempt)


def test_a_stopped_reader_frees_its_slot(pico):
    for _ in range(12):
        deltas = pico.deltas(question("Hello", extra=ENDLESS), Line())
        next(deltas)
        deltas.close()
    assert "Paris" in text(pico, "What is the capital of France?", line=Line(deadline=time.monotonic() + 1))


def test_the_deadline_ends_it_within_100_ms(pico):
    def attempt():
        line = Line(deadline=time.monotonic() + 0.1)
        with pytest.raises(errors.DeadlineExceeded):
            ask(pico, "Hello", line=line, extra=ENDLESS)
        until(lambda: pico.running == 0)
        return time.monotonic() - line.deadline

    timely(attempt)


def test_a_line_that_was_cut_before_loads_nothing(own, loads):
    line = Line()
    line.abort()
    with pytest.raises(errors.ClosedError):
        ask(new_engine(own), "Hello", line=line)
    with pytest.raises(errors.DeadlineExceeded):
        ask(new_engine(own), "Hello", line=Line(deadline=time.monotonic() - 1))
    assert loads == []


def test_deltas_that_nobody_reads_start_nothing(own, loads):
    new_engine(own).deltas(question("Hello"), Line())
    assert loads == []


def test_the_line_holds_nothing_afterwards(pico):
    line = Line()
    ask(pico, "Hello", line=line)
    deltas = pico.deltas(question("Hello"), line)
    next(deltas)
    assert len(line._cuts) == 1
    deltas.close()
    assert line._cuts == []


def test_reading_a_long_prompt_is_given_up_between_two_steps(tmp_path):
    model = new_engine(with_context(tmp_path, 16384))
    text(model, "Hello")

    def attempt():
        line = Line(deadline=time.monotonic() + 0.2)
        with pytest.raises(errors.DeadlineExceeded):
            ask(model, f"{time.monotonic()} " + "hello there " * 2500, line=line)  # seconds of reading
        woken = time.monotonic() - line.deadline
        until(lambda: model.running == 0, 2)
        return woken

    timely(attempt)
    model.close()


def test_waiting_for_a_slot_is_not_silence(own):
    model = new_engine(own)
    busy = [model.deltas(question("Hello", extra=ENDLESS), Line()) for _ in range(4)]
    for each in busy:
        next(each)

    def make_room():
        for each in busy:
            each.close()

    timer = threading.Timer(0.2, make_room)
    start = time.monotonic()
    timer.start()
    assert "Paris" in text(model, "What is the capital of France?", line=Line(idle=0.1))
    assert time.monotonic() - start > 0.1
    timer.join()
    model.close()


def test_silence_in_an_answer_is_noticed():
    run = llama_cpp._Run(None)
    with pytest.raises(errors.DeadlineExceeded, match="silent"):
        run.wait(Line(idle=0.01), 0.01)


# The listener


@LINUX
def test_there_is_no_listener_that_anybody_could_reach(own):
    def listening():
        """Inodes of listening sockets, of all kinds, that this process has open."""
        ours = {str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()}
        rows = Path("/proc/self/net/tcp").read_text().splitlines()[1:]
        rows += Path("/proc/self/net/tcp6").read_text().splitlines()[1:]
        tcp = {row.split()[9] for row in rows if row.split()[3] == "0A"}
        return {inode for inode in tcp if f"socket:[{inode}]" in ours}

    def sockets():
        rows = Path("/proc/self/net/unix").read_text().splitlines()[1:]
        return [row.split()[7] for row in rows if row.endswith("/closed.sock")]

    before = listening()
    model = new_engine(own)
    text(model, "Hello")
    assert listening() == before
    assert sockets()
    for address in sockets():
        assert not Path(address).exists()
        assert not Path(address).parent.exists()
    model.close()


def test_where_it_must_listen_on_loopback_every_endpoint_wants_the_key(own, monkeypatch):
    monkeypatch.setattr(llama_cpp, "_private_folder", lambda: None)
    made, original = [], llama_cpp._server
    monkeypatch.setattr(llama_cpp, "_server", lambda *given: made.append(original(*given)) or made[-1])
    model = new_engine(own)
    text(model, "Hello")
    host, port = made[0].listening_address.removeprefix("http://").split(":")
    assert host == "127.0.0.1"
    get = "/v1/models /models /api/tags /props /slots /metrics /lora-adapters"
    post = (
        "/completion /completions /v1/completions /chat/completions /v1/chat/completions /api/chat /v1/responses "
        "/v1/messages /v1/messages/count_tokens /infill /embedding /embeddings /v1/embeddings /rerank /tokenize "
        "/detokenize /apply-template /lora-adapters /slots/0 /props /api/show"
    )
    asked = [("GET", get), ("POST", post)]
    for method, paths in asked:
        for path in paths.split():
            connection = http.client.HTTPConnection(host, int(port), timeout=5)
            connection.request(method, path, body="{}" if method == "POST" else None)
            assert connection.getresponse().status == 401, path
            connection.close()
    made.clear()
    model.close()
    with pytest.raises(ConnectionRefusedError), socket.create_connection((host, int(port)), 1):
        pass


def test_the_key_is_nowhere_to_be_seen(own, monkeypatch):
    keys = []
    monkeypatch.setattr(llama_cpp.secrets, "token_urlsafe", lambda size: keys.append("k3y" * size) or keys[-1])
    model = new_engine(own)
    answer = ask(model, "Hello")
    weights = model._weights
    shown = repr((model, model.__dict__, weights, weights.__dict__, answer.message(), llama_cpp.__dict__))
    assert keys
    assert keys[0] not in shown
    model.close()


# Bad files, exit, fork: in processes of their own, where all that is written to stderr is seen

PRELUDE = f"""
import os, sys, threading, time
sys.path.insert(0, {str(SOURCE)!r})
from sabir.engines.llama_cpp import LlamaCpp, pico_path
from sabir.messages import user
from sabir.providers import PROVIDERS
from sabir.requests import Request
from sabir.runtime import Line

def new_engine(path=None):
    return LlamaCpp(path or pico_path(), PROVIDERS["pico"].dialect, name="pico")

def deltas(model, said, **options):
    return model.deltas(Request(model="pico", messages=(user(said),), temperature=0.0, **options), Line())

def text(model, said, **options):
    return "".join(getattr(delta, "text", "") for delta in deltas(model, said, **options))

def endless(model):
    return deltas(model, "Hello", extra={{"ignore_eos": True}})

def on_daemon(work):
    threading.Thread(target=work, daemon=True).start()
    time.sleep(0.3)
"""


def alone(program, seconds=30, status=0):
    """What a program prints; it ends in time, as it should, and says nothing on stderr."""
    with subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", "-c", PRELUDE + textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            out, noise = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            pytest.fail(f"it hangs; so far: {process.communicate()}")
    assert noise == ""
    assert process.returncode == status
    return out


BAD_FILES = {
    "missing": (None, "cannot be read: No such file"),
    "a folder": ("folder", "cannot be read: Is a directory"),
    "empty": (b"", "no GGUF model"),
    "text": (b"It was a dark and stormy night.", "no GGUF model: it begins with b'It w'"),
    "of version 1": (b"GGUF\1\0\0\0" + bytes(100), "GGUF file of version 1"),
    "cut in the version": (b"GGUF\3\0", "version None"),
    "cut in the head": (24, "could not load .*truncated or damaged"),
    "cut in the metadata": (5000, "could not load .*truncated or damaged"),
    "cut in the weights": (800_000, "could not load .*truncated or damaged"),
    "cut at the end": (-1, "could not load .*truncated or damaged"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_is_a_clear_error_and_nothing_on_stderr(kind, tmp_path):
    content, reason = BAD_FILES[kind]
    path = tmp_path / "bad.gguf"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content if isinstance(content, bytes) else pico_path().read_bytes()[:content])
    said = alone(f"""
        from sabir.errors import EngineError
        model = new_engine({str(path)!r})
        for _ in range(2):
            try:
                text(model, "Hello")
            except EngineError as error:
                print(error)
    """)
    one, two = said.splitlines()
    assert one == two
    assert str(path) in one
    assert re.search(reason, one)


def test_a_file_that_was_mended_is_loaded(tmp_path, own):
    path = tmp_path / "later.gguf"
    path.write_bytes(b"GGUF")
    model = new_engine(path)
    with pytest.raises(errors.EngineError):
        text(model, "Hello")
    shutil.copy(own, path)
    assert "Paris" in text(model, "What is the capital of France?")
    assert {key[2] for key in llama_cpp._loaded if key[0] == str(path)} == {path.stat().st_size}
    model.close()


def test_loading_and_answering_say_nothing_on_stderr():
    assert alone('print(text(new_engine(), "What is the capital of France?"))') == "The capital of France is Paris.\n"


@pytest.mark.parametrize(
    "last",
    [
        "pass",
        "model.close()",
        "on_daemon(lambda: list(endless(model)))",
        "on_daemon(lambda: [time.sleep(0.001) for _ in endless(model)])",
        "for _ in range(6): on_daemon(lambda: list(endless(model)))",
        "paused = endless(model); next(paused)",
        "paused = endless(model); next(paused); sys.modules['__main__'].keep = paused",
        "on_daemon(lambda: text(model, 'hello ' * 600))",
        "import atexit; atexit.register(model.close)",
        "on_daemon(lambda: [text(model, 'Hello') for _ in range(1_000_000)])",
    ],
)
def test_the_process_ends_without_a_hang_or_a_word(last):
    alone(f"""
        import threading
        threading.excepthook = lambda failed: None if failed.exc_type is SystemExit else sys.__stderr__.write("noise")
        model = new_engine()
        text(model, "Hello")
        {last}
    """)


def test_the_end_of_the_process_waits_for_no_answer(tmp_path):
    said = alone(f"""
        model = new_engine({str(with_context(tmp_path, 65536))!r})  # an endless answer takes a minute
        on_daemon(lambda: list(endless(model)))
        print(time.time())
    """)
    assert time.time() - float(said) < 5


def test_the_process_may_end_while_a_model_is_loading():
    for pause in (0, 0.02, 0.04):
        alone(f"""
            model = new_engine()
            threading.Thread(target=lambda: list(endless(model)), daemon=True).start()
            time.sleep({pause})
        """)


def test_at_the_end_of_the_process_an_engine_refuses():
    said = alone("""
        import atexit
        from sabir.errors import ClosedError
        def late():
            for use in (lambda: text(model, "Hello"), lambda: list(paused)):
                try:
                    use()
                except ClosedError as error:
                    print(type(error).__name__)
        atexit.register(late)
        from sabir.engines import llama_cpp
        import atexit
        atexit.unregister(llama_cpp._at_exit)
        atexit.register(llama_cpp._at_exit)  # after `late`, so that it runs before
        model = new_engine()
        paused = endless(model)
        next(paused)
    """)
    assert said == "ClosedError\n" * 2


@POSIX
def test_an_interrupt_ends_the_call_and_leaves_the_engine_usable():
    said = alone("""
        import signal
        model = new_engine()
        text(model, "Hello")
        for _ in range(20):
            timer = threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGINT))
            timer.start()
            try:
                while True:
                    list(endless(model))
            except KeyboardInterrupt:
                timer.join()
        end = time.monotonic() + 5
        while model.running and time.monotonic() < end:
            time.sleep(0.001)
        print(model.running, text(model, "What is the capital of France?"))
    """)
    assert said == "0 The capital of France is Paris.\n"


FORK = """
import signal

def in_child(work, leave):
    pid = os.fork()
    if pid == 0:
        work()
        sys.stdout.flush()
        leave(0)
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if (ended := os.waitpid(pid, os.WNOHANG))[0]:
            print("child", os.waitstatus_to_exitcode(ended[1]), flush=True)
            return
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    print("child hangs", flush=True)

model = new_engine()
text(model, "Hello")
"""
ANSWER = "The capital of France is Paris.\n"


@POSIX
@pytest.mark.parametrize("leave", ["sys.exit", "os._exit"])
@pytest.mark.parametrize(
    ("work", "said"),
    [
        ("pass", ""),
        ("print(text(model, 'What is the capital of France?'))", ANSWER),
        ("model.close()", ""),
        ("print(text(model, 'What is the capital of France?')); model.close()", ANSWER),
        ("other = new_engine(); print(text(other, 'What is the capital of France?')); other.close()", ANSWER),
        ("del globals()['model']", ""),
    ],
)
def test_a_forked_child_loads_afresh_and_leaves_its_parent_alone(work, said, leave):
    program = f"""
def work():
    {work}
in_child(work, {leave})
print(text(model, "What is the capital of France?"))
in_child(work, {leave})
model.close()
"""
    told = alone(FORK + program)
    assert told == f"{said}child 0\n{ANSWER}{said}child 0\n"


@POSIX
def test_a_fork_in_the_midst_of_an_answer_gives_the_child_an_error_and_the_parent_its_answer():
    said = alone(
        FORK
        + """
from sabir.errors import ClosedError
answer = deltas(model, "Hello", max_tokens=1000, extra={"ignore_eos": True})
first = next(answer)
def work():
    try:
        list(answer)
    except ClosedError:
        print("closed")
    print(text(model, "What is the capital of Peru?"))
in_child(work, sys.exit)
print(sum(hasattr(delta, "text") for delta in answer) > 900)
"""
    )
    assert said == "closed\nThe capital of Peru is Lima.\nchild 0\nTrue\n"


@POSIX
def test_a_fork_while_another_thread_generates():
    said = alone(
        FORK
        + """
on_daemon(lambda: list(endless(model)))
in_child(lambda: print(text(model, "What is the capital of France?")), sys.exit)
"""
    )
    assert said == f"{ANSWER}child 0\n"
