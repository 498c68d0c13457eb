"""The table of providers: who is in it, what each takes, and that a row added from outside is like any other."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from distributions import install
from servers import Server, whole

import sabir
from sabir import (
    ConfigurationError,
    Explanation,
    Options,
    Provider,
    SabirWarning,
    UnsupportedError,
    providers,
    register_provider,
)
from sabir.credentials import find_address, find_key
from sabir.dialects import Unsupported
from sabir.dialects.openai_chat import OpenAIChat
from sabir.environment import Environment
from sabir.providers import PLACE, PROVIDERS, has_provider, parse_model
from sabir.rows import ROWS
from sabir.testing import Scripted

KEY = "sk-made-up-2b6f0c1d"


@pytest.fixture(autouse=True)
def own_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of providers for one test alone."""
    monkeypatch.setattr(providers, "PROVIDERS", dict(providers.PROVIDERS))


def test_a_row_that_was_added_is_found_by_its_name():
    row = Provider("my-host", url="http://localhost:1234/v1", capabilities=frozenset({"tools"}))
    with pytest.raises(ConfigurationError, match="unknown provider 'my-host'"):
        parse_model("my-host:m")
    register_provider(row)
    assert has_provider("my-host:m")
    named = parse_model("my-host:m")
    assert (named.provider, named.id, named.capabilities) == (row, "m", {"tools"})
    with pytest.raises(ConfigurationError, match="did you mean 'my-host'"):
        parse_model("my-hst:m")
    with sabir.Client("my-host:m") as client:
        assert client.explain("?").url == "http://localhost:1234/v1/chat/completions"


def test_a_row_may_have_an_engine_in_place_of_an_address():
    register_provider(Provider("mine", engine="llama_cpp"))
    assert parse_model("mine:some.gguf").provider.engine == "llama_cpp"


@pytest.mark.parametrize(
    ("row", "objection"),
    [
        (Provider("openai", url="http://localhost/v1"), "there is a provider 'openai' already"),
        (Provider("pico", engine="llama_cpp"), "there is a provider 'pico' already"),
        *(
            (Provider(name, url="http://localhost/v1"), "one word without")
            for name in ("", "a:b", "a@b", "a;b", "a b", "a\tb", "a\n", "\u00a0", 5)
        ),
        (Provider("mine"), "neither an address"),
        (Provider("mine", url=""), "must look like"),
        (Provider("mine", url="localhost:8080"), "must look like"),
        (Provider("mine", url="http://key:secret@localhost"), "password"),
        ("openai", "takes a Provider, not str"),
    ],
)
def test_a_row_that_cannot_be_asked_for_is_refused(row, objection):
    before = dict(providers.PROVIDERS)
    with pytest.raises(ConfigurationError, match=objection):
        register_provider(row)
    assert before == providers.PROVIDERS


# The table


def test_what_others_call_a_provider_is_a_name_beside_the_table_and_leads_into_it():
    assert set(providers._CALLED_ELSEWHERE.values()) <= PROVIDERS.keys()
    assert not providers._CALLED_ELSEWHERE.keys() & PROVIDERS.keys()


FAMOUS = {
    "AIMU": "ollama hf anthropic openai gemini lmstudio ollama-openai hf-openai vllm llamaserver sglang omlx llamacpp",
    "Ailoy": "openai-chat openai-responses openai gemini anthropic grok",
    "talu": "vllm ollama llamacpp lmstudio localai openai openrouter",
    "many": "azure bedrock vertex groq deepseek xai mistral together fireworks perplexity cerebras openai-compat",
}
# One value for every variable that an address needs: whole servers where it begins with one.
SERVER = "https://own.example"
VERTEX = "https://aiplatform.googleapis.com/v1/projects/my-project/locations/global/publishers"


def variables(row: Provider) -> dict[str, str]:
    """An environment in which a row's address and key are known."""
    parts = [(place[1].split("|")[0], place.start() == 0) for place in PLACE.finditer(row.url or "")]
    return {**{name: SERVER if is_first else "a-part" for name, is_first in parts}, **dict.fromkeys(row.keys[:1], KEY)}


