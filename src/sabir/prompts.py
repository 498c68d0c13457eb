"""What people write when they ask, as messages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast, get_args

import msgspec

from .errors import ConfigurationError
from .media import audio, file, image
from .messages import Audio, Content, File, Image, Message, Part, Role, Text, system, user

Attachment = Image | Audio | File
Prompt = str | Message | Sequence[Message | Mapping[str, Any] | Content]

_PARTS: tuple[type, ...] = get_args(Part)
_ROLES: tuple[str, ...] = get_args(Role)


# The options that are sources of parts, and what makes parts of them, in the order in which they are shown.
_ATTACHED: dict[str, tuple[type[Attachment], Callable[[Any], Attachment]]] = {
    "images": (Image, image),
    "audio": (Audio, audio),
    "files": (File, file),
}


def attached(options: dict[str, Any]) -> tuple[Attachment, ...]:
    """Take the options `images`, `audio` and `files` out, as parts.

    Raises:
        ConfigurationError: one is no list, or a source in it cannot be read or is something else.
    """
    given = [(name, make, options.pop(name, None)) for name, (_, make) in _ATTACHED.items()]
    return tuple(make(source) for name, make, sources in given for source in _several(name, sources))


def as_messages(
    prompt: Prompt, attachments: Sequence[Attachment] = (), instructions: str | None = None
) -> tuple[Message, ...]:
    """A prompt as messages: a text, a message, a list of messages (or `{"role", "content"}`), a list of parts.

    `attachments` are added to its last message, `instructions` become the system message before it.

    Raises:
        ConfigurationError: it is none of these, or it has no message, or two system messages would begin it.
    """
    messages = with_system(_messages(prompt), instructions)
    if not messages:
        raise ConfigurationError("there is nothing to ask: the prompt has no messages")
    if not attachments:
        return messages
    last = messages[-1]
    if last.role != "user":
        option = next(name for name, (kind, _) in _ATTACHED.items() if isinstance(attachments[0], kind))
        raise ConfigurationError(f"{option}= go with a user's message, and the prompt does not end with one")
    return (*messages[:-1], msgspec.structs.replace(last, parts=(*last.parts, *attachments)))


def check_asks(messages: Sequence[Message]) -> None:
    """See to it that there is a question: formats leave out what is blank, and so would ask something else, or nothing.

    Raises:
        ConfigurationError: all is for the system, or the user's last message is blank.
    """
    said = [message for message in messages if message.role != "system"]
    if not said:
        raise ConfigurationError("there is nothing to ask: the prompt has only a system message; add a user's")
    if said[-1].role == "user" and all(isinstance(part, Text) and not part.text.strip() for part in said[-1].parts):
        raise ConfigurationError("there is nothing to ask: the prompt is blank")


def with_system(messages: tuple[Message, ...], instructions: str | None) -> tuple[Message, ...]:
    """The messages behind a system message.

    Raises:
        ConfigurationError: they begin with one already.
    """
    if instructions is None:
        return messages
    if not isinstance(instructions, str):
        raise ConfigurationError(f"system= is a text, not {type(instructions).__name__}")
    if messages and messages[0].role == "system":
        raise ConfigurationError("system= was given, and the messages begin with a system message already")
    return (system(instructions), *messages)


def history_of(messages: Iterable[Message | Mapping[str, Any]]) -> tuple[Message, ...]:
    """A list of messages, where each may be a `{"role", "content"}`."""
    return tuple(_message(message) for message in messages)


def _messages(prompt: Prompt) -> tuple[Message, ...]:
    if isinstance(prompt, str):
        return (user(prompt),)
    if isinstance(prompt, Message):
        return (prompt,)
    if isinstance(prompt, _PARTS):
        return (Message("user", (prompt,)),)  # type: ignore[arg-type]
    if isinstance(prompt, Mapping):
        return (_message(prompt),)
    if isinstance(prompt, (list, tuple)):
        if prompt and all(isinstance(item, (str, *_PARTS)) for item in prompt):
            return (user(*cast("list[Content]", prompt)),)
        return history_of(cast("list[Message]", prompt))
    raise ConfigurationError(f"a prompt is a text, messages or parts, not {type(prompt).__name__}")


def _message(value: Message | Mapping[str, Any]) -> Message:
    if isinstance(value, Message):
        return value
    if isinstance(value, Mapping) and value.keys() == {"role", "content"} and isinstance(value["content"], str):
        if value["role"] in _ROLES[:3]:
            return Message(value["role"], (Text(text=value["content"]),))
        raise ConfigurationError(f"{value['role']!r} is no role that takes a text; there are: {', '.join(_ROLES[:3])}")
    raise ConfigurationError(
        "a message is a sabir.Message or {'role': …, 'content': 'text'}; for anything more use sabir.user(…), "
        f"sabir.Message and its parts, not {type(value).__name__} {str(value)[:80]}"
    )


def _several(name: str, sources: Any) -> Iterable[Any]:
    if sources is None:
        return ()
    if not _is_list(sources):
        raise ConfigurationError(f"{name}= takes a list: {name}=[…]")
    several: Iterable[Any] = sources
    return several


def _is_list(sources: Any) -> bool:
    # What can be iterated may be one source all the same: a text, an open file, an array.
    is_one = isinstance(sources, (str, bytes, bytearray, memoryview)) or any(
        hasattr(sources, mark) for mark in ("read", "__array_interface__")
    )
    return isinstance(sources, Iterable) and not is_one
