"""A server of one format, made of its right-hand half, whose streams break off where the test says.

What it says is decided by the request alone, as a model's answer is at temperature 0; a beginning of its answer that it
is given is gone on with, and refused where its format refuses it. Answers of the Responses API it makes in the
background, keeps their events and serves them from any number on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from servers import Call, Server, whole

from sabir.deltas import Close, Count, Delta, Finish, Head, Open, Text
from sabir.dialects import Dialect, response_of
from sabir.dialects.anthropic import Anthropic
from sabir.dialects.bedrock import Bedrock
from sabir.dialects.mistral import Mistral
from sabir.dialects.openai_chat import OpenAIChat
from sabir.dialects.openai_responses import OpenAIResponses
from sabir.errors import BadRequestError, NotFoundError, OverloadedError, SabirError
from sabir.messages import ToolCall
from sabir.requests import Request
from sabir.strict_json import decode_json
from sabir.usage import Usage

USAGE = Usage(input=10, output=5)
DIALECTS: dict[str, Dialect] = {
    "anthropic": Anthropic(),
    "mistral": Mistral(),
    "vllm": OpenAIChat(),
    "deepseek": OpenAIChat(),
    "bedrock": Bedrock(),
    "openai-chat": OpenAIChat(),
    "openai-responses": OpenAIResponses(),
}

Said = str | ToolCall | tuple[str, str]


class Breaking(Server):
    """`says` gives the parts of the answer to a request: texts, calls, and `(thought, text)`.

    `cuts` says after how many events, or bytes, each stream breaks off; those after the last of them are whole. Where
    it `fails`, an error is told there.
    """

    def __init__(
        self,
        provider: str,
        says: Callable[[Request], Iterable[Said]],
        *cuts: int | float,
        by_bytes: bool = False,
        fails: bool = False,
        takes_beginnings: bool = True,
    ) -> None:
        self.dialect = DIALECTS[provider]
        self.requests: list[Request] = []
        self.resumed: list[int] = []
        self.cancelled: list[str] = []
        # Whether answers stay, and how many events of them a reader that comes back is not told.
        self.keeps = True
        self.skips = 0
        # Whether it never says that an answer was cancelled, and whether streams stay open where they are cut.
        self.is_deaf = False
        self.hangs = False
        self._says = says
        self._cuts = [*cuts]
        self._by_bytes = by_bytes
        self._fails = fails
        self._takes_beginnings = takes_beginnings
        self._kept: dict[str, bytes] = {}
        super().__init__(self._respond)

    async def _respond(self, call: Call) -> None:
        try:
            if found := re.search(r"/responses/(\w+)/cancel$", call.target):
                self.cancelled.append(found[1])
                if self.is_deaf:
                    await call.forever()
                return await whole(b"{}", "Content-Type: application/json")(call)
            if call.method == "GET":
                assert isinstance(self.dialect, OpenAIResponses)
                cursor = self.dialect.decode_resume(call.target)
                if cursor is None or cursor.id not in self._kept or not self.keeps:
                    raise NotFoundError("no such response")
                self.resumed.append(cursor.number)
                after = cursor.number + self.skips
                return self._stream(call, self.dialect.events_after(self._kept[cursor.id], after))
            request = self.dialect.decode_request(call.body)
            self.requests.append(request)
            deltas = list(self._deltas(request, decode_json(call.body)))
        except SabirError as error:
            status, body = self.dialect.encode_error(error)
            return await whole(body, "Content-Type: application/json", status=f"{status} Refused")(call)
        if not request.stream and not call.target.endswith("/converse-stream"):
            body = self.dialect.encode_response(response_of(self.dialect.name, deltas))
            return await whole(body, "Content-Type: application/json")(call)
        encoder = self.dialect.encoder(request)
        stream = b"".join([*map(encoder.feed, deltas), encoder.close()])
        if decode_json(call.body).get("background"):
            self._kept[f"answer{len(self.requests)}"] = stream
        return self._stream(call, stream)

    def _stream(self, call: Call, stream: bytes) -> None:
        kind = "application/vnd.amazon.eventstream" if isinstance(self.dialect, Bedrock) else "text/event-stream"
        call.head("Transfer-Encoding: chunked", f"Content-Type: {kind}")
        cut = self._cuts.pop(0) if self._cuts else float("inf")
        end = cut if self._by_bytes else sum(len(event) for event in events_of(stream)[: int(min(cut, 1e6))])
        if end >= len(stream):
            call.chunk(stream)
            call.chunk(b"")
            return
        if end:
            call.chunk(stream[: int(end)])
        if self._fails:
            call.chunk(self.dialect.encoder().fail(OverloadedError("too much to do")))
            call.chunk(b"")
        if not self.hangs:
            call.close()

    def _deltas(self, request: Request, body: dict[str, Any]) -> Iterator[Delta]:
        yield Head(f"answer{len(self.requests)}", request.model)
        # Some formats tell at once what was read.
        yield Count(Usage(input=10))
        beginning = self._beginning(request, body)
        number, finish = 0, "stop"
        for part in self._says(request):
            if isinstance(part, ToolCall):
                yield Open(number, "call", part.id, part.name)
                yield from (Text(number, piece) for piece in pieces(part.input))
                finish = "tool_calls"
            else:
                is_thought = isinstance(part, tuple)
                text = part[0] if isinstance(part, tuple) else part
                if beginning and not is_thought:
                    if not text.startswith(beginning):
                        raise BadRequestError("this is no beginning of what I would say")
                    echo = [beginning] if isinstance(self.dialect, Mistral) else []
                    rest = [*echo, *pieces(text[len(beginning) :])]
                    beginning = ""
                    if not rest:
                        continue
                else:
                    rest = pieces(text)
                yield Open(number, "thinking" if is_thought else "text")
                yield from (Text(number, piece) for piece in rest)
            yield Close(number)
            number += 1
        yield Count(USAGE)
        yield Finish(finish)  # type: ignore[arg-type]

    def _beginning(self, request: Request, body: dict[str, Any]) -> str:
        """What the answer has to begin with."""
        last = request.messages[-1]
        if last.role != "assistant":
            return ""
        text = last.text
        wire = body["messages"][-1]
        is_refused = not self._takes_beginnings or "-4-6" in request.model
        if isinstance(self.dialect, Anthropic | Bedrock):
            is_refused = is_refused or text != text.rstrip() or bool(request.thinking)
        elif isinstance(self.dialect, Mistral) or request.model.startswith("deepseek"):
            is_refused = is_refused or wire.get("prefix") is not True
        else:
            words = (body.get("continue_final_message"), body.get("add_generation_prompt"))
            is_refused = is_refused or words != (True, False)
        if is_refused:
            raise BadRequestError("this model does not go on with a beginning")
        return text


def pieces(text: str) -> list[str]:
    """A text in the pieces in which it is streamed: words with the white space around them, of all sizes."""
    return re.findall(r"\s+|\S{1,4}\s?", text)


def events_of(stream: bytes) -> list[bytes]:
    return [event + b"\n\n" for event in stream.split(b"\n\n") if event]
