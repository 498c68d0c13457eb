"""What a wire object says beyond what we understand of it, kept so that it can be said again; knows no format.

A decoder reads what it understands, encodes that again, and keeps the difference on the nearest value as its provider
state. So nothing a peer said is lost, and what we do understand is in one place only. In JSON objects of wire formats
null and absent mean the same here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..messages import ProviderState
from ..strict_json import is_array, is_object


def difference(wire: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """The patch that turns `ours` into `wire`: `{"set": {...}, "unset": [...]}`, without what is empty."""
    changed = {name: value for name, value in wire.items() if value is not None and ours.get(name) != value}
    absent = [name for name, value in ours.items() if value is not None and wire.get(name) is None]
    return {**({"set": changed} if changed else {}), **({"unset": absent} if absent else {})}


def patched(ours: dict[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """`ours` with a patch of `difference` applied."""
    if not patch:
        return ours
    absent = patch.get("unset", ())
    return {**{name: value for name, value in ours.items() if name not in absent}, **patch.get("set", {})}


def own_state(state: ProviderState | None, dialect: str) -> dict[str, Any]:
    """The value of a state that this dialect made; empty for anyone else's."""
    return state.value if state is not None and state.dialect == dialect else {}


def without_nulls(value: Any) -> Any:
    """A decoded value without the fields that are null, at any depth."""
    if is_object(value):
        return {name: without_nulls(item) for name, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if is_array(value) else value
