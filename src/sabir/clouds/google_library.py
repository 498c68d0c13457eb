"""Google's own library, google-auth, for the credentials that only it understands. Its exchanges are carried by us.

It is blocking and knows no event loop, and is given a transport of its own: the caller's may belong to a loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from typing import Any, final

from google.auth import aws, exceptions, external_account_authorized_user, identity_pool, pluggable

from ..environment import Environment
from ..errors import AuthenticationError, ConfigurationError, SabirError
from ..requests import Secret
from ..runtime import Blocking, Line, run
from ..strict_json import is_object
from ..transports import blocking_transport, network_of
from . import Proof
from .errands import Answer, Errand, shortened

# Of one exchange, where the library sets no limit.
MOST_SECONDS = 120.0
_AWS = "urn:ietf:params:aws:token-type:aws4_request"


def token_of(info: Mapping[str, Any], scopes: tuple[str, ...], line: Line) -> Proof[Secret]:
    """A token for what a file says. Blocks.

    Raises:
        ConfigurationError: the library cannot use the file.
        SabirError: who gives tokens refused, or did not answer.
    """
    runtime = Blocking(lambda: blocking_transport(None, network_of(None)))
    exchanges = _Exchanges(Errand(runtime, line, Environment()))
    try:
        credentials = _credentials(info, scopes)
        credentials.refresh(exchanges)
    except (exceptions.GoogleAuthError, ValueError, TypeError, KeyError, OSError) as error:
        if exchanges.failure is not None:
            raise exchanges.failure from None
        kind = AuthenticationError if isinstance(error, exceptions.RefreshError) else ConfigurationError
        raise kind(
            f"google-auth gave no credentials: {type(error).__name__}: {shortened(str(error.args[:1]))}"
        ) from None
    finally:
        runtime.close()
    # The library's moments are UTC without saying so.
    ends = credentials.expiry and credentials.expiry.replace(tzinfo=UTC).timestamp()
    return Proof(Secret(credentials.token), ends)


def _credentials(info: Mapping[str, Any], scopes: tuple[str, ...]) -> Any:
    made: Any
    source = info.get("credential_source")
    if info["type"] == "external_account_authorized_user":
        made = external_account_authorized_user.Credentials
    elif info.get("subject_token_type") == _AWS:
        made = aws.Credentials
    elif is_object(source) and source.get("executable") is not None:
        made = pluggable.Credentials
    else:
        made = identity_pool.Credentials
    return made.from_info(info, scopes=list(scopes))


@final
class _Exchanges:
    """How the library asks: one exchange at a time, on the call's line."""

    def __init__(self, errand: Errand) -> None:
        self._errand = errand
        self.failure: SabirError | None = None

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: str | bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **others: Any,
    ) -> _Answered:
        data = body.encode() if isinstance(body, str) else body or b""

        async def asked() -> Answer:
            seconds = MOST_SECONDS if timeout is None else timeout
            with self._errand.within(seconds) as short:
                return await short.fetch(method, url, headers=tuple((headers or {}).items()), body=data)

        try:
            return _Answered(run(asked))
        except SabirError as error:
            self.failure = error
            raise exceptions.TransportError("the exchange failed") from None  # type: ignore[no-untyped-call]


@final
class _Answered:
    """An answer as the library reads it."""

    def __init__(self, answer: Answer) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self.data = answer.text.encode()
