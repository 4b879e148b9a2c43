"""Long lists of chunks are cut into pages, lazily and by size."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from supabase_chunks import PayloadError
from supabase_chunks._pages import pages, pages_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


def test_a_short_list_is_one_last_page() -> None:
    assert list(pages([{"n": 1}, {"n": 2}])) == [([{"n": 1}, {"n": 2}], True)]


def test_no_chunks_and_an_empty_list_are_different_things() -> None:
    assert list(pages(None)) == [(None, True)]
    assert list(pages([])) == [([], True)]


@pytest.mark.parametrize(("count", "sizes"), [(1000, [1000]), (1001, [1000, 1]), (2500, [1000, 1000, 500])])
def test_pages_have_a_thousand_chunks_and_only_the_last_says_so(count: int, sizes: list[int]) -> None:
    cut = list(pages({"n": n} for n in range(count)))
    assert [len(page or []) for page, _ in cut] == sizes
    assert [last for _, last in cut] == [False] * (len(sizes) - 1) + [True]
    assert [chunk["n"] for page, _ in cut for chunk in page or [] if isinstance(chunk, dict)] == list(
        range(count)
    )


def test_pages_have_at_most_a_megabyte() -> None:
    cut = list(pages({"text": "ä" * 150_000} for _ in range(10)))
    assert len(cut) == 4
    assert all(len(json.dumps(page, ensure_ascii=False).encode()) < 1_001_000 for page, _ in cut)


def test_a_generator_is_read_no_further_than_the_page_needs() -> None:
    read = 0

    def endless() -> Iterator[dict[str, int]]:
        nonlocal read
        while True:
            read += 1
            yield {"n": read}

    for _page, _last in pages(endless()):
        break
    assert read == 1001


def test_the_error_names_the_chunk_by_its_place_in_the_whole() -> None:
    with pytest.raises(PayloadError, match=r"chunks\[1500\]\.x"):
        list(pages({"x": float("nan") if n == 1500 else n} for n in range(2000)))


@pytest.mark.parametrize("wrong", ["text", b"bytes", {"a": 1}, 7])
def test_something_else_than_a_list_of_chunks_is_an_error(wrong: object) -> None:
    with pytest.raises(PayloadError, match="chunks: must be an iterable"):
        list(pages(wrong))  # type: ignore[arg-type]  # the very mistake


def test_the_values_of_a_pandas_column_become_objects_under_its_name() -> None:
    pandas = pytest.importorskip("pandas")
    column = pandas.DataFrame({"user": [1, 2]})["user"]
    assert list(pages(column)) == [([{"user": 1}, {"user": 2}], True)]


def test_the_rows_of_a_pandas_frame_become_objects() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"user": [1, 2], "name": ["a", "b"]})
    assert list(pages(frame)) == [([{"user": 1, "name": "a"}, {"user": 2, "name": "b"}], True)]


async def test_async_iterables_are_paged_alike() -> None:
    async def source() -> AsyncIterator[dict[str, int]]:
        for n in range(1001):
            yield {"n": n}

    assert [(len(page or []), last) async for page, last in pages_async(source())] == [
        (1000, False),
        (1, True),
    ]
    assert [page async for page in pages_async([{"n": 1}])] == [([{"n": 1}], True)]


@pytest.mark.parametrize("names", [["id", "value", "value"], [1, "x", "1"]])
def test_two_columns_of_one_name_are_refused_before_anything_is_given(names: list[Any]) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame([[1, "left", "right"], [2, "l", "r"]], columns=names)
    with pytest.raises(PayloadError, match=f"two columns are called '{names[-1]}'"):
        next(iter(pages(frame)))


def columns_of(values: list[Any]) -> list[Any]:
    """A column of a frame and a Series whose 2,501st value is the second of these."""
    pandas = pytest.importorskip("pandas")
    column = [values[0]] * 2500 + values[1:]
    return [pandas.DataFrame({"n": range(2501), "score": column}), pandas.Series(column, name="score")]


@pytest.mark.parametrize("wrong", [float("inf"), -float("inf")])
def test_an_infinite_value_far_down_is_named_before_anything_is_given(wrong: float) -> None:
    for data in columns_of([1.5, wrong]):
        with pytest.raises(PayloadError, match="infinite") as error:
            next(iter(pages(data)))
        assert error.value.path == "chunks[2500].score"


@pytest.mark.parametrize(
    "values",
    [[1.5, float("nan")], ["a", None], [datetime(2026, 1, 1), None], [{"deep": 1}, None], [True, None]],
)
def test_a_missing_value_becomes_null(values: list[Any]) -> None:
    for data in columns_of(values):
        *_, (page, _) = pages(data)
        assert page is not None
        assert page[-1]["score"] is None
        assert page[-2].get("score", values[0]) is not None


def test_a_frame_gives_the_values_of_its_types() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {
            "n": pandas.array([1, 2], dtype="Int64"),
            "at": pandas.to_datetime(["2026-01-01", "2026-01-02"], utc=True),
            "kind": pandas.Categorical(["a", "b"]),
            "tags": [["x"], []],
            "ok": [True, False],
        }
    )
    ((page, last),) = pages(frame)
    assert last
    assert page is not None
    assert page[0] == {"n": 1, "at": "2026-01-01T00:00:00+00:00", "kind": "a", "tags": ["x"], "ok": True}
