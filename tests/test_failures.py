"""HTTP errors of every shape: which exception they become, and that none of them becomes another's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sabir.dialects.failures import provider_error, request_id, retry_after
from sabir.errors import (
    AuthenticationError,
    BadRequestError,
    ContentFilterError,
    ContextOverflowError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ProviderError,
    RateLimitError,
    ServerError,
)


def error(message="no", **fields):
    return json.dumps({"error": {"message": message, **fields}}).encode()


FLAWS = json.dumps({"detail": [{"loc": ["body", i], "msg": "no"} for i in range(1, 9)]}).encode()
PAGE = b"""<!DOCTYPE html><html><head><style>body {x: y}</style><title>Bad gateway</title></head>
<body><script>var x;</script><h1>502</h1> nginx</body></html>"""


@pytest.mark.parametrize(
    ("status", "body", "kind", "code", "words"),
    [
        (400, error("bad"), BadRequestError, None, "bad (HTTP 400)"),
        (
            401,
            error("key", code="invalid_api_key", type="invalid_request_error"),
            AuthenticationError,
            "invalid_api_key",
            "key",
        ),
        (402, error("pay"), BadRequestError, None, "pay"),
        (403, error("no"), PermissionDeniedError, None, "no"),
        (404, error("x", code="model_not_found"), NotFoundError, "model_not_found", "x"),
        (408, error("slow"), BadRequestError, None, "slow"),
        (413, error("large"), BadRequestError, None, "large"),
        (422, b'{"detail": [{"loc": ["body"], "msg": "field required"}]}', BadRequestError, None, "field required"),
        (429, error("slow", type="tokens", code="rate_limit_exceeded"), RateLimitError, "rate_limit_exceeded", "slow"),
        (500, error("oops", type="server_error"), ServerError, "server_error", "oops"),
        (
            500,
            error("1 validation error:\n  {'loc': ('body', 'temperature')}", type="internal_server_error"),
            BadRequestError,
            "internal_server_error",
            "temperature",
        ),
        (502, b"", ServerError, None, "no reason"),
        (503, error("busy"), OverloadedError, None, "busy"),
        (529, error("busy", type="overloaded_error"), OverloadedError, "overloaded_error", "busy"),
        (418, error("teapot"), BadRequestError, None, "teapot"),
        (599, error("odd"), ServerError, None, "odd"),
        # A code says more than a 400.
        (400, error("key", code="invalid_api_key"), AuthenticationError, "invalid_api_key", "key"),
        (400, error("no", code="content_filter"), ContentFilterError, "content_filter", "no"),
        (403, error("no", code="content_policy_violation"), PermissionDeniedError, "content_policy_violation", "no"),
        (400, error("no", code="context_length_exceeded"), ContextOverflowError, "context_length_exceeded", "no"),
        (500, error("no", code="context_length_exceeded"), ContextOverflowError, "context_length_exceeded", "no"),
        (
            400,
            error("bad", code="invalid_value", type="invalid_request_error"),
            BadRequestError,
            "invalid_value",
            "bad",
        ),
        # Shapes.
        (404, b'{"error": "no such model"}', NotFoundError, None, "no such model"),
        (400, b'{"code": 400, "message": "too hot", "type": "Bad Request"}', BadRequestError, "Bad Request", "too hot"),
        (400, b'{"object": "error", "message": "m", "type": "t", "code": null}', BadRequestError, "t", "m"),
        (404, b'{"detail": "Not Found"}', NotFoundError, None, "Not Found"),
        (
            422,
            b'{"detail": [{"loc": ["body", "n"], "msg": "Field required", "type": "missing"}, {"msg": "too hot"}, {}]}',
            BadRequestError,
            None,
            "body.n: Field required; too hot (HTTP 422)",
        ),
        (422, FLAWS, BadRequestError, None, "body.4: no; body.5: no and 3 more (HTTP 422)"),
        (422, b'{"message": {"detail": [{"loc": [], "msg": "no"}]}}', BadRequestError, None, "no (HTTP 422)"),
        (400, b'{"detail": [5, null]}', BadRequestError, None, '{"detail": [5, null]} (HTTP 400)'),
        (400, b'[{"error": {"message": "in a list", "code": 400}}]', BadRequestError, "400", "in a list"),
        (400, b"[]", BadRequestError, None, "[]"),
        (400, b'{"error": {"message": {"deep": 1}, "code": {"no": "code"}}}', BadRequestError, None, "deep"),
        (400, b'"just text"', BadRequestError, None, "just text"),
        (400, b"just   text\n", BadRequestError, None, "just text (HTTP 400)"),
        (500, b"", ServerError, None, "gave no reason (HTTP 500)"),
        (500, b"\xff\xfe", ServerError, None, "HTTP 500"),
        (
            502,
            PAGE,
            ServerError,
            None,
            "Bad gateway 502 nginx (HTTP 502)",
        ),
        # Inside a stream there is no status.
        (None, error("slow", code=429), RateLimitError, "429", "slow (HTTP 429)"),
        (None, error("slow", code="429"), RateLimitError, "429", "slow"),
        (None, error("slow", type="rate_limit_error"), RateLimitError, "rate_limit_error", "slow"),
        (None, error("no", type="invalid_request_error"), BadRequestError, "invalid_request_error", "no"),
        (None, error("oops"), ServerError, None, "oops"),
        (None, error("oops", code=502), ServerError, "502", "oops"),
        (None, error("oops", code=200), ServerError, "200", "oops"),
    ],
)
def test_an_error_is_of_the_kind_its_status_code_and_body_say(status, body, kind, code, words):
    found = provider_error(status, {}, body)
    assert type(found) is kind
    assert found.code == code
    assert words in str(found)
    assert len(str(found)) < 400
    assert found.status == (status or (int(code) if code in ("429", "502") else None))
    assert found.body == body.decode("utf-8", "replace").strip()


@pytest.mark.parametrize(
    ("status", "may_succeed_later"),
    [(400, False), (401, False), (404, False), (408, True), (409, True), (429, True), (500, True), (503, True)],
)
def test_an_error_says_whether_the_same_call_may_succeed_later(status, may_succeed_later):
    assert provider_error(status, {}, error()).retryable is may_succeed_later


@pytest.mark.parametrize(
    ("message", "more", "numbers"),
    [
        (
            "request (2009 tokens) exceeds the available context size (512 tokens), try increasing it",
            {"n_ctx": 512, "n_prompt_tokens": 2009, "type": "exceed_context_size_error", "code": 400},
            (2009, 512),
        ),
        ("request (2009 tokens) exceeds the available context size (512 tokens)", {}, (2009, 512)),
        (
            "This model's maximum context length is 8192 tokens. However, your messages resulted in 10,021 tokens.",
            {"code": "context_length_exceeded"},
            (10021, 8192),
        ),
        (
            "This endpoint's maximum context length is 200000 tokens. However, you requested about 2500021 tokens",
            {},
            (2500021, 200000),
        ),
        ("prompt is too long: 210000 tokens > 200000 maximum", {}, (210000, 200000)),
        ("the prompt does not fit the context window", {}, (None, None)),
    ],
)
def test_an_overflow_says_how_much_was_too_much(message, more, numbers):
    found = provider_error(400, {}, error(message, **more))
    assert isinstance(found, ContextOverflowError)
    assert (found.prompt_tokens, found.context_length) == numbers


def test_only_a_refused_request_overflows_by_its_words():
    assert type(provider_error(429, {}, error("limited by context window"))) is RateLimitError
    assert type(provider_error(500, {}, error("context window crashed"))) is ServerError


RECORDINGS = Path(__file__).resolve().parent.parent.parent / "shared" / "recordings"
DATE = "Wed, 21 Oct 2026 07:28:00 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after-ms": "0", "retry-after": "1"}, 1.0),
        ({"retry-after-ms": "soon", "retry-after": "1"}, 1.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT", "date": DATE}, 30.0),
        ({"retry-after": "Wed, 21 Oct 2026 09:28:30 +0200", "date": DATE}, 30.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:27:00 GMT", "date": DATE}, 0.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT"}, None),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 -0000", "date": DATE}, 30.0),
        ({"retry-after": "Wednesday, 21-Oct-26 07:28:30 GMT", "date": DATE}, 30.0),
        ({"retry-after": "Wed Oct 21 07:28:30 2026", "date": DATE}, 30.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT", "date": "today"}, None),
        ({"retry-after": "soon", "date": DATE}, None),
        ({"retry-after": "", "date": DATE}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after-ms": "inf"}, None),
        ({"retry-after-ms": "-5"}, None),
        ({"retry-after-ms": "12.5"}, 0.0125),
        ({"retry-after": "7, 7"}, None),
        ({"retry-after": "Wed, 21 Oct 99999 07:28:30 GMT", "date": DATE}, None),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 +999999999999", "date": DATE}, None),
    ],
)
def test_the_wait_a_server_asks_for_needs_no_clock(headers, seconds):
    assert retry_after(headers) == seconds
    assert provider_error(429, headers, error()).retry_after == seconds


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        # As they were recorded from OpenAI, Groq and Azure, Anthropic, Hugging Face, Together and OpenRouter.
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "120ms"}, 0.12),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s"}, 360.0),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "2m59.56s"}, 179.56),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "0"}, 0.0),
        (
            {
                "anthropic-ratelimit-requests-remaining": "0",
                "anthropic-ratelimit-requests-reset": "2026-10-21T07:28:30Z",
                "date": DATE,
            },
            30.0,
        ),
        ({"ratelimit-remaining": "0", "ratelimit-reset": "19"}, 19.0),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "2"}, 2.0),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1792567710000", "date": DATE}, 30.0),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1792567710", "date": DATE}, 30.0),
        # Of several the longest that is used up.
        (
            {
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "1s",
                "x-ratelimit-remaining-tokens": "0",
                "x-ratelimit-reset-tokens": "1h1m1s1ms",
                "x-ratelimit-remaining-input-images": "49999",
                "x-ratelimit-reset-input-images": "9h",
            },
            3661.001,
        ),
        # One that does not say what remains counts where the status is 429.
        ({"x-ratelimit-reset-requests": "1s"}, 1.0),
        ({"x-ratelimit-remaining-requests": "many", "x-ratelimit-reset-requests": "1s"}, None),
        ({"x-ratelimit-remaining-requests": "4999", "x-ratelimit-reset-requests": "12ms"}, None),
        # What is asked for in so many words comes first; what cannot be read is as good as not said.
        ({"retry-after": "3", "x-ratelimit-reset-requests": "1s"}, 3.0),
        ({"retry-after-ms": "20", "x-ratelimit-reset-requests": "1s"}, 0.02),
        ({"retry-after": "soon", "x-ratelimit-reset-requests": "1s"}, 1.0),
        ({"x-ratelimit-reset-requests": "X-RATELIMIT-RESET-REQUESTS-XXX"}, None),
        ({"x-ratelimit-reset-requests": ""}, None),
        ({"x-ratelimit-reset-requests": "1s1h"}, None),
        ({"x-ratelimit-reset-requests": "-1s"}, None),
        ({"x-ratelimit-reset-requests": "2026-10-21T07:28:30Z"}, None),
        ({"x-ratelimit-reset-requests": "2026-10-21T07:28:30", "date": DATE}, 30.0),
        ({"x-ratelimit-reset-requests": "2026-10-21T07:27:30Z", "date": DATE}, 0.0),
        ({"x-ratelimit-reset-requests": "9" * 15, "date": DATE}, None),
        ({"x-ratelimit-reset-requests": "9" * 400, "date": DATE}, None),
    ],
)
def test_limits_that_are_used_up_say_how_long_to_wait(headers, seconds):
    assert retry_after(headers, 429) == (seconds if seconds is None else pytest.approx(seconds))
    assert provider_error(429, headers, error()).retry_after == retry_after(headers, 429)


@pytest.mark.skipif(not RECORDINGS.is_dir(), reason=f"there are no recordings at {RECORDINGS}")
def test_every_reset_that_was_recorded_is_understood():
    resets: set[str] = set()
    for path in RECORDINGS.glob("*.jsonl"):
        for line in path.read_text("utf-8").splitlines():
            headers = (json.loads(line).get("response") or {}).get("headers") or {}
            resets.update(value for name, value in headers.items() if "ratelimit" in name and "reset" in name)
    understood = {value: retry_after({"x-ratelimit-reset": value, "date": DATE}, 429) for value in resets}
    assert len(understood) > 50
    # Some recorders write this in the place of what they hide.
    assert all("RATELIMIT" in value for value, wait in understood.items() if wait is None)


def test_a_limit_that_may_not_be_used_up_says_nothing_of_other_failures():
    for status in (None, 400, 500, 503):
        assert retry_after({"x-ratelimit-reset-requests": "1s"}, status) is None
    assert retry_after({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "2"}, 503) == 2.0


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ({}, None),
        ({"x-request-id": "a", "cf-ray": "b"}, "a"),
        ({"request-id": "a"}, "a"),
        ({"apim-request-id": "a"}, "a"),
        ({"x-amzn-requestid": "a"}, "a"),
        ({"cf-ray": "b"}, "b"),
    ],
)
def test_the_id_of_a_request_is_the_providers_own(headers, found):
    assert request_id(headers) == found
    assert provider_error(500, headers, b"").request_id == found


def test_a_large_error_page_is_read_in_no_time_and_kept_in_part():
    """Patterns that try every end of every tag would take hours for these."""
    for page in (b"<" * 1_000_000, b"<style" * 150_000, b"<a <script>" * 90_000, b"context length is " * 50_000):
        found = provider_error(500, {}, page)
        assert len(found.body or "") <= 10_000
        assert len(str(found)) < 400


odd = st.recursive(
    st.none()
    | st.booleans()
    | st.sampled_from([0, 400, 429, 10**30, 1e308, 4.5, "", "429", "²²²", "9" * 5000, "\ud800", "context length is 5"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["error", "message", "code", "type", "detail", "msg", "n_ctx", "n_prompt_tokens"]), inner
        )
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=400)
@given(
    st.sampled_from([None, 200, 400, 404, 429, 500, 503, 999]),
    st.dictionaries(
        st.sampled_from(
            [*("retry-after", "retry-after-ms", "date", "x-request-id"), "x-ratelimit-reset", "x-ratelimit-remaining"]
        ),
        st.text(max_size=8)
        | st.text("0123456789.dhms", max_size=12)
        | st.sampled_from(["nan", "-inf", "1e999", "9" * 14, DATE, f"{DATE[:-3]}+99999999999999", "0001-01-01T00Z"]),
    ),
    st.binary(max_size=40)
    | odd.map(lambda value: json.dumps(value).encode())
    | st.sampled_from([b"context length is " + b"9" * 5000, b"[" * 100_000, b'{"error":' * 100_000, b"[[[]]]"]),
)
def test_every_body_and_header_gives_an_error_and_raises_none(status, headers, body):
    found = provider_error(status, headers, body)
    assert isinstance(found, ProviderError)
    assert found.code is None or isinstance(found.code, str)
    assert found.retry_after is None or 0 <= found.retry_after < float("inf")
