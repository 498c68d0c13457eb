"""Images, sounds and files: from whatever a user has to a part, and from a part to the wire.

The media are made here, by Pillow, numpy and the standard library. Servers are real ones on the loopback.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import socket
import struct
import sys
import threading
import wave
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from botocore.session import get_session
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow
from servers import Call, Server, client_context, whole

import sabir
from sabir import Audio, ConfigurationError, File, Image, Pixels, SabirError, UnsupportedError, user
from sabir.attachments import MOST_LOADED
from sabir.deltas import Close, Finish, Head, Open, Text
from sabir.dialects import response_of
from sabir.dialects.anthropic import CLOUD_MEDIA, Anthropic
from sabir.dialects.bedrock import Bedrock
from sabir.dialects.cohere import Cohere
from sabir.dialects.gemini import Gemini
from sabir.dialects.media_rules import MediaRules
from sabir.dialects.mistral import Mistral
from sabir.dialects.ollama import Ollama
from sabir.dialects.openai_chat import OpenAIChat
from sabir.dialects.openai_responses import OpenAIResponses
from sabir.downloads import MOST_REDIRECTS, is_public
from sabir.media import LARGEST, media_type_of
from sabir.providers import PROVIDERS, Provider
from sabir.requests import Request

DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"


# Media, made


def drawn(kind: str, mode: str = "RGB", size: tuple[int, int] = (5, 4)) -> bytes:
    written = io.BytesIO()
    Pillow.linear_gradient("L").resize(size).convert(mode).save(written, kind)
    return written.getvalue()


def sounding() -> bytes:
    written = io.BytesIO()
    with wave.open(written, "wb") as opened:
        opened.setnchannels(1)
        opened.setsampwidth(2)
        opened.setframerate(8000)
        opened.writeframes(bytes(320))
    return written.getvalue()


def zipped(*names: str, stored: dict[str, bytes] | None = None) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in (stored or {}).items():
            archive.writestr(zipfile.ZipInfo(name), data)
        for name in names:
            archive.writestr(name, b"<x/>")
    return written.getvalue()


def boxed(*brands: bytes) -> bytes:
    body = brands[0] + bytes(4) + b"".join(brands[1:])
    return struct.pack(">I", 8 + len(body)) + b"ftyp" + body + b"\0\0\0\x08free"


def webm(*codecs: bytes) -> bytes:
    return b"\x1a\x45\xdf\xa3\x93\x42\x82\x84webm" + bytes(40) + b"".join(b"\x86" + codec for codec in codecs)


PNG, JPEG, WAV = drawn("PNG"), drawn("JPEG"), sounding()
MP3 = b"\xff\xfb\x90\x64" + bytes(413)
PDF = b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\ntrailer\n<<>>\n%%EOF\n"
MP4 = boxed(b"isom", b"isom", b"avc1")
CSV = "name,price\nblåbær,3\n".encode()

SNIFFED = {
    "png": (PNG, None, "image/png"),
    "png that is called otherwise": (PNG, "a.jpg", "image/png"),
    "jpeg": (JPEG, None, "image/jpeg"),
    "gif": (drawn("GIF"), None, "image/gif"),
    "webp": (drawn("WEBP"), None, "image/webp"),
    "bmp": (drawn("BMP"), None, "image/bmp"),
    "tiff": (drawn("TIFF"), None, "image/tiff"),
    "tiff, big-endian": (b"MM\0*\0\0\0\x08", None, "image/tiff"),
    "avif": (boxed(b"avif", b"mif1", b"miaf"), None, "image/avif"),
    "heic": (boxed(b"heic", b"mif1", b"heic"), None, "image/heic"),
    "heic under its general name": (boxed(b"mif1", b"mif1", b"heic"), None, "image/heic"),
    "heif": (boxed(b"mif1", b"miaf"), None, "image/heif"),
    "svg": (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', None, "image/svg+xml"),
    "wav": (WAV, None, "audio/wav"),
    "mp3": (MP3, None, "audio/mpeg"),
    "mp3 with tags": (b"ID3\x04\0\0\0\0\0\0" + MP3, None, "audio/mpeg"),
    "aac": (b"\xff\xf1\x50\x80\x02\x1f\xfc", None, "audio/aac"),
    "m4a": (boxed(b"M4A ", b"M4A ", b"mp42"), None, "audio/mp4"),
    "ogg": (b"OggS\0\x02" + bytes(22) + b"\x13OpusHead", None, "audio/ogg"),
    "ogg film": (b"OggS\0\x02" + bytes(22) + b"\x2a\x80theora", None, "video/ogg"),
    "flac": (b"fLaC\0\0\0\x22", None, "audio/flac"),
    "aiff": (b"FORM\0\0\0\x2eAIFFCOMM", None, "audio/aiff"),
    "webm sound": (webm(b"A_OPUS"), None, "audio/webm"),
    "webm film": (webm(b"V_VP9", b"A_OPUS"), None, "video/webm"),
    "matroska": (b"\x1a\x45\xdf\xa3\xa3\x42\x82\x88matroska", None, "video/x-matroska"),
    "mp4": (MP4, None, "video/mp4"),
    "mov": (boxed(b"qt  ", b"qt  "), None, "video/quicktime"),
    "avi": (b"RIFF\0\0\0\0AVI LIST", None, "video/x-msvideo"),
    "pdf": (PDF, None, "application/pdf"),
    "rtf": (rb"{\rtf1\ansi}", None, "application/rtf"),
    "docx": (zipped("[Content_Types].xml", "_rels/.rels", "word/document.xml"), None, DOCX),
    "docx whose document comes late": (
        zipped("[Content_Types].xml", *(f"_rels/{n}" for n in range(400)), "word/document.xml"),
        "a.docx",
        DOCX,
    ),
    "zip that is called docx": (zipped("a.txt"), "a.docx", "application/zip"),
    "epub": (zipped("a", stored={"mimetype": b"application/epub+zip"}), None, "application/epub+zip"),
    "xls": (bytes.fromhex("d0cf11e0a1b11ae1") + bytes(504), "a.xls", "application/vnd.ms-excel"),
    "ole without a name": (bytes.fromhex("d0cf11e0a1b11ae1") + bytes(504), None, "application/x-ole-storage"),
    "text": (b"BM is a bookmark", None, "text/plain"),
    "text with a mark": ("\ufeffå".encode(), None, "text/plain"),
    "utf-16": ("a".encode("utf-16"), None, "text/plain"),
    "text of 16 KB and a half character at the cut": (b"a" * ((1 << 14) - 1) + "å".encode(), None, "text/plain"),
    "text that ends in half a character": (b"abc\xc3", None, "application/octet-stream"),
    "csv": (CSV, "a.CSV", "text/csv"),
    "csv that is called an image": (CSV, "a.png", "text/plain"),
    "markdown": (b"# Title\n", "README.md", "text/markdown"),
    "html": (b"\n<!DOCTYPE html><html>", None, "text/html"),
    "html that is called csv": (b"<html>", "a.csv", "text/html"),
    "json": (b'{"a": [1]}', None, "application/json"),
    "nearly json": (b'{"a": [1]', None, "text/plain"),
    "json by its name": (b"1", "a.json", "application/json"),
    "xml": (b"<?xml version='1.0'?><a/>", None, "application/xml"),
    "bytes": (bytes(range(256)), "a.txt", "application/octet-stream"),
    "text with a zero": (b"a\0b", "a.txt", "application/octet-stream"),
    "text about tags": (b"ID3 and OggS and ftyp", None, "text/plain"),
    "yaml": (b"a: 1", "a.yml", "application/yaml"),
    "nothing": (b"", None, "text/plain"),
}


@pytest.mark.parametrize(("data", "name", "media_type"), SNIFFED.values(), ids=SNIFFED)
def test_the_type_is_read_off_the_content_and_a_name_only_tells_texts_apart(data, name, media_type):
    assert media_type_of(data, name) == media_type


@given(st.binary(max_size=300), st.sampled_from([b"", *(data[:40] for data, *_ in SNIFFED.values())]), st.booleans())
def test_any_bytes_are_a_part_or_an_error_of_ours(data, head, is_text):
    source = base64.b64encode(head + data).decode() if is_text else head + data
    for make in (sabir.image, sabir.audio, sabir.file, sabir.video):
        try:
            part = make(source)
        except ConfigurationError:
            continue
        assert part.data == head + data
        assert part.media_type is not None


@given(st.text(max_size=100), st.sampled_from(["", "data:", "data:image/png;base64,", "data:,", "http://"]))
def test_any_text_is_a_part_or_an_error_of_ours(text, start):
    for make in (sabir.image, sabir.audio, sabir.file, sabir.video):
        try:
            make(start + text)
        except ConfigurationError:
            pass


# Sources

KINDS = {
    "image": (sabir.image, Image, PNG, "image/png"),
    "audio": (sabir.audio, Audio, WAV, "audio/wav"),
    "file": (sabir.file, File, PDF, "application/pdf"),
    "video": (sabir.video, File, MP4, "video/mp4"),
}
FORMS = {
    "path": lambda data, path: path,
    "text of a path": lambda data, path: str(path),
    "relative path": lambda data, path: os.path.relpath(path),
    "bytes": lambda data, path: data,
    "bytearray": lambda data, path: bytearray(data),
    "memoryview": lambda data, path: memoryview(data),
    "base64": lambda data, path: base64.b64encode(data).decode(),
    "base64 in lines": lambda data, path: base64.encodebytes(data).decode(),
    "data URL": lambda data, path: f"data:whatever/it-says;base64,{base64.b64encode(data).decode()}",
    "data URL in percents": lambda data, path: "data:," + "".join(f"%{byte:02x}" for byte in data),
    "open file": lambda data, path: path.open("rb"),
    "file in memory": lambda data, path: io.BytesIO(data),
}


@pytest.mark.parametrize(("make", "kind", "data", "media_type"), KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_part_is_made_of_whatever_there_is(make, kind, data, media_type, form, tmp_path):
    path = tmp_path / "of no known type.xyz"
    path.write_bytes(data)
    source = form(data, path)
    part = make(source)
    assert type(part) is kind
    assert (part.data, part.media_type, part.url) == (data, media_type, None)
    if hasattr(source, "close"):
        source.close()


@pytest.mark.parametrize(("make", "kind"), [(make, kind) for make, kind, *_ in KINDS.values()], ids=KINDS)
def test_an_address_stays_one_and_a_part_stays_as_it_is(make, kind):
    for address in ("https://example.org/a?b#c", "HTTP://example.org", "s3://bucket/key", "gs://bucket/key"):
        part = make(address)
        assert type(part) is kind
        assert (part.url, part.data) == (address, None)
    part = kind(data=b"anything", media_type="x/y")
    assert make(part) is part


def test_the_address_of_a_video_says_that_it_is_one():
    assert sabir.video("https://example.org/a.webm?b=c.mov").media_type == "video/webm"
    assert sabir.video("https://www.youtube.com/watch?v=1").media_type == "video/mp4"


def test_a_file_has_the_name_of_its_file_unless_told_otherwise(tmp_path):
    path = tmp_path / "prices.csv"
    path.write_bytes(CSV)
    assert sabir.file(path) == File(data=CSV, media_type="text/csv", name="prices.csv")
    with path.open("rb") as opened:
        assert sabir.file(opened) == sabir.file(path)
    assert sabir.file(path, name="b.md") == File(data=CSV, media_type="text/markdown", name="b.md")
    assert sabir.file(CSV) == File(data=CSV, media_type="text/plain")
    assert sabir.file("https://example.org/a", name="b").name == "b"
    assert sabir.file(File(id="1"), name="b") == File(id="1", name="b")
    assert sabir.file("data:text/csv,a%2Cb") == File(data=b"a,b", media_type="text/csv")
    assert sabir.video(io.BytesIO(MP4)).name is None


def test_who_asks_for_audio_gets_it_from_a_container_that_may_hold_film():
    assert sabir.audio(MP4).media_type == "audio/mp4"
    assert sabir.audio(webm()).media_type == "audio/webm"


def test_a_file_that_looks_like_base64_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = base64.b64encode(b"GIF89a" + bytes(36)).decode()
    assert sabir.image(name).media_type == "image/gif"
    Path(name).write_bytes(PNG)
    assert sabir.image(name).media_type == "image/png"


REFUSED = {
    "no such file": (sabir.image, "a.png", "cannot be read: No such file"),
    "a home": (sabir.image, "~/a.png", "~ is not expanded"),
    "a directory": (sabir.file, "/", "cannot be read: Is a directory"),
    "a device": (sabir.file, "/dev/zero", "no regular file"),
    "text": (sabir.image, b"a text", "no image that models take .text/plain.: it must be PNG, JPEG, GIF or WebP"),
    "svg": (sabir.image, SNIFFED["svg"][0], "SVG, which no model sees"),
    "a sound as an image": (sabir.image, WAV, "no image that models take .audio/wav."),
    "an image as a sound": (sabir.audio, PNG, "it must be WAV, MP3"),
    "an image as a film": (sabir.video, PNG, "it must be MP4, WebM"),
    "an image as a file": (sabir.file, PNG, "is image/png, no document: pass it by images="),
    "a sound as a file": (sabir.file, WAV, "pass it by audio="),
    "nothing": (sabir.file, b"", "nothing in it"),
    "a number": (sabir.image, 5, "an image is a path, bytes"),
    "none": (sabir.audio, None, "audio is a path, bytes"),
    "a path of bytes": (sabir.file, type("P", (), {"__fspath__": lambda self: b"a"})(), "use os.fsdecode"),
    "a text file": (sabir.file, io.StringIO("a"), "open the file with mode 'rb'"),
    "a zero in a path": (sabir.image, "a\0b.png", "cannot be read"),
    "a long text": (sabir.image, "abc" * 5000, "cannot be read: File name too long"),
    "base64 of nothing known": (sabir.image, base64.b64encode(bytes(60)).decode(), "cannot be read"),
    "base64 of text": (sabir.file, base64.b64encode(b"x" * 60).decode(), "cannot be read: No such file"),
    "base64 with more": (sabir.image, base64.b64encode(PNG).decode() + "!", "cannot be read"),
    "a data URL without a comma": (
        sabir.image,
        "data:image/png",
        "data URL of an image .* it has no comma",
    ),
    "a data URL with no base64": (sabir.image, "data:image/png;base64,%%%", "data URL"),
    "a data URL with more": (sabir.image, f"data:image/png;base64,!{base64.b64encode(PNG).decode()}", "data URL"),
    "a data URL without padding": (sabir.image, "data:;base64,iVBORw0KGgo", "data URL"),
}


@pytest.mark.parametrize(("make", "source", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_is_none_is_refused_with_the_reason(make, source, reason):
    with pytest.raises(ConfigurationError, match=reason):
        make(source)


def test_a_closed_file_is_an_error_of_ours():
    opened = io.BytesIO(PNG)
    opened.close()
    with pytest.raises(ConfigurationError, match="the open file cannot be read"):
        sabir.image(opened)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_pipe_is_no_file_and_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(ConfigurationError, match="no regular file"):
        sabir.image(tmp_path / "a.png")


def test_a_link_to_a_file_is_one(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    (tmp_path / "b").symlink_to(tmp_path / "a.png")
    assert sabir.image(tmp_path / "b").data == PNG


def test_what_no_provider_takes_is_not_even_read(tmp_path):
    path = tmp_path / "a.pdf"
    with path.open("wb") as opened:
        opened.write(PDF)
        opened.truncate(LARGEST + 1)
    with pytest.raises(ConfigurationError, match="larger than 104,857,600 bytes"):
        sabir.file(path)


def test_a_file_without_an_end_is_read_until_it_is_too_large():
    class Endless(io.RawIOBase):
        taken = 0

        def read(self, size: int = -1, /) -> bytes:
            self.taken += min(size, 1 << 24)
            return bytes(min(size, 1 << 24))

    endless = Endless()
    with pytest.raises(ConfigurationError, match="larger than 104,857,600 bytes"):
        sabir.file(endless)
    assert endless.taken == LARGEST + 1


def test_an_open_file_may_give_little_at_a_time():
    reading, writing = os.pipe()

    def write() -> None:
        for start in range(0, len(PNG), 7):
            os.write(writing, PNG[start : start + 7])
        os.close(writing)

    with open(reading, "rb", buffering=0) as opened:  # noqa: PTH123 - of a number
        thread = threading.Thread(target=write)
        thread.start()
        assert sabir.image(opened).data == PNG
        thread.join()


# Pixels


@pytest.mark.parametrize(("mode", "depth"), [("L", 1), ("RGB", 3), ("RGBA", 4)])
def test_raw_pixels_become_the_same_picture(mode, depth):
    data = bytes(range(6 * depth))
    part = sabir.image(Pixels(3, 2, data))
    assert part.media_type == "image/png"
    with Pillow.open(io.BytesIO(part.data)) as seen:
        assert (seen.mode, seen.size, seen.tobytes()) == (mode, (3, 2), data)


@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3, 4]), st.data())
def test_any_pixels_come_back(width, height, depth, data):
    pixels = data.draw(st.binary(min_size=width * height * depth, max_size=width * height * depth))
    with Pillow.open(io.BytesIO(sabir.image(Pixels(width, height, pixels)).data)) as seen:
        assert (seen.size, seen.tobytes()) == ((width, height), pixels)


@pytest.mark.parametrize("pixels", [Pixels(0, 1, b""), Pixels(2, 2, b"abc"), Pixels(-1, -1, b"abc"), Pixels(1, 1, b"")])
def test_pixels_that_do_not_fill_the_picture_are_refused(pixels):
    with pytest.raises(ConfigurationError, match="pixels"):
        sabir.image(pixels)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"])
def test_an_image_of_pillow_is_sent_as_it_looks(mode):
    made = Pillow.linear_gradient("L").resize((5, 4)).convert(mode)
    with Pillow.open(io.BytesIO(sabir.image(made).data)) as seen:
        assert (
            seen.convert("RGBA").tobytes() == made.convert("RGB" if mode == "CMYK" else mode).convert("RGBA").tobytes()
        )


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_broken_image_of_pillow_is_an_error_of_ours(kind):
    data = drawn(kind, size=(300, 300))
    with (
        Pillow.open(io.BytesIO(data[: len(data) // 2])) as opened,
        pytest.raises(ConfigurationError, match="Pillow cannot be"),
    ):
        sabir.image(opened)


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (4, 5, 3), (4, 5, 4)])
def test_an_array_is_a_picture_whatever_its_order_in_memory(shape):
    array = np.arange(np.prod(shape), dtype="uint8").reshape(shape)
    for given_array in (array, np.asfortranarray(array), array[::-1][::-1]):
        with Pillow.open(io.BytesIO(sabir.image(given_array).data)) as seen:
            assert (np.asarray(seen) == array.reshape(np.asarray(seen).shape)).all()

    class Own(np.ndarray[Any, Any]):
        pass

    assert sabir.image(array.view(Own)) == sabir.image(array)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((2, 2, 3)), "uint8, not float64"),
        (np.zeros((2, 2, 2), dtype="uint8"), "the shape"),
        (np.zeros(4, dtype="uint8"), "the shape"),
        (np.zeros((0, 2, 3), dtype="uint8"), "above 0"),
    ],
)
def test_an_array_that_is_no_picture_is_refused(array, reason):
    with pytest.raises(ConfigurationError, match=reason):
        sabir.image(array)


def test_neither_library_is_imported_to_know_its_images():
    program = (
        "import sabir, sys; sabir.image(sabir.Pixels(1, 1, b'a'));"
        "assert not {'PIL', 'numpy', 'httptools'} & set(sys.modules)"
    )
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", program]) == 0


# On the wire


class Wire:
    """A provider of a format on the loopback, that answers a word and keeps what it was asked."""

    def __init__(self, dialect: Any) -> None:
        self.dialect = dialect
        self.server = Server(self._answer)
        self.bodies: list[dict[str, Any]] = []

    async def _answer(self, call: Call) -> None:
        self.bodies.append(json.loads(call.body))
        try:
            kind, told = self._told(self.dialect.decode_request(call.body))
        except SabirError as error:
            status, told = self.dialect.encode_error(error)
            await whole(told, status=f"{status} Refused")(call)
        else:
            await whole(told, f"Content-Type: {kind}")(call)

    def _told(self, request: Request) -> tuple[str, bytes]:
        deltas = [Head("1", "m"), Open(0, "text"), Text(0, "Seen."), Close(0), Finish("stop")]
        if not request.stream:
            return "application/json", self.dialect.encode_response(response_of(self.dialect.name, deltas))
        encoder = self.dialect.encoder(request)
        return "text/event-stream", b"".join([*map(encoder.feed, deltas), encoder.close()])


@pytest.fixture
def wire(request, monkeypatch):
    """A provider `wired:` of the dialect that is the test's parameter."""
    made = Wire(getattr(request, "param", OpenAIChat()))
    with made.server as server:
        row = Provider("wired", url=f"http://127.0.0.1:{server.port}", dialect=made.dialect)
        monkeypatch.setitem(PROVIDERS, "wired", row)
        yield made


