"""What can be typed: commands and their options. Loads no client before a command runs, so that `--help` is quick."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar

import click

from ..version import __version__
from . import INTERRUPTED

Command = TypeVar("Command", bound=Callable[..., Any])

_LEVELS: dict[str, bool | str] = {
    "false": False,
    "true": True,
    "minimal": "minimal",
    "low": "low",
    "medium": "medium",
    "high": "high",
}


def run() -> int:
    """Run the command line on `sys.argv` and return the exit code."""
    try:
        code: int | None = sabir.main(prog_name="sabir", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return INTERRUPTED
    return code or 0


def _level(_: click.Context, __: click.Parameter, value: str | None) -> bool | int | str | None:
    if value is None or value in _LEVELS:
        return value and _LEVELS[value]
    try:
        return int(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is none of {', '.join(_LEVELS)}, and no number of tokens.") from None


_MODEL_OPTIONS = (
    click.option(
        "-m", "--model", help="provider:id, as openai:gpt-4o-mini. Else SABIR_MODEL, else Pico, the toy inside."
    ),
    click.option("-s", "--system", metavar="TEXT", help="What the model is told before anything else."),
    click.option("--max-tokens", type=int, help="The most the model may write."),
    click.option("--temperature", type=float, help="0 is the likeliest answer, higher ones vary."),
    click.option("--seed", type=int, help="The same seed gives the same answer, where the provider can."),
    click.option(
        "--thinking", metavar="LEVEL", callback=_level, help=f"{', '.join(_LEVELS)}, or the most tokens to think with."
    ),
    click.option(
        "--tool",
        "tools",
        metavar="MODULE:FUNCTION",
        multiple=True,
        help="A Python function the model may call; also from a module in this folder. Repeatable.",
    ),
    click.option("--no-tools", is_flag=True, help="Offer no tool, not even Pico's example of one, get_weather."),
    click.option("--base-url", metavar="URL", help="Where the model is served, instead of at its provider's address."),
    click.option("--timeout", metavar="SECONDS", type=float, help="The longest an answer may take.  [default: 600]"),
)


def _with_model_options(command: Command) -> Command:
    for option in reversed(_MODEL_OPTIONS):
        command = option(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", message="sabir %(version)s")
def sabir() -> None:
    """Ask any language model, in the cloud or on this machine.

    Keys are read from the environment and from .env only, each provider's own variable (OPENAI_API_KEY, GROQ_API_KEY,
    ...): an option for them would leave them in your shell's history.

    stdout is the answer and nothing else. Exit codes: 0 answered, 1 failed, 2 asked wrongly, 130 interrupted.
    """


@sabir.command()
@click.argument("prompt", nargs=-1)
@_with_model_options
@click.option("-i", "--image", "images", metavar="PATH", multiple=True, help="A picture (or its URL) to ask about.")
@click.option(
    "--schema",
    metavar="FILE_OR_JSON",
    help="A JSON Schema. The answer is JSON that fits it, printed when it is whole and has been checked.",
)
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object: text, model, usage, tool calls and more.")
@click.option("--no-stream", is_flag=True, help="Print the answer when it is whole.")
def ask(**options: Any) -> int:
    """Ask once and print the answer as it comes.

    What is piped in is added below the PROMPT, or is the prompt: cat notes.txt | sabir ask "Summarise this". Standard
    input that is no terminal is always read to its end; put </dev/null behind the command where that is unwanted.
    """
    code: int = _loaded().ask(**options)
    return code


@sabir.command()
@_with_model_options
def chat(**options: Any) -> int:
    """Talk with a model, line by line.

    /new begins a new conversation, /exit or Ctrl-D ends it, Ctrl-C stops an answer. Piped in, each line is one turn.
    """
    code: int = _loaded().chat(**options)
    return code


@sabir.command()
@click.argument("url")
@click.option("-m", "--model", help="The model to ask, as its server calls it; the only one, if none is named.")
@click.option("--key-variable", metavar="NAME", help="The environment variable that holds the server's key, if any.")
@click.option("--timeout", metavar="SECONDS", type=float, help="The longest it may take in all.  [default: 120]")
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object.")
def probe(**options: Any) -> int:
    """Find out what the server of chat completions at URL does, by a few small requests.

    It is kept, by URL and model, in your cache folder: models of openai-compat at this URL are then known to have or
    not to have tools and schemas, and by their context. Ask again when the server has changed.
    """
    code: int = _loaded().probe(**options)
    return code


@sabir.command()
@click.argument("model")
@click.option("--base-url", metavar="URL", help="Where the server is, instead of at its provider's address.")
@click.option("--timeout", metavar="SECONDS", type=float, help="The longest it may take in all.  [default: no limit]")
def pull(**options: Any) -> int:
    """Have the server on this machine fetch MODEL, as llama3.2:1b or ollama:llama3.2:1b, and see how far it is.

    Ctrl-C ends it; what has come is kept, and goes on with the next pull.
    """
    code: int = _loaded(".pulls").pull(**options)
    return code


@sabir.command("lint-schema")
@click.argument("what", metavar="FILE_OR_TYPE...", nargs=-1, required=True)
@click.option("--json", "is_json", is_flag=True, help="Print JSON objects.")
def lint_schema(**options: Any) -> int:
    """Say which providers a schema will trouble, and how. Asks nobody.

    A FILE holds a JSON Schema, or a list of tools as an MCP server, OpenAI or Anthropic have it; a TYPE is
    MODULE:NAME. Exits with 1 where a provider is troubled.
    """
    code: int = _loaded(".schemas").lint(**options)
    return code


@sabir.command()
@click.argument("what", metavar="[PROVIDER | refresh]", required=False)
@click.option("--url", metavar="URL", help="Where to refresh from.  [default: SABIR_MODELS_URL, else models.dev]")
@click.option("--json", "is_json", is_flag=True, help="Print one JSON list; what is not known is null.")
def models(**options: Any) -> int:
    """Show what is known of models: what they can do, take and cost, and since when.

    `sabir models refresh` fetches newer facts from models.dev and keeps them in your cache folder. Nothing else ever
    does.
    """
    code: int = _loaded(".models").models(**options)
    return code


def _loaded(room: str = ".talk") -> Any:
    return import_module(room, __package__)
