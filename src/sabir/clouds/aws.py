"""AWS's standard chain of credentials, in botocore's order. Knows what asks for them in which order, and no protocol.

The environment; of the profile, a role to assume, a web identity, single sign-on, the credentials' file, a login, a
program, the config file; what a container is given; what an EC2 instance is given. Left out are the files of boto 2.
Facts: botocore 1.44, https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html.
"""

from __future__ import annotations

import os
import shlex
import time
from typing import final

from ..environment import Environment
from ..errors import AuthenticationError, ConfigurationError
from ..requests import Secret
from ..runtime import Line, Runtime
from ..signing import AwsCredentials
from . import Proof, Standard
from .aws_files import AwsFiles, Section, paths_of, profile_of, region_of_profile
from .aws_machine import of_container, of_instance
from .aws_proofs import Found, complete, proof_of
from .aws_roles import Sts
from .aws_sso import of_login, of_sso
from .errands import Errand, json_object, moment_of, shortened

_KEYS = ("aws_access_key_id", "aws_secret_access_key")
_TOKENS = ("aws_security_token", "aws_session_token")


@final
class Aws(Standard[AwsCredentials]):
    """The credentials that AWS's own tools would find, for `api_key=`; those of a profile, if one is named.

    A profile that is named here goes before AWS_ACCESS_KEY_ID; one that AWS_PROFILE names does not.
    """

    signs = True

    def __init__(self, profile: str | None = None, *, environment: Environment | None = None) -> None:
        super().__init__()
        self._profile = profile
        self._environment = environment or Environment()

    async def prove(self, runtime: Runtime, line: Line) -> Found:
        errand = Errand(runtime, line, self._environment)
        if self._profile is None and (found := of_environment(self._environment)) is not None:
            return found
        files = AwsFiles(*[await errand.read(path) or "" for path in paths_of(self._environment)])
        search = _Search(errand, files, self._profile)
        found = await search.of_profile() or await of_container(errand) or await of_instance(errand, search.profile)
        if found is None:
            raise ConfigurationError(
                "AWS's credentials are nowhere: not in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, nor in a profile "
                "(AWS_PROFILE), nor given to this machine; run `aws configure` or `aws configure sso`, or pass api_key="
            )
        return found


def of_environment(environment: Environment) -> Found | None:
    """The credentials of AWS_ACCESS_KEY_ID.

    Raises:
        ConfigurationError: they are incomplete, or AWS_CREDENTIAL_EXPIRATION has passed.
    """
    if (key_id := environment.find("AWS_ACCESS_KEY_ID")) is None:
        return None
    secret = environment.find("AWS_SECRET_ACCESS_KEY")
    token = environment.find("AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN")
    credentials = complete(
        key_id.value, secret and secret.value, token and token.value, "AWS_SECRET_ACCESS_KEY is not set"
    )
    if (said := environment.find("AWS_CREDENTIAL_EXPIRATION")) is None:
        return Proof(credentials)
    ends = moment_of(said.value)
    if ends is None or ends <= time.time():
        what = "is no moment" if ends is None else "has passed"
        raise ConfigurationError(f"AWS_CREDENTIAL_EXPIRATION {what}: set the variables of AWS's credentials anew")
    return Proof(credentials, ends)


