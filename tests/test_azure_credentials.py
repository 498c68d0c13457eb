"""Microsoft Entra's tokens: azure-identity and we ask the same, and are given the same."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import stat
import sys
import time
import traceback
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import NameOID
from fakes import ChatServer
from rerouted import COLOURS, proved
from servers import Call, Server, authority, deaf_listener, free_port

import sabir
from sabir import AuthenticationError, ConfigurationError, DeadlineExceeded
from sabir.clouds import azure_machine
from sabir.clouds.azure import SCOPE, Azure
from sabir.credentials import find_key
from sabir.providers import PROVIDERS

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "made up")])
CERTIFICATE = (
    x509.CertificateBuilder()
    .subject_name(NAME)
    .issuer_name(NAME)
    .public_key(KEY.public_key())
    .serial_number(1)
    .not_valid_before(datetime.now(UTC) - timedelta(days=1))
    .not_valid_after(datetime.now(UTC) + timedelta(days=1))
    .sign(KEY, hashes.SHA256())
)
PASSWORD = "made-up-password"


def pem(password: str | None = None) -> bytes:
    encryption = serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
    key = KEY.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    return key + CERTIFICATE.public_bytes(serialization.Encoding.PEM)


def pfx() -> bytes:
    encryption = serialization.BestAvailableEncryption(PASSWORD.encode())
    return pkcs12.serialize_key_and_certificates(b"it", KEY, CERTIFICATE, None, encryption)


class World:
    """Entra, and the servers of managed identities. What they give depends on all that they were asked."""

    def __init__(self) -> None:
        self.entra, self.server = Server(self._answer, secure=True), Server(self._answer)
        self.asked: list[str] = []
        self.refuses: dict[str, list[tuple[int, Any]]] = {}
        self.key_file = ""

    async def _answer(self, call: Call) -> None:
        path = urlsplit(call.target).path
        told = self.refuses.get(path, [])
        status, given = told.pop(0) if told else self._given(call, path)
        body = json.dumps(given).encode() if not isinstance(given, bytes) else given
        lines = ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        if status == 401:
            lines.append(f"WWW-Authenticate: Basic realm={self.key_file}")
        call.head(*lines, status=f"{status} Said")
        call.write(body)

    def _given(self, call: Call, path: str) -> tuple[int, Any]:
        if path.endswith("/openid-configuration"):
            tenant = f"{self.entra.url}/{path.split('/')[1]}"
            names = ("authorization_endpoint", "token_endpoint", "issuer")
            return 200, dict.fromkeys(names, f"{tenant}/oauth2/v2.0/token")
        if "userrealm" in path:
            return 200, {"account_type": "Managed"}
        self.asked.append(path)
        if path.endswith("/oauth2/v2.0/token"):
            return 200, self._of_entra(call, path)
        query = {name: value for name, (value,) in parse_qs(urlsplit(call.target).query).items()}
        if path == "/metadata/identity/oauth2/token" and call.header("metadata") != "true":
            return 400, {"error": "invalid_request"}
        if path == "/arc" and call.header("authorization") is None:
            return 401, {}
        names = ("metadata", "x-identity-header", "secret", "authorization")
        proofs = {name: call.header(name) for name in names if path != "/app" or name != "metadata"}
        form = {name: value for name, (value,) in parse_qs(call.body.decode()).items()}
        token = self._token(path, sorted(query.items()), sorted(form.items()), sorted(map(str, proofs.items())))
        ends = {"expires_in": "3600"} if path != "/ml" else {"expires_on": str(int(time.time()) + 3600)}
        if path == "/app":
            ends = {"expires_on": str(int(time.time()) + 3600)}
        return 200, {
            **token,
            **ends,
            "resource": "r",
            **({"client_id": query.get("client_id")} if path == "/arc" else {}),
        }

    def _of_entra(self, call: Call, path: str) -> dict[str, Any]:
        form = {name: value for name, (value,) in parse_qs(call.body.decode()).items()}
        names = ("grant_type", "client_id", "client_secret", "username", "password", "client_assertion_type")
        told = {name: form[name] for name in names if name in form}
        assert SCOPE in form["scope"].split()
        if (assertion := form.get("client_assertion", "")).count(".") == 2 and not assertion.startswith("made-up"):
            told["client_assertion"] = self._claims(assertion)
        elif assertion:
            told["client_assertion"] = assertion
        return {**self._token(path, sorted(told.items())), "expires_in": 3600}

    def _claims(self, assertion: str) -> str:
        """What an assertion says, if it is signed with the certificate's key."""
        head, claims, signature = (base64.urlsafe_b64decode(part + "==") for part in assertion.split("."))
        told = json.loads(head)
        way: Any = padding.PKCS1v15()
        digest = base64.urlsafe_b64encode(CERTIFICATE.fingerprint(hashes.SHA1())).decode().rstrip("=")
        if told["alg"] == "PS256":
            way = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
            digest = base64.urlsafe_b64encode(CERTIFICATE.fingerprint(hashes.SHA256())).decode().rstrip("=")
        assert digest in (told.get("x5t", "").rstrip("="), told.get("x5t#S256", "").rstrip("="))
        KEY.public_key().verify(signature, assertion.rpartition(".")[0].encode(), way, hashes.SHA256())
        said = json.loads(claims)
        assert said["exp"] > time.time()
        return repr(
            (sorted(said.items() & {name: said[name] for name in ("aud", "iss", "sub")}.items()), told.get("x5c"))
        )

    def _token(self, *words: object) -> dict[str, Any]:
        seed = hashlib.sha256(repr(words).encode()).hexdigest()
        return {"access_token": f"eyJ.{seed}", "token_type": "Bearer"}