async def read(stream: Any) -> Any:
    async for _ in stream:
        pass
    return stream.response


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


PDF_URL = f"data:application/pdf;base64,{base64_of(PDF)}"
OPENAI_BLOCKS = [
    {"type": "text", "text": "What is this?"},
    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64_of(PNG)}"}},
    {"type": "image_url", "image_url": {"url": "https://example.org/a.jpg"}},
    {"type": "input_audio", "input_audio": {"data": base64_of(WAV), "format": "wav"}},
    {
        "type": "file",
        "file": {"filename": "document.pdf", "file_data": f"data:application/pdf;base64,{base64_of(PDF)}"},
    },
    {"type": "file", "file": {"filename": "a.csv", "file_data": f"data:text/csv;base64,{base64_of(CSV)}"}},
]
ANTHROPIC_BLOCKS = [
    {"type": "text", "text": "What is this?"},
    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": base64_of(PNG)}},
    {"type": "image", "source": {"type": "url", "url": "https://example.org/a.jpg"}},
    {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": base64_of(PDF)}},
    {
        "type": "document",
        "source": {"type": "text", "media_type": "text/plain", "data": CSV.decode()},
        "title": "a.csv",
    },
]
GEMINI_BLOCKS = [
    {"text": "What is this?"},
    {"inlineData": {"mimeType": "image/png", "data": base64_of(PNG)}},
    {"fileData": {"mimeType": "image/jpeg", "fileUri": "https://example.org/a.jpg"}},
    {"inlineData": {"mimeType": "audio/wav", "data": base64_of(WAV)}},
    {"inlineData": {"mimeType": "application/pdf", "data": base64_of(PDF)}},
    {"inlineData": {"mimeType": "text/csv", "data": base64_of(CSV), "displayName": "a.csv"}},
    {"inlineData": {"mimeType": "video/mp4", "data": base64_of(MP4)}},
]


def attachments(folder: Path, *, audio: bool = True, video: bool = False) -> dict[str, Any]:
    (folder / "a.csv").write_bytes(CSV)
    files = [io.BytesIO(PDF), folder / "a.csv", *([sabir.video(MP4)] if video else [])]
    images = [base64_of(PNG), "https://example.org/a.jpg"]
    return {"images": images, "files": files, **({"audio": [WAV]} if audio else {})}


@pytest.mark.parametrize("wire", [OpenAIChat()], indirect=True)
async def test_openai_is_sent_images_sounds_and_files_together(surface, wire, tmp_path):
    client = surface.client("wired:m")
    await client.ask("What is this?", **attachments(tmp_path))
    await read(client.stream("What is this?", **attachments(tmp_path)))
    await client.chat()("What is this?", **attachments(tmp_path))
    explained = client.explain("What is this?", **attachments(tmp_path))
    contents = [body["messages"][0]["content"] for body in (*wire.bodies, explained.body)]
    assert contents == [OPENAI_BLOCKS] * 4


@pytest.mark.parametrize("wire", [Anthropic()], indirect=True)
async def test_anthropic_is_sent_images_and_documents(surface, wire, tmp_path):
    client = surface.client("wired:m")
    response = await client.ask("What is this?", max_tokens=5, **attachments(tmp_path, audio=False))
    assert [notice.message for notice in response.warnings] == ["a file of the type text/csv was sent as text/plain"]
    await read(client.stream("What is this?", **attachments(tmp_path, audio=False)))
    assert [body["messages"][0]["content"] for body in wire.bodies] == [ANTHROPIC_BLOCKS] * 2
    await client.ask("?", max_tokens=5, files=[b'{"a": 1}'])
    assert wire.bodies[2]["messages"][0]["content"][1]["source"]["data"] == '{"a": 1}'
    with pytest.raises(UnsupportedError, match="hears no audio"):
        await client.ask("What is this?", audio=[WAV])


@pytest.mark.parametrize("wire", [Gemini()], indirect=True)
async def test_gemini_is_sent_all_of_it_and_films(surface, wire, tmp_path):
    await surface.client("wired:m").ask("What is this?", **attachments(tmp_path, video=True))
    assert [body["contents"][0]["parts"] for body in wire.bodies] == [GEMINI_BLOCKS]


async def test_attachments_are_refused_where_they_would_not_be_seen(surface, wire):
    client = surface.client("wired:m")
    for name in ("images", "audio", "files"):
        for one in ("a.png", PNG, bytearray(PNG), io.BytesIO(PNG), np.zeros((1, 1), "uint8"), Pixels(1, 1, b"a"), 5):
            with pytest.raises(ConfigurationError, match=rf"{name}= takes a list"):
                await client.ask("?", **{name: one})
        source = {"images": PNG, "audio": WAV, "files": PDF}[name]
        with pytest.raises(ConfigurationError, match=rf"{name}= go with a user's message"):
            await client.ask([user("a"), sabir.assistant("b")], **{name: [source]})
        with pytest.raises(ConfigurationError, match=rf"{name}= go with a prompt"):
            client.chat(**{name: [source]})
    await client.ask("?", images=None, audio=None, files=iter(()))
    assert [body["messages"][0]["content"] for body in wire.bodies] == ["?"]


PARTS = {
    "image": Image(data=PNG, media_type="image/png"),
    "image by address": Image(url="https://example.org/a.png"),
    "audio": Audio(data=WAV, media_type="audio/wav"),
    "mp3": Audio(data=MP3, media_type="audio/mpeg"),
    "flac": Audio(data=SNIFFED["flac"][0], media_type="audio/flac"),
    "audio by address": Audio(url="https://example.org/a.wav"),
    "pdf": File(data=PDF, media_type="application/pdf", name="a.pdf"),
    "docx": File(data=SNIFFED["docx"][0], media_type=DOCX),
    "csv": File(data=CSV, media_type="text/csv", name="a.csv"),
    "file by address": File(url="https://example.org/a.pdf"),
    "upload": File(id="file-1"),
    "film": File(data=MP4, media_type="video/mp4"),
    "film in AWS": File(url="s3://bucket/a.mp4", media_type="video/mp4"),
}
DIALECTS = {row.dialect.name: row.dialect for row in PROVIDERS.values()}


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
def test_every_format_sends_a_part_as_it_is_or_says_why_not(dialect, part):
    try:
        http, _ = dialect.encode_request(Request(model="m", messages=(user("?", part),)))
    except UnsupportedError:
        return
    shown = json.dumps(json.loads(http.body), ensure_ascii=False)
    ways = [part.url, getattr(part, "id", None), base64_of(part.data) if part.data else None]
    if isinstance(part, File) and part.media_type == "text/csv":
        ways.append(json.dumps(CSV.decode(), ensure_ascii=False))
    assert any(way in shown for way in ways if way), shown


HEIC, BMP = SNIFFED["heic"][0], SNIFFED["bmp"][0]


@pytest.mark.parametrize(
    ("dialect", "source", "is_taken"),
    [
        (OpenAIChat(), HEIC, False),
        (Anthropic(), HEIC, False),
        (Gemini(), HEIC, True),
        (OpenAIChat(), BMP, False),
        (Anthropic(), SNIFFED["avif"][0], False),
        (Gemini(), SNIFFED["tiff"][0], False),
        (OpenAIChat(media=MediaRules()), BMP, True),
    ],
)
async def test_an_image_of_a_rare_type_goes_where_it_is_known(surface, monkeypatch, dialect, source, is_taken):
    wired = Wire(dialect)
    with wired.server as server:
        row = Provider("wired", url=f"http://127.0.0.1:{server.port}", dialect=dialect)
        monkeypatch.setitem(PROVIDERS, "wired", row)
        client = surface.client("wired:m")
        if is_taken:
            await client.ask("?", images=[source])
        else:
            with pytest.raises(UnsupportedError, match=r"takes images of the types image/png, .*; convert it first"):
                await client.ask("?", images=[source])
            with pytest.raises(UnsupportedError, match="convert it first"):
                client.explain("?", images=[source])
    assert len(wired.bodies) == is_taken


async def test_a_film_goes_only_where_one_is_seen(surface, wire):
    with pytest.raises(UnsupportedError, match=r"takes files of the types application/\*, text/\*, .*, not video/mp4"):
        await surface.client("wired:m").ask("?", files=[sabir.video(MP4)])
    assert wire.bodies == []


@pytest.mark.parametrize("wire", [OpenAIChat(media=MediaRules(most={Image: len(PNG)}))], indirect=True)
async def test_what_is_larger_than_the_server_takes_is_not_sent(surface, wire):
    client = surface.client("wired:m")
    await client.ask("?", images=[PNG])
    with pytest.raises(UnsupportedError, match=rf"at most {len(PNG)} bytes, and one has {len(PNG) + 1}"):
        await client.ask("?", images=[PNG + b"\0"])
    with pytest.raises(UnsupportedError, match="at most"):
        await read(client.stream("?", images=[PNG + b"\0"]))
    assert len(wire.bodies) == 1


async def test_what_a_model_made_is_no_attachment(surface, wire):
    history = [user("draw"), sabir.assistant("here", Image(data=HEIC, media_type="image/heic")), user("thanks")]
    response = await surface.client("wired:m").ask(history)
    assert [notice.kind for notice in response.warnings] == ["dropped"]
    assert len(wire.bodies) == 1


# What a server does not fetch


class Files:
    """Files on the loopback, by path: bytes, or (status, header) pairs."""

    def __init__(self) -> None:
        self.files: dict[str, bytes | tuple[str, ...]] = {"/a.wav": WAV, "/a.pdf": PDF, "/a.png": PNG}
        self.server = Server(self._answer)

    async def _answer(self, call: Call) -> None:
        found = self.files.get(call.target.partition("?")[0])
        if isinstance(found, bytes):
            await whole(found)(call)
        else:
            status, *lines = found or ("404 Not Found",)
            await whole(b"", *lines, status=status)(call)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server.port}{path}"


