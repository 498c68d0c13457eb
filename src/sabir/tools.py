"""Tools a model may call: a function with its schema, or a description alone. Knows no model and no conversation."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast, final

import msgspec

from .errors import ConfigurationError
from .messages import Image, Text, ToolCall, ToolResult, Value
from .requests import ToolSpec
from .runtime import Line
from .schema import Parameters, parameters_of
from .strict_json import encode_json, is_array, is_object

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


@final
class ToolContext:
    """What a running tool may know of its call; given to a parameter annotated `ToolContext`, unseen by the model."""

    def __init__(self, call: ToolCall, line: Line) -> None:
        self.call = call
        self._line = line

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the result any more; a tool that takes long should look, and return."""
        return self._line.aborted


@final
class Tool:
    """A function that a model may call, described by its signature and docstring."""

    def __init__(
        self, function: Callable[..., Any], *, name: str | None = None, description: str | None = None
    ) -> None:
        """Describe `function`, `def` or `async def`.

        Raises:
            ConfigurationError: a parameter has no annotation, or one that JSON Schema cannot express.
        """
        self.function = function
        self._parameters: Parameters = parameters_of(function, (ToolContext,))
        self.spec = ToolSpec(
            name or _name_of(function),
            self._parameters.description if description is None else description,
            self._parameters.schema,
        )
        _check_name(self.spec.name)

    def __repr__(self) -> str:
        return f"Tool({self.spec.name!r})"

    def bind(self, call: ToolCall, line: Line) -> dict[str, Any]:
        """The keyword arguments for one call, validated and converted.

        Raises:
            StreamProtocolError: the arguments are no JSON object.
            ToolError: they do not fit; the message tells the model what does.
        """
        context = dict.fromkeys(self._parameters.injected, ToolContext(call, line))
        return {**self._parameters.bind(call.arguments), **context}


AnyTool = Callable[..., Any] | Tool | ToolSpec


@final
class Toolbox:
    """The tools of one call, by name. A `ToolSpec` is advertised and never run."""

    def __init__(self, tools: Iterable[AnyTool] = ()) -> None:
        self._tools: dict[str, Tool | ToolSpec] = {}
        for tool in tools:
            self._add(tool)

    def __iter__(self) -> Iterator[Tool | ToolSpec]:
        return iter(self._tools.values())

    def __len__(self) -> int:
        return len(self._tools)

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        return tuple(tool.spec if isinstance(tool, Tool) else tool for tool in self._tools.values())

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._tools)

    def find(self, name: str) -> Tool | ToolSpec | None:
        return self._tools.get(name)

    def _add(self, tool: AnyTool) -> None:
        if not isinstance(tool, (Tool, ToolSpec)):
            if not callable(tool):
                raise ConfigurationError(f"a tool is a function, a Tool or a ToolSpec, not {type(tool).__name__}")
            # Only functions are kept described: a bound method would keep its object alive.
            tool = _described(tool) if inspect.isfunction(tool) else Tool(tool)
        name = tool.spec.name if isinstance(tool, Tool) else tool.name
        _check_name(name)
        if isinstance(tool, ToolSpec):
            _check_parameters(tool)
        if name in self._tools:
            raise ConfigurationError(f"two tools are named {name!r}; give one another name with Tool(f, name=…)")
        self._tools[name] = tool


def _check_parameters(tool: ToolSpec) -> None:
    parameters: object = tool.parameters
    types: object = parameters.get("type", "object") if is_object(parameters) else None
    if types != "object" and not (is_array(types) and "object" in types):
        raise ConfigurationError(
            f"the parameters of the tool {tool.name!r} are a JSON Schema of an object, as in {{'type': 'object', "
            f"'properties': {{…}}}}, not {str(parameters)[:80]}"
        )


def result_of(call: ToolCall, value: Any) -> ToolResult:
    """What a tool returned, as the model is shown it: text as it is, images as images, the rest as JSON."""
    items: list[Any] = list(cast("Any", value)) if isinstance(value, (list, tuple)) else []
    if not any(isinstance(item, Image) for item in items):
        items = [value]
    return ToolResult(call_id=call.id, name=call.name, content=tuple(_shown(item) for item in items))


def failure_of(call: ToolCall, message: str) -> ToolResult:
    """A failed call, as the model is told of it."""
    return ToolResult(call_id=call.id, name=call.name, content=(Text(text=message),), is_error=True)


def _shown(value: Any) -> Text | Image | Value:
    if isinstance(value, (Text, Image, Value)):
        return value
    if isinstance(value, str):
        return Text(text=value)
    try:
        plain = msgspec.to_builtins(value, enc_hook=_plain)
        encode_json(plain)
    except (TypeError, ValueError):
        return Text(text=str(value))
    return Value(value=plain)


def _plain(value: Any) -> Any:
    # pydantic's models, without importing it
    if callable(dump := getattr(value, "model_dump", None)):
        return dump(mode="json")
    raise TypeError(f"{type(value).__name__} is no JSON value")


@functools.lru_cache(maxsize=256)
def _described(function: Callable[..., Any]) -> Tool:
    return Tool(function)


def _name_of(function: Callable[..., Any]) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__name__", type(function).__name__)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{name!r} is no name for a tool (letters, digits, _ and -, at most 64); give one with Tool(f, name=…)"
        )
