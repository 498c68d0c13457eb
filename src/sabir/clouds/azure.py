"""Microsoft Entra's tokens, as azure-identity's DefaultAzureCredential finds them, as far as that takes no browser.

In its order: the environment (a secret, a certificate, a password), a workload identity, a managed identity, and who
has signed on to the tools az, Azure PowerShell and azd. AZURE_TOKEN_CREDENTIALS chooses among them. What needs the
keyring or the broker of a desktop is left out. Facts: azure-identity 1.27.
"""

from __future__ import annotations

import re
import time
from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, final
from uuid import uuid4

from ..environment import Environment
from ..errors import ConfigurationError
from ..requests import Secret
from ..runtime import Line, Runtime
from . import Headers, Proof, Standard
from .assertions import assertion, encoded, loaded_certificate
from .azure_machine import of_managed_identity
from .azure_tools import of_az, of_azd, of_powershell
from .errands import Errand, Unavailable

# https://learn.microsoft.com/azure/ai-services/openai/how-to/managed-identity: what Azure OpenAI's tokens are for, and
# the same in the clouds of the United States' government and of China, by who gives tokens there.
SCOPE = "https://cognitiveservices.azure.com/.default"
_SCOPES = {
    "https://login.microsoftonline.us": "https://cognitiveservices.azure.us/.default",
    "https://login.chinacloudapi.cn": "https://cognitiveservices.azure.cn/.default",
}

_AUTHORITY = "https://login.microsoftonline.com"
_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_LASTS = 600

Find = Callable[[Errand, str], Awaitable[Proof[Secret]]]


@final
class Azure(Standard[Headers]):
    """The credentials that Azure's own libraries would find, for `api_key=`.

    `scope` says what their tokens are for; None is for Azure OpenAI's models.
    """

    def __init__(self, scope: str | None = None, *, environment: Environment | None = None) -> None:
        if scope is not None and not re.fullmatch(r"[\w.:/-]+", scope, re.ASCII):
            raise ConfigurationError(f"scope is like 'https://cognitiveservices.azure.com/.default', not {scope!r}")
        super().__init__()
        self._scope = scope
        self._environment = environment or Environment()

    async def prove(self, runtime: Runtime, line: Line) -> Proof[Headers]:
        errand = Errand(runtime, line, self._environment)
        scope = self._scope or _SCOPES.get(_authority(errand), SCOPE)
        reasons: list[str] = []
        for source in _chosen(errand):
            try:
                found = await source.find(errand, scope)
            except Unavailable as why:
                reasons.append(f"{source.title} ({why})")
            else:
                return Proof((("authorization", Secret(f"Bearer {found.value!s}")),), found.ends)
        raise ConfigurationError(
            f"there is nobody whom Microsoft Entra would give a token: {'; '.join(reasons)}. Run `az login`, set "
            "AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, or pass api_key="
        )


