"""The snippets of docs/*.md run as they stand; what they add keeps the laws, and talks over real sockets."""

from __future__ import annotations

import inspect
import json
import logging
import re
import runpy
import sys
from base64 import b64encode
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any, get_args
from warnings import catch_warnings

import pytest
from batch_server import KEY as BATCH_KEY
from batch_server import KINDS, BatchServer
from fakes import ChatServer
from hypothesis import example, given
from hypothesis import strategies as st
from llamas import skip_without_llama
from servers import Answer, Call, Server, chunked, whole
from studio import KEY as STUDIO_KEY
from studio import Studio

import sabir
from sabir import deltas, providers
from sabir.dialects import Dialect, Unsupported, response_of
from sabir.dialects.media_formats import Drawn, ImageAnswer, Said, Sound, SpeechAnswer, TranscriptAnswer
from sabir.dialects.openai_images import OpenAIImages
from sabir.dialects.openai_speech import OpenAISpeech
from sabir.dialects.openai_transcripts import OpenAITranscripts
from sabir.dialects.waves import wav
from sabir.engines.llama_cpp import LlamaCpp, pico_path
from sabir.requests import Options, OutputSchema, Request, ToolSpec
from sabir.usage import Usage

DOCS = Path(__file__).parent.parent / "docs"
PROVIDER, DIALECT, EXTEND = DOCS / "add-a-provider.md", DOCS / "add-a-dialect.md", DOCS / "extend.md"
CLOUDS = DOCS / "clouds.md"
BATCHES, MEDIA = DOCS / "batches.md", DOCS / "media.md"
STRUCTURED = DOCS / "structured-output.md"
OPTIONS = DOCS / "options.md"
CACHING = DOCS / "prompt-caching.md"
RELIABILITY = DOCS / "reliability.md"
OUT_OF_TREE = Path(__file__).parent / "outoftree"
KEY = "key-of-the-environment"
MOST_LINES = 150


def snippets(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)


