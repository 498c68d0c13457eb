"""`client.image`: pictures, whole or as they come, on every surface, over real HTTP and from recorded answers."""

from __future__ import annotations

import base64
import json
import zlib
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers import Server, chunked, until, whole
from studio import KEY, Studio

import sabir
from sabir import (
    AuthenticationError,
    BadRequestError,
    CallEnded,
    CallStarted,
    ClosedError,
    ConfigurationError,
    ContentFilterError,
    DeadlineExceeded,
    FirstToken,
    Hook,
    Image,
    ImageResponse,
    RateLimitError,
    SabirWarning,
    StreamInterrupted,
    StreamProtocolError,
    Text,
    UnsupportedError,
)
from sabir.dialects.media_formats import Drawn, ImageAnswer, ImageRequest
from sabir.dialects.openai_images import OpenAIImages
from sabir.messages import Message, ProviderState
from sabir.providers import PROVIDERS
from sabir.requests import HttpRequest
from sabir.strict_json import decode_json
from sabir.testing import VirtualClock
from sabir.usage import Usage

RECORDINGS = Path(__file__).resolve().parent.parent.parent / "shared" / "recordings" / "openai-images.jsonl"


def png(colour: int) -> bytes:
    """A real picture of one pixel."""
    return sabir.image(sabir.Pixels(1, 1, bytes([colour, 0, 0]))).data


CAT, DOG = (Image(data=png(colour), media_type="image/png") for colour in (10, 200))
USAGE = Usage(input=14, output=272, reported_total=286)
ANSWER = ImageAnswer(images=(CAT,), usage=USAGE)
PIECES = (Drawn(DOG), Drawn(DOG), Drawn(CAT, is_final=True))


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def studio():
    with Studio(OpenAIImages(edits="json"), answer=ANSWER, pieces=PIECES) as made:
        yield made


def connect(surface, studio, model="openai:gpt-image-2", **settings):
    return surface.client(model, base_url=studio.url, **{"api_key": KEY, **settings})


def says(value, status="200 OK"):
    return whole(json.dumps(value).encode(), "Content-Type: application/json", status=status)


# What comes back


async def test_a_picture_is_made_of_words(surface, studio):
    made = await connect(surface, studio).image("a cat", size="1024x1024", quality="low", n=1)
    assert isinstance(made, ImageResponse)
    assert made.images == (CAT,)
    assert (made.images[0].data, made.images[0].media_type) == (CAT.data, "image/png")
    assert (made.usage, made.warnings, made.model, made.cost) == (USAGE, (), "gpt-image-2", None)
    (attempt,) = made.attempts
    assert (attempt.outcome, made.request_id) == ("answered", "req-7")
    (asked,) = studio.asked
    assert (asked.prompt, asked.size, asked.quality, asked.n) == ("a cat", "1024x1024", "low", 1)
    assert studio.server.calls[0].target == "/v1/images/generations"


async def test_a_picture_is_changed(surface, studio):
    made = await connect(surface, studio).image("make it red", images=[CAT.data, DOG], mask=DOG.data)
    assert made.images == (CAT,)
    (asked,) = studio.asked
    assert (asked.images, asked.mask) == ((CAT, DOG), DOG)
    assert studio.server.calls[0].target == "/v1/images/edits"


async def test_what_was_made_is_seen_by_a_model_again(surface, studio):
    client = connect(surface, studio)
    first = await client.image("a cat")
    await client.image("the same with a hat", images=first.images)
    assert studio.asked[1].images == (CAT,)
    assert first.message == Message("assistant", (CAT,))


async def test_pictures_are_saved(surface, studio, tmp_path):
    studio.answer = ImageAnswer(images=(CAT, DOG))
    made = await connect(surface, studio).image("two", n=2)
    assert made.save(tmp_path / "pet.png") == (tmp_path / "pet.png", tmp_path / "pet-2.png")
    assert [path.read_bytes() for path in sorted(tmp_path.iterdir(), reverse=True)] == [CAT.data, DOG.data]
    with pytest.raises(ConfigurationError, match="cannot be written"):
        made.save(tmp_path / "nowhere" / "pet.png")


