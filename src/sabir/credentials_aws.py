"""AWS's credentials and region, as its own tools find them, and what signs requests with them. Asks no network.

Of the chain of AWS's tools this is built, in its order: the variables AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and
AWS_SESSION_TOKEN; then the profile AWS_PROFILE (or `default`) of ~/.aws/credentials and ~/.aws/config (or of the files
that AWS_SHARED_CREDENTIALS_FILE and AWS_CONFIG_FILE name). What would have to be fetched (SSO, roles to assume, a
`credential_process`, and what a container or an EC2 instance is given) is left to a function given as `api_key=`:

    session = boto3.Session(profile_name="work").get_credentials()

    def credentials():
        found = session.get_frozen_credentials()
        return AwsCredentials(found.access_key, found.secret_key, found.token)

    client = sabir.Client("bedrock:amazon.nova-lite-v1:0", api_key=credentials)
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, final
from urllib.parse import urlsplit

from .environment import Environment
from .errors import ConfigurationError, SabirError
from .requests import HttpRequest, Secret
from .runtime import Runtime
from .signing import AwsCredentials, signature_headers

__all__ = ["AwsAuth", "AwsCredentials", "find_credentials", "find_region", "region_of"]

Section = dict[str, str]

_SECTION = re.compile(r"\[\s*(?:profile\s+)?([^\]]+?)\s*\]")
_SETTING = re.compile(r"([\w.-]+)\s*=\s*(.*?)\s*(?:\s[#;].*)?")
# What a profile has where its credentials would have to be fetched.
_FETCHED = (
    "sso_session",
    "sso_start_url",
    "role_arn",
    "credential_process",
    "web_identity_token_file",
    "login_session",
)
# How many credentials are remembered, to be struck out of what servers repeat.
_MOST_REMEMBERED = 16


@final
class AwsAuth:
    """Signs each attempt at a request anew, with credentials or with what a function of the caller's gives.

    That function is asked before every attempt, and may give a bearer token (a text) in place of credentials.
    """

    __slots__ = ("_credentials", "_given", "_region", "_service")

    names = frozenset({"authorization", "x-amz-date", "x-amz-security-token"})

    def __init__(self, service: str, region: str, credentials: AwsCredentials | Callable[[], Any]) -> None:
        self._service = service
        self._region = region
        self._credentials = credentials
        self._given: deque[Secret] = deque(maxlen=2 * _MOST_REMEMBERED)

    def __repr__(self) -> str:
        return "AwsAuth(…)"

    def __reduce__(self) -> str:
        raise TypeError("what signs requests is not pickled")

    async def headers(self, http: HttpRequest, runtime: Runtime) -> tuple[tuple[str, str], ...]:
        found = self._credentials
        if not isinstance(found, AwsCredentials):
            try:
                found = await runtime.call(found)
            except SabirError:
                raise
            except Exception as error:
                what = f"{type(error).__name__}: {error}"
                raise ConfigurationError(f"api_key= is a function, and it failed: {what}") from error
        if isinstance(found, AwsCredentials):
            self._remember(found.secret, found.token)
            moment = datetime.now(UTC)
            return signature_headers(http, found, region=self._region, service=self._service, moment=moment)
        if not isinstance(found, str) or not found or not _is_sendable(found):
            raise ConfigurationError("the function given as api_key= is to return AwsCredentials or a token")
        self._remember(Secret(found))
        return (("authorization", Secret(f"Bearer {found}")),)

    def removed_from(self, text: str) -> str:
        for secret in tuple(self._given):
            text = text.replace(secret, "***")
        return text

    def _remember(self, *secrets: Secret | None) -> None:
        self._given.extend(secret for secret in secrets if secret and secret not in self._given)


def find_credentials(environment: Environment) -> AwsCredentials | None:
    """The credentials of the environment or of a profile; None if there are none.

    Raises:
        ConfigurationError: they are incomplete, or would have to be fetched.
    """
    if (key_id := environment.find("AWS_ACCESS_KEY_ID")) is not None:
        secret, token = environment.find("AWS_SECRET_ACCESS_KEY"), environment.find("AWS_SESSION_TOKEN")
        what = "AWS_SECRET_ACCESS_KEY is not set"
        return _complete(key_id.value, secret and secret.value, token and token.value, what)
    name, profile = _profile(environment)
    if found := profile.get("aws_access_key_id"):
        secret_key, session = profile.get("aws_secret_access_key"), profile.get("aws_session_token")
        return _complete(found, secret_key, session, f"the profile {name!r} has no aws_secret_access_key")
    if fetched := next((setting for setting in _FETCHED if setting in profile), None):
        raise ConfigurationError(
            f"the credentials of the profile {name!r} would have to be fetched ({fetched}), which is not done here: "
            "run `aws configure export-credentials --format env`, or pass a function as api_key= "
            "(help('sabir.credentials_aws') shows one)"
        )
    return None


def find_region(environment: Environment) -> str | None:
    """The region of the environment or of the profile."""
    found = environment.find("AWS_REGION", "AWS_DEFAULT_REGION")
    return found.value if found is not None else _profile(environment)[1].get("region")


def region_of(address: str, own: str) -> str | None:
    """The region that an address names, if it is one of the service whose own is `own`; None for any other.

    `own` is like `https://service.{REGION}.amazonaws.com`; the endpoints of a VPC, and others of AWS, are longer.
    """
    service = re.escape((urlsplit(own).hostname or "").partition(".")[0])
    host = rf"(?:[\w-]+\.)?{service}(?:-fips)?\.([a-z0-9-]+)\.(?:vpce\.)?(?:amazonaws\.com(?:\.cn)?|api\.aws)"
    parts = urlsplit(address)
    found = re.fullmatch(host, parts.hostname or "", re.ASCII)
    return found[1] if found and parts.scheme == "https" and parts.port in (None, 443) else None


def _complete(key_id: str, secret: str | None, token: str | None, otherwise: str) -> AwsCredentials:
    if not secret:
        raise ConfigurationError(f"there is the id of an AWS access key without its secret: {otherwise}")
    if not all(map(_is_sendable, (key_id, secret, token or ""))):
        raise ConfigurationError("the AWS credentials have characters that no header can carry")
    return AwsCredentials(key_id, secret, token)


def _is_sendable(text: str) -> bool:
    return text.isascii() and text.isprintable()


def _profile(environment: Environment) -> tuple[str, Section]:
    """The profile's name and its settings, of both files; those of the credentials' file count."""
    named = environment.find("AWS_PROFILE", "AWS_DEFAULT_PROFILE")
    name = named.value if named is not None else "default"
    found: list[Section | None] = []
    for variable, file in (("AWS_CONFIG_FILE", "config"), ("AWS_SHARED_CREDENTIALS_FILE", "credentials")):
        path = environment.find(variable)
        found.append(_sections(path.value if path is not None else f"~/.aws/{file}").get(name))
    if found == [None, None] and named is not None:
        raise ConfigurationError(f"{named.name} names the profile {name!s}, which is in neither of AWS's files")
    return name, {setting: value for section in found for setting, value in (section or {}).items()}


def _sections(file: str) -> dict[str, Section]:
    """The sections of one of AWS's files, by the names of their profiles; settings within a setting are passed over."""
    try:
        text = Path(file).expanduser().read_text("utf-8-sig")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigurationError(f"{file} cannot be read: {type(error).__name__}") from None
    sections: dict[str, Section] = {}
    current: Section = {}
    for line in text.splitlines():
        if (header := _SECTION.match(line)) is not None:
            current = sections.setdefault(header[1], {})
        elif (setting := _SETTING.fullmatch(line)) is not None:
            current[setting[1].lower()] = setting[2]
    return sections
