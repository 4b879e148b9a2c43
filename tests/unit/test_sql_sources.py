"""How the SQL in supabase/schemas is written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

SCHEMAS = Path(__file__).parents[2] / "supabase" / "schemas"
TEXTS = {path.stem: path.read_text(encoding="utf-8") for path in sorted(SCHEMAS.glob("*.sql"))}
LONGEST = 85  # lines of a function, more or less eighty


class Function(NamedTuple):
    """A function's definition, and the comment right above it."""

    name: str
    comment: str
    text: str


FUNCTIONS = [
    Function(found["name"], found["comment"], found["text"])
    for text in TEXTS.values()
    for found in re.finditer(
        r"(?P<comment>(?:^--.*\n)*)"
        r"(?P<text>^create or replace function (?P<name>[\w.]+)\((?s:.*?)^(?:as )?\$\$(?:.*\$\$)?;)",
        text,
        re.MULTILINE,
    )
]


def test_every_function_is_found() -> None:
    made = re.findall(r"^create or replace function ([\w.]+)", "\n".join(TEXTS.values()), re.MULTILINE)
    assert [function.name for function in FUNCTIONS] == made


@pytest.mark.parametrize("name", TEXTS)
def test_nothing_is_set_to_what_bears_its_name(name: str) -> None:
    """`error = error` reads as a bug: an argument like a column is written with its function's name."""
    assert re.findall(r"(?<![\w.])(\w+) = \1(?![\w.(])", without_comments(TEXTS[name])) == []


@pytest.mark.parametrize("name", TEXTS)
def test_columns_are_named_one_by_one(name: str) -> None:
    assert re.findall(r".*select \*.*", without_comments(TEXTS[name])) == []


def test_a_function_is_short_or_says_why_not() -> None:
    long = [function for function in FUNCTIONS if function.text.count("\n") >= LONGEST]
    assert [function.name for function in long if "One body" not in function.comment] == []
    # Its phases have headings then.
    assert [
        function.name for function in long if len(re.findall(r"^  -- [A-Z]", function.text, re.MULTILINE)) < 3
    ] == []


def test_the_largest_number_of_items_is_written_once() -> None:
    assert {name: text.count("9007199254740991") for name, text in TEXTS.items() if "9007199" in text} == {
        "20_checks": 1
    }


def without_comments(text: str) -> str:
    """Without what follows two dashes."""
    return re.sub(r"--.*", "", text)
