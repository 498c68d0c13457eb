"""What the transports do with sockets alike: options, addresses, the wait for one, what becomes of them in a fork.

It knows no line, no loop and no HTTP.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from ..runtime import Outcome

T = TypeVar("T")

# (family, kind, protocol, canonical name, address), as `socket.getaddrinfo` gives them
Address = tuple[Any, Any, int, str, Any]

# Not every system wakes a socket that is being connected when another thread shuts it down, so the waiter looks up.
CONNECT_SLICE_SECONDS = 0.1

# What `connect_ex` says of a connection that comes about later, or is there.
UNDER_WAY = {0, errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EINTR}


def _options() -> tuple[tuple[int, int, int], ...]:
    """No waiting for full packets; a peer that has gone is noticed in two minutes while a model thinks in silence."""
    options = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    # macOS has the idle time as TCP_KEEPALIVE; a platform without any of these keeps its own times.
    for names, value in ((("TCP_KEEPIDLE", "TCP_KEEPALIVE"), 60), (("TCP_KEEPINTVL",), 10), (("TCP_KEEPCNT",), 6)):
        for name in names:
            if (option := getattr(socket, name, None)) is not None:
                options.append((socket.IPPROTO_TCP, option, value))
                break
    return tuple(options)


SOCKET_OPTIONS = _options()


def numeric_addresses(host: str, port: int) -> list[Address]:
    """The address that a host is given by; none if it is a name, which must be looked up."""
    try:
        return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST))
    except OSError:
        return []


def resolve(host: str, port: int, deliver: Callable[[Outcome], None]) -> None:
    """Look up the addresses of a host on a daemon thread, as `getaddrinfo` gives them.

    A lookup has no timeout and cannot be stopped, and an executor's thread would be waited for at exit.
    """

    def look_up() -> None:
        deliver(Outcome.of(lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))

    threading.Thread(target=look_up, name="sabir-resolver", daemon=True).start()


def is_ready(waiting: socket.socket, seconds: float | None, *, to_write: bool) -> bool:
    """Whether a socket can be written to, or read from, within some seconds; also when it has failed."""
    if hasattr(select, "poll"):  # `select` bears no more than 1024 files, and Windows has no `poll`.
        poll = select.poll()
        poll.register(waiting, select.POLLOUT if to_write else select.POLLIN)
        return bool(poll.poll(None if seconds is None else seconds * 1000))
    return any(select.select([] if to_write else [waiting], [waiting] if to_write else [], [waiting], seconds))


def popped(kept: deque[T]) -> T | None:
    """The last of them; None where there is none, which to ask before would be too early with other threads about."""
    try:
        return kept.pop()
    except IndexError:
        return None


class Forked(Protocol):
    """What has sockets, of which a fork makes copies."""

    def forget_parent(self) -> None:
        """After a fork: the same sockets are the parent's, who would get the answers meant for us."""
        ...


_forked: weakref.WeakSet[Forked] = weakref.WeakSet()


def tell_of_forks(owner: Forked) -> None:
    """Have it forget its parent's sockets in every process that is forked from this one, for as long as it lives."""
    _forked.add(owner)


def _forget_parents() -> None:
    for owner in _forked:
        owner.forget_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parents)
