"""An HTTP answer that is an error, as the exception it means; shared by all dialects, knows no provider.

The shapes are those of the recorded error bodies: `{"error": {...}}`, `{"error": "text"}`, `{"message", "code"}`,
`{"detail": ...}`, plain text, a proxy's HTML, nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from math import inf, isfinite
from typing import Any

from ..errors import (
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    ContentFilterError,
    ContextOverflowError,
    DeadlineExceeded,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ProviderError,
    RateLimitError,
    SabirError,
    ServerError,
    UnsupportedError,
)
from ..strict_json import decode_json, encode_json
from . import count_of, list_of, mapping_of, text_of

_BY_STATUS: dict[int, type[ProviderError]] = {
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    429: RateLimitError,
    503: OverloadedError,
    529: OverloadedError,
}
# By the provider's own code or type: these say more than the status they come with, or come with none (in a stream).
_BY_CODE: dict[str, type[ProviderError]] = {
    "authentication_error": AuthenticationError,
    "invalid_api_key": AuthenticationError,
    "permission_error": PermissionDeniedError,
    "not_found_error": NotFoundError,
    "model_not_found": NotFoundError,
    "rate_limit_error": RateLimitError,
    "rate_limit_exceeded": RateLimitError,
    "overloaded_error": OverloadedError,
    "context_length_exceeded": ContextOverflowError,
    "exceed_context_size_error": ContextOverflowError,
    "content_filter": ContentFilterError,
    "content_policy_violation": ContentFilterError,
    "invalid_request_error": BadRequestError,
    "request_too_large": BadRequestError,
    "billing_error": PermissionDeniedError,
}
_OVERFLOW = re.compile(r"(?:maximum context length|available context size|context window|prompt is too long)", re.I)
_LIMIT = re.compile(r"(?:context length is|context size \(|> ?|limit of )\s*(\d[\d,]{0,15})", re.I)
_PROMPT = re.compile(r"(?:requested(?: about)?|resulted in|request \(|prompt is too long:)\s*(\d[\d,]{0,15})", re.I)
_REQUEST_IDS = ("x-request-id", "request-id", "apim-request-id", "x-amzn-requestid", "cf-ray")


def provider_error(status: int | None, headers: Mapping[str, str], body: bytes) -> ProviderError:
    """The exception for an error body; `status` is None for an error that came inside a stream."""
    text = body.decode("utf-8", "replace").strip()
    try:
        value = decode_json(body)
    except ValueError:
        value = None
    return error_from_value(status, headers, value, text)


def error_from_value(status: int | None, headers: Mapping[str, str], value: Any, text: str) -> ProviderError:
    """The exception for a decoded error body; `text` is the body as it came."""
    while items := list_of(value):
        value = items[0]
    outer = mapping_of(value)
    inner = outer.get("error") or outer
    message = text_of(inner) or _message(mapping_of(inner)) or _message(outer) or _readable(text)
    fields = mapping_of(inner)
    told = (fields.get("code"), fields.get("type"), outer.get("code"))
    codes = [str(code) for code in told if isinstance(code, (int, str)) and code != ""]
    if status is None:
        status = next((int(code) for code in codes if re.fullmatch("[45][0-9][0-9]", code)), None)
    kind = _kind(status, codes, message)
    error = kind(
        f"{message or 'the provider gave no reason'}" + (f" (HTTP {status})" if status else ""),
        status=status,
        # llama.cpp's code is the status once more, and its type says what happened.
        code=next((code for code in codes if code != str(status)), codes[0] if codes else None),
        request_id=request_id(headers),
        retry_after=retry_after(headers),
        # An empty account is told like a rate limit, but no waiting fills it.
        retryable=(kind.retryable or status in (408, 409)) and "insufficient_quota" not in codes,
        body=text[:10_000],
    )
    if isinstance(error, ContextOverflowError):
        error.prompt_tokens = count_of(fields.get("n_prompt_tokens")) or _number(_PROMPT, message)
        error.context_length = count_of(fields.get("n_ctx")) or _number(_LIMIT, message)
    return error


# What a server of ours answers with, by the first of these that the error is.
_STATUS: tuple[tuple[type[SabirError], int], ...] = (
    (AuthenticationError, 401),
    (PermissionDeniedError, 403),
    (NotFoundError, 404),
    (RateLimitError, 429),
    (OverloadedError, 503),
    (BadRequestError, 400),
    (ConfigurationError, 400),
    (UnsupportedError, 400),
    (DeadlineExceeded, 504),
)


def status_of(error: SabirError) -> int:
    """The HTTP status that says an error best; the one it came with, if it has one."""
    if error.status is not None and error.status >= 400:
        return error.status
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def failure_object(error: SabirError, *, in_stream: bool = False) -> tuple[int, bytes]:
    """An error as status and body, in the shape of OpenAI's: `{"error": {"message", "type", "code", ...}}`.

    In a stream, whose status has long been sent, the status stands in for a code that there is not.
    """
    status = status_of(error)
    kind = "invalid_request_error" if status < 500 else "server_error"
    fields: dict[str, Any] = {"message": error.message, "type": kind, "param": None, "code": error.code}
    if in_stream and error.code is None:
        fields["code"] = status
    if isinstance(error, ContextOverflowError):
        fields["code"] = "context_length_exceeded"
        fields.update(n_prompt_tokens=error.prompt_tokens, n_ctx=error.context_length)
    return status, encode_json({"error": fields})


def request_id(headers: Mapping[str, str]) -> str | None:
    """The id under which the provider knows this request."""
    return next((headers[name] for name in _REQUEST_IDS if name in headers), None)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds the provider asks to wait, from `retry-after-ms` or `retry-after` (RFC 9110, 10.2.3).

    A date is measured from the answer's own `date`, so that no clock is needed and none can be wrong.
    """
    try:
        if 0 < (milliseconds := float(headers.get("retry-after-ms", "0"))) < inf:
            return milliseconds / 1000
    except ValueError:
        pass
    value = headers.get("retry-after", "")
    try:
        return max(0.0, seconds) if isfinite(seconds := float(value)) else None
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(value) - parsedate_to_datetime(headers["date"])).total_seconds())
    except (ValueError, KeyError, TypeError, OverflowError):
        return None


def _kind(status: int | None, codes: list[str], message: str) -> type[ProviderError]:
    named = [_BY_CODE[code] for code in codes if code in _BY_CODE]
    if ContextOverflowError in named or (status in (400, 413, None) and _OVERFLOW.search(message)):
        return ContextOverflowError
    specific = [kind for kind in named if kind is not BadRequestError]
    if specific and (status is None or status == 400):
        return specific[0]
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status is not None and 400 <= status < 500:
        return ContentFilterError if ContentFilterError in named else BadRequestError
    if status is None and named:
        return named[0]
    return ServerError


def _message(fields: dict[str, Any]) -> str:
    for name in ("message", "detail", "error", "msg"):
        if text := text_of(fields.get(name)):
            return text
    return ""


def _readable(text: str) -> str:
    if text.lstrip().startswith("<"):
        text = re.sub(r"<(style|script).*?</\1>|<[^<>]*>", " ", text[:10_000], flags=re.S | re.I)
    return " ".join(text.split())[:300]


def _number(pattern: re.Pattern[str], message: str) -> int | None:
    found = pattern.search(message)
    return int(found[1].replace(",", "")) if found else None
