"""Which providers a schema will trouble is known without asking one, in Python and on the command line."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from test_cli import run

import sabir
from sabir.providers import PROVIDERS
from sabir.schema_lint import schemas_in


@dataclass
class Plain:
    name: str
    people: int


@dataclass
class Hard:
    tags: dict[str, int]
    note: str = ""


def of(findings, provider, use="answer"):
    (found,) = (each for each in findings if provider in each.providers and each.use == use)
    return found


def test_every_provider_that_holds_conversations_is_named_once_for_each_use():
    findings = sabir.lint_schema(Hard)
    for use in ("answer", "tool"):
        names = [name for each in findings if each.use == use for name in each.providers]
        assert sorted(names) == sorted(name for name, row in PROVIDERS.items() if row.has_chat)


def test_a_plain_schema_troubles_nobody_who_can_be_held_to_one():
    findings = sabir.lint_schema(Plain)
    for each in findings:
        assert each.troubles == () or each.mode in ("json", "prompt", "tool")
    assert of(findings, "openai").mode == "native"
    assert of(findings, "pico").mode == "grammar"
    assert of(findings, "deepseek").mode == "json"


def test_what_a_schema_loses_is_told_with_its_place():
    findings = sabir.lint_schema(Hard)
    assert "list of keys and values" in of(findings, "anthropic").troubles[0]
    assert "($.tags)" in of(findings, "anthropic").troubles[0]
    assert "null" in of(findings, "openai").troubles[0]
    assert of(findings, "gemini").troubles == ()
    assert of(findings, "openai", "tool").troubles == ()
    assert "additionalProperties $.tags" in of(findings, "ollama", "tool").troubles[0]


TOOL = {"type": "object", "properties": {"q": {"type": "string", "minLength": 1}}}


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (TOOL, ["schema"]),
        ({**TOOL, "title": "Find"}, ["Find"]),
        ({"tools": [{"name": "find", "inputSchema": TOOL}]}, ["find"]),
        ([{"name": "find", "input_schema": TOOL}, {"name": "web", "type": "web_search"}], ["find"]),
        ([{"type": "function", "function": {"name": "find", "parameters": TOOL}}], ["find"]),
    ],
)
def test_schemas_are_found_in_lists_of_tools(value, names):
    assert list(schemas_in(value)) == names


@pytest.mark.parametrize("value", [[], 5, {"tools": []}, [{"name": "x"}], None])
def test_what_holds_no_schema_is_said_to(value):
    with pytest.raises(ValueError, match="no JSON Schema and no list of tools"):
        schemas_in(value)


def test_the_command_says_who_is_troubled(tmp_path):
    file = tmp_path / "tools.json"
    file.write_text(json.dumps({"tools": [{"name": "find", "inputSchema": TOOL}]}))
    done = run("lint-schema", str(file))
    assert done.code == 1
    assert "find as an answer" in done.out
    assert "(minLength $.q)" in done.out
    told = json.loads(run("lint-schema", "--json", str(file)).out)
    assert told["schema"] == "find"
    assert {each["use"] for each in told["findings"]} == {"answer", "tool"}


def test_the_command_takes_a_type_of_a_module_here(tmp_path):
    (tmp_path / "shapes.py").write_text("from dataclasses import dataclass\n@dataclass\nclass City:\n    name: str\n")
    done = run("lint-schema", "shapes:City", cwd=tmp_path)
    assert "City as a tool's parameters" in done.out


@pytest.mark.parametrize("what", ["nowhere.json", "nomodule:City", "json:nothing"])
def test_what_is_not_there_is_asked_for_wrongly(what):
    done = run("lint-schema", what)
    assert (done.code, done.out) == (2, "")
    assert what in done.err
