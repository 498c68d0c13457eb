"""Answers that are pages for people: of a login, a proxy, or a site at an address that is no API's.

What has been looked at is read again by whoever reads the answer. It knows no wire format and no transport.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import final

from .dialects.failures import readable
from .errors import ServerError, StreamInterrupted
from .runtime import Reply

# As much of a page stands on an error.
MOST_SHOWN = 10_000

# What a page is labelled, by the servers that label theirs wrongly too; an API says what its answers are.
_LABELS = {"", "text/html", "application/xhtml+xml", "text/plain"}
_PAGE = re.compile(rb"\s*<(?:!doctype\s+html|html|head|body)[\s>]", re.I)
_LONGEST = len("<!doctype html>")


async def no_page(reply: Reply, url: str) -> Reply:
    """The reply from `url`, if it is no page.

    Raises:
        ServerError: it is one; its beginning is the error's body.
    """
    if reply.headers.get("content-type", "").partition(";")[0].strip().lower() not in _LABELS:
        return reply
    begun = b""
    while len(told := begun.strip()) < _LONGEST and told[:1] in (b"", b"<") and (data := await reply.read_some()):
        begun += data
    if _PAGE.match(begun) is None:
        return _Begun(reply, begun)
    try:
        while len(begun) < MOST_SHOWN and (data := await reply.read_some()):
            begun += data
    except StreamInterrupted:
        pass
    text = begun[:MOST_SHOWN].decode("utf-8", "replace")
    words = f" that begins with {said[:100]!r}" if (said := readable(text)) else ""
    raise ServerError(
        f"{url} answered with a page (HTML){words}, and not as an API does (HTTP {reply.status}); check base_url, and "
        "whether a login or a proxy stands before it",
        status=reply.status,
        body=text,
    )


@final
class _Begun:
    """A reply of which something has been read already."""

    status: int
    headers: Mapping[str, str]

    def __init__(self, reply: Reply, begun: bytes) -> None:
        self.status = reply.status
        self.headers = reply.headers
        self._reply = reply
        self._begun = begun

    async def read_some(self) -> bytes:
        begun, self._begun = self._begun, b""
        return begun or await self._reply.read_some()

    def close(self) -> None:
        self._reply.close()
