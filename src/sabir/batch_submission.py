"""How a batch is made, once: its prompts are written, it is looked for by its key, and only then ordered.

Knows no wire format. What cannot be known is not tried: an order whose fate is open is never sent again.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import aclosing, contextmanager, nullcontext
from functools import partial
from hashlib import sha256
from typing import Any, cast, final

import msgspec

from .batch_journal import Entry, Journal
from .batcher import OVER, Batch, Lines, Live, Opener, Planned, item_id, status_of
from .dialects.batches import BatchFiles, BatchItem, BatchJob, BatchOrder
from .errors import (
    ClosedError,
    ConfigurationError,
    ConnectError,
    DeadlineExceeded,
    OverloadedError,
    ProviderError,
    RateLimitError,
    SabirError,
    UnsupportedError,
)
from .prompts import Prompt, as_messages, check_asks
from .requests import HttpRequest
from .retry import retried

MAX_KEY = 128
# How many prompts are written before others on the same loop get their turn.
_AT_A_STRETCH = 500
_REFUSED: dict[str, str] = {
    "images": "put images into the prompts they belong to, as in [['What is this?', sabir.image(…)], …]",
    "audio": "put sounds into the prompts they belong to, as in [['What is said?', sabir.audio(…)], …]",
    "files": "put files into the prompts they belong to, as in [['Sum it up', sabir.file(…)], …]",
    "max_tool_rounds": "nothing runs tools while a batch is answered: their calls stand in the responses",
    "recover": "an answer of a batch is read whole or not at all: leave it out",
    "validation_retries": "nobody asks again while a batch is answered: submit those that do not fit once more",
}


@final
class Submission(Live):
    """One call of `submit`."""

    def __init__(
        self,
        client: Opener,
        prompts: object,
        schema: Any,
        key: object,
        journal: str | os.PathLike[str] | None,
        call: Mapping[str, Any],
    ) -> None:
        self._prompts, self._key = _prompts(prompts), _key(key)
        for option, remedy in _REFUSED.items():
            if call.get(option) is not None:
                raise ConfigurationError(f"submit takes no {option}=: {remedy}")
        if journal is not None and self._key is None:
            raise ConfigurationError("a journal remembers batches by their keys: give key= too")
        self._options: dict[str, Any] = dict(call)
        self._system = self._options.pop("system", None)
        self._schema = schema
        self._journal = None if journal is None else Journal(journal)
        super().__init__(client)
        self._first = self._planned(0)
        self._batcher = self._first.batcher
        self._dialect = self._batcher.dialect
        if self._key is not None and self._journal is None and not self._dialect.tells_key:
            raise ConfigurationError(
                f"{self._batcher.provider} keeps no key by which a batch can be found again; name a file that "
                "remembers it: submit(…, key=…, journal='batches.jsonl')"
            )

    async def done(self) -> Batch:
        """Do the work."""
        self.start()
        try:
            return await self._done()
        except SabirError as error:
            error.provider = error.provider or self._batcher.provider
            error.attempts, error.warnings = tuple(self.exchange.attempts), tuple(self.exchange.notices)
            raise
        finally:
            self.end()

    async def _done(self) -> Batch:
        order = await self._order()
        entries = await self._read_journal()
        job = None if self._key is None else await self._found(self._key, order, entries)
        if job is None:
            job = await self._made(order, entries)
        return self._batcher.told(job, tuple(self.exchange.notices))

    async def _order(self) -> BatchOrder:
        """The batch to be made. All prompts are planned and written before anything is sent."""
        tag = None if self._key is None else _digest(self._key.encode())[:16]
        items: list[BatchItem] = []
        endpoint = ""
        for number in range(len(self._prompts)):
            plan = self._planned(number) if number else self._first
            self.exchange.notices += [notice for notice in plan.notices if notice not in self.exchange.notices]
            with _of_prompt(number):
                http = await self._written(plan)
            if number == 0:
                self.exchange.report(self._batcher.endpoint.notices_of(http))
            if (served := self._dialect.endpoint_of(http.url.partition("?")[0])) is None:
                raise UnsupportedError(
                    f"{self._batcher.provider} has no batches of {http.url}", model=plan.request.model
                )
            endpoint = served
            id_ = item_id(number, tag, plan.schema_mode)
            items.append(BatchItem(id=id_, body=http.body, endpoint=endpoint))
            if number % _AT_A_STRETCH == _AT_A_STRETCH - 1:
                await self._client.runtime.sleep(0, self.exchange.line)
        self._check_size(items)
        return BatchOrder(
            model=self._first.request.model,
            items=tuple(items),
            endpoint=endpoint,
            key=self._key,
            prompts=_digest(endpoint.encode(), *(item.body for item in items))[:32],
            headers=self._first.request.headers,
        )

    def _planned(self, number: int) -> Planned:
        with _of_prompt(number):
            messages = as_messages(self._prompts[number], (), self._system)
            check_asks(messages)
        # What is wrong with the options, which are those of all prompts, is found with the first.
        with _of_prompt(number) if number else nullcontext():
            return self._client.batch_plan(messages, self._options, self._schema)

    async def _written(self, plan: Planned) -> HttpRequest:
        async with aclosing(plan.model.deltas(plan.request, self.exchange)) as nothing:
            async for _ in nothing:
                pass
        if len(plan.kept.requests) != 1:
            raise UnsupportedError(
                "with both tools and a schema this model is asked twice for an answer, which a batch cannot; leave out "
                "one of them",
                model=plan.request.model,
            )
        return plan.kept.requests[0]

    def _check_size(self, items: Sequence[BatchItem]) -> None:
        most, largest = self._dialect.max_requests, self._dialect.max_bytes
        size = sum(len(item.body) + len(item.id) + 100 for item in items)
        if (most is not None and len(items) > most) or (largest is not None and size > largest):
            limits = [f"{most:,} prompts" if most else "", f"{largest:,} bytes" if largest else ""]
            raise UnsupportedError(
                f"a batch of {self._batcher.provider} has at most {' and '.join(filter(None, limits))}, and this one "
                f"{len(items):,} and {size:,}; submit it in parts, each with a key of its own"
            )

    async def _read_journal(self) -> dict[str, Entry]:
        if self._journal is None:
            return {}
        entries: dict[str, Entry] = await self._client.runtime.call(self._journal.read, self._batcher.provider)
        return entries

    async def _found(self, key: str, order: BatchOrder, entries: dict[str, Entry]) -> BatchJob | None:
        """The batch that was made by this key.

        Raises:
            ConfigurationError: it was made of other prompts.
            ConnectError: it cannot be told yet whether there is one.
        """
        entry = entries.get(key)
        if entry is not None and entry.id is not None:
            self._check_prompts(entry.prompts, order, entry.id)
            return await status_of(self._batcher, entry.id, self.exchange)
        if self._dialect.tells_key:
            job = await self._listed(lambda job: job.key == key)
        else:
            job = None if entry is None else await self._recognised(entry, order, entries)
        if job is None:
            return None
        self._check_prompts(job.prompts or order.prompts, order, job.id)
        if entry is None or entry.prompts != order.prompts:
            await self._begin(order, None)
        await self._note(job)
        return job

    def _check_prompts(self, prompts: str | None, order: BatchOrder, id_: str | None) -> None:
        if prompts != order.prompts:
            which = "a batch whose id did not come back" if id_ is None else f"{self._batcher.provider}:{id_}"
            raise ConfigurationError(
                f"the key {self._key!r} stands for {which}, which was made of other prompts or options; choose another "
                "key, or ask for that batch by its id"
            )

    async def _listed(self, wanted: Callable[[BatchJob], bool]) -> BatchJob | None:
        async with aclosing(self._jobs()) as jobs:
            async for job in jobs:
                if wanted(job):
                    return job
        return None

    async def _jobs(self) -> AsyncGenerator[BatchJob, None]:
        """All batches of the provider's, the latest first."""
        after: str | None = None
        while True:
            read = partial(self._dialect.decode_jobs, after=after)
            page = await self._batcher.ask(self._dialect.encode_jobs(after), read, self.exchange)
            for job in page.jobs:
                yield job
            if (after := page.after) is None:
                return

    async def _recognised(self, entry: Entry, order: BatchOrder, entries: dict[str, Entry]) -> BatchJob | None:
        """The batch of a submit that was cut off, where only its results say whose a batch is."""
        self._check_prompts(entry.prompts, order, None)
        known = {each.id for each in entries.values()}
        undecided: list[str] = []
        async with aclosing(self._jobs()) as jobs:
            async for job in jobs:
                if job.id == entry.after:
                    break
                if job.id in known or job.counts.total not in (None, entry.count):
                    continue
                if job.state not in OVER or not self._dialect.encode_results(job):
                    undecided.append(f"{self._batcher.provider}:{job.id}")
                elif await self._first_id(job) in {item.id for item in order.items}:
                    return job
        if undecided:
            raise ConnectError(
                f"a submit with the key {self._key!r} was cut off, and one of these may be the batch it made: "
                f"{', '.join(undecided)}. That can be seen when it is over; then submit with this key again",
                retryable=True,
            )
        return None

    async def _first_id(self, job: BatchJob) -> str | None:
        """The id of the first request whose result a batch tells."""
        lines = Lines(self._batcher, self._dialect.encode_results(job)[-1], self._client.runtime, self.exchange)
        async with aclosing(lines.read()) as batches:
            async for batch in batches:
                for line in batch:
                    return self._dialect.decode_outcome(line).id
        return None

    async def _made(self, order: BatchOrder, entries: dict[str, Entry]) -> BatchJob:
        order = await self._uploaded(order)
        entry = entries.get(self._key or "")
        # Whatever was begun before keeps its mark: of two orders, the first may still be the one that arrives.
        if self._journal is not None and (entry is None or entry.prompts != order.prompts):
            latest = None if self._dialect.tells_key else await self._listed(lambda _: True)
            await self._begin(order, None if latest is None else latest.id)
        job = await self._ordered(order)
        await self._note(job)
        return job

    async def _begin(self, order: BatchOrder, after: str | None) -> None:
        entry = Entry(prompts=str(order.prompts), count=len(self._prompts), after=after)
        if self._journal is not None:
            await self._client.runtime.call(self._journal.begin, self._batcher.provider, self._key, entry)

    async def _note(self, job: BatchJob) -> None:
        if self._journal is not None:
            await self._client.runtime.call(self._journal.made, self._batcher.provider, self._key, job.id)

    async def _uploaded(self, order: BatchOrder) -> BatchOrder:
        """The order with its requests in a file, where they go in one; one that is there already is not sent again."""
        tag = "" if self._key is None else "-" + _digest(self._key.encode(), str(order.prompts).encode())[:16]
        name = f"sabir{tag}.jsonl"
        files = self._dialect.files
        http = None if files is None else files.encode_upload(name, order.items)
        if files is None or http is None:
            return order
        file = await self._stored(name, files) if tag else None
        if file is None:
            file = (await self._batcher.upload(http, files.decode_file, self.exchange)).id
        return msgspec.structs.replace(order, input=file, items=())

    async def _stored(self, name: str, files: BatchFiles) -> str | None:
        after: str | None = None
        while True:
            read = partial(files.decode_files, after=after)
            page = await self._batcher.ask(files.encode_files(after), read, self.exchange)
            for file in page.files:
                if file.name == name:
                    return file.id
            if (after := page.after) is None:
                return None

    async def _ordered(self, order: BatchOrder) -> BatchJob:
        """Make the batch. It is tried again only where the server has refused to make it: else there might be two."""
        http = self._dialect.encode_order(order)

        async def once() -> AsyncGenerator[BatchJob, None]:
            endpoint, exchange = self._batcher.endpoint, self.exchange
            try:
                job = self._dialect.decode_job(await endpoint.fetch(http, exchange, self._dialect.decode_error))
            except SabirError as error:
                told = endpoint.told(error, str(order.model), exchange)
                # What the server has refused for now was not made.
                if not isinstance(error, (RateLimitError, OverloadedError)):
                    told.retryable = False
                is_refusal = isinstance(error, ProviderError) and 400 <= (error.status or 500) < 500
                if not is_refusal:
                    told.message += _unknown(self._key)
                    told.args = (told.message,)
                raise told from None
            yield job

        tries = retried(once, self.exchange, self._client.runtime, self._batcher.max_attempts)
        async with aclosing(tries) as jobs:
            (job,) = [job async for job in jobs]
        return job


