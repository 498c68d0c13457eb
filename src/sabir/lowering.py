"""JSON Schemas as a wire format's strict mode wants them; says when that cannot be done without loss.

Strict mode (https://platform.openai.com/docs/guides/structured-outputs): every object forbids other properties and
requires all of its own.
"""

from __future__ import annotations

from typing import Any

from .strict_json import is_object


def strict_schema(schema: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """The schema with `additionalProperties: false` on every object, and True; or unchanged, and False.

    False where an object has optional or free-form properties: forcing them would change what is valid.
    """
    try:
        return _strict(schema), True
    except _Loose:
        return schema, False


class _Loose(Exception):
    pass


# The keywords whose values are schemas, lists of schemas, or named schemas. What stands elsewhere (`enum`, `const`,
# `default`) is data that may look like a schema.
_ONE = ("items", "not", "if", "then", "else")
_SEVERAL = ("anyOf", "oneOf", "allOf", "prefixItems")
_NAMED = ("properties", "$defs", "definitions")


def _strict(schema: Any) -> Any:
    if not is_object(schema):
        return schema
    lowered = dict(schema)
    for keyword in _ONE:
        if keyword in schema:
            lowered[keyword] = _strict(schema[keyword])
    for keyword in _SEVERAL:
        if keyword in schema:
            lowered[keyword] = [_strict(item) for item in schema[keyword]]
    for keyword in _NAMED:
        if keyword in schema:
            lowered[keyword] = {name: _strict(item) for name, item in schema[keyword].items()}
    if schema.get("type") == "object" or "properties" in schema:
        properties = schema.get("properties", {})
        if schema.get("additionalProperties") or not properties or set(properties) - set(schema.get("required", ())):
            raise _Loose
        lowered["additionalProperties"] = False
    elif not any(keyword in schema for keyword in ("type", "$ref", "anyOf", "enum", "const")):
        raise _Loose
    return lowered
