"""Google's application default credentials: google-auth and we ask the same, and are given the same."""

from __future__ import annotations

import base64
import gc
import hashlib
import json
import os
import re
import sys
import time
import traceback
import weakref
from datetime import UTC, datetime
from importlib import import_module
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import google.auth
import google.auth.compute_engine._metadata
import google.auth.transport.requests
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from fakes import ChatServer
from rerouted import COLOURS, proved, rerouted
from servers import Call, Gate, Server, deaf_listener, free_port, until, whole

import sabir
from sabir import AuthenticationError, ConfigurationError, DeadlineExceeded, PermissionDeniedError, ServerError
from sabir.clouds.google import SCOPE, Google
from sabir.credentials import find_address, find_key
from sabir.environment import Environment
from sabir.providers import PROVIDERS

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PEM = KEY.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
).decode()
WELL_KNOWN = ".config/gcloud/application_default_credentials.json"
SERVICE = {
    "type": "service_account",
    "project_id": "the-project-of-the-file",
    "private_key_id": "key-1",
    "private_key": PEM,
    "client_email": "bot@the-project.iam.gserviceaccount.com",
    "token_uri": "{url}/oauth2/token",
}
USER = {
    "type": "authorized_user",
    "client_id": "a-client",
    "client_secret": "made-up-client-secret",
    "refresh_token": "made-up-refresh-token",
}
IMPERSONATED = {
    "type": "impersonated_service_account",
    "source_credentials": USER,
    "service_account_impersonation_url": "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/"
    "other@the-project.iam.gserviceaccount.com:generateAccessToken",
    "delegates": ["projects/-/serviceAccounts/between@the-project.iam.gserviceaccount.com"],
}
POOL = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q"
EXTERNAL = {
    "type": "external_account",
    "audience": POOL,
    "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
    "token_url": "{url}/sts/token",
    "credential_source": {"file": "{home}/subject"},
}