class Case(NamedTuple):
    """Variables, files, and programs; `{url}` is the server, `{home}` the home folder."""

    environ: dict[str, str] = {}  # noqa: RUF012 - read only
    files: dict[str, bytes] = {}  # noqa: RUF012
    programs: dict[str, str] = {}  # noqa: RUF012


APPLICATION = {"AZURE_TENANT_ID": "a-tenant", "AZURE_CLIENT_ID": "a-client"}
SECRET = {**APPLICATION, "AZURE_CLIENT_SECRET": "made-up-client-secret"}
WORKLOAD = {**APPLICATION, "AZURE_FEDERATED_TOKEN_FILE": "{home}/token"}
CERTIFIED = {**APPLICATION, "AZURE_CLIENT_CERTIFICATE_PATH": "{home}/it"}
MACHINE = {"AZURE_POD_IDENTITY_AUTHORITY_HOST": "{url}"}
# A tool that prints a token made of what it was asked.
AZ = """
import hashlib, json, os, sys
assert sys.argv[1:3] == ["account", "get-access-token"] and os.environ["AZURE_CORE_NO_COLOR"] == "true"
token = "az-" + hashlib.sha256(repr(sorted(sys.argv[1:])).encode()).hexdigest()
print(json.dumps({"accessToken": token, "expires_on": 4102444800, "expiresOn": "2100-01-01 00:00:00.000000"}))
"""
AZD = """
import hashlib, json, sys
assert sys.argv[1:3] == ["auth", "token"] and "--no-prompt" in sys.argv
token = "azd-" + hashlib.sha256(repr(sorted(sys.argv[1:])).encode()).hexdigest()
print(json.dumps({"token": token, "expiresOn": "2100-01-01T00:00:00Z"}))
"""
PWSH = """
import base64, re, sys
script = base64.b64decode(sys.argv[sys.argv.index("-EncodedCommand") + 1]).decode("utf-16-le")
mark = re.search(r"(\\w+%)\\$", script)[1]
assert "Get-AzAccessToken" in script and "https://cognitiveservices.azure.com'" in script
print(f"a banner\\n{mark}pwsh-token%4102444800")
"""
FAILS = "import sys\nprint('ERROR: nobody is here', file=sys.stderr)\nsys.exit(1)\n"

