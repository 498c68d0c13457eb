"""JSON Schemas for tests: a generator that makes a schema with values that fit it, and hard ones by hand.

A value comes in three spellings: as the schema has it; as a format wants it that knows no dictionaries; and as one
that, beside that, requires every property.
"""

from __future__ import annotations

from random import Random
from typing import Any, NamedTuple


class Made(NamedTuple):
    """A schema and values that fit it, each of them in the three spellings: plain, closed, strict."""

    schema: dict[str, Any]
    values: list[tuple[Any, Any, Any]]


WORDS = ("name", "city", "päth", "kind_of", "n", "$ref", "type", "items", "a b", "日本", "x-y", "enum")


class Maker:
    """Makes schemas of objects, the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.defs: dict[str, Made] = {}

    def root(self) -> Made:
        made = self.object(0)
        defs = {name: each.schema for name, each in self.defs.items()}
        return Made({**made.schema, **({"$defs": defs} if defs else {})}, made.values)

    def any(self, depth: int) -> Made:
        kinds = [self.text, self.integer, self.number, self.boolean, self.choice, self.constant, self.listed_types]
        if depth < 3:
            kinds += [self.object, self.array, self.dictionary, self.union, self.reference, self.merged, self.tree]
            kinds += [self.tuple, self.conditional]
        make = self.random.choice(kinds)
        made = make(depth) if depth < 3 and make in kinds[7:] else make()  # type: ignore[call-arg]
        if self.random.random() < 0.3:
            made = Made(
                {**made.schema, "description": "What it is."} if "$ref" not in made.schema else made.schema, made.values
            )
        return made

    def text(self) -> Made:
        return self.random.choice(
            [
                Made({"type": "string"}, same("", "é😀", 'q"\\')),
                Made({"type": "string", "minLength": 2, "maxLength": 5}, same("ab", "abcde")),
                Made({"type": "string", "pattern": "^[a-z]{2,4}$"}, same("ab", "abcd")),
                Made({"type": "string", "pattern": "a(?=b)"}, same("ab")),
                Made({"type": "string", "format": "date"}, same("2026-11-21")),
                Made({"type": "string", "format": "uri-template"}, same("/{a}")),
                Made({"type": "string", "default": "x", "examples": ["y"]}, same("z")),
            ]
        )

    def integer(self) -> Made:
        return self.random.choice(
            [
                Made({"type": "integer"}, same(0, -7)),
                Made({"type": "integer", "minimum": 1, "maximum": 9}, same(1, 9)),
                Made({"type": "integer", "exclusiveMinimum": 0, "multipleOf": 5}, same(5)),
            ]
        )

    def number(self) -> Made:
        return Made({"type": "number", "minimum": 0.5, "exclusiveMaximum": 2}, same(0.5, 1, 1.25))

    def boolean(self) -> Made:
        return Made({"type": "boolean"}, same(True, False))

    def choice(self) -> Made:
        return self.random.choice(
            [
                Made({"enum": ["a", "b", 3]}, same("a", 3)),
                Made({"type": "string", "enum": ["a", "b"]}, same("b")),
                Made({"type": "string", "enum": ["a"], "nullable": True}, same("a")),
            ]
        )

    def constant(self) -> Made:
        value = self.random.choice(["one", 1, True])
        return Made({"const": value}, same(value))

    def listed_types(self) -> Made:
        return Made({"type": ["string", "integer", "null"], "maxLength": 3}, same("abc", 5, None))

    def object(self, depth: int) -> Made:
        names = self.random.sample(WORDS, self.random.randint(1, 4))
        parts = {name: self.any(depth + 1) for name in names}
        optional = [name for name in names if self.random.random() < 0.4]
        schema: dict[str, Any] = {
            "type": "object",
            "properties": {name: part.schema for name, part in parts.items()},
            "required": [name for name in names if name not in optional],
        }
        if self.random.random() < 0.5:
            schema["additionalProperties"] = self.random.choice([False, True])
        values = []
        for number in range(2):
            value: tuple[dict[str, Any], dict[str, Any], dict[str, Any]] = ({}, {}, {})
            for name, part in parts.items():
                plain, closed, strict = part.values[number % len(part.values)]
                # Where null is a value of its own, absent cannot be told from it.
                if name in optional and number and not any(each[0] is None for each in part.values):
                    value[2][name] = None
                else:
                    value[0][name], value[1][name], value[2][name] = plain, closed, strict
            values.append(value)
        return Made(schema, values)

    def array(self, depth: int) -> Made:
        item = self.any(depth + 1)
        bounds = self.random.choice([{}, {"minItems": 1}, {"minItems": 2, "maxItems": 4}, {"uniqueItems": False}])
        several = [item.values[number % len(item.values)] for number in range(2)]
        return Made({"type": "array", "items": item.schema, **bounds}, [spelled(list, several)])

    def tuple(self, depth: int) -> Made:
        parts = [self.any(depth + 1), self.any(depth + 1)]
        several = [part.values[0] for part in parts]
        ends = self.random.choice([{"items": False}, {}])
        return Made({"type": "array", "prefixItems": [part.schema for part in parts], **ends}, [spelled(list, several)])

    def dictionary(self, depth: int) -> Made:
        part = self.any(depth + 1)
        plain, closed, strict = part.values[0]
        entries = [[{"key": "k", "value": each}] for each in (closed, strict)]
        return Made({"type": "object", "additionalProperties": part.schema}, [({"k": plain}, *entries), ({}, [], [])])

    def union(self, depth: int) -> Made:
        parts = [self.object(depth + 1) for _ in range(2)]
        tagged = []
        values = []
        for number, part in enumerate(parts):
            tag = f"tag{number}"
            schema = dict(part.schema)
            schema["properties"] = {"is": {"const": tag}, **schema["properties"]}
            schema["required"] = ["is", *schema["required"]]
            tagged.append(schema)
            values += [tuple({"is": tag, **each} for each in value) for value in part.values]
        word = self.random.choice(["anyOf", "oneOf"])
        plain = {"type": "null"} if self.random.random() < 0.5 else {"type": "integer"}
        return Made({word: [*tagged, plain]}, [*values, *same(None if plain["type"] == "null" else 4)])

    def reference(self, depth: int) -> Made:
        name = f"Part{len(self.defs)}"
        self.defs[name] = Made({}, [])
        self.defs[name] = self.object(depth + 1)
        beside = {"description": "Where it is."} if self.random.random() < 0.5 else {}
        return Made({"$ref": f"#/$defs/{name}", **beside}, self.defs[name].values)

    def merged(self, depth: int) -> Made:
        one, other = self.object(depth + 1), self.object(depth + 1)
        first = {f"a{name}": each for name, each in one.schema["properties"].items()}
        second = {f"b{name}": each for name, each in other.schema["properties"].items()}
        parts = [
            {"type": "object", "properties": first, "required": [f"a{name}" for name in one.schema["required"]]},
            {"properties": second, "required": [f"b{name}" for name in other.schema["required"]]},
        ]
        values = []
        for left, right in zip(one.values, other.values, strict=True):
            values.append(
                tuple(
                    {**{f"a{name}": each for name, each in x.items()}, **{f"b{name}": each for name, each in y.items()}}
                    for x, y in zip(left, right, strict=True)
                )
            )
        return Made({"allOf": parts}, values)

    def tree(self, depth: int) -> Made:
        """A schema that contains itself."""
        leaf = self.text()
        plain = leaf.values[0][0]
        schema = {
            "type": "object",
            "properties": {"leaf": leaf.schema, "kids": {"type": "array", "items": {"$ref": "#/$defs/Tree"}}},
            "required": ["leaf", "kids"],
        }
        if "Tree" not in self.defs:
            self.defs["Tree"] = Made(schema, same({"leaf": plain, "kids": [{"leaf": plain, "kids": []}]}))
        return Made({"$ref": "#/$defs/Tree"}, self.defs["Tree"].values)

    def conditional(self, depth: int) -> Made:
        made = self.object(depth + 1)
        rules = {
            "if": {"required": ["nothing"]},
            "then": {"minProperties": 1},
            "propertyNames": {"maxLength": 40},
            "not": {"required": ["never"]},
        }
        return Made({**made.schema, **rules}, made.values)


def same(*values: Any) -> list[tuple[Any, Any, Any]]:
    return [(value, value, value) for value in values]


def spelled(kind: type, several: list[tuple[Any, Any, Any]]) -> tuple[Any, Any, Any]:
    plain, closed, strict = (kind(each[way] for each in several) for way in range(3))
    return plain, closed, strict


def _object(*required: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}


TEXT = {"type": "string"}
HARD = {
    "a root that refers": Made({"$ref": "#/$defs/A", "$defs": {"A": _object("x", x=TEXT)}}, same({"x": "a"})),
    "a root that is a union": Made(
        {"oneOf": [_object("x", x=TEXT), _object("y", y={"type": "integer"})]}, same({"x": "a"}, {"y": 1})
    ),
    "a root that contains itself": Made(
        _object("kid", kid={"anyOf": [{"$ref": "#"}, {"type": "null"}]}), same({"kid": {"kid": None}})
    ),
    "two that contain each other": Made(
        {
            **_object("a", a={"$ref": "#/$defs/A"}),
            "$defs": {
                "A": _object(b={"$ref": "#/$defs/B"}),
                "B": _object(a={"$ref": "#/$defs/A"}),
            },
        },
        [({"a": {"b": {}}}, {"a": {"b": {}}}, {"a": {"b": {"a": None}}})],
    ),
    "old definitions": Made(
        {**_object("a", a={"$ref": "#/definitions/A/properties/b"}), "definitions": {"A": _object(b=TEXT)}},
        same({"a": "x"}),
    ),
    "a pointer with escapes": Made(
        {**_object("a", a={"$ref": "#/$defs/x~1y%20~0z"}), "$defs": {"x/y ~z": TEXT}}, same({"a": "x"})
    ),
    "another document": Made(_object("a", a={"$ref": "https://example.com/schema"}), same({"a": {"anything": 1}})),
    "a reference to nowhere": Made(_object("a", a={"$ref": "#/$defs/Missing"}), same({"a": 5})),
    "an anchor": Made({**_object("a", a={"$ref": "#it"}), "$defs": {"A": {"$anchor": "it", **TEXT}}}, same({"a": "x"})),
    "properties named as keywords": Made(
        _object(
            "properties",
            "$ref",
            properties=_object("required", required={"type": "array", "items": TEXT}),
            **{"$ref": TEXT, "$defs": TEXT, "anyOf": TEXT, "const": TEXT, "additionalProperties": {"type": "boolean"}},
        ),
        [
            (
                {
                    "properties": {"required": ["a"]},
                    "$ref": "x",
                    "$defs": "y",
                    "anyOf": "z",
                    "const": "c",
                    "additionalProperties": True,
                },
            )
            * 3
        ],
    ),
    "data that looks like a schema": Made(
        _object("a", "b", a={"const": {"$ref": "#/nowhere"}}, b={"enum": [{"type": "object"}, 1]}),
        same({"a": {"$ref": "#/nowhere"}, "b": 1}),
    ),
    "no properties": Made({"type": "object"}, same({}, {"a": 1})),
    "nothing at all": Made({}, same({})),
    "free values": Made(_object("a", "b", a={}, b=True), same({"a": [1], "b": None})),
    "an array of anything": Made(_object("a", a={"type": "array"}), same({"a": [1, "x"]})),
    "old tuples": Made(
        _object("a", a={"type": "array", "items": [TEXT, {"type": "integer"}], "additionalItems": False}),
        same({"a": ["x", 1]}),
    ),
    "patterns of names": Made(
        _object("a", a={"type": "object", "patternProperties": {"^x": {"type": "integer"}}}),
        [({"a": {"x1": 1}}, {"a": [{"key": "x1", "value": 1}]}, {"a": [{"key": "x1", "value": 1}]})],
    ),
    "what is required and not described": Made(_object("a", "b", a=TEXT), same({"a": "x", "b": 2})),
    "a union beside properties": Made(
        {**_object("kind", kind=TEXT), "anyOf": [_object("x", x=TEXT), _object("y", y={"type": "integer"})]},
        same({"kind": "k", "x": "a"}, {"kind": "k", "y": 1}),
    ),
    "an old bound": Made(_object("a", a={"type": "integer", "minimum": 0, "exclusiveMinimum": True}), same({"a": 1})),
    "bounds said twice": Made(
        _object("a", a={"allOf": [{"type": "integer", "minimum": 1}, {"minimum": 3, "maximum": 9}, {"maximum": 5}]}),
        same({"a": 3}, {"a": 5}),
    ),
    "types said twice": Made(_object("a", a={"type": "number", "allOf": [{"type": "integer"}]}), same({"a": 3})),
    "a map of maps": Made(
        _object("a", a={"type": "object", "additionalProperties": {"type": "object", "additionalProperties": TEXT}}),
        [
            (
                {"a": {"x": {"y": "z"}}},
                {"a": [{"key": "x", "value": [{"key": "y", "value": "z"}]}]},
                {"a": [{"key": "x", "value": [{"key": "y", "value": "z"}]}]},
            )
        ],
    ),
    "an optional map of optional things": Made(
        _object(a={"type": "object", "additionalProperties": _object(b=TEXT)}),
        [
            ({}, {}, {"a": None}),
            ({"a": {"x": {}}}, {"a": [{"key": "x", "value": {}}]}, {"a": [{"key": "x", "value": {"b": None}}]}),
        ],
    ),
    "deep": Made(
        _object("a", a=_object("b", b=_object("c", c=_object("d", d=TEXT)))), same({"a": {"b": {"c": {"d": "x"}}}})
    ),
}


def all_schemas(count: int = 300) -> dict[str, Made]:
    """The hard ones and as many made ones as are wanted, by name."""
    return {**HARD, **{f"made {seed}": Maker(seed).root() for seed in range(count)}}
