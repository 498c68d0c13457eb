"""The vendors' SDKs on both ends of pictures and sounds: they read the bytes that we read, and ask our servers."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import openai
import pytest
from google import genai
from google.genai import types
from mistralai.client import Mistral
from servers import Server, whole
from studio import KEY, Studio

import sabir
from sabir import Audio, Segment, Word
from sabir.dialects.gemini_media import GeminiImages, GeminiSpeech, GeminiTranscripts
from sabir.dialects.media_formats import Drawn, ImageAnswer, Said, Sound, SpeechAnswer, TranscriptAnswer
from sabir.dialects.openai_images import OpenAIImages
from sabir.dialects.openai_speech import OpenAISpeech
from sabir.dialects.openai_transcripts import OpenAITranscripts
from sabir.dialects.waves import wav
from sabir.messages import ProviderState
from sabir.providers import PROVIDERS
from sabir.strict_json import decode_json
from sabir.usage import Usage

RECORDINGS = Path(__file__).resolve().parent.parent.parent / "shared" / "recordings"
# What the SDKs do themselves: Google's inherits from aiohttp's session, and both call some models and methods old.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The generate_images method is deprecated"),
    pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning"),
]

CAT = sabir.image(sabir.Pixels(1, 1, b"\x10\x20\x30"))
DOG = sabir.image(sabir.Pixels(1, 1, b"\x90\x20\x30"))
SAMPLES = bytes(range(200))
SOUND = Audio(data=wav(SAMPLES, 24_000), media_type="audio/wav")
WORDS = "The sun was setting slowly."
USAGE = Usage(input=14, output=272, reported_total=286)
HEARD = Usage(input=0, input_audio=54, output=16, reported_total=70)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def openai_client(studio, key=KEY):
    return openai.OpenAI(base_url=studio.url, api_key=key, max_retries=0)


def google_client(studio):
    options = types.HttpOptions(base_url=studio.server.url, api_version="v1beta")
    return genai.Client(api_key=KEY, http_options=options, vertexai=False)


# OpenAI's, before our servers


@pytest.mark.parametrize("edits", ["json", "form"])
def test_openais_sdk_draws(edits):
    answer = ImageAnswer(images=(CAT, DOG), usage=USAGE)
    with Studio(OpenAIImages(edits=edits), answer=answer) as studio, openai_client(studio) as client:
        made = client.images.generate(model="m", prompt="a cat", n=2, size="1024x1024", output_format="png")
        changed = client.images.edit(model="m", prompt="a hat", image=[CAT.data, DOG.data], mask=DOG.data, n=2)
        one = client.images.edit(model="m", prompt="a hat", image=("cat.png", CAT.data, "image/png"))
    for response in (made, changed, one):
        assert [base64.b64decode(each.b64_json) for each in response.data] == [CAT.data, DOG.data]
        assert (response.usage.input_tokens, response.usage.total_tokens) == (14, 286)
    first, second, third = studio.asked
    assert (first.prompt, first.n, first.size, first.format) == ("a cat", 2, "1024x1024", "png")
    assert ([image.data for image in second.images], second.mask.data, second.n) == ([CAT.data, DOG.data], DOG.data, 2)
    assert third.images == (CAT,)


def test_openais_sdk_sees_previews():
    pieces = (Drawn(DOG), Drawn(DOG), Drawn(CAT, is_final=True))
    answer = ImageAnswer(images=(CAT,), usage=USAGE)
    with Studio(OpenAIImages(), answer=answer, pieces=pieces) as studio, openai_client(studio) as client:
        drawn = list(client.images.generate(model="m", prompt="p", stream=True, partial_images=2))
        changed = list(client.images.edit(model="m", prompt="p", image=CAT.data, stream=True, partial_images=2))
    assert [type(event).__name__ for event in drawn] == [*["ImageGenPartialImageEvent"] * 2, "ImageGenCompletedEvent"]
    assert [type(event).__name__ for event in changed] == [
        *["ImageEditPartialImageEvent"] * 2,
        "ImageEditCompletedEvent",
    ]
    for *previews, completed in (drawn, changed):
        assert [(event.partial_image_index, base64.b64decode(event.b64_json)) for event in previews] == [
            (0, DOG.data),
            (1, DOG.data),
        ]
        assert base64.b64decode(completed.b64_json) == CAT.data
        assert completed.usage.total_tokens == 286


def test_openais_sdk_speaks():
    answer = SpeechAnswer(audio=SOUND, usage=Usage(input=5, output_audio=30, reported_total=35))
    pieces = (Sound(SOUND.data[:50]), Sound(SOUND.data[50:]))
    with Studio(OpenAISpeech(), answer=answer, pieces=pieces) as studio, openai_client(studio) as client:
        asked = {"model": "m", "input": "Hello", "voice": "alloy", "response_format": "wav", "speed": 2}
        spoken = client.audio.speech.create(**asked).content
        studio.always_streams = True
        with client.audio.speech.with_streaming_response.create(**asked) as response:
            streamed = b"".join(response.iter_bytes())
        with client.audio.speech.with_streaming_response.create(**asked, stream_format="sse") as response:
            events = [json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: ")]
    assert spoken == streamed == SOUND.data
    assert [event["type"] for event in events] == ["speech.audio.delta", "speech.audio.delta", "speech.audio.done"]
    assert b"".join(base64.b64decode(event.get("audio", "")) for event in events) == SOUND.data
    assert events[-1]["usage"] == {"input_tokens": 5, "output_tokens": 30, "total_tokens": 35}
    assert {(asked.text, asked.voice, asked.format, asked.speed) for asked in studio.asked} == {
        ("Hello", "alloy", "wav", 2.0)
    }


def test_openais_sdk_transcribes():
    answer = TranscriptAnswer(
        text=WORDS,
        language="english",
        duration=3.0,
        segments=(Segment(WORDS, 0.0, 3.0),),
        words=(Word("The", 0.0, 0.5), Word("sun", 0.5, 1.0)),
        usage=HEARD,
    )
    pieces = (Said("The sun"), Said(" was setting slowly."))
    with Studio(OpenAITranscripts(), answer=answer, pieces=pieces) as studio, openai_client(studio) as client:
        file = ("speech.wav", SOUND.data, "audio/wav")
        plain = client.audio.transcriptions.create(model="m", file=file, language="en", prompt="Oslo", temperature=0.5)
        verbose = client.audio.transcriptions.create(
            model="m", file=file, response_format="verbose_json", timestamp_granularities=["word", "segment"]
        )
        text = client.audio.transcriptions.create(model="m", file=file, response_format="text")
        translated = client.audio.translations.create(model="m", file=file)
        events = list(client.audio.transcriptions.create(model="m", file=file, stream=True))
    assert (plain.text, plain.usage.input_tokens, plain.usage.input_token_details.audio_tokens) == (WORDS, 54, 54)
    assert (verbose.language, verbose.duration, verbose.words[1].word, verbose.words[1].end) == (
        "english",
        3.0,
        "sun",
        1.0,
    )
    assert verbose.segments[0].text == WORDS
    assert text.strip() == translated.text == WORDS
    assert [event.type for event in events] == [*["transcript.text.delta"] * 2, "transcript.text.done"]
    assert (events[-1].text, events[-1].usage.total_tokens) == (WORDS, 70)
    assert {asked.audio for asked in studio.asked} == {SOUND}
    assert (studio.asked[0].language, studio.asked[0].prompt, studio.asked[0].temperature) == ("en", "Oslo", 0.5)
    assert (studio.asked[1].timestamps, studio.asked[3].translate, studio.asked[4].stream) == ("word", True, True)


def test_openais_sdk_hears_of_speakers():
    segments = (Segment(" The sun", 0.0, 1.5, "A"), Segment(" was setting slowly.", 1.5, 3.0, "B"))
    answer = TranscriptAnswer(text=WORDS, duration=3.0, segments=segments, usage=HEARD)
    pieces = [Said(segment=segment) for segment in segments]
    with Studio(OpenAITranscripts(), answer=answer, pieces=pieces) as studio, openai_client(studio) as client:
        asked = {"model": "m", "file": ("a.wav", SOUND.data), "response_format": "diarized_json"}
        whole_answer = client.audio.transcriptions.create(**asked)
        events = list(client.audio.transcriptions.create(**asked, stream=True))
    assert [segment.speaker for segment in whole_answer.segments] == ["A", "B"]
    assert [event.type for event in events] == [*["transcript.text.segment"] * 2, "transcript.text.done"]
    assert [(event.id, event.speaker) for event in events[:2]] == [("seg_0", "A"), ("seg_1", "B")]
    assert all(asked.diarize for asked in studio.asked)


def test_openais_sdk_understands_our_refusals():
    dialects = (OpenAIImages(), OpenAISpeech(), OpenAITranscripts())
    with Studio(*dialects) as studio, openai_client(studio, "wrong") as client:
        with pytest.raises(openai.AuthenticationError, match="not known"):
            client.images.generate(model="m", prompt="p")
        with pytest.raises(openai.AuthenticationError, match="not known"):
            client.audio.speech.create(model="m", input="a", voice="alloy")
        with pytest.raises(openai.AuthenticationError, match="not known"):
            client.audio.transcriptions.create(model="m", file=("a.wav", b"x"))
        with pytest.raises(openai.BadRequestError, match="prompt"):
            client.images.generate(model="m", prompt="")
        with pytest.raises(openai.NotFoundError, match="nothing is served"):
            client.images.create_variation(image=b"x")


# Mistral's


def test_mistrals_sdk_speaks_and_transcribes():
    row = PROVIDERS["mistral"]
    spoken, said = SpeechAnswer(audio=SOUND), TranscriptAnswer(text=WORDS, model="v", language="en", usage=HEARD)
    with Studio(row.speech, answer=spoken) as studio:
        client = Mistral(api_key=KEY, server_url=studio.server.url)
        heard = client.audio.speech.complete(input="Hello", model="v", voice_id="en_paul_neutral")
        assert base64.b64decode(heard.audio_data) == SOUND.data
    with Studio(row.transcripts, answer=said) as studio:
        client = Mistral(api_key=KEY, server_url=studio.server.url)
        file = {"file_name": "a.wav", "content": SOUND.data}
        read = client.audio.transcriptions.complete(model="v", file=file, language="en", diarize=True)
        assert (read.text, read.model) == (WORDS, "v")
    (asked,) = studio.asked
    assert (asked.audio, asked.language, asked.diarize) == (SOUND, "en", True)


# Google's


def test_googles_sdk_draws():
    with Studio(GeminiImages(), answer=ImageAnswer(images=(CAT,), usage=USAGE)) as studio:
        client = google_client(studio)
        config = types.GenerateContentConfig(
            response_modalities=["TEXT", "IMAGE"], image_config=types.ImageConfig(aspect_ratio="16:9"), seed=7
        )
        picture = types.Part.from_bytes(data=DOG.data, mime_type="image/png")
        made = client.models.generate_content(
            model="gemini-2.5-flash-image", contents=["a cat", picture], config=config
        )
        # Imagen is only served by Google's cloud.
        options = types.HttpOptions(base_url=studio.server.url)
        cloud = genai.Client(api_key=KEY, http_options=options, vertexai=True)
        drawn = cloud.models.generate_images(
            model="imagen-4.0-generate-001",
            prompt="a cat",
            config=types.GenerateImagesConfig(number_of_images=2, aspect_ratio="16:9"),
        )
    (part,) = made.parts
    assert (part.inline_data.data, part.inline_data.mime_type) == (CAT.data, "image/png")
    assert made.usage_metadata.candidates_token_count == 272
    (generated,) = drawn.generated_images
    assert (generated.image.image_bytes, generated.image.mime_type) == (CAT.data, "image/png")
    first, second = studio.asked
    assert (first.prompt, first.images, first.size, first.seed) == ("a cat", (DOG,), "16:9", 7)
    assert (second.model, second.prompt, second.n, second.size) == ("imagen-4.0-generate-001", "a cat", 2, "16:9")


def test_googles_sdk_speaks_and_transcribes():
    voice = types.VoiceConfig(prebuilt_voice_config=types.PrebuiltVoiceConfig(voice_name="Kore"))
    config = types.GenerateContentConfig(
        response_modalities=["AUDIO"], speech_config=types.SpeechConfig(voice_config=voice)
    )
    with Studio(
        GeminiSpeech(), answer=SpeechAnswer(audio=SOUND), pieces=(Sound(SAMPLES[:50]), Sound(SAMPLES[50:]))
    ) as studio:
        client = google_client(studio)
        models = client.models
        spoken = models.generate_content(model="gemini-2.5-flash-preview-tts", contents="Hello", config=config)
        streamed = list(models.generate_content_stream(model="m-tts", contents="Hello", config=config))
        assert [(asked.text, asked.voice, asked.stream) for asked in studio.asked] == [
            ("Hello", "Kore", False),
            ("Hello", "Kore", True),
        ]
    (part,) = spoken.parts
    assert (part.inline_data.data, part.inline_data.mime_type) == (SAMPLES, "audio/L16;codec=pcm;rate=24000")
    assert b"".join(each.inline_data.data for chunk in streamed for each in chunk.parts or ()) == SAMPLES
    with Studio(GeminiTranscripts(), answer=TranscriptAnswer(text=WORDS), pieces=(Said("The"), Said(" sun"))) as studio:
        client = google_client(studio)
        models = client.models
        contents = [types.Part.from_bytes(data=SOUND.data, mime_type="audio/wav"), "Transcribe this."]
        assert models.generate_content(model="m", contents=contents).text == WORDS
        chunks = models.generate_content_stream(model="m", contents=contents)
        assert "".join(chunk.text or "" for chunk in chunks) == "The sun"
        assert (studio.asked[0].audio, studio.asked[0].prompt) == (SOUND, "Transcribe this.")


# The same bytes, read by both


def recorded(name):
    path = RECORDINGS / f"{name}.jsonl"
    exchanges = [decode_json(line) for line in path.read_bytes().splitlines()] if path.exists() else []
    return [each for each in exchanges if each["response"]["status"] == 200]


def served(response):
    body = response["body"]
    data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    return whole(data, f"Content-Type: {response['content_type']}")


PICTURES = recorded("openai-images")
TRANSCRIPTS = [each for each in recorded("openai-audio") if each["endpoint"] == "audio/transcriptions"]
needs_recordings = pytest.mark.skipif(not PICTURES, reason=f"there are no recordings at {RECORDINGS}")


@needs_recordings
@pytest.mark.parametrize("exchange", PICTURES, ids=lambda exchange: exchange["id"])
def test_recorded_pictures_read_the_same(exchange):
    with Server(served(exchange["response"])) as server:
        theirs = openai.OpenAI(base_url=server.url, api_key=KEY).images.generate(model="m", prompt="p")
        with sabir.Client("openai:m", base_url=server.url, api_key=KEY, fetch="never") as client:
            ours = client.image("p")
    assert [image.url for image in ours.images] == [each.url for each in theirs.data]
    assert [image.data for image in ours.images] == [
        None if each.b64_json is None else base64.b64decode(each.b64_json) for each in theirs.data
    ]
    total = getattr(theirs.usage, "total_tokens", None)
    assert ours.usage.total_tokens == total


@needs_recordings
@pytest.mark.parametrize("exchange", TRANSCRIPTS, ids=lambda exchange: exchange["id"])
def test_recorded_transcripts_read_the_same(exchange):
    file = ("a.wav", SOUND.data)
    with Server(served(exchange["response"])) as server:
        their_client = openai.OpenAI(base_url=server.url, api_key=KEY)
        with sabir.Client("openai:m", base_url=server.url, api_key=KEY) as client:
            if not exchange["stream"]:
                theirs = their_client.audio.transcriptions.create(model="m", file=file)
                assert client.transcribe(SOUND).text == theirs.text
                return
            events = list(their_client.audio.transcriptions.create(model="m", file=file, stream=True))
            with client.stream_transcript(SOUND) as stream:
                said = "".join(chunk.content for chunk in stream)
    deltas = "".join(event.delta for event in events if event.type == "transcript.text.delta")
    segments = [event for event in events if event.type == "transcript.text.segment"]
    assert said == (deltas or "".join(segment.text for segment in segments))
    assert (stream.response.text, stream.response.usage.total_tokens) == (
        events[-1].text,
        events[-1].usage.total_tokens,
    )
    assert [segment.speaker for segment in stream.response.segments] == [segment.speaker for segment in segments]


def test_what_a_gateway_adds_is_read_by_openais_sdk():
    """A time of its own, as every answer of OpenAI's has one: a dialect has no clock."""
    state = ProviderState("openai_images", {"answer": {"set": {"created": 7}}})
    with (
        Studio(OpenAIImages(), answer=ImageAnswer(images=(CAT,), state=state)) as studio,
        openai_client(studio) as client,
    ):
        assert client.images.generate(model="m", prompt="p").created == 7
