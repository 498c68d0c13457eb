"""AWS's standard chain: the same files, variables and servers give botocore and us the same credentials."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import sys
import time
import traceback
from typing import Any, NamedTuple

import botocore.credentials
import botocore.session
import botocore.tokens
import pytest
from aws_world import DENIED, REGISTERED, AwsWorld, iso, made
from botocore.configloader import load_config, raw_config_parse
from botocore.regions import EndpointResolver
from botocore.utils import ContainerMetadataFetcher
from rerouted import COLOURS, proved
from servers import Gate, Server, deaf_listener, free_port, whole

import sabir
from sabir import AuthenticationError, ConfigurationError, DeadlineExceeded, PermissionDeniedError, ServerError
from sabir.clouds.aws import Aws
from sabir.clouds.aws_files import AwsFiles, domain_of
from sabir.runtime import Blocking, Line, RuntimeWrapper, run
from sabir.strict_json import encode_json
from sabir.transports import blocking_transport

STATIC = "aws_access_key_id = AKIDSTATIC\naws_secret_access_key = static-secret\n"
CHAINED = "aws_access_key_id = AKIDOTHER\naws_secret_access_key = other-secret\naws_session_token = other-token\n"
SSO = "sso_account_id = 123\nsso_role_name = Reader\nsso_region = eu-central-1\nsso_start_url = https://me.awsapps.com/start\n"
SESSION = (
    "[sso-session corp]\nsso_region = eu-central-1\nsso_start_url = https://me.awsapps.com/start#/\n"
    "sso_registration_scopes = sso:account:access\n"
)
IN_SESSION = "sso_session = corp\nsso_account_id = 123\nsso_role_name = Reader\n"
ROLE = "role_arn = arn:aws:iam::1:role/a\n"


class Case(NamedTuple):
    """Files, variables, and what the server is told; `{url}` is the server, `{home}` the home folder."""

    config: str = ""
    credentials: str = ""
    environ: dict[str, str] = {}  # noqa: RUF012 - read only
    files: dict[str, str] = {}  # noqa: RUF012
    profile: str | None = None
    key_id: str | None = None


def sso_file(name: str, **fields: Any) -> dict[str, str]:
    path = f".aws/sso/cache/{hashlib.sha1(name.encode()).hexdigest()}.json"
    return {path: json.dumps({"startUrl": "s", "region": "eu-central-1", **fields})}


def program(printed: str, *, code: int = 0, errors: str = "") -> str:
    """A program that prints this, as a file of Python."""
    return f"import sys\nprint({printed!r})\nprint({errors!r}, file=sys.stderr)\nsys.exit({code})\n"


PRINTED = {"Version": 1, "AccessKeyId": "AKIDPROCESS", "SecretAccessKey": "process-secret"}
RUN = f"credential_process = \"{sys.executable}\" '{{home}}/a program.py' --account 1\n"
LOGIN = "arn:aws:sts::1:assumed-role/me/x"
LOGIN_FILE = f".aws/login/cache/{hashlib.sha256(LOGIN.encode()).hexdigest()}.json"
LOGIN_TOKEN = {
    "accessToken": {
        **dict(zip(("accessKeyId", "secretAccessKey", "sessionToken"), made("login").values(), strict=True)),
        "accountId": "1",
        "expiresAt": iso(3600),
    },
    "refreshToken": "r",
    "dpopKey": "k",
    "clientId": "c",
}

CASES = {
    "environment": Case(environ={"AWS_ACCESS_KEY_ID": "AKIDENV", "AWS_SECRET_ACCESS_KEY": "env-secret"}),
    "environment with a token": Case(
        environ={
            "AWS_ACCESS_KEY_ID": "AKIDENV",
            "AWS_SECRET_ACCESS_KEY": "env-secret",
            "AWS_SESSION_TOKEN": "env-token",
            "AWS_CREDENTIAL_EXPIRATION": iso(3600),
        }
    ),
    "the environment goes before the profile": Case(
        credentials=f"[work]\n{STATIC}",
        environ={"AWS_ACCESS_KEY_ID": "AKIDENV", "AWS_SECRET_ACCESS_KEY": "s", "AWS_PROFILE": "work"},
        key_id="AKIDENV",
    ),
    "a profile that was asked for goes before the environment": Case(
        credentials=f"[work]\n{STATIC}",
        environ={"AWS_ACCESS_KEY_ID": "AKIDENV", "AWS_SECRET_ACCESS_KEY": "s"},
        profile="work",
        key_id="AKIDSTATIC",
    ),
    "credentials' file": Case(credentials=f"[default]\n{STATIC}", key_id="AKIDSTATIC"),
    "config file": Case(config=f"[default]\n{CHAINED}", key_id="AKIDOTHER"),
    "the credentials' file goes before the config": Case(
        config=f"[default]\n{CHAINED}", credentials=f"[default]\n{STATIC}", key_id="AKIDSTATIC"
    ),
    "a profile of both files": Case(
        config="[profile work]\nregion = eu-west-3\n",
        credentials=f"[default]\n{STATIC}\n[work]\n{CHAINED}",
        environ={"AWS_PROFILE": "work"},
        key_id="AKIDOTHER",
    ),
    "a profile with spaces in its name": Case(
        config=f'[profile "my work"]\n{CHAINED}', environ={"AWS_PROFILE": "my work"}, key_id="AKIDOTHER"
    ),
    "both names of the profile": Case(
        credentials=f"[one]\n{STATIC}\n[two]\n{CHAINED}",
        environ={"AWS_PROFILE": "one", "AWS_DEFAULT_PROFILE": "two"},
        key_id="AKIDOTHER",
    ),
    "files elsewhere": Case(
        environ={"AWS_CONFIG_FILE": "{home}/c", "AWS_SHARED_CREDENTIALS_FILE": "~/s"},
        files={"c": "[default]\nregion = eu-west-3\n", "s": f"[default]\n{STATIC}"},
        key_id="AKIDSTATIC",
    ),
    "role": Case(
        config="[default]\nrole_arn = arn:aws:iam::1:role/a\nsource_profile = base\n",
        credentials=f"[base]\n{STATIC}",
    ),
    "role with all its settings": Case(
        config=(
            "[profile work]\nrole_arn = arn:aws:iam::1:role/a\nsource_profile = base\nexternal_id = x&y=1\n"
            "role_session_name = me@here\nduration_seconds = 900\nregion = ap-south-1\n"
        ),
        credentials=f"[base]\n{STATIC}",
        environ={"AWS_PROFILE": "work"},
    ),
    "roles in a chain": Case(
        config=(
            "[profile c]\nrole_arn = arn:aws:iam::1:role/c\nsource_profile = b\n"
            "[profile b]\nrole_arn = arn:aws:iam::1:role/b\nsource_profile = a\nexternal_id = ext\n"
            "[profile a]\nrole_arn = arn:aws:iam::1:role/a\nsource_profile = base\n"
        ),
        credentials=f"[base]\n{CHAINED}",
        environ={"AWS_PROFILE": "c"},
    ),
    "a role of a profile that is its own source": Case(
        config="[default]\nrole_arn = arn:aws:iam::1:role/a\nsource_profile = default\n",
        credentials=f"[default]\n{STATIC}",
    ),
    "a role whose source has credentials and a role": Case(
        config=(
            "[default]\nrole_arn = arn:aws:iam::1:role/a\nsource_profile = b\n"
            f"[profile b]\nrole_arn = arn:aws:iam::1:role/b\nsource_profile = default\n{STATIC}"
        ),
    ),
    "a role from the environment": Case(
        config="[profile r]\nrole_arn = arn:aws:iam::1:role/a\ncredential_source = Environment\n",
        environ={
            "AWS_ACCESS_KEY_ID": "AKIDOTHER",
            "AWS_SECRET_ACCESS_KEY": "other-secret",
            "AWS_SESSION_TOKEN": "other-token",
        },
        profile="r",
    ),
    "a role from the instance": Case(
        config="[default]\nrole_arn = arn:aws:iam::1:role/a\ncredential_source = Ec2InstanceMetadata\n",
        environ={"AWS_EC2_METADATA_SERVICE_ENDPOINT": "{url}"},
    ),
    "a role from the container": Case(
        config="[default]\nrole_arn = arn:aws:iam::1:role/a\ncredential_source = EcsContainer\n",
        environ={"AWS_CONTAINER_CREDENTIALS_FULL_URI": "{url}/container/1"},
    ),
    "a role with single sign-on as its source": Case(
        config=f"[default]\n{ROLE}source_profile = corp\n[profile corp]\n{IN_SESSION}{SESSION}",
        files=sso_file("corp", accessToken="signed-on", expiresAt=iso(3600)),
    ),
    "a role with a program as its source": Case(
        config=f"[default]\nrole_arn = arn:aws:iam::1:role/a\nsource_profile = p\n[profile p]\n{RUN}",
        files={"a program.py": program(json.dumps(PRINTED))},
    ),
    "web identity of the environment": Case(
        environ={"AWS_WEB_IDENTITY_TOKEN_FILE": "{home}/token", "AWS_ROLE_ARN": "arn:aws:iam::1:role/w"},
        files={"token": "made-up.jwt"},
    ),
    "web identity of the environment, named": Case(
        environ={
            "AWS_WEB_IDENTITY_TOKEN_FILE": "{home}/token",
            "AWS_ROLE_ARN": "arn:aws:iam::1:role/w",
            "AWS_ROLE_SESSION_NAME": "pod",
        },
        files={"token": "made-up.jwt"},
    ),
    "web identity of a profile": Case(
        config=f"[default]\n{ROLE}web_identity_token_file = {{home}}/token\nrole_session_name = me\n",
        files={"token": "made-up.jwt"},
    ),
    "a web identity goes before the credentials' file": Case(
        credentials=f"[default]\n{STATIC}",
        environ={"AWS_WEB_IDENTITY_TOKEN_FILE": "{home}/token", "AWS_ROLE_ARN": "arn:aws:iam::1:role/w"},
        files={"token": "made-up.jwt"},
    ),
    "a role with a web identity as its source": Case(
        config=(
            "[default]\nrole_arn = arn:aws:iam::1:role/a\nsource_profile = web\n"
            "[profile web]\nrole_arn = arn:aws:iam::1:role/w\nweb_identity_token_file = {home}/token\n"
        ),
        files={"token": "made-up.jwt"},
    ),
    "single sign-on": Case(
        config=f"[default]\n{IN_SESSION}{SESSION}",
        files=sso_file("corp", accessToken="signed-on", expiresAt=iso(3600)),
    ),
    "single sign-on of the older kind": Case(
        config=f"[default]\n{SSO}",
        files=sso_file(
            "https://me.awsapps.com/start", accessToken="signed-on", expiresAt=iso(3600).replace("Z", "UTC")
        ),
    ),
    "single sign-on goes before the credentials' file": Case(
        config=f"[default]\n{IN_SESSION}{SESSION}",
        credentials=f"[default]\n{STATIC}",
        files=sso_file("corp", accessToken="signed-on", expiresAt=iso(3600)),
    ),
    "single sign-on that is renewed": Case(
        config=f"[default]\n{IN_SESSION}{SESSION}",
        files=sso_file("corp", accessToken="old", expiresAt=iso(-60), registrationExpiresAt=iso(9999), **REGISTERED),
    ),
    "program": Case(config=f"[default]\n{RUN}", files={"a program.py": program(json.dumps(PRINTED))}),
    "program with a token and an end": Case(
        config=f"[default]\n{RUN}",
        files={"a program.py": program(json.dumps({**PRINTED, "SessionToken": "t", "Expiration": iso(3600)}))},
    ),
    "a program goes before the config's own credentials": Case(
        config=f"[default]\n{STATIC}{RUN}", files={"a program.py": program(json.dumps(PRINTED))}, key_id="AKIDPROCESS"
    ),
    "container": Case(environ={"AWS_CONTAINER_CREDENTIALS_FULL_URI": "{url}/container/1"}),
    "container with a token": Case(
        environ={
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": "{url}/container/1",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN": "made-up",
        }
    ),
    "container with a token's file": Case(
        environ={
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": "{url}/container/1",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "{home}/auth",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN": "not this",
        },
        files={"auth": "made-up"},
    ),
    "container of ECS": Case(environ={"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/container/v2/1"}),
    "a container goes before the instance": Case(
        environ={
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": "{url}/container/1",
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": "{url}",
        }
    ),
    "instance": Case(environ={"AWS_EC2_METADATA_SERVICE_ENDPOINT": "{url}/"}),
    "instance named by the profile": Case(
        config="[default]\nec2_metadata_service_endpoint = {url}\n", environ={"AWS_EC2_METADATA_SERVICE_ENDPOINT": ""}
    ),
}
# What else is the same for all of them: where the services are, in which region, and that this is no instance.
COMMON = {
    "AWS_ENDPOINT_URL_STS": "{url}",
    "AWS_ENDPOINT_URL_SSO": "{url}/",
    "AWS_ENDPOINT_URL_SSO_OIDC": "{url}",
    "AWS_DEFAULT_REGION": "eu-west-3",
}


@pytest.fixture(autouse=True)
def _bare(monkeypatch, tmp_path):
    """No credentials of the machine: an empty home, an empty folder, none of AWS's variables."""
    for name in os.environ:
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    monkeypatch.chdir(tmp_path)
    # botocore has looked for the home folder when it was imported.
    for kind in (botocore.credentials.SSOProvider, botocore.tokens.SSOTokenProvider):
        monkeypatch.setattr(kind, "_SSO_TOKEN_CACHE_DIR", str(tmp_path / ".aws/sso/cache"))


