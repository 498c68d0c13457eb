"""What the model inside says under a schema always fits it, however its dice fall, whole and as it grows."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from test_partial_json import is_beginning

import sabir
from sabir import aio

TEXT = {"type": "string", "maxLength": 12}
DIGIT = {"type": "integer", "minimum": 0, "maximum": 9}


def obj(*required, **properties):
    wanted = list(required) if required else list(properties)
    return {"type": "object", "properties": properties, "required": wanted, "additionalProperties": False}


def listing(items, **more):
    return {"type": "array", "items": items, **more}


def of(**formats):
    return {name: {"type": "string", "format": kind} for name, kind in formats.items()}


NODE = {"$ref": "#/$defs/Node"}
SHAPES = {
    "required": obj("name", "age", "ok", name=TEXT, age={"type": "integer"}, ok={"type": "boolean"}, note=TEXT),
    "enum": obj(mood={"enum": ["glad", "sad", 3, None]}, kind={"const": "x"}),
    "arrays": obj(
        tags=listing(TEXT, minItems=2, maxItems=4),
        pair={"type": "array", "prefixItems": [TEXT, DIGIT], "items": False, "minItems": 2},
    ),
    "nested": obj(a=obj(b=obj(c=obj(d=TEXT))), e=listing(obj(f={"type": "boolean"}), maxItems=3)),
    "unions": obj(it={"anyOf": [obj(kind={"const": "a"}, x=TEXT), obj(kind={"const": "b"}, y=DIGIT, z=TEXT)]}),
    "unicode": obj(text=TEXT, **{"päth 😀": {"enum": ["é", "日本", "😀", '"\\\n']}}),
    "ranges": obj(
        i={"type": "integer", "minimum": -3, "maximum": 1234},
        f={"type": "number", "minimum": -0.5, "exclusiveMaximum": 2.25},
        m={"type": "integer", "multipleOf": 5, "minimum": 0, "maximum": 100},
    ),
    "dates": obj(**of(d="date", t="date-time", h="time", u="uuid")),
    "recursive": {
        **obj(root=NODE),
        "$defs": {"Node": obj(v=DIGIT, next={"anyOf": [NODE, {"type": "null"}]}, kids=listing(DIGIT, maxItems=2))},
    },
}
SEEDS = range(200)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_whole_answer_fits(shape):
    said = set()
    with sabir.Client("pico", temperature=1.0) as client:
        for seed in SEEDS:
            response = client.ask("Fill in the form.", schema=SHAPES[shape], seed=seed)
            assert response.schema_mode == "grammar"
            said.add(response.text)
    assert len(said) > (1 if shape == "enum" else 10)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_answer_that_grows_fits_and_so_did_its_beginnings(shape):
    async def scenario() -> None:
        async with aio.Client("pico", temperature=1.0) as client:
            for seed in SEEDS:
                async with client.stream("Fill in the form.", schema=SHAPES[shape], seed=seed) as stream:
                    partials = [stream.partial() async for _ in stream]
                assert partials[-1] == stream.response.parsed
                for earlier, later in pairwise(partials):
                    assert earlier is None or is_beginning(earlier, later)

    asyncio.run(scenario())
