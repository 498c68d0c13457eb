"""Tokens from tools that a person has signed on to: az, Azure PowerShell and azd. They are run, without a shell.

Commands and what they print are those of azure-identity 1.27.
"""

from __future__ import annotations

import os
import shutil
import sys
from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from ..requests import Secret
from . import Proof
from .errands import Errand, Unavailable, json_object, moment_of, shortened

_SECONDS = 10.0
_FOLDER = os.environ.get("SYSTEMROOT", "C:\\Windows") if os.name == "nt" else "/"
_MARK = "sabir%"
_SCRIPT = """$ErrorActionPreference = 'Stop'
Import-Module Az.Accounts -MinimumVersion 2.2.0
$token = Get-AzAccessToken -ResourceUrl '{resource}' -WarningAction Ignore
$text = $token.Token
if ($text -is [System.Security.SecureString]) {{
    $text = [System.Net.NetworkCredential]::new('', $text).Password
}}
Write-Output "{mark}$text%$($token.ExpiresOn.ToUnixTimeSeconds())"
"""


async def of_az(errand: Errand, scope: str) -> Proof[Secret]:
    """The token of whom `az login` signed on.

    Raises:
        Unavailable: nobody has, or the tool is not there.
    """
    command = ("account", "get-access-token", "--output", "json", "--resource", scope.removesuffix("/.default"))
    output = await _said(errand, ("az",), command, {"AZURE_CORE_NO_COLOR": "true"}, "az login")
    given = json_object(output)
    # The older name has the time of here, without a zone.
    return _proof(given.get("accessToken"), given.get("expires_on") or _local(given.get("expiresOn")), "az")


async def of_azd(errand: Errand, scope: str) -> Proof[Secret]:
    """The token of whom `azd auth login` signed on.

    Raises:
        Unavailable: nobody has, or the tool is not there.
    """
    command = ("auth", "token", "--output", "json", "--no-prompt", "--scope", scope)
    output = await _said(errand, ("azd",), command, {"NO_COLOR": "true"}, "azd auth login")
    given = json_object(output)
    return _proof(given.get("token"), moment_of(given.get("expiresOn")), "azd")


async def of_powershell(errand: Errand, scope: str) -> Proof[Secret]:
    """The token of whom `Connect-AzAccount` signed on.

    Raises:
        Unavailable: nobody has, or the tool is not there.
    """
    script = _SCRIPT.format(resource=scope.removesuffix("/.default"), mark=_MARK)
    written = b64encode(script.encode("utf-16-le")).decode()
    command = ("-NoProfile", "-NonInteractive", "-EncodedCommand", written)
    names = ("pwsh", "powershell") if os.name == "nt" else ("pwsh",)
    output = await _said(errand, names, command, {}, "Connect-AzAccount")
    line = next((line for line in output.split() if line.startswith(_MARK)), "")
    _, token, ends = (*line.split("%"), "", "", "")[:3]
    return _proof(token, ends, "Azure PowerShell")


async def _said(
    errand: Errand, names: Sequence[str], arguments: Sequence[str], environ: Mapping[str, str], remedy: str
) -> Secret:
    """What a tool prints. Its path is the system's, and it is run elsewhere than in the folder of the program."""
    if (path := await errand.runtime.call(_found, names)) is None:
        raise Unavailable("not installed")
    # On Windows az is a batch file, which only its interpreter runs.
    shell = ("cmd", "/c") if sys.platform == "win32" and path.lower().endswith((".cmd", ".bat")) else ()
    with errand.within(_SECONDS) as short:
        ran = await short.run((*shell, path, *arguments), environ=environ, folder=_FOLDER)
    if ran.code is None:
        errand.line.left()
        raise Unavailable(f"it said nothing within {_SECONDS:g} s")
    if ran.code != 0:
        raise Unavailable(f"run `{remedy}`; it says: {shortened(ran.errors)}")
    return ran.output


def _found(names: Sequence[str]) -> str | None:
    paths = filter(None, map(shutil.which, names))
    return next((path for path in paths if Path(path).is_absolute()), None)


def _proof(token: Any, ends: Any, who: str) -> Proof[Secret]:
    try:
        moment = float(ends)
    except (TypeError, ValueError):
        moment = 0.0
    if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable() or not moment:
        raise Unavailable(f"what {who} printed is no token")
    return Proof(Secret(token), moment)


def _local(text: Any) -> float | None:
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return None
