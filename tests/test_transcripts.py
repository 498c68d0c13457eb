"""`client.transcribe`: speech is written down, whole or as it comes, on every surface, over real HTTP."""

from __future__ import annotations

import json
from functools import partial
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers import Server, whole
from studio import KEY, Studio

import sabir
from sabir import (
    Audio,
    ConfigurationError,
    DeadlineExceeded,
    RateLimitError,
    SabirWarning,
    Segment,
    ServerError,
    StreamInterrupted,
    StreamProtocolError,
    Text,
    Transcription,
    UnsupportedError,
    Word,
)
from sabir.dialects.media_formats import Said, TranscriptAnswer, TranscriptRequest
from sabir.dialects.multipart import Field, encode_form
from sabir.dialects.openai_transcripts import OpenAITranscripts
from sabir.dialects.waves import wav
from sabir.messages import Message, ProviderState
from sabir.providers import PROVIDERS
from sabir.requests import HttpRequest
from sabir.strict_json import decode_json
from sabir.testing import VirtualClock, recorded_http
from sabir.usage import Usage

RECORDINGS = Path(__file__).resolve().parent.parent.parent / "shared" / "recordings" / "openai-audio.jsonl"
WAV = wav(bytes(200), 16_000)
SOUND = Audio(data=WAV, media_type="audio/wav")
WORDS = "The sun was setting slowly."
USAGE = Usage(input=0, input_audio=54, output=16, reported_total=70)
SEGMENTS = (Segment(" The sun", 0.0, 1.5, "A"), Segment(" was setting slowly.", 1.5, 3.0, "B"))
MISTRAL = OpenAITranscripts(asks="switch", parameters={**OpenAITranscripts().parameters, "diarize": "diarize"})


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def studio():
    answer = TranscriptAnswer(text=WORDS, usage=USAGE)
    pieces = (Said("The sun"), Said(" was setting"), Said(" slowly."))
    with Studio(OpenAITranscripts(), answer=answer, pieces=pieces) as made:
        yield made


def connect(surface, studio, model="openai:gpt-4o-transcribe", **settings):
    return surface.client(model, base_url=studio.url, **{"api_key": KEY, **settings})


def says(value):
    return whole(json.dumps(value).encode(), "Content-Type: application/json")


def texts(call):
    """The fields of a form that are no files."""
    asked = HttpRequest("POST", call.target, tuple(call.headers), call.body)
    return OpenAITranscripts().canonical_request(asked)["texts"]


async def read(client, source):
    async with client.stream_transcript(source) as stream:
        return [chunk async for chunk in stream]


# What comes back


async def test_speech_is_written_down(surface, studio):
    client = connect(surface, studio)
    made = await client.transcribe(WAV, language="en", prompt="Oslo", temperature=0.5)
    assert isinstance(made, Transcription)
    assert (made.text, str(made), made.message) == (WORDS, WORDS, Message("assistant", (Text(text=WORDS),)))
    assert (made.usage, made.segments, made.words, made.warnings, made.request_id) == (USAGE, (), (), (), "req-7")
    (asked,) = studio.asked
    assert asked.audio == SOUND
    assert (asked.language, asked.prompt, asked.temperature) == ("en", "Oslo", 0.5)
    (call,) = studio.server.calls
    assert call.target == "/v1/audio/transcriptions"
    assert b'name="file"; filename="file.wav"\r\nContent-Type: audio/wav\r\n' in call.body


async def test_a_recording_comes_from_anywhere(surface, studio, tmp_path):
    path = tmp_path / "speech.bin"
    path.write_bytes(WAV)
    client = connect(surface, studio)
    with path.open("rb") as opened:
        for source in (path, str(path), WAV, opened, SOUND, sabir.audio(WAV)):
            assert (await client.transcribe(source)).text == WORDS
    assert {asked.audio for asked in studio.asked} == {SOUND}


