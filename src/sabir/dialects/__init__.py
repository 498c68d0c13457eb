"""Wire formats, one file each: bytes to values and back, without I/O, clock or chance.

`Dialect` is what the rooms above know of a format of conversations, `EmbeddingDialect` of one of embeddings,
`RerankDialect` of one of rankings. A dialect is a frozen dataclass whose fields are the known quirks of the servers
that speak it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

import msgspec

from ..deltas import Assembler, Delta, FinishReason
from ..errors import ProviderError, SabirError, StreamProtocolError
from ..messages import Message, ProviderState, Text
from ..requests import HttpRequest, Notice, Request, Response, SchemaMode, Timings
from ..strict_json import decode_json, is_object
from ..strict_json import list_of as list_of
from ..strict_json import mapping_of as mapping_of
from ..usage import NOTHING, Usage


class Decoder(Protocol):
    """Turns the bytes of one streamed answer into deltas, however they are cut."""

    def feed(self, data: bytes) -> list[Delta]:
        """Decode what these bytes complete.

        Raises:
            SabirError: a malformed stream or an error sent in it; never before the deltas that preceded it are out.
        """
        ...

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to come: the end marker was seen, or `close` has an error to raise."""
        ...

    def close(self) -> list[Delta]:
        """The last deltas, once the bytes have ended.

        Raises:
            StreamInterrupted: the answer did not reach its end.
        """
        ...


class Encoder(Protocol):
    """Turns the deltas of one answer into the bytes of a stream."""

    def feed(self, delta: Delta) -> bytes:
        """What this delta adds to the stream; may be nothing."""
        ...

    def fail(self, error: SabirError) -> bytes:
        """An error that comes when the stream has begun."""
        ...

    def close(self) -> bytes:
        """The end of the stream."""
        ...


class Dialect(Protocol):
    """A wire format, both halves: the client's (encode a request, decode an answer) and the server's."""

    @property
    def name(self) -> str: ...

    def schema_modes(self, request: Request) -> tuple[SchemaMode, ...]:
        """The ways to an answer of the request's schema that this format has, best first.

        "native" is one of its own, "json" one of some JSON; "tool" says that a tool can be forced, "prompt" that a
        schema may be asked for. A request's schema is for this to encode where its mode is "native" or "json".
        """
        ...

    def encode_request(self, request: Request) -> tuple[HttpRequest, tuple[Notice, ...]]:
        """The request, its url relative to the provider's address and without a key, and what was lowered."""
        ...

    def decode_answer(self, body: bytes) -> list[Delta]:
        """A whole answer as the deltas that sum to it.

        Raises:
            SabirError: the body is no answer, or an error sent with status 200.
        """
        ...

    def decoder(self) -> Decoder: ...

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError: ...

    def decode_request(self, body: bytes) -> Request:
        """A client's request, strictly: what the format does not allow is refused.

        Raises:
            BadRequestError: the body is no request of this format; says where.
        """
        ...

    def encode_response(self, response: Response[Any]) -> bytes:
        """A whole answer."""
        ...

    def encoder(self, request: Request | None = None) -> Encoder:
        """For the answer to `request`, which may say what its stream is to have (None: all)."""
        ...

    def encode_error(self, error: SabirError) -> tuple[int, bytes]:
        """An error as status and body."""
        ...

    def canonical_request(self, body: dict[str, Any]) -> dict[str, Any]:
        """A request's body with this format's equivalent spellings made one; `encode(decode(b))` equals it."""
        ...

    def canonical_answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """The same of an answer's body."""
        ...


class Cursor(NamedTuple):
    """Where an answer that its server keeps has been read to: its id, and the number of the last event."""

    id: str
    number: int


class ResumableDecoder(Decoder, Protocol):
    """A decoder of answers that can be read on where their stream broke off."""

    @property
    def cursor(self) -> Cursor | None:
        """How far the answer has been read; None where nobody has said what it is called."""
        ...

    def go_on(self) -> None:
        """What is fed next are the bytes of another stream, which has what follows `cursor`."""
        ...


