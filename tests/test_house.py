"""The house stands: arrows between rooms point down or to the left, and coming in is cheap; knows no room by name.

Every check is a function of a folder that returns what it objects to. The first half holds the real house against
its table in docs/architecture.md; the second half builds small houses with one fault each and hears the objection.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "sabir"
PLAN = ROOT / "docs" / "architecture.md"

ENTRANCE = "__init__"
HEADER = ["floor", "rooms, left to right", "what lives there"]
MOST_MODULES = 150
HEAVY = {"httptools", "pydantic", "asyncio", "xllamacpp", "click", "rich"}


# The plan


class Place(NamedTuple):
    """Where a room is: its floor, and how far to the right."""

    floor: int
    column: int
    is_package: bool


def read_plan(markdown: str) -> dict[str, Place]:
    """The table of floors; text after a room's name, as in "`tools/` (builtin)", is a remark."""
    table = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in markdown.splitlines()]
    assert HEADER in table, f"no table with the columns {HEADER}"
    plan: dict[str, Place] = {}
    last = -1
    for row in table[table.index(HEADER) + 2 :]:
        if len(row) != len(HEADER):
            break
        number = re.fullmatch(r"(\d+) \w+", row[0])
        assert number, f"not a floor: {row[0]!r}"
        floor = int(number[1])
        assert floor > last, f"floor {floor} stands below floor {last}"
        last = floor
        for column, cell in enumerate(row[1].split(" · ")):
            room = re.match(r"`(\w+)(/?)`", cell)
            assert room, f"not a room: {cell!r}"
            assert room[1] not in plan, f"two rooms are called {room[1]!r}"
            plan[room[1]] = Place(floor, column, is_package=bool(room[2]))
    assert plan, "the table has no rows"
    return plan


# The code


def files(source: Path) -> Iterator[Path]:
    return (path for path in sorted(source.rglob("*.py")) if "__pycache__" not in path.parts)


def room_of(path: Path, source: Path) -> str:
    return path.relative_to(source).parts[0].removesuffix(".py")


def rooms(source: Path) -> dict[str, bool]:
    """The rooms that are built, and whether each is a package."""
    return {room_of(path, source): path.parent != source for path in files(source)}


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


class Arrow(NamedTuple):
    """One import from room to room; `typing_only` ones stand under `if TYPE_CHECKING:`."""

    where: str
    start: str
    end: str
    typing_only: bool


def statements(node: ast.AST, typing_only: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    """Every node below this one, and whether only a type checker runs it."""
    for field, value in ast.iter_fields(node):
        hidden = typing_only or (
            field == "body"
            and isinstance(node, ast.If)
            and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}
        )
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield child, hidden
                yield from statements(child, hidden)


def resolve(package: list[str], level: int, name: str) -> list[str]:
    """The whole path of a module that is named in `package` with `level` leading dots."""
    start = package[: max(0, len(package) - level + 1)] if level else []
    return start + [part for part in name.split(".") if part]


def ends(node: ast.AST, package: list[str], built: Iterable[str]) -> Iterator[str]:
    """The rooms that an import in `package` leads to; `import sabir` and the names bound there lead to the entrance."""
    top = package[0]
    match node:
        case ast.Import(names):
            for alias in names:
                first, *rest = alias.name.split(".")
                if first != top:
                    continue
                if rest:
                    yield rest[0]
                if not rest or not alias.asname:  # `import sabir.chat` binds the name `sabir`
                    yield ENTRANCE
        case ast.ImportFrom(module, names, level):
            target = resolve(package, level, module or "")
            if level > len(package):
                yield f"{'.' * level}{module or ''}"  # beyond the top: no room has such a name
            elif target == [top]:
                yield from (alias.name if alias.name in built else ENTRANCE for alias in names)
            elif target[0] == top:
                yield target[1]
        case ast.Call(ast.Name(id=called) | ast.Attribute(attr=called), [ast.Constant(str(name)), *_]) if called in {
            "import_module",
            "__import__",
        }:
            dots = len(name) - len(name.lstrip("."))  # relative to `__package__`, whatever the second argument says
            target = resolve(package, dots, name)
            if target[:1] == [top]:
                yield target[1] if len(target) > 1 else ENTRANCE


