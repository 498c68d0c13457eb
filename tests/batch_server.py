"""A provider of batches on loopback: it speaks with the server's half of each format, and Pico answers.

What a real one takes hours for happens when a batch has been asked for so many times (`patience`), or not before
`finish` is called. `steps` are the requests that came; `strike` may end one of them before or after its work is done.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec
import pytest
from gateway import Gateway, Route
from servers import Call, Server, on_server_thread

from sabir.dialects import Dialect, response_of
from sabir.dialects.anthropic import Anthropic
from sabir.dialects.anthropic_batches import AnthropicBatches
from sabir.dialects.batches import (
    BatchCounts,
    BatchDialect,
    BatchFile,
    BatchItem,
    BatchJob,
    BatchOrder,
    BatchOutcome,
    FilePage,
    JobPage,
    cancelled_error,
    expired_error,
)
from sabir.dialects.gemini import Gemini
from sabir.dialects.gemini_batches import GeminiBatches
from sabir.dialects.mistral import Mistral
from sabir.dialects.mistral_batches import MistralBatches
from sabir.dialects.openai_batches import OpenAIBatches
from sabir.dialects.openai_chat import OpenAIChat
from sabir.dialects.openai_responses import OpenAIResponses
from sabir.engines.llama_cpp import LlamaCpp
from sabir.errors import AuthenticationError, BadRequestError, NotFoundError, SabirError
from sabir.providers import PROVIDERS
from sabir.runtime import Line

KEY = "key-of-the-batches"
UNWANTED = "I will not have this."
_FILE_STEPS = (
    ("POST", "/files", "upload"),
    ("GET", "/files", "files"),
    ("GET", "/files/([^/]+)/content", "content"),
)


class Kind(NamedTuple):
    """A provider: its formats, what its addresses and ids look like, and its requests."""

    provider: str
    model: str
    dialect: BatchDialect
    formats: dict[str | None, Route]
    root: str
    id: str
    steps: tuple[tuple[str, str, str], ...]
    page: int = 100
    # Where a provider's own row says otherwise, as where everything is to go in a file.
    is_its_own: bool = True


def _jobs_at(path: str, cancel: str = "/cancel") -> tuple[tuple[str, str, str], ...]:
    one = rf"{path}/([^/:]+)"
    return (("GET", path, "jobs"), ("GET", one, "status"), ("POST", one + cancel, "cancel"))


KINDS: dict[str, Kind] = {
    "openai": Kind(
        "openai",
        "gpt-4o-mini",
        OpenAIBatches(),
        {
            "/v1/chat/completions": Route(OpenAIChat(), "chatcmpl-", "created", None),
            "/v1/responses": Route(OpenAIResponses(), "resp_", "created_at", None),
        },
        "/v1",
        "batch_{}",
        (*_FILE_STEPS, ("POST", "/batches", "make"), *_jobs_at("/batches")),
    ),
    "anthropic": Kind(
        "anthropic",
        "claude-haiku-4-5",
        AnthropicBatches(),
        {"/v1/messages": Route(Anthropic(), "msg_", None, None)},
        "",
        "msgbatch_{}",
        (
            ("POST", "/v1/messages/batches", "make"),
            ("GET", "/v1/messages/batches/([^/]+)/results", "content"),
            *_jobs_at("/v1/messages/batches"),
        ),
    ),
    "gemini": Kind(
        "gemini",
        "gemini-2.5-flash",
        GeminiBatches(),
        {None: Route(Gemini(), "", None, None)},
        "/v1beta",
        "{}",
        (
            ("POST", "/models/[^/:]+:batchGenerateContent", "make"),
            ("GET", "/files", "files"),
            ("GET", "/(files/[^/:]+):download", "content"),
            *_jobs_at("/batches", ":cancel"),
        ),
    ),
    "mistral": Kind(
        "mistral",
        "mistral-small-latest",
        MistralBatches(),
        {"/v1/chat/completions": Route(Mistral(), "", "created", None)},
        "/v1",
        "0000-{}",
        (*_FILE_STEPS, ("POST", "/batch/jobs", "make"), *_jobs_at("/batch/jobs")),
    ),
}

KINDS["openai-responses"] = KINDS["openai"]._replace(provider="openai-responses", model="gpt-5-mini")
KINDS["gemini in a file"] = KINDS["gemini"]._replace(
    dialect=GeminiBatches(price=Decimal("0.5"), full_price=frozenset({"cache_read"}), max_inline=0), is_its_own=False
)

When = Literal["before", "after"]


@dataclass
class _Held:
    """A batch, what it was made of, and what came of that."""

    job: BatchJob
    items: tuple[BatchItem, ...]
    asked: int = 0
    outcomes: list[BatchOutcome] = field(default_factory=list)


@contextmanager
def in_the_table(kind: Kind) -> Iterator[Kind]:
    """A kind whose provider's row says what it does, for as long as this lasts."""
    with pytest.MonkeyPatch.context() as patch:
        if not kind.is_its_own:
            patch.setitem(PROVIDERS, kind.provider, replace(PROVIDERS[kind.provider], batches=kind.dialect))
        yield kind