class World:
    """Google's servers of tokens. What they give depends on all that they were asked."""

    def __init__(self) -> None:
        self.server = Server(self._answer)
        self.url = self.server.url
        self.asked: list[str] = []
        self.refuses: dict[str, tuple[int, bytes]] = {}
        self.lasts = 3600

    @property
    def places(self) -> dict[str, str]:
        names = ("oauth2", "iamcredentials")
        return {f"https://{name}.googleapis.com": f"{self.url}/{name}" for name in names}

    async def _answer(self, call: Call) -> None:
        path = urlsplit(call.target).path
        self.asked.append(path)
        status, given = self.refuses.get(path) or (200, self._given(call, path))
        body = given if isinstance(given, bytes) else json.dumps(given).encode()
        lines = ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        call.head(*lines, *(["Metadata-Flavor: Google"] if "Metadata" in path else []), status=f"{status} Said")
        call.write(body)

    def _given(self, call: Call, path: str) -> Any:
        if path.endswith("/service-accounts/default/"):
            return {"email": "vm@the-project.iam.gserviceaccount.com", "scopes": [SCOPE]}
        if "computeMetadata" in path:
            assert call.header("metadata-flavor") == "Google"
            return self._token(
                path, urlsplit(call.target).query.replace("%2C", ",").replace("%3A", ":").replace("%2F", "/")
            )
        if "generateAccessToken" in path:
            body = json.loads(call.body)
            ends = datetime.fromtimestamp(time.time() + self.lasts, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            token = self._token(path, sorted(body.items()), call.header("authorization"))["access_token"]
            return {"accessToken": token, "expireTime": ends}
        form = {name: value for name, (value,) in parse_qs(call.body.decode()).items()}
        if "assertion" in form:
            form["assertion"] = repr(self._claims(form["assertion"]))
        given = self._token(path, sorted(form.items()))
        return (
            {**given, "issued_token_type": "urn:ietf:params:oauth:token-type:access_token"} if "sts" in path else given
        )

    def _claims(self, assertion: str) -> Any:
        """What an assertion says, if it is signed with the account's key; its times may differ."""
        head, claims, signature = (base64.urlsafe_b64decode(part + "==") for part in assertion.split("."))
        KEY.public_key().verify(signature, assertion.rpartition(".")[0].encode(), padding.PKCS1v15(), hashes.SHA256())
        told = json.loads(claims)
        assert told.pop("exp") - told["iat"] == 3600
        assert abs(told.pop("iat") - time.time()) < 60
        return sorted(json.loads(head).items()), sorted(told.items())

    def _token(self, *words: object) -> dict[str, Any]:
        seed = hashlib.sha256(repr(words).encode()).hexdigest()
        return {"access_token": f"ya29.{seed}", "expires_in": self.lasts, "token_type": "Bearer"}


class Case(NamedTuple):
    """Variables and files; `{url}` is the server, `{home}` the home folder."""

    environ: dict[str, str] = {}  # noqa: RUF012 - read only
    files: dict[str, Any] = {}  # noqa: RUF012


NAMED = {"GOOGLE_APPLICATION_CREDENTIALS": "{home}/it.json"}
CASES = {
    "service account": Case(NAMED, {"it.json": SERVICE}),
    "service account with a project for its quota": Case(NAMED, {"it.json": {**SERVICE, "quota_project_id": "q"}}),
    "user": Case({}, {WELL_KNOWN: USER}),
    "user with a project for its quota": Case({}, {WELL_KNOWN: {**USER, "quota_project_id": "q"}}),
    "a project for the quota of the environment": Case(
        {"GOOGLE_CLOUD_QUOTA_PROJECT": "other"}, {WELL_KNOWN: {**USER, "quota_project_id": "q"}}
    ),
    "gcloud's folder elsewhere": Case(
        {"CLOUDSDK_CONFIG": "{home}/sdk"}, {"sdk/application_default_credentials.json": USER}
    ),
    "a named file goes before gcloud's": Case(NAMED, {"it.json": SERVICE, WELL_KNOWN: USER}),
    "impersonation": Case(NAMED, {"it.json": IMPERSONATED}),
    "impersonation by a service account": Case(NAMED, {"it.json": {**IMPERSONATED, "source_credentials": SERVICE}}),
    "metadata server": Case({"GCE_METADATA_HOST": "{place}"}),
    "external account": Case(NAMED, {"it.json": EXTERNAL, "subject": "made-up.jwt"}),
    "external account that acts for another": Case(
        NAMED,
        {
            "it.json": {
                **EXTERNAL,
                "service_account_impersonation_url": "{url}/iamcredentials/v1/projects/-/serviceAccounts/"
                "a@the-project.iam.gserviceaccount.com:generateAccessToken",
            },
            "subject": "made-up.jwt",
        },
    ),
}


@pytest.fixture(autouse=True)
def _bare(monkeypatch, tmp_path):
    """No credentials of the machine: an empty home, an empty folder, none of Google's variables."""
    for name in os.environ:
        if name.startswith(("GOOGLE_", "GCE_", "CLOUDSDK_", "GCLOUD_", "CLOUD_ML_", "ANTHROPIC_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("APPDATA", str(tmp_path / ".config"))
    monkeypatch.setenv("GCE_METADATA_HOST", f"127.0.0.1:{free_port()}")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def world():
    made = World()
    with made.server:
        yield made


def put(case: Case, world: World, home: Any, monkeypatch: Any) -> None:
    def filled(text: str) -> str:
        place = world.url.removeprefix("http://")
        return text.replace("{url}", world.url).replace("{home}", str(home)).replace("{place}", place)

    for name, value in case.files.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(filled(value if isinstance(value, str) else json.dumps(value)), "utf-8")
    for name, value in case.environ.items():
        monkeypatch.setenv(name, filled(value))


class Judge(google.auth.transport.requests.Request):
    """How google-auth asks, in the same world."""

    def __init__(self, places: dict[str, str]) -> None:
        super().__init__()
        self._places = places

    def __call__(self, url: str, *args: Any, **options: Any) -> Any:
        return super().__call__(rerouted(url, self._places), *args, **options)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore:.*quota project:UserWarning")
@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("name", CASES)
def test_google_auth_and_we_are_given_the_same(name, colour, world, monkeypatch, tmp_path):
    put(CASES[name], world, tmp_path, monkeypatch)
    ours = {key: str(value) for key, value in proved(Google(), colour, world.places)}
    # google-auth has read this when it was imported.
    metadata = google.auth.compute_engine._metadata
    monkeypatch.setattr(metadata, "_GCE_METADATA_HOST", os.environ["GCE_METADATA_HOST"])
    monkeypatch.setattr(metadata, "_get_metadata_ip_root", lambda use_mtls: f"{world.url}/computeMetadata")
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "p")  # Else it asks for that, too.
    judge = Judge(world.places)
    credentials, _ = google.auth.default(scopes=[SCOPE], request=judge)
    credentials.refresh(judge)
    theirs: dict[str, str] = {}
    credentials.apply(theirs)
    assert theirs.pop("x-identity-trust-boundary", "0") == "0"
    assert ours == {key: value for key, value in theirs.items() if key in ("authorization", "x-goog-user-project")}


MISTAKES = {
    "nothing": (Case(), ConfigurationError, "nowhere: run `gcloud auth application-default login`"),
    "a file that is not there": (
        Case(NAMED),
        ConfigurationError,
        r"GOOGLE_APPLICATION_CREDENTIALS names .*it.json, which",
    ),
    "a file that is no JSON": (Case(NAMED, {"it.json": "{"}), ConfigurationError, "no credentials of Google of a type"),
    "an unknown type": (Case(NAMED, {"it.json": {"type": "x"}}), ConfigurationError, "of a type known here: 'x'"),
    "half a service account": (
        Case(NAMED, {"it.json": {**SERVICE, "private_key": ""}}),
        ConfigurationError,
        "it.json lack private_key",
    ),
    "a key that is none": (
        Case(NAMED, {"it.json": {**SERVICE, "private_key": "-----BEGIN made-up"}}),
        ConfigurationError,
        "it.json holds no RSA key that can be read",
    ),
    "a token's address that is none": (
        Case(NAMED, {"it.json": {**SERVICE, "token_uri": "here"}}),
        ConfigurationError,
        "from here, which is no address",
    ),
    "nobody to act for": (
        Case(NAMED, {"it.json": {**IMPERSONATED, "service_account_impersonation_url": "https://thief.example/"}}),
        ConfigurationError,
        "names no account to act for",
    ),
    "a pool without its token": (
        Case(NAMED, {"it.json": EXTERNAL}),
        AuthenticationError,
        "google-auth gave no credentials: RefreshError.*subject",
    ),
    "a pool that says nothing": (
        Case(NAMED, {"it.json": {**EXTERNAL, "credential_source": {}}}),
        ConfigurationError,
        "google-auth gave no credentials: ",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_an_error_that_says_what_to_do(name, world, monkeypatch, tmp_path):
    case, kind, words = MISTAKES[name]
    put(case, world, tmp_path, monkeypatch)
    with pytest.raises(kind, match=words) as caught:
        proved(Google(), places=world.places)
    assert not re.search("made-up|PRIVATE", "".join(traceback.format_exception(caught.value)))


def test_a_sign_on_that_has_ended_says_what_to_run(world, monkeypatch, tmp_path):
    put(CASES["user"], world, tmp_path, monkeypatch)
    said = {"error": "invalid_grant", "error_description": "Token made-up-refresh-token has been revoked."}
    world.refuses["/oauth2/token"] = (400, json.dumps(said).encode())
    words = r"invalid_grant: Token \*\*\* has been revoked.\); run `gcloud auth application-default login`"
    with pytest.raises(AuthenticationError, match=words):
        proved(Google(), places=world.places)


def test_who_may_not_act_for_another_is_told(world, monkeypatch, tmp_path):
    put(CASES["impersonation"], world, tmp_path, monkeypatch)
    path = urlsplit(IMPERSONATED["service_account_impersonation_url"]).path
    said = {"error": {"status": "PERMISSION_DENIED", "message": "not you"}}
    world.refuses[f"/iamcredentials{path}"] = (403, json.dumps(said).encode())
    with pytest.raises(PermissionDeniedError, match=r"asked to act for other@.*PERMISSION_DENIED: not you"):
        proved(Google(), places=world.places)


def test_a_busy_metadata_server_is_asked_again(world, monkeypatch, tmp_path):
    put(CASES["metadata server"], world, tmp_path, monkeypatch)
    monkeypatch.setattr("sabir.clouds.google._METADATA_ATTEMPTS", 2)
    path = "/computeMetadata/v1/instance/service-accounts/default/token"
    world.refuses[path] = (503, b"")
    with pytest.raises(ServerError, match="Google's metadata server gave no credentials"):
        proved(Google())
    assert world.asked == [path] * 2
    world.refuses[path] = (404, b"")
    with pytest.raises(AuthenticationError, match="give the machine a service account"):
        proved(Google())


def test_another_clouds_metadata_server_is_not_googles(monkeypatch):
    with Server(whole(b"{}")) as server:
        monkeypatch.setenv("GCE_METADATA_HOST", server.place)
        with pytest.raises(ConfigurationError, match="nowhere"):
            proved(Google())


def test_a_metadata_server_may_be_switched_off(world, monkeypatch, tmp_path):
    put(CASES["metadata server"], world, tmp_path, monkeypatch)
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    with pytest.raises(ConfigurationError, match="nowhere"):
        proved(Google())
    assert world.asked == []


async def test_where_there_is_no_machine_of_googles_one_is_not_waited_for(surface, monkeypatch):
    monkeypatch.setattr("sabir.clouds.google._METADATA_SECONDS", 0.3)
    with deaf_listener() as port:
        monkeypatch.setenv("GCE_METADATA_HOST", f"127.0.0.1:{port}")
        monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "p")
        began = time.monotonic()
        with pytest.raises(ConfigurationError, match="nowhere"):
            await surface.client("vertex:a").ask("?")
        assert time.monotonic() - began < 1


def test_a_folder_does_not_say_where_tokens_are_fetched(world, monkeypatch, tmp_path):
    put(Case({}, {"it.json": EXTERNAL, "subject": "jwt"}), world, tmp_path, monkeypatch)
    (tmp_path / ".env").write_text("GOOGLE_APPLICATION_CREDENTIALS=it.json\n")
    with pytest.raises(ConfigurationError, match=r"stands in \.env, and its file says where tokens are fetched"):
        proved(Google())
    put(Case({}, {"it.json": SERVICE}), world, tmp_path, monkeypatch)
    assert proved(Google(), places=world.places)
    monkeypatch.delenv("GCE_METADATA_HOST")
    (tmp_path / ".env").write_text("GCE_METADATA_HOST=thief.example\n")
    with pytest.raises(ConfigurationError, match=r"GCE_METADATA_HOST stands in \.env"):
        proved(Google())


@pytest.mark.parametrize(
    ("name", "missing", "words"),
    [
        ("service account", "cryptography", r"takes the package cryptography: pip install 'sabir\[google\]'"),
        ("external account", "google.auth", r"take the package google-auth: pip install 'sabir\[google\]'"),
    ],
)
def test_a_package_that_is_not_installed_is_named(name, missing, words, world, monkeypatch, tmp_path):
    put(CASES[name], world, tmp_path, monkeypatch)
    for module in [each for each in sys.modules if each.startswith((missing, "sabir.clouds.google_library"))]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigurationError, match=words):
        proved(Google(), places=world.places)


async def test_googles_library_keeps_to_the_deadline_too(surface, world, monkeypatch, tmp_path):
    gate = Gate()

    async def silent(call):
        await gate.passed()

    with Server(silent) as server, ChatServer() as chat:
        put(CASES["external account"], world, tmp_path, monkeypatch)
        told = json.loads((tmp_path / "it.json").read_text())
        (tmp_path / "it.json").write_text(json.dumps({**told, "token_url": f"{server.url}/sts"}))
        client = surface.client(f"vllm:x@{chat.url}", api_key=Google(), timeout=1.0)
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            await client.ask("?")
        assert time.monotonic() - began < 1.4
        gate.open()


async def test_a_call_that_is_cut_lets_googles_library_go(surface, world, monkeypatch, tmp_path):
    async def silent(call):
        await call.forever()

    with Server(silent) as server, ChatServer() as chat:
        put(CASES["external account"], world, tmp_path, monkeypatch)
        told = json.loads((tmp_path / "it.json").read_text())
        (tmp_path / "it.json").write_text(json.dumps({**told, "token_url": f"{server.url}/sts"}))
        client = surface.client(f"vllm:x@{chat.url}", api_key=Google())

        async def asking() -> float:
            with pytest.raises(sabir.ClosedError):
                await client.ask("?")
            return time.monotonic()

        async def cutting() -> float:
            await surface.in_thread(lambda: until(lambda: server.calls, 5))
            client.close()
            return time.monotonic()

        ended, cut = await surface.at_once(asking, cutting)
        assert ended - cut < 0.3
        assert server.is_left_by_all()


# Where they go


@pytest.mark.parametrize("place", [None, "global", "us", "eu", "europe-west4", "me-central2"])
def test_a_place_has_the_server_that_googles_and_anthropics_libraries_ask(place, monkeypatch):
    genai, vertex = import_module("google.genai"), import_module("anthropic")
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "p")
    if place is not None:
        monkeypatch.setenv("GOOGLE_CLOUD_LOCATION", place)
    credentials = google.auth.credentials.AnonymousCredentials()
    with genai.Client(vertexai=True, credentials=credentials) as client:
        theirs = client._api_client._http_options.base_url
    ours = find_address(PROVIDERS["vertex"], None, Environment())
    assert ours.url == f"{theirs}v1/projects/p/locations/{place or 'global'}/publishers/google"
    with vertex.AnthropicVertex(region=place or "global", project_id="p", access_token="t") as client:
        theirs = str(client.base_url)
    ours = find_address(PROVIDERS["vertex-anthropic"], None, Environment())
    assert ours.url == f"{theirs}projects/p/locations/{place or 'global'}/publishers/anthropic"


def test_each_library_has_a_variable_of_its_own(monkeypatch):
    monkeypatch.setenv("GOOGLE_CLOUD_LOCATION", "one")
    monkeypatch.setenv("CLOUD_ML_REGION", "two")
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "p")
    monkeypatch.setenv("ANTHROPIC_VERTEX_PROJECT_ID", "q")
    ours = [find_address(PROVIDERS[name], None, Environment()).url for name in ("vertex", "vertex-anthropic")]
    assert [re.findall(r"//(\w+)-.*/projects/(\w+)/locations/(\w+)", url) for url in ours] == [
        [("one", "p", "one")],
        [("two", "q", "two")],
    ]


