"""What is decided once for every transport: addresses, headers, TLS, limits, the words of its errors.

It knows no HTTP library. The modules that do are loaded by the first call of a client, not by `import sabir`.
"""

from __future__ import annotations

import functools
import importlib
import os
import re
import socket
import ssl
from importlib.util import find_spec
from typing import Any, NamedTuple, Protocol, cast

from ..errors import ConfigurationError, ConnectError, SabirError, StreamInterrupted
from ..requests import HttpRequest
from ..runtime import Line, Transport
from .proxies import NO_PROXIES, Proxies, Proxy, proxies_of

# An answer's head; of a session of aiohttp that was given, a line of it. Providers put long policies and rate limits
# there; 8 kB, a usual limit, is too little.
HEADER_LIMIT = 65536

# Shorter than the idle limits of common load balancers, so that it is seldom they who close a connection in our pool.
KEEP_IDLE_SECONDS = 55.0


class Network(NamedTuple):
    """What a client says of the way to its servers; decided here, once, for all transports."""

    context: ssl.SSLContext | None = None
    proxies: Proxies = NO_PROXIES
    http2: bool = False

    def proxy_for(self, origin: Origin) -> Proxy | None:
        """The proxy by which a server is reached; None if it is asked itself."""
        return self.proxies.proxy_for(origin)

    def http_proxy_for(self, origin: Origin) -> Proxy | None:
        """The same, where only proxies that speak HTTP can be used.

        Raises:
            ConfigurationError: the proxy speaks SOCKS.
        """
        if (proxy := self.proxy_for(origin)) is not None and proxy.is_socks:
            raise ConfigurationError(
                f"{proxy} speaks SOCKS, which only the transport of httpx2 does: pip install 'sabir[httpx2]' and pass "
                "transport='httpx2'"
            )
        return proxy


SYSTEM = Network()


def network_of(
    transport: Any, *, ssl_context: Any = None, ca_file: Any = None, proxy: Any = None, http2: Any = None
) -> Network:
    """What a client's settings say of the network; of the environment, the proxies are read here and now.

    Raises:
        ConfigurationError: a setting cannot work, or would have no effect on the transport that was given.
    """
    settings = {"ssl_context": ssl_context, "ca_file": ca_file, "proxy": proxy, "http2": http2}
    told = [name for name, value in settings.items() if value]
    if told and not isinstance(transport, str | None):
        raise ConfigurationError(f"{told[0]}= has no effect, as transport= has a network of its own; set it there")
    if http2 and transport is None:
        raise ConfigurationError("http2= needs the transport of httpx2: pass transport='httpx2' too")
    return Network(_context_of(ssl_context, ca_file, bool(http2)), proxies_of(proxy), bool(http2))


class HttpClient(Protocol):
    """A client of httpx or httpx2, of either colour."""

    @property
    def is_closed(self) -> bool: ...

    @property
    def params(self) -> Any: ...

    def build_request(self, *args: Any, **kwargs: Any) -> Any: ...

    def send(self, *args: Any, **kwargs: Any) -> Any: ...


class HttpSession(Protocol):
    """A session of aiohttp."""

    @property
    def closed(self) -> bool: ...

    def request(self, *args: Any, **kwargs: Any) -> Any: ...


# By what was given as transport=, and whether it is to be awaitable: the module and the class of a transport of ours.
_OURS: dict[tuple[str | None, bool], tuple[str, str]] = {
    (None, False): ("blocking", "BlockingTransport"),
    (None, True): ("eventful", "EventfulTransport"),
    ("httpx2", False): ("httpx2", "BlockingHttpx2"),
    ("httpx2", True): ("httpx2", "EventfulHttpx2"),
}
# HTTP clients that may be given: the class that makes a transport of one, and whether it is awaitable. They are known
# by the names of package and class, as none of them is imported to ask.
_CLIENTS = {
    "httpx.Client": ("HttpxClient", False),
    "httpx.AsyncClient": ("AsyncHttpxClient", True),
    "httpx2.Client": ("HttpxClient", False),
    "httpx2.AsyncClient": ("AsyncHttpxClient", True),
    "aiohttp.ClientSession": ("AiohttpSession", True),
}


def check_transport(given: Any, *, is_awaitable: bool) -> None:
    """See to it that what was given as `transport=` can be one, before it is needed.

    Raises:
        ConfigurationError: it cannot, or is of the other colour, or its package is not installed.
    """
    if isinstance(given, str) and (given, is_awaitable) in _OURS:
        if find_spec("httpcore2") is None:
            raise ConfigurationError("transport='httpx2' needs the package httpx2: pip install 'sabir[httpx2]'")
    elif (name := _client_name(given)) is not None:
        if _CLIENTS[name][1] != is_awaitable:
            right = "sabir.Client" if is_awaitable else "sabir.aio.Client"
            raise ConfigurationError(f"transport= is of the other colour: {name} goes with {right}")
    elif given is not None and not _is_transport(given):
        shown = repr(given) if isinstance(given, str | type) else type(given).__name__
        raise ConfigurationError(
            f"transport= is 'httpx2', a client of httpx, httpx2 or aiohttp, or a sabir.runtime.Transport, not {shown}"
        )