async def test_a_recording_at_an_address_is_loaded(surface, studio):
    with Server(whole(WAV, "Content-Type: audio/wav")) as web:
        made = await connect(surface, studio, fetch="any").transcribe(f"{web.url}/speech.wav")
        with pytest.raises(ConfigurationError, match="fetch="):
            await connect(surface, studio).transcribe(f"{web.url}/speech.wav")
        assert len(web.calls) == 1
    assert studio.asked[0].audio == SOUND
    assert [(notice.kind, notice.subject) for notice in made.warnings] == [("emulated", "Audio")]


async def test_words_and_segments_have_times(surface, studio):
    studio.answer = TranscriptAnswer(
        text=WORDS,
        language="english",
        duration=3.0,
        segments=(Segment(WORDS, 0.0, 3.0),),
        words=(Word("The", 0.0, 0.5), Word("sun", 0.5, 1.0)),
        billed=3.0,
    )
    made = await connect(surface, studio, "openai:whisper-1").transcribe(WAV, timestamps="word")
    assert (made.language, made.duration, made.billed_seconds) == ("english", 3.0, 3.0)
    assert made.segments == (Segment(WORDS, 0.0, 3.0),)
    assert made.words[1] == Word("sun", 0.5, 1.0)
    assert texts(studio.server.calls[0]) == {
        "model": ["whisper-1"],
        "response_format": ["verbose_json"],
        "timestamp_granularities[]": ["word"],
    }


async def test_speakers_are_told_apart(surface, studio):
    studio.answer = TranscriptAnswer(text=WORDS, segments=SEGMENTS)
    made = await connect(surface, studio).transcribe(WAV, diarize=True)
    assert [segment.speaker for segment in made.segments] == ["A", "B"]
    assert texts(studio.server.calls[0]) == {
        "model": ["gpt-4o-transcribe"],
        "response_format": ["diarized_json"],
        "chunking_strategy": ["auto"],
    }


async def test_mistral_has_switches(surface, studio):
    studio.dialects = (MISTRAL,)
    client = connect(surface, studio, "mistral:voxtral-mini-latest")
    await client.transcribe(WAV, diarize=True, timestamps="segment")
    assert texts(studio.server.calls[0]) == {
        "model": ["voxtral-mini-latest"],
        "diarize": ["true"],
        "timestamp_granularities[]": ["segment"],
    }


async def test_speech_is_translated(surface, studio):
    client = connect(surface, studio)
    await client.transcribe(WAV, translate=True)
    assert studio.asked[0].translate
    assert studio.server.calls[0].target == "/v1/audio/translations"
    with pytest.warns(SabirWarning, match="language was not sent"):
        await client.transcribe(WAV, translate=True, language="de")
    await client.transcribe(WAV, translate=True, timestamps="segment")
    assert texts(studio.server.calls[-1]) == {"model": ["gpt-4o-transcribe"], "response_format": ["verbose_json"]}
    with pytest.warns(SabirWarning, match="timestamps was not sent"):
        await client.transcribe(WAV, translate=True, timestamps="word")
    assert texts(studio.server.calls[-1]) == {"model": ["gpt-4o-transcribe"]}


@pytest.mark.parametrize(("kind", "text"), [("text/plain", f"{WORDS}\n"), ("text/vtt", "WEBVTT\n\n00:00\nThe sun\n")])
async def test_an_answer_of_text_is_its_text(surface, kind, text):
    with Server(whole(text.encode(), f"Content-Type: {kind}; charset=utf-8")) as server:
        client = surface.client("openai:whisper-1", base_url=server.url, api_key=KEY)
        made = await client.transcribe(WAV, extra={"response_format": "vtt"})
        assert made.text == text
        assert texts(server.calls[0])["response_format"] == ["vtt"]


