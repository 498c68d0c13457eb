"""Values of a lowered schema as values of the original: what `lowering` asks for otherwise is undone.

Knows only the original schema. Null stands for an optional property that is absent and takes none, a list of entries
for a dictionary; of a union, the branch that fits the value best says how it is meant.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .json_schemas import (
    DEEPEST_SCHEMA,
    choices,
    found,
    is_dictionary_schema,
    kinds_of_values,
    says_null,
    types_of,
)
from .strict_json import is_array, is_object, list_of, mapping_of


def lifted(value: Any, schema: Mapping[str, Any], *, is_partial: bool = False) -> Any:
    """A value of a lowered schema as one of the original: null for absent, entries for a dictionary are undone.

    Where nothing is to be undone, the value comes back as it is; so do entries of which two have one key. One that is
    still being written (`is_partial`) may end in an entry that has no value yet, and which is left out.
    """
    return _Lifting(schema, is_partial).lifted(value, schema, 0)


class _Lifting:
    """Values of one schema on their way back."""

    def __init__(self, root: Mapping[str, Any], is_partial: bool) -> None:
        self._root = root
        self._is_partial = is_partial

    def lifted(self, value: Any, schema: Any, depth: int) -> Any:
        if depth > DEEPEST_SCHEMA or not (is_object(value) or is_array(value)):
            return value
        shapes = list(self._shapes(schema, value, 0))
        if is_array(value):
            values = next((kinds_of_values(each) for each in shapes if is_dictionary_schema(each)), None)
            entries = self._entries(value) if values and not any("array" in types_of(each) for each in shapes) else None
            if values and entries is not None:
                kind = values[0] if len(values) == 1 else {"anyOf": values}
                return {key: self.lifted(each, kind, depth + 1) for key, each in entries}
            items = next((each["items"] for each in shapes if is_object(each.get("items"))), None)
            first = [kind for each in shapes for kind in list_of(each.get("prefixItems"))]
            kinds = [*first, *(items for _ in value[len(first) :])]
            return [self.lifted(each, kind, depth + 1) for each, kind in zip(value, kinds, strict=False)]
        assert is_object(value)
        properties: dict[str, Any] = {}
        required: set[str] = set()
        for shape in shapes:
            properties = {**mapping_of(shape.get("properties")), **properties}
            required |= {name for name in list_of(shape.get("required")) if isinstance(name, str)}
        others = next((each["additionalProperties"] for each in shapes if "additionalProperties" in each), None)
        result: dict[str, Any] = {}
        for name, each in value.items():
            if each is None and name in properties and name not in required and not self._takes_null(properties[name]):
                continue
            result[name] = self.lifted(each, properties.get(name, others), depth + 1)
        return result

    def _entries(self, value: list[Any]) -> list[tuple[str, Any]] | None:
        """The keys and values of a dictionary that was written as a list; None if it was not."""
        if self._is_partial and value and is_object(value[-1]) and value[-1].keys() < {"key", "value"}:
            value = value[:-1]
        if not all(is_object(each) and each.keys() == {"key", "value"} for each in value):
            return None
        entries = [(each["key"], each["value"]) for each in value]
        keys = [key for key, _ in entries]
        return entries if all(isinstance(key, str) for key in keys) and len(set(keys)) == len(keys) else None

    def _shapes(self, schema: Any, value: Any, depth: int) -> Iterator[dict[str, Any]]:
        """The schemas that describe this value: this one, what it refers to, and the branch of a union that fits."""
        if not is_object(schema) or depth > DEEPEST_SCHEMA:
            return
        yield schema
        if "$ref" in schema:
            yield from self._shapes(found(self._root, schema["$ref"]), value, depth + 1)
        for part in list_of(schema.get("allOf")):
            yield from self._shapes(part, value, depth + 1)
        for union in ("anyOf", "oneOf"):
            if branches := list_of(schema.get(union)):
                best = max(branches, key=lambda branch: self._fit(branch, value, depth + 1))
                yield from self._shapes(best, value, depth + 1)

    def _fit(self, schema: Any, value: Any, depth: int) -> tuple[bool, bool, int]:
        """How well a branch of a union describes a value: its kind, its constants, how many names it knows."""
        shapes = list(self._shapes(schema, value, depth))
        types = {name for shape in shapes for name in types_of(shape)}
        if is_array(value):
            return ("array" in types or any(map(is_dictionary_schema, shapes)), True, 0)
        names = {name: each for shape in shapes for name, each in mapping_of(shape.get("properties")).items()}
        are_right = all(not (said := choices(each)) or value.get(name) in said for name, each in names.items())
        required = {name for shape in shapes for name in list_of(shape.get("required"))}
        return ("object" in types or bool(names), are_right and required <= value.keys(), len(value.keys() & names))

    def _takes_null(self, schema: Any) -> bool:
        return any(says_null(shape) for shape in self._all_shapes(schema, 0))

    def _all_shapes(self, schema: Any, depth: int) -> Iterator[dict[str, Any]]:
        if not is_object(schema) or depth > DEEPEST_SCHEMA:
            return
        yield schema
        if "$ref" in schema:
            yield from self._all_shapes(found(self._root, schema["$ref"]), depth + 1)
        for union in ("anyOf", "oneOf", "allOf"):
            for branch in list_of(schema.get(union)):
                yield from self._all_shapes(branch, depth + 1)
