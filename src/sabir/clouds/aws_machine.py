"""What AWS gives to where a program runs: a container (ECS, EKS, Lambda, Greengrass) or an EC2 instance.

https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html,
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html; limits as in botocore 1.44.
"""

from __future__ import annotations

import ipaddress
import time
from urllib.parse import urlsplit

from ..errors import ConfigurationError, ConnectError, DeadlineExceeded, ProviderError, StreamInterrupted
from ..requests import Secret
from . import Proof
from .aws_files import Section
from .aws_proofs import Found, proof_of
from .errands import Answer, Errand, no_answer

_CONTAINER = "http://169.254.170.2"
# Who may be asked in plain HTTP, beside this machine: the agents of ECS and of EKS.
_AGENTS = frozenset({"169.254.170.2", "169.254.170.23", "fd00:ec2::23", "localhost"})
_CONTAINER_SECONDS = 2.0
_CONTAINER_ATTEMPTS = 3
_INSTANCE = {"ipv4": "http://169.254.169.254", "ipv6": "http://[fd00:ec2::254]"}
_ROLES = "/latest/meta-data/iam/security-credentials/"
_TOKEN_SECONDS = ("x-aws-ec2-metadata-token-ttl-seconds", "21600")
# AWS goes on to take credentials that an instance gives after their end, while it has no others.
_EXTENDED_BY = 600.0


async def of_container(errand: Errand) -> Found | None:
    """What the container that this runs in is given; None if it is none.

    Raises:
        ConfigurationError: credentials would be asked of, or a token sent to, a server elsewhere in plain HTTP.
        SabirError: who gives them refused, or did not answer.
    """
    relative = errand.own_variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
    url = f"{_CONTAINER}{relative}" if relative else errand.own_variable("AWS_CONTAINER_CREDENTIALS_FULL_URI")
    if not url:
        return None
    _check_host(url)
    who = f"the container's server of credentials, {urlsplit(url).netloc},"
    for attempt in range(1, _CONTAINER_ATTEMPTS + 1):
        is_last = attempt == _CONTAINER_ATTEMPTS
        try:
            with errand.within(_CONTAINER_SECONDS) as short:
                answer = await short.fetch("GET", url, headers=await _container_headers(errand))
        except DeadlineExceeded as error:
            no_answer(error, errand.line)
            if is_last:
                raise ConnectError(f"{who} did not answer within {_CONTAINER_SECONDS:g} s") from None
        except (ConnectError, StreamInterrupted):
            if is_last:
                raise
        else:
            if answer.status == 200 and answer.json:
                return proof_of(answer.json, who)
            if is_last:
                told = answer.json
                raise errand.refusal(who, answer, told.get("code"), told.get("message"))
        await errand.runtime.sleep(1.0, errand.line)
    return None


async def of_instance(errand: Errand, profile: Section) -> Found | None:
    """What the EC2 instance that this runs on is given; None if it is none, or has no role.

    Raises:
        ConfigurationError: what is set for it cannot be.
    """
    if (errand.variable("AWS_EC2_METADATA_DISABLED") or "").lower() == "true":
        return None
    own = errand.own_variable
    address = own("AWS_EC2_METADATA_SERVICE_ENDPOINT") or profile.get("ec2_metadata_service_endpoint")
    mode = own("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE") or profile.get("ec2_metadata_service_endpoint_mode") or "ipv4"
    if mode.lower() not in _INSTANCE:
        raise ConfigurationError(f"AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE is ipv4 or ipv6, not {mode!s}")
    seconds = _number(errand, profile, "metadata_service_timeout", 1.0)
    attempts = int(_number(errand, profile, "metadata_service_num_attempts", 1.0))
    instance = _Instance(errand, (address or _INSTANCE[mode.lower()]).rstrip("/"), seconds, attempts)
    no_v1 = own("AWS_EC2_METADATA_V1_DISABLED") or profile.get("ec2_metadata_v1_disabled") or ""
    return await instance.credentials(needs_token=no_v1.lower() == "true")


class _Instance:
    """The instance's metadata service."""

    def __init__(self, errand: Errand, address: str, seconds: float, attempts: int) -> None:
        self._errand = errand
        self._address = address
        self._seconds = seconds
        self._attempts = attempts

    async def credentials(self, *, needs_token: bool) -> Found | None:
        answer = await self._asked("PUT", "/latest/api/token", (_TOKEN_SECONDS,), {200, 400, 403, 404, 405})
        token = answer.text if answer is not None and answer.status == 200 else None
        # The first version of the service has no tokens; and of the second, tokens may not reach a container.
        if (answer is not None and answer.status == 400) or (token is None and needs_token):
            return None
        proof = (("x-aws-ec2-metadata-token", token),) if token is not None else ()
        role = await self._asked("GET", _ROLES, proof, {200})
        if role is None or not role.text.strip():
            return None
        given = await self._asked("GET", _ROLES + role.text.strip(), proof, {200})
        # One whose role cannot be assumed says so with 200.
        if given is None or not given.json.keys() >= {"AccessKeyId", "SecretAccessKey", "Token", "Expiration"}:
            return None
        found = proof_of(given.json, "the EC2 instance")
        return Proof(found.value, max(found.ends or 0.0, time.time() + _EXTENDED_BY))

    async def _asked(
        self, method: str, path: str, headers: tuple[tuple[str, str], ...], wanted: set[int]
    ) -> Answer | None:
        """An answer with a status that is wanted; None if none comes."""
        for _ in range(self._attempts):
            try:
                with self._errand.within(self._seconds) as short:
                    answer = await short.fetch(method, self._address + path, headers=headers)
            except DeadlineExceeded as error:
                no_answer(error, self._errand.line)
            except (ConnectError, StreamInterrupted, ProviderError):
                pass
            else:
                if answer.status in wanted:
                    return answer
        return None


async def _container_headers(errand: Errand) -> tuple[tuple[str, str], ...]:
    token: Secret | None
    if (file := errand.own_variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")) is not None:
        if (token := await errand.read(file)) is None:
            raise ConfigurationError(f"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE names {file!s}, which is not there")
    else:
        token = errand.variable("AWS_CONTAINER_AUTHORIZATION_TOKEN")
    if token is not None and not (token.isascii() and token.isprintable()):
        raise ConfigurationError("the container's authorization token has characters that no header can carry")
    return (("accept", "application/json"), *((("authorization", token),) if token is not None else ()))


def _check_host(url: str) -> None:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return  # Told by whoever asks there.
    try:
        is_here = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_here = False
    if parts.scheme != "https" and not is_here and host not in _AGENTS:
        raise ConfigurationError(
            f"AWS_CONTAINER_CREDENTIALS_FULL_URI names {host}, which is asked for credentials over https only; plain "
            f"HTTP will do on this machine and at {', '.join(sorted(_AGENTS))}"
        )


def _number(errand: Errand, profile: Section, setting: str, otherwise: float) -> float:
    said = errand.variable(f"AWS_{setting.upper()}") or profile.get(setting)
    try:
        return max(1.0, float(said)) if said else otherwise
    except ValueError:
        raise ConfigurationError(f"{setting} of AWS's metadata service is a number, not {said!s}") from None