async def test_extra_goes_into_the_form(surface, studio):
    extra = {"include": ["logprobs"], "chunking_strategy": {"type": "server_vad", "threshold": 0.5}, "stream": False}
    await connect(surface, studio).transcribe(WAV, extra=extra)
    assert texts(studio.server.calls[0]) == {
        "model": ["gpt-4o-transcribe"],
        "include[]": ["logprobs"],
        "chunking_strategy[type]": ["server_vad"],
        "chunking_strategy[threshold]": ["0.5"],
        "stream": ["false"],
    }


async def test_a_transcript_is_recorded_and_replayed(surface, studio, tmp_path):
    """A form's boundary is no chance, so that the same recording is asked for in the same bytes."""
    first = await connect(surface, studio, runtime_wrappers=[recorded_http(tmp_path / "tape.jsonl")]).transcribe(WAV)
    again = await connect(surface, studio, runtime_wrappers=[recorded_http(tmp_path / "tape.jsonl")]).transcribe(WAV)
    assert (again.text, again.usage) == (first.text, first.usage)
    assert len(studio.server.calls) == 1


# As it comes


async def test_a_transcript_is_seen_as_it_comes(surface, studio):
    async with connect(surface, studio).stream_transcript(WAV) as stream:
        chunks = [(chunk.phase, chunk.content) async for chunk in stream]
    said = [("generating", "The sun"), ("generating", " was setting"), ("generating", " slowly.")]
    assert chunks == [*said, ("done", "")]
    assert (stream.response.text, stream.response.usage) == (WORDS, USAGE)
    assert texts(studio.server.calls[0])["stream"] == ["true"]


async def test_segments_are_seen_as_they_come(surface, studio):
    studio.pieces = tuple(Said(segment=segment) for segment in SEGMENTS)
    studio.answer = TranscriptAnswer(text=WORDS, segments=SEGMENTS)
    async with connect(surface, studio).stream_transcript(WAV, diarize=True) as stream:
        said = [chunk.content async for chunk in stream if chunk.is_text()]
    assert said == [segment.text for segment in SEGMENTS]
    assert stream.response.segments == SEGMENTS


async def test_a_server_that_does_not_stream_gives_all_at_once(surface, studio):
    with Server(says({"text": WORDS})) as server:
        client = surface.client("openai:whisper-1", base_url=server.url, api_key=KEY)
        chunks = await read(client, WAV)
    assert [(chunk.phase, chunk.content) for chunk in chunks] == [("generating", WORDS), ("done", "")]


async def test_a_stream_is_not_asked_for_where_there_is_none(surface, studio):
    client = connect(surface, studio, "cohere:cohere-transcribe-03-2026")
    async with client.stream_transcript(WAV, language="en") as stream:
        assert [chunk.content async for chunk in stream] == [WORDS, ""]
    assert "stream" not in texts(studio.server.calls[0])


async def test_a_transcript_that_breaks_off_is_told_with_what_came(surface, studio):
    studio.breaks_after = 2
    with pytest.raises(StreamInterrupted) as caught:
        await read(connect(surface, studio), WAV)
    assert caught.value.partial == Message("assistant", (Text(text="The sun was setting"),))
    assert len(caught.value.attempts) == 1


async def test_leaving_a_stream_closes_the_socket(surface):
    async def answer(call):
        call.head("Content-Type: text/event-stream", "Transfer-Encoding: chunked")
        call.chunk(b'data: {"type":"transcript.text.delta","delta":"The"}\n\n')
        await call.forever()

    with Server(answer) as server:
        client = surface.client("openai:x", base_url=server.url, api_key=KEY)
        async with client.stream_transcript(WAV) as stream:
            async for chunk in stream:
                assert chunk.content == "The"
                break
        assert await surface.in_thread(lambda: server.is_left_by_all(0.5))


async def test_what_the_provider_says_that_it_cost_counts(surface):
    usage = {"input_tokens": 37, "output_tokens": 12, "total_tokens": 49, "cost": 0.00010625}
    with Server(says({"text": WORDS, "usage": usage})) as server:
        client = surface.client("openrouter:openai/gpt-4o-mini-transcribe", base_url=server.url, api_key=KEY)
        made = await client.transcribe(WAV)
    assert (str(made.cost), made.cost.is_reported) == ("$0.00010625", True)


