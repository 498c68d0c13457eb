"""AWS's credentials in the words of who gives them. Asks nobody."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import AuthenticationError, ConfigurationError
from ..signing import AwsCredentials
from . import Proof
from .errands import moment_of

Found = Proof[AwsCredentials]


def proof_of(given: Mapping[str, Any], who: str, token: str = "Token") -> Found:
    """The proof in what AWS's servers and programs give; `token` is the name of the session's token in it.

    Raises:
        AuthenticationError: it is incomplete.
    """
    key_id, secret, session, ends = (
        given.get(name) for name in ("AccessKeyId", "SecretAccessKey", token, "Expiration")
    )
    if not isinstance(key_id, str) or not isinstance(secret, str) or not isinstance(session, str | None):
        raise AuthenticationError(f"{who} gave incomplete credentials: AccessKeyId and SecretAccessKey are wanted")
    moment = moment_of(ends)
    if ends is not None and moment is None:
        raise AuthenticationError(f"{who} gave credentials whose Expiration is no moment")
    return Proof(complete(key_id, secret, session, f"{who} gave none"), moment)


def complete(key_id: str, secret: str | None, token: str | None, otherwise: str) -> AwsCredentials:
    """Credentials that can be signed with.

    Raises:
        ConfigurationError: the secret is missing, or no header can carry them.
    """
    if not secret:
        raise ConfigurationError(f"there is the id of an AWS access key without its secret: {otherwise}")
    if not all(text.isascii() and text.isprintable() for text in (key_id, secret, token or "")):
        raise ConfigurationError("the AWS credentials have characters that no header can carry")
    return AwsCredentials(key_id, secret, token or None)
