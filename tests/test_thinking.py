"""The portable wish for thinking, in the words of every format and family of models: what is sent, and what is said.

A row has, for one model, the place in the body that says how much it is to think, and what stands there for False,
True, each effort and a budget of 3000 tokens. What is only near to the wish, or not sent, must be reported, and nothing
else may be.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sabir
from sabir.dialects.anthropic import Anthropic
from sabir.dialects.bedrock import Bedrock
from sabir.providers import parse_model
from sabir.requests import Request


@dataclass(frozen=True)
class About:
    """Sent, though it is not quite what was asked for."""

    value: Any


NO = "not sent"
NOTHING = "nothing to send"
ASKED = (False, True, "minimal", "low", "medium", "high", 3000)
TABLE: dict[str, tuple[Any, ...]] = {
    "openai-chat:gpt-5": (
        "reasoning_effort",
        About("minimal"),
        "medium",
        "minimal",
        "low",
        "medium",
        "high",
        About("medium"),
    ),
    "openai-chat:gpt-4o": ("reasoning_effort", NOTHING, NO, NO, NO, NO, NO, NO),
    "openai-chat:gpt-5-pro": (
        "reasoning_effort",
        NO,
        "high",
        About("high"),
        About("high"),
        About("high"),
        "high",
        About("high"),
    ),
    "deepseek:deepseek-v4-flash": (
        "",
        {"thinking": {"type": "disabled"}},
        {"thinking": {"type": "enabled"}},
        About({"thinking": {"type": "enabled"}, "reasoning_effort": "low"}),
        {"thinking": {"type": "enabled"}, "reasoning_effort": "low"},
        About({"thinking": {"type": "enabled"}, "reasoning_effort": "high"}),
        {"thinking": {"type": "enabled"}, "reasoning_effort": "high"},
        About({"thinking": {"type": "enabled"}, "reasoning_effort": "high"}),
    ),
    "moonshot:kimi-k2.6": (
        "thinking.type",
        "disabled",
        "enabled",
        About("enabled"),
        About("enabled"),
        About("enabled"),
        About("enabled"),
        About("enabled"),
    ),
    "zai:glm-4.7": (
        "thinking.type",
        "disabled",
        "enabled",
        About("enabled"),
        About("enabled"),
        About("enabled"),
        About("enabled"),
        About("enabled"),
    ),
    "zai:glm-5.3": (
        "",
        NO,
        {"thinking": {"type": "enabled"}},
        About({"thinking": {"type": "enabled"}, "reasoning_effort": "low"}),
        {"thinking": {"type": "enabled"}, "reasoning_effort": "low"},
        About({"thinking": {"type": "enabled"}, "reasoning_effort": "high"}),
        {"thinking": {"type": "enabled"}, "reasoning_effort": "high"},
        About({"thinking": {"type": "enabled"}, "reasoning_effort": "high"}),
    ),
    "xai:grok-3-mini": (
        "reasoning_effort",
        NO,
        "high",
        About("low"),
        "low",
        About("high"),
        "high",
        About("high"),
    ),
    "xai:grok-4.3": ("reasoning_effort", "none", "medium", About("low"), "low", "medium", "high", About("medium")),
    "xai:grok-4.7": ("reasoning_effort", NO, "medium", About("low"), "low", "medium", "high", About("medium")),
    "xai:grok-code-fast-1": ("", NO, NOTHING, *[About({})] * 5),
    "xai:grok-4-fast": ("", NO, NOTHING, *[About({})] * 5),
    "xai:grok-4-fast-non-reasoning": ("", NOTHING, NO, NO, NO, NO, NO, NO),
    "openrouter:anthropic/claude-sonnet-4.6": (
        "reasoning",
        {"enabled": False},
        {"enabled": True},
        {"effort": "minimal"},
        {"effort": "low"},
        {"effort": "medium"},
        {"effort": "high"},
        {"max_tokens": 3000},
    ),
    "groq:qwen/qwen3-32b": ("reasoning_effort", "none", "default", *[About("default")] * 5),
    "groq:llama-3.3-70b-versatile": ("", NOTHING, NO, NO, NO, NO, NO, NO),
    "groq:openai/gpt-oss-120b": (
        "reasoning_effort",
        NO,
        "medium",
        About("low"),
        "low",
        "medium",
        "high",
        About("medium"),
    ),
    "vllm:Qwen/Qwen3-8B": (
        "chat_template_kwargs.enable_thinking",
        False,
        True,
        About(True),
        About(True),
        About(True),
        About(True),
        About(True),
    ),
    "siliconflow:x": (
        "",
        {"enable_thinking": False},
        {"enable_thinking": True},
        About({"enable_thinking": True}),
        About({"enable_thinking": True}),
        About({"enable_thinking": True}),
        About({"enable_thinking": True}),
        {"enable_thinking": True, "thinking_budget": 3000},
    ),
    "minimax:m": ("", NO, NO, NO, NO, NO, NO, NO),
    "mistral:magistral-medium-latest": (
        "prompt_mode",
        NO,
        "reasoning",
        About("reasoning"),
        About("reasoning"),
        About("reasoning"),
        About("reasoning"),
        About("reasoning"),
    ),
    "mistral:mistral-small-latest": (
        "reasoning_effort",
        "none",
        "high",
        About("high"),
        About("high"),
        About("high"),
        "high",
        About("high"),
    ),
    "mistral:mistral-large-latest": ("", NOTHING, NO, NO, NO, NO, NO, NO),
    "mistral:mistral-small-2506": ("", NOTHING, NO, NO, NO, NO, NO, NO),
    "cohere:command-a-reasoning-08-2025": (
        "thinking",
        {"type": "disabled"},
        {"type": "enabled"},
        About({"type": "enabled", "token_budget": 1024}),
        About({"type": "enabled", "token_budget": 2048}),
        About({"type": "enabled", "token_budget": 8192}),
        About({"type": "enabled", "token_budget": 16384}),
        {"type": "enabled", "token_budget": 3000},
    ),
    "ollama:qwen3": ("think", False, True, About("low"), "low", "medium", "high", About("medium")),
    "ollama:gpt-oss": ("think", About("low"), True, About("low"), "low", "medium", "high", About("medium")),
    "openai-responses:gpt-4o": ("reasoning", NOTHING, NO, NO, NO, NO, NO, NO),
    "openai-responses:o4-mini": (
        "reasoning",
        NO,
        {"effort": "medium", "summary": "auto"},
        About({"effort": "low", "summary": "auto"}),
        {"effort": "low", "summary": "auto"},
        {"effort": "medium", "summary": "auto"},
        {"effort": "high", "summary": "auto"},
        About({"effort": "medium", "summary": "auto"}),
    ),
    "openai-responses:gpt-5": (
        "reasoning",
        About({"effort": "minimal", "summary": "auto"}),
        {"effort": "medium", "summary": "auto"},
        {"effort": "minimal", "summary": "auto"},
        {"effort": "low", "summary": "auto"},
        {"effort": "medium", "summary": "auto"},
        {"effort": "high", "summary": "auto"},
        About({"effort": "medium", "summary": "auto"}),
    ),
    "openai-responses:gpt-5.1": (
        "reasoning",
        {"effort": "none"},
        {"effort": "medium", "summary": "auto"},
        About({"effort": "low", "summary": "auto"}),
        {"effort": "low", "summary": "auto"},
        {"effort": "medium", "summary": "auto"},
        {"effort": "high", "summary": "auto"},
        About({"effort": "medium", "summary": "auto"}),
    ),
    "anthropic:claude-sonnet-4-5": (
        "thinking",
        {"type": "disabled"},
        {"type": "enabled", "budget_tokens": 8192},
        About({"type": "enabled", "budget_tokens": 1024}),
        About({"type": "enabled", "budget_tokens": 2048}),
        About({"type": "enabled", "budget_tokens": 8192}),
        About({"type": "enabled", "budget_tokens": 16384}),
        {"type": "enabled", "budget_tokens": 3000},
    ),
    "anthropic:claude-sonnet-4-6": (
        "",
        {"thinking": {"type": "disabled"}},
        {"thinking": {"type": "adaptive"}},
        About({"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}),
        {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}},
        {"thinking": {"type": "adaptive"}, "output_config": {"effort": "medium"}},
        {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}},
        About({"thinking": {"type": "adaptive"}, "output_config": {"effort": "medium"}}),
    ),
    "gemini:gemini-2.0-flash": ("", NOTHING, NO, NO, NO, NO, NO, NO),
    "gemini:gemini-2.5-flash": (
        "generationConfig.thinkingConfig",
        {"thinkingBudget": 0},
        {"includeThoughts": True, "thinkingBudget": -1},
        About({"includeThoughts": True, "thinkingBudget": 1024}),
        About({"includeThoughts": True, "thinkingBudget": 1024}),
        About({"includeThoughts": True, "thinkingBudget": 8192}),
        About({"includeThoughts": True, "thinkingBudget": 24576}),
        {"includeThoughts": True, "thinkingBudget": 3000},
    ),
    "gemini:gemini-2.5-pro": (
        "generationConfig.thinkingConfig",
        About({"thinkingBudget": 128}),
        {"includeThoughts": True, "thinkingBudget": -1},
        About({"includeThoughts": True, "thinkingBudget": 1024}),
        About({"includeThoughts": True, "thinkingBudget": 1024}),
        About({"includeThoughts": True, "thinkingBudget": 8192}),
        About({"includeThoughts": True, "thinkingBudget": 24576}),
        {"includeThoughts": True, "thinkingBudget": 3000},
    ),
    "gemini:gemini-3-flash-preview": (
        "generationConfig.thinkingConfig",
        About({"thinkingLevel": "minimal"}),
        {"includeThoughts": True},
        {"includeThoughts": True, "thinkingLevel": "minimal"},
        {"includeThoughts": True, "thinkingLevel": "low"},
        {"includeThoughts": True, "thinkingLevel": "medium"},
        {"includeThoughts": True, "thinkingLevel": "high"},
        About({"includeThoughts": True, "thinkingLevel": "medium"}),
    ),
    "gemini:gemini-3-pro-preview": (
        "generationConfig.thinkingConfig",
        About({"thinkingLevel": "low"}),
        {"includeThoughts": True},
        About({"includeThoughts": True, "thinkingLevel": "low"}),
        {"includeThoughts": True, "thinkingLevel": "low"},
        About({"includeThoughts": True, "thinkingLevel": "high"}),
        {"includeThoughts": True, "thinkingLevel": "high"},
        About({"includeThoughts": True, "thinkingLevel": "high"}),
    ),
    "gemini:gemini-3.1-pro-preview": (
        "generationConfig.thinkingConfig",
        About({"thinkingLevel": "low"}),
        {"includeThoughts": True},
        About({"includeThoughts": True, "thinkingLevel": "low"}),
        {"includeThoughts": True, "thinkingLevel": "low"},
        {"includeThoughts": True, "thinkingLevel": "medium"},
        {"includeThoughts": True, "thinkingLevel": "high"},
        About({"includeThoughts": True, "thinkingLevel": "medium"}),
    ),
    "gemini:gemini-3.7-flash": (
        "generationConfig.thinkingConfig",
        About({"thinkingLevel": "low"}),
        {"includeThoughts": True},
        About({"includeThoughts": True, "thinkingLevel": "low"}),
        {"includeThoughts": True, "thinkingLevel": "low"},
        {"includeThoughts": True, "thinkingLevel": "medium"},
        {"includeThoughts": True, "thinkingLevel": "high"},
        About({"includeThoughts": True, "thinkingLevel": "medium"}),
    ),
    "bedrock:anthropic.claude-sonnet-4-5": (
        "additionalModelRequestFields.thinking",
        {"type": "disabled"},
        {"type": "enabled", "budget_tokens": 8192},
        About({"type": "enabled", "budget_tokens": 1024}),
        About({"type": "enabled", "budget_tokens": 2048}),
        About({"type": "enabled", "budget_tokens": 8192}),
        About({"type": "enabled", "budget_tokens": 16384}),
        {"type": "enabled", "budget_tokens": 3000},
    ),
    "bedrock:anthropic.claude-sonnet-4-6": (
        "additionalModelRequestFields",
        {"thinking": {"type": "disabled"}},
        {"thinking": {"type": "adaptive"}},
        About({"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}),
        {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}},
        {"thinking": {"type": "adaptive"}, "output_config": {"effort": "medium"}},
        {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}},
        About({"thinking": {"type": "adaptive"}, "output_config": {"effort": "medium"}}),
    ),
    "bedrock:amazon.nova-2-lite-v1:0": (
        "additionalModelRequestFields.reasoningConfig",
        {"type": "disabled"},
        {"type": "enabled", "maxReasoningEffort": "medium"},
        About({"type": "enabled", "maxReasoningEffort": "low"}),
        {"type": "enabled", "maxReasoningEffort": "low"},
        {"type": "enabled", "maxReasoningEffort": "medium"},
        {"type": "enabled", "maxReasoningEffort": "high"},
        About({"type": "enabled", "maxReasoningEffort": "medium"}),
    ),
    "bedrock:openai.gpt-oss-120b": (
        "additionalModelRequestFields.reasoning_effort",
        NO,
        "medium",
        About("low"),
        "low",
        "medium",
        "high",
        About("medium"),
    ),
    "bedrock:deepseek.r1": ("", NO, NO, NO, NO, NO, NO, NO),
}


def sent(model: str, **options: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """The body for a model, and what is reported: kind by subject."""
    named = parse_model(model)
    request = Request(model=named.id, messages=(sabir.user("Hi"),), **options)
    http, notices = named.provider.dialect.encode_request(request)
    return json.loads(http.body), {notice.subject: notice.kind for notice in notices}


@pytest.mark.parametrize(
    ("model", "place", "asked", "expected"),
    [
        pytest.param(model, place, asked, expected, id=f"{model}-{asked}")
        for model, (place, *row) in TABLE.items()
        for asked, expected in zip(ASKED, row, strict=True)
    ],
)
def test_a_wish_for_thinking_is_sent_in_the_models_words(model, place, asked, expected):
    body, said = sent(model, thinking=asked)
    plain, _ = sent(model)
    found: Any = {name: value for name, value in body.items() if plain.get(name) != value and name != "max_tokens"}
    for name in filter(None, place.split(".")):
        found = found.get(name, {})
    if expected in (NO, NOTHING):
        assert not found
    else:
        assert found == (expected.value if isinstance(expected, About) else expected)
    wanted = "emulated" if isinstance(expected, About) else "unsupported" if expected == NO else None
    assert said.get("thinking") == wanted


@pytest.mark.parametrize(
    ("model", "asked", "budget"),
    [
        ("gemini-2.5-pro", 1, 128),
        ("gemini-2.5-pro", 128, 128),
        ("gemini-2.5-pro", 100_000, 32_768),
        ("gemini-2.5-flash", 1, 1),
        ("gemini-2.5-flash", 24_577, 24_576),
        ("gemini-2.5-flash-lite", 1, 512),
        ("gemini-2.5-flash-lite", 600, 600),
    ],
)
def test_a_budget_of_geminis_is_what_the_model_takes(model, asked, budget):
    body, said = sent(f"gemini:{model}", thinking=asked)
    assert body["generationConfig"]["thinkingConfig"]["thinkingBudget"] == budget
    assert said.get("thinking") == (None if asked == budget else "emulated")


@pytest.mark.parametrize(
    ("asked", "told"), [(None, "emulated"), (False, None), (True, "unsupported"), ("high", "unsupported")]
)
@pytest.mark.parametrize("choice", ["required", "ping"])
def test_where_a_tool_is_forced_deepseek_does_not_think(asked, told, choice):
    ping = sabir.ToolSpec("ping", "Ping.", {"type": "object", "properties": {}})
    body, said = sent("deepseek:deepseek-v4-flash", thinking=asked, tools=(ping,), tool_choice=choice)
    assert body["thinking"] == {"type": "disabled"}
    assert "reasoning_effort" not in body
    assert said.get("thinking") == told
    free, said = sent("deepseek:deepseek-v4-flash", thinking=asked, tools=(ping,), tool_choice="auto")
    assert free.get("thinking") == (None if asked is None else {"type": "enabled" if asked else "disabled"})
    assert "thinking" not in said


@pytest.mark.parametrize("model", TABLE)
def test_no_wish_sends_nothing_and_says_nothing(model):
    _, said = sent(model)
    assert "thinking" not in said


@given(st.integers(1, 100_000), st.none() | st.integers(1, 100_000))
def test_a_budget_of_anthropics_leaves_room_for_an_answer(budget, max_tokens):
    request = Request(model="claude-sonnet-4-5", messages=(sabir.user("Hi"),), thinking=budget, max_tokens=max_tokens)
    http, notices = Anthropic().encode_request(request)
    body = json.loads(http.body)
    thinks = body["thinking"]["budget_tokens"]
    said = [notice.subject for notice in notices]
    assert max(budget, 1024) == thinks < body["max_tokens"]
    assert ("thinking" in said) is (thinks != budget)
    assert said.count("max_tokens") == (max_tokens is None or max_tokens != body["max_tokens"])
    if max_tokens is not None:
        # The answer is not cut for the thinking, and not given more than was allowed.
        assert body["max_tokens"] in (max_tokens, max_tokens + thinks)
    Anthropic().decode_request(http.body)


@given(st.integers(1, 100_000), st.integers(1, 100_000))
def test_a_budget_of_claude_on_bedrock_leaves_room_for_an_answer(budget, max_tokens):
    request = Request(
        model="anthropic.claude-sonnet-4-5", messages=(sabir.user("Hi"),), thinking=budget, max_tokens=max_tokens
    )
    http, notices = Bedrock().encode_request(request)
    body = json.loads(http.body)
    thinks = body["additionalModelRequestFields"]["thinking"]["budget_tokens"]
    most = body["inferenceConfig"]["maxTokens"]
    assert max(budget, 1024) == thinks < most
    assert ("max_tokens" in {notice.subject for notice in notices}) is (most != max_tokens)


@pytest.mark.parametrize("model", ["anthropic:claude-sonnet-4-5", "bedrock:anthropic.claude-sonnet-4-5"])
def test_claude_does_not_think_where_a_tool_is_forced(model):
    tool = sabir.ToolSpec("look", "Look.", {"type": "object", "properties": {}})
    body, said = sent(model, thinking=3000, tools=(tool,), tool_choice="required")
    assert said["thinking"] == "unsupported"
    assert "budget_tokens" not in json.dumps(body)


@pytest.mark.parametrize("model", ["anthropic:claude-sonnet-4-5", "anthropic:claude-sonnet-4-6"])
def test_what_a_thinking_claude_refuses_is_left_out_and_said_to_be(model):
    body, said = sent(model, thinking=True, temperature=0.5, top_k=5)
    assert {"temperature", "top_k"}.isdisjoint(body)
    assert said["temperature"] == said["top_k"] == "unsupported"
