"""One file from the internet, loaded here because whoever is to see it does not fetch it. Knows no media type.

An address may come from a stranger, and what this machine can reach is more than the stranger can. So a name is
resolved once, what it leads to is checked, and the connection goes to that very address; a redirect begins anew.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from importlib import import_module
from typing import Literal
from urllib.parse import urljoin, urlsplit

from .compression import decompressed
from .errors import ConfigurationError, ConnectError
from .requests import HttpRequest
from .runtime import Line, Reply, Transport, run
from .transports import Network, locate

From = Literal["public", "any", "never"]

MOST_REDIRECTS = 3

_REDIRECTS = {301, 302, 303, 307, 308}
_HEADERS = (("user-agent", "sabir"), ("accept", "*/*"), ("connection", "close"))
_INTERNET = ipaddress.ip_network("2000::/3")
# What maps addresses of IPv4 into IPv6: the last 32 bits say where a packet ends.
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")
_NOT_PUBLIC = (
    ipaddress.ip_network("168.63.129.16/32"),  # Azure's machines ask it for what is theirs.
    ipaddress.ip_network("192.0.0.0/24"),  # for protocols; Oracle's machines find their metadata there
    ipaddress.ip_network("192.88.99.0/24"),  # 6to4's relays
    ipaddress.ip_network("2002::/16"),  # 6to4: any address of IPv4 may be in it
    ipaddress.ip_network("3fff::/20"),  # documentation
)


def is_public(address: str) -> bool:
    """Whether an IP address is one of the internet: not this machine, not its network, not its cloud's metadata."""
    parsed = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed in _TRANSLATED:
            parsed = ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)
        elif parsed not in _INTERNET:
            return False
    return parsed.is_global and not parsed.is_multicast and not any(parsed in network for network in _NOT_PUBLIC)


def download(url: str, line: Line, network: Network, most: int, allowed: From = "public") -> bytes:
    """Load what an http(s) address leads to. Blocks; the line's limits hold for all of it.

    Raises:
        ConfigurationError: it may not be loaded (a private address, a proxy before it), or is not there, or too large.
        ConnectError, StreamInterrupted, DeadlineExceeded, ClosedError: as any exchange.
    """
    return run(lambda: _loaded(url, line, network, most, allowed))


def shown(url: str) -> str:
    """The address without its query, where signatures are."""
    return re.split(r"[?#]", url)[0]


async def _loaded(url: str, line: Line, network: Network, most: int, allowed: From) -> bytes:
    for _ in range(MOST_REDIRECTS + 1):
        answer = await _asked(url, line, network, most, allowed)
        if isinstance(answer, bytes):
            return answer
        url = answer
    raise _refusal(url, f"there are more than {MOST_REDIRECTS} redirects before it")


async def _asked(url: str, line: Line, network: Network, most: int, allowed: From) -> bytes | str:
    """What is there, or the address that it redirects to."""
    origin, _ = locate(url)
    if allowed != "any" and network.proxy_for(origin) is not None:
        why = "where the proxy before it would connect to cannot be checked; load it yourself and pass its bytes"
        raise _refusal(url, why)
    private: list[str] = []
    # Loaded with the first file: it is the only transport that says where it connects to before it does.
    blocking = import_module(f"{__package__}.transports.blocking")
    transport: Transport = blocking.BlockingTransport(network, _admission(allowed, private))
    try:
        reply = await transport.send(HttpRequest("GET", url, _HEADERS, b""), line)
        if reply.status in _REDIRECTS and (target := reply.headers.get("location")):
            return _redirected(url, target)
        if reply.status != 200:
            raise _refusal(url, f"its server answered with HTTP {reply.status}")
        return await _body(decompressed(reply), url, most)
    except ConnectError:
        if private:
            raise _refusal(
                url,
                f"its host has the address {private[0]}, which is not one of the internet; if you trust where your "
                "addresses come from, pass fetch='any' to the client",
            ) from None
        raise
    finally:
        transport.close()


def _redirected(url: str, target: str) -> str:
    try:
        address = urljoin(url, target)
        scheme = urlsplit(address).scheme
    except ValueError:
        raise _refusal(url, "it redirects to what is no address") from None
    is_as_safe = scheme == "https" or (scheme == "http" and urlsplit(url).scheme == "http")
    if not is_as_safe:
        raise _refusal(url, f"it redirects to an address of {scheme}, which is not followed")
    return address


def _admission(allowed: From, private: list[str]) -> Callable[[str], bool] | None:
    if allowed == "any":
        return None

    def admits(address: str) -> bool:
        if is_public(address):
            return True
        private.append(address)
        return False

    return admits


async def _body(reply: Reply, url: str, most: int) -> bytes:
    pieces: list[bytes] = []
    left = most
    while data := await reply.read_some():
        pieces.append(data)
        left -= len(data)
        if left < 0:
            raise _refusal(url, f"it is larger than {most:,} bytes")
    return b"".join(pieces)


def _refusal(url: str, reason: str) -> ConfigurationError:
    return ConfigurationError(f"{shown(url)} cannot be loaded: {reason}")
