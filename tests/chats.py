"""Chat completions as answers for `servers.Server`: what is said may depend on what was asked, and may take its time.

Every request goes through the strict server half of the dialect first; those that it refuses are kept.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

from servers import Call

from sabir import BadRequestError, ToolCall
from sabir.dialects.openai_chat import OpenAIChat
from sabir.requests import Request

DIALECT = OpenAIChat()
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}

Say = Callable[[Request], str | ToolCall]


class Speaker:
    """Answers in chat completions, a word an event; waits `pause` seconds after each."""

    def __init__(self, say: Say = lambda request: asked_of(request), *, pause: float = 0) -> None:
        self.say = say
        self.pause = pause
        self.refused: list[str] = []

    async def __call__(self, call: Call) -> None:
        try:
            request = DIALECT.decode_request(call.body)
        except BadRequestError as error:
            self.refused.append(str(error))
            status, body = DIALECT.encode_error(error)
            call.head("Content-Type: application/json", f"Content-Length: {len(body)}", status=f"{status} Refused")
            call.write(body)
            return
        said = self.say(request)
        if not request.stream:
            await asyncio.sleep(self.pause)
            body = whole_answer(said)
            call.head("Content-Type: application/json", f"Content-Length: {len(body)}")
            call.write(body)
            return
        call.head("Content-Type: text/event-stream", "Transfer-Encoding: chunked")
        for event in events(said):
            call.chunk(event)
            if self.pause:
                await asyncio.sleep(self.pause)
        call.chunk(b"")


def asked_of(request: Request) -> str:
    """The last thing that was said, which a server may say again."""
    return request.messages[-1].text


def whole_answer(said: str | ToolCall) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **_content(said)}, "finish_reason": _reason(said)}
    return json.dumps({"id": "1", "model": "loopback", "choices": [choice], "usage": USAGE}).encode()


def events(said: str | ToolCall) -> Iterator[bytes]:
    """The same as a stream, word by word."""
    pieces: list[Any] = [said] if isinstance(said, ToolCall) else said.split(" ")
    for number, piece in enumerate(pieces):
        spaced = piece if isinstance(piece, ToolCall) or number == len(pieces) - 1 else piece + " "
        yield event([{"index": 0, "delta": _content(spaced), "finish_reason": None}])
    yield event([{"index": 0, "delta": {}, "finish_reason": _reason(said)}])
    yield event([], usage=USAGE)
    yield b"data: [DONE]\n\n"


def event(choices: list[Any], **more: Any) -> bytes:
    chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "loopback", "choices": choices}
    return f"data: {json.dumps({**chunk, **more})}\n\n".encode()


def _content(said: str | ToolCall) -> dict[str, Any]:
    if isinstance(said, str):
        return {"content": said}
    function = {"name": said.name, "arguments": said.input}
    return {"tool_calls": [{"index": 0, "id": said.id, "type": "function", "function": function}]}


def _reason(said: str | ToolCall) -> str:
    return "tool_calls" if isinstance(said, ToolCall) else "stop"
