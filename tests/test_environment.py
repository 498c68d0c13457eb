"""The file `.env`: what may stand in it, when it is read, and that nobody is shown what stands in it."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sabir
from sabir import ConfigurationError
from sabir.environment import MOST_BYTES, Environment, parse

SECRET = "sk-of-the-file-1b2c3d4e"
OTHER = "sk-of-the-environment-5f6a"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory of a test, where none of these variables is set."""
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "GROQ_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY", "AZURE_OPENAI_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("", {}),
        ("\n\n  \n", {}),
        ("# A=b", {}),
        ("A=b", {"A": "b"}),
        ("A=b\n", {"A": "b"}),
        ("A=b\nB=c", {"A": "b", "B": "c"}),
        ("  A =  b  \n", {"A": "b"}),
        ("export A=b", {"A": "b"}),
        ("export=b", {"export": "b"}),
        ("A=", {"A": ""}),
        ("A= # nothing", {"A": ""}),
        ("A=b # c", {"A": "b"}),
        ("A=b#c", {"A": "b#c"}),
        ("A=b c", {"A": "b c"}),
        ("A=b=c==", {"A": "b=c=="}),
        ("A=it's", {"A": "it's"}),
        ("A='b # \\n c'", {"A": "b # \\n c"}),
        ('A="b # c" # d', {"A": "b # c"}),
        ('A="b\\n\\"c\\"\\\\\\$\\q"', {"A": 'b\n"c"\\$\\q'}),
        ("A='b\nc'\nB=d", {"A": "b\nc", "B": "d"}),
        ("A=$B\nB=${A}", {"A": "$B", "B": "${A}"}),
        ("A=b\nA=c", {"A": "c"}),
        ("_a1=ключ", {"_a1": "ключ"}),
    ],
)
def test_a_line_is_a_setting_a_comment_or_empty(text, settings):
    assert parse(text) == settings


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("A", 1),
        ("A=b\n\nno setting here", 3),
        ("A: b", 1),
        ("1A=b", 1),
        ("A-B=c", 1),
        ("=b", 1),
        ("A='b", 1),
        ('# a\nA="b', 2),
        ("A='b' c", 1),
        ('A="b"c', 1),
        ("A='b\nc'\nd", 3),
        ("export A", 1),
    ],
)
def test_a_line_that_is_none_of_this_is_named_and_not_shown(text, line):
    with pytest.raises(ConfigurationError, match=rf"^\.env, line {line}: not NAME=value") as caught:
        parse(text)
    assert "setting here" not in str(caught.value)


@given(st.text(alphabet="AB=\"'\\# \t\n$x", max_size=40))
def test_any_text_is_read_or_refused(text):
    try:
        settings = parse(text)
    except ConfigurationError:
        return
    assert all(name.isidentifier() for name in settings)


@given(st.dictionaries(st.from_regex(r"[A-Z_]{1,5}", fullmatch=True), st.text(max_size=20)))
def test_what_is_written_in_quotes_is_read_as_it_was(settings):
    def quoted(value: str) -> str:
        return value.replace("\\", "\\\\").replace('"', '\\"')

    assert parse("\n".join(f'{name}="{quoted(value)}"' for name, value in settings.items())) == settings


def test_the_argument_goes_before_the_environment_and_that_before_the_file(folder, monkeypatch):
    (folder / ".env").write_text(f"export GEMINI_API_KEY = '{SECRET}' # mine\n")
    assert Environment().find("GEMINI_API_KEY") == ("GEMINI_API_KEY", SECRET, True)
    monkeypatch.setenv("GOOGLE_API_KEY", OTHER)
    assert Environment().find("GEMINI_API_KEY", "GOOGLE_API_KEY") == ("GOOGLE_API_KEY", OTHER, False)
    monkeypatch.setenv("GEMINI_API_KEY", " ")
    assert Environment().find("GEMINI_API_KEY").value == SECRET
    assert Environment().find("NO_SUCH_VARIABLE") is None
    assert os.environ["GEMINI_API_KEY"] == " "