async def of_environment(errand: Errand, scope: str) -> Proof[Secret]:
    """A token for an application that the environment names, or for a person with a password.

    Raises:
        Unavailable: it names nobody.
        SabirError: Entra refused, or did not answer.
    """
    tenant, name, password = map(errand.variable, ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_PASSWORD"))
    if name is None or (tenant is None and password is None):
        raise Unavailable("AZURE_TENANT_ID and AZURE_CLIENT_ID are not set")
    # Its name is no secret, and stands in what Entra says of it.
    client = str(name)
    if tenant is not None and (secret := errand.variable("AZURE_CLIENT_SECRET")) is not None:
        return await _asked(errand, tenant, {"client_id": client, "client_secret": secret}, scope)
    if tenant is not None and (path := errand.own_variable("AZURE_CLIENT_CERTIFICATE_PATH")) is not None:
        return await _of_certificate(errand, tenant, client, path, scope)
    if password is not None and (user := errand.variable("AZURE_USERNAME")) is not None:
        form = {"grant_type": "password", "client_id": client, "username": str(user), "password": password}
        return await _asked(errand, tenant or "organizations", form, scope)
    raise Unavailable("neither AZURE_CLIENT_SECRET nor AZURE_CLIENT_CERTIFICATE_PATH is set")


async def of_workload(errand: Errand, scope: str) -> Proof[Secret]:
    """A token for the workload that this is, which Kubernetes vouches for.

    Raises:
        Unavailable: it is none.
        SabirError: Entra refused, or did not answer.
    """
    names = ("AZURE_TENANT_ID", "AZURE_CLIENT_ID")
    tenant, client = map(errand.variable, names)
    path = errand.own_variable("AZURE_FEDERATED_TOKEN_FILE")
    if tenant is None or client is None or path is None:
        raise Unavailable("AZURE_FEDERATED_TOKEN_FILE is not set" if path is None else f"without {' and '.join(names)}")
    # Read each time: Kubernetes writes it anew every hour.
    if not (token := await errand.read(path)):
        raise ConfigurationError(f"AZURE_FEDERATED_TOKEN_FILE names {path!s}, which is not there or empty")
    form = {"client_id": str(client), "client_assertion_type": _ASSERTION, "client_assertion": Secret(token.strip())}
    return await _asked(errand, tenant, form, scope)


async def _of_certificate(errand: Errand, tenant: str, client: str, path: str, scope: str) -> Proof[Secret]:
    """https://learn.microsoft.com/entra/identity-platform/certificate-credentials"""
    password = errand.variable("AZURE_CLIENT_CERTIFICATE_PASSWORD")
    found = await errand.runtime.call(loaded_certificate, path, password, "azure")
    header: dict[str, Any] = {"x5t#S256": encoded(found.thumbprint).decode()}
    if errand.variable("AZURE_CLIENT_SEND_CERTIFICATE_CHAIN"):
        header["x5c"] = [b64encode(each).decode() for each in found.chain]
    now = int(time.time())
    claims: dict[str, Any] = {"aud": _token_url(errand, tenant), "jti": str(uuid4())}
    claims |= dict.fromkeys(("iss", "sub"), client)
    claims |= {"nbf": now, "iat": now, "exp": now + _LASTS}
    signed = await errand.runtime.call(assertion, found.key, "PS256", header, claims)
    form = {"client_id": client, "client_assertion_type": _ASSERTION, "client_assertion": signed}
    return await _asked(errand, tenant, form, scope)


async def _asked(errand: Errand, tenant: str, form: Mapping[str, str], scope: str) -> Proof[Secret]:
    url = _token_url(errand, tenant)
    answer = await errand.post_form(url, {"grant_type": "client_credentials", **form, "scope": scope})
    return errand.token(f"Microsoft Entra, asked for {form['client_id']},", answer)


def _token_url(errand: Errand, tenant: str) -> str:
    """Where a tenant's tokens are given.

    Raises:
        ConfigurationError: the tenant or the authority can be none.
    """
    if not re.fullmatch(r"[\w.-]+", tenant, re.ASCII):
        raise ConfigurationError("AZURE_TENANT_ID is the id of a tenant or its domain, of A-Z 0-9 . _ -")
    if not (authority := _authority(errand)).startswith("https://"):
        raise ConfigurationError("AZURE_AUTHORITY_HOST is asked with secrets, and so over https only")
    return f"{authority}/{tenant}/oauth2/v2.0/token"


def _authority(errand: Errand) -> str:
    authority = (errand.own_variable("AZURE_AUTHORITY_HOST") or _AUTHORITY).rstrip("/")
    return authority if "://" in authority else f"https://{authority}"


class _Source(NamedTuple):
    """Where a token may come from; `name` is azure-identity's, in AZURE_TOKEN_CREDENTIALS."""

    title: str
    name: str
    find: Find
    is_for_developers: bool = False


_SOURCES = (
    _Source("the environment", "environmentcredential", of_environment),
    _Source("a workload identity", "workloadidentitycredential", of_workload),
    _Source("a managed identity", "managedidentitycredential", of_managed_identity),
    _Source("az", "azureclicredential", of_az, True),
    _Source("Azure PowerShell", "azurepowershellcredential", of_powershell, True),
    _Source("azd", "azuredeveloperclicredential", of_azd, True),
)


def _chosen(errand: Errand) -> tuple[_Source, ...]:
    chosen = (errand.variable("AZURE_TOKEN_CREDENTIALS") or "").strip().lower()
    if chosen in ("dev", "prod"):
        return tuple(source for source in _SOURCES if source.is_for_developers == (chosen == "dev"))
    sources = tuple(source for source in _SOURCES if chosen in ("", source.name))
    if not sources:
        names = ", ".join(source.name for source in _SOURCES)
        raise ConfigurationError(f"AZURE_TOKEN_CREDENTIALS is 'dev', 'prod' or one of {names}, not {chosen!r}")
    return sources
