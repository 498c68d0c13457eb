"""Schemas are lowered to what a server takes, widened and never narrowed, and values come back as they were meant."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, get_args

import anthropic
import jsonschema
import pytest
from mistralai.extra.utils._pydantic_helper import rec_strict_json_schema
from openai.lib._pydantic import _ensure_strict_json_schema
from referencing import Registry
from schemas import HARD, Made, all_schemas

import sabir
from sabir.dialects import subsets
from sabir.lifting import lifted
from sabir.lowering import LOSSES, Loss, LossKind, Subset, lowered, told
from sabir.strict_json import is_object

SCHEMAS = all_schemas()
SUBSETS = {name: each for name, each in vars(subsets).items() if isinstance(each, Subset)}

TEXT = {"type": "string"}
NUMBER = {"type": "integer"}


def obj(*required: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}


def closed(*required: str, **properties: Any) -> dict[str, Any]:
    return {**obj(*required, **properties), "additionalProperties": False}


CASES = [
    # OpenAI's strict mode: objects are closed, every property is required, a dictionary is a list.
    ("OPENAI_STRICT", obj("x", x=NUMBER), closed("x", x=NUMBER), []),
    ("OPENAI_STRICT", obj("x", x=obj("y", y=NUMBER)), closed("x", x=closed("y", y=NUMBER)), []),
    ("OPENAI_STRICT", obj(x=NUMBER), closed("x", x={"type": ["integer", "null"]}), [("null_for_absent", "$.x")]),
    (
        "OPENAI_STRICT",
        obj(x={"enum": ["a"], "type": "string"}),
        closed("x", x={"type": ["string", "null"], "enum": ["a", None]}),
        [("null_for_absent", "$.x")],
    ),
    ("OPENAI_STRICT", obj(x={"type": ["string", "null"]}), closed("x", x={"type": ["string", "null"]}), []),
    (
        "OPENAI_STRICT",
        obj("x", x={"type": "object", "additionalProperties": NUMBER}),
        closed(
            "x",
            x={
                "type": "array",
                "items": closed("key", "value", key=TEXT, value=NUMBER),
                "description": "A dictionary as a list of its entries, no key twice.",
            },
        ),
        [("entries", "$.x")],
    ),
    (
        "OPENAI_STRICT",
        obj("x", x={"$ref": "#/$defs/P", "description": "p"}) | {"$defs": {"P": NUMBER}},
        closed("x", x={"anyOf": [{"$ref": "#/$defs/P"}], "description": "p"}) | {"$defs": {"P": NUMBER}},
        [],
    ),
    (
        "OPENAI_STRICT",
        obj("x", x={"type": "string", "minLength": 2, "description": "Short."}),
        closed("x", x={"type": "string", "description": "Short.\n(minLength: 2)"}),
        [("unenforced", "$.x")],
    ),
    ("OPENAI_STRICT", obj("x", x={"allOf": [NUMBER, {"minimum": 3}]}), closed("x", x=NUMBER | {"minimum": 3}), []),
    ("OPENAI_STRICT", obj("x", x={"oneOf": [NUMBER, TEXT]}), closed("x", x={"anyOf": [NUMBER, TEXT]}), []),
    (
        "OPENAI_STRICT",
        obj("x", x={"oneOf": [NUMBER, {"type": "number"}, TEXT | {"minLength": 1}, TEXT]}),
        None,
        [("one_of", "$.x"), ("unenforced", "$.x")],
    ),
    ("OPENAI_STRICT", obj("x", x={"oneOf": [NUMBER, {"type": "number"}]}), None, [("one_of", "$.x")]),
    ("OPENAI_STRICT", obj("x", x=NUMBER) | {"additionalProperties": True}, closed("x", x=NUMBER), [("closed", "$")]),
    ("OPENAI_STRICT", obj("x", x={}), obj("x", x={}), [("guide", "$.x")]),
    ("OPENAI_STRICT", {"anyOf": [obj("x", x=NUMBER), obj("y", y=NUMBER)]}, None, [("guide", "$"), ("union", "$")]),
    # Anthropic: closed, but properties may be optional; nothing contains itself, no bounds.
    ("ANTHROPIC", obj(x=NUMBER), closed(x=NUMBER), []),
    ("ANTHROPIC", obj("x", x=NUMBER | {"minimum": 1}), None, [("unenforced", "$.x")]),
    ("ANTHROPIC", obj("x", x={"type": "array", "items": TEXT, "minItems": 1}), None, []),
    ("ANTHROPIC", obj("x", x={"type": "array", "items": TEXT, "minItems": 2}), None, [("unenforced", "$.x")]),
    (
        "ANTHROPIC",
        HARD["a root that contains itself"].schema,
        None,
        [("guide", "$.kid.kid"), ("recursion", "$.kid.kid")],
    ),
    # Gemini: constants are choices, references stand alone.
    ("GEMINI", obj("x", x={"const": "a"}), obj("x", x={"enum": ["a"]}), []),
    (
        "GEMINI",
        obj(x=TEXT | {"pattern": "a"}),
        obj(x=TEXT | {"description": '(pattern: "a")'}) | {},
        [("unenforced", "$.x")],
    ),
    # Ollama's tools: no references, no dictionaries.
    (
        "OLLAMA_TOOLS",
        {"$ref": "#/$defs/P", "$defs": {"P": obj("x", x={"$ref": "#/$defs/Q"}), "Q": TEXT}},
        obj("x", x=TEXT),
        [],
    ),
    # Tools anywhere: only a root that is no object is changed.
    ("ANY_OBJECT", obj("x", x={"oneOf": [NUMBER, TEXT]}), obj("x", x={"oneOf": [NUMBER, TEXT]}), []),
    (
        "ANY_OBJECT",
        {"anyOf": [obj("x", x=NUMBER), obj("x", "y", x=TEXT, y=NUMBER)]},
        obj("x", x={"anyOf": [NUMBER, TEXT]}, y=NUMBER),
        [("union", "$")],
    ),
]


@pytest.mark.parametrize(("subset", "schema", "expected", "losses"), CASES)
def test_a_schema_is_lowered_to_what_a_server_takes(subset, schema, expected, losses):
    before = json.dumps(schema)
    result = lowered(schema, SUBSETS[subset])
    if expected is not None:
        without_empty = {**result.json, "required": result.json.get("required", [])}
        assert without_empty == expected
    assert sorted({(loss.kind, loss.path) for loss in result.losses}) == sorted(losses)
    assert (result.obstacle is not None) == any(kind == "guide" for kind, _ in losses)
    assert json.dumps(schema) == before


def test_what_was_lost_is_told_in_words_that_name_the_place():
    losses = [Loss("unenforced", f"$.a{number}", "minimum") for number in range(6)]
    assert told([*losses, Loss("one_of", "$.b[]")], "review") == (
        "the schema 'review' was lowered: a keyword is not enforced; it stands in the description instead (minimum "
        "$.a0, minimum $.a1, minimum $.a2, minimum $.a3 and 2 more); `oneOf` is sent as `anyOf`, so that an answer may "
        "fit several of them ($.b[])"
    )


# What each server's documentation lists, written down apart from `subsets`: keywords, and what a node may be.
STRUCTURE = {"type", "properties", "required", "items", "enum", "anyOf", "description", "$ref", "$defs"}
BOUNDS = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
LENGTHS = {"minLength", "maxLength", "pattern", "format", "minItems", "maxItems"}
DOCUMENTED = {
    "OPENAI_STRICT": STRUCTURE
    | BOUNDS
    | {"const", "pattern", "format", "minItems", "maxItems", "additionalProperties", "title"},
    "ANTHROPIC": STRUCTURE | {"const", "default", "format", "pattern", "minItems", "additionalProperties", "title"},
    "GEMINI": STRUCTURE
    | {"title", "format", "prefixItems", "minItems", "maxItems", "minimum", "maximum", "oneOf", "additionalProperties"},
    "MISTRAL": STRUCTURE | BOUNDS | LENGTHS | {"const", "default", "title", "additionalProperties"},
    "COHERE": STRUCTURE | {"const", "pattern", "format", "title", "default", "additionalProperties"},
    "OLLAMA_TOOLS": STRUCTURE - {"$ref", "$defs"},
}
DOCUMENTED["GEMINI_TOOLS"] = DOCUMENTED["GEMINI"]
CLOSED = {"OPENAI_STRICT", "ANTHROPIC", "MISTRAL"}


def nodes(schema: Any) -> Iterator[dict[str, Any]]:
    """A schema and those within it."""
    assert is_object(schema), schema
    yield schema
    for named in ("properties", "$defs", "patternProperties", "dependentSchemas"):
        for each in schema.get(named, {}).values():
            yield from nodes(each)
    for several in ("anyOf", "oneOf", "allOf", "prefixItems"):
        for each in schema.get(several, []):
            yield from nodes(each)
    for one in ("items", "additionalProperties"):
        if not isinstance(schema.get(one, True), bool):
            yield from nodes(schema[one])


@pytest.mark.parametrize("name", DOCUMENTED)
def test_300_schemas_become_what_is_documented(name):
    enforced = 0
    for title, made in SCHEMAS.items():
        result = lowered(made.schema, SUBSETS[name])
        enforced += result.obstacle is None
        jsonschema.Draft202012Validator.check_schema(result.json)
        for node in nodes(result.json):
            where = (title, node)
            assert node.keys() <= DOCUMENTED[name], where
            if "$ref" in node:
                assert node["$ref"].removeprefix("#/$defs/") in result.json.get("$defs", {}), where
            if "$ref" in node and name in ("OPENAI_STRICT", "ANTHROPIC", "GEMINI"):
                assert len(node) == 1, where
            if result.obstacle is None and name in CLOSED and node.get("type") == "object":
                assert node["additionalProperties"] is False, where
                assert name != "OPENAI_STRICT" or set(node["required"]) == set(node["properties"]), where
            if result.obstacle is None and name in CLOSED:
                assert node.keys() & {"type", "anyOf", "enum", "const", "$ref"}, where
        if name != "GEMINI":
            assert result.json["type"] == "object", title
            assert "anyOf" not in result.json, title
    # What is made at random has few values that nothing is said of.
    assert enforced > 280 if name not in CLOSED else enforced > 200


@pytest.mark.parametrize("name", SUBSETS)
def test_what_is_valid_stays_valid_and_comes_back_as_it_was(name):
    subset = SUBSETS[name]
    for title, made in SCHEMAS.items():
        result = lowered(made.schema, subset)
        assert {loss.kind for loss in result.losses} <= set(LOSSES)
        is_enforced = result.obstacle is None
        way = 0 if not (subset.is_closed and is_enforced) else 2 if subset.requires_all else 1
        validator = jsonschema.Draft202012Validator(result.json, registry=Registry())
        for value in made.values:
            problems = [error.message for error in validator.iter_errors(value[way])]
            assert problems == [], (title, value[way], result.json)
            assert lifted(value[way], made.schema) == value[0], (title, value[way])


def test_the_losses_are_of_a_fixed_list_and_each_occurs():
    assert set(LOSSES) == set(get_args(LossKind))
    seen = {
        loss.kind
        for made in SCHEMAS.values()
        for subset in SUBSETS.values()
        for loss in lowered(made.schema, subset).losses
    }
    assert seen == set(LOSSES)


def test_the_vendors_own_lowerings_have_nothing_left_to_do():
    for title, made in SCHEMAS.items():
        strict = lowered(made.schema, subsets.OPENAI_STRICT)
        if strict.obstacle is None:
            assert _ensure_strict_json_schema(strict.json, path=(), root=strict.json) == strict.json, title
        ours = lowered(made.schema, subsets.ANTHROPIC)
        if ours.obstacle is None:
            theirs = anthropic.transform_schema(ours.json)
            # Theirs moves the keywords that it does not know into descriptions: it finds none, but for those that the
            # documentation lists all the same.
            for mine, its in zip(nodes(ours.json), nodes(theirs), strict=False):
                moved = mine.keys() - its.keys()
                assert moved <= {"const", "pattern", "default"} | ({"type"} if "enum" in mine else set()), title
        closed_ = lowered(made.schema, subsets.MISTRAL)
        if closed_.obstacle is None:
            assert rec_strict_json_schema(closed_.json) == closed_.json, title


# Of another draft, or with a reference that leads out of the schema: an error before anything is asked.
REFUSED = ("old tuples", "an old bound", "another document", "a reference to nowhere")


def test_llama_cpp_takes_what_it_is_given(pico_engine):
    for title, made in SCHEMAS.items():
        request = {"schema": made.schema}
        if title in REFUSED:
            continue
        for mode in ("grammar", "thinking"):
            assert pico_engine(request["schema"], mode) is None, (title, mode)


@pytest.fixture(scope="module")
def pico_engine():
    """Says what llama.cpp has against a schema, as a grammar of llguidance's or as a response format."""
    with sabir.Client("pico") as client:

        def objection(schema: dict[str, Any], mode: str) -> str | None:
            try:
                client.ask("Hi", schema=schema, max_tokens=1, thinking=mode == "thinking")
            except sabir.errors.StructuredOutputError:
                return None
            except sabir.SabirError as error:
                return str(error)
            return None

        yield objection