@pytest.fixture
def files():
    made = Files()
    with made.server:
        yield made


async def test_what_the_server_does_not_fetch_is_loaded_and_sent(surface, wire, files):
    client = surface.client("wired:m", fetch="any")
    sources = {"audio": [files.url("/a.wav?signature=secret")], "files": [files.url("/a.pdf")]}
    response = await client.ask("?", images=[files.url("/a.png")], **sources)
    image, sound, document = wire.bodies[0]["messages"][0]["content"][1:]
    assert image["image_url"]["url"] == files.url("/a.png")
    assert sound["input_audio"] == {"data": base64_of(WAV), "format": "wav"}
    assert document["file"] == {"filename": "a.pdf", "file_data": PDF_URL}
    assert [call.target for call in files.server.calls] == ["/a.wav?signature=secret", "/a.pdf"]
    assert {name for name, _ in files.server.calls[0].headers} <= {
        "host",
        "user-agent",
        "accept",
        "accept-encoding",
        "connection",
    }
    assert [(notice.kind, notice.subject) for notice in response.warnings] == [
        ("emulated", "Audio"),
        ("emulated", "File"),
    ]
    assert "secret" not in str(response.warnings)
    await read(client.stream("?", **sources))
    assert wire.bodies[1]["messages"][0]["content"][1:] == [sound, document]