def test_the_project_of_a_service_account_will_do(world, monkeypatch, tmp_path):
    with pytest.raises(ConfigurationError, match="set the environment variable GOOGLE_CLOUD_PROJECT or GCLOUD_PROJECT"):
        find_address(PROVIDERS["vertex"], None, Environment())
    put(CASES["service account"], world, tmp_path, monkeypatch)
    assert "/projects/the-project-of-the-file/" in find_address(PROVIDERS["vertex"], None, Environment()).url


@pytest.mark.parametrize(
    ("address", "goes"),
    [
        (None, True),
        ("https://aiplatform.googleapis.com/v1/projects/other", True),
        ("https://us-central1-aiplatform.googleapis.com/v1", True),
        ("https://aiplatform.eu.rep.googleapis.com:443/v1", True),
        ("http://us-central1-aiplatform.googleapis.com/v1", False),
        ("https://us-central1-aiplatform.googleapis.com:8443/v1", False),
        ("https://us-central1-aiplatform.googleapis.com.evil.example/v1", False),
        ("https://evil.example/us-central1-aiplatform.googleapis.com", False),
        ("http://localhost:1/v1", False),
    ],
)
@pytest.mark.parametrize("name", ["vertex", "vertex-anthropic"])
def test_credentials_of_the_machine_go_to_googles_servers_only(name, address, goes, monkeypatch):
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "p")
    assert (find_key(PROVIDERS[name], address, None) is not None) == goes


