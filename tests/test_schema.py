"""What a type looks like as JSON Schema, and that its JSON comes back as that type or not at all."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import functools
import json
import math
import subprocess
import sys
import types
import uuid
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, NamedTuple, Required, TypedDict, TypeVar

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sabir.errors import ConfigurationError, StructuredOutputError, ToolError
from sabir.schema import Schema, parameters_of, schema_of

if TYPE_CHECKING:
    from fractions import Fraction as OnlyForTypes

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Point:
    """A place on the map.

    Attributes:
        x: how far east
        y (int): how far north,
            in metres
    """

    x: int
    y: int = 0


@dataclass
class Undocumented:
    title: str
    points: list[Point]


@dataclass
class Node:
    value: int
    children: list[Node] = dataclasses.field(default_factory=list)


class Movie(TypedDict, total=False):
    """A film.

    Args:
        name: as on the poster
    """

    name: Required[str]
    year: int


class Pair(NamedTuple):
    left: int
    right: str = "r"


class Record(msgspec.Struct, forbid_unknown_fields=True):
    """A row."""

    key: str
    tags: tuple[str, ...] = ()


class Box(msgspec.Struct, Generic[T]):
    item: T


@dataclass
class Everything:
    text: str
    whole: int
    real: float
    flag: bool
    nothing: None
    anything: Any
    items: list[int]
    pair: tuple[int, str]
    unique: set[str]
    table: dict[str, float]
    numbered: dict[int, str]
    maybe: Point | None
    either: int | str
    level: Literal["low", "high"]
    colour: Colour
    movie: Movie
    named: Pair
    record: Record
    when: datetime.datetime
    day: datetime.date
    ident: uuid.UUID
    price: Decimal
    small: Annotated[int, msgspec.Meta(ge=1, le=9, description="a digit")] = 1


class Person(pydantic.BaseModel):
    """Somebody.

    Attributes:
        age: in years
    """

    name: str
    age: int = pydantic.Field(0, ge=0)
    title: str = pydantic.Field("", title="Form of address")
    friends: list[Person] = []

    @pydantic.field_validator("name")
    @classmethod
    def _not_empty(cls, value: str) -> str:
        if not value:
            raise ValueError("a name is needed")
        return value


@dataclass
class Team:
    lead: Person
    size: Annotated[int, msgspec.Meta(ge=1)]
    members: list[Person] = dataclasses.field(default_factory=list)
    deputy: Person | None = None


@dataclass
class Cat:
    claws: int


@dataclass
class Dog:
    """Barks.

    Attributes:
        tricks: what it can do
    """

    tricks: list[str]


@dataclass
class Pet:
    animal: Cat | Dog


@dataclass
class Fielded:
    share: Annotated[float, pydantic.Field(ge=0, le=1, description="between 0 and 1")]


@pydantic.dataclasses.dataclass
class Checked:
    even: int

    @pydantic.field_validator("even")
    @classmethod
    def _is_even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("odd")
        return value


class Opaque:
    """Nothing that JSON could hold."""


class Context:
    """What a tool is given and no model sees."""


class Wrapper(Generic[T]):
    """A generic one of that kind."""


@pytest.fixture
def without_pydantic(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydantic", None)


def other_module(name: str, source: str) -> types.ModuleType:
    module = types.ModuleType(name)
    sys.modules[name] = module  # where get_type_hints looks for the globals of a class
    exec(source, module.__dict__)  # noqa: S102 - the only way to two classes of one name
    return module


def refusal(schema: Schema[Any], text: str | bytes) -> str:
    with pytest.raises(StructuredOutputError) as caught:
        schema.parse(text)
    return str(caught.value)


# Schemas of types


def test_a_dataclass_becomes_an_object_in_the_order_of_its_fields():
    assert schema_of(Point).json == {
        "type": "object",
        "description": "A place on the map.",
        "properties": {
            "x": {"type": "integer", "description": "how far east"},
            "y": {"type": "integer", "default": 0, "description": "how far north, in metres"},
        },
        "required": ["x"],
    }
    assert list(schema_of(Everything).json["properties"]) == [field.name for field in dataclasses.fields(Everything)]


def test_the_docstring_a_dataclass_writes_itself_is_no_description():
    assert (Undocumented.__doc__ or "").startswith("Undocumented(")
    assert "description" not in schema_of(Undocumented).json
    assert "description" not in schema_of(Pet).json["$defs"]["Cat"]


def test_the_root_is_inlined_and_the_definitions_are_kept():
    schema = schema_of(Undocumented).json
    assert "$ref" not in schema
    assert schema["properties"]["points"]["items"] == {"$ref": "#/$defs/Point"}
    assert list(schema["$defs"]) == ["Point"]


def test_a_recursive_type_keeps_its_own_definition():
    schema = schema_of(Node).json
    assert schema["properties"]["children"]["items"] == {"$ref": "#/$defs/Node"}
    assert schema["$defs"]["Node"]["properties"] == schema["properties"]


def test_every_supported_type_says_what_it_is():
    schema = schema_of(Everything).json
    properties = schema["properties"]
    assert properties["flag"] == {"type": "boolean"}
    assert properties["anything"] == {}
    assert properties["unique"] == {"type": "array", "items": {"type": "string"}, "uniqueItems": True}
    assert properties["maybe"] == {"anyOf": [{"$ref": "#/$defs/Point"}, {"type": "null"}]}
    assert properties["either"] == {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    assert sorted(properties["level"]["enum"]) == ["high", "low"]
    assert sorted(schema["$defs"]["Colour"]["enum"]) == ["blue", "red"]
    assert schema["$defs"]["Pair"]["prefixItems"] == [{"type": "integer"}, {"type": "string", "default": "r"}]
    assert schema["$defs"]["Record"]["additionalProperties"] is False
    assert properties["day"] == {"type": "string", "format": "date"}
    assert properties["ident"] == {"type": "string", "format": "uuid"}
    assert properties["small"] == {
        "type": "integer",
        "minimum": 1,
        "maximum": 9,
        "description": "a digit",
        "default": 1,
    }


def test_a_datetime_is_marked_as_one_wherever_it_stands():
    @dataclass
    class Plan:
        start: datetime.datetime
        end: datetime.datetime | None
        stops: list[datetime.datetime]
        notes: list[str]
        either: list[str] | datetime.datetime

    properties = schema_of(Plan).json["properties"]
    moment = {"type": "string", "format": "date-time"}
    assert properties == {
        "start": moment,
        "end": {"anyOf": [moment, {"type": "null"}]},
        "stops": {"type": "array", "items": moment},
        "notes": {"type": "array", "items": {"type": "string"}},
        "either": {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "string"}]},  # no guess
    }


def test_a_typed_dict_knows_what_is_required():
    schema = schema_of(Movie).json
    assert schema["required"] == ["name"]
    assert schema["description"] == "A film."
    assert schema["properties"]["name"]["description"] == "as on the poster"


@pytest.mark.parametrize("kind", [Point, Undocumented, Person, Pet, Record, Box[int]])
def test_titles_made_from_names_are_left_out(kind):
    schema = schema_of(kind).json
    assert schema.get("title") is None
    assert all("title" not in part for part in schema.get("$defs", {}).values())


def test_a_property_named_title_and_a_title_that_somebody_wrote_are_kept():
    assert schema_of(Undocumented).json["properties"]["title"] == {"type": "string"}
    title = schema_of(Person).json["properties"]["title"]
    assert title == {"type": "string", "title": "Form of address", "default": ""}
    assert "title" not in schema_of(Person).json["properties"]["name"]


@pytest.mark.parametrize(
    ("kind", "name"), [(Point, "Point"), (Person, "Person"), (Box[int], "Box_int"), (dict[str, int], "dict_str_int")]
)
def test_the_name_is_a_short_identifier_from_the_type(kind, name):
    assert schema_of(kind).name == name


def test_a_name_that_is_no_identifier_becomes_one():
    assert schema_of(type("Größe", (Point,), {})).name == "Gr_e"
    assert schema_of(type("数", (Point,), {})).name == "schema"
    assert schema_of(type("A" * 100, (Point,), {})).name == "A" * 64


def test_a_default_that_json_cannot_say_is_left_out():
    @dataclass
    class Limits:
        most: float = math.inf
        least: float = 0.0

    properties = schema_of(Limits).json["properties"]
    assert properties == {"most": {"type": "number"}, "least": {"type": "number", "default": 0.0}}
    assert schema_of(Limits).parse('{"least": 1}') == Limits(math.inf, 1.0)


def test_a_schema_cannot_be_changed_from_outside():
    schema_of(Undocumented).json["properties"]["points"]["items"] = {"type": "string"}
    schema_of(Undocumented).json.clear()
    assert schema_of(Undocumented).json["properties"]["points"]["items"] == {"$ref": "#/$defs/Point"}
    with pytest.raises(AttributeError):
        schema_of(Point).name = "other"


def test_a_type_is_looked_into_once():
    assert schema_of(Point) is schema_of(Point)


def test_a_type_that_cannot_be_hashed_has_a_schema_all_the_same():
    kind = Annotated[Point, ["a list among the metadata"]]
    with pytest.raises(TypeError):
        hash(kind)
    assert schema_of(kind).json == schema_of(Point).json


@pytest.mark.parametrize("kind", [int, list[int], Pair, Colour, Point | None, Cat | Dog, None, Any])
def test_a_root_that_is_no_object_is_refused_with_the_way_out(kind):
    with pytest.raises(ConfigurationError, match="wrap it in a dataclass with one field, such as `value: "):
        schema_of(kind)


@pytest.mark.parametrize("kind", [Opaque, Box[Opaque], "Point", 5, Point(1), len])
def test_what_is_no_type_or_has_no_json_is_refused(kind):
    with pytest.raises(ConfigurationError, match="no JSON Schema"):
        schema_of(kind)


@dataclass
class Unresolved:
    share: OnlyForTypes


def test_a_field_whose_type_cannot_be_found_is_refused_by_name():
    with pytest.raises(ConfigurationError, match=r"'OnlyForTypes' is not defined.*TYPE_CHECKING"):
        schema_of(Unresolved)


# Answers


def test_an_answer_comes_back_as_the_type():
    text = json.dumps(
        {
            "text": "t",
            "whole": 1,
            "real": 2,
            "flag": True,
            "nothing": None,
            "anything": [{}],
            "items": [1],
            "pair": [1, "a"],
            "unique": ["a", "a"],
            "table": {"a": 1},
            "numbered": {"1": "one"},
            "maybe": {"x": 1},
            "either": "1",
            "level": "low",
            "colour": "blue",
            "movie": {"name": "M"},
            "named": [1],
            "record": {"key": "k", "tags": ["a"]},
            "when": "2026-11-01T10:00:00Z",
            "day": "2026-11-01",
            "ident": "12345678-1234-5678-1234-567812345678",
            "price": "1.10",
        }
    )
    expected = Everything(
        text="t",
        whole=1,
        real=2.0,
        flag=True,
        nothing=None,
        anything=[{}],
        items=[1],
        pair=(1, "a"),
        unique={"a"},
        table={"a": 1.0},
        numbered={1: "one"},
        maybe=Point(1),
        either="1",
        level="low",
        colour=Colour.BLUE,
        movie={"name": "M"},
        named=Pair(1),
        record=Record("k", ("a",)),
        when=datetime.datetime(2026, 11, 1, 10, tzinfo=datetime.UTC),
        day=datetime.date(2026, 11, 1),
        ident=uuid.UUID("12345678-1234-5678-1234-567812345678"),
        price=Decimal("1.10"),
    )
    assert schema_of(Everything).parse(text) == expected
    assert schema_of(Everything).parse(text.encode()) == expected


nodes = st.recursive(
    st.builds(Node, st.integers(-(2**63), 2**63)),
    lambda inner: st.builds(Node, st.integers(0, 9), st.lists(inner, max_size=3)),
    max_leaves=8,
)


@given(nodes)
def test_what_is_written_as_json_is_read_back(node):
    assert schema_of(Node).parse(msgspec.json.encode(node)) == node


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["lead", "size", "x", "a"]), inner),
    max_leaves=10,
)


@given(st.text() | st.binary() | json_values.map(json.dumps), st.sampled_from([Node, Team, Pet, Person, Movie]))
def test_an_answer_either_fits_or_raises_the_one_error(text, kind):
    try:
        value = schema_of(kind).parse(text)
    except StructuredOutputError:
        return
    assert isinstance(value, dict if kind is Movie else kind)


def test_the_error_keeps_the_text_and_the_cause():
    with pytest.raises(StructuredOutputError) as caught:
        schema_of(Node).parse(b"\xff{")
    assert caught.value.body == "\ufffd{"
    assert isinstance(caught.value.__cause__, msgspec.DecodeError)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is not JSON"),
        ("I think", "is not JSON"),
        ('{"value": 1', "is not JSON"),
        (b"\xff", "is not JSON"),
        ('{"value": "\ud800"}', "is not JSON"),
        ('{"value": NaN}', "is not JSON"),
        ('{"value": 1e999}', "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "Expected `object`, got `array`"),
        ("{}", "missing required field `value`"),
        ('{"value": "5"}', r"Expected `int`, got `str` - at `$.value`"),
        ('{"value": true}', r"Expected `int`, got `bool` - at `$.value`"),
        ('{"value": 1, "children": [{"value": 1}, {"value": null}]}', r"at `$.children[1].value`"),
    ],
)
def test_a_wrong_answer_says_where_and_what(text, reason):
    assert reason in refusal(schema_of(Node), text)
    assert "Node" in refusal(schema_of(Node), text)


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "sNaN", "inf"])
def test_a_number_in_words_is_no_number(number):
    @dataclass
    class Bill:
        total: Decimal
        limit: float = math.inf
        note: str = ""

    assert "not finite" in refusal(schema_of(Bill), json.dumps({"total": number}))
    fine = schema_of(Bill).parse(json.dumps({"total": "1E+999", "note": number}))
    assert fine.note == number


# Types that need pydantic


def test_a_pydantic_model_is_described_and_read():
    schema = schema_of(Person)
    assert schema.json["description"] == "Somebody."
    assert schema.json["properties"]["age"] == {
        "type": "integer",
        "minimum": 0,
        "default": 0,
        "description": "in years",
    }
    assert schema.json["properties"]["friends"]["items"] == {"$ref": "#/$defs/Person"}
    person = schema.parse('{"name": "A", "friends": [{"name": "B"}]}')
    assert person == Person(name="A", friends=[Person(name="B")])


def test_a_model_inside_a_dataclass_keeps_the_rules_of_both():
    schema = schema_of(Team)
    assert schema.json["properties"]["lead"] == {"$ref": "#/$defs/Person"}
    assert schema.json["properties"]["size"]["minimum"] == 1
    team = schema.parse('{"lead": {"name": "A"}, "size": 1, "members": [{"name": "B"}]}')
    assert team == Team(Person(name="A"), 1, [Person(name="B")])
    assert "at `$.size`" in refusal(schema, '{"lead": {"name": "A"}, "size": 0}')
    assert "name: Value error, a name is needed - at `$.lead`" in refusal(schema, '{"lead": {"name": ""}, "size": 1}')
    assert "friends.0.name" in refusal(schema, '{"lead": {"name": "A", "friends": [{}]}, "size": 1}')


def test_a_model_inside_a_struct_or_a_typed_dict_is_read():
    class Entry(TypedDict):
        who: Person

    assert schema_of(Box[Person]).parse('{"item": {"name": "A"}}') == Box(Person(name="A"))
    assert schema_of(Entry).parse('{"who": {"name": "A"}}') == {"who": Person(name="A")}


def test_a_union_of_dataclasses_is_told_apart():
    schema = schema_of(Pet)
    assert schema.json["properties"]["animal"] == {"anyOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}]}
    assert schema.json["$defs"]["Dog"]["description"] == "Barks."
    assert schema.json["$defs"]["Dog"]["properties"]["tricks"]["description"] == "what it can do"
    assert schema.parse('{"animal": {"tricks": ["sit"]}}') == Pet(Dog(["sit"]))
    assert schema.parse('{"animal": {"claws": 18}}') == Pet(Cat(18))
    assert "animal.Cat.claws: Field required" in refusal(schema, '{"animal": {}}')


@pytest.mark.parametrize("value", ["true", '"1"', "null"])
def test_pydantic_takes_neither_true_nor_a_quoted_number_in_an_answer(value):
    assert "valid integer" in refusal(schema_of(Pet), f'{{"animal": {{"claws": {value}}}}}')
    assert "valid integer" in refusal(schema_of(Person), f'{{"name": "A", "age": {value}}}')


def test_a_number_in_words_is_no_number_for_pydantic_either():
    assert refusal(schema_of(Fielded), '{"share": "nan"}')
    assert "is not JSON" in refusal(schema_of(Fielded), '{"share": NaN}')


def test_a_model_may_convert_what_it_says_it_converts():
    class Words(pydantic.BaseModel):
        words: list[str]
        day: datetime.date
        unique: set[int]

        @pydantic.field_validator("words", mode="before")
        @classmethod
        def _split(cls, value: Any) -> Any:
            return value.split() if isinstance(value, str) else value

    answer = schema_of(Words).parse('{"words": "a b", "day": "2026-11-01", "unique": [1, 1]}')
    assert (answer.words, answer.day, answer.unique) == (["a", "b"], datetime.date(2026, 11, 1), {1})


def test_constraints_of_pydantic_on_a_plain_dataclass_hold():
    schema = schema_of(Fielded)
    assert schema.json["properties"]["share"] == {
        "type": "number",
        "minimum": 0,
        "maximum": 1,
        "description": "between 0 and 1",
    }
    assert "less than or equal to 1" in refusal(schema, '{"share": 2}')


def test_validators_of_a_pydantic_dataclass_run():
    assert schema_of(Checked).parse('{"even": 2}') == Checked(2)
    assert "odd" in refusal(schema_of(Checked), '{"even": 3}')


def test_constraints_of_msgspec_are_not_lost_to_pydantic_in_silence():
    @dataclass
    class Mixed:
        animal: Cat | Dog
        size: Annotated[int, msgspec.Meta(ge=1)]

    with pytest.raises(ConfigurationError, match=r"write pydantic\.Field instead"):
        schema_of(Mixed)


def test_without_pydantic_what_needs_it_names_the_extra(without_pydantic):
    fresh = type("Fresh", (Pet,), {})
    for kind in (fresh, Annotated[Fielded, "fresh"], Annotated[Opaque, "fresh"]):
        with pytest.raises(ConfigurationError, match=r"pip install 'sabir\[pydantic\]'"):
            schema_of(kind)
    with pytest.raises(ConfigurationError, match=r"parameter 'pet'.*pip install 'sabir\[pydantic\]'"):
        parameters_of(feed)


def test_without_pydantic_the_rest_works(without_pydantic):
    assert schema_of(type("Fresh", (Node,), {})).parse('{"value": 1}').value == 1


def test_pydantic_is_loaded_only_when_it_is_needed():
    program = (
        "import sys, dataclasses, sabir.schema as s\n"
        "A = dataclasses.make_dataclass('A', [('a', int)])\n"
        "s.schema_of(A).parse('{\"a\": 1}')\n"
        "print('pydantic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# Ready schemas


def test_a_ready_schema_is_taken_as_it_is():
    given_schema = {"title": "My answer!", "type": "object", "properties": {"a": {"type": "integer", "title": "A"}}}
    schema = schema_of(given_schema)
    assert schema.name == "My_answer"
    assert schema.json == given_schema
    given_schema.clear()
    schema.json.clear()
    assert schema.json["title"] == "My answer!"
    assert schema.parse('{"a": 1}') == {"a": 1}
    assert "is not JSON" in refusal(schema, "{")


def test_a_ready_schema_without_a_title_has_a_name():
    assert schema_of({"type": "object"}).name == "schema"


@pytest.mark.parametrize("bad", [{"a": {1, 2}}, {1: "a"}, {"a": (1, 2)}, {"default": math.inf}, {"a": Point}], ids=repr)
def test_a_ready_schema_must_be_json(bad):
    with pytest.raises(ConfigurationError, match="not JSON"):
        schema_of(bad)


def test_a_ready_schema_that_contains_itself_is_refused():
    endless: dict[str, Any] = {}
    endless["a"] = endless
    with pytest.raises(ConfigurationError, match="not JSON"):
        schema_of(endless)


def test_without_jsonschema_a_ready_schema_is_only_decoded(monkeypatch):
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    assert schema_of({"type": "object"}).parse("[1]") == [1]


def test_with_jsonschema_a_ready_schema_is_held():
    schema = schema_of({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["b"]})
    reason = refusal(schema, '{"a": "x"}')
    assert "'x' is not of type 'integer' - at `$.a`" in reason
    assert "'b' is a required property" in reason
    assert schema.parse('{"a": 1, "b": 2}') == {"a": 1, "b": 2}
    with pytest.raises(ConfigurationError, match="not a JSON Schema"):
        schema_of({"type": "thing"})


@pytest.mark.parametrize("reference", ["https://example.invalid/x", "#/$defs/Missing", "other.json#/a"])
def test_a_reference_that_leads_out_of_the_schema_is_refused(reference):
    with pytest.raises(ConfigurationError, match="which is not in it; nothing is fetched"):
        schema_of({"type": "object", "properties": {"a": {"$ref": reference}}})


def test_a_ready_schema_of_something_else_than_an_object_is_refused():
    for kind in ("array", "string", ["array", "null"]):
        with pytest.raises(ConfigurationError, match="must be a JSON object"):
            schema_of({"type": kind})


def test_a_value_is_no_type():
    for value in (Point(1, 2), [Point], "Point", Point(1, 2).__dict__.keys):
        with pytest.raises(ConfigurationError, match="no JSON Schema"):
            schema_of(value)


def test_times_have_a_format():
    @dataclasses.dataclass
    class Times:
        at: datetime.datetime
        hour: datetime.time
        either: datetime.time | None = None

    properties = schema_of(Times).json["properties"]
    assert [properties[name].get("format") for name in ("at", "hour")] == ["date-time", "time"]
    assert {"type": "string", "format": "time"} in properties["either"]["anyOf"]


# Parameters of functions


def weather(city: str, day: datetime.date, *, unit: Literal["C", "F"] = "C", context: Context | None = None) -> str:
    """Tell the weather.

    It may be wrong.

    Args:
        city: name of the city, such as "Paris: France"
        day (date): which day,
            in this year

        unit: Celsius or Fahrenheit
        context: never shown

    Returns:
        a sentence
    """
    return f"{city} {day} {unit} {context}"


def feed(pet: Cat | Dog, owner: Person | None = None, at: datetime.datetime | None = None) -> None:
    """Give food."""


def draw(colours: list[Colour], size: tuple[int, int] = (3, 4), tags: set[str] = frozenset({"b", "a"})) -> None: ...


def test_a_function_is_described_by_its_signature_and_docstring():
    parameters = parameters_of(weather, (Context,))
    assert parameters.description == "Tell the weather.\n\nIt may be wrong."
    assert parameters.injected == ("context",)
    assert parameters.schema == {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": 'name of the city, such as "Paris: France"'},
            "day": {"type": "string", "format": "date", "description": "which day, in this year"},
            "unit": {
                "enum": ["C", "F"],
                "default": "C",
                "description": "Celsius or Fahrenheit",
            },
        },
        "required": ["city", "day"],
        "additionalProperties": False,
    }
    assert list(parameters.schema["properties"]) == ["city", "day", "unit"]


def test_arguments_are_converted_and_defaults_left_to_the_function():
    bound = parameters_of(weather, (Context,)).bind({"city": "Rome", "day": "2026-11-01"})
    assert bound == {"city": "Rome", "day": datetime.date(2026, 11, 1)}


def test_a_description_in_the_annotation_goes_before_the_docstring():
    def near(place: Annotated[str, msgspec.Meta(description="from the annotation")]) -> None:
        """Look around.

        Args:
            place: from the docstring
        """

    assert parameters_of(near).schema["properties"]["place"]["description"] == "from the annotation"


def test_types_inside_parameters_share_one_set_of_definitions():
    parameters = parameters_of(feed)
    schema = parameters.schema
    assert set(schema["$defs"]) == {"Cat", "Dog", "Person"}
    assert schema["properties"]["at"]["anyOf"][0] == {"type": "string", "format": "date-time"}
    bound = parameters.bind({"pet": {"tricks": []}, "owner": {"name": "A", "age": "5"}})
    assert bound == {"pet": Dog([]), "owner": Person(name="A", age=5)}


def test_two_classes_of_one_name_are_kept_apart():
    source = "from dataclasses import dataclass\n@dataclass\nclass Item:\n    {field}: int\n"
    first = other_module("first_items", source.format(field="a")).Item
    second = other_module("second_items", source.format(field="b")).Item
    model = pydantic.create_model("Item", c=(int, ...))

    def take(one, two, three, again):
        pass

    take.__annotations__ = {"one": first, "two": second, "three": model, "again": list[first]}
    schema = parameters_of(take).schema
    fields = {}
    for name in ("one", "two", "three"):
        reference = schema["properties"][name]["$ref"].removeprefix("#/$defs/")
        fields[name] = list(schema["$defs"][reference]["properties"])
    assert fields == {"one": ["a"], "two": ["b"], "three": ["c"]}
    assert schema["properties"]["again"]["items"] == schema["properties"]["one"]
    bound = parameters_of(take).bind({"one": {"a": 1}, "two": {"b": 1}, "three": {"c": 1}, "again": []})
    assert bound == {"one": first(1), "two": second(1), "three": model(c=1), "again": []}


def test_defaults_are_shown_where_json_can():
    properties = parameters_of(draw).schema["properties"]
    assert properties["size"]["default"] == [3, 4]
    assert properties["tags"]["default"] == ["a", "b"]
    assert parameters_of(draw).bind({"colours": ["red"], "size": ["1", 2], "tags": ["x"]}) == {
        "colours": [Colour.RED],
        "size": (1, 2),
        "tags": {"x"},
    }


def test_a_default_stands_for_a_missing_annotation():
    def guess(count=3, ratio=0.5, name="n", flag=False, colour=Colour.RED, free=None, limit: float = math.inf): ...

    schema = parameters_of(guess).schema
    assert schema["required"] == []
    properties = schema["properties"]
    assert properties["count"] == {"type": "integer", "default": 3}
    assert properties["ratio"] == {"type": "number", "default": 0.5}
    assert properties["flag"] == {"type": "boolean", "default": False}
    assert properties["colour"] == {"$ref": "#/$defs/Colour", "default": "red"}
    assert properties["free"] == {"default": None}
    assert properties["limit"] == {"type": "number"}
    assert parameters_of(guess).bind({"free": [1]}) == {"free": [1]}


def test_a_default_of_none_allows_null():
    def find(text: str = None): ...  # noqa: RUF013 - as many write it

    assert parameters_of(find).bind({"text": None}) == {"text": None}


@pytest.mark.parametrize(
    ("kind", "sent", "expected"),
    [
        (int, "5", 5),
        (int, 5.0, 5),
        (float, "1.5", 1.5),
        (float, 1, 1.0),
        (bool, "true", True),
        (bool, "false", False),
        (str, "5", "5"),
        (int | str, "5", "5"),
        (Colour, "blue", Colour.BLUE),
        (tuple[int, ...], ["1", 2], (1, 2)),
        (dict[int, str], {"1": "a"}, {1: "a"}),
        (Point, {"x": "1"}, Point(1)),
        (Pair, [1], Pair(1)),
        (Movie, {"name": "M", "year": "1999"}, {"name": "M", "year": 1999}),
        (Decimal, "1.5", Decimal("1.5")),
        (Cat | Dog, {"claws": "18"}, Cat(18)),
        (Annotated[int, pydantic.Field(ge=1)], "5", 5),
        (Annotated[bool, pydantic.Field()], "true", True),
        (list[Person], [{"name": "A", "age": "5"}], [Person(name="A", age=5)]),
        (Any, {"a": [1]}, {"a": [1]}),
    ],
    ids=str,
)
def test_arguments_are_read_leniently(kind, sent, expected):
    def tool(value): ...

    tool.__annotations__ = {"value": kind}
    value = parameters_of(tool).bind({"value": sent})["value"]
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("kind", "sent", "reason"),
    [
        (int, True, "`value`: Expected `int`, got `bool`"),
        (int, 5.5, "`value`: Expected `int`, got `float`"),
        (int, "five", "`value`: Expected `int`, got `str`"),
        (str, 5, "`value`: Expected `str`, got `int`"),
        (int, None, "`value`: Expected `int`, got `null`"),
        (Point, {"x": "east"}, "Expected `int`, got `str` - at `value.x`"),
        (Colour, "pink", "Invalid enum value 'pink' (one of ["),
        (Literal["a", "b"], "c", '(one of ["a", "b"])'),
        (Cat | Dog, {"claws": True}, "claws: Input should be a valid integer"),
        (Annotated[int, pydantic.Field(ge=1)], True, "valid integer"),
        (Annotated[float, pydantic.Field(ge=1)], True, "valid number"),
        (Annotated[int, pydantic.Field(ge=1)], 0, "greater than or equal to 1"),
        (Person, {"name": "A", "age": True}, "age: Input should be a valid integer"),
        (float, "nan", "not finite"),
        (float, math.inf, "not finite"),
        (list[float], ["-Infinity"], "not finite"),
        (Annotated[float, pydantic.Field()], "nan", "not finite"),
        (datetime.date, "tomorrow", "`value`: Invalid RFC3339 encoded date"),
    ],
    ids=str,
)
def test_arguments_that_do_not_fit_are_named_with_the_reason(kind, sent, reason):
    def tool(value): ...

    tool.__annotations__ = {"value": kind}
    with pytest.raises(ToolError) as caught:
        parameters_of(tool).bind({"value": sent})
    assert reason in str(caught.value)
    assert "tool" in str(caught.value)


def test_all_wrong_arguments_are_named_in_one_message():
    with pytest.raises(ToolError) as caught:
        parameters_of(weather, (Context,)).bind({"unit": "K", "day": 1.5, "town": "Rome", "context": {}})
    message = str(caught.value)
    assert "weather" in message
    assert "missing argument `city`" in message
    assert "`day`: " in message
    assert "`unit`: Invalid enum value 'K'" in message
    assert "unexpected argument `town`, `context`, for it takes `city`, `day`, `unit`" in message


def test_a_function_without_parameters_takes_none():
    def now() -> None: ...

    empty = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    assert parameters_of(now).schema == empty
    assert parameters_of(now).description == ""
    assert parameters_of(now).bind({}) == {}
    with pytest.raises(ToolError, match="it takes no arguments"):
        parameters_of(now).bind({"a": 1})


@given(st.dictionaries(st.sampled_from(["pet", "owner", "at", "other"]), json_values))
def test_arguments_either_fit_or_raise_the_one_error(arguments):
    try:
        bound = parameters_of(feed).bind(arguments)
    except ToolError:
        return
    assert isinstance(bound["pet"], Cat | Dog)


def test_the_schema_of_parameters_cannot_be_changed_from_outside():
    parameters = parameters_of(weather, (Context,))
    parameters.schema["properties"].clear()
    assert "city" in parameters.schema["properties"]


def greet(name: str, greeting: str = "Hello", *, loud: bool = False) -> None:
    """Say hello.

    Args:
        name: of whom
    """


class Greeter:
    """Says hello."""

    def __call__(self, name: str) -> None: ...

    def method(self, name: str) -> None:
        """Greet from a method."""

    @classmethod
    def of_class(cls, name: str) -> None: ...

    @staticmethod
    def static(name: str) -> None: ...


async def greet_later(name: str) -> None:
    """Say hello later."""


@functools.wraps(greet_later)
async def decorated(*args: Any, **kwargs: Any) -> None: ...


@pytest.mark.parametrize(
    ("function", "description"),
    [
        (Greeter(), "Says hello."),
        (Greeter().method, "Greet from a method."),
        (Greeter().of_class, ""),
        (Greeter.static, ""),
        (greet_later, "Say hello later."),
        (decorated, "Say hello later."),
        (functools.partial(greet_later), "Say hello later."),
        (functools.lru_cache(greet_later), "Say hello later."),
        (lambda name="": name, ""),
    ],
    ids=str,
)
def test_whatever_can_be_called_can_be_described(function, description):
    parameters = parameters_of(function)
    assert list(parameters.schema["properties"]) == ["name"]
    assert parameters.schema["properties"]["name"]["type"] == "string"
    assert parameters.description == description
    assert parameters.bind({"name": "A"}) == {"name": "A"}


def test_annotations_are_read_where_the_function_was_written_not_its_decorator():
    source = (
        "import functools\ndef log(function):\n    return functools.wraps(function)(lambda *a, **k: function(*a, **k))"
    )
    assert parameters_of(other_module("decorators", source).log(move)).bind({"to": {"x": 1}}) == {"to": Point(1)}


def move(to: Point) -> None: ...


def test_a_class_is_described_by_its_constructor():
    assert parameters_of(Undocumented).description == ""
    assert parameters_of(Undocumented).schema["required"] == ["title", "points"]
    assert parameters_of(Point).bind({"x": "1"}) == {"x": 1}


def test_what_a_partial_has_filled_in_is_neither_shown_nor_accepted():
    parameters = parameters_of(functools.partial(functools.partial(greet, "A"), greeting="Moin"))
    assert parameters.description == "Say hello."
    assert list(parameters.schema["properties"]) == ["loud"]
    assert "Moin" not in json.dumps(parameters.schema)
    with pytest.raises(ToolError, match="unexpected argument `greeting`"):
        parameters.bind({"greeting": "Hi"})


@pytest.mark.parametrize(
    "annotation",
    [Context, "Context", Context | None, Annotated[Context, "x"], Wrapper, Wrapper[int], "Wrapper[int] | None"],
    ids=str,
)
def test_hidden_parameters_are_injected(annotation):
    def tool(a, context, b=1): ...

    tool.__annotations__ = {"a": int, "context": annotation}
    parameters = parameters_of(tool, (Context, Wrapper))
    assert parameters.injected == ("context",)
    assert list(parameters.schema["properties"]) == ["a", "b"]
    with pytest.raises(ToolError, match="unexpected argument `context`"):
        parameters.bind({"a": 1, "context": 1})


def test_a_hidden_type_is_known_by_name_where_it_was_imported_for_types_only():
    module = other_module("only_types", "from __future__ import annotations\ndef tool(context: Context, a: int): ...")
    assert parameters_of(module.tool, (Context,)).injected == ("context",)


def test_a_class_that_is_only_called_like_a_hidden_type_is_shown():
    source = "from dataclasses import dataclass\n@dataclass\nclass Context:\n    a: int\n"
    own = other_module("own_context", source + "def tool(context: 'Context'): ...")
    parameters = parameters_of(own.tool, (Context,))
    assert parameters.injected == ()
    assert parameters.bind({"context": {"a": 1}}) == {"context": own.Context(1)}


def untyped(a: int, b): ...


def positional_only(a: int, /): ...


def starred(*names: str): ...


def keywords(**names: str): ...


def opaque(thing: Opaque): ...


def unseen(share: OnlyForTypes): ...


def prose(city: "the name of a city"): ...  # noqa: F722


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (untyped, ["untyped()", "'b'", "write for example `b: str`"]),
        (positional_only, ["positional_only()", "'a'", "remove the `/`"]),
        (starred, ["starred()", "'names'", "write each one out"]),
        (keywords, ["keywords()", "'names'", "write each one out"]),
        (opaque, ["opaque()", "'thing'", "Opaque", "types that JSON can hold"]),
        (unseen, ["unseen()", "'share'", "'OnlyForTypes' is not defined", "top level of its module"]),
        (prose, ["prose()", "'city'", "the name of a city", "is no type"]),
        (dict, ["dict()"]),
    ],
)
def test_a_function_that_cannot_be_described_is_refused_with_the_way_out(function, words):
    with pytest.raises(ConfigurationError) as caught:
        parameters_of(function)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_type_local_to_a_function_is_found_unless_its_annotation_is_text():
    @dataclass
    class Local:
        a: int

    def tool(value: Local): ...

    with pytest.raises(ConfigurationError, match="'Local' is not defined"):
        parameters_of(tool)
    tool.__annotations__ = {"value": Local}
    assert parameters_of(tool).bind({"value": {"a": 1}}) == {"value": Local(1)}
