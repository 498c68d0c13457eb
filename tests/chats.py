"""Chat completions as answers for `servers.Server`: what is said may depend on what was asked, and may take its time.

Every request goes through the strict server half of the dialect first; what that refuses is kept.
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

Said = str | tuple[ToolCall, ...]


def echo(request: Request) -> str:
    """What was said last."""
    return request.messages[-1].text


class Speaker:
    """Answers in chat completions, a word an event, and waits for `pause` seconds after each."""

    def __init__(self, say: Callable[[Request], Said] = echo, *, pause: float = 0) -> None:
        self.say = say
        self.pause = pause
        self.refused: list[str] = []

    async def __call__(self, call: Call) -> None:
        try:
            request = DIALECT.decode_request(call.body)
        except BadRequestError as error:
            self.refused.append(str(error))
            status, body = DIALECT.encode_error(error)
            _whole(call, body, f"{status} Refused")
            return
        try:
            said = self.say(request)
        except BaseException:
            _whole(call, b"", "500 What is to be said is not known")
            raise
        if not request.stream:
            await asyncio.sleep(self.pause)
            _whole(call, answer(said))
            return
        call.head("Content-Type: text/event-stream", "Transfer-Encoding: chunked")
        for piece in events(said):
            call.chunk(piece)
            await asyncio.sleep(self.pause)
        call.chunk(b"")


def answer(said: Said) -> bytes:
    """A whole answer."""
    choice = {"index": 0, "message": {"role": "assistant", **_content(said)}, "finish_reason": _reason(said)}
    return json.dumps({"id": "1", "model": "loopback", "choices": [choice], "usage": USAGE}).encode()


def events(said: Said) -> Iterator[bytes]:
    """The same as a stream."""
    words = [word + " " for word in said.split(" ")[:-1]] + [said.split(" ")[-1]] if isinstance(said, str) else [said]
    for piece in words:
        yield event([{"index": 0, "delta": _content(piece), "finish_reason": None}])
    yield event([{"index": 0, "delta": {}, "finish_reason": _reason(said)}])
    yield event([], usage=USAGE)
    yield b"data: [DONE]\n\n"


def event(choices: list[Any], **more: Any) -> bytes:
    chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "loopback", "choices": choices}
    return f"data: {json.dumps({**chunk, **more})}\n\n".encode()


def _content(said: Said) -> dict[str, Any]:
    if isinstance(said, str):
        return {"content": said}
    made = [
        {"index": index, "id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.input}}
        for index, call in enumerate(said)
    ]
    return {"tool_calls": made}


def _reason(said: Said) -> str:
    return "stop" if isinstance(said, str) else "tool_calls"


def _whole(call: Call, body: bytes, status: str = "200 OK") -> None:
    call.head("Content-Type: application/json", f"Content-Length: {len(body)}", status=status)
    call.write(body)
