"""Pictures, speech and transcripts of Gemini, and pictures of Imagen: the same calls, over another format."""

from __future__ import annotations

import base64
import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers import Server, whole
from studio import KEY, Studio

import sabir
from sabir import (
    Audio,
    ContentFilterError,
    Image,
    SabirWarning,
    StreamInterrupted,
    StreamProtocolError,
    UnsupportedError,
)
from sabir.dialects.gemini_media import VERTEX_IMAGE_PARAMETERS, GeminiImages, GeminiSpeech, GeminiTranscripts
from sabir.dialects.media_formats import (
    Drawn,
    ImageAnswer,
    ImageRequest,
    Said,
    Sound,
    SpeechAnswer,
    SpeechRequest,
    TranscriptAnswer,
    TranscriptRequest,
)
from sabir.dialects.waves import samples_of, wav
from sabir.messages import Text as TextPart
from sabir.requests import HttpRequest
from sabir.strict_json import decode_json
from sabir.usage import Usage

RECORDINGS = Path(__file__).resolve().parent.parent.parent / "shared" / "recordings" / "gemini.jsonl"
PICTURE = sabir.image(sabir.Pixels(1, 1, b"\x10\x20\x30"))
OTHER = sabir.image(sabir.Pixels(1, 1, b"\x90\x20\x30"))
SAMPLES = bytes(range(100)) * 2
SOUND = Audio(data=wav(SAMPLES, 24_000), media_type="audio/wav")
USAGE = Usage(input=15, output=1290, reported_total=1305)
WORDS = "The sun was setting slowly."


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def connect(surface, server, model, **settings):
    return surface.client(f"gemini:{model}", base_url=server.url, **{"api_key": KEY, **settings})


def says(value):
    return whole(json.dumps(value).encode(), "Content-Type: application/json")


def candidates(*parts, finish="STOP", **beside):
    content = {"role": "model", "parts": list(parts)}
    return {"candidates": [{"content": content, "finishReason": finish}], **beside}


def inline(part):
    return {"inlineData": {"mimeType": part.media_type, "data": base64.b64encode(part.data).decode()}}


# Pictures


async def test_a_picture_is_made_and_changed(surface):
    with Studio(GeminiImages(), answer=ImageAnswer(images=(PICTURE,), usage=USAGE)) as studio:
        client = connect(surface, studio, "gemini-2.5-flash-image")
        made = await client.image("a cat", size="16:9", seed=7)
        assert (made.images, made.usage) == ((PICTURE,), USAGE)
        await client.image("with a hat", images=made.images)
    first, second = studio.asked
    assert (first.prompt, first.size, first.seed) == ("a cat", "16:9", 7)
    assert (second.prompt, second.images) == ("with a hat", (PICTURE,))
    body = json.loads(studio.server.calls[0].body)
    assert body["generationConfig"] == {
        "seed": 7,
        "responseModalities": ["TEXT", "IMAGE"],
        "imageConfig": {"aspectRatio": "16:9"},
    }


async def test_pixels_are_sent_as_a_ratio(surface):
    with Studio(GeminiImages(), answer=ImageAnswer(images=(PICTURE,))) as studio:
        made = await connect(surface, studio, "gemini-3-pro-image").image("a cat", size="1536x1024")
        await connect(surface, studio, "gemini-3-pro-image").image("a cat", size="4K")
    assert [(notice.kind, notice.subject) for notice in made.warnings] == [("emulated", "size")]
    assert [asked.size for asked in studio.asked] == ["3:2", "4K"]


async def test_what_has_no_word_is_told(surface):
    with Studio(GeminiImages(), answer=ImageAnswer(images=(PICTURE,))) as studio:
        client = connect(surface, studio, "gemini-2.5-flash-image")
        with pytest.warns(SabirWarning, match="was not sent"):
            made = await client.image("a cat", n=2, quality="high", background="opaque", format="png")
        with pytest.raises(UnsupportedError, match="mask"):
            await client.image("a cat", images=[PICTURE], mask=OTHER)
    assert {notice.subject for notice in made.warnings} == {"n", "quality", "background", "format"}


