"""OpenAI's legacy completions, both halves: raw text goes in and is gone on with. Knows no provider, only quirks.

Sources: https://platform.openai.com/docs/api-reference/completions, the servers of vLLM and llama.cpp, and recorded
exchanges. There are no roles, no tools and no template: each user message is one prompt, sent as it stands, and the
choices are numbered over the prompts and the `n` answers to each. What is the same as in chat completions (events,
heads, usage, the end) is read and told by that dialect; a choice's text stands here where its message stands there.

A stream ends at `[DONE]`, or when every choice that has begun has told its finish reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

import msgspec

from ..deltas import Assembler, Count, Delta, FinishReason, Open, State
from ..errors import ProviderError, SabirError, ServerError, StreamProtocolError, UnsupportedError
from ..messages import Message, Part, ProviderState, Refusal, Text, Value
from ..requests import HttpRequest, Notice, Options, Request, Response, SchemaMode
from ..strict_json import decode_json, encode_json, is_array, is_object
from ..usage import NOTHING, Usage
from . import Unsupported, Verdicts, choices_of, count_of, list_of, mapping_of
from .bodies import post, refused, request_of, shown
from .cache_marks import BY_THEMSELVES, keyed
from .failures import failure_object, provider_error
from .frames import Frame
from .leftovers import difference, own_state, patched, without_nulls
from .openai_chat import _WIRE_FINISH, OPENAI_RANGES, ChatDecoder, ChatEncoder, _WireReader, usage_from, usage_object
from .places import no_place
from .ranges import Ranges, check_read, check_sent

NAME = "openai_completions"

_NO_CHAT = Unsupported("a raw completion has no such thing; ask() has")
# https://platform.openai.com/docs/api-reference/completions/create: of an echo, nothing more may be wanted.
RANGES: Ranges = {**OPENAI_RANGES, "max_tokens": (0, inf)}
# The verdict on each portable parameter: the wire's word for it, or why there is none.
COMPLETION_PARAMETERS: Verdicts = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": Unsupported("this API has no top_k; use top_p"),
    "min_p": Unsupported("this API has no min_p; use top_p"),
    "max_tokens": "max_tokens",
    "stop": "stop",
    "seed": "seed",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "repetition_penalty": Unsupported("this API has no repetition_penalty; use frequency_penalty"),
    "thinking": _NO_CHAT,
    "tool_choice": _NO_CHAT,
    "parallel_tool_calls": _NO_CHAT,
    "logprobs": "logprobs",
    "top_logprobs": "logprobs",
    "n": "n",
    "user": "user",
    "documents": Unsupported("a raw completion takes no documents beside the prompt; put them into it"),
    "schema": Unsupported("a raw completion is held to no schema; ask() is, and some servers take one in extra={…}"),
}
# Servers that run open models take the samplers too.
OPEN_COMPLETION_PARAMETERS: Verdicts = {
    **COMPLETION_PARAMETERS,
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "repetition_penalty",
}

# The columns of log probabilities, one entry a token, and what an entry is called here, where each token has a row.
_COLUMNS = {
    "tokens": "token",
    "token_logprobs": "logprob",
    "top_logprobs": "top_logprobs",
    "text_offset": "text_offset",
}
_ROW = frozenset(_COLUMNS.values())
_NO_TOKENS = "a text, a list of tokens, or a list of these is wanted"


@dataclass(frozen=True)
class OpenAICompletions:
    """The dialect with the quirks of one kind of server.

    Attributes:
        parameters: the verdict on each portable parameter.
        least_logprobs: how many alternatives have to be asked for that a token's own log probability is told.
    """

    parameters: Verdicts = field(default_factory=lambda: COMPLETION_PARAMETERS)
    least_logprobs: int = 0

    name = NAME

    def verdicts(self) -> Verdicts:
        """The verdict on every portable parameter."""
        return {**self.parameters, "cache": BY_THEMSELVES.verdict(), "extra": "(as given)", "headers": "(as given)"}

    def schema_modes(self, request: Request) -> tuple[SchemaMode, ...]:
        return ()

    def encode_request(self, request: Request) -> tuple[HttpRequest, tuple[Notice, ...]]:
        check_sent(request, RANGES, self.parameters)
        body, notices = self.encode_body(request)
        return post("/completions", body, request.headers), notices

    def encode_body(self, request: Request) -> tuple[dict[str, Any], tuple[Notice, ...]]:
        """The JSON body, and what had to be lowered; `request.extra` goes over it as it is.

        Raises:
            UnsupportedError: the request is a conversation, not a prompt.
        """
        if request.tools:
            raise UnsupportedError("a raw completion calls no tools; ask() does")
        notices: list[Notice] = [*keyed(request, BY_THEMSELVES)[1]]
        body: dict[str, Any] = {"model": request.model}
        prompts = [_prompt(message, notices) for message in request.messages]
        if prompts:
            body["prompt"] = prompts[0] if len(prompts) == 1 else prompts
        if request.stream:
            body.update(stream=True, stream_options={"include_usage": True})
        for parameter, verdict in self.parameters.items():
            value = getattr(request, parameter)
            if value is not None and isinstance(verdict, Unsupported):
                notices.append(Notice("unsupported", parameter, f"{parameter} was not sent: {verdict}"))
            elif value is not None and parameter not in ("logprobs", "top_logprobs"):
                body[verdict] = list(value) if parameter == "stop" else value
        self._ask_for_logprobs(request, body, notices)
        body = {**patched(body, _own(request.state, "request", notices)), **request.extra}
        return body, tuple(notices)

    def _ask_for_logprobs(self, request: Request, body: dict[str, Any], notices: list[Notice]) -> None:
        word, asked, most = self.parameters["logprobs"], request.logprobs, request.top_logprobs
        if isinstance(word, Unsupported):
            return
        if asked is False and most is not None:
            notices.append(
                Notice("dropped", "top_logprobs", "top_logprobs was not sent, since logprobs=False goes against it")
            )
        elif asked or most is not None:
            body[word] = self.least_logprobs if most is None else most

    def decode_answer(self, body: bytes) -> list[Delta]:
        try:
            value = decode_json(body)
        except ValueError as error:
            raise ServerError(f"the answer is no JSON: {error}", status=200, body=shown(body)) from None
        reader = _CompletionReader(is_whole=True)
        deltas = reader.read(value)
        if not any(is_object(choice) for choice in list_of(mapping_of(value).get("choices"))):
            raise StreamProtocolError("the answer has no choices", body=shown(body))
        deltas.extend(reader.ending_of(deltas))
        return [*deltas, State(None, _leftovers(self.canonical_answer(value), deltas))]

    def decoder(self) -> CompletionDecoder:
        return CompletionDecoder()

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        return provider_error(status, headers, body)

    def decode_request(self, body: bytes) -> Request:
        wire = self.canonical_request(request_of(body))
        # Some servers have the model in their address.
        if not isinstance(model := wire.get("model", ""), str):
            raise refused("model", "a string is wanted")
        if not isinstance(stream := wire.get("stream", False), bool):
            raise refused("stream", "true or false is wanted")
        request = Request(
            model=model, messages=tuple(_messages(wire.get("prompt"))), stream=stream, **self._options(wire)
        )
        ours, _ = self.encode_body(request)
        patch = difference(*({name: it for name, it in side.items() if name != "prompt"} for side in (wire, ours)))
        return msgspec.structs.replace(request, state=ProviderState(NAME, patch)) if patch else request

    def _options(self, wire: dict[str, Any]) -> dict[str, Any]:
        words = {
            name: word
            for name, word in self.parameters.items()
            if not isinstance(word, Unsupported) and wire.get(word) is not None
        }
        options = {name: wire[word] for name, word in words.items() if name not in ("logprobs", "top_logprobs")}
        if "logprobs" in words:
            most = wire[words["logprobs"]]
            options.update({"logprobs": True, **({} if most == self.least_logprobs else {"top_logprobs": most})})
        try:
            msgspec.convert(options, Options)
        except (msgspec.ValidationError, UnicodeError) as error:
            what, _, where = str(error).partition(" - at `$.")
            name, bracket, rest = where.rstrip("`").partition("[")
            raise refused(f"{words.get(name, name)}{bracket}{rest}", what) from None
        check_read(options, RANGES, words)
        return {**options, **({"stop": tuple(options["stop"])} if "stop" in options else {})}

    def encode_response(self, response: Response[Any]) -> bytes:
        messages, finishes = choices_of(response)
        answer = _answer(messages, finishes, response.usage, response.model or None)
        state = own_state(response.message.state, NAME)
        answer["choices"] = [
            {"finish_reason": None, **patched(choice, state.get(f"choices.{number}", {}))}
            for number, choice in enumerate(answer["choices"])
        ]
        if usage := patched(answer.get("usage", {}), state.get("usage", {})):
            answer["usage"] = usage
        return encode_json(patched(answer, state.get("answer", {})))

    def encoder(self, request: Request | None = None) -> CompletionEncoder:
        unwanted = () if request is None else own_state(request.state, NAME).get("unset", ())
        return CompletionEncoder(has_usage="stream_options" not in unwanted)

    def encode_error(self, error: SabirError) -> tuple[int, bytes]:
        return failure_object(error)

    def canonical_request(self, body: dict[str, Any]) -> dict[str, Any]:
        """What means the same is made the same: null is absent, and so is `stream: false`; a stop string is a list of
        it, a list of one prompt is the prompt, and a wish for log probabilities is the least number that fulfils it.
        """
        wire: dict[str, Any] = without_nulls(body)
        if isinstance(wire.get("stop"), str):
            wire["stop"] = [wire["stop"]]
        if wire.get("stream") is False:
            del wire["stream"]
        if isinstance(asked := wire.get("logprobs"), bool):
            wire["logprobs"] = self.least_logprobs if asked else None
        wire = {name: value for name, value in wire.items() if value is not None}
        prompt = wire.get("prompt")
        if is_array(prompt) and len(prompt) == 1 and (isinstance(prompt[0], (str, dict)) or _is_tokens(prompt[0])):
            wire["prompt"] = prompt[0]
        return wire

    def canonical_answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """Null is the same as absent; nothing else is."""
        canonical: dict[str, Any] = without_nulls(body)
        return canonical


def _own(state: ProviderState | None, what: str, notices: list[Notice]) -> dict[str, Any]:
    """What the wire said beyond our words; someone else's is left out, and said to be."""
    if state is not None and state.dialect != NAME and "set" in mapping_of(state.value):
        names = ", ".join(mapping_of(state.value["set"]))
        notices.append(Notice("dropped", what, f"what only {state.dialect} knows was left out of a {what}: {names}"))
    return own_state(state, NAME)


