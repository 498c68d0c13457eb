"""Everything that can go wrong, as one closed family; knows nothing of who raises what.

SabirError
├── ConfigurationError (ValueError)        the caller's settings cannot work; raised before anything is sent
├── UnsupportedError (ValueError)          a portable wish that this model or provider has no way to fulfil
├── ProviderError                          a server answered, and the answer is an error
│   ├── AuthenticationError (PermissionError)
│   ├── PermissionDeniedError (PermissionError)
│   ├── NotFoundError (LookupError)
│   ├── BadRequestError (ValueError)
│   │   ├── ContextOverflowError           the prompt is longer than the model's context
│   │   └── ContentFilterError             refused by a moderation filter
│   ├── RateLimitError (RuntimeError)
│   ├── OverloadedError (RuntimeError)
│   └── ServerError (RuntimeError)
├── ConnectError (ConnectionError)         no answer began: name, socket, TLS, or a connection lost
├── DeadlineExceeded (TimeoutError)        the total deadline or the idle limit ran out
├── StreamInterrupted (ConnectionError)    an answer began and did not reach its end; `.partial` has what arrived
├── StreamProtocolError (ValueError)       the bytes are not what the wire format allows
├── ToolError (RuntimeError)               a tool that cannot be advertised or found
├── StructuredOutputError (ValueError)     the answer does not fit the schema that was asked for
├── BudgetExceeded (RuntimeError)
├── FallbackExhaustedError (RuntimeError)
├── StorageError (OSError)
├── EngineError (RuntimeError)             a model in this process could not be loaded or run
└── ClosedError (RuntimeError)             used after close(), or closed by its owner while in use
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .messages import Message
    from .requests import Attempt, Notice


class SabirWarning(UserWarning):
    """Something the caller asked for was weakened or left out; it also stands in `response.warnings`."""


class SabirError(Exception):
    """The base of every exception that leaves this library.

    Fields, each None where unknown: `provider`, `model`, `status` (HTTP), `code` (the provider's own),
    `request_id`, `retry_after` (seconds), `body` (the answer's text), `partial` (the unfinished message);
    `retryable` says whether the same call may succeed later, `attempts` lists the requests already made, `warnings`
    what did not go as asked before it failed.
    """

    retryable = False

    def __init__(
        self,
        message: str,
        *,
        provider: str | None = None,
        model: str | None = None,
        status: int | None = None,
        code: str | None = None,
        request_id: str | None = None,
        retryable: bool | None = None,
        retry_after: float | None = None,
        attempts: tuple[Attempt, ...] = (),
        body: str | None = None,
        partial: Message | None = None,
        warnings: tuple[Notice, ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.provider = provider
        self.model = model
        self.status = status
        self.code = code
        self.request_id = request_id
        if retryable is not None:
            self.retryable = retryable
        self.retry_after = retry_after
        self.attempts = attempts
        self.body = body
        self.partial = partial
        self.warnings = warnings

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.message, dict(self.__dict__))


def _restore(kind: type[SabirError], message: str, fields: dict[str, Any]) -> SabirError:
    error = kind(message)
    error.__dict__.update(fields)
    return error


class ConfigurationError(SabirError, ValueError):
    """A setting that cannot work: a wrong model string, a missing key, an unknown option."""


class UnsupportedError(SabirError, ValueError):
    """A portable wish that has no equivalent where it was to be sent."""


class ProviderError(SabirError):
    """A server answered with an error."""


class AuthenticationError(ProviderError, PermissionError):
    """The key is missing, wrong or expired (HTTP 401)."""


class PermissionDeniedError(ProviderError, PermissionError):
    """The key is known but may not do this (HTTP 403)."""


class NotFoundError(ProviderError, LookupError):
    """No such model or address (HTTP 404)."""


class BadRequestError(ProviderError, ValueError):
    """The server refused the request as it stands (HTTP 400, 413, 422)."""


class ContextOverflowError(BadRequestError):
    """The prompt does not fit the model's context: `prompt_tokens` of `context_length`, None where not told."""

    prompt_tokens: int | None = None
    context_length: int | None = None


class ContentFilterError(BadRequestError):
    """A moderation filter refused the request."""


class RateLimitError(ProviderError, RuntimeError):
    """Too many requests or tokens (HTTP 429)."""

    retryable = True


class OverloadedError(ProviderError, RuntimeError):
    """The provider has no capacity right now (HTTP 503, 529)."""

    retryable = True


class ServerError(ProviderError, RuntimeError):
    """The provider failed (HTTP 5xx), or answered with something that is no answer."""

    retryable = True


class ConnectError(SabirError, ConnectionError):
    """No answer began: the name, the socket, TLS, or a connection lost before the first byte."""

    retryable = True


class DeadlineExceeded(SabirError, TimeoutError):
    """The total deadline or the limit on silence ran out."""


class StreamInterrupted(SabirError, ConnectionError):
    """An answer began and did not reach its end; `partial` holds what had arrived."""


class StreamProtocolError(SabirError, ValueError):
    """The server sent what its wire format does not allow."""


class ToolError(SabirError, RuntimeError):
    """A tool that cannot be described, found or run outside a conversation."""


class StructuredOutputError(SabirError, ValueError):
    """The answer does not fit the schema; `partial` holds the message as it came.

    `answers` are all that did not fit, where it was asked for again (`validation_retries`).
    """

    answers: tuple[Message, ...] = ()


class BudgetExceeded(SabirError, RuntimeError):
    """A limit on cost, tokens or rounds was reached."""


class FallbackExhaustedError(SabirError, RuntimeError):
    """Every model of a fallback chain failed."""


class StorageError(SabirError, OSError):
    """Stored data could not be read or written."""


class EngineError(SabirError, RuntimeError):
    """A model in this process could not be loaded or run."""


class ClosedError(SabirError, RuntimeError):
    """Used after `close()`, or closed by its owner while in use."""
