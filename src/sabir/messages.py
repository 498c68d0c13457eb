"""What was said: messages made of ordered parts, and their JSON; knows no wire format.

A `Message` keeps its parts in the order in which the model produced them. Any part can carry a `ProviderState`, an
opaque value that only the dialect and model that made it can read (a signature, an encrypted item), and a mark that
says that the prompt up to there is worth keeping.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypeAlias, TypeVar, overload

import msgspec

from .errors import ConfigurationError, StreamProtocolError
from .strict_json import decode_json, encode_json, is_object

FORMAT_VERSION = 1

Role = Literal["system", "user", "assistant", "tool"]
# Whether what stands before this place is to be kept by the provider, and for how long.
CacheMark: TypeAlias = bool | Literal["5m", "1h"]


class ProviderState(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """An opaque value handed back byte for byte to the dialect and `maker` of it, and to nobody else.

    `maker` is the server, or engine, whose answer it came with; None if that is not known.
    """

    dialect: str
    value: Any
    model: str | None = None
    maker: str | None = None


class _Part(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    repr_omit_defaults=True,
    tag_field="type",
):
    state: ProviderState | None = None
    cache: CacheMark | None = None


class Text(_Part, frozen=True, tag="text"):
    """Plain text; `notes` are the citations, annotations or log probabilities that came with it."""

    text: str
    notes: tuple[Any, ...] = ()


class Thinking(_Part, frozen=True, tag="thinking"):
    """The model's reasoning, as far as the provider shows it (a redacted one has an empty text and a state)."""

    text: str
    notes: tuple[Any, ...] = ()


class ToolCall(_Part, frozen=True, tag="tool_call"):
    """A wish of the model to call a tool. `input` is the JSON text as the model wrote it, valid or not.

    `synthetic` says that `id` was given by this library because the provider gave none.
    """

    name: str
    input: str = ""
    id: str | None = None
    synthetic: bool = False

    @property
    def arguments(self) -> dict[str, Any]:
        """The decoded arguments.

        Raises:
            StreamProtocolError: `input` is not a JSON object.
        """
        try:
            arguments = decode_json(self.input or "{}")
        except ValueError as error:
            raise StreamProtocolError(f"the arguments of the call of {self.name!r} are not JSON: {error}") from None
        if not is_object(arguments):
            raise StreamProtocolError(f"the arguments of the call of {self.name!r} are no JSON object: {self.input}")
        return arguments


class ToolResult(_Part, frozen=True, tag="tool_result"):
    """What came of a tool call: `call_id` names the call, `content` is what the model is shown."""

    call_id: str | None
    name: str
    content: tuple[Text | Image | Value, ...]
    is_error: bool = False

    @property
    def text(self) -> str:
        return "".join(
            part.text if isinstance(part, Text) else encode_json(part.value).decode() if isinstance(part, Value) else ""
            for part in self.content
        )


class _Media(_Part, frozen=True, kw_only=True, omit_defaults=True):
    media_type: str | None = None
    data: bytes | None = None
    url: str | None = None

    def __post_init__(self) -> None:
        if (self.data is None) == (self.url is None):
            raise ConfigurationError(f"a {type(self).__name__} part takes either `data` or `url`, and exactly one")

    def __repr__(self) -> str:
        if self.data is not None:
            source = f"data=<{len(self.data)} bytes>"
        else:
            source = f"url={self.url!r}" if self.url is not None else f"id={getattr(self, 'id', None)!r}"
        return f"{type(self).__name__}({source}, media_type={self.media_type!r})"


class Image(_Media, frozen=True, tag="image"):
    """An image: its bytes, or an address that the provider fetches itself."""

    detail: str | None = None


class Audio(_Media, frozen=True, tag="audio"):
    """A sound: its bytes or address (or only the provider's id of it), and the transcript where one was given."""

    id: str | None = None
    transcript: str | None = None

    def __post_init__(self) -> None:
        sources = [self.data is not None, self.url is not None]
        if all(sources) or not (any(sources) or self.id is not None):
            raise ConfigurationError("an Audio part takes `data` or `url`, or the `id` under which the provider has it")


class File(_Media, frozen=True, tag="file"):
    """A document."""

    name: str | None = None
    id: str | None = None

    def __post_init__(self) -> None:
        if sum(source is not None for source in (self.data, self.url, self.id)) != 1:
            raise ConfigurationError("a File part takes one of `data`, `url` and `id` (an upload), and exactly one")


class Value(_Part, frozen=True, tag="value"):
    """A JSON value that is shown to the model as JSON."""

    value: Any


class Refusal(_Part, frozen=True, tag="refusal"):
    """The model's words when it declines."""

    text: str