async def test_what_a_picture_is_stands_in_its_bytes(surface):
    """xAI says JPEG of what it likes; a picture is what it is."""
    with Server(
        says({"data": [{"b64_json": base64.b64encode(CAT.data).decode(), "mime_type": "image/jpeg"}]})
    ) as server:
        client = surface.client("xai:grok-imagine-image", base_url=server.url, api_key=KEY)
        assert (await client.image("a cat")).images == (CAT,)


async def test_another_format_than_was_asked_for_is_told(surface, studio):
    studio.answer = ImageAnswer(images=(CAT, DOG))
    client = connect(surface, studio)
    assert (await client.image("two", n=2, format="png")).warnings == ()
    (notice,) = (await client.image("two", n=2, format="jpg")).warnings
    assert (notice.kind, notice.subject) == ("provider", "format")
    assert "format='jpg' was asked for, and image/png came" in str(notice)


async def test_what_the_provider_says_beyond_our_words_is_kept(surface):
    row = {"b64_json": base64.b64encode(CAT.data).decode(), "revised_prompt": "a nice cat"}
    body = {"created": 7, "data": [row], "usage": {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3, "more": 1}}
    with Server(says(body)) as server:
        made = await surface.client("openai:x", base_url=server.url, api_key=KEY).image("a cat")
    assert made.details == {"created": 7, "data.0": {"revised_prompt": "a nice cat"}, "usage": {"more": 1}}


async def test_fewer_pictures_than_were_asked_for_are_told(surface, studio):
    made = await connect(surface, studio).image("cats", n=3)
    (notice,) = made.warnings
    assert (notice.kind, notice.subject) == ("limit", "n")
    assert "3 pictures were asked for, and 1 came" in str(notice)


# Pictures that come as an address


async def test_a_picture_that_comes_as_an_address_is_loaded(surface):
    async def answer(call):
        if call.method == "POST":
            return await says({"data": [{"url": f"{server.url}/cat.png"}]})(call)
        return await whole(CAT.data, "Content-Type: image/png")(call)

    with Server(answer) as server:
        client = surface.client("openai:x", base_url=server.url, api_key=KEY, fetch="any")
        made = await client.image("a cat")
        async with client.stream_image("a cat") as stream:
            final = [chunk.content async for chunk in stream if chunk.is_image_progress()]
        assert [call.header("authorization") for call in server.calls if call.method == "GET"] == [None, None]
    assert made.images == (CAT,)
    assert [notice.kind for notice in made.warnings] == ["emulated"]
    assert [content["result"] for content in final] == [CAT.data]


async def test_pictures_that_come_both_ways_are_each_seen_once(surface):
    async def answer(call):
        if call.method == "GET":
            return await whole(DOG.data, "Content-Type: image/png")(call)
        rows = [{"url": f"{server.url}/dog.png"}, *[{"b64_json": base64.b64encode(CAT.data).decode()}] * 2]
        events = [{"type": "image_generation.completed", **row} for row in rows]
        return await chunked(*(b"data: %b\n\n" % json.dumps(event).encode() for event in events))(call)

    with Server(answer) as server:
        client = surface.client("openai:x", base_url=server.url, api_key=KEY, fetch="any")
        async with client.stream_image("three", n=3) as stream:
            results = [chunk.content["result"] async for chunk in stream if chunk.is_image_progress()]
    assert results == [CAT.data, DOG.data, CAT.data]
    assert stream.response.images == (DOG, CAT, CAT)