def arrows(source: Path) -> Iterator[Arrow]:
    built = rooms(source)
    for path in files(source):
        package = [source.name, *path.relative_to(source).parent.parts]
        for node, typing_only in statements(parse(path)):
            for end in ends(node, package, built):
                where = f"{path.relative_to(source)}:{getattr(node, 'lineno', 0)}"
                yield Arrow(where, room_of(path, source), end, typing_only)


# The checks


def rooms_off_the_plan(source: Path, plan: dict[str, Place]) -> list[str]:
    built = rooms(source)
    found = [f"{room} is built and not in the table" for room in built.keys() - plan.keys()]
    found += [f"{room} is in the table and not built" for room in plan.keys() - built.keys()]
    found += [
        f"{room} is a {'package' if is_package else 'single file'}, and the table says otherwise"
        for room, is_package in built.items()
        if room in plan and plan[room].is_package != is_package
    ]
    return sorted(found)


def wrong_arrows(source: Path, plan: dict[str, Place]) -> list[str]:
    found: list[str] = []
    for where, start, end, typing_only in arrows(source):
        if start == end or start not in plan:  # a room that is not in the table is the other check's matter
            continue
        here, there = plan[start], plan.get(end)
        if end == ENTRANCE:
            found.append(f"{where} imports {source.name}/{ENTRANCE}")
        elif there is None:
            found.append(f"{where} imports {end}, which is no room")
        elif there.floor > here.floor:
            found.append(f"{where} points up: {start} (floor {here.floor}) to {end} (floor {there.floor})")
        elif there.floor == here.floor and there.column > here.column and not typing_only:
            found.append(f"{where} points right: {start} to {end} (floor {here.floor})")
    return found


def imports_in_functions(source: Path) -> list[str]:
    return sorted(
        {
            f"{path.relative_to(source)}:{node.lineno}"
            for path in files(source)
            for function in ast.walk(parse(path))
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
            for node in ast.walk(function)
            if isinstance(node, ast.Import | ast.ImportFrom)
        }
    )


def private_imports(source: Path) -> list[str]:
    """Names that begin with an underscore, and that a room takes from another one."""
    built = rooms(source)
    return [
        f"{path.relative_to(source)}:{node.lineno} takes {alias.name} from {end}"
        for path in files(source)
        for node in ast.walk(parse(path))
        if isinstance(node, ast.ImportFrom)
        for end in ends(node, [source.name, *path.relative_to(source).parent.parts], built)
        if end != room_of(path, source)
        for alias in node.names
        if alias.name.startswith("_") and not alias.name.startswith("__")
    ]


def files_without_docstring(source: Path) -> list[str]:
    return [str(path.relative_to(source)) for path in files(source) if not ast.get_docstring(parse(path))]


def fresh(program: str, folder: Path | None) -> list[str]:
    """What a program prints in an interpreter of its own, with `folder` the first place to import from."""
    environment = dict(os.environ)
    if folder:
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


LOADED = """
import sys
before = set(sys.modules)
import sabir
print(*sorted(set(sys.modules) - before), sep="\\n")
"""


def costly_imports(folder: Path | None = None) -> list[str]:
    loaded = fresh(LOADED, folder)
    found = [f"import sabir loads {name}" for name in sorted(HEAVY.intersection(loaded))]
    if len(loaded) > MOST_MODULES:
        found.append(f"import sabir loads {len(loaded)} modules: {' '.join(loaded)}")
    return found


# A dataclass or a NamedTuple without a docstring is given "Name(fields)".
PUBLIC = """
import importlib
import inspect
for module in map(importlib.import_module, ["sabir", "sabir.aio"]):
    if len(set(module.__all__)) < len(module.__all__):
        print(f"{module.__name__}.__all__ has a name twice")
    for name in module.__all__:
        try:
            value = getattr(module, name)
        except Exception as error:
            print(f"{module.__name__}.{name} cannot be got: {error!r}")
            continue
        doc = value.__doc__ or ""
        if (inspect.isclass(value) or inspect.isroutine(value)) and (not doc.strip() or doc.startswith(f"{name}(")):
            print(f"{module.__name__}.{name} has no docstring")
"""


def faults_in_public_names(folder: Path | None = None) -> list[str]:
    return fresh(PUBLIC, folder)