def run(code: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Run a page's code; it must print what its comments say."""
    script = folder / "page.py"
    script.write_text(code, "utf-8")
    left = runpy.run_path(str(script))
    left["client"].close()
    promised = re.findall(r"# → (.*)$", code, re.M)
    assert len(promised) >= 3
    assert capsys.readouterr().out.splitlines() == promised


@pytest.fixture
def own_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of providers for this test alone."""
    monkeypatch.setattr(providers, "PROVIDERS", dict(providers.PROVIDERS))


def test_every_page_with_code_is_run_here():
    assert {page for page in DOCS.glob("*.md") if snippets(page)} == {
        *(PROVIDER, DIALECT, EXTEND, CLOUDS, BATCHES, MEDIA, STRUCTURED, CACHING, OPTIONS, RELIABILITY)
    }


def test_every_page_is_in_the_readme():
    readme = (DOCS.parent / "README.md").read_text("utf-8")
    assert [page.name for page in DOCS.glob("*.md") if f"(docs/{page.name})" not in readme] == []


def test_links_between_the_pages_lead_somewhere():
    for page in DOCS.glob("*.md"):
        text = page.read_text("utf-8")
        links = re.findall(r"\]\(([^)#:]+)\)", text)
        links += [f"../{path}" for path in re.findall(r"`((?:src|tests)/[\w/]+\.py)`", text)]
        assert [link for link in links if not (DOCS / link).exists()] == []


# add-a-provider.md


def test_a_provider_is_added_as_the_page_says(own_table, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("AURORA_API_KEY", KEY)
    (code,) = snippets(PROVIDER)
    with ChatServer() as server:
        run(code.replace("https://api.aurora.example/v1", server.url), tmp_path, capsys)
    (asked,) = server.asked
    assert asked.path == "/v1/chat/completions"
    assert asked.headers["x-api-key"] == KEY
    assert "authorization" not in asked.headers
    assert asked.body == {
        "model": "borealis-1",
        "messages": [{"role": "user", "content": "Hello"}],
        "top_k": 5,
        "max_tokens": 50,
        "thinking": {"type": "enabled"},
    }


@pytest.mark.parametrize("table", [sabir.Provider, type(sabir.Provider("x", url="http://x").dialect)])
def test_the_page_names_every_field_that_a_row_can_have(table):
    named = set(re.findall(r"^\| `(\w+)` \|", PROVIDER.read_text("utf-8"), re.M))
    # A row added from outside needs a name and serves over HTTP.
    assert set(table.__dataclass_fields__) - named <= {"name", "engine", "model"}


# extend.md


def test_what_the_page_adds_to_a_client_works_as_it_says(tmp_path, capsys):
    run("\n".join(snippets(EXTEND)), tmp_path, capsys)
    logging.getLogger("<run_path>").handlers.clear()


@pytest.mark.parametrize("file", sorted(OUT_OF_TREE.glob("*.py")), ids=lambda file: file.stem)
def test_the_page_shows_the_files_that_are_tested(file):
    """Their tests are in test_out_of_tree.py; one that is too long for the page is named there."""
    assert file.read_text("utf-8") in snippets(EXTEND) or f"`tests/outoftree/{file.name}`" in EXTEND.read_text("utf-8")


# reliability.md


def test_an_answer_is_recovered_as_the_page_says(tmp_path, capsys):
    (code,) = snippets(RELIABILITY)
    with ChatServer(lambda body: "One two three four five") as server:
        run(code.replace("http://localhost:8000/v1", server.url), tmp_path, capsys)
        assert len(server.asked) == 2


# batches.md


def test_a_batch_is_submitted_and_read_as_the_page_says(tmp_path, capsys):
    skip_without_llama()
    (code,) = snippets(BATCHES)
    engine = LlamaCpp(pico_path(), providers.PROVIDERS["pico"].dialect, name="pico")
    with BatchServer(KINDS["openai"], engine).serving() as server:
        client = f'sabir.Client("openai:gpt-4o-mini", base_url="{server.url}", api_key="{BATCH_KEY}")'
        told = 'sabir.Client("openai:gpt-4o-mini")'
        assert told in code
        run(code.replace(told, client), tmp_path, capsys)
    engine.close()


# structured-output.md


def test_answers_fit_a_schema_as_the_page_says(tmp_path, capsys):
    skip_without_llama()
    run("\n".join(snippets(STRUCTURED)), tmp_path, capsys)


# prompt-caching.md


def test_prompts_are_kept_as_the_page_says(tmp_path, capsys):
    skip_without_llama()
    run("\n".join(snippets(CACHING)), tmp_path, capsys)


# options.md


def test_options_do_what_the_page_says(tmp_path, capsys):
    skip_without_llama()
    with catch_warnings():
        run("\n".join(snippets(OPTIONS)), tmp_path, capsys)


def test_the_page_names_every_option_and_every_end_of_an_answer():
    rows = re.findall(r"^\| (`.*?) \|", OPTIONS.read_text("utf-8"), re.M)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert {*sabir.Settings.__annotations__, *sabir.Call.__annotations__, *get_args(deltas.FinishReason)} <= named


def test_what_a_public_docstring_names_is_public():
    rooms = (DOCS.parent / "src" / "sabir").rglob("*.py")
    classes = {name for room in rooms for name in re.findall(r"^class (\w+)", room.read_text("utf-8"), re.M)}
    # Named together with the modules that they are in.
    classes -= {"Aws", "Google", "Azure"}
    for name in sabir.__all__:
        value = getattr(sabir, name)
        members = inspect.getmembers(value) if inspect.isclass(value) else ()
        docs = [inspect.getdoc(each) or "" for each in (value, *(each for at, each in members if at[0] != "_"))]
        named = set(re.findall(r"`(\w+)`", " ".join(docs))) & classes
        assert named <= set(sabir.__all__), name


# media.md


def test_pictures_and_sounds_are_made_as_the_page_says(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    cat, words = sabir.image(sabir.Pixels(1, 1, b"..!")), "All hands on deck!"
    sound = sabir.Audio(data=wav(bytes(100), 24_000), media_type="audio/wav")
    halves = (Sound(sound.data[:50]), Sound(sound.data[50:]))
    with Studio(OpenAIImages(edits="json"), OpenAISpeech(), OpenAITranscripts()) as studio:
        drawn = ImageAnswer(images=(cat,), usage=Usage(input=14, output=272))
        studio.told = {
            "openai_images": (drawn, (Drawn(cat), Drawn(cat), Drawn(cat, is_final=True))),
            "openai_speech": (SpeechAnswer(audio=sound), halves),
            "openai_transcripts": (TranscriptAnswer(text=words), (Said("All hands"), Said(" on deck!"))),
        }
        code = "\n".join(snippets(MEDIA))
        client = f'sabir.Client("openai:gpt-image-2", base_url="{studio.url}", api_key="{STUDIO_KEY}")'
        told = 'sabir.Client("openai:gpt-image-2")'
        assert told in code
        run(code.replace(told, client), tmp_path, capsys)
    assert {asked.model for asked in studio.asked} == {"gpt-image-2", "gpt-4o-mini-tts", "gpt-4o-transcribe"}


# clouds.md


def test_clouds_are_asked_as_the_page_says(monkeypatch, tmp_path, capsys):
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "GOOGLE_APPLICATION_CREDENTIALS", "AZURE_OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_REGION", "eu-west-3")
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "my-project")
    monkeypatch.setenv("GOOGLE_CLOUD_LOCATION", "europe-west4")
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://me.openai.azure.com")
    with ChatServer() as server:
        run("\n".join(snippets(CLOUDS)).replace("http://localhost:8000/v1", server.url), tmp_path, capsys)
    assert [asked.headers["authorization"] for asked in server.asked] == ["Bearer token-of-the-vault"] * 2


def test_the_page_names_every_variable_that_is_looked_at():
    variable = re.compile(r'"((?:AWS|AZURE|GOOGLE|GCE|IDENTITY|MSI|IMDS|NO_GCE|CLOUDSDK)_[A-Z_0-9]+)"(?!:)')
    rooms = (DOCS.parent / "src" / "sabir" / "clouds").glob("*.py")
    read = {name for room in rooms for name in variable.findall(room.read_text("utf-8"))}
    assert len(read) > 40
    assert [name for name in sorted(read) if name not in CLOUDS.read_text("utf-8")] == []


# add-a-dialect.md: the file


@pytest.fixture(scope="module")
def parley(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The page's dialect, as the module it says it is."""
    path = tmp_path_factory.mktemp("out_of_tree") / "parley.py"
    path.write_text(snippets(DIALECT)[0], "utf-8")
    spec = spec_from_file_location("parley", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["parley"] = module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["parley"]


@pytest.fixture(scope="module")
def dialect(parley: ModuleType) -> Dialect:
    made: Dialect = parley.Parley()
    return made


def test_the_file_is_small():
    lines = snippets(DIALECT)[0].splitlines()
    assert sum(bool(line.strip()) for line in lines) <= MOST_LINES
    assert max(map(len, lines)) <= 120


def test_the_page_shows_every_method_of_a_dialect():
    promised = {name for name in vars(Dialect) if not name.startswith("_")} | {"verdicts"}
    assert [name for name in promised if not re.search(rf"\b{name}\b", snippets(DIALECT)[0])] == []


# Its laws

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e9, 1e9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
BEYOND = st.dictionaries(st.text("abcxyz", min_size=1, max_size=3), VALUES, max_size=2)
FEW_WORDS = st.text(max_size=8)


def object_of(**fields: Any) -> Any:
    """Objects with some of these fields, and with some that nobody knows; a field in capitals is always there."""
    needed = {name.lower(): value for name, value in fields.items() if name.isupper()}
    free = {name: st.none() | value for name, value in fields.items() if not name.isupper()}
    known = st.fixed_dictionaries(needed, optional=free)
    return st.tuples(BEYOND, known).map(lambda both: both[0] | both[1])


REQUESTS = object_of(
    MODEL=FEW_WORDS,
    MESSAGES=st.lists(object_of(ROLE=st.sampled_from(["system", "user", "assistant"]), TEXT=FEW_WORDS), max_size=3),
    stream=st.booleans(),
    temperature=st.floats(0, 2) | st.integers(0, 2),
    limit=st.integers(1, 9),
)
ANSWERS = object_of(
    TEXT=FEW_WORDS,
    END=st.sampled_from(["done", "limit", "filter", "other", "bored"]) | VALUES.filter(lambda value: value is not None),
    id=VALUES,
    model=VALUES,
    tokens=VALUES | object_of(**{"in": st.integers(0, 9), "out": st.integers(0, 9)}),
)
PIECES = st.lists(FEW_WORDS, min_size=1, max_size=4)


def encoded(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def streamed(dialect: Dialect, data: bytes, cuts: Any = ()) -> tuple[list[deltas.Delta], str | None]:
    """What a stream cut at these places decodes to, and the error it ends with."""
    decoder, found = dialect.decoder(), []
    places = [0, *sorted({min(cut, len(data)) for cut in cuts}), len(data)]
    try:
        for start, end in pairwise(places):
            found += decoder.feed(data[start:end])
        found += decoder.close()
    except sabir.SabirError as error:
        return found, repr(error)
    return found, None


def written(dialect: Dialect, said: list[deltas.Delta]) -> bytes:
    encoder = dialect.encoder()
    return b"".join(map(encoder.feed, said)) + encoder.close()


@given(body=REQUESTS)
def test_a_request_is_said_again_as_it_was_said(dialect, body):
    request = dialect.decode_request(encoded(body))
    again = json.loads(dialect.encode_request(request)[0].body)
    assert again == dialect.canonical_request(body)
    # What a message says beyond our words is kept by the message, so that it goes with it.
    kept = {} if request.state is None else request.state.value.get("set", {})
    assert "messages" not in kept


@given(body=ANSWERS)
def test_an_answer_is_said_again_as_it_was_said(dialect, body):
    response = response_of(dialect.name, dialect.decode_answer(encoded(body)))
    assert json.loads(dialect.encode_response(response)) == dialect.canonical_answer(body)


@given(body=ANSWERS)
def test_the_stream_of_an_answer_sums_to_the_answer(dialect, body):
    said = dialect.decode_answer(encoded(body))
    again, error = streamed(dialect, written(dialect, said))
    assert error is None
    assert response_of(dialect.name, again) == response_of(dialect.name, said)


@given(
    pieces=PIECES,
    reason=st.sampled_from(["stop", "length", "content_filter"]),
    numbers=st.tuples(*[st.integers(0, 9)] * 2),
)
def test_another_models_stream_sums_to_the_same_here(dialect, pieces, reason, numbers):
    usage = Usage(input=numbers[0], output=numbers[1])
    texts = [deltas.Text(0, piece) for piece in pieces]
    said = [deltas.Head("a1", "m"), deltas.Open(0, "text"), *texts, deltas.Close(0), deltas.Count(usage)]
    said.append(deltas.Finish(reason))
    again, error = streamed(dialect, written(dialect, said))
    assert error is None
    assert response_of(dialect.name, again) == response_of(dialect.name, said)


@given(pieces=PIECES, body=ANSWERS, cuts=st.lists(st.integers(0, 200), max_size=20))
def test_any_cut_of_a_stream_gives_the_same_deltas(dialect, pieces, body, cuts):
    lines = [*({"text": piece} for piece in pieces), body]
    data = b"".join(encoded(line) + b"\n" for line in lines)
    uncut = streamed(dialect, data)
    assert uncut[1] is None
    assert streamed(dialect, data, cuts) == uncut
    assert streamed(dialect, data, range(len(data))) == uncut


@given(body=ANSWERS, rest=st.binary(max_size=20))
def test_an_answer_may_be_spread_over_lines_and_nothing_is_read_after_its_end(dialect, body, rest):
    ordered = sorted(body.items(), key=lambda field: field[0] == "end")
    lines = [{"text": ""} | {name: value} for name, value in ordered]
    data = b"".join(encoded(line) + b"\n" for line in lines)
    spread, error = streamed(dialect, data + rest)
    assert error is None
    assert response_of(dialect.name, spread) == response_of(dialect.name, dialect.decode_answer(encoded(body)))


@pytest.mark.parametrize(
    "line", ["{", "[]", '"a"', "{}", '{"text": 5}', '{"text": null, "end": "done"}', '{"end": "done"}']
)
def test_what_is_no_answer_is_refused(dialect, line):
    with pytest.raises(sabir.StreamProtocolError, match="this is no answer of Parley"):
        dialect.decode_answer(line.encode())
    found, error = streamed(dialect, b'{"text": "a"}\n' + line.encode() + b"\n")
    assert found == [deltas.Open(0, "text"), deltas.Text(0, "a")]
    assert "this is no answer of Parley" in str(error)


@given(body=ANSWERS, cut=st.floats(0, 1))
def test_no_stream_that_was_cut_off_is_an_answer(dialect, body, cut):
    data = written(dialect, dialect.decode_answer(encoded(body)))
    assert "StreamInterrupted" in str(streamed(dialect, data[: int(cut * (len(data) - 1))])[1])


@given(
    data=st.binary(max_size=60) | st.lists(BEYOND | ANSWERS | VALUES).map(lambda all_: b"\n".join(map(encoded, all_))),
    cuts=st.lists(st.integers(0, 100), max_size=5),
)
@example(b'{"text": "a"}\n{"error": {"message": "no"}}\n', [])
@example(b'{"text": "a"}\n{"error": "no"}\n{"text": "b", "end": "done"}\n', [20])
def test_bytes_of_any_kind_end_in_an_answer_or_an_error_of_ours(dialect, data, cuts):
    assert streamed(dialect, data, cuts) == streamed(dialect, data)
    for read in (dialect.decode_answer, dialect.decode_request):
        try:
            read(data)
        except sabir.SabirError:
            pass


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"messages": []}',
        b'{"model": "m"}',
        b'{"model": 1, "messages": []}',
        b'{"model": "m", "messages": [1]}',
        b'{"model": "m", "messages": [{"role": "tool", "text": ""}]}',
        b'{"model": "m", "messages": [{"role": "user"}]}',
        b'{"model": "m", "messages": [], "stream": 1}',
        b'{"model": "m", "messages": [], "temperature": "hot"}',
    ],
)
def test_what_the_format_does_not_allow_is_refused(dialect, body):
    with pytest.raises(sabir.BadRequestError, match="this is no request of Parley"):
        dialect.decode_request(body)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (sabir.AuthenticationError("who are you?"), 401),
        (sabir.RateLimitError("slowly"), 429),
        (sabir.BadRequestError("what?"), 400),
        (sabir.ServerError("oh"), 500),
    ],
)
def test_an_error_comes_out_as_what_went_in(dialect, error, status):
    sent, body = dialect.encode_error(error)
    again = dialect.decode_error(sent, {}, body)
    assert (sent, type(again)) == (status, type(error))
    assert error.message in again.message