def _prompt(message: Message, notices: list[Notice]) -> Any:
    """A prompt as it is sent: a text, or the list of tokens or the object that stands in the place of one."""
    if message.role != "user":
        raise UnsupportedError(
            f"a raw completion knows no roles, and a message of the role {message.role!r} was to be sent; put its "
            "words into the prompt, or use ask()"
        )
    if message.name is not None:
        notices.append(Notice("dropped", "name", f"the name {message.name!r} of a message was left out of its prompt"))
    match message.parts:
        case (Value() as part,) if _is_tokens(part.value) or own_state(part.state, NAME).get("form") == "prompt":
            return part.value
        case parts:
            return "".join(map(_words, parts))


def _words(part: Part) -> str:
    match part:
        case Text():
            return part.text
        case Value() if not _is_tokens(part.value):
            return encode_json(part.value).decode()
        case Value():
            raise UnsupportedError("a list of tokens is a prompt of its own, and has no place beside others")
        case _:
            raise no_place(part)


def _is_tokens(value: Any) -> bool:
    """Whether this is one prompt, tokenized: ids, among which llama.cpp's server takes texts too."""
    are_ids = [isinstance(item, int) and not isinstance(item, bool) for item in list_of(value)]
    return any(are_ids) and all(is_id or isinstance(it, str) for is_id, it in zip(are_ids, value, strict=True))


