"""What a server of chat completions does with each portable option, tried on the server itself. Knows no provider.

An option that is taken without an error counts as held; where an option can be seen in the answer, it has to be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ..client import Client
from ..dialects import Unsupported
from ..errors import AuthenticationError, ConnectError, SabirError
from ..probing import probe
from ..providers import PROVIDERS
from ..requests import Response
from ..server_facts import ServerFacts
from .laws import BESIDE, SAMPLES, Law, verdicts_of

_ROW = "openai-compat"
_HELLO = "Say hello."
_LONG = "Count from 1 to 9, in digits."
# A strict server may refuse what nobody knows; tools and schemas are what `probe` asks for.
_NOT_ASKED = frozenset({"extra", "headers", "schema", "tool_choice"})


def laws_of_server(url: str, model: str | None, api_key: str | None) -> list[Law]:
    """Try every option on a server.

    Raises:
        SabirError: it cannot be reached, refuses the key, or answers not even a plain question.
    """
    facts = probe(url, model, api_key=api_key)
    with Client(
        f"{_ROW}:{facts.model}", base_url=url, api_key=api_key, on_unsupported="ignore", max_attempts=2
    ) as client:
        trials = (("answers", _answers(facts)), ("options", _options(client)), ("effects", _effects(client)))
        laws: list[Law] = []
        for name, flaws in trials:
            law = Law(name)
            for flaw in flaws:
                law.count(flaw)
            laws.append(law)
        return laws


def _answers(facts: ServerFacts) -> Iterator[str | None]:
    for what, does in (
        ("lists its models", bool(facts.models)),
        ("streams", facts.streams),
        ("tells the usage of a stream", facts.usage_in_streams),
        ("calls tools", facts.tools),
        ("keeps to a schema", facts.structured),
    ):
        yield None if does else f"not seen: it {what}"


def _options(client: Client) -> Iterator[str | None]:
    for name, verdict in verdicts_of(PROVIDERS[_ROW].dialect).items():
        if not isinstance(verdict, Unsupported) and name not in _NOT_ASKED:
            yield _refusal(client, name, {name: SAMPLES[name], **BESIDE.get(name, {})})


def _refusal(client: Client, name: str, options: dict[str, Any]) -> str | None:
    asked: dict[str, Any] = {"max_tokens": 20, **options}
    try:
        client.ask(_HELLO, **asked)
    except (AuthenticationError, ConnectError):
        raise
    except SabirError as error:
        return f"{name} is refused: {error}"
    return None


def _effects(client: Client) -> Iterator[str | None]:
    checks: tuple[tuple[str, dict[str, Any], Callable[[Response[Any]], bool]], ...] = (
        ("max_tokens", {"max_tokens": 3}, lambda it: it.finish_reason == "length"),
        ("stop", {"stop": ["5"], "max_tokens": 200, "temperature": 0.0}, lambda it: "5" not in it.text),
        ("n", {"n": 2, "max_tokens": 20}, lambda it: len(it.choices) == 2),
        (
            "logprobs",
            {"logprobs": True, "max_tokens": 20},
            lambda it: any(getattr(part, "notes", ()) for part in it.message.parts),
        ),
        ("usage", {"max_tokens": 20}, lambda it: bool(it.usage.input_tokens and it.usage.output_tokens)),
    )
    for name, options, is_seen in checks:
        try:
            answer = client.ask(_LONG, **options)
        except SabirError as error:
            yield f"{name} is refused: {error}"
            continue
        yield None if is_seen(answer) else f"{name} has no effect"
