"""AWS's single sign-on and its `aws login`: both leave a token in the home folder, which is used and renewed here.

Nobody signs on here: that takes a browser, and the AWS CLI. https://docs.aws.amazon.com/singlesignon/latest/PortalAPIReference/,
https://docs.aws.amazon.com/singlesignon/latest/OIDCAPIReference/API_CreateToken.html, files as botocore 1.44 has them.
"""

from __future__ import annotations

import hashlib
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from ..cache_files import write_cached
from ..errors import AuthenticationError, ConfigurationError, ConnectError, StorageError, StreamInterrupted
from ..requests import Secret
from ..strict_json import encode_json, is_object
from .aws_files import AwsFiles, Section, domain_of, endpoint_of
from .aws_proofs import Found, proof_of
from .errands import Errand, json_object, moment_of

_FOLDER = "~/.aws/sso/cache"
_LOGIN_FOLDER = "~/.aws/login/cache"
# Seconds before its end from which a token is renewed.
_RENEWED_BEFORE = 900.0


async def of_sso(errand: Errand, files: AwsFiles, first: Section, name: str) -> Found | None:
    """What single sign-on gives for a profile's account and role; None if it names none.

    `first` is the profile that was asked for, which may set endpoints.

    Raises:
        ConfigurationError: the profile is incomplete.
        AuthenticationError: nobody has signed on, or that was too long ago; says what to run.
    """
    profile = files.profiles.get(name, {})
    if "sso_account_id" not in profile and "sso_role_name" not in profile:
        return None
    settings = _settings(files, profile, name)
    remedy = f"run `aws sso login --profile {name}`"
    token = await _token(errand, files, first, settings, remedy)
    asked = urlencode({"role_name": settings["sso_role_name"], "account_id": settings["sso_account_id"]})
    address = _address(errand, files, first, settings, "sso", "portal.sso")
    answer = await errand.fetch(
        "GET", f"{address}/federation/credentials?{asked}", headers=(("x-amz-sso_bearer_token", token),)
    )
    who, given = f"AWS's single sign-on, asked for the profile {name!r},", answer.json.get("roleCredentials")
    if not answer.is_good() or not is_object(given):
        code = answer.headers.get("x-amzn-errortype", "").partition(":")[0] or answer.json.get("__type")
        raise errand.refusal(who, answer, code, answer.json.get("message"), remedy if answer.status == 401 else None)
    return proof_of(_capitalised(given), who, "SessionToken")


async def of_login(errand: Errand, profile: Section, name: str) -> Found | None:
    """What `aws login` left for a profile, as long as it lasts: to renew it takes the CLI.

    Raises:
        AuthenticationError: it has ended, or is not there; says what to run.
    """
    if not (session := profile.get("login_session")):
        return None
    folder = errand.own_variable("AWS_LOGIN_CACHE_DIRECTORY") or _LOGIN_FOLDER
    text = await errand.read(f"{folder}/{hashlib.sha256(session.encode()).hexdigest()}.json")
    given = json_object(text or "").get("accessToken")
    ends = moment_of(given.get("expiresAt")) if is_object(given) else None
    if not is_object(given) or ends is None or ends <= time.time():
        raise AuthenticationError(
            f"the login of the profile {name!r} has ended: run `aws login --profile {name}`, or let the CLI renew it: "
            f"`credential_process = aws configure export-credentials --profile {name}` in another profile"
        )
    return proof_of({**_capitalised(given), "Expiration": ends}, f"the login of the profile {name!r}", "SessionToken")


