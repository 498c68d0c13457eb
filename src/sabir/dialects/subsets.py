"""What of JSON Schema each server takes, as data: for the answer that a schema shapes, and for the tools it is told of.

A server that is not known to refuse anything is sent a tool's schema as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from ..lowering import Lowered, Subset, lowered, told
from ..requests import Notice, OutputSchema, ToolSpec

_NUMBERS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})
_TEXTS = frozenset({"minLength", "maxLength", "pattern", "format"})
_LISTS = frozenset({"minItems", "maxItems"})
# What engines of regular expressions that do not look back or ahead have in common.
_REGULAR = re.compile(r"\A(?!.*(?:\(\?(?!:)|\\[1-9bBkpP]))", re.S)
_TIMES = frozenset({"date-time", "time", "date", "duration"})
_FORMATS = _TIMES | {"email", "hostname", "ipv4", "ipv6", "uuid"}

# https://developers.openai.com/api/docs/guides/structured-outputs (Supported schemas).
OPENAI_STRICT = Subset(
    keywords=frozenset({"const", "pattern", "format", "title"}) | _NUMBERS | _LISTS,
    formats=_FORMATS,
    patterns=_REGULAR,
    is_closed=True,
    requires_all=True,
    has_lone_references=True,
    max_depth=10,
    max_properties=5000,
)

# https://platform.claude.com/docs/en/build-with-claude/structured-outputs (JSON Schema limitations); its SDK's
# `transform_schema` moves the same keywords into descriptions. Bedrock has it from Anthropic:
# https://docs.aws.amazon.com/bedrock/latest/userguide/structured-output.html
ANTHROPIC = Subset(
    keywords=frozenset({"const", "default", "title", "pattern", "format", "minItems"}),
    formats=_FORMATS | {"uri"},
    patterns=_REGULAR,
    least_items=frozenset({0, 1}),
    is_closed=True,
    has_recursion=False,
    has_lone_references=True,
    has_type_lists=False,
    max_optional=24,
)

# https://ai.google.dev/gemini-api/docs/structured-output (JSON schema support), .../api/generate-content
# (responseJsonSchema, which also lists what is alone beside `$ref`), .../api/caching (parametersJsonSchema).
GEMINI = Subset(
    keywords=frozenset({"title", "format", "prefixItems", "minItems", "maxItems", "minimum", "maximum"})
    | {"additionalProperties"},
    has_lone_references=True,
    has_root_union=True,
)
GEMINI_TOOLS = replace(GEMINI, has_root_union=False)

# https://docs.mistral.ai/capabilities/structured_output/custom; its SDK's `rec_strict_json_schema` closes every object.
MISTRAL = Subset(
    keywords=frozenset({"const", "default", "title"}) | _NUMBERS | _TEXTS | _LISTS,
    patterns=_REGULAR,
    is_closed=True,
)

# https://docs.cohere.com/docs/structured-outputs (Schema support: what is listed as unsupported is left out).
COHERE = Subset(
    keywords=frozenset({"const", "pattern", "format", "title", "default", "additionalProperties"}),
    formats=frozenset({"date-time", "uuid", "date", "time"}),
    patterns=re.compile(r"\A(?!.*(?:\(\?|\^|\$|\\[1-9bB]))", re.S),
    has_recursion=False,
    has_type_lists=False,
)

# https://github.com/ggml-org/llama.cpp/blob/master/grammars/README.md (JSON Schemas → GBNF), whose converter fails on
# a pattern that is not anchored at both ends and passes over what it does not know, and over `prefixItems` beside
# `items`. Ollama has it too.
LLAMA_CPP = Subset(
    keywords=frozenset({"const", "title", "default", "additionalProperties"})
    | _TEXTS
    | _LISTS
    | {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"},
    formats=frozenset({"date", "time", "date-time", "uuid"}),
    patterns=re.compile(r"\A\^(?!.*(?:\(\?(?!:)|\\[1-9bBkpPsSwWdD]))(?!.*[^\\]\$.).*\$\Z", re.S),
    has_root_union=True,
)

# https://github.com/guidance-ai/llguidance/blob/main/docs/json_schema.md
LLGUIDANCE = Subset(
    keywords=frozenset({"const", "title", "default", "prefixItems", "additionalProperties", "patternProperties"})
    | _NUMBERS
    | _TEXTS
    | _LISTS,
    formats=_FORMATS | {"uri", "unknown"},
    patterns=_REGULAR,
    has_root_union=True,
    is_finite=True,
)

# https://github.com/ollama/ollama/blob/main/api/types.go: a tool's parameters are read into fields, the rest is lost.
OLLAMA_TOOLS = Subset(keywords=frozenset(), has_references=False, has_recursion=False)

# https://platform.openai.com/docs/guides/function-calling: what is no strict tool may have any keyword, save that the
# root is an object without a union; Anthropic and Bedrock say the same of `input_schema`.
_ANY = (
    _NUMBERS
    | _TEXTS
    | _LISTS
    | {"const", "title", "default", "examples", "additionalProperties", "patternProperties", "propertyNames", "oneOf"}
    | {"prefixItems", "contains", "minContains", "maxContains", "uniqueItems", "minProperties", "maxProperties"}
    | {"not", "if", "then", "else", "dependentRequired", "dependentSchemas", "unevaluatedProperties"}
    | {"unevaluatedItems", "contentEncoding", "contentMediaType"}
)
ANY_OBJECT = Subset(keywords=frozenset(_ANY))

_ROOT_UNIONS = frozenset({"anyOf", "oneOf", "allOf", "enum", "not", "$ref"})


def shape_of(wanted: OutputSchema, subset: Subset) -> tuple[Lowered, tuple[Notice, ...]]:
    """The schema of an answer as a server takes it, and what to say of it."""
    shape = lowered(wanted.json, subset)
    if not shape.losses:
        return shape, ()
    return shape, (Notice("emulated", "schema", f"{told(shape.losses, wanted.name)}; the answer is checked"),)


def parameters_of(tool: ToolSpec, subset: Subset = ANY_OBJECT) -> dict[str, Any]:
    """A tool's parameters as a server takes them."""
    return tool.parameters if _is_taken(tool.parameters, subset) else lowered(tool.parameters, subset).json


def told_of_tools(tools: Iterable[ToolSpec], dialect: str, subset: Subset = ANY_OBJECT) -> Iterator[Notice]:
    """What to say of tools whose parameters were lowered; those that came in the dialect's own words were not."""
    for tool in tools:
        is_own = tool.state is not None and tool.state.dialect == dialect
        if is_own or _is_taken(tool.parameters, subset):
            continue
        if losses := lowered(tool.parameters, subset).losses:
            yield Notice("emulated", "tools", f"{told(losses, tool.name)}; arguments are checked by the tool")


def _is_taken(schema: dict[str, Any], subset: Subset) -> bool:
    if not schema:
        return True
    return subset is ANY_OBJECT and schema.get("type") == "object" and schema.keys().isdisjoint(_ROOT_UNIONS)
