"""`client.speak`: a text is spoken, whole or as it comes, on every surface, over real HTTP."""

from __future__ import annotations

import base64
import io
import json
import wave
from functools import partial
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers import Gate, Server, whole
from studio import KEY, Studio

from sabir import (
    Audio,
    ClosedError,
    ConfigurationError,
    RateLimitError,
    SabirWarning,
    ServerError,
    SpeechResponse,
    StreamInterrupted,
    StreamProtocolError,
    UnsupportedError,
)
from sabir.dialects.media_formats import Sound, SpeechAnswer, SpeechRequest
from sabir.dialects.openai_speech import OpenAISpeech
from sabir.dialects.waves import samples_of, told_rate, wav
from sabir.messages import Message
from sabir.providers import PROVIDERS
from sabir.requests import HttpRequest
from sabir.testing import VirtualClock
from sabir.usage import Usage

SAMPLES = bytes(range(200))
WAV = wav(SAMPLES, 24_000)
MP3 = b"ID3\x04" + bytes(100)
USAGE = Usage(input=7, output_audio=30, reported_total=37)
EVENTS = OpenAISpeech(streaming={"stream_format": "sse"})


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def studio():
    sound = SpeechAnswer(audio=Audio(data=MP3, media_type="audio/mpeg"))
    with Studio(OpenAISpeech(), answer=sound, pieces=(Sound(MP3[:50]), Sound(MP3[50:]))) as made:
        # A sound is the same bytes, however they come.
        made.always_streams = True
        yield made


def connect(surface, studio, model="openai:gpt-4o-mini-tts", **settings):
    return surface.client(model, base_url=studio.url, **{"api_key": KEY, **settings})


async def read(client, text):
    async with client.stream_speech(text) as stream:
        return [chunk async for chunk in stream]


async def test_a_text_is_spoken(surface, studio, tmp_path):
    client = connect(surface, studio)
    made = await client.speak("Hello", voice="alloy", format="mp3", speed=1, instructions="gently")
    assert isinstance(made, SpeechResponse)
    assert made.audio == Audio(data=MP3, media_type="audio/mpeg")
    assert (made.message, made.warnings, made.request_id) == (Message("assistant", (made.audio,)), (), "req-7")
    assert made.save(tmp_path / "hello.mp3").read_bytes() == MP3
    (call,) = studio.server.calls
    assert (call.target, json.loads(call.body)) == (
        "/v1/audio/speech",
        {
            "model": "gpt-4o-mini-tts",
            "input": "Hello",
            "voice": "alloy",
            "response_format": "mp3",
            "speed": 1.0,
            "instructions": "gently",
        },
    )


async def test_speech_is_heard_as_it_comes(surface):
    """The server sends the second half when the first has been heard: it cannot have been waited for."""
    gate = Gate()

    async def answer(call):
        call.head("Content-Type: audio/mpeg", "Transfer-Encoding: chunked")
        call.chunk(MP3[:50])
        await gate.passed()
        call.chunk(MP3[50:])
        call.chunk(b"")

    with Server(answer) as server:
        client = surface.client("openai:tts-1", base_url=server.url, api_key=KEY)
        async with client.stream_speech("Hello", voice="alloy") as stream:
            chunks = []
            async for chunk in stream:
                gate.open()
                chunks.append((chunk.phase, chunk.content))
    phase = "speech_generating"
    assert chunks == [
        (phase, {"chunk_index": 0, "total_chunks": None, "final": False, "result": None}),
        (phase, {"chunk_index": 1, "total_chunks": None, "final": False, "result": None}),
        (phase, {"chunk_index": 2, "total_chunks": 3, "final": True, "result": MP3}),
        ("done", ""),
    ]
    assert stream.response.audio.data == MP3


async def test_sounds_can_be_played_as_they_come(surface, studio):
    client = connect(surface, studio)
    async with client.stream_speech("Hello") as stream:
        sounds = stream.sounds()
        pieces = list(sounds) if surface.is_blocking else [sound async for sound in sounds]
    assert b"".join(pieces) == MP3
    assert stream.response.audio.data == MP3


async def test_speech_comes_in_events_too(surface, studio):
    studio.dialects, studio.answer = (EVENTS,), SpeechAnswer(audio=Audio(data=MP3), usage=USAGE)
    client = connect(surface, studio)
    async with client.stream_speech("Hello", format="mp3", extra={"stream_format": "sse"}) as stream:
        assert [chunk.phase async for chunk in stream] == ["speech_generating"] * 3 + ["done"]
    assert (stream.response.audio.data, stream.response.usage) == (MP3, USAGE)
    assert studio.asked[0].stream


