"""JSON Schema from Python types, and JSON values back into those types; knows no provider's dialect of either.

msgspec writes, reads and checks; a pydantic model inside is handed to pydantic, and what msgspec refuses (a union of
two dataclasses) or overlooks (a `pydantic.Field`) goes to pydantic whole, if it is installed. Answers must fit as they
are; arguments of a tool are forgiven a number in quotes. Pydantic's part follows pydantic's rules, save that `true` is
no number and that an answer's quoted number is none either.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import importlib
import inspect
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, time
from decimal import Decimal
from types import UnionType
from typing import (
    Annotated,
    Any,
    Generic,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
    overload,
)

import msgspec

from .errors import ConfigurationError, StructuredOutputError, ToolError
from .json_schemas import found, references, types_of

T = TypeVar("T")

_MISFITS = (msgspec.MsgspecError, ValueError, TypeError, RecursionError)
_REFERENCE = "#/$defs/"


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Schema(Generic[T]):
    """What an answer must look like: `name` is a short identifier, `json` the schema, `parse` the way back.

    `is_checked` is False where `parse` can only decode: a ready schema without the package `jsonschema`.
    """

    name: str
    _json: dict[str, Any] = dataclasses.field(repr=False)
    _read: Callable[[str | bytes], T] = dataclasses.field(repr=False)
    is_checked: bool = True

    @property
    def json(self) -> dict[str, Any]:
        """The JSON Schema (draft 2020-12), a copy at each access: changing it changes nothing here."""
        return copy.deepcopy(self._json)

    def parse(self, text: str | bytes) -> T:
        """Turn JSON text into the type.

        Raises:
            StructuredOutputError: the text is not JSON or does not fit; the message says where and why.
        """
        body = text if isinstance(text, str) else text.decode(errors="replace")
        try:
            msgspec.json.decode(text)
        except _MISFITS as error:
            raise StructuredOutputError(f"the answer for {self.name!r} is not JSON: {error}", body=body) from error
        try:
            value = self._read(text)
            _refuse_non_finite(value, body)
        except _MISFITS as error:
            raise StructuredOutputError(f"the answer does not fit {self.name!r}: {error}", body=body) from error
        return value


@overload
def schema_of(target: dict[str, Any]) -> Schema[Any]: ...
@overload
def schema_of(target: type[T]) -> Schema[T]: ...
def schema_of(target: Any) -> Schema[Any]:
    """Make the schema of a type, once per type, or take a ready JSON Schema.

    A ready one's `parse` gives the plain decoded value, checked against the schema only where the package `jsonschema`
    is installed; references to other documents are never fetched.

    Raises:
        ConfigurationError: the type has no JSON form or is not an object; the message says what to write instead.
    """
    if isinstance(target, dict):
        return _given_schema(cast("dict[str, Any]", target))
    if _is_value(target):
        raise ConfigurationError(f"there is no JSON Schema for a value; give its type, not {target!r:.80}")
    try:
        return _type_schema(target)
    except TypeError:  # it cannot be hashed, as an annotation that holds a dict
        return _type_schema.__wrapped__(target)


def _is_value(target: object) -> bool:
    """Whether this is plainly no type: a text, a list, an object of a class of data."""
    kind = type(target)
    is_of_data = kind is not type and (dataclasses.is_dataclass(kind) or _is_model(kind))
    return is_of_data or issubclass(kind, (str, list, tuple, msgspec.Struct))


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Parameters:
    """The parameters of a function that a model calls; `injected` names those that the model never sees."""

    description: str
    injected: tuple[str, ...]
    _function: str
    _schema: dict[str, Any] = dataclasses.field(repr=False)
    _convert: dict[str, Callable[[Any], Any]] = dataclasses.field(repr=False)

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON Schema of the arguments, a copy at each access."""
        return copy.deepcopy(self._schema)

    def bind(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Check a model's arguments and convert them into keyword arguments; defaults are left to the function.

        Raises:
            ToolError: some do not fit; the message names every one of them, in words a model can act on.
        """
        bound: dict[str, Any] = {}
        problems = [f"missing argument `{name}`" for name in self._schema["required"] if name not in arguments]
        for name in filter(arguments.__contains__, self._convert):
            try:
                bound[name] = self._convert[name](arguments[name])
                _refuse_non_finite(bound[name], arguments[name])
            except _MISFITS as error:
                problems.append(self._problem(name, str(error)))
        if unexpected := [f"`{name}`" for name in arguments if name not in self._convert]:
            known = ", ".join(f"`{name}`" for name in self._convert) or "no arguments"
            problems.append(f"unexpected argument {', '.join(unexpected)}, for it takes {known}")
        if problems:
            raise ToolError(f"wrong arguments for {self._function}: {'; '.join(problems)}")
        return bound

    def _problem(self, name: str, reason: str) -> str:
        schema = self._schema["properties"][name]
        named = self._schema.get("$defs", {}).get(schema.get("$ref", "").removeprefix(_REFERENCE), {})
        choices = schema.get("enum") or named.get("enum")
        allowed = f" (one of {json.dumps(choices)})" if choices else ""
        return f"`{name}`: {reason.replace('`$', f'`{name}')}{allowed}"


def parameters_of(function: Callable[..., Any], hidden: tuple[type, ...] = ()) -> Parameters:
    """Describe the parameters of a function; those annotated with a `hidden` type are `injected` instead.

    What a `functools.partial` has filled in already is neither shown nor accepted. A default of None allows null.

    Raises:
        ConfigurationError: a parameter cannot be described; the message names it and says what to write.
    """
    name, doc, scope = _behind(function)
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError, NameError) as error:
        raise ConfigurationError(f"the parameters of {name}() cannot be read: {error}") from error
    preset = function.keywords if isinstance(function, functools.partial) else {}
    description, texts = _docstring(doc)
    defs: dict[str, Any] = {}
    properties: dict[str, Any] = {}
    convert: dict[str, Callable[[Any], Any]] = {}
    injected: list[str] = []
    required: list[str] = []
    for key, parameter in signature.parameters.items():
        if key in preset:
            continue
        try:
            annotation = _annotation(parameter, {**{kind.__name__: kind for kind in hidden}, **scope})
            if _is_hidden(annotation, hidden):
                injected.append(key)
                continue
            schema, codec = _express(annotation, defs)
        except TypeError as error:
            raise ConfigurationError(f"{name}(): parameter {key!r}: {error}") from error
        if parameter.default is parameter.empty:
            required.append(key)
        else:
            schema.update(_default(parameter.default))
        if key in texts:
            schema.setdefault("description", texts[key])
        properties[key], convert[key] = schema, codec.convert
    whole = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return Parameters(description, tuple(injected), name, _with_defs(whole, defs), convert)


def _behind(function: Any) -> tuple[str, str | None, dict[str, Any]]:
    """Name, docstring and globals of the code behind partials, decorators and objects that can be called."""
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    if inspect.isroutine(function):
        return function.__name__, function.__doc__, getattr(function, "__globals__", {})
    owner: Any = function if isinstance(function, type) else type(function)
    code = inspect.unwrap(owner.__init__ if owner is function else owner.__call__)
    doc = owner.__doc__ if owner is function else code.__doc__ or owner.__doc__
    is_generated = (doc or "").startswith(f"{owner.__name__}(")  # as dataclasses do
    return owner.__name__, None if is_generated else doc, getattr(code, "__globals__", {})


def _annotation(parameter: inspect.Parameter, scope: dict[str, Any]) -> Any:
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        raise TypeError("a model fills parameters by name; write each one out instead of *args or **kwargs")
    if parameter.kind is parameter.POSITIONAL_ONLY:
        raise TypeError("a model fills parameters by name; remove the `/` that follows it")
    if parameter.annotation is parameter.empty:
        if parameter.default is parameter.empty:
            raise TypeError(f"it has no type; write for example `{parameter.name}: str`")
        return Any if parameter.default is None else cast(Any, type(parameter.default))

    def carrier() -> None: ...

    carrier.__annotations__ = {"it": parameter.annotation}
    try:
        annotation = get_type_hints(carrier, scope, include_extras=True)["it"]
    except NameError as error:
        raise TypeError(_unseen(error)) from error
    except Exception as error:  # a string annotation is evaluated, so anything can come out of it
        raise TypeError(f"its annotation {parameter.annotation!r} is no type: {error}") from error
    return cast(Any, Union)[annotation, None] if parameter.default is None else annotation


def _is_hidden(annotation: Any, hidden: tuple[type, ...]) -> bool:
    parts = get_args(annotation) if get_origin(annotation) in (Annotated, Union, UnionType) else (annotation,)
    return any((get_origin(part) or part) in hidden for part in parts)


@functools.lru_cache(maxsize=512)
def _type_schema(target: Any) -> Schema[Any]:
    shown = inspect.formatannotation(target)
    defs: dict[str, Any] = {}
    try:
        schema, codec = _express(target, defs)
    except TypeError as error:
        raise ConfigurationError(f"there is no JSON Schema for `{shown}`: {error}") from error
    reference = schema.pop("$ref", "")
    schema = {**defs.get(reference.removeprefix(_REFERENCE), {}), **schema}
    if schema.get("type") != "object":
        wrapper = f"a dataclass with one field, such as `value: {shown}`"
        raise ConfigurationError(f"an answer must be a JSON object, and `{shown}` is not; wrap it in {wrapper}")
    if json.dumps(reference) not in json.dumps([schema, defs]):
        defs.pop(reference.removeprefix(_REFERENCE), None)
    return Schema(_name(target), _with_defs(schema, defs), codec.read)


def _given_schema(given: dict[str, Any]) -> Schema[Any]:
    try:
        schema = json.loads(json.dumps(given, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"the schema holds something that is not JSON: {error}") from error
    if schema != given:
        raise ConfigurationError("the schema is not JSON: keys must be strings and sequences must be lists")
    types = types_of(schema)
    if types and "object" not in types:
        raise ConfigurationError(
            "an answer must be a JSON object, and this schema is of another type; wrap it in one with a single property"
        )
    for reference in references(schema):
        if not _leads_somewhere(schema, reference):
            raise ConfigurationError(
                f"the schema refers to {reference!r}, which is not in it; nothing is fetched, so put it into $defs"
            )
    title = schema.get("title")
    read = _given_reader(schema)
    name = _name(title if isinstance(title, str) else "schema")
    return Schema(name, schema, read or msgspec.json.decode, is_checked=read is not None)


def _leads_somewhere(schema: dict[str, Any], reference: str) -> bool:
    """Whether a reference leads to something in this schema; of anchors that is for the validator to say."""
    is_pointer = reference == "#" or reference.startswith("#/")
    return found(schema, reference) is not None if is_pointer else reference.startswith("#")


def _given_reader(schema: dict[str, Any]) -> Callable[[str | bytes], Any] | None:
    try:
        jsonschema = importlib.import_module("jsonschema")
        registry = importlib.import_module("referencing").Registry()  # an empty one: the default one fetches URLs
    except ImportError:
        return None
    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise ConfigurationError(f"this is not a JSON Schema: {error.message}") from error
    validator = kind(schema, registry=registry)

    def read(text: str | bytes) -> Any:
        value = msgspec.json.decode(text)
        try:
            problems = [f"{each.message} - at `{each.json_path}`" for each in validator.iter_errors(value)]
        except Exception as error:  # a reference that leads nowhere raises what is private to jsonschema
            raise ValueError(f"the schema cannot be applied: {error}") from error
        if problems:
            raise ValueError("; ".join(problems))
        return value

    return read


def _express(target: Any, defs: dict[str, Any]) -> tuple[dict[str, Any], _Msgspec | _Pydantic]:
    """The schema of a type and the way back; what it refers to is added to `defs`, renamed where a name is taken."""
    codec, number = _codec(target), 1
    schema, parts = codec.schema("")
    while any(defs.get(name, part) != part for name, part in parts.items()):
        number += 1
        schema, parts = codec.schema(f"_{number}")
    defs.update(parts)
    return schema, codec


def _codec(target: Any) -> _Msgspec | _Pydantic:
    """Whoever can express the type. Raises a TypeError that says what to do about it."""
    classes = _classes(target, {})
    hints = [target, *(hint for fields in classes.values() for hint in fields.values())]
    atoms = [atom for hint in hints for atom in _atoms(hint)]
    reason = "it is made with pydantic"
    if not any(map(_is_pydantics, atoms)):
        try:
            return _Msgspec(target, classes)
        except NameError as error:
            raise TypeError(_unseen(error)) from error
        except Exception as error:  # noqa: BLE001 - the refusals of msgspec and of models inside have no common base
            reason = _first_sentence(error)
    if any(isinstance(atom, msgspec.Meta) for atom in atoms):
        raise TypeError(f"{reason}, and pydantic ignores msgspec.Meta; write pydantic.Field instead")
    try:
        return _Pydantic(target)
    except ImportError as error:
        raise TypeError(f"{reason}; pydantic may know more: pip install 'sabir[pydantic]'") from error
    except Exception as error:  # anything can come out of the hooks by which a type describes itself
        raise TypeError(f"{_first_sentence(error)}; use types that JSON can hold") from error


class _Msgspec:
    """A type that msgspec knows, with or without pydantic models inside."""

    def __init__(self, target: Any, classes: dict[type, dict[str, Any]]) -> None:
        self._target = target
        self._classes = classes
        self.read: Callable[[str | bytes], Any] = msgspec.json.Decoder(target, dec_hook=_answer_of).decode
        self.schema("")

    def schema(self, suffix: str) -> tuple[dict[str, Any], dict[str, Any]]:
        models: dict[str, Any] = {}

        def hook(kind: type) -> dict[str, Any]:
            if not _is_model(kind):
                raise TypeError(f"{kind!r} has no JSON form")
            schema, parts = _model(kind).schema(suffix)
            if "$ref" not in schema:
                parts[_name(kind) + suffix] = schema
                schema = {"$ref": _REFERENCE + _name(kind) + suffix}
            models.update(parts)
            return schema

        template = _REFERENCE + "{name}" + suffix
        (schema,), found = msgspec.json.schema_components((self._target,), schema_hook=hook, ref_template=template)
        _mark_times(schema, self._target)
        for kind, hints in self._classes.items():
            part = found.get(kind.__name__, {})
            properties = part.get("properties", {})
            for name in hints.keys() & properties.keys():
                _mark_times(properties[name], hints[name])
            if is_typeddict(kind):
                # msgspec sorts these by name, and models fill in a schema in the order in which it is written.
                part["properties"] = {name: properties[name] for name in hints if name in properties}
                part["required"] = [name for name in hints if name in part.get("required", ())]
        parts = {name + suffix: _tidied(part, name) for name, part in found.items()}
        if parts.keys() & models.keys():
            raise TypeError(f"two classes are called {min(parts.keys() & models.keys())!r}")
        return schema, parts | models

    def convert(self, value: Any) -> Any:
        return msgspec.convert(value, self._target, strict=False, dec_hook=_argument_of)


class _Pydantic:
    """A type that pydantic knows."""

    def __init__(self, target: Any) -> None:
        self._name = _name(target)
        self._adapter: Any = importlib.import_module("pydantic").TypeAdapter(target)
        self.schema("")

    def schema(self, suffix: str) -> tuple[dict[str, Any], dict[str, Any]]:
        base = importlib.import_module("pydantic.json_schema").GenerateJsonSchema
        quiet: dict[str, Any] = {"field_title_should_be_set": _no, "emit_warning": _no}
        schema = self._adapter.json_schema(
            ref_template=_REFERENCE + "{model}" + suffix, schema_generator=type("Untitled", (base,), quiet)
        )
        parts = {name + suffix: _tidied(part, name) for name, part in schema.pop("$defs", {}).items()}
        return _tidied(schema, self._name), parts

    def read(self, text: str | bytes) -> Any:
        return self._validated(text, lenient=False)

    def convert(self, value: Any) -> Any:
        return self._validated(msgspec.json.encode(value), lenient=True)

    def _validated(self, text: str | bytes, *, lenient: bool) -> Any:
        """By pydantic's rules, unless a strict reading shows one of the slips that they would forgive."""
        try:
            return self._adapter.validate_json(text, strict=True)
        except ValueError as error:
            if any(_is_slip(problem, lenient) for problem in cast(Any, error).errors()):
                raise ValueError(_told(error)) from error
        try:
            return self._adapter.validate_json(text)
        except ValueError as error:
            raise ValueError(_told(error)) from error


@functools.lru_cache(maxsize=512)
def _model(kind: type) -> _Pydantic:
    return _Pydantic(kind)


def _answer_of(kind: type, value: Any) -> Any:
    return _model(kind).read(msgspec.json.encode(value))


def _argument_of(kind: type, value: Any) -> Any:
    return _model(kind).convert(value)


def _no(*_: Any) -> bool:
    return False


def _is_slip(problem: dict[str, Any], lenient: bool) -> bool:
    given = problem["input"]
    wrong_scalar = problem["type"] in ("int_type", "float_type", "bool_type")
    return wrong_scalar and (isinstance(given, bool) or not (lenient or isinstance(given, float)))


def _told(error: Any) -> str:
    problems = ((".".join(map(str, problem["loc"])), problem["msg"]) for problem in error.errors())
    return "; ".join(": ".join(filter(None, problem)) for problem in problems)


def _is_model(kind: type) -> bool:
    return hasattr(kind, "__pydantic_validator__") and not dataclasses.is_dataclass(kind)


def _is_pydantics(atom: Any) -> bool:
    """Whether msgspec would overlook it: a dataclass with validators, or a constraint among the metadata."""
    if isinstance(atom, type):
        return dataclasses.is_dataclass(atom) and hasattr(atom, "__pydantic_validator__")
    return type(atom).__module__.partition(".")[0] in ("pydantic", "annotated_types")


def _atoms(annotation: Any) -> Iterator[Any]:
    """The annotation, its arguments and its metadata, without the fields of classes."""
    yield annotation
    for part in get_args(annotation):
        yield from _atoms(part)


def _classes(annotation: Any, found: dict[type, dict[str, Any]]) -> dict[type, dict[str, Any]]:
    """Every class in the annotation, with the annotations of its fields."""
    for atom in _atoms(annotation):
        kind = get_origin(atom) or atom
        if isinstance(kind, type) and kind not in found and not _is_model(kind):
            found[kind] = {}
            try:
                found[kind] = get_type_hints(kind, include_extras=True)
            except Exception:  # noqa: BLE001 - msgspec meets the same obstacle, if it matters, and says more
                continue
            for hint in found[kind].values():
                _classes(hint, found)
    return found


def _mark_times(schema: dict[str, Any], hint: Any) -> None:
    """Say of a datetime or time more than msgspec does, which calls it a string like any other."""
    atoms = list(_atoms(hint))
    kinds = [format_ for kind, format_ in ((datetime, "date-time"), (time, "time")) if kind in atoms]
    if len(kinds) == 1 and str not in atoms:
        nodes = [schema]
        for node in nodes:
            if node.get("type") == "string":
                node.setdefault("format", kinds[0])
            nodes += [child for child in (*node.get("anyOf", ()), node.get("items")) if isinstance(child, dict)]


def _tidied(schema: dict[str, Any], name: str) -> dict[str, Any]:
    """Without a title made from the class; with the docstring's `Attributes:` where they belong; JSON throughout."""
    if "title" in schema and name.strip("_").endswith(_name(schema["title"])):
        del schema["title"]
    properties = schema.get("properties", {})
    if properties and "description" in schema:
        summary, texts = _docstring(schema.pop("description"))
        schema.update({"description": summary} if summary else {})
        for key in texts.keys() & properties.keys():
            properties[key].setdefault("description", texts[key])
    for content in properties.values():
        if "default" in content:
            content.update(_default(content.pop("default")))
    return schema


def _default(value: Any) -> dict[str, Any]:
    """What a schema says of a default: nothing, where JSON cannot."""
    try:
        plain = msgspec.to_builtins(value, str_keys=True, order="deterministic")
        return {"default": json.loads(json.dumps(plain, allow_nan=False))}
    except _MISFITS:
        return {}


def _with_defs(schema: dict[str, Any], defs: dict[str, Any]) -> dict[str, Any]:
    return {**schema, "$defs": defs} if defs else schema


def _name(target: Any) -> str:
    text = str(getattr(getattr(target, "__origin__", target), "__name__", target))
    if get_args(target) and get_origin(target) is not Annotated:
        text += f"_{'_'.join(map(_name, get_args(target)))}"
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text)[:64].strip("_") or "schema"


