"""An HTTP answer that is an error, as the exception it means; shared by all dialects, knows no provider.

The shapes are those of the recorded error bodies: `{"error": {...}}`, `{"error": "text"}`, `{"message", "code"}`,
`{"detail": ...}`, which may be a list of flaws, plain text, a proxy's HTML, nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import isfinite
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
    "invalid_model": NotFoundError,
    "rate_limit_error": RateLimitError,
    "rate_limit_exceeded": RateLimitError,
    "insufficient_quota": RateLimitError,
    "overloaded_error": OverloadedError,
    "context_length_exceeded": ContextOverflowError,
    "exceed_context_size_error": ContextOverflowError,
    "content_filter": ContentFilterError,
    "content_policy_violation": ContentFilterError,
    "image_content_policy_violation": ContentFilterError,
    "bio_policy": ContentFilterError,
    "misalignment_policy_violation": ContentFilterError,
    "invalid_request_error": BadRequestError,
    "request_too_large": BadRequestError,
    "billing_error": PermissionDeniedError,
    # What a response of OpenAI's fails with, https://platform.openai.com/docs/api-reference/responses/object.
    **dict.fromkeys(
        (
            *("invalid_prompt", "data_residency_mismatch", "invalid_image", "invalid_image_format"),
            *("invalid_base64_image", "invalid_image_url", "invalid_image_mode", "image_too_large", "image_too_small"),
            *("image_parse_error", "image_file_too_large", "image_file_not_found", "unsupported_image_media_type"),
            *("empty_image_file", "failed_to_download_image"),
        ),
        BadRequestError,
    ),
}
_OVERFLOW = re.compile(
    r"maximum (?:context|prompt) length|available context size|context window|(?:prompt|input) is too long|"
    r"exceeds? (?:the )?context limit",
    re.I,
)
# What the request is to blame for, though Ollama and llama-server also say it with a status of 500.
_TOO_LONG = re.compile(
    r"(?:longer than|exceeds) the (?:maximum |available )?context (?:length|size)|is too large to process|"
    r"larger than the max context size",
    re.I,
)
# What the request is to blame for, though FastAPI's servers may say it with a status of 500.
_INVALID = re.compile(r"\d+ validation errors?:")
_UNABLE = re.compile(r"(?:image|audio|video) input is not supported", re.I)
_LIMIT = re.compile(
    r"(?:(?:context|prompt) length is|context size \(|batch size:|> ?|limit of )\s*(\d[\d,]{0,15})", re.I
)
_PROMPT = re.compile(
    r"(?:requested(?: about)?|resulted in|request (?:\(|contains)|input \(|prompt is too long:)\s*(\d[\d,]{0,15})",
    re.I,
)
# When a limit on the rate is no longer used up: in "6m0s" or "20ms" (OpenAI, Groq), at a moment (Anthropic), in seconds
# (Hugging Face, Together), or in thousandths of those since 1970 (OpenRouter).
_DURATION = re.compile(
    r"(?=.)(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9}(?:\.\d{1,9})?)s)?(?:(\d{1,9}(?:\.\d{1,9})?)ms)?",
    re.ASCII,
)
# Of a request's flaws, as many are told.
_MOST_FLAWS = 5
_UNITS = (86_400.0, 3_600.0, 60.0, 1.0, 0.001)
_SINCE_1970 = 1e9
_MILLISECONDS_SINCE_1970 = 1e11
_REQUEST_IDS = (
    *("x-request-id", "request-id", "apim-request-id", "x-amzn-requestid"),
    *("mistral-correlation-id", "x-kong-request-id", "cf-ray"),
)


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
    message = text_of(inner) or _message(mapping_of(inner)) or _message(outer) or readable(text)
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
        # Anthropic tells its id in the body too, Cohere only there.
        request_id=request_id(headers)
        or text_of(outer.get("request_id"))
        or (text_of(outer.get("id")) if "error" not in outer else None),
        retry_after=retry_after(headers, status),
        retryable=(kind.retryable or status in (408, 409)) and not _is_lasting(status, codes, message),
        body=text[:10_000],
    )
    if isinstance(error, ContextOverflowError):
        error.prompt_tokens = count_of(fields.get("n_prompt_tokens")) or _number(_PROMPT, message)
        error.context_length = count_of(fields.get("n_ctx")) or _number(_LIMIT, message)
    return error


def as_kind(error: ProviderError, kind: type[ProviderError]) -> ProviderError:
    """The same error as another kind, for a format that knows better; whether to try again is that kind's word."""
    if kind is type(error):
        return error
    told = ("status", "code", "request_id", "retry_after", "body")
    return kind(error.message, **{name: getattr(error, name) for name in told})


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
    if status == 400 and error.code not in _BY_CODE and not isinstance(error, ContextOverflowError):
        # Of this status, only a code or type tells that it is more than a bad request.
        words = (word for word, known in _BY_CODE.items() if known is type(error) and word.endswith("_error"))
        kind = next(words, kind)
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