def blocking_transport(given: Any = None, network: Network = SYSTEM) -> Transport:
    """The transport for `runtime.Blocking`: ours, or what carries HTTP by what was given."""
    return _transport(given, network, is_awaitable=False)


def eventful_transport(given: Any = None, network: Network = SYSTEM) -> Transport:
    """The transport for `runtime.Eventful`: ours, or what carries HTTP by what was given."""
    return _transport(given, network, is_awaitable=True)


def runs_on_trio(given: Any) -> bool:
    """Whether an awaitable transport may be used on trio's loop too."""
    return given is not None and _client_name(given) != "aiohttp.ClientSession"


def _transport(given: Any, network: Network, *, is_awaitable: bool) -> Transport:
    made: Transport
    if given is None or isinstance(given, str):
        module, name = _OURS[given, is_awaitable]
        made = getattr(importlib.import_module(f"{__name__}.{module}"), name)(network)
    elif (client := _client_name(given)) is not None:
        made = getattr(importlib.import_module(f"{__name__}.clients"), _CLIENTS[client][0])(given)
    else:
        made = given
    return made


def _client_name(given: Any) -> str | None:
    """Which of `_CLIENTS` it is, itself or by a class of its own that derives from one."""
    names = (f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(given).__mro__)
    return next((name for name in names if name in _CLIENTS), None)


def _is_transport(given: Any) -> bool:
    has_methods = all(callable(getattr(given, name, None)) for name in ("send", "close"))
    # A session of requests has both, of another kind.
    return has_methods and not isinstance(given, type) and not type(given).__module__.startswith("requests.")


@functools.cache
def ssl_context(*, http2: bool = False) -> ssl.SSLContext:
    """Certificates of the system. One for the process: to load the certificates takes tens of ms."""
    return _system_context(http2)


def _system_context(http2: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2", "http/1.1"] if http2 else ["http/1.1"])
    return context


def _context_of(given: Any, ca_file: Any, http2: bool) -> ssl.SSLContext | None:
    """The certificates that a client trusts: a context's, or the system's and those of a file; None is the system's."""
    # Not by its type: `truststore` puts a class of its own in the place of `ssl.SSLContext`.
    if given is not None and not hasattr(given, "wrap_bio"):
        raise ConfigurationError(f"ssl_context is an ssl.SSLContext, not {type(given).__name__}")
    if ca_file is None:
        return cast("ssl.SSLContext | None", given)
    if given is not None:
        raise ConfigurationError("pass ssl_context= or ca_file=; a context takes a file by load_verify_locations(file)")
    if not isinstance(ca_file, (str, os.PathLike)):
        raise ConfigurationError(f"ca_file is the path of a PEM file, not {type(ca_file).__name__}")
    context = _system_context(http2)
    try:
        context.load_verify_locations(os.fspath(ca_file))
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"ca_file {os.fspath(ca_file)!r} cannot be used ({_text(error)}); it must be a readable file of "
            "certificates in PEM format: blocks that begin with -----BEGIN CERTIFICATE-----"
        ) from None
    return context