# Coloured is what must be called in one way from plain code and in another from a coroutine: a class whose objects are
# closed, and a function that is short for one of Client's methods. What makes a part of a message is short for none.
COLOURED = """
import inspect
import sabir
import sabir.aio as aio

PARTS = {"image"}

def surface(kind):
    return {name for name in dir(kind) if not name.startswith("_")}

for name in sorted({*sabir.__all__, *aio.__all__}):
    if name not in sabir.__all__:
        print(f"sabir.aio.{name} has no blocking twin")
        continue
    plain = getattr(sabir, name)
    coloured = (inspect.isclass(plain) and hasattr(plain, "close")) or (
        inspect.isfunction(plain) and name in surface(sabir.Client) and name not in PARTS
    )
    if name not in aio.__all__:
        if coloured:
            print(f"sabir.{name} has no awaitable twin")
        continue
    awaitable = getattr(aio, name)
    if plain is awaitable and coloured:
        print(f"sabir.{name} and sabir.aio.{name} are the same object")
    if inspect.isclass(plain) and inspect.isclass(awaitable):
        for method in sorted(surface(plain) ^ surface(awaitable)):
            print(f"{name}.{method} is missing in {'sabir.aio' if method in surface(plain) else 'sabir'}")
"""


def missing_twins(folder: Path | None = None) -> list[str]:
    return fresh(COLOURED, folder)


# The real house


def test_the_table_and_the_rooms_agree():
    assert rooms_off_the_plan(SOURCE, read_plan(PLAN.read_text("utf-8"))) == []


def test_arrows_point_down_or_to_the_left():
    assert wrong_arrows(SOURCE, read_plan(PLAN.read_text("utf-8"))) == []


def test_imports_stand_at_the_top_of_their_file():
    """What is loaded at first use is loaded by `importlib.import_module`, which the linters can tell apart."""
    assert imports_in_functions(SOURCE) == []


def test_what_is_private_stays_in_its_room():
    assert private_imports(SOURCE) == []


def test_files_say_what_they_are_for():
    assert files_without_docstring(SOURCE) == []


def test_importing_sabir_is_cheap():
    assert costly_imports() == []


def test_public_names_are_there_and_documented():
    assert faults_in_public_names() == []


def test_both_colours_offer_the_same():
    assert missing_twins() == []


# Houses with a fault

TABLE = """
What stands before the table is not read.

| floor | rooms, left to right | what lives there |
|---|---|---|
| 0 data | `errors` · `messages` | values |
| 2 world | `pipes/` one file per kind · `engines/` (some) | the outside |
| 9 edges | `aio` · `__init__` | what people touch |

`gone` is no room.
"""

HOUSE = {
    "errors.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .messages import Message",
    "messages.py": "import json\nfrom . import errors\nfrom .errors import SabirError",
    "pipes/__init__.py": "from ..messages import Message\nfrom .blocking import Pipe\nfrom .. import errors",
    "pipes/blocking.py": "from sabir.messages import Message\nimport sabir.errors as wrong\nfrom ..pipes import Pipe",
    "engines/llama.py": "from ..pipes.blocking import Pipe\nimport_module('.llama', __package__)",
    "aio.py": "from .pipes import Pipe",
    "__init__.py": "from . import aio\nfrom .messages import Message\nfrom .aio import thing",
}


def build(folder: Path, contents: dict[str, str], docstring: str = '"""A room."""\n') -> Path:
    source = folder / "sabir"
    for name, text in contents.items():
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(docstring + text + "\n", "utf-8")
    return source


def test_a_sound_house_passes(tmp_path):
    source = build(tmp_path, HOUSE)
    plan = read_plan(TABLE)
    assert plan == {
        "errors": (0, 0, False),
        "messages": (0, 1, False),
        "pipes": (2, 0, True),
        "engines": (2, 1, True),
        "aio": (9, 0, False),
        "__init__": (9, 1, False),
    }
    assert rooms_off_the_plan(source, plan) == []
    assert wrong_arrows(source, plan) == []
    assert imports_in_functions(source) == []
    assert private_imports(source) == []
    assert files_without_docstring(source) == []