class ServerItem(_Part, frozen=True, tag="server"):
    """Something of the provider's own (a server-side tool's call or result); opaque, and kept in its place."""

    kind: str
    text: str = ""
    id: str | None = None


Part: TypeAlias = Text | Thinking | ToolCall | ToolResult | Image | Audio | File | Value | Refusal | ServerItem


class Message(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, repr_omit_defaults=True):
    """One turn of one speaker. Compares, copies, pickles and goes to JSON and back."""

    role: Role
    parts: tuple[Part, ...]
    name: str | None = None
    id: str | None = None
    model: str | None = None
    state: ProviderState | None = None

    def __str__(self) -> str:
        return self.text

    @property
    def text(self) -> str:
        """The text parts joined; thinking and refusals are not in it."""
        return "".join([part.text for part in self.parts if isinstance(part, Text)])

    @property
    def thinking(self) -> str:
        return "".join([part.text for part in self.parts if isinstance(part, Thinking)])

    @property
    def refusal(self) -> str | None:
        """The model's words of refusal, None if it did not refuse."""
        words = [part.text for part in self.parts if isinstance(part, Refusal)]
        return "".join(words) if words else None

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        return tuple(part for part in self.parts if isinstance(part, ToolCall))


Content: TypeAlias = str | Part


def system(*content: Content) -> Message:
    """Make a system message of texts and parts."""
    return Message("system", _parts(content))


def user(*content: Content) -> Message:
    """Make a user message of texts and parts, in the order given."""
    return Message("user", _parts(content))


def assistant(*content: Content) -> Message:
    """Make an assistant message, for a history that did not come from here."""
    return Message("assistant", _parts(content))


Cacheable = TypeVar("Cacheable", bound="Message | Part")


@overload
def cached(content: str, keep: Literal["5m", "1h"] | None = None) -> Text: ...
@overload
def cached(content: Cacheable, keep: Literal["5m", "1h"] | None = None) -> Cacheable: ...
def cached(content: Any, keep: Literal["5m", "1h"] | None = None) -> Any:
    """Mark a text, part or message: the prompt up to its end is worth keeping, and the same in other calls.

    Of a message the last part carries the mark. `keep` is for how long, where a provider has a choice; what a call says
    with `cache=` goes for marks without. Providers that keep prompts by themselves need none, and are sent none.

    Raises:
        ConfigurationError: there is nothing to mark: this is no text, part or message, or a message without parts.
    """
    mark: CacheMark = True if keep is None else keep
    if mark not in (True, "5m", "1h"):
        raise ConfigurationError(f"keep is '5m' or '1h', not {keep!r}")
    if isinstance(content, str):
        return Text(text=content, cache=mark)
    if isinstance(content, Message) and content.parts:
        return msgspec.structs.replace(content, parts=(*content.parts[:-1], cached(content.parts[-1], keep)))
    if not isinstance(content, _Part):
        kind = "a message without parts" if isinstance(content, Message) else type(content).__name__
        raise ConfigurationError(f"cached() takes a text, a part or a message with parts, not {kind}")
    return msgspec.structs.replace(content, cache=mark)


def _parts(content: Iterable[Content]) -> tuple[Part, ...]:
    return tuple(Text(text=item) if isinstance(item, str) else item for item in content)


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format_version: int
    messages: tuple[Message, ...]


class _Version(msgspec.Struct, frozen=True):
    format_version: int


def dump_messages(messages: Sequence[Message]) -> str:
    """Write messages as JSON text `{"format_version": 1, "messages": [...]}`; bytes become base64.

    Raises:
        ConfigurationError: a part holds what JSON cannot say (NaN, infinity, an object that is no JSON value).
    """
    try:
        document = msgspec.to_builtins(_Document(FORMAT_VERSION, tuple(messages)))
        return encode_json(document).decode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"these messages cannot be written as JSON: {error}") from None


def load_messages(text: str | bytes) -> tuple[Message, ...]:
    """Read what `dump_messages` wrote.

    Only the closed set of part types is ever made, never a class named by the data.

    Raises:
        ConfigurationError: not such a document, or one of a newer format version.
    """
    try:
        document = decode_json(text)
        version = msgspec.convert(document, _Version).format_version
        if version != FORMAT_VERSION:
            raise ConfigurationError(
                f"these messages have format_version {version}; this version of sabir reads {FORMAT_VERSION}"
            )
        return msgspec.convert(document, _Document).messages
    except (ValueError, RecursionError) as error:
        if isinstance(error, ConfigurationError):
            raise
        raise ConfigurationError(f"this is no document of sabir messages: {error}") from None
