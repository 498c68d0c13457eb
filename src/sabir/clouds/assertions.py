"""Signed assertions (JWT with RSA, RFC 7523), with which programs prove who they are. The package cryptography signs.

It is loaded by the first assertion; nothing else in the library needs it.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Mapping
from importlib import import_module
from typing import Any, Literal, NamedTuple

from ..errors import ConfigurationError
from ..requests import Secret
from ..strict_json import encode_json
from .files import read_bytes

_PRIMITIVES = "cryptography.hazmat.primitives"

Algorithm = Literal["RS256", "PS256"]


class Certificate(NamedTuple):
    """A key and what proves whose it is: the SHA-256 of its certificate, and the chain of certificates, each as DER."""

    key: Any
    thumbprint: bytes
    chain: tuple[bytes, ...]


def loaded_key(pem: str, extra: str, where: str) -> Any:
    """The RSA key in a text.

    Raises:
        ConfigurationError: there is none, or the package that reads it is not installed.
    """
    serialization = _module("serialization", extra)
    try:
        key = serialization.load_pem_private_key(pem.encode(), None)
    except (ValueError, TypeError):
        key = None
    return _checked(key, where)


def loaded_certificate(path: str, password: str | None, extra: str) -> Certificate:
    """The key and its certificates in a file, PEM or PKCS#12.

    Raises:
        ConfigurationError: there are none, or the package that reads them is not installed.
    """
    if (data := read_bytes(path)) is None:
        raise ConfigurationError(f"there is no certificate at {path!s}")
    serialization, hashes = _module("serialization", extra), _module("hashes", extra)
    secret = password.encode() if password else None
    try:
        if b"-----BEGIN" in data:
            key = serialization.load_pem_private_key(data, secret)
            chain = import_module("cryptography.x509").load_pem_x509_certificates(data)
        else:
            pkcs12 = import_module(f"{_PRIMITIVES}.serialization.pkcs12")
            key, first, others = pkcs12.load_key_and_certificates(data, secret)
            chain = [certificate for certificate in (first, *others) if certificate is not None]
    except (ValueError, TypeError):
        key, chain = None, []
    if not chain:
        raise ConfigurationError(
            f"{path!s} holds no certificate with its key, as PEM or PKCS#12; is the password right?"
        )
    written = tuple(bytes(each.public_bytes(serialization.Encoding.DER)) for each in chain)
    return Certificate(_checked(key, path), chain[0].fingerprint(hashes.SHA256()), written)


def assertion(key: Any, algorithm: Algorithm, header: Mapping[str, Any], claims: Mapping[str, Any]) -> Secret:
    """The claims, signed."""
    padding, hashes = import_module(f"{_PRIMITIVES}.asymmetric.padding"), import_module(f"{_PRIMITIVES}.hashes")
    told = b".".join(encoded(encode_json(part)) for part in ({"alg": algorithm, "typ": "JWT", **header}, claims))
    way = padding.PKCS1v15() if algorithm == "RS256" else padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    return Secret((told + b"." + encoded(key.sign(told, way, hashes.SHA256()))).decode())


def encoded(data: bytes) -> bytes:
    """Bytes as they stand in an assertion."""
    return urlsafe_b64encode(data).rstrip(b"=")


def _module(name: str, extra: str) -> Any:
    try:
        return import_module(f"{_PRIMITIVES}.{name}")
    except ImportError:
        raise ConfigurationError(
            f"an RSA key is to sign a proof, which takes the package cryptography: pip install 'sabir[{extra}]'"
        ) from None


def _checked(key: Any, where: str) -> Any:
    rsa = import_module(f"{_PRIMITIVES}.asymmetric.rsa")
    if not isinstance(key, rsa.RSAPrivateKey):
        raise ConfigurationError(f"{where} holds no RSA key that can be read")
    return key