@pytest.fixture
def world():
    with AwsWorld() as world:
        world.knows("AKIDSTATIC", "static-secret")
        world.knows("AKIDOTHER", "other-secret", "other-token")
        world.knows("AKIDPROCESS", "process-secret")
        world.sso_tokens.add("signed-on")
        yield world


def put(case: Case, world: AwsWorld, home: Any, monkeypatch: Any, common: dict[str, str] = COMMON) -> None:
    """Put a case's files and variables in place."""

    def filled(text: str) -> str:
        return text.replace("{url}", world.url).replace("{home}", str(home))

    for name, text in {".aws/config": case.config, ".aws/credentials": case.credentials, **case.files}.items():
        if text:
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            (home / name).write_text(filled(text), "utf-8")
    for name, value in {**common, **case.environ}.items():
        monkeypatch.setenv(name, filled(value)) if value else monkeypatch.delenv(name, raising=False)


def judged(profile: str | None = None) -> tuple[str, str, str | None]:
    """What botocore finds."""
    session = botocore.session.Session(profile=profile)
    found = session.get_credentials().get_frozen_credentials()
    return found.access_key, found.secret_key, found.token


def told(found: Any) -> tuple[str, str, str | None]:
    return str(found.key_id), str(found.secret), found.token and str(found.token)


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("name", CASES)
def test_botocore_and_we_find_the_same(name, colour, world, monkeypatch, tmp_path):
    case = CASES[name]
    put(case, world, tmp_path, monkeypatch)
    monkeypatch.setattr(ContainerMetadataFetcher, "IP_ADDRESS", world.url.removeprefix("http://"))
    ours = told(proved(Aws(case.profile), colour, {"http://169.254.170.2": world.url}))
    put(case, world, tmp_path, monkeypatch)  # Files that we have written are as they were.
    world.refreshed = 0
    theirs = judged(case.profile)
    assert ours == theirs
    assert case.key_id in (None, ours[0])


