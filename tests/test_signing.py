"""AWS's signatures: its published vectors, its own signer as judge, and whose credentials sign what."""

from __future__ import annotations

import copy
import pickle
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as some
from servers import Server, whole

import sabir
from sabir.credentials import find_address, find_key
from sabir.credentials_aws import AwsAuth, find_region, region_of
from sabir.dialects.bedrock import Bedrock
from sabir.environment import Environment
from sabir.providers import PROVIDERS
from sabir.requests import HttpRequest, Request
from sabir.runtime import Line, run
from sabir.signing import AwsCredentials, signature_headers
from sabir.strict_json import encode_json

ROW = PROVIDERS["bedrock"]
EXAMPLE = AwsCredentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
MOMENT = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)
SECRET, TOKEN = "made-up-secret-9f2c41", "made-up-session-token-77aa"
VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_BEARER_TOKEN_BEDROCK")


@pytest.fixture(autouse=True)
def _bare(monkeypatch, tmp_path):
    """No credentials of the machine: an empty home, an empty folder, none of AWS's variables."""
    for name in (*VARIABLES, "AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.chdir(tmp_path)


def put(home, file, text):
    (home / ".aws").mkdir(exist_ok=True)
    (home / ".aws" / file).write_text(text, "utf-8")


# The algorithm. The vectors are of AWS's signature version 4 test suite.


def request(method="GET", target="/", headers=(), body=b"", host="https://example.amazonaws.com"):
    return HttpRequest(method, host + target, tuple(headers), body)


FORM = ("Content-Type", "application/x-www-form-urlencoded")
VECTORS = {
    "get-vanilla": (request(), "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
    "get-relative": (request(target="/example/.."), "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
    "get-slash": (request(target="//"), "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
    "get-vanilla-query-order-key-case": (
        request(target="/?Param2=value2&Param1=value1"),
        "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
    ),
    "post-vanilla": (request("POST"), "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
    "get-header-key-duplicate": (
        request(headers=[("My-Header1", "value2"), ("My-Header1", "value2"), ("My-Header1", "value1")]),
        "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea",
    ),
    "get-header-value-multiline": (
        request(headers=[("My-Header1", "value1,value2,value3")]),
        "ba17b383a53190154eb5fa66a1b836cc297cc0a3d70a5d00705980573d8ff790",
    ),
    "get-header-value-trim": (
        request(headers=[("My-Header1", " value1"), ("My-Header2", ' "a   b   c"')]),
        "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
    ),
    "post-x-www-form-urlencoded": (
        request("POST", headers=[FORM], body=b"Param1=value1"),
        "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
    ),
}


def headers_of(http, credentials=EXAMPLE, region="us-east-1", service="service", moment=MOMENT):
    return dict(signature_headers(http, credentials, region=region, service=service, moment=moment))


@pytest.mark.parametrize("name", VECTORS)
def test_a_request_is_signed_as_aws_publishes_it(name):
    http, signature = VECTORS[name]
    made = headers_of(http)
    assert made["x-amz-date"] == "20150830T123600Z"
    start = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders="
    assert made["authorization"].startswith(start)
    assert made["authorization"].endswith(f", Signature={signature}")


def test_the_path_of_a_model_is_quoted_once_more():
    """It is sent as /model/…%3A0/…, and what is signed is %253A: AWS's services other than S3 sign it so."""
    http = Bedrock().encode_request(Request(model="arn:aws:x/y v1:0", messages=(sabir.user("Hi"),)))[0]
    assert http.url == "/model/arn%3Aaws%3Ax%2Fy%20v1%3A0/converse"
    judge(HttpRequest(http.method, "https://bedrock-runtime.us-east-1.amazonaws.com" + http.url, http.headers, b"{}"))


def judge(http, token=None):
    """Hold our signature against botocore's."""
    judged = AWSRequest(method=http.method, url=http.url, data=http.body, headers=dict(http.headers))
    judged.context["timestamp"] = MOMENT.strftime("%Y%m%dT%H%M%SZ")
    judged.headers["X-Amz-Date"] = judged.context["timestamp"]
    if token:
        judged.headers["X-Amz-Security-Token"] = token
    signer = SigV4Auth(Credentials("AKIDEXAMPLE", SECRET, token), "bedrock", "eu-west-3")
    text = signer.string_to_sign(judged, signer.canonical_request(judged))
    signature = signer.signature(text, judged)
    ours = headers_of(http, AwsCredentials("AKIDEXAMPLE", SECRET, token), "eu-west-3", "bedrock")
    names = signer.signed_headers(signer.headers_to_sign(judged))
    assert ours["authorization"].endswith(f"SignedHeaders={names}, Signature={signature}")
    assert ours.get("x-amz-security-token") == token


word = some.text("abcXYZ019-._~", min_size=1, max_size=8)
steps = some.lists(some.one_of(word, some.sampled_from(["%20", "a%3Ab", "%2F", "..", ".", "", "é".encode().hex()])))


@given(
    method=some.sampled_from(["GET", "POST"]),
    path=steps.map(lambda parts: "/" + "/".join(parts)),
    query=some.lists(some.tuples(word, word), max_size=4),
    headers=some.dictionaries(word.map(lambda name: f"x-{name.lower()}"), some.text(" ab\t,;", max_size=9), max_size=4),
    body=some.binary(max_size=40),
    token=some.sampled_from([None, TOKEN]),
    port=some.sampled_from(["", ":443", ":8443"]),
)
def test_any_request_is_signed_as_aws_signs_it(method, path, query, headers, body, token, port):
    target = path + ("?" + "&".join(f"{name}={value}" for name, value in query) if query else "")
    judge(request(method, target, headers.items(), body, f"https://host.example{port}"), token)


def test_what_a_proxy_may_change_is_not_signed():
    told = (("user-agent", "sabir"), ("accept-encoding", "gzip"), ("content-type", "application/json"))
    assert "SignedHeaders=content-type;host;x-amz-date," in headers_of(request(headers=told))["authorization"]


def test_credentials_show_nothing_and_do_not_leave_the_process():
    found = AwsCredentials("AKID", SECRET, TOKEN)
    auth = AwsAuth("bedrock", "us-east-1", found)
    for value in (found, auth):
        assert SECRET not in f"{value!r}{value}"
        assert TOKEN not in repr(getattr(value, "token", ""))
        with pytest.raises(TypeError):
            pickle.dumps(value)
        with pytest.raises(TypeError):
            copy.copy(value)


# Where they go


def test_the_address_is_of_the_region(monkeypatch, tmp_path):
    with pytest.raises(sabir.ConfigurationError, match="AWS_REGION or AWS_DEFAULT_REGION"):
        find_address(ROW, None, Environment())
    put(tmp_path, "config", "[default]\nregion = eu-west-1\n")
    assert find_address(ROW, None, Environment()).url == "https://bedrock-runtime.eu-west-1.amazonaws.com"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-2")
    assert find_address(ROW, None, Environment()).url == "https://bedrock-runtime.us-west-2.amazonaws.com"
    monkeypatch.setenv("AWS_REGION", "ap-south-1")
    assert find_address(ROW, None, Environment()).url == "https://bedrock-runtime.ap-south-1.amazonaws.com"


@pytest.mark.parametrize(
    ("address", "region"),
    [
        ("https://bedrock-runtime.us-east-1.amazonaws.com", "us-east-1"),
        ("https://bedrock-runtime-fips.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
        ("https://vpce-0a1b2c-xyz.bedrock-runtime.eu-west-1.vpce.amazonaws.com", "eu-west-1"),
        ("https://bedrock-runtime.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        ("https://bedrock-runtime.us-east-1.api.aws", "us-east-1"),
        ("http://bedrock-runtime.us-east-1.amazonaws.com", None),
        ("https://bedrock-runtime.us-east-1.amazonaws.com:8443", None),
        ("https://bedrock-runtime.us-east-1.amazonaws.com.evil.example", None),
        ("https://evil.example/bedrock-runtime.us-east-1.amazonaws.com", None),
        ("https://x.execute-api.us-east-1.amazonaws.com", None),
        ("https://a.b.bedrock-runtime.us-east-1.amazonaws.com", None),
    ],
)
def test_aws_is_known_by_its_hosts(monkeypatch, address, region):
    assert region_of(address, ROW.url) == region
    for name in VARIABLES[:2]:
        monkeypatch.setenv(name, SECRET)
    monkeypatch.setenv("AWS_REGION", "af-south-1")
    auth = find_key(ROW, address, None)
    assert (auth is None) == (region is None)
    if region is not None:
        proof = dict(run(lambda: auth.headers(request(host=address), None, Line())))
        assert f"/{region}/bedrock/aws4_request" in proof["authorization"]
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", SECRET)
    bearer = find_key(ROW, address, None)
    assert (bearer and bearer.header()) == (region and ("authorization", f"Bearer {SECRET}"))


def test_requests_are_signed_for_a_region(monkeypatch):
    with pytest.raises(sabir.ConfigurationError, match="signed for a region: set the environment variable AWS_REGION"):
        find_key(ROW, "http://localhost:1", lambda: EXAMPLE)
    assert find_region(Environment()) is None
    monkeypatch.setenv("AWS_REGION", "us-west-2")
    assert find_key(ROW, "http://localhost:1", EXAMPLE) is not None
    with pytest.raises(sabir.ConfigurationError, match="requests to openai are not signed"):
        find_key(PROVIDERS["openai"], None, EXAMPLE)


# Over the wire

ANSWER = {"output": {"message": {"role": "assistant", "content": [{"text": "Hello"}]}}, "stopReason": "end_turn"}
BUSY = b'{"message":"Too many requests","__type":"ThrottlingException"}'


class Verifier:
    """A server that checks signatures as AWS does, by botocore's signer; the first call of each model is refused."""

    def __init__(self, token) -> None:
        self.token = token
        self.seen = []

    async def __call__(self, call) -> None:
        headers = dict(call.headers)
        self.seen.append(headers)
        signed = headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
        url = f"http://{headers['host']}{call.target}"
        judged = AWSRequest(call.method, url, {name: headers[name] for name in signed}, call.body)
        judged.context["timestamp"] = headers["x-amz-date"]
        signer = SigV4Auth(Credentials("AKID", SECRET, self.token), "bedrock", "us-east-1")
        signature = signer.signature(signer.string_to_sign(judged, signer.canonical_request(judged)), judged)
        ok = headers["authorization"].endswith(f"Signature={signature}")
        if not ok:
            body = b'{"message":"The request signature does not match","__type":"InvalidSignatureException"}'
            await whole(body, status="403 Forbidden")(call)
        elif len(self.seen) == 1:
            await whole(BUSY, "retry-after: 0", status="429 Too Many Requests")(call)
        else:
            await whole(encode_json(ANSWER))(call)


async def test_each_attempt_is_signed_with_what_the_function_gives_then(surface, monkeypatch):
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    asked = []

    def credentials():
        asked.append(True)
        return AwsCredentials("AKID", SECRET, TOKEN)

    verifier = Verifier(TOKEN)
    with Server(verifier) as server:
        client = surface.client("bedrock:a:0", base_url=server.url, api_key=credentials)
        shown = client.explain("Hi")
        assert asked == []
        with pytest.warns(sabir.SabirWarning, match="the header Authorization was not sent"):
            assert (await client.ask("Hi", headers={"Authorization": "mine", "X-Own": "1"})).text == "Hello"
    assert len(asked) == len(verifier.seen) == 2
    assert {headers["x-amz-security-token"] for headers in verifier.seen} == {TOKEN}
    assert "x-own" in verifier.seen[1]["authorization"]
    assert shown.headers["authorization"] == shown.headers["x-amz-security-token"] == "…"
    assert SECRET not in repr(client) + repr(shown)


async def test_credentials_may_be_given_themselves(surface, monkeypatch):
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    with Server(Verifier(TOKEN)) as server:
        client = surface.client("bedrock:a", base_url=server.url, api_key=AwsCredentials("AKID", SECRET, TOKEN))
        assert (await client.ask("Hi")).text == "Hello"
        assert SECRET not in repr(client)


async def test_a_coroutine_may_give_the_credentials(surface, monkeypatch):
    monkeypatch.setenv("AWS_REGION", "us-east-1")

    async def credentials():
        return AwsCredentials("AKID", SECRET)

    with Server(Verifier(None)) as server:
        client = surface.client("bedrock:a", base_url=server.url, api_key=credentials)
        assert (await client.ask("Hi")).text == "Hello"


@pytest.mark.parametrize("given", [None, 5, "", "sch\u00f6n"])
async def test_a_function_that_gives_no_credentials_is_an_error(surface, monkeypatch, given):
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    client = surface.client("bedrock:a", base_url="http://127.0.0.1:9", api_key=lambda: given)
    with pytest.raises(sabir.ConfigurationError, match="AwsCredentials or a token"):
        await client.ask("Hi")

    def broken():
        raise OSError("no such profile")

    client = surface.client("bedrock:a", base_url="http://127.0.0.1:9", api_key=broken)
    with pytest.raises(sabir.ConfigurationError, match="OSError: no such profile"):
        await client.ask("Hi")


async def test_a_server_that_repeats_what_was_signed_gives_nothing_away(surface, monkeypatch):
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    told = f"The canonical string was x-amz-security-token:{TOKEN} and {SECRET}"
    body = encode_json({"message": told, "__type": "InvalidSignatureException"})

    async def answer(call):
        await whole(body, status="403 Forbidden")(call)

    with Server(answer) as server:
        client = surface.client("bedrock:a", base_url=server.url, api_key=lambda: AwsCredentials("A", SECRET, TOKEN))
        with pytest.raises(sabir.AuthenticationError, match="x-amz-security-token:\\*\\*\\* and \\*\\*\\*") as caught:
            await client.ask("Hi")
    assert TOKEN not in str(caught.value.body)
    assert caught.value.code == "InvalidSignatureException"


async def test_a_key_goes_as_a_bearer_token(surface):
    seen = []

    async def answer(call):
        seen.append(SimpleNamespace(target=call.target, headers=dict(call.headers)))
        await whole(encode_json(ANSWER))(call)

    with Server(answer) as server:
        await surface.client("bedrock:a:0", base_url=server.url, api_key=SECRET).ask("Hi")
    assert seen[0].target == "/model/a%3A0/converse"
    assert seen[0].headers["authorization"] == f"Bearer {SECRET}"
    assert "x-amz-date" not in seen[0].headers