@pytest.mark.parametrize("fetch", ["public", "never"])
async def test_what_cannot_be_loaded_keeps_its_address(surface, fetch):
    """It has been paid for. An address in one's own network is not gone to on a stranger's word."""
    with Server(says({"data": [{"url": "http://127.0.0.1:9/cat.png"}]})) as server:
        made = await surface.client("openai:x", base_url=server.url, api_key=KEY, fetch=fetch).image("a cat")
        assert [call.method for call in server.calls] == ["POST"]
    assert made.images == (Image(url="http://127.0.0.1:9/cat.png"),)
    assert [notice.kind for notice in made.warnings] == ["dropped"]
    with pytest.raises(ConfigurationError, match="only an address"):
        made.save("cat.png")


async def test_a_picture_to_be_changed_is_loaded_where_the_server_fetches_none(surface, studio):
    studio.dialects = (OpenAIImages(),)
    with Server(whole(DOG.data, "Content-Type: image/png")) as web:
        client = connect(surface, studio, "openai-compat:draw", fetch="any")
        made = await client.image("a hat", images=[f"{web.url}/dog.png"])
    assert studio.asked[0].images == (DOG,)
    assert [(notice.kind, notice.subject) for notice in made.warnings] == [("emulated", "Image")]


async def test_openai_fetches_a_picture_to_be_changed_itself(surface, studio):
    made = await connect(surface, studio).image("a hat", images=["https://example.com/dog.png"])
    assert studio.asked[0].images == (Image(url="https://example.com/dog.png"),)
    assert made.warnings == ()


# As it comes


async def test_previews_are_seen_before_the_picture(surface, studio):
    async with connect(surface, studio).stream_image("a cat", previews=2) as stream:
        chunks = [chunk async for chunk in stream]
    assert [(chunk.phase, chunk.content) for chunk in chunks] == [
        ("image_generating", {"step": 1, "total_steps": 3, "image": DOG, "final": False, "result": None}),
        ("image_generating", {"step": 2, "total_steps": 3, "image": DOG, "final": False, "result": None}),
        ("image_generating", {"step": 3, "total_steps": 3, "image": None, "final": True, "result": CAT.data}),
        ("done", ""),
    ]
    assert stream.response.images == (CAT,)
    assert stream.response.usage == USAGE
    assert studio.asked[0].previews == 2
    assert studio.asked[0].stream


async def test_a_picture_that_is_ready_early_skips_its_last_previews(surface, studio):
    studio.pieces = (PIECES[0], PIECES[2])
    async with connect(surface, studio).stream_image("a cat", previews=3) as stream:
        steps = [(chunk.content["step"], chunk.content["final"]) async for chunk in stream if chunk.is_image_progress()]
    assert steps == [(1, False), (4, True)]


async def test_a_server_that_does_not_stream_gives_the_picture_at_once(surface, studio):
    with Server(says({"data": [{"b64_json": base64.b64encode(CAT.data).decode()}]})) as server:
        client = surface.client("openai:x", base_url=server.url, api_key=KEY)
        async with client.stream_image("a cat") as stream:
            chunks = [chunk async for chunk in stream]
    assert [chunk.phase for chunk in chunks] == ["image_generating", "done"]
    assert chunks[0].content == {"step": 1, "total_steps": 1, "image": None, "final": True, "result": CAT.data}


async def test_only_the_phases_that_were_asked_for_are_shown(surface, studio):
    async with connect(surface, studio).stream_image("a cat", include=["done"]) as stream:
        assert [chunk.phase async for chunk in stream] == ["done"]
    assert stream.response.images == (CAT,)


async def test_a_stream_that_breaks_off_is_told_with_what_came(surface, studio):
    studio.answer, studio.pieces = ImageAnswer(images=(CAT, DOG)), (Drawn(CAT, is_final=True), Drawn(DOG, 1, True))
    studio.breaks_after = 2
    client = connect(surface, studio)
    async with client.stream_image("two", n=2) as stream:
        with pytest.raises(StreamInterrupted) as caught:
            async for _ in stream:
                pass
    # The encoder keeps the last picture until it knows what all of them took.
    assert caught.value.partial == Message("assistant", (CAT,))
    assert caught.value.provider == "openai"
    with pytest.raises(StreamInterrupted):
        assert stream.response