def test_what_a_login_left_serves_until_its_end(world, monkeypatch, tmp_path):
    """botocore is no judge here without its native library, which renews; we leave that to the CLI."""
    case = Case(config=f"[default]\nlogin_session = {LOGIN}\n", files={LOGIN_FILE: json.dumps(LOGIN_TOKEN)})
    put(case, world, tmp_path, monkeypatch)
    assert told(proved(Aws())) == tuple(made("login").values())
    ended = {**LOGIN_TOKEN, "accessToken": {**LOGIN_TOKEN["accessToken"], "expiresAt": iso(-1)}}
    put(case._replace(files={LOGIN_FILE: json.dumps(ended)}), world, tmp_path, monkeypatch)
    with pytest.raises(AuthenticationError, match="run `aws login --profile default`"):
        proved(Aws())


# Mistakes

MISTAKES = {
    "no credentials": (Case(), ConfigurationError, r"AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.*aws configure"),
    "no such profile": (
        Case(environ={"AWS_PROFILE": "absent"}),
        ConfigurationError,
        "AWS_PROFILE names the profile absent, which is in neither",
    ),
    "no such profile, asked for": (Case(profile="absent"), ConfigurationError, "profile= names the profile absent"),
    "half a key": (
        Case(environ={"AWS_ACCESS_KEY_ID": "A"}),
        ConfigurationError,
        "AWS_SECRET_ACCESS_KEY is not set",
    ),
    "half a key in a file": (
        Case(credentials="[default]\naws_access_key_id = A\n"),
        ConfigurationError,
        "the profile 'default' has no aws_secret_access_key",
    ),
    "an end that has passed": (
        Case(
            environ={
                "AWS_ACCESS_KEY_ID": "A",
                "AWS_SECRET_ACCESS_KEY": "s",
                "AWS_CREDENTIAL_EXPIRATION": iso(-5),
            }
        ),
        ConfigurationError,
        "AWS_CREDENTIAL_EXPIRATION has passed",
    ),
    "a role of nobody": (
        Case(config=f"[default]\n{ROLE}"),
        ConfigurationError,
        "neither source_profile nor credential",
    ),
    "a role of two": (
        Case(config=f"[default]\n{ROLE}source_profile = b\ncredential_source = Environment\n"),
        ConfigurationError,
        "both source_profile and credential_source",
    ),
    "a role of an absent profile": (
        Case(config=f"[default]\n{ROLE}source_profile = b\n"),
        ConfigurationError,
        "source_profile 'b' of the profile 'default' is in neither",
    ),
    "a role of an empty profile": (
        Case(config=f"[default]\n{ROLE}source_profile = b\n[profile b]\nregion = x\n"),
        ConfigurationError,
        "source_profile 'b' of the profile 'default' has no credentials",
    ),
    "roles in a circle": (
        Case(config=f"[default]\n{ROLE}source_profile = b\n[profile b]\n{ROLE}source_profile = default\n"),
        ConfigurationError,
        "in a circle: default → b → default",
    ),
    "a role of itself": (
        Case(config=f"[default]\n{ROLE}source_profile = default\n"),
        ConfigurationError,
        "in a circle",
    ),
    "an unknown source": (
        Case(config=f"[default]\n{ROLE}credential_source = Elsewhere\n"),
        ConfigurationError,
        "'Elsewhere'.*none of Environment, EcsContainer",
    ),
    "a source that has none": (
        Case(config=f"[default]\n{ROLE}credential_source = EcsContainer\n"),
        ConfigurationError,
        "'EcsContainer' of the profile 'default' gave no credentials",
    ),
    "a role that asks for a code": (
        Case(config=f"[default]\n{ROLE}source_profile = b\nmfa_serial = arn:mfa\n", credentials=f"[b]\n{STATIC}"),
        ConfigurationError,
        "asks for a code of arn:mfa.*export-credentials",
    ),
    "a role with a senseless duration": (
        Case(config=f"[default]\n{ROLE}source_profile = b\nduration_seconds = long\n", credentials=f"[b]\n{STATIC}"),
        ConfigurationError,
        "duration_seconds of the profile 'default' is no whole number",
    ),
    "a role that is denied": (
        Case(config=f"[default]\nrole_arn = {DENIED}\nsource_profile = b\n", credentials=f"[b]\n{STATIC}"),
        PermissionDeniedError,
        "the profile 'default', gave no credentials .HTTP 403: AccessDenied: .* & nobody may",
    ),
    "a web identity without a role": (
        Case(environ={"AWS_WEB_IDENTITY_TOKEN_FILE": "{home}/t"}, files={"t": "jwt"}),
        ConfigurationError,
        "set AWS_ROLE_ARN or role_arn",
    ),
    "a web identity without its file": (
        Case(environ={"AWS_WEB_IDENTITY_TOKEN_FILE": "{home}/t", "AWS_ROLE_ARN": "a"}),
        ConfigurationError,
        "the token of the web identity is not in .*/t",
    ),
    "nobody has signed on": (
        Case(config=f"[profile work]\n{IN_SESSION}{SESSION}", environ={"AWS_PROFILE": "work"}),
        AuthenticationError,
        "nobody has signed on to AWS here: run `aws sso login --profile work`",
    ),
    "the sign-on has ended": (
        Case(
            config=f"[default]\n{IN_SESSION}{SESSION}",
            files=sso_file("corp", accessToken="signed-on", expiresAt=iso(-1)),
        ),
        AuthenticationError,
        "single sign-on has ended: run `aws sso login --profile default`",
    ),
    "the sign-on of the older kind has ended": (
        Case(
            config=f"[default]\n{SSO}",
            files=sso_file("https://me.awsapps.com/start", accessToken="a", expiresAt=iso(-1)),
        ),
        AuthenticationError,
        "has ended: run `aws sso login --profile default`",
    ),
    "the sign-on cannot be renewed": (
        Case(
            config=f"[default]\n{IN_SESSION}{SESSION}",
            files=sso_file(
                "corp",
                accessToken="a",
                expiresAt=iso(-1),
                registrationExpiresAt=iso(99),
                **{**REGISTERED, "refreshToken": "revoked-refresh-token"},
            ),
        ),
        AuthenticationError,
        "has ended: run `aws sso login",
    ),
    "the sign-on is not known": (
        Case(config=f"[default]\n{IN_SESSION}{SESSION}", files=sso_file("corp", accessToken="a", expiresAt=iso(3600))),
        AuthenticationError,
        "HTTP 401: UnauthorizedException: Session token not found or invalid.; run `aws sso login",
    ),
    "no such session": (
        Case(config=f"[default]\n{IN_SESSION}"),
        ConfigurationError,
        r"\[sso-session corp\], which is not",
    ),
    "two words about a session": (
        Case(config=f"[default]\n{IN_SESSION}sso_region = other\n{SESSION}"),
        ConfigurationError,
        "sso_region of the profile 'default' is another",
    ),
    "half a single sign-on": (
        Case(config="[default]\nsso_account_id = 1\n"),
        ConfigurationError,
        "single sign-on without sso_role_name, sso_start_url, sso_region",
    ),
    "a program that fails": (
        Case(config=f"[default]\n{RUN}", files={"a program.py": program("", code=3, errors="sign on first")}),
        AuthenticationError,
        r"credential_process of the profile 'default' failed \(3\): sign on first",
    ),
    "a program that is not there": (
        Case(config="[default]\ncredential_process = /nowhere/tool --x\n"),
        ConfigurationError,
        "/nowhere/tool cannot be run: No such file",
    ),
    "a program that ends in a quotation": (
        Case(config="[default]\ncredential_process = tool 'x\n"),
        ConfigurationError,
        "is no command: a quotation does not end",
    ),
    "a program of another version": (
        Case(config=f"[default]\n{RUN}", files={"a program.py": program(json.dumps({**PRINTED, "Version": 2}))}),
        ConfigurationError,
        "JSON with Version 1",
    ),
    "a program with half a key": (
        Case(config=f"[default]\n{RUN}", files={"a program.py": program('{"Version": 1, "AccessKeyId": "A"}')}),
        AuthenticationError,
        "incomplete credentials: AccessKeyId and SecretAccessKey",
    ),
    "a container elsewhere": (
        Case(environ={"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://thief.example/x"}),
        ConfigurationError,
        "names thief.example, which is asked for credentials over https only",
    ),
    "a container's token with a line in it": (
        Case(
            environ={
                "AWS_CONTAINER_CREDENTIALS_FULL_URI": "{url}/container/1",
                "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "{home}/t",
            },
            files={"t": "a\nX-Other: b"},
        ),
        ConfigurationError,
        "no header can carry",
    ),
    "a container that has nothing": (
        Case(environ={"AWS_CONTAINER_CREDENTIALS_FULL_URI": "{url}/nothing"}),
        AuthenticationError,
        r"container's server of credentials, 127.0.0.1:\d+, gave no credentials .HTTP 404",
    ),
    "an instance that is switched off": (
        Case(environ={"AWS_EC2_METADATA_SERVICE_ENDPOINT": "{url}", "AWS_EC2_METADATA_DISABLED": "true"}),
        ConfigurationError,
        "nor given to this machine",
    ),
    "an instance at no address": (
        Case(environ={"AWS_EC2_METADATA_SERVICE_ENDPOINT": "here"}),
        ConfigurationError,
        "from here/latest/api/token, which is no address",
    ),
    "no such section of services": (
        Case(config=f"[default]\nservices = s\n{ROLE}source_profile = b\n", environ={"AWS_ENDPOINT_URL_STS": ""}),
        ConfigurationError,
        r"\[services s\]",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_an_error_that_says_what_to_do(name, world, monkeypatch, tmp_path):
    case, kind, words = MISTAKES[name]
    put(case, world, tmp_path, monkeypatch)
    monkeypatch.setattr("sabir.clouds.aws_machine._CONTAINER_ATTEMPTS", 1)
    with pytest.raises(kind, match=words) as caught:
        proved(Aws(case.profile))
    assert caught.value.retryable is False
    everything = "".join(traceback.format_exception(caught.value))
    assert not re.search("static-secret|process-secret|signed-on|made-up|jwt|revoked", everything)


def test_a_server_that_repeats_what_was_signed_gives_nothing_away(world, monkeypatch, tmp_path):
    case = Case(
        config=f"[default]\n{ROLE}source_profile = b\n", credentials=f"[b]\n{CHAINED.replace('other-secret', 'x')}"
    )
    put(case, world, tmp_path, monkeypatch)
    with pytest.raises(PermissionDeniedError, match=r"SignatureDoesNotMatch: the string was .*\*\*\*") as caught:
        proved(Aws())
    assert "other-token" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        *("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ENDPOINT_URL"),
        *("AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_EC2_METADATA_SERVICE_ENDPOINT", "AWS_ENDPOINT_URL_STS"),
    ],
)
def test_a_folder_does_not_say_what_is_run_or_who_is_asked(name, monkeypatch, tmp_path):
    """The file .env of the working directory comes from whoever made the folder."""
    (tmp_path / ".env").write_text(f"{name}=http://thief.example\n")
    monkeypatch.delenv("AWS_EC2_METADATA_SERVICE_ENDPOINT")
    if "ENDPOINT_URL" in name:
        (tmp_path / ".aws").mkdir()
        (tmp_path / ".aws/config").write_text(f"[default]\n{ROLE}source_profile = b\n[profile b]\n{STATIC}")
    with pytest.raises(ConfigurationError, match=f"{name} stands in .env"):
        proved(Aws())