class BatchServer:
    """The server. `answered` counts by prompt how often each was answered, over all batches."""

    def __init__(self, kind: Kind, engine: LlamaCpp, patience: int | None = 1) -> None:
        self.kind = kind
        self.patience = patience
        self.held: dict[str, _Held] = {}
        self.files: dict[str, BatchFile] = {}
        self.results: dict[str, bytes] = {}
        self.answered: Counter[str] = Counter()
        self.steps: list[str] = []
        self.strike: Callable[[int, str, When], bool] = lambda *_: False
        self.order: Callable[[list[BatchOutcome]], list[BatchOutcome]] = lambda outcomes: outcomes
        self._gateway = Gateway(engine, KEY, {kind.model: {}})
        self._sessions: dict[str, dict[str, Any]] = {}

    @property
    def root(self) -> str:
        return self.kind.root

    @contextmanager
    def serving(self) -> Iterator[BatchServer]:
        with Server(self._answer) as server:
            self.server = server
            self.url = server.url + self.kind.root
            yield self

    def finish(self, name: str) -> None:
        """Answer what a batch was made of."""
        on_server_thread(lambda loop: self._finish(self.held[name]))

    def run_out(self, name: str, *, answered: int) -> None:
        """End a batch whose time has run out when so many were answered."""
        held = self.held[name]
        for index in range(answered, len(held.items)):
            held.outcomes[index] = BatchOutcome(id=held.items[index].id, error=expired_error())
        counts = BatchCounts(total=len(held.items), succeeded=answered, failed=0, expired=len(held.items) - answered)
        job = msgspec.structs.replace(held.job, state="expired", counts=counts)
        held.job = self._with_results(job, held.outcomes[:answered], held.outcomes[answered:])

    def copy(self, name: str) -> None:
        """Have a further batch, of somebody else's."""
        held = self.held[name]
        job = msgspec.structs.replace(held.job, id=self.kind.id.format(len(self.held)), key=None)
        self.held[job.id] = _Held(job, held.items)

    def fail(self, name: str, reason: str) -> None:
        """End a batch that comes to nothing."""
        held = self.held[name]
        held.job = msgspec.structs.replace(held.job, state="failed", counts=BatchCounts(), reason=reason)

    async def _answer(self, call: Call) -> None:
        path = unquote(urlsplit(call.target).path)
        step = self._step(call.method, path)
        number = len(self.steps)
        self.steps.append(step[0])
        if self.strike(number, step[0], "before"):
            return call.reset()
        try:
            self._admit(call)
            status, extra, body = await self._done(*step, path, call)
        except SabirError as error:
            extra = ()
            status, body = self.kind.dialect.encode_error(error)
        if self.strike(number, step[0], "after"):
            return call.reset()
        kind = "application/octet-stream" if step[0] == "content" else "application/json"
        call.head(f"content-length: {len(body)}", f"content-type: {kind}", *extra, status=f"{status} x")
        call.write(body)

    def _step(self, method: str, path: str) -> tuple[str, str]:
        if path.startswith("/upload/"):
            return "upload", ""
        for verb, pattern, name in self.kind.steps:
            if verb == method and (found := re.fullmatch(re.escape(self.root) + pattern, path)):
                return name, found[1] if found.groups() else ""
        return "unknown", ""

    def _admit(self, call: Call) -> None:
        if call.target.startswith("/upload/session/"):
            return  # The address of a session is proof enough.
        told = [call.header(name) or "" for name in ("authorization", "x-api-key", "x-goog-api-key")]
        if KEY not in {value.removeprefix("Bearer ") for value in told}:
            raise AuthenticationError("this key is not known here", code="invalid_api_key")

    async def _done(self, step: str, name: str, path: str, call: Call) -> tuple[int, tuple[str, ...], bytes]:
        """What a request is answered with: status, further headers and body."""
        dialect, query = self.kind.dialect, parse_qs(urlsplit(call.target).query)
        match step:
            case "upload":
                return self._upload(call)
            case "files":
                rows, after = self._page(list(self.files.values()), query)
                return 200, (), dialect.files.encode_file_page(FilePage(tuple(rows), after))
            case "make":
                return 200, (), dialect.encode_job(self._make(dialect.decode_order(path, call.body)))
            case "jobs":
                held, after = self._page([each.job for each in reversed(self.held.values())], query)
                return 200, (), dialect.encode_page(JobPage(tuple(held), after))
            case "status":
                return 200, (), dialect.encode_job(await self._looked_at(self._known(name)))
            case "cancel":
                return 200, (), self._cancel(self._known(name))
            case "content":
                return 200, (), self._content(name)
        raise NotFoundError(f"nothing is served at {call.method} {path}")

    def _upload(self, call: Call) -> tuple[int, tuple[str, ...], bytes]:
        files, headers = self.kind.dialect.files, dict(call.headers)
        if headers.get("x-goog-upload-command") == "start":
            # Google's SDK sends a file in steps, which our own client does not.
            session = str(len(self._sessions))
            self._sessions[session] = msgspec.json.decode(call.body or b"{}").get("file", {})
            return 200, (f"x-goog-upload-url: {self.server.url}/upload/session/{session}",), b"{}"
        if headers.get("x-goog-upload-command") == "upload, finalize":
            told = self._sessions[call.target.rpartition("/")[2]]
            file = BatchFile(id="", name=told.get("display_name", ""), size=len(call.body), data=call.body)
            return 200, ("x-goog-upload-status: final",), files.encode_file(self._keep(file))
        return 200, (), files.encode_file(self._keep(files.decode_upload(headers, call.body)))

    @property
    def uploads(self) -> bool:
        """Whether requests came in a file."""
        return "upload" in self.steps

    def _keep(self, file: BatchFile) -> BatchFile:
        id_ = f"files/f{len(self.files)}" if self.kind.provider == "gemini" else f"file-{len(self.files)}"
        now = datetime.now(UTC).replace(microsecond=0)
        self.files[id_] = kept = msgspec.structs.replace(file, id=id_, created=now)
        return kept

    def _page(self, rows: list[Any], query: dict[str, list[str]]) -> tuple[list[Any], str | None]:
        """Some of the rows, and by what the next are asked for."""
        size = self.kind.page
        after = next((query[name][0] for name in ("after", "after_id", "pageToken", "page") if name in query), None)
        ids = [row.id for row in rows]
        is_number = self.kind.provider in ("mistral", "gemini")
        start = int(after or 0) * size if is_number else ids.index(after) + 1 if after else 0
        page = rows[start : start + size]
        has_more = start + size < len(rows)
        following = str(start // size + 1) if is_number else page[-1].id if page else None
        return page, following if has_more else None

    def _make(self, order: BatchOrder) -> BatchJob:
        items = order.items
        if order.input is not None:
            if order.input not in self.files:
                raise NotFoundError(f"there is no file {order.input}")
            items = self.kind.dialect.files.decode_items(self.files[order.input].data)
        # As the formats have it, moments are whole seconds.
        now = datetime.now(UTC).replace(microsecond=0)
        job = BatchJob(
            id=self.kind.id.format(len(self.held)),
            state="running",
            counts=BatchCounts(total=len(items), running=len(items), succeeded=0, failed=0),
            model=order.model,
            endpoint=order.endpoint,
            created=now,
            expires=now + timedelta(days=1),
            key=order.key,
            prompts=order.prompts,
            input=order.input,
        )
        self.held[job.id] = _Held(job, items)
        return job

    def _known(self, name: str) -> _Held:
        if name not in self.held:
            raise NotFoundError(f"there is no batch {name!r}")
        return self.held[name]

    async def _looked_at(self, held: _Held) -> BatchJob:
        held.asked += 1
        if held.job.state == "cancelling" or (
            held.job.state == "running" and self.patience is not None and held.asked > self.patience
        ):
            await self._finish(held)
        return held.job

    def _cancel(self, held: _Held) -> bytes:
        if held.job.state != "running":
            raise BadRequestError(f"{held.job.id} is {held.job.state}, and cannot be cancelled")
        held.job = msgspec.structs.replace(held.job, state="cancelling")
        return b"{}" if self.kind.provider == "gemini" else self.kind.dialect.encode_job(held.job)

    async def _finish(self, held: _Held) -> None:
        is_cancelled = held.job.state == "cancelling"
        for item in held.items:
            outcome = BatchOutcome(id=item.id, error=cancelled_error())
            if not is_cancelled:
                outcome = await self._outcome(item, held.job)
            held.outcomes.append(outcome)
        answered = [outcome for outcome in held.outcomes if outcome.body is not None]
        failed = [outcome for outcome in held.outcomes if outcome.error is not None]
        counts = BatchCounts(
            total=len(held.items),
            running=0,
            succeeded=len(answered),
            failed=0 if is_cancelled else len(failed),
            cancelled=len(failed) if is_cancelled else 0,
            expired=0,
        )
        state = "cancelled" if is_cancelled else "ended"
        job = msgspec.structs.replace(held.job, state=state, counts=counts, ended=held.job.created)
        held.job = self._with_results(job, answered, failed)

    def _with_results(self, job: BatchJob, answered: list[BatchOutcome], failed: list[BatchOutcome]) -> BatchJob:
        everything = self.order([*answered, *failed])
        if self.kind.provider == "anthropic":
            self._write(job.id, everything)
            return msgspec.structs.replace(job, output=f"{self.server.url}/v1/messages/batches/{job.id}/results")
        if self.kind.provider == "gemini" and job.input is None:
            return msgspec.structs.replace(job, outcomes=tuple(everything))
        if self.kind.provider == "gemini":
            return msgspec.structs.replace(job, output=self._write(f"files/{job.id}-output", everything))
        output = self._write(f"{job.id}-output", self.order(answered)) if answered else None
        failures = self._write(f"{job.id}-errors", self.order(failed)) if failed else None
        return msgspec.structs.replace(job, output=output, failures=failures)

    def _write(self, name: str, outcomes: list[BatchOutcome]) -> str:
        lines = b"".join(self.kind.dialect.encode_outcome(outcome) + b"\n" for outcome in outcomes)
        self.results[name] = lines
        return name

    def _content(self, name: str) -> bytes:
        if name not in self.results:
            raise NotFoundError(f"there is no file {name!r}")
        return self.results[name]

    async def _outcome(self, item: BatchItem, job: BatchJob) -> BatchOutcome:
        formats = self.kind.formats
        route = formats.get(item.endpoint) or formats[job.endpoint if job.endpoint in formats else None]
        try:
            return BatchOutcome(id=item.id, body=await self._body(route, item, job), request_id=f"req-{item.id}")
        except SabirError as error:
            return BatchOutcome(id=item.id, error=error)

    async def _body(self, route: Route, item: BatchItem, job: BatchJob) -> bytes:
        dialect: Dialect = route.dialect
        request = dialect.decode_request(item.body)
        if not request.model:
            request = msgspec.structs.replace(request, model=job.model or "")
        text = request.messages[-1].text
        if text == UNWANTED:
            raise BadRequestError("this is not wanted here", code="invalid_request_error")
        self.answered[text] += 1
        accepted = self._gateway._accepted(route, request)
        deltas = []
        async for batch in self._gateway._deltas(route, accepted, Line(), f"{route.prefix}{item.id}"):
            deltas += batch
        return dialect.encode_response(response_of(dialect.name, deltas))