@final
class _Search:
    """One walk through the profiles."""

    def __init__(self, errand: Errand, files: AwsFiles, profile: str | None) -> None:
        self._errand = errand
        self._files = files
        self._is_named = profile is not None
        self._name, self.profile = profile_of(files, errand.environment, profile)
        # Every call for credentials is made in the region of the profile that was asked for.
        self._region = region_of_profile(errand.environment, self.profile)
        self._sts = Sts(errand, files, self.profile, self._region)

    async def of_profile(self) -> Found | None:
        """What the profile itself gives."""
        if _is_role(self.profile):
            return await self._of_role(self._name, (self._name,))
        return await self._of_settings(self._name, has_variables=not self._is_named)

    async def _of_settings(self, name: str, *, has_variables: bool) -> Found | None:
        """What a profile gives without a role; the variables of a web identity belong to the first profile only."""
        profile = self._files.profiles.get(name, {})
        return (
            await self._of_web_identity(profile, has_variables=has_variables)
            or await of_sso(self._errand, self._files, self.profile, name)
            or _of_section(self._files.credentials.get(name, {}), name)
            or await of_login(self._errand, profile, name)
            or await self._of_program(profile, name)
            or _of_section(self._files.config.get(name, {}), name)
        )

    async def _of_role(self, name: str, visited: tuple[str, ...]) -> Found:
        profile = self._files.profiles[name]
        if "mfa_serial" in profile:
            raise ConfigurationError(
                f"the role of the profile {name!r} asks for a code of {profile['mfa_serial']!s}, and nobody is here to "
                "type it: run `aws configure export-credentials --format env`, or pass a function as api_key="
            )
        source, kind = profile.get("source_profile"), profile.get("credential_source")
        if (source is None) == (kind is None):
            which = (
                "both source_profile and credential_source"
                if source
                else "neither source_profile nor credential_source"
            )
            raise ConfigurationError(
                f"the profile {name!r} has a role_arn and {which}: one of them says who assumes it"
            )
        given = await (self._of_source(str(source), name, visited) if source else self._of_kind(str(kind), name))
        return await self._sts.assume(profile, given.value, f"the profile {name!r}")

    async def _of_source(self, source: str, name: str, visited: tuple[str, ...]) -> Found:
        if (profile := self._files.profiles.get(source)) is None:
            raise ConfigurationError(
                f"the source_profile {source!r} of the profile {name!r} is in neither of AWS's files"
            )
        is_static = any(key in profile for key in _KEYS)
        # A profile may be its own source, if it has credentials too.
        if source in visited and not (source == name and is_static):
            way = " → ".join((*visited, source))
            raise ConfigurationError(f"the roles of AWS's profiles go in a circle: {way}; change a source_profile")
        if _is_role(profile) and not is_static:
            return await self._of_role(source, (*visited, source))
        found = await self._of_settings(source, has_variables=False)
        if found is None:
            raise ConfigurationError(f"the source_profile {source!r} of the profile {name!r} has no credentials")
        return found

    async def _of_kind(self, kind: str, name: str) -> Found:
        if kind == "Environment":
            found = of_environment(self._errand.environment)
        elif kind == "EcsContainer":
            found = await of_container(self._errand)
        elif kind == "Ec2InstanceMetadata":
            found = await of_instance(self._errand, self.profile)
        else:
            raise ConfigurationError(
                f"the credential_source {kind!r} of the profile {name!r} is none of Environment, EcsContainer and "
                "Ec2InstanceMetadata"
            )
        if found is None:
            raise ConfigurationError(f"the credential_source {kind!r} of the profile {name!r} gave no credentials")
        return found

    async def _of_web_identity(self, profile: Section, *, has_variables: bool) -> Found | None:
        errand = self._errand
        file = errand.own_variable("AWS_WEB_IDENTITY_TOKEN_FILE") if has_variables else None
        role = errand.variable("AWS_ROLE_ARN") if has_variables else None
        session = errand.variable("AWS_ROLE_SESSION_NAME") if has_variables else None
        file = file or profile.get("web_identity_token_file")
        if not file:
            return None
        role, session = role or profile.get("role_arn"), session or profile.get("role_session_name")
        if not role:
            raise ConfigurationError("there is a web identity for AWS and no role: set AWS_ROLE_ARN or role_arn")
        token = await errand.read(file)
        if not token:
            raise ConfigurationError(f"the token of the web identity is not in {file!s}")
        return await self._sts.assume_with_web_identity(role, token, session)

    async def _of_program(self, profile: Section, name: str) -> Found | None:
        if not (command := profile.get("credential_process")):
            return None
        who = f"the credential_process of the profile {name!r}"
        try:
            words = _words(command)
        except ValueError:
            raise ConfigurationError(f"{who} is no command: a quotation does not end") from None
        ran = await self._errand.run(words)
        if ran.code is None:
            raise self._errand.line.deadline_error()
        if ran.code != 0:
            raise AuthenticationError(f"{who} failed ({ran.code}): {shortened(ran.errors) or 'it does not say why'}")
        given = json_object(ran.output)
        if given.get("Version") != 1:
            raise ConfigurationError(f"{who} gave no credentials: what it prints has to be JSON with Version 1")
        return proof_of(given, who, "SessionToken")


def _is_role(profile: Section) -> bool:
    return "role_arn" in profile and "web_identity_token_file" not in profile


def _of_section(section: Section, name: str) -> Found | None:
    if not (key_id := section.get(_KEYS[0])):
        return None
    token = next((section[token] for token in _TOKENS if token in section), None)
    return Proof(complete(key_id, section.get(_KEYS[1]), token, f"the profile {name!r} has no aws_secret_access_key"))


def _words(command: Secret) -> list[str]:
    if os.name != "nt":
        return shlex.split(command)
    # A backslash stands for itself there.
    return [word.strip('"') for word in shlex.split(command, posix=False)]
