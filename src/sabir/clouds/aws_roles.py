"""AWS's Security Token Service: roles are assumed, with credentials or with somebody else's token. Reads no profile.

https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html: forms go there, XML comes back.
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from html import unescape
from typing import final
from urllib.parse import urlencode

from ..errors import ConfigurationError
from ..requests import HttpRequest
from ..signing import AwsCredentials, signature_headers
from .aws_files import AwsFiles, Section, domain_of, endpoint_of
from .aws_proofs import Found, proof_of
from .errands import FORM, Errand

_VERSION = "2011-06-15"


@final
class Sts:
    """The service, in one region or at the address that somebody set."""

    def __init__(self, errand: Errand, files: AwsFiles, profile: Section, region: str | None) -> None:
        self._errand = errand
        # Without a region it is the oldest of all endpoints, which counts as that of us-east-1.
        self._region = region or "us-east-1"
        own = f"https://sts.{region}.{domain_of(region)}" if region else "https://sts.amazonaws.com"
        self._url = (endpoint_of(errand.environment, files, profile, "sts") or own) + "/"

    async def assume(self, profile: Section, credentials: AwsCredentials, who: str) -> Found:
        """Assume a profile's role with the credentials of another.

        Raises:
            SabirError: the service refused, or did not answer.
        """
        form = {
            "RoleArn": profile["role_arn"],
            "RoleSessionName": profile.get("role_session_name") or _session_name(),
            **({"ExternalId": profile["external_id"]} if "external_id" in profile else {}),
            **({"DurationSeconds": profile["duration_seconds"]} if "duration_seconds" in profile else {}),
        }
        if not form.get("DurationSeconds", "1").isdecimal():
            raise ConfigurationError(f"the duration_seconds of {who} is no whole number")
        http = HttpRequest("POST", self._url, (FORM,), _body("AssumeRole", form))
        moment = datetime.now(UTC)
        proof = signature_headers(http, credentials, region=self._region, service="sts", moment=moment)
        return await self._asked(http.body, proof, (), f"AWS, asked for the role of {who},")

    async def assume_with_web_identity(self, role: str, token: str, session: str | None) -> Found:
        """Assume a role with a token of somebody whom AWS trusts.

        Raises:
            SabirError: the service refused, or did not answer.
        """
        form = {"RoleArn": role, "RoleSessionName": session or _session_name(), "WebIdentityToken": token}
        body = _body("AssumeRoleWithWebIdentity", form)
        return await self._asked(body, (), (token,), f"AWS, asked for the role {role!s} with a web identity,")

    async def _asked(
        self, body: bytes, proof: tuple[tuple[str, str], ...], secrets: tuple[str, ...], who: str
    ) -> Found:
        answer = await self._errand.fetch("POST", self._url, headers=(FORM, *proof), body=body, secrets=secrets)
        told = {name: unescape(value) for name, value in re.findall(r"<(\w+)>([^<]*)</\1>", answer.text)}
        if not answer.is_good() or "SecretAccessKey" not in told:
            raise self._errand.refusal(who, answer, told.get("Code"), told.get("Message"))
        return proof_of(told, who, "SessionToken")


def _body(action: str, form: dict[str, str]) -> bytes:
    return urlencode({"Action": action, "Version": _VERSION, **form}).encode()


def _session_name() -> str:
    return f"sabir-{int(time.time())}"
