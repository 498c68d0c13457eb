"""An object that is still being written is shown as far as it goes, and what was shown stays true."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sabir.partial_json import PartialJson

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


def is_beginning(part, whole):
    """Whether one value may grow into the other."""
    if type(part) is not type(whole):
        return False
    if isinstance(part, str):
        return whole.startswith(part)
    if isinstance(part, list):
        return len(part) <= len(whole) and all(map(is_beginning, part, whole))
    if isinstance(part, dict):
        return all(name in whole and is_beginning(each, whole[name]) for name, each in part.items())
    return part == whole


def shown(pieces):
    partial = PartialJson()
    values = []
    for piece in pieces:
        partial.feed(piece)
        values.append(partial.value)
    return values


@given(st.dictionaries(st.text(max_size=5), VALUES, max_size=5), st.booleans(), st.data())
def test_each_value_is_a_beginning_of_the_next_and_the_last_is_whole(whole, is_ascii, data):
    text = json.dumps(whole, ensure_ascii=is_ascii, indent=data.draw(st.sampled_from([None, 1])))
    size = data.draw(st.integers(1, 9))
    values = shown([text[at : at + size] for at in range(0, len(text), size)])
    assert values[-1] == whole
    seen = [value for value in values if value is not None]
    for earlier, later in pairwise(seen):
        assert is_beginning(earlier, later)


@given(st.dictionaries(st.text(max_size=5), VALUES, max_size=5))
def test_what_was_shown_does_not_change(whole):
    partial, kept = PartialJson(), []
    for letter in json.dumps(whole):
        partial.feed(letter)
        kept.append((partial.value, json.dumps(partial.value)))
    for value, then in kept:
        assert json.dumps(value) == then


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        (" ", None),
        ("Here it is:\n```json\n", None),
        ('Here it is:\n```json\n{"a": 1, ', {"a": 1}),
        ("{", {}),
        ('{"a', {}),
        ('{"a"', {}),
        ('{"a":', {}),
        ('{"a":1', {}),
        ('{"a":1,', {"a": 1}),
        ('{"a":12}', {"a": 12}),
        ('{"a":tru', {}),
        ('{"a":true}', {"a": True}),
        ('{"a":-1.5e3 ', {"a": -1500.0}),
        ('{"a":"', {"a": ""}),
        ('{"a":"x', {"a": "x"}),
        ('{"a":"x\\', {"a": "x"}),
        ('{"a":"x\\n', {"a": "x\n"}),
        ('{"a":"x\\u00e', {"a": "x"}),
        ('{"a":"x\\u00e9', {"a": "xé"}),
        ('{"a":"\\ud83d', {"a": ""}),
        ('{"a":"\\ud83d\\ude0', {"a": ""}),
        ('{"a":"\\ud83d\\ude00', {"a": "😀"}),
        ('{"a":[', {"a": []}),
        ('{"a":["x', {"a": ["x"]}),
        ('{"a":["x","y', {"a": ["x", "y"]}),
        ('{"a":[{"b', {"a": [{}]}),
        ('{"a":[{"b":"c"},2', {"a": [{"b": "c"}]}),
        ('{"a":{}}\n```\nThat is all.{"b":2}', {"a": {}}),
        ('{"a":1,}', {"a": 1}),
        ('{"a":1]', {"a": 1}),
        ('{"a":1,"b" 2', {"a": 1}),
        ("{]", {}),
    ],
)
def test_an_object_that_is_cut(text, value):
    assert shown([text])[-1] == value
    assert shown(text or [""])[-1] == value
