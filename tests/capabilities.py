"""Makes docs/capabilities.md: what each format can do, how, and what shows it. `python tests/capabilities.py` does it.

How a wish is met is found by asking the dialect for the request; what shows it, by counting the recorded exchanges that
were answered and have the feature, by the tests in which the vendor's SDK uses our server half, and by those with the
model inside.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from sabir.dialects import Dialect
from sabir.errors import SabirError
from sabir.messages import Audio, File, Image, user
from sabir.providers import PROVIDERS
from sabir.requests import OutputSchema, Request, ToolSpec
from sabir.structured import way_of

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "capabilities.md"
RECORDINGS = HERE.parent.parent / "shared" / "recordings"

SHAPE = {"type": "object", "properties": {"x": {"type": "string"}}, "required": ["x"], "additionalProperties": False}
TOOL = ToolSpec("look", "Look around.", SHAPE)
SCHEMA = OutputSchema("answer", SHAPE)
PIXEL, SOUND = Image(data=b"\x89PNG\r\n\x1a\n", media_type="image/png"), Audio(data=b"RIFF", media_type="audio/wav")
PDF = File(data=b"%PDF-1.7", media_type="application/pdf", name="a.pdf")
FILM = File(data=b"....ftyp", media_type="video/mp4", name="a.mp4")


INTRODUCTION = """\
Made by `python tests/capabilities.py`; `tests/test_capabilities.py` fails where it is no longer true. Each cell says
how a wish is met (`native`, by a `tool` or in a `prompt` instead, by a `grammar` in this process, `automatic`, which
takes no asking, or `refused`, which is a warning or an error before anything is sent), and what shows it: answered
exchanges that were recorded (`rec.`), the vendor's own SDK as a client of our server half (`SDK`), the model inside
(`model`), or its documentation alone (`doc.`). What one model of a provider can do is another question:
[model-facts.md](model-facts.md)."""


class Format(NamedTuple):
    """A column: the row and model that stand for a format, its recordings, and the tests with its vendor's SDK."""

    row: str
    model: str
    recordings: str | None
    tests: str
    prefix: str = "test_"


FORMATS = {
    "openai_chat": Format("openai-chat", "gpt-5.1", "openai-chat", "test_sdk_clients.py", "test_openai"),
    "openai_responses": Format("openai-responses", "gpt-5.1", "openai-responses", "test_openai_responses_sdk.py"),
    "anthropic": Format(
        "anthropic", "claude-sonnet-4-6", "anthropic-messages", "test_sdk_clients.py", "test_anthropic"
    ),
    "gemini": Format("gemini", "gemini-3.5-flash", "gemini", "test_gemini_sdk.py"),
    "bedrock": Format(
        "bedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", "bedrock-converse", "test_bedrock_sdk.py"
    ),
    "mistral": Format("mistral", "mistral-medium-latest", "mistral", "test_mistral_sdk.py"),
    "cohere": Format("cohere", "command-a-03-2025", "cohere", "test_cohere_sdk.py"),
    "ollama": Format("ollama", "qwen3", "ollama", "test_ollama_sdk.py"),
    "in process": Format("pico", "pico", None, "test_engine.py"),
}


class Wish(NamedTuple):
    """A row: what is asked for, the tags that a recording of it has, and the names of tests that show it."""

    fields: dict[str, Any]
    tags: tuple[str, ...] = ()
    tests: str = "(?!)"
    subjects: tuple[str, ...] = ()
    ability: str | None = None


def asking(*parts: Any) -> dict[str, Any]:
    return {"messages": (user("What is this?", *parts),)}


WISHES = {
    "text": Wish({}, (), "answered|holds_a_conversation|speaks|knows"),
    "streams": Wish({"stream": True}, ("(stream)",), "streams_what"),
    "tools": Wish({"tools": (TOOL,)}, ("tool_calls",), "tools?_(is|are)_called|tool_call_comes"),
    "several calls at once": Wish({"tools": (TOOL,)}, ("parallel_tools",), "parallel"),
    "a tool that must be called": Wish(
        {"tools": (TOOL,), "tool_choice": "required"},
        ("tool_choice",),
        "choice_of_tools|force_a_tool",
        ("tool_choice",),
    ),
    "an answer of a schema": Wish({"schema": SCHEMA}, ("json_schema",), "schema", ("schema",)),
    "the same beside tools": Wish({"schema": SCHEMA, "tools": (TOOL,)}, ("json_schema", "tools"), "(?!)", ("schema",)),
    "thinking": Wish({"thinking": "low"}, ("thinking",), "thinking|reasoning|thinks", ("thinking",)),
    "images": Wish(asking(PIXEL), ("images",), ability="vision"),
    "sounds": Wish(asking(SOUND), ("audio",), ability="audio"),
    "PDF": Wish(asking(PDF), ("documents",), ability="pdf"),
    "video": Wish(asking(FILM), ("video",), ability="video"),
    "kept prompts": Wish({"cache": True, "tools": (TOOL,)}, ("cache",), "(?!)", ("cache",)),
    "documents to cite": Wish({"documents": ("The fox is red.",)}, ("citations",), "(?!)", ("documents",)),
    "several answers": Wish({"n": 2}, ("multi_choice",), "(?!)", ("n",)),
    "log probabilities": Wish({"logprobs": True}, ("logprobs",), "(?!)", ("logprobs",)),
    "a seed": Wish({"seed": 1}, ("seed",), "(?!)", ("seed",)),
    "stop texts": Wish({"stop": ("x",)}, ("stop_sequences",), "limits_end", ("stop",)),
    "a limit of tokens": Wish({"max_tokens": 9}, ("truncated",), "limits_end", ()),
}