def _messages(prompt: Any) -> Iterable[Message]:
    """The messages of a canonical request's prompt; of none, a model that may begin anywhere.

    Raises:
        BadRequestError: it is no prompt; says where.
    """
    if prompt is None:
        return
    is_several = is_array(prompt) and not _is_tokens(prompt)
    if is_several and not prompt:
        raise refused("prompt", _NO_TOKENS)
    for at, item in enumerate(prompt if is_several else [prompt]):
        if isinstance(item, str):
            part: Part = Text(text=item)
        elif _is_tokens(item):
            part = Value(value=item)
        elif is_object(item):
            # llama.cpp's server has the pictures of a prompt so.
            part = Value(value=item, state=ProviderState(NAME, {"form": "prompt"}))
        else:
            raise refused(f"prompt[{at}]" if is_several else "prompt", _NO_TOKENS)
        yield Message("user", (part,))


def _answer(
    messages: Sequence[Message], finishes: Sequence[FinishReason], usage: Usage, model: str | None
) -> dict[str, Any]:
    """What we understand of an answer, as its wire object."""
    answer: dict[str, Any] = {"object": "text_completion", "model": model, "choices": []}
    if messages[0].id is not None:
        answer["id"] = messages[0].id
    for number, message in enumerate(messages):
        choice: dict[str, Any] = {"index": number, "text": "".join(map(_said, message.parts))}
        if (reason := _WIRE_FINISH.get(finishes[number])) is not None:
            choice["finish_reason"] = reason
        notes = [note for part in message.parts if isinstance(part, Text) for note in part.notes]
        if rows := [note["logprob"] for note in notes if "logprob" in mapping_of(note)]:
            choice["logprobs"] = _columns(rows)
        answer["choices"].append(choice)
    if usage != Usage():
        answer["usage"] = usage_object(usage)
    return answer