# Its verdicts

SAMPLES: dict[str, Any] = {
    "stop": ("a",),
    "thinking": True,
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "logprobs": True,
    "user": "ada",
    "schema": OutputSchema("answer", {"type": "object"}),
    "tools": (ToolSpec("look"),),
    "extra": {"mood": "calm"},
    "headers": {"x-title": "t"},
}


def test_every_option_has_a_verdict(dialect):
    assert set(dialect.verdicts()) == {*Options.__annotations__, "schema", "tools"}
    assert all(isinstance(verdict, str) and verdict for verdict in dialect.verdicts().values())


def test_the_verdicts_are_what_happens(parley):
    for dialect in (parley.Parley(), parley.Parley(limit="max")):
        plain = dialect.encode_request(Request(model="m", messages=()))[0]
        for name, verdict in dialect.verdicts().items():
            value = SAMPLES.get(name, 5)
            http, notices = dialect.encode_request(Request(model="m", messages=(), **{name: value}))
            if isinstance(verdict, Unsupported):
                assert http == plain
                assert [(notice.kind, notice.subject) for notice in notices] == [("unsupported", name)]
                assert str(verdict) in notices[0].message
            else:
                changed = dict(http.headers) if name == "headers" else json.loads(http.body)
                assert (value if name in ("extra", "headers") else {verdict: value}).items() <= changed.items()
                assert notices == ()