@pytest.mark.parametrize("system", FAMOUS)
def test_who_comes_from_another_library_finds_its_providers(system):
    assert set(FAMOUS[system].split()) <= PROVIDERS.keys()


def test_a_name_stands_for_one_row():
    assert len(PROVIDERS) == len(ROWS) >= 40


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_row_can_be_asked(row, monkeypatch):
    assert re.fullmatch(r"[a-z0-9-]+", row.name)
    assert all(re.fullmatch(r"[A-Z][A-Z0-9_]+", key) for key in row.keys)
    is_local = row.url is None or urlsplit(row.url).hostname == "localhost"
    # A key of the environment is for a server that its row names, and goes over the open net encrypted.
    assert not row.keys or row.url is not None
    assert is_local or (row.keys and (row.url.startswith("https://") or row.url.startswith("{")))
    for name, value in variables(row).items():
        monkeypatch.setenv(name, value)
    address = find_address(row, "http://localhost:1/v1" if row.url is None else None, Environment())
    assert "{" not in address.url
    key = find_key(row, None, None, Environment())
    assert (key is None) == (not row.keys)


@pytest.mark.parametrize(
    ("model", "variables", "url"),
    [
        (
            "azure:my-deployment",
            {"AZURE_OPENAI_ENDPOINT": "https://mine.openai.azure.com/"},
            "https://mine.openai.azure.com/openai/v1/chat/completions",
        ),
        (
            "azure-responses:my-deployment",
            {"AZURE_OPENAI_ENDPOINT": "mine.openai.azure.com"},
            "https://mine.openai.azure.com/openai/v1/responses",
        ),
        (
            "cloudflare:@cf/meta/llama-4",
            {"CLOUDFLARE_ACCOUNT_ID": "0a1b"},
            "https://api.cloudflare.com/client/v4/accounts/0a1b/ai/v1/chat/completions",
        ),
        (
            "databricks:m",
            {"DATABRICKS_HOST": "https://adb-1.azuredatabricks.net"},
            "https://adb-1.azuredatabricks.net/serving-endpoints/chat/completions",
        ),
        (
            "snowflake:m",
            {"SNOWFLAKE_ACCOUNT": "org-account"},
            "https://org-account.snowflakecomputing.com/api/v2/cortex/v1/chat/completions",
        ),
        (
            "vertex:gemini-3-flash",
            {"GOOGLE_CLOUD_PROJECT": "my-project"},
            f"{VERTEX}/google/models/gemini-3-flash:generateContent",
        ),
        (
            "vertex-anthropic:claude-sonnet-4-5@20250929",
            {"GCLOUD_PROJECT": "my-project"},
            f"{VERTEX}/anthropic/models/claude-sonnet-4-5%4020250929:rawPredict",
        ),
    ],
)
def test_the_parts_of_an_address_come_from_the_environment(model, variables, url, monkeypatch):
    row = PROVIDERS[model.partition(":")[0]]
    parts = {name for place in PLACE.finditer(row.url) for name in place[1].split("|") if place[2] is None}
    for name in (*parts, "GOOGLE_CLOUD_LOCATION", "CLOUD_ML_REGION"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigurationError, match=r"set the environment variable \w+.*, or pass base_url=") as caught:
        sabir.Client(model, api_key=KEY)
    assert all(name in str(caught.value) for name in parts)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with sabir.Client(model, api_key=KEY) as client:
        shown = client.explain("?")
        assert shown.url == url
        assert shown.headers[row.key_header] == "…"
    with sabir.Client(model, api_key=KEY, base_url="http://localhost:1/x") as client:
        assert client.explain("?").url.startswith("http://localhost:1/x/")