def test_vertex_takes_a_format():
    asked = ImageRequest(model="m", prompt="p", format="jpeg")
    http, notices = GeminiImages(parameters=VERTEX_IMAGE_PARAMETERS).encode_request(asked)
    config = json.loads(http.body)["generationConfig"]
    assert config["imageConfig"] == {"imageOutputOptions": {"mimeType": "image/jpeg"}}
    assert notices == ()


async def test_pictures_of_thinking_are_none_of_the_answer(surface):
    thought = {**inline(OTHER), "thought": True}
    answer = candidates({"text": "Here it is."}, thought, {**inline(PICTURE), "thoughtSignature": "c2ln"})
    with Server(says(answer)) as server:
        made = await connect(surface, server, "gemini-3-pro-image").image("a cat")
    assert [each.data for each in made.images] == [PICTURE.data]
    assert made.text == "Here it is."
    # The whole message goes back, signature and all, when the conversation goes on.
    assert len(made.message.parts) == 3
    assert made.images[0].state.value == {"set": {"thoughtSignature": "c2ln"}}


@pytest.mark.parametrize(
    ("answer", "error", "reason"),
    [
        (candidates({"text": "I cannot draw that."}), StreamProtocolError, "I cannot draw that"),
        (candidates(finish="IMAGE_SAFETY"), ContentFilterError, "the provider's filter let no picture through"),
        ({"promptFeedback": {"blockReason": "SAFETY"}}, ContentFilterError, "filter"),
        (candidates({"text": "Well"}, finish="MAX_TOKENS"), StreamProtocolError, "limit of output, and said: 'Well'"),
    ],
)
async def test_an_answer_without_a_picture_is_an_error(surface, answer, error, reason):
    with Server(says(answer)) as server, pytest.raises(error, match=reason):
        await connect(surface, server, "gemini-2.5-flash-image").image("a cat")


async def test_a_picture_comes_in_a_stream(surface):
    pieces = (Drawn(PICTURE, is_final=True),)
    with Studio(GeminiImages(), answer=ImageAnswer(images=(PICTURE,), usage=USAGE), pieces=pieces) as studio:
        async with connect(surface, studio, "gemini-2.5-flash-image").stream_image("a cat") as stream:
            chunks = [(chunk.phase, chunk.content) async for chunk in stream]
    final = {"step": 1, "total_steps": 1, "image": None, "final": True, "result": PICTURE.data}
    assert chunks == [("image_generating", final), ("done", "")]
    assert stream.response.usage == USAGE


# Imagen


async def test_imagen_has_a_format_of_its_own(surface):
    answer = ImageAnswer(images=(PICTURE, OTHER))
    with Studio(GeminiImages(), answer=answer) as studio:
        client = connect(surface, studio, "imagen-4.0-generate-001")
        made = await client.image(
            "a cat", n=2, size="16:9", seed=7, format="png", extra={"parameters": {"addWatermark": False}}
        )
        with pytest.raises(UnsupportedError, match="only draws by words"):
            await client.image("a cat", images=[PICTURE])
    assert made.images == (PICTURE, OTHER)
    (call,) = studio.server.calls
    assert call.target == "/v1/models/imagen-4.0-generate-001:predict"
    assert json.loads(call.body) == {
        "instances": [{"prompt": "a cat"}],
        "parameters": {
            "sampleCount": 2,
            "seed": 7,
            "outputOptions": {"mimeType": "image/png"},
            "aspectRatio": "16:9",
            "addWatermark": False,
        },
    }
    (asked,) = studio.asked
    assert (asked.n, asked.size, asked.seed, asked.format) == (2, "16:9", 7, "png")


async def test_imagen_says_what_it_filtered(surface):
    drawn = {"mimeType": "image/png", "bytesBase64Encoded": base64.b64encode(PICTURE.data).decode()}
    filtered = {"raiFilteredReason": "Unable to show generated images."}
    with Server(says({"predictions": [drawn, filtered]})) as server:
        made = await connect(surface, server, "imagen-4").image("a cat", n=2)
    assert made.images == (PICTURE,)
    assert [notice.subject for notice in made.warnings] == ["n"]
    for answer in ({"predictions": [filtered]}, {}):
        with Server(says(answer)) as server, pytest.raises(ContentFilterError, match="filter"):
            await connect(surface, server, "imagen-4").image("a cat")