def test_what_stands_in_env_itself_may_be_used(monkeypatch, tmp_path):
    (tmp_path / ".env").write_text("AWS_ACCESS_KEY_ID=A\nAWS_SECRET_ACCESS_KEY=s\n")
    assert told(proved(Aws())) == ("A", "s", None)


# Endpoints, files and regions, as botocore reads them

ENDPOINTS = {
    "services": "[default]\nservices = s\n[services s]\nsts =\n  endpoint_url = {url}\nother =\n  endpoint_url = x\n",
    "profile": "[default]\nendpoint_url = {url}\n",
}


@pytest.mark.parametrize("name", ENDPOINTS)
def test_endpoints_of_a_profile_are_used(name, world, monkeypatch, tmp_path):
    config = ENDPOINTS[name].replace("[default]\n", f"[default]\n{ROLE}source_profile = b\nregion = eu-west-3\n")
    put(Case(config=config, credentials=f"[b]\n{STATIC}"), world, tmp_path, monkeypatch, common={})
    assert told(proved(Aws())) == judged()


def test_endpoints_that_are_to_be_ignored_are(world, monkeypatch, tmp_path):
    case = Case(config=f"[default]\n{ROLE}source_profile = b\n", credentials=f"[b]\n{STATIC}")
    put(case, world, tmp_path, monkeypatch)
    monkeypatch.setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")
    asked = []

    class Deaf(RuntimeWrapper):
        async def send(self, request, line):
            asked.append((request.url, dict(request.headers)["authorization"].split("/")[2]))
            raise sabir.ConnectError("no network in this test")

    for region, url in (("eu-west-3", "https://sts.eu-west-3.amazonaws.com/"), (None, "https://sts.amazonaws.com/")):
        monkeypatch.setenv("AWS_DEFAULT_REGION", region) if region else monkeypatch.delenv("AWS_DEFAULT_REGION")
        with pytest.raises(sabir.ConnectError):
            run(lambda: Aws().renewed.get(Deaf(Blocking(blocking_transport)), Line()))
        assert asked.pop() == (url, region or "us-east-1")