@pytest.mark.parametrize("value", ["a/b", "a b", "a?b", "a#b", "a@b", "thief.example:443/x", "%2e"])
def test_a_part_of_an_address_is_one_word(value, monkeypatch):
    monkeypatch.setenv("SNOWFLAKE_ACCOUNT", value)
    with pytest.raises(ConfigurationError, match="SNOWFLAKE_ACCOUNT cannot be a part of an address"):
        sabir.Client("snowflake:m", api_key=KEY)


def test_a_model_of_vertex_is_asked_without_its_name_and_with_a_version(monkeypatch):
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "p")
    with sabir.Client("vertex-anthropic:claude-x", api_key=lambda: "token") as client:
        shown = client.explain("?", stream=True)
    assert shown.url.endswith("/models/claude-x:streamRawPredict")
    assert "model" not in shown.body
    assert shown.body["anthropic_version"] == "vertex-2023-10-16"
    assert "anthropic-version" not in shown.headers


def test_a_server_without_an_address_of_its_own_has_to_be_given_one():
    for name in ("openai-compat", "gpustack"):
        with pytest.raises(ConfigurationError, match=f"write '{name}:<model id>@http://host/v1', or pass base_url="):
            sabir.Client(f"{name}:m")
        with sabir.Client(f"{name}:m@http://localhost:1/v1") as client:
            assert client.explain("?").url == "http://localhost:1/v1/chat/completions"
        with sabir.Client(f"{name}:m", base_url="http://localhost:1/v1") as client:
            assert client.explain("?").url == "http://localhost:1/v1/chat/completions"


# What was recorded of them


RECORDINGS = Path(__file__).resolve().parent.parent.parent / "shared" / "recordings" / "openai-chat.jsonl"
# Where the recordings have another name for a provider.
ROW_OF = {
    "vercel-gateway": "vercel",
    "local": "openai-compat",
    "openai-compatible": "openai-compat",
    "llamacpp": "llama-server",
    "ollama": "ollama-compat",
    "alibaba": "dashscope",
}
# DeepSeek takes these and does nothing with them: https://api-docs.deepseek.com/api/create-chat-completion
PASSED_OVER = {("deepseek", "seed"), ("deepseek", "parallel_tool_calls")}


def accepted() -> dict[str, list[dict[str, Any]]]:
    """The bodies that each row's provider took without an error."""
    bodies: dict[str, list[dict[str, Any]]] = {}
    for line in RECORDINGS.read_text("utf-8").splitlines() if RECORDINGS.exists() else ():
        exchange = json.loads(line)
        name = ROW_OF.get(exchange["provider"], exchange["provider"])
        body = (exchange["request"] or {}).get("body")
        if isinstance(body, dict) and exchange["response"]["status"] < 400 and name in PROVIDERS:
            bodies.setdefault(name, []).append(body)
    return {name: found for name, found in bodies.items() if isinstance(PROVIDERS[name].dialect, OpenAIChat)}


ACCEPTED = accepted()


@pytest.mark.skipif(not RECORDINGS.exists(), reason=f"there are no recordings at {RECORDINGS}")
def test_traffic_of_many_rows_was_recorded():
    assert len(ACCEPTED) >= 20


@pytest.mark.parametrize("name", sorted(ACCEPTED))
def test_what_a_provider_took_is_said_again_by_its_row(name):
    dialect = PROVIDERS[name].dialect
    for body in ACCEPTED[name]:
        http, notices = dialect.encode_request(dialect.decode_request(json.dumps(body).encode()))
        assert dialect.canonical_request(json.loads(http.body)) == dialect.canonical_request(body)
        assert notices == ()


@pytest.mark.parametrize("name", sorted(ACCEPTED))
def test_what_a_provider_took_is_not_unsupported_on_its_row(name):
    row = PROVIDERS[name]
    taken = {field for body in ACCEPTED[name] for field in body}
    refused = {option for option, verdict in row.dialect.verdicts().items() if isinstance(verdict, Unsupported)}
    assert {(name, option) for option in refused & taken} <= PASSED_OVER
    forms = {(body.get("response_format") or {}).get("type") for body in ACCEPTED[name]}
    assert "json_schema" not in forms or row.dialect.schema == "json_schema"


