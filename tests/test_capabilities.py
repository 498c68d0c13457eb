"""docs/capabilities.md says what the dialects do now, and what shows it."""

import re

import pytest
from capabilities import FORMATS, PAGE, RECORDINGS, WISHES, Format, how, page, recorded, shown_by


def told() -> str:
    return PAGE.read_text("utf-8")


def without_counts(text: str) -> str:
    return re.sub(r"\d+ rec\.( \+ )?", "", text).replace(": doc.", ": ")


def test_the_page_says_how_each_wish_is_met():
    assert without_counts(page(recorded())) == without_counts(told())


def test_the_page_says_what_shows_it():
    if not RECORDINGS.is_dir():
        pytest.skip("the recordings are not in a user's clone")
    assert page(recorded()) == told()


@pytest.mark.parametrize("column", FORMATS.values(), ids=FORMATS)
def test_a_format_answers_streams_and_calls_tools_before_somebody_elses_eyes(column: Format):
    for title in ("text", "tools"):
        assert how(column, WISHES[title]) == "native"
        assert shown_by(column, WISHES[title]) is not None, title