# Speech


async def test_a_text_is_spoken(surface, tmp_path):
    with Studio(GeminiSpeech(), answer=SpeechAnswer(audio=SOUND, usage=Usage(input=5, output_audio=30))) as studio:
        client = connect(surface, studio, "gemini-2.5-flash-preview-tts")
        made = await client.speak("Hello", voice="Kore", instructions="Say cheerfully:")
        assert made.audio == SOUND
        assert [(notice.kind, notice.subject) for notice in made.warnings] == [("emulated", "instructions")]
        samples = await client.speak("Hello", format="pcm")
        with pytest.warns(SabirWarning, match="'mp3' is not made"):
            assert (await client.speak("Hello", format="mp3")).audio == SOUND
        with pytest.warns(SabirWarning, match="speed was not sent"):
            await client.speak("Hello", speed=2)
        wave = await client.speak("Hello", format="wav")
    assert samples.audio == Audio(data=SAMPLES, media_type="audio/L16;codec=pcm;rate=24000")
    assert (wave.audio, [notice.kind for notice in wave.warnings]) == (SOUND, ["emulated"])
    body = json.loads(studio.server.calls[0].body)
    assert body["contents"] == [{"role": "user", "parts": [{"text": "Say cheerfully:\nHello"}]}]
    assert body["generationConfig"] == {
        "responseModalities": ["AUDIO"],
        "speechConfig": {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": "Kore"}}},
    }
    assert made.save(tmp_path / "hello.wav").read_bytes() == SOUND.data


async def test_speech_is_heard_as_it_comes(surface):
    pieces = (Sound(SAMPLES[:100]), Sound(SAMPLES[100:]))
    with Studio(GeminiSpeech(), answer=SpeechAnswer(audio=SOUND), pieces=pieces) as studio:
        async with connect(surface, studio, "gemini-2.5-flash-preview-tts").stream_speech("Hello") as stream:
            sounds = stream.sounds()
            heard = list(sounds) if surface.is_blocking else [sound async for sound in sounds]
    assert heard == [SAMPLES[:100], SAMPLES[100:]]
    assert stream.response.audio == SOUND


async def test_an_answer_without_a_sound_is_an_error(surface):
    with Server(says(candidates({"text": "No."}))) as server, pytest.raises(StreamProtocolError, match=r"'No\.'"):
        await connect(surface, server, "gemini-2.5-flash-preview-tts").speak("Hello")


# Answers that were cut

PIECES = {
    "picture": inline(PICTURE),
    "sound": inline(Audio(data=SAMPLES, media_type="audio/L16;codec=pcm;rate=24000")),
    "transcript": {"text": WORDS},
}
CAME = {"picture": PICTURE, "sound": SOUND, "transcript": TextPart(text=WORDS)}
CUT = [
    ("MAX_TOKENS", StreamProtocolError, "cut at the model's limit"),
    ("SAFETY", ContentFilterError, "filter cut the"),
    ("RECITATION", ContentFilterError, "filter cut the"),
    ("OTHER", StreamProtocolError, "does not end as a whole one"),
    (None, StreamProtocolError, "does not end as a whole one"),
]


async def made_of(client, what, *, is_stream=False):
    match what:
        case "picture":
            call, asked = (client.stream_image if is_stream else client.image), "a cat"
        case "sound":
            call, asked = (client.stream_speech if is_stream else client.speak), "Hello"
        case _:
            call, asked = (client.stream_transcript if is_stream else client.transcribe), SOUND
    if not is_stream:
        return await call(asked)
    async with call(asked) as stream:
        async for _ in stream:
            pass
    return stream.response


@pytest.mark.parametrize(("finish", "error", "reason"), CUT)
@pytest.mark.parametrize("what", PIECES)
async def test_an_answer_that_was_cut_is_an_error_with_what_came(surface, what, finish, error, reason):
    answer = candidates(PIECES[what], finish=finish)
    with Server(says(answer)) as server, pytest.raises(error, match=reason) as caught:
        await made_of(connect(surface, server, "gemini-2.5-flash"), what)
    assert caught.value.partial.parts == (CAME[what],)


@pytest.mark.parametrize(("finish", "error", "reason"), [each for each in CUT if each[0]])
@pytest.mark.parametrize("what", PIECES)
async def test_a_stream_that_was_cut_is_an_error_with_what_came(surface, what, finish, error, reason):
    event = b"data: %b\n\n" % json.dumps(candidates(PIECES[what], finish=finish)).encode()
    with (
        Server(whole(event, "Content-Type: text/event-stream")) as server,
        pytest.raises(error, match=reason) as caught,
    ):
        await made_of(connect(surface, server, "gemini-2.5-flash"), what, is_stream=True)
    assert caught.value.partial.parts == (CAME[what],)


# Transcripts


async def test_speech_is_written_down(surface):
    with Studio(GeminiTranscripts(), answer=TranscriptAnswer(text=WORDS, usage=USAGE)) as studio:
        client = connect(surface, studio, "gemini-2.5-flash")
        made = await client.transcribe(SOUND.data, language="en", prompt="Oslo", temperature=0)
        translated = await client.transcribe(SOUND, translate=True)
        with pytest.warns(SabirWarning, match="timestamps was not sent"):
            await client.transcribe(SOUND, timestamps="word")
    assert (made.text, made.usage) == (WORDS, USAGE)
    assert [(notice.kind, notice.subject) for notice in made.warnings] == [
        ("emulated", "language"),
        ("emulated", "prompt"),
    ]
    assert [(notice.kind, notice.subject) for notice in translated.warnings] == [("emulated", "translate")]
    first, second, _ = studio.asked
    assert (first.audio, first.temperature) == (SOUND, 0.0)
    assert "word for word" in first.prompt
    assert "en" in first.prompt
    assert "Oslo" in first.prompt
    assert "into English" in second.prompt


async def test_a_transcript_is_seen_as_it_comes(surface):
    pieces = (Said("The sun"), Said(" was setting slowly."))
    with Studio(GeminiTranscripts(), answer=TranscriptAnswer(text=WORDS, usage=USAGE), pieces=pieces) as studio:
        async with connect(surface, studio, "gemini-2.5-flash").stream_transcript(SOUND) as stream:
            said = [chunk.content async for chunk in stream if chunk.is_text()]
    assert said == ["The sun", " was setting slowly."]
    assert stream.response.text == WORDS


async def test_thoughts_are_not_what_was_said(surface):
    answer = candidates({"text": "Let me listen.", "thought": True}, {"text": WORDS})
    with Server(says(answer)) as server:
        made = await connect(surface, server, "gemini-2.5-flash").transcribe(SOUND)
    assert made.text == WORDS


async def test_a_recording_in_which_nothing_is_said_has_an_empty_transcript(surface):
    with Server(says(candidates())) as server:
        assert (await connect(surface, server, "gemini-2.5-flash").transcribe(SOUND)).text == ""


async def test_a_stream_that_breaks_off_is_told(surface):
    with Studio(GeminiTranscripts(), answer=TranscriptAnswer(text=WORDS), pieces=(Said("The"), Said(" sun"))) as studio:
        studio.breaks_after = 1
        stream = connect(surface, studio, "gemini-2.5-flash").stream_transcript(SOUND)
        with pytest.raises(StreamInterrupted) as caught:
            async for _ in stream:
                pass
    assert caught.value.partial.text == "The"


# The format, both halves


def http(model, method, body):
    headers = (("content-type", "application/json"),)
    return HttpRequest("POST", f"/v1beta/models/{model}:{method}", headers, json.dumps(body).encode())


TEXTS = st.text(min_size=1, max_size=6)
BLOBS = st.binary(min_size=1, max_size=9)


def media(kind):
    return BLOBS.map(lambda data: {"inlineData": {"mimeType": kind, "data": base64.b64encode(data).decode()}})


def bodies(*parts, **config):
    contents = st.fixed_dictionaries({"parts": st.tuples(*parts).map(list)}, optional={"role": st.just("user")})
    known = st.fixed_dictionaries({}, optional={"seed": st.integers(0, 9), "topK": st.integers(1, 9), **config})
    optional = {"generationConfig": known, "safetySettings": st.just([]), "other": st.integers(0, 9)}
    return st.fixed_dictionaries({"contents": st.lists(contents, min_size=1, max_size=2)}, optional=optional)


SAID = st.fixed_dictionaries({"text": TEXTS})
MODALITIES = st.sampled_from([["IMAGE"], ["TEXT", "IMAGE"], ["AUDIO"]])
SHAPES = st.fixed_dictionaries(
    {}, optional={"aspectRatio": st.sampled_from(["1:1", "16:9"]), "imageSize": st.just("2K")}
)
VOICES = st.sampled_from([{"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": "Kore"}}}, {"languageCode": "de"}, {}])


