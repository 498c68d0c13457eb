"""Which key goes where; the only room that reads keys. A key is sent to one address and shown nowhere.

A key given by the caller goes to the address the caller gave, else to the provider's own. A key of the environment goes
to its provider's own address and nowhere else, and not to one that only a file in the working directory names. Where
there is none, the standard credentials of the provider's cloud prove who asks, by the same rule.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any, NamedTuple, Protocol, TypeGuard, cast, final
from urllib.parse import urlsplit

from .clouds import LEAST_SECRET, Headers, Renewed, Standard
from .credentials_aws import AwsAuth, find_endpoint, find_region, region_of
from .environment import Environment, Found
from .errors import ConfigurationError, SabirError
from .providers import PLACE, KeyHeader, Provider, check_base_url, is_same_server
from .requests import HttpRequest, Secret
from .runtime import Line, Runtime
from .signing import AwsCredentials

# How many tokens are remembered, to be struck out of what servers repeat.
MOST_TOKENS = 16


class Auth(Protocol):
    """What proves to a server who asks: a key, a token, a signature."""

    @property
    def names(self) -> frozenset[str]:
        """The headers that it sets, in lower case: no caller's header takes their place, and they are never shown."""
        ...

    @property
    def source(self) -> str:
        """Where it is from, in words."""
        ...

    async def headers(self, http: HttpRequest, runtime: Runtime, line: Line) -> tuple[tuple[str, str], ...]:
        """The headers for one attempt at a request, whose address and other headers are those that will be sent.

        Raises:
            ConfigurationError: there is no proof to be had.
            SabirError: who gives proofs refused, or did not answer in time.
        """
        ...

    def removed_from(self, text: str) -> str:
        """The text without what is secret, should a server have repeated it."""
        ...


class Key:
    """A secret. Prints as dots, so that no repr, log or traceback that shows it tells it."""

    __slots__ = ("_name", "_value", "source")

    def __init__(self, value: str, header: KeyHeader = "authorization", source: str = "the key of api_key=") -> None:
        self._value = Secret(value)
        self._name: KeyHeader = header
        self.source = source

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

    async def headers(self, http: HttpRequest, runtime: Runtime, line: Line) -> tuple[tuple[str, str], ...]:
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

    source = "what the function given as api_key= returned"

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

    async def headers(self, http: HttpRequest, runtime: Runtime, line: Line) -> tuple[tuple[str, str], ...]:
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
        return _without(text, self._given)


@final
class CloudAuth:
    """The headers of a cloud's standard credentials, which keep themselves fresh."""

    __slots__ = ("_given", "_renewed")

    names = frozenset({"authorization"})
    source = "the standard credentials of its cloud"

    def __init__(self, renewed: Renewed[Headers]) -> None:
        self._renewed = renewed
        self._given: deque[Secret] = deque(maxlen=MOST_TOKENS)

    def __repr__(self) -> str:
        return "CloudAuth(…)"

    def __reduce__(self) -> str:
        raise TypeError("credentials are not pickled")

    async def headers(self, http: HttpRequest, runtime: Runtime, line: Line) -> tuple[tuple[str, str], ...]:
        given = await self._renewed.get(runtime, line)
        for name, value in given:
            token = Secret(value.rpartition(" ")[2])
            if name in self.names and token not in self._given:
                self._given.append(token)
        # What says for whom a request is may be said by the caller instead.
        theirs = {name.lower() for name, _ in http.headers}
        return tuple(header for header in given if header[0] in self.names or header[0] not in theirs)

    def removed_from(self, text: str) -> str:
        return _without(text, self._given)


# What a caller may give to prove who asks; a function gives a key, a token, or what signs requests to AWS.
Given = str | AwsCredentials
ApiKey = Given | Standard[Any] | Callable[[], Given | Awaitable[Given]]

# Where each cloud's standard credentials are found, loaded when they are first wanted.
_CLOUDS = {"aws": ("sabir.clouds.aws", "Aws"), "google": ("sabir.clouds.google", "Google")}
_CLOUDS["azure"] = ("sabir.clouds.azure", "Azure")
# A file that is named for a cloud goes before the key that its row shares with others.
_NAMED_FILE = {"google": "GOOGLE_APPLICATION_CREDENTIALS"}


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
    if provider.signing is not None and (endpoint := find_endpoint(environment, provider.url)) is not None:
        check_base_url(endpoint)
        return Address(endpoint, True)
    url, server_is_from_file = provider.url, False
    while place := PLACE.search(url):
        names = place[1].split("|")
        found = environment.find(*names) or _known(provider, names, environment)
        if found is None and place[2] is not None:
            found = Found("the row", Secret(place[2]), is_from_file=False)
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
    host = urlsplit(url).netloc
    url = url.replace(host, provider.hosts.get(host, host), 1)
    check_base_url(url)
    return Address(url, True, server_is_from_file)


