"""What `sabir lint-schema` shows: what becomes of schemas with each provider. Asks nobody."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from ..errors import ConfigurationError
from ..schema_lint import SchemaFinding, lint_schema, schemas_in
from .screen import Screen
from .talk import as_json, guarded

MOST_NAMED = 6


def lint(what: tuple[str, ...], is_json: bool) -> int:
    """Do `sabir lint-schema` and return its exit code: 1 where a provider is troubled."""
    troubled: list[SchemaFinding] = []

    def work(screen: Screen) -> None:
        for place in what:
            for name, schema in _found(place).items():
                findings = lint_schema({**schema, "title": name} if isinstance(schema, dict) else schema)
                troubled.extend(each for each in findings if each.troubles)
                if is_json:
                    told = {"schema": name, "findings": msgspec.to_builtins(findings)}
                    screen.answer(as_json(told, screen))
                else:
                    _show(name, findings, screen)
        screen.end_answer()

    return guarded(work) or int(bool(troubled))


def _found(place: str) -> Mapping[str, Any]:
    path, module, name = Path(place), *place.rpartition(":")[::2]
    if path.exists() or not module:
        try:
            return schemas_in(json.loads(path.read_bytes()))
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"{place}: {error}") from error
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        return {name: getattr(importlib.import_module(module), name)}
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"{place}: {error}; write a file, or MODULE:TYPE") from error


def _show(name: str, findings: tuple[SchemaFinding, ...], screen: Screen) -> None:
    for use, title in (("answer", f"{name} as an answer"), ("tool", f"{name} as a tool's parameters")):
        screen.answer(f"{title}\n")
        for each in findings:
            if each.use == use:
                word = "troubled" if each.troubles else "ok"
                mode = "" if each.mode is None else f" ({each.mode})"
                screen.answer(f"  {word:8} {_named(each.providers)}{mode}\n")
                for trouble in each.troubles:
                    screen.answer(f"           {trouble}\n")


def _named(providers: tuple[str, ...]) -> str:
    shown = ", ".join(providers[:MOST_NAMED])
    return shown + (f" and {len(providers) - MOST_NAMED} more" if len(providers) > MOST_NAMED else "")
