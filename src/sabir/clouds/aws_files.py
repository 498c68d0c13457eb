"""AWS's files, `~/.aws/config` and `~/.aws/credentials`: their profiles, and what these say of regions and endpoints.

Asks nobody and fetches nothing. What the files mean is from botocore 1.44, which tests hold this to.
"""

from __future__ import annotations

import re
from typing import final

from ..environment import Environment
from ..errors import ConfigurationError
from ..requests import Secret
from .files import read_text

Section = dict[str, Secret]

_SECTION = re.compile(r"\[\s*([^\]]+?)\s*\]")
_SETTING = re.compile(r"([\w.-]+)\s*[=:]\s*(.*?)\s*(?:\s[#;].*)?")
_KIND = re.compile(r"""(profile|sso-session|services)\s+(?:"([^"]+)"|'([^']+)'|(\S+))""")
# Where a region's servers are, by how its name begins, if it is not amazonaws.com.
_DOMAINS = {
    "cn-": "amazonaws.com.cn",
    "eusc-": "amazonaws.eu",
    "us-iso-": "c2s.ic.gov",
    "us-isob-": "sc2s.sgov.gov",
    "us-isof-": "csp.hci.ic.gov",
    "eu-isoe-": "cloud.adc-e.uk",
}


@final
class AwsFiles:
    """What both files say; `profiles` are of both, and the credentials' file goes first."""

    def __init__(self, config: str, credentials: str) -> None:
        self.profiles: dict[str, Section] = {}
        self.sessions: dict[str, Section] = {}
        self.services: dict[str, Section] = {}
        kinds = {"profile": self.profiles, "sso-session": self.sessions, "services": self.services}
        for name, section in parsed(config).items():
            if name == "default":
                self.profiles[name] = section
            elif (kind := _KIND.fullmatch(name)) is not None:
                kinds[kind[1]][kind[2] or kind[3] or kind[4]] = section
        self.config = {name: dict(section) for name, section in self.profiles.items()}
        self.credentials = parsed(credentials)
        for name, section in self.credentials.items():
            self.profiles[name] = {**self.profiles.get(name, {}), **section}


def files_of(environment: Environment) -> AwsFiles:
    """Both files, read here and now; one that is not there says nothing.

    Raises:
        ConfigurationError: one cannot be read.
    """
    return AwsFiles(*(read_text(path) or "" for path in paths_of(environment)))


def paths_of(environment: Environment) -> tuple[str, str]:
    """Where the files are.

    Raises:
        ConfigurationError: `.env` says so; a profile may name a program to run.
    """
    paths: list[str] = []
    for variable, file in (("AWS_CONFIG_FILE", "config"), ("AWS_SHARED_CREDENTIALS_FILE", "credentials")):
        found = environment.find(variable)
        if found is not None and found.is_from_file:
            raise ConfigurationError(
                f"{variable} stands in .env, and such a file may name programs to run: set it in the environment"
            )
        paths.append(f"~/.aws/{file}" if found is None else found.value)
    return paths[0], paths[1]


def profile_of(files: AwsFiles, environment: Environment, name: str | None = None) -> tuple[str, Section]:
    """The profile of this name, else the one that the environment names, else `default`; and its settings.

    Raises:
        ConfigurationError: a profile that was named is in neither file.
    """
    named = environment.find("AWS_DEFAULT_PROFILE", "AWS_PROFILE") if name is None else None
    chosen = name or (str(named.value) if named is not None else "default")
    if chosen not in files.profiles and (name or named):
        who = named.name if named is not None else "profile="
        raise ConfigurationError(f"{who} names the profile {chosen}, which is in neither of AWS's files")
    return chosen, files.profiles.get(chosen, {})


def region_of_profile(environment: Environment, profile: Section) -> str | None:
    """The region of the environment, else of the profile."""
    found = environment.find("AWS_REGION", "AWS_DEFAULT_REGION")
    return found.value if found is not None else profile.get("region")


def domain_of(region: str) -> str:
    """The domain in which a region's servers are."""
    return next((domain for start, domain in _DOMAINS.items() if region.startswith(start)), "amazonaws.com")


def endpoint_of(environment: Environment, files: AwsFiles, profile: Section, service: str) -> str | None:
    """The address that the environment or a profile sets for a service, named as in AWS_ENDPOINT_URL_<SERVICE>.

    Raises:
        ConfigurationError: `.env` sets it, or a section of services is named that is not there.
    """
    ignored = environment.find("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS")
    if (ignored.value if ignored is not None else profile.get("ignore_configured_endpoint_urls", "")).lower() == "true":
        return None
    for variable in (f"AWS_ENDPOINT_URL_{service.upper()}", "AWS_ENDPOINT_URL"):
        if (found := environment.find(variable)) is not None:
            if found.is_from_file:
                raise ConfigurationError(
                    f"{variable} stands in .env, and credentials would go there: set it in the environment"
                )
            return found.value.rstrip("/")
    if (name := profile.get("services")) is not None and name not in files.services:
        raise ConfigurationError(f"a profile names the section [services {name!s}], which is not in AWS's config file")
    chosen = files.services[name].get(f"{service}.endpoint_url") if name is not None else None
    chosen = chosen or profile.get("endpoint_url")
    return chosen and chosen.rstrip("/")


def parsed(text: str) -> dict[str, Section]:
    """The sections of a file by their names. A setting within a setting is named by both, as `sts.endpoint_url`."""
    sections: dict[str, Section] = {}
    section: Section = {}
    outer, indent = "", 0
    for line in text.splitlines():
        stripped = line.strip()
        if not stripped or stripped[0] in "#;":
            continue
        depth = len(line) - len(line.lstrip())
        is_inner = bool(outer) and depth > indent
        if not is_inner and (header := _SECTION.match(stripped)) is not None:
            section = sections.setdefault(header[1], {})
            outer = ""
        elif (setting := _SETTING.fullmatch(stripped)) is not None:
            name = setting[1].lower()
            if not is_inner:
                outer, indent = name, depth
            elif section.get(outer) != "":
                continue  # The value of the setting above goes on, as none that is read here does.
            section[f"{outer}.{name}" if is_inner else name] = Secret(setting[2])
    return sections