async def test_explain_loads_nothing_and_says_what_would_be(surface, wire, files):
    explained = surface.client("wired:m").explain("?", audio=[files.url("/a.wav")])
    assert explained.body["messages"][0]["content"][1]["input_audio"]["data"] == base64_of(b"...")
    assert [notice.message for notice in explained.notices] == [
        f"{files.url('/a.wav')} was loaded here and sent as bytes, since {wire_address()} does not fetch it"
    ]
    assert files.server.calls == []


def wire_address() -> str:
    return str(PROVIDERS["wired"].url).removeprefix("http://")


async def test_a_file_is_loaded_once_for_all_rounds_of_a_call(surface, wire, files):
    rounds = []

    def look() -> str:
        """Look."""
        rounds.append(1)
        return "a"

    encode = wire.dialect.encode_response

    async def answer(call: Call) -> None:
        if len(wire.bodies) < 2:
            wire.bodies.append(json.loads(call.body))
            deltas = [
                sabir.deltas.Head("1", "m"),
                sabir.deltas.Open(0, "call", "c1", "look"),
                sabir.deltas.Text(0, "{}"),
            ]
            deltas += [sabir.deltas.Close(0), sabir.deltas.Finish("tool_calls")]
            await whole(encode(response_of("openai_chat", deltas)), "Content-Type: application/json")(call)
        else:
            await wire._answer(call)

    wire.server.answer = answer
    chat = surface.client("wired:m", fetch="any", tools=[look]).chat()
    await chat("?", audio=[files.url("/a.wav")])
    assert (len(rounds), len(wire.bodies), len(files.server.calls)) == (2, 3, 1)
    assert chat.messages[0].parts[1] == Audio(url=files.url("/a.wav"))