@runtime_checkable
class Resumable(Dialect, Protocol):
    """A `Dialect` of servers that may keep an answer, and make it whether or not it is read."""

    @property
    def background(self) -> bool:
        """Whether this kind of server does."""
        ...

    def in_background(self, request: Request) -> Request | None:
        """The request for an answer of that kind; None if the caller's own words say otherwise."""
        ...

    def decoder(self) -> ResumableDecoder: ...

    def encode_resume(self, request: Request, cursor: Cursor) -> HttpRequest:
        """What asks for the events after a place, its url relative to the provider's address and without a key."""
        ...

    def encode_cancel(self, request: Request, cursor: Cursor) -> HttpRequest:
        """What has the answer ended where it is."""
        ...

    def decode_resume(self, target: str) -> Cursor | None:
        """What a client asks for with a GET of this path and query; None of any other."""
        ...

    def events_after(self, stream: bytes, number: int) -> bytes:
        """What a stream has after the event of this number."""
        ...


EncodingFormat: TypeAlias = Literal["float", "base64"]
InputType: TypeAlias = Literal["query", "document"]


class EmbeddingRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is to be embedded, and how. None is unset.

    `inputs` are texts; a client of ours may also send what some servers take in their place, lists of token ids and
    objects (images). `encoding_format` is how vectors travel and changes nothing in them; `input_type` says whether the
    texts are searched for or searched in, which some models embed otherwise. `extra` and `headers` go to the wire as
    they are, `state` is what a decoded request said beyond these words.
    """

    model: str
    inputs: tuple[str | list[int] | dict[str, Any], ...]
    dimensions: Annotated[int, msgspec.Meta(ge=1)] | None = None
    encoding_format: EncodingFormat | None = None
    input_type: InputType | None = None
    user: str | None = None
    extra: dict[str, Any] = {}
    headers: dict[str, str] = {}
    state: ProviderState | None = None


class EmbeddingResponse(msgspec.Struct, frozen=True, kw_only=True):
    """One vector for each input, in the order of the inputs."""

    vectors: list[list[float]]
    usage: Usage = NOTHING
    model: str | None = None
    encoding_format: EncodingFormat = "float"
    state: ProviderState | None = None


class EmbeddingDialect(Protocol):
    """A wire format of embeddings, both halves. See `Dialect` for what the methods of the same names promise."""

    @property
    def name(self) -> str: ...

    @property
    def max_inputs(self) -> int | None:
        """The most inputs that a request may have; None is no limit."""
        ...

    @property
    def max_bytes(self) -> int | None:
        """The most bytes of text that a request may have, all its inputs together; one longer input goes alone."""
        ...

    @property
    def dimensions_of(self) -> Mapping[str, int]:
        """The length of a model's vectors, where it is known."""
        ...

    def encode_request(self, request: EmbeddingRequest) -> tuple[HttpRequest, tuple[Notice, ...]]: ...

    def decode_answer(self, body: bytes) -> EmbeddingResponse:
        """An answer, its vectors in the order of the inputs, whatever the order in which they came.

        Raises:
            SabirError: the body is no answer, a vector is none or has come twice, or an error sent with status 200.
        """
        ...

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError: ...

    def decode_request(self, body: bytes) -> EmbeddingRequest: ...

    def encode_response(self, response: EmbeddingResponse) -> bytes: ...

    def encode_error(self, error: SabirError) -> tuple[int, bytes]: ...

    def canonical_request(self, body: dict[str, Any]) -> dict[str, Any]: ...

    def canonical_answer(self, body: dict[str, Any]) -> dict[str, Any]: ...


class RerankRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is to be ranked by what, and how many are wanted (None: all).

    `documents` are texts; a client of ours may also send the objects that some servers take in their place. `extra`
    and `headers` go to the wire as they are, `state` is what a decoded request said beyond these words.
    """

    model: str
    query: str
    documents: tuple[str | dict[str, Any], ...]
    top_n: Annotated[int, msgspec.Meta(ge=0)] | None = None
    extra: dict[str, Any] = {}
    headers: dict[str, str] = {}
    state: ProviderState | None = None


class Rank(msgspec.Struct, frozen=True):
    """The document of this index, and how well it fits: the more, the better, on the model's own scale."""

    index: int
    score: float


