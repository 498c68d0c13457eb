"""AWS's signature of a request, version 4; pure: the time and the credentials are given. Knows no service.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html. A signature covers the
method, the path, the query, the headers and the body, and is good for some minutes; the secret itself is never sent.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

from .requests import HttpRequest, Secret

_ALGORITHM = "AWS4-HMAC-SHA256"
# What whoever passes a request on may change, or says of one connection only.
_UNSIGNED = frozenset(
    {"accept-encoding", "authorization", "connection", "content-length", "expect", "keep-alive", "te", "trailer"}
    | {"transfer-encoding", "upgrade", "user-agent", "x-amzn-trace-id"}
)
_PORTS = {"http": 80, "https": 443}


class AwsCredentials:
    """Who signs: the id of an access key, its secret, and the session's token if they are temporary. Prints as dots."""

    __slots__ = ("key_id", "secret", "token")

    def __init__(self, key_id: str, secret: str, token: str | None = None) -> None:
        self.key_id = Secret(key_id)
        self.secret = Secret(secret)
        self.token = None if token is None else Secret(token)

    def __repr__(self) -> str:
        return "AwsCredentials(…)"

    def __reduce__(self) -> str:
        raise TypeError("credentials are not pickled")


def signature_headers(
    http: HttpRequest, credentials: AwsCredentials, *, region: str, service: str, moment: datetime
) -> tuple[tuple[str, str], ...]:
    """The headers that prove who sends this request, at this moment; its url is the whole address."""
    stamp = moment.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    token = (("x-amz-security-token", credentials.token),) if credentials.token is not None else ()
    ours = (("x-amz-date", stamp), *token)
    theirs = {name for name, _ in ours}
    headers = _canonical_headers(
        http.url, (*(header for header in http.headers if header[0].lower() not in theirs), *ours)
    )
    names = ";".join(headers)
    scope = f"{stamp[:8]}/{region}/{service}/aws4_request"
    path, query = _target(http.url)
    told = "".join(f"{name}:{value}\n" for name, value in headers.items())
    request = "\n".join((http.method.upper(), path, query, told, names, hashlib.sha256(http.body).hexdigest()))
    to_sign = "\n".join((_ALGORITHM, stamp, scope, hashlib.sha256(request.encode()).hexdigest()))
    key = f"AWS4{credentials.secret!s}".encode()
    for step in scope.split("/"):
        key = hmac.digest(key, step.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    proof = f"{_ALGORITHM} Credential={credentials.key_id!s}/{scope}, SignedHeaders={names}, Signature={signature}"
    return (*ours, ("authorization", Secret(proof)))


def _canonical_headers(url: str, headers: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """The headers that are signed, by their names in order; those of one name are joined."""
    values: dict[str, list[str]] = {}
    for name, value in headers:
        if name.lower() not in _UNSIGNED:
            values.setdefault(name.lower(), []).append(" ".join(value.split()))
    values.setdefault("host", [_host(url)])
    return {name: ",".join(values[name]) for name in sorted(values)}


def _host(url: str) -> str:
    parts = urlsplit(url)
    name = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    return name if parts.port in (None, _PORTS.get(parts.scheme)) else f"{name}:{parts.port}"


def _target(url: str) -> tuple[str, str]:
    """Path and query as they are signed: the path without dots and double slashes, and quoted once more."""
    parts = urlsplit(url)
    kept: list[str] = []
    for step in parts.path.split("/"):
        if step == "..":
            kept = kept[:-1]
        elif step not in ("", "."):
            kept.append(step)
    end = "/" if kept and parts.path.endswith("/") else ""
    pairs = (pair.partition("=") for pair in parts.query.split("&") if pair)
    query = "&".join(f"{name}={value}" for name, value in sorted((name, value) for name, _, value in pairs))
    return quote(f"/{'/'.join(kept)}{end}", safe="/~"), query
