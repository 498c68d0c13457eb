"""What is decided once for every transport: addresses, headers, TLS, socket options, limits, the words of its errors.

It knows no HTTP library. The modules that do are loaded by the first call of a client, not by `import sabir`.
"""

from __future__ import annotations

import functools
import importlib
import re
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from ..errors import ConfigurationError, ConnectError, SabirError, StreamInterrupted
from ..requests import HttpRequest
from ..runtime import Line, Outcome, Transport

# One line of an answer's head. Providers put long policies and rate limits there; 8 kB, a usual limit, is too little.
HEADER_LIMIT = 65536

# Shorter than the idle limits of common load balancers, so that it is seldom they who close a connection in our pool.
KEEP_IDLE_SECONDS = 55.0


def _socket_options() -> tuple[tuple[int, int, int], ...]:
    """No waiting for full packets; a peer that has gone is noticed in two minutes while a model thinks in silence."""
    options = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    # macOS has the idle time as TCP_KEEPALIVE; a platform without any of these keeps its own times.
    for names, value in ((("TCP_KEEPIDLE", "TCP_KEEPALIVE"), 60), (("TCP_KEEPINTVL",), 10), (("TCP_KEEPCNT",), 6)):
        for name in names:
            if (option := getattr(socket, name, None)) is not None:
                options.append((socket.IPPROTO_TCP, option, value))
                break
    return tuple(options)


SOCKET_OPTIONS = _socket_options()


class Network(NamedTuple):
    """What a client says of the way to its servers; decided here, once, for all transports."""

    context: ssl.SSLContext | None = None


SYSTEM = Network()


def blocking_transport(given: Transport | None = None, network: Network = SYSTEM) -> Transport:
    """The transport for `runtime.Blocking`: the one that was given, else our own."""
    if given is not None:
        return given
    transport: Transport = importlib.import_module(f"{__name__}.blocking").BlockingTransport(network.context)
    return transport


def eventful_transport(given: Transport | None = None, network: Network = SYSTEM) -> Transport:
    """The transport for `runtime.Eventful`: the one that was given, else our own."""
    if given is not None:
        return given
    transport: Transport = importlib.import_module(f"{__name__}.eventful").EventfulTransport(network.context)
    return transport


@functools.cache
def ssl_context() -> ssl.SSLContext:
    """Certificates of the system, HTTP/1.1 only. One for the process: to load the certificates takes tens of ms."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
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


_FRAMING = {"content-length", "transfer-encoding"}
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


def headers(request: HttpRequest, origin: Origin) -> list[tuple[str, str]]:
    """The headers to send: the caller's, Host, what frames the body, and the wish that it come back uncompressed.

    Raises:
        ConfigurationError: the method or a header cannot be sent as it is.
    """
    if _NAME.fullmatch(request.method) is None:
        raise ConfigurationError(f"{request.method!r} is no HTTP method")
    given: list[tuple[str, str]] = []
    names: set[str] = set()
    for name, value in request.headers:
        if _NAME.fullmatch(name) is None:
            raise ConfigurationError(f"{name!r} is no name of an HTTP header")
        if not (value.isascii() and value.isprintable()):
            raise ConfigurationError(f"the value of header {name!r} has a character that is not printable ASCII")
        if (key := name.lower()) not in _FRAMING:
            names.add(key)
            given.append((name, value))
    if request.body or request.method in _METHODS_WITH_BODY:
        given.append(("Content-Length", str(len(request.body))))
    if "accept-encoding" not in names:
        given.append(("Accept-Encoding", "identity"))
    if "host" not in names:
        given.insert(0, ("Host", origin.authority))
    return given


def resolve(host: str, port: int, deliver: Callable[[Outcome], None]) -> None:
    """Look up the addresses of a host on a daemon thread, as `getaddrinfo` gives them.

    A lookup has no timeout and cannot be stopped, and an executor's thread would be waited for at exit.
    """

    def look_up() -> None:
        deliver(Outcome.of(lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))

    threading.Thread(target=look_up, name="sabir-resolver", daemon=True).start()


def merged(pairs: Any) -> dict[str, str]:
    """Headers of an answer: names in lower case, those that came more than once joined by a comma."""
    found: dict[str, str] = {}
    for name, value in pairs:
        key = name.lower()
        found[key] = f"{found[key]}, {value}" if key in found else value
    return found


def connect_error(origin: Origin, cause: BaseException | str) -> ConnectError:
    """The error for an exchange that failed before an answer began."""
    if isinstance(cause, ssl.SSLCertVerificationError):
        return ConnectError(
            f"the certificate of {origin} is not trusted ({cause.verify_message}); check the address, this machine's "
            "clock and whether a proxy's certificate is missing among the system's",
            retryable=False,
        )
    if isinstance(cause, ssl.SSLError):
        return ConnectError(f"no TLS connection to {origin} ({cause}); check that this port speaks https")
    if isinstance(cause, (socket.gaierror, UnicodeError)):
        return ConnectError(f"cannot find the host of {origin} ({cause}); check its name and the network")
    if isinstance(cause, ConnectionRefusedError):
        return ConnectError(f"{origin} refused the connection ({cause}); check that a server runs there")
    return ConnectError(f"no answer from {origin} ({_text(cause)}); check the address and the network")


def timeout_error(line: Line) -> SabirError:
    """The error for a wait that timed out; a clock may be a moment early, and then the deadline is not quite over."""
    return line.deadline_error() if line.idle is None and not line.aborted else line.timeout_error()


def connect_timeout_error(origin: Origin, line: Line) -> SabirError:
    """The error for a connection that could not be made within what the line allows."""
    limit = connect_limit(line)
    if line.aborted or line.is_over() or limit is None:
        return timeout_error(line)
    return ConnectError(f"no connection to {origin} within {limit:g} s; check the address and the network")


def connect_limit(line: Line) -> float | None:
    """Seconds that connecting may take: where it has no limit of its own, a server that is silent is silent."""
    return line.idle if line.connect is None else line.connect


def interrupted_error(origin: Origin, cause: BaseException | str) -> StreamInterrupted:
    """The error for an answer that began and broke off."""
    return StreamInterrupted(f"the answer from {origin} broke off ({_text(cause)})", retryable=True)


def _text(cause: BaseException | str) -> str:
    return cause if isinstance(cause, str) else str(cause) or type(cause).__name__