# What can go wrong


async def test_what_may_pass_is_tried_again(surface, studio):
    studio.failures.append(RateLimitError("slowly", status=429))
    made = await connect(surface, studio, runtime_wrappers=[VirtualClock()]).transcribe(WAV)
    assert [attempt.outcome for attempt in made.attempts] == ["RateLimitError", "answered"]
    assert len({call.body for call in studio.server.calls}) == 1


async def test_a_deadline_holds(surface):
    async def answer(call):
        await call.forever()

    with Server(answer) as server, pytest.raises(DeadlineExceeded):
        await surface.client("openai:x", base_url=server.url, api_key=KEY, timeout=0.2).transcribe(WAV)


@pytest.mark.parametrize(
    ("body", "error", "reason"),
    [
        ({"error": {"message": "busy", "code": 500}}, ServerError, "busy"),
        ({"words": []}, StreamProtocolError, "no text"),
        ([], StreamProtocolError, "no text"),
    ],
)
@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])
async def test_what_is_no_transcript_is_an_error(surface, body, error, reason, is_stream):
    with Server(says(body)) as server:
        client = surface.client("openai:x", base_url=server.url, api_key=KEY, max_attempts=1)
        transcribe = partial(read, client) if is_stream else client.transcribe
        with pytest.raises(error, match=reason):
            await transcribe(WAV)


async def test_what_cannot_work_is_told_before_anything_is_sent(surface, studio):
    client = connect(surface, studio)
    for source, options, kind, reason in (
        (b"no sound", {}, ConfigurationError, "no audio"),
        ("nowhere.mp3", {}, ConfigurationError, "cannot be read"),
        (Audio(id="a-1"), {}, ConfigurationError, "another provider's id"),
        (WAV, {"langauge": "en"}, ConfigurationError, "did you mean 'language'"),
        (WAV, {"timestamps": "letter"}, ConfigurationError, "timestamps"),
        (WAV, {"diarize": "yes"}, ConfigurationError, "diarize"),
        (WAV, {"model": "pico"}, UnsupportedError, "transcribes nothing"),
    ):
        with pytest.raises(kind, match=reason):
            await client.transcribe(source, **options)
    assert studio.server.calls == []


async def test_what_has_no_word_is_told(surface, studio):
    client = connect(surface, studio, "cohere:cohere-transcribe-03-2026")
    with pytest.warns(SabirWarning, match="timestamps was not sent"):
        made = await client.transcribe(WAV, language="en", timestamps="word")
    assert [notice.subject for notice in made.warnings] == ["timestamps"]


async def test_words_and_speakers_do_not_go_together(surface, studio):
    with pytest.warns(SabirWarning, match="timestamps was not sent"):
        await connect(surface, studio).transcribe(WAV, timestamps="word", diarize=True)
    assert "timestamp_granularities[]" not in texts(studio.server.calls[0])


@pytest.mark.parametrize("name", [name for name, row in PROVIDERS.items() if row.transcripts is not None])
def test_every_option_has_a_verdict(name):
    assert set(PROVIDERS[name].transcripts.verdicts()) == set(TranscriptRequest.__struct_fields__) - {
        "model",
        "audio",
        "stream",
        "state",
    }


# The format, both halves