async def test_leaving_a_stream_closes_the_socket(surface):
    async def answer(call):
        call.head("Content-Type: text/event-stream", "Transfer-Encoding: chunked")
        event = {"type": "image_generation.partial_image", "b64_json": base64.b64encode(DOG.data).decode()}
        call.chunk(b"data: %b\n\n" % json.dumps(event).encode())
        await call.forever()

    with Server(answer) as server:
        client = surface.client("openai:x", base_url=server.url, api_key=KEY)
        async with client.stream_image("a cat", previews=1) as stream:
            async for chunk in stream:
                assert chunk.content["image"] == DOG
                break
        assert await surface.in_thread(lambda: server.is_left_by_all(0.5))
        with pytest.raises(ClosedError):
            assert stream.response


async def test_closing_the_client_ends_a_picture_that_is_being_made(surface):
    async def answer(call):
        await call.forever()

    with Server(answer) as server:
        client = surface.client("openai:x", base_url=server.url, api_key=KEY)

        async def draw():
            with pytest.raises(ClosedError):
                await client.image("a cat")

        async def close():
            assert await surface.in_thread(lambda: until(lambda: bool(server.calls), 5))
            client.close()

        await surface.at_once(draw, close)


# What can go wrong


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (BadRequestError("Invalid value", status=400), BadRequestError),
        (ContentFilterError("no", status=400, code="content_policy_violation"), ContentFilterError),
    ],
)
async def test_errors_of_the_server_are_ours(surface, studio, failure, kind):
    studio.failures.append(failure)
    with pytest.raises(kind) as caught:
        await connect(surface, studio).image("a cat")
    assert (caught.value.provider, caught.value.model, len(caught.value.attempts)) == ("openai", "gpt-image-2", 1)


async def test_a_wrong_key_is_told_and_not_shown(surface, studio):
    with pytest.raises(AuthenticationError) as caught:
        await connect(surface, studio, api_key="wrong-key-of-mine").image("a cat")
    assert "wrong-key-of-mine" not in repr(caught.value)


async def test_what_may_pass_is_tried_again(surface, studio):
    studio.failures += [RateLimitError("slowly", status=429), RateLimitError("slowly", status=429)]
    clock = VirtualClock()
    made = await connect(surface, studio, runtime_wrappers=[clock]).image("a cat")
    assert [attempt.outcome for attempt in made.attempts] == ["RateLimitError", "RateLimitError", "answered"]
    assert len(studio.server.calls) == 3


async def test_a_deadline_holds(surface):
    async def answer(call):
        await call.forever()

    with Server(answer) as server:
        client = surface.client("openai:x", base_url=server.url, api_key=KEY, timeout=0.2)
        with pytest.raises(DeadlineExceeded):
            await client.image("a cat")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"data": []}, "not one image"),
        ({"created": 1}, "no images"),
        ({"data": [{}]}, "neither bytes nor an address"),
        ({"data": [{"b64_json": "…"}]}, "no base64"),
        ({"data": ["x"]}, "no images"),
    ],
)
async def test_an_answer_without_a_picture_is_an_error(surface, body, reason):
    with Server(says(body)) as server, pytest.raises(StreamProtocolError, match=reason):
        await surface.client("openai:x", base_url=server.url, api_key=KEY).image("a cat")