async def test_images_in_results_of_tools_are_loaded_too(surface, wire, files, monkeypatch):
    dialect = Anthropic(media=CLOUD_MEDIA)
    wired = Wire(dialect)
    with wired.server as server:
        row = Provider("wired", url=f"http://127.0.0.1:{server.port}", dialect=dialect)
        monkeypatch.setitem(PROVIDERS, "wired", row)
        call = sabir.ToolCall(name="look", id="c1", input="{}")
        result = sabir.ToolResult(call_id="c1", name="look", content=(Image(url=files.url("/a.png")),))
        history = [user("a"), sabir.assistant(call), sabir.Message("tool", (result,))]
        await surface.client("wired:m", fetch="any").ask(history)
    block = wired.bodies[0]["messages"][2]["content"][0]["content"][0]
    assert block["source"] == {"type": "base64", "media_type": "image/png", "data": base64_of(PNG)}


async def test_nothing_of_this_machine_is_loaded_unless_that_is_allowed(surface, wire, files):
    client = surface.client("wired:m")
    for url in (
        files.url("/a.wav"),
        files.url("/a.wav").replace("127.0.0.1", "localhost"),
        files.url("/a.wav").replace("127.0.0.1", "2130706433"),
        files.url("/a.wav").replace("127.0.0.1", "[::ffff:127.0.0.1]"),
        files.url("/a.wav").replace("127.0.0.1", "0"),
    ):
        with pytest.raises(ConfigurationError, match=r"not one of the internet; .* pass fetch='any'"):
            await client.ask("?", audio=[url])
    assert (files.server.accepted, wire.bodies) == (0, [])


PUBLIC = "203.0.114.1"