def test_domains_are_those_that_botocore_knows():
    loader = botocore.session.Session().get_component("data_loader")
    resolver = EndpointResolver(loader.load_data("endpoints"))
    for partition in resolver.get_available_partitions():
        for region in resolver.get_available_endpoints("sts", partition):
            if "-fips" not in region and "global" not in region:
                assert domain_of(region) == resolver.get_partition_dns_suffix(partition), region


CONFIG = """
; a remark
[default]
Region = eu-west-1
aws_access_key_id: D
empty =
[profile work]
  region=us-west-2
  s3 =
    max_concurrent_requests = 20
    region = nowhere
  output = json
# [profile work]
[profile 'in quotes']
region = x
[work]
region = not a profile
[sso-session corp]
sso_region = y
[services here]
sts =
  endpoint_url = http://a
bedrock_runtime =
  endpoint_url = http://b
"""


def test_files_are_read_as_botocore_reads_them(tmp_path):
    (tmp_path / "config").write_text(CONFIG)
    (tmp_path / "shared").write_text(CONFIG)
    ours = AwsFiles(CONFIG, CONFIG)
    theirs = load_config(str(tmp_path / "config"))

    def flat(section: dict[str, Any]) -> dict[str, str]:
        nested = {
            f"{name}.{inner}": text
            for name, each in section.items()
            if isinstance(each, dict)
            for inner, text in each.items()
        }
        return {**{name: each if isinstance(each, str) else "" for name, each in section.items()}, **nested}

    for name, sections in (("profiles", ours.config), ("sso_sessions", ours.sessions), ("services", ours.services)):
        assert sections == {each: flat(section) for each, section in theirs[name].items()}
    raw = raw_config_parse(str(tmp_path / "shared"))
    assert ours.credentials == {name: flat(section) for name, section in raw.items()}


