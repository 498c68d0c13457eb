"""What a stream is made of, and the sum that turns it into a message; knows no wire format.

Ten kinds of delta carry every wire format. A decoder numbers parts in the order of their first appearance; the
`Assembler` adds deltas up at a cost that does not depend on how long the message already is, and refuses what does not
fit instead of guessing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import msgspec

from .errors import StreamProtocolError
from .messages import (
    Audio,
    File,
    Image,
    Message,
    Part,
    ProviderState,
    Refusal,
    ServerItem,
    Thinking,
    ToolCall,
)
from .messages import Text as TextPart
from .usage import NOTHING, Usage

PartKind = Literal["text", "thinking", "call", "refusal", "image", "audio", "file", "server"]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "refusal", "paused", "cancelled", "unknown"]


class Head(msgspec.Struct, frozen=True, gc=False, tag=True):
    """The answer's id, the model that gives it, and what else the wire says of the whole answer."""

    id: str | None = None
    model: str | None = None
    state: dict[str, Any] | None = None


class Open(msgspec.Struct, frozen=True, gc=False, tag=True):
    """A part begins. `id`, `name` are a call's (or file's); `media_type` a blob's; `choice` numbers the answers."""

    part: int
    kind: PartKind
    id: str | None = None
    name: str | None = None
    choice: int = 0
    state: dict[str, Any] | None = None
    media_type: str | None = None


class Text(msgspec.Struct, frozen=True, gc=False, tag=True):
    """More of a part's text: prose, thinking, the JSON of a call's arguments, a transcript."""

    part: int
    text: str


class Blob(msgspec.Struct, frozen=True, gc=False, tag=True):
    """More of a part's bytes."""

    part: int
    data: bytes


class Note(msgspec.Struct, frozen=True, gc=False, tag=True):
    """A citation, annotation or log probability of a part."""

    part: int
    value: Any