CASES = {
    "secret": Case(SECRET),
    "certificate": Case(CERTIFIED, {"it": pem()}),
    "certificate with its chain": Case({**CERTIFIED, "AZURE_CLIENT_SEND_CERTIFICATE_CHAIN": "true"}, {"it": pem()}),
    "certificate with a password": Case(
        {**CERTIFIED, "AZURE_CLIENT_CERTIFICATE_PASSWORD": PASSWORD}, {"it": pem(PASSWORD)}
    ),
    "certificate as PKCS#12": Case({**CERTIFIED, "AZURE_CLIENT_CERTIFICATE_PASSWORD": PASSWORD}, {"it": pfx()}),
    "a secret goes before a certificate": Case({**SECRET, **CERTIFIED}, {"it": pem()}),
    "workload identity": Case(WORKLOAD, {"token": b"made-up.kubernetes.token"}),
    "managed identity of App Service": Case({"IDENTITY_ENDPOINT": "{url}/app", "IDENTITY_HEADER": "made-up"}),
    "managed identity of App Service, chosen": Case(
        {"IDENTITY_ENDPOINT": "{url}/app", "IDENTITY_HEADER": "made-up", "AZURE_CLIENT_ID": "a-client"}
    ),
    "managed identity of Machine Learning": Case({"MSI_ENDPOINT": "{url}/ml", "MSI_SECRET": "made-up"}),
    "managed identity of Cloud Shell": Case({"MSI_ENDPOINT": "{url}/shell"}),
    "managed identity of a virtual machine": Case(MACHINE),
    "managed identity of a virtual machine, chosen": Case({**MACHINE, "AZURE_CLIENT_ID": "a-client"}),
    "az": Case(programs={"az": AZ}),
    "azd": Case(programs={"azd": AZD}),
    "a tool that nobody has signed on to is passed over": Case(programs={"az": FAILS, "azd": AZD}),
    "the environment goes before the tools": Case(SECRET, programs={"az": AZ}),
    "tools for developers": Case({**SECRET, "AZURE_TOKEN_CREDENTIALS": "dev"}, programs={"az": AZ}),
    "the tool that was chosen": Case(
        {"AZURE_TOKEN_CREDENTIALS": "AzureDeveloperCliCredential"}, programs={"az": AZ, "azd": AZD}
    ),
}