class RerankResponse(msgspec.Struct, frozen=True, kw_only=True):
    """The ranks in the order in which they came, no document twice."""

    ranks: tuple[Rank, ...]
    usage: Usage = NOTHING
    model: str | None = None
    state: ProviderState | None = None


class RerankDialect(Protocol):
    """A wire format of rankings, both halves. See `Dialect` for what the methods of the same names promise."""

    @property
    def name(self) -> str: ...

    @property
    def max_documents(self) -> int | None:
        """The most documents that a request may have; None is no limit that we know."""
        ...

    def encode_request(self, request: RerankRequest) -> tuple[HttpRequest, tuple[Notice, ...]]: ...

    def decode_answer(self, body: bytes) -> RerankResponse:
        """An answer.

        Raises:
            SabirError: the body is no answer, a document is ranked twice, or an error sent with status 200.
        """
        ...

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError: ...

    def decode_request(self, body: bytes) -> RerankRequest: ...

    def encode_response(self, response: RerankResponse) -> bytes: ...

    def encode_error(self, error: SabirError) -> tuple[int, bytes]: ...

    def canonical_request(self, body: dict[str, Any]) -> dict[str, Any]: ...

    def canonical_answer(self, body: dict[str, Any]) -> dict[str, Any]: ...


def response_of(dialect: str, deltas: Iterable[Delta]) -> Response[None]:
    """The sum of an answer's deltas; it knows of no time that passed and no attempt that was made."""
    total = Assembler(dialect)
    for delta in deltas:
        total.add(delta)
    message, finish = total.message(), total.finishes.get(0)
    return Response(
        message=message,
        parsed=None,
        messages=(message,),
        usage=total.usage,
        timings=Timings(0.0),
        finish_reason=finish.reason if finish else "unknown",
        model=total.model or "",
        choices=total.choices,
        finish_reasons=total.finish_reasons,
    )


def choices_of(response: Response[Any]) -> tuple[tuple[Message, ...], tuple[FinishReason, ...]]:
    """The answers of a response, and why each of them ended."""
    messages = response.choices or (response.message,)
    untold: list[FinishReason] = ["unknown"]
    reasons = (response.finish_reason, *response.finish_reasons[1:], *untold * len(messages))
    return messages, reasons[: len(messages)]


def lost_citations(messages: Iterable[Message], is_own: Callable[[Any], bool]) -> list[Notice]:
    """What to say of citations in a history that another format spells otherwise, and which are not sent.

    Log probabilities go back to nobody, and are no loss.
    """
    notes = (note for message in messages for part in message.parts if isinstance(part, Text) for note in part.notes)
    if number := sum(not is_own(note) and "logprob" not in mapping_of(note) for note in notes):
        return [Notice("dropped", "citations", f"{number} citations that another API spelled were left out")]
    return []


def broken_off(error: SabirError, dialect: str, deltas: Iterable[Delta]) -> SabirError:
    """The error of a whole answer that says of itself that it is none, with what came of it all the same."""
    total = Assembler(dialect)
    for delta in deltas:
        total.add(delta)
    error.partial = total.message(is_partial=True)
    return error


class Unsupported(str):
    """The verdict on a portable parameter that a format cannot express: the reason, and what to do instead."""

    __slots__ = ()


Verdicts = Mapping[str, str | Unsupported]

NO_DOCUMENTS = Unsupported("this API takes no documents beside the messages; put them into the prompt")


def event_object(payload: bytes) -> dict[str, Any]:
    """An event of a stream, in a format where each is a JSON object.

    Raises:
        StreamProtocolError: this is none.
    """
    try:
        value = decode_json(payload)
    except ValueError as error:
        text = payload[:1000].decode("utf-8", "replace")
        raise StreamProtocolError(f"an event of the stream is no JSON: {error}", body=text) from None
    if not is_object(value):
        raise StreamProtocolError(f"an event of the stream is no JSON object: {str(value)[:80]}")
    return value


def text_of(value: Any) -> str | None:
    """The value if it is a string with something in it; wire fields may hold anything."""
    return value if isinstance(value, str) and value else None


def count_of(value: Any) -> int | None:
    """The value if it is a plausible count of tokens."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return int(value) if is_number and 0 <= value < 2**53 else None