@pytest.mark.parametrize(
    ("dialect", "asked"),
    [
        (GeminiImages(), bodies(SAID, media("image/png"), responseModalities=MODALITIES, imageConfig=SHAPES)),
        (GeminiSpeech(), bodies(SAID, responseModalities=MODALITIES, speechConfig=VOICES)),
        (GeminiTranscripts(), bodies(media("audio/mpeg"), SAID, temperature=st.floats(0, 2))),
    ],
    ids=["images", "speech", "transcripts"],
)
@given(data=st.data())
def test_a_request_survives_being_read(dialect, asked, data):
    method = data.draw(st.sampled_from(["generateContent", "streamGenerateContent"]))
    sent = http("gemini-x", method, data.draw(asked))
    again, _ = dialect.encode_request(dialect.decode_request(sent))
    assert again.url.partition("?")[0] == f"/models/gemini-x:{method}"
    assert dialect.canonical_request(again) == dialect.canonical_request(sent)


@given(
    st.fixed_dictionaries(
        {"instances": st.fixed_dictionaries({"prompt": TEXTS}, optional={"image": st.just({})}).map(lambda one: [one])},
        optional={
            "parameters": st.fixed_dictionaries(
                {},
                optional={
                    "sampleCount": st.integers(1, 4),
                    "aspectRatio": st.just("16:9"),
                    "sampleImageSize": st.just("2K"),
                    "outputOptions": st.sampled_from([{"mimeType": "image/png"}, {"compressionQuality": 5}]),
                    "addWatermark": st.booleans(),
                },
            )
        },
    )
)
def test_a_request_to_imagen_survives_being_read(body):
    dialect, sent = GeminiImages(), http("imagen-4", "predict", body)
    again, _ = dialect.encode_request(dialect.decode_request(sent))
    assert again.url == "/models/imagen-4:predict"
    before, after = dialect.canonical_request(sent), dialect.canonical_request(again)
    # Parameters with nothing in them say no more than none.
    assert {"parameters": {}, **after} == {"parameters": {}, **before}


