"""Where one SQL statement of a file ends and the next begins."""

from __future__ import annotations

import pytest

from supabase_chunks.local.statements import split


@pytest.mark.parametrize(
    "statement",
    [
        "select ';', 'it''s;', e'\\';', \"a;\"\"b\"",
        "do $$ begin perform 1; end $$",
        "do $body$ begin perform $$;$$; end $body$",
        "create rule r as on insert to a do also (select 1; select 2)",
        "create function f() returns int begin atomic select case when true then 1 end; select 2; end",
        "CREATE OR REPLACE PROCEDURE f() BEGIN ATOMIC SELECT 1; END",
        "select 1 -- ; not yet\n + 2",
        "select 1 /* ; /* ; */ ; */ + 2",
        "select a$1 from t where b = $1",
        "begin",
        "123",
        "select 'unfinished;",
    ],
)
def test_a_semicolon_inside_ends_nothing(statement: str) -> None:
    assert [found.text for found in split(f"-- first;\n select 1;{statement}")] == ["select 1", statement]
    if "unfinished" not in statement:
        assert [found.text for found in split(f"{statement};;\nselect 2 ;")] == [statement, "select 2 "]


def test_a_statement_begins_after_the_comments_before_it() -> None:
    text = "-- a\n/* b */ create table x ();\n\n-- c\nalter table x; -- d\n"
    assert [(found.start, found.words) for found in split(text)] == [
        (text.index("create"), ["create", "table", "x"]),
        (text.index("alter"), ["alter", "table", "x"]),
    ]


@pytest.mark.parametrize("text", ["", "  \n", "-- nothing\n", "/* nothing", ";;"])
def test_nothing(text: str) -> None:
    assert list(split(text)) == []