def _said(part: Part) -> str:
    if isinstance(part, (Text, Refusal)):
        return part.text
    raise _no_place(type(part).__name__)


def _no_place(kind: str) -> UnsupportedError:
    return UnsupportedError(f"a text completion is a text, and has no place for a {kind} part")


def _leftovers(value: dict[str, Any], deltas: Iterable[Delta]) -> dict[str, Any]:
    """What a whole answer says beyond what its deltas sum to, by the place where it says it."""
    total = Assembler(NAME)
    for delta in deltas:
        total.add(delta)
    messages = total.choices
    ours = _answer(messages, total.finish_reasons, total.usage, total.model)
    apart = ("choices", "usage") if mapping_of(value.get("usage")) else ("choices",)
    sides = [{name: item for name, item in side.items() if name not in apart} for side in (value, ours)]
    found = {"answer": difference(*sides), "usage": difference(mapping_of(value.get("usage")), ours.get("usage", {}))}
    choices = list_of(value.get("choices"))
    if len(choices) != len(messages) or not all(is_object(choice) for choice in choices):
        found["answer"] = {**found["answer"], "set": {**found["answer"].get("set", {}), "choices": choices}}
    else:
        for number, (choice, mine) in enumerate(zip(choices, ours["choices"], strict=True)):
            found[f"choices.{number}"] = difference(choice, mine)
    return {place: patch for place, patch in found.items() if patch or place in total.state}


def _rows(logprobs: Any) -> list[Any]:
    """What is said of each token. In llama.cpp's answers these are the rows of chat completions already."""
    wire = mapping_of(logprobs)
    if is_array(rows := wire.get("content")):
        return rows
    columns = {ours: list_of(wire.get(theirs)) for theirs, ours in _COLUMNS.items()}
    return [
        {
            name: [{"token": token, "logprob": it} for token, it in entry.items()] if is_object(entry) else entry
            for name, column in columns.items()
            if (entry := column[at] if at < len(column) else None) is not None
        }
        for at in range(len(columns["token"]))
    ]