async def test_what_cannot_work_is_told_before_anything_is_sent(surface, studio):
    client = connect(surface, studio)
    for wrong, kind, reason in (
        ({"prompt": ""}, ConfigurationError, "takes a prompt"),
        ({"prompt": "a", "sise": "1x1"}, ConfigurationError, "did you mean 'size'"),
        ({"prompt": "a", "n": "two"}, ConfigurationError, "n: "),
        ({"prompt": "a", "n": 0}, ConfigurationError, "n"),
        ({"prompt": "a", "images": "cat.png"}, ConfigurationError, r"images=\[…\]"),
        ({"prompt": "a", "images": [b"no picture"]}, ConfigurationError, "no image"),
        ({"prompt": "a", "mask": CAT}, UnsupportedError, "give the picture"),
        ({"prompt": "a", "model": "pico"}, UnsupportedError, "makes no pictures.*There are: .*gemini.*openai"),
    ):
        prompt = wrong.pop("prompt")
        with pytest.raises(kind, match=reason):
            await client.image(prompt, **wrong)
    assert studio.server.calls == []


async def test_a_provider_that_edits_none_says_so(surface, studio):
    with pytest.raises(UnsupportedError, match="only draws by words"):
        await connect(surface, studio, "xai:grok-imagine-image").image("a hat", images=[CAT])


# What a provider has no word for


async def test_what_has_no_word_is_told(surface, studio):
    client = connect(surface, studio)
    with pytest.warns(SabirWarning, match="seed was not sent"):
        made = await client.image("a cat", seed=7)
    assert [(notice.kind, notice.subject) for notice in made.warnings] == [("unsupported", "seed")]
    with pytest.raises(UnsupportedError, match="seed was not sent"):
        await connect(surface, studio, on_unsupported="raise").image("a cat", seed=7)


async def test_previews_of_no_stream_are_told(surface, studio):
    with pytest.warns(SabirWarning, match="previews was not sent"):
        made = await connect(surface, studio).image("a cat", previews=2)
    assert [notice.subject for notice in made.warnings] == ["previews"]


@pytest.mark.parametrize("name", [name for name, row in PROVIDERS.items() if row.images is not None])
def test_every_option_has_a_verdict(name):
    fields = set(ImageRequest.__struct_fields__) - {"model", "prompt", "stream", "state"}
    assert set(PROVIDERS[name].images.verdicts()) == fields


async def test_extra_and_headers_go_to_the_wire(surface, studio):
    client = connect(surface, studio, headers={"x-mine": "1"})
    await client.image("a cat", extra={"moderation": "low"}, headers={"x-other": "2"})
    (call,) = studio.server.calls
    assert json.loads(call.body)["moderation"] == "low"
    assert (call.header("x-mine"), call.header("x-other")) == ("1", "2")


# Hooks and prices


class Witness(Hook):
    def __init__(self):
        self.events = []

    def on_start(self, event):
        self.events.append(event)

    def on_first_token(self, event):
        self.events.append(event)

    def on_end(self, event):
        self.events.append(event)


async def test_hooks_see_a_picture_made(surface, studio):
    witness = Witness()
    client = connect(surface, studio, hooks=[witness])
    made = await client.image("a cat", images=[DOG])
    start, end = witness.events
    assert (type(start), type(end)) == (CallStarted, CallEnded)
    assert start.messages == (Message("user", (DOG, Text(text="a cat"))),)
    assert (end.response.parsed, end.response.message, end.error) == (made, made.message, None)
    witness.events.clear()
    async with client.stream_image("a cat") as stream:
        assert [chunk async for chunk in stream]
    assert [type(event) for event in witness.events] == [CallStarted, FirstToken, CallEnded]


async def test_hooks_see_one_end_of_a_stream_that_is_left(surface, studio):
    witness = Witness()
    stream = connect(surface, studio, hooks=[witness]).stream_image("a cat")
    async for _ in stream:
        break
    stream.close()
    stream.close()
    assert [type(event) for event in witness.events] == [CallStarted, FirstToken, CallEnded]
    end = witness.events[-1]
    assert (end.response.finish_reason, end.error) == ("cancelled", None)


async def test_who_has_seen_the_last_of_it_may_leave(surface, studio):
    stream = connect(surface, studio).stream_image("a cat", previews=2)
    async for chunk in stream:
        if chunk.content["final"]:
            break
    stream.close()
    assert stream.response.images == (CAT,)
    assert stream.response.usage == USAGE


