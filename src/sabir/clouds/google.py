"""Google's application default credentials, in the order of Google's own libraries. Knows no model and no region.

The file that GOOGLE_APPLICATION_CREDENTIALS names; the file that `gcloud auth application-default login` writes; the
metadata server of where this runs. Facts: google-auth 2.62,
https://cloud.google.com/docs/authentication/application-default-credentials.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from importlib import import_module
from typing import Any, NamedTuple, final

from ..environment import Environment
from ..errors import ConfigurationError, ConnectError, DeadlineExceeded, StreamInterrupted
from ..requests import Secret
from ..runtime import Line, Runtime
from ..strict_json import encode_json, is_object
from . import Headers, Proof, Standard
from .assertions import assertion, loaded_key
from .errands import Errand, json_object, moment_of, no_answer
from .files import read_text

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
# All that acting for another takes.
_IAM_SCOPE = "https://www.googleapis.com/auth/iam"

Info = Mapping[str, Any]

# The refresh tokens of people go here whatever their file says, and assertions are made out to it.
_TOKEN_URL = "https://oauth2.googleapis.com/token"
_IMPERSONATED = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/{}:generateAccessToken"
_METADATA = "169.254.169.254"
_METADATA_SECONDS = 3.0
_METADATA_ATTEMPTS = 3
_FLAVOR = ("metadata-flavor", "Google")
_LASTS = 3600
# Google's library fetches tokens for these from other clouds, from files, or by running a program.
_BY_LIBRARY = frozenset({"external_account", "external_account_authorized_user"})


@final
class Google(Standard[Headers]):
    """Application default credentials, for `api_key=`; `scopes` say what their tokens are good for."""

    def __init__(self, scopes: tuple[str, ...] = (SCOPE,), *, environment: Environment | None = None) -> None:
        super().__init__()
        self._scopes = scopes
        self._environment = environment or Environment()

    async def prove(self, runtime: Runtime, line: Line) -> Proof[Headers]:
        search = _Search(Errand(runtime, line, self._environment), _place(self._environment), self._scopes)
        info, found = await search.found()
        # A person's credentials belong to no project, as a service account's do: this says whose quota and bill it is.
        said = None if info.get("type") == "service_account" else info.get("quota_project_id")
        quota = search.errand.variable("GOOGLE_CLOUD_QUOTA_PROJECT") or said
        headers: Headers = (("authorization", Secret(f"Bearer {found.value!s}")),)
        if isinstance(quota, str) and quota:
            headers = (*headers, ("x-goog-user-project", Secret(quota)))
        return Proof(headers, found.ends)


def project_of(environment: Environment) -> str | None:
    """The project that a service account's file names, read here and now; None if there is none."""
    project = json_object(read_text(_place(environment).path) or "").get("project_id")
    return project if isinstance(project, str) and project else None


class _Place(NamedTuple):
    """Where a file of credentials may be, who says so, and whether that is `.env`."""

    name: str
    path: str
    is_named: bool
    is_from_file: bool


def _place(environment: Environment) -> _Place:
    if (found := environment.find("GOOGLE_APPLICATION_CREDENTIALS")) is not None:
        return _Place(found.name, found.value, True, found.is_from_file)
    own = f"{os.environ.get('APPDATA', '~')}/gcloud" if os.name == "nt" else "~/.config/gcloud"
    folder = os.environ.get("CLOUDSDK_CONFIG") or own
    return _Place("gcloud's file", f"{folder}/application_default_credentials.json", False, False)