SERVICES: dict[str, Callable[[Any], Any]] = {
    "embeddings": lambda row: row.embeddings,
    "rerank": lambda row: row.rerank,
    "raw completion": lambda row: row.completions,
    "batches": lambda row: row.batches,
    "pictures made": lambda row: row.images,
    "speech": lambda row: row.speech,
    "transcripts": lambda row: row.transcripts,
    "pull": lambda row: row.pull,
}


def how(column: Format, wish: Wish) -> str:
    """How a wish is met: natively, in another way, or not."""
    row = PROVIDERS[column.row]
    dialect: Dialect = row.dialect
    if wish.ability is not None and row.capabilities is not None and wish.ability not in row.capabilities:
        return "refused"
    request = Request(**{"model": column.model, "messages": (user("?"),), **wish.fields})
    mode = None
    try:
        if request.schema is not None:
            way = way_of(request, dialect.schema_modes, None, is_held=None, calls_tools=None)
            mode = "grammar" if way.mode == "native" and row.engine is not None else way.mode
            schema = msgspec.structs.replace(request.schema, mode=way.mode)
            request = msgspec.structs.replace(request, schema=schema if way.wrap is None else None)
        _, notices = dialect.encode_request(request)
    except SabirError:
        return "refused"
    if any(notice.kind == "unsupported" and notice.subject in wish.subjects for notice in notices):
        return "refused"
    if "cache" in wish.subjects and any(notice.subject == "cache" for notice in notices):
        return "automatic"
    return mode or "native"


def recorded(folder: Path = RECORDINGS) -> Counter[tuple[str, str]]:
    """How many answered exchanges of each format have each of the wishes' tags."""
    counts: Counter[tuple[str, str]] = Counter()
    for exchange in _answered(folder):
        tags = {*exchange.get("features", ()), *(("(stream)",) if exchange.get("stream") else ())}
        for title, wish in WISHES.items():
            if tags.issuperset(wish.tags):
                counts[exchange["dialect"], title] += 1
    return counts


def _answered(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text("utf-8").splitlines():
            exchange = json.loads(line)
            if (exchange.get("response") or {}).get("status") == 200:
                yield exchange


def shown_by(column: Format, wish: Wish) -> str | None:
    """The first test that shows it with the vendor's SDK, or with the model inside."""
    names = re.findall(rf"^(?:async )?def ({column.prefix}\w+)", (HERE / column.tests).read_text("utf-8"), re.M)
    return next((name for name in names if re.search(wish.tests, name)), None)


def cell(column: Format, title: str, counts: Counter[tuple[str, str]]) -> str:
    wish = WISHES[title]
    way = how(column, wish)
    if way == "refused":
        return "refused"
    shown = []
    if column.recordings is not None and (count := counts[column.recordings, title]):
        shown.append(f"{count} rec.")
    if shown_by(column, wish):
        shown.append("SDK" if column.recordings else "model")
    return f"{way}: {' + '.join(shown) or 'doc.'}"


def page(counts: Counter[tuple[str, str]]) -> str:
    """The whole page, in Markdown."""
    lines = [
        "# What each format can do, and what shows it",
        "",
        *INTRODUCTION.splitlines(),
        "",
        f"| | {' | '.join(FORMATS)} |",
        f"|---|{'---|' * len(FORMATS)}",
    ]
    for title in WISHES:
        cells = [cell(column, title, counts) for column in FORMATS.values()]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    lines += [
        "",
        "The models that stand for the formats: "
        + ", ".join(f"`{each.row}:{each.model}`" for each in FORMATS.values() if each.recordings)
        + ", and Pico.",
        "",
        "## What providers have beside conversations",
        "",
        "| | providers |",
        "|---|---|",
    ]
    for title, has in SERVICES.items():
        names = [f"`{name}`" for name, row in PROVIDERS.items() if has(row) is not None]
        lines.append(f"| {title} | {', '.join(names)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(recorded()), "utf-8")