def test_a_value_that_needs_nothing_undone_comes_back_as_it_is():
    schema = obj("a", a=TEXT, b={"type": ["string", "null"]}, c={})
    for value in ({"a": None}, {"a": "x", "b": None}, {"a": "x", "c": None}, {"z": None}, [], "x", None):
        assert lifted(value, schema) == value


def test_a_branch_of_a_union_is_found_by_what_the_value_says():
    one = obj("kind", kind={"const": "a"}, x=TEXT)
    other = obj("kind", kind={"const": "b"}, x={"type": ["string", "null"]})
    schema = obj("it", it={"anyOf": [one, other, {"type": "array", "items": one}]})
    assert lifted({"it": {"kind": "a", "x": None}}, schema) == {"it": {"kind": "a"}}
    assert lifted({"it": {"kind": "b", "x": None}}, schema) == {"it": {"kind": "b", "x": None}}
    assert lifted({"it": [{"kind": "a", "x": None}]}, schema) == {"it": [{"kind": "a"}]}


MALFORMED = [
    {"type": "nonsense"},
    {"type": ["object", {}], "properties": {"a": {}}},
    {"type": "object", "properties": []},
    {"type": "object", "properties": {"city": 5}},
    {"type": "object", "properties": None, "required": 5},
    {"type": "object", "required": [[], {}, None]},
    {"type": "object", "anyOf": 5, "oneOf": {}, "allOf": "x"},
    {"$ref": ["x"]},
    {"$ref": 5, "$defs": ["x"]},
    {"type": "object", "properties": {"rows": {"type": "array", "items": []}}},
    {"type": "object", "properties": {"a": {"enum": 5, "pattern": 7, "format": [], "minItems": {}, "minimum": "x"}}},
]


def nested(wrap, times):
    schema = TEXT
    for _ in range(times):
        schema = wrap(schema)
    return obj("a", a=schema)


MALFORMED += [
    nested(lambda inner: {"type": "array", "items": inner}, 90),
    nested(lambda inner: {"allOf": [inner]}, 90),
    nested(lambda inner: {"anyOf": [inner, {"type": "null"}]}, 90),
    nested(lambda inner: obj("a", a=inner), 90),
]


@pytest.mark.parametrize("name", SUBSETS)
@pytest.mark.parametrize("schema", MALFORMED)
def test_what_is_no_schema_is_lowered_without_an_error_of_ours(schema, name):
    result = lowered(schema, SUBSETS[name])
    assert isinstance(result.json, dict)
    lifted({"a": None, "rows": [{}]}, schema)


def test_the_same_schema_is_lowered_once():
    schema = Made(obj("a", a=TEXT), []).schema
    assert lowered(schema, subsets.OPENAI_STRICT) is lowered(dict(schema), subsets.OPENAI_STRICT)
    first = lowered(schema, subsets.OPENAI_STRICT)
    first.json["type"] = "array"
    assert first.json["type"] == "object"