@pytest.mark.parametrize(
    ("dialect", "asked", "pieces", "answer"),
    [
        (
            GeminiImages(),
            ImageRequest(model="m", prompt="p", stream=True),
            (Drawn(PICTURE, is_final=True), Drawn(OTHER, 1, True)),
            ImageAnswer(images=(PICTURE, OTHER), usage=USAGE),
        ),
        (
            GeminiSpeech(),
            SpeechRequest(model="m", text="t", stream=True),
            (Sound(SAMPLES[:50]), Sound(SAMPLES[50:])),
            SpeechAnswer(audio=SOUND, usage=Usage(input=5, output=0, output_audio=30, reported_total=35)),
        ),
        (
            GeminiTranscripts(),
            TranscriptRequest(model="m", audio=SOUND, stream=True),
            (Said("The sun"), Said(" was setting slowly.")),
            TranscriptAnswer(text=WORDS, usage=USAGE),
        ),
    ],
    ids=["images", "speech", "transcripts"],
)
@given(cuts=st.lists(st.integers(0, 2000), max_size=5))
def test_a_stream_reads_the_same_however_it_is_cut(dialect, asked, pieces, answer, cuts):
    encoder, decoder = dialect.encoder(asked), dialect.decoder(asked, "text/event-stream")
    data = b"".join([*map(encoder.feed, pieces), encoder.close(answer)])
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    found = [piece for start, end in pairwise(places) for piece in decoder.feed(data[start:end])]
    total = decoder.close()
    if not isinstance(answer, ImageAnswer):
        assert found == list(pieces)
    else:
        assert total.images == answer.images
    assert total.usage == answer.usage