async def test_the_callers_own_prices_count(surface, studio):
    prices = {"openai:gpt-image-2": sabir.Prices(input=Decimal(5), output=Decimal(40))}
    made = await connect(surface, studio, prices=prices).image("a cat")
    assert made.cost.usd == (14 * Decimal(5) + 272 * Decimal(40)) / 1_000_000


async def test_what_the_provider_says_that_it_cost_counts(surface):
    row = {"b64_json": base64.b64encode(CAT.data).decode()}
    with Server(says({"data": [row], "usage": {"cost_in_usd_ticks": 200_000_000}})) as server:
        made = await surface.client("xai:grok-imagine-image", base_url=server.url, api_key=KEY).image("a cat")
    assert (made.cost.usd, made.cost.is_reported) == (Decimal("0.02"), True)


# The format, both halves

WORDS = st.text(max_size=8)
BEYOND = st.dictionaries(st.text("xyz", min_size=1, max_size=2), st.integers(0, 9) | WORDS, max_size=2)
PICTURES = st.binary(min_size=1, max_size=20).map(lambda data: Image(data=data, media_type="image/png"))


def http(path, body):
    return HttpRequest("POST", path, (("content-type", "application/json"),), json.dumps(body).encode())


KNOWN = st.fixed_dictionaries(
    {"prompt": st.text(min_size=1, max_size=8)},
    optional={
        "model": WORDS.filter(bool),
        "n": st.integers(1, 9),
        "size": WORDS,
        "quality": WORDS,
        "output_format": WORDS,
        "partial_images": st.integers(0, 3),
        "stream": st.booleans(),
        "seed": st.integers(0, 9),
        "user": st.none() | WORDS,
    },
)


@given(st.tuples(BEYOND, KNOWN).map(lambda both: both[0] | both[1]))
def test_a_request_survives_being_read(body):
    dialect = OpenAIImages()
    asked = http("/images/generations", body)
    again, _ = dialect.encode_request(dialect.decode_request(asked))
    assert dialect.canonical_request(again) == dialect.canonical_request(asked)


@given(BEYOND, st.lists(PICTURES, min_size=1, max_size=3), st.none() | PICTURES, st.sampled_from(["json", "form"]))
def test_a_request_to_change_pictures_survives_being_read(extra, images, mask, edits):
    dialect = OpenAIImages(edits=edits)
    asked = ImageRequest(model="m", prompt="p", images=tuple(images), mask=mask, n=2, extra=extra)
    sent, _ = dialect.encode_request(asked)
    read = dialect.decode_request(sent)
    assert (read.images, read.mask, read.n, read.prompt) == (tuple(images), mask, 2, "p")
    # Whatever the server's own habit is, what came as a form is a form again.
    for other in (OpenAIImages(edits="json"), OpenAIImages(edits="form")):
        again, _ = other.encode_request(other.decode_request(sent))
        assert other.canonical_request(again) == other.canonical_request(sent)


ROWS = st.tuples(BEYOND, PICTURES).map(lambda both: both[0] | {"b64_json": base64.b64encode(both[1].data).decode()})
ANSWERS = st.tuples(
    BEYOND,
    st.fixed_dictionaries(
        {"data": st.lists(ROWS, min_size=1, max_size=3)},
        optional={
            "created": st.integers(0, 9),
            "output_format": st.sampled_from(["png", "jpeg", "webp", "svg"]),
            "usage": st.fixed_dictionaries({}, optional={"input_tokens": st.integers(0, 9), "more": st.integers(0, 9)}),
        },
    ),
).map(lambda both: both[0] | both[1])


@given(ANSWERS)
def test_an_answer_survives_being_read(body):
    dialect, data = OpenAIImages(), json.dumps(body).encode()
    answer = dialect.decode_answer(ImageRequest(model="", prompt="x"), "application/json", data)
    kind, again = dialect.encode_response(ImageRequest(model="", prompt="x"), answer)
    before, after = (dialect.canonical_answer(kind, each) for each in (data, again))
    # An object with nothing in it says no more than none at all.
    assert {**after, **({"usage": {}} if before.get("usage") == {} else {})} == before