def test_a_client_finds_its_key_in_the_file(folder):
    (folder / ".env").write_bytes(f"\ufeff# keys\r\nOPENAI_API_KEY={SECRET}\r\n".encode())
    with sabir.Client("openai:x") as client:
        shown = client.explain("?")
    assert shown.headers["authorization"] == "…"
    assert "OPENAI_API_KEY" not in os.environ


def test_the_file_is_read_once_by_a_client_and_not_where_nothing_is_missing(folder, monkeypatch):
    file = folder / ".env"
    file.write_text("this is broken")
    monkeypatch.setenv("OPENAI_API_KEY", OTHER)
    with sabir.Client("openai:x") as client:
        client.explain("?")
        file.write_text(f"GROQ_API_KEY={SECRET}")
        client.explain("?", model="groq:x")
        file.write_text("this is broken")
        with pytest.raises(ConfigurationError, match="DEEPSEEK_API_KEY"):
            client.explain("?", model="deepseek:x")
    with pytest.raises(ConfigurationError, match="line 1"):
        sabir.Client("groq:x")
    sabir.Client("groq:x", api_key=SECRET).close()
    sabir.Client("vllm:x").close()


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"OPENAI_API_KEY=\xff" + SECRET.encode(), "UnicodeDecodeError"),
        (b"#" * (MOST_BYTES + 1), "larger than"),
        (f"OPENAI_API_KEY '{SECRET}'".encode(), "line 1"),
    ],
)
def test_a_file_that_cannot_be_read_is_an_error_that_shows_nothing_of_it(folder, data, told):
    (folder / ".env").write_bytes(data)
    with pytest.raises(ConfigurationError, match=told) as caught:
        sabir.Client("openai:x")
    assert ".env" in str(caught.value)
    linked = caught.value
    while linked is not None:
        assert SECRET not in f"{linked!r}{linked}{vars(linked)}"
        linked = linked.__cause__ or linked.__context__ if not linked.__suppress_context__ else None


def test_a_folder_of_that_name_is_no_file_of_settings(folder):
    (folder / ".env").mkdir()
    with pytest.raises(ConfigurationError, match="set the environment variable OPENAI_API_KEY"):
        sabir.Client("openai:x")


def test_a_key_of_the_file_that_no_header_can_carry_is_refused(folder):
    (folder / ".env").write_text("OPENAI_API_KEY='a\nb'")
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY is no usable key"):
        sabir.Client("openai:x")


def test_the_environments_key_does_not_go_where_a_file_says(folder, monkeypatch):
    """A folder that somebody sent us could otherwise collect keys."""
    (folder / ".env").write_text("AZURE_OPENAI_ENDPOINT=https://thief.example")
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", OTHER)
    with pytest.raises(ConfigurationError, match=r"stands in \.env and its key, AZURE_OPENAI_API_KEY") as caught:
        sabir.Client("azure:x")
    assert OTHER not in str(caught.value)
    with sabir.Client("azure:x", base_url="https://thief.example/openai/v1") as client:
        assert "api-key" not in client.explain("?").headers
    # Both in one place are one person's word, and a name below a known domain leads to no stranger.
    monkeypatch.delenv("AZURE_OPENAI_API_KEY")
    (folder / ".env").write_text(f"AZURE_OPENAI_ENDPOINT=https://own.example\nAZURE_OPENAI_API_KEY={SECRET}")
    with sabir.Client("azure:x") as client:
        assert client.explain("?").url == "https://own.example/openai/v1/chat/completions"
    (folder / ".env").write_text("SNOWFLAKE_ACCOUNT=own-account")
    monkeypatch.setenv("SNOWFLAKE_PAT", OTHER)
    with sabir.Client("snowflake:x") as client:
        assert client.explain("?").url.startswith("https://own-account.snowflakecomputing.com/api/")