def test_whole_answers_survive_being_read():
    """What stands beside the sound stays with it."""
    body = candidates(
        inline(Audio(data=SAMPLES, media_type="audio/L16;codec=pcm;rate=24000")), modelVersion="m", responseId="r"
    )
    dialect, request = GeminiSpeech(), SpeechRequest(model="m", text="t")
    data = json.dumps(body).encode()
    kind, again = dialect.encode_response(request, dialect.decode_answer(request, "application/json", data))
    assert dialect.canonical_answer(kind, again) == dialect.canonical_answer(kind, data)


# Recorded traffic

RECORDED = [decode_json(line) for line in RECORDINGS.read_bytes().splitlines()] if RECORDINGS.exists() else []
DRAWN = [each for each in RECORDED if "image_output" in each["features"]]
HEARD = [each for each in RECORDED if "thought_text_matrix/transcription" in each["source"]]
needs_recordings = pytest.mark.skipif(not RECORDED, reason=f"there are no recordings at {RECORDINGS}")


def sent(exchange):
    return HttpRequest("POST", exchange["request"]["path"], (), json.dumps(exchange["request"]["body"]).encode())


@needs_recordings
def test_recorded_pictures_are_read_and_said_again():
    assert len(DRAWN) == 4
    dialect = GeminiImages()
    for exchange in DRAWN:
        asked = dialect.decode_request(sent(exchange))
        assert asked.prompt
        again, _ = dialect.encode_request(asked)
        assert dialect.canonical_request(again) == dialect.canonical_request(sent(exchange))
        data = json.dumps(exchange["response"]["body"]).encode()
        answer = dialect.decode_answer(asked, "application/json", data)
        (image,) = answer.images
        assert image.media_type in ("image/png", "image/jpeg")
        assert answer.usage.output_tokens in (1290, 1120)
        kind, written = dialect.encode_response(asked, answer)
        assert dialect.canonical_answer(kind, written) == dialect.canonical_answer(kind, data)


@needs_recordings
def test_recorded_transcripts_are_read():
    assert len(HEARD) == 2
    dialect = GeminiTranscripts()
    for exchange in HEARD:
        asked = dialect.decode_request(sent(exchange))
        again, _ = dialect.encode_request(asked)
        assert dialect.canonical_request(again) == dialect.canonical_request(sent(exchange))
        body = exchange["response"]["body"]
        answer = dialect.decode_answer(asked, "application/json", json.dumps(body).encode())
        *thoughts, said = body["candidates"][0]["content"]["parts"]
        assert all(thought["thought"] for thought in thoughts)
        assert answer.text == said["text"]
        assert answer.usage.reasoning


def test_what_is_no_wav_goes_out_as_it_is():
    assert samples_of(SOUND.data) == (SAMPLES, 24_000, 1)
    strange = SpeechAnswer(audio=Audio(data=b"ID3\x04", media_type="audio/mpeg"))
    _, body = GeminiSpeech().encode_response(SpeechRequest(model="m", text="t"), strange)
    part = json.loads(body)["candidates"][0]["content"]["parts"][0]
    assert part == inline(strange.audio)


def test_a_request_without_what_is_needed_is_refused():
    image = [{"role": "user", "parts": [inline(Image(data=b"x", media_type="image/png"))]}]
    for dialect, reason in (
        (GeminiImages(), "a text"),
        (GeminiSpeech(), "a text"),
        (GeminiTranscripts(), "a recording"),
    ):
        with pytest.raises(sabir.BadRequestError, match=reason):
            dialect.decode_request(http("m", "generateContent", {"contents": image}))
