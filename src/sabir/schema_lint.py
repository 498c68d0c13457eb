"""Which providers a schema will trouble, and how, told before anything is asked. Knows only what their formats say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from .errors import SabirError
from .messages import user
from .providers import PROVIDERS, Provider
from .requests import Notice, OutputSchema, Request, SchemaMode, ToolSpec
from .schema import schema_of
from .strict_json import is_array, is_object, list_of, mapping_of
from .structured import way_of

Use = Literal["answer", "tool"]


class SchemaFinding(msgspec.Struct, frozen=True):
    """What several providers make of a schema that shapes an answer, or says what a tool takes.

    `mode` is how an answer is made to fit it with a model of theirs that can be, None for a tool. `troubles` are
    sentences on what gets lost; none, if the schema goes along whole and is enforced as far as they enforce any.
    """

    use: Use
    providers: tuple[str, ...]
    mode: SchemaMode | None
    troubles: tuple[str, ...]


def lint_schema(schema: Any) -> tuple[SchemaFinding, ...]:
    """Say what becomes of a schema (a type, or a JSON Schema) with each provider: those with the least trouble first.

    Raises:
        ConfigurationError: there is no JSON Schema for the type, or the dict is none.
    """
    shape = schema_of(schema)
    found: dict[tuple[Use, SchemaMode | None, tuple[str, ...]], list[str]] = {}
    for row in PROVIDERS.values():
        if not row.has_chat:
            continue
        mode, troubles = _as_answer(row, OutputSchema(shape.name, shape.json))
        found.setdefault(("answer", mode, troubles), []).append(row.name)
        told = _as_tool(row, ToolSpec(shape.name, "", shape.json))
        found.setdefault(("tool", None, told), []).append(row.name)
    findings = (SchemaFinding(use, tuple(names), mode, troubles) for (use, mode, troubles), names in found.items())
    return tuple(sorted(findings, key=lambda each: (each.use, len(each.troubles), -len(each.providers))))


def _as_answer(row: Provider, schema: OutputSchema) -> tuple[SchemaMode | None, tuple[str, ...]]:
    request = Request(model=_model(row), messages=(user("?"),), schema=schema)
    try:
        way = way_of(request, row.dialect.schema_modes, None, is_held=None, calls_tools=None)
        asked = msgspec.structs.replace(request, schema=msgspec.structs.replace(schema, mode=way.mode))
        notices = row.dialect.encode_request(asked)[1]
    except SabirError as error:
        return None, (str(error),)
    mode: SchemaMode = "grammar" if way.mode == "native" and row.engine is not None else way.mode
    asked_for = "not enforced: it is asked for in the prompt"
    others = {"tool": "not enforced: it is sent as a tool's parameters", "json": asked_for, "prompt": asked_for}
    return mode, (*((others[mode],) if mode in others else ()), *_told(notices, "schema"))


def _as_tool(row: Provider, tool: ToolSpec) -> tuple[str, ...]:
    request = Request(model=_model(row), messages=(user("?"),), tools=(tool,))
    try:
        return _told(row.dialect.encode_request(request)[1], "tools")
    except SabirError as error:
        return (str(error),)


def _model(row: Provider) -> str:
    return row.model or "a-model"


def _told(notices: tuple[Notice, ...], subject: str) -> tuple[str, ...]:
    return tuple(notice.message for notice in notices if notice.subject == subject)


def schemas_in(value: Any) -> Mapping[str, dict[str, Any]]:
    """The schemas in a decoded JSON file, by name: one schema, or a list of tools as MCP, OpenAI or Anthropic have it.

    Raises:
        ValueError: there is none.
    """
    tools = mapping_of(value).get("tools")
    listed = tools if is_array(tools) else value
    if is_object(listed):
        return {str(listed.get("title", "schema")): listed}
    found: dict[str, dict[str, Any]] = {}
    for tool in list_of(listed):
        inner = mapping_of(mapping_of(tool).get("function", tool))
        schema = next((inner[name] for name in ("inputSchema", "input_schema", "parameters") if name in inner), None)
        if is_object(schema):
            found[str(inner.get("name"))] = schema
    if not found:
        raise ValueError("it is no JSON Schema and no list of tools")
    return found