def _columns(rows: Sequence[Any]) -> dict[str, Any]:
    """The log probabilities of these tokens: in columns if nothing is lost by it, else as the rows they are."""
    if not all(map(_is_plain, rows)):
        return {"content": list(rows)}
    columns: dict[str, list[Any]] = {theirs: [row.get(ours) for row in rows] for theirs, ours in _COLUMNS.items()}
    columns["top_logprobs"] = [
        None if top is None else {entry["token"]: entry["logprob"] for entry in top} for top in columns["top_logprobs"]
    ]
    always = ("tokens", "token_logprobs")
    return {name: column for name, column in columns.items() if name in always or any(it is not None for it in column)}


def _is_plain(row: Any) -> bool:
    """Whether a row says no more than columns can."""
    if not is_object(row) or not row.keys() <= _ROW or not isinstance(row.get("token"), str):
        return False
    top = row.get("top_logprobs", [])
    if not is_array(top) or not all(is_object(it) and it.keys() == {"token", "logprob"} for it in top):
        return False
    tokens = [entry["token"] for entry in top]
    return all(isinstance(token, str) for token in tokens) and len(set(tokens)) == len(tokens)


class _CompletionReader(_WireReader):
    """Reads text completions, whole or chunks."""

    dialect = NAME

    def __init__(self, is_whole: bool = False) -> None:
        super().__init__(is_whole)
        self._used: dict[int, Usage] = {}

    def read_into(self, value: Any, deltas: list[Delta]) -> None:
        usage, choices = mapping_of(mapping_of(value).get("usage")), list_of(mapping_of(value).get("choices"))
        if self._is_whole or not usage or not choices:
            super().read_into(value, deltas)
            return
        super().read_into({**value, "usage": None}, deltas)
        # llama.cpp tells with the end of a choice what that one took; a usage of all stands beside no choice.
        self._used[count_of(mapping_of(choices[0]).get("index")) or 0] = counted = usage_from(usage)
        deltas.append(Count(sum(self._used.values(), NOTHING)))
        if patch := difference(usage, usage_object(counted)):
            self._leftovers["usage"] = patch

    def _read_choice(self, choice: dict[str, Any], position: int, deltas: list[Delta]) -> None:
        text = choice.get("text")
        if text is not None and not isinstance(text, str):
            raise StreamProtocolError(f"the text of a choice is no text but a {type(text).__name__}")
        # What a message is called elsewhere is nothing that we know here.
        if strange := {name: item for name, item in choice.items() if name in ("delta", "message")}:
            number = count_of(choice.get("index"))
            self._keep(f"choices.{position if number is None else number}", strange, frozenset())
        chat = {name: item for name, item in choice.items() if name not in ("text", "delta", "message")}
        chat["message" if self._is_whole else "delta"] = {"content": text}
        chat["logprobs"] = {"content": _rows(choice.get("logprobs"))}
        super()._read_choice(chat, position, deltas)


class CompletionDecoder(ChatDecoder):
    """Decodes one streamed answer. It ends as OpenAI's do: at [DONE], or when each choice has told its reason."""

    def __init__(self) -> None:
        super().__init__()
        self._reader = _CompletionReader()
        self._frame = Frame(("choices", 0, "text"))


class CompletionEncoder(ChatEncoder):
    """Turns the deltas of one answer into a stream of server-sent events."""

    def __init__(self, *, has_usage: bool = True) -> None:
        super().__init__(has_usage=has_usage)
        self._common["object"] = "text_completion"

    def _open(self, delta: Open) -> bytes:
        if delta.kind not in ("text", "refusal"):
            raise _no_place(delta.kind)
        self._openings.append(delta)
        return b""

    def _event(self, chunk: dict[str, Any]) -> bytes:
        return super()._event({**chunk, "choices": [_choice(choice) for choice in chunk["choices"]]})


def _choice(chat: dict[str, Any]) -> dict[str, Any]:
    """A choice of a chunk of chat completions, as one of text completions."""
    said, rows = chat.get("delta", {}), list_of(mapping_of(chat.get("logprobs")).get("content"))
    rest = {name: item for name, item in chat.items() if name not in ("delta", "text", "logprobs")}
    text = said.get("content") or said.get("refusal") or ""
    logprobs = _columns(rows) if rows and not chat.get("finish_reason") else None
    return {"finish_reason": None, **rest, "text": text, "logprobs": logprobs}