# Passing on


def look(at: str) -> str:
    """Look there."""
    return at


PASSED_ON: dict[str, Any] = {
    "temperature": 0.5,
    "top_p": 0.5,
    "top_k": 5,
    "min_p": 0.5,
    "max_tokens": 7,
    "stop": ["a"],
    "seed": 5,
    "frequency_penalty": 0.5,
    "presence_penalty": 0.5,
    "repetition_penalty": 1.5,
    "thinking": True,
    "tool_choice": "none",
    "parallel_tool_calls": False,
    "logprobs": True,
    "top_logprobs": 2,
    "n": 2,
    "user": "ada",
    "documents": ["The sky is green."],
    "cache": True,
    "extra": {"something_else": 1},
    "extra_body": {"something_else": 1},
    "headers": {"x-mine": "1"},
    "schema": {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
    "organization": "org-1",
    "project": "proj-1",
}
# What one client may say only with another option beside it.
BESIDE = {"top_logprobs": {"logprobs": True}}


def test_every_option_and_every_setting_for_the_wire_is_passed_on_below():
    assert set(Options.__annotations__) | {"schema", "extra_body", "organization", "project"} == PASSED_ON.keys()


@pytest.mark.parametrize("name", sorted(name for name, row in PROVIDERS.items() if row.has_chat))
def test_what_is_asked_reaches_the_wire_or_is_told_to_have_not(name, monkeypatch):
    row = PROVIDERS[name]
    for variable, value in variables(row).items():
        monkeypatch.setenv(variable, value)
    settings = {"base_url": "http://localhost:1/v1"} if row.url is None and row.engine is None else {}

    def asked(option: str | None) -> Explanation:
        given = {option: PASSED_ON[option]} if option else {}
        own = {name: given.pop(name) for name in ("organization", "project") if name in given}
        with sabir.Client(row.model or f"{name}:m", on_unsupported="ignore", **settings, **own) as client:
            return client.explain("?", tools=[look], **BESIDE.get(option or "", {}), **given)

    for option in PASSED_ON:
        nothing = asked(None) if option not in BESIDE else asked("logprobs")
        shown = asked(option)
        told = {notice.subject for notice in shown.notices} - {notice.subject for notice in nothing.notices}
        is_sent = (shown.url, shown.headers, shown.body) != (nothing.url, nothing.headers, nothing.body)
        assert is_sent or option in told, f"{option} vanishes on its way to {name}"
        if option in ("extra", "extra_body"):
            assert "something_else" in json.dumps(shown.body)
        if option == "headers":
            assert shown.headers["x-mine"] == "1"
        if option in row.account_headers:
            assert shown.headers[row.account_headers[option]] == PASSED_ON[option]


def test_an_organization_goes_to_those_who_know_one(monkeypatch):
    with sabir.Client(
        "openai:x", api_key=KEY, organization="org-1", project="proj-1", on_unsupported="raise"
    ) as client:
        shown = client.explain("?")
        assert (shown.headers["openai-organization"], shown.headers["openai-project"]) == ("org-1", "proj-1")
        assert shown.notices == ()
        shown = client.explain("?", model="vllm:x")
        assert not {"openai-organization", "openai-project"} & shown.headers.keys()
        assert [notice.subject for notice in shown.notices] == ["organization", "project"]
        with pytest.raises(UnsupportedError, match="organization was not sent: vllm has no header for it"):
            client.ask("?", model="vllm:x")
    with sabir.Client(Scripted("hi"), organization="org-1") as client, pytest.warns(SabirWarning, match="organization"):
        assert client.ask("?").warnings[0].subject == "organization"
    for wrong in ("", "a\nb", 5):
        with pytest.raises(ConfigurationError, match="organization is a text"):
            sabir.Client("openai:x", api_key=KEY, organization=wrong)


def test_what_embeddings_cannot_be_told_is_said_too():
    async def answer(call):
        rows = [{"index": 0, "embedding": [0.5, 0.5]}, {"index": 1, "embedding": [0.1, 0.2]}]
        await whole(json.dumps({"data": rows}).encode())(call)

    with Server(answer) as server, pytest.warns(SabirWarning, match="organization was not sent"):
        vectors = sabir.Client(f"sglang:x@{server.url}/v1", organization="org-1").embed(["a", "b"])
    assert [notice.subject for notice in vectors.warnings] == ["organization"]


def test_extra_has_two_names_and_one_meaning():
    with sabir.Client("vllm:x", extra_body={"a": 1, "b": 1}) as client:
        assert client.explain("?", extra={"b": 2}).body.items() >= {"a": 1, "b": 2}.items()
        assert client.explain("?", extra_body={"b": 3}).body.items() >= {"a": 1, "b": 3}.items()
        with pytest.raises(ConfigurationError, match="two names of one option"):
            client.explain("?", extra={"b": 2}, extra_body={"b": 2})
        with pytest.raises(ConfigurationError, match="extra"):
            client.explain("?", extra_body=5)


# What distributions add


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder on the path, as of an environment into which one installs."""
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("added_")]:
        del sys.modules[name]


def test_a_distribution_brings_providers_that_are_loaded_when_they_are_asked_for(site):
    code = """
import sabir
ROW = sabir.Provider("aurora", url="http://localhost:1/v1")
def make():
    return sabir.Provider("borealis", url="http://localhost:2/v1")
"""
    points = "[sabir.providers]\naurora = added_lights:ROW\nborealis = added_lights:make\n"
    install(site, "added_lights", code, points)
    with sabir.Client("vllm:x") as client:
        assert "added_lights" not in sys.modules
        assert client.explain("?", model="aurora:m").url == "http://localhost:1/v1/chat/completions"
    assert "added_lights" in sys.modules
    with pytest.raises(ConfigurationError, match="did you mean 'borealis'"):
        sabir.Client("boralis:m")
    with sabir.Client("borealis:m:free") as client:
        assert client.models == ("borealis:m:free",)


@pytest.mark.parametrize(
    ("code", "value", "objection"),
    [
        ("raise RuntimeError('out of tea')", "ROW", "cannot be loaded: RuntimeError: out of tea"),
        ("", "ROW", "cannot be loaded: AttributeError"),
        ("ROW = 5", "ROW", "is no Provider with the name 'broken'"),
        ("import sabir; ROW = sabir.Provider('other', url='http://localhost')", "ROW", "is no Provider with the name"),
        ("import sabir; ROW = sabir.Provider('broken', url='localhost')", "ROW", "base_url must look like"),
        ("def make(): raise LookupError('nothing')", "make", "LookupError: nothing"),
    ],
)
def test_a_distribution_that_is_broken_is_named(site, code, value, objection):
    install(site, "added_broken", code, f"[sabir.providers]\nbroken = added_broken:{value}\n")
    with pytest.raises(ConfigurationError, match=objection) as caught:
        sabir.Client("broken:m")
    assert "'added_broken:" in str(caught.value)
    assert "added_broken 1.5" in str(caught.value) or "base_url" in objection
    # Others are none the worse for it.
    sabir.Client("vllm:m").close()
    with pytest.raises(ConfigurationError, match="did you mean"):
        sabir.Client("opnai:m")


def test_two_distributions_with_one_name_are_told_apart(site):
    for name in ("added_one", "added_two"):
        code = "import sabir; ROW = sabir.Provider('twice', url='http://localhost:1/v1')"
        install(site, name, code, f"[sabir.providers]\ntwice = {name}:ROW\n")
    with pytest.raises(ConfigurationError, match=r"(?s)'twice'.*added_one.*added_two.*uninstall all but one"):
        sabir.Client("twice:m")


def test_a_row_of_the_table_goes_before_one_of_a_distribution(site):
    install(site, "added_shadow", "raise RuntimeError", "[sabir.providers]\nopenai = added_shadow:ROW\n")
    sabir.Client("openai:m", api_key=KEY).close()
    assert "added_shadow" not in sys.modules
