"""Whatever a peer sends of pictures and sounds, both halves read it or refuse it, with an error of the family."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sabir.dialects.gemini_media import GeminiImages, GeminiSpeech, GeminiTranscripts
from sabir.dialects.media_formats import ImageRequest, SpeechRequest, TranscriptRequest
from sabir.dialects.multipart import Field, encode_form
from sabir.dialects.openai_images import OpenAIImages
from sabir.dialects.openai_speech import OpenAISpeech
from sabir.dialects.openai_transcripts import OpenAITranscripts
from sabir.errors import BadRequestError, NotFoundError, ProviderError, SabirError
from sabir.messages import Audio
from sabir.requests import HttpRequest

DRAW = ImageRequest(model="m", prompt="p", n=2)
SPEAK = SpeechRequest(model="m", text="t", stream=True)
HEAR = TranscriptRequest(model="m", audio=Audio(data=b"x"))
DIALECTS = [
    (OpenAIImages(), DRAW, "/images/generations"),
    (OpenAIImages(), DRAW, "/images/edits"),
    (OpenAISpeech(), SPEAK, "/audio/speech"),
    (OpenAITranscripts(), HEAR, "/audio/transcriptions"),
    (GeminiImages(), DRAW, "/models/m:generateContent"),
    (GeminiImages(), ImageRequest(model="imagen-4", prompt="p"), "/models/imagen-4:predict"),
    (GeminiSpeech(), SPEAK, "/models/m:streamGenerateContent"),
    (GeminiTranscripts(), HEAR, "/models/m:generateContent"),
]
every_dialect = pytest.mark.parametrize(
    ("dialect", "asked", "path"), DIALECTS, ids=[f"{each[0].name} {each[2].rpartition('/')[2]}" for each in DIALECTS]
)
# The words of these formats, so that chance comes by the places that are read.
WORDS = re.findall(
    r"\w+",
    "data b64_json url usage input_tokens output_tokens_details total_tokens audio audio_data text segments words word "
    "start end speaker language duration seconds type model error message candidates content parts inlineData mimeType "
    "finishReason predictions bytesBase64Encoded raiFilteredReason instances parameters prompt images image_url mask n "
    "size generationConfig imageConfig speechConfig contents input voice choices delta created output_format",
)
KINDS = re.findall(
    r"[\w.]+",
    "image_generation.partial_image image_edit.completed speech.audio.delta speech.audio.done transcript.text.delta "
    "transcript.text.segment transcript.text.done transcription.language transcription.done error",
)
LEAVES = (
    st.none() | st.booleans() | st.integers(-2, 9) | st.floats(-9, 9) | st.text(max_size=5) | st.sampled_from(KINDS)
)
VALUES = st.recursive(
    LEAVES | st.just("aGVsbG8=") | st.just("data:image/png;base64,aGVsbG8="),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=5),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.sampled_from(WORDS), VALUES, max_size=6)
TYPES = st.sampled_from(["application/json", "text/plain", "audio/mpeg", "", "text/html; charset=x"])


@every_dialect
@given(data=VALUES.map(json.dumps).map(str.encode) | st.binary(max_size=60), kind=TYPES)
def test_any_answer_is_read_or_refused(dialect, asked, path, data, kind):
    try:
        answer = dialect.decode_answer(asked, kind, data)
    except SabirError:
        return
    dialect.encode_response(asked, answer)


@every_dialect
@given(events=st.lists(OBJECTS | VALUES, max_size=4), is_cut=st.booleans())
def test_any_stream_is_read_or_refused(dialect, asked, path, events, is_cut):
    decoder = dialect.decoder(asked, "text/event-stream")
    encoder = dialect.encoder(asked)
    try:
        for event in events:
            for piece in decoder.feed(b"data: %b\n\n" % json.dumps(event).encode()):
                encoder.feed(piece)
        encoder.close(decoder.close(is_cut=is_cut))
    except SabirError:
        return


@every_dialect
@given(body=OBJECTS.map(json.dumps).map(str.encode) | st.binary(max_size=60))
def test_any_request_is_read_or_refused(dialect, asked, path, body):
    try:
        request = dialect.decode_request(HttpRequest("POST", path, (("content-type", "application/json"),), body))
    except (BadRequestError, NotFoundError):
        return
    dialect.encode_request(request)


FIELDS = st.builds(Field, st.sampled_from([*WORDS, "file", "image", "image[]"]), st.binary(max_size=9))
FILES = st.builds(
    Field, st.sampled_from(["file", "image", "image[]", "mask"]), st.binary(max_size=9), st.text(max_size=5)
)


@pytest.mark.parametrize(
    ("dialect", "path"), [(OpenAIImages(), "/images/edits"), (OpenAITranscripts(), "/audio/transcriptions")]
)
@given(fields=st.lists(FIELDS | FILES, max_size=6))
def test_any_form_is_read_or_refused(dialect, path, fields):
    kind, body = encode_form(fields)
    try:
        request = dialect.decode_request(HttpRequest("POST", path, (("content-type", kind),), body))
    except BadRequestError:
        return
    dialect.encode_request(request)


@every_dialect
@given(status=st.sampled_from([400, 401, 404, 429, 500]), body=OBJECTS.map(json.dumps).map(str.encode) | st.binary())
def test_any_error_is_one_of_the_family(dialect, asked, path, status, body):
    error = dialect.decode_error(status, {}, body)
    assert isinstance(error, ProviderError)
    said, written = dialect.encode_error(error)
    again = dialect.decode_error(said, {}, written)
    assert type(again) is type(error)
