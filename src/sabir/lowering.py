"""JSON Schemas as a wire format takes them; knows no format, only the `Subset` that each declares.

A schema is only ever widened on the way: what is valid under the original is valid under the lowered one, in the
spelling that `lifting` reads back (null for an optional property that is absent, a list of entries for a dictionary).
(Save for a model that is held to it token by token and would not come to an end: see `Subset.is_finite`.)
Each step that loses something is a `Loss` of a fixed list; what is no longer enforced stands in the descriptions, where
the model reads it, and answers are held against the original.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, cast

from .json_schemas import (
    DEEPEST_SCHEMA,
    choices,
    found,
    is_dictionary_schema,
    kinds_of_values,
    references,
    says_null,
    types_of,
    without,
)
from .schema_levels import with_levels
from .strict_json import decode_json, encode_json, is_array, is_object, list_of, mapping_of

LossKind = Literal[
    "unenforced", "one_of", "closed", "null_for_absent", "entries", "recursion", "depth", "union", "guide"
]
LOSSES: Mapping[LossKind, str] = {
    "unenforced": "a keyword is not enforced; it stands in the description instead",
    "one_of": "`oneOf` is sent as `anyOf`, so that an answer may fit several of them",
    "closed": "an object that allows further properties is asked for without them",
    "null_for_absent": "an optional property is asked for as null, which is read as absent",
    "entries": "a dictionary is asked for as a list of keys and values, which is read as a dictionary",
    "recursion": "a schema that contains itself is open from there on",
    "depth": "a schema that contains itself does so only ten deep",
    "union": "a union of objects is sent as one object with the properties of all",
    "guide": "the schema is sent, but not enforced",
}


@dataclass(frozen=True, slots=True)
class Subset:
    """What of JSON Schema (draft 2020-12) a server takes.

    Attributes:
        keywords: the keywords that constrain values, beside those that build a schema: `type`, `properties`,
            `required`, `items`, `enum`, `anyOf`, `$ref` and `additionalProperties`.
        formats: what `format` may say; None is anything.
        patterns: what a `pattern` has to match here to be taken; None is anything.
        least_items: what `minItems` may say; None is any number.
        is_closed: whether every object has to forbid what it does not name, and every value to have a type.
        requires_all: whether every property has to be required.
        has_references: whether `$ref` and `$defs` are taken; where not, what is referred to is put in place.
        has_recursion: whether a schema may contain itself.
        has_lone_references: whether `$ref` has to be alone in its object.
        has_type_lists: whether `type` may be a list.
        has_root_union: whether the root may have `anyOf`, and need not say that it is an object.
        is_finite: whether a schema may contain itself only so deep (`MAX_RECURSION`), a time has nine decimals at most,
            and an integer has to be one that every JSON reader takes (RFC 8259, section 6): what has no end in the
            grammar, a model may not end.
        max_depth, max_properties, max_optional: the most nested objects, properties and optional properties.
    """

    keywords: frozenset[str]
    formats: frozenset[str] | None = None
    patterns: re.Pattern[str] | None = None
    least_items: frozenset[int] | None = None
    is_closed: bool = False
    requires_all: bool = False
    has_references: bool = True
    has_recursion: bool = True
    has_lone_references: bool = False
    has_type_lists: bool = True
    has_root_union: bool = False
    is_finite: bool = False
    max_depth: int | None = None
    max_properties: int | None = None
    max_optional: int | None = None


@dataclass(frozen=True, slots=True)
class Loss:
    """Something of a schema that did not go along: which of `LOSSES`, where (as `$.items[].name`), which keyword."""

    kind: LossKind
    path: str
    keyword: str = ""


@dataclass(frozen=True, slots=True)
class Lowered:
    """A schema as a server takes it, and what it lost. `obstacle` says why it cannot be enforced, if it cannot.

    One that cannot be enforced is widened as far as is needed to be sent as a guide.
    """

    losses: tuple[Loss, ...]
    obstacle: str | None
    _text: bytes = field(repr=False)

    @property
    def json(self) -> dict[str, Any]:
        """The schema, a copy at each access."""
        return cast("dict[str, Any]", decode_json(self._text))


def lowered(schema: Mapping[str, Any], subset: Subset) -> Lowered:
    """Lower a schema; the same one costs nothing the second time.

    Raises:
        TypeError, ValueError: the schema is not JSON.
    """
    return _lowered(encode_json(schema), subset)


def told(losses: Iterable[Loss], name: str) -> str:
    """What was lost, in a sentence for each kind; `name` is what the schema is of."""
    by_kind: dict[LossKind, list[Loss]] = {}
    for loss in losses:
        by_kind.setdefault(loss.kind, []).append(loss)
    sentences = (f"{LOSSES[kind]} ({_places(several)})" for kind, several in by_kind.items())
    return f"the schema {name!r} was lowered: {'; '.join(sentences)}"


@lru_cache(maxsize=1024)
def _lowered(text: bytes, subset: Subset) -> Lowered:
    root = decode_json(text)
    work = _Lowering(root, subset)
    try:
        schema = work.root()
        return Lowered(tuple(dict.fromkeys(work.losses)), None, encode_json(schema))
    except (_ObstacleError, RecursionError) as error:
        found = error if isinstance(error, _ObstacleError) else _ObstacleError("it is nested too deeply", "$")
    obstacle = f"{found.reason} at {found.path}"
    work = _Lowering(root, _widest(subset))
    try:
        schema = work.root()
    except (_ObstacleError, RecursionError):
        return Lowered((Loss("guide", "$"),), obstacle, encode_json({"type": "object"}))
    return Lowered((Loss("guide", found.path), *dict.fromkeys(work.losses)), obstacle, encode_json(schema))


@lru_cache
def _widest(subset: Subset) -> Subset:
    """The subset without the demands that only an enforced schema has to meet."""
    return Subset(
        keywords=subset.keywords,
        formats=subset.formats,
        patterns=subset.patterns,
        least_items=subset.least_items,
        has_references=subset.has_references,
        has_recursion=subset.has_recursion,
        has_lone_references=subset.has_lone_references,
        has_type_lists=subset.has_type_lists,
        has_root_union=subset.has_root_union,
    )


class _ObstacleError(Exception):
    def __init__(self, reason: str, path: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path = path


# What says nothing of which values are valid. The two that help a model go into the description.
_HINTS = ("default", "examples")
_ANNOTATIONS = frozenset(
    {"$schema", "$id", "id", "$comment", "$anchor", "$dynamicAnchor", "$vocabulary", "$defs", "definitions", "title"}
    | {"description", "example", "deprecated", "readOnly", "writeOnly", "discriminator", "xml", "externalDocs"}
    | {"propertyOrdering", "contentEncoding", "contentMediaType", "contentSchema", "nullable", *_HINTS}
)
_BUILDING = frozenset({"type", "properties", "required", "items", "enum", "anyOf", "$ref", "additionalProperties"})
# How deep a schema may contain itself where it has to have an end.
MAX_RECURSION = 10
_SAFE_INTEGER = 2**53 - 1
# RFC 3339 with nanoseconds; more decimals would be allowed without an end.
_LONGEST_TIME = 35
_DECIMAL = r"^-?[0-9]{1,20}(?:\.[0-9]{1,20})?$"
_MOST_TOLD = 300


class _Lowering:
    """One schema on its way into a subset."""

    def __init__(self, root: Any, subset: Subset) -> None:
        self.losses: list[Loss] = []
        self._root = root
        self._subset = subset
        # By the pointer of what is referred to: its name in `$defs`, and what became of it.
        self._names: dict[str, str] = {}
        self._defs: dict[str, Any] = {}
        self._recursive: dict[str, bool] = {}
        # What is being put in place of a reference, from the root down.
        self._inlining: list[str] = []
        self._properties = 0
        self._optional = 0

    def root(self) -> dict[str, Any]:
        schema = self._normal(self._root, "$")
        if not self._subset.has_root_union and ("anyOf" in schema or "$ref" in schema):
            schema = self._without_root_union(schema)
        if not self._subset.has_root_union and types_of(schema) != ["object"]:
            if self._subset.is_closed:
                raise _ObstacleError("the root is no object", "$")
            schema = {**schema, "type": "object"}
        result = self._built(schema, "$", 0, is_root=True)
        subset = self._subset
        for most, count, what in (
            (subset.max_properties, self._properties, "properties"),
            (subset.max_optional, self._optional, "optional properties"),
        ):
            if most is not None and count > most:
                raise _ObstacleError(f"it has {count} {what}, where {most} are taken", "$")
        whole = {**result, "$defs": self._defs} if self._defs else result
        if subset.is_finite and any(map(self._is_recursive, self._names)):
            self._lose("depth", "$")
            if (leveled := with_levels(whole, MAX_RECURSION)) is None:
                raise _ObstacleError("it has no end", "$")
            return leveled
        return whole

    # From any spelling to the one that is lowered

    def _normal(self, given: Any, path: str) -> dict[str, Any]:
        """The schema in one spelling: no `allOf`, nothing that constrains beside `$ref`, no keywords of old drafts."""
        if not is_object(given):
            # `true` is any value; `false`, which is none, cannot be said to a model.
            return {} if given is not False else {"not": {}}
        schema = dict(given)
        if "$ref" in schema and not isinstance(schema["$ref"], str):
            del schema["$ref"]
            self._lose("unenforced", path, "$ref")
        if schema.get("nullable") is True and "type" in schema:
            types = types_of(schema)
            schema["type"] = [*types, *([] if "null" in types else ["null"])]
            if is_array(schema.get("enum")) and None not in schema["enum"]:
                schema["enum"] = [*schema["enum"], None]
        if is_array(schema.get("items")):
            # Draft 7 and before.
            schema["prefixItems"] = schema.pop("items")
            if "additionalItems" in schema:
                schema["items"] = schema.pop("additionalItems")
        for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
            # Draft 4 and before, and OpenAPI 3.0.
            if isinstance(is_exclusive := schema.get(exclusive), bool):
                del schema[exclusive]
                if is_exclusive and bound in schema:
                    schema[exclusive] = schema.pop(bound)
        if "$ref" in schema and not schema.keys() <= _ANNOTATIONS | {"$ref"}:
            reference = schema.pop("$ref")
            schema = self._merged(schema, {"$ref": reference}, path)
        if "allOf" in schema:
            for part in list_of(schema.pop("allOf")):
                schema = self._merged(schema, part, path)
        if "oneOf" in schema and "oneOf" not in self._subset.keywords:
            branches = list_of(schema.pop("oneOf"))
            if "anyOf" in schema:
                self._lose("unenforced", path, "oneOf")
            else:
                if not self._are_apart(branches):
                    self._lose("one_of", path)
                schema["anyOf"] = branches
        return schema

    def _merged(self, schema: dict[str, Any], part: Any, path: str) -> dict[str, Any]:
        """Both at once, as far as one schema can say it: a part of `allOf`, or what `$ref` has beside it."""
        part = self._normal(part, path)
        if "$ref" in part:
            pointer = part["$ref"]
            if pointer in self._inlining or len(self._inlining) > DEEPEST_SCHEMA:
                self._lose("unenforced", path, "allOf")
                return schema
            self._inlining.append(pointer)
            try:
                part = {**self._merged({}, self._target(pointer, path), path), **without(part, "$ref")}
            finally:
                self._inlining.pop()
        merged = dict(schema)
        for keyword, said in part.items():
            if keyword not in merged or merged[keyword] == said:
                merged[keyword] = said
            elif keyword not in _ANNOTATIONS:
                known = merged[keyword]
                both = self._both(keyword, known, said, path)
                if both is None:
                    self._lose("unenforced", path, keyword)
                else:
                    merged[keyword] = both
            elif keyword == "description":
                merged[keyword] = f"{merged[keyword]}\n{said}"
        return merged

    def _both(self, keyword: str, one: Any, other: Any, path: str) -> Any:
        """A keyword's value that says both; None where there is none, and the first then stands."""
        if keyword == "properties" and is_object(one) and is_object(other):
            both = dict(one)
            for name, each in other.items():
                if name in both:
                    both[name] = self._merged(self._normal(both[name], f"{path}.{name}"), each, f"{path}.{name}")
                else:
                    both[name] = each
            return both
        if keyword == "required" and is_array(one) and is_array(other):
            return list(dict.fromkeys([*one, *other]))
        if keyword == "type":
            types = _common_types(types_of({"type": one}), types_of({"type": other}))
            return (types[0] if len(types) == 1 else types) if types else None
        if keyword == "enum" and is_array(one) and is_array(other):
            return [each for each in one if each in other] or None
        numbers = isinstance(one, (int, float)) and isinstance(other, (int, float))
        if numbers and keyword in ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"):
            return max(one, other)
        if numbers and keyword in ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"):
            return min(one, other)
        return None

    def _are_apart(self, branches: list[Any]) -> bool:
        """Whether no value fits two of these: their types differ, or a property that each requires says which."""
        branches = [self._seen(each) for each in branches]
        # An integer is a number, too.
        kinds = [{"number" if name == "integer" else name for name in types_of(each)} for each in branches]
        if all(kinds) and all(not one & other for one, other in _pairs(kinds)):
            return True
        named: list[dict[str, Any]] = [
            {
                name: choices(self._seen(each))
                for name, each in mapping_of(branch.get("properties")).items()
                if name in list_of(branch.get("required"))
            }
            for branch in branches
        ]
        shared = set[str].intersection(*(set(each) for each in named)) if named else set[str]()
        return any(
            all(one[name] and other[name] and not set(one[name]) & set(other[name]) for one, other in _pairs(named))
            for name in shared
        )

    def _seen(self, schema: Any) -> dict[str, Any]:
        """The schema, or what it refers to."""
        for _ in range(DEEPEST_SCHEMA):
            if not is_object(schema) or "$ref" not in schema:
                break
            schema = found(self._root, schema["$ref"])
        return schema if is_object(schema) else {}

    def _target(self, pointer: Any, path: str) -> Any:
        target = found(self._root, pointer)
        if target is None:
            # Another document's, an anchor's, or one that leads nowhere; nothing is fetched.
            self._lose("unenforced", path, "$ref")
            return {}
        return target

    # From there into the subset

    def _lower(self, schema: Any, path: str, depth: int) -> dict[str, Any]:
        return self._built(self._normal(schema, path), path, depth)

    def _built(self, schema: dict[str, Any], path: str, depth: int, *, is_root: bool = False) -> dict[str, Any]:
        if depth > DEEPEST_SCHEMA:
            raise _ObstacleError("it is nested too deeply", path)
        if "$ref" in schema:
            return self._referring(schema, path, depth, is_root)
        subset = self._subset
        if "anyOf" in schema and subset.is_closed and schema.keys() - _ANNOTATIONS - {"anyOf"}:
            # What stands beside the union holds for each branch, which has to be complete in itself here.
            beside = {name: value for name, value in schema.items() if name not in _ANNOTATIONS and name != "anyOf"}
            branches = [self._merged(self._normal(each, path), beside, path) for each in list_of(schema["anyOf"])]
            schema = {**{name: value for name, value in schema.items() if name in _ANNOTATIONS}, "anyOf": branches}
        types = types_of(schema)
        if len(types) > 1 and not subset.has_type_lists:
            if "enum" not in schema and "anyOf" not in schema:
                return self._built(_with_types_apart(schema, types), path, depth)
            # The choices say the type themselves.
            schema, types = without(schema, "type"), []
        result: dict[str, Any] = {}
        unenforced: dict[str, Any] = {}
        if "type" in schema and not types:
            unenforced["type"] = schema["type"]
        if types:
            result["type"] = types[0] if len(types) == 1 else types
        for keyword in ("enum", "const"):
            if keyword in schema:
                result |= self._chosen(schema[keyword], keyword, path)
        if "anyOf" in schema:
            result["anyOf"] = [self._lower(each, path, depth) for each in list_of(schema["anyOf"])]
        is_object_ = "object" in types or (not types and not schema.keys().isdisjoint(_OBJECTS))
        if is_object_ or (is_root and "anyOf" not in result):
            if self._is_dictionary(schema) and not is_root:
                return self._entries(schema, path, depth)
            result |= self._objects(schema, path, depth, unenforced)
        if "array" in types or (not types and not schema.keys().isdisjoint(_ARRAYS)):
            result |= self._arrays(schema, path, depth, unenforced)
        if subset.is_closed and not result.keys() & {"type", "anyOf", "enum", "const"}:
            raise _ObstacleError("it says of no type what it takes", path)
        for keyword, value in schema.items():
            if keyword not in result and keyword not in _ANNOTATIONS and keyword not in _HANDLED:
                if keyword in subset.keywords and self._is_taken(keyword, value):
                    result[keyword] = self._applied(keyword, value, path, depth)
                elif keyword not in _SAID_BY_OTHERS:
                    unenforced[keyword] = value
        for keyword in unenforced:
            self._lose("unenforced", path, keyword)
        if subset.is_finite and result.get("format") in ("date-time", "time", "duration"):
            result.setdefault("maxLength", _LONGEST_TIME)
        if subset.is_finite and schema.get("format") == "decimal":
            result.setdefault("pattern", _DECIMAL)
        if subset.is_finite and "integer" in types and not result.keys() & {"enum", "const"}:
            if "minimum" not in result and "exclusiveMinimum" not in result:
                result["minimum"] = -_SAFE_INTEGER
            if "maximum" not in result and "exclusiveMaximum" not in result:
                result["maximum"] = _SAFE_INTEGER
        if described := _description(schema, unenforced, subset.keywords):
            result["description"] = described
        for keyword in ("title", "default"):
            if keyword in schema and keyword in subset.keywords:
                result[keyword] = schema[keyword]
        return result

    def _applied(self, keyword: str, value: Any, path: str, depth: int) -> Any:
        """A keyword's value, with the schemas in it lowered."""
        if keyword in _WITH_SCHEMAS and is_object(value):
            return {name: self._lower(each, f"{path}{{}}", depth + 1) for name, each in value.items()}
        if keyword in _WITH_SEVERAL and is_array(value):
            return [self._lower(each, path, depth + 1) for each in value]
        if keyword in _WITH_ONE and is_object(value):
            return self._lower(value, path, depth + 1)
        return value

    def _chosen(self, value: Any, keyword: str, path: str) -> dict[str, Any]:
        if keyword == "const" and "const" in self._subset.keywords:
            return {"const": value}
        choices = [value] if keyword == "const" else list_of(value)
        if self._subset.is_closed and any(is_object(each) or is_array(each) for each in choices):
            raise _ObstacleError(f"its {keyword} has more than plain values", path)
        return {"enum": choices}

    def _is_taken(self, keyword: str, value: Any) -> bool:
        subset = self._subset
        if keyword == "format":
            return isinstance(value, str) and (subset.formats is None or value in subset.formats)
        if keyword == "pattern":
            return isinstance(value, str) and (subset.patterns is None or bool(subset.patterns.search(value)))
        if keyword == "minItems":
            return isinstance(value, int) and (subset.least_items is None or value in subset.least_items)
        # What is widened inside these narrows the whole, so they go along as they are, or not at all.
        return keyword not in _AS_THEY_ARE or next(references(value), None) is None

    def _referring(self, schema: dict[str, Any], path: str, depth: int, is_root: bool) -> dict[str, Any]:
        pointer, subset = schema["$ref"], self._subset
        target = self._target(pointer, path)
        described = {name: schema[name] for name in ("description",) if name in schema}
        is_recursive = self._is_recursive(pointer)
        if subset.has_references and not is_root and (subset.has_recursion or not is_recursive):
            reference: dict[str, Any] = {"$ref": f"#/$defs/{self._named(pointer, target, path, depth)}"}
            if not described:
                return reference
            return {"anyOf": [reference], **described} if subset.has_lone_references else {**reference, **described}
        if pointer in self._inlining:
            if subset.is_closed:
                raise _ObstacleError("it contains itself", path)
            self._lose("recursion", path)
            return described
        self._inlining.append(pointer)
        try:
            return self._lower({**mapping_of(target), **described}, path, depth)
        finally:
            self._inlining.pop()

    def _named(self, pointer: str, target: Any, path: str, depth: int) -> str:
        if (name := self._names.get(pointer)) is None:
            wanted = re.sub(r"[^A-Za-z0-9_.-]", "_", pointer.rpartition("/")[2].lstrip("#")) or "root"
            name, number = wanted, 1
            while name in self._names.values():
                number += 1
                name = f"{wanted}_{number}"
            self._names[pointer] = name
            self._defs[name] = _PENDING
            self._defs[name] = self._lower(target, path, depth)
        return name

    def _is_recursive(self, pointer: str) -> bool:
        """Whether what is referred to there contains itself."""
        if pointer not in self._recursive:
            seen: set[str] = set()
            rest = [pointer]
            while rest:
                for each in references(found(self._root, rest.pop())):
                    if each not in seen:
                        seen.add(each)
                        rest.append(each)
            self._recursive[pointer] = pointer in seen
        return self._recursive[pointer]

    def _is_dictionary(self, schema: dict[str, Any]) -> bool:
        """Whether it is an object of keys that are not known, where each object has to name its own."""
        return self._subset.is_closed and is_dictionary_schema(schema) and types_of(schema) == ["object"]

    def _entries(self, schema: dict[str, Any], path: str, depth: int) -> dict[str, Any]:
        kinds = kinds_of_values(schema)
        entry = {
            "type": "object",
            "properties": {"key": {"type": "string"}, "value": kinds[0] if len(kinds) == 1 else {"anyOf": kinds}},
            "required": ["key", "value"],
            "additionalProperties": False,
        }
        self._lose("entries", path)
        unenforced = {name: schema[name] for name in schema if name not in _ANNOTATIONS | _BUILDING}
        for keyword in unenforced:
            self._lose("unenforced", path, keyword)
        note = "A dictionary as a list of its entries, no key twice."
        told = "\n".join(filter(None, (_description(schema, unenforced, frozenset()), note)))
        return {"type": "array", "items": self._lower(entry, f"{path}{{}}", depth + 1), "description": told}

    def _objects(self, schema: dict[str, Any], path: str, depth: int, unenforced: dict[str, Any]) -> dict[str, Any]:
        subset = self._subset
        if subset.max_depth is not None and depth >= subset.max_depth:
            raise _ObstacleError(f"its objects are nested more than {subset.max_depth} deep", path)
        properties = dict(mapping_of(schema.get("properties")))
        required = [name for name in list_of(schema.get("required")) if isinstance(name, str)]
        values = schema.get("additionalProperties")
        if subset.is_closed and not properties and values is not False:
            raise _ObstacleError("its properties are not known", path)
        for name in required:
            properties.setdefault(name, values if is_object(values) else {})
        optional = [name for name in properties if name not in required]
        self._properties += len(properties)
        self._optional += len(optional)
        built: dict[str, Any] = {}
        for name, each in properties.items():
            within = f"{path}.{name}"
            built[name] = self._lower(each, within, depth + 1)
            if subset.requires_all and name not in required:
                built[name] = self._nullable(built[name], within)
        result: dict[str, Any] = {"properties": built} if built or "properties" in schema else {}
        if subset.requires_all:
            result["required"] = list(built)
        elif required:
            result["required"] = required
        if subset.is_closed:
            if values not in (None, False) or "patternProperties" in schema:
                self._lose("closed", path)
            result["additionalProperties"] = False
        elif "additionalProperties" in subset.keywords and values is not None:
            result["additionalProperties"] = (
                values if isinstance(values, bool) else self._lower(values, f"{path}{{}}", depth + 1)
            )
        elif values is not None and values is not True:
            unenforced["additionalProperties"] = values
        return result

    def _nullable(self, schema: dict[str, Any], path: str) -> dict[str, Any]:
        """The same, or null; at a place where null stands for nothing."""
        if _takes_null(schema, self._defs):
            return schema
        self._lose("null_for_absent", path)
        described = {name: schema[name] for name in ("description",) if name in schema}
        bare = without(schema, "description")
        if "anyOf" in bare and len(bare) == 1:
            return {"anyOf": [*bare["anyOf"], {"type": "null"}], **described}
        if isinstance(bare.get("type"), str) and self._subset.has_type_lists and "const" not in bare:
            choices = {"enum": [*bare["enum"], None]} if "enum" in bare else {}
            return {**bare, "type": [bare["type"], "null"], **choices, **described}
        return {"anyOf": [bare, {"type": "null"}], **described}

    def _arrays(self, schema: dict[str, Any], path: str, depth: int, unenforced: dict[str, Any]) -> dict[str, Any]:
        within = f"{path}[]"
        first = list_of(schema.get("prefixItems"))
        rest = schema.get("items")
        if first and "prefixItems" in self._subset.keywords:
            result: dict[str, Any] = {"prefixItems": [self._lower(each, within, depth + 1) for each in first]}
            if rest is not None:
                # `items: false` says that there are no more.
                result["items"] = rest if isinstance(rest, bool) else self._lower(rest, within, depth + 1)
            return result
        if first:
            unenforced["prefixItems"] = first
            kinds = first if rest is False else [*first, rest if is_object(rest) else {}]
            unique = [each for number, each in enumerate(kinds) if each not in kinds[:number]]
            return {"items": self._lower(unique[0] if len(unique) == 1 else {"anyOf": unique}, within, depth + 1)}
        if rest is None and not self._subset.is_closed:
            # Servers refuse an array that says nothing of its items.
            return {"items": {}}
        return {"items": self._lower(rest, within, depth + 1)}

    def _without_root_union(self, schema: dict[str, Any]) -> dict[str, Any]:
        """One object that takes what any of the branches takes; a root that refers elsewhere is put in place."""
        if "$ref" in schema:
            schema = self._merged(without(schema, "$ref"), {"$ref": schema["$ref"]}, "$")
        if "anyOf" not in schema:
            return schema
        branches = [self._merged({}, each, "$") for each in list_of(schema["anyOf"])]
        if self._subset.is_closed or any(types_of(each) not in ([], ["object"]) for each in branches):
            raise _ObstacleError("the root is a union", "$")
        self._lose("union", "$")
        properties: dict[str, list[Any]] = {}
        for branch in branches:
            for name, each in mapping_of(branch.get("properties")).items():
                if each not in properties.setdefault(name, []):
                    properties[name].append(each)
        both = {name: several[0] if len(several) == 1 else {"anyOf": several} for name, several in properties.items()}
        required = [name for name in both if all(name in list_of(each.get("required")) for each in branches)]
        union: dict[str, Any] = {"type": "object", "properties": both}
        if required:
            union["required"] = required
        return self._merged(without(schema, "anyOf"), union, "$")

    def _lose(self, kind: LossKind, path: str, keyword: str = "") -> None:
        self.losses.append(Loss(kind, path, keyword))