def retry_after(headers: Mapping[str, str], status: int | None = None) -> float | None:
    """Seconds the provider asks to wait: `retry-after-ms`, else `retry-after` (RFC 9110, 10.2.3), else its rate limits.

    Of these the longest that is used up counts; where it is not said which is, any of an answer 429. A moment is
    measured from the answer's own `date`, so that no clock is needed and none can be wrong.
    """
    for wait in (_milliseconds(headers), _retry_after(headers), _reset_of_limits(headers, status)):
        if wait is not None:
            return wait
    return None


def _milliseconds(headers: Mapping[str, str]) -> float | None:
    # Azure sends a 0 beside a `retry-after: 1`.
    return (_plain_number(headers.get("retry-after-ms", "")) or 0) / 1000 or None


def _retry_after(headers: Mapping[str, str]) -> float | None:
    value = headers.get("retry-after", "")
    try:
        return max(0.0, seconds) if isfinite(seconds := float(value)) else None
    except ValueError:
        return _seconds_until(_http_date(value), headers)


def _reset_of_limits(headers: Mapping[str, str], status: int | None) -> float | None:
    waits: list[float] = []
    for name, value in headers.items():
        if "ratelimit" not in name or "reset" not in name:
            continue
        remaining = headers.get(name.replace("reset", "remaining"))
        is_used_up = status == 429 if remaining is None else _plain_number(remaining) == 0
        if is_used_up and (wait := _reset(value, headers)) is not None:
            waits.append(wait)
    return max(waits, default=None)


def _reset(value: str, headers: Mapping[str, str]) -> float | None:
    if (number := _plain_number(value)) is not None:
        if number < _SINCE_1970:
            return number
        since = number / 1000 if number >= _MILLISECONDS_SINCE_1970 else number
        return _seconds_until(_moment(datetime.fromtimestamp, since, UTC), headers)
    if (parts := _DURATION.fullmatch(value)) is not None:
        return sum(float(part) * unit for part, unit in zip(parts.groups(default="0"), _UNITS, strict=True))
    return _seconds_until(_moment(datetime.fromisoformat, value), headers)


def _seconds_until(moment: datetime | None, headers: Mapping[str, str]) -> float | None:
    date = _http_date(headers.get("date", ""))
    return None if moment is None or date is None else max(0.0, (moment - date).total_seconds())


def _http_date(value: str) -> datetime | None:
    return _moment(parsedate_to_datetime, value)


def _moment(read: Callable[..., datetime], *args: Any) -> datetime | None:
    """A moment, if it is one; without a zone it is UTC, as in all of HTTP."""
    try:
        moment = read(*args)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, TypeError, OverflowError, OSError):
        return None


def _plain_number(value: str) -> float | None:
    return float(value) if re.fullmatch(r"\d{1,15}(?:\.\d{1,9})?", value, re.ASCII) else None


def _kind(status: int | None, codes: list[str], message: str) -> type[ProviderError]:
    named = [_BY_CODE[code] for code in codes if code in _BY_CODE]
    if ContextOverflowError in named or (status in (400, 413, 422, None) and _OVERFLOW.search(message)):
        return ContextOverflowError
    if status in (400, 413, 422, 500, None) and _TOO_LONG.search(message):
        return ContextOverflowError
    if status == 500 and _INVALID.match(message):
        return BadRequestError
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


def _is_lasting(status: int | None, codes: list[str], message: str) -> bool:
    """Whether waiting does not help: an empty account is told like a rate limit, and what is not built will not be."""
    return "insufficient_quota" in codes or status == 501 or _UNABLE.search(message) is not None


def _message(fields: dict[str, Any]) -> str:
    for name in ("message", "detail", "error", "msg"):
        value = fields.get(name)
        if text := text_of(value) or _flaws(value):
            return text
    return ""


def _flaws(value: Any) -> str:
    """What a server of FastAPI's found wrong with a request, field by field; nothing if this is no list of that."""
    found = [mapping_of(flaw) for flaw in list_of(value) or list_of(mapping_of(value).get("detail"))]
    told = [
        ": ".join(filter(None, (".".join(map(str, list_of(flaw.get("loc")))), text)))
        for flaw in found
        if (text := text_of(flaw.get("msg")))
    ]
    more = f" and {len(told) - _MOST_FLAWS} more" if len(told) > _MOST_FLAWS else ""
    return "; ".join(told[:_MOST_FLAWS]) + more


def readable(text: str) -> str:
    """The words of a text, without the tags of a page."""
    if text.lstrip().startswith("<"):
        text = re.sub(r"<(style|script).*?</\1>|<[^<>]*>", " ", text[:10_000], flags=re.S | re.I)
    return " ".join(text.split())[:300]


def _number(pattern: re.Pattern[str], message: str) -> int | None:
    found = pattern.search(message)
    return int(found[1].replace(",", "")) if found else None