def _settings(files: AwsFiles, profile: Section, name: str) -> Section:
    """The profile's settings and those of its session."""
    settings = dict(profile)
    if (session := profile.get("sso_session")) is not None:
        if session not in files.sessions:
            raise ConfigurationError(
                f"the profile {name!r} names [sso-session {session!s}], which is not in AWS's config"
            )
        for setting, value in files.sessions[session].items():
            if settings.setdefault(setting, value) != value:
                raise ConfigurationError(f"{setting} of the profile {name!r} is another than that of its sso-session")
    wanted = ("sso_role_name", "sso_account_id", "sso_start_url", "sso_region")
    if missing := [setting for setting in wanted if setting not in settings]:
        raise ConfigurationError(f"the profile {name!r} uses single sign-on without {', '.join(missing)}")
    return settings


async def _token(errand: Errand, files: AwsFiles, first: Section, settings: Section, remedy: str) -> Secret:
    """The token that `aws sso login` left, renewed if it is near its end and can be."""
    session = settings.get("sso_session")
    named = (session or settings["sso_start_url"]).encode()
    path = f"{_FOLDER}/{hashlib.sha1(named, usedforsecurity=False).hexdigest()}.json"
    kept = json_object(await errand.read(path) or "")
    token, ends = kept.get("accessToken"), moment_of(kept.get("expiresAt"))
    if not isinstance(token, str) or ends is None:
        raise AuthenticationError(f"nobody has signed on to AWS here: {remedy}")
    left = ends - time.time()
    # The older kind of profile has no session that could be renewed.
    if session is not None and left < _RENEWED_BEFORE:
        try:
            renewed = await _renewed(errand, files, first, settings, kept)
        except (ConnectError, StreamInterrupted):
            if left <= 0:
                raise
            renewed = None
        if renewed is not None:
            await errand.runtime.call(_save, path, renewed)
            return Secret(renewed["accessToken"])
    if left <= 0:
        raise AuthenticationError(f"AWS's single sign-on has ended: {remedy}")
    return Secret(token)


async def _renewed(
    errand: Errand, files: AwsFiles, first: Section, settings: Section, kept: dict[str, Any]
) -> dict[str, Any] | None:
    """The token's file with a token that lasts longer; None if there is none to be had."""
    registered = moment_of(kept.get("registrationExpiresAt"))
    fields = [kept.get(name) for name in ("clientId", "clientSecret", "refreshToken")]
    if registered is None or registered <= time.time() or not all(isinstance(field, str) for field in fields):
        return None
    asked = dict(zip(("clientId", "clientSecret", "refreshToken"), fields, strict=True))
    url = _address(errand, files, first, settings, "sso_oidc", "oidc") + "/token"
    kind = ("content-type", "application/json")
    body = encode_json({"grantType": "refresh_token", **asked})
    answer = await errand.fetch("POST", url, headers=(kind,), body=body)
    given = answer.json
    token, seconds = given.get("accessToken"), given.get("expiresIn")
    if not answer.is_good() or not isinstance(token, str) or not isinstance(seconds, int):
        return None
    ends = datetime.fromtimestamp(time.time() + seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    fresh = {name: given[name] for name in ("refreshToken",) if isinstance(given.get(name), str)}
    place = {"startUrl": str(settings["sso_start_url"]), "region": str(settings["sso_region"])}
    return {**kept, **place, **fresh, "accessToken": token, "expiresAt": ends}


def _save(path: str, token: dict[str, Any]) -> None:
    """Put the token where AWS's tools look for it. Where that is not allowed, it still serves here."""
    try:
        write_cached(Path(path).expanduser(), encode_json(token))
    except (StorageError, RuntimeError):
        pass


def _address(errand: Errand, files: AwsFiles, first: Section, settings: Section, service: str, host: str) -> str:
    region = settings["sso_region"]
    return endpoint_of(errand.environment, files, first, service) or f"https://{host}.{region}.{domain_of(region)}"


def _capitalised(given: dict[str, Any]) -> dict[str, Any]:
    """Credentials spelled as in the rest of AWS, their end in seconds."""
    spelled = {name[:1].upper() + name[1:]: value for name, value in given.items()}
    ends = spelled.get("Expiration")
    return {**spelled, "Expiration": ends / 1000} if isinstance(ends, int) else spelled