# Keeping and renewing


def test_a_token_that_cannot_be_renewed_just_now_serves_until_its_end(world, monkeypatch, tmp_path):
    token = {"accessToken": "signed-on", "registrationExpiresAt": iso(9999), **REGISTERED}
    case = Case(
        config=f"[default]\n{IN_SESSION}{SESSION}",
        environ={"AWS_ENDPOINT_URL_SSO_OIDC": f"http://127.0.0.1:{free_port()}"},
        files=sso_file("corp", expiresAt=iso(300), **token),
    )
    put(case, world, tmp_path, monkeypatch)
    assert proved(Aws())
    put(case._replace(files=sso_file("corp", expiresAt=iso(-1), **token)), world, tmp_path, monkeypatch)
    with pytest.raises(sabir.ConnectError):
        proved(Aws())


def test_a_token_that_was_renewed_is_written_where_awss_tools_look(world, monkeypatch, tmp_path):
    case = CASES["single sign-on that is renewed"]
    put(case, world, tmp_path, monkeypatch)
    proved(Aws())
    (path,) = (tmp_path / ".aws/sso/cache").iterdir()
    kept = json.loads(path.read_text())
    assert (kept["accessToken"], kept["clientSecret"]) == ("sso-token-1", REGISTERED["clientSecret"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    # And botocore goes on with it.
    assert judged()[0] == told(proved(Aws()))[0]
    assert world.refreshed == 1


def test_credentials_are_fetched_once_and_again_before_they_end(world, monkeypatch, tmp_path):
    put(CASES["role"], world, tmp_path, monkeypatch)
    aws, runtime, line = Aws(), Blocking(blocking_transport), Line()
    for _ in range(5):
        run(lambda: aws.renewed.get(runtime, line))
    assert world.asked == ["AssumeRole"]
    # With less than five minutes left they are renewed while they serve.
    clock = time.time()
    monkeypatch.setattr("sabir.clouds.time.time", lambda: clock + 3400)
    run(lambda: aws.renewed.get(runtime, line))
    assert world.asked == ["AssumeRole"] * 2
    runtime.close()


def test_an_instances_credentials_that_have_ended_serve_on(world, monkeypatch, tmp_path):
    put(CASES["instance"], world, tmp_path, monkeypatch)
    world.lasts = -60
    assert told(proved(Aws())) == judged()


def test_an_instance_without_tokens_is_asked_as_before(world, monkeypatch, tmp_path):
    put(CASES["instance"], world, tmp_path, monkeypatch)
    world.has_imds_tokens = False
    assert told(proved(Aws())) == judged()
    monkeypatch.setenv("AWS_EC2_METADATA_V1_DISABLED", "true")
    with pytest.raises(ConfigurationError, match="nowhere"):
        proved(Aws())


# Time


@pytest.mark.parametrize("colour", COLOURS)
def test_a_program_is_ended_at_the_deadline(colour, world, monkeypatch, tmp_path):
    """And all that it has started."""
    waits = "import os, subprocess, time\nopen('pid', 'w').write(str(os.getpid()))\nsubprocess.run(['sleep', '60'])\n"
    put(Case(config=f"[default]\n{RUN}", files={"a program.py": waits}), world, tmp_path, monkeypatch)
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded, match="deadline of this call"):
        proved(Aws(), colour, deadline=began + 1.0)
    assert time.monotonic() - began < 1.3
    pid = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_call_that_is_cut_ends_the_program(surface, monkeypatch, tmp_path):
    fifo = tmp_path / "begun"
    os.mkfifo(fifo)
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/config").write_text(
        f"[default]\nregion = x\ncredential_process = sh -c 'echo > {fifo}; exec sleep 60'\n"
    )
    client = surface.client("bedrock:a")

    async def asking() -> float:
        with pytest.raises(sabir.ClosedError):
            await client.ask("?")
        return time.monotonic()

    async def cutting() -> float:
        await surface.in_thread(fifo.read_bytes)
        client.close()
        return time.monotonic()

    ended, cut = await surface.at_once(asking, cutting)
    assert ended - cut < 0.3


