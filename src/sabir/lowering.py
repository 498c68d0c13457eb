"""JSON Schemas as a wire format's strict mode wants them; says when that cannot be done without loss.

Strict mode (https://platform.openai.com/docs/guides/structured-outputs): every object forbids other properties and
requires all of its own.
"""

from __future__ import annotations

from typing import Any

from .strict_json import is_array, is_object


def strict_schema(schema: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """The schema with `additionalProperties: false` on every object, and True; or unchanged, and False.

    False where an object has optional or free-form properties, since forcing them would change what is valid, and where
    strict mode refuses the schema: it is no object, or has a keyword that is not in the subset.
    """
    try:
        return (_strict(schema), True) if schema.get("type") == "object" else (schema, False)
    except _Loose:
        return schema, False


class _Loose(Exception):
    pass


# The keywords whose values are named schemas; `items` is one schema, `anyOf` several. What stands elsewhere (`enum`,
# `const`, `default`) is data that may look like a schema.
_NAMED = ("properties", "$defs", "definitions")
# What strict mode answers with HTTP 400.
_REFUSED = frozenset(
    {"allOf", "oneOf", "not", "if", "then", "else", "dependentRequired", "dependentSchemas", "patternProperties"}
    | {"propertyNames", "unevaluatedProperties", "prefixItems", "contains", "uniqueItems", "unevaluatedItems"}
)


def _strict(schema: Any) -> Any:
    if not is_object(schema) or _REFUSED & schema.keys() or ("$ref" in schema and len(schema) > 1):
        raise _Loose
    lowered = dict(schema)
    if "items" in schema:
        lowered["items"] = _strict(schema["items"])
    if "anyOf" in schema:
        lowered["anyOf"] = [_strict(item) for item in _array(schema["anyOf"])]
    for keyword in _NAMED:
        if keyword in schema:
            lowered[keyword] = {name: _strict(item) for name, item in _object(schema[keyword]).items()}
    types = schema.get("type")
    types = types if is_array(types) else [types]
    if "array" in types and "items" not in schema:
        raise _Loose
    if "object" in types or "properties" in schema:
        properties = schema.get("properties", {})
        required = _array(schema.get("required", []))
        if schema.get("additionalProperties") or not properties or any(name not in required for name in properties):
            raise _Loose
        lowered["additionalProperties"] = False
    elif not any(keyword in schema for keyword in ("type", "$ref", "anyOf", "enum", "const")):
        raise _Loose
    return lowered


def _array(value: Any) -> list[Any]:
    """What must be an array; a schema that is malformed is not for strict mode, and its server will say why."""
    if not is_array(value):
        raise _Loose
    return value


def _object(value: Any) -> dict[str, Any]:
    if not is_object(value):
        raise _Loose
    return value
