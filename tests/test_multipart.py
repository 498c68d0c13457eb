"""Forms with files: what is written is read again byte for byte, and a stranger's names stay names."""

from __future__ import annotations

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sabir.dialects.multipart import MAX_FIELDS, Field, decode_form, encode_form
from sabir.errors import BadRequestError

# Half a surrogate pair has no bytes in UTF-8.
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\\%"), max_size=12)
TYPES = st.none() | st.sampled_from(["audio/mpeg", "image/png", "text/plain; charset=utf-8"])
DATA = st.binary(max_size=40) | st.sampled_from([b"\r\n", b"--", b"\r\n--", b"\r\n\r\n", b"--sabir-"])
FIELDS = st.builds(Field, NAMES, DATA) | st.builds(Field, NAMES, DATA, NAMES, TYPES)


def with_types(fields):
    """A file without a type is written as one of unknown bytes."""
    return [
        field
        if field.file is None
        else Field(field.name, field.data, field.file, field.media_type or "application/octet-stream")
        for field in fields
    ]


@given(st.lists(FIELDS, max_size=4))
def test_what_is_written_is_read_again(fields):
    assert decode_form(*encode_form(fields)) == with_types(fields)


@given(st.lists(FIELDS, max_size=3))
def test_the_same_form_is_the_same_bytes(fields):
    assert encode_form(fields) == encode_form(list(fields))


def test_a_boundary_that_stands_in_the_data_is_not_used():
    first = [Field("a", b"x")]
    boundary = encode_form(first)[0].rpartition("=")[2].encode()
    trap = [Field("a", b"\r\n--" + boundary + b"--\r\n"), Field("b", b"y")]
    assert decode_form(*encode_form(trap)) == trap


@pytest.mark.parametrize("name", ['a"; filename="/etc/passwd', "a\r\nX-Evil: 1", "a\n\nbody", "naïve 漢字.mp3", ""])
def test_a_name_cannot_leave_its_quotes(name):
    (field,) = decode_form(*encode_form([Field("file", b"data", name, "audio/mpeg")]))
    assert (field.name, field.file, field.data) == ("file", name, b"data")
    body = encode_form([Field("file", b"data", name, "audio/mpeg")])[1]
    assert b"\r\nX-Evil" not in body


def test_a_media_type_begins_no_header_of_a_strangers():
    body = encode_form([Field("file", b"data", "a.mp3", "audio/mpeg\r\nX-Evil: 1")])[1]
    assert b"\r\nX-Evil" not in body


def test_forms_of_httpx_are_read():
    """Its forms are those of every SDK of a vendor that is built on it."""
    request = httpx.Request(
        "POST",
        "http://host",
        data={"model": "m", "timestamp_granularities[]": ["word", "segment"]},
        files=[("file", ('na"me.mp3', b"ID3\r\n--x", "audio/mpeg")), ("image[]", ("b.png", b"", "image/png"))],
    )
    assert decode_form(request.headers["content-type"], request.read()) == [
        Field("model", b"m"),
        Field("timestamp_granularities[]", b"word"),
        Field("timestamp_granularities[]", b"segment"),
        Field("file", b"ID3\r\n--x", 'na"me.mp3', "audio/mpeg"),
        Field("image[]", b"", "b.png", "image/png"),
    ]


@pytest.mark.parametrize(
    ("content_type", "body", "reason"),
    [
        ("application/json", b"{}", "a form is wanted"),
        ("multipart/form-data", b"--x--\r\n", "a form is wanted"),
        ("multipart/form-data; boundary=x", b"", "does not end"),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nv',
            "does not end",
        ),
        ("multipart/form-data; boundary=x", b"hello--x\r\n--x--\r\n", "before the form"),
        ("multipart/form-data; boundary=x", b"hello\r\n--x--\r\n", "before the form's first field"),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\nv\r\n--x--\r\n", "no header"),
        ("multipart/form-data; boundary=x", b"--x\r\nA: b\r\n\r\nv\r\n--x--\r\n", "no name"),
    ],
)
def test_what_is_no_form_is_refused(content_type, body, reason):
    with pytest.raises(BadRequestError, match=reason):
        decode_form(content_type, body)


def test_a_form_of_too_many_fields_is_refused():
    with pytest.raises(BadRequestError, match="more than"):
        decode_form(*encode_form([Field("a", b"")] * (MAX_FIELDS + 1)))


@given(st.binary(max_size=200))
def test_random_bytes_are_a_form_or_refused(body):
    try:
        decode_form("multipart/form-data; boundary=x", body)
    except BadRequestError:
        pass