class Internet:
    """A host `outside.example` with addresses that follow each other; the public one leads to our files."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, port: int) -> None:
        self.addresses = [PUBLIC]
        self.resolved = 0
        self.connected: list[str] = []
        look_up, connect = socket.getaddrinfo, socket.socket.connect_ex

        def resolved(host: Any, port: Any, *args: Any, flags: int = 0, **kwargs: Any) -> Any:
            if host != "outside.example":
                return look_up(host, port, *args, flags=flags, **kwargs)
            if flags & socket.AI_NUMERICHOST:
                raise socket.gaierror("this is a name")
            self.resolved += 1
            address = self.addresses[min(self.resolved, len(self.addresses)) - 1]
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

        def connected(made: socket.socket, address: Any) -> int:
            self.connected.append(address[0])
            return connect(made, ("127.0.0.1", port) if address[0] == PUBLIC else address)

        monkeypatch.setattr(socket, "getaddrinfo", resolved)
        monkeypatch.setattr("sabir.transports.blocking.Plain.connect_ex", connected, raising=False)


@pytest.fixture
def internet(monkeypatch, files):
    return Internet(monkeypatch, files.server.port)


async def test_a_name_is_resolved_once_and_what_was_checked_is_connected_to(surface, wire, files, internet):
    internet.addresses = [PUBLIC, "127.0.0.1"]
    client = surface.client("wired:m", proxy=False)
    url = f"http://outside.example:{files.server.port}/a.wav"
    await client.ask("?", audio=[url])
    assert (internet.resolved, internet.connected.count(PUBLIC)) == (1, 1)
    internet.connected.clear()
    with pytest.raises(ConfigurationError, match=r"address 127\.0\.0\.1, which is not one of the internet"):
        await client.ask("?", audio=[url])
    assert internet.connected == []
    assert len(files.server.calls) == 1


@pytest.mark.parametrize(
    "inside", ["http://127.0.0.1:{port}/a.wav", "http://169.254.169.254/latest", "//[::1]:{port}/"]
)
async def test_a_redirect_from_outside_to_the_inside_is_not_followed(surface, wire, files, internet, inside):
    files.files["/moved"] = ("302 Found", "Location: /a.wav")
    files.files["/inside"] = ("302 Found", f"Location: {inside.format(port=files.server.port)}")
    client, outside = surface.client("wired:m", proxy=False), f"http://outside.example:{files.server.port}"
    await client.ask("?", audio=[f"{outside}/moved"])
    with pytest.raises(ConfigurationError, match="which is not one of the internet"):
        await client.ask("?", audio=[f"{outside}/inside"])
    assert [call.target for call in files.server.calls] == ["/moved", "/a.wav", "/inside"]


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("ftp://example.org/a", "an address of ftp, which is not followed"),
        ("file:///etc/passwd", "an address of file, which is not followed"),
        ("http://[::1/", "what is no address"),
        ("http://user:password@example.org/", "is no address to send a request to"),
    ],
)
async def test_a_redirect_leads_to_http_or_nowhere(surface, wire, files, location, reason):
    files.files["/moved"] = ("307 Temporary Redirect", f"Location: {location}")
    with pytest.raises(ConfigurationError, match=reason):
        await surface.client("wired:m", fetch="any").ask("?", audio=[files.url("/moved")])


async def test_a_redirect_never_leaves_tls(surface, wire, files):
    async def moved(call: Call) -> None:
        await whole(b"", f"Location: {files.url('/a.wav')}", status="302 Found")(call)

    with Server(moved, secure=True) as server:
        client = surface.client("wired:m", fetch="any", ssl_context=client_context())
        with pytest.raises(ConfigurationError, match="an address of http, which is not followed"):
            await client.ask("?", audio=[f"{server.url}/a.wav"])
        server.answer = files._answer
        await client.ask("?", audio=[f"{server.url}/a.wav"])
    assert len(wire.bodies) == 1


async def test_there_is_an_end_to_redirects(surface, wire, files):
    for number in range(MOST_REDIRECTS + 1):
        files.files[f"/{number}"] = ("301 Moved Permanently", f"Location: /{number + 1}")
    files.files[f"/{MOST_REDIRECTS + 1}"] = WAV
    client = surface.client("wired:m", fetch="any")
    await client.ask("?", audio=[files.url("/1")])
    with pytest.raises(ConfigurationError, match="more than 3 redirects"):
        await client.ask("?", audio=[files.url("/0")])


async def test_what_is_there_must_be_what_was_said(surface, wire, files):
    client = surface.client("wired:m", fetch="any")
    with pytest.raises(ConfigurationError, match=r"/none cannot be loaded: its server answered with HTTP 404"):
        await client.ask("?", audio=[files.url("/none?signature=secret")])
    with pytest.raises(ConfigurationError, match=r"/a\.png leads to something else: .* no audio that models take"):
        await client.ask("?", audio=[files.url("/a.png")])
    files.files["/empty"] = b""
    with pytest.raises(ConfigurationError, match="nothing in it"):
        await client.ask("?", audio=[files.url("/empty")])
    files.files["/a.mp4"] = MP4
    with pytest.raises(UnsupportedError, match="not video/mp4"):
        await client.ask("?", files=[files.url("/a.mp4")])
    assert wire.bodies == []


async def test_a_file_that_is_too_large_is_read_no_further(surface, wire, files):
    async def endless(call: Call) -> None:
        call.head("Content-Type: audio/wav")
        for _ in range(64):
            call.write(bytes(1 << 20))
            await asyncio.sleep(0.005)
        await call.forever()

    files.server.answer = endless
    with pytest.raises(ConfigurationError, match=f"larger than {MOST_LOADED:,} bytes"):
        await surface.client("wired:m", fetch="any").ask("?", audio=[files.url("/a.wav")])
    assert files.server.is_left_by_all()


async def test_the_deadline_of_the_call_holds_for_what_it_loads(surface, wire, files):
    async def slow(call: Call) -> None:
        call.head("Content-Type: audio/wav")
        await call.drip(b"\0")

    files.server.answer = slow
    with pytest.raises(sabir.DeadlineExceeded):
        await surface.client("wired:m", fetch="any", timeout=0.4).ask("?", audio=[files.url("/a.wav")])
    assert files.server.is_left_by_all()


async def test_whoever_wants_no_loading_gets_an_error(surface, wire, files):
    with pytest.raises(UnsupportedError, match=r"fetch='never'.*pass its bytes"):
        await surface.client("wired:m", fetch="never").ask("?", audio=[files.url("/a.wav")])
    with pytest.raises(ConfigurationError, match="fetch is one of public, any, never"):
        surface.client("wired:m", fetch="always")
    assert files.server.calls == []


async def test_through_a_proxy_nothing_is_loaded_that_cannot_be_checked(surface, wire, files, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    client = surface.client("wired:m")
    with pytest.raises(ConfigurationError, match=r"the proxy before it .* cannot be checked"):
        await client.ask("?", audio=["http://media.example/a.wav"])


async def test_a_transport_of_the_callers_own_is_not_gone_round(surface, wire, files):
    class Own:
        async def send(self, request: Any, line: Any) -> Any:
            raise sabir.ConnectError("offline", retryable=False)

        def close(self) -> None:
            pass

    with pytest.raises(UnsupportedError, match="transport= has a network of its own"):
        await surface.client("wired:m", transport=Own()).ask("?", audio=[files.url("/a.wav")])
    assert files.server.calls == []


@pytest.mark.parametrize(
    ("address", "is_one"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("64:ff9b::808:808", True),
        ("127.0.0.1", False),
        ("127.1.2.3", False),
        ("0.0.0.0", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.0.1", False),
        ("100.64.0.1", False),
        ("100.100.100.200", False),
        ("169.254.169.254", False),
        ("168.63.129.16", False),
        ("192.0.0.192", False),
        ("192.88.99.1", False),
        ("198.18.0.1", False),
        ("224.0.0.1", False),
        ("239.255.255.250", False),
        ("255.255.255.255", False),
        ("::", False),
        ("::1", False),
        ("::127.0.0.1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:8.8.8.8", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b:1::1", False),
        ("2001::1", False),
        ("2001:db8::1", False),
        ("2002:7f00:1::", False),
        ("3fff::1", False),
        ("fc00::1", False),
        ("fd00:ec2::254", False),
        ("fe80::1", False),
        ("fe80::1%eth0", False),
        ("fec0::1", False),
        ("ff02::1", False),
    ],
)
def test_only_addresses_of_the_internet_are_public(address, is_one):
    assert is_public(address) == is_one


# The formats and servers, one by one


def data_url(media_type: str, data: bytes) -> str:
    return f"data:{media_type};base64,{base64_of(data)}"


# A format or a server's row: what is passed to it, what then stands in the message, and what was loaded for it.
PASSED: dict[str, tuple[Any, tuple[str, ...], Any, list[str]]] = {
    "openai_responses": (
        OpenAIResponses(),
        ("images", "files"),
        lambda at: [
            {"type": "input_text", "text": "?"},
            {"type": "input_image", "image_url": data_url("image/png", PNG)},
            {"type": "input_image", "image_url": at("/a.png")},
            {"type": "input_file", "filename": "document.pdf", "file_data": PDF_URL},
            {"type": "input_file", "filename": "a.csv", "file_data": data_url("text/csv", CSV)},
            {"type": "input_file", "file_url": at("/a.pdf")},
        ],
        [],
    ),
    "mistral": (
        Mistral(),
        ("images", "audio", "files"),
        lambda at: [
            {"type": "text", "text": "?"},
            {"type": "image_url", "image_url": {"url": data_url("image/png", PNG)}},
            {"type": "image_url", "image_url": {"url": at("/a.png")}},
            {"type": "input_audio", "input_audio": base64_of(WAV)},
            {"type": "input_audio", "input_audio": base64_of(MP3)},
            {"type": "input_audio", "input_audio": at("/a.wav")},
            {"type": "document_url", "document_url": PDF_URL},
            {"type": "document_url", "document_url": data_url("text/csv", CSV), "document_name": "a.csv"},
            {"type": "document_url", "document_url": at("/a.pdf")},
        ],
        [],
    ),
    "cohere": (
        Cohere(),
        ("images",),
        lambda at: [
            {"type": "text", "text": "?"},
            {"type": "image_url", "image_url": {"url": data_url("image/png", PNG)}},
            {"type": "image_url", "image_url": {"url": at("/a.png")}},
        ],
        [],
    ),
    "bedrock": (
        Bedrock(),
        ("images", "audio", "files"),
        lambda at: [
            {"text": "?"},
            *[{"image": {"format": "png", "source": {"bytes": base64_of(PNG)}}}] * 2,
            {"audio": {"format": "wav", "source": {"bytes": base64_of(WAV)}}},
            {"audio": {"format": "mp3", "source": {"bytes": base64_of(MP3)}}},
            {"audio": {"format": "wav", "source": {"bytes": base64_of(WAV)}}},
            {"document": {"format": "pdf", "name": "document", "source": {"bytes": base64_of(PDF)}}},
            {"document": {"format": "csv", "name": "a csv", "source": {"bytes": base64_of(CSV)}}},
            {"document": {"format": "pdf", "name": "a pdf", "source": {"bytes": base64_of(PDF)}}},
        ],
        ["/a.png", "/a.wav", "/a.pdf"],
    ),
    "openrouter": (
        PROVIDERS["openrouter"].dialect,
        ("images", "audio", "files"),
        lambda at: [
            {"type": "text", "text": "?"},
            {"type": "image_url", "image_url": {"url": data_url("image/png", PNG)}},
            {"type": "image_url", "image_url": {"url": at("/a.png")}},
            {"type": "input_audio", "input_audio": {"data": base64_of(WAV), "format": "wav"}},
            {"type": "input_audio", "input_audio": {"data": base64_of(MP3), "format": "mp3"}},
            {"type": "input_audio", "input_audio": {"data": base64_of(WAV), "format": "wav"}},
            {"type": "file", "file": {"filename": "document.pdf", "file_data": PDF_URL}},
            {"type": "file", "file": {"filename": "a.csv", "file_data": data_url("text/csv", CSV)}},
            {"type": "file", "file": {"filename": "document.pdf", "file_data": at("/a.pdf")}},
        ],
        ["/a.wav"],
    ),
    **{
        name: (
            PROVIDERS[name].dialect,
            ("images",),
            lambda at: [
                {"type": "text", "text": "?"},
                *[{"type": "image_url", "image_url": {"url": data_url("image/png", PNG)}}] * 2,
            ],
            ["/a.png"],
        )
        for name in ("ollama-compat", "ollama-openai", "ollama-cloud", "lmstudio")
    },
}


@pytest.mark.parametrize(("wire", "taken", "blocks", "loaded"), PASSED.values(), ids=PASSED, indirect=["wire"])
async def test_each_format_has_its_words_for_attachments(surface, wire, files, tmp_path, taken, blocks, loaded):
    (tmp_path / "a.csv").write_bytes(CSV)
    sources = {
        "images": [base64_of(PNG), files.url("/a.png")],
        "audio": [WAV, io.BytesIO(MP3), files.url("/a.wav")],
        "files": [PDF, tmp_path / "a.csv", files.url("/a.pdf")],
    }
    response = await surface.client("wired:m", fetch="any").ask("?", **{name: sources[name] for name in taken})
    body = wire.bodies[0]
    message = (body["messages"] if "messages" in body else body["input"])[0]
    assert message["content"] == blocks(files.url)
    assert [call.target for call in files.server.calls] == loaded
    fetched = [notice.message.split()[0] for notice in response.warnings if "was loaded here" in notice.message]
    assert fetched == [files.url(path) for path in loaded]


@pytest.mark.parametrize("wire", [Ollama()], indirect=True)
async def test_ollama_is_sent_the_bytes_of_images_and_fetches_none(surface, wire, files):
    client = surface.client("wired:m", fetch="any")
    await client.ask("?", images=[JPEG, files.url("/a.png"), Pixels(1, 1, b"a")])
    message = wire.bodies[0]["messages"][0]
    assert message["content"] == "?"
    assert message["images"] == [base64_of(JPEG), base64_of(PNG), base64_of(sabir.image(Pixels(1, 1, b"a")).data)]
    with pytest.raises(UnsupportedError, match=r"Ollama fetches no images: load 's3://b/a.png' and give its bytes"):
        await client.ask("?", images=["s3://b/a.png"])


FILM = sabir.video(MP4)
EPUB, AIFF = SNIFFED["epub"][0], SNIFFED["aiff"][0]
NOT_TAKEN = {
    "responses, an image": (OpenAIResponses(), {"images": [HEIC]}, r"image/png, image/jpeg, .*, not image/heic"),
    "responses, a film": (OpenAIResponses(), {"files": [FILM]}, r"files of the types application/\*, .*not video/mp4"),
    "responses, a film's address": (
        OpenAIResponses(),
        {"files": [sabir.video("https://a.example/b")]},
        "not video/mp4",
    ),
    "responses, audio": (OpenAIResponses(), {"audio": [WAV]}, "hears no audio; use chat completions"),
    "mistral, an image": (Mistral(), {"images": [BMP]}, "not image/bmp; convert it first"),
    "mistral, a film": (Mistral(), {"files": [FILM]}, r"files of the types application/\*, .*not video/mp4"),
    "cohere, an image": (Cohere(), {"images": [BMP]}, "not image/bmp; convert it first"),
    "cohere, audio": (Cohere(), {"audio": [WAV]}, "reads no Audio; send its text"),
    "cohere, a file": (Cohere(), {"files": [PDF]}, "reads no File; send its text"),
    "bedrock, an image": (Bedrock(), {"images": [HEIC]}, "not image/heic; convert it first"),
    "bedrock, a large image": (Bedrock(), {"images": [PNG + bytes(3_932_160)]}, "at most 3,932,160 bytes"),
    "bedrock, audio": (Bedrock(), {"audio": [AIFF]}, "not audio/aiff; convert it first"),
    "bedrock, a file": (Bedrock(), {"files": [EPUB]}, r"application/pdf, .*not application/epub\+zip"),
    "bedrock, another cloud": (Bedrock(), {"files": ["gs://bucket/a.pdf"]}, "only from s3:// addresses"),
    "ollama, audio": (Ollama(), {"audio": [WAV]}, "no place for audio .*; transcribe it first"),
    "ollama, a file": (Ollama(), {"files": [PDF]}, "no place for a file .*; put its text into the prompt"),
    "openrouter, audio": (PROVIDERS["openrouter"].dialect, {"audio": [webm(b"A_OPUS")]}, "audio/ogg, not audio/webm"),
    "openai, a film": (OpenAIChat(), {"files": [FILM]}, "not video/mp4"),
    "llama-server, a film": (PROVIDERS["llama-server"].dialect, {"files": [FILM]}, "not video/mp4"),
    "lmstudio, an image": (PROVIDERS["lmstudio"].dialect, {"images": [SNIFFED["gif"][0]]}, "image/webp, not image/gif"),
    "openai, audio": (OpenAIChat(), {"audio": [AIFF]}, "audio/mp3, not audio/aiff; convert it first"),
}


@pytest.mark.parametrize(("wire", "given_media", "reason"), NOT_TAKEN.values(), ids=NOT_TAKEN, indirect=["wire"])
async def test_what_a_format_or_its_servers_do_not_take_is_refused_with_the_reason(surface, wire, given_media, reason):
    with pytest.raises(UnsupportedError, match=reason):
        await surface.client("wired:m").ask("?", **given_media)
    assert wire.bodies == []


@pytest.mark.parametrize(
    "wire",
    [PROVIDERS[name].dialect for name in ("openrouter", "vllm", "sglang", "openai-compat", "dashscope")],
    indirect=True,
)
async def test_a_film_is_shown_to_the_servers_that_see_some(surface, wire):
    await surface.client("wired:m").ask("?", files=[FILM])
    (shown,) = wire.bodies[0]["messages"][0]["content"][1:]
    assert shown == {"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{base64_of(MP4)}"}}
    request = wire.dialect.decode_request(json.dumps(wire.bodies[0]).encode())
    assert request.messages[0].parts[1] == FILM
    # And so it can be shown to another provider.
    body, _ = Gemini().encode_request(request)
    assert json.loads(body.body)["contents"][0]["parts"][1] == {
        "inlineData": {"mimeType": "video/mp4", "data": base64_of(MP4)}
    }


@pytest.mark.parametrize("wire", [PROVIDERS["openrouter"].dialect], indirect=True)
async def test_the_address_of_a_film_goes_to_who_fetches_it(surface, wire):
    film = sabir.video("https://a.example/b.webm")
    await surface.client("wired:m", fetch="never").ask("?", files=[film])
    assert wire.bodies[0]["messages"][0]["content"][1] == {"type": "video_url", "video_url": {"url": film.url}}
    assert wire.dialect.decode_request(json.dumps(wire.bodies[0]).encode()).messages[0].parts[1] == film


@pytest.mark.parametrize(
    ("part", "media_type"),
    [
        (Image(url="https://a.example/a.jpg?b=c.png"), "image/jpeg"),
        (Image(url="https://a.example/a.WEBP"), "image/webp"),
        (Image(url="https://a.example/a"), None),
        (Image(url="https://a.example/a.mp3"), None),
        (Audio(url="https://a.example/a.mp3"), "audio/mpeg"),
        (Audio(url="https://a.example/a.m4a#t=1"), "audio/mp4"),
        (Audio(url="https://a.example/mp3"), None),
        (File(url="https://a.example/a.pdf"), "application/pdf"),
        (File(url="https://a.example/a.csv"), "text/csv"),
        (File(url="https://a.example/a.mov"), "video/quicktime"),
        (File(url="https://a.example/a.pdf", media_type="text/plain"), "text/plain"),
    ],
)
def test_an_address_tells_gemini_what_it_leads_to(part, media_type):
    http, notices = Gemini().encode_request(Request(model="m", messages=(sabir.user(part),)))
    sent = json.loads(http.body)["contents"][0]["parts"][0]["fileData"]
    guess = {Image: "image/png", Audio: "audio/wav"}.get(type(part))
    assert sent == {"mimeType": media_type or guess, "fileUri": part.url}
    assert [notice.subject for notice in notices] == ([] if media_type else [type(part).__name__])


def test_an_address_that_tells_nothing_is_guessed_only_where_a_type_is_wanted():
    request = Request(model="m", messages=(sabir.user(File(url="https://www.youtube.com/watch?v=1")),))
    http, notices = PROVIDERS["gemini"].dialect.encode_request(request)
    assert json.loads(http.body)["contents"][0]["parts"][0]["fileData"] == {"fileUri": request.messages[0].parts[0].url}
    assert notices == ()
    http, notices = PROVIDERS["vertex"].dialect.encode_request(request)
    sent = json.loads(http.body)["contents"][0]["parts"][0]["fileData"]
    assert sent["mimeType"] == "application/pdf"
    assert [(notice.kind, notice.subject) for notice in notices] == [("emulated", "File")]


@pytest.mark.parametrize("wire", [PROVIDERS["openrouter"].dialect], indirect=True)
async def test_openrouter_hears_what_openai_does_not(surface, wire):
    sounds = [SNIFFED[name][0] for name in ("aac", "aiff", "flac", "m4a", "ogg")]
    await surface.client("wired:m").ask("?", audio=sounds)
    heard = [block["input_audio"] for block in wire.bodies[0]["messages"][0]["content"][1:]]
    assert [each["format"] for each in heard] == ["aac", "aiff", "flac", "m4a", "ogg"]
    assert [each["data"] for each in heard] == [base64_of(sound) for sound in sounds]
    parts = wire.dialect.decode_request(json.dumps(wire.bodies[0]).encode()).messages[0].parts[1:]
    assert parts == tuple(sabir.audio(sound) for sound in sounds)


@pytest.mark.parametrize("wire", [OpenAIResponses()], indirect=True)
async def test_a_file_without_a_name_has_one_that_tells_its_type(surface, wire):
    sources = (PDF, SNIFFED["docx"][0], CSV, b"<?xml version='1.0'?><a/>", b'{"a": 1}')
    await surface.client("wired:m").ask("?", files=sources)
    names = [block["filename"] for block in wire.bodies[0]["input"][0]["content"][1:]]
    assert names == [f"document.{suffix}" for suffix in ("pdf", "docx", "txt", "xml", "json")]


TEXTS = {
    "application/json": b'{"a": 1}',
    "application/xml": b"<?xml version='1.0'?><a/>",
    "application/yaml": b"a: 1",
    "image/svg+xml": SNIFFED["svg"][0],
    "text/tab-separated-values": b"a\tb",
}


@pytest.mark.parametrize("wire", [Bedrock()], indirect=True)
async def test_bedrock_is_sent_texts_of_types_it_has_no_word_for_as_plain_text(surface, wire):
    for media_type, data in TEXTS.items():
        part = File(data=data, media_type=media_type, name="a")
        response = await surface.client("wired:m").ask("?", files=[part])
        document = wire.bodies[-1]["messages"][0]["content"][1]["document"]
        assert document == {"format": "txt", "name": "a", "source": {"bytes": base64_of(data)}}
        assert [notice.message for notice in response.warnings] == [
            f"a file of the type {media_type} was sent as text/plain"
        ]
    response = await surface.client("wired:m").ask("?", files=[b"words", File(data=b"<p>", media_type="text/html")])
    assert [block["document"]["format"] for block in wire.bodies[-1]["messages"][0]["content"][1:]] == ["txt", "html"]
    assert response.warnings == ()


@pytest.mark.parametrize("wire", [Bedrock()], indirect=True)
async def test_bedrock_fetches_from_its_own_cloud_itself(surface, wire):
    film = sabir.video("s3://bucket/a.mp4")
    sources = {"images": ["s3://bucket/a.png"], "audio": ["s3://bucket/a.wav"], "files": ["s3://bucket/a.pdf", film]}
    response = await surface.client("wired:m", fetch="never").ask("?", **sources)

    def at(name: str) -> dict[str, Any]:
        return {"s3Location": {"uri": f"s3://bucket/{name}"}}

    assert wire.bodies[0]["messages"][0]["content"][1:] == [
        {"image": {"format": "png", "source": at("a.png")}},
        {"audio": {"format": "wav", "source": at("a.wav")}},
        {"document": {"format": "pdf", "name": "document", "source": at("a.pdf")}},
        {"video": {"format": "mp4", "source": at("a.mp4")}},
    ]
    assert response.warnings == ()


def test_every_type_that_bedrock_is_sent_has_a_word_in_the_service_model():
    words = get_session().get_service_model("bedrock-runtime")
    for kind, types in Bedrock().media.types.items():
        for media_type in types:
            part = kind(data=b"a", media_type=f"{media_type}x-lua" if media_type.endswith("/") else media_type)
            http, _ = Bedrock().encode_request(Request(model="m", messages=(user("?", part),)))
            ((block, medium),) = json.loads(http.body)["messages"][0]["content"][1].items()
            assert medium["format"] in words.shape_for(f"{block.capitalize()}Format").enum


def test_parts_that_were_made_survive_the_way_through_json():
    parts = (sabir.image(PNG), sabir.audio(WAV), sabir.file(PDF, name="a"), sabir.video("https://example.org/a.mov"))
    message = msgspec.structs.replace(user("?"), parts=parts)
    assert sabir.load_messages(sabir.dump_messages([message])) == (message,)
