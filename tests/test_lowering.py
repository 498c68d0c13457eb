"""Schemas are lowered for strict mode only where that changes nothing; malformed ones are passed on as they are."""

import pytest

from sabir.lowering import strict_schema

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def test_an_object_whose_properties_are_all_required_is_made_strict():
    assert strict_schema(CITY) == ({**CITY, "additionalProperties": False}, True)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string"},
        {**CITY, "required": []},
        {**CITY, "additionalProperties": True},
        {**CITY, "properties": []},
        {**CITY, "properties": {"city": 5}},
        {**CITY, "properties": None},
        {**CITY, "required": 5},
        {**CITY, "anyOf": 5},
        {**CITY, "$defs": ["x"]},
        {"type": "object", "properties": {"rows": {"type": "array", "items": []}}, "required": ["rows"]},
        {"type": ["object", {}], "properties": {"a": {}}},
        {},
    ],
)
def test_what_cannot_be_strict_is_left_as_it_is(schema):
    assert strict_schema(schema) == (schema, False)