def _known(provider: Provider, names: list[str], environment: Environment) -> Found | None:
    """What the files of a cloud's tools say in place of a variable that is not set."""
    value = None
    if "AWS_REGION" in names:
        value = find_region(environment)
    elif "GOOGLE_CLOUD_PROJECT" in names:
        value = import_module(_CLOUDS["google"][0]).project_of(environment)
    return None if value is None else Found(f"what the files of {provider.cloud} say", Secret(value), False)


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
    """The key for one provider at one address, or what proves who asks in its place; None if nothing does.

    Raises:
        ConfigurationError: the provider wants a key and there is none, or it can be no header's value.
    """
    environment = environment or Environment()
    if api_key is not None:
        return _given(provider, base_url, api_key, environment)
    if not provider.keys or provider.url is None:
        return None
    address = find_address(provider, base_url, environment)
    if not address.is_own and not _is_of_cloud(provider, address.url):
        return None
    found = None if _is_file_named(provider, environment) else environment.find(*provider.keys)
    if address.is_from_file and (found is not None or provider.cloud is not None):
        _check_origin(provider, found)
    if found is not None:
        where = f"the key of {found.name}, in .env" if found.is_from_file else f"the key of {found.name}"
        return _checked(found.value, found.name, provider.key_header, where)
    if provider.cloud is not None:
        return _standard_auth(provider, base_url, _standard(provider.cloud, environment), environment)
    if provider.is_key_optional:
        return None
    raise ConfigurationError(
        f"{provider.name} wants a key: set the environment variable {' or '.join(provider.keys)}, or pass api_key=; a "
        "line in the file .env will do too",
        provider=provider.name,
    )


def _given(provider: Provider, base_url: str | None, api_key: ApiKey, environment: Environment) -> Auth:
    """What proves who asks of what a caller gave."""
    if _is_standard(api_key):
        return _standard_auth(provider, base_url, api_key, environment)
    if isinstance(api_key, AwsCredentials) or (callable(api_key) and provider.signing is not None):
        return AwsAuth(*_signing(provider, base_url, environment), api_key)
    if callable(api_key):
        return TokenSource(api_key, provider.token_header or provider.key_header)
    return _checked(api_key, "api_key", provider.key_header)


def _is_standard(api_key: ApiKey) -> TypeGuard[Standard[Any]]:
    return isinstance(api_key, Standard)


def _is_file_named(provider: Provider, environment: Environment) -> bool:
    """Whether a file of credentials is named for the provider's cloud, whose rows take a key that is no token."""
    variable = _NAMED_FILE.get(provider.cloud or "")
    return variable is not None and provider.token_header is not None and environment.find(variable) is not None


def _check_origin(provider: Provider, found: Found | None) -> None:
    """Refuse to send a key of the environment, or the credentials of whoever runs this, to an address of `.env`."""
    if found is None:
        raise ConfigurationError(
            f"the address of {provider.name} stands in .env, and the credentials of whoever runs this do not go where "
            "a folder says; set it in the environment, put a key beside it, or pass base_url= and api_key=",
            provider=provider.name,
        )
    if not found.is_from_file:
        raise ConfigurationError(
            f"the address of {provider.name} stands in .env and its key, {found.name}, in the environment: a key does "
            "not go where a folder says; put both in one place, or pass base_url= and api_key=",
            provider=provider.name,
        )


def _is_of_cloud(provider: Provider, url: str) -> bool:
    """Whether an address is that of the same service in another region or network of its cloud."""
    if provider.signing is not None:
        return region_of(url, provider.url or "") is not None
    if not provider.hosts:
        return False
    parts, own = urlsplit(url), urlsplit(PLACE.sub("place", provider.url or "")).hostname or ""
    pattern = re.escape(own).replace("place", "[a-z0-9-]+")
    is_host = parts.hostname in provider.hosts.values() or re.fullmatch(pattern, parts.hostname or "") is not None
    return is_host and parts.scheme == "https" and parts.port in (None, 443)


def _standard(cloud: str, environment: Environment) -> Standard[Any]:
    """The standard credentials of a cloud, as this environment has them: one object for all models of a client."""
    if cloud not in environment.kept:
        module, name = _CLOUDS[cloud]
        environment.kept.setdefault(cloud, getattr(import_module(module), name)(environment=environment))
    return cast("Standard[Any]", environment.kept[cloud])


def _standard_auth(provider: Provider, base_url: str | None, standard: Standard[Any], environment: Environment) -> Auth:
    if standard.signs:
        return AwsAuth(*_signing(provider, base_url, environment), cast("Renewed[AwsCredentials]", standard.renewed))
    return CloudAuth(cast("Renewed[Headers]", standard.renewed))


def _signing(provider: Provider, base_url: str | None, environment: Environment) -> tuple[str, str]:
    """In the name of which service requests are signed, and for which region."""
    if provider.signing is None:
        raise ConfigurationError(
            f"requests to {provider.name} are not signed: AWS's credentials are no api_key= for it"
        )
    return provider.signing, _region(provider, base_url, environment)


def _region(provider: Provider, base_url: str | None, environment: Environment) -> str:
    """The region that signatures are for: the one that the address names, else that of the environment."""
    named = region_of(base_url, provider.url or "") if base_url is not None else None
    if (region := named or find_region(environment)) is None:
        raise ConfigurationError(
            f"requests to {provider.name} are signed for a region: set the environment variable AWS_REGION",
            provider=provider.name,
        )
    return region


def _without(text: str, secrets: deque[Secret]) -> str:
    for secret in tuple(secrets):
        text = text.replace(secret, "***") if len(secret) >= LEAST_SECRET else text
    return text


def _checked(value: Any, name: str, header: KeyHeader, source: str = "the key of api_key=") -> Key:
    _check(value, name)
    return Key(value, header, source)


def _check(value: Any, source: str) -> None:
    if not isinstance(value, str) or not value or not value.isascii() or not value.isprintable():
        raise ConfigurationError(f"{source} is no usable key: it is empty or has characters that no header can carry")


def _header(name: KeyHeader, value: Secret) -> tuple[str, str]:
    return name, Secret(f"Bearer {value!s}") if name == "authorization" else value
