"""Which key goes where; the only room that reads keys. A key is sent to one address and shown nowhere.

A key given by the caller goes to the address the caller gave, else to the provider's own. A key of the environment goes
to its provider's own address and nowhere else, and not to one that only a file in the working directory names.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, final

from .credentials_aws import AwsAuth, find_credentials, find_region, region_of
from .environment import Environment, Found
from .errors import ConfigurationError, SabirError
from .providers import PLACE, KeyHeader, Provider, check_base_url, is_same_server
from .requests import HttpRequest, Secret
from .runtime import Runtime

# What local servers are given for want of a key is shorter, and stands in many a message.
LEAST_SECRET = 8
# How many tokens are remembered, to be struck out of what servers repeat.
MOST_TOKENS = 16


class Auth(Protocol):
    """What proves to a server who asks: a key, a token, a signature."""

    @property
    def names(self) -> frozenset[str]:
        """The headers that it sets, in lower case: no caller's header takes their place, and they are never shown."""
        ...

    async def headers(self, http: HttpRequest, runtime: Runtime) -> tuple[tuple[str, str], ...]:
        """The headers for one attempt at a request, whose address and other headers are those that will be sent.

        Raises:
            ConfigurationError: there is no proof to be had.
        """
        ...

    def removed_from(self, text: str) -> str:
        """The text without what is secret, should a server have repeated it."""
        ...


class Key:
    """A secret. Prints as dots, so that no repr, log or traceback that shows it tells it."""

    __slots__ = ("_name", "_value")

    def __init__(self, value: str, header: KeyHeader = "authorization") -> None:
        self._value = Secret(value)
        self._name: KeyHeader = header

    def __repr__(self) -> str:
        return "Key(…)"

    def __reduce__(self) -> str:
        raise TypeError("a key is not pickled")

    @property
    def names(self) -> frozenset[str]:
        return frozenset({self._name})

    def header(self) -> tuple[str, str]:
        """The header that proves who asks."""
        return _header(self._name, self._value)

    async def headers(self, http: HttpRequest, runtime: Runtime) -> tuple[tuple[str, str], ...]:
        return (self.header(),)

    def removed_from(self, text: str) -> str:
        """The text without the key. A stand-in like "none" is no secret."""
        return text.replace(self._value, "***") if len(self._value) >= LEAST_SECRET else text


@final
class TokenSource:
    """A function of the caller's that gives a token, asked before every attempt; whether it keeps one is its affair.

    It is the caller's code, so that no deadline of ours ends it.
    """

    __slots__ = ("_function", "_given", "_name")

    def __init__(self, function: Callable[[], Any], header: KeyHeader) -> None:
        self._function = function
        self._name: KeyHeader = header
        self._given: deque[Secret] = deque(maxlen=MOST_TOKENS)

    def __repr__(self) -> str:
        return "TokenSource(…)"

    def __reduce__(self) -> str:
        raise TypeError("a source of tokens is not pickled")

    @property
    def names(self) -> frozenset[str]:
        return frozenset({self._name})

    async def headers(self, http: HttpRequest, runtime: Runtime) -> tuple[tuple[str, str], ...]:
        try:
            given = await runtime.call(self._function)
        except SabirError:
            raise
        except Exception as error:
            raise ConfigurationError(
                f"api_key= is a function, and it failed: {type(error).__name__}: {error}"
            ) from error
        _check(given, "what the function given as api_key= returned")
        token = Secret(given)
        if token not in self._given:
            self._given.append(token)
        return (_header(self._name, token),)

    def removed_from(self, text: str) -> str:
        for token in tuple(self._given):
            text = text.replace(token, "***") if len(token) >= LEAST_SECRET else text
        return text


ApiKey = str | Callable[[], Any]


class Address(NamedTuple):
    """Where a provider is asked; whether it is its own address, and whether a file names the server."""

    url: str
    is_own: bool
    is_from_file: bool = False