async def test_mistral_says_it_in_json(surface):
    body = {"audio_data": base64.b64encode(MP3).decode(), "usage": {"prompt_tokens": 7, "completion_tokens": 30}}
    with Server(whole(json.dumps(body).encode(), "Content-Type: application/json")) as server:
        client = surface.client("mistral:voxtral-mini-tts-latest", base_url=server.url, api_key=KEY)
        made = await client.speak("Hello", voice="en_paul_neutral")
    assert made.audio == Audio(data=MP3, media_type="audio/mpeg")
    assert made.usage == Usage(input=7, output_audio=30)


async def test_a_sound_that_breaks_off_is_no_sound(surface, studio):
    studio.breaks_after = 1
    client = connect(surface, studio)
    async with client.stream_speech("Hello") as stream:
        with pytest.raises(StreamInterrupted) as caught:
            async for _ in stream:
                pass
    assert caught.value.partial == Message("assistant", (Audio(data=MP3[:50]),))
    assert len(studio.server.calls) == 1


async def test_a_whole_sound_that_breaks_off_is_asked_for_again(surface):
    async def answer(call):
        call.head("Content-Type: audio/mpeg", f"Content-Length: {len(MP3)}")
        if len(server.calls) == 1:
            call.write(MP3[:50])
            return call.close()
        return call.write(MP3)

    with Server(answer) as server:
        client = surface.client("openai:x", base_url=server.url, api_key=KEY, runtime_wrappers=[VirtualClock()])
        made = await client.speak("Hello")
    assert made.audio.data == MP3
    assert [attempt.outcome for attempt in made.attempts] == ["StreamInterrupted", "answered"]


async def test_leaving_a_stream_closes_the_socket(surface):
    async def answer(call):
        call.head("Content-Type: audio/mpeg", "Transfer-Encoding: chunked")
        call.chunk(MP3)
        await call.forever()

    with Server(answer) as server:
        client = surface.client("openai:x", base_url=server.url, api_key=KEY)
        async with client.stream_speech("Hello") as stream:
            async for _ in stream:
                break
        assert await surface.in_thread(lambda: server.is_left_by_all(0.5))
        with pytest.raises(ClosedError) as caught:
            assert stream.response
    assert caught.value.partial == Message("assistant", (Audio(data=MP3),))


async def test_what_may_pass_is_tried_again(surface, studio):
    studio.failures.append(RateLimitError("slowly", status=429))
    client = connect(surface, studio, runtime_wrappers=[VirtualClock()])
    async with client.stream_speech("Hello") as stream:
        assert [chunk async for chunk in stream]
    assert [attempt.outcome for attempt in stream.response.attempts] == ["RateLimitError", "answered"]


@pytest.mark.parametrize(
    ("body", "kind", "error", "reason"),
    [
        (b"", "audio/mpeg", StreamProtocolError, "no sound"),
        (b"<html>", "text/html", ServerError, "answered with a page"),
        (b"Come back later", "text/html", ServerError, "no sound, but text"),
        (b"{}", "application/json", StreamProtocolError, "no sound"),
        (b'{"audio_data": "!"}', "application/json", StreamProtocolError, "no base64"),
        (b'{"error": {"message": "busy"}}', "application/json", ServerError, "busy"),
    ],
)
@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])
async def test_what_is_no_sound_is_an_error(surface, body, kind, error, reason, is_stream):
    with Server(whole(body, f"Content-Type: {kind}")) as server:
        client = surface.client("openai:x", base_url=server.url, api_key=KEY, max_attempts=1)
        speak = partial(read, client) if is_stream else client.speak
        with pytest.raises(error, match=reason):
            await speak("Hello")


async def test_what_cannot_work_is_told_before_anything_is_sent(surface, studio):
    client = connect(surface, studio)
    for text, options, kind, reason in (
        ("", {}, ConfigurationError, "takes a text"),
        ("a", {"voise": "alloy"}, ConfigurationError, "did you mean 'voice'"),
        ("a", {"speed": 0}, ConfigurationError, "speed"),
        ("a", {"speed": "fast"}, ConfigurationError, "speed"),
        ("a", {"voice": 7}, ConfigurationError, "voice"),
        ("a", {"model": "pico"}, UnsupportedError, "does not speak"),
    ):
        with pytest.raises(kind, match=reason):
            await client.speak(text, **options)
    assert studio.server.calls == []


async def test_what_has_no_word_is_told(surface, studio):
    client = connect(surface, studio, "groq:orpheus")
    with pytest.warns(SabirWarning, match="instructions was not sent"):
        made = await client.speak("Hello", instructions="gently")
    assert [notice.subject for notice in made.warnings] == ["instructions"]


