"""A server of one format, made of its right-hand half: it reads requests strictly and answers from a script."""

from __future__ import annotations

from typing import Any

from servers import Call, Server, whole

from sabir.dialects import Dialect, response_of
from sabir.dialects.gemini import Gemini
from sabir.errors import SabirError
from sabir.requests import Request
from sabir.runtime import Line
from sabir.testing import Scripted

STREAM_TYPES = {"ollama": "application/x-ndjson", "bedrock": "application/vnd.amazon.eventstream"}


class ScriptedServer(Server):
    """`requests` has what was asked, in our words; the answers are what `sabir.testing.Scripted` takes."""

    def __init__(self, dialect: Dialect, *answers: Any) -> None:
        self._dialect = dialect
        self._script = Scripted(*answers)
        super().__init__(self._answer)

    @property
    def requests(self) -> list[Request]:
        return self._script.requests

    async def _answer(self, call: Call) -> None:
        dialect = self._dialect
        try:
            request = dialect.decode_request(call.body)
            is_stream = request.stream or call.target.endswith("/converse-stream") or "streamGenerate" in call.target
            deltas = list(self._script.deltas(request, Line()))
            if isinstance(dialect, Gemini):
                is_stream = "streamGenerateContent" in call.target
        except SabirError as error:
            status, body = dialect.encode_error(error)
            await whole(body, "Content-Type: application/json", status=f"{status} Refused")(call)
            return
        if not is_stream:
            body = dialect.encode_response(response_of(dialect.name, deltas))
            await whole(body, "Content-Type: application/json")(call)
            return
        encoder = dialect.encoder(request)
        body = b"".join([*map(encoder.feed, deltas), encoder.close()])
        kind = STREAM_TYPES.get(dialect.name, "text/event-stream")
        await whole(body, f"Content-Type: {kind}")(call)