@pytest.mark.parametrize(
    ("file", "text", "objection"),
    [
        pytest.param(
            "errors.py", "from .pipes import Pipe", "errors.py:2 points up: errors (floor 0) to pipes", id="up"
        ),
        pytest.param("errors.py", "from . import pipes", "points up", id="up, as a name"),
        pytest.param("errors.py", "import sabir.pipes.blocking as b", "points up", id="up, absolute"),
        pytest.param("errors.py", "from sabir.pipes.blocking import Pipe", "points up", id="up, absolute from"),
        pytest.param("errors.py", "from sabir import pipes", "points up", id="up, absolute name"),
        pytest.param("errors.py", "def f():\n    from .pipes import Pipe", "errors.py:3 points up", id="up, hidden"),
        pytest.param("errors.py", "class A:\n    from .pipes import Pipe", "points up", id="up, in a class"),
        pytest.param(
            "errors.py", "try:\n    import x\nexcept E:\n    from .pipes import P", "points up", id="up, except"
        ),
        pytest.param("errors.py", "if TYPE_CHECKING:\n    from .pipes import Pipe", "points up", id="up, for types"),
        pytest.param("pipes/blocking.py", "from ..aio import x", "points up", id="up, from a package"),
        pytest.param("pipes/deep/down.py", "from ...aio import x", "points up", id="up, from deep in a package"),
        pytest.param("errors.py", "importlib.import_module('sabir.pipes')", "points up", id="up, at run time"),
        pytest.param("errors.py", "import_module('.pipes', __package__)", "points up", id="up, at run time, relative"),
        pytest.param(
            "pipes/blocking.py", "import_module('..aio', __package__)", "points up", id="up, at run time, twice"
        ),
        pytest.param("errors.py", "from .messages import Text", "points right: errors to messages", id="right"),
        pytest.param("pipes/blocking.py", "from ..engines import llama", "points right", id="right, packages"),
        pytest.param(
            "errors.py", "if not TYPE_CHECKING:\n    from .messages import T", "points right", id="right, not types"
        ),
        pytest.param(
            "errors.py",
            "if TYPE_CHECKING:\n    x = 1\nelse:\n    from .messages import T",
            "points right",
            id="right, else",
        ),
        pytest.param("aio.py", "import sabir", "aio.py:2 imports sabir/__init__", id="entrance"),
        pytest.param("aio.py", "import sabir.errors", "imports sabir/__init__", id="entrance, bound by the way"),
        pytest.param("aio.py", "from sabir import ask", "imports sabir/__init__", id="entrance, absolute"),
        pytest.param("aio.py", "from . import ask", "imports sabir/__init__", id="entrance, relative"),
        pytest.param("aio.py", "from .__init__ import ask", "imports sabir/__init__", id="entrance, by its file"),
        pytest.param(
            "pipes/blocking.py", "from .. import ask", "imports sabir/__init__", id="entrance, from a package"
        ),
        pytest.param("aio.py", "import_module('sabir')", "imports sabir/__init__", id="entrance, at run time"),
        pytest.param("aio.py", "from .gone import x", "imports gone, which is no room", id="no such room"),
        pytest.param("aio.py", "from .. import x", "which is no room", id="out of the house"),
    ],
)
def test_a_wrong_arrow_is_seen(tmp_path, file, text, objection):
    source = build(tmp_path, {**HOUSE, file: text})
    (found,) = wrong_arrows(source, read_plan(TABLE))
    assert objection in found


@pytest.mark.parametrize(
    ("change", "objection"),
    [
        ({"utils.py": ""}, "utils is built and not in the table"),
        ({"utils/deep/down.py": ""}, "utils is built and not in the table"),
        ({"aio.py": None}, "aio is in the table and not built"),
        ({"aio.py": None, "aio/__init__.py": ""}, "aio is a package, and the table says otherwise"),
        ({"engines/llama.py": None, "engines.py": ""}, "engines is a single file, and the table says otherwise"),
    ],
)
def test_a_room_off_the_plan_is_seen(tmp_path, change, objection):
    source = build(tmp_path, {name: text for name, text in {**HOUSE, **change}.items() if text is not None})
    assert rooms_off_the_plan(source, read_plan(TABLE)) == [objection]


@pytest.mark.parametrize(
    ("old", "new", "objection"),
    [
        ("| floor |", "| storey |", "no table"),
        ("| 0 data |", "| data |", "not a floor"),
        ("| 9 edges |", "| 1 edges |", "stands below"),
        ("`errors` · `messages`", "`errors`, `messages` · and more", "not a room"),
        ("`errors` · `messages`", "`errors` · `errors`", "two rooms"),
    ],
)
def test_a_table_that_cannot_be_read_is_seen(old, new, objection):
    assert old in TABLE
    with pytest.raises(AssertionError, match=objection):
        read_plan(TABLE.replace(old, new))


