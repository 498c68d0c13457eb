"""Which proxy stands between a client and a server: the setting `proxy=`, else the environment, read once.

Decided here for every transport; it opens no connection and knows no HTTP.
"""

from __future__ import annotations

import ipaddress
import os
import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, final
from urllib.parse import unquote, urlsplit

from ..errors import ConfigurationError
from ..requests import Secret

if TYPE_CHECKING:
    from . import Origin

_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}

# Asked directly whatever the environment says: a proxy elsewhere could not reach them.
THIS_MACHINE = "localhost, 127.0.0.0/8, 0.0.0.0, ::1, ::"

# Never by a proxy, whoever names one: a machine's own link, where clouds keep what gives credentials. Another machine
# would reach another link, and be told who that machine is.
_OWN_LINK = tuple(map(ipaddress.ip_network, ("169.254.0.0/16", "fd00:ec2::/32")))

_HOST = re.compile(r"[\w.:%-]+", re.ASCII)

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Block = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Proxy:
    """A proxy. Prints as `the proxy http://host:port`, for error messages; its credentials are shown nowhere."""

    scheme: str
    host: str
    port: int
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"the proxy {self.url}"

    @property
    def is_socks(self) -> bool:
        return self.scheme.startswith("socks")

    @property
    def url(self) -> str:
        """Its address, without the credentials."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def authorization(self) -> str | None:
        """What tells the proxy who asks: the value of Proxy-Authorization."""
        if not (self.username or self.password):
            return None
        return Secret(f"Basic {b64encode(f'{self.username}:{self.password}'.encode()).decode()}")


@final
class Proxies:
    """The proxies of a client: for each scheme at most one, and the servers that are asked without it."""

    def __init__(self, by_scheme: Mapping[str, tuple[str, Secret]], spared: str = "") -> None:
        """`by_scheme` has a proxy's URL, and before it what named it; `spared` is what NO_PROXY would say."""
        self._by_scheme = dict(by_scheme)
        self._spared = [_spared(entry) for entry in re.split(r"[\s,]+", spared) if entry]
        self._known: dict[Origin, Proxy | None] = {}

    def proxy_for(self, origin: Origin) -> Proxy | None:
        """The proxy by which a server is reached; None if it is asked itself.

        Raises:
            ConfigurationError: the environment names one that can be none.
        """
        if not self._by_scheme:
            return None
        if origin not in self._known:
            is_direct = origin.scheme not in self._by_scheme or any(each.includes(origin) for each in self._spared)
            is_direct = is_direct or _is_on_own_link(origin.host)
            self._known[origin] = None if is_direct else _proxy(*self._by_scheme[origin.scheme])
        return self._known[origin]


NO_PROXIES = Proxies({})


def proxies_of(setting: Any, environ: Mapping[str, str] = os.environ) -> Proxies:
    """The proxies that a client was told to use: a URL for every server, False for none, None for the environment's.

    Raises:
        ConfigurationError: the setting is none of these. What is wrong with the environment is told to the first
            request that would need it, as a model in this process needs no proxy.
    """
    if setting is None:
        return _of_environment(environ)
    if setting is False:
        return NO_PROXIES
    if not isinstance(setting, str):
        raise ConfigurationError(f"proxy is the URL of a proxy, or False for none, not {type(setting).__name__}")
    named = "proxy=", Secret(setting)
    _proxy(*named)
    return Proxies({"http": named, "https": named})


def _of_environment(environ: Mapping[str, str]) -> Proxies:
    """What HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY say, in lower case first; an empty one says nothing."""
    found: dict[str, tuple[str, Secret]] = {}
    for scheme in ("http", "https"):
        for name in (f"{scheme}_proxy", "all_proxy"):
            if value := _variable(name, environ):
                found[scheme] = name.upper(), Secret(value)
                break
    return Proxies(found, f"{THIS_MACHINE},{_variable('no_proxy', environ)}") if found else NO_PROXIES


def _variable(name: str, environ: Mapping[str, str]) -> str:
    value = environ.get(name, "").strip()
    # A CGI program gets the header `Proxy` of whoever calls it as HTTP_PROXY (httpoxy).
    is_header = name == "http_proxy" and "REQUEST_METHOD" in environ
    if is_header and os.name == "nt":
        return ""  # Where a variable's case does not count.
    return value or ("" if is_header else environ.get(name.upper(), "").strip())


def _proxy(source: str, url: str) -> Proxy:
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        proxy = Proxy(
            parts.scheme,
            parts.hostname or "",
            parts.port or _PORTS[parts.scheme],
            unquote(parts.username or ""),
            Secret(unquote(parts.password or "")),
        )
    except (KeyError, ValueError):
        pass
    else:
        has_rest = parts.path not in ("", "/") or parts.query or parts.fragment
        if _HOST.fullmatch(proxy.host) and ":" not in proxy.username and not has_rest:
            return proxy
    # Without the URL, in which a password may stand.
    raise ConfigurationError(
        f"{source} is no address of a proxy: it must look like 'http://host:port' or 'http://user:password@host:port', "
        "with http, https or socks5, and all but letters and digits in user and password percent-encoded"
    )


class _Spared(NamedTuple):
    """One entry of NO_PROXY: a name with all below it, or a block of addresses; of one port, or of any."""

    name: str
    block: _Block | None
    port: int | None

    def includes(self, origin: Origin) -> bool:
        if self.port not in (None, origin.port):
            return False
        if self.block is not None:
            return (address := _address(origin.host)) is not None and address in self.block
        host = origin.host.rstrip(".")
        return self.name == "*" or host == self.name or host.endswith(f".{self.name}")


def _spared(entry: str) -> _Spared:
    place, _, port = entry.rpartition(":")
    if _block(entry) is not None or not (place and port.isdecimal()):
        place, port = entry, ""
    name = place.lower().removeprefix("*.").strip(".")
    return _Spared(name, _block(place), int(port) if port else None)


def _block(text: str) -> _Block | None:
    try:
        return ipaddress.ip_network(text.removeprefix("[").removesuffix("]"), strict=False)
    except ValueError:
        return None


def _is_on_own_link(host: str) -> bool:
    return (address := _address(host)) is not None and any(address in block for block in _OWN_LINK)


def _address(host: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