SHORT = st.text(st.characters(codec="utf-8"), max_size=6)
FORMS = st.fixed_dictionaries(
    {"model": SHORT.filter(bool)},
    optional={
        "language": SHORT,
        "prompt": SHORT,
        "temperature": st.sampled_from(["0", "0.50", "1e-1", "warm"]),
        "response_format": st.sampled_from(["json", "text", "verbose_json", "diarized_json", "srt"]),
        "stream": st.sampled_from(["true", "false", "1"]),
        "timestamp_granularities[]": st.lists(st.sampled_from(["word", "segment"]), min_size=1, max_size=2),
        "include[]": st.just(["logprobs"]),
        "diarize": st.sampled_from(["true", "false"]),
        "other": SHORT,
    },
)
FILES = st.builds(Field, st.just("file"), st.binary(max_size=20), st.sampled_from(["a.mp3", "b", "c.wav"]))


@given(
    FORMS, FILES, st.sampled_from(["transcriptions", "translations"]), st.sampled_from([OpenAITranscripts(), MISTRAL])
)
def test_a_request_survives_being_read(form, file, operation, dialect):
    fields = [
        Field(name, each.encode())
        for name, value in form.items()
        for each in (value if isinstance(value, list) else [value])
    ]
    kind, body = encode_form([*fields, file])
    asked = HttpRequest("POST", f"/v1/audio/{operation}", (("Content-Type", kind),), body)
    again, _ = dialect.encode_request(dialect.decode_request(asked))
    assert again.url == f"/audio/{operation}"
    assert dialect.canonical_request(again) == dialect.canonical_request(asked)