def test_a_quirk_is_a_field(parley):
    http, _ = parley.Parley(limit="max").encode_request(Request(model="m", messages=(), max_tokens=7))
    assert json.loads(http.body) == {"model": "m", "messages": [], "max": 7}


# Its two halves, with a socket between them


def echo(request: Request) -> list[deltas.Delta]:
    words = re.findall(r"\S+\s*", request.messages[-1].text)
    texts = [deltas.Text(0, word) for word in words]
    count = deltas.Count(Usage(input=len(words), output=len(words)))
    return [deltas.Head("a1", request.model), deltas.Open(0, "text"), *texts, count, deltas.Finish("stop")]


def served(dialect: Dialect, say: Any = echo, *, breaks: sabir.SabirError | None = None, most: int = 10**6) -> Answer:
    """A server made of the dialect's half of it; its streams come in small pieces, may break, or end too early."""

    async def answer(call: Call) -> None:
        assert (call.method, call.target) == ("POST", "/v1/chat")
        try:
            request = dialect.decode_request(call.body)
            said = say(request)
        except sabir.SabirError as error:
            status, body = dialect.encode_error(error)
            await whole(body, "Content-Type: application/json", status=f"{status} No")(call)
            return
        if not request.stream:
            body = dialect.encode_response(response_of(dialect.name, said))
            await whole(body, "Content-Type: application/json")(call)
            return
        encoder = dialect.encoder(request)
        data = b"".join(map(encoder.feed, said)) + (encoder.fail(breaks) if breaks else encoder.close())
        await chunked(*(data[at : at + 7] for at in range(0, min(most, len(data)), 7)))(call)

    return answer