@pytest.fixture(autouse=True)
def _bare(monkeypatch, tmp_path):
    """No credentials of the machine, and no tools: an empty home, an empty path, none of Azure's variables."""
    for name in os.environ:
        if name.startswith(("AZURE_", "IDENTITY_", "MSI_", "IMDS_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr("sabir.clouds.azure_machine._METADATA_ADDRESS", f"http://127.0.0.1:{free_port()}")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def ca_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority().cert_pem.write_to_path(str(path))
    return str(path)


@pytest.fixture
def world():
    made = World()
    with made.entra, made.server:
        yield made


def put(case: Case, world: World, home: Any, monkeypatch: Any) -> None:
    (home / "bin").mkdir(exist_ok=True)
    for name, text in case.programs.items():
        path = home / "bin" / name
        path.write_text(f"#!{sys.executable}\n{text}")
        path.chmod(path.stat().st_mode | stat.S_IEXEC)
    for name, data in case.files.items():
        (home / name).write_bytes(data)
    for name, value in {"AZURE_AUTHORITY_HOST": world.entra.url, **case.environ}.items():
        monkeypatch.setenv(name, value.replace("{url}", world.server.url).replace("{home}", str(home)))


def token_of(proof: Any) -> str:
    ((name, value),) = proof
    assert name == "authorization"
    return str(value).removeprefix("Bearer ")


@pytest.mark.skipif(os.name == "nt", reason="the tools are scripts")
@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("name", CASES)
def test_azure_identity_and_we_are_given_the_same(name, colour, world, ca_file, monkeypatch, tmp_path):
    identity = pytest.importorskip("azure.identity")
    put(CASES[name], world, tmp_path, monkeypatch)
    ours = token_of(proved(Azure(), colour, ca_file=ca_file))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", ca_file)
    with identity.DefaultAzureCredential(disable_instance_discovery=True) as credential:
        assert ours == credential.get_token(SCOPE).token


@pytest.mark.skipif(os.name == "nt", reason="the tools are scripts")
@pytest.mark.parametrize("colour", COLOURS)
def test_who_has_signed_on_to_powershell_is_found(colour, world, monkeypatch, tmp_path):
    """azure-identity is no judge: it runs a script of its own, and by a shell."""
    put(Case(programs={"pwsh": PWSH}), world, tmp_path, monkeypatch)
    assert token_of(proved(Azure(), colour)) == "pwsh-token"


def test_a_person_with_a_password_is_given_a_token(world, ca_file, monkeypatch, tmp_path):
    """azure-identity does so too, and warns that it is on its way out."""
    put(
        Case({"AZURE_CLIENT_ID": "c", "AZURE_USERNAME": "me", "AZURE_PASSWORD": PASSWORD}), world, tmp_path, monkeypatch
    )
    assert token_of(proved(Azure(), ca_file=ca_file))
    assert world.asked == ["/organizations/oauth2/v2.0/token"]


# Mistakes

MISTAKES = {
    "nobody": (
        Case(),
        ConfigurationError,
        r"the environment \(AZURE_TENANT_ID and AZURE_CLIENT_ID are not set\); .*a managed identity \(.*Run `az login`",
    ),
    "half an application": (Case(APPLICATION), ConfigurationError, "neither AZURE_CLIENT_SECRET nor AZURE_CLIENT_CERT"),
    "nobody has signed on": (
        Case(programs={"az": FAILS}),
        ConfigurationError,
        r"az \(run `az login`; it says: ERROR: nobody is here\)",
    ),
    "a tool that prints something else": (
        Case(programs={"az": 'print(\'{"accessToken": "made-up"}\')'}),
        ConfigurationError,
        r"az \(what az printed is no token\)",
    ),
    "an unknown choice": (
        Case({"AZURE_TOKEN_CREDENTIALS": "browser"}),
        ConfigurationError,
        "'dev', 'prod' or one of environmentcredential, .*not 'browser'",
    ),
    "a tenant that is none": (
        Case({**SECRET, "AZURE_TENANT_ID": "../thief"}),
        ConfigurationError,
        "AZURE_TENANT_ID is the id of a tenant",
    ),
    "an authority in plain HTTP": (
        Case({**SECRET, "AZURE_AUTHORITY_HOST": "http://127.0.0.1:1"}),
        ConfigurationError,
        "over https only",
    ),
    "a workload without its file": (
        Case(WORKLOAD),
        ConfigurationError,
        "AZURE_FEDERATED_TOKEN_FILE names .*/token, which",
    ),
    "a certificate that is not there": (Case(CERTIFIED), ConfigurationError, "there is no certificate at .*/it"),
    "a certificate that is none": (
        Case(CERTIFIED, {"it": b"made-up"}),
        ConfigurationError,
        "holds no certificate with its",
    ),
    "a certificate with another password": (
        Case({**CERTIFIED, "AZURE_CLIENT_CERTIFICATE_PASSWORD": "made-up-x"}, {"it": pfx()}),
        ConfigurationError,
        "is the password right",
    ),
    "Service Fabric": (
        Case({"IDENTITY_ENDPOINT": "{url}/f", "IDENTITY_HEADER": "h", "IDENTITY_SERVER_THUMBPRINT": "t"}),
        ConfigurationError,
        "that of Service Fabric is not built here",
    ),
}


@pytest.mark.skipif(os.name == "nt", reason="the tools are scripts")
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_an_error_that_says_what_to_do(name, world, ca_file, monkeypatch, tmp_path):
    case, kind, words = MISTAKES[name]
    put(case, world, tmp_path, monkeypatch)
    with pytest.raises(kind, match=words) as caught:
        proved(Azure(), ca_file=ca_file)
    assert not re.search("made-up", "".join(traceback.format_exception(caught.value)))


def test_a_secret_that_is_wrong_is_told_and_nobody_else_is_asked(world, ca_file, monkeypatch, tmp_path):
    put(Case(SECRET, programs={"az": AZ}), world, tmp_path, monkeypatch)
    said = "AADSTS7000215: Invalid client secret made-up-client-secret of a-client."
    world.refuses["/a-tenant/oauth2/v2.0/token"] = [(401, {"error": "invalid_client", "error_description": said})]
    words = r"Microsoft Entra, asked for a-client, gave no .*401: invalid_client: AADSTS.* secret \*\*\* of a-client"
    with pytest.raises(AuthenticationError, match=words):
        proved(Azure(), ca_file=ca_file)


def test_a_busy_machine_is_asked_again_and_one_without_an_identity_is_not(world, monkeypatch, tmp_path):
    monkeypatch.setattr("sabir.clouds.azure_machine._PAUSES", (0.01, 0.01))
    put(Case(MACHINE), world, tmp_path, monkeypatch)
    path = "/metadata/identity/oauth2/token"
    world.refuses[path] = [(429, {}), (500, {})]
    assert token_of(proved(Azure()))
    world.refuses[path] = [(400, {"error": "invalid_request", "error_description": "Identity not found"})]
    with pytest.raises(ConfigurationError, match=r"a managed identity \(none is assigned to this machine\)"):
        proved(Azure())
    world.refuses[path] = [(410, {})] * 3
    with pytest.raises(AuthenticationError, match="HTTP 410"):
        proved(Azure())


def test_azure_arcs_agent_proves_itself_by_a_file(world, monkeypatch, tmp_path):
    """azure-identity is no judge: the folder of the file is the system's."""
    monkeypatch.setitem(azure_machine._ARC_FOLDERS, sys.platform, str(tmp_path))
    case = Case(
        {"IDENTITY_ENDPOINT": "{url}/arc", "IMDS_ENDPOINT": "{url}", "AZURE_CLIENT_ID": "c"},
        {"one.key": b"made-up-key"},
    )
    put(case, world, tmp_path, monkeypatch)
    world.key_file = "/somewhere/else/one.key"
    assert token_of(proved(Azure()))
    world.key_file = "/etc/passwd"
    with pytest.raises(AuthenticationError, match="did not say which file proves who asks"):
        proved(Azure())
    world.key_file = "absent.key"
    with pytest.raises(ConfigurationError, match="may this user read it"):
        proved(Azure())


@pytest.mark.parametrize(
    "name",
    [
        *("AZURE_AUTHORITY_HOST", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_CLIENT_CERTIFICATE_PATH"),
        *("AZURE_POD_IDENTITY_AUTHORITY_HOST", "IDENTITY_ENDPOINT", "MSI_ENDPOINT"),
    ],
)
def test_a_folder_does_not_say_who_is_asked(name, monkeypatch, tmp_path):
    for each, value in (APPLICATION if "PATH" in name or "FILE" in name else SECRET).items():
        monkeypatch.setenv(each, value)
    if name not in ("AZURE_AUTHORITY_HOST", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_CLIENT_CERTIFICATE_PATH"):
        monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "managedidentitycredential")
    (tmp_path / ".env").write_text(f"{name}=https://thief.example\n")
    with pytest.raises(ConfigurationError, match=rf"{name} stands in \.env"):
        proved(Azure())


# Time


@pytest.mark.skipif(os.name == "nt", reason="the tools are scripts")
def test_a_tool_that_says_nothing_is_not_waited_for(world, monkeypatch, tmp_path):
    monkeypatch.setattr("sabir.clouds.azure_tools._SECONDS", 0.3)
    put(Case(programs={"az": "import time\ntime.sleep(60)\n", "azd": AZD}), world, tmp_path, monkeypatch)
    assert token_of(proved(Azure())).startswith("azd-")
    monkeypatch.setattr("sabir.clouds.azure_tools._SECONDS", 10)
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        proved(Azure(), deadline=began + 0.5)
    assert time.monotonic() - began < 0.8


def test_where_there_is_no_machine_of_azures_one_is_not_waited_for(monkeypatch):
    with deaf_listener() as port:
        monkeypatch.setattr("sabir.clouds.azure_machine._METADATA_ADDRESS", f"http://127.0.0.1:{port}")
        began = time.monotonic()
        with pytest.raises(ConfigurationError, match="this is no machine of Azure's"):
            proved(Azure())
        assert time.monotonic() - began < 1.5


# Where they go


def test_a_key_goes_before_a_token(monkeypatch):
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://me.openai.azure.com")
    assert type(find_key(PROVIDERS["azure"], None, None)).__name__ == "CloudAuth"
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "made-up-key")
    assert type(find_key(PROVIDERS["azure"], None, None)).__name__ == "Key"
    assert find_key(PROVIDERS["azure"], "https://other.openai.azure.com", None) is None


def test_tokens_do_not_go_where_a_folder_says(monkeypatch, tmp_path):
    (tmp_path / ".env").write_text("AZURE_OPENAI_ENDPOINT=https://thief.example\n")
    words = (
        r"the address of azure stands in \.env, and the credentials of whoever runs this do not go where a folder says"
    )
    with pytest.raises(ConfigurationError, match=words):
        sabir.Client("azure:a")


async def test_a_whole_call_carries_a_token(surface, world, ca_file, monkeypatch, tmp_path):
    put(Case(SECRET), world, tmp_path, monkeypatch)
    with ChatServer() as server:
        monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", server.url.removesuffix("/v1"))
        client = surface.client("azure:my-deployment", ca_file=ca_file)
        assert client.explain("?").headers["authorization"] == "…"
        for _ in range(3):
            await client.ask("?")
        other = surface.client("azure-responses:x", base_url="http://localhost:1")
        assert "authorization" not in other.explain("?").headers
    (sent,) = {asked.headers["authorization"] for asked in server.asked}
    assert sent.startswith("Bearer eyJ.")
    assert world.asked == ["/a-tenant/oauth2/v2.0/token"]
    assert {asked.path for asked in server.asked} == {"/openai/v1/chat/completions"}


@pytest.mark.skipif(os.name == "nt", reason="the tools are scripts")
@pytest.mark.parametrize(
    ("authority_host", "resource"),
    [
        ("login.microsoftonline.com", "https://cognitiveservices.azure.com"),
        ("https://login.microsoftonline.us/", "https://cognitiveservices.azure.us"),
        ("login.chinacloudapi.cn", "https://cognitiveservices.azure.cn"),
    ],
)
def test_each_of_azures_clouds_has_tokens_of_its_own(authority_host, resource, world, monkeypatch, tmp_path):
    says = "import json, sys\nprint(json.dumps({'accessToken': sys.argv[-1], 'expires_on': 4102444800}))\n"
    put(Case({"AZURE_AUTHORITY_HOST": authority_host}, programs={"az": says}), world, tmp_path, monkeypatch)
    assert token_of(proved(Azure())) == resource


def test_a_scope_is_one():
    with pytest.raises(ConfigurationError, match="scope is like"):
        Azure("a b; rm")