class Origin(NamedTuple):
    """Where connections go; those of one origin are interchangeable. Prints as `host:port`, for error messages."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


# What an error is about: a server, or the proxy on the way to it.
Place = Origin | Proxy

_WANTS_CREDENTIALS = 407

OTHER_PROTOCOL = "the server changed to another protocol (HTTP 101), which nobody asked for"

# What says how long a body is, for whoever sends it to say.
FRAMING = frozenset({"content-length", "transfer-encoding"})
_METHODS_WITH_BODY = {"POST", "PUT", "PATCH"}
_PORTS = {"http": 80, "https": 443}
_URL = re.compile(r'(https?)://([^/?#@\s]+)([/?][!"$-~]*)?(?:#[!-~]*)?', re.ASCII | re.IGNORECASE)
_AUTHORITY = re.compile(r"(?:\[([0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]|([\w.-]+))(?::(\d{0,5}))?", re.ASCII)
_NAME = re.compile(r"[!#$%&'*+.^`|~\w-]+", re.ASCII)


def locate(url: str) -> tuple[Origin, str]:
    """Where a URL leads, and the target to ask for there, byte for byte as it was given.

    Raises:
        ConfigurationError: no request can be sent to this URL.
    """
    if (parts := _URL.fullmatch(url)) is None:
        raise _url_error(url)
    scheme, authority, target = parts.groups(default="")
    if not target.startswith("/"):
        target = "/" + target
    return _origin(scheme.lower(), authority), target


@functools.lru_cache
def _origin(scheme: str, authority: str) -> Origin:
    parts = _AUTHORITY.fullmatch(authority)
    if parts is None or int(parts[3] or 0) > 65535:
        raise _url_error(f"{scheme}://{authority}")
    return Origin(scheme, (parts[1] or parts[2]).lower(), int(parts[3] or _PORTS[scheme]))


def _url_error(url: str) -> ConfigurationError:
    shown = re.sub(r"//[^/]*@", "//", re.split(r"[?#]", url)[0])
    return ConfigurationError(
        f"{shown!r} is no address to send a request to: it must be http(s)://host[:port]/path in ASCII, all other "
        "characters percent-encoded (in a host name: punycode), without user or password"
    )


def check_header(name: str, value: str) -> None:
    """See to it that a header can be sent as it is.

    Raises:
        ConfigurationError: it cannot.
    """
    if _NAME.fullmatch(name) is None:
        raise ConfigurationError(f"{name!r} is no name of an HTTP header")
    if not (value.isascii() and value.isprintable()):
        raise ConfigurationError(f"the value of header {name!r} has a character that is not printable ASCII")


def headers(request: HttpRequest, origin: Origin, proxy: Proxy | None = None) -> list[tuple[str, str]]:
    """The headers to send: the caller's, Host, what frames the body, and the wish that it come back uncompressed.

    A proxy that passes on what it can read finds its credentials among them; through a tunnel they never go.

    Raises:
        ConfigurationError: the method or a header cannot be sent as it is.
    """
    if _NAME.fullmatch(request.method) is None:
        raise ConfigurationError(f"{request.method!r} is no HTTP method")
    given: list[tuple[str, str]] = []
    names: set[str] = set()
    for name, value in request.headers:
        check_header(name, value)
        if (key := name.lower()) not in FRAMING:
            names.add(key)
            given.append((name, value))
    if request.body or request.method in _METHODS_WITH_BODY:
        given.append(("Content-Length", str(len(request.body))))
    if "accept-encoding" not in names:
        given.append(("Accept-Encoding", "identity"))
    if "host" not in names:
        given.insert(0, ("Host", origin.authority))
    if proxy is not None and origin.scheme == "http":
        given += proxy_headers(proxy)
    return given


def target_by(proxy: Proxy | None, origin: Origin, target: str) -> str:
    """What to ask for: a proxy that passes the request on is given the whole URL."""
    return f"http://{origin.authority}{target}" if proxy is not None and origin.scheme == "http" else target


def refusal_by(proxy: Proxy | None, origin: Origin, status: int) -> ConnectError | None:
    """The error for an answer that is the proxy's own, as it passes on nothing before it knows who asks."""
    if proxy is None or origin.scheme != "http" or status != _WANTS_CREDENTIALS:
        return None
    return proxy_error(proxy, origin, status)


def proxy_headers(proxy: Proxy) -> list[tuple[str, str]]:
    """What a proxy is told of who asks."""
    return [] if proxy.authorization is None else [("Proxy-Authorization", proxy.authorization)]


def merged(pairs: Any) -> dict[str, str]:
    """Headers of an answer: names in lower case, those that came more than once joined by a comma."""
    found: dict[str, str] = {}
    for name, value in pairs:
        key = name.lower()
        found[key] = f"{found[key]}, {value}" if key in found else value
    return found


def connect_error(place: Place, cause: BaseException | str) -> ConnectError:
    """The error for an exchange that failed before an answer began, and where it did."""
    if isinstance(cause, ssl.SSLCertVerificationError):
        return ConnectError(
            f"the certificate of {place} is not trusted ({cause.verify_message}); check the address and this machine's "
            "clock; if an authority of your own signed it, pass ca_file= with the authority's certificate",
            retryable=False,
        )
    if isinstance(cause, ssl.SSLError):
        return ConnectError(f"no TLS connection to {place} ({cause}); check that this port speaks https")
    if isinstance(cause, (socket.gaierror, UnicodeError)):
        return ConnectError(f"cannot find the host of {place} ({cause}); check its name and the network")
    if isinstance(cause, ConnectionRefusedError):
        return ConnectError(f"{place} refused the connection ({cause}); check that a server runs there")
    return ConnectError(f"no answer from {place} ({_text(cause)}); check the address and the network")


def proxy_error(proxy: Proxy, origin: Origin, status: int) -> ConnectError:
    """The error for a proxy that answered with something else than a connection."""
    if status == _WANTS_CREDENTIALS:
        what = f"{proxy} wants user and password, or others (HTTP 407); write it as 'http://user:password@host:port'"
    else:
        what = f"{proxy} made no connection to {origin} (HTTP {status}); check the address and what the proxy allows"
    return ConnectError(what, status=status, retryable=status >= 500)


def connect_timeout_error(place: Place, line: Line) -> SabirError:
    """The error for a connection that could not be made within what the line allows."""
    limit = connect_limit(line)
    if line.aborted or line.is_over() or limit is None:
        return line.timeout_error()
    return ConnectError(f"no connection to {place} within {limit:g} s; check the address and the network")


def connect_limit(line: Line) -> float | None:
    """Seconds that connecting may take: where it has no limit of its own, a server that is silent is silent."""
    return line.idle if line.connect is None else line.connect


def interrupted_error(place: Place, cause: BaseException | str) -> StreamInterrupted:
    """The error for an answer that began and broke off."""
    return StreamInterrupted(f"the answer from {place} broke off ({_text(cause)})", retryable=True)


def _text(cause: BaseException | str) -> str:
    return cause if isinstance(cause, str) else str(cause) or type(cause).__name__
