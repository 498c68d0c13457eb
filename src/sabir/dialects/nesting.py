"""Objects within objects, spoken of by paths: `{"toolUse": {"name": "f"}}` is `{"toolUse.name": "f"}`; knows no format.

What two objects differ in is found field by field (`leftovers`), and a field that only holds others is no field to us.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from ..strict_json import is_object

# The names of objects that only hold fields, and within them others.
Holders: TypeAlias = "dict[str, Holders]"


def present(value: Any, holders: Holders) -> Any:
    """A value without its nulls, and without those of the objects in it that only hold fields."""
    if not is_object(value):
        return value
    return {
        name: present(item, holders[name]) if name in holders else item
        for name, item in value.items()
        if item is not None
    }


def flat(value: Mapping[str, Any], holders: Holders) -> dict[str, Any]:
    """An object with those laid flat that only hold fields."""
    fields: dict[str, Any] = {}
    for name, item in value.items():
        if name in holders and is_object(item) and item:
            fields.update({f"{name}.{inner}": each for inner, each in flat(item, holders[name]).items()})
        else:
            fields[name] = item
    return fields


def nested(fields: Mapping[str, Any], holders: Holders) -> dict[str, Any]:
    """What `flat` was given."""
    body: dict[str, Any] = {}
    held: dict[str, dict[str, Any]] = {}
    for name, value in fields.items():
        holder, dot, inner = name.partition(".")
        if dot and holder in holders:
            held.setdefault(holder, {})[inner] = value
        else:
            body[name] = value
    return {**body, **{holder: nested(inner, holders[holder]) for holder, inner in held.items()}}
