"""What signs requests to AWS, and what their addresses say: regions, and who else is the same service.

Credentials come from the caller, or from AWS's standard chain (`clouds.aws`), which is asked once for many calls.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, final
from urllib.parse import urlsplit

from .clouds import Renewed
from .clouds.aws_files import endpoint_of, files_of, profile_of, region_of_profile
from .environment import Environment
from .errors import ConfigurationError, SabirError
from .requests import HttpRequest, Secret
from .runtime import Line, Runtime
from .signing import AwsCredentials, signature_headers

# How many credentials are remembered, to be struck out of what servers repeat.
_MOST_REMEMBERED = 16

Source = AwsCredentials | Renewed[AwsCredentials] | Callable[[], Any]


@final
class AwsAuth:
    """Signs each attempt at a request anew: with credentials, a chain's, or what a function of the caller's gives.

    The function is asked before every attempt, and may give a bearer token (a text) in place of credentials.
    """

    __slots__ = ("_given", "_region", "_service", "_source")

    names = frozenset({"authorization", "x-amz-date", "x-amz-security-token"})
    source = "a signature with AWS's credentials"

    def __init__(self, service: str, region: str, source: Source) -> None:
        self._service = service
        self._region = region
        self._source = source
        self._given: deque[Secret] = deque(maxlen=2 * _MOST_REMEMBERED)

    def __repr__(self) -> str:
        return "AwsAuth(…)"

    def __reduce__(self) -> str:
        raise TypeError("what signs requests is not pickled")

    async def headers(self, http: HttpRequest, runtime: Runtime, line: Line) -> tuple[tuple[str, str], ...]:
        found = await self._found(runtime, line)
        if isinstance(found, AwsCredentials):
            self._remember(found.secret, found.token)
            moment = datetime.now(UTC)
            return signature_headers(http, found, region=self._region, service=self._service, moment=moment)
        if not isinstance(found, str) or not found or not found.isascii() or not found.isprintable():
            raise ConfigurationError("the function given as api_key= is to return AwsCredentials or a token")
        self._remember(Secret(found))
        return (("authorization", Secret(f"Bearer {found}")),)

    def removed_from(self, text: str) -> str:
        for secret in tuple(self._given):
            text = text.replace(secret, "***")
        return text

    async def _found(self, runtime: Runtime, line: Line) -> Any:
        if isinstance(self._source, AwsCredentials):
            return self._source
        if isinstance(self._source, Renewed):
            return await self._source.get(runtime, line)
        try:
            return await runtime.call(self._source)
        except SabirError:
            raise
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            raise ConfigurationError(f"api_key= is a function, and it failed: {what}") from error

    def _remember(self, *secrets: Secret | None) -> None:
        self._given.extend(secret for secret in secrets if secret and secret not in self._given)


def find_region(environment: Environment) -> str | None:
    """The region of the environment, else of the profile in AWS's files, which are read here and now.

    Raises:
        ConfigurationError: a file cannot be read, or the profile that is named is in neither.
    """
    if (found := environment.find("AWS_REGION", "AWS_DEFAULT_REGION")) is not None:
        return found.value
    return region_of_profile(environment, profile_of(files_of(environment), environment)[1])


def find_endpoint(environment: Environment, own: str) -> str | None:
    """The address that the environment or the profile sets for the service whose own is `own`.

    Raises:
        ConfigurationError: a file cannot be read, or the profile that is named is in neither.
    """
    files = files_of(environment)
    return endpoint_of(environment, files, profile_of(files, environment)[1], _service(own).replace("-", "_"))


def region_of(address: str, own: str) -> str | None:
    """The region that an address names, if it is one of the service whose own is `own`; None for any other.

    `own` is like `https://service.{REGION}.amazonaws.com`; the endpoints of a VPC, and others of AWS, are longer.
    """
    service = re.escape(_service(own))
    host = rf"(?:[\w-]+\.)?{service}(?:-fips)?\.([a-z0-9-]+)\.(?:vpce\.)?(?:amazonaws\.com(?:\.cn)?|api\.aws)"
    parts = urlsplit(address)
    found = re.fullmatch(host, parts.hostname or "", re.ASCII)
    return found[1] if found and parts.scheme == "https" and parts.port in (None, 443) else None


def _service(own: str) -> str:
    """The service's name in its address."""
    return (urlsplit(own).hostname or "").partition(".")[0]
