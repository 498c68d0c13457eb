"""A schema that contains itself, made finite: for who is held to it token by token, and would not come to an end."""

from __future__ import annotations

from typing import Any

from .json_schemas import without
from .strict_json import is_object


def with_levels(schema: dict[str, Any], depth: int) -> dict[str, Any] | None:
    """The schema with a definition of its own for each level, `depth` of them; None where that says nothing any more.

    Its references are all to `$defs`, as `lowering` writes them.
    """
    return _Levels(schema).root(depth)


class _Levels:
    """A schema that contains itself, with a definition of its own for each level, down to the deepest."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._root = without(schema, "$defs")
        self._given: dict[str, Any] = schema["$defs"]
        self._defs: dict[str, Any] = {}

    def root(self, depth: int) -> dict[str, Any] | None:
        root = self._built(self._root, depth)
        if root is None:
            return None
        return {**root, "$defs": {name: each for name, each in self._defs.items() if each is not None}}

    def _built(self, schema: Any, level: int) -> dict[str, Any] | None:
        """The schema down to a level; None where nothing can be said at this one."""
        if not is_object(schema):
            return {}
        if "$ref" in schema:
            reference = self._referred(schema["$ref"].removeprefix("#/$defs/"), level)
            return None if reference is None else {**schema, "$ref": reference}
        built = dict(schema)
        if "anyOf" in schema:
            branches = [self._built(each, level) for each in schema["anyOf"]]
            built["anyOf"] = [each for each in branches if each is not None]
            if not built["anyOf"]:
                return None
        if "properties" in schema:
            parts = {name: self._built(each, level) for name, each in schema["properties"].items()}
            if any(parts[name] is None for name in schema.get("required", ()) if name in parts):
                return None
            built["properties"] = {name: each for name, each in parts.items() if each is not None}
        for inside, none in (("items", {"maxItems": 0}), ("additionalProperties", {"additionalProperties": False})):
            if is_object(schema.get(inside)):
                part = self._built(schema[inside], level)
                if part is None and schema.get("minItems"):
                    return None
                built = {**without(built, inside), **none} if part is None else {**built, inside: part}
        if "prefixItems" in schema:
            firsts = [self._built(each, level) for each in schema["prefixItems"]]
            if None in firsts:
                return None
            built["prefixItems"] = firsts
        return built

    def _referred(self, name: str, level: int) -> str | None:
        if level == 0:
            return None
        leveled = f"{name}@{level}"
        if leveled not in self._defs:
            self._defs[leveled] = self._built(self._given[name], level - 1)
        return None if self._defs[leveled] is None else f"#/$defs/{leveled}"