def find_address(provider: Provider, base_url: str | None, environment: Environment) -> Address:
    """The address to ask a provider at, the variables in it replaced by what they stand for.

    Raises:
        ConfigurationError: there is none, or a variable that is part of it is not set or cannot be part of an address.
    """
    if base_url is not None:
        return Address(base_url, _is_of(provider, base_url, environment))
    if provider.url is None:
        raise ConfigurationError(
            f"{provider.name} has no address of its own: write '{provider.name}:<model id>@http://host/v1', or pass "
            "base_url=",
            provider=provider.name,
        )
    url, server_is_from_file = provider.url, False
    while place := PLACE.search(url):
        names = place[1].split("|")
        found = environment.find(*names)
        if found is None and provider.signing is not None and (region := find_region(environment)) is not None:
            found = Found("the region of the AWS profile", Secret(region), is_from_file=False)
        if found is None:
            raise ConfigurationError(
                f"{provider.name} needs to know where: set the environment variable {' or '.join(names)}, or pass "
                "base_url=",
                provider=provider.name,
            )
        before, after = url[: place.start()], url[place.end() :]
        # Below a domain that the table names, no word leads to a stranger.
        names_server = not before or (before.count("/") < 3 and "." not in after.partition("/")[0])
        server_is_from_file |= names_server and found.is_from_file
        url = before + _part(found.name, found.value, is_first=not before) + after
    check_base_url(url)
    return Address(url, True, server_is_from_file)


def _is_of(provider: Provider, base_url: str, environment: Environment) -> bool:
    """Whether an address of the caller's is the provider's own server."""
    try:
        own = find_address(provider, None, environment)
    except ConfigurationError:
        return False
    return not own.is_from_file and is_same_server(base_url, own.url)


def _part(name: str, value: str, is_first: bool) -> str:
    """A variable's value as a part of an address: a whole server where it comes first, else one word."""
    if is_first:
        server = value.rstrip("/")
        server = server if "://" in server else f"https://{server}"
        check_base_url(server)
        return server
    if not re.fullmatch(r"[A-Za-z0-9._~-]+", value):
        raise ConfigurationError(f"{name} cannot be a part of an address: it has other characters than A-Z 0-9 . _ ~ -")
    return value


def find_key(
    provider: Provider,
    base_url: str | None,
    api_key: ApiKey | None,
    environment: Environment | None = None,
) -> Auth | None:
    """The key for one provider at one address, or what signs in its place; None if it is to be asked without one.

    Raises:
        ConfigurationError: the provider wants a key and there is none, or it can be no header's value.
    """
    environment = environment or Environment()
    if callable(api_key) and provider.signing is not None:
        return AwsAuth(provider.signing, _region(provider, base_url, environment), api_key)
    if callable(api_key):
        return TokenSource(api_key, provider.token_header or provider.key_header)
    if api_key is not None:
        return _checked(api_key, "api_key", provider.key_header)
    if not provider.keys or provider.url is None:
        return None
    address = find_address(provider, base_url, environment)
    # The endpoints of AWS's own networks are other servers of the same service.
    is_signed = provider.signing is not None and region_of(address.url, provider.url) is not None
    if not address.is_own and not is_signed:
        return None
    if (found := environment.find(*provider.keys)) is not None:
        if address.is_from_file and not found.is_from_file:
            raise ConfigurationError(
                f"the address of {provider.name} stands in .env and its key, {found.name}, in the environment: a key "
                "does not go where a folder says; put both in one place, or pass base_url= and api_key=",
                provider=provider.name,
            )
        return _checked(found.value, found.name, provider.key_header)
    if provider.signing is not None and (credentials := find_credentials(environment)) is not None:
        return AwsAuth(provider.signing, _region(provider, base_url, environment), credentials)
    if provider.is_key_optional:
        return None
    signed = "; or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE" if provider.signing is not None else ""
    raise ConfigurationError(
        f"{provider.name} wants a key: set the environment variable {' or '.join(provider.keys)}, or pass api_key="
        f"{signed}; a line in the file .env will do too",
        provider=provider.name,
    )


def _region(provider: Provider, base_url: str | None, environment: Environment) -> str:
    """The region that signatures are for: the one that the address names, else that of the environment."""
    named = region_of(base_url, provider.url or "") if base_url is not None else None
    if (region := named or find_region(environment)) is None:
        raise ConfigurationError(
            f"requests to {provider.name} are signed for a region: set the environment variable AWS_REGION",
            provider=provider.name,
        )
    return region


def _checked(value: str, source: str, header: KeyHeader) -> Key:
    _check(value, source)
    return Key(value, header)


def _check(value: Any, source: str) -> None:
    if not isinstance(value, str) or not value or not value.isascii() or not value.isprintable():
        raise ConfigurationError(f"{source} is no usable key: it is empty or has characters that no header can carry")


def _header(name: KeyHeader, value: Secret) -> tuple[str, str]:
    return name, Secret(f"Bearer {value!s}") if name == "authorization" else value