@final
class _Search:
    """One walk along the places."""

    def __init__(self, errand: Errand, place: _Place, scopes: tuple[str, ...]) -> None:
        self.errand = errand
        self._place = place
        self._scopes = scopes

    async def found(self) -> tuple[Info, Proof[Secret]]:
        """A token, and what the file says that it is from, if it is from one."""
        text = await self.errand.read(self._place.path)
        if text is not None:
            info = json_object(text)
            return info, await self._of_file(info)
        if self._place.is_named:
            raise ConfigurationError(f"{self._place.name} names {self._place.path!s}, which is not there")
        if (found := await self._of_machine()) is not None:
            return {}, found
        raise ConfigurationError(
            "Google's default credentials are nowhere: run `gcloud auth application-default login`, set "
            "GOOGLE_APPLICATION_CREDENTIALS to the file of a service account, or pass api_key="
        )

    async def _of_file(self, info: Info) -> Proof[Secret]:
        kind = info.get("type")
        if kind == "service_account":
            return await self._of_service_account(info)
        if kind == "authorized_user":
            return await self._of_user(info)
        if kind == "impersonated_service_account":
            return await self._of_impersonation(info)
        if kind in _BY_LIBRARY:
            return await self._of_library(info)
        raise ConfigurationError(f"{self._place.path!s} holds no credentials of Google of a type known here: {kind!r}")

    async def _of_service_account(self, info: Info) -> Proof[Secret]:
        """A token for an assertion that is signed with the account's own key."""
        email, url, pem = (self._text(info, name) for name in ("client_email", "token_uri", "private_key"))
        call = self.errand.runtime.call
        key = await call(loaded_key, Secret(pem), "google", self._place.path)
        now = int(time.time())
        claims = {"iss": email, "scope": " ".join(self._scopes), "aud": _TOKEN_URL, "iat": now, "exp": now + _LASTS}
        signed = await call(assertion, key, "RS256", {"kid": self._text(info, "private_key_id")}, claims)
        form = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": signed}
        answer = await self.errand.post_form(url, form)
        return self.errand.token(f"Google, asked for the service account {email},", answer)

    async def _of_user(self, info: Info) -> Proof[Secret]:
        form = {"grant_type": "refresh_token", "client_id": self._text(info, "client_id")}
        form |= {name: Secret(self._text(info, name)) for name in ("client_secret", "refresh_token")}
        answer = await self.errand.post_form(_TOKEN_URL, form)
        # A password that was changed, or a company's rule about how often one signs on.
        is_over = answer.json.get("error") == "invalid_grant"
        remedy = "run `gcloud auth application-default login`" if is_over else None
        return self.errand.token(f"Google, asked with the sign-on in {self._place.path!s},", answer, remedy)

    async def _of_impersonation(self, info: Info) -> Proof[Secret]:
        """A token of a service account for which somebody may act."""
        source, url = info.get("source_credentials"), self._text(info, "service_account_impersonation_url")
        who = re.search(r"/serviceAccounts/([^/:]+):generateAccessToken$", url)
        if not is_object(source) or who is None or source.get("type") == info["type"]:
            raise ConfigurationError(f"{self._place.path!s} names no account to act for, or no credentials to do so")
        given = await _Search(self.errand, self._place, (_IAM_SCOPE,))._of_file(source)
        body = {"delegates": info.get("delegates") or [], "scope": list(self._scopes), "lifetime": f"{_LASTS}s"}
        headers = (("authorization", Secret(f"Bearer {given.value!s}")), ("content-type", "application/json"))
        answer = await self.errand.fetch("POST", _IMPERSONATED.format(who[1]), headers=headers, body=encode_json(body))
        token, ends = answer.json.get("accessToken"), moment_of(answer.json.get("expireTime"))
        if not answer.is_good() or not isinstance(token, str) or ends is None:
            told = answer.json.get("error")
            code, message = (told.get("status"), told.get("message")) if is_object(told) else (None, None)
            raise self.errand.refusal(f"Google, asked to act for {who[1]},", answer, code, message)
        return Proof(Secret(token), ends)

    async def _of_library(self, info: Info) -> Proof[Secret]:
        """What google-auth makes of a file."""
        if self._place.is_from_file:
            raise ConfigurationError(
                f"{self._place.name} stands in .env, and its file says where tokens are fetched and to whom they go, "
                "which is not for a folder to say: set it in the environment"
            )
        try:
            library = import_module("sabir.clouds.google_library")
        except ImportError:
            raise ConfigurationError(
                f"{self._place.path!s} holds credentials of the type {info['type']}, which take the package "
                "google-auth: pip install 'sabir[google]'"
            ) from None
        found: Proof[Secret] = await self.errand.runtime.call(library.token_of, info, self._scopes, self.errand.line)
        return found

    async def _of_machine(self) -> Proof[Secret] | None:
        """What Google gives to where this runs (Compute Engine, Cloud Run, GKE …); None if that is elsewhere."""
        errand = self.errand
        if (errand.variable("NO_GCE_CHECK") or "").lower() == "true":
            return None
        # By its number: elsewhere its name takes long not to be found.
        host = errand.own_variable("GCE_METADATA_HOST", "GCE_METADATA_ROOT") or _METADATA
        path = "/computeMetadata/v1/instance/service-accounts/default/token"
        url = f"http://{host}{path}?scopes={','.join(self._scopes)}"
        for attempt in range(_METADATA_ATTEMPTS):
            if attempt:
                await errand.runtime.sleep(2.0**attempt / 2, errand.line)
            try:
                with errand.within(_METADATA_SECONDS) as short:
                    answer = await short.fetch("GET", url, headers=(_FLAVOR,))
            except DeadlineExceeded as error:
                no_answer(error, errand.line)
                return None
            except (ConnectError, StreamInterrupted):
                return None
            # Other clouds have a server of their own at that address.
            if answer.headers.get(_FLAVOR[0]) != _FLAVOR[1]:
                return None
            if answer.status < 500 or attempt == _METADATA_ATTEMPTS - 1:
                remedy = "give the machine a service account" if answer.status == 404 else None
                return errand.token("Google's metadata server", answer, remedy)
        return None

    def _text(self, info: Info, name: str) -> str:
        value = info.get(name)
        if not isinstance(value, str) or not value:
            raise ConfigurationError(f"the credentials of Google in {self._place.path!s} lack {name}")
        return value