# What a definition is until it is built.
_PENDING: dict[str, Any] = {"enum": []}
# Keywords that only some servers take and that hold schemas: by name, in a list, one.
_WITH_SCHEMAS = frozenset({"patternProperties", "dependentSchemas"})
_WITH_SEVERAL = frozenset({"oneOf"})
_WITH_ONE = frozenset({"propertyNames", "contains", "unevaluatedProperties", "unevaluatedItems"})
_AS_THEY_ARE = frozenset({"not", "if", "then", "else"})
_OBJECTS = ("properties", "required", "additionalProperties", "patternProperties")
_ARRAYS = ("items", "prefixItems")
# What only says something of values of one type.
_OF_TYPE = {
    "object": {"properties", "required", "additionalProperties", "patternProperties", "propertyNames"}
    | {"minProperties", "maxProperties", "dependentRequired", "dependentSchemas", "unevaluatedProperties"},
    "array": {"items", "prefixItems", "contains", "minItems", "maxItems", "uniqueItems", "unevaluatedItems"},
    "string": {"minLength", "maxLength", "pattern", "format"},
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
}
_HANDLED = _BUILDING | {"prefixItems", "const"}
# Keywords that mean nothing without another, which says what became of it.
_SAID_BY_OTHERS = frozenset({"then", "else", "additionalItems", "minContains", "maxContains"})