def pieces_of(dialect, asked, kind, pieces):
    decoder = dialect.decoder(asked, kind)
    return [piece for data in pieces for piece in decoder.feed(data)], decoder.close()


@given(st.lists(st.tuples(st.integers(0, 2), PICTURES), min_size=1, max_size=3), st.lists(st.integers(0, 2000)))
def test_a_stream_reads_the_same_however_it_is_cut(drawn, cuts):
    dialect, asked = OpenAIImages(), ImageRequest(model="m", prompt="p", stream=True, n=len(drawn))
    pieces = [
        piece
        for number, (previews, image) in enumerate(drawn)
        for piece in (*[Drawn(image, number)] * previews, Drawn(image, number, True))
    ]
    answer = ImageAnswer(images=tuple(image for _, image in drawn), usage=USAGE)
    encoder = dialect.encoder(asked)
    data = b"".join([*map(encoder.feed, pieces), encoder.close(answer)])
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    split = [data[start:end] for start, end in pairwise(places)]
    assert pieces_of(dialect, asked, encoder.content_type, split) == (pieces, answer)


def test_an_error_in_a_stream_is_raised():
    dialect, asked = OpenAIImages(), ImageRequest(model="m", prompt="p", stream=True)
    data = dialect.encoder(asked).fail(ContentFilterError("no", code="content_policy_violation"))
    with pytest.raises(ContentFilterError):
        pieces_of(dialect, asked, "text/event-stream", [data])


@pytest.mark.parametrize(
    ("path", "body", "reason"),
    [
        ("/images/generations", {"model": "m"}, "prompt"),
        ("/images/generations", {"prompt": "a", "n": 0}, "n"),
        ("/images/generations", {"prompt": 7}, "prompt"),
        ("/images/edits", {"prompt": "a"}, "images"),
        ("/images/edits", {"prompt": "a", "images": [{"file_id": "f"}]}, "image_url"),
        ("/images/edits", {"prompt": "a", "images": [{"image_url": "data:image/png;base64,!"}]}, "no base64"),
    ],
)
def test_what_the_format_does_not_allow_is_refused(path, body, reason):
    with pytest.raises(BadRequestError, match=reason):
        OpenAIImages().decode_request(http(path, body))


# Recorded traffic


RECORDED = [decode_json(line) for line in RECORDINGS.read_bytes().splitlines()] if RECORDINGS.exists() else []


@pytest.mark.skipif(not RECORDED, reason=f"there are no recordings at {RECORDINGS}")
async def test_recorded_answers_come_through_the_client(surface):
    answers = [each for each in RECORDED if each["response"]["status"] == 200]
    assert len(answers) == 11
    current = {}

    async def answer(call):
        await says(current["body"])(call)

    with Server(answer) as server:
        client = surface.client("openai:gpt-image-2", base_url=server.url, api_key=KEY, fetch="never")
        for exchange in answers:
            current["body"] = exchange["response"]["body"]
            made = await client.image("x")
            assert len(made.images) == len(exchange["response"]["body"]["data"])
            wanted = exchange["response"]["body"].get("usage", {})
            assert made.usage.total_tokens == wanted.get("total_tokens")


def test_a_picture_of_another_format_goes_to_this_one():
    """What another format says of a picture beyond our words is left out of a form."""
    part = msgspec.structs.replace(CAT, state=ProviderState("gemini", {"set": {"thoughtSignature": "x"}}))
    sent, _ = OpenAIImages().encode_request(ImageRequest(model="m", prompt="p", images=(part,)))
    assert b"thoughtSignature" not in sent.body
    assert zlib.crc32(CAT.data) == zlib.crc32(OpenAIImages().decode_request(sent).images[0].data)
