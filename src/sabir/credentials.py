"""Which key goes where; the only room that reads keys. A key is sent to one address and shown nowhere.

A key given by the caller goes to the address the caller gave, else to the provider's own. A key of the environment goes
to its provider's own address and nowhere else.
"""

from __future__ import annotations

import os

from .errors import ConfigurationError
from .providers import KeyHeader, Provider, is_same_server
from .requests import Secret

# What local servers are given for want of a key is shorter, and stands in many a message.
LEAST_SECRET = 8


class Key:
    """A secret. Prints as dots, so that no repr, log or traceback that shows it tells it."""

    __slots__ = ("_name", "_value")

    def __init__(self, value: str, header: KeyHeader = "authorization") -> None:
        self._value = Secret(value)
        self._name = header

    def __repr__(self) -> str:
        return "Key(…)"

    def __reduce__(self) -> str:
        raise TypeError("a key is not pickled")

    def header(self) -> tuple[str, str]:
        """The header that proves who asks."""
        return self._name, Secret(f"Bearer {self._value!s}") if self._name == "authorization" else self._value

    def removed_from(self, text: str) -> str:
        """The text without the key, should a server have repeated it. A stand-in like "none" is no secret."""
        return text.replace(self._value, "***") if len(self._value) >= LEAST_SECRET else text


def find_key(provider: Provider, base_url: str | None, api_key: str | None) -> Key | None:
    """The key for one provider at one address; None if it is to be asked without one.

    Raises:
        ConfigurationError: the provider wants a key and there is none, or it can be no header's value.
    """
    if api_key is not None:
        return _checked(api_key, "api_key", provider.key_header)
    if provider.key is None or provider.url is None:
        return None
    if base_url is not None and not is_same_server(base_url, provider.url):
        return None
    found = os.environ.get(provider.key, "").strip()
    if not found:
        raise ConfigurationError(
            f"{provider.name} wants a key: set the environment variable {provider.key}, or pass api_key=",
            provider=provider.name,
        )
    return _checked(found, provider.key, provider.key_header)


def _checked(value: str, source: str, header: KeyHeader) -> Key:
    if not isinstance(value, str) or not value or not value.isascii() or not value.isprintable():
        raise ConfigurationError(f"{source} is no usable key: it is empty or has characters that no header can carry")
    return Key(value, header)