def _unseen(error: NameError) -> str:
    where = "at the top level of its module, imported there and not only under TYPE_CHECKING"
    return f"{error}; an annotation that is text must name a type {where}"


def _first_sentence(error: Exception) -> str:
    return str(error).partition("\n")[0].partition(". ")[0].rstrip(".:")


_SECTION = re.compile(r"^(Args|Arguments|Parameters|Attributes|Returns?|Yields|Raises):[ \t]*$", re.MULTILINE)
_ENTRY = re.compile(r"\*{0,2}(\w+)\s*(?:\(.*?\))?\s*:\s*(.*)")


def _docstring(text: str | None) -> tuple[str, dict[str, str]]:
    """What a Google-style docstring says before its sections, and what it says of each argument or attribute."""
    summary, *sections = _SECTION.split(inspect.cleandoc(text or ""))
    entries: dict[str, str] = {}
    for title, content in zip(sections[::2], sections[1::2], strict=True):
        if title in ("Args", "Arguments", "Parameters", "Attributes"):
            entries |= _entries(content)
    return summary.strip(), entries


def _entries(section: str) -> dict[str, str]:
    found: dict[str, str] = {}
    margin, name = 0, ""
    for line in filter(str.strip, section.splitlines()):
        depth = len(line) - len(line.lstrip())
        if depth == 0:
            break
        margin = margin or depth
        entry = _ENTRY.fullmatch(line.strip()) if depth <= margin else None
        name, text = entry.groups() if entry else (name, line.strip())
        found[name] = f"{found.get(name, '')} {text}".strip()
    return {name: text for name, text in found.items() if name and text}


# That text without any of these reads as finite numbers is certain; that one of them stands there proves nothing yet.
_NON_FINITE = re.compile(r"\bs?nan|\binf(inity)?\b|\de\+?\d{3}", re.I)


def _refuse_non_finite(value: Any, source: Any) -> None:
    """JSON has no NaN, but the string "NaN" reads as one. (A field's default may rightly be infinite.)"""
    if _NON_FINITE.search(str(source)):
        plain = msgspec.to_builtins(value, builtin_types=(Decimal,), str_keys=True, enc_hook=_contents)
        try:
            json.dumps(plain, allow_nan=False, default=_decimal)
        except ValueError:
            raise ValueError("a number is not finite") from None


def _contents(value: Any) -> Any:
    return getattr(value, "__dict__", None)


def _decimal(number: Decimal) -> float:
    return 0.0 if number.is_finite() else math.nan