@pytest.mark.parametrize(
    ("variables", "vertex", "anthropic"),
    [
        ({}, "CloudAuth", "CloudAuth"),
        ({"GOOGLE_API_KEY": "k" * 9}, "Key", "CloudAuth"),
        ({"GOOGLE_API_KEY": "k" * 9, "GOOGLE_APPLICATION_CREDENTIALS": "f"}, "CloudAuth", "CloudAuth"),
        ({"GOOGLE_OAUTH_ACCESS_TOKEN": "t" * 9, "GOOGLE_APPLICATION_CREDENTIALS": "f"}, "CloudAuth", "Key"),
    ],
)
def test_a_file_that_is_named_goes_before_a_key_that_others_share(variables, vertex, anthropic, monkeypatch):
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "p")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = [type(find_key(PROVIDERS[name], None, None)).__name__ for name in ("vertex", "vertex-anthropic")]
    assert found == [vertex, anthropic]


def test_all_models_of_a_client_share_what_was_fetched(monkeypatch):
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "p")
    environment = Environment()
    made = [find_key(PROVIDERS[name], None, None, environment) for name in ("vertex", "vertex-anthropic", "vertex")]
    assert len({id(auth._renewed) for auth in made}) == 1
    assert find_key(PROVIDERS["vertex"], None, None, Environment())._renewed is not made[0]._renewed


def test_what_a_client_has_found_goes_with_it(monkeypatch):
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "p")
    environment = Environment()
    assert find_key(PROVIDERS["vertex"], None, None, environment) is not None
    gone = weakref.ref(environment)
    del environment
    gc.collect()
    assert gone() is None


def test_the_environment_says_nothing_of_another_address(monkeypatch):
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "p")
    client = sabir.Client("vertex:a", base_url="http://localhost:1/x")
    assert "authorization" not in client.explain("?").headers
    client.close()
