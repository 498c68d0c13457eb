"""Azure's managed identities: tokens that a place in Azure gives to what runs there, each in its own way.

App Service, Functions and Automation; Arc; Machine Learning; Cloud Shell; else the metadata service of virtual
machines. https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token,
https://learn.microsoft.com/azure/app-service/overview-managed-identity, azure-identity 1.27 and msal 1.39.
"""

from __future__ import annotations

import ntpath
import sys
from collections.abc import Mapping
from urllib.parse import urlencode

from ..errors import AuthenticationError, ConfigurationError, ConnectError, DeadlineExceeded, StreamInterrupted
from ..requests import Secret
from . import Proof
from .errands import Answer, Errand, Unavailable, no_answer

_METADATA_ADDRESS = "http://169.254.169.254"
_METADATA = ("metadata", "true")
_PROBE_SECONDS = 1.0
# After how many seconds a token is asked for again: the service is at times busy or being renewed.
_PAUSES = (0.8, 1.6, 3.2)
_BUSY = frozenset({404, 410, 429})
# Where the agent of Arc puts what only those who may read its files can know.
_ARC_FOLDERS = {"linux": "/var/opt/azcmagent/tokens", "win32": "%ProgramData%/AzureConnectedMachineAgent/Tokens"}
_ARC_MOST_BYTES = 4096


async def of_managed_identity(errand: Errand, scope: str) -> Proof[Secret]:
    """A token for the identity of where this runs, or the one of several that AZURE_CLIENT_ID chooses.

    Raises:
        Unavailable: nobody here gives tokens.
        SabirError: who does refused.
    """
    asked = {"resource": scope.removesuffix("/.default")}
    client = errand.variable("AZURE_CLIENT_ID")
    chosen = {} if client is None else {"client_id": str(client)}
    own = errand.own_variable
    if (url := own("IDENTITY_ENDPOINT")) is not None:
        if (secret := own("IDENTITY_HEADER")) is not None:
            if own("IDENTITY_SERVER_THUMBPRINT") is not None:
                raise Unavailable("that of Service Fabric is not built here: pass a function as api_key=")
            headers = (("x-identity-header", secret), _METADATA)
            return await _asked(errand, url, {"api-version": "2019-08-01", **asked, **chosen}, headers)
        if own("IMDS_ENDPOINT") is not None:
            return await _of_arc(errand, url, {"api-version": "2020-06-01", **asked, **chosen}, client)
    elif (url := own("MSI_ENDPOINT")) is not None:
        if (secret := own("MSI_SECRET")) is not None:
            named = {} if client is None else {"clientid": str(client)}
            return await _asked(errand, url, {"api-version": "2017-09-01", **asked, **named}, (("secret", secret),))
        answer = await errand.post_form(url, {**asked, **chosen}, headers=(_METADATA,))
        return errand.token("Cloud Shell", answer)
    return await _of_virtual_machine(errand, {"api-version": "2018-02-01", **asked, **chosen})


async def _asked(
    errand: Errand, url: str, query: Mapping[str, str], headers: tuple[tuple[str, str], ...]
) -> Proof[Secret]:
    answer = await errand.fetch("GET", f"{url}?{urlencode(query)}", headers=headers)
    return errand.token("the managed identity", answer)


async def _of_virtual_machine(errand: Errand, query: Mapping[str, str]) -> Proof[Secret]:
    host = errand.own_variable("AZURE_POD_IDENTITY_AUTHORITY_HOST")
    url = f"{(host or _METADATA_ADDRESS).rstrip('/')}/metadata/identity/oauth2/token?{urlencode(query)}"
    if host is None:
        # Without its header the service refuses at once, and elsewhere nobody answers.
        await _found(errand, url)
    answer = await errand.fetch("GET", url, headers=(_METADATA,))
    for pause in _PAUSES:
        if answer.status not in _BUSY and answer.status < 500:
            break
        await errand.runtime.sleep(pause, errand.line)
        answer = await errand.fetch("GET", url, headers=(_METADATA,))
    if answer.status == 400 or "unreachable" in (answer.text if answer.status == 403 else ""):
        raise Unavailable("none is assigned to this machine")
    return errand.token("the managed identity", answer)


async def _found(errand: Errand, url: str) -> None:
    try:
        with errand.within(_PROBE_SECONDS) as short:
            await short.fetch("GET", url)
    except DeadlineExceeded as error:
        no_answer(error, errand.line)
        raise Unavailable("this is no machine of Azure's") from None
    except (ConnectError, StreamInterrupted):
        raise Unavailable("this is no machine of Azure's") from None


async def _of_arc(errand: Errand, url: str, query: Mapping[str, str], client: str | None) -> Proof[Secret]:
    """A machine elsewhere that Azure manages: who can read a file that its agent wrote is given a token."""
    who, address = "Azure Arc's agent", f"{url}?{urlencode(query)}"
    challenge = await errand.fetch("GET", address, headers=(_METADATA,))
    path = _challenged(challenge)
    key = await errand.read(path)
    if key is None or len(key) > _ARC_MOST_BYTES:
        raise ConfigurationError(f"{who} wrote no key to {path}, or it cannot be seen: may this user read it?")
    answer = await errand.fetch("GET", address, headers=(_METADATA, ("authorization", Secret(f"Basic {key!s}"))))
    found = errand.token(who, answer)
    # An agent that knows of one identity only gives its token, whichever was asked for.
    if client is not None and str(answer.json.get("client_id")).lower() != client.lower():
        raise AuthenticationError(f"{who} gave a token of another identity than AZURE_CLIENT_ID names")
    return found


def _challenged(answer: Answer) -> str:
    """The file that the agent names, in its own folder, whatever it says.

    Raises:
        AuthenticationError: it names none.
    """
    realm, _, path = answer.headers.get("www-authenticate", "").partition("=")
    name = ntpath.basename(path.strip().strip('"'))
    folder = _ARC_FOLDERS.get(sys.platform)
    if answer.status != 401 or realm.strip().lower() != "basic realm" or not name.endswith(".key") or folder is None:
        raise AuthenticationError("Azure Arc's agent did not say which file proves who asks")
    return f"{folder}/{name}"
