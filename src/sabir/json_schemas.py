"""What a JSON Schema says, read as it stands; knows no server and no way to change one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from .strict_json import is_array, is_object, list_of, mapping_of

# No schema is followed further down, nor through more references in a row.
DEEPEST_SCHEMA = 60
TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")


def found(root: Any, pointer: Any) -> Any:
    """What a reference leads to inside this document (RFC 6901); None where it leads out of it, or nowhere."""
    if not isinstance(pointer, str) or not (pointer == "#" or pointer.startswith("#/")):
        return None
    here = root
    for token in unquote(pointer[2:]).split("/") if len(pointer) > 1 else ():
        key = token.replace("~1", "/").replace("~0", "~")
        if is_object(here) and key in here:
            here = here[key]
        elif is_array(here) and key.isdecimal() and int(key) < len(here):
            here = here[int(key)]
        else:
            return None
    return here


def references(schema: Any) -> Iterator[str]:
    """The references in a schema, but for those in the definitions that it carries."""
    rest = [schema]
    while rest:
        each = rest.pop()
        if is_object(each):
            if isinstance(pointer := each.get("$ref"), str):
                yield pointer
            rest += [value for name, value in each.items() if name not in ("$defs", "definitions", *_DATA)]
        elif is_array(each):
            rest += each


_DATA = ("enum", "const", "default", "examples", "example")


def types_of(schema: Mapping[str, Any]) -> list[str]:
    types = schema.get("type")
    return [each for each in (types if is_array(types) else [types]) if each in TYPES]


def choices(schema: Any) -> list[Any]:
    """The texts and numbers that a schema takes, where it lists them."""
    listed = [schema["const"]] if is_object(schema) and "const" in schema else list_of(mapping_of(schema).get("enum"))
    return [each for each in listed if isinstance(each, str | int)]


def says_null(schema: dict[str, Any]) -> bool:
    """Whether a schema takes null, as far as it says itself."""
    if "const" in schema:
        return schema["const"] is None
    if "enum" in schema:
        return None in list_of(schema["enum"])
    if "type" in schema:
        return "null" in types_of(schema) or schema.get("nullable") is True
    return not schema.keys() & {"$ref", "anyOf", "oneOf", "allOf", "properties", "items"}


def is_dictionary_schema(schema: dict[str, Any]) -> bool:
    return bool(kinds_of_values(schema)) and not schema.get("properties")


def kinds_of_values(schema: Mapping[str, Any]) -> list[Any]:
    """The schemas of a dictionary's values."""
    patterns = list(mapping_of(schema.get("patternProperties")).values())
    others = schema.get("additionalProperties")
    return [*patterns, *([others] if is_object(others) or (others is True and not patterns) else [])]


def without(schema: Mapping[str, Any], keyword: str) -> dict[str, Any]:
    return {name: value for name, value in schema.items() if name != keyword}