def _digest(*pieces: bytes) -> str:
    digest = sha256()
    for piece in pieces:
        digest.update(b"%d " % len(piece) + piece)
    return digest.hexdigest()


def _unknown(key: str | None) -> str:
    found = "submit with the same key again to find out" if key is not None else "with a key= it could be found again"
    return f" (whether the batch was made is not known: {found})"


def _prompts(prompts: object) -> Sequence[Prompt]:
    kind = type(prompts).__name__
    if isinstance(prompts, (str, bytes)) or not isinstance(prompts, Sequence):
        is_several = isinstance(prompts, Iterable) and not isinstance(prompts, (str, bytes, Mapping))
        remedy = "write list(…) around it" if is_several else "for one there is ask"
        raise ConfigurationError(f"submit takes a list of prompts, not {kind}; {remedy}")
    if not prompts:
        raise ConfigurationError("submit takes a list of prompts, and this one is empty")
    return cast("Sequence[Prompt]", prompts)


@contextmanager
def _of_prompt(number: int) -> Generator[None]:
    """What goes wrong here is said to be wrong with this prompt."""
    try:
        yield
    except (ClosedError, DeadlineExceeded):
        raise
    except SabirError as error:
        error.message = f"prompt {number}: {error.message}"
        error.args = (error.message,)
        raise


def _key(key: object) -> str | None:
    if key is None:
        return None
    if not isinstance(key, str) or not key.isprintable() or not 0 < len(key) <= MAX_KEY:
        raise ConfigurationError(f"key is a text of 1 to {MAX_KEY} printable characters, not {key!r}")
    return key