@pytest.fixture
def row(own_table: None, dialect: Dialect, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server of the format, and the provider `parley` that is there."""
    monkeypatch.setenv("PARLEY_API_KEY", KEY)
    with Server(served(dialect)) as server:
        sabir.register_provider(sabir.Provider("parley", dialect, url=f"{server.url}/v1", key="PARLEY_API_KEY"))
        yield server


def test_a_dialect_is_added_as_the_page_says(own_table, dialect, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PARLEY_API_KEY", KEY)
    code = "\n".join(snippets(DIALECT)[1:])
    with Server(served(dialect)) as server:
        run(code.replace("https://parley.example", server.url), tmp_path, capsys)
    assert [call.header("authorization") for call in server.calls] == [f"Bearer {KEY}"] * 2


async def test_an_answer_comes_whole(surface, row):
    response = await surface.client("parley:echo-1").ask("Good morning", max_tokens=7, extra={"mood": "calm"})
    assert (response.text, response.finish_reason, response.model) == ("Good morning", "stop", "echo-1")
    assert response.usage == Usage(input=2, output=2)
    (call,) = row.calls
    sent = json.loads(call.body)
    assert sent == {
        "model": "echo-1",
        "messages": [{"role": "user", "text": "Good morning"}],
        "limit": 7,
        "mood": "calm",
    }


async def test_an_answer_comes_piece_by_piece(surface, row):
    async with surface.client("parley:echo-1").stream("one two three", include=["generating"]) as stream:
        assert [chunk.content async for chunk in stream] == ["one ", "two ", "three"]
    assert stream.response.text == "one two three"
    assert stream.response.usage.total_tokens == 6


async def test_a_chat_remembers(surface, row):
    chat = surface.client("parley:echo-1").chat(system="Repeat.")
    await chat("first")
    await chat("second")
    said = [(message["role"], message["text"]) for message in json.loads(row.calls[-1].body)["messages"]]
    assert said == [("system", "Repeat."), ("user", "first"), ("assistant", "first"), ("user", "second")]


async def test_an_error_of_the_server_is_the_same_error_here(surface, row, dialect):
    def refuse(request: Request) -> list[deltas.Delta]:
        raise sabir.NotFoundError(f"there is no {request.model}")

    row.answer = served(dialect, refuse)
    with pytest.raises(sabir.NotFoundError, match="there is no echo-1"):
        await surface.client("parley:echo-1").ask("?")


async def read(stream: Any, seen: list[str]) -> None:
    async for chunk in stream:
        seen.append(chunk.content)  # noqa: PERF401 - what came before an error is to be seen


async def test_an_error_in_a_stream_comes_after_what_was_said(surface, row, dialect):
    row.answer = served(dialect, breaks=sabir.OverloadedError("too much", code="overloaded_error"))
    stream = surface.client("parley:echo-1").stream("one two", include=["generating"])
    seen: list[str] = []
    with pytest.raises(sabir.OverloadedError, match="too much") as caught:
        await read(stream, seen)
    assert seen == ["one ", "two"]
    assert caught.value.partial is not None
    assert caught.value.partial.text == "one two"


async def test_a_stream_that_is_cut_off_is_no_answer(surface, row, dialect):
    row.answer = served(dialect, most=20)
    stream = surface.client("parley:echo-1").stream("one two three")
    with pytest.raises(sabir.StreamInterrupted) as caught:
        await read(stream, [])
    assert caught.value.partial is not None
    assert caught.value.partial.text == "one "


async def test_what_the_format_lacks_is_told(surface, row):
    client = surface.client("parley:echo-1")
    response = await client.ask('{"a": 1}', schema={"type": "object", "required": ["a"]})
    assert (response.parsed, response.schema_mode) == ({"a": 1}, "prompt")
    with pytest.raises(sabir.UnsupportedError, match="seed was not sent"):
        await surface.client("parley:echo-1", on_unsupported="raise").ask("?", seed=1)
    image = "data:image/png;base64," + b64encode(b"\x89PNG\r\n\x1a\n").decode()
    with pytest.warns(sabir.SabirWarning, match="Image was left out"):
        await client.ask("What is this?", images=[image])
