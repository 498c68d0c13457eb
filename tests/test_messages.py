"""Messages compare, copy, pickle and come back from JSON as they were; and what their JSON never becomes."""

from __future__ import annotations

import copy
import json
import math
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sabir.errors import ConfigurationError, StreamProtocolError
from sabir.messages import (
    Audio,
    File,
    Image,
    Message,
    Part,
    ProviderState,
    Refusal,
    ServerItem,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    Value,
    assistant,
    dump_messages,
    load_messages,
    system,
    user,
)
from sabir.strict_json import decode_json, encode_json

FIXTURE = Path(__file__).parent / "fixtures" / "messages-v1.json"


def joined(text):
    """The text with the halves of surrogate pairs that happen to be neighbours joined, as any JSON reader would."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


texts = st.text(st.characters(exclude_categories=()), max_size=8).map(joined)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
optional = st.none() | texts
states = st.none() | st.builds(ProviderState, dialect=texts, value=plain, model=optional)
notes = st.lists(plain, max_size=2).map(tuple)


def media(kind, **fields):
    source = st.fixed_dictionaries({"data": st.binary(max_size=8)}) | st.fixed_dictionaries({"url": texts})
    return st.builds(
        lambda source, rest: kind(**source, **rest),
        source,
        st.fixed_dictionaries({"media_type": optional, "state": states, **fields}),
    )


shown = (
    st.builds(Text, text=texts, notes=notes, state=states)
    | media(Image, detail=optional)
    | st.builds(Value, value=plain, state=states)
)
parts = {
    Text: st.builds(Text, text=texts, notes=notes, state=states),
    Thinking: st.builds(Thinking, text=texts, notes=notes, state=states),
    ToolCall: st.builds(ToolCall, name=texts, input=texts, id=optional, synthetic=st.booleans(), state=states),
    ToolResult: st.builds(
        ToolResult,
        call_id=optional,
        name=texts,
        content=st.lists(shown, max_size=2).map(tuple),
        is_error=st.booleans(),
        state=states,
    ),
    Image: media(Image, detail=optional),
    Audio: media(Audio, id=optional, transcript=optional)
    | st.builds(Audio, id=texts, transcript=optional, state=states),
    File: media(File, name=optional) | st.builds(File, id=texts, name=optional, media_type=optional, state=states),
    Value: st.builds(Value, value=plain, state=states),
    Refusal: st.builds(Refusal, text=texts, state=states),
    ServerItem: st.builds(ServerItem, kind=texts, text=texts, id=optional, state=states),
}
messages = st.builds(
    Message,
    role=st.sampled_from(["system", "user", "assistant", "tool"]),
    parts=st.lists(st.one_of(*parts.values()), max_size=4).map(tuple),
    name=optional,
    id=optional,
    model=optional,
    state=states,
)


def test_every_kind_of_part_is_tried_below():
    assert set(parts) == set(get_args(Part))


@settings(deadline=None, max_examples=150)
@given(st.lists(messages, max_size=3).map(tuple))
def test_messages_come_back_from_json_copies_and_pickles_as_they_were(said):
    for again in (
        load_messages(dump_messages(said)),
        load_messages(dump_messages(said).encode()),
        copy.copy(said),
        copy.deepcopy(said),
        pickle.loads(pickle.dumps(said)),
    ):
        assert again == said
        assert [type(part) for message in again for part in message.parts] == [
            type(part) for message in said for part in message.parts
        ]


def test_a_deep_copy_shares_nothing_that_can_change():
    said = user(Value(value={"list": [1]}))
    other = copy.deepcopy(said)
    other.parts[0].value["list"].append(2)
    assert said == user(Value(value={"list": [1]}))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (user("a"), system("a")),
        (user("a", "b"), user("b", "a")),
        (user("ab"), user("a", "b")),
        (user(Text(text="a")), user(Thinking(text="a"))),
        (user(Text(text="a")), user(Refusal(text="a"))),
        (user(Image(data=b"a")), user(Image(data=b"b"))),
        (user(Image(data=b"a")), user(Audio(data=b"a"))),
        (user(Text(text="a")), user(Text(text="a", state=ProviderState("d", 1)))),
        (user(ToolCall(name="f", id="1")), user(ToolCall(name="f", id="2"))),
    ],
)
def test_messages_that_say_different_things_differ(one, other):
    assert one != other


def test_a_message_cannot_be_changed():
    said = user("a")
    with pytest.raises(AttributeError):
        said.role = "system"
    with pytest.raises(AttributeError):
        said.parts[0].text = "b"


def test_texts_thinking_refusals_and_calls_are_read_apart():
    call = ToolCall(name="f", input='{"x": 1}')
    said = assistant("a", Thinking(text="t"), call, "b", Refusal(text="no"), Refusal(text="!"))
    assert (said.text, str(said), said.thinking, said.refusal, said.tool_calls) == ("ab", "ab", "t", "no!", (call,))
    assert user("a").refusal is None
    assert call.arguments == {"x": 1}
    assert ToolCall(name="f", input="").arguments == {}


@pytest.mark.parametrize("written", ["{", "[1]", "7", "null", '{"x": NaN}', "{} {}", "[" * 100_000])
def test_arguments_that_are_no_object_are_refused_when_they_are_read(written):
    with pytest.raises(StreamProtocolError, match="'f'"):
        _ = ToolCall(name="f", input=written).arguments


def test_the_text_of_a_result_is_what_a_model_that_reads_only_text_is_shown():
    result = ToolResult(call_id="1", name="f", content=(Text(text="a "), Image(data=b"b"), Value(value={"c": None})))
    assert result.text == 'a {"c":null}'


@pytest.mark.parametrize("kind", [Image, Audio, File])
def test_the_repr_of_media_shows_no_bytes_and_no_more_than_a_line(kind):
    shown = repr(user(kind(data=b"\xde\xad" * 50_000, media_type="x/y")))
    assert "100000 bytes" in shown
    assert "x/y" in shown
    assert len(shown) < 200
    assert "https://example.org" in repr(kind(url="https://example.org"))


@pytest.mark.parametrize("kind", [Audio, File])
def test_the_repr_of_what_the_provider_keeps_names_it(kind):
    assert "file-1" in repr(kind(id="file-1"))
    assert "bytes" not in repr(kind(id="file-1"))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Image(),
        lambda: Image(data=b"a", url="https://example.org"),
        lambda: Audio(transcript="a"),
        lambda: Audio(data=b"", url=""),
        lambda: File(),
        lambda: File(data=b"a", id="file-1"),
        lambda: File(url="https://example.org", id="file-1"),
    ],
)
def test_media_of_no_source_or_two_is_refused(make):
    with pytest.raises(ConfigurationError, match=r"takes"):
        make()


def test_empty_bytes_and_an_empty_address_are_sources_all_the_same():
    for kind in (Image, Audio, File):
        assert kind(data=b"").data == b""
        assert kind(url="").url == ""


# The promise across versions.

FROZEN = (
    Message("system", (Text(text="Be brief."),)),
    Message(
        "user",
        (
            Text(text="Was ist das? 😀 \ud83d", notes=({"url": "https://example.org/1"}, 7, None)),
            Image(data=b"\x89PNG\r", media_type="image/png", detail="high"),
            Image(url="https://example.org/cat.jpg"),
            Audio(data=b"RIFF", media_type="audio/wav"),
            File(data=b"%PDF-", media_type="application/pdf", name="report.pdf"),
            File(url="https://example.org/report.pdf"),
            File(id="file-123"),
            Value(value={"answer": [42, 1.5, True, None, "x"]}),
            Value(value=None),
        ),
        name="ada",
    ),
    Message(
        "assistant",
        (
            Thinking(
                text="A cat.",
                notes=({"type": "reasoning.text"},),
                state=ProviderState("anthropic", {"signature": "EqQB=="}, "claude-sonnet-4-6"),
            ),
            Text(text="Let me look."),
            ToolCall(name="look", input='{"at": "cat"}', id="call_1"),
            ToolCall(name="look", input="", id="sabir-2", synthetic=True),
            ServerItem(kind="web_search", text="cats", id="ws_1"),
            Audio(url="https://example.org/a.mp3", transcript="A cat."),
            Audio(id="audio_1"),
            Refusal(text="I can't."),
        ),
        id="msg_1",
        model="claude-sonnet-4-6",
        state=ProviderState("anthropic", {"container": {"id": "c_1"}}),
    ),
    Message(
        "tool",
        (
            ToolResult(
                call_id="call_1",
                name="look",
                content=(Text(text="black"), Image(data=b"\x89PNG\r"), Value(value=[1, 2])),
            ),
            ToolResult(call_id=None, name="look", content=(), is_error=True),
        ),
    ),
    Message("user", (Text(text="All of it.", cache="1h"), Value(value=1, cache=True))),
)


def test_a_document_of_version_1_loads_for_ever():
    """The fixture stands for what users have stored. It may be added to, and what is in it is never changed."""
    assert load_messages(FIXTURE.read_bytes()) == FROZEN


def test_a_document_of_version_1_is_written_as_it_always_was():
    assert json.loads(dump_messages(FROZEN)) == json.loads(FIXTURE.read_bytes())


def test_the_stored_document_has_every_part_and_field():
    stored = json.loads(FIXTURE.read_bytes())["messages"]
    fields = {name for message in stored for name in message}
    kinds = {part["type"]: set() for message in stored for part in message["parts"]}
    for message in stored:
        for part in message["parts"]:
            kinds[part["type"]] |= part.keys()
    assert fields == set(Message.__struct_fields__)
    for kind in get_args(Part):
        known = set(kind.__struct_fields__) - {"state", "cache"}
        assert known <= kinds[kind.__struct_config__.tag], kind


def test_written_messages_name_their_format():
    assert json.loads(dump_messages([user("a")])) == {
        "format_version": 1,
        "messages": [{"role": "user", "parts": [{"type": "text", "text": "a"}]}],
    }


def test_fields_that_are_absent_have_their_defaults():
    (message,) = load_messages(part(type="tool_call", name="f"))
    assert message.parts == (ToolCall(name="f", input="", id=None, synthetic=False, state=None),)


def document(**message):
    return json.dumps({"format_version": 1, "messages": [{"role": "user", "parts": [], **message}]})


def part(**fields):
    return document(parts=[fields])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{}",
        "{",
        "NaN",
        "\ud800",
        b"\xff\xfe\xfd",
        "[" * 100_000,
        '{"messages": []}',
        '{"format_version": "1", "messages": []}',
        '{"format_version": null, "messages": []}',
        '{"format_version": true, "messages": []}',
        '{"format_version": 1}',
        '{"format_version": 1, "messages": {}}',
        '{"format_version": 1, "messages": [], "more": 1}',
        document(role="owner"),
        document(parts=None),
        document(parts=["a"]),
        document(extra=1),
        part(),
        part(type="text"),
        part(type="text", text=None),
        part(type="text", text="a", colour="red"),
        part(type="hologram", text="a"),
        part(type=None, text="a"),
        part(type=["text"], text="a"),
        part(type="\ud800", text="a"),
        part(type="image"),
        part(type="image", data="no base64!"),
        part(type="image", data="YQ==", url="https://example.org"),
        part(type="image", data=7),
        part(type="tool_call", name=7),
        part(type="tool_result", call_id="1", name="f", content=[{"type": "thinking", "text": "a"}]),
        part(type="text", text="a", state={"dialect": "d"}),
        part(type="text", text="a", state={"dialect": "d", "value": 1, "more": 1}),
    ],
)
def test_junk_is_no_document(text):
    with pytest.raises(ConfigurationError):
        load_messages(text)


def test_a_newer_document_is_refused_by_its_version_whatever_it_holds():
    with pytest.raises(ConfigurationError, match="format_version 2"):
        load_messages('{"format_version": 2, "threads": [{"type": "hologram"}]}')
    with pytest.raises(ConfigurationError, match="format_version 0"):
        load_messages('{"format_version": 0, "messages": []}')


class Stranger(msgspec.Struct, frozen=True, tag_field="type", tag="stranger"):
    """A class that exists and whose name the data will say."""

    text: str


@pytest.mark.parametrize(
    "name",
    ["stranger", "Stranger", f"{__name__}.Stranger", "Text", "sabir.messages.Text", "Message", "builtins.object", "os"],
)
def test_no_class_is_ever_made_by_a_name_in_the_data(name):
    with pytest.raises(ConfigurationError):
        load_messages(part(type=name, text="a"))


def test_data_that_looks_like_a_part_stays_data_where_data_belongs():
    looks = {"type": "text", "text": "a", "__class__": "os.system", "py/object": "os.system"}
    (message,) = load_messages(part(type="value", value=[looks]))
    assert message.parts == (Value(value=[looks]),)


@pytest.mark.parametrize(
    "value",
    [math.nan, [math.inf], {"a": {"b": (1, -math.inf)}}, object(), {"a": object()}, {1: {2: math.nan}}],
)
def test_what_json_cannot_say_is_refused_when_messages_are_written(value):
    for said in (
        user(Value(value=value)),
        user(Text(text="a", state=ProviderState("d", value))),
        user(Text(text="a", notes=(value,))),
    ):
        with pytest.raises(ConfigurationError, match="cannot be written"):
            dump_messages([said])


def test_values_nested_too_deeply_are_refused_when_messages_are_written():
    with pytest.raises(ConfigurationError, match="cannot be written"):
        dump_messages([user(Value(value=nested(100_000)))])


# JSON itself.


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


@dataclass
class Measured:
    value: float


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "around",
    [
        lambda number: number,
        lambda number: [number],
        lambda number: (1, number),
        lambda number: {"a": [{"b": number}, None]},
        lambda number: {"a": None, "\ud800": number},
        lambda number: {number},
        Measured,
    ],
)
def test_a_number_that_json_cannot_say_is_an_error_and_never_null(around, number):
    with pytest.raises(ValueError, match="JSON"):
        encode_json(around(number))


@settings(deadline=None, max_examples=150)
@given(plain)
def test_json_comes_back_as_it_was(value):
    encoded = encode_json(value)
    assert decode_json(encoded) == value
    assert decode_json(encoded.decode()) == value
    assert json.loads(encoded) == value


def test_none_is_null_at_every_depth():
    assert encode_json(None) == b"null"
    assert encode_json({"a": None, "null": [None, 1.5]}) == b'{"a":null,"null":[null,1.5]}'


@pytest.mark.parametrize(
    "text",
    [
        "NaN",
        "[NaN]",
        '{"a": Infinity}',
        "-Infinity",
        "1e999",
        '["\\ud800", NaN]',
        '["\\ud800", -1e999]',
        "",
        "{",
        "[1,]",
        "{'a': 1}",
        "01",
        "nul",
        "{} {}",
        "1" * 10_000,
        b"\xff",
        b'"\xed\xa0',
        "[" * 100_000,
        '{"a":' * 100_000,
        "[" * 100_000 + '"\\ud800"' + "]" * 100_000,
    ],
)
def test_what_is_no_json_is_a_value_error(text):
    with pytest.raises(ValueError):  # noqa: PT011 - which words it has is not the promise
        decode_json(text)


def test_halves_of_surrogate_pairs_pass_both_ways():
    assert decode_json('"\\ud83d"') == "\ud83d"
    assert decode_json('{"\\udE00": "a\\uD83D"}') == {"\ude00": "a\ud83d"}
    assert decode_json('"\\ud83d\\ude00"') == "😀"
    assert encode_json("a\ud83d") == b'"a\\ud83d"'
    assert json.loads(encode_json({"\ude00": ["é\ud83d", None, 1.5]})) == {"\ude00": ["é\ud83d", None, 1.5]}


def test_values_nested_too_deeply_are_a_value_error():
    with pytest.raises(ValueError, match="deep"):
        encode_json(nested(100_000))
    with pytest.raises(ValueError, match="deep"):
        encode_json(["\ud800", nested(100_000)])


def test_what_is_no_json_value_is_a_type_error():
    for value in (object(), {"a": object()}, {("a", 1): 2}, ["\ud800", b"x"]):
        with pytest.raises(TypeError):
            encode_json(value)