@pytest.mark.parametrize("head", ["def f():", "async def f():", "class A:\n  def f(self):", "def f():\n  def g():"])
def test_an_import_in_a_function_is_seen(tmp_path, head):
    source = build(tmp_path, {"a.py": f"{head}\n    if x:\n        import json", "b.py": "import json"}, docstring="")
    assert imports_in_functions(source) == [f"a.py:{head.count(chr(10)) + 3}"]


def test_a_private_name_that_leaves_its_room_is_seen(tmp_path):
    taken = "from .pipes.blocking import Pipe, _pipe\nfrom .errors import __doc__"
    source = build(
        tmp_path,
        {"errors.py": "", "aio.py": taken, "pipes/blocking.py": "", "pipes/a.py": "from .blocking import _pipe"},
    )
    assert private_imports(source) == ["aio.py:2 takes _pipe from pipes"]


def test_a_missing_docstring_is_seen(tmp_path):
    source = build(tmp_path, {"a.py": "x = 1", "b/__init__.py": "", "c.py": "# no\n"}, docstring="")
    assert files_without_docstring(source) == ["a.py", "b/__init__.py", "c.py"]


def test_a_costly_import_is_seen(tmp_path):
    many = {f"m{number}.py": "" for number in range(MOST_MODULES)}
    build(
        tmp_path,
        {**many, "__init__.py": "import asyncio\n" + "\n".join(f"from . import m{n}" for n in range(len(many)))},
    )
    heavy, count = costly_imports(tmp_path)
    assert heavy == "import sabir loads asyncio"
    assert "modules: " in count


PUBLIC_HOUSE = {
    "__init__.py": '''
from . import aio
__all__ = ["Client", "ask", "tool", "Role", "Text"]
class Client:
    """A handle."""
    def ask(self): ...
    def close(self): ...
class Text:
    """A value."""
def ask():
    """Ask."""
def tool():
    """Plain in both colours."""
Role = str | None
''',
    "aio.py": '''
__all__ = ["Client", "ask"]
class Client:
    """A handle."""
    async def ask(self): ...
    async def close(self): ...
async def ask():
    """Ask."""
''',
}


def objections(lines: Iterable[str]) -> str:
    return "\n".join(lines)


def test_sound_public_names_pass(tmp_path):
    build(tmp_path, PUBLIC_HOUSE)
    assert objections(costly_imports(tmp_path)) == ""
    assert objections(faults_in_public_names(tmp_path)) == ""
    assert objections(missing_twins(tmp_path)) == ""


@pytest.mark.parametrize(
    ("file", "old", "new", "objection"),
    [
        ("__init__.py", '"Role"', '"Rule"', "sabir.Rule cannot be got: AttributeError"),
        ("__init__.py", '"Role"', '"Text"', "sabir.__all__ has a name twice"),
        ("__init__.py", '"""A value."""', "pass", "sabir.Text has no docstring"),
        ("__init__.py", '"""Ask."""', "pass", "sabir.ask has no docstring"),
        ("aio.py", '"""Ask."""', "pass", "sabir.aio.ask has no docstring"),
        ("__init__.py", "class Text:", "Text = type('Text', (), {'__doc__': 'Text(a)'})\nclass X:", "has no docstring"),
    ],
)
def test_a_fault_in_a_public_name_is_seen(tmp_path, file, old, new, objection):
    assert old in PUBLIC_HOUSE[file]
    build(tmp_path, {**PUBLIC_HOUSE, file: PUBLIC_HOUSE[file].replace(old, new)})
    assert objection in objections(faults_in_public_names(tmp_path))


@pytest.mark.parametrize(
    ("file", "old", "new", "objection"),
    [
        ("aio.py", '"Client", ', "", "sabir.Client has no awaitable twin"),
        ("aio.py", ', "ask"', "", "sabir.ask has no awaitable twin"),
        ("__init__.py", ', "ask"', "", "sabir.aio.ask has no blocking twin"),
        ("__init__.py", "class Client", "Client = aio.Client\nclass Handle", "are the same object"),
        ("aio.py", "async def close", "async def aclose", "Client.close is missing in sabir.aio"),
        ("__init__.py", "def ask(self)", "def say(self)", "Client.ask is missing in sabir"),
    ],
)
def test_a_missing_twin_is_seen(tmp_path, file, old, new, objection):
    assert old in PUBLIC_HOUSE[file]
    build(tmp_path, {**PUBLIC_HOUSE, file: PUBLIC_HOUSE[file].replace(old, new)})
    assert objection in objections(missing_twins(tmp_path))