TIMES = {"start": st.floats(0, 9), "end": st.floats(0, 9)}
ROWS = st.fixed_dictionaries({}, optional={"text": SHORT, "speaker": SHORT, "id": st.integers(0, 9), **TIMES})
SPOKEN = st.fixed_dictionaries({}, optional={"word": SHORT, "probability": st.floats(0, 1), **TIMES})
USAGES = st.sampled_from(
    [
        {"type": "duration", "seconds": 6},
        {"type": "tokens", "input_tokens": 5, "output_tokens": 2, "total_tokens": 7},
        {"input_tokens": 5, "input_token_details": {"audio_tokens": 5, "text_tokens": 0}, "total_tokens": 5},
        {"prompt_audio_seconds": 3, "prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6},
        {},
    ]
)
ANSWERS = st.fixed_dictionaries(
    {"text": SHORT},
    optional={
        "language": st.none() | SHORT,
        "duration": st.floats(0, 9),
        "task": st.just("transcribe"),
        "segments": st.lists(ROWS, max_size=3),
        "words": st.lists(SPOKEN, max_size=3),
        "usage": USAGES,
        "model": SHORT,
    },
)


@given(ANSWERS)
def test_an_answer_survives_being_read(body):
    dialect, data = OpenAITranscripts(), json.dumps(body).encode()
    request = TranscriptRequest(model="m", audio=SOUND)
    kind, again = dialect.encode_response(request, dialect.decode_answer(request, "application/json", data))
    before, after = (dialect.canonical_answer(kind, each) for each in (data, again))
    # An object with nothing in it says no more than none at all.
    assert {**after, **({"usage": {}} if before.get("usage") == {} else {})} == before


@given(st.lists(SHORT.filter(str.strip), min_size=1, max_size=4), st.lists(st.integers(0, 600)))
def test_a_stream_reads_the_same_however_it_is_cut(said, cuts):
    dialect, request = OpenAITranscripts(), TranscriptRequest(model="m", audio=SOUND, stream=True)
    answer = TranscriptAnswer(text="".join(said), usage=USAGE)
    encoder, decoder = dialect.encoder(request), dialect.decoder(request, "text/event-stream")
    data = b"".join([*(encoder.feed(Said(text)) for text in said), encoder.close(answer)])
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    read = [piece.text for start, end in pairwise(places) for piece in decoder.feed(data[start:end])]
    assert read == said
    assert msgspec.structs.replace(decoder.close(), state=None) == answer
    assert decoder.is_over


def decoded(*events, **ended):
    decoder = OpenAITranscripts().decoder(TranscriptRequest(model="m", audio=SOUND), "text/event-stream")
    said = [piece for event in events for piece in decoder.feed(b"data: %b\n\n" % json.dumps(event).encode())]
    return "".join(piece.text for piece in said), decoder.close(**ended)


def test_mistrals_events_are_read():
    said, answer = decoded(
        {"type": "transcription.language", "audio_language": "en"},
        {"type": "transcription.text.delta", "text": "The "},
        {"type": "transcription.text.delta", "text": "sun"},
        {"type": "transcription.segment", "text": "The sun", "start": 0.1, "end": 1, "speaker_id": "speaker_1"},
        {"type": "transcription.done", "model": "v", "text": "The sun", "usage": {"total_tokens": 3}, "language": None},
    )
    assert (said, answer.text, answer.language, answer.model) == ("The sun", "The sun", "en", "v")
    assert answer.segments == (Segment("The sun", 0.1, 1.0, "speaker_1"),)


def test_vllms_events_are_read():
    said, answer = decoded(
        {"object": "transcription.chunk", "model": "w", "choices": [{"delta": {"content": "The"}}]},
        {"object": "transcription.chunk", "model": "w", "choices": [{"delta": {"content": " sun"}}]},
        {"object": "transcription.chunk", "model": "w", "choices": [{"delta": {}, "finish_reason": "stop"}]},
    )
    assert (said, answer.text, answer.model) == ("The sun", "The sun", "w")


def test_a_last_event_may_say_more_and_not_otherwise():
    delta = {"type": "transcript.text.delta", "delta": "The"}
    assert decoded(delta, {"type": "transcript.text.done", "text": "The sun"})[0] == "The sun"
    with pytest.raises(StreamProtocolError, match="contradicts"):
        decoded(delta, {"type": "transcript.text.done", "text": "A moon"})


def test_a_stream_is_whole_when_its_last_event_has_come():
    done = {"type": "transcript.text.done", "text": "The"}
    assert decoded(done, is_cut=True)[1].text == "The"
    with pytest.raises(StreamInterrupted):
        decoded({"type": "transcript.text.delta", "delta": "The"})


def test_an_error_in_a_stream_is_raised():
    dialect, request = OpenAITranscripts(), TranscriptRequest(model="m", audio=SOUND)
    failure = dialect.encoder(request).fail(RateLimitError("slowly", code="rate_limit_exceeded"))
    with pytest.raises(RateLimitError, match="slowly"):
        dialect.decoder(request, "text/event-stream").feed(failure)


def test_subtitles_are_left_to_those_who_write_them():
    asked = {"texts": {"set": {"response_format": ["srt"]}}, "files": {}}
    request = TranscriptRequest(model="m", audio=SOUND, state=ProviderState("openai_transcripts", asked))
    with pytest.raises(UnsupportedError, match="verbose_json"):
        OpenAITranscripts().encode_response(request, TranscriptAnswer(text="x"))


# Recorded traffic


RECORDED = [decode_json(line) for line in RECORDINGS.read_bytes().splitlines()] if RECORDINGS.exists() else []


@pytest.mark.skipif(not RECORDED, reason=f"there are no recordings at {RECORDINGS}")
async def test_recorded_answers_come_through_the_client(surface):
    answers = [each["response"] for each in RECORDED if each["endpoint"] == "audio/transcriptions"]
    current = {}

    async def answer(call):
        body = current["body"]
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        await whole(data, f"Content-Type: {current['content_type']}", status=f"{current['status']} OK")(call)

    with Server(answer) as server:
        client = surface.client("openai:gpt-4o-transcribe", base_url=server.url, api_key=KEY)
        for response in answers:
            current.update(response)
            if response["status"] != 200:
                with pytest.raises(ServerError, match="does not support audio"):
                    await client.transcribe(WAV)
                continue
            async with client.stream_transcript(WAV) as stream:
                said = "".join([chunk.content async for chunk in stream])
            assert stream.response.text.strip() == said.strip()
            assert said.strip().endswith(("empty field.", "developer happiness."))