async def test_a_deadline_holds_while_a_server_of_credentials_is_silent(surface, monkeypatch, tmp_path):
    gate = Gate()

    async def silent(call):
        await gate.passed()

    with Server(silent) as server:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{server.url}/container")
        monkeypatch.setenv("AWS_REGION", "x")
        client = surface.client("bedrock:a", timeout=1.0)
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            await client.ask("?")
        assert time.monotonic() - began < 1.3
        gate.open()


async def test_where_there_is_no_instance_one_is_not_waited_for(surface, monkeypatch):
    with deaf_listener() as port:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("AWS_REGION", "x")
        began = time.monotonic()
        with pytest.raises(ConfigurationError, match="nowhere"):
            await surface.client("bedrock:a").ask("?")
        assert time.monotonic() - began < 2.5


# A whole call

ANSWER = {"output": {"message": {"role": "assistant", "content": [{"text": "Hello"}]}}, "stopReason": "end_turn"}


@pytest.mark.parametrize("model", ["bedrock:a", "bedrock:b"])
async def test_many_calls_are_signed_with_what_was_fetched_once(surface, model, world, monkeypatch, tmp_path):
    put(CASES["roles in a chain"], world, tmp_path, monkeypatch)
    gate, seen = Gate(), []

    async def answer(call):
        seen.append(call)
        await gate.passed()
        await whole(encode_json(ANSWER))(call)

    with Server(answer) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", server.url)
        client = surface.client("bedrock:a")
        assert client.explain("?").headers["authorization"] == "…"
        gate.open()
        answers = await surface.at_once(
            *[lambda number=number: client.ask("?", model=f"bedrock:{number}") for number in range(12)]
        )
    assert {str(each) for each in answers} == {"Hello"}
    assert world.asked == ["AssumeRole"] * 3
    keys = {dict(call.headers)["authorization"].partition("/")[0] for call in seen}
    assert keys == {f"AWS4-HMAC-SHA256 Credential={judged()[0]}"}
    inner = getattr(client, "inner", client)
    assert not re.search("secret-|token", repr(vars(inner)).replace("max_tokens", ""))


async def test_a_refusal_of_a_server_of_credentials_is_the_calls(surface, world, monkeypatch, tmp_path):
    put(MISTAKES["a role that is denied"][0], world, tmp_path, monkeypatch)
    with pytest.raises(PermissionDeniedError, match="AccessDenied") as caught:
        await surface.client("bedrock:a").ask("?")
    assert (caught.value.provider, caught.value.model, caught.value.code) == ("bedrock", "a", "AccessDenied")
    assert [attempt.outcome for attempt in caught.value.attempts] == ["PermissionDeniedError"]


async def test_a_server_of_credentials_that_is_busy_is_asked_again(surface, world, monkeypatch, tmp_path):
    put(CASES["role"], world, tmp_path, monkeypatch)
    world.refuses["/"] = (500, b"<Error><Code>InternalFailure</Code></Error>")
    with pytest.raises(ServerError, match="InternalFailure") as caught:
        await surface.client("bedrock:a", max_attempts=2).ask("?")
    assert len(caught.value.attempts) == 2