@pytest.mark.parametrize(
    ("asked", "came", "reason"),
    [
        ("wav", MP3, "format='wav' was asked for, and audio/mpeg came"),
        ("mp3", WAV, "format='mp3' was asked for, and audio/wav came"),
        ("WAV", SAMPLES, "format='WAV' was asked for, and what is not known to be of it came"),
        ("wav", WAV, None),
        ("mp3", MP3, None),
        ("pcm", SAMPLES, None),
        ("ulaw", SAMPLES, None),
        (None, WAV, None),
    ],
)
@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])
async def test_another_format_than_was_asked_for_is_told(surface, asked, came, reason, is_stream):
    with Server(whole(came, "Content-Type: audio/mpeg")) as server:
        client = surface.client("openai:x", base_url=server.url, api_key=KEY)
        if is_stream:
            async with client.stream_speech("Hello", format=asked) as stream:
                async for _ in stream:
                    pass
            made = stream.response
        else:
            made = await client.speak("Hello", format=asked)
    told = [(notice.kind, notice.subject) for notice in made.warnings]
    assert told == ([] if reason is None else [("provider", "format")])
    assert reason is None or reason in str(made.warnings[0])


@pytest.mark.parametrize("name", [name for name, row in PROVIDERS.items() if row.speech is not None])
def test_every_option_has_a_verdict(name):
    assert set(PROVIDERS[name].speech.verdicts()) == set(SpeechRequest.__struct_fields__) - {
        "model",
        "text",
        "stream",
        "state",
    }


# The format, both halves

WORDS = st.text(max_size=8)
KNOWN = st.fixed_dictionaries(
    {"input": st.text(min_size=1, max_size=8)},
    optional={
        "model": WORDS.filter(bool),
        "voice": WORDS | st.just({"id": "voice_1"}),
        "speed": st.floats(0.25, 4) | st.integers(1, 4),
        "response_format": st.sampled_from(["mp3", "wav"]),
        "stream_format": st.sampled_from(["sse", "audio"]),
        "instructions": st.none() | WORDS,
        "other": st.integers(),
    },
)


@given(KNOWN, st.sampled_from([OpenAISpeech(), EVENTS]))
def test_a_request_survives_being_read(body, dialect):
    asked = HttpRequest("POST", "/v1/audio/speech", (), json.dumps(body).encode())
    again, notices = dialect.encode_request(dialect.decode_request(asked))
    assert dialect.canonical_request(again) == dialect.canonical_request(asked)
    assert notices == ()


@given(st.lists(st.binary(min_size=1, max_size=9), min_size=1, max_size=4), st.lists(st.integers(0, 400)))
def test_a_stream_of_events_reads_the_same_however_it_is_cut(sounds, cuts):
    request = SpeechRequest(model="m", text="t", stream=True, format="mp3")
    answer = SpeechAnswer(audio=Audio(data=b"".join(sounds), media_type="audio/mpeg"), usage=USAGE)
    encoder, decoder = EVENTS.encoder(request), EVENTS.decoder(request, "text/event-stream")
    data = b"".join([*(encoder.feed(Sound(sound)) for sound in sounds), encoder.close(answer)])
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    heard = [sound.data for start, end in pairwise(places) for sound in decoder.feed(data[start:end])]
    assert (heard, decoder.close()) == (sounds, answer)


def test_events_without_an_end_are_cut():
    decoder = EVENTS.decoder(SpeechRequest(model="m", text="t"), "text/event-stream")
    assert decoder.feed(b'data: {"type":"speech.audio.delta","audio":"eA=="}\n\n') == [Sound(b"x")]
    with pytest.raises(StreamInterrupted):
        decoder.close()


# WAV


@given(st.binary(max_size=64).map(lambda data: data[: len(data) // 4 * 4]), st.integers(1, 96_000), st.integers(1, 2))
def test_samples_are_a_wav_file(samples, rate, channels):
    made = wav(samples, rate, channels)
    with wave.open(io.BytesIO(made)) as read:
        told = (read.getframerate(), read.getnchannels(), read.getsampwidth())
        assert told == (rate, channels, 2)
        assert read.readframes(len(samples)) == samples
    assert samples_of(made) == (samples, rate, channels)


def test_what_is_no_plain_wav_file_is_left_alone():
    assert samples_of(MP3) is None
    assert samples_of(b"RIFF") is None


@pytest.mark.parametrize(
    ("media_type", "told"),
    [
        ("audio/L16;codec=pcm;rate=24000", (24_000, 1)),
        ("audio/L16; rate=16000; channels=2", (16_000, 2)),
        ("audio/pcm", (24_000, 1)),
        ("audio/L16;rate=0;channels=0", (24_000, 1)),
    ],
)
def test_the_rate_stands_in_the_media_type(media_type, told):
    assert told_rate(media_type, 24_000) == told
