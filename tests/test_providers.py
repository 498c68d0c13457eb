"""The table of providers: what a row added at run time must have, and that it is then like any other."""

from __future__ import annotations

import pytest

import sabir
from sabir import ConfigurationError, Provider, providers, register_provider
from sabir.providers import has_provider, parse_model


@pytest.fixture(autouse=True)
def own_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of providers for one test alone."""
    monkeypatch.setattr(providers, "PROVIDERS", dict(providers.PROVIDERS))


def test_a_row_that_was_added_is_found_by_its_name():
    row = Provider("my-host", url="http://localhost:1234/v1", capabilities=frozenset({"tools"}))
    with pytest.raises(ConfigurationError, match="unknown provider 'my-host'"):
        parse_model("my-host:m")
    register_provider(row)
    assert has_provider("my-host:m")
    named = parse_model("my-host:m")
    assert (named.provider, named.id, named.capabilities) == (row, "m", {"tools"})
    with pytest.raises(ConfigurationError, match="did you mean 'my-host'"):
        parse_model("my-hst:m")
    with sabir.Client("my-host:m") as client:
        assert client.explain("?").url == "http://localhost:1234/v1/chat/completions"


def test_a_row_may_have_an_engine_in_place_of_an_address():
    register_provider(Provider("mine", engine="llama_cpp"))
    assert parse_model("mine:some.gguf").provider.engine == "llama_cpp"


@pytest.mark.parametrize(
    ("row", "objection"),
    [
        (Provider("openai", url="http://localhost/v1"), "there is a provider 'openai' already"),
        (Provider("pico", engine="llama_cpp"), "there is a provider 'pico' already"),
        *(
            (Provider(name, url="http://localhost/v1"), "one word without")
            for name in ("", "a:b", "a@b", "a;b", "a b", "a\tb", "a\n", "\u00a0", 5)
        ),
        (Provider("mine"), "neither an address"),
        (Provider("mine", url=""), "must look like"),
        (Provider("mine", url="localhost:8080"), "must look like"),
        (Provider("mine", url="http://key:secret@localhost"), "password"),
        ("openai", "takes a Provider, not str"),
    ],
)
def test_a_row_that_cannot_be_asked_for_is_refused(row, objection):
    before = dict(providers.PROVIDERS)
    with pytest.raises(ConfigurationError, match=objection):
        register_provider(row)
    assert before == providers.PROVIDERS