def _takes_null(schema: dict[str, Any], defs: Mapping[str, Any]) -> bool:
    if "$ref" in schema:
        return says_null(mapping_of(defs.get(schema["$ref"].rpartition("/")[2])))
    if "anyOf" in schema:
        return any(_takes_null(each, defs) for each in schema["anyOf"])
    return says_null(schema)


def _with_types_apart(schema: Mapping[str, Any], types: list[str]) -> dict[str, Any]:
    """A schema of several types as a union of schemas of one."""
    told = {name: value for name, value in schema.items() if name in _ANNOTATIONS}
    rest = {name: value for name, value in schema.items() if name not in _ANNOTATIONS and name != "type"}
    own = {name for names in _OF_TYPE.values() for name in names}
    branches: list[dict[str, Any]] = []
    for each in types:
        names = _OF_TYPE.get("number" if each == "integer" else each, set[str]())
        kept = {name: value for name, value in rest.items() if name in names or name not in own}
        branches.append({"type": each, **kept})
    return {**told, "anyOf": branches}


def _common_types(one: list[str], other: list[str]) -> list[str]:
    both = [each for each in one if each in other or (each == "integer" and "number" in other)]
    return both + [each for each in other if each == "integer" and "number" in one and each not in both]


def _pairs(values: list[Any]) -> Iterator[tuple[Any, Any]]:
    return ((one, other) for number, one in enumerate(values) for other in values[:number])


def _description(schema: Mapping[str, Any], unenforced: Mapping[str, Any], taken: frozenset[str]) -> str:
    """The description, with what a model should know beyond what the schema can say."""
    hints = {name: schema[name] for name in _HINTS if name in schema and name not in taken}
    said = [text for text in (schema.get("description"),) if isinstance(text, str) and text]
    told = ", ".join(f"{name}: {_short(value)}" for name, value in {**unenforced, **hints}.items())
    return "\n".join([*said, *([f"({told})"] if told else [])])


def _short(value: Any) -> str:
    text = encode_json(value).decode()
    return text if len(text) <= _MOST_TOLD else f"{text[:_MOST_TOLD]}…"


def _places(losses: list[Loss]) -> str:
    places = list(dict.fromkeys(" ".join(filter(None, (loss.keyword, loss.path))) for loss in losses))
    return ", ".join(places[:4]) + (f" and {len(places) - 4} more" if len(places) > 4 else "")
