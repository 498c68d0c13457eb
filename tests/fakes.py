"""What tests talk to: a model that never finishes, and a server of chat completions on the loopback; both are real."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from sabir.deltas import Delta, Head, Open, Text
from sabir.messages import ToolCall
from sabir.requests import Request
from sabir.runtime import Line


class Waiting:
    """An engine that says a few words and then nothing, until its line is cut."""

    name = "waiting"

    def __init__(self, *words: str) -> None:
        self.words = words
        self.is_silent = threading.Event()
        self.is_left = threading.Event()

    def deltas(self, request: Request, line: Line) -> Iterator[Delta]:
        cut = threading.Event()
        try:
            yield Head("1", "waiting")
            yield Open(0, "text")
            for word in self.words:
                yield Text(0, word)
            line.hold(cut.set)
            self.is_silent.set()
            cut.wait(30)
            raise line.cut_error()
        finally:
            self.is_left.set()

    def close(self) -> None:
        pass


class Asked(NamedTuple):
    """A request as it came over the wire."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


Say = str | ToolCall | tuple[int, dict[str, Any]]


class ChatServer:
    """Chat completions over HTTP: `answer` gets each body and says a text, a tool call, or a status and an error."""

    def __init__(
        self,
        answer: Callable[[dict[str, Any]], Say] = lambda body: "Hello there!",
        *,
        pause: float = 0,
        headers: dict[str, str] | None = None,
    ) -> None:
        self.answer = answer
        self.pause = pause
        self.headers = headers or {}
        self.asked: list[Asked] = []
        self.connections: set[Any] = set()
        self._server = _Listener(("127.0.0.1", 0), _Handler)
        self._server.owner = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> ChatServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    owner: ChatServer

    def handle_error(self, *_: Any) -> None:
        """A client that has gone is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Listener

    def setup(self) -> None:
        super().setup()
        self.server.owner.connections.add(self.connection)

    def finish(self) -> None:
        self.server.owner.connections.discard(self.connection)
        super().finish()

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        owner = self.server.owner
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        owner.asked.append(Asked(self.path, {name.lower(): value for name, value in self.headers.items()}, body))
        said = owner.answer(body)
        if isinstance(said, tuple):
            self._whole(*said)
        elif body.get("stream"):
            self._stream(list(_chunks(said)))
        else:
            self._whole(200, _completion(said))

    def _whole(self, status: int, value: dict[str, Any]) -> None:
        data = json.dumps(value).encode()
        time.sleep(self.server.owner.pause)
        self.send_response(status)
        for name, value in self.server.owner.headers.items():
            self.send_header(name, value)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, chunks: list[dict[str, Any]]) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for event in [*(json.dumps(chunk) for chunk in chunks), "[DONE]"]:
            self._piece(f"data: {event}\n\n".encode())
            time.sleep(self.server.owner.pause)
        self._piece(b"")

    def _piece(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))


_USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


def _call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.input}
    return {"index": 0, "id": call.id, "type": "function", "function": function}


def _completion(said: str | ToolCall) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant"}
    if isinstance(said, str):
        message["content"] = said
    else:
        message["tool_calls"] = [_call(said)]
    reason = "stop" if isinstance(said, str) else "tool_calls"
    choice = {"index": 0, "message": message, "finish_reason": reason}
    return {"id": "1", "model": "loopback", "choices": [choice], "usage": _USAGE}


def _chunks(said: str | ToolCall) -> Iterator[dict[str, Any]]:
    pieces: list[dict[str, Any]]
    if isinstance(said, str):
        pieces = [{"content": word + " "} for word in said.split(" ")[:-1]] + [{"content": said.split(" ")[-1]}]
    else:
        pieces = [{"tool_calls": [_call(said)]}]
    for piece in pieces:
        yield {"id": "1", "model": "loopback", "choices": [{"index": 0, "delta": piece, "finish_reason": None}]}
    reason = "stop" if isinstance(said, str) else "tool_calls"
    yield {"id": "1", "model": "loopback", "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}
    yield {"id": "1", "model": "loopback", "choices": [], "usage": _USAGE}