class State(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Keys of provider state for a part (None: the message); `id` and `name` where a call's come late."""

    part: int | None
    patch: dict[str, Any]
    id: str | None = None
    name: str | None = None


class Close(msgspec.Struct, frozen=True, gc=False, tag=True):
    """A part is complete. `final`, where the wire repeats the whole text, must extend what was streamed."""

    part: int
    final: str | None = None


class Count(msgspec.Struct, frozen=True, gc=False, tag=True):
    """The usage so far: cumulative, later fields replace earlier ones."""

    usage: Usage


class Finish(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Why one answer ended; `raw` is the reason as the wire spells it."""

    reason: FinishReason
    choice: int = 0
    raw: str | None = None
    detail: Any = None


class Event(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Something that adds nothing to the message (progress, ping, unknown); carried, not summed."""

    raw: Any


# A piece of text takes eight times the memory of what it says, so that they are joined before they are many.
MANY_PIECES = 128

# `choices` has a message for every number up to the highest, which is the server's to say.
MAX_CHOICES = 1024

Delta: TypeAlias = Head | Open | Text | Blob | Note | State | Close | Count | Finish | Event


class Assembler:
    """The sum of deltas. One owner; `add` in order, then read. Costs the same per delta however long the message."""

    def __init__(self, dialect: str, maker: str | None = None) -> None:
        self._dialect = dialect
        self._maker = maker
        self._drafts: list[_Draft] = []
        self._state: dict[str, Any] = {}
        self.id: str | None = None
        self.model: str | None = None
        self.usage: Usage = NOTHING
        self.finishes: dict[int, Finish] = {}

    def add(self, delta: Delta) -> None:
        """Add one delta.

        Raises:
            StreamProtocolError: it does not fit what came before; nothing is guessed or merged.
        """
        match delta:
            case Text():
                draft = self._draft(delta.part)
                draft.pieces.append(delta.text)
                if len(draft.pieces) == MANY_PIECES:
                    draft.press()
            case Open():
                _check_choice(delta.choice)
                if delta.part != len(self._drafts):
                    raise StreamProtocolError(f"part {delta.part} opens where part {len(self._drafts)} was due")
                self._drafts.append(_Draft(delta))
            case Blob():
                self._draft(delta.part).data.append(delta.data)
            case Note():
                self._draft(delta.part).notes.append(delta.value)
            case State():
                self._merge_state(delta)
            case Close():
                self._draft(delta.part).close(delta.final)
            case Count():
                self.usage = self.usage.updated(delta.usage)
            case Finish():
                _check_choice(delta.choice)
                self.finishes[delta.choice] = delta
            case Head():
                self.id = delta.id or self.id
                self.model = delta.model or self.model
                self._state.update(delta.state or {})
            case Event():
                pass

    @property
    def state(self) -> dict[str, Any]:
        """What the wire said of the answer as a whole, so far."""
        return self._state

    @property
    def choices(self) -> tuple[Message, ...]:
        """One message for each answer; at least one, empty if nothing came."""
        return (self.message(), *self.others())

    @property
    def finish_reasons(self) -> tuple[FinishReason, ...]:
        """Why each of the `choices` ended; "unknown" of one that did not say."""
        known = self.finishes
        return tuple(known[number].reason if number in known else "unknown" for number in range(self._width))

    def others(self, *, is_partial: bool = False) -> tuple[Message, ...]:
        """The messages of the answers after the first."""
        return tuple(self.message(number, is_partial=is_partial) for number in range(1, self._width))

    def message(self, choice: int = 0, *, is_partial: bool = False) -> Message:
        """The message as far as it has come; a call that has no name yet is no part of a partial one.

        Raises:
            StreamProtocolError: a call never got a name.
        """
        return Message(
            "assistant",
            tuple(
                draft.part(self._kept)
                for draft in self._drafts
                if draft.opening.choice == choice and not (is_partial and draft.is_nameless)
            ),
            id=self.id,
            model=self.model,
            state=self._kept(self._state),
        )

    @property
    def _width(self) -> int:
        return max({0, *(draft.opening.choice for draft in self._drafts), *self.finishes}) + 1

    def _kept(self, state: dict[str, Any]) -> ProviderState | None:
        return ProviderState(self._dialect, dict(state), self.model, self._maker) if state else None

    def _draft(self, part: int) -> _Draft:
        if not 0 <= part < len(self._drafts):
            raise StreamProtocolError(f"a delta for part {part}, which was never opened")
        draft = self._drafts[part]
        if draft.closed:
            raise StreamProtocolError(f"a delta for part {part}, which is already complete")
        return draft

    def _merge_state(self, delta: State) -> None:
        if delta.part is None:
            self._state.update(delta.patch)
        elif not 0 <= delta.part < len(self._drafts):
            raise StreamProtocolError(f"state for part {delta.part}, which was never opened")
        else:
            self._drafts[delta.part].merge(delta)


class _Draft:
    __slots__ = ("_pressed", "closed", "data", "id", "name", "notes", "opening", "pieces", "state")

    def __init__(self, opening: Open) -> None:
        self.opening = opening
        self.id = opening.id
        self.name = opening.name
        self.state = dict(opening.state or {})
        self.pieces: list[str] = []
        self._pressed: list[str] = []
        self.data: list[bytes] = []
        self.notes: list[Any] = []
        self.closed = False

    @property
    def is_nameless(self) -> bool:
        return self.opening.kind == "call" and not self.name

    def press(self) -> None:
        self._pressed.append("".join(self.pieces))
        self.pieces.clear()

    def merge(self, delta: State) -> None:
        for field, late in (("id", delta.id), ("name", delta.name)):
            known = getattr(self, field)
            if late is not None and known not in (None, late):
                raise StreamProtocolError(f"part {delta.part} has the {field} {known!r} and is now said to be {late!r}")
            setattr(self, field, known if late is None else late)
        self.state.update(delta.patch)

    def close(self, final: str | None) -> None:
        if final is not None:
            streamed = self._text()
            if not _units(final).startswith(_units(streamed)):
                raise StreamProtocolError(f"the complete part contradicts what was streamed: {streamed[:80]!r}…")
            self.pieces, self._pressed = [final], []
        self.closed = True

    def part(self, kept: Callable[[dict[str, Any]], ProviderState | None]) -> Part:
        state = kept(self.state)
        text = self._text()
        notes = tuple(self.notes)
        match self.opening.kind:
            case "text":
                return TextPart(text=text, notes=notes, state=state)
            case "thinking":
                return Thinking(text=text, notes=notes, state=state)
            case "refusal":
                return Refusal(text=text, state=state)
            case "call":
                if not self.name:
                    raise StreamProtocolError("a tool call came without the name of a tool")
                return ToolCall(name=self.name, input=text, id=self.id, state=state)
            case "image":
                return Image(data=b"".join(self.data), media_type=self.opening.media_type, state=state)
            case "audio":
                data = b"".join(self.data)
                kind = self.opening.media_type
                return Audio(data=data, media_type=kind, id=self.id, transcript=text or None, state=state)
            case "file":
                kind = self.opening.media_type
                return File(data=b"".join(self.data), media_type=kind, name=self.name, state=state)
            case "server":
                return ServerItem(kind=self.name or "item", text=text, id=self.id, state=state)

    def _text(self) -> str:
        return _joined([*self._pressed, *self.pieces])


def _check_choice(choice: int) -> None:
    if not 0 <= choice < MAX_CHOICES:
        raise StreamProtocolError(f"an answer is numbered {choice}; no call is given {MAX_CHOICES} of them")


def _units(text: str) -> bytes:
    # In UTF-16 the first half of a surrogate pair is a beginning of the pair.
    return text.encode("utf-16-le", "surrogatepass")


def _joined(pieces: list[str]) -> str:
    """Join the pieces of a text, and the halves of a surrogate pair that fell into two of them."""
    text = "".join(pieces)
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    return text
